"""Proper scores: against scikit-learn, closed forms and brute force; Murphy's decomposition adds up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.evaluate import calibration
from thyroid_jax.evaluate.calibration import (
    binary_brier,
    binary_nll,
    brier,
    murphy,
    murphy_of_grades,
    nll,
    ranked_probability_score,
)

OF_GRADES = (brier, nll, ranked_probability_score)


def random_grades(seed, n=25, k=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), n), rng.integers(k, size=n)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 40))
def test_against_scikit_learn(seed, k, n):
    from sklearn.metrics import brier_score_loss, log_loss

    probability, truth = random_grades(seed, n, k)
    labels = np.arange(k)
    assert nll(probability, truth) == pytest.approx(log_loss(truth, probability, labels=labels))
    expected = brier_score_loss(truth, probability, labels=labels, scale_by_half=False)
    assert brier(probability, truth) == pytest.approx(expected)
    forecast, outcome = probability[:, 0], truth == 0
    assert binary_nll(forecast, outcome) == pytest.approx(log_loss(outcome, forecast, labels=[False, True]))
    assert binary_brier(forecast, outcome) == pytest.approx(((forecast - outcome) ** 2).mean())
    columns = np.stack([1 - forecast, forecast], axis=1)
    for of_two in (brier(columns, outcome.astype(int)) / 2, ranked_probability_score(columns, outcome.astype(int))):
        assert of_two == pytest.approx(binary_brier(forecast, outcome))
    assert nll(columns, outcome.astype(int)) == pytest.approx(binary_nll(forecast, outcome))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_rps_is_an_expected_distance(seed, k):
    """E|X - y| - E|X - X'| / 2 over k - 1, for X and X' drawn from the forecast: the kernel form of the score."""
    probability, truth = random_grades(seed, 12, k)
    distance = np.abs(np.arange(k)[:, None] - np.arange(k))
    to_truth = (probability * distance[truth]).sum(1)
    spread = np.einsum("ni,ij,nj->n", probability, distance, probability)
    expected = (to_truth - spread / 2).mean() / (k - 1)
    assert ranked_probability_score(probability, truth) == pytest.approx(expected)


def test_rps_knows_the_order():
    sure = np.eye(5)
    found = [float(ranked_probability_score(sure[[0]], np.array([truth]))) for truth in range(5)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert len({float(brier(sure[[0]], np.array([truth]))) for truth in range(1, 5)}) == 1


@pytest.mark.parametrize("score", OF_GRADES)
def test_true_probabilities_are_best_on_average(score):
    rng = np.random.default_rng(0)
    for true in rng.dirichlet(np.ones(4), 5):
        expected = lambda forecast, true=true: sum(true[j] * score(forecast[None], np.array([j])) for j in range(4))
        best = expected(true)
        assert all(expected(other) > best for other in rng.dirichlet(np.ones(4), 50))
        assert all(expected(0.99 * true + 0.01 * other) > best for other in rng.dirichlet(np.ones(4), 20))


def test_impossible_events_cost_infinity_unless_clipped():
    probability, truth = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0])
    assert nll(probability, truth) == np.inf == binary_nll(probability[:, 1], truth)
    assert nll(probability, truth, clip=1e-3) == pytest.approx((-np.log(1e-3) - np.log(0.5)) / 2)
    # Where the impossible case does not count, neither does its score.
    np.testing.assert_allclose(
        nll(probability, truth, weight=np.array([[0, 2], [1, 1], [0, 0]])), [np.log(2), np.inf, np.nan]
    )
    perfect = nll(probability[:1], np.array([0]))
    assert perfect == 0 and not np.signbit(perfect)
    for clip in (-0.1, 1, np.nan):
        with pytest.raises(ValueError, match="clip"):
            nll(probability, truth, clip=clip)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_weight_is_repetition(seed):
    probability, truth = random_grades(seed)
    weight = np.random.default_rng(seed).integers(0, 3, size=(2, 2, 25))
    repeated = np.repeat(np.arange(25), weight[1, 0])
    for score in OF_GRADES:
        found = score(probability, truth, weight=weight)
        assert found.shape == (2, 2)
        assert found[1, 0] == pytest.approx(float(score(probability[repeated], truth[repeated])))
    forecast, outcome = np.round(probability[:, 0], 1), truth == 0
    for score in (binary_brier, lambda f, y, **weight: np.array(murphy(f, y, **weight))):
        found = score(forecast, outcome, weight=weight)[..., 1, 0]
        np.testing.assert_allclose(found, score(forecast[repeated], outcome[repeated]), atol=1e-12)


def test_truth_may_have_leading_axes():
    probability, _ = random_grades(0)
    truth = np.random.default_rng(0).integers(4, size=(6, 25))
    for score in OF_GRADES:
        np.testing.assert_allclose(score(probability, truth), [score(probability, row) for row in truth])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40))
def test_murphy_is_exact_by_distinct_forecast(seed, n):
    rng = np.random.default_rng(seed)
    forecast, outcome = np.round(rng.random(n), 1), rng.random(n) < 0.4
    found = murphy(forecast, outcome)
    reliability = resolution = 0.0
    for value in np.unique(forecast):
        here = forecast == value
        reliability += here.mean() * (value - outcome[here].mean()) ** 2
        resolution += here.mean() * (outcome[here].mean() - outcome.mean()) ** 2
    assert found.reliability == pytest.approx(reliability) and found.resolution == pytest.approx(resolution)
    assert found.uncertainty == pytest.approx(outcome.var())
    assert found.brier == pytest.approx(reliability - resolution + outcome.var())
    assert abs(found.within_bins) < 1e-12


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["width", "mass"]))
def test_within_bins_is_variance_less_twice_covariance(seed, kind):
    rng = np.random.default_rng(seed)
    forecast = rng.random(60)
    outcome = rng.random(60) < forecast
    found = murphy(forecast, outcome, bins=5, kind=kind)
    edges = calibration.bin_edges(forecast, 5, kind)
    left_out = 0.0
    for number in range(5):
        here = np.searchsorted(edges[1:-1], forecast) == number
        if here.any():
            apart, came = forecast[here] - forecast[here].mean(), outcome[here] - outcome[here].mean()
            left_out += here.mean() * ((apart**2).mean() - 2 * (apart * came).mean())
    assert found.within_bins == pytest.approx(left_out)
    assert found.brier == pytest.approx(found.reliability - found.resolution + found.uncertainty + left_out)


def test_murphy_at_its_ends():
    outcome = np.array([1, 0, 0, 0])
    climate = murphy(np.full(4, 0.25), outcome)
    assert (climate.reliability, climate.resolution, climate.uncertainty) == (0, 0, 0.1875)
    perfect = murphy(outcome.astype(float), outcome)
    assert (perfect.brier, perfect.reliability, perfect.resolution) == (0, 0, 0.1875)
    unlike = murphy(np.array([0.6, 0.1, 0.2, 0.3]), outcome)  # all forecasts differ: nothing is told apart
    assert unlike.reliability == pytest.approx(unlike.brier) and unlike.resolution == pytest.approx(unlike.uncertainty)
    one_class = murphy(np.full(3, 0.2), np.zeros(3))
    assert one_class.uncertainty == 0 and one_class.reliability == pytest.approx(0.04)


def test_murphy_of_grades_adds_up():
    probability, truth = random_grades(3, 40)
    for bins in (None, 5):
        found = murphy_of_grades(probability, truth, bins=bins)
        assert found.brier == pytest.approx(float(brier(probability, truth)))
        total = found.reliability - found.resolution + found.uncertainty + found.within_bins
        assert found.brier == pytest.approx(total)
    shares = np.bincount(truth, minlength=4) / 40
    assert found.uncertainty == pytest.approx(1 - (shares**2).sum())


def test_edges():
    nothing = np.empty(0)
    assert np.isnan(binary_brier(nothing, nothing)) and np.isnan(binary_nll(nothing, nothing))
    assert np.isnan(murphy(nothing, nothing)).all() and np.isnan(murphy(nothing, nothing, bins=3)).all()
    for score in OF_GRADES:
        assert np.isnan(score(np.empty((0, 3)), np.empty(0, int)))
        assert np.isnan(score(np.full((2, 2), 0.5), np.array([0, 1]), weight=np.zeros((3, 2)))).all()
        with pytest.raises(ValueError, match="NaN"):
            score(np.array([[0.5, np.nan]]), np.array([0]))
        with pytest.raises(ValueError, match="sum to 1"):
            score(np.array([[0.5, 0.4]]), np.array([0]))
    assert nll(np.full((3, 5), 0.2), np.array([0, 3, 4])) == pytest.approx(np.log(5))
    assert brier(np.eye(3)[[0]], np.array([2])) == 2
