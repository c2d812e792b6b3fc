"""Image to latent: residual levels, each half the resolution and twice the channels of the one before."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from thyroid_jax.config import ModelConfig
from thyroid_jax.model.layers import Normalize, ResidualBlock, compute_dtype, halve, squares_to_channels
from thyroid_jax.shapes import Array, Float


def level_channels(config: ModelConfig) -> tuple[int, ...]:
    """Channels of every level, finest first; the last level holds the latent."""
    levels = config.depth + config.full_resolution
    return tuple(min(config.width * 2**level, config.max_width) for level in range(levels))


class Encoder(nn.Module):
    """f32[b h w 1] in [0, 1] -> the latent f32[b h/2^depth w/2^depth c] and one skip for every finer level, finest
    first.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 1"]) -> tuple[Float[Array, "b y x c"], tuple[jnp.ndarray, ...]]:
        config, dtype = self.config, compute_dtype(self.config.dtype)
        channels = level_channels(config)
        x = (image - 0.25) / 0.25  # near zero mean, unit variance for B-mode images
        x = x if config.full_resolution else squares_to_channels(x)
        x = nn.Conv(channels[0], (3, 3), dtype=dtype)(x)
        skips = []
        for level, width in enumerate(channels):
            x = x if level == 0 else halve(x)
            for _ in range(config.blocks):
                x = ResidualBlock(width, config.groups, dtype)(x)
            skips.append(x)
        # Pre-activation blocks end in a sum: normalised and activated, features that are rare in space
        # survive the heads' average.
        return nn.silu(Normalize(config.groups, dtype)(x)), tuple(skips[:-1])
