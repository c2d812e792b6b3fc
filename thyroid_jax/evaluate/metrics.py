"""Quality of masks and grades on the host: plain numpy functions of one case, of a confusion matrix, or of a per-case
table.

Conventions, written once:

====================  ==================================================================================================
both masks empty      Dice 1, IoU 1, HD95 0
one mask empty        Dice 0, IoU 0, HD95 NaN: undefined, left out of means and counted
no reference mask     the case does not count at all
grade not in truth    no recall, so not in balanced accuracy; in macro-F1 with F1 = 0 if it was predicted, else left out;
                      no AUROC of its own; it keeps its place (and weight) in quadratic kappa
====================  ==================================================================================================

The grading measures are functions of a confusion matrix, or of case weights, with free leading axes: two thousand
bootstrap replicates are then a few array operations. scikit-learn, which gives the same values, judges them in the
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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

    the **larger of the two directed 95th percentiles** (as in MONAI; pooling both directions gives a smaller number
    when one side has a short outlying boundary). dA holds the centres of A's pixels with a 4-neighbour outside A, the
    image border being outside; percentiles interpolate linearly and every boundary pixel counts once.

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


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of cases given their true grade, from confusion matrices [... k k] (rows truth); NaN without a case."""
    confusion = np.asarray(confusion, float)
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean recall over the grades that occur in the truth, from confusion matrices [... k k] (rows truth); NaN without a
    case.
    """
    confusion = np.asarray(confusion, float)
    return _mean_defined(_ratio(_diagonal(confusion), confusion.sum(axis=-1)))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean over grades of F1 = 2 TP / (true + predicted), from confusion matrices [... k k] (rows truth); NaN without
    a case.

    Grades that occur in neither truth nor prediction are left out; a grade that was predicted but never true has F1 =
    0.
    """
    confusion = np.asarray(confusion, float)
    return _mean_defined(_ratio(2 * _diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2)))


def quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights over all k grades, from confusion matrices O [... k k] (rows truth); at
    most 1.

        kappa = 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij,      E_ij = O_i. O_.j / n

    0 is chance agreement, negative is worse. NaN when chance disagreement is 0: no case, or truth and prediction are
    one and the same grade throughout. Grades are taken as equally spaced. Source: Cohen, Psychological Bulletin 70
    (1968) 213-220.
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


def macro_auroc(probability: np.ndarray, truth: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Mean over grades of the one-against-the-rest :func:`auroc`, from probability f[n k] and truth int[n].

    Only grades with a positive and a negative case count; NaN when there is none. ``weight`` as in :func:`auroc`.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    return _mean_defined(
        np.stack([auroc(p, truth == grade, weight=weight) for grade, p in enumerate(probability.T)], axis=-1)
    )


CONFUSION_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "quadratic_kappa": quadratic_kappa,
}


