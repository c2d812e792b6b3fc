"""Weighting of the losses: closed forms, the papers' objectives, what each method converges to, and the states."""

import doctest
import inspect
import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from thyroid_jax.mtl import scalarize
from thyroid_jax.mtl.scalarize import SCALARIZERS, famo_observe, init

L = np.array([0.2, 1.0, 3.0], np.float32)
METHODS = pytest.mark.parametrize("name", ["equal", "uncertainty", "dwa", "rlw", "gls", "imtl_l", "gradnorm", "famo"])


def losses_over(steps, tasks=3, seed=0):
    """Losses of different size and trend, f32[steps tasks], positive."""
    rng = np.random.default_rng(seed)
    trend = np.exp(-np.linspace(0, 1, steps)[:, None] * np.arange(tasks)) * np.geomspace(0.2, 3, tasks)
    return (trend * rng.uniform(0.7, 1.3, (steps, tasks))).astype(np.float32)


@cache
def scan_over_losses(name, knobs):
    """(state, losses f[steps t]) -> (last state, weights f[steps t]), compiled once for a shape."""
    step = lambda state, losses: SCALARIZERS[name](losses, state, **dict(knobs))[::-1]
    return jax.jit(partial(jax.lax.scan, step))


def run(name, losses, state=None, **knobs):
    """Weights f[steps t] of consecutive calls, and the last state."""
    state = init(name, losses.shape[1]) if state is None else state
    state, weights = scan_over_losses(name, tuple(knobs.items()))(state, jnp.asarray(losses))
    return weights, state


def constant(steps, losses=L):
    return np.tile(np.asarray(losses, np.float32), (steps, 1))


def test_the_methods_are_exactly_these():
    assert set(SCALARIZERS) == {"equal", "uncertainty", "dwa", "rlw", "gls", "imtl_l", "gradnorm", "famo"}


@pytest.mark.parametrize(
    "name, wanted",
    {
        "equal": [1, 1, 1],
        "uncertainty": [np.exp(0.5) / 2] * 3,
        "dwa": [1, 1, 1],
        "gls": np.cbrt(0.6) / (3 * L),
        "imtl_l": [1, 1, 1],
        "gradnorm": [1, 1, 1],
        "famo": (1 / L) / (1 / L).sum(),
    }.items(),
)
def test_closed_forms_of_the_first_weights(name, wanted):
    weights, _ = SCALARIZERS[name](jnp.asarray(L), None)
    np.testing.assert_allclose(weights, wanted, rtol=1e-5)


