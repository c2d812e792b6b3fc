"""The tables of the page: numbers as texts, the headline, counts, confusion, distributions."""

import numpy as np
import pytest
from report_samples import NAMES, sample_cases

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report.baselines import Baseline
from thyroid_jax.evaluate.report.tables import (
    MEASURES,
    calibration_rows,
    confusion_rows,
    counted,
    dice_strips,
    digits_of,
    estimated,
    grade_tables,
    group_sizes,
    headline,
    malignancy_counts,
    measure_rows,
    name_of,
    number,
    p_value,
    strip,
    truth_counts,
    unit_of,
)
from thyroid_jax.evaluate.subgroups import Estimate
from thyroid_jax.evaluate.summary import at_or_above_summary, per_grade_summary, summary

NAN = float("nan")


def entry(value=0.5, low=0.4, high=0.6, **more):
    return {
        "value": value, "low": low, "high": high, "n": 9, "undefined": 0, "groups": 5, "replicates": 100,
        "replicates_undefined": 0,
    } | more  # fmt: skip


def test_numbers_as_texts():
    assert [number(x, d) for x, d in ((0.12345, 3), (-0.5, 2), (7, 0), (NAN, 3), (None, 3), (float("inf"), 1))] == [
        "0.123", "−0.50", "7", "–", "–", "–"
    ]  # fmt: skip
    assert [p_value(p) for p in (0.0004, 0.001, 0.04999, 1.0, NAN)] == [
        "p < 0.001", "p = 0.001", "p = 0.050", "p = 1.000", "p –"
    ]  # fmt: skip
    assert estimated(Estimate(0.5, -0.1, 0.6, 3, 2)) == "0.500 (−0.100 to 0.600)"
    assert estimated(Estimate(0.5, NAN, NAN, 3, 1)) == "0.500" and estimated(Estimate(NAN, NAN, NAN, 0, 0)) == "–"


def test_the_headline_takes_millimetres_and_kappa_where_they_exist():
    keys = ("dice", "iou", "hd95_px", "hd95_mm", "accuracy", "macro_auroc", "quadratic_kappa", "malignant_auroc")
    rows = measure_rows({key: entry() for key in keys}, {})
    assert [row["key"] for row in headline(rows)] == ["dice", "hd95_mm", "quadratic_kappa", "malignant_auroc"]
    rows = measure_rows({key: entry(NAN if key in ("hd95_mm", "quadratic_kappa") else 0.5) for key in keys}, {})
    assert [row["key"] for row in headline(rows)] == ["dice", "hd95_px", "macro_auroc", "malignant_auroc"]
    assert headline(measure_rows({}, {})) == []


def test_a_row_has_its_unit_digits_baseline_and_a_bar_only_for_shares():
    names = ("dice", "hd95_px", "assd_mm", "mean_absolute_grade_error", "area_bias_relative", "new")
    rows = measure_rows({key: entry() for key in names}, {"dice": Baseline(0.2, "whole image")})
    found = {row["key"]: row for row in rows}
    assert found["dice"]["baseline"] == (0.2, "whole image") and found["hd95_px"]["baseline"] is None
    assert [found[key]["bar"] for key in found] == [True, False, False, False, False, False]
    assert (found["hd95_px"]["unit"], found["hd95_px"]["digits"], found["assd_mm"]["digits"]) == ("px", 1, 2)
    assert found["new"]["name"] == "New" == name_of("new") and unit_of("new") == "" and digits_of("new") == 3
    (kappa,) = measure_rows({"quadratic_kappa": entry(low=-0.1)}, {})
    assert not kappa["bar"]


def test_every_measure_of_a_summary_has_a_name():
    rng = np.random.default_rng(0)
    cases = [
        Case(
            f"{i}", f"{i}", dice=0.5, iou=0.4, hd95_px=1.0, hd95_mm=1.0, precision=1.0, recall=1.0, assd_px=1.0,
            assd_mm=1.0, nsd_2px=1.0, nsd_1mm=1.0, boundary_f_2px=1.0, predicted_area_px=4, reference_area_px=4,
            predicted_area_mm2=4.0, reference_area_mm2=4.0, grade_truth="ab"[i % 2], grade_predicted="a",
            probability={"a": 0.6, "b": 0.4}, malignant_truth=bool(i % 2), p_malignant=float(rng.uniform()),
        )
        for i in range(8)
    ]  # fmt: skip
    assert set(summary(cases, samples=10)) <= set(MEASURES)


