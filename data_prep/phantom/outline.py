"""The geometry of a phantom: the star-shaped curve of a nodule, and the places of nodule and lobe in a view."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.phantom.descriptors import MARGINS, SHAPES, Descriptors
from thyroid_jax.shapes import Array, Float, Int, Key

Size = tuple[int, int]
LOBE_POWER = 2.8  # between an ellipse (2) and a box
ORDERS = np.arange(2, 13)  # of the Fourier series; order 1 would only move the curve


class Contour(NamedTuple):
    """A star-shaped curve in pixels, ``r(t) = e(t - tilt) (1 + sum_n cosine_n cos nt + sine_n sin nt) + offset``.

    ``e`` is the polar radius of the ellipse with half axes ``semi``. Angles run from +column to +row; ``centre`` and
    ``semi`` are (row, column), the centre of the first pixel being (0.5, 0.5); the orders n are :data:`ORDERS`.
    """

    centre: Float[Array, " 2"]
    semi: Float[Array, " 2"]
    tilt: Float[Array, ""]
    cosine: Float[Array, " m"]
    sine: Float[Array, " m"]
    offset: Float[Array, ""]


def radius(contour: Contour, angle: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Distance in pixels from the centre to the curve at each angle; the area is ``0.5 * integral of radius**2``."""
    turned = angle - contour.tilt
    ellipse = 1 / jnp.hypot(jnp.sin(turned) / contour.semi[0], jnp.cos(turned) / contour.semi[1])
    point = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
    coefficients = jax.lax.complex(contour.cosine, -contour.sine)
    series = jnp.zeros_like(point)
    for order in reversed(range(len(ORDERS))):  # Horner: Re sum c_n z**n, without a sine per order
        series = series * point + coefficients[order]
    return ellipse * (1 + jnp.real(series * point * point)) + contour.offset


def depth_inside(contour: Contour, size: Size) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Distance from each pixel's centre outward to the curve along its ray (negative outside), and the ray's angle."""
    rows, columns = grid(size)
    down, right = rows - contour.centre[0], columns - contour.centre[1]
    angle = jnp.arctan2(down, right)
    return jax.lax.optimization_barrier((radius(contour, angle) - jnp.hypot(down, right), angle))


def outline(contour: Contour, size: Size) -> Float[Array, "h w"]:
    """The filled curve: 1 where a pixel's centre lies on the curve or inside it, else 0."""
    return (depth_inside(contour, size)[0] >= 0).astype(jnp.float32)


class Scene(NamedTuple):
    """One view of one nodule: its contour, and the thyroid lobe that holds it.

    The lobe is a superellipse; its centre and half axes are (row, column) in pixels. ``side`` is +1 with the carotid
    on the right of the picture and the trachea on the left, and -1 for the mirrored order.
    """

    contour: Contour
    lobe_centre: Float[Array, " 2"]
    lobe_semi: Float[Array, " 2"]
    side: Float[Array, ""]


