"""Summary of the grades of a table: as a whole, grade by grade, and as a yes/no question at each step of the scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.metrics import (
    at_or_above,
    average_precision,
    confusion_matrix,
    grade_f1,
    grading_measures,
    occurring,
)
from thyroid_jax.evaluate.summary.entry import Summary, area_interval, bootstrap, entry, of_calls


class Graded(NamedTuple):
    """The n cases of a table with a true and a predicted grade, as arrays.

    ``names`` of the k grades in ascending order; ``predicted`` and ``truth`` int[n], ``probability`` f[n k], ``groups``
    of the cases.
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    groups: np.ndarray


def graded(cases: Sequence[Case]) -> Graded:
    """The cases that have both grades, as arrays. Raises ValueError when a grade is not one of the cases' scale."""
    names = grades(cases)
    chosen = [case for case in cases if case.grade_truth and case.grade_predicted and case.probability]
    for case in chosen:
        for grade in (case.grade_truth, case.grade_predicted):
            if grade not in names:
                raise ValueError(f"case {case.case!r}: grade {grade!r} is not one of {', '.join(names)}.")
    place = {name: index for index, name in enumerate(names)}
    probability = np.array([[case.probability[name] for name in names] for case in chosen], float)
    return Graded(
        names,
        predicted=np.array([place[case.grade_predicted] for case in chosen], int),
        truth=np.array([place[case.grade_truth] for case in chosen], int),
        probability=probability.reshape(len(chosen), len(names)),
        groups=np.array([case.group for case in chosen]),
    )


def grading_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Grading measures over the cases with a true and a predicted grade, with cluster-bootstrap intervals by group.

    Macro-AUROC keeps the bootstrap: it is a mean of several areas, and DeLong's interval is that of a single one.

    Returns ``{measure: entry}`` for the names of :func:`~thyroid_jax.evaluate.metrics.grading_measures`, entries as in
    :func:`segmentation_summary`; {} when no case has both grades. The confusion matrix is of ``grade_predicted``, so a
    decision rule other than the most probable grade counts as it was made; AUROC and AUPRC are of the probabilities. A
    measure that is undefined for the table as a whole has value NaN, n = 0 and ``undefined`` = the number of cases.

    Balanced accuracy and the macro averages are over the grades that have a true case in the table. A replicate in
    which one of them was not drawn is left out of the interval and counted in ``replicates_undefined``.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    names, predicted, truth, probability, groups = graded(cases)
    result: Summary = {}
    for name, measured in (grading_measures(occurring(truth, len(names))) if len(truth) else {}).items():
        interval = bootstrap(measured, groups, predicted, truth, probability, samples=samples, level=level, seed=seed)
        result[name] = entry(interval, len(truth))
    return result


def per_grade_summary(
    cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Summary]:
    """Each grade against the rest: ``{grade: {measure: entry}}``, over the cases with a true and a predicted grade.

    Measures are ``sensitivity`` (recall), ``specificity``, ``precision`` and ``f1`` of ``grade_predicted``, ``auroc``
    and ``auprc`` (average precision) of the grade's probability. AUROC has DeLong's interval
    (:func:`~thyroid_jax.evaluate.summary.entry.area_interval`), the others the cluster bootstrap's. Every grade of the
    scale has them all; {} when no case has both grades. Entries as in :func:`segmentation_summary`:

    - sensitivity, specificity and precision are shares of the n cases of the grade, of other grades, and given the
      grade. Each resamples the groups that have such cases; without one the value is NaN and n = 0;
    - F1 is NaN for a grade without a true case, AUROC and AUPRC also for one that all cases are of. A replicate in
      which it is so is left out and counted in ``replicates_undefined``.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    names, predicted, truth, probability, groups = graded(cases)

    def f1(called: np.ndarray, is_grade: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return grade_f1(confusion_matrix(called.astype(int), is_grade.astype(int), 2, weight=weight))[..., 1]

    def precision_area(called: np.ndarray, is_grade: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return average_precision(score, is_grade, weight=weight)

    result: dict[str, Summary] = {}
    for place, name in enumerate(names if len(truth) else ()):
        called, is_grade, score = predicted == place, truth == place, probability[:, place]
        calls = of_calls(called, is_grade, groups, samples=samples, level=level, seed=seed)
        result[name] = {
            "sensitivity": calls["sensitivity"],
            "specificity": calls["specificity"],
            "precision": calls["ppv"],
        }
        of_f1, of_precision = (
            bootstrap(measured, groups, called, is_grade, score, samples=samples, level=level, seed=seed)
            for measured in (f1, precision_area)
        )
        of_area = area_interval(score, is_grade, groups, level=level)
        result[name] |= {
            measure: entry(interval, len(truth))
            for measure, interval in (("f1", of_f1), ("auroc", of_area), ("auprc", of_precision))
        }
    return result


def at_or_above_summary(
    cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Summary]:
    """The question "this grade or a higher one?" for every grade but the lowest: ``{grade: {measure: entry}}``.

    Measures are ``auroc`` of the summed probability of the grade and those above it, with DeLong's interval, and
    ``sensitivity`` and ``specificity`` of ``grade_predicted``. Over the cases with a true and a predicted grade; {}
    when there is none. Entries and edge cases as in :func:`per_grade_summary`.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    names, predicted, truth, probability, groups = graded(cases)
    cumulative = at_or_above(probability)

    result: dict[str, Summary] = {}
    for place in range(1, len(names)) if len(truth) else ():
        positive = truth >= place
        interval = area_interval(cumulative[:, place], positive, groups, level=level)
        calls = of_calls(predicted >= place, positive, groups, samples=samples, level=level, seed=seed)
        result[names[place]] = {
            "auroc": entry(interval, len(truth)),
            "sensitivity": calls["sensitivity"],
            "specificity": calls["specificity"],
        }
    return result


def table_confusion(cases: Sequence[Case]) -> tuple[tuple[str, ...], np.ndarray]:
    """Grade names (k) and confusion matrix int[k k] of the cases with a true and a predicted grade; k = 0 when
    nothing grades.

    Raises ValueError when a grade is not one of the cases' scale.
    """
    table = graded(cases)
    return table.names, confusion_matrix(table.predicted, table.truth, len(table.names))
