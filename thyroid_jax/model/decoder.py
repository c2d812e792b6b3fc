"""Latent and skips to mask logits, as in a U-Net."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from thyroid_jax.model.config import ModelConfig
from thyroid_jax.model.layers import Normalize, channels_to_squares, compute_dtype, double
from thyroid_jax.shapes import Array, Float


class Decoder(nn.Module):
    """Latent f32[b y x c] and skips, finest first -> mask logits f32[b h w].

    Every level upsamples the coarser level, adds a convolution of its skip, and refines the sum. The part that depends
    on the skips alone is computed separately from the part that comes from z: the second-order pass of the angular
    penalty starts at the latent and leaves the skips' part out.

    A level has the channels of its skip, at most ``config.max_width``. ``stride`` is that of the finest level: each of
    its pixels gives the logits of a square of stride x stride pixels.
    """

    config: ModelConfig
    stride: int

    @nn.compact
    def __call__(self, z: Float[Array, "b y x c"], skips: tuple[jnp.ndarray, ...]) -> Float[Array, "b h w"]:
        config, dtype = self.config, compute_dtype(self.config.dtype, behind_latent=True)
        active = lambda x: nn.silu(Normalize(config.groups, dtype)(x))
        x = z
        for skip in reversed(skips):
            c = min(skip.shape[-1], config.max_width)
            conv = lambda kernel, c=c: nn.Conv(c, (kernel, kernel), use_bias=False, dtype=dtype)
            skip = skip.astype(z.dtype if dtype is None else dtype)
            x = double(conv(1)(x)) + conv(3)(active(skip))  # reduce the channels before the image grows
            for _ in range(config.blocks):
                x = x + conv(3)(active(x))
        x = active(x)
        # A nodule fills about a tenth of an image: the initial probability is near that, not one half.
        x = nn.Conv(self.stride**2, (1, 1), bias_init=nn.initializers.constant(-2.0))(x)
        while x.shape[-1] > 1:
            x = channels_to_squares(x)
        return x[..., 0]