OBJECTIVES = {  # the papers' totals, from the losses and the state before the call
    "uncertainty": lambda x, state: (x / (2 * jnp.exp(state.scale)) + state.scale / 2).sum(),
    "gls": lambda x, state: x.prod() ** (1 / x.size),
    "imtl_l": lambda x, state: (jnp.exp(state.scale) * x - state.scale).sum(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_are_the_gradient_of_the_papers_objective(name, x64):
    _, state = run(name, losses_over(30).astype(float))
    x = jnp.asarray(L, float)
    weights, _ = SCALARIZERS[name](x, state)
    np.testing.assert_allclose(weights, jax.grad(OBJECTIVES[name])(x, state), rtol=1e-10)


def test_famos_weights_are_the_gradient_of_its_objective(x64):
    _, state = run("famo", losses_over(30).astype(float))
    x = jnp.asarray(L, float)
    weights, new = SCALARIZERS["famo"](x, state)
    z = np.exp(new.logits) / np.exp(new.logits).sum()  # the logits after the observation
    assert np.ptp(z) > 0.02
    c = 1 / (z / L.astype(float)).sum()
    np.testing.assert_allclose(weights, jax.grad(lambda x: c * (z * jnp.log(x)).sum())(x), rtol=1e-10)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)


NORMS = np.array([0.5, 2.0, 8.0])
KNOBS = {"uncertainty": 0.01, "imtl_l": 0.01, "gradnorm": 0.025, "famo": 0.025}  # the learning rates, as documented


def learned_objective(name, parameter, index, losses):
    """What the method's parameter minimises at call ``index``, from the paper."""
    now = losses[index]
    if name == "uncertainty":
        return (now / (2 * jnp.exp(parameter)) + parameter / 2).sum()
    if name == "imtl_l":
        return (jnp.exp(parameter) * now - parameter).sum()
    if name == "gradnorm":
        weighted = 3 * jnp.exp(parameter) / jnp.exp(parameter).sum() * NORMS
        rate = now / losses[0] / (now / losses[0]).mean()
        return jnp.abs(weighted - jax.lax.stop_gradient(weighted.mean() * rate**1.5)).sum()
    # famo learns after the call, once the next losses are there
    fall = jnp.log(losses[index]) - jnp.log(losses[index + 1])
    return (jnp.exp(parameter) / jnp.exp(parameter).sum() * fall).sum() + 0.01 / 2 * (parameter**2).sum()


@pytest.mark.parametrize("name", KNOBS)
def test_parameters_follow_adam_on_the_papers_objective(name, x64):
    steps = 12
    losses = jnp.asarray(losses_over(steps + 1), float)
    state = init(name, 3)
    parameter, adam = state[0], optax.adam(KNOBS[name])
    if name == "gradnorm":
        state = state._replace(norms=jnp.asarray(NORMS))
    memory = adam.init(parameter)
    gradient = jax.jit(jax.grad(lambda p, index: learned_objective(name, p, index, losses)))
    for index in range(steps):
        change, memory = adam.update(gradient(parameter, index), memory)
        parameter = parameter + change
    _, state = run(name, losses[: steps + (name == "famo")], state)
    assert np.ptp(parameter) > 0.05
    np.testing.assert_allclose(state[0], parameter, rtol=1e-8)


def test_uncertainty_and_imtl_l_settle_at_their_optimum():
    weights, state = run("uncertainty", constant(2000))
    np.testing.assert_allclose(np.exp(state.scale), L, rtol=1e-3)
    np.testing.assert_allclose(weights[-1], 1 / (2 * L), rtol=1e-3)
    weights, state = run("imtl_l", constant(2000))
    np.testing.assert_allclose(np.exp(state.scale), 1 / L, rtol=1e-3)
    np.testing.assert_allclose(weights[-1] * L, 1, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 3])
def test_dwa_is_ones_for_two_epochs_then_the_ratio_of_epoch_means(length):
    losses = losses_over(5 * length)
    weights, state = run("dwa", losses, init("dwa", 3, steps_per_epoch=length), temperature=1.5)
    means = losses.reshape(5, length, 3).mean(1)
    wanted = [np.ones(3)] * 2
    for epoch in (2, 3, 4):
        e = np.exp(means[epoch - 1] / means[epoch - 2] / 1.5)
        wanted.append(3 * e / e.sum())
    np.testing.assert_allclose(weights, np.repeat(wanted, length, 0), rtol=1e-5)
    assert int(state.step) == 5 * length
    np.testing.assert_allclose([state.before, state.last], means[-2:], rtol=1e-5)
    default, _ = run("dwa", losses[:3], init("dwa", 3))
    e = np.exp(losses[1] / losses[0] / 2)
    np.testing.assert_allclose(default[2], 3 * e / e.sum(), rtol=1e-5)


