"""Areas under ROC curves: DeLong's interval and test, for independent cases and for cases in groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.resampling import NAN, group_numbers


@dataclass(frozen=True)
class DeLong:
    """Result of :func:`delong`; tuples hold one entry per score.

    ``interval`` names what ``low`` and ``high`` of each area are: "logit", "normal", "pairs" or "none" (both NaN). The
    fields of the difference are NaN for a single score; ``difference_error`` is its standard error and
    ``difference_df`` the degrees of freedom of its quantile, infinite for the normal one.
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
    difference_error: float = NAN
    difference_df: float = NAN


def delong(
    truth: Sequence | np.ndarray,
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray | None = None,
    *,
    level: float = 0.95,
    interval: str = "logit",
    clusters: Sequence | np.ndarray | None = None,
) -> DeLong:
    """Area under the ROC curve with DeLong's interval, and the test of two correlated areas on the same cases.

    With psi(x, y) = 1 if x > y, 1/2 if x = y, else 0, over the P positives x_i and the N negatives y_j of one score:

        AUC = mean_ij psi(x_i, y_j)      V10_i = mean_j psi(x_i, y_j)      V01_j = mean_i psi(x_i, y_j)
        S   = cov(V10) / P + cov(V01) / N                             z = (AUC_1 - AUC_2) / sqrt(S_11 + S_22 - 2 S_12)

    With ``clusters``, the covariance S of the areas is Obuchowski's. Of scores r and s, with a_rg = sum of
    V10_i - AUC_r over the positives of group g, b_rg = sum of V01_j - AUC_r over its negatives, G10 groups with a
    positive, G01 with a negative and G in all,

        S_rs = G10/(G10 - 1) sum_g a_rg a_sg / P^2 + G01/(G01 - 1) sum_g b_rg b_sg / N^2
               + G/(G - 1) sum_g (a_rg b_sg + a_sg b_rg) / PN

    and with one case a group this is DeLong's. It needs two groups with a positive and two with a negative case.

    V10 and V01 come from midranks, so time is n log n and memory n. Intervals of an area A, with alpha = 1 - level and
    u the quantile of (1 + level)/2: of the normal distribution; with ``clusters`` of Student's, with the degrees of
    freedom (s10 + s01)^2 / (s10^2 / (G10 - 1) + s01^2 / (G01 - 1)), s10 and s01 the first two terms of S_rr. Student's
    quantile is ours, after Satterthwaite, because groups are often few:

    ==========  ==========================================================================================
    "logit"     logit(A) +- u sqrt(S) / (A (1 - A)), mapped back: the delta method, always inside (0, 1)
    "normal"    A +- u sqrt(S), clipped to [0, 1]; too short and off centre when A is near 1
    "pairs"     where S = 0, that is at an area of 0 or 1 or when all scores tie: neither of the two exists.
                The m = min(P, N) disjoint pairs of a positive and a negative case are independent trials, of
                which A m are concordant: Clopper and Pearson's exact interval of that share. All concordant:
                [(alpha/2)^(1/m), 1]. With ``clusters``, m is the number of pairs of different groups.
    "none"      NaN: no positive or no negative case, or only one of either (with ``clusters`` only one group
                of either) and an area between 0 and 1
    ==========  ==========================================================================================

    The interval of the difference = first - second is "normal", clipped to [-1, 1], from the sums of the differences of
    V10 and V01; p is two-sided and of the same distribution as u.

    Args:
        truth: bool or 0/1 [n], True = positive.
        first, second: f[n], higher = more positive. Ties count one half.
        interval: "logit" or "normal".
        clusters: n labels, one per case; equal labels are one group. Without them all cases are independent.

    Two equal areas with no variance between them (two perfect scores) give z = 0 and p = 1. The difference then has
    the interval [0, 0] if both scores order all cases alike, else none (NaN). Different areas without variance (a
    perfect and a perfectly wrong score) have neither interval nor test, nor have two areas when there is only one
    positive or negative case or group. With several images of a patient give ``clusters``: without them the interval
    is too short. ``experiments.coverage`` compares it with :func:`cluster_bootstrap`.

    Raises ValueError for lengths that differ, truth other than 0 and 1, a score or label that is NaN, a level outside
    (0, 1) or an unknown interval.
    Sources: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845; midranks: Sun and Xu, IEEE SPL 21 (2014)
    1389-1393; clusters: Obuchowski, Biometrics 53 (1997) 567-578; logit: Pepe, *The Statistical Evaluation of Medical
    Tests*, 2003, section 5.2; pairs: Clopper and Pearson, Biometrika 26 (1934) 404-413.
    """
    truth = np.asarray(truth)
    scores = np.stack([np.asarray(score, float) for score in ((first,) if second is None else (first, second))])
    check_scores(truth, scores)
    if interval not in ("logit", "normal") or not 0 < level < 1:
        raise ValueError(f"interval must be logit or normal and level lie in (0, 1), not {interval!r} and {level}.")
    group = np.arange(len(truth)) if clusters is None else group_numbers(clusters)
    if group.shape != truth.shape:
        raise ValueError(f"clusters has {len(group)} labels and truth {len(truth)} cases.")
    truth = truth.astype(bool)
    m, positives, negatives = len(scores), int(truth.sum()), int((~truth).sum())
    covariance, df = np.full((m, m), NAN), np.full(m, NAN)
    if not positives or not negatives:
        return DeLong((NAN,) * m, (NAN,) * m, (NAN,) * m, ("none",) * m, covariance)

    v10, v01, rank = placements(truth, scores)
    auc = v10.mean(axis=1)
    # V10 is a multiple of 1 / 2N and V01 of 1 / 2P, so a variance is 0 or at least 1 / (2PN)^2; less is rounding error.
    smallest = 1 / (2 * positives * negatives) ** 2
    if clusters is not None:
        smallest /= max(positives, negatives) ** 2  # sums over groups are divided by P^2 and N^2
    pairs, estimable = _independent_pairs(truth, group)
    if estimable:
        covariance, df = _covariance(v10, v01, truth, group)
    variances = np.where(covariance.diagonal() < smallest / 2, 0, covariance.diagonal())
    df = df if clusters is not None else np.full(m, np.inf)
    widths = [_quantile(level, own) * variance**0.5 if variance else 0.0 for variance, own in zip(variances, df)]
    low, high, kind = zip(*(_area_interval(area, width, pairs, level, interval) for area, width in zip(auc, widths)))
    areas = tuple(map(float, auc)), low, high, kind, covariance
    if m == 1:
        return DeLong(*areas)

    difference = float(auc[0] - auc[1])
    if not estimable:
        return DeLong(*areas, difference)
    gap, gap_df = _covariance(v10[:1] - v10[1:], v01[:1] - v01[1:], truth, group)
    variance = float(gap[0, 0])
    if variance < smallest / 2:
        bound = 0.0 if (rank[0] == rank[1]).all() else NAN
        z = 0.0 if abs(difference) < 1 / (4 * positives * negatives) else NAN
        return DeLong(*areas, difference, bound, bound, z, 1.0 if z == 0 else NAN, 0.0)
    error, own = variance**0.5, float(gap_df[0]) if clusters is not None else np.inf
    z, margin = difference / error, _quantile(level, own) * error
    low, high = np.clip([difference - margin, difference + margin], -1, 1)
    return DeLong(*areas, difference, float(low), float(high), z, 2 * upper_tail(abs(z), own), error, own)


