"""Simulated readers of a phantom. They differ in how they draw contours and in which grades they give."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.phantom.outline import ORDERS, Contour, Size, outline, unit_power
from thyroid_jax import tirads
from thyroid_jax.shapes import Array, Float, Int, Key


class Reader(NamedTuple):
    """How a simulated reader draws and grades.

    Attributes:
        bias: distance of the drawn edge outside (+) or inside (-) the true one, as a share of u.
        bandwidth: the order n of the contour is smoothed by the factor ``exp(-(n / bandwidth)**2 / 2)``.
        jitter: root mean square of the random error of the curve, as a share of the radius, in orders 2 to 5.
        habit: probability of each given level (column) for each true level (row); rows sum to 1.
    """

    bias: Float[Array, "*n"]
    bandwidth: Float[Array, "*n"]
    jitter: Float[Array, "*n"]
    habit: Float[Array, "*n k k"]


def grading_habit(raise_by_one: float, lower_by_one: float, k: int = len(tirads.LEVELS)) -> np.ndarray:
    """f32[k k]: probabilities of a reader who raises or lowers a level by one with the given probabilities.

    Where the scale ends, the level is kept instead.
    """
    kept = 1 - raise_by_one - lower_by_one
    habit = kept * np.eye(k) + raise_by_one * np.eye(k, k=1) + lower_by_one * np.eye(k, k=-1)
    habit[0, 0] += lower_by_one
    habit[-1, -1] += raise_by_one
    return habit.astype(np.float32)


# The first draws outward and smooth and over-grades; the second draws inward, follows every lobule and under-grades.
READERS = Reader(
    bias=np.array([0.015, -0.012], np.float32),
    bandwidth=np.array([4.0, 20.0], np.float32),
    jitter=np.array([0.02, 0.02], np.float32),
    habit=np.stack([grading_habit(0.25, 0.03), grading_habit(0.03, 0.25)]),
)


def read_contour(key: Key, reader: Reader, contour: Contour, size: Size) -> Contour:
    """The curve that one reader draws for the true one: smoothed, jittered, and moved in or out along the rays."""
    keep = jnp.exp(-0.5 * (ORDERS / reader.bandwidth) ** 2)
    low_orders = np.where(ORDERS <= 5, 1.0, 0.0)[None, :]
    error = reader.jitter * unit_power(jax.random.normal(key, (2, len(ORDERS))) * low_orders)
    return contour._replace(
        cosine=contour.cosine * keep + error[0],
        sine=contour.sine * keep + error[1],
        offset=contour.offset + reader.bias * min(size),
    )


def read_outline(key: Key, reader: Reader, contour: Contour, size: Size) -> Float[Array, "h w"]:
    """The mask that one reader draws, in {0, 1}."""
    return outline(read_contour(key, reader, contour, size), size)


def read_grade(key: Key, reader: Reader, level: Int[Array, ""]) -> Int[Array, ""]:
    """The level that one reader gives to a nodule of this true level, drawn from the reader's habit."""
    habit = jnp.asarray(reader.habit)
    return jax.random.choice(key, habit.shape[-1], p=habit[level])