def test_rlw_is_random_with_mean_one_and_follows_from_its_key():
    draws, _ = run("rlw", constant(4000), init("rlw", 3, key=jax.random.key(7)))
    again, _ = run("rlw", constant(4000), init("rlw", 3, key=jax.random.key(7)))
    other, _ = run("rlw", constant(10), init("rlw", 3, key=jax.random.key(8)))
    np.testing.assert_array_equal(draws, again)
    assert np.abs(draws[:10] - other).max() > 0.1
    np.testing.assert_allclose(draws.sum(1), 3, rtol=1e-5)
    np.testing.assert_allclose(draws.mean(0), 1, atol=0.04)  # standard error 0.01
    assert len(np.unique(np.asarray(draws)[:, 0])) > 3900
    logs = np.log(draws[:, 0] / draws[:, 1])
    assert np.std(logs) == pytest.approx(np.sqrt(2), rel=0.05)  # the difference of two standard normals
    untyped, _ = run("rlw", constant(10), init("rlw", 3, key=jax.random.key_data(jax.random.key(7))))
    np.testing.assert_array_equal(untyped, draws[:10])


def test_gls_shares_are_equal_and_scaling_a_loss_scales_the_total_alone():
    weights, _ = SCALARIZERS["gls"](jnp.asarray(L), None)
    np.testing.assert_allclose(weights * L, np.full(3, np.cbrt(0.6) / 3), rtol=1e-5)
    c = np.array([1, 1000, 1], np.float32)
    scaled, _ = SCALARIZERS["gls"](jnp.asarray(L * c), None)
    # 10 = 1000^(1/3), the same factor for every task's gradient
    np.testing.assert_allclose(scaled * c, weights * 10, rtol=1e-5)


@pytest.mark.parametrize("norms", [[1.0, 4.0], [0.02, 1.0, 5.0]])
def test_gradnorm_makes_the_weighted_norms_equal_when_the_training_rates_are(norms):
    norms = np.array(norms, np.float32)
    state = init("gradnorm", norms.size)._replace(norms=jnp.asarray(norms))
    weights, _ = run("gradnorm", constant(1500, L[: norms.size]), state)
    wanted = norms.size * (1 / norms) / (1 / norms).sum()
    np.testing.assert_allclose(weights[-100:].mean(0), wanted, rtol=0.05)
    np.testing.assert_allclose(weights.sum(1), norms.size, rtol=1e-5)


def test_gradnorm_gives_the_task_that_trains_more_slowly_more_weight_as_alpha_says():
    # equal norms; training rates 0.9 and 0.3
    losses = np.concatenate([[[1.0, 100.0]], np.tile([0.9, 30.0], (1000, 1))])
    weights, _ = run("gradnorm", losses, alpha=1.0)
    np.testing.assert_allclose(weights[-100:].mean(0), [1.5, 0.5], rtol=0.05)
    assert float(run("gradnorm", losses)[0][-1, 0]) > 1.5


def test_gradnorm_remembers_the_first_loss_that_a_task_has():
    _, state = run("gradnorm", np.array([[1.0, 0.0], [2.0, 3.0], [4.0, 5.0]]))
    np.testing.assert_allclose(state.first, [1.0, 3.0])


@pytest.mark.parametrize("observed", [True, False])
def test_famo_gives_the_slower_of_two_quadratics_more_weight(observed):
    """L = x^2 / 2, one step size: the log loss that starts further away falls more slowly, until z makes up for it."""

    def falls(lr):
        def step(carry, _):
            x, state = carry
            weights, state = SCALARIZERS["famo"](x**2 / 2, state, lr=lr)
            moved = x - 0.02 * weights * x
            state = famo_observe(state, moved**2 / 2, lr=lr) if observed else state
            return (moved, state), (jax.nn.softmax(state.logits), jnp.log(x**2) - jnp.log(moved**2))

        _, (z, fall) = jax.lax.scan(step, (jnp.array([3.0, 1.0]), init("famo", 2)), None, length=60)
        return z, fall.sum(0)

    z, fall = falls(0.025)
    still, uneven = falls(0.0)
    np.testing.assert_allclose(still, 0.5)
    assert (jnp.diff(z[:20, 0]) > 0).all() and float(z[-1, 0]) > 0.7
    assert float(fall[1] / fall[0]) < 0.5 * float(uneven[1] / uneven[0])


