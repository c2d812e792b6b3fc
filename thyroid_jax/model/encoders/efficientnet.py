"""EfficientNet-Lite: inverted residuals with ReLU6, no squeeze-and-excitation, batch norm folded into convolutions.

The paper's B0 scaled in width and depth; the "Lite" variants keep the channels of the stem and the depth of the first
and the last stage. Padding is "SAME" as in TensorFlow, where the published weights come from: at stride 2 an image of
even size gets its odd zero below and to the right.

Sources: Tan and Le, arXiv 1905.11946; Lite: github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from thyroid_jax.model.config import NetworkConfig
from thyroid_jax.model.depthwise import DepthwiseConv
from thyroid_jax.model.layers import biased, compute_dtype, kept, recomputed
from thyroid_jax.shapes import Array, Float

STEM = 32


class Shape(NamedTuple):
    """One inverted residual: its kernel, stride, expansion of the channels, and channels of its output."""

    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (  # of B0: the first block of each stage, and the number of blocks
    (Shape(3, 1, 1, 16), 1),
    (Shape(3, 2, 6, 24), 2),
    (Shape(5, 2, 6, 40), 2),
    (Shape(3, 2, 6, 80), 3),
    (Shape(5, 1, 6, 112), 3),
    (Shape(5, 2, 6, 192), 4),
    (Shape(3, 1, 6, 320), 1),
)


def levels(width: float, depth: float) -> tuple[tuple[Shape, ...], ...]:
    """The blocks of every level, finest first. A level begins where the resolution is halved."""
    found: list[tuple[Shape, ...]] = []
    for place, (first, repeats) in enumerate(STAGES):
        fixed = place in (0, len(STAGES) - 1)
        first = first._replace(channels=_rounded(first.channels * width))
        blocks = (first,) + (first._replace(stride=1),) * ((repeats if fixed else math.ceil(repeats * depth)) - 1)
        if place == 0 or first.stride == 2:
            found.append(blocks)
        else:
            found[-1] += blocks
    return tuple(found)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, or the next one where that is more than a tenth too small."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class EfficientNetLite(nn.Module):
    """Image f32[b h w 1] in [0, 1] to the last block's output f32[b h/32 w/32 c], and a skip for every finer level.

    The skips are the outputs of the last blocks at strides 2, 4, 8 and 16. All are linear: the activation follows in
    the next block. The image enters as (255 x - 127) / 128.

    ``after`` runs the tail alone: the input is then the output of level ``after``, and the skips are those of the
    levels behind it. The same parameters serve both.
    """

    config: NetworkConfig
    width: float = 1.0
    depth: float = 1.0

    @staticmethod
    def strides(config: NetworkConfig) -> tuple[int, ...]:
        """Stride of every skip, finest first."""
        return 2, 4, 8, 16

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, after: int = -1
    ) -> tuple[Float[Array, "b y x d"], tuple[Array, ...]]:
        dtype = compute_dtype(self.config.dtype)
        if after < 0:
            x = (255 * x - 127) / 128
            he = nn.initializers.he_normal()
            x = nn.relu6(biased(nn.Conv, STEM, (3, 3), 2, dtype=dtype, kernel_init=he, name="stem")(x))
        outputs, numbers, block_of = [], itertools.count(), recomputed(InvertedResidual, self.config.remat)
        for level, blocks in enumerate(levels(self.width, self.depth)):
            for shape, number in zip(blocks, numbers):
                x = x if level <= after else block_of(shape, dtype, name=f"block{number}")(x)
            outputs.append(x)
        return outputs[-1], tuple(outputs[after + 1 : -1])


class InvertedResidual(nn.Module):
    """1 x 1 convolution to more channels, depthwise convolution, linear 1 x 1 convolution; plus x where shapes agree.

    Source: Sandler et al., arXiv 1801.04381.
    """

    shape: Shape
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        kernel, stride, expansion, channels = self.shape
        y = x
        if expansion > 1:
            wide, he = expansion * x.shape[-1], nn.initializers.he_normal()
            y = nn.relu6(kept(biased(nn.Conv, wide, (1, 1), dtype=self.dtype, kernel_init=he, name="expand")(y)))
        y = nn.relu6(kept(DepthwiseConv(kernel, stride, self.dtype, name="depthwise")(y)))
        y = biased(nn.Conv, channels, (1, 1), dtype=self.dtype, name="project")(y)
        return x + y if stride == 1 and channels == x.shape[-1] else y
