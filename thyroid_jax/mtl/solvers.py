"""Exact solvers for the small problems of gradient weighing: quadratic programs and eigenvalues of t x t matrices.

t is the number of tasks, G the Gramian of their gradients. A program over t non-negative variables is solved without
an iteration: it is one linear system for each of the 2^t sets of variables that may be free (or above zero). All
systems are solved at once, each solution is clipped to a feasible point, and the best point is returned. At most
:data:`MOST_TASKS` tasks, else ValueError. Everything works under jit and vmap, in float32 and float64.

>>> import jax.numpy as jnp
>>> w = shortest_in_hull(jnp.array([[2.0, 1.0], [1.0, 5.0]]))
>>> [round(float(x), 6) for x in w]
[0.8, 0.2]
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.shapes import Array, Bool, Float

MOST_TASKS = 10
SHORTEST_GRADIENT = 1e-15  # relative to all gradients together: its square is still a normal float32 number


def dot(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Matrix product in the full precision of its type: accelerators round float32 factors by default."""
    return jnp.matmul(a, b, precision="highest")


def unit_trace(gramian: Float[Array, "t t"]) -> tuple[Float[Array, "t t"], Float[Array, ""]]:
    """The Gramian divided by its trace, at least float32, and the trace.

    Rows and columns of gradients shorter than ``SHORTEST_GRADIENT`` of all together are exactly 0. A trace too small
    for a normal number is returned as 0, with a zero matrix. ValueError for a matrix that is not square.
    """
    g = jnp.asarray(gramian)
    if g.ndim != 2 or g.shape[0] != g.shape[1]:
        raise ValueError(f"a Gramian of shape {g.shape}: it is f[t t].")
    g = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    trace = jnp.trace(g)
    trace = jnp.where(trace <= jnp.finfo(g.dtype).tiny, 0, trace)  # NaN stays NaN
    g = g / jnp.where(trace > 0, trace, 1)
    live = jnp.diagonal(g) > SHORTEST_GRADIENT**2
    return jnp.where(live[:, None] & live[None, :] & (trace > 0), g, 0), trace


def equilibrate(g: Float[Array, "t t"]) -> tuple[Float[Array, "t t"], Float[Array, "t"]]:
    """Cosines between the task gradients, and the gradients' lengths (at least ``SHORTEST_GRADIENT``).

    Systems in the cosines stay accurate in float32 where the lengths differ by 1e4.
    """
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(g), SHORTEST_GRADIENT**2))
    return g / length[:, None] / length[None, :], length


def shortest_in_hull(g: Float[Array, "t t"]) -> Float[Array, "t"]:
    """Weights of the shortest vector in the convex hull of the task gradients.

        min w'Gw   over w >= 0, sum w = 1

    For each set of tasks: the shortest vector of its affine hull, from one bordered system. The right set is the one
    whose vector meets the optimality conditions: w_i >= 0 and (Gw)_i >= w'Gw, with equality in one of them for each i.
    """
    t = len(g)
    cosine, length = equilibrate(g)
    ones = length.min() / length

    def candidate(support: Array) -> tuple[Array, Array]:
        edge = jnp.where(support, ones, 0)
        bordered = jnp.zeros_like(g, shape=(t + 1, t + 1))
        bordered = bordered.at[:t, :t].set(restrict(cosine, support)).at[:t, t].set(edge).at[t, :t].set(edge)
        x = solve(bordered, jnp.zeros_like(g, shape=t + 1).at[t].set(1))[:t]
        w = onto_simplex(jnp.where(support, x * ones, 0), support)
        x = w * length
        slack = dot(cosine, x) - dot(x, dot(cosine, x)) / length  # (Gw)_i - w'Gw, divided by the length of g_i
        return w, jnp.abs(jnp.minimum(x, slack)).max()  # 0 at the solution only

    w, violation = jax.vmap(candidate)(subsets(t)[1:])
    return w[jnp.argmin(violation)]


def least_linear_plus_norm(
    g: Float[Array, "t t"], linear: Float[Array, "t"], factor: Float[Array, ""]
) -> Float[Array, "t"]:
    """Weights that minimise F(w) = <linear, w> + factor sqrt(w'Gw) over w >= 0, sum w = 1; ``factor`` >= 0.

    ``linear`` = G a for some a, so that it has no part outside the range of G. On the support of the solution
    u = factor w / sqrt(w'Gw) solves G u = lambda 1 - linear with u'Gu = factor^2, a quadratic equation in lambda, of
    which one root has u >= 0. If the hull contains zero, the minimum is at :func:`shortest_in_hull` or at a set
    of tasks whose system is regular.
    """
    cosine, length = equilibrate(g)

    def candidate(support: Array) -> Array:
        right = jnp.where(support[:, None], jnp.stack([jnp.ones_like(linear), linear], 1) / length[:, None], 0)
        p, q = (solve(restrict(cosine, support), right) / length[:, None]).T
        discriminant = q.sum() ** 2 - p.sum() * (dot(linear, q) - factor**2)
        sum_of_u = jnp.sqrt(jnp.maximum(discriminant, 0))  # the other root would make this sum negative
        return onto_simplex((q.sum() + sum_of_u) / p.sum() * p - q, support)

    w = jnp.concatenate([jax.vmap(candidate)(subsets(len(g))[1:]), shortest_in_hull(g)[None]])
    norm = jnp.sqrt(jnp.maximum((dot(w, g) * w).sum(1), 0))
    return w[jnp.argmin(dot(w, linear) + factor * norm)]


