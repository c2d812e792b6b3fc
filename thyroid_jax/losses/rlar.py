"""Representation-level adversarial regularisation: the tasks' adversarial directions at the latent, and the penalty
on their angle.

Each task t has a direction in which a small change of the latent would hurt it most, a_t = normalised d L_t / d z.
RLAR keeps these directions from lining up too closely: it acts on the geometry of the representation, not on the
parameters' gradients. Paper: arXiv 2603.21095. The abstract states the idea; the space, the penalty's form and its
weight are this project's choices.

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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.losses.reduce import keep
from thyroid_jax.shapes import Array, Bool, Float

Space = Literal["channel", "full"]
TaskLosses = Mapping[str, Callable[[jax.Array], jax.Array]]
_EPS = 1e-12  # far below any gradient that means something, and its square is still a normal float32


class Directions(NamedTuple):
    """What the probe sees, in the tasks' order: unit vectors, the gradients' lengths before normalisation, and the
    losses themselves.

    unit f32[t b d] (zero where a gradient is zero), norm f32[t b] >= 0, loss f32[t b].
    """

    unit: Float[Array, "t b d"]
    norm: Float[Array, "t b"]
    loss: Float[Array, "t b"]


def adversarial_directions(
    task_losses: TaskLosses, latent: Float[Array, "b y x c"], *, space: Space = "channel", hold: Collection[str] = ()
) -> Directions:
    """Normalised gradient of each task's per-example loss with respect to the latent.

        g_t,i = d (sum_i L_t,i) / d z_i        a_t,i = g_t,i / sqrt(|g_t,i|^2 + eps^2)

    ``task_losses``: ordered mapping name -> (z -> f32[b]); example i's loss may depend on row i of z only. The sum
    over examples, not the mean, so that a direction does not depend on the batch. ``space="channel"`` differentiates
    by an offset in R^c added at every position (d = c: a pooled grade gradient is constant over space while a mask
    gradient oscillates, so cosines of the full vectors crowd at 0); ``space="full"`` takes all of z (d = y x c). At
    least float32, whatever the networks compute in. Differentiable: the result's own gradient is second order and
    exact, by reverse mode over reverse mode; :func:`forward_over_reverse` gives the same the other way. The
    directions of the tasks named in ``hold`` are constants to it: only the others turn. A zero gradient, as of a
    masked example, gives a zero direction and finite derivatives.
    """
    latent = latent.astype(jnp.promote_types(latent.dtype, jnp.float32))
    gradients, losses = [], []
    for name, loss in task_losses.items():
        (_, values), g = jax.value_and_grad(_total(loss), has_aux=True)(latent)
        gradients.append(jax.lax.stop_gradient(g) if name in hold else g)
        losses.append(values)
    return normalise(jnp.stack(gradients), jnp.stack(losses), space=space)


def normalise(
    gradients: Float[Array, "t b y x c"], losses: Float[Array, "t b"], *, space: str = "channel"
) -> Directions:
    """Latent gradients of the tasks' summed losses to directions: see :func:`adversarial_directions`."""
    if space not in ("channel", "full"):
        raise ValueError(f'space {space!r}: choose "channel" or "full".')
    # The gradient by an offset that is added at every position is the sum over the positions.
    g = gradients.sum((2, 3)) if space == "channel" else gradients.reshape(*losses.shape, -1)
    norm = jnp.sqrt((g**2).sum(-1) + _EPS**2)  # one root of the sum of squares: a bare norm has no gradient at 0
    return Directions(unit=g / norm[..., None], norm=norm, loss=losses)


class TaskGradient(NamedTuple):
    """One task's per-example losses f32[b], and the gradient of their sum with respect to the parameters and to the
    latent.
    """

    loss: Float[Array, "b"]
    parameters: Any
    latent: Float[Array, "b y x c"]


class Penalty(NamedTuple):
    """A scalar penalty on the directions, what came with it, and its exact gradient, second order, in parameters and
    latent.
    """

    value: Float[Array, ""]
    aux: Any
    parameters: Any
    latent: Float[Array, "b y x c"]


