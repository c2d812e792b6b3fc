"""Predictions from label counts alone: hand-computed values, and what every measure makes of them."""

import numpy as np
import pytest

from thyroid_jax.evaluate.cases import Case, read_cases, write_cases
from thyroid_jax.evaluate.paired import difference
from thyroid_jax.evaluate.summary import Counts, baselines, counts_of, measure, summary

TRAINING = Counts({"a": 10, "b": 30, "c": 0}, benign=30, malignant=10)


def table(n=40):
    random = np.random.default_rng(0)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:6] = True
    return [
        measure(
            f"{i}",
            f"g{i // 2}",
            part="test",
            predicted=mask,
            reference=mask,
            spacing=(0.5, 0.5),
            image=np.arange(64, dtype=np.uint8).reshape(8, 8),
            readers=[mask],
            reader_grades=["b"],
            probability=dict(zip("abc", random.dirichlet(np.ones(3)))),
            grade_truth="abc"[random.integers(3)] if i % 5 else "",
            p_malignant=random.random(),
            malignant_truth=bool(random.random() < 0.6) if i % 4 else None,
            guidance={"area": 1.0},
            target={"area": 2.0},
            about={"device": "A"},
        )
        for i in range(n)
    ]


def test_what_is_predicted():
    found = baselines(table(), TRAINING)
    assert list(found) == ["majority", "prior"]
    for case in found["majority"]:
        assert (case.grade_predicted, case.probability) == ("b", {"a": 0, "b": 1, "c": 0}) and case.p_malignant == 0
    for case in found["prior"]:
        assert (case.grade_predicted, case.probability) == ("b", {"a": 0.25, "b": 0.75, "c": 0})
        assert case.p_malignant == 0.25


def test_truth_stays_and_the_models_answers_do_not():
    cases = table()
    for rows in baselines(cases, TRAINING).values():
        assert len(rows) == len(cases)
        for row, case in zip(rows, cases):
            for name in ("case", "group", "part", "grade_truth", "malignant_truth", "target", "reader_grades", "about"):
                assert getattr(row, name) == getattr(case, name), name
            for name in ("reference_area_px", "reference_area_mm2", "contrast_to_noise"):
                assert getattr(row, name) == getattr(case, name), name
            for name in ("dice", "iou", "hd95_px", "hd95_mm", "precision", "assd_mm", "predicted_area_mm2"):
                assert np.isnan(getattr(row, name)), name
            assert row.predicted_area_px is None and row.guidance == {} and row.reader_dice == ()


def test_every_measure_and_difference_can_be_computed():
    cases = table()
    found = {name: summary(rows, samples=50) for name, rows in baselines(cases, TRAINING).items()}
    of_model = summary(cases, samples=50)
    share = np.mean([case.grade_truth == "b" for case in cases if case.grade_truth])
    for entries in found.values():
        outlines = {name for name in of_model if name not in entries}
        assert set(entries) < set(of_model) and {"dice", "nsd_1mm", "area_bias_mm2"} < outlines
        assert entries["accuracy"]["value"] == pytest.approx(share)
        # No ranking, and no agreement beyond chance.
        assert entries["macro_auroc"]["value"] == entries["malignant_auroc"]["value"] == 0.5
        assert entries["quadratic_kappa"]["value"] == entries["linear_kappa"]["value"] == 0
        assert entries["balanced_accuracy"]["value"] == pytest.approx(1 / 3)
        assert entries["malignant_balanced_accuracy"]["value"] == 0.5
        assert entries["malignant_auprc"]["value"] == entries["malignant_prevalence"]["value"]
        assert entries["accuracy"]["n"] == of_model["accuracy"]["n"]
    gap = difference(cases, baselines(cases, TRAINING)["prior"], "malignant_auroc", samples=50)
    assert gap.value == pytest.approx(of_model["malignant_auroc"]["value"] - 0.5)


def test_the_test_parts_own_counts_stand_in_the_name():
    cases = table()
    found = baselines(cases)
    assert list(found) == ["majority_of_these_cases", "prior_of_these_cases"]
    truth = [case.grade_truth for case in cases if case.grade_truth]
    malignant = [case.malignant_truth for case in cases if case.malignant_truth is not None]
    assert found["prior_of_these_cases"][0].probability == {name: truth.count(name) / len(truth) for name in "abc"}
    assert found["prior_of_these_cases"][0].p_malignant == np.mean(malignant)
    assert repr(baselines(cases, counts_of(cases))["prior"]) == repr(found["prior_of_these_cases"])


def test_counts_of_a_table():
    cases = [
        Case("1", "g", grade_truth="b", malignant_truth=True),
        Case("2", "g", grade_truth="b"),
        Case("3", "g", malignant_truth=False),
        Case("4", "g", malignant_truth=True),
    ]
    assert counts_of(cases, "abc") == Counts({"a": 0, "b": 2, "c": 0}, 1, 2)
    assert counts_of(cases) == Counts({}, 1, 2)  # the grades' order is not known
    assert counts_of(cases[2:], "abc") == Counts({}, 1, 1) and counts_of([]) == Counts({}, 0, 0)
    with pytest.raises(ValueError, match="'1': grade 'b' is not one of a, c"):
        counts_of(cases, "ac")


def test_ties_and_missing_labels():
    cases = table(4)
    majority = baselines(cases, Counts({"a": 0, "b": 5, "c": 5}, benign=2, malignant=2))["majority"][0]
    assert (majority.grade_predicted, majority.p_malignant) == ("b", 1)
    for rows in baselines(cases, Counts({}, benign=3, malignant=0)).values():
        assert rows[0].probability == {} and rows[0].grade_predicted == "" and rows[0].p_malignant == 0
    for rows in baselines(cases, Counts({"a": 1, "b": 0, "c": 0})).values():
        assert np.isnan(rows[0].p_malignant) and rows[0].grade_predicted == "a"
    # A table without grades takes the scale of the counts.
    ungraded = baselines([Case("1", "g", malignant_truth=True)], TRAINING)["prior"][0]
    assert list(ungraded.probability) == ["a", "b", "c"]
    assert baselines([], TRAINING) == {"majority": [], "prior": []}


def test_counts_that_do_not_fit_are_refused():
    for grades in ({"a": 1, "b": 2}, {"b": 1, "a": 2, "c": 1}):
        with pytest.raises(ValueError, match="counts of the grades"):
            baselines(table(), Counts(grades))
    for counts in (Counts({"a": -1, "b": 2, "c": 0}), Counts({}, benign=-1)):
        with pytest.raises(ValueError, match="0 or more"):
            baselines(table(), counts)


def test_the_tables_can_be_written_and_read(tmp_path):
    for name, rows in baselines(table(), TRAINING).items():
        write_cases(tmp_path / name, rows)
        assert repr(read_cases(tmp_path / name)) == repr(rows)
