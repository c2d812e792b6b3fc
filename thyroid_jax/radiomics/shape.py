"""Shape of a hard mask: marching-squares outline and moment ellipse. One raster at a time; ``jax.vmap`` for a batch.

Lengths and areas are in the unit of ``spacing`` = (row, column) size of a pixel; (1, 1) gives pixels. N is the number
of pixels and a the area of one. P and A are perimeter and area of the outline, D is the largest distance between two
of its points, and l1 >= l2 are the eigenvalues of the second moments of the pixel centres.

Definitions and names of the features are those of pyradiomics 3.0.1; IBSI has codes for volumes only.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.radiomics.raster import Row, neighbours, positions
from thyroid_jax.shapes import Array, Bool, Float

Spacing = tuple[float, float] | tuple[Array, Array]

# What marching squares adds for each kind of 2 x 2 cell. The kind is the sum of the corners inside the mask: 1
# top-left, 2 top-right, 4 bottom-left, 8 bottom-right.
# Outline: the number of half-diagonals, straight rows and straight columns. Two corners on a diagonal are both cut off.
# Area: share of the cell.
_HALF_DIAGONALS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], float)
_ALONG_ROW = np.array([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], float)
_ALONG_COLUMN = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], float)
_AREA = np.array([0, 1, 1, 4, 1, 4, 2, 7, 1, 2, 4, 7, 4, 7, 7, 8], float) / 8


class Moments(NamedTuple):
    """Pixel count, and the second central moments of the pixel centres with their eigenvalues, major >= minor."""

    count: Float[Array, ""]  # type: ignore[assignment]  # a tuple has a method of this name
    rows: Float[Array, ""]
    columns: Float[Array, ""]
    major: Float[Array, ""]
    minor: Float[Array, ""]


def outline(
    mask: Bool[Array, "n"], row: Row, *, spacing: Spacing = (1.0, 1.0)
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Perimeter and enclosed area of the marching-squares outline at level 0.5, through the middles of pixel edges.

    A mask that touches the border is closed there. An empty mask gives (0, 0). The mesh is that of pyradiomics'
    shape2D class (Lorensen & Cline 1987, in two dimensions). Its area is a little smaller than that of the pixels.
    """
    cells = _cells(mask, row)
    rows, columns = spacing
    half_diagonal = 0.5 * jnp.hypot(jnp.asarray(rows, float), jnp.asarray(columns, float))
    diagonals, along_row, along_column, area = (
        (cells * jnp.asarray(counts, float)).sum() for counts in (_HALF_DIAGONALS, _ALONG_ROW, _ALONG_COLUMN, _AREA)
    )
    return diagonals * half_diagonal + along_row * columns + along_column * rows, area * rows * columns


def _cells(mask: Bool[Array, "n"], row: Row) -> Float[Array, "16"]:
    """The number of 2 x 2 cells of each kind; those at the border have empty pixels on one side."""
    corners = neighbours(mask.astype(jnp.int32), row, ((0, 0), (0, 1), (1, 0), (1, 1)))
    kind = sum(corner << bit for bit, corner in enumerate(corners))
    return jnp.zeros(16, float).at[kind].add(1)


def moments(mask: Bool[Array, "n"], row: Row, *, spacing: Spacing = (1.0, 1.0)) -> Moments:
    """Second central moments of the mask's pixel centres, S = (1/N) sum (x - mean)(x - mean)^T.

    An empty mask gives zeros.
    """
    m = mask.astype(float)
    count = m.sum()
    n = jnp.maximum(count, 1.0)
    y, x = (places * side for places, side in zip(positions(mask.shape[0], row, m.dtype), spacing))
    dy, dx = y - (m * y).sum() / n, x - (m * x).sum() / n
    yy, xx, xy = (m * dy**2).sum() / n, (m * dx**2).sum() / n, (m * dy * dx).sum() / n
    middle, spread = (yy + xx) / 2, jnp.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    return Moments(count, yy, xx, middle + spread, jnp.maximum(middle - spread, 0.0))


def ellipse_perimeter(major: Float[Array, ""], minor: Float[Array, ""]) -> Float[Array, ""]:
    """Perimeter of the ellipse whose second moments are ``major`` and ``minor``; 0 for a point.

        pi (a + b) (1 + 3 h / (10 + sqrt(4 - 3 h)))        h = (a - b)^2 / (a + b)^2
        semi-axes a = 2 sqrt(major), b = 2 sqrt(minor)

    Ramanujan's second approximation: exact for a circle, within 4e-4 relative for a line.
    """
    a, b = 2 * jnp.sqrt(major), 2 * jnp.sqrt(minor)
    h = (a - b) ** 2 / jnp.maximum((a + b) ** 2, 1e-12)
    return jnp.pi * (a + b) * (1 + 3 * h / (10 + jnp.sqrt(4 - 3 * h)))


