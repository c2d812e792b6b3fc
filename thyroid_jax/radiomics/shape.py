"""Shape of a hard mask: marching-squares outline and moment ellipse. One mask at a time; ``jax.vmap`` for a batch.

Lengths and areas are in the unit of ``spacing`` = (row, column) size of a pixel; (1, 1) gives pixels. P and A are perimeter and area of the
outline, l1 >= l2 the eigenvalues of the second moments of the pixel centres. Features: definitions and names as in pyradiomics 3.0.1.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.shapes import Bool, Float, Int

Spacing = tuple[float, float] | tuple[jax.Array, jax.Array]

# What marching squares adds in each 2 x 2 cell, by its corners: bits 1 top-left, 2 top-right, 4 bottom-left, 8 bottom-right.
# Outline: how many half-diagonals, straight rows, straight columns. Area: share of the cell. Diagonal corners count as two cut corners.
# Euler: share of one part less one hole, where diagonal neighbours touch (Gray 1971).
_HALF_DIAGONALS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], float)
_ALONG_ROW = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], float)
_ALONG_COLUMN = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], float)
_AREA = np.array([0, 1, 1, 4, 1, 4, 2, 7, 1, 2, 4, 7, 4, 7, 7, 8], float) / 8
_EULER = np.array([0, 1, 1, 0, 1, 0, -2, -1, 1, -2, 0, -1, 0, -1, -1, 0], float) / 4


class Moments(NamedTuple):
    """Pixel count, and the second central moments of the pixel centres with their eigenvalues, major >= minor."""

    count: Float[""]
    rows: Float[""]
    columns: Float[""]
    major: Float[""]
    minor: Float[""]


def outline(mask: Bool["h w"], *, spacing: Spacing = (1.0, 1.0)) -> tuple[Float[""], Float[""]]:
    """Perimeter and enclosed area of the marching-squares outline at level 0.5 through pixel-edge midpoints.

    A mask that touches the border is closed there. An empty mask gives (0, 0). The same mesh as pyradiomics' shape2D class
    (Lorensen & Cline 1987 in two dimensions); its area is a little smaller than the pixel count.
    """
    cell = _cells(mask)
    rows, columns = spacing
    half_diagonal = 0.5 * jnp.hypot(jnp.asarray(rows, float), jnp.asarray(columns, float))
    diagonals, along_row, along_column = (jnp.asarray(counts, float) for counts in (_HALF_DIAGONALS, _ALONG_ROW, _ALONG_COLUMN))
    lengths = diagonals * half_diagonal + along_row * columns + along_column * rows
    return lengths[cell].sum(), jnp.asarray(_AREA, float)[cell].sum() * rows * columns


def euler_number(mask: Bool["h w"]) -> Float[""]:
    """Number of parts less number of holes, where diagonal neighbours touch: the number of spots, when none has a hole. 0 if empty."""
    return jnp.asarray(_EULER, float)[_cells(mask)].sum()


def _cells(mask: Bool["h w"]) -> Int["h+1 w+1"]:
    m = jnp.pad(mask, 1).astype(jnp.int32)
    return m[:-1, :-1] + 2 * m[:-1, 1:] + 4 * m[1:, :-1] + 8 * m[1:, 1:]


def moments(mask: Bool["h w"], *, spacing: Spacing = (1.0, 1.0)) -> Moments:
    """Second central moments S of the mask's pixel centres: S = 1/n sum (x - mean)(x - mean)^T. An empty mask gives zeros."""
    m = mask.astype(float)
    count = m.sum()
    n = jnp.maximum(count, 1.0)
    y = jnp.arange(mask.shape[0], dtype=float)[:, None] * spacing[0]
    x = jnp.arange(mask.shape[1], dtype=float)[None, :] * spacing[1]
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


class Form(NamedTuple):
    """What the features need of a mask: perimeter and area of its outline, its diameter, moments, and the area of a pixel."""

    perimeter: Float[""]
    area: Float[""]
    diameter: Float[""]
    moments: Moments
    pixel: float | Float[""]


