"""Wilcoxon's test against every sign pattern and scipy."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from thyroid_jax.evaluate.statistics import paired_wilcoxon, rank_biserial


def test_wilcoxon_against_every_sign_pattern():
    # Exact p by enumeration: under the null every difference is as likely negative as positive.
    first, second = np.array([0.81, 0.75, 0.92, 0.60, 0.88, 0.70]), np.array([0.80, 0.70, 0.80, 0.63, 0.80, 0.50])
    difference = first - second
    rank = stats.rankdata(np.abs(difference))
    sums = np.array([(rank * np.array(signs)).sum() for signs in product((0, 1), repeat=6)])
    seen = min(rank[difference > 0].sum(), rank[difference < 0].sum())
    result = paired_wilcoxon(first, second)
    assert result.p == pytest.approx(2 * np.mean(sums <= seen)) and result.statistic == seen
    assert result.median_difference == pytest.approx(np.median(difference)) and result.n == 6


def test_wilcoxon_counts_zeros_and_undefined():
    first, second = np.array([0.5, 0.5, 0.9, 0.8, np.nan, 0.7]), np.array([0.5, 0.4, 0.7, 0.5, 0.1, np.nan])
    result = paired_wilcoxon(first, second)
    assert (result.n, result.zeros, result.undefined) == (3, 1, 2)
    assert result.p == pytest.approx(
        stats.wilcoxon([0.1, 0.2, 0.3]).pvalue
    ) and result.median_difference == pytest.approx(0.15)
    same = paired_wilcoxon([0.5, 0.6], [0.5, 0.6])
    assert (same.p, same.n, same.zeros, same.median_difference) == (1.0, 0, 2, 0.0)
    nothing = paired_wilcoxon([np.nan], [0.2])
    assert np.isnan(nothing.median_difference) and nothing.p == 1.0
    with pytest.raises(ValueError, match="one length"):
        paired_wilcoxon([1.0, 2.0], [1.0])


def test_wilcoxon_by_group_averages_first():
    first, second = np.array([1.0, 3.0, 2.0, 5.0, 1.0]), np.array([0.0, 0.0, 1.0, np.nan, 2.0])
    result = paired_wilcoxon(first, second, clusters=["a", "a", "b", "b", "c"])
    expected = paired_wilcoxon([2.0, 1.0, -1.0], [0.0, 0.0, 0.0])
    assert result.n == 3 and result.undefined == 1 and result.p == expected.p and result.median_difference == 1.0
    with pytest.raises(ValueError, match="group labels are NaN"):
        paired_wilcoxon([1.0, 2.0], [0.0, 0.0], clusters=[1.0, np.nan])
    assert paired_wilcoxon([1.0, np.nan], [0.0, 0.0], clusters=[1.0, np.nan]).n == 1


def test_groups_whose_differences_cancel_are_zeros():
    """0.1 + 0.2 - 0.3 is 6e-17 in floating point: six such groups would be six wins of the first."""
    first, second = [0.1, 0.2, 0.0] * 6, [0.0, 0.0, 0.3] * 6
    groups = np.repeat(np.arange(6), 3)
    result = paired_wilcoxon(first, second, clusters=groups)
    assert (result.n, result.zeros, result.p, result.median_difference) == (0, 6, 1.0, 0.0)
    assert np.isnan(rank_biserial(first, second, clusters=groups).r)
    tiny = paired_wilcoxon([1e-30, 2e-30, 4e-30], [0.0, 0.0, 0.0])  # small numbers are no rounding errors
    assert (tiny.n, tiny.zeros) == (3, 0)


def test_an_infinite_value_does_not_make_the_other_differences_rounding_errors():
    first, second = [1, 2, 3, 4, 5, 6, np.inf], [0] * 7
    found = paired_wilcoxon(first, second)
    assert (found.n, found.zeros) == (7, 0)
    assert found.p == pytest.approx(stats.wilcoxon(np.arange(1, 8)).pvalue)
    assert rank_biserial(first, second).r == 1
