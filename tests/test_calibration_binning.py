"""Bins of forecasts: which bin a forecast lies in, sums by weight, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.evaluate.calibration.binning import bin_edges, bin_of, bin_sums, checked_forecast, checked_grades


def test_a_bin_holds_its_upper_edge():
    edges = bin_edges(np.array([0.5]), 4)
    np.testing.assert_array_equal(edges, [0, 0.25, 0.5, 0.75, 1])
    forecast = np.array([0, 0.25, np.nextafter(0.25, 1), 0.5, 0.75, np.nextafter(0.75, 1), 1])
    np.testing.assert_array_equal(bin_of(forecast, edges), [0, 0, 1, 1, 2, 3, 3])


def test_bins_of_equal_mass_hold_equally_many_and_keep_ties_together():
    forecast = np.random.default_rng(0).random(150)
    assert (np.bincount(bin_of(forecast, bin_edges(forecast, 15, "mass"))) == 10).all()
    uneven = np.arange(1, 9) / 10  # ranks ceil(8 i / 3) = 3, 6, 8
    np.testing.assert_allclose(bin_edges(uneven, 3, "mass"), [0.1, 0.3, 0.6, 0.8])
    tied = np.array([0.1] * 4 + [0.4] * 3 + [0.6, 0.9])  # in threes: the fourth 0.1 stays with the others
    np.testing.assert_array_equal(bin_of(tied, bin_edges(tied, 3, "mass")), [0] * 4 + [1] * 3 + [2] * 2)
    alike = np.full(9, 0.3)
    assert set(bin_of(alike, bin_edges(alike, 5, "mass"))) == {0}
    assert np.isnan(bin_edges(np.empty(0), 3, "mass")).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 20))
def test_bins_of_equal_mass_differ_by_one_case_at_most(seed, n, bins):
    forecast = np.random.default_rng(seed).permutation(n) / n
    member = bin_of(forecast, bin_edges(forecast, bins, "mass"))
    counts = np.bincount(member, minlength=bins)
    assert len(counts) == bins and counts.max() - counts.min() <= 1
    assert (np.diff(member[np.argsort(forecast)]) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 6))
def test_sums_against_a_loop_over_repeated_cases(seed, n, bins):
    rng = np.random.default_rng(seed)
    forecast, outcome, member = rng.random(n), rng.integers(2, size=n).astype(float), rng.integers(bins, size=n)
    weight = rng.integers(0, 3, size=(2, 3, n)).astype(float)
    sums = bin_sums(forecast, outcome, member, weight)
    np.testing.assert_array_equal(sums.bin, np.unique(member))
    for lead in np.ndindex(2, 3):
        for place, number in enumerate(sums.bin):
            repeated = np.repeat(np.flatnonzero(member == number), weight[lead][member == number].astype(int))
            assert sums.mass[lead][place] == len(repeated)
            assert sums.forecast[lead][place] == pytest.approx(forecast[repeated].sum())
            assert sums.outcome[lead][place] == outcome[repeated].sum()


def test_outcomes_may_have_leading_axes_instead():
    rng = np.random.default_rng(0)
    forecast, member = rng.random(8), rng.integers(3, size=8)
    outcome = rng.integers(2, size=(5, 8)).astype(float)
    together = bin_sums(forecast, outcome, member, np.ones(8))
    for row, alone in zip(together.outcome, outcome):
        np.testing.assert_array_equal(row, bin_sums(forecast, alone, member, np.ones(8)).outcome)
    assert bin_sums(np.empty(0), np.empty(0), np.empty(0, int), np.ones((4, 0))).mass.shape == (4, 0)


NAN = float("nan")


@pytest.mark.parametrize(
    ("forecast", "outcome", "weight"),
    [
        ([0.5, NAN], [0, 1], None),
        ([0.5, 1.1], [0, 1], None),
        ([0.5, -1e-9], [0, 1], None),
        ([0.5, 0.5], [0, 2], None),
        ([0.5, 0.5], [0, NAN], None),
        ([0.5, 0.5], [0, 1, 1], None),
        ([0.5, 0.5], [0, 1], [1, -1]),
        ([0.5, 0.5], [0, 1], [1, NAN]),
        ([0.5, 0.5], [0, 1], [1]),
        ([[0.5, 0.5]], [[0, 1]], None),
    ],
)
def test_refused_forecasts(forecast, outcome, weight):
    with pytest.raises(ValueError, match=r"forecast|outcome|weight"):
        checked_forecast(np.array(forecast), np.array(outcome), None if weight is None else np.array(weight))


@pytest.mark.parametrize(
    ("probability", "truth"),
    [
        ([[0.5, NAN]], [0]),
        ([[0.5, 0.4]], [0]),
        ([[1.5, -0.5]], [0]),
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([[0.5, 0.5]], [0.0]),
        ([[0.5, 0.5]], [0, 1]),
        ([[1.0]], [0]),
        ([0.5, 0.5], [0, 1]),
    ],
)
def test_refused_grades(probability, truth):
    with pytest.raises(ValueError, match=r"probabilit|grades"):
        checked_grades(np.array(probability), np.array(truth), None)


def test_what_float32_rounds_is_taken():
    forecast, _, weight = checked_forecast(np.array([1 + 1e-7]), np.array([True]), None)
    assert forecast.max() == 1 and weight.shape == (1,)
    third = np.full((1, 3), 1 / 3, np.float32)
    np.testing.assert_allclose(checked_grades(third, np.array([2]), None)[0], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(("bins", "kind"), [(0, "width"), (2.5, "mass"), (5, "quantile")])
def test_refused_bins(bins, kind):
    with pytest.raises(ValueError, match="bins"):
        bin_edges(np.array([0.5]), bins, kind)
