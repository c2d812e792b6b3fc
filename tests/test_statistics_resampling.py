"""Groups, draws and blocks, against plain loops."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyroid_jax.evaluate.statistics.pairs import paired
from thyroid_jax.evaluate.statistics.resampling import (
    block_sizes,
    bootstrap_values,
    counts_of,
    group_numbers,
    grouped,
    jackknife_values,
    spread_is_rounding,
)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_groups_are_numbered_by_their_sorted_labels(labels):
    order = sorted(set(labels))
    assert group_numbers(labels).tolist() == [order.index(label) for label in labels]
    assert grouped(labels, [labels]).groups == len(order)


def test_draws_are_counted_row_by_row():
    drawn = np.random.default_rng(0).integers(7, size=(20, 9))
    expected = [[Counter(row.tolist())[group] for group in range(7)] for row in drawn]
    np.testing.assert_array_equal(counts_of(drawn, 7), expected)


@given(st.integers(1, 500), st.integers(0, 300), st.integers(1, 1000))
def test_blocks_hold_all_replicates_and_are_no_larger_than_they_may(samples, weights, largest):
    sizes = block_sizes(samples, weights, largest)
    assert sum(sizes) == samples and min(sizes) >= 1
    assert max(sizes) == 1 or max(sizes) * weights <= largest


def test_rows_of_a_replicate_are_those_of_the_drawn_groups():
    clusters, values = np.array([2, 0, 2, 1, 0, 2]), np.array([1.0, 10.0, 2.0, 100.0, 20.0, 3.0])
    table = grouped(clusters, [values])
    seen = []
    bootstrap_values(lambda x: seen.append(x.tolist()) or 0.0, table, 50, 3, False)
    generator = np.random.default_rng(3)
    members = {0: [10.0, 20.0], 1: [100.0], 2: [1.0, 2.0, 3.0]}
    for rows in seen:
        assert rows == [value for group in generator.integers(3, size=3) for value in members[int(group)]]
    np.testing.assert_array_equal(jackknife_values(np.sum, table, False), [106, 36, 130])


def test_spread_and_rounding():
    assert spread_is_rounding(np.array([0.1 + 0.2, 0.3])) and spread_is_rounding(np.zeros(3))
    assert not spread_is_rounding(np.array([0.3, 0.3 + 1e-9]))
    assert not spread_is_rounding(np.array([1e-20, 2e-20]))  # small values are not rounding errors of themselves


def test_refusals():
    with pytest.raises(ValueError, match="every column needs one row a case"):
        grouped([1, 2], [])
    with pytest.raises(ValueError, match="1 group labels are NaN"):
        group_numbers([1.0, float("nan")])


@pytest.mark.parametrize(
    "labels",
    [
        ["a", float("nan"), float("nan"), "b"],
        np.array(["a", np.nan, np.nan, "b"], object),
        ["a", None, None, "b"],
        [None] * 4,
        np.array([1, np.nan, np.nan, 2]),
    ],
)
def test_cases_without_a_label_are_not_one_group(labels):
    with pytest.raises(ValueError, match="group labels are NaN or None"):
        group_numbers(labels)
    with pytest.raises(ValueError, match="group labels are NaN or None"):
        paired([1, 2, 3, 4], [0, 0, 0, 0], labels)
    assert paired([1, np.nan, np.nan, 4], [0, 0, 0, 0], ["a", None, float("nan"), "b"]).member.tolist() == [0, 1]
    assert group_numbers(["nan", "None", "nan"]).tolist() == [1, 0, 1]  # names
