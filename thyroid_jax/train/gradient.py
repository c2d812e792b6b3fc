"""The gradient of one step.

Most methods need the gradient of one number, :func:`of_objective`. Methods that compare the tasks' gradients need
each task's gradient, :func:`by_task`. Backpropagation then stops at the encoder's outputs, where the method decides
what goes back through the encoder. Where both apply they give the same numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.batch import Batch
from thyroid_jax.losses.reduce import Metrics, Pair, pair, share, summed, summed_at_once, whole
from thyroid_jax.model import Latent, Params
from thyroid_jax.mtl.config import MTLConfig
from thyroid_jax.mtl.gradients import combine, gramian
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.recipe import Recipe, Task, encode, encode_with, encoder_and_rest, example_losses
from thyroid_jax.shapes import Array, Bool, Float, Int, Key
from thyroid_jax.train.accumulate import in_parts
from thyroid_jax.train.objective import evaluate, mean_parts, total


class Gradient(NamedTuple):
    """Gradient of the whole batch in the parameters, what to log (this device's sums), the method's next state."""

    params: Params
    metrics: Metrics
    mtl_state: Any


class TaskGradient(NamedTuple):
    """One task's weighted mean loss and its gradient, at the encoder's outputs and in decoder and heads."""

    loss: Float[Array, ""]
    outputs: Latent
    rest: Params


def gradient(
    params: Params, batch: Batch, recipe: Recipe, *, step: Int[Array, ""] | int = 0, mtl_state: Any = (), key: Key
) -> Gradient:
    """Gradient of the objective as the configured multitask method weighs it.

    ``mtl_state`` is the method's state (:mod:`thyroid_jax.mtl.scalarize`), () for methods without one; ``key`` is for
    methods that draw at random.
    """
    method: MTLConfig = recipe.settings["mtl"]
    if recipe.accumulate > 1:
        return Gradient(*in_parts(params, batch, recipe, step), mtl_state)
    if method.compares_gradients:
        return by_task(params, batch, recipe, step, mtl_state, key)
    return of_objective(params, batch, recipe, step, mtl_state)


def of_objective(params: Params, batch: Batch, recipe: Recipe, step: Int[Array, ""] | int, mtl_state: Any) -> Gradient:
    """Reverse mode through one number: the weighted sum of losses and penalties."""

    def value(params: Params) -> tuple[Array, tuple[Metrics, Any]]:
        terms = evaluate(params, encode(params, batch, recipe), batch, recipe)
        losses = jax.lax.stop_gradient(summed(loss_vector(terms.losses, recipe), recipe.axis))
        weights, new_state, seen = loss_weights(losses, every_task_present(batch, recipe), recipe, mtl_state)
        loss = total(terms, recipe, step, weights)
        return loss, ({"loss": share(loss, recipe.axis)} | terms.metrics | seen, new_state)

    change, (metrics, new_state) = jax.grad(value, has_aux=True)(params)
    return Gradient(summed_at_once(change, recipe.axis), metrics, new_state)


def by_task(
    params: Params, batch: Batch, recipe: Recipe, step: Int[Array, ""] | int, mtl_state: Any, key: Key
) -> Gradient:
    """Each task's gradient up to the encoder's outputs, weighed there or in the encoder's parameters.

    The encoder is what the tasks share: a method weighs what goes into it, while decoder and heads follow their own
    tasks' losses, times the task's weight where the method weighs losses (GradNorm). The penalties' gradients are
    added unweighed.
    """
    encoder, rest = encoder_and_rest(params)
    latent, pull = jax.vjp(lambda encoder: encode_with(encoder, rest, batch, recipe), encoder)
    through_encoder = lambda outputs: pull(outputs)[0]

    # 1. every task's gradient
    tasks, metrics = task_gradients(rest | encoder, latent, batch, recipe)
    outputs = [task.outputs for task in tasks.values()]
    at_latent = recipe.settings["mtl"].at == "latent"
    if at_latent:  # examples are spread over the devices, and so are their gradients: the Gramian is what adds up
        gram = summed(gramian(outputs), recipe.axis)
    else:
        in_encoder = [summed_at_once(through_encoder(output), recipe.axis) for output in outputs]
        gram = gramian(in_encoder)

    # 2. the method's weights
    losses = summed(jnp.stack([task.loss for task in tasks.values()]), recipe.axis)
    on_shared, on_rest, new_state, seen = weigh(gram, losses, every_task_present(batch, recipe), recipe, mtl_state, key)
    of_rest = combine(on_rest, [task.rest for task in tasks.values()])
    value = sum(w * task.loss for w, task in zip(on_rest, tasks.values()))

    # 3. the penalties, and back through the encoder
    def penalties(params: Params, latent: Latent) -> tuple[Array, Metrics]:
        terms = evaluate(params, latent, batch, recipe)
        return total(terms._replace(losses={}), recipe, step), terms.metrics

    direct, back = jax.tree.map(jnp.zeros_like, (params, latent))
    if recipe.penalties:
        (penalty, penalty_metrics), (direct, back) = jax.value_and_grad(penalties, argnums=(0, 1), has_aux=True)(
            params, latent
        )
        value, metrics = value + penalty, metrics | penalty_metrics
    if at_latent:
        back = _added(back, combine(on_shared, outputs))
    goes_back = at_latent or recipe.penalties  # a pass of zeros through the encoder costs as much as any other
    of_encoder = through_encoder(back) if goes_back else jax.tree.map(jnp.zeros_like, encoder)
    change = summed_at_once(_added(direct, of_rest | of_encoder), recipe.axis)
    if not at_latent:
        change = change | _added({"encoder": change["encoder"]}, combine(on_shared, in_encoder))
    return Gradient(change, {"loss": share(value, recipe.axis)} | metrics | seen, new_state)


def task_gradients(
    params: Params, latent: Latent, batch: Batch, recipe: Recipe
) -> tuple[dict[str, TaskGradient], Metrics]:
    """Each task's weighted mean loss (this device's part) with its gradient, and the losses' sums and counts."""
    encoder, rest = encoder_and_rest(params)
    found, metrics = {}, {}
    for task in recipe.tasks:

        def mean_loss(rest: Params, latent: Latent, task: Task = task) -> tuple[Array, Pair]:
            losses = example_losses(task, rest | encoder, latent, batch, recipe)
            sums = {task.name: pair(losses, task.defined(batch))}
            return loss_vector(sums, recipe.replace(tasks=(task,)))[0], sums[task.name]

        (loss, sums), (of_rest, outputs) = jax.value_and_grad(mean_loss, argnums=(0, 1), has_aux=True)(rest, latent)
        found[task.name] = TaskGradient(loss, outputs, of_rest)
        metrics[f"loss_{task.name}"] = sums
    return found, metrics


