"""Residual levels, each with half the resolution and twice the channels (at most ``max_width``) of the one before."""

from __future__ import annotations

import flax.linen as nn

from thyroid_jax.model.config import NetworkConfig
from thyroid_jax.model.layers import (
    Normalize,
    ResidualBlock,
    biased,
    compute_dtype,
    halve,
    recomputed,
    squares_to_channels,
)
from thyroid_jax.shapes import Array, Float


def level_channels(config: NetworkConfig) -> tuple[int, ...]:
    """Channels of every level, finest first; the last level holds the latent."""
    levels = config.depth + config.full_resolution
    return tuple(min(config.width * 2**level, config.max_width) for level in range(levels))


class Residual(nn.Module):
    """Image f32[b h w 1] in [0, 1] to the latent f32[b h/2^depth w/2^depth c], and a skip for every finer level.

    ``after`` runs the tail alone: the input is then the output of level ``after``, and the skips are those of the
    levels behind it. The same parameters serve both.
    """

    config: NetworkConfig

    @staticmethod
    def strides(config: NetworkConfig) -> tuple[int, ...]:
        """Stride of every skip, finest first."""
        first = 0 if config.full_resolution else 1
        return tuple(2 ** (level + first) for level in range(len(level_channels(config)) - 1))

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, after: int = -1
    ) -> tuple[Float[Array, "b y x d"], tuple[Array, ...]]:
        config, dtype = self.config, compute_dtype(self.config.dtype)
        channels = level_channels(config)
        if after < 0:
            x = (x - 0.25) / 0.25  # near zero mean, unit variance for B-mode images
            x = x if config.full_resolution else squares_to_channels(x)
            x = biased(nn.Conv, channels[0], (3, 3), dtype=dtype, name="Conv_0")(x)
        skips, block_of = [], recomputed(ResidualBlock, config.remat)
        for level in range(after + 1, len(channels)):
            x = x if level == 0 else halve(x)
            for block in range(config.blocks):
                name = f"ResidualBlock_{level * config.blocks + block}"
                x = block_of(channels[level], config.groups, dtype, name=name)(x)
            skips.append(x)
        # Pre-activation blocks end in a sum, so the latent is normalised and activated here. Features that are rare in
        # space then survive the heads' average.
        return nn.silu(Normalize(config.groups, dtype, name="Normalize_0")(x)), tuple(skips[:-1])
