"""ResNet-18, -34 and -50 with batch norm folded into convolutions. Source: He et al., arXiv 1512.03385.

In the bottleneck the 3 x 3 convolution has the stride, as in the published weights of torchvision and timm. Padding is
symmetric, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from thyroid_jax.model.config import NetworkConfig
from thyroid_jax.model.encoders import imagenet
from thyroid_jax.model.layers import biased, compute_dtype, kept, recomputed
from thyroid_jax.shapes import Array, Float

STEM = 64


class ResNet(nn.Module):
    """Image f32[b h w 1] in [0, 1] to the last stage's output f32[b h/32 w/32 c], and a skip for every finer level.

    The skips are the stem at stride 2, before the pooling, and the stages at strides 4, 8 and 16; all after their ReLU.
    ``blocks`` are the numbers of blocks in the four stages.

    ``after`` runs the tail alone: the input is then the output of level ``after``, and the skips are those of the
    levels behind it. The same parameters serve both.
    """

    config: NetworkConfig
    blocks: tuple[int, int, int, int]
    bottleneck: bool

    @staticmethod
    def strides(config: NetworkConfig) -> tuple[int, ...]:
        """Stride of every skip, finest first."""
        return 2, 4, 8, 16

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, after: int = -1
    ) -> tuple[Float[Array, "b y x d"], tuple[Array, ...]]:
        dtype = compute_dtype(self.config.dtype)
        x = nn.relu(GreyStem(dtype, name="stem")(x)) if after < 0 else x
        outputs, block_of = [x], recomputed(ResidualUnit, self.config.remat)
        for level, blocks in enumerate(self.blocks, start=1):
            if level > after:
                x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))) if level == 1 else x
                for block in range(blocks):
                    stride = 2 if level > 1 and block == 0 else 1
                    shape = STEM * 2 ** (level - 1), stride, self.bottleneck
                    x = block_of(*shape, dtype, name=f"level{level}_block{block}")(x)
            outputs.append(x)
        return outputs[-1], tuple(outputs[after + 1 : -1])


class GreyStem(nn.Module):
    """The 7 x 7 convolution at stride 2 for a grey picture, equal to that of three equal channels, borders included.

    y = conv(u; kernel) + conv(1; inside) + bias, where u is the normalised picture and 1 is one inside the picture.
    The published networks pad their normalised channels with zeros, which is another grey in each channel. The second
    term is what remains of that difference. It is the same for every picture.
    """

    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 1"]) -> Float[Array, "b h/2 w/2 c"]:
        shape = (7, 7, 1, STEM)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        inside, bias = (
            self.param("inside", nn.initializers.zeros, shape),
            self.param("bias", nn.initializers.zeros, (STEM,)),
        )
        u = imagenet.normalized(x)
        u, kernel = nn.dtypes.promote_dtype(u, kernel, dtype=self.dtype)
        conv = partial(
            lax.conv_general_dilated,
            window_strides=(2, 2),
            padding=((3, 3), (3, 3)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        seen, border = conv(u, kernel), conv(jnp.ones((1, *u.shape[1:]), inside.dtype), inside)
        return (seen + border + bias[None, None, None]).astype(u.dtype)  # as in `layers.biased`


class ResidualUnit(nn.Module):
    """relu(shortcut(x) + branch(x)): two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 to four times the channels."""

    channels: int
    stride: int
    bottleneck: bool
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
        c, stride = self.channels, self.stride
        if self.bottleneck:
            y = nn.relu(kept(self._conv(c, 1, 1, "conv1")(x)))
            y = nn.relu(kept(self._conv(c, 3, stride, "conv2")(y)))
            y = self._conv(4 * c, 1, 1, "conv3")(y)
        else:
            y = nn.relu(kept(self._conv(c, 3, stride, "conv1")(x)))
            y = self._conv(c, 3, 1, "conv2")(y)
        same = stride == 1 and x.shape[-1] == y.shape[-1]
        return nn.relu(kept(y + (x if same else self._conv(y.shape[-1], 1, stride, "shortcut")(x))))

    def _conv(self, channels: int, kernel: int, stride: int, name: str) -> Callable[[Array], jax.Array]:
        padding = ((kernel // 2, kernel // 2),) * 2
        return biased(nn.Conv, channels, (kernel, kernel), stride, padding, dtype=self.dtype, name=name)
