"""Scaling: known temperatures come back, optima agree with scikit-learn, grids and differences, and nothing is inf."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit, softmax

from thyroid_jax.evaluate.calibration import (
    binary_nll,
    fit_grades,
    fit_malignancy,
    nll,
    ranked_probability_score,
    scale_grades,
    scale_malignancy,
)
from thyroid_jax.evaluate.calibration.scaling import (
    GRADE_FLOOR,
    MALIGNANCY_FLOOR,
    TEMPERATURES,
    Scaling,
    floored,
    shifted_nll,
    tempered_nll,
)

PLAIN = Scaling("temperature", 1.0, 0.0, cases=40, groups=40, nll_before=1.0, nll_after=1.0)


def drawn_grades(seed, n, k=5, spread=2.0):
    """Right probabilities f[n k] and the truth drawn from them."""
    rng = np.random.default_rng(seed)
    probability = softmax(rng.normal(0, spread, (n, k)), axis=1)
    truth = (rng.random((n, 1)) >= probability.cumsum(1)[:, :-1]).sum(1)
    return probability, truth


def drawn_malignancy(seed, n):
    rng = np.random.default_rng(seed)
    forecast = expit(rng.normal(-0.5, 1.5, n))
    return forecast, rng.random(n) < forecast


def by_cumulative_links(probability, temperature, bias):
    """Ordinal scaling written from its definition."""
    exceeding = expit(logit(1 - np.cumsum(probability, axis=1)[:, :-1]) / temperature + bias)
    one, nought = np.ones((len(probability), 1)), np.zeros((len(probability), 1))
    return -np.diff(np.concatenate([one, exceeding, nought], axis=1), axis=1)


# --- what scaling does ------------------------------------------------------------------------------------------------


def test_temperature_is_the_power_of_a_probability():
    probability, _ = drawn_grades(0, 20)
    for temperature in (0.5, 1.0, 3.0):
        found = scale_grades(replace(PLAIN, temperature=temperature), probability)
        power = probability ** (1 / temperature)
        np.testing.assert_allclose(found, power / power.sum(1, keepdims=True), rtol=1e-9)
        forecast = scale_malignancy(replace(PLAIN, temperature=temperature), probability[:, 0])
        np.testing.assert_allclose(forecast, expit(logit(probability[:, 0]) / temperature), rtol=1e-9)
    assert scale_grades(PLAIN, probability.reshape(4, 5, 5)).shape == (4, 5, 5)
    assert scale_malignancy(PLAIN, np.array(0.5)) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(*TEMPERATURES))
def test_temperature_keeps_the_order_and_the_side_of_one_half(seed, k, temperature):
    probability, _ = drawn_grades(seed, 15, k)
    scaling = replace(PLAIN, temperature=temperature)
    np.testing.assert_array_equal(scale_grades(scaling, probability).argmax(1), probability.argmax(1))
    forecast = np.r_[probability[:, 0], 0.5]
    np.testing.assert_array_equal(scale_malignancy(scaling, forecast) >= 0.5, forecast >= 0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.3, 5), st.floats(-3, 3))
def test_ordinal_scaling_is_its_definition_and_gives_probabilities(seed, k, temperature, bias):
    probability, _ = drawn_grades(seed, 15, k)
    found = scale_grades(replace(PLAIN, method="ordinal", temperature=temperature, bias=bias), probability)
    np.testing.assert_allclose(found, by_cumulative_links(probability, temperature, bias), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)
    assert (found >= 0).all()


def test_a_row_that_sums_to_nearly_one_is_scaled_as_if_it_did():
    probability, _ = drawn_grades(0, 10)
    for method in ("temperature", "ordinal"):
        scaling = replace(PLAIN, method=method, temperature=1.7)
        found = scale_grades(scaling, 0.9995 * probability)
        np.testing.assert_allclose(found, scale_grades(scaling, probability), rtol=1e-9)


def test_ordinal_scaling_moves_the_risk_and_can_change_the_grade():
    probability, _ = drawn_grades(0, 50)
    plain = replace(PLAIN, method="ordinal")
    np.testing.assert_allclose(scale_grades(plain, probability), probability, rtol=1e-6)
    up, down = (scale_grades(replace(plain, bias=bias), probability) for bias in (1.0, -1.0))
    exceeding = lambda p: 1 - np.cumsum(p, axis=1)[:, :-1]
    assert (exceeding(up) > exceeding(probability)).all() and (exceeding(down) < exceeding(probability)).all()
    assert (up.argmax(1) >= probability.argmax(1)).mean() > 0.9 and (up.argmax(1) != probability.argmax(1)).any()


def test_ordinal_scaling_of_two_grades_is_platts():
    forecast, truth = drawn_malignancy(1, 200)
    columns = np.stack([1 - forecast, forecast], axis=1)
    platt = fit_malignancy(forecast, truth, method="platt")
    ordinal = fit_grades(columns, truth.astype(int), method="ordinal")
    assert (ordinal.temperature, ordinal.bias) == pytest.approx((platt.temperature, platt.bias), rel=1e-9)
    np.testing.assert_allclose(scale_grades(ordinal, columns)[:, 1], scale_malignancy(platt, forecast), rtol=1e-9)
    expected = expit(logit(forecast) / platt.temperature + platt.bias)
    np.testing.assert_allclose(scale_malignancy(platt, forecast), expected, rtol=1e-9)


# --- what fitting finds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_of_an_overconfident_model_comes_back(factor):
    probability, truth = drawn_grades(0, 4000, spread=1.5)
    sharpened = softmax(factor * np.log(probability), axis=1)
    found = fit_grades(sharpened, truth)
    assert found.temperature == pytest.approx(factor, rel=0.06)
    assert found.bias == 0 and found.remark == ""
    assert nll(scale_grades(found, sharpened), truth) == pytest.approx(found.nll_after)
    assert nll(sharpened, truth) == pytest.approx(found.nll_before)
    forecast, outcome = drawn_malignancy(0, 4000)
    found = fit_malignancy(expit(factor * logit(forecast)), outcome)
    assert found.temperature == pytest.approx(factor, rel=0.08)
    assert found.nll_after == pytest.approx(float(binary_nll(forecast, outcome)), abs=2e-3)


def test_slope_and_bias_of_a_cumulative_link_come_back():
    probability, truth = drawn_grades(2, 6000, spread=1.5)
    # The model says logit = 2 (true logit) + 1, so scaling divides by 2 and takes off one half.
    said = by_cumulative_links(probability, 0.5, 1.0)
    found = fit_grades(said, truth, method="ordinal")
    assert found.temperature == pytest.approx(2, rel=0.08) and found.bias == pytest.approx(-0.5, abs=0.08)
    assert found.nll_after < found.nll_before
    scaled = scale_grades(found, said)
    assert nll(scaled, truth) == pytest.approx(found.nll_after)
    assert ranked_probability_score(scaled, truth) < ranked_probability_score(said, truth)


@pytest.mark.parametrize("seed", range(3))
def test_malignancy_against_logistic_regression(seed):
    from sklearn.linear_model import LogisticRegression

    forecast, truth = drawn_malignancy(seed, 150)
    column = logit(forecast)[:, None]
    for method, intercept in (("temperature", False), ("platt", True)):
        judge = LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-10, max_iter=1000).fit(column, truth)
        found = fit_malignancy(forecast, truth, method=method)
        assert 1 / found.temperature == pytest.approx(judge.coef_.item(), rel=1e-5)
        assert found.bias == pytest.approx(np.ravel(judge.intercept_).item() if intercept else 0, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.1, 4), st.floats(-2, 2))
def test_gradients_against_differences_and_convexity(seed, k, slope, bias):
    probability, _ = drawn_grades(seed, 12, k)
    truth = np.random.default_rng(seed).integers(k, size=12)
    raised, point, step = floored(probability, GRADE_FLOOR), np.array([slope, bias]), 1e-5
    for loss, free in ((tempered_nll, 1), (shifted_nll, 2)):
        for axis in range(free):
            move = step * np.eye(2)[axis]
            difference = (loss(point + move, raised, truth)[0] - loss(point - move, raised, truth)[0]) / (2 * step)
            assert loss(point, raised, truth)[1][axis] == pytest.approx(difference, abs=1e-6, rel=1e-6)
        other = np.array([2.0, 0.3])
        middle = loss((point + other) / 2, raised, truth)[0]
        assert middle <= (loss(point, raised, truth)[0] + loss(other, raised, truth)[0]) / 2 + 1e-12


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.floats(0.5, 3))
def test_the_optimum_has_no_gradient_and_beats_a_grid(seed, k, factor):
    probability, truth = drawn_grades(seed, 80, k)
    if len(set(truth.tolist())) == 1:
        return
    raised = floored(softmax(factor * np.log(probability), axis=1), GRADE_FLOOR)
    for method, loss, free in (("temperature", tempered_nll, 1), ("ordinal", shifted_nll, 2)):
        found = fit_grades(raised, truth, method=method)
        value, gradient = loss(np.array([1 / found.temperature, found.bias]), raised, truth)
        assert value == pytest.approx(found.nll_after)
        if not found.remark:
            assert np.abs(gradient).max() < 1e-8
        for slope in np.linspace(0.05, 5, 12):
            for bias in np.linspace(-2, 2, 5) if free == 2 else (0.0,):
                assert found.nll_after <= loss(np.array([slope, bias]), raised, truth)[0] + 1e-9
        assert found.nll_after <= found.nll_before


# --- what cannot be fitted --------------------------------------------------------------------------------------------


def test_perfect_separation_ends_at_the_bound():
    truth = np.arange(40) % 4
    right = 0.6 * np.eye(4)[truth] + 0.1
    for method in ("temperature", "ordinal"):
        found = fit_grades(right, truth, method=method)
        assert (
            found.temperature == pytest.approx(TEMPERATURES[0]) and "temperature is at its bound 0.05" in found.remark
        )
        scaled = scale_grades(found, right)
        assert np.isfinite(scaled).all() and np.isfinite(found.nll_after) and found.nll_after < 1e-3
    outcome = truth < 2
    for method in ("temperature", "platt"):
        found = fit_malignancy(np.where(outcome, 0.7, 0.2), outcome, method=method)
        assert "at its bound" in found.remark and math.isfinite(found.nll_after)
        assert np.isfinite(scale_malignancy(found, np.array([0.0, 0.5, 1.0]))).all()


def test_forecasts_worse_than_chance_end_at_the_other_bound():
    truth = np.arange(60) % 2 * 2
    wrong = 0.1 + 0.7 * np.eye(3)[2 - truth]
    for method in ("temperature", "ordinal"):
        found = fit_grades(wrong, truth, method=method)
        assert found.temperature == TEMPERATURES[1] and "bound 20" in found.remark
    found = fit_malignancy(np.where(truth == 0, 0.2, 0.8), truth == 0)
    assert found.temperature == TEMPERATURES[1] and "bound 20" in found.remark


def test_uniform_and_equal_forecasts():
    truth = np.arange(40) % 4
    found = fit_grades(np.full((40, 4), 0.25), truth)
    assert found.temperature == 1 and "uniform" in found.remark
    with pytest.raises(ValueError, match="all forecasts are equal"):
        fit_malignancy(np.full(40, 0.3), truth == 0, method="platt")
    # A temperature of one equal forecast is defined: 0.3 becomes the share 1/4.
    found = fit_malignancy(np.full(40, 0.3), truth == 0)
    assert scale_malignancy(found, np.array(0.3)) == pytest.approx(0.25)
    # So are slope and bias of several grades: they are two numbers for the three shares.
    assert np.isfinite(fit_grades(np.tile([0.1, 0.2, 0.3, 0.4], (40, 1)), truth, method="ordinal").bias)


def test_few_cases_and_one_class_are_refused():
    probability, truth = drawn_grades(0, 29, 3)
    for method in ("temperature", "ordinal"):
        with pytest.raises(ValueError, match="29 cases are too few"):
            fit_grades(probability, truth, method=method)
        assert fit_grades(probability, truth, method=method, least=29).cases == 29
        with pytest.raises(ValueError, match="same true label"):
            fit_grades(probability, np.zeros(29, int), method=method, least=5)
    for outcome in (np.zeros(40), np.ones(40)):
        with pytest.raises(ValueError, match="same true label"):
            fit_malignancy(np.linspace(0.1, 0.9, 40), outcome, method="platt")
    with pytest.raises(ValueError, match="too few"):
        fit_malignancy(np.empty(0), np.empty(0), least=0)


def test_probabilities_of_nought_and_one_are_raised_and_said():
    forecast, truth = drawn_malignancy(0, 100)
    forecast[:3], truth[:3] = [0, 1, 1], [True, False, True]
    for method in ("temperature", "platt"):
        found = fit_malignancy(forecast, truth, method=method)
        assert "below 1e-07, which was raised to it: 3" in found.remark
        clipped = np.clip(forecast, MALIGNANCY_FLOOR, 1 - MALIGNANCY_FLOOR)
        assert found.nll_before == pytest.approx(float(binary_nll(clipped, truth)), rel=1e-6)
        scaled = scale_malignancy(found, np.array([0.0, 1.0]))
        assert 0 < scaled[0] < scaled[1] < 1
    assert np.isinf(binary_nll(forecast, truth))


def test_grades_of_probability_nought_are_raised_and_said():
    probability, truth = drawn_grades(0, 100, 4)
    probability[:2], truth[:2] = np.eye(4)[[0, 3]], [3, 1]
    for method in ("temperature", "ordinal"):
        found = fit_grades(probability, truth, method=method)
        assert "below 1e-12, which was raised to it: 2" in found.remark and np.isfinite(found.nll_before)
        scaled = scale_grades(found, np.eye(4))
        assert (scaled > 0).all() and (scaled.argmax(1) == np.arange(4)).all()
    steep = replace(PLAIN, method="ordinal", temperature=TEMPERATURES[0], bias=50.0)
    assert np.isfinite(scale_grades(steep, np.eye(4))).all()
    for slope in (1 / TEMPERATURES[0], 1 / TEMPERATURES[1]):
        value, gradient = shifted_nll(np.array([slope, 50.0]), floored(np.eye(4), GRADE_FLOOR), np.array([3, 2, 1, 0]))
        assert np.isfinite(value) and np.isfinite(gradient).all()


def test_groups_are_counted():
    probability, truth = drawn_grades(0, 60, 3)
    found = fit_grades(probability, truth, groups=np.arange(60) // 4)
    assert (found.cases, found.groups) == (60, 15)
    assert fit_grades(probability, truth).groups == 60
    with pytest.raises(ValueError, match="groups"):
        fit_grades(probability, truth, groups=np.arange(59))


def test_methods_that_do_not_fit_are_refused():
    probability, truth = drawn_grades(0, 40, 3)
    with pytest.raises(ValueError, match="temperature or ordinal"):
        fit_grades(probability, truth, method="platt")
    with pytest.raises(ValueError, match="temperature or platt"):
        fit_malignancy(probability[:, 0], truth == 0, method="ordinal")
    with pytest.raises(ValueError, match="temperature or ordinal"):
        scale_grades(replace(PLAIN, method="platt"), probability)
    with pytest.raises(ValueError, match="temperature or platt"):
        scale_malignancy(replace(PLAIN, method="ordinal"), probability[:, 0])
    with pytest.raises(ValueError, match="NaN"):
        scale_malignancy(PLAIN, np.array([0.2, np.nan]))
    with pytest.raises(ValueError, match="sum to 1"):
        scale_grades(PLAIN, np.array([0.5, 0.2]))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "isotonic"},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"bias": 0.1},
        {"method": "platt", "bias": math.nan},
        {"method": "platt", "bias": 51.0},
        {"cases": 0},
        {"groups": 41},
        {"nll_after": math.inf},
        {"nll_before": -0.1},
    ],
)
def test_impossible_scalings_are_refused(change):
    with pytest.raises(ValueError, match=r"method|temperature|bias|cases|nll"):
        replace(PLAIN, **change)
