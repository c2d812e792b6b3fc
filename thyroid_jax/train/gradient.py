"""The gradient of one step. One scalar's where that is enough; task by task where a method compares the tasks' own
gradients.

Both roads give the same numbers where both apply. The second one stops every task's gradient at the encoder's
outputs, which costs no more than one backward pass, and decides there what goes back through the encoder.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.losses import masked_mean, rlar
from thyroid_jax.mtl.gradients import combine, cosreg, gramian
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.shapes import Array, Bool, Float, Key
from thyroid_jax.train.objective import (
    Metrics,
    Ramps,
    angular,
    encoder_and_rest,
    mean_losses,
    one,
    pair,
    shape_consistency,
    task_losses,
    task_valid,
    terms,
    trained,
)

Gradient = tuple[model.Params, Metrics, Any]  # of the parameters; what to log; the multitask method's next state
_EPS = 1e-20  # of squared norms: below it, a penalty has nothing to say


def gradient(params: model.Params, batch: Batch, config: Config, *, ramps: Ramps, state: Any, key: Key) -> Gradient:
    """Gradient of the objective as the configured multitask method weighs it.

    ``state`` is the method's (:mod:`thyroid_jax.mtl.scalarize`), () for those without; ``key`` is for methods that
    draw lots.
    """
    compares = config.mtl.method == "gradnorm" or config.mtl.method not in SCALARIZERS
    forward = config.rlar.weight and (config.rlar.derivative == "forward" or config.rlar.scale == "relative")
    road = by_task if compares or forward else by_scalar
    change, metrics, state = road(params, batch, config, ramps, state, key)
    if config.mtl.cosreg:
        value, (of_encoder, of_rest) = cosreg(*mean_losses(params, batch, config))
        change = added(change, scaled(config.mtl.cosreg, of_encoder | of_rest))
        metrics |= {"loss": one(metrics["loss"].sum + config.mtl.cosreg * value), "cosreg": one(value)}
    return change, metrics, state


def by_scalar(params: model.Params, batch: Batch, config: Config, ramps: Ramps, state: Any, key: Key) -> Gradient:
    """Reverse mode through one number: the weighted sum of the losses and the penalty."""
    present = jnp.stack([task_valid(batch)[name].any() for name in trained(config)]).all()

    def total(params: model.Params) -> tuple[jax.Array, tuple[Metrics, Any]]:
        losses, penalty, metrics = terms(params, batch, config, ramps=ramps)
        weights, new, seen = loss_weights(losses, present, config, state)
        value = sum(weights[name] * loss for name, loss in losses.items()) + penalty
        return value, ({"loss": one(value)} | metrics | seen, new)

    change, (metrics, new) = jax.grad(total, has_aux=True)(params)
    return change, metrics, new


def by_task(params: model.Params, batch: Batch, config: Config, ramps: Ramps, state: Any, key: Key) -> Gradient:
    """Each task's gradient up to the encoder's outputs, weighed there or in the encoder's parameters; RLAR forward
    over reverse.

    The encoder is what the tasks share: methods that weigh gradients weigh what goes into it, while decoder and heads
    follow their own tasks' losses. The penalties' gradients are added unweighed.
    """
    encoder, rest = encoder_and_rest(params)
    latent, pull = jax.vjp(lambda encoder: model.encode(rest | encoder, config.model, batch.image), encoder)
    where = task_valid(batch)

    # 1. every task's gradient at the encoder's outputs, and the penalty's
    first, penalty = at_latent(params, latent, batch, config)
    losses = {name: weight * masked_mean(first[name].loss, where[name]) for name, weight in trained(config).items()}
    outputs, own = zip(*weighted(first, where, config).values())
    metrics = {f"loss_{name}": pair(task.loss, where[name]) for name, task in first.items()}

    # 2. what the method makes of them
    early = config.mtl.at == "latent"
    compared = outputs if early else [pull(output)[0] for output in outputs]
    present = jnp.stack([where[name].any() for name in losses]).all()
    on_shared, on_own, state, seen = weigh(gramian(compared), losses, present, config, state, key)
    shared, change = combine(on_shared, compared), combine(on_own, own)
    total = sum(w * loss for w, loss in zip(on_own, losses.values()))

    # 3. the penalties, and back through the encoder
    extras = []
    if penalty is not None:
        factor = config.rlar.weight * ramps.rlar
        if config.rlar.scale == "relative":
            tasks = combine(on_shared, [output.z for output in outputs])
            squares = (tasks**2).sum(), (penalty.latent**2).sum()
            factor = factor * jnp.where(squares[1] > _EPS, jnp.sqrt(squares[0] / jnp.maximum(squares[1], _EPS)), 0.0)
            metrics |= {"rlar_factor": one(factor)}
        extras.append((factor, penalty))
    if config.consistency.weight:
        extras.append((config.consistency.weight * ramps.consistency, of_consistency(rest, latent, batch, config)))
    for factor, extra in extras:
        at_outputs = scaled(factor, model.Latent(extra.latent, extra.parameters[1]))
        shared = added(shared, at_outputs if early else pull(at_outputs)[0])
        change = added(change, scaled(factor, extra.parameters[0]))
        total, metrics = total + factor * extra.value, metrics | extra.aux
    change = change | (pull(shared)[0] if early else shared)
    return change, {"loss": one(total)} | metrics | seen, state


def at_latent(
    params: model.Params, latent: model.Latent, batch: Batch, config: Config
) -> tuple[dict[str, rlar.TaskGradient], rlar.Penalty | None]:
    """Each trained task's gradient and the penalty's, in ((decoder and heads, skips), z); None without RLAR."""
    below = (encoder_and_rest(params)[1], latent.skips)
    tasks = {
        name: lambda outer, z, name=name: task_losses(outer[0], outer[1], batch, config)[name](z)
        for name in trained(config)
    }
    first, penalty = {}, None
    if config.rlar.weight:
        first, penalty = rlar.forward_over_reverse(
            {name: tasks[name] for name in config.rlar.tasks},
            below,
            latent.z,
            lambda directions: angular(directions, task_valid(batch), config),
            space=config.rlar.space,
            hold=config.rlar.hold,
        )
    return {name: first.get(name) or rlar.task_gradient(task, below, latent.z) for name, task in tasks.items()}, penalty


def of_consistency(rest: model.Params, latent: model.Latent, batch: Batch, config: Config) -> rlar.Penalty:
    """The shape consistency's value and gradient in ((decoder and heads, skips), z)."""
    mean = lambda outer, z: shape_consistency(outer[0], outer[1], z, batch, config)
    (value, seen), (parameters, of_z) = jax.value_and_grad(mean, argnums=(0, 1), has_aux=True)(
        (rest, latent.skips), latent.z
    )
    return rlar.Penalty(value=value, parameters=parameters, latent=of_z, aux=seen)


