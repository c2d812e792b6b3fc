"""Quality of masks, grades and malignancy on the host: plain numpy functions of one case, of a confusion matrix, or of
a per-case table.

Conventions:

=======================  ===============================================================================================
both masks empty         Dice 1, IoU 1, HD95 0
one mask empty           Dice 0, IoU 0, HD95 NaN: undefined, left out of means and counted
no reference mask        the case does not count at all
spacing unknown          no HD95 in mm (NaN); HD95 in px stands
grade never true         not averaged over: it has no recall, no AUROC and no F1. Cases predicted as that grade are
                         misses of their true grade. It keeps its place (and weight) in quadratic kappa
grade not drawn          a bootstrap replicate in which a grade of the average has no case is NaN, left out and counted
=======================  ===============================================================================================

The grading measures are functions of a confusion matrix, or of case weights, with any leading axes. So two thousand
bootstrap replicates take a few array operations. Measures that average over grades take the grades as an argument:
they are chosen once, from the whole table (:func:`occurring`), so that every replicate estimates the same quantity.
The tests compare them with scikit-learn, which gives the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.statistics import Interval, cluster_bootstrap

NAN = float("nan")


# --- masks of one case ------------------------------------------------------------------------------------------------


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Dice overlap of two masks bool[h w]: 2 |A and B| / (|A| + |B|), in [0, 1].

    Both empty: 1. One empty: 0. Raises ValueError unless both are boolean (threshold probabilities first) and of one
    2-D shape.
    """
    predicted, reference = _masks(predicted, reference)
    total = np.count_nonzero(predicted) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(predicted & reference) / total if total else 1.0


