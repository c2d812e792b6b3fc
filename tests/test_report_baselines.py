"""Baselines against the measures of a table in which every case gets the one answer."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import dice, iou
from thyroid_jax.evaluate.report.baselines import baselines
from thyroid_jax.evaluate.summary import Counts, summary

NAMES = ("a", "b", "c")


def graded(truths, malignant=()):
    rng = np.random.default_rng(0)
    cases = []
    for i, truth in enumerate(truths):
        p = rng.dirichlet(np.ones(3))
        cases.append(
            Case(
                f"{i}",
                f"{i}",
                grade_truth=truth,
                grade_predicted=NAMES[int(p.argmax())],
                probability=dict(zip(NAMES, p.tolist())),
                malignant_truth=malignant[i] if malignant else None,
                p_malignant=float(rng.uniform()) if malignant else float("nan"),
            )
        )
    return cases


def test_the_whole_image_as_the_outline():
    image = np.ones((10, 20), bool)
    masks = [np.arange(200).reshape(10, 20) < n for n in (10, 100, 200)]
    cases = [Case(f"{i}", "g", dice=0.5, reference_area_px=int(mask.sum())) for i, mask in enumerate(masks)]
    found = baselines([*cases, Case("none", "g"), Case("no picture", "g", dice=1.0, reference_area_px=3)],
                      {"0": 200, "1": 200, "2": 200, "none": 200})  # fmt: skip
    assert found["dice"].value == pytest.approx(np.mean([dice(image, mask) for mask in masks]))
    assert found["iou"].value == pytest.approx(np.mean([iou(image, mask) for mask in masks]))
    assert baselines(cases, {}) == {} == baselines([], {})


def test_an_empty_reference_counts_as_in_the_mean_of_the_model():
    """The whole image has a Dice of 0 there, as every outline has."""
    cases = [Case(name, "g", dice=0.5, reference_area_px=area) for name, area in (("half", 50), ("empty", 0))]
    found = baselines(cases, {"half": 100, "empty": 100})
    assert found["dice"].value == pytest.approx((2 / 3 + 0) / 2) and found["iou"].value == pytest.approx(0.25)


def test_one_grade_for_all_is_measured_as_such():
    """The summary of the same table with the most frequent grade given to every case."""
    cases = graded("aabbbbcb")
    constant = [
        dataclasses.replace(case, grade_predicted="b", probability={"a": 0.0, "b": 1.0, "c": 0.0}) for case in cases
    ]
    measured, found = summary(constant, samples=20), baselines(cases, {})
    for key, entry in measured.items():
        if key != "macro_auprc":
            assert found[key].value == pytest.approx(entry["value"]), key
    assert found["accuracy"] == (5 / 8, "b for all")
    # With all scores equal, the average precision of a class is its share; the shares of three classes average 1/3.
    assert measured["macro_auprc"]["value"] == pytest.approx(found["macro_auprc"].value) == pytest.approx(1 / 3)


def test_ties_are_those_of_the_tables_of_baselines():
    """The lower grade, and malignant, as a prediction with equal probabilities is read."""
    found = baselines(graded("aabb", [True, False, True, False]), {})
    assert found["accuracy"].words == "a for all" and found["malignant_accuracy"].words == "malignant for all"
    tied = Counts({"a": 0, "b": 3, "c": 3}, benign=2, malignant=2)
    found = baselines(graded("abbc", [False, False, True, False]), {}, tied)
    assert found["accuracy"] == (0.5, "b for all") and found["malignant_accuracy"] == (0.25, "malignant for all")


def test_classes_are_counted_in_the_training_part():
    """The most frequent class of the training is wrong for most of these cases; the shares are the training's, too."""
    cases = graded("aaab", [True, True, True, False])
    training = Counts({"a": 1, "b": 2, "c": 1}, benign=3, malignant=1)
    found = baselines(cases, {}, training)
    assert found["accuracy"] == (1 / 4, "b for all") and found["malignant_accuracy"] == (1 / 4, "benign for all")
    truth = [0, 0, 0, 1]
    shares = np.array([0.25, 0.5, 0.25])
    assert found["grade_brier"].value == pytest.approx(np.mean([((shares - np.eye(3)[g]) ** 2).sum() for g in truth]))
    assert found["malignant_brier"].value == pytest.approx(brier_score_loss([1, 1, 1, 0], [0.25] * 4))
    own = baselines(cases, {})
    assert own["accuracy"] == (3 / 4, "a for all") and own["malignant_accuracy"] == (3 / 4, "malignant for all")
    for key in ("quadratic_kappa", "macro_auroc", "malignant_auroc", "malignant_auprc"):  # chance needs no training
        assert found[key] == own[key]


def test_labels_that_the_training_part_lacks_have_no_baseline_but_chance():
    cases = graded("aaab", [True, True, True, False])
    found = baselines(cases, {}, Counts({}, benign=1, malignant=2))
    assert "accuracy" not in found and "grade_brier" not in found and found["macro_auroc"].value == 0.5
    found = baselines(cases, {}, Counts({"a": 1, "b": 0, "c": 0}))
    assert (
        "malignant_accuracy" not in found and found["malignant_auroc"].value == 0.5 and found["accuracy"].value == 0.75
    )


def test_one_grade_alone_has_no_chance():
    found = baselines(graded("bbb"), {})
    assert found["accuracy"].value == 1 and not {"quadratic_kappa", "macro_auroc", "macro_auprc"} & set(found)


def test_one_call_for_all_is_measured_as_such():
    truths = [True, False, False, True, False]
    cases = graded("aaaaa", truths)
    constant = [dataclasses.replace(case, p_malignant=0.1) for case in cases]
    measured, found = summary(constant, samples=20), baselines(cases, {})
    assert found["malignant_accuracy"] == (0.6, "benign for all")
    for key in found:
        if key.startswith("malignant") and key != "malignant_brier":
            assert found[key].value == pytest.approx(measured[key]["value"]), key
    assert {"malignant_auroc", "malignant_auprc", "malignant_balanced_accuracy"} <= set(found)
    only = baselines(graded("aa", [True, True]), {})
    assert only["malignant_accuracy"] == (1.0, "malignant for all") and "malignant_auroc" not in only
