"""Intervals and tests for comparing models: cluster bootstrap, Wilcoxon, DeLong, McNemar, Holm.

Images of one patient resemble each other. The bootstrap resamples whole groups for that reason; the other tests take
their observations to be independent, and say in their docstrings what to do when they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A value with its confidence bounds.

    ``low`` and ``high`` are NaN when there is no interval (see :func:`cluster_bootstrap`). ``samples`` counts the
    replicates drawn and ``undefined`` those among them whose value was NaN and that were left out; ``clusters`` is
    the number of groups resampled.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    samples: int = 0
    undefined: int = 0
    clusters: int = 0


def cluster_bootstrap(
    statistic: Callable[..., float | np.ndarray],
    clusters: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    weighted: bool = False,
) -> Interval:
    """Percentile interval of a statistic when the cases come in groups: whole groups are drawn with replacement.

    One replicate draws as many groups as there are, with replacement, and takes all cases of each drawn group as
    often as it was drawn. The interval runs from the (1 - level)/2 to the (1 + level)/2 quantile of the replicates.
    The same seed draws the same groups, so that two statistics of one table are resampled alike, with or without
    ``weighted``.

    >>> patient, dice = ["a", "a", "b", "c"], [1.0, 0.75, 0.75, 0.5]
    >>> cluster_bootstrap(np.mean, patient, dice).value
    0.75

    Args:
        statistic: ``statistic(*data) -> float`` on resampled rows. With ``weighted=True`` instead
            ``statistic(*data, weight=f[s n]) -> f[s]``: all replicates of a block at once, as the number of times
            that each case was drawn. Means, confusion matrices and AUROCs need no more than that, and are some
            hundred times faster so.
        clusters: n labels, one a case; equal labels are one group.
        data: arrays whose first axis is n.

    A replicate whose value is NaN is dropped and counted. There is no interval (NaN bounds, nothing drawn) when the
    statistic itself is NaN, when there is no case, or when there is only one group: a single group says nothing about
    the spread between groups. With fewer than about 20 groups percentile intervals are too narrow; report the number
    of groups beside them.

    Raises ValueError when lengths differ, or for a level outside (0, 1) or no samples.
    Source: Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, sections 3.8 (strategy 1) and 5.3.
    """
    rows = [np.asarray(column) for column in data]
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    member = member.reshape(-1)
    cases, groups = len(member), len(names)
    if not rows or any(len(column) != cases for column in rows):
        raise ValueError(
            f"clusters has {cases} cases, data has {[len(column) for column in rows]}; every column needs one row a case."
        )
    if not 0 < level < 1 or samples < 1:
        raise ValueError(f"level must lie in (0, 1) and samples be at least 1, not {level} and {samples}.")

    if cases == 0:
        return Interval(NAN, NAN, NAN, level)
    value = float(statistic(*rows, weight=np.ones((1, cases)))[0] if weighted else statistic(*rows))
    if np.isnan(value) or groups < 2:
        return Interval(value, NAN, NAN, level, clusters=groups)

    replicate = _weighted_replicates if weighted else _indexed_replicates
    draws = _draws(groups, samples, seed)
    values = np.fromiter(replicate(statistic, rows, member, groups, draws), dtype=float, count=samples)
    defined = values[~np.isnan(values)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (NAN, NAN)
    return Interval(value, float(low), float(high), level, samples, samples - len(defined), groups)


def _draws(groups: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """``samples`` times int[groups]: which groups are drawn."""
    generator = np.random.default_rng(seed)
    return (generator.integers(groups, size=groups) for _ in range(samples))


def _indexed_replicates(statistic, rows, member, groups, draws) -> Iterator[float]:
    """The statistic of the resampled rows, one replicate after the other."""
    by_group = np.argsort(member, kind="stable")
    sizes = np.bincount(member, minlength=groups)
    starts = np.cumsum(sizes) - sizes
    for drawn in draws:
        size = sizes[drawn]
        # The positions start, start + 1, ... of every drawn group, one after the other, without a Python loop.
        index = by_group[np.arange(size.sum()) + np.repeat(starts[drawn] - (np.cumsum(size) - size), size)]
        yield float(statistic(*(column[index] for column in rows)))


def _weighted_replicates(statistic, rows, member, groups, draws, *, largest: int = 2_000_000) -> Iterator[float]:
    """The statistic by case weights, in blocks of at most ``largest`` weights so that memory stays bounded."""
    block: list[np.ndarray] = []
    for drawn in draws:
        block.append(np.bincount(drawn, minlength=groups))
        if len(block) * len(member) >= largest:
            yield from statistic(*rows, weight=np.stack(block)[:, member].astype(float))
            block = []
    if block:
        yield from statistic(*rows, weight=np.stack(block)[:, member].astype(float))


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

    Raises ValueError when the lengths differ.
    Source: Wilcoxon, Biometrics Bulletin 1 (1945) 80-83; computed by ``scipy.stats.wilcoxon``.
    """
    from scipy import stats

    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1 or (clusters is not None and len(clusters) != len(first)):
        raise ValueError(f"first {first.shape}, second {second.shape} and clusters must be vectors of one length.")
    difference = first - second
    defined = ~np.isnan(difference)
    undefined = int((~defined).sum())
    difference = difference[defined]
    if clusters is not None and len(difference):
        member = np.unique(np.asarray(clusters)[defined], return_inverse=True)[1].reshape(-1)
        difference = np.bincount(member, weights=difference) / np.bincount(member)
    nonzero = difference[difference != 0]
    zeros = len(difference) - len(nonzero)
    median = float(np.median(difference)) if len(difference) else NAN
    if not len(nonzero):
        return Wilcoxon(median, 0.0, 1.0, 0, zeros, undefined)
    result = stats.wilcoxon(nonzero, alternative=alternative)
    return Wilcoxon(median, float(result.statistic), float(result.pvalue), len(nonzero), zeros, undefined)


