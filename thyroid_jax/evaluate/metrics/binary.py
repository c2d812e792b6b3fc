"""Quality of a score f[n] for a yes/no truth: ranking, operating points, curves, and net benefit.

A higher score is more positive, and a case is called positive from a threshold on: score >= threshold. Cases that tie
are called together; so a curve has one point for each distinct score. ``weight`` f[... n] counts each case that often
and sets the leading axes of the result, so that all bootstrap replicates are one call. What does not exist, such as a
sensitivity without a positive case, is NaN.

========================  ================  ================  ==========================================
measure                   no positive case  no negative case  all scores tie
========================  ================  ================  ==========================================
AUROC                     NaN               NaN               0.5
average precision         NaN               NaN               the share of positives
sensitivity at a          NaN               NaN               1 - the specificity (the chance line)
specificity, and reverse
========================  ================  ================  ==========================================
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.metrics.arithmetic import NAN, ratio


def auroc(score: np.ndarray, positive: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of a score f[n] for positive bool[n], in [0, 1]: P(positive scores higher) + P(tie) / 2.

    ``weight`` f[... n] counts each case that often and sets the leading axes of the result. NaN where no positive or
    no negative case has weight. Raises ValueError for a score that is NaN.
    """
    _, positives, negatives = _counts_by_score(score, positive, weight)
    above = np.cumsum(positives, axis=-1) - positives / 2  # positives that score higher, and half of those that tie
    return ratio((negatives * above).sum(axis=-1), positives.sum(axis=-1) * negatives.sum(axis=-1))


def average_precision(score: np.ndarray, positive: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision-recall curve (AUPRC) of a score f[n] for positive bool[n], in (0, 1].

        AP = sum_i (R_i - R_(i-1)) P_i      over the distinct scores in descending order

    with precision P_i and recall R_i when every score from the i-th on is called positive. It is a step function
    without interpolation, as in scikit-learn: straight lines between the points would be too optimistic. A score
    without information gives the share of positives, so compare it only between tables of one prevalence.

    ``weight`` as in :func:`auroc`. NaN where no positive or no negative case has weight: without a negative case any
    score would have the value 1. Raises ValueError for a score that is NaN.
    Source: Davis and Goadrich, ICML 2006 (interpolation); ``sklearn.metrics.average_precision_score``.
    """
    _, positives, negatives = _counts_by_score(score, positive, weight)
    found = np.cumsum(positives, axis=-1)
    called = found + np.cumsum(negatives, axis=-1)
    share = np.divide(found, called, out=np.zeros_like(called), where=called > 0)  # without a case there is no step
    area = ratio((positives * share).sum(axis=-1), positives.sum(axis=-1))
    return np.where(negatives.sum(axis=-1) > 0, area, NAN)


def sensitivity_at_specificity(
    score: np.ndarray, positive: np.ndarray, specificity: float, *, weight: np.ndarray | None = None
) -> np.ndarray:
    """Sensitivity of the empirical ROC curve at a given specificity in [0, 1].

    The curve's points are those of :func:`roc_curve`; between two of them it is a straight line (a threshold chosen at
    random between two neighbours). Where it is vertical, the highest sensitivity counts. ``weight`` and NaN as in
    :func:`auroc`. Raises ValueError for a specificity outside [0, 1].
    """
    _check_share("specificity", specificity)
    _, positives, negatives = _counts_by_score(score, positive, weight)
    return _height(negatives, positives, 1 - specificity)


def specificity_at_sensitivity(
    score: np.ndarray, positive: np.ndarray, sensitivity: float, *, weight: np.ndarray | None = None
) -> np.ndarray:
    """Specificity of the empirical ROC curve at a given sensitivity in [0, 1].

    Interpolated as in :func:`sensitivity_at_specificity`; where the curve is horizontal, the highest value counts.
    """
    _check_share("sensitivity", sensitivity)
    _, positives, negatives = _counts_by_score(score, positive, weight)
    # From the other end of the curve: the share of negatives below a threshold, against that of positives below it.
    return _height(positives[..., ::-1], negatives[..., ::-1], 1 - sensitivity)


class RocCurve(NamedTuple):
    """Points of a ROC curve in ascending order of both rates; all f[... m + 1] but ``threshold`` f[m + 1].

    Cases with a score of at least ``threshold`` are called positive. The first threshold is infinite: nothing is.
    """

    threshold: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray


def roc_curve(score: np.ndarray, positive: np.ndarray, *, weight: np.ndarray | None = None) -> RocCurve:
    """ROC curve of a score f[n] for positive bool[n]: one point for each of its m distinct values, after (0, 0).

    No point is left out. The area under straight lines between the points is :func:`auroc`. A rate is NaN without a
    case to count. ``weight`` as in :func:`auroc`. Raises ValueError for a score that is NaN.
    """
    threshold, positives, negatives = _counts_by_score(score, positive, weight)
    rates = [_cumulative_share(counts) for counts in (negatives, positives)]
    return RocCurve(np.concatenate([[np.inf], threshold]), *rates)


class PrecisionRecallCurve(NamedTuple):
    """Points of a precision-recall curve in ascending order of recall; f[... m], ``threshold`` f[m].

    Cases with a score of at least ``threshold`` are called positive.
    """

    threshold: np.ndarray
    recall: np.ndarray
    precision: np.ndarray


def precision_recall_curve(
    score: np.ndarray, positive: np.ndarray, *, weight: np.ndarray | None = None
) -> PrecisionRecallCurve:
    """Precision-recall curve of a score f[n] for positive bool[n]: one point for each of its m distinct values.

    Draw it as steps: the precision of a point holds from the recall of the point before to its own. The area of these
    steps is :func:`average_precision`. There is no point of recall 0, where precision does not exist. Recall is NaN
    without a positive case. ``weight`` as in :func:`auroc`. Raises ValueError for a score that is NaN.
    """
    threshold, positives, negatives = _counts_by_score(score, positive, weight)
    found, wrong = np.cumsum(positives, axis=-1), np.cumsum(negatives, axis=-1)
    return PrecisionRecallCurve(threshold, _cumulative_share(positives)[..., 1:], ratio(found, found + wrong))


def net_benefit(
    score: np.ndarray, positive: np.ndarray, threshold: np.ndarray, *, weight: np.ndarray | None = None
) -> np.ndarray:
    """Net benefit f[... m] of treating the cases whose probability f[n] is at least a threshold f[m] in (0, 1).

        NB(t) = TP(t) / n - FP(t) / n * t / (1 - t)

    in true positives per case. The threshold is the probability at which benefit and harm of a treatment (a biopsy)
    balance. Treating none has net benefit 0; treating all has that of a score of 1 for everyone,
    prevalence - (1 - prevalence) t / (1 - t). The score must be a calibrated probability for this to mean anything.

    ``weight`` f[... n] as in :func:`auroc`. NaN without a case. Raises ValueError for a threshold outside (0, 1), or a
    score that is NaN.
    Source: Vickers and Elkin, Medical Decision Making 26 (2006) 565-574.
    """
    score, positive, weight = _checked(score, positive, weight)
    threshold = np.asarray(threshold, float)
    if threshold.ndim != 1 or not ((threshold > 0) & (threshold < 1)).all():
        raise ValueError("thresholds must be a vector of values between 0 and 1, without 0 and 1.")
    gain = np.where(positive[:, None], 1.0, -threshold / (1 - threshold)) * (score[:, None] >= threshold)
    return ratio(weight @ gain, weight.sum(axis=-1)[..., None])


def _checked(
    score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    if score.ndim != 1 or np.isnan(score).any() or score.shape != positive.shape:
        raise ValueError(
            f"score {score.shape} and positive {positive.shape} must be vectors of one length without NaN."
        )
    return score, positive, np.ones(len(score)) if weight is None else np.asarray(weight, float)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], not {value}.")


def _counts_by_score(
    score: np.ndarray, positive: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The m distinct scores f[m] in descending order, and how many positive and negative cases f[... m] have each."""
    score, positive, weight = _checked(score, positive, weight)
    if not len(score):
        return score, weight, weight
    order = np.argsort(-score, kind="stable")
    first_of_tie = np.flatnonzero(np.r_[True, np.diff(score[order]) < 0])
    ordered = weight[..., order]
    counts = [ordered * kind for kind in (positive[order], ~positive[order])]
    if len(first_of_tie) < len(score):
        counts = [np.add.reduceat(count, first_of_tie, axis=-1) for count in counts]
    return score[order][first_of_tie], *counts


