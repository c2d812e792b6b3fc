"""Adjusted p-values against worked examples, the procedures in their own words, and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thyroid_jax.evaluate.statistics import benjamini_hochberg, holm


def test_holm_worked_example_and_nan():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, alpha):
    # Holm's own wording: go up the sorted list and stop at the first p above alpha / (m - i).
    rejected, order = np.zeros(len(p), bool), np.argsort(p, kind="stable")
    for i, index in enumerate(order):
        if p[index] * (len(p) - i) > alpha:
            break
        rejected[index] = True
    adjusted = holm(p)
    np.testing.assert_array_equal(adjusted <= alpha, rejected)
    assert (adjusted >= p).all() and (adjusted <= 1).all()


# Benjamini and Hochberg's adjusted values of these p, by statsmodels 0.15.0: multipletests(p, method="fdr_bh").
P = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216, 0.34, 0.569, 0.762, 0.94, 0.986]


def test_benjamini_hochberg_against_scipy_and_by_hand():
    np.testing.assert_allclose(benjamini_hochberg(P), stats.false_discovery_control(P))
    # By hand: 4 tests, sorted p 0.005 0.01 0.03 0.04, times 4 / rank: 0.02 0.02 0.04 0.04.
    np.testing.assert_allclose(benjamini_hochberg([0.01, 0.04, 0.03, 0.005]), [0.02, 0.04, 0.04, 0.02])


def test_benjamini_hochberg_leaves_out_what_is_missing():
    np.testing.assert_allclose(benjamini_hochberg([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert np.isnan(benjamini_hochberg([np.nan, np.nan])).all()
    assert benjamini_hochberg([]).shape == (0,)
    for bad in ([1.2], [-0.1], [[0.1]]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            benjamini_hochberg(bad)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_benjamini_hochberg_rejects_what_the_step_up_procedure_rejects(p, alpha):
    # Their own wording: reject the k smallest, k the largest i with p_(i) <= i alpha / m.
    m, order = len(p), np.argsort(p, kind="stable")
    adjusted = benjamini_hochberg(p)
    if (np.abs(adjusted - alpha) < 1e-9).any():
        return  # the two sides of a tie differ by rounding
    passed = [i + 1 for i in range(m) if p[order[i]] * m <= (i + 1) * alpha]
    rejected = np.zeros(m, bool)
    rejected[order[: max(passed, default=0)]] = True
    np.testing.assert_array_equal(adjusted <= alpha, rejected)
    assert (adjusted <= holm(p) + 1e-12).all()
