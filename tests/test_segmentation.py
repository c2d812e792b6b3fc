"""Segmentation losses against closed forms and optax, and per example against a loop."""

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import optax
import pytest

from thyroid_jax.losses import segmentation

BOTH = pytest.mark.parametrize("loss", [segmentation.bce, segmentation.soft_dice])


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return jnp.array(rng.normal(size=(3, 5, 7)), jnp.float32), jnp.array(rng.uniform(size=(3, 5, 7)), jnp.float32)


def test_bce_is_the_mean_negative_log_likelihood(case):
    logits, target = (np.asarray(a, np.float64) for a in case)
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean((1, 2))
    np.testing.assert_allclose(segmentation.bce(*case), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1, 30, 1e4])
def test_bce_is_optaxs_with_soft_and_hard_masks(case, scale):
    logits, soft = case
    for target in (soft, (soft > 0.5).astype(jnp.float32)):
        ours = jax.value_and_grad(lambda x, m=target: segmentation.bce(x, m).sum())
        theirs = jax.value_and_grad(
            lambda x, m=target: optax.losses.sigmoid_binary_cross_entropy(x, m).mean((1, 2)).sum()
        )
        chex.assert_trees_all_close(ours(scale * logits), theirs(scale * logits), rtol=1e-5, atol=1e-7)


def test_bce_of_saturated_logits_is_the_logit_or_nothing():
    logits, target = jnp.array([[[-1e4]], [[1e4]], [[1e4]]]), jnp.array([[[1.0]], [[1.0]], [[0.25]]])
    value, gradient = jax.value_and_grad(lambda x: segmentation.bce(x, target).sum())(logits)
    np.testing.assert_allclose(segmentation.bce(logits, target), [1e4, 0, 7.5e3], rtol=1e-6)
    assert float(value) == pytest.approx(1.75e4)
    np.testing.assert_allclose(gradient[:, 0, 0], [-1, 0, 0.75], atol=1e-6)


def test_bce_of_a_soft_mask_is_least_at_its_own_probability_where_it_is_the_entropy():
    m = jnp.array([[[0.1, 0.5, 0.8]]])
    at_m = jnp.log(m) - jnp.log1p(-m)
    entropy = -(m * jnp.log(m) + (1 - m) * jnp.log1p(-m)).mean()
    assert float(segmentation.bce(at_m, m)[0]) == pytest.approx(float(entropy), rel=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: segmentation.bce(x, m).sum())(at_m), jnp.zeros_like(m), atol=1e-7)


def test_soft_dice_of_half_overlapping_squares():
    hard = np.full((1, 4, 8), -50.0, np.float32)
    hard[:, :, :4] = 50
    target = np.zeros((1, 4, 8), np.float32)
    target[:, :, 2:6] = 1
    assert segmentation.soft_dice(jnp.array(hard), jnp.array(target), smooth=0.0)[0] == pytest.approx(0.5, abs=1e-6)
    assert segmentation.soft_dice(jnp.array(hard), jnp.array(target), smooth=8.0)[0] == pytest.approx(
        1 - (16 + 8) / (32 + 8), abs=1e-6
    )


def test_the_written_convention_for_empty_masks():
    empty, none = jnp.zeros((1, 4, 4)), jnp.full((1, 4, 4), -60.0)
    area_three = none.at[0, 0, :3].set(60.0)
    assert segmentation.soft_dice(none, empty)[0] == pytest.approx(0, abs=1e-6)
    assert segmentation.soft_dice(area_three, empty)[0] == pytest.approx(3 / 4, abs=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: segmentation.soft_dice(x, empty).sum())(none)).all()


@BOTH
def test_batch_is_loop_and_jit_is_eager(loss, case):
    loop = jnp.concatenate([loss(logits[None], target[None]) for logits, target in zip(*case)])
    chex.assert_trees_all_close(loss(*case), loop, rtol=1e-6)
    chex.assert_trees_all_close(loss(*case), jax.jit(loss)(*case), rtol=1e-6)


@BOTH
def test_a_masked_example_is_zero_whatever_it_holds(loss, case):
    logits, target = case
    target = target.at[1].set(jnp.nan)
    where = jnp.array([True, False, True])
    value, gradient = jax.value_and_grad(lambda x: loss(x, target, where=where).sum())(logits)
    assert value == pytest.approx(float(loss(*case)[jnp.array([0, 2])].sum()), rel=1e-6)
    assert float(jnp.abs(gradient[1]).max()) == 0
    assert jnp.isfinite(gradient).all()


@BOTH
def test_saturated_logits_stay_finite(loss):
    logits = jnp.array([[[-1e4, 1e4], [0.0, 1e4]]])
    target = jnp.array([[[1.0, 0.0], [1.0, 1.0]]])
    value, gradient = jax.value_and_grad(lambda x: loss(x, target).sum())(logits)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@BOTH
def test_gradients_against_finite_differences(loss, case, x64):
    logits, target = (jnp.asarray(np.asarray(a), jnp.float64) for a in case)
    jax.test_util.check_grads(lambda x: loss(x, target), (logits,), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_a_soft_mask_that_rounding_takes_past_one_is_not_refused():
    logits, mask = jnp.zeros((1, 4, 4)), jnp.full((1, 4, 4), 1 + 1e-6)
    assert segmentation.bce(logits, mask)[0] == pytest.approx(np.log(2), rel=1e-5)
    with pytest.raises(ValueError, match="a mask is in"):
        segmentation.bce(logits, mask + 0.01)


def test_a_mask_that_a_jitted_loss_closes_over_is_checked_too():
    mask = jnp.ones((1, 4, 4))
    loss = lambda scale: segmentation.bce(jnp.zeros((1, 4, 4)), mask)[0] * scale
    assert jax.jit(loss)(1.0) == pytest.approx(np.log(2), rel=1e-5)
    with pytest.raises(ValueError, match="values from 0 to 255"):
        jax.jit(lambda scale: segmentation.bce(jnp.zeros((1, 2, 2)), np.full((1, 2, 2), [0.0, 255.0]))[0] * scale)(1.0)