def form(mask: Bool["h w"], *, spacing: Spacing = (1.0, 1.0)) -> Form:
    """Measure a mask; everything is 0 where it is empty."""
    return Form(*outline(mask, spacing=spacing), diameter(mask, spacing=spacing), moments(mask, spacing=spacing), spacing[0] * spacing[1])


def diameter(mask: Bool["h w"], *, spacing: Spacing = (1.0, 1.0)) -> Float[""]:
    """Largest distance between two points of the outline; 0 for an empty mask.

    The points of the outline that are farthest apart are ends of the rows on which its points lie, so only those are compared.
    """
    m = jnp.pad(mask, 1)
    level_rows, between_rows = m[:, 1:] != m[:, :-1], m[1:] != m[:-1]  # where the outline crosses a pixel edge
    columns = jnp.arange(m.shape[1]) * spacing[1]
    left, right = [], []
    for crossed, at in ((level_rows, columns[:-1] + spacing[1] / 2), (between_rows, columns)):
        left.append(jnp.where(crossed, at[None, :], jnp.inf).min(1))
        right.append(jnp.where(crossed, at[None, :], -jnp.inf).max(1))
    left, right = jnp.concatenate(left), jnp.concatenate(right)
    rows = jnp.arange(m.shape[0]) * spacing[0]
    height = jnp.concatenate([rows, rows[:-1] + spacing[0] / 2])
    across = jnp.maximum(right[:, None] - left[None, :], 0)  # -inf for a row without any point
    apart = jnp.where(across > -jnp.inf, across**2 + (height[:, None] - height[None, :]) ** 2, 0)
    met = jnp.isfinite(left)
    return jnp.sqrt(jnp.where(met[:, None] & met[None, :], apart, 0).max())


def mesh_surface(f: Form) -> Float[""]:
    """A, area inside the marching-squares outline, > 0; a little less than that of the pixels."""
    return f.area


def pixel_surface(f: Form) -> Float[""]:
    """Number of pixels times the area of one, > 0."""
    return f.moments.count * f.pixel


def perimeter(f: Form) -> Float[""]:
    """P, length of the marching-squares outline, holes included, > 0."""
    return f.perimeter


def perimeter_surface_ratio(f: Form) -> Float[""]:
    """P / A, > 0, in 1 / unit of length."""
    return f.perimeter / jnp.where(f.area > 0, f.area, 1)


def sphericity(f: Form) -> Float[""]:
    """2 sqrt(pi A) / P, in (0, 1]; 1 for a circle."""
    return 2 * jnp.sqrt(jnp.pi * f.area) / jnp.where(f.perimeter > 0, f.perimeter, 1)


def maximum_diameter(f: Form) -> Float[""]:
    """Largest distance between two points of the outline, > 0."""
    return f.diameter


def major_axis_length(f: Form) -> Float[""]:
    """4 sqrt(l1): the long axis of the ellipse of the same second moments, >= 0."""
    return 4 * jnp.sqrt(f.moments.major)


def minor_axis_length(f: Form) -> Float[""]:
    """4 sqrt(l2): the short axis of the ellipse of the same second moments, >= 0; 0 for a line."""
    return 4 * jnp.sqrt(f.moments.minor)


def elongation(f: Form) -> Float[""]:
    """sqrt(l2 / l1), in [0, 1]; 1 for a circle, 0 for a line."""
    return jnp.sqrt(f.moments.minor / jnp.where(f.moments.major > 0, f.moments.major, 1))


FEATURES = {
    "shape2D_Elongation": elongation,
    "shape2D_MajorAxisLength": major_axis_length,
    "shape2D_MaximumDiameter": maximum_diameter,
    "shape2D_MeshSurface": mesh_surface,
    "shape2D_MinorAxisLength": minor_axis_length,
    "shape2D_Perimeter": perimeter,
    "shape2D_PerimeterSurfaceRatio": perimeter_surface_ratio,
    "shape2D_PixelSurface": pixel_surface,
    "shape2D_Sphericity": sphericity,
}