def sample_scene(key: Key, descriptors: Descriptors, size: Size, view: int | Int[Array, ""] = 0) -> Scene:
    """Place a nodule with these descriptors in a view of an image of ``size`` (h, w).

    Height over width is 0.5 to 0.75, or 1.35 to 1.65 for a tall nodule; the radius is 0.145 to 0.205 u, and a view
    scales it by 0.94 to 1.04. The key is the patient's: each ``view`` is another section of the same nodule, a little
    larger or smaller, turned, shifted and reshaped. With extrathyroidal extension the nodule breaks through the front
    of the capsule by about a quarter of its height; otherwise it stays inside the lobe.
    """
    # Few random calls on purpose: each one costs about as much to compile as a stage of the picture.
    nodule_key, nodule_wave, view_key, view_wave = jax.random.split(key, 4)
    fixed = jax.random.uniform(nodule_key, (6,))
    moving = jax.random.uniform(jax.random.fold_in(view_key, view), (4,))
    unit = float(min(size))
    lobe_centre = jnp.array([0.55 * size[0], 0.5 * size[1]])
    lobe_semi = jnp.array([0.33 * size[0], 0.42 * size[1]]) * between(fixed[:2], 0.95, 1.05)

    tall = descriptors.shape == SHAPES.index("taller than wide")
    aspect = jnp.where(tall, between(fixed[2], 1.35, 1.65), between(fixed[2], 0.5, 0.75))
    mean_radius = unit * between(fixed[3], 0.145, 0.205) * between(moving[0], 0.94, 1.04)
    semi = mean_radius * jnp.stack([jnp.sqrt(aspect), 1 / jnp.sqrt(aspect)])
    tilt = between(fixed[4], -0.12, 0.12) + between(moving[1], -0.08, 0.08)
    waves = _harmonics(nodule_wave, descriptors), _harmonics(jax.random.fold_in(view_wave, view), descriptors)
    cosine, sine = np.sqrt(0.8) * waves[0] + np.sqrt(0.2) * waves[1]

    reach = 1.12 * semi + 0.015 * unit
    shift = between(moving[2:], -1.0, 1.0) * jnp.maximum(lobe_semi - reach, 0) * 0.75
    centre = lobe_centre + shift
    capsule = lobe_centre[0] - lobe_semi[0] * (1 - (jnp.abs(shift[1]) / lobe_semi[1]) ** LOBE_POWER) ** (1 / LOBE_POWER)
    breaking = jnp.maximum(capsule + 0.42 * semi[0], reach[0])
    crosses = descriptors.margin == MARGINS.index("extrathyroidal extension")
    centre = jnp.stack([jnp.where(crosses, breaking, centre[0]), centre[1]])
    side = jnp.where(fixed[5] < 0.5, 1.0, -1.0)
    return Scene(Contour(centre, semi, tilt, cosine, sine, jnp.zeros(())), lobe_centre, lobe_semi, side)


def _harmonics(key: Key, descriptors: Descriptors) -> Float[Array, "2 m"]:
    """Random Fourier coefficients (cosine, sine) of a contour.

    The series of the orders 2 to 4 has a root mean square of 0.03. That of the orders 5 to 10 has 0.085 on a lobulated
    margin, 0.03 with extrathyroidal extension, and 0 otherwise.
    """
    slow = np.where(ORDERS <= 4, 1.0, 0.0)
    fast = np.where((ORDERS >= 5) & (ORDERS <= 10), 1.0, 0.0)
    lobulated = descriptors.margin == MARGINS.index("lobulated or irregular")
    extended = descriptors.margin == MARGINS.index("extrathyroidal extension")
    strength = jnp.where(lobulated, 0.085, jnp.where(extended, 0.03, 0.0))
    noise = jax.random.normal(key, (2, len(ORDERS)))
    return sum(amount * unit_power(noise * band[None, :]) for amount, band in ((0.03, slow), (strength, fast)))


def unit_power(coefficients: Float[Array, "2 m"]) -> Float[Array, "2 m"]:
    """Cosine and sine coefficients scaled so that their series has a root mean square of 1."""
    return coefficients * jnp.sqrt(2 / jnp.sum(coefficients**2))


def lobe_depth(scene: Scene, size: Size) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Approximate distance in pixels inward from the capsule, and the share of its normal along the beam.

    The distance is negative outside. The share is the cosine of the angle between normal and beam, in [0, 1].
    """
    rows, columns = grid(size)
    down = jnp.abs(rows - scene.lobe_centre[0]) / scene.lobe_semi[0]
    right = jnp.abs(columns - scene.lobe_centre[1]) / scene.lobe_semi[1]
    level = (down**LOBE_POWER + right**LOBE_POWER) ** (1 / LOBE_POWER)
    normal = jnp.stack([down, right]) ** (LOBE_POWER - 1) / scene.lobe_semi[:, None, None]
    return (1 - level) * scene.lobe_semi.min(), normal[0] / jnp.maximum(jnp.hypot(normal[0], normal[1]), 1e-9)


def between(share: Float[Array, "*n"], low: float, high: float) -> Float[Array, "*n"]:
    """The value at a share in [0, 1] of the way from ``low`` to ``high``."""
    return low + (high - low) * share


def grid(size: Size) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Row and column of every pixel's centre, the first being 0.5."""
    rows, columns = jnp.meshgrid(jnp.arange(size[0]) + 0.5, jnp.arange(size[1]) + 0.5, indexing="ij")
    return rows, columns