def grading(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """All grading measures of probability f[n k] against truth int[n]: :data:`CONFUSION_METRICS` and ``macro_auroc``.

    The predicted grade is the most probable one, the lower grade on a tie. Raises ValueError for a NaN or a grade
    outside 0..k-1.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    if probability.ndim != 2 or np.isnan(probability).any():
        raise ValueError(f"probability must be f[n k] without NaN, not of shape {probability.shape}.")
    confusion = confusion_matrix(probability.argmax(axis=1), truth, probability.shape[1])
    measures = {name: float(metric(confusion)) for name, metric in CONFUSION_METRICS.items()}
    return {**measures, "macro_auroc": float(macro_auroc(probability, truth))}


def _diagonal(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN (and no warning) where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, NAN), where=denominator != 0)


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


# --- the per-case table and its summaries -----------------------------------------------------------------------------

Summary = dict[str, dict[str, float]]


def measure(
    case: str,
    group: str,
    *,
    predicted: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    probability: Mapping[str, float] | None = None,
    grade_truth: str = "",
) -> Case:
    """Row of the per-case table: one prediction beside its reference.

    Args:
        predicted, reference: bool[h w], or None when there is no such mask (a missing reference is not an empty one).
        probability: grade name -> probability, ascending risk; the predicted grade is the most probable, the lower
        one on a tie. grade_truth: a key of ``probability``, or "" when the case has no grade.

    Raises ValueError for masks that :func:`dice` refuses.
    """
    both = predicted is not None and reference is not None
    probability = {str(name): float(value) for name, value in (probability or {}).items()}
    return Case(
        case=str(case),
        group=str(group),
        dice=dice(predicted, reference) if both else NAN,
        iou=iou(predicted, reference) if both else NAN,
        hd95_px=hd95_px(predicted, reference) if both else NAN,
        predicted_area_px=None if predicted is None else int(np.count_nonzero(predicted)),
        reference_area_px=None if reference is None else int(np.count_nonzero(reference)),
        grade_truth=str(grade_truth),
        grade_predicted=max(probability, key=probability.__getitem__) if probability else "",
        probability=probability,
    )


def segmentation_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Mean Dice, IoU and HD95 (px) over the cases that have a reference mask, with cluster-bootstrap intervals by
    group.

    Returns ``{metric: {value, low, high, n, undefined, groups}}`` for ``dice, iou, hd95_px``; {} when no case has a
    reference mask. ``n`` cases of ``groups`` groups are averaged; ``undefined`` more have a reference but no value
    (HD95 with one mask empty), which flatters the mean: read it beside Dice, where such a case counts 0.
    """
    drawn = [case for case in cases if not np.isnan(case.dice)]
    summary: Summary = {}
    for metric in ("dice", "iou", "hd95_px") if drawn else ():
        values = np.array([getattr(case, metric) for case in drawn], float)
        defined = ~np.isnan(values)
        groups = np.array([case.group for case in drawn])[defined]
        interval = cluster_bootstrap(
            _weighted_mean, groups, values[defined], samples=samples, level=level, seed=seed, weighted=True
        )
        summary[metric] = _entry(interval, int(defined.sum()), int((~defined).sum()))
    return summary


def grading_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Grading measures over the cases with a true and a predicted grade, with cluster-bootstrap intervals by group.

    Returns ``{metric: {value, low, high, n, undefined, groups}}`` for ``accuracy, balanced_accuracy, macro_f1,
    macro_auroc, quadratic_kappa``; {} when no case has both grades. The confusion matrix is of ``grade_predicted``,
    so a decision rule other than the most probable grade counts as it was made; AUROC is of the probabilities. A
    measure that is undefined for the table as a whole has value NaN, n = 0 and ``undefined`` = the number of cases.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    names, predicted, truth, probability, graded = _graded(cases)
    if not graded:
        return {}

    def of_confusion(metric):
        return lambda predicted, truth, probability, weight: metric(
            confusion_matrix(predicted, truth, len(names), weight=weight)
        )

    measures = {name: of_confusion(metric) for name, metric in CONFUSION_METRICS.items()}
    measures["macro_auroc"] = lambda predicted, truth, probability, weight: macro_auroc(
        probability, truth, weight=weight
    )
    groups = [case.group for case in graded]
    summary: Summary = {}
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "quadratic_kappa"):
        interval = cluster_bootstrap(
            measures[name],
            groups,
            predicted,
            truth,
            probability,
            samples=samples,
            level=level,
            seed=seed,
            weighted=True,
        )
        undefined = len(graded) if np.isnan(interval.value) else 0
        summary[name] = _entry(interval, len(graded) - undefined, undefined)
    return summary


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
    predicted, truth = (
        np.array([place[getattr(case, kind)] for case in graded], int) for kind in ("grade_predicted", "grade_truth")
    )
    probability = np.array([[case.probability[name] for name in names] for case in graded], float).reshape(
        len(graded), len(names)
    )
    return names, predicted, truth, probability, graded


def _weighted_mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight @ values / weight.sum(axis=-1)


def _entry(interval: Interval, n: int, undefined: int) -> dict[str, float]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "undefined": undefined,
        "groups": interval.clusters,
    }
