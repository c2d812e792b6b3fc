"""What a measure is worth without a model: one answer for all cases, the training part's shares, or chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.measures import MEASURES
from thyroid_jax.evaluate.questions import is_graded, is_judged
from thyroid_jax.evaluate.summary import Counts
from thyroid_jax.evaluate.summary import baselines as baseline_tables


class Baseline(NamedTuple):
    """The value of a measure that needs no model, and how it is reached."""

    value: float
    words: str


OF_ONE_GRADE = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "mean_absolute_grade_error")


def baselines(cases: Sequence[Case], areas: Mapping[str, int], training: Counts | None = None) -> dict[str, Baseline]:
    """Measure of a summary, or of the calibration -> its :class:`Baseline`, where it has one on these cases.

    Grades and malignancy: the most frequent class for all cases; Brier and ranked probability score: the shares of the
    classes as probabilities; kappa and measures of ranking: chance. Classes are counted in the ``training`` part, and
    what it has no labels of has no such baseline. Without ``training`` they are counted in these very cases: a baseline
    then knows what no model may know, and is rather too good. They are the tables of
    :func:`thyroid_jax.evaluate.summary.baselines`, with its rule for ties.

    Dice and IoU: the whole image as the outline; ``areas`` are the pixels of the images by case, and cases without one
    are left out of this mean.
    """
    return _of_outlines(cases, areas) | _of_grades(cases, training) | _of_malignancy(cases, training)


def _of_outlines(cases: Sequence[Case], areas: Mapping[str, int]) -> dict[str, Baseline]:
    drawn = [case for case in cases if not np.isnan(case.dice) and case.reference_area_px is not None]
    known = [case for case in drawn if case.case in areas]
    if not known:
        return {}
    share = np.array([(case.reference_area_px or 0) / areas[case.case] for case in known])
    whole = "whole image"
    return {
        "dice": Baseline(float(np.mean(2 * share / (1 + share))), whole),
        "iou": Baseline(float(np.mean(share)), whole),
    }


def _of_grades(cases: Sequence[Case], training: Counts | None) -> dict[str, Baseline]:
    known = [case for case in cases if is_graded(case)]
    if not known:
        return {}
    majority, prior = baseline_tables(known, training).values()
    most, several = majority[0].grade_predicted, len({case.grade_truth for case in known})
    found: dict[str, Baseline] = {}
    if most:
        found |= {name: Baseline(_value(name, majority), f"{most} for all") for name in OF_ONE_GRADE}
        scores = ("grade_brier", "grade_rps") if len(grades(known)) > 1 else ()
        found |= {name: Baseline(_value(name, prior), "shares alone") for name in scores}
    if several > 1:
        found["quadratic_kappa"] = found["linear_kappa"] = Baseline(0.0, "chance")
        found["macro_auroc"] = Baseline(0.5, "chance")
        found["macro_auprc"] = Baseline(1 / several, "chance")
    return found


def _of_malignancy(cases: Sequence[Case], training: Counts | None) -> dict[str, Baseline]:
    known = [case for case in cases if is_judged(case)]
    if not known:
        return {}
    majority, prior = baseline_tables(known, training).values()
    found: dict[str, Baseline] = {}
    if not np.isnan(majority[0].p_malignant):
        words = "malignant for all" if majority[0].p_malignant >= 0.5 else "benign for all"
        found["malignant_accuracy"] = Baseline(_value("malignant_accuracy", majority), words)
        found["malignant_brier"] = Baseline(_value("malignant_brier", prior), "share alone")
    malignant = sum(bool(case.malignant_truth) for case in known)
    if 0 < malignant < len(known):
        found["malignant_balanced_accuracy"] = found["malignant_auroc"] = Baseline(0.5, "chance")
        found["malignant_auprc"] = Baseline(malignant / len(known), "chance")
        for key in ("malignant_sensitivity_at_specificity_90", "malignant_specificity_at_sensitivity_90"):
            found[key] = Baseline(0.1, "chance")
    return found


def _value(name: str, cases: Sequence[Case]) -> float:
    measure = MEASURES[name]
    return float(measure.value(*measure.columns(cases, grades(cases)), weight=np.ones(len(cases))))
