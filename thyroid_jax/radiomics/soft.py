"""Shape of a soft mask, differentiable: morphology after BI-RADS. One mask at a time; :func:`morphology` takes a batch.

A soft mask m holds probabilities in [0, 1]; its rows are the depth y. Outside the image it is 0, so a mask that touches
the border is closed there. Lengths and areas are in the unit of ``spacing`` = (row, column) size of a pixel; features
have no unit. All is computed in float32 at least. Features and their gradients are finite for every mask of finite
values: empty, full, flat, a line, a single pixel; and for every pixel that is at most 100 times as long as wide. A
value outside [0, 1] raises ValueError where it is known (:func:`thyroid_jax.masks.check_mask`).

Paper: arXiv 2511.15968. Its abstract names four differentiable BI-RADS features without formulas; the definitions here
are this project's choices.

>>> import jax, jax.numpy as jnp
>>> y, x = jnp.meshgrid(jnp.arange(64.0) - 31.5, jnp.arange(64.0) - 31.5, indexing="ij")
>>> wide = jax.nn.sigmoid(12 - jnp.hypot(y, x / 2))
>>> [round(value, 2) for value in morphology(wide[None])[0].tolist()]
[0.14, 0.01, 0.0, 0.05]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.masks import check_mask
from thyroid_jax.radiomics import shape
from thyroid_jax.shapes import Array, Bool, Float

MORPHOLOGY: tuple[str, ...] = ("non_compactness", "taller_than_wide", "margin_irregularity", "non_ellipticity")
_FLAT = 1e-6  # slope per pixel below which the length of the gradient is smoothed, so that it has a derivative at 0
_PIXEL = 1 / 12  # second central moment of a pixel's own square
_HARDEST = 1 / 6  # softness in pixels of the hardest ellipse drawn: as soft as a ramp of one pixel
_STEEPNESS = 10.0  # steepness of the sigmoid between wider and taller
_DIRECTIONS = 64  # directions in which the hull's corners are searched


class Moments(NamedTuple):
    """Mean (y, x) from the image's centre, and second central moments Syy, Sxx, Sxy."""

    mean: Float[Array, "2"]
    rows: Float[Array, ""]
    columns: Float[Array, ""]
    cross: Float[Array, ""]


def morphology(
    probability: Float[Array, "b h w"],
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    features: Sequence[str] = MORPHOLOGY,
) -> Float[Array, "b f"]:
    """Morphology of every soft mask, in [0, 1] and higher when more suspicious.

    Args:
        probability: soft masks m in [0, 1].
        spacing: (row, column) size of a pixel. Only the ratio matters.
        features: names of :data:`FEATURES`, one for each column; an unknown name raises ValueError.

    A soft disc gives 0, 1/2, 0, 0 by default. A hard disc gives 0.1, 1/2, 0.05, 0.02, because the perimeter of a hard
    edge is 5 % too long.

    The mask is used as it is. Islands and a faint haze far away belong to the shape: one island takes
    margin_irregularity to 0, because P_ell grows more than P. A mask c m with c < 1 looks more compact and smoother
    than m, because A / P^2 and 1 / P are larger, and less like its ellipse.

    An empty mask gives the values of a single pixel, except non_ellipticity, which is 1. It has no shape, and
    :func:`thyroid_jax.losses.consistency.large_enough` leaves it out.
    """
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not features:
        raise ValueError(f"features {tuple(features)}: choose from {', '.join(FEATURES)}.")
    m = _checked(probability)
    return jax.vmap(lambda mask: jnp.stack([FEATURES[name](mask, spacing=spacing) for name in features]))(m)


