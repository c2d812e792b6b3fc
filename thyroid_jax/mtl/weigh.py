"""Gradient-level multitask weighing: from the Gramian of the task gradients to one weight per task.

Everything here is a pure function of G = J J', the inner products of the t task gradients (the rows of J), and
returns weights w; the update direction is w @ J. Nothing needs the gradients themselves, so a method costs the same
for a thousand or a billion parameters. Signature: ``weigher(gramian f[t t], *, key=None, ...) -> f[t]``, knobs
keyword-only; ``key`` matters to pcgrad only.

Common to all: any jit, vmap or float type (computed in the Gramian's, at least float32); G is first divided by its
trace, so gradients scaled by 1e±8 are as good as any; tasks whose gradient is 1e-15 of the largest count as zero;
finite for every finite Gramian. The small quadratic programs are solved exactly, without a solver: one linear system
for each of the 2^t subsets of tasks, all at once, and the best of the solutions; hence at most 10 tasks for mgda,
cagrad, upgrad and dualproj.

>>> import jax.numpy as jnp
>>> jacobian = jnp.array([[1.0, 0.0], [-1.0, 1.0]])  # two tasks in conflict
>>> direction = mgda(jacobian @ jacobian.T) @ jacobian  # the shortest vector between them: both get better
>>> [round(float(x), 6) for x in direction]
[0.2, 0.4]
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.shapes import Array, Float, Key

_FLOOR = 1e-15  # shortest gradient that counts, relative to all of them: its square is still a normal float32
_MOST_TASKS = 10


def equal(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """w = 1: the plain sum of the task losses."""
    g, _ = _unit_trace(gramian)
    return jnp.ones_like(g[0])


def mgda(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Shortest vector in the convex hull of the task gradients.

        min w'Gw   over w >= 0, sum w = 1

    The direction conflicts with no task: <g_i, w @ J> >= |w @ J|^2. A zero gradient takes all the weight, 1/t each
    for a zero Gramian. At most 10 tasks. Exact, where the source iterates (Frank-Wolfe); two tasks: w_1 = clip((G_22
    - G_12) / (G_11 + G_22 - 2 G_12), 0, 1). Source: arXiv 1810.04650.
    """
    g, trace = _unit_trace(gramian)
    return jnp.where(trace > 0, _min_norm(g), 1 / len(g))


def pcgrad(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Every task's gradient with its conflicts projected away, summed.

        g_i' = g_i;  for j != i in random order:  g_i' -= min(0, <g_i', g_j>) / |g_j|^2 g_j      direction sum_i g_i'

    g_j is always the original. ``key`` draws an order for each i; without one it is 0 .. t-1. Two tasks have only one
    order. Ones for a zero Gramian. Source: arXiv 2001.06782.
    """
    g, _ = _unit_trace(gramian)
    tasks = jnp.arange(len(g))
    square = jnp.where(jnp.diagonal(g) > 0, jnp.diagonal(g), 1)
    order = jnp.tile(tasks, (len(g), 1))
    if key is not None:
        order = jax.random.permutation(key, order, axis=1, independent=True)

    def without_conflicts(i: jax.Array, order: jax.Array) -> jax.Array:
        def project(row: jax.Array, j: jax.Array) -> tuple[jax.Array, None]:
            conflict = jnp.where(j == i, 0, jnp.minimum(_dot(row, g[j]), 0))
            return row.at[j].add(-conflict / square[j]), None

        return jax.lax.scan(project, (tasks == i).astype(g.dtype), order)[0]

    return jax.vmap(without_conflicts)(tasks, order).sum(0)


def cagrad(
    gramian: Float[Array, "t t"], *, key: Key | None = None, c: float = 0.5, norm_eps: float = 1e-4
) -> Float[Array, "t"]:
    """Direction near the mean gradient g_0 that does most for the worst-off task.

        max_d min_i <g_i, d>  with |d - g_0| <= c |g_0|:     d = g_0 + c |g_0| / |g_w| g_w
        w minimises F(w) = <g_w, g_0> + c |g_0| |g_w|  over the simplex,  g_w = w @ J

    On the support of w, u = c |g_0| w / |g_w| solves G u = lambda 1 - G 1/t with u'Gu = c^2 |g_0|^2, a quadratic in
    lambda. Weights 1/t + u; all zero where |g_w| < norm_eps sqrt(trace G), as with a zero gradient. At most 10 tasks.
    Source: arXiv 2110.14048.
    """
    g, _ = _unit_trace(gramian)
    unit, length = _equilibrate(g)
    b = g.mean(1)
    phi = c * jnp.sqrt(jnp.maximum(b.mean(), 0))

    def candidate(support: jax.Array) -> jax.Array:
        right = jnp.where(support[:, None], jnp.stack([jnp.ones_like(b), b], 1) / length[:, None], 0)
        p, q = (_solve(_restrict(unit, support), right) / length[:, None]).T
        root = jnp.sqrt(
            jnp.maximum(q.sum() ** 2 - p.sum() * (_dot(b, q) - phi**2), 0)
        )  # = sum u, so the other root is no solution
        return _to_simplex((q.sum() + root) / p.sum() * p - q, support)

    # A hull that touches zero has its minimum there or at one of the candidates, whose systems are then regular.
    w = jnp.concatenate([jax.vmap(candidate)(_subsets(len(g))[1:]), _min_norm(g)[None]])
    norm = jnp.sqrt(jnp.maximum((_dot(w, g) * w).sum(1), 0))
    best = jnp.argmin(_dot(w, b) + phi * norm)
    # g_w / |g_w| has no limit at g_w = 0. There some mixture of the tasks stands still already (Pareto-
    # stationary): stay.
    u = phi * w[best] / jnp.maximum(norm[best], norm_eps)
    return jnp.where(norm[best] < norm_eps, 0, 1 / len(g) + u)


def imtl_g(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Direction with the same projection on every unit task gradient, weights that sum to one.

        v = pinv(G) |g|,   w = v / sum v      <w @ J, g_i> / |g_i| equal for all i (of a Gramian of full rank)

    Weights may be negative. 1/t where sum v vanishes: opposed gradients of equal length, zero Gramian. In float32 an
    angle below about 1e-3 counts as linear dependence, and weights jump there. Source: Liu et al., *Towards impartial
    multi-task learning*, ICLR 2021.
    """
    g, _ = _unit_trace(gramian)
    values, vectors, kept = _spectrum(g)
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1), 0)
    v = _dot(vectors, inverse * _dot(jnp.sqrt(jnp.diagonal(g)), vectors))
    total, size = v.sum(), jnp.abs(v).sum()
    regular = jnp.abs(total) > _rounding(g) * size
    return jnp.where(regular, v / jnp.where(regular, total, 1), 1 / len(g))