def _cumulative_share(counts: np.ndarray) -> np.ndarray:
    """Share f[... m + 1] of the counts f[... m] that stand before each place; NaN where all are 0."""
    before = np.concatenate([np.zeros((*counts.shape[:-1], 1)), np.cumsum(counts, axis=-1)], axis=-1)
    return ratio(before, before[..., -1:])


def _height(steps_right: np.ndarray, steps_up: np.ndarray, share: float) -> np.ndarray:
    """Height in [0, 1] of a curve from (0, 0) to (1, 1) at an abscissa; the upper end where it is vertical there.

    The curve goes by the counts f[... m], as shares of their sums; the height is NaN where either sum is 0.
    """
    right = np.concatenate([np.zeros((*steps_right.shape[:-1], 1)), np.cumsum(steps_right, axis=-1)], axis=-1)
    up = np.concatenate([np.zeros((*steps_up.shape[:-1], 1)), np.cumsum(steps_up, axis=-1)], axis=-1)
    target = share * right[..., -1:]
    # Counts are whole numbers: what is above the target by rounding alone (0.1 * 30) is at it.
    at = np.count_nonzero(right <= target + 1e-9 * right[..., -1:], axis=-1, keepdims=True) - 1
    after = np.minimum(at + 1, right.shape[-1] - 1)
    here, there = (np.take_along_axis(right, place, axis=-1) for place in (at, after))
    low, high = (np.take_along_axis(up, place, axis=-1) for place in (at, after))
    gap = there - here
    part = np.divide(np.maximum(target - here, 0), gap, out=np.zeros_like(gap), where=gap > 0)
    height = ratio(low + part * (high - low), up[..., -1:])
    return np.where(right[..., -1:] > 0, height, NAN)[..., 0]
