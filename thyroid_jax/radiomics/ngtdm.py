"""Neighbouring grey tone difference: pixels against the mean around. One image at a time; ``jax.vmap`` for a batch.

N_i is the number of pixels of level i and p_i = N_i / N. s_i is the sum over these pixels of |i - mean level of the
neighbours|, taken over those of the eight neighbours that lie inside the mask; a pixel without any adds 0. m is the
number of levels that occur, and sums over i and j run over these.

Source: Amadasun & King 1989. Definitions and names are those of pyradiomics 3.0.1, codes those of the IBSI reference
manual.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp

from thyroid_jax.radiomics.levels import histogram
from thyroid_jax.radiomics.raster import Row, neighbours
from thyroid_jax.shapes import Array, Float, Int


class Differences(NamedTuple):
    """p_i and s_i of the levels 1 to n, and the number N of pixels."""

    p: Float[Array, "n"]
    s: Float[Array, "n"]
    total: Float[Array, ""]


def differences(level: Int[Array, "n"], row: Row, count: int) -> Differences:
    """The differences of a raster of levels 1 to ``count``, 0 outside the mask."""
    around = neighbours(level, row)
    known = reduce(jnp.add, [(other > 0).astype(float) for other in around])
    mean = reduce(jnp.add, around).astype(float) / jnp.maximum(known, 1)
    difference = jnp.where((level > 0) & (known > 0), jnp.abs(level.astype(float) - mean), 0)
    n = histogram(level, count)
    s = jnp.zeros(count + 1, float).at[level].add(difference)[1:]
    return Differences(n / jnp.maximum(n.sum(), 1), s, n.sum())


def _ratio(a: Array, b: Array, otherwise: float) -> Array:
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), otherwise)


def _pairs(d: Differences) -> tuple[Array, Array, Array]:
    """Which levels i and j both occur [n n], |i - j| [n n], and i [n]."""
    i = jnp.arange(1, d.p.shape[0] + 1, dtype=d.p.dtype)
    return (d.p[:, None] > 0) & (d.p[None, :] > 0), jnp.abs(i[:, None] - i[None, :]), i


def coarseness(d: Differences) -> Float[Array, ""]:
    """1 / sum_i p_i s_i, > 0. 10^6, undefined, where the sum is 0. IBSI QCDE."""
    return _ratio(jnp.ones_like(d.total), (d.p * d.s).sum(), 1e6)


def contrast(d: Differences) -> Float[Array, ""]:
    """sum_ij p_i p_j (i - j)^2 / (m (m - 1)) * sum_i s_i / N, >= 0. 0, undefined, for one level. IBSI 65HE."""
    _, distance, _ = _pairs(d)
    m = (d.p > 0).sum().astype(d.p.dtype)
    return _ratio(
        (d.p[:, None] * d.p[None, :] * distance**2).sum() * d.s.sum() / jnp.maximum(d.total, 1), m * (m - 1), 0.0
    )


def busyness(d: Differences) -> Float[Array, ""]:
    """sum_i p_i s_i / sum_ij |i p_i - j p_j|, >= 0. IBSI NQ30.

    0 where the divisor is 0: for one level, where it is undefined, and for two levels with i p_i = j p_j, where
    pyradiomics may divide by a rounding error instead.
    """
    both, _, i = _pairs(d)
    weighted = i * jnp.round(d.p * d.total)  # whole numbers: the difference of equal ones is exactly 0
    return _ratio(
        (d.p * d.s).sum() * d.total, jnp.where(both, jnp.abs(weighted[:, None] - weighted[None, :]), 0).sum(), 0.0
    )


def complexity(d: Differences) -> Float[Array, ""]:
    """(1/N) sum_ij |i - j| (p_i s_i + p_j s_j) / (p_i + p_j), >= 0. IBSI HDEZ."""
    both, distance, _ = _pairs(d)
    weighted = d.p * d.s
    ratio = (weighted[:, None] + weighted[None, :]) / jnp.where(both, d.p[:, None] + d.p[None, :], 1)
    return jnp.where(both, distance * ratio, 0).sum() / jnp.maximum(d.total, 1)


def strength(d: Differences) -> Float[Array, ""]:
    """sum_ij (p_i + p_j) (i - j)^2 / sum_i s_i, >= 0. 0, undefined, where the divisor is 0. IBSI 1X9X."""
    both, distance, _ = _pairs(d)
    return _ratio(jnp.where(both, (d.p[:, None] + d.p[None, :]) * distance**2, 0).sum(), d.s.sum(), 0.0)


FEATURES = {
    "ngtdm_Busyness": busyness,
    "ngtdm_Coarseness": coarseness,
    "ngtdm_Complexity": complexity,
    "ngtdm_Contrast": contrast,
    "ngtdm_Strength": strength,
}
