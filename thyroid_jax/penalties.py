"""The penalties: regularisers beside the tasks' losses. A new penalty is a new function and an entry here.

A penalty's group of settings is a field of :class:`PenaltySettings`. Its value is a sum and a count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.errors import InputError
from thyroid_jax.losses import consistency, rlar
from thyroid_jax.losses.reduce import Metrics, Pair, pair, share, size, summed, whole
from thyroid_jax.model import Params
from thyroid_jax.mtl import gradients
from thyroid_jax.radiomics import soft
from thyroid_jax.recipe import (
    Fitted,
    Penalty,
    PenaltyConfig,
    Recipe,
    Task,
    View,
    encode_with,
    encoder_and_rest,
    example_losses,
)
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array, Bool, Float, Number


@settings
class RLARConfig(PenaltyConfig):
    """Representation-level adversarial regularisation. docs/rlar.md says how the defaults were chosen."""

    ramp: float = 0.1
    """share of all steps over which its weight then rises linearly"""
    kind: Literal["hinge", "square", "abs"] = "hinge"
    """max(0, s - margin)^2, s^2 or max(0, |s| - margin)^2 of the cosine s between two tasks' directions"""
    margin: float = 0.0
    """cosine up to which alignment is left alone"""
    space: Literal["channel", "full"] = "channel"
    """directions of an offset in R^c that is added at every position, or of all the features"""
    level: str = model.LATENT
    """level of the encoder at which the directions are taken: latent, or stride2, stride4, ... for an earlier one"""
    tasks: tuple[str, ...] = ("segmentation", "grading")
    """whose directions are compared; the mean over the pairs is taken where there are more than two"""
    hold: tuple[str, ...] = ()
    """tasks whose directions are constants (stop-gradient): only the others turn; cheaper, and not exact any more"""

    def __post_init__(self):
        if not 2 <= len(set(self.tasks)) == len(self.tasks):
            raise InputError(f"rlar.tasks is {self.tasks}; name at least two tasks, each once.")
        if not set(self.hold) < set(self.tasks):
            raise InputError(
                f"rlar.hold is {self.hold}; name tasks of rlar.tasks, but not all of them: one at least must turn."
            )
        if self.kind == "square" and self.margin:
            raise InputError(
                f"rlar.margin is {self.margin:g}, but rlar.kind square has no margin; choose abs or hinge, or margin 0."
            )
        self.check("rlar")
        check_within(self, "rlar", ("margin",), -1, 1)


@settings
class ConsistencyConfig(PenaltyConfig):
    """Agreement of the predicted malignancy with a prior formed of the soft mask's shape. See docs/radiomics.md."""

    warmup: float = 0.1
    """share of all steps before it sets in, so that the outline comes first"""
    ramp: float = 0.1
    """share of all steps over which its weight then rises linearly"""
    gradient: Literal["both", "head", "mask"] = "both"
    """what gets a gradient: head and mask; head alone, as if phi were a label; mask (and the prior's weights) alone"""
    features: tuple[str, ...] = soft.MORPHOLOGY
    """names of `thyroid_jax.radiomics.soft.FEATURES`"""
    min_pixels: float = 50.0
    """masks with at most this many pixels above one half have no meaningful shape and are left out"""

    def __post_init__(self):
        unknown = [name for name in self.features if name not in soft.FEATURES]
        if unknown or not self.features:
            named = repr(unknown[0]) if unknown else "nothing"
            raise InputError(f"consistency.features names {named}; choose of {', '.join(soft.FEATURES)}.")
        self.check("consistency")
        check_within(self, "consistency", ("min_pixels",), 0)


@settings
class CosRegConfig(PenaltyConfig):
    """CosReg: the squared cosine between the tasks' gradients in the encoder's parameters (arXiv 1912.06844)."""

    def __post_init__(self):
        self.check("cosreg")


