"""Latent and skips to mask logits, as in a U-Net."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from thyroid_jax.model.config import ModelConfig
from thyroid_jax.model.layers import Normalize, channels_to_squares, compute_dtype, double, kept, recomputed
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
        x = z
        for number, skip in enumerate(reversed(skips)):
            x = recomputed(partial(_level, number=number), self.config.remat)(self, x, skip)
        x = recomputed(partial(_last, levels=len(skips)), self.config.remat)(self, x)
        while x.shape[-1] > 1:
            x = channels_to_squares(x)
        return x[..., 0]


def _level(decoder: Decoder, x: Array, skip: Array, *, number: int) -> Array:
    """The level ``number``, coarsest first: the coarser level's output and a skip -> this level's output."""
    config, dtype = decoder.config, compute_dtype(decoder.config.dtype, behind_latent=True)
    c, layers = min(skip.shape[-1], config.max_width), 2 + config.blocks
    conv = lambda place, side: nn.Conv(
        c, (side, side), use_bias=False, dtype=dtype, name=f"Conv_{number * layers + place}"
    )
    active = lambda place, x: _active(decoder, x, number * (layers - 1) + place)
    skip = skip.astype(x.dtype if dtype is None else dtype)
    # reduce the channels before the image grows
    x = kept(double(conv(0, 1)(x)) + conv(1, 3)(active(0, skip)))
    for block in range(1, config.blocks + 1):
        x = kept(x + conv(block + 1, 3)(active(block, x)))
    return x


def _last(decoder: Decoder, x: Array, *, levels: int) -> Array:
    """The finest level's output -> logits, one channel for each pixel of a square of stride x stride pixels."""
    blocks = decoder.config.blocks
    # A nodule fills about a tenth of an image: the initial probability is near that, not one half.
    tenth, name = nn.initializers.constant(-2.0), f"Conv_{levels * (2 + blocks)}"
    return nn.Conv(decoder.stride**2, (1, 1), bias_init=tenth, name=name)(_active(decoder, x, levels * (1 + blocks)))


def _active(decoder: Decoder, x: Array, number: int) -> Array:
    config = decoder.config
    dtype = compute_dtype(config.dtype, behind_latent=True)
    return nn.silu(Normalize(config.groups, dtype, name=f"Normalize_{number}")(x))
