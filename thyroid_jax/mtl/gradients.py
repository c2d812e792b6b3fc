"""From trees of task gradients to their Gramian and back, and the parameter-level penalty that RLAR is to be compared
with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp

from thyroid_jax.shapes import Array, Float


def gramian(gradients: Sequence[Any]) -> Float[Array, "t t"]:
    """G_tu = <g_t, g_u> over all leaves of the tasks' gradient trees, at least float32, products included."""

    def inner(g: Any, h: Any) -> jax.Array:
        precise = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        pairs = zip(jax.tree.leaves(g), jax.tree.leaves(h), strict=True)
        return sum(jnp.vdot(precise(a), precise(b), precision="highest") for a, b in pairs)

    t = len(gradients)
    upper = {(i, j): inner(gradients[i], gradients[j]) for i in range(t) for j in range(i, t)}
    return jnp.stack([jnp.stack([upper[min(i, j), max(i, j)] for j in range(t)]) for i in range(t)])


def combine(weights: Float[Array, "t"], gradients: Sequence[Any]) -> Any:
    """sum_t w_t g_t, leaf by leaf, in the leaves' own precision."""
    return jax.tree.map(
        lambda *leaves: sum(w.astype(leaf.dtype) * leaf for w, leaf in zip(weights, leaves, strict=True)), *gradients
    )


def cosines(gram: Float[Array, "t t"]) -> Float[Array, "p"]:
    """Cosine of every pair of tasks, pairs in the order of itertools.combinations; 0 where a gradient is zero."""
    values = []
    for i, j in combinations(range(gram.shape[0]), 2):
        lengths = jnp.sqrt(gram[i, i]) * jnp.sqrt(gram[j, j])
        values.append(jnp.where(lengths > 0, gram[i, j] / jnp.where(lengths > 0, lengths, 1.0), 0.0))
    return jnp.stack(values)


def alignment(gradients: Sequence[Any]) -> Float[Array, ""]:
    """Mean over the pairs of tasks of cos^2 between their gradient trees, in [0, 1]; a zero gradient counts as cosine 0."""
    gram = gramian(gradients)
    square = jnp.diagonal(gram)
    square = jnp.where(square > 0, square, 1.0)  # cos^2 needs no root, and so has no singular derivative at 0
    pairs = combinations(range(len(gradients)), 2)
    return jnp.stack([(gram[i, j] / square[i]) * (gram[i, j] / square[j]) for i, j in pairs]).mean()


def cosreg(
    task_losses: Mapping[str, Callable[[Any, Any], jax.Array]],
    shared: Any,
    others: Any,
    *,
    summed: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[Float[Array, ""], tuple[Any, Any]]:
    """CosReg and its gradient: :func:`alignment` of the tasks' gradients in the shared parameters (arXiv 1912.06844).

    ``task_losses``: ordered mapping name -> ((shared, others) -> scalar), two at least. Returns (value, (d value / d
    shared, d value / d others)). Second order through the whole network, and exact: with v_t = d value / d g_t, the
    sum over the tasks of the directional derivative of their gradient along v_t, as in
    :func:`thyroid_jax.losses.rlar.forward_over_reverse`. Reverse mode over reverse mode gives the same far more
    slowly on a CPU: differentiating a kernel's gradient asks for convolutions with kernels as large as images.
    """
    first, push = [], []
    for loss in task_losses.values():
        of_both = jax.grad(loss, argnums=(0, 1))
        gradient, along = jax.linearize(lambda shared, of_both=of_both: of_both(shared, others), shared)
        first.append(summed(gradient[0]))
        push.append(along)
    value, v = jax.value_and_grad(alignment)(first)
    return value, jax.tree.map(lambda *terms: sum(terms), *[along(v_t) for along, v_t in zip(push, v)])
