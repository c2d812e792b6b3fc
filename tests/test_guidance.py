"""SmoothL1 between predicted and measured radiomics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.losses import guidance


def test_quadratic_inside_linear_outside():
    difference = jnp.array([[0.5, -3.0], [0.0, 1.0]])
    expected = [(0.125 + 2.5) / 2, 0.25]
    np.testing.assert_allclose(guidance.guidance(difference, jnp.zeros((2, 2))), expected, rtol=1e-6)
    assert float(guidance.guidance(difference, jnp.zeros((2, 2)), beta=2.0)[0]) == pytest.approx((0.0625 + 2.0) / 2)


def test_a_missing_target_counts_nothing():
    target = jnp.array([[1.0, 2.0], [jnp.nan, 0.0]])
    where = jnp.array([True, False])
    value, gradient = jax.value_and_grad(lambda x: guidance.guidance(x, target, where=where).sum())(jnp.zeros((2, 2)))
    assert float(value) == pytest.approx((0.5 + 1.5) / 2)
    assert gradient[1].tolist() == [0, 0]