def test_famo_observed_on_the_same_losses_equals_famo_on_its_own():
    losses = jnp.asarray(losses_over(6))
    alone, observed = None, None
    for now, after in itertools.pairwise(losses):
        weights, alone = SCALARIZERS["famo"](now, alone)
        same, observed = SCALARIZERS["famo"](now, observed)
        np.testing.assert_allclose(same, weights, rtol=1e-6)
        observed = famo_observe(observed, after)
    assert float(observed.before.max()) == 0
    twice = famo_observe(observed, 10 * after)  # nothing is left to observe
    jax.tree.map(np.testing.assert_array_equal, twice, observed)


@pytest.mark.parametrize("name", sorted(SCALARIZERS.keys() - {"rlw"}))  # whose noise belongs to positions
def test_tasks_may_come_in_any_order(name):
    losses, order = losses_over(20), np.array([2, 0, 1])
    weights, _ = run(name, losses)
    permuted, _ = run(name, losses[:, order])
    np.testing.assert_allclose(permuted, weights[:, order], rtol=1e-3 if name == "gradnorm" else 1e-5)


@METHODS
def test_states_keep_their_structure_and_compiled_equals_eager(name):
    state, losses = init(name, 3), jnp.asarray(losses_over(3))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    compiled, eager = state, state
    for now in losses:
        weights, compiled = jax.jit(SCALARIZERS[name])(now, compiled)
        same, eager = SCALARIZERS[name](now, eager)
        np.testing.assert_allclose(weights, same, rtol=1e-5)
        for new in (compiled, eager):
            assert jax.tree.structure(new) == jax.tree.structure(state)
            for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state)):
                assert jax.typeof(a) == jax.typeof(b)  # a weak type, too, would compile the step twice
    assert weights.shape == (3,) and weights.dtype == jnp.float32
    if name == "famo":
        assert jax.tree.structure(famo_observe(eager, losses[0])) == jax.tree.structure(state)


@METHODS
def test_a_fresh_state_may_be_donated(name):
    _, state = jax.jit(SCALARIZERS[name], donate_argnums=1)(jnp.asarray(L), init(name, 3))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@METHODS
def test_no_state_is_a_fresh_state(name):
    none, fresh = SCALARIZERS[name](jnp.asarray(L), None), SCALARIZERS[name](jnp.asarray(L), init(name, 3))
    assert jax.tree.structure(none) == jax.tree.structure(fresh)
    for a, b in zip(jax.tree.leaves(none), jax.tree.leaves(fresh)):
        assert a.dtype == b.dtype and bool((a == b).all())


@METHODS
def test_zero_and_huge_losses_give_finite_weights_and_states(name):
    extremes = np.array([[0, 0, 0], [0, 1, 1e8], [1e8, 0, 1], [1e8, 1e8, 1e8], [1e30, 1e-30, 0]], np.float32)
    for losses in (np.tile(extremes, (40, 1)), *(np.tile(row, (3000, 1)) for row in extremes)):
        state = init(name, 3)
        if name == "gradnorm":
            state = state._replace(norms=jnp.array([0.0, 1.0, 1e8]))
        weights, state = run(name, losses, state)
        assert jnp.isfinite(weights).all() and float(weights.min()) >= 0
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)
        if name in ("uncertainty", "imtl_l", "gradnorm"):
            assert float(weights.min()) > 0


@METHODS
def test_weights_are_constants_under_differentiation(name):
    total = lambda x, state: (SCALARIZERS[name](x, state)[0] * x).sum()
    _, state = run(name, losses_over(5))
    weights, _ = SCALARIZERS[name](jnp.asarray(L), state)
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(L), state), weights, rtol=1e-6)


