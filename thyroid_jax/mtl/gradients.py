"""Gramian, weighted sum and cosines of the tasks' gradient trees, and CosReg, a penalty on parameter gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp

from thyroid_jax.shapes import Array, Float


def gramian(gradients: Sequence[Any]) -> Float[Array, "t t"]:
    """G_tu = <g_t, g_u> over all leaves of the tasks' gradient trees, computed in float32 at least.

    ValueError when the trees have different numbers of leaves.
    """
    t = len(gradients)
    upper = {(i, j): _inner_product(gradients[i], gradients[j]) for i in range(t) for j in range(i, t)}
    return jnp.stack([jnp.stack([upper[min(i, j), max(i, j)] for j in range(t)]) for i in range(t)])


def _inner_product(g: Any, h: Any) -> Float[Array, ""]:
    """Sum over the leaves of two trees of their products, in the full precision of float32 at least."""
    at_least_single = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    leaves = zip(jax.tree.leaves(g), jax.tree.leaves(h), strict=True)
    return reduce(jnp.add, (jnp.vdot(at_least_single(a), at_least_single(b), precision="highest") for a, b in leaves))


def combine(weights: Float[Array, "t"], gradients: Sequence[Any]) -> Any:
    """sum_t w_t g_t, leaf by leaf, each in its own precision."""
    return jax.tree.map(
        lambda *leaves: sum(w.astype(leaf.dtype) * leaf for w, leaf in zip(weights, leaves, strict=True)), *gradients
    )


def cosines(gram: Float[Array, "t t"]) -> Float[Array, "p"]:
    """Cosine between the gradients of every pair of tasks, in [-1, 1]; 0 where one of them is zero.

    The p = t (t - 1) / 2 pairs come in the order of ``itertools.combinations``.
    """
    values = []
    for i, j in combinations(range(gram.shape[0]), 2):
        lengths = jnp.sqrt(gram[i, i]) * jnp.sqrt(gram[j, j])
        values.append(jnp.where(lengths > 0, gram[i, j] / jnp.where(lengths > 0, lengths, 1.0), 0.0))
    return jnp.stack(values)


def alignment(gradients: Sequence[Any]) -> Float[Array, ""]:
    """Mean over the pairs of tasks of cos^2 between their gradient trees, in [0, 1].

    A zero gradient counts as cosine 0, and the derivative is finite there.
    """
    gram = gramian(gradients)
    square = jnp.diagonal(gram)
    square = jnp.where(square > 0, square, 1.0)  # cos^2 needs no root, and so has no singular derivative at 0
    pairs = combinations(range(len(gradients)), 2)
    return jnp.stack([(gram[i, j] / square[i]) * (gram[i, j] / square[j]) for i, j in pairs]).mean()


def cosreg(
    task_losses: Mapping[str, Callable[[Any, Any], Array]],
    shared: Any,
    others: Any,
    *,
    summed: Callable[[Any], Any] = lambda tree: tree,
) -> tuple[Float[Array, ""], tuple[Any, Any]]:
    """CosReg, the :func:`alignment` of the tasks' gradients in the shared parameters, and its gradient.

    The gradient is exact, of second order through the whole network: with v_t = d value / d g_t it is the sum over
    the tasks of the derivative of their gradient in the direction v_t. Reverse mode over reverse mode gives the same
    numbers far more slowly on a CPU: the derivative of a kernel's gradient is a convolution with a kernel as large as
    the image.

    Args:
        task_losses: ordered mapping name -> ((shared, others) -> scalar), two tasks at least.
        shared: tree of the parameters in which the gradients are compared.
        others: tree of the other parameters.
        summed: adds up a tree over the devices that a batch is spread over. The gradients compared are then those of
            the whole batch, and the returned gradient is this device's part.

    Returns:
        (value in [0, 1], (d value / d shared, d value / d others)).

    Source: arXiv 1912.06844.
    """
    gradients, derivatives = [], []
    for loss in task_losses.values():
        gradient_of = jax.grad(loss, argnums=(0, 1))
        (in_shared, _), along = jax.linearize(
            lambda shared, gradient_of=gradient_of: gradient_of(shared, others), shared
        )
        gradients.append(summed(in_shared))
        derivatives.append(along)
    value, directions = jax.value_and_grad(alignment)(gradients)
    terms = [along(direction) for along, direction in zip(derivatives, directions)]
    return value, jax.tree.map(lambda *of_tasks: sum(of_tasks), *terms)
