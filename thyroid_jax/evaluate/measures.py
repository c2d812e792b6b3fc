"""Measures of a per-case table that are computed from weighted rows, so that two tables can be resampled alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case

Columns = tuple[np.ndarray, ...]


class Measure(NamedTuple):
    """A measure of a table that is computed from weighted rows.

    usable      case -> whether it counts
    columns     (cases, names of the grades) -> arrays [n ...]
    value       (*arrays, weight=f[s n]) -> f[s]
    higher      True where a higher value is better
    exchanged   arrays -> arrays with the same value whose rows two models may exchange: scores become ranks
    """

    usable: Callable[[Case], bool]
    columns: Callable[[Sequence[Case], Sequence[str]], Columns]
    value: Callable[..., np.ndarray]
    higher: bool = True
    exchanged: Callable[[Columns], Columns] = lambda columns: columns


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight @ values / weight.sum(-1)


def _of_outlines(name: str, higher: bool = True) -> Measure:
    """The mean of a field of the cases."""
    return Measure(
        usable=lambda case: not np.isnan(getattr(case, name)),
        columns=lambda cases, names: (np.array([getattr(case, name) for case in cases], float),),
        value=_mean,
        higher=higher,
    )


def _is_graded(case: Case) -> bool:
    return bool(case.grade_truth and case.grade_predicted and case.probability)


def _grade_columns(cases: Sequence[Case], names: Sequence[str]) -> Columns:
    place = {name: index for index, name in enumerate(names)}
    truth = np.array([place[case.grade_truth] for case in cases], int)
    predicted = np.array([place[case.grade_predicted] for case in cases], int)
    probability = np.array([[case.probability[name] for name in names] for case in cases], float)
    return truth, predicted, probability.reshape(len(cases), len(names))


def _of_grades(measure: Callable[..., np.ndarray], averages: bool) -> Measure:
    """A measure of the confusion matrix; one that averages over grades takes those that occur in the whole table."""

    def value(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
        k = probability.shape[1]
        confusion = metrics.confusion_matrix(predicted, truth, k, weight=weight)
        return measure(confusion, metrics.occurring(truth, k)) if averages else measure(confusion)

    return Measure(_is_graded, _grade_columns, value)


def _macro_auroc(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.macro_auroc(probability, truth, metrics.occurring(truth, probability.shape[1]), weight=weight)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of scores f[n] or of each column of f[n k]; ties have their mean rank, so AUROCs stay as they are."""
    from scipy.stats import rankdata

    return rankdata(scores, axis=0) if len(scores) else scores


def _is_judged(case: Case) -> bool:
    return case.malignant_truth is not None and not np.isnan(case.p_malignant)


def _malignant_columns(cases: Sequence[Case], names: Sequence[str]) -> Columns:
    score = np.array([case.p_malignant for case in cases], float)
    return score, np.array([bool(case.malignant_truth) for case in cases], bool)


def _right_calls(cases: Sequence[Case], names: Sequence[str]) -> Columns:
    """Whether each case is called rightly, malignant from a probability of 0.5."""
    score, malignant = _malignant_columns(cases, names)
    return (((score >= 0.5) == malignant).astype(float),)


def _balanced_calls(score: np.ndarray, malignant: np.ndarray, weight: np.ndarray) -> np.ndarray:
    confusion = metrics.confusion_matrix((score >= 0.5).astype(int), malignant.astype(int), 2, weight=weight)
    return metrics.balanced_accuracy(confusion, np.array([True, True]))


MEASURES: dict[str, Measure] = {
    **{name: _of_outlines(name) for name in ("dice", "iou", "precision", "recall")},
    **{name: _of_outlines(name, higher=False) for name in ("hd95_px", "hd95_mm", "assd_px", "assd_mm")},
    **{name: _of_outlines(name) for name in ("nsd_2px", "nsd_1mm", "boundary_f_2px")},
    "quadratic_kappa": _of_grades(metrics.quadratic_kappa, averages=False),
    "accuracy": _of_grades(metrics.accuracy, averages=False),
    "balanced_accuracy": _of_grades(metrics.balanced_accuracy, averages=True),
    "macro_f1": _of_grades(metrics.macro_f1, averages=True),
    "macro_auroc": Measure(
        _is_graded,
        _grade_columns,
        _macro_auroc,
        exchanged=lambda columns: (*columns[:2], _ranks(columns[2])),
    ),
    "malignant_auroc": Measure(
        _is_judged,
        _malignant_columns,
        lambda score, malignant, weight: metrics.auroc(score, malignant, weight=weight),
        exchanged=lambda columns: (_ranks(columns[0]), columns[1]),
    ),
    "malignant_accuracy": Measure(_is_judged, _right_calls, _mean),
    "malignant_balanced_accuracy": Measure(_is_judged, _malignant_columns, _balanced_calls),
    "malignant_sensitivity": Measure(
        lambda case: _is_judged(case) and case.malignant_truth is True, _right_calls, _mean
    ),
    "malignant_specificity": Measure(
        lambda case: _is_judged(case) and case.malignant_truth is False, _right_calls, _mean
    ),
}
PRIMARY = ("dice", "quadratic_kappa", "macro_auroc", "malignant_auroc")
"""measures that are compared where none is named; every further one makes the adjustment of p stricter"""
