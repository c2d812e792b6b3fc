"""The adversarial directions and their angle: closed forms, and every trap that such a probe can fall into."""

import doctest
import inspect

import chex
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from thyroid_jax.losses import rlar

KINDS = ("hinge", "square", "abs")
SPACES = pytest.mark.parametrize("space", ["channel", "full"])


@pytest.fixture
def z():
    return jax.random.normal(jax.random.key(0), (3, 2, 4, 5))


def curved(seed):
    """A smooth per-example loss with a different gradient everywhere."""
    w = jax.random.normal(jax.random.key(seed), (2, 4, 5), jnp.float32)
    return lambda z: jnp.tanh(z * w[None].astype(z.dtype)).sum((1, 2, 3)) ** 2 + (jnp.sin(z) * w[None]).mean((1, 2, 3))


def test_direction_of_a_linear_loss_is_its_normalised_weight(z):
    w = np.random.default_rng(0).normal(size=(1, 2, 4, 5)).astype(np.float32)
    tasks = {"linear": lambda z: (z * w).sum((1, 2, 3))}
    channel = rlar.adversarial_directions(tasks, z)
    pooled = w.sum((0, 1, 2))
    np.testing.assert_allclose(channel.unit[0], np.tile(pooled / np.linalg.norm(pooled), (3, 1)), rtol=1e-5)
    np.testing.assert_allclose(channel.norm[0], np.linalg.norm(pooled), rtol=1e-5)
    full = rlar.adversarial_directions(tasks, z, space="full")
    np.testing.assert_allclose(full.unit[0], np.tile(w.ravel() / np.linalg.norm(w), (3, 1)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(channel.loss[0], (np.asarray(z) * w).sum((1, 2, 3)), rtol=1e-5, atol=1e-5)


def test_quadratic_toy_problem_in_closed_form(z):
    """L_1 = |z|^2 / 2 and L_2 = z'Dz / 2: directions z and Dz, cosine z'Dz / |z||Dz|."""
    d = jnp.linspace(0.5, 2.0, 5)[None, None, None]
    tasks = {"round": lambda z: 0.5 * (z**2).sum((1, 2, 3)), "long": lambda z: 0.5 * (d * z**2).sum((1, 2, 3))}
    s = rlar.cosines(rlar.adversarial_directions(tasks, z, space="full").unit)[0]
    a, b = np.asarray(z).reshape(3, -1), np.asarray(d * z).reshape(3, -1)
    np.testing.assert_allclose(s, (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1), rtol=1e-5)


def test_a_linear_binary_head_is_degenerate():
    """Why the grading head is an MLP: the direction is one vector up to its sign, whatever the example."""
    w = jax.random.normal(jax.random.key(1), (5,))
    z = jax.random.normal(jax.random.key(2), (4, 2, 4, 5))
    labels = jnp.array([0.0, 1.0, 0.0, 1.0])
    head = lambda z: jax.nn.softplus(z.mean((1, 2)) @ w) - labels * (z.mean((1, 2)) @ w)
    unit = rlar.adversarial_directions({"grading": head}, z).unit[0]
    np.testing.assert_allclose(np.abs(unit @ unit.T), np.ones((4, 4)), rtol=1e-5)


@SPACES
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_angle_does_not_depend_on_a_losses_scale(z, space, scale):
    base = rlar.adversarial_directions({"a": curved(1), "b": curved(2)}, z, space=space)
    scaled = rlar.adversarial_directions({"a": curved(1), "b": lambda z: scale * curved(2)(z)}, z, space=space)
    np.testing.assert_allclose(rlar.cosines(scaled.unit), rlar.cosines(base.unit), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaled.norm[1], scale * base.norm[1], rtol=1e-4)


@SPACES
def test_an_example_alone_in_any_order_or_padded_has_the_same_direction(z, space):
    def directions(z, mask=None):
        keep = jnp.ones(len(z), bool) if mask is None else mask
        tasks = {"a": lambda z: jnp.where(keep, curved(1)(z), 0), "b": lambda z: jnp.where(keep, curved(2)(z), 0)}
        return rlar.adversarial_directions(tasks, z, space=space)

    together = directions(z)
    chex.assert_trees_all_close(directions(z[1:2]).unit[:, 0], together.unit[:, 1], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(directions(z[::-1]).unit[:, ::-1], together.unit, rtol=1e-5, atol=1e-6)
    padded = directions(jnp.concatenate([z, jnp.zeros_like(z)]), jnp.arange(6) < 3)
    chex.assert_trees_all_close(padded.unit[:, :3], together.unit, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(padded.unit[:, 3:]).max()) == 0


def test_closed_forms_of_the_penalty():
    angle = jnp.deg2rad(jnp.array([0.0, 60.0, 90.0, 120.0, 180.0]))
    unit = jnp.stack([jnp.stack([jnp.ones(5), jnp.zeros(5)], -1), jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)])
    np.testing.assert_allclose(rlar.angular_penalty(unit), [1, 0.25, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(rlar.angular_penalty(unit, kind="square"), [1, 0.25, 0, 0.25, 1], atol=1e-6)
    np.testing.assert_allclose(
        rlar.angular_penalty(unit, kind="abs", margin=0.2), [0.64, 0.09, 0, 0.09, 0.64], atol=1e-6
    )
    np.testing.assert_allclose(rlar.angular_penalty(unit, margin=0.2), [0.64, 0.09, 0, 0, 0], atol=1e-6)
    masked = rlar.angular_penalty(unit, where=jnp.array([False, True, True, True, True]))
    np.testing.assert_allclose(masked, [0, 0.25, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("kind", ["hinge", "square", "abs"])
def test_an_example_that_does_not_count_is_zero_with_a_zero_gradient_whatever_it_holds(kind):
    unit, where = jnp.ones((2, 3, 4)) / 2, jnp.array([True, False, True])
    spoilt = unit.at[0, 1].set(jnp.nan)
    penalty = lambda unit: rlar.angular_penalty(unit, kind=kind, where=where).sum()
    value, gradient = jax.value_and_grad(penalty)(spoilt)
    assert value == 2 and (gradient[:, 1] == 0).all()
    chex.assert_trees_all_equal(gradient, jax.grad(penalty)(unit))


def test_three_tasks_take_the_mean_over_their_pairs():
    unit = jnp.array([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]])
    assert float(rlar.angular_penalty(unit)[0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", KINDS)
@SPACES
def test_zero_gradients_give_no_penalty_and_finite_derivatives(z, kind, space):
    def penalty(z, first):
        tasks = {"a": first, "b": curved(2)}
        return rlar.angular_penalty(rlar.adversarial_directions(tasks, z, space=space).unit, kind=kind).sum()

    for nothing in (lambda z: 0.0 * z.sum((1, 2, 3)), lambda z: ((z - jax.lax.stop_gradient(z)) ** 2).sum((1, 2, 3))):
        value, gradient = jax.value_and_grad(penalty)(z, nothing)
        assert float(value) == 0
        assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("kind", KINDS)
@SPACES
def test_the_penaltys_gradient_against_finite_differences(kind, space, x64):
    z = jnp.asarray(np.random.default_rng(3).normal(size=(2, 2, 4, 5)), jnp.float64)
    tasks = {"a": curved(1), "b": curved(2), "c": curved(3)}

    def penalty(z):
        unit = rlar.adversarial_directions(tasks, z, space=space).unit
        return rlar.angular_penalty(unit, kind=kind, margin=-0.3 if kind == "hinge" else 0.0)

    assert float(penalty(z).min()) > 0
    jax.test_util.check_grads(penalty, (z,), order=1, modes=["rev"], atol=1e-7, rtol=1e-7, eps=1e-5)


@SPACES
def test_gradients_that_were_taken_elsewhere_are_normalised_alike(z, space):
    """At any place of the network, whatever precision they come in."""
    tasks = {"a": curved(1), "b": curved(2)}
    expected = rlar.adversarial_directions(tasks, z, space=space)
    gradients = jnp.stack([jax.grad(lambda z, task=task: task(z).sum())(z) for task in tasks.values()])
    losses = jnp.stack([task(z) for task in tasks.values()])
    chex.assert_trees_all_close(rlar.normalise(gradients, losses, space=space), expected, rtol=1e-6, atol=1e-7)
    low = rlar.normalise(gradients.astype(jnp.bfloat16), losses, space=space)
    assert low.unit.dtype == jnp.float32
    np.testing.assert_allclose(low.unit, expected.unit, atol=0.02)


@SPACES
def test_a_held_direction_is_a_constant(space, x64):
    """The same values; the penalty's gradient is that with the held direction put in from outside."""
    z = jnp.asarray(np.random.default_rng(4).normal(size=(2, 2, 4, 5)), jnp.float64)
    tasks = {"a": curved(1), "b": curved(2)}
    directions = lambda z, **fields: rlar.adversarial_directions(tasks, z, space=space, **fields).unit
    fixed = directions(z)[0]

    def with_constant(z):
        return rlar.angular_penalty(jnp.stack([fixed, directions(z)[1]]), kind="square").sum()

    held = lambda z: rlar.angular_penalty(directions(z, hold=("a",)), kind="square").sum()
    np.testing.assert_allclose(directions(z, hold=("a",)), directions(z))
    np.testing.assert_allclose(jax.grad(held)(z), jax.grad(with_constant)(z), rtol=1e-10)
    both = jax.grad(lambda z: rlar.angular_penalty(directions(z), kind="square").sum())(z)
    assert float(jnp.abs(both - jax.grad(held)(z)).max()) > 1e-4


def test_pairs_come_in_the_order_of_combinations():
    unit = jnp.array([[[1.0, 0.0]], [[0.6, 0.8]], [[0.0, -1.0]]])
    np.testing.assert_allclose(rlar.cosines(unit)[:, 0], [0.6, 0.0, -0.8], atol=1e-6)


def test_half_precision_latents_give_float32_directions(z):
    directions = rlar.adversarial_directions(
        {"a": lambda z: curved(1)(z.astype(jnp.bfloat16)), "b": curved(2)}, z.astype(jnp.bfloat16)
    )
    assert {leaf.dtype for leaf in directions} == {jnp.dtype("float32")}
    np.testing.assert_allclose(jnp.linalg.norm(directions.unit, axis=-1), 1, rtol=1e-3)


def test_what_is_not_known_is_refused_by_name(z):
    with pytest.raises(ValueError, match='"channel" or "full"'):
        inspect.unwrap(rlar.normalise)(z[None], jnp.ones((1, 3)), space="pixel")
    with pytest.raises(ValueError, match='"hinge", "square" or "abs"'):
        inspect.unwrap(rlar.angular_penalty)(jnp.ones((2, 1, 3)), kind="linear")
    with pytest.raises(ValueError, match="between two tasks at least"):
        rlar.angular_penalty(jnp.ones((1, 4, 3)))


def test_the_penalty_of_half_precision_directions_is_in_float32(z):
    unit = rlar.adversarial_directions({"a": curved(1), "b": curved(2)}, z).unit.astype(jnp.bfloat16)
    found = rlar.angular_penalty(unit, kind="square")
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rlar.angular_penalty(unit.astype(jnp.float32), kind="square"), rtol=1e-6)


def test_shapes_that_would_be_broadcast_are_refused(z):
    unchecked = inspect.unwrap(rlar.adversarial_directions)
    for loss in (lambda z: (z**2).sum(), lambda z: (z**2).sum((1, 2, 3))[:, None]):
        with pytest.raises(ValueError, match="one value for each"):
            unchecked({"a": loss, "b": loss}, z)
    unit = rlar.adversarial_directions({"a": curved(1), "b": curved(2)}, z).unit
    with pytest.raises(ValueError, match="one flag for each"):
        inspect.unwrap(rlar.angular_penalty)(unit, where=jnp.array([True]))


def test_the_docstrings_example_runs():
    assert doctest.testmod(rlar).failed == 0
