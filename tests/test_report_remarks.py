"""Each remark: a table that calls for it, and one just beside it that does not."""

import dataclasses

import numpy as np
import pytest

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report.remarks import remarks
from thyroid_jax.evaluate.summary import malignancy_summary, summary

NAN = float("nan")
NAMES = ("a", "b")


def sound(n=60):
    """A table without a fault: 60 groups, both grades and both malignancies often, all right but a few."""
    cases = []
    for i in range(n):
        truth, right = i % 2, i % 7 > 0
        p = 0.9 if bool(truth) == right else 0.1
        cases.append(
            Case(
                f"{i}", f"g{i}", dice=0.5 + i / 200, iou=0.5, hd95_px=1.0, predicted_area_px=5, reference_area_px=5,
                grade_truth=NAMES[truth], grade_predicted=NAMES[int(p > 0.5)], probability={"a": 1 - p, "b": p},
                malignant_truth=bool(truth), p_malignant=p,
            )
        )  # fmt: skip
    return cases


def change(cases, **fields):
    return [dataclasses.replace(case, **{name: value(case) for name, value in fields.items()}) for case in cases]


def of(cases, log=(), **kind):
    return remarks(cases, summary(cases, samples=100), log)


def log_of(*dice):
    return [{"step": i, "split": "validation", "dice": value} for i, value in enumerate(dice)]


def test_a_sound_table_and_an_empty_one_have_no_remark():
    assert of(sound()) == [] and of([]) == [] and remarks([], {}, []) == []


def test_at_chance_and_below():
    entry = {"value": 0.1, "low": -0.1, "high": 0.3, "n": 9, "undefined": 0, "replicates": 9, "replicates_undefined": 0}
    said = lambda key, low, high: remarks([], {key: entry | {"low": low, "high": high}}, [])
    assert said("quadratic_kappa", -0.1, 0.3) == [
        "The grades' kappa, 0.10 (-0.10 to 0.30), cannot be told from chance (0)."
    ]
    assert said("quadratic_kappa", 0.0, 0.3) and not said("quadratic_kappa", 0.01, 0.3)
    assert "worse than chance (0)" in said("quadratic_kappa", -0.3, -0.1)[0]
    for key in ("macro_auroc", "malignant_auroc"):
        assert "cannot be told from chance (0.5)" in said(key, 0.45, 0.7)[0] and not said(key, 0.51, 0.7)
        assert "worse than chance" in said(key, 0.2, 0.4)[0]
    assert said("dice", -1, 1) == [] and said("quadratic_kappa", NAN, NAN) == []
    assert remarks([], {"macro_auroc": entry | {"value": NAN}}, []) == []


def test_one_answer_for_all():
    assert any("Every case was given the grade b" in s for s in of(change(sound(), grade_predicted=lambda c: "b")))
    assert any("called malignant" in s for s in of(change(sound(), p_malignant=lambda c: 0.5)))
    assert any("called benign" in s for s in of(change(sound(), p_malignant=lambda c: 0.49)))
    assert "No case has a predicted outline." in of(change(sound(), predicted_area_px=lambda c: 0))
    assert not [s for s in remarks([Case("x", "g", p_malignant=0.9)], {}, []) if "called" in s]


@pytest.mark.parametrize("dice, rising", [
    ((0.5, 0.6, 0.7, 0.71), True),
    ((0.5, 0.6, 0.7, 0.705), False),  # by no more than 0.005
    ((0.5, 0.7, 0.6, 0.69), False),
    ((0.5, 0.6), False),
    ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 0.7), True),  # the last quarter has the best one
    ((0.1, 0.2, 0.3, 0.4, 0.5, 0.8, 0.7, 0.7), False),
    ((), False),
])  # fmt: skip
def test_validation_dice_still_rising(dice, rising):
    assert any("still rose" in s for s in remarks([], {}, log_of(*dice))) == rising


def test_only_validation_counts_as_such():
    assert remarks([], {}, [row | {"split": "train"} for row in log_of(0.1, 0.2, 0.3, 0.9)]) == []


