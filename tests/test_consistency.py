"""Malignancy prior and consistency loss against closed forms; who gets a gradient; the correlation against numpy's."""

import doctest
import inspect

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from thyroid_jax.losses import consistency as module
from thyroid_jax.losses.consistency import (
    agreement,
    consistency,
    correlation,
    init_prior,
    large_enough,
    malignancy_prior,
    products,
)

FEATURES = np.random.default_rng(0).uniform(size=(5, 4)).astype(np.float32)
P = np.random.default_rng(1).uniform(size=5).astype(np.float32)
ROUTES = ("both", "head", "mask")


def learned(seed=2, count=4):
    rng = np.random.default_rng(seed)
    params = {"weight": rng.normal(size=count), "bias": rng.normal(), "centre": rng.uniform(size=count)}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def test_the_prior_is_a_logistic_function_of_the_features():
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), learned())
    slopes = np.log1p(np.exp(params["weight"]))
    expected = 1 / (1 + np.exp(-(params["bias"] + (FEATURES - params["centre"]) @ slopes)))
    np.testing.assert_allclose(malignancy_prior(learned(), FEATURES), expected, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_fresh_weights_count_every_feature_once(count):
    features = np.random.default_rng(3).uniform(size=(3, count)).astype(np.float32)
    np.testing.assert_allclose(jax.nn.softplus(init_prior(count)["weight"]), np.ones(count), rtol=1e-6)
    np.testing.assert_allclose(
        malignancy_prior(init_prior(count), features), 1 / (1 + np.exp(-features.sum(1))), rtol=1e-6
    )
    centred = init_prior(count, centre=features.mean(0))
    assert malignancy_prior(centred, features.mean(0, keepdims=True))[0] == pytest.approx(0.5)
    chex.assert_trees_all_equal_shapes_and_dtypes(init_prior(count), centred)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(centred))


def test_a_centre_of_another_length_is_refused():
    with pytest.raises(ValueError, match="centre of 3 values for 4 features"):
        init_prior(4, centre=[0.1, 0.2, 0.3])


@pytest.mark.parametrize("weight", [-5.0, 0.0, 5.0])
def test_the_prior_grows_with_every_feature_whatever_the_weights(weight):
    params = init_prior() | {"weight": jnp.full(4, weight)}
    slope = jax.vmap(jax.grad(lambda f: malignancy_prior(params, f[None])[0]))(jnp.asarray(FEATURES))
    assert (slope > 0).all()
    raised = [malignancy_prior(params, FEATURES + 0.2 * np.eye(4, dtype=np.float32)[k]) for k in range(4)]
    assert all((phi > malignancy_prior(params, FEATURES)).all() for phi in raised)


def test_the_centre_learns_nothing():
    gradient = jax.grad(lambda params: malignancy_prior(params, FEATURES).sum())(learned())
    assert (gradient["centre"] == 0).all()
    assert (gradient["weight"] != 0).all() and gradient["bias"] != 0


def test_the_prior_stays_finite_far_out():
    params = {"weight": jnp.array([-200.0, 200.0, 0.0, 50.0]), "bias": jnp.float32(-300.0), "centre": jnp.zeros(4)}
    value, gradient = jax.value_and_grad(lambda params: malignancy_prior(params, FEATURES).sum())(params)
    chex.assert_tree_all_finite((value, gradient))


def test_the_loss_is_the_squared_difference():
    prior = malignancy_prior(learned(), FEATURES)
    for route in ROUTES:
        np.testing.assert_allclose(consistency(P, prior, gradient=route), (P - np.asarray(prior)) ** 2, rtol=1e-6)
    assert (consistency(prior, prior) == 0).all()
    assert float(consistency(np.ones(1, np.float32), np.zeros(1, np.float32))[0]) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_the_gradient_goes_where_it_is_sent(route):
    def loss(p, params, features):
        return consistency(p, malignancy_prior(params, features), gradient=route).sum()

    head, params, mask = jax.grad(loss, argnums=(0, 1, 2))(jnp.asarray(P), learned(), jnp.asarray(FEATURES))
    difference = 2 * (P - np.asarray(malignancy_prior(learned(), FEATURES)))
    np.testing.assert_allclose(head, 0 * P if route == "mask" else difference, rtol=1e-5)
    for side in (mask, params["weight"], params["bias"]):
        assert (side == 0).all() if route == "head" else (side != 0).all()


def test_an_unknown_route_is_refused():
    with pytest.raises(ValueError, match='"both", "head" or "mask"'):
        inspect.unwrap(consistency)(P, P, gradient="nobody")  # where calls are checked, that comes first


