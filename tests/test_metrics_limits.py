"""Limits of agreement against numpy and the worked example of the paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.evaluate import metrics


def test_the_worked_example_of_bland_and_altman():
    # Peak flow, l/min, of 17 subjects by two meters (The Lancet 1986, table 1, first measurements): they report a mean
    # difference of -2.1, a standard deviation of 38.8, and limits of -79.7 and 75.5 with 2 standard deviations.
    wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    bias, low, high = metrics.limits_of_agreement(np.subtract(wright, mini))
    assert bias == pytest.approx(-2.1, abs=0.05)
    assert (high - bias) / 1.96 == pytest.approx(38.8, abs=0.05) and bias - low == pytest.approx(high - bias)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_against_numpy(differences):
    found = metrics.limits_of_agreement(np.array(differences))
    bias, deviation = np.mean(differences), np.std(differences, ddof=1)
    expected = (bias, bias - 1.96 * deviation, bias + 1.96 * deviation)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)


def test_weight_is_repetition():
    random = np.random.default_rng(0)
    difference, weight = random.normal(50, 3, 12), random.integers(0, 3, size=(5, 2, 12))
    found = metrics.limits_of_agreement(difference, weight=weight)
    for at in np.ndindex(5, 2):
        once = metrics.limits_of_agreement(np.repeat(difference, weight[at]))
        assert [side[at] for side in found] == pytest.approx([float(side) for side in once])


def test_a_large_common_offset_does_not_swallow_the_spread():
    difference = np.array([0.0, 1.0, 2.0]) + 1e9
    bias, low, high = metrics.limits_of_agreement(difference)
    assert bias == 1e9 + 1 and high - low == pytest.approx(2 * 1.96, rel=1e-6)


def test_at_the_edges():
    assert all(np.isnan(value) for value in metrics.limits_of_agreement(np.zeros(0)))
    bias, low, high = metrics.limits_of_agreement(np.array([3.0]))
    assert bias == 3 and np.isnan(low) and np.isnan(high)
    assert metrics.limits_of_agreement(np.full(4, 0.1)) == pytest.approx((0.1, 0.1, 0.1))
    bias, low, _ = metrics.limits_of_agreement(np.array([3.0, 5.0]), weight=np.array([[0.0, 0], [1, 0], [1, 1]]))
    assert list(np.isnan(bias)) == [True, False, False] and list(np.isnan(low)) == [True, True, False]
    for bad in ([1, np.nan], [[1, 2]]):
        with pytest.raises(ValueError, match="without NaN"):
            metrics.limits_of_agreement(np.array(bad))
