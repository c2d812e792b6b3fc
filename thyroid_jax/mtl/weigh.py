"""Gradient-level multitask weighing: from the Gramian of the task gradients to one weight per task.

Every method is a pure function of G = J J', the inner products of the t task gradients (the rows of J). It returns
weights w, and the update direction is w @ J. The gradients themselves are not needed, so a method costs the same for
a thousand and for a billion parameters.

Signature: ``weigher(gramian f[t t], *, key=None, ...) -> f[t]``. Settings are keyword-only; ``key`` matters to pcgrad
alone. All methods:

- work under jit and vmap, and compute in the Gramian's float type, at least float32;
- divide G by its trace first, so that gradients scaled by 1e±8 give the same weights (for nash_mtl: inversely scaled);
- treat a gradient shorter than 1e-15 of all together as zero;
- give finite weights for every Gramian whose entries and trace are finite in its type, else NaN (equal: 1).

mgda, cagrad, upgrad and dualproj solve their program exactly and take at most 10 tasks
(:mod:`thyroid_jax.mtl.solvers`).

>>> import jax.numpy as jnp
>>> jacobian = jnp.array([[1.0, 0.0], [-1.0, 1.0]])  # two tasks in conflict
>>> direction = mgda(jacobian @ jacobian.T) @ jacobian  # the shortest vector between them improves both
>>> [round(float(x), 6) for x in direction]
[0.2, 0.4]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from thyroid_jax.mtl.solvers import (
    dot,
    equilibrate,
    least_linear_plus_norm,
    project_onto_dual_cone,
    rounding,
    shortest_in_hull,
    solve,
    spectrum,
    unit_trace,
)
from thyroid_jax.shapes import Array, Float, Key


def _nan_unless_finite(method: Callable[..., Array]) -> Callable[..., Array]:
    """The method with NaN weights for a Gramian that is not finite: comparisons would turn its NaN into numbers."""

    @wraps(method)
    def weigh(gramian: Float[Array, "t t"], **settings: Any) -> Float[Array, "t"]:
        _, trace = unit_trace(gramian)
        finite = jnp.isfinite(trace) & jnp.isfinite(jnp.asarray(gramian)).all()
        return jnp.where(finite, method(gramian, **settings), jnp.nan)

    return weigh


def equal(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """w = 1: the plain sum of the task losses."""
    g, _ = unit_trace(gramian)
    return jnp.ones_like(g[0])


@_nan_unless_finite
def mgda(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Shortest vector in the convex hull of the task gradients.

        min w'Gw   over w >= 0, sum w = 1

    Two tasks: w_1 = clip((G_22 - G_12) / (G_11 + G_22 - 2 G_12), 0, 1). The direction conflicts with no task:
    <g_i, w @ J> >= |w @ J|^2. A zero gradient takes all the weight; a zero Gramian gives 1/t each. At most 10 tasks.
    Exact, where the source iterates (Frank-Wolfe). Source: arXiv 1810.04650.
    """
    g, trace = unit_trace(gramian)
    return jnp.where(trace > 0, shortest_in_hull(g), 1 / len(g))


