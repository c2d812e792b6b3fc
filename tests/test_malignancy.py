"""The malignancy loss against its closed form and optax; class weights, missing labels, extreme logits."""

import inspect

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest

from thyroid_jax.losses.malignancy import malignancy

LOGIT = np.array([-2.0, 0.3, 1.5, 0.0, -0.7], np.float32)
TARGET = np.array([1.0, 0.0, 1.0, 0.25, 0.0], np.float32)


def test_it_is_the_weighted_negative_log_likelihood():
    p = 1 / (1 + np.exp(-LOGIT.astype(np.float64)))
    for benign, malignant in ((1.0, 1.0), (0.75, 1.5), (0.0, 2.0)):
        expected = -(malignant * TARGET * np.log(p) + benign * (1 - TARGET) * np.log(1 - p))
        for weights in ((benign, malignant), np.float32([benign, malignant])):
            np.testing.assert_allclose(malignancy(LOGIT, TARGET, class_weights=weights), expected, rtol=1e-5)
    assert float(malignancy(np.zeros(1, np.float32), np.ones(1, np.float32))[0]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("scale", [1, 50, 1e4])
def test_without_weights_it_is_optaxs(scale):
    ours = jax.value_and_grad(lambda x: malignancy(x, TARGET).sum())
    theirs = jax.value_and_grad(lambda x: optax.losses.sigmoid_binary_cross_entropy(x, TARGET).sum())
    chex.assert_trees_all_close(ours(scale * LOGIT), theirs(scale * LOGIT), rtol=1e-5, atol=1e-7)


def test_extreme_logits_cost_their_size_or_nothing():
    logit, target = np.float32([-1e4, 1e4, -1e4, 1e4]), np.float32([1, 1, 0, 0])
    np.testing.assert_allclose(malignancy(logit, target), [1e4, 0, 0, 1e4])
    gradient = jax.grad(lambda x: malignancy(x, target, class_weights=(2.0, 3.0)).sum())(logit)
    np.testing.assert_allclose(gradient, [-3, 0, 0, 2], atol=1e-6)


def test_missing_labels_give_zero_whatever_stands_there():
    where = np.array([True, False, True, True, False])
    hidden = lambda values, what: np.where(where, values, what).astype(np.float32)
    loss = lambda x: malignancy(x, hidden(TARGET, np.nan), class_weights=(0.5, 2.0), where=where)
    for what in (np.nan, np.inf):
        values, gradient = loss(hidden(LOGIT, what)), jax.grad(lambda x: loss(x).sum())(hidden(LOGIT, what))
        np.testing.assert_allclose(values[where], malignancy(LOGIT[where], TARGET[where], class_weights=(0.5, 2.0)))
        for array in (values, gradient):
            assert jnp.isfinite(array).all() and (array[~where] == 0).all()
        assert (gradient[where] != 0).all()


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 4.0]]])
def test_weights_that_are_not_two_are_refused(weights):
    """Two rows of two would weigh two images by their place."""
    with pytest.raises(ValueError, match="give two, of benign and malignant"):
        inspect.unwrap(malignancy)(LOGIT[:2], TARGET[:2], class_weights=weights)


def test_batch_is_loop_and_jit_is_eager_with_weights_that_are_traced():
    loss = lambda x, y, weights: malignancy(x, y, class_weights=weights)
    weights = np.float32([0.5, 2.0])
    eager = loss(LOGIT, TARGET, weights)
    loop = jnp.concatenate([loss(LOGIT[i : i + 1], TARGET[i : i + 1], weights) for i in range(5)])
    chex.assert_trees_all_close(eager, loop, rtol=1e-6)
    chex.assert_trees_all_close(eager, jax.jit(loss)(LOGIT, TARGET, weights), rtol=1e-6)


def test_gradients_against_finite_differences(x64):
    logit, target = jnp.asarray(LOGIT, jnp.float64), jnp.asarray(TARGET, jnp.float64)
    loss = lambda x: malignancy(x, target, class_weights=(0.5, 2.0))
    jax.test_util.check_grads(loss, (logit,), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_double_precision_logits_take_class_weights():
    """Without x64 they are made single; a warning would be an error here."""
    loss = lambda dtype: malignancy(LOGIT.astype(dtype), TARGET.astype(dtype), class_weights=(0.5, 2.0))
    np.testing.assert_allclose(loss(np.float64), loss(np.float32), rtol=1e-6)
