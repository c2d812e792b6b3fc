"""Calibration of the outline's pixels: histograms add up to the measures of all pixels, and the band is near the
border.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from thyroid_jax.evaluate.calibration import (
    binary_brier,
    ece,
    mce,
    pixel_calibration,
    pixel_counts,
    pixel_summary,
    reliability_table,
)


def image(seed, h=9, w=12):
    rng = np.random.default_rng(seed)
    return rng.random((h, w)).astype(np.float32), rng.random((h, w)) < 0.4


def test_sums_of_images_are_the_measures_of_all_pixels():
    images = [image(0), image(1, 5, 30), image(2, 20, 3)]
    counts = sum(pixel_counts(probability, reference, 10) for probability, reference in images)
    forecast = np.concatenate([probability.ravel() for probability, _ in images]).astype(float)
    inside = np.concatenate([reference.ravel() for _, reference in images])
    found = pixel_calibration(counts)
    assert found.pixels == 9 * 12 + 150 + 60
    assert found.ece == pytest.approx(float(ece(forecast, inside, bins=10)))
    assert found.mce == pytest.approx(float(mce(forecast, inside, bins=10)))
    assert found.brier == pytest.approx(float(binary_brier(forecast, inside)))
    expected = reliability_table(forecast, inside, bins=10)
    for name in ("low_edge", "high_edge", "size", "forecast", "observed"):
        np.testing.assert_allclose(getattr(found.table, name), getattr(expected, name), atol=1e-12)
    assert np.isnan(found.table.low).all() and set(found.table.interval) == {"none"}


def test_by_hand():
    probability = np.array([[0.9, 0.9, 0.1, 0.1]])
    reference = np.array([[True, False, False, False]])
    counts = pixel_counts(probability, reference, 2)
    np.testing.assert_allclose(counts, [[2, 2], [0, 1], [0.2, 1.8], [0.02, 0.82]])
    found = pixel_calibration(counts)
    assert (found.ece, found.mce, found.brier) == pytest.approx(((0.2 + 0.8) / 4, 0.4, 0.84 / 4))


def test_edges_of_the_bins_are_those_of_the_other_errors():
    probability = np.array([[0.0, 0.5, 1.0, np.nextafter(0.5, 1)]])
    np.testing.assert_array_equal(pixel_counts(probability, np.zeros((1, 4), bool), 2)[0], [2, 2])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 1.5, 2, 3.7]))
def test_the_band_against_brute_force(seed, band):
    _, reference = image(seed, 8, 9)
    if reference.all() or not reference.any():
        return
    places = np.argwhere(np.ones((8, 9)))
    inside = reference.ravel()
    distance = cdist(places, places)
    nearest = np.where(inside, distance[:, ~inside].min(1), distance[:, inside].min(1)).reshape(8, 9)
    marked = np.random.default_rng(seed).random((8, 9))
    counts = pixel_counts(marked, reference, 5, band_px=band)
    near = nearest <= band
    assert counts[0].sum() == near.sum() and counts[1].sum() == (near & reference).sum()
    assert counts[2].sum() == pytest.approx(marked[near].sum())


def test_a_square_in_a_band():
    reference = np.zeros((20, 20), bool)
    reference[5:15, 5:15] = True
    counts = pixel_counts(np.full((20, 20), 0.5), reference, band_px=1)
    # The outermost row of pixels inside, 36, and the 40 beside them outside.
    assert (counts[0].sum(), counts[1].sum()) == (76, 36)
    at_the_edge = np.zeros((6, 6), bool)
    at_the_edge[:, :3] = True  # touches three edges of the image, which are no border
    assert pixel_counts(np.full((6, 6), 0.5), at_the_edge, band_px=1)[0].sum() == 12


def test_background_hides_an_error_that_the_band_shows():
    reference = np.zeros((60, 60), bool)
    reference[25:35, 25:35] = True
    probability = np.where(reference, 0.98, 0.02)
    probability[24:36, 24:36] = 0.98  # one pixel too large, and sure of it
    whole, band = (pixel_calibration(pixel_counts(probability, reference, band_px=px)) for px in (None, 2))
    assert whole.ece < 0.05 < 0.2 < band.ece


@pytest.mark.parametrize("fill", [False, True])
def test_a_reference_without_border(fill):
    counts = pixel_counts(np.full((4, 4), 0.7), np.full((4, 4), fill), band_px=3)
    assert counts.shape == (4, 15) and not counts.any()
    found = pixel_calibration(counts)
    assert found.pixels == 0 and np.isnan([found.ece, found.mce, found.brier]).all() and len(found.table.size) == 0
    assert pixel_counts(np.full((4, 4), 0.7), np.full((4, 4), fill))[1].sum() == 16 * fill


def test_summary_by_group():
    images = [image(seed) for seed in range(6)]
    counts = np.stack([pixel_counts(*each, 5) for each in images] + [np.zeros((4, 5))])
    groups = ["a", "a", "b", "b", "c", "c", "d"]
    found = pixel_summary(counts, groups, samples=100)
    whole = pixel_calibration(counts.sum(0))
    assert found["pixel_ece"]["value"] == pytest.approx(whole.ece)
    assert found["pixel_brier"]["value"] == pytest.approx(whole.brier)
    for entry in found.values():
        assert (entry["n"], entry["undefined"], entry["groups"]) == (6, 1, 3)
        assert entry["low"] < entry["value"] < entry["high"]
    # Equal images have no spread.
    alike = pixel_summary(np.stack([counts[0]] * 4), ["a", "b", "c", "d"], samples=50)
    assert alike["pixel_brier"]["low"] == pytest.approx(alike["pixel_brier"]["high"])
    assert pixel_summary(np.zeros((0, 4, 5)), []) == {}
    nothing = pixel_summary(np.zeros((2, 4, 5)), ["a", "b"])
    assert np.isnan(nothing["pixel_ece"]["value"])
    assert (nothing["pixel_ece"]["n"], nothing["pixel_ece"]["undefined"]) == (0, 2)


def test_faulty_input_is_refused():
    probability, reference = image(0)
    faulty = np.array(probability)
    faulty[2, 3] = np.nan
    for bad in (faulty, probability + 1, -probability):
        with pytest.raises(ValueError, match="NaN or outside"):
            pixel_counts(bad, reference)
    for bad in (reference[1:], reference.astype(float)):
        with pytest.raises(ValueError, match="bool"):
            pixel_counts(probability, bad)
    for band in (0, 0.5, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="band_px"):
            pixel_counts(probability, reference, band_px=band)
    with pytest.raises(ValueError, match="bins"):
        pixel_counts(probability, reference, 0)
    for bad in (np.zeros((3, 5)), np.full((4, 5), -1.0), np.full((4, 5), np.nan), np.zeros((2, 4, 5))):
        with pytest.raises(ValueError, match="counts"):
            pixel_calibration(bad)
    with pytest.raises(ValueError, match="group"):
        pixel_summary(np.zeros((2, 4, 5)), ["a"])
