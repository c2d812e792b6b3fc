"""Gramians of trees, their way back, and CosReg: closed forms and a matrix written out."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from thyroid_jax.mtl import gradients


@pytest.fixture
def trees():
    rng = np.random.default_rng(0)
    tree = lambda: {
        "a": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32),
        "b": (jnp.asarray(rng.normal(size=4), jnp.float32),),
    }
    return [tree() for _ in range(3)]


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_gramian_is_that_of_the_flattened_gradients(trees):
    jacobian = np.stack([flat(tree) for tree in trees])
    np.testing.assert_allclose(gradients.gramian(trees), jacobian @ jacobian.T, rtol=1e-5)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), trees)
    assert gradients.gramian(half).dtype == jnp.float32
    np.testing.assert_allclose(gradients.gramian(half), jacobian @ jacobian.T, rtol=0.05, atol=0.05)


def test_combination_is_weights_times_jacobian_in_the_leaves_precision(trees):
    weights = jnp.array([0.5, -1.0, 2.0])
    jacobian = np.stack([flat(tree) for tree in trees])
    np.testing.assert_allclose(
        flat(gradients.combine(weights, trees)), np.asarray(weights) @ jacobian, rtol=1e-5, atol=1e-6
    )
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), trees)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients.combine(weights, half))} == {jnp.dtype(jnp.bfloat16)}


def test_trees_of_different_layout_are_refused(trees):
    with pytest.raises(ValueError, match="zip"):
        gradients.gramian([trees[0], {"a": trees[1]["a"]}])


def test_cosines_of_pairs_and_of_a_zero_gradient():
    gram = jnp.array([[4.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(gradients.cosines(gram), [0.5, 0, 0], rtol=1e-6)


def value_of(losses, x):
    """CosReg with nothing beside the shared parameters."""
    return gradients.cosreg({name: lambda x, _, loss=loss: loss(x) for name, loss in losses.items()}, x, ())


def linear(w):
    """L_t(x) = w_t . x: the gradients are the constants w_t."""
    return {str(t): lambda x, t=t: w[t] @ x for t in range(len(w))}


def test_cosreg_in_closed_form_and_whatever_the_losses_scales():
    w = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    expected = np.mean([0.5, 0.0, 0.5])  # 45, 90 and 45 degrees
    assert float(value_of(linear(w), jnp.ones(2))[0]) == pytest.approx(expected)
    assert float(value_of(linear(w * jnp.array([[1e-6], [1e6], [1.0]])), jnp.ones(2))[0]) == pytest.approx(
        expected, rel=1e-5
    )


def test_cosregs_gradient_against_reverse_mode_and_finite_differences(x64):
    losses = {
        "one": lambda x, y: jnp.sin(x * y).sum() ** 2,
        "two": lambda x, y: (x**4).sum() + x[0] * x[1] * y[0],
        "three": lambda x, y: jnp.exp(x @ y),
    }
    x, y = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4)))
    value, found = gradients.cosreg(losses, x, y)
    by_hand = lambda x, y: gradients.alignment([jax.grad(loss)(x, y) for loss in losses.values()])
    np.testing.assert_allclose(value, by_hand(x, y))
    np.testing.assert_allclose(jnp.stack(found), jnp.stack(jax.grad(by_hand, (0, 1))(x, y)), rtol=1e-10)
    jax.test_util.check_grads(by_hand, (x, y), order=1, modes=["rev"], rtol=1e-6, atol=1e-7)


def test_cosreg_of_a_zero_gradient_is_zero_with_a_finite_derivative():
    losses = {"one": lambda x: (x**2).sum(), "none": lambda x: 0.0 * x.sum(), "two": lambda x: (x**4).sum()}
    for x in (jnp.ones(3), jnp.zeros(3)):
        value, (gradient, _) = value_of({name: losses[name] for name in ("one", "none")}, x)
        assert float(value) == 0
        assert jnp.isfinite(gradient).all()
    value, (gradient, _) = value_of(losses, jnp.zeros(3))
    assert float(value) == 0
    assert jnp.isfinite(gradient).all()
