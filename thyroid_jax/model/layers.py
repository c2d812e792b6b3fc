"""Building blocks: a stateless normalisation, the residual block, and the moves between resolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from thyroid_jax.shapes import Array, Float


def compute_dtype(name: str, *, behind_latent: bool = False) -> jnp.dtype | None:
    """The precision of convolutions and activations by the setting's name: bfloat16, or None.

    None means the precision of parameters and inputs: float32, or float64 where they are. That is "float32", and with
    "bfloat16_encoder" what lies behind the latent. ValueError for another name.
    """
    if name not in ("float32", "bfloat16", "bfloat16_encoder"):
        raise ValueError(f"precision {name!r}: choose float32, bfloat16 or bfloat16_encoder.")
    low = name == "bfloat16" or (name == "bfloat16_encoder" and not behind_latent)
    return jnp.dtype(jnp.bfloat16) if low else None


def biased(
    layer: Callable[..., nn.Module], *sizes: Any, dtype: jnp.dtype | None, **options: Any
) -> Callable[[Array], jax.Array]:
    """``layer(*sizes, dtype=dtype, **options)``, a convolution or a dense layer of flax, with its bias in float32.

    The bias is added in float32, and the sum is rounded to ``dtype``. With flax's own sum in bfloat16, the bias's
    gradient is a sum over all positions in bfloat16: it stands still where a term is under 1/256 of the sum.
    With ``dtype`` None this is flax's layer.
    """
    if dtype is None:
        return layer(*sizes, **options)
    module = layer(*sizes, dtype=dtype, promote_dtype=_all_but_the_bias, **options)
    return lambda x: module(x).astype(dtype)


def _all_but_the_bias(inputs: Array, kernel: Array, bias: Array, *, dtype: jnp.dtype) -> tuple[Array, Array, Array]:
    return inputs.astype(dtype), kernel.astype(dtype), bias


_READ_BY_A_NORM = "read by a norm"  # or by an activation: from these values on, recomputing costs no convolution
_POLICIES = {
    "activations": jax.checkpoint_policies.save_only_these_names(_READ_BY_A_NORM),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


def recomputed(block: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """A block (a class of Flax modules, or a function of a module and arrays) that keeps less for its derivatives.

    "none" keeps every intermediate value until the backward pass. "blocks" keeps the block's inputs alone and computes
    the block again. "activations" also keeps what :func:`kept` marks: norms and activations are computed again, and no
    convolution is. Derivatives of every order have the same values. Method: Chen et al., arXiv 1604.06174.
    """
    return block if remat == "none" else nn.remat(block, policy=_POLICIES[remat])


def kept(x: Array) -> Array:
    """x itself, marked as a value that "activations" of :func:`recomputed` keeps."""
    return checkpoint_name(x, _READ_BY_A_NORM)


class Normalize(nn.Module):
    """GroupNorm over each example on its own, with a scale and a bias per channel.

    The number of groups is the largest divisor of c that is at most ``groups``. There is no running state, so an
    example's latent gradient depends on that example alone.

    The values are those of flax's GroupNorm. Here they take one multiplication and one addition per pixel,
    after statistics per channel. This is cheaper on a CPU, in the forward and the backward pass.

    Source: arXiv 1803.08494.
    """

    groups: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        c = x.shape[-1]
        groups = max(g for g in range(1, self.groups + 1) if c % g == 0)
        scale, bias = self.param("scale", nn.initializers.ones, (c,)), self.param("bias", nn.initializers.zeros, (c,))
        return _normalized(x, scale, bias, groups).astype(x.dtype if self.dtype is None else self.dtype)


@partial(jax.jit, static_argnums=3)  # traced once for layers of one shape
def _normalized(
    x: Float[Array, "b h w c"], scale: Float[Array, "c"], bias: Float[Array, "c"], groups: int
) -> Float[Array, "b h w c"]:
    b, _, _, c = x.shape
    precise = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean_of_group = lambda values: values.mean((1, 2)).reshape(b, groups, -1).mean(-1)
    mean, square = mean_of_group(precise), mean_of_group(precise**2)
    per_channel = lambda value: jnp.repeat(value, c // groups, axis=1)
    slope = per_channel(jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + 1e-6)) * scale[None]
    offset = bias[None] - per_channel(mean) * slope
    return precise * slope[:, None, None] + offset[:, None, None]


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv(act(norm(conv(act(norm(x)))))), pre-activation. Source: He et al., arXiv 1603.05027."""

    channels: int
    groups: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        conv = lambda kernel: nn.Conv(self.channels, (kernel, kernel), use_bias=False, dtype=self.dtype)
        y = kept(conv(3)(nn.silu(Normalize(self.groups, self.dtype)(x))))
        y = conv(3)(nn.silu(Normalize(self.groups, self.dtype)(y)))
        return y + (x if x.shape[-1] == self.channels else conv(1)(x))


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Half the resolution: the average of each 2 x 2 square."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Twice the resolution: each pixel repeated to a 2 x 2 square."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def squares_to_channels(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 4*c"]:
    """Stack the four pixels of each 2 x 2 square as channels; :func:`channels_to_squares` undoes it."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4 * c)


def channels_to_squares(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c/4"]:
    """Spread four channels over each 2 x 2 square."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c // 4)


def parameter_count(params: object) -> int:
    """How many numbers a tree of arrays holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
