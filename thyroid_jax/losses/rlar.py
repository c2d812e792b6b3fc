"""Representation-level adversarial regularisation: the tasks' adversarial directions, and the penalty on their angle.

Each task t has a direction in which a small change of the latent raises its loss most, a_t = normalised d L_t / d z.
RLAR keeps these directions from becoming too closely aligned. It acts on the geometry of the representation, not on the
gradients of the parameters.

References:
    arXiv 2603.21095 states the idea in its abstract: normalised adversarial directions in latent space, and a penalty
    on excessive angular alignment between tasks. The space, the penalty's form and its weight are our choices.

>>> import jax, jax.numpy as jnp
>>> z = jax.random.normal(jax.random.key(0), (3, 4, 4, 8))
>>> tasks = {"one": lambda z: jnp.tanh(z[..., 0]).sum((1, 2)), "two": lambda z: (z**2).mean((1, 2, 3))}
>>> directions = adversarial_directions(tasks, z)
>>> directions.unit.shape, angular_penalty(directions.unit).shape
((2, 3, 8), (3,))
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.losses.reduce import keep
from thyroid_jax.shapes import Array, Bool, Float, Number

Space = Literal["channel", "full"]
TaskLosses = Mapping[str, Callable[[Array], Array]]
_EPS = 1e-12  # far below any meaningful gradient, and its square is still a normal float32


class Directions(NamedTuple):
    """The adversarial directions of one batch, in the order of the tasks.

    ``unit f32[t b d]`` directions (zero where a gradient is zero), ``norm f32[t b]`` >= 0 lengths of the gradients
    before normalisation, ``loss f32[t b]`` the losses themselves.
    """

    unit: Float[Array, "t b d"]
    norm: Float[Array, "t b"]
    loss: Float[Array, "t b"]


def adversarial_directions(
    task_losses: TaskLosses, latent: Float[Array, "b y x c"], *, space: Space = "channel", hold: Collection[str] = ()
) -> Directions:
    """Normalised gradient of each task's per-example loss with respect to the latent.

        g_t,i = d (sum_i L_t,i) / d z_i        a_t,i = g_t,i / sqrt(|g_t,i|^2 + eps^2)

    The sum over the examples, not the mean, so that a direction does not depend on the batch. The result's own
    gradient is second order and exact, by reverse mode over reverse mode. A zero gradient, as of a masked example,
    gives a zero direction and finite derivatives. At least float32, whatever the networks compute in.

    Args:
        task_losses: ordered mapping name -> (z -> f32[b]). Example i's loss may depend on row i of z only.
        latent: z f32[b y x c].
        space: "channel" differentiates by an offset in R^c added at every position, d = c. A pooled grade gradient is
            constant over space while a mask gradient oscillates, so cosines of the full vectors are close to 0. "full"
            takes all of z, d = y x c.
        hold: names of tasks whose directions are constants: only the others turn. This is cheaper, but no longer exact.

    Raises ValueError for a loss that does not give f[b], or an unknown space.
    """
    latent = latent.astype(jnp.promote_types(latent.dtype, jnp.float32))
    gradients, losses = [], []
    for name, loss in task_losses.items():
        values, pull = jax.vjp(lambda z, loss=loss: _at_least_float32(loss(z)), latent)
        if values.shape != latent.shape[:1]:
            raise ValueError(
                f"loss {name!r} has shape {values.shape}: it gives one value for each of {len(latent)} rows."
            )
        (gradient,) = pull(jnp.ones_like(values))
        gradients.append(jax.lax.stop_gradient(gradient) if name in hold else gradient)
        losses.append(values)
    return normalise(jnp.stack(gradients), jnp.stack(losses), space=space)


def normalise(
    gradients: Float[Array, "t b y x c"], losses: Float[Array, "t b"], *, space: Space = "channel"
) -> Directions:
    """Convert the gradients of the tasks' summed losses, at one level of the network, to :class:`Directions`."""
    if space not in ("channel", "full"):
        raise ValueError(f'space {space!r}: choose "channel" or "full".')
    gradients = _at_least_float32(gradients)
    # The gradient by an offset that is added at every position is the sum over the positions.
    g = gradients.sum((2, 3)) if space == "channel" else gradients.reshape(*losses.shape, -1)
    norm = jnp.sqrt((g**2).sum(-1) + _EPS**2)  # one root of the sum of squares: a bare norm has no gradient at 0
    return Directions(unit=g / norm[..., None], norm=norm, loss=losses)


def cosines(unit: Float[Array, "t b d"]) -> Float[Array, "p b"]:
    """Cosine s of the angle between the directions of every pair of tasks, in [-1, 1].

    The pairs are in the order of ``itertools.combinations``. At least float32. Raises ValueError for fewer than two
    tasks.
    """
    if unit.shape[0] < 2:
        raise ValueError(f"directions of {unit.shape[0]} task: an angle is between two tasks at least.")
    unit = _at_least_float32(unit)
    return jnp.stack([(unit[t] * unit[u]).sum(-1) for t, u in combinations(range(unit.shape[0]), 2)])


def angular_penalty(
    unit: Float[Array, "t b d"],
    *,
    kind: Literal["hinge", "square", "abs"] = "hinge",
    margin: Number = 0.0,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """Penalty on excessive alignment, mean over the pairs of tasks; with s a pair's cosine:

        hinge   max(0, s - margin)^2      alignment only, the literal reading
        square  s^2                       near-orthogonality, as CosReg in parameter space (arXiv 1912.06844); no margin
        abs     max(0, |s| - margin)^2

    In [0, 1] for 0 <= margin < 1. ``where`` marks the examples on which every task is defined; the others give 0 with
    a zero gradient, whatever their directions hold.
    PCGrad and similar methods act on *conflict* (negative cosine); this acts on *alignment* (positive cosine).
    Raises ValueError for an unknown kind, fewer than two tasks, or not one flag for each example.
    """
    if where is not None and where.shape != unit.shape[1:2]:
        raise ValueError(f"where {where.shape}: it has one flag for each of {unit.shape[1]} examples.")
    s = cosines(unit if where is None else jnp.where(where[None, :, None], unit, 0.0))
    if kind == "hinge":
        penalty: Array = jnp.maximum(s - margin, 0.0) ** 2
    elif kind == "square":
        penalty = s**2
    elif kind == "abs":
        penalty = jnp.maximum(jnp.abs(s) - margin, 0.0) ** 2
    else:
        raise ValueError(f'kind {kind!r}: choose "hinge", "square" or "abs".')
    return keep(penalty.mean(0), where)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
