"""Runs that predict together: their labels, which may be averaged, and what a row takes of the record."""

import numpy as np
import pytest
from toys import CARD, toys

from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.paired import run_of
from thyroid_jax.predict import Prediction, Trained
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs import ensemble


def test_a_run_is_called_after_its_fold_and_seed():
    config = replace_groups(Config(), data={"fold": 3}, train={"seed": 7})
    assert ensemble.run_label(config) == "fold3-seed7" and run_of(ensemble.run_label(config)) == (3, 7)


@pytest.mark.parametrize("runs, label", [
    (["fold2-seed0", "fold2-seed1"], "fold2-ensemble"), (["fold0-seed0", "fold1-seed0"], "ensemble"),
    (["fold2-seed0", "a folder"], "ensemble"), (["a", "b"], "ensemble"),
])  # fmt: skip
def test_an_ensemble_is_called_after_its_fold_where_it_has_one(runs, label):
    assert ensemble.ensemble_label(runs) == label


@pytest.mark.parametrize("fact", ["tasks", "grade_system", "grades"])
def test_runs_of_other_tasks_or_grades_are_not_averaged(fact):
    facts = {"tasks": ["grading"], "grade_system": "ACR", "grades": ["1", "2"]}
    run = Trained(Config(), None, {}, facts, 0)
    ensemble.check_alike({"a": run, "b": run._replace(step=1, facts=dict(facts))})
    ensemble.check_alike({"a": run})
    with pytest.raises(InputError, match=f"b: its {fact} .* are not those of a"):
        ensemble.check_alike({"a": run, "b": run._replace(facts=facts | {fact: "another"})})


def test_a_row_is_the_prediction_beside_the_record():
    record = list(toys())[4]  # with an outline, four readers at most, and without a grade
    outline = np.roll(record.mask, 1, axis=1)
    found = Prediction(np.where(outline, 0.5, 0.49).astype(np.float32), np.array([0.2, 0.5, 0.3]), 0.75, {})
    same = {grade: grade for grade in CARD.grades}
    case = ensemble.predicted_case(record, CARD, found, same, "ensemble")
    assert case.dice == metrics.dice(outline, record.mask) and case.part == "ensemble"
    assert case.probability == {"low": 0.2, "mid": 0.5, "high": 0.3} and case.grade_predicted == "mid"
    assert case.p_malignant == 0.75 and case.malignant_truth == record.malignant
    assert case.reader_dice == tuple(metrics.dice(outline, mask) for mask in record.reader_masks)
    assert case.contrast_to_noise == metrics.contrast_to_noise(record.image, record.mask) and case.guidance == {}
    values = np.arange(len(clinical.TARGET), dtype=float)
    guided = ensemble.predicted_case(record, CARD, found._replace(answers={"guidance": values}), same, "ensemble")
    assert guided.guidance == dict(zip(clinical.TARGET, values))


def test_grades_that_count_as_one_are_added_and_a_grade_that_nothing_counts_as_has_0():
    record = list(toys())[5]
    found = Prediction(None, np.array([0.2, 0.5, 0.3]), None, {})
    case = ensemble.predicted_case(record, CARD, found, {"a": "low", "b": "high", "c": "high"}, "")
    assert case.probability == {"low": 0.2, "mid": 0.0, "high": 0.8} and case.grade_truth == CARD.grades[record.grade]
    assert np.isnan(case.dice) and np.isnan(case.p_malignant)
    uncompared = ensemble.predicted_case(record, CARD, found, None, "")
    assert uncompared.probability == {} and uncompared.grade_predicted == ""
    assert uncompared.grade_truth == CARD.grades[record.grade]  # for subgroups