def loss_vector(losses: dict[str, Pair], recipe: Recipe) -> Float[Array, "t"]:
    """Each task's mean loss times its weight in the settings, in the tasks' order; this device's part of it."""
    parts = mean_parts(losses, recipe.axis)
    return jnp.stack([recipe.settings[task.name].weight * parts[task.name] for task in recipe.tasks])


def every_task_present(batch: Batch, recipe: Recipe) -> Bool[Array, ""]:
    """Whether every task is defined on some example of the whole batch."""
    counts = jnp.stack([task.defined(batch).sum() for task in recipe.tasks])
    return (summed(counts, recipe.axis) > 0).all()


def weigh(
    gram: Float[Array, "t t"],
    losses: Float[Array, "t"],
    present: Bool[Array, ""],
    recipe: Recipe,
    mtl_state: Any,
    key: Key,
) -> tuple[Float[Array, "t"], Float[Array, "t"], Any, Metrics]:
    """The method's weights for gradients of the encoder and of decoder and heads, its next state, and what to log.

    Gradient weights are rescaled to the sum t, that of plain training: learning rate, clipping and the penalties'
    weights then mean the same for every method. Weights that add up to 0 (CAGrad at a Pareto-stationary point) stay as
    they are. All are 1 on a batch on which a task is not defined at all.
    """
    method = recipe.settings["mtl"].method
    if method in SCALARIZERS:
        if method == "gradnorm":
            mtl_state = mtl_state._replace(norms=jnp.sqrt(jnp.diagonal(gram)))
        weights, mtl_state, seen = loss_weights(losses, present, recipe, mtl_state)
        weights = weights.astype(gram.dtype)
        return weights, weights, mtl_state, seen
    weights = WEIGHERS[method](gram, key=key)
    added_up = weights.sum()
    weights = jnp.where(added_up > 1e-6, weights * len(recipe.tasks) / jnp.maximum(added_up, 1e-6), weights)
    weights = jnp.where(present, weights, 1.0)
    return weights, jnp.ones_like(weights), mtl_state, _logged(recipe, weights)


def loss_weights(
    losses: Float[Array, "t"], present: Bool[Array, ""], recipe: Recipe, mtl_state: Any
) -> tuple[Float[Array, "t"], Any, Metrics]:
    """A loss-level method's weight of every task's loss, its next state, and what to log; 1 for the other methods.

    On a batch on which a task is not defined at all the weights are 1, and the state does not change.
    """
    method = recipe.settings["mtl"].method
    if method == "equal" or method not in SCALARIZERS:
        return jnp.ones_like(losses), mtl_state, {}
    weights, new = SCALARIZERS[method](jax.lax.stop_gradient(losses), mtl_state)
    weights = jnp.where(present, weights, 1.0)
    new = jax.tree.map(lambda after, before: jnp.where(present, after, before), new, mtl_state)
    return weights, new, _logged(recipe, weights)


def _logged(recipe: Recipe, weights: Float[Array, "t"]) -> Metrics:
    return {f"weight_{task.name}": whole(weight, recipe.axis) for task, weight in zip(recipe.tasks, weights)}


def _added(tree: Any, other: Any) -> Any:
    return jax.tree.map(jnp.add, tree, other)
