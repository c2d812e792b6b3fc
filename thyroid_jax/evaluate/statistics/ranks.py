"""Wilcoxon's signed-rank test of paired values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.pairs import paired
from thyroid_jax.evaluate.statistics.resampling import NAN


@dataclass(frozen=True)
class Wilcoxon:
    """Result of :func:`paired_wilcoxon`: ``n`` differences were ranked, ``zeros`` were 0, ``undefined`` pairs held a
    NaN.
    """

    median_difference: float
    statistic: float
    p: float
    n: int
    zeros: int
    undefined: int


def paired_wilcoxon(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence | np.ndarray | None = None,
    alternative: str = "two-sided",
) -> Wilcoxon:
    """Wilcoxon's signed-rank test of paired values f[n], e.g. the Dice of two models on the same images; difference =
    first - second.

    Pairs with a NaN on either side are left out and counted. Zero differences are left out of the ranking (Wilcoxon's
    own rule) and counted; ``median_difference`` is the median over all defined pairs, zeros included. The p-value is
    exact for up to 50 untied differences and otherwise what scipy chooses (ties: permutations for small n, else the
    normal approximation). With no non-zero difference the statistic is 0 and p is 1; with no defined pair the median
    is NaN as well.

    ``clusters`` (n labels) averages the differences within each group first: pairs of one patient are not
    independent, groups are. ``alternative`` is "two-sided", "greater" (first is larger) or "less". ``statistic`` is
    scipy's: the smaller rank sum when two-sided, else the rank sum of the positive differences.
    :func:`rank_biserial` is the effect size that belongs to this test.

    Raises ValueError when the lengths differ.
    Source: Wilcoxon, Biometrics Bulletin 1 (1945) 80-83; computed by ``scipy.stats.wilcoxon``.
    """
    from scipy import stats

    pairs = paired(first, second, clusters)
    difference = pairs.group_means
    nonzero = difference[difference != 0]
    zeros = len(difference) - len(nonzero)
    median = float(np.median(difference)) if len(difference) else NAN
    if not len(nonzero):
        return Wilcoxon(median, 0.0, 1.0, 0, zeros, pairs.missing)
    result = stats.wilcoxon(nonzero, alternative=alternative)
    return Wilcoxon(median, float(result.statistic), float(result.pvalue), len(nonzero), zeros, pairs.missing)
