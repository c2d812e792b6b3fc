"""Cluster bootstrap: intervals and one-sided p-values of any statistic, from whole groups drawn with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thyroid_jax.evaluate.statistics.resampling import (
    NAN,
    ROUNDING,
    Statistic,
    bootstrap_values,
    check_level_and_samples,
    grouped,
    jackknife_values,
    spread_is_rounding,
    value_of,
)

METHODS = ("percentile", "expanded", "bca")


@dataclass(frozen=True)
class Interval:
    """A value with its confidence bounds.

    ``low`` and ``high`` are NaN when there is no interval (see :func:`cluster_bootstrap`). ``samples`` counts the
    replicates drawn and ``undefined`` those among them whose value was NaN and that were left out; ``clusters`` is
    the number of groups resampled. ``method`` names the interval. ``standard_error`` is the standard deviation of the
    replicates times sqrt(G / (G - 1)), G groups; of :func:`crossed_bootstrap` without this factor.
    ``jackknife_undefined`` counts, for "bca", the groups without which the statistic is NaN. ``seeds`` is the number of
    seeds that :func:`crossed_bootstrap` resampled, else 0.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    samples: int = 0
    undefined: int = 0
    clusters: int = 0
    method: str = "percentile"
    standard_error: float = NAN
    jackknife_undefined: int = 0
    seeds: int = 0


@dataclass(frozen=True)
class Replicates:
    """A statistic's value and its bootstrap replicates: ``values`` f[samples], NaN where undefined; ``without_group``
    f[groups], the value without each group, or empty when it was not asked for.

    ``values`` is empty when nothing could be drawn: see :func:`cluster_replicates`.
    """

    value: float
    values: np.ndarray
    clusters: int
    without_group: np.ndarray

    @property
    def defined(self) -> np.ndarray:
        """The replicates that have a value."""
        return self.values[~np.isnan(self.values)]

    @property
    def undefined(self) -> int:
        """Number of replicates without a value."""
        return int(np.isnan(self.values).sum())

    @property
    def standard_error(self) -> float:
        """Standard deviation of the replicates, times sqrt(G / (G - 1)); NaN for fewer than two."""
        if len(self.defined) < 2:
            return NAN
        return float(self.defined.std(ddof=1) * np.sqrt(self.clusters / (self.clusters - 1)))


def cluster_bootstrap(
    statistic: Statistic,
    clusters: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    weighted: bool = False,
    expanded: bool = False,
    method: str = "percentile",
) -> Interval:
    """Interval of a statistic when the cases come in groups: whole groups are drawn with replacement.

    One replicate draws as many groups as there are, with replacement, and takes all cases of each drawn group as
    often as it was drawn. The interval runs from the q_low to the q_high quantile of the replicates. With G groups,
    a = (1 - level)/2, t the quantile of Student's distribution, Phi the normal distribution function and z_a its
    quantile,

        q_low = a                                                      q_high = 1 - a     method="percentile"
        q_low = Phi( -t_{1 - a, G - 1} sqrt(G / (G - 1)) )             q_high = 1 - q_low  "expanded", or expanded=True
        q_low = Phi( z_0 + (z_0 + z_a) / (1 - c (z_0 + z_a)) )         q_high: z_{1 - a} in the place of z_a     "bca"

    z_0 = Phi^-1(share of replicates below the value + half the share of those equal to it) corrects the bias, and
    c = sum_g d_g^3 / (6 (sum_g d_g^2)^(3/2)) the skew, where d_g = (mean over all groups of the value without one
    group) - (value without group g).

    The percentile and the expanded interval agree for many groups. With few groups the variance of the replicates is
    too small by the factor (G - 1)/G, and the normal quantile stands in the place of Student's. The expanded interval
    corrects both. BCa corrects bias and skew, and neither of these two: with few groups it is too short.

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
        expanded: the same as method="expanded".

    The statistic must measure the same thing in every replicate, and be NaN where it cannot (for example when a grade
    of the average was not drawn). Such a replicate is left out and counted in ``undefined``. There is no interval (NaN
    bounds, nothing drawn) when the statistic itself is NaN, when there is no case, or when there is only one group: a
    single group says nothing about the spread between groups. A skewed statistic of few groups is still covered less
    often than ``level`` says; report the number of groups beside the interval. Where every replicate gives the same
    value (for example an accuracy of 1) low = high: the data show no spread, which is not certainty.

    BCa does not exist (NaN bounds) where the statistic is NaN without one of the groups (``jackknife_undefined`` counts
    them), or where all replicates lie on one side of the value. Where all replicates equal the value, low = high.

    Rows of several seeds: give the rows of all seeds, with the case's group as their label. Then groups alone are
    resampled, and the interval speaks about the mean over these very seeds. :func:`crossed_bootstrap` resamples both.

    Raises ValueError when lengths differ, for a label that is NaN, a level outside (0, 1), no samples, an unknown
    method, or ``expanded`` with "bca".
    Sources: Davison and Hinkley, *Bootstrap Methods and their Application*, 1997, sections 3.8 (strategy 1) and 5.3;
    Hesterberg, The American Statistician 69 (2015) 371-386 (expanded percentile interval); BCa: Efron, JASA 82 (1987)
    171-185.
    """
    check_level_and_samples(level, samples)
    method = _method(method, expanded)
    found = cluster_replicates(
        statistic, clusters, *data, samples=samples, seed=seed, weighted=weighted, jackknife=method == "bca"
    )
    return interval_of(found, level=level, method=method)


