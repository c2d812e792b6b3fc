"""The tables of the page but that of the cases: measures, baselines, counts, confusion, subgroups, distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report.baselines import Baseline
from thyroid_jax.evaluate.subgroups import Estimate
from thyroid_jax.evaluate.summary import Summary, interval_kind
from thyroid_jax.evaluate.tabulate import label_of

MEASURES = {  # key -> (name, unit, what it says)
    "dice": ("Dice", "", "Overlap of the two outlines; 1 is perfect."),
    "iou": ("IoU", "", "Intersection over union; stricter than Dice."),
    "precision": ("Precision", "", "Share of the predicted pixels that are in the reference."),
    "recall": ("Recall", "", "Share of the reference's pixels that are predicted."),
    "hd95_px": ("HD95", "px", "95 % Hausdorff distance between the outlines; 0 is perfect."),
    "hd95_mm": ("HD95", "mm", "The same in millimetres, where the pixel spacing is known."),
    "assd_px": ("ASSD", "px", "Mean distance between the outlines, both ways; 0 is perfect."),
    "assd_mm": ("ASSD", "mm", "The same in millimetres, where the pixel spacing is known."),
    "nsd_2px": ("NSD at 2 px", "", "Share of the outlines within 2 pixels of each other."),
    "nsd_1mm": ("NSD at 1 mm", "", "Share of the outlines within 1 millimetre of each other."),
    "boundary_f_2px": ("Boundary F at 2 px", "", "F-score of the outlines' pixels within 2 pixels of each other."),
    "area_bias_relative": ("Area: mean relative error", "", "(predicted − reference) / reference; 0 is perfect."),
    "area_low_limit_relative": ("Area: lower limit", "", "95 % of the relative errors lie above this and"),
    "area_high_limit_relative": ("Area: upper limit", "", "below this (limits of agreement)."),
    "area_bias_mm2": ("Area: mean error", "mm²", "Predicted − reference; 0 is perfect."),
    "area_low_limit_mm2": ("Area: lower limit", "mm²", "95 % of the errors lie above this and"),
    "area_high_limit_mm2": ("Area: upper limit", "mm²", "below this (limits of agreement)."),
    "accuracy": ("Grades: accuracy", "", "Share of cases given their true grade."),
    "balanced_accuracy": ("Grades: balanced accuracy", "", "Mean recall of the grades that have a true case."),
    "macro_f1": ("Grades: macro-F1", "", "Mean F1 of the grades that have a true case."),
    "weighted_f1": ("Grades: weighted F1", "", "Mean F1 of the grades, by their number of true cases."),
    "macro_auroc": ("Grades: macro-AUROC", "", "Each of these grades against the rest, averaged; 0.5 is chance."),
    "macro_auprc": ("Grades: macro-AUPRC", "", "Average precision of these grades, averaged."),
    "quadratic_kappa": ("Grades: quadratic kappa", "", "Agreement beyond chance; far misses weigh more."),
    "linear_kappa": ("Grades: linear kappa", "", "The same; far misses weigh less."),
    "mean_absolute_grade_error": ("Grades: mean error", "steps", "Mean distance to the true grade on the scale."),
    "malignant_auroc": ("Malignancy: AUROC", "", "A malignant case scores higher than a benign one; 0.5 is chance."),
    "malignant_auprc": ("Malignancy: AUPRC", "", "Average precision; the share of malignant cases is chance."),
    "malignant_sensitivity_at_specificity_90": ("Malignancy: sensitivity at specificity 0.9", "", ""),
    "malignant_specificity_at_sensitivity_90": ("Malignancy: specificity at sensitivity 0.9", "", ""),
    "malignant_accuracy": ("Malignancy: accuracy", "", "Share of right calls; malignant from a probability of 0.5."),
    "malignant_balanced_accuracy": ("Malignancy: balanced accuracy", "", "Mean of sensitivity and specificity."),
    "malignant_prevalence": ("Malignancy: prevalence", "", "Share of malignant cases, whatever the model says."),
    "malignant_sensitivity": ("Malignancy: sensitivity", "", "Share of the malignant cases called malignant."),
    "malignant_specificity": ("Malignancy: specificity", "", "Share of the benign cases called benign."),
    "malignant_ppv": ("Malignancy: positive predictive value", "", "Share of malignant among those called malignant."),
    "malignant_npv": ("Malignancy: negative predictive value", "", "Share of benign among those called benign."),
}
NOT_SHARES = ("area_bias_relative", "area_low_limit_relative", "area_high_limit_relative")
DIGITS = {"px": 1, "mm": 2, "mm²": 1, "steps": 2}


def unit_of(key: str) -> str:
    """The unit of a measure; "" where it has none or is not known."""
    return MEASURES.get(key, ("", "", ""))[1]


def digits_of(key: str) -> int:
    """Digits after the point to show of a measure."""
    return DIGITS.get(unit_of(key), 3)


def name_of(key: str) -> str:
    """The name of a measure; that of the written tables where the page has none."""
    return MEASURES[key][0] if key in MEASURES else label_of(key)


def number(value: float | None, digits: int = 3) -> str:
    """Fixed digits; an en dash for what is missing or NaN."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def p_value(p: float) -> str:
    """A p-value in the usual form."""
    return "p –" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def estimated(found: Estimate, digits: int = 3) -> str:
    """A value with its interval."""
    if np.isnan(found.value):
        return "–"
    if np.isnan(found.low):
        return number(found.value, digits)
    return f"{number(found.value, digits)} ({number(found.low, digits)} to {number(found.high, digits)})"


