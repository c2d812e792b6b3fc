"""Calibration errors: by hand, against scikit-learn's curve, in expectation over all outcomes, and at their edges."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from thyroid_jax.evaluate.calibration import (
    classwise_ece,
    debiased_squared_error,
    ece,
    mce,
    reliability_table,
    top_label,
)

KIND = st.sampled_from(["width", "mass"])


def random_forecasts(seed, n, coarse):
    rng = np.random.default_rng(seed)
    forecast = rng.beta(0.7, 0.7, n)
    return np.round(forecast, 1) if coarse else forecast, rng.random(n) < forecast**2


def test_by_hand():
    # 5 forecasts of 0.2 with one hit: no gap. 4 of 0.9 with two hits: gap 0.4.
    forecast, outcome = np.array([0.2] * 5 + [0.9] * 4), np.array([1, 0, 0, 0, 0, 1, 1, 0, 0])
    for kind in ("width", "mass"):
        assert ece(forecast, outcome, kind=kind) == pytest.approx(4 / 9 * 0.4)
        assert mce(forecast, outcome, kind=kind) == pytest.approx(0.4)
    # One bin: the gaps of +0.4 cancel in part. 0.2 * 5 + 0.9 * 4 = 4.6 forecast, 3 came.
    assert ece(forecast, outcome, bins=1) == pytest.approx(1.6 / 9)
    # Without the noise: 0.2 (0.8) / 4 in the first bin, 0.25 / 3 in the second.
    expected = (5 * (0 - 0.16 / 4) + 4 * (0.16 - 0.25 / 3)) / 9
    assert debiased_squared_error(forecast, outcome, bins=2) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.integers(1, 15), st.booleans())
def test_bins_of_equal_width_against_scikit_learn(seed, n, bins, coarse):
    from sklearn.calibration import calibration_curve

    forecast, outcome = random_forecasts(seed, n, coarse)
    outcome[:2] = [0, 1]  # scikit-learn wants both
    observed, mean = calibration_curve(outcome, forecast, n_bins=bins)
    table = reliability_table(forecast, outcome, bins=bins)
    np.testing.assert_allclose(table.observed, observed, atol=1e-12)
    np.testing.assert_allclose(table.forecast, mean, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 15), KIND, st.booleans())
def test_errors_are_those_of_the_table(seed, n, bins, kind, coarse):
    forecast, outcome = random_forecasts(seed, n, coarse)
    table = reliability_table(forecast, outcome, bins=bins, kind=kind)
    assert table.size.sum() == n and (table.size > 0).all()
    assert (table.size * table.forecast).sum() == pytest.approx(forecast.sum())
    assert (table.size * table.observed).sum() == pytest.approx(outcome.sum())
    gap = np.abs(table.observed - table.forecast)
    assert ece(forecast, outcome, bins=bins, kind=kind) == pytest.approx((table.size * gap).sum() / n)
    assert mce(forecast, outcome, bins=bins, kind=kind) == pytest.approx(gap.max())
    assert (table.low_edge - 1e-12 <= table.forecast).all() and (table.forecast <= table.high_edge + 1e-12).all()
    assert (table.low - 1e-12 <= table.observed).all() and (table.observed <= table.high + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_weight_is_repetition(seed):
    forecast, outcome = random_forecasts(seed, 20, True)
    weight = np.random.default_rng(seed).integers(0, 3, size=(2, 3, 20))
    for measured in (ece, mce):
        found = measured(forecast, outcome, weight=weight)
        assert found.shape == (2, 3)
        for lead in np.ndindex(2, 3):
            repeated = np.repeat(np.arange(20), weight[lead])
            assert found[lead] == pytest.approx(measured(forecast[repeated], outcome[repeated]), nan_ok=True)
    probability = np.stack([forecast / 2, forecast / 2, 1 - forecast], axis=1)
    truth = np.random.default_rng(seed).integers(3, size=20)
    found = classwise_ece(probability, truth, weight=weight)
    repeated = np.repeat(np.arange(20), weight[1, 2])
    assert found[1, 2] == pytest.approx(classwise_ece(probability[repeated], truth[repeated]), nan_ok=True)


def test_bins_of_equal_mass_do_not_move_with_the_weights():
    forecast, outcome = random_forecasts(0, 30, False)
    weight = np.zeros(30)
    weight[forecast > np.median(forecast)] = 1
    upper = forecast > np.median(forecast)
    # Two bins, of which one has no weight: the ECE is the gap of the other, not that of its two halves.
    gap = abs(forecast[upper].mean() - outcome[upper].mean())
    assert ece(forecast, outcome, bins=2, kind="mass", weight=weight) == pytest.approx(gap)
    assert mce(forecast, outcome, bins=2, kind="mass", weight=weight) == pytest.approx(gap)


def test_finite_sample_expectation_of_right_forecasts():
    """In one bin of n cases of probability p the ECE is |hits / n - p|, whose mean the binomial distribution gives."""
    n, p = 40, 0.3
    hits = np.arange(n + 1)
    exact = (binom.pmf(hits, n, p) * np.abs(hits / n - p)).sum()
    outcome = np.random.default_rng(0).random((20000, n)) < p
    found = ece(np.full(n, p), outcome)
    assert found.mean() == pytest.approx(exact, abs=4 * found.std() / np.sqrt(len(found)))
    # The approximation that the docstring gives, for forecasts in many bins.
    forecast = np.random.default_rng(1).random(1500)
    outcome = np.random.default_rng(2).random((400, 1500)) < forecast
    expected = np.sqrt(2 / np.pi) * np.sqrt(forecast * (1 - forecast) / 100).mean()
    assert ece(forecast, outcome, kind="mass").mean() == pytest.approx(expected, rel=0.03)


def test_debiased_error_has_the_right_expectation_over_all_outcomes():
    forecast = np.array([0.3] * 3 + [0.8] * 4)
    true = np.array([0.5] * 3 + [0.75] * 4)
    wanted = (3 * 0.2**2 + 4 * 0.05**2) / 7
    plain = debiased = 0.0
    for outcome in product((0, 1), repeat=7):
        chance = np.where(outcome, true, 1 - true).prod()
        debiased += chance * debiased_squared_error(forecast, np.array(outcome), kind="width")
        table = reliability_table(forecast, np.array(outcome))
        plain += chance * (table.size * (table.forecast - table.observed) ** 2).sum() / 7
    assert debiased == pytest.approx(wanted, abs=1e-12)
    assert plain > wanted + 0.05  # what the correction removes


def test_debiased_error_of_many_right_forecasts_is_nought():
    rng = np.random.default_rng(0)
    forecast = rng.random(3000)
    found = [debiased_squared_error(forecast, rng.random(3000) < forecast) for _ in range(100)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 10 + 1e-5 and min(found) < 0 < max(found)


def test_top_label_and_its_tie():
    probability = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8]])
    confidence, right = top_label(probability, np.array([1, 2, 2]))
    np.testing.assert_array_equal(confidence, [0.5, 0.4, 0.8])
    np.testing.assert_array_equal(right, [True, False, True])
    assert ece(confidence, right) == pytest.approx((0.5 + 0.4 + 0.2) / 3)


def test_classwise_is_the_mean_over_grades_with_those_that_never_occur():
    probability = np.array([[0.6, 0.3, 0.1]] * 10)
    truth = np.array([0] * 6 + [1] * 4)
    # Gaps 0, 0.1, 0.1; the top label sees none of it.
    assert classwise_ece(probability, truth) == pytest.approx(0.2 / 3)
    assert ece(*top_label(probability, truth)) == pytest.approx(0)


def test_wilson_interval_is_its_closed_form():
    forecast, outcome = np.array([0.1] * 10 + [0.9] * 4), np.array([1] * 3 + [0] * 7 + [1] * 4)
    table = reliability_table(forecast, outcome, level=0.9)
    z, n, p = norm.ppf(0.95), table.size, table.observed
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(table.low, (middle - half) / (1 + z**2 / n), atol=1e-12)
    np.testing.assert_allclose(table.high, (middle + half) / (1 + z**2 / n), atol=1e-12)
    assert table.interval == ("wilson", "wilson")


def test_intervals_by_group():
    # Ten patients with four equal images each: as good as ten cases, so wider than for forty.
    outcome = np.repeat([1, 0, 0, 1, 0, 0, 1, 0, 1, 0], 4)
    patient = np.repeat(np.arange(10), 4)
    forecast = np.full(40, 0.5)
    alone = reliability_table(forecast, outcome)
    grouped = reliability_table(forecast, outcome, groups=patient, samples=500)
    assert grouped.interval == ("bootstrap",) and grouped.observed == alone.observed == 0.4
    assert (grouped.high - grouped.low)[0] > 1.5 * (alone.high - alone.low)[0]
    # A bin whose outcomes are all alike counts its patients, not its images.
    sure = reliability_table(forecast, np.ones(40), groups=patient, samples=50)
    of_ten = reliability_table(forecast[:10], np.ones(10))
    assert sure.interval == ("wilson of groups",)
    assert (sure.low, sure.high) == (of_ten.low, of_ten.high)
    lone = reliability_table(forecast, outcome, groups=np.zeros(40), samples=50)
    assert lone.interval == ("none",) and np.isnan([lone.low, lone.high]).all()


def test_edges():
    nothing = np.empty(0)
    for kind in ("width", "mass"):
        assert np.isnan(ece(nothing, nothing, kind=kind)) and np.isnan(mce(nothing, nothing, kind=kind))
        assert np.isnan(debiased_squared_error(nothing, nothing, kind=kind))
        assert len(reliability_table(nothing, nothing, kind=kind).size) == 0
    assert np.isnan(classwise_ece(np.empty((0, 3)), np.empty(0, int)))
    assert np.isnan(ece(nothing, nothing, weight=np.ones((4, 0)))).tolist() == [True] * 4
    forecast = np.array([0.0, 1.0, 1.0, 0.0])
    for measured in (ece, mce):
        assert measured(forecast, forecast) == 0 and measured(forecast, 1 - forecast) == 1
        assert np.isnan(measured(forecast, forecast, weight=np.zeros((2, 4)))).all()
    assert ece(np.full(5, 0.3), np.zeros(5)) == pytest.approx(0.3)  # one class
    assert np.isnan(debiased_squared_error(np.array([0.1, 0.9, 0.9]), np.array([0, 1, 1]), kind="width"))
    with pytest.raises(ValueError, match="NaN"):
        ece(np.array([0.2, np.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match="level"):
        reliability_table(forecast, forecast, level=1.0)
