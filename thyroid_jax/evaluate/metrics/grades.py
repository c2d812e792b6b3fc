"""Quality of the grades of many cases, from a confusion matrix or from probabilities.

The measures are functions of a confusion matrix, or of case weights, with any leading axes. So two thousand bootstrap
replicates take a few array operations. Measures that average over grades take the grades as an argument: they are
chosen once, from the whole table (:func:`occurring`), so that every replicate estimates the same quantity. The tests
compare them with scikit-learn, which gives the same values.

=======================  ===============================================================================================
grade never true         not averaged over: it has no recall, no AUROC and no F1. Cases predicted as that grade are
                         misses of their true grade. It keeps its place (and weight) in kappa and in the grade error
grade not drawn          a bootstrap replicate in which a grade of the average has no case is NaN, left out and counted
=======================  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thyroid_jax.evaluate.metrics.arithmetic import NAN, ratio
from thyroid_jax.evaluate.metrics.binary import auroc, average_precision


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
    return ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: np.ndarray, over: np.ndarray | None = None) -> np.ndarray:
    """Mean recall of the grades ``over``, from confusion matrices [... k k] (rows truth), in [0, 1].

        (1 / |over|) sum over g in over of  TP_g / true_g

    ``over`` is bool[k], one choice for all matrices of a stack, usually :func:`occurring` of the whole table. Without
    it, the grades that have a true case anywhere in the stack. NaN for a matrix in which one of these grades has no
    true case, and when there are no such grades.
    """
    return _mean_over(grade_sensitivity(confusion), _chosen(confusion, over))


def macro_f1(confusion: np.ndarray, over: np.ndarray | None = None) -> np.ndarray:
    """Mean F1 of the grades ``over``, from confusion matrices [... k k] (rows truth), in [0, 1].

        (1 / |over|) sum over g in over of  2 TP_g / (true_g + predicted_g)

    ``over`` and NaN as in :func:`balanced_accuracy`. The choice is by truth alone, so that two models are averaged over
    the same grades, whatever they predict. scikit-learn gives this value for ``f1_score(..., labels=...)`` with these
    grades; without ``labels`` it also averages in a 0 for a grade that was predicted and never true.
    """
    return _mean_over(grade_f1(confusion), _chosen(confusion, over))


def weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the grades, weighted by their number of true cases, from confusion matrices [... k k], in [0, 1].

        sum_g true_g F1_g / n

    A grade without a true case has no weight, so it is an average over cases and needs no choice of grades. NaN without
    a case. (The micro-averaged F1 of grades is their :func:`accuracy`: every miss is one false positive and one false
    negative.)
    """
    confusion = np.asarray(confusion, float)
    true = confusion.sum(axis=-1)
    return ratio(np.where(true > 0, true * grade_f1(confusion), 0).sum(axis=-1), true.sum(axis=-1))


def grade_sensitivity(confusion: np.ndarray) -> np.ndarray:
    """Each grade's recall TP_g / true_g, f[... k], from confusion matrices [... k k] (rows truth).

    NaN for a grade without a true case.
    """
    confusion = np.asarray(confusion, float)
    return ratio(_diagonal(confusion), confusion.sum(axis=-1))


def grade_specificity(confusion: np.ndarray) -> np.ndarray:
    """Share of the cases of other grades that are not given grade g, f[... k], from confusion matrices [... k k].

    (n - true_g - predicted_g + TP_g) / (n - true_g). NaN for a grade that is the truth of all cases.
    """
    confusion = np.asarray(confusion, float)
    others = confusion.sum(axis=(-2, -1))[..., None] - confusion.sum(axis=-1)
    return 1 - ratio(confusion.sum(axis=-2) - _diagonal(confusion), others)


def grade_precision(confusion: np.ndarray) -> np.ndarray:
    """Share of the cases given grade g that are of grade g, TP_g / predicted_g, f[... k]; NaN for one never given."""
    confusion = np.asarray(confusion, float)
    return ratio(_diagonal(confusion), confusion.sum(axis=-2))


def grade_f1(confusion: np.ndarray) -> np.ndarray:
    """Each grade's F1 2 TP_g / (true_g + predicted_g), f[... k], from confusion matrices [... k k] (rows truth).

    NaN for a grade without a true case: there a single wrong call and none would be 0 and nothing. 0 for a grade that
    is never given.
    """
    confusion = np.asarray(confusion, float)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return ratio(2 * _diagonal(confusion), np.where(true > 0, true + predicted, 0))


def mean_absolute_grade_error(confusion: np.ndarray) -> np.ndarray:
    """Mean distance |i - j| of true and given grade in steps of the scale, from confusion matrices [... k k].

    In 0..k - 1; 0 is perfect. Grades are taken as equally spaced. An average over cases, which a frequent grade rules.
    NaN without a case.
    """
    confusion = np.asarray(confusion, float)
    return ratio((_steps(confusion.shape[-1]) * confusion).sum(axis=(-2, -1)), confusion.sum(axis=(-2, -1)))


def quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights over all k grades, from confusion matrices O [... k k] (rows truth); at
    most 1.

        kappa = 1 - sum_ij (i - j)^2 O_ij / sum_ij (i - j)^2 E_ij,      E_ij = O_i. O_.j / n

    0 is chance agreement, negative is worse. NaN when chance disagreement is 0: no case, or truth and prediction are
    one and the same grade throughout. Grades are taken as equally spaced. They enter by their distance alone, so that a
    matrix in which a grade does not occur measures the same thing. Source: Cohen, Psychological Bulletin 70 (1968)
    213-220.
    """
    return _kappa(confusion, power=2)


def linear_kappa(confusion: np.ndarray) -> np.ndarray:
    """:func:`quadratic_kappa` with the weight |i - j| in the place of (i - j)^2: far misses weigh less."""
    return _kappa(confusion, power=1)


def _kappa(confusion: np.ndarray, power: int) -> np.ndarray:
    confusion = np.asarray(confusion, float)
    cost = _steps(confusion.shape[-1]) ** power
    observed = (cost * confusion).sum(axis=(-2, -1))
    chance = (cost * confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]).sum(axis=(-2, -1))
    return 1 - ratio(observed * confusion.sum(axis=(-2, -1)), chance)


def _steps(k: int) -> np.ndarray:
    """Distance int[k k] of two grades."""
    return np.abs(np.arange(k)[:, None] - np.arange(k))


def macro_auroc(
    probability: np.ndarray,
    truth: np.ndarray,
    over: np.ndarray | None = None,
    *,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Mean :func:`~thyroid_jax.evaluate.metrics.auroc` of each grade of ``over`` against the rest, from probability
    f[n k] and truth int[n].

    ``over`` is bool[k]; without it, the grades that are :func:`occurring`. ``weight`` f[... n] counts each case that
    often. NaN when one of these grades has no true case of positive weight, or nothing but such cases, and when there
    are no such grades.
    """
    return _mean_area(auroc, probability, truth, over, weight)


def macro_auprc(
    probability: np.ndarray,
    truth: np.ndarray,
    over: np.ndarray | None = None,
    *,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Mean :func:`~thyroid_jax.evaluate.metrics.average_precision` of each grade of ``over`` against the rest.

    Arguments and NaN as in :func:`macro_auroc`. Chance is the mean share of these grades.
    """
    return _mean_area(average_precision, probability, truth, over, weight)


def _mean_area(area, probability, truth, over, weight) -> np.ndarray:
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    over = occurring(truth, probability.shape[1]) if over is None else over
    areas = [area(probability[:, grade], truth == grade, weight=weight) for grade in np.flatnonzero(over)]
    return np.mean(areas, axis=0) if areas else np.full(() if weight is None else np.shape(weight)[:-1], NAN)


def at_or_above(probability: np.ndarray) -> np.ndarray:
    """Probability of each grade or a higher one, f[n k], from probability f[n k].

    Rounded to 12 decimals, so that sums of equal value tie: 0.5 + 0.2 and 0.1 + 0.6.
    """
    probability = np.asarray(probability, float)
    return np.round(np.cumsum(probability[:, ::-1], axis=1)[:, ::-1], 12)


def grading(probability: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The grading measures of probability f[n k] against truth int[n], over the grades that are :func:`occurring`.

    Keys: those of :func:`grading_measures`. The predicted grade is the most probable one, the lower grade on a tie.
    Raises ValueError for a NaN or a grade outside 0..k-1.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    if probability.ndim != 2 or np.isnan(probability).any():
        raise ValueError(f"probability must be f[n k] without NaN, not of shape {probability.shape}.")
    predicted, k = probability.argmax(axis=1), probability.shape[1]
    confusion_matrix(predicted, truth, k)  # refuses a truth that does not fit
    measures = grading_measures(occurring(truth, k))
    return {name: float(measured(predicted, truth, probability)) for name, measured in measures.items()}


def grading_measures(over: np.ndarray) -> dict[str, Callable[..., np.ndarray]]:
    """Name -> (predicted, truth, probability, weight=None) -> f[...], averaged over the grades ``over`` bool[k].

    Names: ``accuracy, balanced_accuracy, macro_f1, weighted_f1, macro_auroc, macro_auprc, quadratic_kappa,
    linear_kappa, mean_absolute_grade_error``.
    """

    def of_confusion(metric, *arguments):
        def measured(predicted, truth, probability, weight=None):
            return metric(confusion_matrix(predicted, truth, len(over), weight=weight), *arguments)

        return measured

    def of_probability(metric):
        def measured(predicted, truth, probability, weight=None):
            return metric(probability, truth, over, weight=weight)

        return measured

    return {
        "accuracy": of_confusion(accuracy),
        "balanced_accuracy": of_confusion(balanced_accuracy, over),
        "macro_f1": of_confusion(macro_f1, over),
        "weighted_f1": of_confusion(weighted_f1),
        "macro_auroc": of_probability(macro_auroc),
        "macro_auprc": of_probability(macro_auprc),
        "quadratic_kappa": of_confusion(quadratic_kappa),
        "linear_kappa": of_confusion(linear_kappa),
        "mean_absolute_grade_error": of_confusion(mean_absolute_grade_error),
    }


def _diagonal(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _chosen(confusion: np.ndarray, over: np.ndarray | None) -> np.ndarray:
    """The grades to average over: bool[k]."""
    k = confusion.shape[-1]
    return confusion.reshape(-1, k, k).sum(axis=(0, 2)) > 0 if over is None else np.asarray(over, bool)


def _mean_over(values: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Mean over the chosen entries of the last axis; NaN when one of them is NaN, or when none is chosen."""
    chosen = values[..., over]
    return ratio(chosen.sum(axis=-1), chosen.shape[-1])