def test_undefined_distances_and_unknown_pixels():
    cases = sound()
    empty = [dataclasses.replace(case, hd95_px=NAN, predicted_area_px=0, dice=0.0) for case in cases[:3]] + cases[3:]
    assert any("leave out 3 cases of 60, where one of the two outlines is empty" in s for s in of(empty))
    some_mm = [dataclasses.replace(case, hd95_mm=1.0) for case in cases[:59]] + cases[59:]
    assert of(some_mm) == ["The size of a pixel is unknown in 1 case: values in mm leave them out."]


def test_few_groups():
    few = change(sound(), group=lambda c: str(int(c.case) % 19))
    assert any("19 groups (patients) only" in s for s in of(few))
    assert not any("groups" in s for s in of(change(sound(), group=lambda c: str(int(c.case) % 20))))
    assert any("All cases are of one group" in s for s in of(change(sound(), group=lambda c: "one")))


def test_replicates_left_out_from_one_percent():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "undefined": 0, "replicates": 1000}
    said = lambda *lost: remarks([], {f"m{i}": entry | {"replicates_undefined": n} for i, n in enumerate(lost)}, [])
    assert said(10) == [] and said(0, 0) == []
    assert "Up to 25 % of the bootstrap replicates" in said(11, 250)[0] and "(2 of the intervals)" in said(11, 250)[0]
    no_interval = {"m": entry | {"replicates": 0, "replicates_undefined": 0}}
    assert remarks([], no_interval, []) == []


def test_rare_classes():
    rare = sound(64)
    rare = [dataclasses.replace(case, grade_truth="a") if i > 18 else case for i, case in enumerate(rare)]
    (said,) = [s for s in of(rare) if "Grades" in s]
    assert said == "Grades with fewer than 10 true cases: b (9)."
    nine = change(sound(), malignant_truth=lambda c: int(c.case) < 9)
    assert "Of the 60 cases with known malignancy, 9 are malignant." in of(nine)
    ten = change(sound(), malignant_truth=lambda c: int(c.case) < 10)
    assert not any("known malignancy" in s for s in of(ten))
    none = change(sound(), malignant_truth=lambda c: False)
    assert "Of the 60 cases with known malignancy, 0 are malignant." in of(none)
    all_a = change(sound(), grade_truth=lambda c: "a")
    assert "Grades without a true case: b. Averages over grades do not hold them." in of(all_a)
    unknown = change(sound(), grade_truth=lambda c: "", malignant_truth=lambda c: None)
    assert not any("case" in s for s in of(unknown))


def test_the_gravest_come_first():
    bad = change(sound(18), grade_predicted=lambda c: "b", p_malignant=lambda c: 0.9)
    said = of(bad, log_of(0.1, 0.2, 0.3, 0.9))
    order = [
        next(i for i, s in enumerate(said) if word in s) for word in ("chance", "Every case", "still rose", "groups")
    ]
    assert order == sorted(order)
    assert np.unique(said).size == len(said)


def test_an_area_without_an_interval_is_named():
    cases = [Case(f"{i}", f"{i}", malignant_truth=i == 0, p_malignant=0.3 + 0.1 * (i % 3)) for i in range(30)]
    found = remarks(cases, malignancy_summary(cases, samples=10), [])
    assert any("has no interval: it needs two groups" in remark for remark in found)
    assert not any("no interval" in remark for remark in remarks(cases[1:], malignancy_summary(cases[1:]), []))


def test_names_written_from_right_to_left_do_not_turn_round_the_numbers_beside_them():
    """U+2068 and U+2069 set a name apart; without them a browser shows "alef (5), bet (9)" in the other order."""
    names = {"a": "\u05d0", "b": "\u05d1"}
    said = lambda grade: names.get(grade, grade)
    rare = [
        dataclasses.replace(
            case,
            grade_truth=said("a" if i > 18 else case.grade_truth),
            grade_predicted=said("a"),
            probability={said(name): p for name, p in case.probability.items()},
        )
        for i, case in enumerate(sound(64))
    ]
    found = of(rare)
    assert "Grades with fewer than 10 true cases: \u2068\u05d1\u2069 (9)." in found
    assert "Every case was given the grade \u2068\u05d0\u2069: the grades say nothing." in found
