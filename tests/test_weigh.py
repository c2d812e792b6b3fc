"""Weights from Gramians: golden directions, scipy's answers, closed forms, and every Gramian that breaks a solver."""

import doctest
import inspect
import json
from functools import partial
from itertools import combinations, permutations, product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from thyroid_jax.mtl import weigh

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mtl_aggregators.json").read_text())["cases"]
GOLDEN_NAMES = {
    "mgda": "mgda",
    "pcgrad": "pcgrad",
    "cagrad": "cagrad_c0.5",
    "imtl_g": "imtl_g",
    "aligned_mtl": "aligned_mtl_min",
    "upgrad": "upgrad",
    "dualproj": "dualproj",
}
JITTED = {name: jax.jit(weigher) for name, weigher in weigh.WEIGHERS.items()}
METHODS = pytest.mark.parametrize("name", list(weigh.WEIGHERS))
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def weights(name, jacobian, dtype=np.float64):
    """float64[t]: weights of the Gramian of a float64 Jacobian, computed in ``dtype``."""
    with jax.enable_x64(True):
        return np.asarray(JITTED[name](jnp.asarray((jacobian @ jacobian.T).astype(dtype))), np.float64)


def random(t, seed=0, d=6):
    """A generic Jacobian whose first two tasks conflict."""
    jacobian = np.random.default_rng(seed).normal(size=(t, d)) * np.linspace(0.5, 2, t)[:, None]
    jacobian[1] -= 1.5 * jacobian[0]
    return jacobian


def nasty(count, t, seed=0, d=5):
    """Jacobians of every unpleasant kind in turn."""
    rng = np.random.default_rng(seed)
    jacobians = rng.normal(size=(count, t, d))
    for number, jacobian in enumerate(jacobians):
        kind = number % 9
        if kind == 0:
            jacobian *= 10.0 ** rng.uniform(-8, 8)
        elif kind == 1:
            jacobian *= 10.0 ** rng.uniform(-4, 4, size=(t, 1))
        elif kind == 2:
            jacobian[1] = -jacobian[0]
        elif kind == 3:
            jacobian[rng.integers(t)] = 0
        elif kind == 4:
            jacobian[1:] = jacobian[:1]
        elif kind == 5:
            jacobian[:] = rng.normal(size=(t, 1)) * rng.normal(size=(1, d))
        elif kind == 6:
            jacobian[1:] = 1e-3 * jacobian[1:] - jacobian[:1]
        elif kind == 7:
            jacobian[:, 2:] = 0
        else:
            jacobian *= 10.0 ** rng.uniform(-20, 20, size=(t, 1))
    return jacobians[np.einsum("ntd,ntd->n", jacobians, jacobians) < 1e36]


@DTYPES
@pytest.mark.parametrize("name", list(GOLDEN_NAMES))
def test_golden_directions(name, dtype):
    cases = [case for case in GOLDEN if GOLDEN_NAMES[name] in case["expected"]]
    assert len(cases) == (4 if name == "pcgrad" else 11)  # of more than two tasks, pcgrad's order is random
    for case in cases:
        jacobian, expected = np.array(case["jacobian"]), np.array(case["expected"][GOLDEN_NAMES[name]])
        error = np.linalg.norm(weights(name, jacobian, dtype) @ jacobian - expected)
        assert error <= 1e-4 * np.linalg.norm(expected), case["name"]


@METHODS
@DTYPES
def test_the_order_of_tasks_does_not_matter(name, dtype):
    jacobian = random(2 if name == "pcgrad" else 4)
    direction = weights(name, jacobian, dtype) @ jacobian
    for order in list(permutations(range(len(jacobian))))[1::5]:
        permuted = jacobian[list(order)]
        np.testing.assert_allclose(weights(name, permuted, dtype) @ permuted, direction, rtol=2e-4, atol=2e-5)


@METHODS
@DTYPES
def test_the_scale_of_gradients_does_not_matter(name, dtype):
    jacobian = random(3)
    expected = weights(name, jacobian, dtype)
    for scale in (1e-8, 1e8):
        scaled = weights(name, scale * jacobian, dtype) * (scale if name == "nash_mtl" else 1)
        np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("t", [2, 3, 4])
def test_promises_of_non_conflict(t, seed):
    jacobian = random(t, seed)
    shortest = weights("mgda", jacobian) @ jacobian
    assert (jacobian @ shortest).min() >= (1 - 1e-9) * shortest @ shortest
    assert (jacobian @ (weights("nash_mtl", jacobian) @ jacobian)).min() > 0
    for name in ("upgrad", "dualproj"):
        assert (jacobian @ (weights(name, jacobian) @ jacobian)).min() > -1e-3 * np.trace(jacobian @ jacobian.T), name
    mean = jacobian.mean(0)
    distance = np.linalg.norm(weights("cagrad", jacobian) @ jacobian - mean)
    np.testing.assert_allclose(distance, 0.5 * np.linalg.norm(mean), rtol=1e-9)


