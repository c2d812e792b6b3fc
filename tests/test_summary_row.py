"""Rows of the per-case table against hand-computed values and the single measures."""

import numpy as np
import pytest

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import read_cases, write_cases
from thyroid_jax.evaluate.summary import measure


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