def weighted(
    first: dict[str, rlar.TaskGradient], where: dict[str, Bool[Array, "b"]], config: Config
) -> dict[str, tuple[model.Latent, model.Params]]:
    """From gradients of sums over the examples to those of the weighted mean losses: (at the encoder's outputs, in
    decoder and heads).
    """
    parts = {}
    for name, weight in trained(config).items():
        rest, skips = first[name].parameters
        share = weight / jnp.maximum(where[name].sum(), 1)
        parts[name] = scaled(share, model.Latent(first[name].latent, skips)), scaled(share, rest)
    return parts


def weigh(
    gram: Float[Array, "t t"],
    losses: dict[str, Float[Array, ""]],
    present: Bool[Array, ""],
    config: Config,
    state: Any,
    key: Key,
) -> tuple[Float[Array, "t"], Float[Array, "t"], Any, Metrics]:
    """The method's weights of the shared part's and of the own parts' gradients, its next state, and what to log.

    Weights of gradients are brought to the sum t, that of plain training: learning rate, clipping and the penalty's
    weight then mean the same for every method. All 1 on a batch on which a task is not defined at all.
    """
    if config.mtl.method in SCALARIZERS:
        if config.mtl.method == "gradnorm":
            state = state._replace(norms=jnp.sqrt(jnp.diagonal(gram)))
        weights, state, seen = loss_weights(losses, present, config, state)
        vector = jnp.stack([jnp.asarray(weight, gram.dtype) for weight in weights.values()])
        return vector, vector, state, seen
    weights = WEIGHERS[config.mtl.method](gram, key=key)
    total = weights.sum()
    weights = jnp.where(total > 1e-6, weights * len(losses) / jnp.maximum(total, 1e-6), weights)
    weights = jnp.where(present, weights, 1.0)
    return weights, jnp.ones_like(weights), state, {f"weight_{name}": one(w) for name, w in zip(losses, weights)}


def loss_weights(
    losses: dict[str, Float[Array, ""]], present: Bool[Array, ""], config: Config, state: Any
) -> tuple[dict[str, Any], Any, Metrics]:
    """A loss-level method's weight of every task's loss, its next state, and what to log; 1 for the others.

    A batch on which a task is not defined at all teaches the method nothing: the weights are 1 there and the state
    stays.
    """
    if config.mtl.method == "equal" or config.mtl.method not in SCALARIZERS:
        return dict.fromkeys(losses, 1.0), state, {}
    vector, new = SCALARIZERS[config.mtl.method](jax.lax.stop_gradient(jnp.stack(list(losses.values()))), state)
    vector = jnp.where(present, vector, 1.0)
    new = jax.tree.map(lambda ours, old: jnp.where(present, ours, old), new, state)
    weights = dict(zip(losses, vector))
    return weights, new, {f"weight_{name}": one(weight) for name, weight in weights.items()}


def scaled(factor: Any, tree: Any) -> Any:
    """A tree times a scalar, in the leaves' own precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(factor, leaf.dtype) * leaf, tree)


def added(tree: Any, other: Any) -> Any:
    """The sum of two trees."""
    return jax.tree.map(jnp.add, tree, other)
