"""Grey level co-occurrence: how often two levels lie side by side. One image at a time; ``jax.vmap`` for a batch.

For each of four directions (0, 45, 90, 135 degrees, distance 1) p(i,j) is the share of ordered pairs of neighbouring
pixels, both inside the mask, whose levels are i and j. It is symmetric and its sum is 1. A feature is the mean over
the directions in which there is any pair; where no direction has a pair it is undefined.

Levels i, j run from 1 to n, and m is the highest level that occurs. p_x(i) = sum_j p(i,j); p_+(k) is the sum of p over
i + j = k, and p_-(k) that over |i - j| = k; mu = sum_i i p_x(i).

Source: Haralick et al. 1973. Definitions and names are those of pyradiomics 3.0.1, codes those of the IBSI reference
manual.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from thyroid_jax.radiomics.raster import ANGLES, Row, neighbours
from thyroid_jax.shapes import Array, Bool, Float, Int


class Cooccurrence(NamedTuple):
    """p(i,j) of each direction and the sums over it, in the letters of this module.

    Attributes:
        p: p(i,j).
        px, plus, minus: p_x(i) for i = 1 to n, p_+(k) for k = 2 to 2 n, p_-(k) for k = 0 to n - 1.
        mean: mu.
        highest: the highest level m that occurs, 0 for an empty mask.
        where: in which directions there is any pair.
        levels: which levels occur.
    """

    p: Float[Array, "a n n"]
    px: Float[Array, "a n"]
    plus: Float[Array, "a 2*n-1"]
    minus: Float[Array, "a n"]
    mean: Float[Array, "a 1"]
    highest: Float[Array, ""]
    where: Bool[Array, "a"]
    levels: Bool[Array, "n"]


def pairs(level: Int[Array, "n"], row: Row, count: int) -> Float[Array, "a l l"]:
    """How many pixels of level i have a neighbour of level j in each of the directions ``ANGLES``.

    ``level`` is a raster of levels 1 to ``count``, 0 outside the mask.
    """

    def count_pairs(other: Int[Array, "n"]) -> Float[Array, "l l"]:
        key = jnp.where((level > 0) & (other > 0), (level - 1) * count + other - 1, count**2)
        return jnp.zeros(count**2 + 1, float).at[key].add(1)[:-1].reshape(count, count)

    return jnp.stack([count_pairs(other) for other in neighbours(level, row, ANGLES)])


def cooccurrence(pairs: Float[Array, "a l l"], levels: Bool[Array, "l"]) -> Cooccurrence:
    """The matrices of :class:`Cooccurrence` from the counts of :func:`pairs` and from which levels occur."""
    counts = pairs + pairs.swapaxes(1, 2)
    count, total = counts.shape[1], counts.sum((1, 2))
    p = counts / jnp.maximum(total, 1)[:, None, None]
    px, i = p.sum(2), _numbers(count, p.dtype)
    folded = _antidiagonals(p[:, :, ::-1])  # i - j = 1 - count, ..., count - 1
    minus = jnp.asarray(folded)[:, count - 1 :].at[:, 1:].multiply(2)
    highest = jnp.where(levels, i, 0).max()
    mean = (px * i).sum(1, keepdims=True)
    mean = mean + (px * (i - mean)).sum(1, keepdims=True)  # corrects the rounding, which the cluster shade multiplies
    return Cooccurrence(p, px, _antidiagonals(p), minus, mean, highest, total > 0, levels)


def _antidiagonals(p: Float[Array, "a n n"]) -> Float[Array, "a 2*n-1"]:
    """Sums of p over i + j = 0, 1, ... (i, j from 0): each row moves one place further right, then columns add up."""
    angles, n, _ = p.shape
    moved = jnp.pad(p, ((0, 0), (0, 0), (0, n))).reshape(angles, -1)[:, : n * (2 * n - 1)]
    return moved.reshape(angles, n, 2 * n - 1).sum(1)


def _numbers(count: int, dtype: jnp.dtype, start: int = 1) -> Array:
    return jnp.arange(start, start + count, dtype=dtype)[None]


def _entropy(p: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """- sum p log2 p, with 0 log2 0 = 0."""
    return -(p * jnp.log2(jnp.where(p > 0, p, 1))).sum(axis)


def _about_mean(c: Cooccurrence, power: int) -> Float[Array, "a"]:
    k = _numbers(c.plus.shape[1], c.p.dtype, 2)
    return (c.plus * (k - 2 * c.mean) ** power).sum(1)


def _differences(c: Cooccurrence) -> Array:
    return _numbers(c.minus.shape[1], c.p.dtype, 0)


def _centred(c: Cooccurrence) -> Float[Array, "a n"]:
    return _numbers(c.px.shape[1], c.p.dtype) - c.mean


def autocorrelation(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij i j p(i,j), in [1, n^2]. IBSI QWB0."""
    i = _numbers(c.px.shape[1], c.p.dtype)
    return (c.p * (i * i.T)[None]).sum((1, 2))


