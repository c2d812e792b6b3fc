"""Yes/no questions about a case (malignant? this grade? this grade or a higher one?) and the measures of their answers.

An answer is a score, and a call that need not be a cut of this score: a grade is called by ``grade_predicted``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case

Columns = tuple[np.ndarray, ...]


def _unchanged(columns: Columns) -> Columns:
    return columns


class Measure(NamedTuple):
    """A measure of a table that is computed from weighted rows.

    usable      case -> whether it counts
    columns     (cases, names of the grades) -> arrays [n ...]
    value       (*arrays, weight=f[s n]) -> f[s]
    higher      True where a higher value is better
    exchanged   arrays -> arrays with the same value whose rows two models may exchange: scores become ranks
    is_area     True where the value is the area under one ROC curve, of the first column for the last
    """

    usable: Callable[[Case], bool]
    columns: Callable[[Sequence[Case], Sequence[str]], Columns]
    value: Callable[..., np.ndarray]
    higher: bool = True
    exchanged: Callable[[Columns], Columns] = _unchanged
    is_area: bool = False


def is_graded(case: Case) -> bool:
    """Whether the case has a true and a predicted grade, and probabilities."""
    return bool(case.grade_truth and case.grade_predicted and case.probability)


def is_judged(case: Case) -> bool:
    """Whether the case has a known malignancy and a probability of it."""
    return case.malignant_truth is not None and not np.isnan(case.p_malignant)


def judged_columns(cases: Sequence[Case], names: Sequence[str] = ()) -> Columns:
    """Probability of malignancy f[n] and malignancy bool[n]."""
    score = np.array([case.p_malignant for case in cases], float)
    return score, np.array([bool(case.malignant_truth) for case in cases], bool)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks of scores f[n] or of each column of f[n k]; ties have their mean rank, so AUROCs stay as they are."""
    from scipy.stats import rankdata

    return rankdata(scores, axis=0) if len(scores) else scores


# --- questions --------------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """Of one case: whether it can be asked, and then the truth, the call, and the score."""

    usable: Callable[[Case], bool]
    positive: Callable[[Case], bool]
    called: Callable[[Case], bool]
    score: Callable[[Case], float]


MALIGNANCY = Question(
    usable=is_judged,
    positive=lambda case: bool(case.malignant_truth),
    called=lambda case: case.p_malignant >= 0.5,
    score=lambda case: case.p_malignant,
)
"""Malignant? It is called from a probability of 0.5."""


def is_grade(grade: str) -> Question:
    """This grade? Scored by its probability."""
    return Question(
        usable=is_graded,
        positive=lambda case: case.grade_truth == grade,
        called=lambda case: case.grade_predicted == grade,
        score=lambda case: case.probability[grade],
    )


def at_or_above(grade: str) -> Question:
    """This grade or a higher one? Scored by the sum of their probabilities.

    The sum is rounded as :func:`thyroid_jax.evaluate.metrics.at_or_above` does.
    """

    def from_it_on(case: Case) -> list[str]:
        scale = list(case.probability)
        return scale[scale.index(grade) :]

    return Question(
        usable=is_graded,
        positive=lambda case: case.grade_truth in from_it_on(case),
        called=lambda case: case.grade_predicted in from_it_on(case),
        score=lambda case: round(sum(case.probability[name] for name in reversed(from_it_on(case))), 12),
    )


# --- measures of the answers ------------------------------------------------------------------------------------------

Answers = Callable[..., np.ndarray]
"""(score f[n], called bool[n], positive bool[n], weight f[s n]) -> f[s]"""


def _auroc(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.auroc(score, positive, weight=weight)


def _auprc(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.average_precision(score, positive, weight=weight)


def _right(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.ratio(weight @ (called == positive), weight.sum(-1))


def _confusion(called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.confusion_matrix(called.astype(int), positive.astype(int), 2, weight=weight)


def _balanced(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.balanced_accuracy(_confusion(called, positive, weight), np.array([True, True]))


def _f1(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.grade_f1(_confusion(called, positive, weight))[..., 1]


def _ppv(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.ratio(weight @ (called & positive), weight @ called)


def _npv(score: np.ndarray, called: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.ratio(weight @ (~called & ~positive), weight @ ~called)


def _at_specificity(share: float, score, called, positive, weight) -> np.ndarray:
    return metrics.sensitivity_at_specificity(score, positive, share, weight=weight)


def _at_sensitivity(share: float, score, called, positive, weight) -> np.ndarray:
    return metrics.specificity_at_sensitivity(score, positive, share, weight=weight)


FORMS: dict[str, Answers] = {
    "auroc": _auroc,
    "auprc": _auprc,
    "accuracy": _right,
    "balanced_accuracy": _balanced,
    "sensitivity": _right,
    "specificity": _right,
    "ppv": _ppv,
    "npv": _npv,
    "f1": _f1,
    "sensitivity_at_specificity_90": partial(_at_specificity, 0.9),
    "specificity_at_sensitivity_90": partial(_at_sensitivity, 0.9),
}
"""name -> measure of the answers to a question

Sensitivity and specificity are the shares of right calls over the positive and over the other cases alone; of two
models, these are the same cases. Predictive values are ratios over the called cases, which differ between two models:
cases that neither calls count in neither. What does not exist, such as a predictive value without a call, is NaN.
"""


def measure_of(question: Question, form: str) -> Measure:
    """A form of :data:`FORMS`, or ``sensitivity_at_specificity_NN`` and the reverse at NN %, of a question."""
    only = {"sensitivity": True, "specificity": False}.get(form)
    kind, _, percent = form.rpartition("_")
    if form in FORMS:
        value = FORMS[form]
    else:
        value = partial(
            _at_specificity if kind == "sensitivity_at_specificity" else _at_sensitivity, int(percent) / 100
        )

    def usable(case: Case) -> bool:
        return question.usable(case) and (only is None or question.positive(case) is only)

    def columns(cases: Sequence[Case], names: Sequence[str]) -> Columns:
        return (
            np.array([question.score(case) for case in cases], float),
            np.array([question.called(case) for case in cases], bool),
            np.array([question.positive(case) for case in cases], bool),
        )

    def exchanged(columns: Columns) -> Columns:
        return ranks(columns[0]), *columns[1:]

    return Measure(usable, columns, value, exchanged=exchanged, is_area=form == "auroc")