@dataclass(frozen=True)
class DeLong:
    """Result of :func:`delong`; tuples hold one entry a score. The fields of the difference are NaN for a single score."""

    auc: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    covariance: np.ndarray
    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    z: float = NAN
    p: float = NAN


def delong(
    truth: Sequence | np.ndarray,
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray | None = None,
    *,
    level: float = 0.95,
) -> DeLong:
    """Area under the ROC curve with DeLong's interval, and the test of two correlated areas on the same cases.

    With psi(x, y) = 1 if x > y, 1/2 if x = y, else 0, over the P positives x_i and the N negatives y_j of one score:

        AUC = mean_ij psi(x_i, y_j)      V10_i = mean_j psi(x_i, y_j)      V01_j = mean_i psi(x_i, y_j)
        S   = cov(V10) / P + cov(V01) / N                             z = (AUC_1 - AUC_2) / sqrt(S_11 + S_22 - 2 S_12)

    V10 and V01 come from midranks, so time is n log n and memory n. Intervals are normal, clipped to [0, 1] (areas)
    and [-1, 1] (difference = first - second); p is two-sided.

    Args:
        truth: bool or 0/1 [n], True = positive.
        first, second: f[n], higher = more positive. Ties count one half.

    Two equal areas with no variance between them (the same score twice) give z = 0 and p = 1. Without a positive or a
    negative case the area is NaN; with only one of either the variance, hence interval and test, is NaN, as is the
    test when different areas have no variance (a perfect and a perfectly wrong score). Cases are taken as
    independent: with several images of a patient use :func:`cluster_bootstrap` on the difference instead.

    Raises ValueError for lengths that differ, truth other than 0 and 1, or a score that is NaN. Source: DeLong,
    DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845; midranks: Sun and Xu, IEEE SPL 21 (2014) 1389-1393.
    """
    from scipy.stats import norm, rankdata

    truth = np.asarray(truth)
    scores = np.stack([np.asarray(score, float) for score in ((first,) if second is None else (first, second))])
    if truth.ndim != 1 or scores.shape[1:] != truth.shape:
        raise ValueError(f"truth {truth.shape} and scores {scores.shape[1:]} must be vectors of one length.")
    if not np.isin(truth, (0, 1)).all() or np.isnan(scores).any():
        raise ValueError("truth must be 0 or 1 and no score may be NaN.")
    truth = truth.astype(bool)
    x, y = scores[:, truth], scores[:, ~truth]
    m, positives, negatives = len(scores), x.shape[1], y.shape[1]
    if not positives or not negatives:
        return DeLong((NAN,) * m, (NAN,) * m, (NAN,) * m, np.full((m, m), NAN))

    rank = rankdata(np.concatenate([x, y], axis=1), axis=1)
    v10 = (rank[:, :positives] - rankdata(x, axis=1)) / negatives
    v01 = 1 - (rank[:, positives:] - rankdata(y, axis=1)) / positives
    auc = v10.mean(axis=1)
    if min(positives, negatives) < 2:
        return DeLong(
            tuple(map(float, auc)),
            (NAN,) * m,
            (NAN,) * m,
            np.full((m, m), NAN),
            float(auc[0] - auc[1]) if m == 2 else NAN,
        )
    covariance = np.atleast_2d(np.cov(v10)) / positives + np.atleast_2d(np.cov(v01)) / negatives
    wide = norm.ppf((1 + level) / 2)
    margin = wide * np.sqrt(np.diag(covariance))
    low, high = np.clip(auc - margin, 0, 1), np.clip(auc + margin, 0, 1)
    single = tuple(map(float, auc)), tuple(map(float, low)), tuple(map(float, high)), covariance
    if m == 1:
        return DeLong(*single)

    difference = float(auc[0] - auc[1])
    # Rounding can leave -1e-20 or 1e-20 where two scores rank all cases alike.
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    variance = variance if variance > 1e-14 else 0.0
    if variance > 0:
        z = difference / np.sqrt(variance)
    else:
        z = 0.0 if abs(difference) < 1e-12 else NAN
    margin = wide * np.sqrt(variance) if not np.isnan(z) else NAN
    bounds = np.clip([difference - margin, difference + margin], -1, 1)
    return DeLong(*single, difference, float(bounds[0]), float(bounds[1]), float(z), float(2 * norm.sf(abs(z))))


