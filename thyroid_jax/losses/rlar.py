"""Representation-level adversarial regularisation: the tasks' adversarial directions at the latent, and the penalty on their angle.

Each task t has a direction in which a small change of the latent would hurt it most, a_t = normalised d L_t / d z. RLAR keeps these
directions from lining up too closely: it acts on the geometry of the representation, not on the parameters' gradients.
Paper: arXiv 2603.21095. The abstract states the idea; the space, the penalty's form and its weight are this project's choices.

>>> import jax, jax.numpy as jnp
>>> z = jax.random.normal(jax.random.key(0), (3, 4, 4, 8))
>>> tasks = {"one": lambda z: jnp.tanh(z[..., 0]).sum((1, 2)), "two": lambda z: (z**2).mean((1, 2, 3))}
>>> directions = adversarial_directions(tasks, z)
>>> directions.unit.shape, angular_penalty(directions.unit).shape
((2, 3, 8), (3,))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.losses.reduce import keep
from thyroid_jax.shapes import Bool, Float

TaskLosses = Mapping[str, Callable[[jax.Array], jax.Array]]
_EPS = 1e-12  # far below any gradient that means something, and its square is still a normal float32


class Directions(NamedTuple):
    """What the probe sees, in the tasks' order: unit vectors, the gradients' lengths before normalisation, and the losses themselves.

    unit f32[t b d] (zero where a gradient is zero), norm f32[t b] >= 0, loss f32[t b].
    """

    unit: Float["t b d"]
    norm: Float["t b"]
    loss: Float["t b"]


def adversarial_directions(
    task_losses: TaskLosses, latent: Float["b y x c"], *, space: Literal["channel", "full"] = "channel"
) -> Directions:
    """Normalised gradient of each task's per-example loss with respect to the latent.

        g_t,i = d (sum_i L_t,i) / d z_i        a_t,i = g_t,i / sqrt(|g_t,i|^2 + eps^2)

    ``task_losses``: ordered mapping name -> (z -> f32[b]); example i's loss may depend on row i of z only. The sum over examples, not
    the mean, so that a direction does not depend on the batch. ``space="channel"`` differentiates by an offset in R^c added at every
    position (d = c: a pooled grade gradient is constant over space while a mask gradient oscillates, so cosines of the full vectors
    crowd at 0); ``space="full"`` takes all of z (d = y x c). At least float32, whatever the networks compute in. Differentiable: the
    result's own gradient is second order and exact. A zero gradient, as of a masked example, gives a zero direction and finite
    derivatives.
    """
    if space not in ("channel", "full"):
        raise ValueError(f'space {space!r}: choose "channel" or "full".')
    latent = latent.astype(jnp.promote_types(latent.dtype, jnp.float32))
    probe = jnp.zeros_like(latent[:, :1, :1, :]) if space == "channel" else jnp.zeros_like(latent)

    def gradient(loss: Callable[[jax.Array], jax.Array]) -> tuple[jax.Array, jax.Array]:
        def total(offset: jax.Array) -> tuple[jax.Array, jax.Array]:
            values = loss(latent + offset).astype(latent.dtype)
            return values.sum(), values

        g, values = jax.grad(total, has_aux=True)(probe)
        return g.reshape(latent.shape[0], -1), values

    gradients, losses = zip(*(gradient(loss) for loss in task_losses.values()))
    g = jnp.stack(gradients)
    norm = jnp.sqrt((g**2).sum(-1) + _EPS**2)  # one root of the sum of squares: a bare norm has no gradient at 0
    return Directions(unit=g / norm[..., None], norm=norm, loss=jnp.stack(losses))


def cosines(unit: Float["t b d"]) -> Float["p b"]:
    """Cosine s of the angle between the directions of every pair of tasks, in [-1, 1]; pairs in the order of itertools.combinations."""
    return jnp.stack([(unit[t] * unit[u]).sum(-1) for t, u in combinations(range(unit.shape[0]), 2)])


def angular_penalty(
    unit: Float["t b d"],
    *,
    kind: Literal["hinge", "square", "abs"] = "hinge",
    margin: float = 0.0,
    where: Bool["b"] | None = None,
) -> Float["b"]:
    """Penalty on excessive alignment, mean over the pairs of tasks; with s a pair's cosine:

        hinge   max(0, s - margin)^2      alignment only, the literal reading
        square  s^2                       near-orthogonality, as CosReg asks of parameters (arXiv 1912.06844); no margin
        abs     max(0, |s| - margin)^2

    in [0, 1] for 0 <= margin < 1. ``where`` marks examples on which every task is defined; the others give 0. PCGrad and its kin act on
    *conflict* (negative cosine); this acts on *alignment* (positive cosine).
    """
    s = cosines(unit)
    if kind == "hinge":
        penalty = jnp.maximum(s - margin, 0.0) ** 2
    elif kind == "square":
        penalty = s**2
    elif kind == "abs":
        penalty = jnp.maximum(jnp.abs(s) - margin, 0.0) ** 2
    else:
        raise ValueError(f'kind {kind!r}: choose "hinge", "square" or "abs".')
    return keep(penalty.mean(0), where)


def reliability(norm: Float["t b"], *, tau: float) -> Float["b"]:
    """Weight min(1, min_t |g_t| / tau) in [0, 1], without a gradient: the direction of a confidently solved example is noise.

    ``tau`` > 0 is a gradient norm; 0 gives 1 everywhere.
    """
    if tau == 0.0:
        return jnp.ones_like(norm[0])
    return jax.lax.stop_gradient(jnp.minimum(1.0, norm.min(0) / tau))