@pytest.mark.parametrize("route", ROUTES)
def test_a_masked_example_is_zero_whatever_it_holds(route):
    where = jnp.array([True, False, True, True, False])
    prior = np.where(where, FEATURES[:, 0], np.nan).astype(np.float32)
    probability = np.where(where, P, np.inf).astype(np.float32)
    loss = lambda p, phi: consistency(p, phi, gradient=route, where=where)
    values, (for_p, for_phi) = (
        loss(probability, prior),
        jax.grad(lambda *a: loss(*a).sum(), argnums=(0, 1))(probability, prior),
    )
    np.testing.assert_allclose(values[where], consistency(P[where], FEATURES[where, 0]), rtol=1e-6)
    for array in (values, for_p, for_phi):
        assert (array[~where] == 0).all() and jnp.isfinite(array).all()


def test_batch_is_loop_and_jit_is_eager():
    def both(p, features):
        prior = malignancy_prior(learned(), features)
        return prior, consistency(p, prior)

    eager = both(P, FEATURES)
    loop = [both(P[i : i + 1], FEATURES[i : i + 1]) for i in range(5)]
    chex.assert_trees_all_close(eager, jax.tree.map(lambda *rows: jnp.concatenate(rows), *loop), rtol=1e-6)
    chex.assert_trees_all_close(eager, jax.jit(both)(P, FEATURES), rtol=1e-6)


def test_gradients_against_finite_differences(x64):
    params, features, p = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (learned(), FEATURES, P))
    free = {name: params[name] for name in ("weight", "bias")}
    loss = lambda free, features, p: consistency(p, malignancy_prior(params | free, features))
    jax.test_util.check_grads(loss, (free, features, p), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_a_shape_needs_pixels_above_one_half():
    masks = np.full((4, 16, 16), 0.4, np.float32)  # a haze that sums up to 102 pixels
    masks[1, :5, :10] = 0.9
    masks[2, :5, :10] = masks[2, 6, 6] = 0.9
    masks[3] = 1
    assert large_enough(masks).tolist() == [False, False, True, True]
    assert large_enough(masks, pixels=51).tolist() == [False, False, False, True]
    assert large_enough(np.zeros((1, 8, 8), np.float32), pixels=0.0).tolist() == [False]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kept", [np.ones(40, bool), np.arange(40) % 3 > 0])
def test_the_correlation_is_numpys(seed, kept):
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=40).astype(np.float32)
    prior = np.clip(0.3 * label + rng.uniform(0, 0.7, 40), 0, 1).astype(np.float32)
    hidden = np.where(kept, prior, np.nan).astype(np.float32)
    expected = np.corrcoef(prior[kept], label[kept])[0, 1]
    assert float(correlation(hidden, label, where=kept)) == pytest.approx(expected, abs=1e-5)
    assert float(correlation(1 - prior, label)) == pytest.approx(-float(correlation(prior, label)), abs=1e-5)
    assert float(correlation(prior, prior)) == pytest.approx(1, abs=1e-5)


def test_sums_over_padded_batches_give_the_correlation_of_all():
    rng = np.random.default_rng(4)
    label, prior = rng.integers(2, size=23).astype(np.float32), rng.uniform(size=23).astype(np.float32)
    total, count = 0.0, 0
    for start in range(0, 24, 8):  # the last batch holds seven, and one of padding
        rows = products(prior[start : start + 8], label[start : start + 8])
        total, count = total + rows.sum(0), count + len(rows)
    result = agreement(total / count)
    assert float(result.correlation) == pytest.approx(np.corrcoef(prior, label)[0, 1], abs=1e-5)
    assert float(result.deviation) == pytest.approx(prior.std(), rel=1e-4)


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 1.0])
def test_a_constant_prior_is_seen_as_one(level):
    label = np.array([0, 1, 1, 0, 1, 0, 0], np.float32)
    constant = np.full(7, level, np.float32)
    assert correlation(constant, label) == correlation(label, constant) == 0
    assert float(agreement(products(constant, label).mean(0)).deviation) < 1e-3
    assert correlation(label, label, where=np.arange(7) == 3) == 0
    assert correlation(label, label, where=np.zeros(7, bool)) == 0
    assert jnp.isfinite(jax.grad(lambda phi: correlation(phi, label))(constant)).all()


def test_the_prior_flattens_while_its_correlation_stays():
    label = np.array([0, 1, 1, 0, 1, 0, 0], np.float32)
    seen = [agreement(products(0.5 + width * (label - 0.5), label).mean(0)) for width in (0.5, 0.01)]
    np.testing.assert_allclose([one.correlation for one in seen], 1, atol=1e-3)
    assert float(seen[1].deviation) == pytest.approx(float(seen[0].deviation) / 50, rel=1e-3)


def test_the_example_in_the_docstring():
    assert doctest.testmod(module).failed == 0


def test_a_prior_that_is_not_a_number_has_no_correlation():
    """Not that of a constant: a run that has gone wrong would look like one without a relation."""
    prior, label = np.linspace(0.2, 0.8, 6, dtype=np.float32), np.float32([0, 1, 0, 1, 1, 1])
    prior[2] = np.nan
    assert np.isnan(correlation(prior, label))
    assert np.isfinite(correlation(prior, label, where=~np.isnan(prior)))
