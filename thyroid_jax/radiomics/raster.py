"""An image as one line of pixels, row after row: a region of any height and width fits a program of one length.

Every row begins with an empty pixel, and the first row is empty. So every neighbour of a pixel lies a fixed number of
places along the line, and the neighbours outside the image are empty. ``row``, the number of places from a pixel to
the one below, may be traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from thyroid_jax.shapes import Array, Int

Row = int | Int[Array, ""]
# (rows, columns) from a pixel to its neighbours: one of each opposite pair, as co-occurrences and runs need them.
ANGLES = ((0, 1), (1, 1), (1, 0), (1, -1))
NEIGHBOURS = (*ANGLES, *((-y, -x) for y, x in ANGLES))


def length(height: int, width: int) -> int:
    """Number of places that an image needs."""
    return (height + 1) * (width + 1)


def to_line(grid: Array) -> tuple[Array, int]:
    """[h w] -> ([n], row): the image as a line, with 0 (False) at the empty pixels."""
    return jnp.pad(grid, ((1, 0), (1, 0))).ravel(), grid.shape[1] + 1


def neighbours(values: Array, row: Row, offsets: tuple[tuple[int, int], ...] = NEIGHBOURS) -> list[Array]:
    """The value of every pixel's neighbour, [n] -> [n], for each of ``offsets``; 0 off the line.

    An offset is (rows, columns), each of them -1, 0 or 1.
    """
    reach = values.shape[0] // 2 + 1
    padded = jnp.pad(values, reach)
    return [lax.dynamic_slice(padded, (reach + y * row + x,), values.shape) for y, x in offsets]


def moved(values: Array, places: Row) -> Array:
    """[n] -> [n]: at every place the value ``places`` further along, -n to n of them; 0 off the line."""
    n = values.shape[0]
    return lax.dynamic_slice(jnp.pad(values, n), (n + places,), (n,))


def map_images(measure: Callable, *images: Array) -> Any:
    """``measure`` applied to every image of a batch.

    On a CPU one image follows the other, so that each stays in the cache; elsewhere all are measured at once.
    """
    if jax.default_backend() == "cpu":
        return lax.map(lambda image: measure(*image), images)
    return jax.vmap(measure)(*images)


def positions(n: int, row: Row, dtype: jnp.dtype = jnp.int32) -> tuple[Array, Array]:
    """(row, column) of every place; those of pixels start at 1. Exact for lines of up to 4 million places."""
    place = jnp.arange(n)
    y = jnp.floor((place + 0.5) / row).astype(jnp.int32)
    return y.astype(dtype), (place - y * row).astype(dtype)
