"""Grading losses: each is the negative log-likelihood of the distribution that it reads from the logits."""

import inspect

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from thyroid_jax.losses import grading
from thyroid_jax.losses.malignancy import malignancy

LOSSES = pytest.mark.parametrize("kind", sorted(grading.LOSSES))


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return jnp.array(rng.normal(size=(4, 5)), jnp.float32), jnp.array(rng.dirichlet(np.ones(5), size=4), jnp.float32)


@LOSSES
def test_probabilities_are_a_distribution(kind, case):
    p = grading.probabilities(case[0], kind=kind)
    assert float(p.min()) >= 0
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)


@LOSSES
def test_the_loss_is_the_likelihood_of_those_probabilities(kind, case):
    logits, target = case
    weights = np.array([1.0, 2.0, 0.5, 3.0, 1.5])
    p = np.asarray(grading.probabilities(logits, kind=kind), np.float64)
    expected = -(weights * np.asarray(target) * np.log(p)).sum(-1)
    for given in (tuple(weights), np.float32(weights)):  # a fixed tuple, or fitted weights
        np.testing.assert_allclose(grading.LOSSES[kind](logits, target, class_weights=given), expected, rtol=1e-4)
    plain = grading.LOSSES[kind](logits, target)
    np.testing.assert_allclose(plain, -(np.asarray(target) * np.log(p)).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(grading.LOSSES[kind](logits, target, class_weights=(1.0,) * 5), plain, rtol=1e-6)


def test_corn_is_the_published_conditional_form_for_a_hard_label():
    """Grade 2 of 0..3: passes steps 1 and 2, stops at 3. The sum over the steps, not their mean."""
    f = np.array([9.0, 0.3, -0.7, 1.1])
    log_sigmoid = lambda x: -np.log1p(np.exp(-x))
    expected = -(log_sigmoid(f[1]) + log_sigmoid(f[2]) + log_sigmoid(-f[3]))
    value = grading.corn(jnp.array(f[None], jnp.float32), jax.nn.one_hot(jnp.array([2]), 4))
    assert float(value[0]) == pytest.approx(expected, rel=1e-5)
    gradient = jax.grad(lambda x: grading.corn(x, jax.nn.one_hot(jnp.array([2]), 4)).sum())(
        jnp.array(f[None], jnp.float32)
    )
    sigmoid = 1 / (1 + np.exp(-f))
    np.testing.assert_allclose(gradient[0], [0, sigmoid[1] - 1, sigmoid[2] - 1, sigmoid[3]], rtol=1e-5)


def test_of_two_grades_all_losses_are_one():
    """CORN's scale is that of the cross-entropy: the task's weight means the same for both."""
    step = jnp.array([-1.3, 0.2, 4.0, 0.0])
    logits, grade = jnp.stack([jnp.zeros(4), step], axis=1), jnp.array([1.0, 0.0, 0.5, 1.0])
    target = jnp.stack([1 - grade, grade], axis=1)
    weights = (0.5, 2.0)
    expected = malignancy(step, grade, class_weights=weights)
    for loss in grading.LOSSES.values():
        np.testing.assert_allclose(loss(logits, target, class_weights=weights), expected, rtol=1e-5)


def test_corn_of_saturated_steps_is_their_sum():
    """Steps that are sure and wrong cost their size; a probability that is 0 in float32 is none to take a log of."""
    logits, target = jnp.array([[0.0, -1e4, 1e4, 1e4]]), jnp.eye(4)[3:]
    assert float(grading.probabilities(logits, kind="corn")[0, 3]) == 0
    assert float(grading.corn(logits, target)[0]) == pytest.approx(1e4)
    assert float(grading.corn(-logits, target)[0]) == pytest.approx(2e4)


def test_cross_entropy_of_uniform_logits_is_log_k():
    assert float(grading.cross_entropy(jnp.zeros((1, 5)), jnp.eye(5)[:1])[0]) == pytest.approx(np.log(5), rel=1e-6)


@LOSSES
def test_missing_grades_and_saturated_logits(kind, case):
    logits, target = case
    loss = grading.LOSSES[kind]
    where = jnp.array([True, False, True, True])
    value, gradient = jax.value_and_grad(lambda x: loss(x, target.at[1].set(jnp.nan), where=where).sum())(logits * 1e4)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    assert float(jnp.abs(gradient[1]).max()) == 0
    chex.assert_trees_all_close(loss(logits, target, where=where)[2], loss(logits[2:3], target[2:3])[0], rtol=1e-6)


@LOSSES
def test_gradients_against_finite_differences(kind, case, x64):
    logits, target = (jnp.asarray(np.asarray(a), jnp.float64) for a in case)
    jax.test_util.check_grads(
        lambda x: grading.LOSSES[kind](x, target), (logits,), order=2, modes=["rev"], atol=1e-6, rtol=1e-6
    )


def test_an_unknown_kind_names_the_known_ones(case):
    with pytest.raises(ValueError, match="cross_entropy, corn"):
        grading.probabilities(case[0], kind="probit")


@LOSSES
def test_there_is_a_class_weight_for_each_grade(kind):
    logits, target = np.zeros((2, 3), np.float32), np.eye(3, dtype=np.float32)[:2]
    for weights in ([2.0], [1.0, 2.0], [1.0] * 4):
        with pytest.raises(ValueError, match=f"{len(weights)} class weights for 3 grades"):
            inspect.unwrap(grading.LOSSES[kind])(logits, target, class_weights=weights)


@LOSSES
def test_double_precision_targets_take_class_weights(kind):
    """Without x64 they are made single; a warning would be an error here."""
    rng = np.random.default_rng(0)
    logits, target, weights = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), 4), [0.5, 1.0, 2.0]
    single = grading.LOSSES[kind](logits.astype(np.float32), target.astype(np.float32), class_weights=weights)
    np.testing.assert_allclose(grading.LOSSES[kind](logits, target, class_weights=weights), single, rtol=1e-5)


@LOSSES
def test_probabilities_of_half_precision_logits_add_up_to_one(kind):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(50, 5)) * 3, jnp.bfloat16)
    p = grading.probabilities(logits, kind=kind)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(p, grading.probabilities(logits.astype(jnp.float32), kind=kind))
