"""Small exact solvers: optimality conditions, a grid over the simplex, and eigenvalues that float32 nearly loses."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.mtl import solvers

shortest_in_hull = jax.jit(solvers.shortest_in_hull)
least_linear_plus_norm = jax.jit(solvers.least_linear_plus_norm)
project_onto_dual_cone = jax.jit(solvers.project_onto_dual_cone, static_argnums=2)


def gramians(t, count=12):
    """Random Gramians of unit trace: generic ones, some of dependent tasks and some of lengths 1e4 apart."""
    rng = np.random.default_rng(t)
    for number in range(count):
        jacobian = rng.normal(size=(t, 6)) - rng.uniform(0, 1)
        if number % 3 == 1:
            jacobian[-1] = 0.3 * jacobian[0] - jacobian[1]
        if number % 3 == 2:
            jacobian *= 10.0 ** -rng.uniform(0, 4, (t, 1))
        gramian = jacobian @ jacobian.T
        yield gramian / np.trace(gramian)


@pytest.mark.parametrize("t", [2, 3, 4])
def test_the_shortest_vector_meets_the_optimality_conditions(t, x64):
    for g in gramians(t):
        w = np.asarray(shortest_in_hull(g))
        square = w @ g @ w
        assert w.min() >= 0 and w.sum() == pytest.approx(1, rel=1e-12)
        assert (g @ w).min() >= square - 1e-12  # no task's gradient leads to a shorter vector
        np.testing.assert_allclose(w * (g @ w - square), 0, atol=1e-12)


def test_the_least_linear_plus_norm_is_the_least_on_a_grid_of_the_simplex(x64):
    i, j = np.mgrid[:101, :101]
    grid = np.stack([i, j, 100 - i - j], -1)[i + j <= 100] / 100
    for g in gramians(3):
        for factor in (0.0, 0.1, 0.5, 2.0):
            value = lambda w, g=g, factor=factor: (
                w @ g.mean(1)
                + factor
                * np.sqrt(
                    np.maximum((w @ g * w).sum(-1), 0)  # rounding may take the square below 0
                )
            )
            w = np.asarray(least_linear_plus_norm(g, g.mean(1), np.float64(factor)))
            assert w.min() >= 0 and w.sum() == pytest.approx(1, rel=1e-12)
            assert value(w) <= value(grid).min() + 1e-10


@pytest.mark.parametrize("t", [2, 3])
def test_a_projection_onto_the_dual_cone_meets_the_optimality_conditions(t, x64):
    rng = np.random.default_rng(0)
    for g in gramians(t):
        u = rng.normal(size=t)
        v = np.asarray(project_onto_dual_cone(g, u, 1e-4))
        gradient = (g + 1e-4 * np.eye(t)) @ v
        assert (v - u).min() >= 0 and gradient.min() > -1e-12
        np.testing.assert_allclose((v - u) * gradient, 0, atol=1e-12)


def test_subsets_are_all_and_the_empty_one_is_first():
    rows = solvers.subsets(4)
    assert len({tuple(row) for row in rows.tolist()}) == len(rows) == 16 and not rows[0].any()
    with pytest.raises(ValueError, match="11 tasks have 2\\^11 subsets; this method takes at most 10 tasks"):
        solvers.subsets(11)


def test_a_restricted_system_leaves_the_other_tasks_alone():
    matrix = jnp.arange(9.0).reshape(3, 3)
    found = solvers.restrict(matrix, np.array([True, False, True]))
    np.testing.assert_array_equal(found, [[0, 0, 2], [0, 1, 0], [6, 0, 8]])


def test_a_singular_system_gives_zeros_and_no_other_numbers():
    np.testing.assert_array_equal(solvers.solve(jnp.zeros((2, 2)), jnp.ones(2)), [0, 0])
    np.testing.assert_allclose(solvers.solve(2 * jnp.eye(2), jnp.ones(2)), [0.5, 0.5])


@pytest.mark.parametrize(
    "w, expected",
    [
        ([1.0, -2.0, 3.0], [0.25, 0, 0.75]),
        ([-1.0, -2.0, 0.0], [0.5, 0, 0.5]),
        ([np.nan, np.inf, 1.0], [0, 0, 1]),
        ([1e30, 3e30, 0.0], [0.25, 0.75, 0]),
    ],
)
def test_weights_come_onto_the_simplex(w, expected):
    found = solvers.onto_simplex(np.array(w, np.float32), np.array([True, False, True]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_unit_trace_drops_what_is_shorter_than_any_number_can_tell():
    jacobian = np.array([[1.0, 2.0], [0.0, 0.0], [3e-16, 0.0]])
    g, trace = solvers.unit_trace(jnp.asarray(jacobian @ jacobian.T, jnp.float32))
    np.testing.assert_allclose(g, np.diag([1.0, 0, 0]))
    assert float(trace) == 5
    g, trace = solvers.unit_trace(np.zeros((2, 2), jnp.bfloat16))
    assert g.dtype == jnp.float32 and float(trace) == 0 and not g.any()


@pytest.mark.parametrize("t", [2, 8])
def test_jacobi_keeps_small_eigenvalues(t):
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(t, 9)) * np.geomspace(1e-4, 1, t)[:, None]
    exact = np.linalg.svd(jacobian, compute_uv=False)[::-1] ** 2
    gramian = (jacobian @ jacobian.T).astype(np.float32)
    values, vectors = solvers.jacobi(jnp.asarray(gramian))
    np.testing.assert_allclose(np.sort(values), exact, rtol=1e-4)
    np.testing.assert_allclose((vectors * values[None]) @ vectors.T, gramian, atol=1e-5)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(t), atol=1e-5)


def test_the_spectrum_keeps_a_short_gradient_and_drops_a_dependent_one():
    independent = np.array([[1.0, 0, 0], [0, 1e-4, 0], [1, 1e-4, 1]])
    dependent = np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    for jacobian, rank in ((independent, 3), (dependent, 2)):
        g, _ = solvers.unit_trace(jnp.asarray(jacobian @ jacobian.T, jnp.float32))
        values, _, kept = solvers.spectrum(g)
        assert int(kept.sum()) == rank
        exact = np.linalg.svd(jacobian, compute_uv=False)[:rank] ** 2 / np.trace(jacobian @ jacobian.T)
        np.testing.assert_allclose(np.sort(np.asarray(values)[np.asarray(kept)])[::-1], exact, rtol=1e-3)


def test_the_docstrings_example_runs():
    assert doctest.testmod(solvers, extraglobs={"shortest_in_hull": shortest_in_hull}).failed == 0
