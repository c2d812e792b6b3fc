"""Losses between grade logits and a grade or a distribution of grades, one value per image.

``where`` (bool[b]) marks the images that have a grade; the others give 0 with a zero gradient. Each loss has its own
way to read probabilities from the same k logits: :func:`probabilities`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from thyroid_jax.losses.reduce import fill, fill_both, keep
from thyroid_jax.shapes import Array, Bool, Float


def cross_entropy(
    logits: Float[Array, "b k"],
    target: Float[Array, "b k"],
    *,
    class_weights: Sequence[float] | Float[Array, "k"] | None = None,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """Cross-entropy - sum_j w_j t_j log softmax(x)_j, >= 0, in nats.

    ``target`` t is one-hot or any distribution over the grades; ``class_weights`` w_j >= 0, all 1 by default.
    """
    logits, target = fill_both(logits, target, where)
    weighted = _weighted(target, class_weights)
    return keep(-(weighted * jax.nn.log_softmax(logits, axis=-1)).sum(-1), where)


def corn(
    logits: Float[Array, "b k"],
    target: Float[Array, "b k"],
    *,
    class_weights: Sequence[float] | Float[Array, "k"] | None = None,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """CORN, conditional ordinal regression: sum over j = 1 .. k-1 of the cross-entropy of [y >= j] where y >= j-1.

    With f_j = logits[:, j] (logits[:, 0] is not used) and P(y >= j | y >= j-1) = sigmoid(f_j):

        L = sum_j [ T_j softplus(-f_j) + (T_{j-1} - T_j) softplus(f_j) ],      T_j = sum_{i >= j} w_i t_i

    which is -sum_y w_y t_y log P(y) for the distribution of :func:`probabilities`, in nats. So soft targets need no
    special case, and the loss has the scale of :func:`cross_entropy`: the task's weight means the same for both.
    Shi, Cao, Raschka, arXiv 2111.08851 (there: hard labels, and one mean over tasks and examples, so divided by k - 1).
    """
    logits, target = fill_both(logits, target, where)
    weighted = _weighted(target, class_weights)
    at_least = jnp.flip(jnp.cumsum(jnp.flip(weighted, -1), -1), -1)
    passed, stopped = at_least[:, 1:], at_least[:, :-1] - at_least[:, 1:]
    steps = logits[:, 1:]
    return keep((passed * jax.nn.softplus(-steps) + stopped * jax.nn.softplus(steps)).sum(-1), where)


def probabilities(logits: Float[Array, "b k"], *, kind: str) -> Float[Array, "b k"]:
    """Grade probabilities, rows sum to 1, as the loss ``kind`` reads the logits; computed in float32 at least.

    cross_entropy: softmax. corn: P(y >= j) = prod_{i <= j} sigmoid(f_i), P(y = j) = P(y >= j) - P(y >= j+1).
    """
    logits = fill(logits, None)
    if kind == "cross_entropy":
        return jax.nn.softmax(logits, axis=-1)
    if kind != "corn":
        raise ValueError(f"grading kind {kind!r}: choose one of {', '.join(LOSSES)}.")
    reach = jnp.exp(jnp.cumsum(jax.nn.log_sigmoid(logits[:, 1:]), axis=-1))
    reach = jnp.pad(reach, ((0, 0), (1, 0)), constant_values=1.0)
    return reach - jnp.pad(reach[:, 1:], ((0, 0), (0, 1)))


def _weighted(
    target: Float[Array, "b k"], class_weights: Sequence[float] | Float[Array, "k"] | None
) -> Float[Array, "b k"]:
    if class_weights is None or len(class_weights) == 0:
        return target
    if len(class_weights) != target.shape[-1]:
        raise ValueError(f"{len(class_weights)} class weights for {target.shape[-1]} grades.")
    return target * jnp.asarray(class_weights, jnp.result_type(target))[None]


LOSSES = {"cross_entropy": cross_entropy, "corn": corn}
