"""Features of a table of grey levels by sizes; run lengths, size zones and dependences are its three kinds.

c(i,j) is the number of runs (zones, pixels) of level i and size j. N = sum_ij c(i,j) and p(i,j) = c(i,j) / N; c_i, c_j,
p_i and p_j are sums over the other letter. n is the number of levels.

The three kinds have the same sixteen formulas under different names. Sources: Galloway 1975 (runs), Thibault et al.
2009 (zones), Sun & Wee 1983 (dependences). Names and definitions are those of pyradiomics 3.0.1, codes those of the
IBSI reference manual.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from thyroid_jax.shapes import Array, Float, Int


class Table(NamedTuple):
    """Shares p(i,j) of the levels i = 1 to n and the ``sizes`` j, N, c_i and c_j; leading axes are directions."""

    sizes: Float[Array, "s"]
    total: Float[Array, "*a"]
    of_level: Float[Array, "*a n"]
    of_size: Float[Array, "*a s"]
    p: Float[Array, "*a n s"]


def table(counts: Int[Array, "*a n s"] | Float[Array, "*a n s"], sizes: Int[Array, "s"] | None = None) -> Table:
    """The table of counts c(i,j) of the levels 1 to n and of ``sizes``, by default 1 to s."""
    sizes = jnp.arange(1, counts.shape[-1] + 1) if sizes is None else sizes
    counts = counts.astype(float)
    total = counts.sum((-2, -1))
    p = counts / jnp.maximum(total, 1)[..., None, None]
    return Table(sizes.astype(counts.dtype), total, counts.sum(-1), counts.sum(-2), p)


def _levels(t: Table) -> Float[Array, "n"]:
    return jnp.arange(1, t.of_level.shape[-1] + 1, dtype=t.p.dtype)


def _weighted_sum(values: Array, numbers: Array, power: int) -> Array:
    """Sum over the last axis of values times numbers^power, for power 1, 2 or -2."""
    weights = numbers if power == 1 else numbers * numbers
    weights = weights.reshape((1,) * (values.ndim - 1) + (-1,))
    return (values * weights if power > 0 else values / weights).sum(-1)


def _mean_of_product(t: Table, level_power: int, size_power: int) -> Array:
    """sum_ij p(i,j) i^level_power j^size_power."""
    return _weighted_sum(_weighted_sum(t.p, t.sizes, size_power), _levels(t), level_power)


def _share(t: Table, counts: Array) -> Array:
    return counts / jnp.maximum(t.total, 1)[..., None]


def _variance(p: Array, numbers: Array) -> Array:
    distance = numbers.reshape((1,) * (p.ndim - 1) + (-1,)) - _weighted_sum(p, numbers, 1)[..., None]
    return (p * distance**2).sum(-1)


def small(t: Table) -> Float[Array, "*a"]:
    """sum_j p_j / j^2, in (0, 1]. IBSI 22OV (short runs), 5QRC (small zones), SODN (low dependence)."""
    return _weighted_sum(_share(t, t.of_size), t.sizes, -2)


def large(t: Table) -> Float[Array, "*a"]:
    """sum_j j^2 p_j, >= 1. IBSI W4KF (long runs), 48P8 (large zones), IMOQ (high dependence)."""
    return _weighted_sum(_share(t, t.of_size), t.sizes, 2)


def low_level(t: Table) -> Float[Array, "*a"]:
    """sum_i p_i / i^2, in (0, 1]. IBSI V3SW (runs), XMSY (zones), TL9H (dependence)."""
    return _weighted_sum(_share(t, t.of_level), _levels(t), -2)


def high_level(t: Table) -> Float[Array, "*a"]:
    """sum_i i^2 p_i, in [1, n^2]. IBSI G3QZ (runs), 5GN9 (zones), OAE7 (dependence)."""
    return _weighted_sum(_share(t, t.of_level), _levels(t), 2)


def small_low_level(t: Table) -> Float[Array, "*a"]:
    """sum_ij p(i,j) / (i^2 j^2), in (0, 1]. IBSI HTZT (runs), 5RAI (zones), EQ3F (dependence)."""
    return _mean_of_product(t, -2, -2)


def small_high_level(t: Table) -> Float[Array, "*a"]:
    """sum_ij p(i,j) i^2 / j^2, > 0. IBSI GD3A (runs), HW1V (zones), JA6D (dependence)."""
    return _mean_of_product(t, 2, -2)


def large_low_level(t: Table) -> Float[Array, "*a"]:
    """sum_ij p(i,j) j^2 / i^2, > 0. IBSI IVPO (runs), YH51 (zones), NBZI (dependence)."""
    return _mean_of_product(t, -2, 2)


def large_high_level(t: Table) -> Float[Array, "*a"]:
    """sum_ij p(i,j) i^2 j^2, >= 1. IBSI 3KUM (runs), J17V (zones), 9QMG (dependence)."""
    return _mean_of_product(t, 2, 2)


def level_non_uniformity(t: Table) -> Float[Array, "*a"]:
    """sum_i c_i^2 / N, in [N / n, N]. IBSI R5YN (runs), JNSA (zones), FP8K (dependence)."""
    return (t.of_level * _share(t, t.of_level)).sum(-1)


def level_non_uniformity_normalised(t: Table) -> Float[Array, "*a"]:
    """sum_i p_i^2, in [1 / n, 1]. IBSI OVBL (runs), Y1RO (zones)."""
    return (_share(t, t.of_level) ** 2).sum(-1)


def size_non_uniformity(t: Table) -> Float[Array, "*a"]:
    """sum_j c_j^2 / N, in (0, N]. IBSI W92Y (runs), 4JP3 (zones), Z87G (dependence)."""
    return (t.of_size * _share(t, t.of_size)).sum(-1)


def size_non_uniformity_normalised(t: Table) -> Float[Array, "*a"]:
    """sum_j p_j^2, in (0, 1]. IBSI IC23 (runs), VB3A (zones), OKJI (dependence)."""
    return (_share(t, t.of_size) ** 2).sum(-1)


def percentage(t: Table) -> Float[Array, "*a"]:
    """N / sum_j j c_j, runs or zones per pixel, in (0, 1]. IBSI 9ZK5 (runs), P30P (zones)."""
    return t.total / jnp.maximum(_weighted_sum(t.of_size, t.sizes, 1), 1)


def level_variance(t: Table) -> Float[Array, "*a"]:
    """sum_i (i - mu)^2 p_i, mu = sum_i i p_i, >= 0. IBSI 8CE5 (runs), BYLV (zones), 1PFV (dependence)."""
    return _variance(_share(t, t.of_level), _levels(t))


def size_variance(t: Table) -> Float[Array, "*a"]:
    """sum_j (j - mu)^2 p_j, mu = sum_j j p_j, >= 0. IBSI SXLW (runs), 3NSA (zones), DNX2 (dependence)."""
    return _variance(_share(t, t.of_size), t.sizes)


def entropy(t: Table) -> Float[Array, "*a"]:
    """- sum_ij p(i,j) log2 p(i,j), in bits, >= 0. IBSI HJ9O (runs), GU8N (zones), FCBV (dependence)."""
    return -(t.p * jnp.log2(jnp.where(t.p > 0, t.p, 1))).sum((-2, -1))