def iou(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Intersection over union (Jaccard) of two masks bool[h w]: |A and B| / |A or B|, in [0, 1].

    Both empty: 1. One empty: 0. Raises ValueError like :func:`dice`.
    """
    predicted, reference = _masks(predicted, reference)
    union = np.count_nonzero(predicted | reference)
    return np.count_nonzero(predicted & reference) / union if union else 1.0


def hd95_px(predicted: np.ndarray, reference: np.ndarray) -> float:
    """:func:`hd95` in pixels of the masks handed over (after any resizing, so not comparable between resolutions)."""
    return hd95(predicted, reference, (1.0, 1.0))


def hd95(predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, float]) -> float:
    """95 % Hausdorff distance of two masks bool[h w], in the unit of ``spacing`` = (row, column) pixel pitch, e.g. mm.

        HD95 = max( P95 over a in dA of min_b |a - b|,  P95 over b in dB of min_a |a - b| )

    It is the **larger of the two directed 95th percentiles** (as in MONAI; pooling both directions gives a smaller
    number when one side has a short outlying boundary). dA holds the centres of A's pixels with a 4-neighbour outside
    A; the image border counts as outside. Percentiles interpolate linearly and every boundary pixel counts once.

    Both empty: 0. One empty: NaN. Raises ValueError like :func:`dice`, and for a spacing that is not positive.
    Source: Huttenlocher et al., IEEE TPAMI 15 (1993) 850-863; conventions: Maier-Hein et al., Nature Methods 21
    (2024) 195-212.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    predicted, reference = _masks(predicted, reference)
    if len(spacing) != 2 or not all(np.isfinite(pitch) and pitch > 0 for pitch in spacing):
        raise ValueError(f"spacing must be two positive numbers, not {spacing}.")
    if not predicted.any() or not reference.any():
        return NAN if predicted.any() or reference.any() else 0.0

    # All boundary pixels lie in the box around the union, so distances inside it are the distances in the whole image.
    rows, columns = (np.flatnonzero((predicted | reference).any(axis=other)) for other in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    edges = [mask[box] & ~binary_erosion(mask[box]) for mask in (predicted, reference)]
    to_edge = [distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float(max(np.percentile(to_edge[1][edges[0]], 95), np.percentile(to_edge[0][edges[1]], 95)))


def _masks(predicted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, reference = np.asarray(predicted), np.asarray(reference)
    if predicted.dtype != bool or reference.dtype != bool or predicted.shape != reference.shape or predicted.ndim != 2:
        given = f"{predicted.dtype}{list(predicted.shape)} and {reference.dtype}{list(reference.shape)}"
        raise ValueError(f"masks must be bool[h w] of one shape, not {given}.")
    return predicted, reference


# --- grades of many cases ---------------------------------------------------------------------------------------------


def confusion_matrix(
    predicted: np.ndarray, truth: np.ndarray, k: int, *, weight: np.ndarray | None = None
) -> np.ndarray:
    """Confusion matrix [... k k]: entry (i, j) is the number of cases of true grade i that were given grade j.

    Args:
        predicted, truth: int[n] in 0..k-1.
        weight: f[... n], how often each case counts; once without it.

    Integers without ``weight``, floats with it. Raises ValueError for lengths that differ or a grade outside 0..k-1.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise ValueError(f"predicted {predicted.shape} and truth {truth.shape} must be vectors of one length.")
    for grade in (predicted, truth):
        if grade.size and not (np.issubdtype(grade.dtype, np.integer) and 0 <= grade.min() and grade.max() < k):
            raise ValueError(f"grades must be integers in 0..{k - 1}.")
    cell = truth.astype(int) * k + predicted.astype(int)
    if weight is None:
        return np.bincount(cell, minlength=k * k).reshape(k, k)
    weight = np.asarray(weight, float)
    return (weight @ np.eye(k * k)[cell]).reshape(*weight.shape[:-1], k, k)


def occurring(truth: np.ndarray, k: int) -> np.ndarray:
    """Which of k grades have a true case: bool[k] from truth int[n]."""
    return np.bincount(np.asarray(truth, int), minlength=k) > 0


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of cases given their true grade, from confusion matrices [... k k] (rows truth); NaN without a case.

    An average over cases, not over grades: a matrix in which a grade does not occur measures the same thing.
    """
    confusion = np.asarray(confusion, float)
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: np.ndarray, over: np.ndarray | None = None) -> np.ndarray:
    """Mean recall of the grades ``over``, from confusion matrices [... k k] (rows truth), in [0, 1].

        (1 / |over|) sum over g in over of  TP_g / true_g

    ``over`` is bool[k], one choice for all matrices of a stack, usually :func:`occurring` of the whole table. Without
    it, the grades that have a true case anywhere in the stack. NaN for a matrix in which one of these grades has no
    true case, and when there are no such grades.
    """
    confusion = np.asarray(confusion, float)
    return _mean_over(_ratio(_diagonal(confusion), confusion.sum(axis=-1)), _chosen(confusion, over))


def macro_f1(confusion: np.ndarray, over: np.ndarray | None = None) -> np.ndarray:
    """Mean F1 of the grades ``over``, from confusion matrices [... k k] (rows truth), in [0, 1].

        (1 / |over|) sum over g in over of  2 TP_g / (true_g + predicted_g)

    ``over`` and NaN as in :func:`balanced_accuracy`. The choice is by truth alone, so that two models are averaged over
    the same grades, whatever they predict. scikit-learn gives this value for ``f1_score(..., labels=...)`` with these
    grades; without ``labels`` it also averages in a 0 for a grade that was predicted and never true.
    """
    confusion = np.asarray(confusion, float)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    f1 = _ratio(2 * _diagonal(confusion), np.where(true > 0, true + predicted, 0))
    return _mean_over(f1, _chosen(confusion, over))


def quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights over all k grades, from confusion matrices O [... k k] (rows truth); at
    most 1.

        kappa = 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij,      E_ij = O_i. O_.j / n

    0 is chance agreement, negative is worse. NaN when chance disagreement is 0: no case, or truth and prediction are
    one and the same grade throughout. Grades are taken as equally spaced. They enter by their distance alone, so that a
    matrix in which a grade does not occur measures the same thing. Source: Cohen, Psychological Bulletin 70 (1968)
    213-220.
    """
    confusion = np.asarray(confusion, float)
    grade = np.arange(confusion.shape[-1])
    cost = (grade[:, None] - grade) ** 2
    observed = (cost * confusion).sum(axis=(-2, -1))
    chance = (cost * confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]).sum(axis=(-2, -1))
    return 1 - _ratio(observed * confusion.sum(axis=(-2, -1)), chance)


def auroc(score: np.ndarray, positive: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of a score f[n] for positive bool[n], in [0, 1]: P(positive scores higher) + P(tie) / 2.

    ``weight`` f[... n] counts each case that often and sets the leading axes of the result. NaN where no positive or
    no negative case has weight. Raises ValueError for a score that is NaN.
    """
    score, positive = np.asarray(score, float), np.asarray(positive, bool)
    weight = np.ones(len(score)) if weight is None else np.asarray(weight, float)
    if np.isnan(score).any() or score.shape != positive.shape:
        raise ValueError(
            f"score {score.shape} and positive {positive.shape} must be vectors of one length without NaN."
        )
    if not positive.any() or positive.all():
        return np.full(weight.shape[:-1], NAN)
    order = np.argsort(score, kind="stable")
    tie_starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    at = [np.add.reduceat(weight[..., order] * kind[order], tie_starts, axis=-1) for kind in (positive, ~positive)]
    below = np.cumsum(at[1], axis=-1) - at[1] / 2  # negatives that score lower, and half of those that tie
    return _ratio((at[0] * below).sum(axis=-1), at[0].sum(axis=-1) * at[1].sum(axis=-1))


def macro_auroc(
    probability: np.ndarray,
    truth: np.ndarray,
    over: np.ndarray | None = None,
    *,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Mean :func:`auroc` of each grade of ``over`` against the rest, from probability f[n k] and truth int[n].

    ``over`` is bool[k]; without it, the grades that are :func:`occurring`. ``weight`` as in :func:`auroc`. NaN when one
    of these grades has no true case of positive weight, or nothing but such cases, and when there are no such grades.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    over = occurring(truth, probability.shape[1]) if over is None else over
    areas = [auroc(probability[:, grade], truth == grade, weight=weight) for grade in np.flatnonzero(over)]
    return np.mean(areas, axis=0) if areas else np.full(() if weight is None else np.shape(weight)[:-1], NAN)


def grading(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The grading measures of probability f[n k] against truth int[n], over the grades that are :func:`occurring`.

    Keys: ``accuracy, balanced_accuracy, macro_f1, macro_auroc, quadratic_kappa``. The predicted grade is the most
    probable one, the lower grade on a tie. Raises ValueError for a NaN or a grade outside 0..k-1.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    if probability.ndim != 2 or np.isnan(probability).any():
        raise ValueError(f"probability must be f[n k] without NaN, not of shape {probability.shape}.")
    predicted, k = probability.argmax(axis=1), probability.shape[1]
    confusion_matrix(predicted, truth, k)  # refuses a truth that does not fit
    measures = _grading_measures(occurring(truth, k))
    return {name: float(measured(predicted, truth, probability)) for name, measured in measures.items()}


def _grading_measures(over: np.ndarray) -> dict[str, Callable[..., np.ndarray]]:
    """Name -> (predicted, truth, probability, weight=None) -> f[...], averaged over the grades ``over`` bool[k]."""

    def of_confusion(metric, *arguments):
        def measured(predicted, truth, probability, weight=None):
            return metric(confusion_matrix(predicted, truth, len(over), weight=weight), *arguments)

        return measured

    def of_probability(predicted, truth, probability, weight=None):
        return macro_auroc(probability, truth, over, weight=weight)

    return {
        "accuracy": of_confusion(accuracy),
        "balanced_accuracy": of_confusion(balanced_accuracy, over),
        "macro_f1": of_confusion(macro_f1, over),
        "macro_auroc": of_probability,
        "quadratic_kappa": of_confusion(quadratic_kappa),
    }


def _diagonal(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN (and no warning) where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, NAN), where=denominator != 0)


def _chosen(confusion: np.ndarray, over: np.ndarray | None) -> np.ndarray:
    """The grades to average over: bool[k]."""
    k = confusion.shape[-1]
    return confusion.reshape(-1, k, k).sum(axis=(0, 2)) > 0 if over is None else np.asarray(over, bool)


def _mean_over(values: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Mean over the chosen entries of the last axis; NaN when one of them is NaN, or when none is chosen."""
    chosen = values[..., over]
    return _ratio(chosen.sum(axis=-1), chosen.shape[-1])


# --- the per-case table and its summaries -----------------------------------------------------------------------------

Summary = dict[str, dict[str, float]]


def measure(
    case: str,
    group: str,
    *,
    part: str = "",
    predicted: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    spacing: tuple[float, float] = (NAN, NAN),
    probability: Mapping[str, float] | None = None,
    grade_truth: str = "",
    p_malignant: float | None = None,
    malignant_truth: bool | None = None,
) -> Case:
    """Row of the per-case table: one prediction beside its reference.

    Args:
        part: train, validation, test, or the name of a fold.
        predicted, reference: bool[h w], or None when there is no such mask (a missing reference is not an empty one).
        spacing: (row, column) pixel pitch of these masks in mm; NaN where it is unknown; HD95 in mm is then NaN.
        probability: grade name -> probability, ascending risk; the predicted grade is the most probable, the lower
            one on a tie.
        grade_truth: a key of ``probability``, or "" when the case has no grade.
        p_malignant: in [0, 1]; None or NaN when nothing predicts malignancy.
        malignant_truth: proven malignancy, None when it is unknown.

    Raises ValueError for masks that :func:`dice` refuses, a spacing that is not positive, a grade's probability that is
    not finite, or what :class:`~thyroid_jax.evaluate.cases.Case` refuses.
    """
    overlap = {"dice": NAN, "iou": NAN, "hd95_px": NAN, "hd95_mm": NAN}
    if predicted is not None and reference is not None:
        overlap["dice"], overlap["iou"] = dice(predicted, reference), iou(predicted, reference)
        overlap["hd95_px"] = hd95_px(predicted, reference)
        if not np.isnan(spacing).any():
            overlap["hd95_mm"] = hd95(predicted, reference, spacing)
    probability = {str(name): float(value) for name, value in (probability or {}).items()}
    if not np.isfinite(list(probability.values())).all():
        raise ValueError(f"case {case!r}: every grade needs a probability, not {probability}.")
    return Case(
        case=str(case),
        group=str(group),
        part=str(part),
        dice=overlap["dice"],
        iou=overlap["iou"],
        hd95_px=overlap["hd95_px"],
        hd95_mm=overlap["hd95_mm"],
        predicted_area_px=None if predicted is None else int(np.count_nonzero(predicted)),
        reference_area_px=None if reference is None else int(np.count_nonzero(reference)),
        grade_truth=str(grade_truth),
        grade_predicted=max(probability, key=probability.__getitem__) if probability else "",
        probability=probability,
        malignant_truth=malignant_truth,
        p_malignant=NAN if p_malignant is None else float(p_malignant),
    )


def summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """All measures of a table: :func:`segmentation_summary`, :func:`grading_summary` and :func:`malignancy_summary`."""
    found: Summary = {}
    for summarise in (segmentation_summary, grading_summary, malignancy_summary):
        found |= summarise(cases, samples=samples, level=level, seed=seed)
    return found


def segmentation_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Mean Dice, IoU and HD95 over the cases with both masks, with cluster-bootstrap intervals by group.

    Returns ``{metric: entry}`` for ``dice, iou, hd95_px`` and, where a case has it, ``hd95_mm``; {} when no case has
    both masks. An entry is ``{value, low, high, n, undefined, groups, replicates, replicates_undefined}``:

    ``n`` cases of ``groups`` groups are averaged; ``undefined`` more have both masks but no value (HD95 with one mask
    empty, or in mm without a spacing). Without cases of the first kind the mean HD95 looks better than it is: read it
    beside Dice, where they count 0. ``replicates`` were drawn, of which ``replicates_undefined`` had no value and were
    left out.
    """
    drawn = [case for case in cases if not np.isnan(case.dice)]
    result: Summary = {}
    for metric in ("dice", "iou", "hd95_px", "hd95_mm") if drawn else ():
        values = np.array([getattr(case, metric) for case in drawn], float)
        defined = ~np.isnan(values)
        if metric == "hd95_mm" and not defined.any():
            continue
        groups = np.array([case.group for case in drawn])[defined]
        interval = _bootstrap(_weighted_mean, groups, values[defined], samples=samples, level=level, seed=seed)
        result[metric] = _entry(interval, int(defined.sum()), int((~defined).sum()))
    return result


def grading_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Grading measures over the cases with a true and a predicted grade, with cluster-bootstrap intervals by group.

    Returns ``{metric: entry}`` for ``accuracy, balanced_accuracy, macro_f1, macro_auroc, quadratic_kappa``, entries as
    in :func:`segmentation_summary`; {} when no case has both grades. The confusion matrix is of ``grade_predicted``,
    so a decision rule other than the most probable grade counts as it was made; AUROC is of the probabilities. A
    measure that is undefined for the table as a whole has value NaN, n = 0 and ``undefined`` = the number of cases.

    Balanced accuracy, macro-F1 and macro-AUROC average over the grades that have a true case in the table. A replicate
    in which one of them was not drawn is left out of the interval and counted in ``replicates_undefined``.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    names, predicted, truth, probability, graded = _graded(cases)
    measures = _grading_measures(occurring(truth, len(names))) if graded else {}
    groups = [case.group for case in graded]
    result: Summary = {}
    for name, measured in measures.items():
        interval = _bootstrap(measured, groups, predicted, truth, probability, samples=samples, level=level, seed=seed)
        result[name] = _entry(interval, len(graded))
    return result


def malignancy_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Measures of ``p_malignant`` against proven malignancy, with cluster-bootstrap intervals by group.

    A case is called malignant from a probability of 0.5. Returns ``{metric: entry}``, entries as in
    :func:`segmentation_summary`, with ``n`` the cases that the measure is about:

    - ``malignant_auroc``: area under the ROC curve of the probability, over all cases with both values;
    - ``malignant_accuracy``: share of right calls, over all cases with both values;
    - ``malignant_balanced_accuracy``: (sensitivity + specificity) / 2, over all cases with both values;
    - ``malignant_sensitivity``: share called malignant, over the malignant cases;
    - ``malignant_specificity``: share called benign, over the benign cases.

    {} when no case has both truth and probability. AUROC and balanced accuracy need malignant and benign cases: without
    either the value is NaN, n = 0 and ``undefined`` the number of cases, and a replicate without either is left out
    and counted in ``replicates_undefined``. Sensitivity resamples the groups with malignant cases, specificity those
    with benign ones; without such a case the value is NaN and n = 0.
    """
    judged = [case for case in cases if case.malignant_truth is not None and not np.isnan(case.p_malignant)]
    if not judged:
        return {}
    groups = np.array([case.group for case in judged])
    truth = np.array([case.malignant_truth for case in judged], bool)
    probability = np.array([case.p_malignant for case in judged])
    called = probability >= 0.5
    right = (called == truth).astype(float)

    def balanced(called, truth, weight):
        confusion = confusion_matrix(called.astype(int), truth.astype(int), 2, weight=weight)
        return balanced_accuracy(confusion, over=np.array([True, True]))

    def area(probability, truth, weight):
        return auroc(probability, truth, weight=weight)

    measures: dict[str, tuple[Any, ...]] = {
        "malignant_auroc": (area, groups, probability, truth),
        "malignant_accuracy": (_weighted_mean, groups, right),
        "malignant_balanced_accuracy": (balanced, groups, called, truth),
        "malignant_sensitivity": (_weighted_mean, groups[truth], right[truth]),
        "malignant_specificity": (_weighted_mean, groups[~truth], right[~truth]),
    }
    return {
        name: _entry(_bootstrap(measured, by, *data, samples=samples, level=level, seed=seed), len(by))
        for name, (measured, by, *data) in measures.items()
    }


def table_confusion(cases: Sequence[Case]) -> tuple[tuple[str, ...], np.ndarray]:
    """Grade names (k) and confusion matrix int[k k] of the cases with a true and a predicted grade; k = 0 when
    nothing grades.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    names, predicted, truth, _, _ = _graded(cases)
    return names, confusion_matrix(predicted, truth, len(names))


def _graded(cases: Sequence[Case]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, list[Case]]:
    """Grade names, int[n] predicted, int[n] truth, f[n k] probability, and the n cases that have both grades."""
    names = grades(cases)
    graded = [case for case in cases if case.grade_truth and case.grade_predicted and case.probability]
    for case in graded:
        for grade in (case.grade_truth, case.grade_predicted):
            if grade not in names:
                raise ValueError(f"case {case.case!r}: grade {grade!r} is not one of {', '.join(names)}.")
    place = {name: index for index, name in enumerate(names)}
    predicted = np.array([place[case.grade_predicted] for case in graded], int)
    truth = np.array([place[case.grade_truth] for case in graded], int)
    probability = np.array([[case.probability[name] for name in names] for case in graded], float)
    return names, predicted, truth, probability.reshape(len(graded), len(names)), graded


_bootstrap = partial(cluster_bootstrap, weighted=True, expanded=True)


def _weighted_mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight @ values / weight.sum(axis=-1)


def _entry(interval: Interval, n: int, undefined: int = 0) -> dict[str, float]:
    """Entry of a summary: ``n`` cases have a value, ``undefined`` have none. If the measure is NaN, no case has one."""
    lost = n if np.isnan(interval.value) else 0
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": n - lost,
        "undefined": undefined + lost,
        "groups": interval.clusters,
        "replicates": interval.samples,
        "replicates_undefined": interval.undefined,
    }