@pytest.mark.parametrize("cosine", [-0.99, -0.5, 0.0, 0.7, 0.99])
@pytest.mark.parametrize("length", [1e-3, 0.4, 1.0, 5.0])
def test_two_tasks_in_closed_form(cosine, length):
    first, second = np.array([1.0, 0.0]), length * np.array([cosine, np.sqrt(1 - cosine**2)])
    jacobian = np.stack([first, second])
    dot = first @ second
    w = np.clip((length**2 - dot) / (1 + length**2 - 2 * dot), 0, 1)
    np.testing.assert_allclose(weights("mgda", jacobian), [w, 1 - w], atol=1e-12)
    conflict = min(dot, 0)
    np.testing.assert_allclose(weights("pcgrad", jacobian), [1 - conflict, 1 - conflict / length**2], rtol=1e-12)
    bargain = 1 / np.sqrt(1 + cosine)
    np.testing.assert_allclose(weights("nash_mtl", jacobian), [bargain, bargain / length], rtol=1e-4)
    np.testing.assert_allclose(weights("imtl_g", jacobian), np.array([length, 1]) / (1 + length), rtol=1e-9)
    np.testing.assert_allclose(weights("equal", jacobian), [1, 1])


@pytest.mark.parametrize("t", [2, 3, 4])
def test_nash_is_where_every_gain_is_one_over_its_weight(t):
    for seed in range(5):
        jacobian = random(t, seed) * (10.0 ** np.arange(-t, 0))[:, None]
        a = weights("nash_mtl", jacobian)
        assert a.min() > 0
        np.testing.assert_allclose(a * (jacobian @ jacobian.T @ a), np.ones(t), rtol=1e-4)


@pytest.mark.parametrize("t", [3, 4])
@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_imtl_g_projects_equally_on_every_gradient(t, scale):
    jacobian = random(t) * (scale ** np.arange(t))[:, None]
    for dtype, bound in ((np.float64, 1e-7), (np.float32, 1e-4)):
        w = weights("imtl_g", jacobian, dtype)
        projections = jacobian @ (w @ jacobian) / np.linalg.norm(jacobian, axis=1)
        np.testing.assert_allclose(projections / projections.mean(), np.ones(t), rtol=bound)
        assert w.sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("deficient", [False, True])
def test_aligned_mtl_against_the_singular_values(deficient):
    jacobian = random(4)
    if deficient:
        jacobian[3] = jacobian[0] - 2 * jacobian[2]
    left, singular, right = np.linalg.svd(jacobian, full_matrices=False)
    rank = 3 if deficient else 4
    aligned = singular[rank - 1] * left[:, :rank] @ right[:rank]
    np.testing.assert_allclose(weights("aligned_mtl", jacobian) @ jacobian, aligned.mean(0), rtol=1e-8)


@pytest.mark.parametrize("t", [2, 3, 4])
def test_dual_cone_projections_against_nnls(t):
    for jacobian in [random(t, seed) for seed in range(6)] + [random(t) * (10.0 ** -np.arange(t))[:, None]]:
        gramian = jacobian @ jacobian.T
        root = np.linalg.cholesky(gramian / np.trace(gramian) + 1e-4 * np.eye(t)).T
        of_mean, *of_tasks = [u + scipy.optimize.nnls(root, -root @ u)[0] for u in (np.full(t, 1 / t), *np.eye(t))]
        np.testing.assert_allclose(weights("dualproj", jacobian), of_mean, rtol=1e-8)
        np.testing.assert_allclose(weights("upgrad", jacobian), np.mean(of_tasks, 0), rtol=1e-8)


def minimise_on_simplex(function, t):
    """The least value that scipy finds from the middle and near the corners."""
    starts = [np.full(t, 1 / t), *(0.9 * np.eye(t) + 0.1 / t)]
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    options = {
        "method": "SLSQP",
        "bounds": [(0, 1)] * t,
        "constraints": constraint,
        "options": {"ftol": 1e-14, "maxiter": 500},
    }
    return min((scipy.optimize.minimize(function, start, **options) for start in starts), key=lambda found: found.fun)


