"""What a measure is worth without a model: one answer for all cases, or chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.summary import table_confusion


class Baseline(NamedTuple):
    """The value of a measure that needs no model, and how it is reached."""

    value: float
    words: str


def baselines(cases: Sequence[Case], areas: Mapping[str, int]) -> dict[str, Baseline]:
    """Measure of a summary -> its :class:`Baseline`, for the measures that have one on these cases.

    Grades and malignancy: the most frequent class of these very cases for all of them (the higher class on a tie), and
    for kappa and measures of ranking, chance. The model does not know that class, so the baseline is rather too good.
    Dice and IoU: the whole image as the outline; ``areas`` are the pixels of the images by case, and cases without one
    are left out of this mean.
    """
    return _of_outlines(cases, areas) | _of_grades(cases) | _of_malignancy(cases)


def _of_outlines(cases: Sequence[Case], areas: Mapping[str, int]) -> dict[str, Baseline]:
    known = [case for case in cases if not np.isnan(case.dice) and case.reference_area_px and case.case in areas]
    if not known:
        return {}
    share = np.array([(case.reference_area_px or 0) / areas[case.case] for case in known])
    whole = "whole image"
    return {
        "dice": Baseline(float(np.mean(2 * share / (1 + share))), whole),
        "iou": Baseline(float(np.mean(share)), whole),
    }


def _of_grades(cases: Sequence[Case]) -> dict[str, Baseline]:
    names, confusion = table_confusion(cases)
    true = confusion.sum(axis=1)
    if not true.sum():
        return {}
    most = len(true) - 1 - int(np.argmax(true[::-1]))
    constant = np.zeros_like(confusion)
    constant[:, most] = true
    found = {
        name: Baseline(float(measure(constant)), f"{names[most]} for all")
        for name, measure in (
            ("accuracy", metrics.accuracy),
            ("balanced_accuracy", metrics.balanced_accuracy),
            ("macro_f1", metrics.macro_f1),
            ("weighted_f1", metrics.weighted_f1),
            ("mean_absolute_grade_error", metrics.mean_absolute_grade_error),
        )
    }
    if np.count_nonzero(true) > 1:
        found["quadratic_kappa"] = found["linear_kappa"] = Baseline(0.0, "chance")
        found["macro_auroc"] = Baseline(0.5, "chance")
        found["macro_auprc"] = Baseline(1 / np.count_nonzero(true), "chance")
    return found


def _of_malignancy(cases: Sequence[Case]) -> dict[str, Baseline]:
    judged = [case for case in cases if case.malignant_truth is not None and not np.isnan(case.p_malignant)]
    malignant = sum(bool(case.malignant_truth) for case in judged)
    if not judged:
        return {}
    more = max(malignant, len(judged) - malignant)
    words = "malignant for all" if 2 * malignant >= len(judged) else "benign for all"
    found = {"malignant_accuracy": Baseline(more / len(judged), words)}
    if 0 < malignant < len(judged):
        found["malignant_balanced_accuracy"] = found["malignant_auroc"] = Baseline(0.5, "chance")
        found["malignant_auprc"] = Baseline(malignant / len(judged), "chance")
        for key in ("malignant_sensitivity_at_specificity_90", "malignant_specificity_at_sensitivity_90"):
            found[key] = Baseline(0.1, "chance")
    return found
