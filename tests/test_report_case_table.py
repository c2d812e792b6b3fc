"""The table of cases and the choice of the worst."""

import dataclasses

import numpy as np
import pytest

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report.case_table import (
    best_median_worst,
    case_table,
    details,
    grade_error,
    keys,
    worst_grades,
    worst_malignancy,
    worst_outlines,
)

NAN = float("nan")
NAMES = ("low", "middle", "high")


def graded(truth, predicted, p=(0.2, 0.3, 0.5), **more):
    return Case("x", "g", grade_truth=truth, grade_predicted=predicted, probability=dict(zip(NAMES, p)), **more)


@pytest.mark.parametrize("n", [0, 1, 5, 8, 11, 12, 13, 40])
def test_best_median_worst(n):
    order = np.random.default_rng(n).permutation(n)
    cases = [Case(str(i), "p", dice=i / 100) for i in order] + [Case("none", "p")]
    chosen = {name: [int(case.case) for case in some] for name, some in best_median_worst(cases).items()}
    everyone = chosen["worst"] + chosen["median"] + chosen["best"]
    assert everyone == sorted(everyone) and len(set(everyone)) == len(everyone) == min(n, 12)
    assert chosen["worst"] == list(range(min(n, 4)))
    if n >= 8:
        assert chosen["best"] == list(range(n - 4, n))
    if n == 40:
        assert chosen["median"] == [18, 19, 20, 21]


def test_worst_outlines():
    cases = [Case(f"{i}", "g", dice=dice) for i, dice in enumerate([0.9, NAN, 0.0, 0.5, 0.5, 0.7, 0.8, 0.99])]
    assert worst_outlines(cases) == [2, 3, 4, 5, 6] and worst_outlines(cases, 1) == [2] and worst_outlines([]) == []


def test_worst_grades_by_distance_and_then_by_the_probability_of_the_truth():
    cases = [
        graded("low", "middle", (0.1, 0.5, 0.4)),
        graded("high", "high"),  # right
        graded("low", "high", (0.3, 0.1, 0.6)),  # two steps
        graded("", "high"),  # unknown truth
        graded("high", "low", (0.5, 0.3, 0.2)),  # two steps, less sure of the truth
        graded("middle", "high", (0.0, 0.05, 0.95)),
        Case("not graded", "g", grade_truth="low"),
    ]
    assert worst_grades(cases) == [4, 2, 5, 0] and worst_grades(cases, 2) == [4, 2] and worst_grades([]) == []
    assert [grade_error(case, NAMES) for case in cases] == [1, 0, 2, None, -2, 1, None]


def test_the_scale_of_many_cases_is_looked_up_once(monkeypatch):
    """It needs all cases: once for each of them, 8000 cases took a minute and a half."""
    looked_up = []
    monkeypatch.setattr(
        "thyroid_jax.evaluate.report.case_table.grades", lambda cases: looked_up.append(len(cases)) or NAMES
    )
    assert worst_grades([graded("low", "high") for _ in range(50)], 2) == [0, 1] and looked_up == [50]


def test_worst_malignancy_is_the_surest_wrong_call():
    truths = [(0.9, False), (0.4, True), (0.5, False), (0.01, True), (0.99, True), (0.7, None), (NAN, True)]
    cases = [Case(f"{i}", "g", p_malignant=p, malignant_truth=truth) for i, (p, truth) in enumerate(truths)]
    assert worst_malignancy(cases) == [3, 0, 1, 2]


def test_columns_cells_and_choices():
    cases = [
        graded("high", "low", dice=0.5, hd95_px=NAN, malignant_truth=True, p_malignant=0.2, about={"side": "left"}),
        graded("low", "low", dice=NAN, reader_dice=(0.5, NAN, 0.7)),
    ]
    found = case_table(cases)
    heads = [column.heading for column in found["columns"]]
    assert heads == [
        "Case", "Group", "Dice", "True grade", "Predicted grade", "Grade error", "P(grade)", "P(true grade)",
        "True malignancy", "P(malignant)", "Readers’ Dice", "side",
    ]  # fmt: skip
    first, second = ({head: cell for head, cell in zip(heads, row)} for row in found["rows"])
    assert first["Dice"] == (0.5, "0.500") and second["Dice"] == ("", "–")
    assert first["True grade"] == (2, "high") and first["Predicted grade"] == (0, "low ✗")  # sorted by the scale
    assert second["Predicted grade"] == (0, "low") and first["Grade error"] == (-2, "−2")
    assert first["P(grade)"] == (0.2, "0.20") and first["P(true grade)"] == (0.5, "0.50")
    assert first["True malignancy"] == (1, "malignant") and first["P(malignant)"] == (0.2, "0.20 ✗")
    assert second["Readers’ Dice"] == (pytest.approx(0.6), "0.600") and second["side"] == ("", "–")
    choices = dict(zip(heads, found["choices"]))
    assert choices["True grade"] == ["low", "high"] and choices["side"] == ["left"]
    assert choices["Case"] == [] == choices["Dice"]
    parts = [dataclasses.replace(case, part=part) for case, part in zip(cases, "ab")]
    assert "Part" in [column.heading for column in case_table(parts)["columns"]]
    many = [Case("x", "g", about={"note": f"text {i}"}) for i in range(13)]
    assert case_table(many)["choices"][-1] == [] and len(case_table(many[:12])["choices"][-1]) == 12
    assert case_table([])["rows"] == []


def test_details_of_a_case():
    case = graded(
        "low", "high", dice=0.5, iou=1 / 3, hd95_px=4.0, hd95_mm=1.0, predicted_area_px=0, reference_area_px=12,
        reference_area_mm2=1.25, p_malignant=0.75, malignant_truth=False, guidance={"a": -1.0, "b": 2.0},
        target={"b": NAN, "c": 3.0}, reader_dice=(0.5, NAN), reader_grades=("", "high", "low"), about={"k": "v"},
    )  # fmt: skip
    found = details(case, NAMES)
    facts = dict(found["facts"])
    assert facts["HD95"] == "4.0 px (1.00 mm)" and facts["Reference area"] == "12 px (1.2 mm²)"
    assert facts["Predicted area"] == "0 px" and "Part" not in facts and "ASSD" not in facts
    assert [(bar["name"], bar["share"], bar["true"], bar["predicted"]) for bar in found["bars"]] == [
        ("low", 0.2, True, False), ("middle", 0.3, False, False), ("high", 0.5, False, True)
    ]  # fmt: skip
    assert found["malignant"] == {"share": 0.75, "text": "0.75", "truth": "benign", "wrong": True}
    assert found["guidance"] == [["a", "−1.000", "–"], ["b", "2.000", "–"], ["c", "–", "3.000"]]
    assert found["readers"] == [["Reader 1", "0.500", "–"], ["Reader 2", "–", "high"], ["Reader 3", "–", "low"]]
    assert found["about"] == [["k", "v"]]
    empty = dataclasses.replace(case, hd95_px=NAN)
    assert dict(details(empty, NAMES)["facts"])["HD95"] == "undefined: one outline is empty"
    bare = details(Case("x", "g"), NAMES)
    assert bare["facts"] == [["Group", "g"]] and bare["bars"] == [] and bare["malignant"]["text"] == "–"


def test_every_row_has_a_key_of_its_own():
    assert keys([Case(name, "g") for name in "abab"]) == ["a (1)", "b (1)", "a (2)", "b (2)"]
    assert keys([Case(name, "g") for name in "ab"]) == ["a", "b"]
    assert keys([Case(name, "g") for name in ("a", "a", "a (1)")]) == ["a (2)", "a (3)", "a (1)"]
