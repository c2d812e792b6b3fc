"""The one mean, and what a False flag hides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.losses import masked_mean


def test_it_is_the_mean_of_what_is_flagged():
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