def non_compactness(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """1 - clip(4 pi A / P^2, 0, 1): 0 for a disc, 0.16 for a 2:1 ellipse, towards 1 for a long or ragged mask."""
    spacing = pixels_of_area_one(spacing)
    a, p = area(probability, spacing=spacing), perimeter(probability, spacing=spacing)
    return 1 - jnp.clip(4 * jnp.pi * jnp.maximum(a, 1.0) / jnp.maximum(p, 1.0) ** 2, 0, 1)


def taller_than_wide(
    probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> Float[Array, ""]:
    """sigmoid(10 (sqrt(Syy / Sxx) - 1)), in (0, 1).

    1/2 for a disc and for an ellipse at 45 degrees, 0.01 for a wide 2:1 ellipse, 1 for a tall one.
    """
    m = moments(probability, spacing=spacing)
    return jax.nn.sigmoid(_STEEPNESS * (jnp.sqrt(m.rows / m.columns) - 1))


def margin_irregularity(
    probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> Float[Array, ""]:
    """1 - clip(P_ell / P, 0, 1), P_ell the perimeter of the ellipse of the same moments; in [0, 1].

    0 for any ellipse, whatever its elongation.
    """
    spacing = pixels_of_area_one(spacing)
    ellipse = shape.ellipse_perimeter(*axes(moments(probability, spacing=spacing)))
    return 1 - jnp.clip(ellipse / jnp.maximum(perimeter(probability, spacing=spacing), 1.0), 0, 1)


def non_ellipticity(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """1 - sum min(m, e) / sum max(m, e), e the :func:`moment_ellipse` of m; in [0, 1], 0 for any ellipse.

    e has an edge as soft as the mask's, and the quotient is the IoU of fuzzy sets. So an ellipse gives nearly 0
    however soft its edge is. Products instead of minima, or a fixed edge, would measure the blur (0.11 for a disc of
    radius 20 with s = 1) and reward it.
    """
    probability = _checked(probability)
    h, w = probability.shape
    spacing = pixels_of_area_one(spacing)
    softness = edge_softness(probability, spacing=spacing)
    ellipse = moment_ellipse(moments(probability, spacing=spacing), softness, (h, w), spacing=spacing)
    return 1 - jnp.minimum(probability, ellipse).sum() / jnp.maximum(probability, ellipse).sum()


def non_convexity(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """1 - clip(A / A_hull, 0, 1), the complement of solidity; in [0, 1].

    0 when no pixel is above one half. ``spacing`` does not change it.
    """
    probability = _checked(probability)
    return 1 - jnp.clip(jnp.maximum(probability.sum(), 1.0) / jnp.maximum(hull_area(probability), 1.0), 0, 1)


def elongation(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """1 - sqrt(minor / major second moment), in [0, 1).

    0 for a disc, 1/2 for a 2:1 ellipse in any direction, towards 1 for a line.
    """
    major, minor = axes(moments(probability, spacing=spacing))
    return 1 - jnp.sqrt(minor / major)


FEATURES: dict[str, Callable[..., Array]] = {
    "non_compactness": non_compactness,
    "taller_than_wide": taller_than_wide,
    "margin_irregularity": margin_irregularity,
    "non_ellipticity": non_ellipticity,
    "non_convexity": non_convexity,
    "elongation": elongation,
}


def area(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """A = sum m times the area of a pixel."""
    probability = _checked(probability)
    return jnp.sum(probability) * (spacing[0] * spacing[1])


def perimeter(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """P = sum |grad m| times the area of a pixel, by central differences.

    It is the mean length of the contours m = t over 0 < t < 1, and linear in m. Exact to 1e-3 for edges as soft as
    sigmoid(d / s), d the distance in pixels and s >= 0.5; 1.4 % too long when the edge is a ramp of one pixel, about
    5 % when it is hard; 2 for a single pixel. The sum |dx m| + |dy m| would be 27 % too long for a disc.
    """
    probability = _checked(probability)
    return _steps(probability, spacing).sum()


def edge_softness(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Float[Array, ""]:
    """Softness s of the edge, a length: the edge falls like sigmoid(d / s) over the distance d; >= 0.

        s = sum m (1 - m) |grad m| / sum |grad m|^2

    This is the least-squares fit of m (1 - m) = s |grad m|. Flat regions, a haze included, do not count. 0 for a hard
    mask and where m is constant, 0.2 pixels for a ramp of one pixel, 0.54 for an edge of s = 0.5, 1.02 for s = 1.
    """
    probability = _checked(probability)
    size = spacing[0] * spacing[1]
    slope, m = _steps(probability, spacing) / size, jnp.pad(probability, 1)
    return (m * (1 - m) * slope).sum() / jnp.maximum((slope**2).sum(), 1e-6 / size)


def moments(probability: Float[Array, "h w"], *, spacing: tuple[float, float] = (1.0, 1.0)) -> Moments:
    """Mean and second central moments of the mask, in which every pixel is a square.

        S = sum m (x - mean)(x - mean)^T / A + pixel^2 / 12

    The last term is the moment of the squares themselves, which :func:`thyroid_jax.radiomics.shape.moments` leaves
    out. With it a line has a width and a pixel is round. A mask of less than one pixel is filled up to one by a pixel
    at the image's centre, so that nothing is divided by 0.
    """
    probability = _checked(probability)
    h, w = probability.shape
    y = jnp.arange(h, dtype=probability.dtype)[:, None] - (h - 1) / 2
    x = jnp.arange(w, dtype=probability.dtype)[None, :] - (w - 1) / 2
    total = jnp.maximum(probability.sum(), 1.0)
    m, filled = probability / total, jnp.maximum(1 - probability.sum(), 0.0) / total
    my, mx = (m * y).sum(), (m * x).sum()
    dy, dx = y - my, x - mx
    yy = (m * dy**2).sum() + filled * my**2 + _PIXEL
    xx = (m * dx**2).sum() + filled * mx**2 + _PIXEL
    xy = (m * dy * dx).sum() + filled * my * mx
    rows, columns = spacing
    return Moments(jnp.stack([my * rows, mx * columns]), yy * rows**2, xx * columns**2, xy * (rows * columns))


def axes(m: Moments) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Second moments along the long and the short axis, major >= minor > 0: the eigenvalues of S.

    They are differentiable for a disc too.
    """
    middle, spread = (m.rows + m.columns) / 2, (m.rows - m.columns) / 2
    major = middle + jnp.sqrt(spread**2 + m.cross**2 + (1e-6 * middle) ** 2)
    return major, _determinant(m) / major


def moment_ellipse(
    m: Moments, softness: Float[Array, ""], sides: tuple[int, int], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> Float[Array, "h w"]:
    """The soft ellipse of the given moments S, drawn on an image of ``sides`` (h, w).

        sigmoid(-d / s)        d the distance, to first order, to the ellipse x^T (S - t I)^-1 x = 4

    Its semi-axes are 2 sqrt(eigenvalue), and s = ``softness`` >= 0 is a length. A blurred edge adds its variance
    t = pi^2 s^2 / 3 to both moments. So t is subtracted first, at most 3/4 of the smaller moment, and the drawn
    ellipse has about the moments S.

    No edge is harder than s = 1/6 pixel: in a harder one too few pixels would have a gradient. A hard disc of radius r
    then has a soft IoU of 1 - 0.46 / r with its ellipse.
    """
    h, w = sides
    y = (jnp.arange(h, dtype=m.rows.dtype)[:, None] - (h - 1) / 2) * spacing[0] - m.mean[0]
    x = (jnp.arange(w, dtype=m.rows.dtype)[None, :] - (w - 1) / 2) * spacing[1] - m.mean[1]
    softness = jnp.sqrt(softness**2 + _HARDEST**2 * spacing[0] * spacing[1])
    blur = jnp.minimum(jnp.pi**2 / 3 * softness**2, 0.75 * axes(m)[1])
    m = m._replace(rows=m.rows - blur, columns=m.columns - blur)
    slant = m.cross / m.columns
    ny = (y - slant * x) * (m.columns / _determinant(m))  # (ny, nx) = S^-1 (y, x), the normal's direction
    nx = x / m.columns - slant * ny
    square = (y - slant * x) * ny + x**2 / m.columns + 1e-12  # (y, x) S^-1 (y, x)^T, a sum of two squares
    distance = (jnp.sqrt(square) - 2) * jnp.sqrt(square / (ny**2 + nx**2 + 1e-12))
    return jax.nn.sigmoid(-distance / softness)


def hull_area(probability: Float[Array, "h w"]) -> Float[Array, ""]:
    """Area in pixels of the convex hull of the contour m = 1/2; 0 if no pixel is above one half.

        A = 1/2 |sum_k x_k y_{k+1} - x_{k+1} y_k|

    The contour runs where m, linear between the centres of neighbours, crosses 1/2, as in marching squares: half-way
    to the next pixel for a hard mask. Its outermost points in 64 directions are the corners (x_k, y_k) of a polygon; a
    disc loses 0.2 %. The gradient is that of the polygon: its corners move with m, and the choice of the points is
    held fixed.
    """
    probability = _checked(probability)
    top, bottom, crossed_down = _crossings(probability.T)
    left, right, crossed_along = _crossings(probability)
    h, w = probability.shape
    rows, columns = jnp.arange(h, dtype=probability.dtype), jnp.arange(w, dtype=probability.dtype)
    y = jnp.concatenate([rows, rows, top, bottom])
    x = jnp.concatenate([left, right, columns, columns])
    valid = jnp.concatenate([crossed_along, crossed_along, crossed_down, crossed_down])
    angle = 2 * jnp.pi / _DIRECTIONS * jnp.arange(_DIRECTIONS, dtype=probability.dtype)[:, None]
    far = jnp.where(valid[None, :], jnp.sin(angle) * y[None, :] + jnp.cos(angle) * x[None, :], -jnp.inf)
    corner = jnp.argmax(far, axis=1)
    y, x = y[corner], x[corner]
    return (x * jnp.roll(y, -1) - jnp.roll(x, -1) * y).sum() / 2


def _checked(probability: Float[Array, "*b h w"]) -> Float[Array, "*b h w"]:
    """The soft mask in float32 at least: a sum of half precision has too few digits. ValueError as in check_mask."""
    check_mask(probability)
    probability = jnp.asarray(probability)
    return probability.astype(jnp.promote_types(probability.dtype, jnp.float32))


def _crossings(m: Float[Array, "h w"]) -> tuple[Float[Array, "h"], Float[Array, "h"], Bool[Array, "h"]]:
    """Where each row first and last crosses 1/2, in pixels from its first pixel's centre, and whether it does."""
    m = jnp.pad(m, ((0, 0), (1, 1)))
    here, there = m[:, :-1], m[:, 1:]
    crosses = (here > 0.5) != (there > 0.5)
    slope = jnp.where(crosses, there - here, 1.0)
    # Two pixels near one half: keep the gradient bounded.
    slope = jnp.where(jnp.abs(slope) < 1e-3, jnp.copysign(1e-3, slope), slope)
    at = jnp.arange(-1, m.shape[1] - 2, dtype=m.dtype)[None, :] + (0.5 - here) / slope
    any_ = crosses.any(1)
    first = jnp.min(jnp.where(crosses, at, jnp.inf), axis=1)
    last = jnp.max(jnp.where(crosses, at, -jnp.inf), axis=1)
    return jnp.where(any_, first, 0.0), jnp.where(any_, last, 0.0), any_


def _determinant(m: Moments) -> Float[Array, ""]:
    """det S, kept above what float32 can tell from 0."""
    return jnp.maximum(m.rows * m.columns - m.cross**2, 1e-7 * (m.rows + m.columns) ** 2)


def _steps(probability: Float[Array, "h w"], spacing: tuple[float, float]) -> Float[Array, "h+2 w+2"]:
    """|grad m| times the area of a pixel, a length, at every pixel and at those just outside the image."""
    rows, columns = spacing
    m = jnp.pad(probability, 2)
    dy = (m[2:, 1:-1] - m[:-2, 1:-1]) * (columns / 2)
    dx = (m[1:-1, 2:] - m[1:-1, :-2]) * (rows / 2)
    flat = _FLAT * (rows * columns) ** 0.5
    square = dy**2 + dx**2
    return square / (jnp.sqrt(square + flat**2) + flat)  # sqrt(square + flat^2) - flat, 0 where it is flat


def pixels_of_area_one(spacing: tuple[float, float]) -> tuple[float, float]:
    """The spacing of the same ratio whose pixels have area 1, so that the limits of one pixel hold in every unit."""
    ratio = (spacing[0] / spacing[1]) ** 0.5
    return ratio, 1 / ratio