def task_gradient(
    loss: Callable[[Any, jax.Array], jax.Array], parameters: Any, latent: Float[Array, "b y x c"]
) -> TaskGradient:
    """One task's losses and the gradient of their sum; ``loss``: (parameters, z) -> f32[b], ``parameters`` any tree."""
    (of_parameters, of_latent), values = jax.grad(_total(loss), argnums=(0, 1), has_aux=True)(parameters, latent)
    return TaskGradient(values, of_parameters, of_latent)


def forward_over_reverse(
    task_losses: Mapping[str, Callable[[Any, jax.Array], jax.Array]],
    parameters: Any,
    latent: Float[Array, "b y x c"],
    penalty: Callable[[Directions], tuple[jax.Array, Any]],
    *,
    space: Space = "channel",
    hold: Collection[str] = (),
) -> tuple[dict[str, TaskGradient], Penalty]:
    """Every task's own gradient at the latent, and the exact gradient of a penalty on their directions.

    With g_t the tasks' latent gradients and v_t = d penalty / d g_t,

        d penalty / d (theta, z) = sum_t  d/de  [ d (sum_i L_t,i)(theta, z + e v_t) / d (theta, z) ]  at e = 0

    because second derivatives commute: a directional derivative (forward mode) of the gradient (reverse mode) that
    training needs anyway. ``task_losses``: ordered mapping name -> ((parameters, z) -> f32[b]), where ``parameters``
    is any tree: heads, decoder, skips. ``penalty`` maps :class:`Directions` to (scalar, anything to hand through).
    What comes back ends at the latent: whoever encoded z pulls a sum of these back through the encoder, once.
    ``space`` and ``hold`` as in :func:`adversarial_directions`; a held task costs no second-order pass.
    """
    latent = latent.astype(jnp.promote_types(latent.dtype, jnp.float32))
    first, push = {}, {}
    for name, loss in task_losses.items():
        first[name], push[name] = jax.linearize(lambda z, loss=loss: task_gradient(loss, parameters, z), latent)

    losses = jnp.stack([task.loss for task in first.values()])
    of_gradients = lambda g: penalty(normalise(g, losses, space=space))
    (value, aux), v = jax.value_and_grad(of_gradients, has_aux=True)(
        jnp.stack([task.latent for task in first.values()])
    )

    turned = [push[name](v_t) for name, v_t in zip(first, v) if name not in hold]
    _, of_parameters, of_latent = jax.tree.map(lambda *terms: sum(terms), *turned)
    return first, Penalty(value, aux, of_parameters, of_latent)


def _total(loss: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The sum over the examples, and the examples' losses beside it; at least float32."""

    def total(*arguments: Any) -> tuple[jax.Array, jax.Array]:
        values = loss(*arguments)
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        return values.sum(), values

    return total


def cosines(unit: Float[Array, "t b d"]) -> Float[Array, "p b"]:
    """Cosine s of the angle between the directions of every pair of tasks, in [-1, 1]; pairs in the order of
    itertools.combinations.
    """
    return jnp.stack([(unit[t] * unit[u]).sum(-1) for t, u in combinations(range(unit.shape[0]), 2)])


def angular_penalty(
    unit: Float[Array, "t b d"],
    *,
    kind: Literal["hinge", "square", "abs"] = "hinge",
    margin: float = 0.0,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """Penalty on excessive alignment, mean over the pairs of tasks; with s a pair's cosine:

        hinge   max(0, s - margin)^2      alignment only, the literal reading
        square  s^2                       near-orthogonality, as CosReg asks of parameters (arXiv 1912.06844); no margin
        abs     max(0, |s| - margin)^2

    in [0, 1] for 0 <= margin < 1. ``where`` marks examples on which every task is defined; the others give 0. PCGrad
    and its kin act on *conflict* (negative cosine); this acts on *alignment* (positive cosine).
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


def reliability(norm: Float[Array, "t b"], *, tau: float) -> Float[Array, "b"]:
    """Weight min(1, min_t |g_t| / tau) in [0, 1], without a gradient: the direction of a confidently solved example
    is noise.

    ``tau`` > 0 is a gradient norm; 0 gives 1 everywhere.
    """
    if tau == 0.0:
        return jnp.ones_like(norm[0])
    return jax.lax.stop_gradient(jnp.minimum(1.0, norm.min(0) / tau))