# --- measures ---------------------------------------------------------------------------------------------------------


def measure_rows(summary: Summary, baselines: Mapping[str, Baseline]) -> list[dict[str, Any]]:
    """Every measure with what the page says about it."""
    return [_measure_row(key, entry, baselines.get(key)) for key, entry in summary.items()]


def headline(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows to see first: Dice, HD95 (in mm where known), kappa or else AUROC of the grades, AUROC of malignancy."""
    by_key = {row["key"]: row for row in rows if np.isfinite(row["value"])}
    wanted = (("dice",), ("hd95_mm", "hd95_px"), ("quadratic_kappa", "macro_auroc"), ("malignant_auroc",))
    chosen = (next((by_key[key] for key in keys if key in by_key), None) for keys in wanted)
    return [row for row in chosen if row is not None]


def _measure_row(key: str, entry: Mapping[str, float], baseline: Baseline | None) -> dict[str, Any]:
    unit = unit_of(key)
    bounds = [entry["value"], entry["low"], entry["high"]]
    is_share = key in MEASURES and not unit and key not in NOT_SHARES
    lost = entry["replicates_undefined"] / max(entry["replicates"], 1)
    remarks = [f"{100 * lost:.1f} % of the resamples left out"] if lost > 0.01 else []
    if entry["low"] == entry["high"]:
        remarks.append("every resample gives this value: no spread seen, which is not certainty")
    return {
        "key": key,
        "name": name_of(key),
        "unit": unit,
        "meaning": MEASURES.get(key, ("", "", ""))[2],
        "digits": digits_of(key),
        "bar": is_share and all(np.isfinite(bounds)) and 0 <= entry["low"] and entry["high"] <= 1,
        "remarks": remarks,
        "interval": {"delong": "DeLong"}.get(interval_kind(entry), ""),
        "baseline": baseline,
        **entry,
    }


CALIBRATION = {  # key -> (name, what it says)
    "grade_ece_width": ("Grades: ECE", "Mean gap of the most probable grade's probability, in bins of equal width."),
    "grade_classwise_ece_width": ("Grades: classwise ECE", "The same of every grade's probability, averaged."),
    "grade_brier": ("Grades: Brier score", "Squared error of all probabilities, from 0 to 2."),
    "grade_nll": ("Grades: negative log-likelihood", "In nats; one sure and wrong answer weighs much."),
    "grade_rps": ("Grades: ranked probability score", "Squared error on the ordered scale, from 0 to 1."),
    "malignant_ece_width": ("Malignancy: ECE", "Mean gap of the probability, in bins of equal width."),
    "malignant_brier": ("Malignancy: Brier score", "Squared error of the probability, from 0 to 1."),
    "malignant_nll": ("Malignancy: negative log-likelihood", "In nats."),
}


def calibration_rows(
    found: Summary, by_chance: Summary, baselines: Mapping[str, Baseline] | None = None
) -> list[dict[str, Any]]:
    """The measures of :data:`CALIBRATION` that there are, each beside what right probabilities would give, and what
    needs no model.
    """
    return [
        {"name": name, "meaning": meaning, "found": found[key], "right": by_chance.get(key)}
        | {"baseline": (baselines or {}).get(key), "digits": 3}
        for key, (name, meaning) in CALIBRATION.items()
        if key in found
    ]


FORMS = {  # key of a measure of one grade -> its heading
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
}


def grade_tables(per_grade: Mapping[str, Summary], at_or_above: Mapping[str, Summary]) -> list[dict[str, Any]]:
    """The measures of each grade against the rest, and of each grade or a higher one; an empty table is left out.

    ``cases`` of a row are those that the answer "yes" is right for.
    """
    return [_grade_table(*part) for part in (("Grade", "", per_grade), ("At or above", "≥ ", at_or_above)) if part[2]]


def _grade_table(heading: str, sign: str, found: Mapping[str, Summary]) -> dict[str, Any]:
    keys = [key for key in FORMS if any(key in entries for entries in found.values())]
    rows = [
        {
            "name": sign + grade,
            "cases": f"{entries['sensitivity']['n']:.0f}",
            "cells": [_estimate_of(entries[key]) for key in keys],
        }
        for grade, entries in found.items()
    ]
    return {"heading": heading, "columns": [FORMS[key] for key in keys], "rows": rows}


def _estimate_of(entry: Mapping[str, float]) -> Estimate:
    return Estimate(entry["value"], entry["low"], entry["high"], int(entry["n"]), int(entry["groups"]))


# --- counts -----------------------------------------------------------------------------------------------------------


def group_sizes(cases: Sequence[Case], *, most: int = 8) -> list[tuple[int | str, int]]:
    """(images in a group, number of such groups), ascending; sizes after the first ``most`` are one entry "more"."""
    sizes = sorted(Counter(Counter(case.group for case in cases).values()).items())
    rest = sum(count for _, count in sizes[most:])
    return sizes[:most] + ([("more", rest)] if rest else [])


def truth_counts(names: Sequence[str], cases: Sequence[Case]) -> dict[str, int]:
    """Number of cases of each true grade, in the grades' order where it is known; {} when no case has one."""
    counts = Counter(case.grade_truth for case in cases if case.grade_truth)
    return {name: counts[name] for name in names or counts} if counts else {}


def malignancy(case: Case) -> str:
    """True malignancy in a word, "" when it is unknown."""
    return {None: "", 0: "benign", 1: "malignant"}[case.malignant_truth]


def malignancy_counts(cases: Sequence[Case]) -> dict[str, int]:
    """Number of malignant, benign and unproven cases; {} when none is proven."""
    counts = Counter(malignancy(case) or "unknown" for case in cases)
    return {name: counts[name] for name in ("malignant", "benign", "unknown")} if set(counts) - {"unknown"} else {}


def counted(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Columns in order of first appearance, and the rows below them."""
    columns = list(dict.fromkeys(column for row in counts.values() for column in row))
    return {
        "columns": columns,
        "rows": [(name, [row.get(column, "–") for column in columns]) for name, row in counts.items()],
    }


def confusion_rows(names: Sequence[str], confusion: np.ndarray) -> list[dict[str, Any]]:
    """Each true grade with its counts, and their shares of the row for the shading."""
    rows = []
    for name, row in zip(names, confusion):
        total = int(row.sum())
        rows.append(
            {"name": name, "total": total, "cells": [(int(count), count / total if total else 0.0) for count in row]}
        )
    return rows


# --- distributions ----------------------------------------------------------------------------------------------------


class Strip(NamedTuple):
    """The distribution of values in [0, 1] of one subgroup: quartiles, and all values as ticks of an SVG path."""

    name: str
    n: int
    low: float
    median: float
    high: float
    ticks: str


def dice_strips(divided: Mapping[str, Sequence[tuple[str, Sequence[Case]]]]) -> list[tuple[str, list[Strip]]]:
    """Characteristic -> the distribution of Dice in each of its subgroups that has one."""
    found = []
    for characteristic, parts in divided.items():
        strips = [strip(name, [case.dice for case in some]) for name, some in parts]
        if any(one is not None for one in strips):
            found.append((characteristic, [one for one in strips if one is not None]))
    return found


def strip(name: str, values: Sequence[float]) -> Strip | None:
    """The distribution of the values that are not NaN; None without one. x runs from 0 to 100 in the path."""
    known = np.sort(np.asarray(values, float)[~np.isnan(np.asarray(values, float))])
    if not len(known):
        return None
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75])
    ticks = "".join(f"M{100 * value:.1f},10V20" for value in known)
    return Strip(name, len(known), float(low), float(median), float(high), ticks)
