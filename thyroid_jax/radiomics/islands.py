"""The connected parts of a mask: a split screen shows two views of one nodule, and each has a shape of its own.

One mask at a time; :func:`thyroid_jax.radiomics.raster.map_images` for a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from thyroid_jax.radiomics import windows
from thyroid_jax.shapes import Array, Bool, Int

_CELL = 2  # side in pixels of the coarse grid on which parts are told apart
_STEPS = 4  # of spreading between two looks at whether anything still changes


def labels(mask: Bool[Array, "h w"], edge: Bool[Array, "h w"]) -> Int[Array, "h w"]:
    """Every pixel of one part of ``mask`` has the same number > 0, another part another number; 0 elsewhere.

    Parts are told apart on cells of 2 x 2 pixels. A cell counts where any pixel of it does, and cells touch along
    sides and corners: parts with 3 empty pixels between them are always apart, parts that touch never. A part's
    number then spreads through the pixels of ``edge``, the soft edge around a mask, as far as they are connected with
    it; where two parts meet, cell by cell. Exact for any shape; the time grows with the longest way inside a part.
    """
    nodule, around = _cells(mask), _cells(mask | edge)
    numbers = jnp.where(nodule, jnp.arange(1, nodule.size + 1, dtype=jnp.float32).reshape(nodule.shape), 0.0)
    inside = _until_it_stays(numbers, lambda x: jnp.where(nodule, windows.highest(x, 1), 0.0), _STEPS)
    spread = lambda x: jnp.where((x == 0) & around, windows.highest(x, 1), x)
    number = _until_it_stays(inside, spread, 1).astype(jnp.int32)
    h, w = mask.shape
    return jnp.where(mask | edge, jnp.repeat(jnp.repeat(number, _CELL, 0), _CELL, 1)[:h, :w], 0)


def _cells(mask: Bool[Array, "h w"]) -> Bool[Array, "i j"]:
    """Whether any pixel of each cell is in the mask."""
    h, w = (-side % _CELL for side in mask.shape)
    padded = jnp.pad(mask, ((0, h), (0, w)))
    return padded.reshape(padded.shape[0] // _CELL, _CELL, padded.shape[1] // _CELL, _CELL).any((1, 3))


def _until_it_stays(x: jax.Array, change: Callable[[jax.Array], jax.Array], steps: int) -> jax.Array:
    """``change`` again and again, until so many times in a row change nothing."""

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        old, new = state[0], state[0]
        for _ in range(steps):
            new = change(new)
        return new, (new != old).any()

    return lax.while_loop(lambda state: state[1], again, (x, jnp.array(True)))[0]


def total(label: Int[Array, "h w"], measure: Callable[[Bool[Array, "h w"]], Array]) -> Array:
    """Sum of ``measure(part bool[h w]) -> f[k]`` over the parts of :func:`labels`; zeros where there are none."""
    like = jax.eval_shape(measure, label > 0)

    def add_one(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, so_far = state
        part = left == left.max()
        return jnp.where(part, 0, left), so_far + measure(part)

    zeros = jnp.zeros(like.shape, like.dtype)
    return lax.while_loop(lambda state: state[0].max() > 0, add_one, (jnp.asarray(label), zeros))[1]