@_nan_unless_finite
def pcgrad(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Sum of the task gradients, each with its conflicts projected away.

        g_i' = g_i;  for j != i in random order:  g_i' -= min(0, <g_i', g_j>) / |g_j|^2 g_j      direction sum_i g_i'

    g_j is always the original gradient. ``key`` draws an order for each i; without one the order is 0 .. t-1, and for
    two tasks there is only one. Ones for a zero Gramian. Source: arXiv 2001.06782.
    """
    g, _ = unit_trace(gramian)
    tasks = jnp.arange(len(g))
    square = jnp.where(jnp.diagonal(g) > 0, jnp.diagonal(g), 1)
    order = jnp.tile(tasks, (len(g), 1))
    if key is not None:
        order = jax.random.permutation(key, order, axis=1, independent=True)

    def without_conflicts(i: jax.Array, order: jax.Array) -> jax.Array:
        def project(row: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
            conflict = jnp.where(j == i, 0, jnp.minimum(dot(row, g[j]), 0))
            return row.at[j].add(-conflict / square[j]), None

        return jax.lax.scan(project, (tasks == i).astype(g.dtype), order)[0]

    return jax.vmap(without_conflicts)(tasks, order).sum(0)


@_nan_unless_finite
def cagrad(
    gramian: Float[Array, "t t"], *, key: Key | None = None, c: float = 0.5, norm_eps: float = 1e-4
) -> Float[Array, "t"]:
    """Direction near the mean gradient g_0 that gains most for the worst-off task.

        max_d min_i <g_i, d>  with |d - g_0| <= c |g_0|:     d = g_0 + c |g_0| / |g_w| g_w
        w minimises F(w) = <g_w, g_0> + c |g_0| |g_w|  over the simplex,  g_w = w @ J

    Weights 1/t + c |g_0| / |g_w| w. They are all zero where |g_w| < ``norm_eps`` sqrt(trace G): d has no limit there,
    and a convex combination of the gradients is nearly zero (Pareto-stationary). At most 10 tasks.
    Source: arXiv 2110.14048.
    """
    g, _ = unit_trace(gramian)
    with_mean = g.mean(1)  # <g_i, g_0>
    radius = c * jnp.sqrt(jnp.maximum(with_mean.mean(), 0))
    w = least_linear_plus_norm(g, with_mean, radius)
    norm = jnp.sqrt(jnp.maximum(dot(w, dot(g, w)), 0))
    return jnp.where(norm < norm_eps, 0, 1 / len(g) + radius * w / jnp.maximum(norm, norm_eps))


@_nan_unless_finite
def imtl_g(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Direction with the same projection on every unit task gradient; the weights sum to one.

        v = pinv(G) |g|,   w = v / sum v      <w @ J, g_i> / |g_i| equal for all i (of a Gramian of full rank)

    Weights may be negative. 1/t where sum v vanishes: opposed gradients of equal length, zero Gramian. In float32 an
    angle below about 1e-3 counts as linear dependence, and the weights jump there. Source: Liu et al., *Towards
    impartial multi-task learning*, ICLR 2021.
    """
    g, _ = unit_trace(gramian)
    values, vectors, kept = spectrum(g)
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    v = dot(vectors, inverse * dot(jnp.sqrt(jnp.diagonal(g)), vectors))
    total, size = v.sum(), jnp.abs(v).sum()
    regular = jnp.abs(total) > rounding(g) * size
    return jnp.where(regular, v / jnp.where(regular, total, 1), 1 / len(g))


@_nan_unless_finite
def aligned_mtl(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Mean gradient after every singular value of J is shrunk to the smallest non-zero one.

        w = sigma_min V Lambda^(-1/2) V' 1/t,   G = V Lambda V',  over eigenvalues that are not zero

    1/t for a zero Gramian; float32 as in :func:`imtl_g`. Source: arXiv 2305.19000 (scale by the smallest singular
    value, uniform preference).
    """
    g, trace = unit_trace(gramian)
    values, vectors, kept = spectrum(g)
    smallest = jnp.min(jnp.where(kept, values, jnp.inf))
    shrink = jnp.where(kept, jnp.sqrt(smallest / jnp.where(kept, values, smallest)), 0)
    return jnp.where(trace > 0, dot(vectors, shrink * vectors.mean(0)), 1 / len(g))


@_nan_unless_finite
def upgrad(gramian: Float[Array, "t t"], *, key: Key | None = None, reg_eps: float = 1e-4) -> Float[Array, "t"]:
    """Mean of the task gradients, each projected onto the dual cone {d: <g_i, d> >= 0 for all i}.

        w = 1/t sum_i argmin v'Gv  over v >= e_i (elementwise)

    Conflicts with no task, up to ``reg_eps`` |g|. 1/t for a zero Gramian. At most 10 tasks. Source: arXiv 2406.16232.
    """
    g, _ = unit_trace(gramian)
    unit_vectors = jnp.eye(len(g), dtype=g.dtype)
    return jax.vmap(lambda unit: project_onto_dual_cone(g, unit, reg_eps))(unit_vectors).mean(0)


@_nan_unless_finite
def dualproj(gramian: Float[Array, "t t"], *, key: Key | None = None, reg_eps: float = 1e-4) -> Float[Array, "t"]:
    """Mean gradient projected onto the dual cone {d: <g_i, d> >= 0 for all i}.

        w = argmin v'Gv  over v >= 1/t (elementwise)

    Conflicts with no task, up to ``reg_eps`` |g|. 1/t for a zero Gramian. At most 10 tasks. Source: arXiv 1706.08840,
    in the form of arXiv 2406.16232.
    """
    g, _ = unit_trace(gramian)
    return project_onto_dual_cone(g, jnp.full_like(g[0], 1 / len(g)), reg_eps)


@_nan_unless_finite
def nash_mtl(
    gramian: Float[Array, "t t"], *, key: Key | None = None, reg_eps: float = 1e-6, steps: int = 50
) -> Float[Array, "t"]:
    """Nash bargaining solution: every task gains the same relative to its own weight.

        G a = 1/a  (elementwise), a > 0      the minimum of a'Ga/2 - sum log a

    Two tasks: a_i = 1 / (|g_i| sqrt(1 + cos)). The direction conflicts with no task and has length sqrt(t) whatever
    the gradients' scale, so the weights scale inversely with the gradients. A zero gradient has weight 0.

    Solved by ``steps`` of damped Newton in alpha_i = |g_i| a_i, with 1 + ``reg_eps`` on the diagonal: exactly opposed
    gradients have no solution otherwise. Source: arXiv 2202.01017.
    """
    g, trace = unit_trace(gramian)
    cosine, length = equilibrate(g)
    live = jnp.diagonal(g) > 0
    cosine = jnp.where(jnp.eye(len(g), dtype=bool), 1 + reg_eps, cosine)
    start = jnp.ones_like(length) * jnp.sqrt(len(g) / cosine.sum())  # the best multiple of 1: a'Ga = t at the solution

    def newton(_: Array, a: Array) -> Array:
        gradient = dot(cosine, a) - 1 / a
        step = solve(cosine + jnp.diag(a**-2), gradient)
        decrement = jnp.sqrt(jnp.maximum(dot(gradient, step), 0))
        # The function is self-concordant: this step never leaves a > 0 and always descends, without a line search.
        return a - step / (1 + decrement)

    alpha = jax.lax.fori_loop(0, steps, newton, start)
    return jnp.where(live, alpha / (length * jnp.sqrt(jnp.where(trace > 0, trace, 1))), 0)


_METHODS = (equal, mgda, pcgrad, cagrad, imtl_g, aligned_mtl, upgrad, dualproj, nash_mtl)
WEIGHERS: dict[str, Callable[..., Array]] = {method.__name__: method for method in _METHODS}