def project_onto_dual_cone(g: Float[Array, "t t"], u: Float[Array, "t"], reg_eps: float) -> Float[Array, "t"]:
    """Weights of the vector u @ J projected onto the dual cone {d: <g_i, d> >= 0 for all i} of the rows of J.

        min v'Gv   over v >= u (elementwise)

    For each set of tasks: v_i = u_i outside the set and (Gv)_i = 0 inside. The right set leaves v >= u and Gv >= 0.
    ``reg_eps`` is added to the diagonal of G, which has unit trace: v is then unique where gradients are linearly
    dependent, and well conditioned elsewhere.
    """
    g = g + reg_eps * jnp.eye(len(g), dtype=g.dtype)
    cosine, length = equilibrate(g)
    least = u * length

    def candidate(free: Array) -> tuple[Array, Array]:
        fixed = jnp.where(free, 0, least)
        x = solve(restrict(cosine, free), jnp.where(free, -dot(cosine, fixed), fixed))
        x = jnp.maximum(x, least)
        return x, jnp.abs(jnp.minimum(x - least, dot(cosine, x))).max()  # 0 at the solution only

    x, violation = jax.vmap(candidate)(subsets(len(g)))
    return jnp.maximum(x[jnp.argmin(violation)] / length, u)


def subsets(tasks: int) -> Bool[Array, "s t"]:
    """All 2^t subsets of the tasks, the empty one first. ValueError for more than ``MOST_TASKS`` tasks."""
    if tasks > MOST_TASKS:
        raise ValueError(f"{tasks} tasks have 2^{tasks} subsets; this method takes at most {MOST_TASKS} tasks.")
    return (np.arange(2**tasks)[:, None] >> np.arange(tasks)[None]) % 2 == 1


def restrict(matrix: Float[Array, "t t"], subset: Bool[Array, "t"]) -> Float[Array, "t t"]:
    """The matrix on a subset of the tasks, the identity elsewhere: the subset's system, always of size t."""
    return jnp.where(subset[:, None] & subset[None, :], matrix, jnp.eye(len(matrix), dtype=matrix.dtype))


def solve(matrix: Float[Array, "n n"], right: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
    """Solution of a linear system; 0 where a singular matrix gives no finite number."""
    x = jnp.linalg.solve(matrix, right)
    return jnp.where(jnp.isfinite(x), x, 0)


def onto_simplex(w: Float[Array, "t"], support: Bool[Array, "t"]) -> Float[Array, "t"]:
    """Weights clipped to w >= 0 and divided by their sum; uniform on the support when none is above 0.

    The candidate of a wrong or singular set becomes a feasible point too. So the best one is found without a
    tolerance.
    """
    w = jnp.where(jnp.isfinite(w), jnp.maximum(w, 0), 0)
    w = jnp.where(w.max() > 0, w / jnp.where(w.max() > 0, w.max(), 1), support)
    return w / w.sum()


def rounding(g: Float[Array, "t t"]) -> float:
    """Size, relative to the largest eigenvalue, that rounding errors can give to a zero eigenvalue."""
    return 8 * len(g) * float(jnp.finfo(g.dtype).eps)


def spectrum(g: Float[Array, "t t"]) -> tuple[Float[Array, "t"], Float[Array, "t t"], Bool[Array, "t"]]:
    """Eigenvalues of a Gramian, its eigenvectors (columns), and which eigenvalues are not zero.

    The rank is that of the cosines, where a short gradient is not mistaken for a zero one.
    """
    of_cosines, _ = jacobi(equilibrate(g)[0])
    rank = (of_cosines > rounding(g) * of_cosines.max()).sum()
    values, vectors = jacobi(g)
    place = jnp.argsort(jnp.argsort(-values))
    return values, vectors, (place < rank) & (values > 0)


def jacobi(matrix: Float[Array, "t t"], sweeps: int = 8) -> tuple[Float[Array, "t"], Float[Array, "t t"]]:
    """Eigenvalues and eigenvectors (columns) of a symmetric matrix by cyclic Jacobi rotations.

    Small eigenvalues of a Gramian keep their relative accuracy. ``eigh`` loses it next to large eigenvalues: all of
    it in float32, for gradients of lengths 1 and 1e-4. Source: Demmel and Veselić, *Jacobi's method is more accurate
    than QR*, 1992.
    """
    t = len(matrix)
    pairs = np.stack(np.triu_indices(t, 1), 1)

    def rotate(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        a, vectors = state
        p, q = jnp.asarray(pairs)[number % len(pairs)]
        diagonal_already = a[p, q] == 0
        tau = (a[q, q] - a[p, p]) / jnp.where(diagonal_already, 1, 2 * a[p, q])
        smaller_root = jnp.where(tau < 0, -1, 1) / (jnp.abs(tau) + jnp.sqrt(1 + tau**2))
        tangent = jnp.where(diagonal_already, 0, smaller_root)
        cosine = 1 / jnp.sqrt(1 + tangent**2)
        sine = tangent * cosine
        rotation = jnp.eye(t, dtype=a.dtype).at[p, p].set(cosine).at[q, q].set(cosine)
        rotation = rotation.at[p, q].set(sine).at[q, p].set(-sine)
        return dot(dot(rotation.T, a), rotation), dot(vectors, rotation)

    state = matrix, jnp.eye(t, dtype=matrix.dtype)
    a, vectors = jax.lax.fori_loop(0, sweeps * len(pairs), rotate, state) if t > 1 else state
    return jnp.diagonal(a), vectors