def aligned_mtl(gramian: Float[Array, "t t"], *, key: Key | None = None) -> Float[Array, "t"]:
    """Mean gradient after every singular value of J is shrunk to the smallest non-zero one.

        w = sigma_min V Lambda^(-1/2) V' 1/t,   G = V Lambda V',  over eigenvalues that are not zero

    1/t for a zero Gramian; float32 as in imtl_g. Source: arXiv 2305.19000 (scale by the smallest singular value,
    uniform preference).
    """
    g, trace = _unit_trace(gramian)
    values, vectors, kept = _spectrum(g)
    smallest = jnp.min(jnp.where(kept, values, jnp.inf))
    shrink = jnp.where(kept, jnp.sqrt(smallest / jnp.where(kept, values, smallest)), 0)
    return jnp.where(trace > 0, _dot(vectors, shrink * vectors.mean(0)), 1 / len(g))


def upgrad(gramian: Float[Array, "t t"], *, key: Key | None = None, reg_eps: float = 1e-4) -> Float[Array, "t"]:
    """Mean of the task gradients, each projected onto the dual cone {d: <g_i, d> >= 0 for all i}.

        w = 1/t sum_i argmin v'Gv  over v >= e_i (elementwise)

    Conflicts with no task, up to ``reg_eps`` |g|. 1/t for a zero Gramian. At most 10 tasks. Source: arXiv 2406.16232.
    """
    g, _ = _unit_trace(gramian)
    return jax.vmap(lambda u: _project(g, u, reg_eps))(jnp.eye(len(g), dtype=g.dtype)).mean(0)


def dualproj(gramian: Float[Array, "t t"], *, key: Key | None = None, reg_eps: float = 1e-4) -> Float[Array, "t"]:
    """Mean gradient projected onto the dual cone {d: <g_i, d> >= 0 for all i}.

        w = argmin v'Gv  over v >= 1/t (elementwise)

    Conflicts with no task, up to ``reg_eps`` |g|. 1/t for a zero Gramian. At most 10 tasks. Source: arXiv 1706.08840,
    as in 2406.16232.
    """
    g, _ = _unit_trace(gramian)
    return _project(g, jnp.full_like(g[0], 1 / len(g)), reg_eps)


