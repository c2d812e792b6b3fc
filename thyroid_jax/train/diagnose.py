"""Diagnosis of the tasks' gradients during training: angles and lengths at the encoder's levels and parameters."""

from __future__ import annotations

from functools import partial, reduce
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.losses import rlar
from thyroid_jax.losses.reduce import Metrics, Pair, masked_mean, pair
from thyroid_jax.model import LATENT, Latent, Params
from thyroid_jax.mtl.gradients import cosines, gramian
from thyroid_jax.penalties import all_defined, direction_metrics, directions_at
from thyroid_jax.recipe import Recipe, View, encode, encode_with, encoder_and_rest, with_own_evidence
from thyroid_jax.shapes import Array, Bool, Float
from thyroid_jax.train.gradient import task_gradients
from thyroid_jax.train.objective import view_of
from thyroid_jax.train.step import in_unit_range, with_own_target

BINS = 40
"""number of bins of the histogram of cosines, from -1 to 1"""


@jax.jit
def diagnose(params: Params, batch: Batch, recipe: Recipe) -> Metrics:
    """Angles and lengths of the tasks' gradients on one batch, without augmentation; with or without RLAR.

    The guidance target is that of these images. With ``guidance.view`` original the batch has it, else it is measured
    here.

    For each level of the encoder in channel space, and for the latent in full space too, over the examples on which
    every task of ``rlar.tasks`` is defined, mean over the pairs of tasks (P is ``LEVEL_SPACE``):

    - ``cosine_P``, ``cosine_size_P`` (its absolute value), ``cosine_above_margin_P``, ``cosine_histogram_P`` (shares of
      40 bins)
    - ``latent_gradient_TASK_P``: length of each task's gradient there; ``latent_gradient_ratio_P``: log10 of the
      first task's length over the second's
    - ``penalty_share_P`` at the latent: length of the angular penalty's gradient at weight 1, divided by the length of
      the gradient of the tasks' weighted losses

    and for the whole batch:

    - ``parameter_gradient_TASK``, ``parameter_cosine_TASK_TASK``: lengths and cosines of the gradients of the tasks'
      weighted mean losses in the encoder's parameters
    - ``gramian_eigenvalue_1..t``: spectrum of those gradients' Gramian, smallest first, trace 1

    With fewer than two trained tasks of ``rlar.tasks`` only the second part is measured. A batch without any label of a
    task counts nowhere where that task is in: its gradient is not 0, it is not known.
    """
    batch = with_own_evidence(params, with_own_target(in_unit_range(batch), recipe), recipe)
    encoder, rest = encoder_and_rest(params)
    latent, pull = jax.vjp(lambda encoder: encode_with(encoder, rest, batch, recipe), encoder)
    tasks, _ = task_gradients(params, latent, batch, recipe)
    names = tuple(tasks)
    compared = tuple(name for name in recipe.settings["rlar"].tasks if name in names)
    metrics: Metrics = {}
    if len(compared) > 1:
        view = view_of(params, latent, batch, recipe)
        places = [(level, "channel") for level in model.level_names(recipe.model)] + [(LATENT, "full")]
        for level, space in places:
            found = angles(view, recipe, level, space, compared)
            metrics |= {f"{name}_{level}_{space}": value for name, value in found.items()}
        at_z, there = reduce(jnp.add, [task.outputs.z for task in tasks.values()]), all_defined(batch, recipe, compared)
        for space in ("channel", "full"):
            share = penalty_share(params, latent, batch, recipe, space, compared, at_z)
            metrics[f"penalty_share_{LATENT}_{space}"] = known(share, there.any())

    gram = gramian([pull(task.outputs)[0] for task in tasks.values()])
    lengths = jnp.sqrt(jnp.diagonal(gram))
    labelled = {task.name: task.defined(batch).any() for task in recipe.tasks}
    metrics |= {f"parameter_gradient_{name}": known(length, labelled[name]) for name, length in zip(names, lengths)}
    if len(names) > 1:
        for (one, two), value in zip(combinations(names, 2), cosines(gram)):
            metrics[f"parameter_cosine_{one}_{two}"] = known(value, labelled[one] & labelled[two])
    spectrum = jnp.linalg.eigvalsh(gram / jnp.maximum(jnp.trace(gram), 1e-30))
    every = jnp.stack([labelled[name] for name in names]).all()
    return metrics | {
        f"gramian_eigenvalue_{number}": known(value, every) for number, value in enumerate(spectrum, start=1)
    }


def known(value: Float[Array, ""], where: Any) -> Pair:
    """A value of the whole batch, counted once where it is known."""
    return pair(value[None], jnp.asarray(where)[None])


def angles(view: View, recipe: Recipe, level: str, space: str, names: tuple[str, ...]) -> Metrics:
    """Metrics of the tasks' directions at a level: cosines and their histogram over the pairs; lengths, their ratio."""
    directions = directions_at(view, recipe, level, names, space=space)
    where = all_defined(view.batch, recipe, names)
    s = rlar.cosines(directions.unit)
    bins = jnp.clip(jnp.floor((s + 1) * BINS / 2), 0, BINS - 1).astype(int)
    histogram = (jax.nn.one_hot(bins, BINS) * where[None, :, None]).mean(0).sum(0)
    ratio = jnp.log10(directions.norm[0] / directions.norm[1])
    return direction_metrics(directions, names, where, recipe.settings["rlar"].margin) | {
        "cosine_histogram": Pair(histogram, where.sum().astype(histogram.dtype)),
        "latent_gradient_ratio": pair(ratio, where & (directions.norm[:2].min(0) > 1e-9)),
    }


def penalty_share(
    params: Params,
    latent: Latent,
    batch: Batch,
    recipe: Recipe,
    space: str,
    names: tuple[str, ...],
    of_tasks: Float[Array, "b y x c"],
) -> Float[Array, ""]:
    """|gradient of the angular penalty at z, weight 1| / |gradient of the tasks' weighted losses at z|."""
    chosen = recipe.settings["rlar"]
    where: Bool[Array, "b"] = all_defined(batch, recipe, names)

    def penalty(z: Float[Array, "b y x c"]) -> Float[Array, ""]:
        view = view_of(params, latent._replace(z=z), batch, recipe)
        directions = directions_at(view, recipe, LATENT, names, space=space)
        values = rlar.angular_penalty(directions.unit, kind=chosen.kind, margin=chosen.margin, where=where)
        return masked_mean(values, where)

    length = lambda x: jnp.sqrt((x**2).sum())
    return length(jax.grad(penalty)(latent.z)) / jnp.maximum(length(of_tasks), 1e-20)


@partial(jax.jit, static_argnames=("level", "space"))
def directions_of(
    params: Params, batch: Batch, recipe: Recipe, *, level: str = LATENT, space: str = "channel"
) -> rlar.Directions:
    """The adversarial directions of the tasks of ``rlar.tasks`` at a level of the encoder, on an unaugmented batch."""
    batch = with_own_evidence(params, with_own_target(in_unit_range(batch), recipe), recipe)
    latent = encode(params, batch, recipe)
    return directions_at(
        view_of(params, latent, batch, recipe), recipe, level, recipe.settings["rlar"].tasks, space=space
    )
