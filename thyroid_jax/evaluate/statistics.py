"""Intervals and tests for comparing models: cluster bootstrap, Wilcoxon, DeLong, McNemar, Holm.

Images of one patient resemble each other. So the bootstrap resamples whole groups. The other tests assume independent
observations; their docstrings say what to do when they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
    statistic: Callable[..., Any],
    clusters: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    weighted: bool = False,
    expanded: bool = False,
) -> Interval:
    """Percentile interval of a statistic when the cases come in groups: whole groups are drawn with replacement.

    One replicate draws as many groups as there are, with replacement, and takes all cases of each drawn group as
    often as it was drawn. The interval runs from the q to the (1 - q) quantile of the replicates. With G groups, t the
    quantile of Student's distribution and Phi the normal distribution function,

        q = Phi( -t_{(1 + level)/2, G - 1} sqrt(G / (G - 1)) )      with ``expanded``
        q = (1 - level) / 2                                         without

    The two agree for many groups. With few groups the variance of the replicates is too small by the factor (G - 1)/G,
    and the normal quantile stands in the place of Student's. The expanded interval corrects both.

    The same seed draws the same groups. So two statistics of one table are resampled alike, with or without
    ``weighted``.

    >>> patient, dice = ["a", "a", "b", "c"], [1.0, 0.75, 0.75, 0.5]
    >>> cluster_bootstrap(np.mean, patient, dice).value
    0.75

    Args:
        statistic: ``statistic(*data) -> float`` on resampled rows. With ``weighted=True`` instead
            ``statistic(*data, weight=f[s n]) -> f[s]``: it gets all replicates of a block at once, as the number of
            times that each case was drawn. This suffices for means, confusion matrices and AUROCs, and is about a
            hundred times faster.
        clusters: n labels, one per case; equal labels are one group.
        data: arrays whose first axis is n.
        samples: replicates to draw.
        expanded: widen the interval for the number of groups, as above.

    The statistic must measure the same thing in every replicate, and be NaN where it cannot (for example when a grade
    of the average was not drawn). Such a replicate is left out and counted in ``undefined``. There is no interval (NaN
    bounds, nothing drawn) when the statistic itself is NaN, when there is no case, or when there is only one group: a
    single group says nothing about the spread between groups. A skewed statistic of few groups is still covered less
    often than ``level`` says; report the number of groups beside the interval. Where every replicate gives the same
    value (for example an accuracy of 1) low = high: the data show no spread, which is not certainty.

    Raises ValueError when lengths differ, or for a level outside (0, 1) or no samples.
    Sources: Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, sections 3.8 (strategy 1) and 5.3;
    Hesterberg, The American Statistician 69 (2015) 371-386 (expanded percentile interval).
    """
    rows = [np.asarray(column) for column in data]
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    member = member.reshape(-1)
    cases, groups = len(member), len(names)
    if not rows or any(len(column) != cases for column in rows):
        raise ValueError(
            f"clusters has {cases} cases, data has {[len(column) for column in rows]}; "
            "every column needs one row a case."
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
    tail = _expanded_tail(level, groups) if expanded else (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (NAN, NAN)
    return Interval(value, float(low), float(high), level, samples, samples - len(defined), groups)


def _expanded_tail(level: float, groups: int) -> float:
    """Share of the replicates to leave out on either side."""
    from scipy.stats import norm, t

    return float(norm.cdf(-t.ppf((1 + level) / 2, groups - 1) * np.sqrt(groups / (groups - 1))))


def _draws(groups: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield int[groups], the groups that are drawn, ``samples`` times."""
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
    """Result of :func:`delong`; tuples hold one entry per score.

    ``interval`` names what ``low`` and ``high`` of each area are: "logit", "normal", "pairs" or "none" (both NaN). The
    fields of the difference are NaN for a single score.
    """

    auc: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    interval: tuple[str, ...]
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
    interval: str = "logit",
) -> DeLong:
    """Area under the ROC curve with DeLong's interval, and the test of two correlated areas on the same cases.

    With psi(x, y) = 1 if x > y, 1/2 if x = y, else 0, over the P positives x_i and the N negatives y_j of one score:

        AUC = mean_ij psi(x_i, y_j)      V10_i = mean_j psi(x_i, y_j)      V01_j = mean_i psi(x_i, y_j)
        S   = cov(V10) / P + cov(V01) / N                             z = (AUC_1 - AUC_2) / sqrt(S_11 + S_22 - 2 S_12)

    V10 and V01 come from midranks, so time is n log n and memory n. Intervals of an area A, with u the normal quantile
    of (1 + level)/2 and alpha = 1 - level:

    ==========  ==========================================================================================
    "logit"     logit(A) +- u sqrt(S) / (A (1 - A)), mapped back: the delta method, always inside (0, 1)
    "normal"    A +- u sqrt(S), clipped to [0, 1]; too short and off centre when A is near 1
    "pairs"     where S = 0, that is at an area of 0 or 1 or when all scores tie: neither of the two exists.
                The m = min(P, N) disjoint pairs of a positive and a negative case are independent trials, of
                which A m are concordant: Clopper and Pearson's exact interval of that share. All concordant:
                [(alpha/2)^(1/m), 1]
    "none"      NaN: no positive or no negative case, or only one of either and an area between 0 and 1
    ==========  ==========================================================================================

    The interval of the difference = first - second is normal, clipped to [-1, 1]; p is two-sided.

    Args:
        truth: bool or 0/1 [n], True = positive.
        first, second: f[n], higher = more positive. Ties count one half.
        interval: "logit" or "normal".

    Two equal areas with no variance between them (two perfect scores) give z = 0 and p = 1. The difference then has
    the interval [0, 0] if both scores order all cases alike, else none (NaN). Different areas without variance (a
    perfect and a perfectly wrong score) have neither interval nor test, nor have two areas when there is only one
    positive or negative case. Cases are taken as independent: with several images of a patient use
    :func:`cluster_bootstrap`, on the difference if there are two scores.

    Raises ValueError for lengths that differ, truth other than 0 and 1, a score that is NaN, a level outside (0, 1) or
    an unknown interval.
    Sources: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845; midranks: Sun and Xu, IEEE SPL 21 (2014)
    1389-1393; logit: Pepe, *The Statistical Evaluation of Medical Tests*, 2003, section 5.2; pairs: Clopper and
    Pearson, Biometrika 26 (1934) 404-413.
    """
    from scipy.stats import norm, rankdata

    truth = np.asarray(truth)
    scores = np.stack([np.asarray(score, float) for score in ((first,) if second is None else (first, second))])
    _check_delong(truth, scores, level, interval)
    truth = truth.astype(bool)
    x, y = scores[:, truth], scores[:, ~truth]
    m, positives, negatives = len(scores), x.shape[1], y.shape[1]
    covariance = np.full((m, m), NAN)
    if not positives or not negatives:
        return DeLong((NAN,) * m, (NAN,) * m, (NAN,) * m, ("none",) * m, covariance)

    rank = rankdata(np.concatenate([x, y], axis=1), axis=1)
    v10 = (rank[:, :positives] - rankdata(x, axis=1)) / negatives
    v01 = 1 - (rank[:, positives:] - rankdata(y, axis=1)) / positives
    auc = v10.mean(axis=1)
    # V10 is a multiple of 1 / 2N and V01 of 1 / 2P, so a variance is 0 or at least 1 / (2PN)^2; less is rounding error.
    pairs, smallest = min(positives, negatives), 1 / (2 * positives * negatives) ** 2
    if pairs > 1:
        covariance = np.atleast_2d(np.cov(v10)) / positives + np.atleast_2d(np.cov(v01)) / negatives
    variances = np.where(covariance.diagonal() < smallest / 2, 0, covariance.diagonal())
    low, high, kind = zip(
        *(_area_interval(area, variance, pairs, level, interval) for area, variance in zip(auc, variances))
    )
    areas = tuple(map(float, auc)), low, high, kind, covariance
    if m == 1:
        return DeLong(*areas)

    difference = float(auc[0] - auc[1])
    if pairs < 2:
        return DeLong(*areas, difference)
    variance = np.var(v10[0] - v10[1], ddof=1) / positives + np.var(v01[0] - v01[1], ddof=1) / negatives
    if variance < smallest / 2:
        bound = 0.0 if (rank[0] == rank[1]).all() else NAN
        z = 0.0 if abs(difference) < np.sqrt(smallest) / 2 else NAN
        return DeLong(*areas, difference, bound, bound, z, 1.0 if z == 0 else NAN)
    z = difference / np.sqrt(variance)
    margin = norm.ppf((1 + level) / 2) * np.sqrt(variance)
    bounds = np.clip([difference - margin, difference + margin], -1, 1)
    return DeLong(*areas, difference, float(bounds[0]), float(bounds[1]), float(z), float(2 * norm.sf(abs(z))))


