"""Depthwise convolution, written in the form that the machine at hand computes fastest."""

from __future__ import annotations

import operator
from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp

from thyroid_jax.shapes import Array, Float


class DepthwiseConv(nn.Module):
    """One odd square kernel per channel, and a bias; the borders are those of :func:`shifted`."""

    kernel: int
    stride: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
        c = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.he_normal(), (self.kernel, self.kernel, 1, c))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        return (depthwise(x, kernel, self.stride) + bias[None, None, None]).astype(x.dtype)  # as in `layers.biased`


@partial(jax.jit, static_argnums=2)  # traced once for layers of one shape
def depthwise(x: Float[Array, "b h w c"], kernel: Float[Array, "n n 1 c"], stride: int = 1) -> Float[Array, "b y x c"]:
    """:func:`shifted` on a CPU, where XLA's grouped convolution is many times slower; :func:`grouped` elsewhere."""
    return (shifted if jax.default_backend() == "cpu" else grouped)(x, kernel, stride)


def shifted(x: Float[Array, "b h w c"], kernel: Float[Array, "n n 1 c"], stride: int = 1) -> Float[Array, "b y x c"]:
    """y[p, q] = sum over i, j of kernel[i, j] x[stride p + i - top, stride q + j - left], per channel.

    A sum of shifted products. x is zero outside the image. The result has ceil(h / stride) rows, and the zeros that it
    needs are divided between both sides, the odd one below and to the right ("SAME" of XLA and TensorFlow).
    """
    b, h, w, c = x.shape
    n, rows, columns = kernel.shape[0], -(-h // stride), -(-w // stride)
    x = jnp.pad(x, ((0, 0), _zeros(h, n, stride), _zeros(w, n, stride), (0, 0)))
    far = lambda start, count: start + (count - 1) * stride + 1
    window = lambda i, j: jax.lax.slice(x, (0, i, j, 0), (b, far(i, rows), far(j, columns), c), (1, stride, stride, 1))
    precise = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))  # its gradient is a sum over all positions
    products = (window(i, j) * precise[None, None, i, j] for i in range(n) for j in range(n))
    return reduce(operator.add, products).astype(x.dtype)


def grouped(x: Float[Array, "b h w c"], kernel: Float[Array, "n n 1 c"], stride: int = 1) -> Float[Array, "b y x c"]:
    """The values of :func:`shifted`, as a convolution with one group per channel."""
    return jax.lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _zeros(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and behind an axis."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2
