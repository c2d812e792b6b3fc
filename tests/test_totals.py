"""Sums that are interrupted and continued are those that are not, to the last bit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyroid_jax.losses.reduce import Pair
from thyroid_jax.train.totals import NO_STEPS, Totals, add_up, averages, ratio, totals_from_json, totals_to_json

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def steps_of(numbers):
    """A step's metrics for each number; every third step lacks one of them."""
    pair = lambda value, count: Pair(np.asarray(value, np.float32), np.asarray(count, np.float32))
    found = []
    for place, number in enumerate(numbers):
        found.append({"loss": pair(number, 1), "histogram": pair([number, 0.1], 2)})
        if place % 3:
            found[-1]["rare"] = pair(number, 0)
    return found


def through_a_file(totals):
    return totals_from_json(json.loads(json.dumps(totals_to_json(totals), allow_nan=False)))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        for a, b in zip(value, other[name]):
            np.testing.assert_array_equal(a, b, strict=True)


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.integers(0, 12))
def test_a_cut_anywhere_with_a_file_between_changes_no_bit(numbers, cut):
    steps = steps_of(numbers)
    kept = through_a_file(Totals(cut, add_up(steps[:cut]), add_up(steps[:cut]), (3, 7)))
    assert (kept.steps, kept.left_out) == (cut, (3, 7))
    for before in (kept.metrics, kept.diagnosis):
        assert_same(add_up(steps[cut:], before), add_up(steps))


def test_the_sums_are_those_of_numpy_in_double_precision():
    numbers = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    found = add_up(steps_of(numbers))
    assert found["loss"].sum == pytest.approx(math.fsum(numbers), abs=1e-10) and found["loss"].count == 1000
    np.testing.assert_allclose(found["histogram"].sum, [math.fsum(numbers), float(np.float32(0.1)) * 1000], rtol=1e-9)
    assert add_up([]) == {} and through_a_file(NO_STEPS) == NO_STEPS


def test_sums_go_on_without_changing_those_before():
    before = add_up(steps_of([1.0]))
    add_up(steps_of([2.0]), before)
    assert before["loss"].sum == 1.0


def test_a_mean_over_nothing_is_nan_and_a_histogram_of_nothing_is_left_out():
    pair = lambda value, count: Pair(np.asarray(value), np.asarray(float(count)))
    found = averages({"a": pair(0.0, 0), "b": pair(3.0, 2), "c": pair([1.0, 3.0], 4), "d": pair([1.0], 0)})
    assert math.isnan(found.pop("a")) and found == {"b": 1.5, "c": [0.25, 0.75]}
    assert math.isnan(ratio(1.0, 0)) and ratio(1.0, 4) == 0.25