def nash_mtl(
    gramian: Float[Array, "t t"], *, key: Key | None = None, reg_eps: float = 1e-6, steps: int = 50
) -> Float[Array, "t"]:
    """Nash bargaining solution: every task gains the same relative to its own weight.

        G a = 1/a  (elementwise), a > 0      the minimum of a'Ga/2 - sum log a

    The direction has length sqrt(t) whatever the gradients' scale, so weights scale inversely with the gradients; it
    conflicts with no task. Two tasks: a_i = 1 / (|g_i| sqrt(1 + cos)). ``steps`` of damped Newton in alpha_i = |g_i|
    a_i, where 1 + ``reg_eps`` stands on the diagonal: exactly opposed gradients have no solution otherwise. A zero
    gradient has weight 0. Source: arXiv 2202.01017.
    """
    g, trace = _unit_trace(gramian)
    unit, length = _equilibrate(g)
    live = jnp.diagonal(g) > 0
    unit = jnp.where(jnp.eye(len(g), dtype=bool), 1 + reg_eps, unit)
    start = jnp.ones_like(length) * jnp.sqrt(len(g) / unit.sum())  # the best multiple of 1: a'Ga = t at the solution

    def newton(_: jax.Array, a: jax.Array) -> jax.Array:
        gradient = _dot(unit, a) - 1 / a
        step = _solve(unit + jnp.diag(a**-2), gradient)
        decrement = jnp.sqrt(jnp.maximum(_dot(gradient, step), 0))
        # The function is self-concordant: this step never leaves a > 0 and always descends, without a line search.
        return a - step / (1 + decrement)

    alpha = jax.lax.fori_loop(0, steps, newton, start)
    return jnp.where(live, alpha / (length * jnp.sqrt(jnp.where(trace > 0, trace, 1))), 0)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in the full precision of its type: accelerators round float32 factors by default."""
    return jnp.matmul(a, b, precision="highest")


def _unit_trace(gramian: Float[Array, "t t"]) -> tuple[Float[Array, "t t"], Float[Array, ""]]:
    """Gramian over its trace, rows and columns of vanishing gradients exactly 0; and the trace (0 if it vanishes too)."""
    g = jnp.asarray(gramian)
    g = g.astype(jnp.promote_types(g.dtype, jnp.float32))
    trace = jnp.trace(g)
    trace = jnp.where(trace > jnp.finfo(g.dtype).tiny, trace, 0)
    g = g / jnp.where(trace > 0, trace, 1)
    live = jnp.diagonal(g) > _FLOOR**2
    return jnp.where(live[:, None] & live[None, :] & (trace > 0), g, 0), trace


def _equilibrate(g: Float[Array, "t t"]) -> tuple[Float[Array, "t t"], Float[Array, "t"]]:
    """Cosines of the task gradients and their lengths: systems in the cosines keep float32 accurate when lengths differ
    by 1e4.
    """
    length = jnp.sqrt(jnp.maximum(jnp.diagonal(g), _FLOOR**2))
    return g / length[:, None] / length[None, :], length


def _subsets(tasks: int) -> np.ndarray:
    """bool[2^t t]: all subsets of the tasks, the empty one first."""
    if tasks > _MOST_TASKS:
        raise ValueError(f"{tasks} tasks have 2^{tasks} subsets; this method takes at most {_MOST_TASKS} tasks.")
    return (np.arange(2**tasks)[:, None] >> np.arange(tasks)[None]) % 2 == 1


def _restrict(matrix: Float[Array, "t t"], subset: jax.Array) -> Float[Array, "t t"]:
    """The matrix on a subset of the tasks and the identity elsewhere: a subset's system, always of size t."""
    return jnp.where(subset[:, None] & subset[None, :], matrix, jnp.eye(len(matrix), dtype=matrix.dtype))