@pytest.mark.parametrize("t", [3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_mgda_and_cagrad_against_scipy(t, seed):
    jacobian = random(t, seed) - (0.5 if seed % 2 else 0)
    gramian, mean = jacobian @ jacobian.T, jacobian.mean(0)
    shortest = weights("mgda", jacobian)
    assert shortest.min() >= 0
    assert shortest.sum() == pytest.approx(1)
    found = minimise_on_simplex(lambda w: w @ gramian @ w, t)
    np.testing.assert_allclose(shortest @ jacobian, found.x @ jacobian, atol=1e-5)
    assert shortest @ gramian @ shortest <= found.fun + 1e-12
    phi = 0.5 * np.linalg.norm(mean)
    found = minimise_on_simplex(lambda w: w @ jacobian @ mean + phi * np.sqrt(w @ gramian @ w), t)
    direction = weights("cagrad", jacobian) @ jacobian
    # Strong duality: the gain of the worst-off task equals the least F, which no direction within the ball can beat.
    assert (jacobian @ direction).min() == pytest.approx(found.fun, rel=1e-6, abs=1e-8)


def test_cagrad_without_freedom_is_the_mean_and_stays_where_tasks_stand_still():
    jacobian = random(3)
    with jax.enable_x64(True):
        gramian = jnp.asarray(jacobian @ jacobian.T)
        np.testing.assert_allclose(jax.jit(partial(weigh.cagrad, c=0.0))(gramian), np.full(3, 1 / 3))
    jacobian[1] = 0
    np.testing.assert_array_equal(weights("cagrad", jacobian), [0, 0, 0])
    jacobian[1] = 1e-6
    np.testing.assert_array_equal(weights("cagrad", jacobian, np.float32), [0, 0, 0])
    opposed = np.array([[1.0, 0.0], [-3.0, 0.0], [0.0, 10.0]])  # w = 3/4, 1/4, 0: zero lies on the hull's edge
    np.testing.assert_array_equal(weights("cagrad", opposed), [0, 0, 0])


def pcgrad_on_vectors(jacobian, orders):
    """The paper's loop, on the gradients themselves."""
    total = np.zeros(jacobian.shape[1])
    for i, order in enumerate(orders):
        gradient = jacobian[i].copy()
        for j in order:
            if j != i and gradient @ jacobian[j] < 0:
                gradient -= gradient @ jacobian[j] / (jacobian[j] @ jacobian[j]) * jacobian[j]
        total += gradient
    return total


def test_pcgrad_takes_the_tasks_in_every_order(x64):
    jacobian = random(3, seed=9, d=3)
    jacobian[2] = -jacobian.sum(0)
    gramian = jnp.asarray(jacobian @ jacobian.T)
    # The last gradient, projected twice, conflicts with itself: that does not count.
    narrow = np.array([[0.17, -1.0], [-0.17, -1.0], [0.0, 1.0]])
    for fixed in (jacobian, narrow):
        expected = pcgrad_on_vectors(fixed, [range(3)] * 3)
        np.testing.assert_allclose(weights("pcgrad", fixed) @ fixed, expected, rtol=1e-10, atol=1e-12)
    outcomes = np.array([pcgrad_on_vectors(jacobian, orders) for orders in product(permutations(range(3)), repeat=3)])
    of_key = jax.jit(jax.vmap(lambda key: weigh.pcgrad(gramian, key=key)))
    drawn = np.asarray(of_key(jax.random.split(jax.random.key(0), 100))) @ jacobian
    distance = np.abs(drawn[:, None] - outcomes[None]).max(-1)
    assert distance.min(1).max() < 1e-10
    reached = {tuple(row) for row in np.round(outcomes[distance.argmin(1)], 6)}
    assert len(reached) == len({tuple(row) for row in np.round(outcomes, 6)}) > 3


def test_no_two_methods_are_the_same():
    jacobian = random(3, seed=5)
    found = {name: weights(name, jacobian) for name in weigh.WEIGHERS}
    for first, second in combinations(found, 2):
        a, b = found[first], found[second]
        assert a @ b < (1 - 1e-6) * np.linalg.norm(a) * np.linalg.norm(b), (first, second)


@METHODS
@DTYPES
def test_documented_weights_of_degenerate_gramians(name, dtype):
    sums = name in ("equal", "pcgrad")
    nothing = {"cagrad": 0, "nash_mtl": 0}.get(name, 1 if sums else 1 / 3)
    np.testing.assert_allclose(weights(name, np.zeros((3, 6)), dtype), np.full(3, nothing), rtol=1e-6)
    gradient = random(3)[0]
    same = weights(name, np.tile(gradient, (3, 1)), dtype) @ np.tile(gradient, (3, 1))
    # aligned_mtl: one singular value sqrt(3) |g|, left alone; nash_mtl: length sqrt(3) whatever the gradient.
    multiple = {"cagrad": 1.5, "nash_mtl": np.sqrt(3) / np.linalg.norm(gradient)}.get(name, 3 if sums else 1)
    np.testing.assert_allclose(same, multiple * gradient, rtol=1e-4)
    opposed = np.stack([gradient, -gradient])
    still = weights(name, opposed, dtype) @ opposed
    np.testing.assert_allclose(still, np.zeros(6), atol=1e-3 if name == "nash_mtl" else 1e-5)


@METHODS
def test_a_single_task_keeps_its_direction(name):
    weight = weights(name, np.array([[3.0, 4.0]]))
    np.testing.assert_allclose(weight, [{"cagrad": 1.5, "nash_mtl": 0.2}.get(name, 1)], rtol=1e-6)


@METHODS
def test_a_task_without_a_gradient_changes_nothing_but_what_it_must(name):
    jacobian = random(3)
    alone = jacobian[[0, 2]]
    jacobian[1] = 0
    direction = weights(name, jacobian) @ jacobian
    if name in ("mgda", "cagrad"):
        expected = np.zeros(6)  # the task cannot gain
    else:
        share = 2 / 3 if name in ("upgrad", "dualproj", "aligned_mtl") else 1  # means over the tasks
        expected = share * weights(name, alone) @ alone
    np.testing.assert_allclose(direction, expected, rtol=1e-3, atol=1e-6)


@METHODS
@pytest.mark.parametrize("t", [2, 3, 4])
def test_nasty_gramians(name, t):
    """Finite in both precisions; float32 is as good as float64 up to its own digits, even with lengths 1e8 apart."""
    jacobians = nasty(200, t)
    assert len(jacobians) > 180
    single = [weights(name, jacobian, np.float32) for jacobian in jacobians]
    double = [weights(name, jacobian) for jacobian in jacobians]
    assert np.isfinite(single).all()
    assert np.isfinite(double).all()
    for jacobian, a, b in zip(jacobians, single, double):
        length = np.linalg.norm(jacobian, axis=1)
        cosines = np.linalg.svd(jacobian / np.maximum(length, 1e-30)[:, None], compute_uv=False)
        if name in ("imtl_g", "aligned_mtl") and ((1e-9 < cosines) & (cosines < 3e-3)).any():
            continue  # dependent in float32, independent in float64
        error = np.linalg.norm((a - b) @ jacobian)
        assert error <= 1e-3 * np.abs(b) @ length


@METHODS
def test_vmap_equals_a_loop(name, x64):
    jacobians = np.stack([random(3, seed) for seed in range(5)]).astype(np.float32)
    gramians = jnp.asarray(jacobians @ jacobians.transpose(0, 2, 1))
    together = jax.jit(jax.vmap(weigh.WEIGHERS[name]))(gramians)
    apart = jnp.stack([JITTED[name](gramian) for gramian in gramians])
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


@METHODS
@pytest.mark.parametrize("kind", [jnp.bfloat16, np.float32])
def test_half_and_single_precision_give_float32_weights(name, kind):
    assert jax.eval_shape(weigh.WEIGHERS[name], np.eye(3, dtype=kind)).dtype == jnp.float32


@pytest.mark.parametrize("name", ["mgda", "cagrad", "upgrad", "dualproj"])
def test_more_than_ten_tasks_are_refused_where_subsets_are_counted(name):
    with pytest.raises(ValueError, match="at most 10 tasks"):
        weigh.WEIGHERS[name](jnp.eye(11))


@METHODS
def test_every_method_has_the_common_signature_and_says_what_it_does(name):
    weigher = weigh.WEIGHERS[name]
    assert weigher.__name__ == name
    gramian, *knobs = inspect.signature(weigher).parameters.values()
    assert gramian.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {knob.kind for knob in knobs} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(knob.default is not inspect.Parameter.empty for knob in knobs)
    assert name == "equal" or "Source: " in weigher.__doc__


def test_the_table_is_complete_and_the_docstrings_example_runs():
    assert list(weigh.WEIGHERS) == "equal mgda pcgrad cagrad imtl_g aligned_mtl upgrad dualproj nash_mtl".split()
    assert doctest.testmod(weigh, extraglobs={"mgda": JITTED["mgda"]}).failed == 0  # compiled once, not step by step


@pytest.mark.parametrize("name", sorted(set(weigh.WEIGHERS) - {"equal"}))
@pytest.mark.parametrize("fault", [np.nan, np.inf, 3e38])
def test_a_gramian_that_is_not_finite_gives_no_plausible_weights(name, fault):
    gramian = np.eye(3, dtype=np.float32)
    gramian[0, 0] = gramian[1, 1] = fault  # of 3e38 each, the trace overflows
    assert np.isnan(JITTED[name](gramian)).all()


def test_a_matrix_that_is_not_square_is_refused(monkeypatch):
    for name in ("equal", "pcgrad", "nash_mtl"):
        unchecked = inspect.unwrap(weigh.WEIGHERS[name])
        monkeypatch.setattr(weigh, "unit_trace", inspect.unwrap(weigh.unit_trace))
        with pytest.raises(ValueError, match=r"shape \(1, 3\): it is f\[t t\]"):
            unchecked(jnp.ones((1, 3)))
