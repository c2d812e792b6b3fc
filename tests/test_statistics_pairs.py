"""Paired differences and their means over groups."""

import numpy as np
import pytest

from thyroid_jax.evaluate.statistics.pairs import paired, standard_deviation


def test_differences_and_group_means():
    found = paired([1.0, 3.0, 2.0, 5.0, np.nan], [0.0, 0.0, 1.0, np.nan, 2.0], ["b", "b", "a", "a", "c"])
    np.testing.assert_array_equal(found.difference, [1, 3, 1])
    np.testing.assert_array_equal(found.group_means, [1, 2])  # of a and b, in this order; c has no pair
    assert found.missing == 2 and found.scale == 3
    alone = paired([3.0, 1.0], [1.0, 2.0])
    np.testing.assert_array_equal(alone.group_means, [2, -1])
    nothing = paired([], [])
    assert nothing.group_means.shape == (0,) and nothing.scale == 0 and nothing.missing == 0
    with pytest.raises(ValueError, match="one length"):
        paired([1.0], [1.0], ["a", "b"])


def test_deviation_is_0_where_it_is_rounding():
    first = np.array([0.8, 0.7, 0.5, 0.3])
    difference = first - (first - 0.1)
    assert np.std(difference, ddof=1) > 0 == standard_deviation(difference, 0.8)
    assert standard_deviation(np.array([1.0, 2.0]), 2.0) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(standard_deviation(np.array([1.0]), 1.0))