def _check_delong(truth: np.ndarray, scores: np.ndarray, level: float, interval: str) -> None:
    if truth.ndim != 1 or scores.shape[1:] != truth.shape:
        raise ValueError(f"truth {truth.shape} and scores {scores.shape[1:]} must be vectors of one length.")
    if not np.isin(truth, (0, 1)).all() or np.isnan(scores).any():
        raise ValueError("truth must be 0 or 1 and no score may be NaN.")
    if interval not in ("logit", "normal") or not 0 < level < 1:
        raise ValueError(f"interval must be logit or normal and level lie in (0, 1), not {interval!r} and {level}.")


def _area_interval(area: float, variance: float, pairs: int, level: float, kind: str) -> tuple[float, float, str]:
    """Bounds of one area, and which of the intervals of :func:`delong` they are."""
    from scipy.special import expit, logit
    from scipy.stats import binomtest, norm

    if area in (0, 1) or variance == 0:
        # Where all scores tie, the area 1/2 is half a success per pair: round down for the lower bound, else up.
        low, high = (
            binomtest(int(successes), pairs).proportion_ci(level, method="exact")
            for successes in (np.floor(area * pairs), np.ceil(area * pairs))
        )
        return float(low.low), float(high.high), "pairs"
    if np.isnan(variance):
        return NAN, NAN, "none"
    margin = norm.ppf((1 + level) / 2) * np.sqrt(variance)
    if kind == "normal":
        return float(max(area - margin, 0)), float(min(area + margin, 1)), kind
    low, high = expit(logit(area) + np.array([-margin, margin]) / (area * (1 - area)))
    return float(low), float(high), kind


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
