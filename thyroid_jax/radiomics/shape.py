"""Shape of a hard mask: marching-squares outline and moment ellipse. One mask at a time; ``jax.vmap`` for a batch.

Lengths and areas are in the unit of ``spacing`` = (row, column) size of a pixel; (1, 1) gives pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from thyroid_jax.shapes import Bool, Float, Int

# What marching squares adds in each 2 x 2 cell, by its corners: bits 1 top-left, 2 top-right, 4 bottom-left, 8 bottom-right.
# Outline: how many half-diagonals, straight rows, straight columns. Area: share of the cell. Diagonal corners count as two cut corners.
# Euler: share of one part less one hole, where diagonal neighbours touch (Gray 1971).
_HALF_DIAGONALS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], np.float32)
_ALONG_ROW = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], np.float32)
_ALONG_COLUMN = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], np.float32)
_AREA = np.array([0, 1, 1, 4, 1, 4, 2, 7, 1, 2, 4, 7, 4, 7, 7, 8], np.float32) / 8
_EULER = np.array([0, 1, 1, 0, 1, 0, -2, -1, 1, -2, 0, -1, 0, -1, -1, 0], np.float32) / 4


class Moments(NamedTuple):
    """Pixel count, and the second central moments of the pixel centres with their eigenvalues, major >= minor."""

    count: Float[""]
    rows: Float[""]
    columns: Float[""]
    major: Float[""]
    minor: Float[""]


def outline(mask: Bool["h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> tuple[Float[""], Float[""]]:
    """Perimeter and enclosed area of the marching-squares outline at level 0.5 through pixel-edge midpoints.

    A mask that touches the border is closed there. An empty mask gives (0, 0). The same mesh as pyradiomics' shape2D class
    (Lorensen & Cline 1987 in two dimensions); its area is a little smaller than the pixel count.
    """
    cell = _cells(mask)
    rows, columns = spacing
    half_diagonal = 0.5 * float(np.hypot(rows, columns))
    lengths = _HALF_DIAGONALS * half_diagonal + _ALONG_ROW * columns + _ALONG_COLUMN * rows
    return jnp.asarray(lengths)[cell].sum(), jnp.asarray(_AREA)[cell].sum() * rows * columns


def euler_number(mask: Bool["h w"]) -> Float[""]:
    """Number of parts less number of holes, where diagonal neighbours touch: the number of spots, when none has a hole. 0 if empty."""
    return jnp.asarray(_EULER)[_cells(mask)].sum()


def _cells(mask: Bool["h w"]) -> Int["h+1 w+1"]:
    m = jnp.pad(mask, 1).astype(jnp.int32)
    return m[:-1, :-1] + 2 * m[:-1, 1:] + 4 * m[1:, :-1] + 8 * m[1:, 1:]


def moments(mask: Bool["h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Moments:
    """Second central moments S of the mask's pixel centres: S = 1/n sum (x - mean)(x - mean)^T. An empty mask gives zeros."""
    m = mask.astype(jnp.float32)
    count = m.sum()
    n = jnp.maximum(count, 1.0)
    y = jnp.arange(mask.shape[0], dtype=jnp.float32)[:, None] * spacing[0]
    x = jnp.arange(mask.shape[1], dtype=jnp.float32)[None, :] * spacing[1]
    dy, dx = y - (m * y).sum() / n, x - (m * x).sum() / n
    yy, xx, xy = (m * dy**2).sum() / n, (m * dx**2).sum() / n, (m * dy * dx).sum() / n
    middle, spread = (yy + xx) / 2, jnp.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return Moments(count, yy, xx, middle + spread, jnp.maximum(middle - spread, 0.0))


def ellipse_perimeter(major: Float[""], minor: Float[""]) -> Float[""]:
    """Perimeter of the ellipse with second moments ``major`` and ``minor``: semi-axes a = 2 sqrt(major), b = 2 sqrt(minor).

    Ramanujan's second approximation, pi (a + b) (1 + 3 h / (10 + sqrt(4 - 3 h))), h = (a - b)^2 / (a + b)^2; exact for a circle, within
    4e-4 relative for a line. 0 for a point.
    """
    a, b = 2 * jnp.sqrt(major), 2 * jnp.sqrt(minor)
    h = (a - b) ** 2 / jnp.maximum((a + b) ** 2, 1e-12)
    return jnp.pi * (a + b) * (1 + 3 * h / (10 + jnp.sqrt(4 - 3 * h)))
