"""What is minimised, in the paper's order: latent, task losses, penalties, one number.

    L = sum_t v_t w_t L_t + sum_p w_p ramp_p(step) P_p

Each L_t and P_p is a sum over the examples on which it is defined, divided by their count; w are the settings' weights,
v the weights of a multitask method that weighs losses, 1 without one. RLAR, the shape consistency and CosReg are
penalties.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.batch import Batch
from thyroid_jax.losses.reduce import Metrics, Pair, pair, share, summed
from thyroid_jax.model import Latent, Params
from thyroid_jax.recipe import PenaltyConfig, Recipe, View, encode, example_losses
from thyroid_jax.shapes import Array, Float, Int, Number


class Terms(NamedTuple):
    """The terms of the objective: each task's and each penalty's sum and count, and what to log."""

    losses: dict[str, Pair]
    penalties: dict[str, Pair]
    metrics: Metrics


def objective(params: Params, batch: Batch, recipe: Recipe, *, step: Int[Array, ""] | int = 0) -> tuple[Array, Metrics]:
    """The objective of one batch, with every v_t = 1, and its parts by name.

    With ``recipe.axis`` set, what comes back is this device's part: the parts of all devices add up to the objective.
    Tasks and penalties that the recipe does not hold are not computed at all.
    """
    terms = evaluate(params, encode(params, batch, recipe), batch, recipe)
    value = total(terms, recipe, step)
    return value, {"loss": share(value, recipe.axis)} | terms.metrics


def evaluate(params: Params, latent: Latent, batch: Batch, recipe: Recipe) -> Terms:
    """The objective's terms, from the latent on."""
    view = view_of(params, latent, batch, recipe)
    sums = {task.name: pair(view.losses[task.name], task.defined(batch)) for task in recipe.tasks}
    found = {penalty.name: penalty.value(view, recipe) for penalty in recipe.penalties}
    penalties = {name: value for name, (value, _) in found.items()}
    metrics = {f"loss_{name}": value for name, value in sums.items()} | penalties
    for _, seen in found.values():
        metrics |= seen
    return Terms(sums, penalties, metrics)


def view_of(params: Params, latent: Latent, batch: Batch, recipe: Recipe) -> View:
    """The input of the penalties: every task's losses and, on demand, their gradients from the same trace."""
    losses, gradients = {}, {}
    for task in recipe.tasks:
        values, pull = jax.vjp(lambda latent, task=task: example_losses(task, params, latent, batch, recipe), latent)
        losses[task.name] = values
        gradients[task.name] = lambda values=values, pull=pull: pull(jnp.ones_like(values))[0]
    return View(params, latent, batch, losses, gradients)


def total(
    terms: Terms,
    recipe: Recipe,
    step: Int[Array, ""] | int,
    task_weights: Float[Array, "t"] | None = None,
    counts: dict[str, Array] | None = None,
) -> Float[Array, ""]:
    """L from its terms; this device's part of it where the batch is spread.

    ``task_weights`` f32[t] are v in the order of the recipe's tasks, 1 by default. ``counts`` of the whole batch, by
    name, where the terms are those of a part of it.
    """
    losses = mean_parts(terms.losses, recipe.axis, counts)
    parts = [
        (1.0 if task_weights is None else task_weights[place]) * recipe.settings[task.name].weight * losses[task.name]
        for place, task in enumerate(recipe.tasks)
        if task.name in losses
    ]
    parts += [
        scheduled_weight(recipe.settings[name], step, recipe.fitted.total_steps) * part
        for name, part in mean_parts(terms.penalties, recipe.axis, counts).items()
    ]
    return sum(parts, jnp.float32(0.0))


def mean_parts(
    pairs: dict[str, Pair], axis: str | None, counts: dict[str, Array] | None = None
) -> dict[str, Float[Array, ""]]:
    """Each sum over the count of the whole batch: the mean, or this device's part of it. No count at all gives 0.

    ``counts`` are those of the whole batch, where the sums run over a part of it.
    """
    if counts is None:
        counts = jax.lax.stop_gradient(summed({name: count for name, (_, count) in pairs.items()}, axis))
    return {name: value / jnp.where(counts[name] > 0, counts[name], 1.0) for name, (value, _) in pairs.items()}


def scheduled_weight(settings: PenaltyConfig, step: Int[Array, ""] | int, total_steps: Number) -> Float[Array, ""]:
    """A penalty's weight at a step: 0 up to ``warmup`` of all steps, rising linearly over ``ramp`` of them.

    A ramp of length 0 is a jump. ``total_steps`` 0 gives the weight unchanged.
    """
    start, length = settings.warmup * total_steps, settings.ramp * total_steps
    step = jnp.asarray(step, jnp.float32)
    risen = jnp.where(length > 0, (step - start) / jnp.where(length > 0, length, 1.0), step >= start)
    return settings.weight * jnp.clip(risen, 0.0, 1.0)
