"""Measures of a per-case table that are computed from weighted rows, so that two tables can be resampled alike.

:data:`MEASURES` holds those with a fixed name. Further names are of one grade, an operating point, or a value:

=======================================================  ===============================================================
``at_or_above_<grade>_<form>``                           the question "this grade or a higher one?"
``grade_<grade>_<form>``                                 the question "this grade?"
``..._sensitivity_at_specificity_<NN>`` and the reverse  a form, at NN %, 1 to 99; also of ``malignant_``
``guidance_r2_<value>``                                  R^2 of a predicted radiomics value
=======================================================  ===============================================================

with the forms of :data:`~thyroid_jax.evaluate.questions.FORMS`: ``at_or_above_4a_auroc``,
``malignant_sensitivity_at_specificity_95``. :func:`measure_named` finds them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import calibration, metrics
from thyroid_jax.evaluate.calibration.binning import SUM_TOLERANCE
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.questions import (
    FORMS,
    MALIGNANCY,
    Columns,
    Measure,
    at_or_above,
    is_grade,
    is_graded,
    is_judged,
    judged_columns,
    measure_of,
    ranks,
)
from thyroid_jax.evaluate.statistics import Interval
from thyroid_jax.evaluate.summary.entry import area_interval, bootstrap


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.ratio(weight @ values, weight.sum(-1))


def _of_outlines(name: str, higher: bool = True) -> Measure:
    """The mean of a field of the cases."""
    return Measure(
        usable=lambda case: not np.isnan(getattr(case, name)),
        columns=lambda cases, names: (np.array([getattr(case, name) for case in cases], float),),
        value=_mean,
        higher=higher,
    )


def _grade_columns(cases: Sequence[Case], names: Sequence[str]) -> Columns:
    place = {name: index for index, name in enumerate(names)}
    truth = np.array([place[case.grade_truth] for case in cases], int)
    predicted = np.array([place[case.grade_predicted] for case in cases], int)
    probability = np.array([[case.probability[name] for name in names] for case in cases], float)
    return truth, predicted, probability.reshape(len(cases), len(names))


def _of_grades(measure: Callable[..., np.ndarray], *, averages: bool = False, higher: bool = True) -> Measure:
    """A measure of the confusion matrix; one that averages over grades takes those that occur in the whole table."""

    def value(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
        k = probability.shape[1]
        confusion = metrics.confusion_matrix(predicted, truth, k, weight=weight)
        return measure(confusion, metrics.occurring(truth, k)) if averages else measure(confusion)

    return Measure(is_graded, _grade_columns, value, higher)


def _of_ranking(measure: Callable[..., np.ndarray]) -> Measure:
    """A mean over the grades that occur in the whole table, of an area that depends on the order of scores alone."""

    def value(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return measure(probability, truth, metrics.occurring(truth, probability.shape[1]), weight=weight)

    def exchanged(columns: Columns) -> Columns:
        return *columns[:2], ranks(columns[2])

    return Measure(is_graded, _grade_columns, value, exchanged=exchanged)


def _of_probabilities(score: Callable[..., np.ndarray]) -> Measure:
    """A score of the grades' probabilities; lower is better."""

    def value(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return score(probability, truth, weight=weight)

    return Measure(is_graded, _checked_grade_columns, value, higher=False)


def _checked_grade_columns(cases: Sequence[Case], names: Sequence[str]) -> Columns:
    columns = _grade_columns(cases, names)
    for case, total in zip(cases, columns[2].sum(1)):
        if len(names) < 2 or abs(total - 1) > SUM_TOLERANCE:
            raise InputError(
                f"case {case.case!r}: the probabilities of its {len(names)} grades have the sum {total:.4f}. Scores of "
                "probabilities need two grades at least and a sum of 1; leave these measures out."
            )
    return columns


def _top_label_ece(probability: np.ndarray, truth: np.ndarray, *, weight: np.ndarray) -> np.ndarray:
    return calibration.ece(*calibration.top_label(probability, truth), weight=weight)


def _of_forecasts(score: Callable[..., np.ndarray]) -> Measure:
    """A score of the probability of malignancy; lower is better."""

    def value(forecast: np.ndarray, malignant: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return score(forecast, malignant, weight=weight)

    return Measure(is_judged, judged_columns, value, higher=False)


def _r2(target: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """1 - sum (t - p)^2 / sum (t - mean t)^2, the sums and the mean weighted; NaN where t does not vary."""
    centred = target - target.mean()
    square, mean = weight @ centred**2, metrics.ratio(weight @ centred, weight.sum(-1))
    variation = square - weight.sum(-1) * mean**2
    variation = np.where(variation > 1e-12 * square, variation, 0.0)  # below, it is rounding error
    return 1 - metrics.ratio(weight @ (target - predicted) ** 2, variation)


def _of_guidance(value: str) -> Measure:
    """R^2 of a radiomics value; cases of a model without guidance do not have it."""

    def usable(case: Case) -> bool:
        if case.guidance and value not in case.guidance:
            raise InputError(f"measure guidance_r2_{value}: the values of the table are {', '.join(case.guidance)}.")
        return bool(np.isfinite([case.guidance.get(value, np.nan), case.target.get(value, np.nan)]).all())

    def columns(cases: Sequence[Case], names: Sequence[str]) -> Columns:
        target = np.array([case.target[value] for case in cases], float)
        return target, np.array([case.guidance[value] for case in cases], float)

    return Measure(usable, columns, _r2)


CALIBRATION: dict[str, Measure] = {
    "grade_brier": _of_probabilities(calibration.brier),
    "grade_rps": _of_probabilities(calibration.ranked_probability_score),
    "grade_ece_width": _of_probabilities(_top_label_ece),
    "malignant_brier": _of_forecasts(calibration.binary_brier),
    "malignant_ece_width": _of_forecasts(calibration.ece),
}
"""those of :func:`~thyroid_jax.evaluate.calibration.calibration_summary` that can be compared; NLL cannot, because one
probability of 0 makes it infinite"""

MEASURES: dict[str, Measure] = {
    **{name: _of_outlines(name) for name in ("dice", "iou", "precision", "recall")},
    **{name: _of_outlines(name, higher=False) for name in ("hd95_px", "hd95_mm", "assd_px", "assd_mm")},
    **{name: _of_outlines(name) for name in ("nsd_2px", "nsd_1mm", "boundary_f_2px")},
    "quadratic_kappa": _of_grades(metrics.quadratic_kappa),
    "linear_kappa": _of_grades(metrics.linear_kappa),
    "accuracy": _of_grades(metrics.accuracy),
    "balanced_accuracy": _of_grades(metrics.balanced_accuracy, averages=True),
    "macro_f1": _of_grades(metrics.macro_f1, averages=True),
    "weighted_f1": _of_grades(metrics.weighted_f1),
    "mean_absolute_grade_error": _of_grades(metrics.mean_absolute_grade_error, higher=False),
    "macro_auroc": _of_ranking(metrics.macro_auroc),
    "macro_auprc": _of_ranking(metrics.macro_auprc),
    **{f"malignant_{form}": measure_of(MALIGNANCY, form) for form in FORMS},
    **CALIBRATION,
}

_FORM = "|".join([*FORMS, r"sensitivity_at_specificity_[1-9]\d?", r"specificity_at_sensitivity_[1-9]\d?"])
_GUIDANCE = re.compile(r"guidance_r2_(\w+)")
_NAME = re.compile(rf"(?:malignant|at_or_above_(?P<above>.+?)|grade_(?P<grade>.+?))_(?P<form>{_FORM})")


def is_measure(name: str) -> bool:
    """Whether :func:`measure_named` knows the name, on a scale that has its grade."""
    return name in MEASURES or bool(_GUIDANCE.fullmatch(name) or _NAME.fullmatch(name))


def measure_named(name: str, scale: Sequence[str]) -> Measure:
    """The measure of this name, on a ``scale`` of grades in ascending order of risk, () without grades.

    Raises :class:`~thyroid_jax.errors.InputError` for a name that is no measure, and for a grade that is not on the
    scale, or for "at or above" its lowest grade, which every case is.
    """
    if name in MEASURES:
        return MEASURES[name]
    if guided := _GUIDANCE.fullmatch(name):
        return _of_guidance(guided[1])
    found = _NAME.fullmatch(name)
    if not found:
        raise InputError(
            f"measure {name!r} cannot be compared; choose of {', '.join(MEASURES)}, or at_or_above_<grade>_<form>, "
            f"grade_<grade>_<form>, malignant_<form>, with a form of {', '.join(FORMS)}, "
            "sensitivity_at_specificity_<NN>, specificity_at_sensitivity_<NN>; or guidance_r2_<value>."
        )
    grade = found["above"] or found["grade"]
    if grade and scale and (grade not in scale or (found["above"] and grade == scale[0])):
        raise InputError(
            f"measure {name!r}: {grade!r} must be one of {', '.join(scale[1:] if found['above'] else scale)}."
        )
    question = at_or_above(grade) if found["above"] else is_grade(grade) if found["grade"] else MALIGNANCY
    return measure_of(question, found["form"])


def interval_over(
    cases: Sequence[Case], measure: Measure, scale: Sequence[str], *, samples: int, level: float = 0.95, seed: int = 0
) -> Interval:
    """A measure over the cases that have it, with its interval by group.

    The area under a single ROC curve has DeLong's interval (:func:`~thyroid_jax.evaluate.summary.entry.area_interval`),
    every other measure the expanded percentile bootstrap's. NaN where no case has the measure.
    """
    usable = [case for case in cases if measure.usable(case)]
    columns, groups = measure.columns(usable, scale), np.array([case.group for case in usable])
    if measure.is_area:
        return area_interval(columns[0], columns[-1], groups, level=level)
    return bootstrap(measure.value, groups, *columns, samples=samples, level=level, seed=seed)
