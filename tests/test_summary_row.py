"""Rows of the per-case table against hand-computed values and the single measures."""

from dataclasses import replace

import numpy as np
import pytest
from toys import CARD, toys

from thyroid_jax.evaluate import metrics, outside
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases
from thyroid_jax.evaluate.ensembles import KEPT
from thyroid_jax.evaluate.summary import Answer, measure, reference_of, row_of
from thyroid_jax.predict import Prediction, Trained
from thyroid_jax.runs import ensemble, evaluation, folds


def square(top, left, side=20, size=40):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_measure():
    a, b = square(0, 0), square(0, 5)
    case = measure(
        "x", "p", predicted=a, reference=b, probability={"low": 0.4, "mid": 0.4, "high": 0.2}, grade_truth="high"
    )
    assert case.dice == 0.75 and case.hd95_px == 5 and case.predicted_area_px == case.reference_area_px == 400
    assert (case.grade_truth, case.grade_predicted) == ("high", "low") and np.isnan(case.hd95_mm)
    bare = measure("x", "p", predicted=a, spacing=(0.1, 0.1))
    assert np.isnan(bare.dice) and np.isnan(bare.hd95_mm) and bare.reference_area_px is None
    assert bare.grade_predicted == "" and bare.probability == {} and bare.part == ""
    assert bare.malignant_truth is None and np.isnan(bare.p_malignant)
    full = measure("x", "p", part="fold 3", p_malignant=0.25, malignant_truth=True)
    assert (full.part, full.p_malignant, full.malignant_truth) == ("fold 3", 0.25, True)
    with pytest.raises(ValueError, match="every grade needs a probability"):
        measure("x", "p", probability={"low": 0.5, "high": float("nan")})


def test_measure_fills_every_field(tmp_path):
    a, b = square(0, 0), square(0, 5)
    image = np.where(b, 60, 120).astype(np.uint8)
    image[::2] += 10
    case = measure(
        "x",
        "p",
        part="fold 1",
        predicted=a,
        reference=b,
        spacing=(0.5, 0.2),
        image=image,
        readers=[b, None, a],
        probability={"low": 0.4, "high": 0.6},
        grade_truth="low",
        reader_grades=["low", "", "high"],
        p_malignant=0.7,
        malignant_truth=False,
        guidance={"area": 3, "echo": np.float32(0.5)},
        target={"area": 4.5},
        about={"device": "A", "room": 7},
    )
    for name, value in metrics.outline_measures(a, b, (0.5, 0.2)).items():
        assert getattr(case, name) == value, name
    assert (case.predicted_area_px, case.predicted_area_mm2) == (400, pytest.approx(40))
    assert (case.reference_area_px, case.reference_area_mm2) == (400, pytest.approx(40))
    # The nodule is the reference, not what was predicted.
    assert case.contrast_to_noise == metrics.contrast_to_noise(image, b) != metrics.contrast_to_noise(image, a)
    assert case.reader_dice == pytest.approx((0.75, np.nan, 1), nan_ok=True)
    assert case.reader_grades == ("low", "", "high")
    assert (case.guidance, case.target) == ({"area": 3.0, "echo": 0.5}, {"area": 4.5})
    assert case.about == {"device": "A", "room": "7"}
    write_cases(tmp_path / "cases.csv", [case])
    (read,) = read_cases(tmp_path / "cases.csv")
    assert repr(read) == repr(case)  # NaN is equal to nothing


def test_measure_without_what_it_needs():
    a = square(0, 0)
    image = np.arange(1600, dtype=np.uint8).reshape(40, 40)
    bare = measure("x", "p", predicted=a, image=image, readers=[a])
    measures = [*metrics.outline_measures(a, a), "reference_area_mm2", "predicted_area_mm2", "contrast_to_noise"]
    assert all(np.isnan(getattr(bare, name)) for name in measures)
    assert (bare.predicted_area_px, bare.reference_area_px, bare.reader_dice) == (400, None, (1.0,))
    unpredicted = measure("x", "p", reference=a, image=image, spacing=(0.1, 0.1), readers=[a])
    assert np.isnan(unpredicted.dice) and np.isnan(unpredicted.reader_dice).all()
    assert unpredicted.reference_area_mm2 == pytest.approx(4) and np.isfinite(unpredicted.contrast_to_noise)
    for ill in ({"image": image.astype(float)}, {"image": image[:9]}, {"readers": [a[:9]]}, {"spacing": (0.1, -1)}):
        with pytest.raises(ValueError, match=r"h w|spacing"):
            measure("x", "p", predicted=a, reference=a, **ill)