def joint_average(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij i p(i,j), in [1, n]. IBSI 60VM."""
    return c.mean[:, 0]


def cluster_prominence(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij (i + j - 2 mu)^4 p(i,j), >= 0. IBSI AE86."""
    return _about_mean(c, 4)


def cluster_shade(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij (i + j - 2 mu)^3 p(i,j), any sign. IBSI 7NFM."""
    # The first moment about the mean is the mean's rounding error.
    return _about_mean(c, 3) - 3 * _about_mean(c, 1) * _about_mean(c, 2)


def cluster_tendency(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij (i + j - 2 mu)^2 p(i,j), >= 0. IBSI DG8W."""
    return _about_mean(c, 2)


def contrast(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij (i - j)^2 p(i,j), in [0, (n - 1)^2]. IBSI ACUI."""
    return (c.minus * _differences(c) ** 2).sum(1)


def correlation(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij (i - mu)(j - mu) p(i,j) / sum_i (i - mu)^2 p_x(i), in [-1, 1]. 1, undefined, for one level. IBSI NI2N."""
    d = _centred(c)
    variance = (c.px * d**2).sum(1)
    return jnp.where(
        variance > 0, (c.p * d[:, :, None] * d[:, None, :]).sum((1, 2)) / jnp.where(variance > 0, variance, 1), 1
    )


def difference_average(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k k p_-(k), in [0, n - 1]. IBSI TF7R (and dissimilarity, 8S9J)."""
    return (c.minus * _differences(c)).sum(1)


def difference_entropy(c: Cooccurrence) -> Float[Array, "a"]:
    """- sum_k p_-(k) log2 p_-(k), in bits, in [0, log2 n]. IBSI NTRS."""
    return _entropy(c.minus)


def difference_variance(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k (k - d)^2 p_-(k), d = sum_k k p_-(k), >= 0. IBSI D3YU."""
    return (c.minus * (_differences(c) - difference_average(c)[:, None]) ** 2).sum(1)


def inverse_difference(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k p_-(k) / (1 + k), in (0, 1]. IBSI IB1Z."""
    return (c.minus / (1 + _differences(c))).sum(1)


def inverse_difference_moment(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k p_-(k) / (1 + k^2), in (0, 1]. IBSI WF0Z."""
    return (c.minus / (1 + _differences(c) ** 2)).sum(1)


def inverse_difference_moment_normalised(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k p_-(k) / (1 + k^2 / m^2), in (1 / 2, 1]. IBSI 1QCO."""
    return (c.minus / (1 + _differences(c) ** 2 / c.highest**2)).sum(1)


def inverse_difference_normalised(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k p_-(k) / (1 + k / m), in (1 / 2, 1]. IBSI NDRX."""
    return (c.minus / (1 + _differences(c) / c.highest)).sum(1)


def information_measure_1(c: Cooccurrence) -> Float[Array, "a"]:
    """-I / H, H = - sum_i p_x(i) log2 p_x(i), in [-1, 0]. 0, undefined, for one level. IBSI R8DG.

    I = sum_ij p(i,j) log2(p(i,j) / (p_x(i) p_x(j))) is the mutual information. In Haralick's letters the feature is
    (HXY - HXY1) / max(HX, HY); here I is computed without that difference, which loses digits.
    """
    h = _entropy(c.px)
    return jnp.where(h > 0, -_mutual_information(c) / jnp.where(h > 0, h, 1), 0)


def information_measure_2(c: Cooccurrence) -> Float[Array, "a"]:
    """sqrt(1 - exp(-2 I)), I = sum_ij p(i,j) log2(p(i,j) / (p_x(i) p_x(j))), in [0, 1). IBSI JN9H."""
    return jnp.sqrt(-jnp.expm1(-2 * _mutual_information(c)))


def _mutual_information(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij p(i,j) log2(p(i,j) / (p_x(i) p_x(j))), in bits, >= 0.

    With q = p_x(i) p_x(j), the terms p ln(p/q) - p + q have the same sum, because p and q both add up to 1. Each of
    them is >= 0 and loses no digits where p is near q.
    """
    q = c.px[:, :, None] * c.px[:, None, :]
    share = jnp.where(c.p > 0, (c.p - q) / jnp.where(q > 0, q, 1), -1)
    terms = jnp.where(c.p > 0, c.p * jnp.log1p(jnp.where(c.p > 0, share, 0)), 0) - (c.p - q)
    return jnp.maximum(terms.sum((1, 2)), 0) / jnp.log(jnp.asarray(2, c.p.dtype))


def inverse_variance(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k>0 p_-(k) / k^2, in [0, 1]. IBSI E8JP."""
    return (c.minus[:, 1:] / _differences(c)[:, 1:] ** 2).sum(1)


def joint_energy(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij p(i,j)^2, in (0, 1]. IBSI 8ZQL."""
    return (c.p**2).sum((1, 2))


def joint_entropy(c: Cooccurrence) -> Float[Array, "a"]:
    """- sum_ij p(i,j) log2 p(i,j), in bits, in [0, 2 log2 n]. IBSI TU9B."""
    return _entropy(c.p, (1, 2))


def maximal_correlation_coefficient(c: Cooccurrence) -> Float[Array, "a"]:
    """sqrt(e2), e2 the second eigenvalue of Q, in [0, 1]. 1, undefined, for one level. No IBSI code.

    Q(i,j) = sum_k p(i,k) p(j,k) / (p_x(i) p_x(k)), its eigenvalues in descending order. As p is symmetric, they are
    the squared eigenvalues of p(i,j) / sqrt(p_x(i) p_x(j)), which is symmetric too.
    """
    root = jnp.sqrt(c.px)
    scale = jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), 0)
    # The largest eigenvalue is 1, with the eigenvector ``root``: take it off.
    rest = c.p * scale[:, :, None] * scale[:, None, :] - root[:, :, None] * root[:, None, :]
    return jnp.where(c.levels.sum() > 1, jnp.minimum(_largest_eigenvalue(rest), 1), 1)


def _largest_eigenvalue(symmetric: Float[Array, "a n n"]) -> Float[Array, "a"]:
    """Largest |eigenvalue| of a symmetric matrix A: |A^m|^(1/m) by repeated squaring, |.| the Frobenius norm.

    m = 2^20, or 2^40 in float64. The result is at most a share of ln(n) / (2 m) above the eigenvalue.
    """
    log, squarings = jnp.zeros(symmetric.shape[0], symmetric.dtype), 40 if symmetric.dtype == jnp.float64 else 20
    for turn in range(squarings + 1):
        size = jnp.sqrt((symmetric**2).sum((1, 2)))
        log = log + jnp.log(jnp.where(size > 0, size, 1)) / 2**turn
        symmetric = symmetric / jnp.where(size > 0, size, 1)[:, None, None]
        if turn < squarings:
            symmetric = jnp.matmul(symmetric, symmetric, precision="highest")
    return jnp.where(size > 0, jnp.exp(log), 0)


def maximum_probability(c: Cooccurrence) -> Float[Array, "a"]:
    """max_ij p(i,j), in (0, 1]. IBSI GYBY."""
    return c.p.max((1, 2))


def sum_average(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_k k p_+(k), which is 2 mu, in [2, 2 n]. IBSI ZGXS."""
    return 2 * c.mean[:, 0]


def sum_entropy(c: Cooccurrence) -> Float[Array, "a"]:
    """- sum_k p_+(k) log2 p_+(k), in bits, in [0, log2(2 n - 1)]. IBSI P6QZ."""
    return _entropy(c.plus)


def sum_squares(c: Cooccurrence) -> Float[Array, "a"]:
    """sum_ij (i - mu)^2 p(i,j), the joint variance, >= 0. IBSI UR99."""
    return (c.px * _centred(c) ** 2).sum(1)


FEATURES = {
    "glcm_Autocorrelation": autocorrelation,
    "glcm_ClusterProminence": cluster_prominence,
    "glcm_ClusterShade": cluster_shade,
    "glcm_ClusterTendency": cluster_tendency,
    "glcm_Contrast": contrast,
    "glcm_Correlation": correlation,
    "glcm_DifferenceAverage": difference_average,
    "glcm_DifferenceEntropy": difference_entropy,
    "glcm_DifferenceVariance": difference_variance,
    "glcm_Id": inverse_difference,
    "glcm_Idm": inverse_difference_moment,
    "glcm_Idmn": inverse_difference_moment_normalised,
    "glcm_Idn": inverse_difference_normalised,
    "glcm_Imc1": information_measure_1,
    "glcm_Imc2": information_measure_2,
    "glcm_InverseVariance": inverse_variance,
    "glcm_JointAverage": joint_average,
    "glcm_JointEnergy": joint_energy,
    "glcm_JointEntropy": joint_entropy,
    "glcm_MCC": maximal_correlation_coefficient,
    "glcm_MaximumProbability": maximum_probability,
    "glcm_SumAverage": sum_average,
    "glcm_SumEntropy": sum_entropy,
    "glcm_SumSquares": sum_squares,
}