class Form(NamedTuple):
    """What the features need of a mask: P, A and D of its outline, its moments, and the area of a pixel."""

    perimeter: Float[Array, ""]
    area: Float[Array, ""]
    diameter: Float[Array, ""]
    moments: Moments
    pixel: float | Float[Array, ""]


def form(mask: Bool[Array, "n"], row: Row, columns: int, *, spacing: Spacing = (1.0, 1.0)) -> Form:
    """The form of a mask of at most ``columns`` columns; all of it is 0 where the mask is empty."""
    return Form(
        *outline(mask, row, spacing=spacing),
        diameter(mask, row, columns, spacing=spacing),
        moments(mask, row, spacing=spacing),
        spacing[0] * spacing[1],
    )


def diameter(mask: Bool[Array, "n"], row: Row, columns: int, *, spacing: Spacing = (1.0, 1.0)) -> Float[Array, ""]:
    """Largest distance between two points of the outline; 0 for an empty mask. ``columns`` is at least the mask's.

    The two points are among the highest and lowest points of the outline in every column of pixels, and on every line
    between two columns. On such a line the outline passes beside the centre of the last pixel of the column that
    reaches further.
    """
    y, x = positions(mask.shape[0], row)
    far = mask.shape[0]
    column = jnp.where(mask, x - 1, columns)
    top = jnp.full(columns + 1, far).at[column].min(jnp.where(mask, y, far))[:columns]
    bottom = jnp.full(columns + 1, -far).at[column].max(jnp.where(mask, y, -far))[:columns]
    met = top < far
    sides = lambda ends, none: (
        jnp.pad(ends, (1, 0), constant_values=none),
        jnp.pad(ends, (0, 1), constant_values=none),
    )
    high = jnp.concatenate([top - 0.5, jnp.minimum(*sides(top, far))]).astype(float) * spacing[0]
    low = jnp.concatenate([bottom + 0.5, jnp.maximum(*sides(bottom, -far))]).astype(float) * spacing[0]
    at = jnp.concatenate([jnp.arange(columns), jnp.arange(columns + 1) - 0.5]).astype(float) * spacing[1]
    met = jnp.concatenate([met, jnp.logical_or(*sides(met, False))])

    def farthest() -> Float[Array, ""]:
        apart = jnp.maximum(low[:, None] - high[None, :], 0) ** 2 + (at[:, None] - at[None, :]) ** 2
        return jnp.sqrt(jnp.where(met[:, None] & met[None, :], apart, 0).max())

    return jax.lax.cond(mask.any(), farthest, lambda: jnp.zeros((), high.dtype))


def mesh_surface(f: Form) -> Float[Array, ""]:
    """A, area inside the marching-squares outline, > 0. A little less than the area of the pixels."""
    return f.area


def pixel_surface(f: Form) -> Float[Array, ""]:
    """N a, area of the pixels, > 0."""
    return f.moments.count * f.pixel


def perimeter(f: Form) -> Float[Array, ""]:
    """P, length of the marching-squares outline, holes included, > 0."""
    return f.perimeter


def perimeter_surface_ratio(f: Form) -> Float[Array, ""]:
    """P / A, > 0. In 1 / unit of length."""
    return f.perimeter / jnp.where(f.area > 0, f.area, 1)


def sphericity(f: Form) -> Float[Array, ""]:
    """2 sqrt(pi A) / P, in (0, 1]. 1 for a circle."""
    return 2 * jnp.sqrt(jnp.pi * f.area) / jnp.where(f.perimeter > 0, f.perimeter, 1)


def maximum_diameter(f: Form) -> Float[Array, ""]:
    """D, largest distance between two points of the outline, > 0."""
    return f.diameter


def major_axis_length(f: Form) -> Float[Array, ""]:
    """4 sqrt(l1), the long axis of the ellipse of the same second moments, >= 0."""
    return 4 * jnp.sqrt(f.moments.major)


def minor_axis_length(f: Form) -> Float[Array, ""]:
    """4 sqrt(l2), the short axis of the ellipse of the same second moments, >= 0. 0 for a line."""
    return 4 * jnp.sqrt(f.moments.minor)


def elongation(f: Form) -> Float[Array, ""]:
    """sqrt(l2 / l1), in [0, 1]. 1 for a circle, 0 for a line."""
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