def test_hd95_in_mm_of_a_known_and_of_an_unknown_spacing():
    # Rows lie 0.5 mm apart, columns 0.125 mm: a shift of 4 rows is 2 mm, one of 4 columns half a mm.
    spacing = (0.5, 0.125)
    down = measure("x", "p", predicted=square(4, 0), reference=square(0, 0), spacing=spacing)
    across = measure("x", "p", predicted=square(0, 4), reference=square(0, 0), spacing=spacing)
    assert (down.hd95_px, down.hd95_mm) == (4, 2.0) and (across.hd95_px, across.hd95_mm) == (4, 0.5)
    # A single pixel 3 rows and 8 columns away: sqrt((3 * 0.5)^2 + (8 * 0.125)^2) = sqrt(3.25).
    apart = measure("x", "p", predicted=square(5, 9, 1), reference=square(2, 1, 1), spacing=spacing)
    assert apart.hd95_px == pytest.approx(np.sqrt(73)) and apart.hd95_mm == pytest.approx(np.sqrt(3.25))
    for unknown in ((np.nan, np.nan), (0.5, np.nan)):
        assert np.isnan(measure("x", "p", predicted=square(4, 0), reference=square(0, 0), spacing=unknown).hd95_mm)
    empty = np.zeros((40, 40), bool)
    assert measure("x", "p", predicted=empty, reference=empty, spacing=spacing).hd95_mm == 0
    assert np.isnan(measure("x", "p", predicted=empty, reference=square(0, 0), spacing=spacing).hd95_mm)
    with pytest.raises(ValueError, match="spacing"):
        measure("x", "p", predicted=empty, reference=empty, spacing=(0.5, 0.0))


# --- rows of records --------------------------------------------------------------------------------------------------


def kept(case):
    return {name: repr(getattr(case, name)) for name in KEPT if name != "target"}  # measured where guidance is trained


@pytest.mark.parametrize("record", list(toys()), ids=lambda record: record.case)
def test_every_row_of_a_record_has_the_same_reference_readers_and_findings(record):
    """Runs, runs together, runs on another data set, other people's results, and heads on frozen features."""
    names, outline = CARD.grades, np.zeros(record.image.shape, bool)
    found = Prediction(outline.astype(np.float32), np.array([0.2, 0.5, 0.3]), 0.75, {})
    trained = Trained(None, None, {}, {"grades": list(names)}, 0)
    of_folds = folds.Folds([record], None, np.zeros(1), (), names, "")
    rows = [
        row_of(record, names, Answer()),
        evaluation.case_of(trained, record, found, {}, "test"),
        ensemble.predicted_case(record, CARD, found, dict(zip(names, names)), "external"),
        ensemble.predicted_case(record, CARD, found, None, "external"),
        outside.case_of(record, CARD, outline, outside.Judgement("high", {"low": 1.0, "mid": 0.0, "high": 0.0}), "all"),
        folds.scored_case(of_folds, 0, "fold0", np.array([0.2, 0.5, 0.3]), 0.5),
    ]
    assert all(kept(row) == kept(rows[0]) for row in rows)
    assert [row.grade_predicted for row in rows] == ["", "mid", "mid", "", "high", "mid"]
    readers = {row.reader_dice for row in rows[1:5]}
    assert readers == {tuple(metrics.dice(outline, mask) for mask in record.reader_masks)}
    assert rows[0].about == {
        **({"cleaning": "; ".join(record.cleaning)} if record.cleaning else {}),
        **record.descriptors,
    }
    assert rows[0].grade_truth == ("" if record.grade is None else names[record.grade])
    assert rows[0].reader_grades == tuple(names[grade] for grade in record.reader_grades)
    assert np.isnan(rows[0].contrast_to_noise) == (record.mask is None)
    assert np.isnan(rows[0].reference_area_mm2) == (record.mask is None or np.isnan(record.spacing[0]))


def test_cleaning_is_named_without_its_numbers_and_a_finding_of_that_name_wins():
    steps = ("cut to the scan: rows 2-9, columns 0-8", "dots filled in: 4 pixels", "dots filled in: 9")
    plain = replace(next(iter(toys())), descriptors={}, cleaning=())
    about = lambda record: reference_of(record, CARD.grades)["about"]
    assert about(plain) == {}
    assert about(replace(plain, cleaning=steps)) == {"cleaning": "cut to the scan; dots filled in"}
    assert about(replace(plain, cleaning=steps, descriptors={"cleaning": "by hand"})) == {"cleaning": "by hand"}


def test_an_answer_that_says_nothing_is_a_row_without_predictions():
    record = list(toys())[1]
    row = row_of(record, CARD.grades, Answer(), "test")
    assert (row.part, row.probability, row.grade_predicted, row.guidance) == ("test", {}, "", {})
    assert np.isnan(row.dice) and np.isnan(row.p_malignant) and row.predicted_area_px is None
    assert row.reference_area_px == record.mask.sum() and isinstance(row, Case)
