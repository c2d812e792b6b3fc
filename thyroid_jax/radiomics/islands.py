"""The connected parts of a mask. A split screen shows two views of one nodule, and each has its own shape.

One mask at a time; :func:`thyroid_jax.radiomics.raster.map_images` for a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from thyroid_jax.radiomics import windows
from thyroid_jax.shapes import Array, Bool, Int

_CELL = 2  # side in pixels of the cells of the coarse grid on which parts are separated
_STEPS = 4  # spreading steps between two checks for a change


def labels(mask: Bool[Array, "h w"], edge: Bool[Array, "h w"]) -> Int[Array, "h w"]:
    """Label the parts of ``mask``: each part has its own number > 0 in all its pixels; 0 elsewhere.

    Parts are separated on cells of 2 x 2 pixels. A cell is in the mask if any of its pixels is, and cells are connected
    along sides and corners. So parts with 3 empty pixels between them are always separate, and parts that touch never
    are. A part's number then spreads through the pixels of ``edge``, the soft edge around a mask, that are connected
    with it; where two parts meet, each cell gets one number. The result is exact for any shape; the time grows with the
    longest path inside a part.
    """
    nodule, around = _cells(mask), _cells(mask | edge)
    numbers = jnp.where(nodule, jnp.arange(1, nodule.size + 1, dtype=jnp.float32).reshape(nodule.shape), 0.0)
    inside = _until_stable(numbers, lambda x: jnp.where(nodule, windows.highest(x, 1), 0.0), _STEPS)
    spread = lambda x: jnp.where((x == 0) & around, windows.highest(x, 1), x)
    number = _until_stable(inside, spread, 1).astype(jnp.int32)
    h, w = mask.shape
    return jnp.where(mask | edge, jnp.repeat(jnp.repeat(number, _CELL, 0), _CELL, 1)[:h, :w], 0)


def _cells(mask: Bool[Array, "h w"]) -> Bool[Array, "i j"]:
    """Whether any pixel of each cell is in the mask."""
    h, w = (-side % _CELL for side in mask.shape)
    padded = jnp.pad(mask, ((0, h), (0, w)))
    return padded.reshape(padded.shape[0] // _CELL, _CELL, padded.shape[1] // _CELL, _CELL).any((1, 3))


def _until_stable(x: jax.Array, change: Callable[[jax.Array], jax.Array], steps: int) -> jax.Array:
    """Apply ``change`` repeatedly, until ``steps`` applications in a row change nothing."""

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
