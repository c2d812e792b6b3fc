"""Sums and counts, divided once: over devices they give the whole batch's mean; and what a False flag hides."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.losses import consistency, grading, guidance, malignancy, masked_mean, segmentation
from thyroid_jax.losses.reduce import Pair, pair, share, size, summed, whole

VALUES = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
FLAGS = np.array([[True, True, False, True, True], [False, False, True, False, False]])  # missing unevenly


def on_a_vmapped_axis(function):
    return jax.vmap(function, axis_name="data")


def on_two_devices(function):
    return jax.pmap(function, axis_name="data", devices=jax.devices()[:2])


MAPPED = pytest.mark.parametrize("mapped", [on_a_vmapped_axis, on_two_devices], ids=["vmap", "pmap"])


def test_a_pair_is_sum_and_count_of_what_is_flagged():
    found = pair(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False]))
    assert found == Pair(3, 2) and found.count.dtype == found.sum.dtype == jnp.float32
    nothing = pair(jnp.array([jnp.inf, 2.0]), jnp.zeros(2, bool))
    assert nothing == Pair(0, 0)


def test_a_pairs_gradient_is_the_flags():
    where = jnp.array([True, False, True])
    gradient = jax.grad(lambda values: pair(values, where).sum)(jnp.array([1.0, jnp.nan, 2.0]))
    assert gradient.tolist() == [1, 0, 1]


@MAPPED
def test_sums_of_pairs_over_devices_are_the_whole_batchs(mapped):
    """A mean of the devices' means would be another number: labels are missing unevenly."""
    added = mapped(lambda values, where: summed({"loss": pair(values, where)}, "data"))(VALUES, FLAGS)["loss"]
    together = pair(jnp.asarray(VALUES.ravel()), jnp.asarray(FLAGS.ravel()))
    assert added.count.tolist() == [5, 5] == [together.count] * 2
    np.testing.assert_allclose(added.sum, [together.sum] * 2, rtol=1e-6)
    means = [VALUES[row][FLAGS[row]].mean() for row in (0, 1)]
    assert abs(float(added.sum[0] / added.count[0]) - np.mean(means)) > 0.01


@MAPPED
def test_a_value_that_all_devices_hold_alike_stays_and_parts_of_one_add_up(mapped):
    def of_device(part):
        return summed((whole(jnp.float32(7.0), "data"), share(part, "data")), "data"), jnp.float32(size("data"))

    (alike, added), devices = mapped(of_device)(jnp.array([1.5, 2.0]))
    np.testing.assert_allclose(alike, [[7, 7], [1, 1]])  # counted once, and not once for each device
    np.testing.assert_allclose(added.sum / added.count, [3.5, 3.5])
    np.testing.assert_allclose(added.count, [1, 1])
    assert devices.tolist() == [2, 2]


def test_without_a_mapped_axis_arrays_are_whole():
    value = jnp.array([1.0, 2.0])
    for found in (whole(value), share(value, None)):
        assert found.count == 1 and found.sum.tolist() == [1, 2]
    assert size(None) == 1
    tree = {"a": value}
    assert summed(tree, None) is tree


def test_the_masked_mean_is_the_mean_of_what_is_flagged():
    values = jnp.array([1.0, 2.0, 4.0, 100.0])
    assert masked_mean(values) == pytest.approx(107 / 4)
    assert masked_mean(values, jnp.array([True, False, True, False])) == pytest.approx(2.5)


def test_nothing_flagged_is_zero_with_a_zero_gradient():
    nothing = jnp.zeros(3, bool)
    value, gradient = jax.value_and_grad(masked_mean)(jnp.ones(3), nothing)
    assert value == 0
    assert gradient.tolist() == [0, 0, 0]


def test_nan_behind_a_false_flag_spoils_nothing():
    value, gradient = jax.value_and_grad(lambda v: masked_mean(v, jnp.array([True, False])))(jnp.array([3.0, np.nan]))
    assert value == 3
    assert gradient.tolist() == [1, 0]


LOSSES = {
    "bce": (segmentation.bce, (2, 16, 16)),
    "soft_dice": (segmentation.soft_dice, (2, 16, 16)),
    "cross_entropy": (grading.cross_entropy, (2, 5)),
    "corn": (grading.corn, (2, 5)),
    "guidance": (guidance.guidance, (2, 13)),
    "malignancy": (malignancy.malignancy, (2,)),
    "consistency": (consistency.consistency, (2,)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_half_precision_are_those_of_the_same_numbers_in_float32(name):
    loss, shape = LOSSES[name]
    rng = np.random.default_rng(0)
    half = [jnp.asarray(rng.uniform(size=shape), jnp.bfloat16) for _ in range(2)]
    exact = loss(*(array.astype(jnp.float32) for array in half))
    for where in (None, jnp.ones(2, bool)):
        found = loss(*half, where=where)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_that_would_be_broadcast_are_refused(name):
    """b predictions [b 1] against b targets [b] would give [b b] losses, or their mean, without a word."""
    loss, shape = LOSSES[name]
    loss = inspect.unwrap(loss)  # without the tests' type checker, as users call it
    rows, first = jnp.full(shape, 0.5), (1, *shape[1:])
    for prediction, target, where in (
        (rows[..., None], rows, None),
        (rows, jnp.full(first, 0.5), None),
        (rows, jnp.full((*shape[:-1], 1) if len(shape) > 1 else (1,), 0.5), None),
        (rows, rows, jnp.ones(1, bool)),
        (rows, rows, jnp.ones((*shape, 1), bool)),
    ):
        with pytest.raises(ValueError, match="must have one shape"):
            loss(prediction, target, where=where)


def test_grade_numbers_are_no_grade_probabilities_where_there_are_as_many_images_as_grades():
    for loss in (grading.cross_entropy, grading.corn):
        with pytest.raises(ValueError, match=r"prediction \(5, 5\), target \(5,\)"):
            inspect.unwrap(loss)(jnp.zeros((5, 5)), jnp.arange(5.0))