def cluster_replicates(
    statistic: Statistic,
    clusters: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    samples: int = 2000,
    seed: int = 0,
    weighted: bool = False,
    jackknife: bool = False,
) -> Replicates:
    """The replicates behind :func:`cluster_bootstrap`, from which several intervals and p-values can be read.

    ``jackknife`` also computes the value without each group, which "bca" needs. Nothing is drawn when there is no case,
    when there is only one group or when the value is NaN. Raises ValueError like :func:`cluster_bootstrap`.
    """
    check_level_and_samples(0.5, samples)
    table = grouped(clusters, data)
    nothing = np.empty(0)
    if table.cases == 0:
        return Replicates(NAN, nothing, 0, nothing)
    value = value_of(statistic, table, weighted)
    if np.isnan(value) or table.groups < 2:
        return Replicates(value, nothing, table.groups, nothing)
    values = bootstrap_values(statistic, table, samples, seed, weighted)
    without = jackknife_values(statistic, table, weighted) if jackknife else nothing
    return Replicates(value, values, table.groups, without)


def interval_of(replicates: Replicates, *, level: float = 0.95, method: str = "percentile") -> Interval:
    """One of the intervals of :func:`cluster_bootstrap`, read from replicates that are there already.

    Raises ValueError for a level outside (0, 1), an unknown method, or "bca" without the jackknife.
    """
    check_level_and_samples(level, 1)
    method = _method(method, False)
    defined = replicates.defined
    low = high = NAN
    if len(defined):
        shares = [_share(replicates, tail, method) for tail in ((1 - level) / 2, (1 + level) / 2)]
        if not np.isnan(shares).any():
            low, high = (float(bound) for bound in np.quantile(defined, shares))
    return Interval(
        replicates.value,
        low,
        high,
        level,
        samples=len(replicates.values),
        undefined=replicates.undefined,
        clusters=replicates.clusters,
        method=method,
        standard_error=replicates.standard_error,
        jackknife_undefined=int(np.isnan(replicates.without_group).sum()),
    )


