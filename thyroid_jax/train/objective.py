"""What is minimised, in the paper's order: latent, task losses, adversarial directions, their angle, one number."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import TASKS, Config
from thyroid_jax.losses import consistency, grading, guidance, masked_mean, rlar, segmentation
from thyroid_jax.mtl import gradients
from thyroid_jax.radiomics import soft
from thyroid_jax.shapes import Array, Bool, Float


class Pair(NamedTuple):
    """A metric as a sum and the count it runs over: add pairs up, then divide; exact for padded batches."""

    sum: Float[Array, "*n"]
    count: Float[Array, ""]


Metrics = dict[str, Pair]


class Ramps(NamedTuple):
    """How much of each regulariser's weight is already on, in [0, 1]."""

    rlar: Float[Array, ""] | float = 1.0
    consistency: Float[Array, ""] | float = 1.0


ALL_ON = Ramps()


class Terms(NamedTuple):
    """The objective before it is added up: each trained task's mean loss times its weight, the weighted penalties, and
    metrics.
    """

    losses: dict[str, Float[Array, ""]]
    penalty: Float[Array, ""]
    metrics: Metrics


def objective(
    params: model.Params, batch: Batch, config: Config, *, ramps: Ramps = ALL_ON
) -> tuple[Float[Array, ""], Metrics]:
    """L = w_seg L_seg + w_grade L_grade + w_guidance L_guidance + w_rlar r L_RLAR + w_cons r' L_cons (+ w_cosreg
    L_CosReg), and its parts.

    ``ramps`` are r and r'. Each L is a mean over the examples on which it is defined. A task or penalty of weight 0
    is not computed at all. This is the plain sum with RLAR's weight as it stands: multitask methods other than
    ``equal`` and a relative scale weigh the same terms otherwise (:mod:`thyroid_jax.train.gradient`), and
    ``rlar.every`` says on which steps (:func:`thyroid_jax.train.step.at_step`).
    """
    losses, penalty, metrics = terms(params, batch, config, ramps=ramps)
    total = sum(losses.values()) + penalty
    if config.mtl.cosreg:
        tasks, encoder, others = mean_losses(params, batch, config)
        total += config.mtl.cosreg * gradients.alignment([jax.grad(task)(encoder, others) for task in tasks.values()])
    return total, {"loss": one(total)} | metrics


def terms(params: model.Params, batch: Batch, config: Config, *, ramps: Ramps = ALL_ON) -> Terms:
    """The objective's terms, from one pass through the encoder."""
    z, skips = model.encode(params, config.model, batch.image)
    tasks, where = task_losses(params, skips, batch, config), task_valid(batch)
    probed = config.rlar.tasks if config.rlar.weight else ()
    losses = {name: task(z) for name, task in tasks.items() if name not in probed}
    metrics: Metrics = {}

    penalty = jnp.float32(0.0)
    if probed:
        chosen = {name: tasks[name] for name in probed}
        directions = rlar.adversarial_directions(chosen, z, space=config.rlar.space, hold=config.rlar.hold)
        losses |= dict(zip(probed, directions.loss))
        mean, seen = angular(directions, where, config)
        penalty = config.rlar.weight * ramps.rlar * mean
        metrics |= seen
    if config.consistency.weight:
        mean, seen = shape_consistency(params, skips, z, batch, config)
        penalty = penalty + config.consistency.weight * ramps.consistency * mean
        metrics |= seen

    metrics |= {f"loss_{name}": pair(losses[name], where[name]) for name in tasks}
    return Terms(
        {name: trained(config)[name] * masked_mean(losses[name], where[name]) for name in tasks}, penalty, metrics
    )


def trained(config: Config) -> dict[str, float]:
    """Tasks with a weight above 0, in their fixed order, and those weights."""
    return {name: getattr(config, name).weight for name in TASKS if getattr(config, name).weight}


def task_losses(
    params: model.Params, skips: tuple[jax.Array, ...], batch: Batch, config: Config
) -> dict[str, Callable[[jax.Array], Float[Array, "b"]]]:
    """Each trained task's per-example loss as a function of the latent z alone; examples without that label lose 0."""
    where = task_valid(batch)

    def outline(z: jax.Array) -> jax.Array:
        logits = model.decode(params, config.model, model.Latent(z, skips))
        parts = {"where": where["segmentation"]}
        return config.segmentation.bce * segmentation.bce(logits, batch.mask, **parts) + (
            config.segmentation.dice * segmentation.soft_dice(logits, batch.mask, **parts)
        )

    def grade(z: jax.Array) -> jax.Array:
        logits = model.classify(params, config.model, model.embed(params, config.model, z))
        loss = grading.LOSSES[config.grading.kind]
        return loss(logits, batch.grade, class_weights=config.grading.class_weights, where=where["grading"])

    def radiomics(z: jax.Array) -> jax.Array:
        predicted = model.predict_radiomics(params, config.model, model.embed(params, config.model, z))
        return guidance.guidance(predicted, batch.radiomics, beta=config.guidance.beta, where=where["guidance"])

    every = {"segmentation": outline, "grading": grade, "guidance": radiomics}
    return {name: every[name] for name in trained(config)}


