"""pyradiomics, as it is called here, against values by hand, and on masks that cannot be measured."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep import radiomics_oracle
from data_prep.radiomics_oracle import extract
from thyroid_jax.errors import InputError

pyradiomics = pytest.importorskip("radiomics")  # it builds on Python 3.11 only

KINDS = {"shape2D": 9, "firstorder": 18, "glcm": 24, "glrlm": 16, "glszm": 16, "gldm": 14, "ngtdm": 5}
ALL_FEATURES = tuple(
    f"{kind}_{name}"
    for kind in KINDS
    for name, old in pyradiomics.getFeatureClasses()[kind].getFeatureNames().items()
    if not old
)
QUARTERS = np.kron([[1, 2], [3, 4]], np.ones((2, 2), int))  # four squares of one grey level each
FULL = np.ones((4, 4), bool)


def named(image, mask, **how):
    values, valid = extract(image, mask, features=ALL_FEATURES, **how)
    return dict(zip(ALL_FEATURES, values)), dict(zip(ALL_FEATURES, valid))


def pixels(*places, size=(9, 11)):
    mask = np.zeros(size, bool)
    for place in places:
        mask[place] = True
    return mask


def grey(seed=0, size=(9, 11)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def test_there_are_102_features_in_two_dimensions():
    assert {kind: sum(name.startswith(f"{kind}_") for name in ALL_FEATURES) for kind in KINDS} == KINDS


# Pairs along a row differ by 1 at a third of the places, along a column by 2 at a third, along the diagonals by 3 or 1
# once in nine and by 2, 2, 1, 1. In runs, each square is two of length 2, or, diagonally, one of length 2 and two of 1.
BY_HAND = {
    "firstorder_Mean": 2.5,
    "firstorder_Variance": 1.25,
    "firstorder_Entropy": 2.0,
    "firstorder_Uniformity": 0.25,
    "firstorder_Energy": 4 * (1 + 4 + 9 + 16),
    "firstorder_Range": 3,
    "glcm_Contrast": (1 / 3 + 4 / 3 + 19 / 9 + 11 / 9) / 4,
    "glcm_JointAverage": 2.5,
    "glrlm_LongRunEmphasis": (4 + 4 + 2 + 2) / 4,
    "glrlm_RunPercentage": (8 / 16 + 8 / 16 + 12 / 16 + 12 / 16) / 4,
    "glszm_LargeAreaEmphasis": 16,
    "glszm_ZonePercentage": 4 / 16,
    "gldm_LargeDependenceEmphasis": 16,
    "ngtdm_Coarseness": 1 / (2 * (0.4 + 0.8 + 1.125) + 2 * (0.4 + 0.8 + 0.375)) * 4,
    "shape2D_Perimeter": 12 + 2 * np.sqrt(2),
    "shape2D_MeshSurface": 15.5,
    "shape2D_PixelSurface": 16,
    "shape2D_MajorAxisLength": 4 * np.sqrt(15 / 12),
    "shape2D_Elongation": 1,
    "shape2D_MaximumDiameter": np.hypot(4, 3),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_four_squares_by_hand(name):
    values, valid = extract(QUARTERS, FULL, features=[name], bin_width=1)
    assert valid.all() and values.dtype == np.float64
    np.testing.assert_allclose(values, [BY_HAND[name]], rtol=1e-12)


def test_spacing_is_that_of_rows_then_columns():
    values, _ = named(grey(), pixels((slice(2, 5), slice(3, 9))), spacing=(2.0, 0.5))  # 3 x 6 pixels: 6 high, 3 wide
    np.testing.assert_allclose(values["shape2D_Perimeter"], 2 * 2 * 2.0 + 2 * 5 * 0.5 + 2 * np.hypot(2.0, 0.5))
    np.testing.assert_allclose(values["shape2D_MajorAxisLength"], 4 * np.sqrt((3**2 - 1) / 12 * 2.0**2))
    np.testing.assert_allclose(values["shape2D_MinorAxisLength"], 4 * np.sqrt((6**2 - 1) / 12 * 0.5**2))
    np.testing.assert_allclose(values["shape2D_PixelSurface"], 18.0)


def test_values_come_in_the_order_asked_for():
    names = ["ngtdm_Contrast", "glcm_Contrast", "shape2D_Perimeter", "glcm_Id", "firstorder_Mean"]
    all_values, _ = named(grey(), pixels((slice(1, 8), slice(2, 9))))
    values, valid = extract(grey(), pixels((slice(1, 8), slice(2, 9))), features=names)
    np.testing.assert_array_equal(values, [all_values[name] for name in names])
    assert valid.all()


def test_what_is_outside_the_mask_does_not_count():
    mask = pixels((slice(3, 8), slice(2, 9)))
    noisy = np.where(mask, grey(), grey(1))
    box = slice(3, 8), slice(2, 9)
    for image, outline in ((noisy, mask), (grey()[box], mask[box]), (np.pad(grey(), 5), np.pad(mask, 5))):
        np.testing.assert_array_equal(
            *(extract(i, m, features=ALL_FEATURES)[0] for i, m in ((image, outline), (grey(), mask)))
        )


def test_bytes_and_doubles_are_the_same_grey_values():
    image = np.array([[0, 255, 254], [250, 25, 24], [100, 200, 225]], np.uint8)
    for bins in ({"bin_width": 25}, {"bin_count": 32}):
        whole, real = (
            extract(grey_values, np.ones((3, 3), bool), features=ALL_FEATURES, **bins)
            for grey_values in (image, image.astype(float))
        )
        np.testing.assert_array_equal(whole, real)


def test_32_bins_by_default():
    mask = pixels((slice(1, 8), slice(2, 9)))
    np.testing.assert_array_equal(
        *(extract(grey(), mask, features=ALL_FEATURES, **bins)[0] for bins in ({}, {"bin_count": 32}))
    )


@pytest.mark.parametrize(
    "mask",
    [pixels(), pixels((3, 4)), pixels((3, slice(2, 9))), pixels((slice(2, 8), 5))],
    ids=["empty", "one pixel", "a row", "a column"],
)
def test_what_pyradiomics_refuses_is_undefined(mask):
    values, valid = extract(grey(), mask, features=ALL_FEATURES)
    assert not valid.any() and not values.any()


def test_one_grey_level_has_values_by_convention():
    for bins, level in (({"bin_count": 32}, 17), ({"bin_width": 25}, 1)):  # a constant lies in the middle of 32 bins
        values, valid = named(np.full((9, 11), 100), pixels((slice(1, 8), slice(2, 9))), **bins)
        assert all(valid.values())
        assert values["glcm_JointAverage"] == level and values["glszm_HighGrayLevelZoneEmphasis"] == level**2
        assert values["glcm_Correlation"] == values["glcm_MCC"] == 1
        assert values["firstorder_Kurtosis"] == values["ngtdm_Contrast"] == 0 and values["ngtdm_Coarseness"] == 1e6


def test_pixels_without_neighbours_have_no_pairs():
    values, valid = named(grey(), pixels((1, 1), (6, 9)))
    missing = {name for name in ALL_FEATURES if not valid[name]}
    assert missing == {name for name in ALL_FEATURES if name.startswith(("glcm_", "glrlm_"))} | {
        "firstorder_RobustMeanAbsoluteDeviation"
    }
    assert all(values[name] == 0 for name in missing)


def test_it_is_silent_and_leaves_the_logging_as_it_was(capfd, caplog):
    logger = logging.getLogger("radiomics")
    before, floating = logger.level, np.geterr()
    with caplog.at_level(logging.WARNING):
        for mask in (pixels(), pixels((1, 1), (6, 9)), pixels((slice(1, 8), slice(2, 9)))):
            extract(grey(), mask, features=ALL_FEATURES)
    assert (logger.level, np.geterr()) == (before, floating)
    assert caplog.records == [] and capfd.readouterr() == ("", "")


def test_it_is_silent_from_the_first_call_on():
    call = (
        "from numpy import eye; from data_prep.radiomics_oracle import extract; "
        "extract(eye(3), eye(3) > 0, features=['glcm_Contrast'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_what_cannot_be_asked():
    with pytest.raises(ValueError, match="glcm_Nothing"):
        extract(QUARTERS, FULL, features=["glcm_Nothing"])
    with pytest.raises(ValueError, match="one of them"):
        extract(QUARTERS, FULL, features=ALL_FEATURES, bin_width=25, bin_count=32)


def test_a_missing_pyradiomics_is_named(monkeypatch):
    assert radiomics_oracle.version() == "3.0.1"
    monkeypatch.setitem(sys.modules, "radiomics", None)
    for call in (radiomics_oracle.version, lambda: extract(QUARTERS, FULL, features=ALL_FEATURES)):
        with pytest.raises(InputError, match=r"Python 3\.11"):
            call()