def placements(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V10 f[m P], V01 f[m N] of :func:`delong` and the midranks f[m n] of m scores f[m n], positive cases first.

    ``truth`` is bool[n] with a positive and a negative case at least.
    """
    from scipy.stats import rankdata

    x, y = scores[:, truth], scores[:, ~truth]
    positives, negatives = x.shape[1], y.shape[1]
    rank = rankdata(np.concatenate([x, y], axis=1), axis=1)
    v10 = (rank[:, :positives] - rankdata(x, axis=1)) / negatives
    v01 = 1 - (rank[:, positives:] - rankdata(y, axis=1)) / positives
    return v10, v01, rank


def upper_tail(z: float, df: float) -> float:
    """P[T > z] of Student's distribution, the normal one for infinite ``df``."""
    from scipy.stats import norm, t

    return float(t.sf(z, df) if np.isfinite(df) else norm.sf(z))


def _quantile(level: float, df: float) -> float:
    from scipy.stats import norm, t

    return float(norm.ppf((1 + level) / 2) if np.isinf(df) else t.ppf((1 + level) / 2, df))


def _covariance(
    v10: np.ndarray, v01: np.ndarray, truth: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance [m m] of the means of V10 f[m P] and the degrees of freedom f[m] of its diagonal, NaN where it is 0.

    ``group`` is int[n] in the order of ``truth``.
    """
    area, groups = v10.mean(axis=1, keepdims=True), int(group.max()) + 1
    a = _group_sums(v10 - area, group[truth], groups) / v10.shape[1]
    b = _group_sums(v01 - area, group[~truth], groups) / v01.shape[1]
    g10, g01, g = (len(np.unique(labels)) for labels in (group[truth], group[~truth], group))
    s10, s01, s11 = g10 / (g10 - 1) * a @ a.T, g01 / (g01 - 1) * b @ b.T, g / (g - 1) * (a @ b.T + b @ a.T)
    of_positives, of_negatives = s10.diagonal(), s01.diagonal()
    squares = of_positives**2 / (g10 - 1) + of_negatives**2 / (g01 - 1)
    df = np.divide((of_positives + of_negatives) ** 2, squares, out=np.full(len(area), NAN), where=squares > 0)
    return s10 + s01 + s11, df


def _group_sums(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums [m g] of values f[m n] over the groups int[n]."""
    return np.stack([np.bincount(group, weights=row, minlength=groups) for row in values])


def _independent_pairs(truth: np.ndarray, group: np.ndarray) -> tuple[int, bool]:
    """Number of disjoint pairs of two groups, one with a positive and one with a negative case; and whether two groups
    have a positive and two a negative case.
    """
    positive, negative = set(group[truth]), set(group[~truth])
    pairs = min(len(positive), len(negative), len(positive | negative) // 2)
    return pairs, min(len(positive), len(negative)) > 1


def check_scores(truth: np.ndarray, scores: np.ndarray) -> None:
    """Raise ValueError unless truth [n] holds 0 and 1 only, and scores f[m n] no NaN."""
    if truth.ndim != 1 or scores.shape[1:] != truth.shape:
        raise ValueError(f"truth {truth.shape} and scores {scores.shape[1:]} must be vectors of one length.")
    if not np.isin(truth, (0, 1)).all() or np.isnan(scores).any():
        raise ValueError("truth must be 0 or 1 and no score may be NaN.")


def _area_interval(area: float, width: float, pairs: int, level: float, kind: str) -> tuple[float, float, str]:
    """Bounds of one area, and which of the intervals of :func:`delong` they are; ``width`` is u sqrt(S)."""
    from scipy.special import expit, logit
    from scipy.stats import binomtest

    if pairs and (area in (0, 1) or width == 0):
        # Where all scores tie, the area 1/2 is half a success per pair: round down for the lower bound, else up.
        low, high = (
            binomtest(int(successes), pairs).proportion_ci(level, method="exact")
            for successes in (np.floor(area * pairs), np.ceil(area * pairs))
        )
        return float(low.low), float(high.high), "pairs"
    if np.isnan(width):
        return NAN, NAN, "none"
    if kind == "normal":
        return float(max(area - width, 0)), float(min(area + width, 1)), kind
    low, high = expit(logit(area) + np.array([-width, width]) / (area * (1 - area)))
    return float(low), float(high), kind