@dataclass(frozen=True)
class PenaltySettings:
    """A group of settings for every penalty, by the penalty's name."""

    rlar: RLARConfig = field(default_factory=RLARConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    cosreg: CosRegConfig = field(default_factory=CosRegConfig)


def angular(view: View, recipe: Recipe) -> tuple[Pair, Metrics]:
    """RLAR's penalty over the examples on which every compared task is defined, and metrics of the directions."""
    chosen: RLARConfig = recipe.settings["rlar"]
    directions = directions_at(view, recipe, chosen.level, chosen.tasks, space=chosen.space, hold=chosen.hold)
    where = compared(view.batch, recipe)
    values = rlar.angular_penalty(directions.unit, kind=chosen.kind, margin=chosen.margin, where=where)
    found = direction_metrics(directions, chosen.tasks, where, chosen.margin)
    return pair(values, where), found


def compared(batch: Batch, recipe: Recipe) -> Bool[Array, "b"]:
    """The examples on which RLAR compares directions: every task of ``rlar.tasks`` is defined."""
    return all_defined(batch, recipe, recipe.settings["rlar"].tasks)


def directions_at(
    view: View, recipe: Recipe, level: str, names: tuple[str, ...], *, space: Any, hold: tuple[str, ...] = ()
) -> rlar.Directions:
    """The adversarial directions of the named tasks at a level of the encoder."""
    found = [view.gradients[name]() for name in names]
    if level == model.LATENT:
        at_level = [gradient.z for gradient in found]
    else:
        features = model.features_at(recipe.model, view.latent, level)
        resume = partial(model.encode_from, view.params, recipe.model, view.latent, level)
        latent, pull = jax.vjp(resume, features)
        at_level = [pull(jax.tree.map(lambda g, out: g.astype(out.dtype), gradient, latent))[0] for gradient in found]
    held = [jax.lax.stop_gradient(g) if name in hold else g for name, g in zip(names, at_level)]
    return rlar.normalise(jnp.stack(held), jnp.stack([view.losses[name] for name in names]), space=space)


def all_defined(batch: Batch, recipe: Recipe, names: tuple[str, ...]) -> Bool[Array, "b"]:
    """Whether every named task is defined on each example."""
    return jnp.stack([task.defined(batch) for task in recipe.tasks if task.name in names]).all(0)


def direction_metrics(
    directions: rlar.Directions, names: tuple[str, ...], where: Bool[Array, "b"], margin: Number
) -> Metrics:
    """Metrics of the directions: mean cosine, |cosine| and share above the margin over the pairs; gradient lengths."""
    s = rlar.cosines(directions.unit)
    alignment = {
        "cosine": s.mean(0),
        "cosine_size": jnp.abs(s).mean(0),
        "cosine_above_margin": (s > margin).mean(0, dtype=s.dtype),
    }
    norms = {f"latent_gradient_{name}": norm for name, norm in zip(names, directions.norm)}
    return {name: pair(jax.lax.stop_gradient(values), where) for name, values in (alignment | norms).items()}


def shape_consistency(view: View, recipe: Recipe) -> tuple[Pair, Metrics]:
    """(p - phi)^2 over the images whose predicted mask is large enough, labelled or not, and metrics of the prior phi.

    p is the malignancy head's probability, phi the prior computed from the predicted mask's shape. Metrics: the sums
    from which :func:`thyroid_jax.losses.consistency.agreement` of phi with the labelled malignancy is computed, and
    each feature's weight in the prior.
    """
    chosen: ConsistencyConfig = recipe.settings["consistency"]
    params, batch, prior = view.params, view.batch, view.params["heads"]["prior"]
    mask = jax.nn.sigmoid(model.decode(params, recipe.model, view.latent))
    embedding = model.embed(params, recipe.model, view.latent)
    probability = jax.nn.sigmoid(model.malignancy(params, recipe.model, embedding, view.latent.measured))
    phi = consistency.malignancy_prior(prior, soft.morphology(mask, features=chosen.features))
    where = batch.example_valid & consistency.large_enough(mask, pixels=chosen.min_pixels)
    values = consistency.consistency(probability, phi, gradient=chosen.gradient, where=where)
    known = where & batch.malignant_valid
    products = jnp.where(known[:, None], consistency.products(phi, batch.malignant), 0).sum(0)
    found = {"prior_products": Pair(products, known.sum().astype(products.dtype))}
    weights = jax.nn.softplus(prior["weight"])
    found |= {f"prior_weight_{name}": whole(weight, recipe.axis) for name, weight in zip(chosen.features, weights)}
    return pair(values, where), jax.lax.stop_gradient(found)


def prior_parameters(chosen: ConsistencyConfig, fitted: Fitted) -> dict[str, Any]:
    """Fresh parameters of the malignancy prior, centred on the training outlines' mean features."""
    return {"prior": consistency.init_prior(len(chosen.features), fitted.shape_centre)}


def parameter_alignment(view: View, recipe: Recipe) -> tuple[Pair, Metrics]:
    """CosReg: the mean over the pairs of tasks of cos^2 between their gradients in the encoder's parameters.

    Its gradient is computed by forward over reverse mode: reverse over reverse is four times slower on a CPU.
    """
    tasks = {task.name: partial(_mean_loss, task, view.batch, recipe) for task in recipe.tasks}
    devices, add_up = size(recipe.axis), partial(summed, axis=recipe.axis)
    alignment = jax.custom_vjp(lambda encoder, rest: gradients.cosreg(tasks, encoder, rest, summed=add_up)[0])
    # The value below is divided by the number of devices; a device's part of the gradient must not be.
    alignment.defvjp(
        lambda encoder, rest: gradients.cosreg(tasks, encoder, rest, summed=add_up),
        lambda change, cotangent: jax.tree.map(lambda leaf: (devices * cotangent).astype(leaf.dtype) * leaf, change),
    )
    return share(alignment(*encoder_and_rest(view.params)) / devices, recipe.axis), {}


def _mean_loss(task: Task, batch: Batch, recipe: Recipe, encoder: Params, rest: Params) -> Float[Array, ""]:
    """This device's part of a task's mean loss over the whole batch, as a function of the parameters."""
    latent = encode_with(encoder, rest, batch, recipe)
    where = task.defined(batch)
    total, count = pair(example_losses(task, rest | encoder, latent, batch, recipe), where)
    return total / jnp.maximum(summed(count, recipe.axis), 1)


PENALTIES: tuple[Penalty, ...] = (
    Penalty("rlar", angular, counted=compared, adds_up=True),
    Penalty("consistency", shape_consistency, parameters=prior_parameters, adds_up=True),
    Penalty("cosreg", parameter_alignment),
)