def test_calibration_beside_what_right_probabilities_give():
    found = {"grade_nll": entry(0.9), "malignant_ece_width": entry(0.1), "grade_ece_mass": entry()}
    rows = calibration_rows(found, {"grade_nll": entry(0.8)})
    assert [(row["name"], row["right"] and row["right"]["value"]) for row in rows] == [
        ("Grades: negative log-likelihood", 0.8), ("Malignancy: ECE", None)
    ]  # fmt: skip


def test_counts():
    cases = [Case(f"{i}", group) for i, group in enumerate("aabbccd")]
    assert group_sizes(cases) == [(1, 1), (2, 3)] and group_sizes([]) == []
    many = [Case("x", f"{size}") for size in range(1, 12) for _ in range(size)]
    assert group_sizes(many)[-2:] == [(8, 1), ("more", 3)]
    graded = [Case("x", "g", grade_truth=grade) for grade in ("b", "", "b", "z")]
    assert truth_counts(("a", "b"), graded) == {"a": 0, "b": 2} and truth_counts((), graded) == {"b": 2, "z": 1}
    assert truth_counts(("a",), []) == {}
    proven = [Case("x", "g", malignant_truth=truth) for truth in (True, None, False, False)]
    assert malignancy_counts(proven) == {"malignant": 1, "benign": 2, "unknown": 1} and malignancy_counts(cases) == {}
    assert counted({"train": {"images": 3}, "test": {"images": 2, "groups": 1}}) == {
        "columns": ["images", "groups"], "rows": [("train", [3, "–"]), ("test", [2, 1])]
    }  # fmt: skip
    rows = confusion_rows(("a", "b"), np.array([[3, 1], [0, 0]]))
    assert rows[0]["cells"] == [(3, 0.75), (1, 0.25)] and rows[1] == {"name": "b", "total": 0, "cells": [(0, 0.0)] * 2}


def test_a_strip_has_quartiles_and_every_value():
    found = strip("x", [0.5, NAN, 0.25, 1.0, 0.0])
    assert (found.n, found.low, found.median, found.high) == (4, 0.1875, 0.375, 0.625)
    assert found.ticks == "M0.0,10V20M25.0,10V20M50.0,10V20M100.0,10V20"
    assert strip("x", [NAN]) is None and strip("x", []) is None
    cases = [Case("1", "g", dice=0.5), Case("2", "g")]
    ((name, rows),) = dice_strips({"one": [("a", cases), ("b", cases[1:])], "none": [("a", cases[1:])]})
    assert name == "one" and [row.name for row in rows] == ["a"]
    assert rows[0].median == pytest.approx(0.5)


def test_tables_of_the_grades_have_every_estimate_in_its_place():
    cases, _ = sample_cases(16)
    per_grade, above = per_grade_summary(cases, samples=20), at_or_above_summary(cases, samples=20)
    each, higher = grade_tables(per_grade, above)
    assert each["columns"] == ["Sensitivity", "Specificity", "Precision", "F1", "AUROC", "AUPRC"]
    assert higher["columns"] == ["Sensitivity", "Specificity", "AUROC"]
    assert [row["name"] for row in each["rows"]] == list(NAMES)
    assert [row["name"] for row in higher["rows"]] == [f"≥ {name}" for name in NAMES[1:]]
    known = [case for case in cases if case.grade_truth and case.grade_predicted]
    for row in each["rows"]:
        assert row["cases"] == str(sum(case.grade_truth == row["name"] for case in known))
        found = per_grade[row["name"]]
        values = [found[key]["value"] for key in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")]
        assert repr([cell.value for cell in row["cells"]]) == repr(values)
    area = above[NAMES[2]]["auroc"]
    assert higher["rows"][1]["cells"][2][:3] == (area["value"], area["low"], area["high"])
    assert area["low"] < area["value"]
    assert grade_tables({}, {}) == []


def test_a_single_area_is_marked_as_delongs():
    cases, _ = sample_cases(30)
    rows = {row["key"]: row["interval"] for row in measure_rows(summary(cases, samples=10), {})}
    assert rows["malignant_auroc"] == "DeLong" and set(rows.values()) == {"DeLong", ""}