@dataclass(frozen=True)
class McNemar:
    """Result of :func:`mcnemar`: of ``n`` cases the first alone was right in ``first_only``, the second alone in
    ``second_only``.
    """

    first_only: int
    second_only: int
    n: int
    p: float
    chi2: float
    p_chi2: float


def mcnemar(first_correct: Sequence | np.ndarray, second_correct: Sequence | np.ndarray) -> McNemar:
    """McNemar's test of two graders on the same cases, from who was right: bool[n] each.

    With b cases that only the first got right and c that only the second did,

        p = min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)])      exact, preferred
        chi2 = max(|b - c| - 1, 0)^2 / (b + c),  p_chi2 from one degree of freedom      continuity-corrected

    With b + c = 0 the graders cannot be told apart: chi2 = 0 and both p are 1. Cases are taken as independent.

    Raises ValueError when the lengths differ or a value is neither 0 nor 1.
    Source: McNemar, Psychometrika 12 (1947) 153-157; correction: Edwards, Psychometrika 13 (1948) 185-187.
    """
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(first_correct), np.asarray(second_correct)
    if (
        first.shape != second.shape
        or first.ndim != 1
        or not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    ):
        raise ValueError(
            f"first {first.shape} and second {second.shape} must be vectors of one length, with 0 or 1 only."
        )
    first, second = first.astype(bool), second.astype(bool)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    if b + c == 0:
        return McNemar(b, c, len(first), 1.0, 0.0, 1.0)
    statistic = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    return McNemar(b, c, len(first), float(binomtest(b, b + c).pvalue), statistic, float(chi2.sf(statistic, 1)))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values f[m], in the order given: those at most alpha are significant at family-wise
    error alpha.

    With p sorted upwards, adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), j counting from 1. No
    assumption about dependence is needed. A NaN (a test that could not be made) stays NaN and does not count in m.
    Empty in, empty out.

    >>> [float(value) for value in holm([0.01, 0.04, 0.03, 0.005]).round(3)]
    [0.03, 0.06, 0.06, 0.02]

    Raises ValueError for a p outside [0, 1]. Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = np.asarray(p, float)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise ValueError("p must be a vector of values in [0, 1].")
    order = np.argsort(p, kind="stable")  # NaN sorts last
    order = order[: np.count_nonzero(~np.isnan(p))]
    adjusted = np.full(p.shape, NAN)
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
