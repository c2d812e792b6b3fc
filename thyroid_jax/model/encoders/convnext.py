"""ConvNeXt-Tiny. Source: Liu et al., arXiv 2201.03545. Its normalisation is per pixel, so nothing has to be folded."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from thyroid_jax.model.config import NetworkConfig
from thyroid_jax.model.depthwise import DepthwiseConv
from thyroid_jax.model.encoders import imagenet
from thyroid_jax.model.layers import biased, compute_dtype, kept, recomputed
from thyroid_jax.shapes import Array, Float

BLOCKS = (3, 3, 9, 3)
CHANNELS = (96, 192, 384, 768)


class ConvNeXt(nn.Module):
    """Image f32[b h w 1] in [0, 1] to the last stage's output f32[b h/32 w/32 768], and a skip for every finer level.

    The skips are the stages' outputs at strides 4, 8 and 16: the stem goes to stride 4 at once, and there is no level
    at stride 2. The decoder ends at stride 4 and gives the logits of 4 x 4 pixels from each of its own.

    ``after`` runs the tail alone: the input is then the output of level ``after``, and the skips are those of the
    levels behind it. The same parameters serve both.
    """

    config: NetworkConfig
    blocks: tuple[int, ...] = BLOCKS
    channels: tuple[int, ...] = CHANNELS

    @staticmethod
    def strides(config: NetworkConfig) -> tuple[int, ...]:
        """Stride of every skip, finest first."""
        return 4, 8, 16

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, after: int = -1
    ) -> tuple[Float[Array, "b y x d"], tuple[Array, ...]]:
        dtype = compute_dtype(self.config.dtype)
        patches = lambda channels, side, name: biased(
            nn.Conv, channels, (side, side), side, "VALID", dtype=dtype, name=name
        )
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=dtype)
        x = imagenet.normalized(x) if after < 0 else x
        outputs, block_of = [], recomputed(ConvNeXtBlock, self.config.remat)
        for level in range(after + 1, len(self.blocks)):
            if level == 0:
                x = norm(name="stem_norm")(patches(self.channels[0], 4, "stem")(x))
            else:
                x = patches(self.channels[level], 2, f"halve{level}")(norm(name=f"halve{level}_norm")(x))
            for block in range(self.blocks[level]):
                x = block_of(dtype, name=f"level{level}_block{block}")(x)
            outputs.append(x)
        return outputs[-1], tuple(outputs[:-1])


class ConvNeXtBlock(nn.Module):
    """x + scale * W2 gelu(W1 norm(depthwise 7 x 7 of x)), four times as wide in between; GELU without approximation."""

    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        c = x.shape[-1]
        y = kept(DepthwiseConv(7, 1, self.dtype, name="depthwise")(x))
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(y)
        y = nn.gelu(kept(biased(nn.Dense, 4 * c, dtype=self.dtype, name="expand")(y)), approximate=False)
        y = kept(biased(nn.Dense, c, dtype=self.dtype, name="project")(y))
        scale = self.param("scale", nn.initializers.constant(1e-6), (c,))
        return (x + y * scale[None, None, None]).astype(y.dtype)  # a float32 scale: its gradient sums over positions