def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Solution of a linear system; 0 where a singular matrix gives none."""
    x = jnp.linalg.solve(matrix, right)
    return jnp.where(jnp.isfinite(x), x, 0)


def _to_simplex(w: Float[Array, "t"], support: jax.Array) -> Float[Array, "t"]:
    """Weights clipped to w >= 0 and divided by their sum; uniform on the support when nothing is left of them.

    Candidates of a wrong or singular support become feasible points like any other, so the best one is found without
    tolerances.
    """
    w = jnp.where(jnp.isfinite(w), jnp.maximum(w, 0), 0)
    w = jnp.where(w.max() > 0, w / jnp.where(w.max() > 0, w.max(), 1), support)
    return w / w.sum()


def _min_norm(g: Float[Array, "t t"]) -> Float[Array, "t"]:
    """Weights of the shortest vector in the convex hull; the right support has an affine hull whose shortest vector lies
    inside it.
    """
    t = len(g)
    unit, length = _equilibrate(g)
    ones = length.min() / length

    def candidate(support: jax.Array) -> tuple[jax.Array, jax.Array]:
        edge = jnp.where(support, ones, 0)[:, None]
        bordered = jnp.block([[_restrict(unit, support), edge], [edge.T, jnp.zeros_like(edge[:1])]])
        x = _solve(bordered, jnp.zeros_like(g, shape=t + 1).at[t].set(1))[:t]
        w = _to_simplex(jnp.where(support, x * ones, 0), support)
        x = w * length
        slack = (
            _dot(unit, x) - _dot(x, _dot(unit, x)) / length
        )  # (Gw)_i - w'Gw, at least 0 at the solution and 0 where w_i > 0
        return w, jnp.abs(jnp.minimum(x, slack)).max()

    w, violation = jax.vmap(candidate)(_subsets(t)[1:])
    return w[jnp.argmin(violation)]


def _project(g: Float[Array, "t t"], u: Float[Array, "t"], reg_eps: float) -> Float[Array, "t"]:
    """Weights of u @ J projected onto the dual cone of the rows of J: min v'Gv over v >= u.

    With v_i = u_i outside a free set, (Gv)_i = 0 inside; the right set leaves v >= u and Gv >= 0. ``reg_eps`` on the
    diagonal of the unit-trace G makes v unique where gradients are linearly dependent, and well-conditioned
    otherwise.
    """
    g = g + reg_eps * jnp.eye(len(g), dtype=g.dtype)
    unit, length = _equilibrate(g)
    least = u * length

    def candidate(free: jax.Array) -> tuple[jax.Array, jax.Array]:
        fixed = jnp.where(free, 0, least)
        x = _solve(_restrict(unit, free), jnp.where(free, -_dot(unit, fixed), fixed))
        x = jnp.maximum(x, least)
        return x, jnp.abs(jnp.minimum(x - least, _dot(unit, x))).max()  # 0 at the solution only

    x, violation = jax.vmap(candidate)(_subsets(len(g)))
    return jnp.maximum(x[jnp.argmin(violation)] / length, u)


def _rounding(g: Float[Array, "t t"]) -> float:
    """What an error of the last digits can make of zero, relative to the largest eigenvalue."""
    return 8 * len(g) * float(jnp.finfo(g.dtype).eps)


def _spectrum(g: Float[Array, "t t"]) -> tuple[Float[Array, "t"], Float[Array, "t t"], jax.Array]:
    """Eigenvalues, eigenvectors (columns) and which eigenvalues are not zero.

    G has the rank of its cosines, where a short gradient is not mistaken for a zero one.
    """
    cosines, _ = _jacobi(_equilibrate(g)[0])
    rank = (cosines > _rounding(g) * cosines.max()).sum()
    values, vectors = _jacobi(g)
    place = jnp.argsort(jnp.argsort(-values))
    return values, vectors, (place < rank) & (values > 0)


def _jacobi(matrix: Float[Array, "t t"], sweeps: int = 8) -> tuple[Float[Array, "t"], Float[Array, "t t"]]:
    """Eigenvalues and eigenvectors (columns) by cyclic Jacobi rotations.

    Small eigenvalues of a Gramian keep their relative accuracy, which those of ``eigh`` lose next to large ones: with
    gradients of lengths 1 and 1e-4, all of it in float32. Source: Demmel and Veselić, *Jacobi's method is more
    accurate than QR*, 1992.
    """
    t = len(matrix)
    pairs = np.stack(np.triu_indices(t, 1), 1)

    def rotate(number: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, vectors = state
        p, q = jnp.asarray(pairs)[number % len(pairs)]
        flat = a[p, q] == 0
        tau = (a[q, q] - a[p, p]) / jnp.where(flat, 1, 2 * a[p, q])
        tangent = jnp.where(flat, 0, jnp.where(tau < 0, -1, 1) / (jnp.abs(tau) + jnp.sqrt(1 + tau**2)))
        cosine = 1 / jnp.sqrt(1 + tangent**2)
        sine = tangent * cosine
        rotation = (
            jnp.eye(t, dtype=a.dtype).at[p, p].set(cosine).at[q, q].set(cosine).at[p, q].set(sine).at[q, p].set(-sine)
        )
        return _dot(_dot(rotation.T, a), rotation), _dot(vectors, rotation)

    state = matrix, jnp.eye(t, dtype=matrix.dtype)
    a, vectors = jax.lax.fori_loop(0, sweeps * len(pairs), rotate, state) if t > 1 else state
    return jnp.diagonal(a), vectors


_RULES = (equal, mgda, pcgrad, cagrad, imtl_g, aligned_mtl, upgrad, dualproj, nash_mtl)
WEIGHERS: dict[str, Callable] = {rule.__name__: rule for rule in _RULES}
