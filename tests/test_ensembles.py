"""Ensembles from tables: means by hand, nothing of the outline, and what must not be averaged."""

from dataclasses import replace

import numpy as np
import pytest

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import ensembles
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases

FIRST = Case(
    case="x",
    group="g",
    part="fold0-seed0",
    dice=0.5,
    hd95_px=3.0,
    predicted_area_px=9,
    reference_area_px=8,
    reference_area_mm2=4.0,
    contrast_to_noise=1.5,
    grade_truth="3",
    grade_predicted="2",
    probability={"2": 0.6, "3": 0.3, "4": 0.1},
    malignant_truth=True,
    p_malignant=0.25,
    guidance={"size": 1.0},
    target={"size": 2.0},
    reader_dice=(0.4, 0.6),
    reader_grades=("2", "4"),
    about={"device": "A"},
)
SECOND = replace(
    FIRST, part="fold0-seed1", dice=0.9, grade_predicted="3", probability={"2": 0.1, "3": 0.5, "4": 0.4},
    p_malignant=0.75, guidance={"size": 3.0},
)  # fmt: skip


def test_probabilities_are_means_and_what_needs_masks_is_empty():
    (mean,) = ensembles.averaged([FIRST, SECOND])
    assert dict(mean.probability) == pytest.approx({"2": 0.35, "3": 0.4, "4": 0.25})
    assert (mean.grade_predicted, mean.p_malignant, mean.part) == ("3", 0.5, "fold0-ensemble")
    assert mean.guidance == {"size": 2.0} and mean.target == {"size": 2.0}
    for name in ("dice", "iou", "hd95_px", "precision", "nsd_2px", "predicted_area_mm2"):
        assert np.isnan(getattr(mean, name)), name
    assert mean.predicted_area_px is None and mean.reader_dice == ()
    kept = ("case", "group", "grade_truth", "malignant_truth", "reference_area_px", "reference_area_mm2")
    for name in (*kept, "contrast_to_noise", "reader_grades", "about"):
        assert getattr(mean, name) == getattr(FIRST, name), name


def test_the_lower_grade_is_predicted_on_a_tie():
    even = replace(SECOND, probability={"2": 0.3, "3": 0.6, "4": 0.1})
    (mean,) = ensembles.averaged([FIRST, even])
    assert mean.probability["2"] == mean.probability["3"] and mean.grade_predicted == "2"


def test_a_probability_that_one_row_lacks_is_not_averaged_over_the_others():
    (mean,) = ensembles.averaged([FIRST, replace(SECOND, probability={}, grade_predicted="", p_malignant=np.nan)])
    assert mean.probability == {} and mean.grade_predicted == "" and np.isnan(mean.p_malignant)


def test_truth_that_one_row_does_not_know_is_taken_from_another():
    unknown = replace(FIRST, grade_truth="", malignant_truth=None, reference_area_px=None)
    (mean,) = ensembles.averaged([unknown, SECOND])
    assert (mean.grade_truth, mean.malignant_truth, mean.reference_area_px) == ("3", True, 8)


def test_one_run_alone_keeps_its_probabilities():
    (mean,) = ensembles.averaged([FIRST])
    assert mean.probability == FIRST.probability and mean.p_malignant == FIRST.p_malignant


@pytest.mark.parametrize("change, said", [
    ({"group": "h"}, "differ in their reference, group 'g' and 'h'"),
    ({"grade_truth": "4"}, "grade_truth 3 and 4"),
    ({"malignant_truth": False}, "malignant_truth"),
    ({"probability": {"2": 0.1, "3": 0.9}}, "different scales"),
])  # fmt: skip
def test_rows_that_are_not_of_one_image_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        ensembles.averaged([FIRST, replace(SECOND, **change)])


def test_cases_of_different_numbers_of_runs_are_refused():
    with pytest.raises(InputError, match="2 predict 'x', 1 predict 'y'"):
        ensembles.averaged([FIRST, SECOND, replace(FIRST, case="y")])
    assert ensembles.runs_per_case([FIRST, SECOND, replace(FIRST, case="y")]) == {1, 2}


@pytest.mark.parametrize("parts, name, part", [
    (["fold0-seed0", "fold0-seed1"], "m, seeds averaged", "fold0-ensemble"),
    (["fold0-seed0", "fold1-seed0"], "m, folds averaged", "ensemble"),
    (["fold0-seed0", "fold1-seed1"], "m, folds and seeds averaged", "ensemble"),
    (["fold0-seed0", "elsewhere"], "m, runs averaged", "ensemble"),
    (["a", "b"], "m, runs averaged", "ensemble"),
])  # fmt: skip
def test_the_row_is_called_after_what_was_averaged(parts, name, part):
    cases = [replace(FIRST, part=each) for each in parts]
    assert ensembles.name_of("m", cases) == name
    assert ensembles.averaged(cases)[0].part == part


def test_of_folds_that_hold_out_other_images_only_seeds_are_averaged():
    cases = [replace(FIRST, case=f"{fold}", part=f"fold{fold}-seed{seed}") for fold in (0, 1) for seed in (0, 1)]
    assert ensembles.name_of("m", cases) == "m, seeds averaged"
    assert [case.part for case in ensembles.averaged(cases)] == ["fold0-ensemble", "fold1-ensemble"]


def test_the_rows_are_kept_in_a_table(tmp_path):
    found = ensembles.averaged([FIRST, SECOND])
    write_cases(tmp_path / "cases.csv", found)
    (read,) = read_cases(tmp_path / "cases.csv")
    assert read.probability == found[0].probability and read.part == "fold0-ensemble" and np.isnan(read.dice)


def test_what_one_run_knows_of_the_image_is_kept_where_another_does_not():
    unknown = Case("a", "g", "fold0-seed0", p_malignant=0.5)
    known = replace(
        unknown, part="fold0-seed1", reference_area_mm2=12.5, target={"f": 1.0}, reader_grades=("x",), about={"d": "e"}
    )
    (found,) = ensembles.averaged([unknown, known])
    assert (found.reference_area_mm2, found.target, found.reader_grades, found.about) == (
        *(12.5, {"f": 1.0}, ("x",)),
        {"d": "e"},
    )