def test_no_two_methods_agree():
    losses = losses_over(20)
    last = {name: np.asarray(run(name, losses)[0][-1]) for name in SCALARIZERS}
    for a, b in itertools.combinations(last, 2):
        share_a, share_b = (last[name] / last[name].sum() for name in (a, b))  # a common factor is no other method
        assert np.abs(share_a - share_b).max() > 1e-3, (a, b)


@pytest.mark.parametrize("name", sorted(set(SCALARIZERS) - {"uncertainty", "imtl_l"}))
def test_one_task_alone_keeps_its_loss(name):
    weights, _ = run(name, losses_over(4, tasks=1))
    np.testing.assert_allclose(weights, 1, rtol=1e-5)


@METHODS
def test_double_precision_when_asked_for(name, x64):
    weights, state = run(name, losses_over(4))
    assert weights.dtype == jnp.float64
    assert not any(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))


@METHODS
def test_half_precision_losses_are_weighted_in_single(name):
    weights, state = SCALARIZERS[name](jnp.asarray(L, jnp.bfloat16), None)
    assert weights.dtype == jnp.float32
    assert not any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state))


def test_what_is_not_known_is_refused_by_name():
    with pytest.raises(ValueError, match="'mean': choose one of equal, uncertainty, dwa"):
        init("mean", 2)
    with pytest.raises(ValueError, match="steps_per_epoch 0"):
        init("dwa", 2, steps_per_epoch=0)


@pytest.mark.parametrize("name", sorted(set(SCALARIZERS) - {"equal", "gls", "rlw"}))
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_state_of_another_number_of_tasks_is_refused(name, tasks):
    with pytest.raises(ValueError, match=f"3 losses, but a state of {name} of {tasks} tasks"):
        SCALARIZERS[name](jnp.array([1.0, 2.0, 3.0]), init(name, tasks))


def test_famo_observes_as_many_losses_as_its_state_has_tasks():
    _, state = SCALARIZERS["famo"](jnp.array([1.0, 2.0]), None)
    with pytest.raises(ValueError, match="1 losses, but a state of famo of 2 tasks"):
        famo_observe(state, jnp.array([1.0]))


@METHODS
def test_losses_in_a_list_are_those_of_the_array(name, monkeypatch):
    """Without the tests' type checker, as in a notebook."""
    for function in ("_clipped", "_fresh_if_none", "_check_size", "famo_observe"):
        monkeypatch.setattr(scalarize, function, inspect.unwrap(getattr(scalarize, function)))
    rule = inspect.unwrap(SCALARIZERS[name])
    for state in (None, init(name, 3)):
        np.testing.assert_array_equal(rule(L.tolist(), state)[0], rule(jnp.asarray(L), state)[0])


@METHODS
@pytest.mark.parametrize("losses", [jnp.ones((3, 1)), jnp.float32(1)])
def test_losses_of_another_shape_are_refused(name, losses, monkeypatch):
    monkeypatch.setattr(scalarize, "_clipped", inspect.unwrap(scalarize._clipped))
    with pytest.raises(ValueError, match="they are f"):
        inspect.unwrap(SCALARIZERS[name])(losses, None)


@pytest.mark.parametrize("name", sorted(set(SCALARIZERS) - {"equal", "rlw"}))
def test_nan_stays_nan(name):
    state, seen = None, []
    for losses in ([1.0, 2.0], [np.nan, 2.0], [1.0, 2.0], [1.0, 2.0]):
        weights, state = SCALARIZERS[name](jnp.array(losses), state)
        seen.append(np.isnan(weights[0]))
    assert not seen[0] and any(seen[1:])


def test_the_knobs_are_keyword_only_and_have_defaults():
    for rule in SCALARIZERS.values():
        first, second, *knobs = inspect.signature(inspect.unwrap(rule)).parameters.values()
        assert (first.name, second.name) == ("losses", "state")
        assert all(knob.kind is knob.KEYWORD_ONLY and knob.default is not knob.empty for knob in knobs)


def test_the_docstrings_example_runs():
    assert doctest.testmod(scalarize).failed == 0