def task_valid(batch: Batch) -> dict[str, Bool[Array, "b"]]:
    """On which examples each task is defined."""
    return {
        "segmentation": batch.mask_valid & batch.example_valid,
        "grading": batch.grade_valid & batch.example_valid,
        "guidance": batch.radiomics_valid & batch.example_valid,
    }


def angular(
    directions: rlar.Directions, where: dict[str, Bool[Array, "b"]], config: Config
) -> tuple[Float[Array, ""], Metrics]:
    """RLAR's penalty, mean over the examples on which every probed task is defined, and how the directions lie."""
    names = config.rlar.tasks
    both = jnp.stack([where[name] for name in names]).all(0)
    angles = rlar.angular_penalty(directions.unit, kind=config.rlar.kind, margin=config.rlar.margin, where=both)
    reliable = angles * rlar.reliability(directions.norm, tau=config.rlar.reliability)
    return masked_mean(reliable, both), direction_metrics(directions, names, both, config.rlar.margin) | {
        "rlar": pair(reliable, both)
    }


def shape_consistency(
    params: model.Params, skips: tuple[jax.Array, ...], z: Float[Array, "b y x c"], batch: Batch, config: Config
) -> tuple[Float[Array, ""], Metrics]:
    """Mean (p - phi)^2 over the images whose predicted mask is large enough, labelled or not, and what the prior phi
    says.

    p is the predicted probability of malignancy, phi the prior of the predicted mask's shape. Metrics:
    ``consistency``; the sums of which :func:`thyroid_jax.losses.consistency.agreement` of phi with the labelled
    malignancy is made; each feature's weight in the prior.
    """
    settings, prior = config.consistency, params["heads"]["prior"]
    mask = jax.nn.sigmoid(model.decode(params, config.model, model.Latent(z, skips)))
    grades = grading.probabilities(
        model.classify(params, config.model, model.embed(params, config.model, z)), kind=config.grading.kind
    )
    malignant = lambda grades: grades[:, settings.first_malignant :].sum(-1)
    phi = consistency.malignancy_prior(prior, soft.morphology(mask, features=settings.features))
    where = batch.example_valid & consistency.large_enough(mask, pixels=settings.min_pixels)
    values = consistency.consistency(malignant(grades), phi, gradient=settings.gradient, where=where)
    known = where & task_valid(batch)["grading"]
    products = jnp.where(known[:, None], consistency.products(phi, malignant(batch.grade)), 0).sum(0)
    weights = dict(zip(settings.features, jax.nn.softplus(prior["weight"])))
    seen = {"consistency": pair(values, where), "prior_products": Pair(products, known.sum().astype(jnp.float32))}
    seen |= {f"prior_weight_{name}": one(weight) for name, weight in weights.items()}
    return masked_mean(values, where), jax.lax.stop_gradient(seen)


def mean_losses(
    params: model.Params, batch: Batch, config: Config
) -> tuple[dict[str, Callable[[model.Params, model.Params], Float[Array, ""]]], model.Params, model.Params]:
    """Each trained task's mean loss as a function of (encoder, decoder and heads), and these two parts of ``params``."""
    encoder, rest = encoder_and_rest(params)

    def mean_loss(name: str, encoder: model.Params, rest: model.Params) -> jax.Array:
        z, skips = model.encode(encoder, config.model, batch.image)
        return masked_mean(task_losses(rest, skips, batch, config)[name](z), task_valid(batch)[name])

    return {name: partial(mean_loss, name) for name in trained(config)}, encoder, rest


def encoder_and_rest(params: model.Params) -> tuple[model.Params, model.Params]:
    """The parameters that the tasks share, and the others."""
    return {"encoder": params["encoder"]}, {name: tree for name, tree in params.items() if name != "encoder"}


def direction_metrics(
    directions: rlar.Directions, names: tuple[str, ...], where: Bool[Array, "b"], margin: float
) -> Metrics:
    """How the tasks' directions lie: mean cosine, |cosine| and share above the margin over the pairs; gradient norms."""
    s = rlar.cosines(directions.unit)
    alignment = {"cosine": s.mean(0), "cosine_size": jnp.abs(s).mean(0), "cosine_above_margin": (s > margin).mean(0)}
    norms = {f"latent_gradient_{name}": norm for name, norm in zip(names, directions.norm)}
    return {name: pair(jax.lax.stop_gradient(values), where) for name, values in (alignment | norms).items()}


def pair(values: Float[Array, "b"], where: Bool[Array, "b"]) -> Pair:
    """(sum, count) of per-example values over the examples whose flag is True."""
    return Pair(jnp.where(where, values, 0.0).sum(), where.sum().astype(jnp.float32))


def one(value: Float[Array, "*n"]) -> Pair:
    """A value that belongs to the whole batch, counted once."""
    return Pair(value, jnp.float32(1.0))