def bootstrap_p(
    replicates: Replicates, null: float = 0.0, *, alternative: str = "greater", method: str = "expanded"
) -> float:
    """One-sided p-value of a bootstrap: the smallest tail probability whose bound of the interval reaches ``null``.

    For alternative "greater" (the value lies above ``null``), F = the largest q whose quantile of the replicates is at
    most ``null``, at least 1 / (1 + samples), and

        p = F     p = T_{G-1}( Phi^-1(F) sqrt((G - 1)/G) )     p = Phi( w / (1 + c w) - z_0 ),  w = Phi^-1(F) - z_0

    for "percentile", "expanded" and "bca". So p < alpha exactly when the lower bound at level 1 - 2 alpha lies above
    ``null``. The exception: where fewer than one replicate lies in the tail, the bound is the extreme replicate, and p
    keeps to its least value. "less" is the mirror image.

    NaN when there are no replicates, when all of them are equal (the data show no spread), or when BCa does not exist.
    Raises ValueError for an unknown alternative or method, or "bca" without the jackknife.
    Source: Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, section 15.4 (p-values from intervals).
    """
    from scipy.stats import norm, t

    method = _method(method, False)
    if alternative not in ("greater", "less"):
        raise ValueError(f"alternative must be greater or less, not {alternative!r}.")
    if alternative == "less":
        return bootstrap_p(_mirrored(replicates), -null, method=method)
    defined = np.sort(replicates.defined)
    if len(defined) < 2 or spread_is_rounding(defined):
        return NAN
    least = 1 / (1 + len(defined))
    share = float(np.clip(_share_up_to(defined, null), least, 1 - least))
    if method == "percentile":
        return share
    if method == "expanded":
        return float(t.cdf(norm.ppf(share) / _few_groups(replicates.clusters), replicates.clusters - 1))
    bias, skew = _bias_and_skew(replicates)
    w = norm.ppf(share) - bias
    return float(norm.cdf(w / (1 + skew * w) - bias)) if 1 + skew * w > 0 else NAN


def _method(method: str, expanded: bool) -> str:
    """The interval's name, from the two ways to name it."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
    if expanded and method == "bca":
        raise ValueError("expanded widens the percentile interval; it cannot be combined with method='bca'.")
    return "expanded" if expanded else method


def _share(replicates: Replicates, tail: float, method: str) -> float:
    """Share of the replicates that lie below the bound of a one-sided interval with probability ``tail`` below it."""
    from scipy.stats import norm, t

    if method == "percentile":
        return tail
    if method == "expanded":
        return float(norm.cdf(t.ppf(tail, replicates.clusters - 1) * _few_groups(replicates.clusters)))
    bias, skew = _bias_and_skew(replicates)
    w = bias + norm.ppf(tail)
    return float(norm.cdf(bias + w / (1 - skew * w))) if 1 - skew * w > 0 else NAN


def _few_groups(groups: int) -> float:
    """Factor by which the standard deviation of the replicates is too small."""
    return float(np.sqrt(groups / (groups - 1)))


def _bias_and_skew(replicates: Replicates) -> tuple[float, float]:
    """z_0 and c of :func:`cluster_bootstrap`; NaN where BCa does not exist."""
    from scipy.stats import norm

    without, defined = replicates.without_group, replicates.defined
    if not len(without):
        raise ValueError("bca needs the value without each group: make the replicates with jackknife=True.")
    if np.isnan(without).any():
        return NAN, NAN
    # Values that are equal in exact arithmetic may differ by rounding: they are ties.
    near = ROUNDING * max(abs(replicates.value), float(np.abs(defined).max()))
    tie = np.abs(defined - replicates.value) <= near
    below = np.mean((defined < replicates.value) & ~tie) + np.mean(tie) / 2
    if below in (0, 1):
        return NAN, NAN
    deviation = without.mean() - without
    if spread_is_rounding(without):
        return float(norm.ppf(below)), 0.0
    return float(norm.ppf(below)), float((deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5))


def _share_up_to(ordered: np.ndarray, null: float) -> float:
    """The largest q whose quantile of the sorted values, linearly interpolated, is at most ``null``; 0 if none is."""
    near = ROUNDING * max(abs(null), float(np.abs(ordered).max()))
    count = int(np.count_nonzero(ordered <= null + near))
    if count in (0, len(ordered)):
        return count / len(ordered)
    part = (null - ordered[count - 1]) / (ordered[count] - ordered[count - 1])
    return float((count - 1 + np.clip(part, 0, 1)) / (len(ordered) - 1))


def _mirrored(replicates: Replicates) -> Replicates:
    """The replicates of minus the statistic."""
    return replace(
        replicates, value=-replicates.value, values=-replicates.values, without_group=-replicates.without_group
    )
