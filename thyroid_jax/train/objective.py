"""What is minimised, in the paper's order: latent, task losses, adversarial directions, their angle, one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.losses import grading, guidance, masked_mean, rlar, segmentation
from thyroid_jax.shapes import Bool, Float


class Pair(NamedTuple):
    """A metric as a sum and the count it runs over: add pairs up, then divide; exact for padded batches."""

    sum: Float[""]
    count: Float[""]


Metrics = dict[str, Pair]


def task_losses(
    params: model.Params, skips: tuple[jax.Array, ...], batch: Batch, config: Config
) -> dict[str, Callable[[jax.Array], Float["b"]]]:
    """Each task's per-example loss as a function of the latent z alone; examples without that label lose 0."""
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

    return {"segmentation": outline, "grading": grade, "guidance": radiomics}


def task_valid(batch: Batch) -> dict[str, Bool["b"]]:
    """On which examples each task is defined."""
    return {
        "segmentation": batch.mask_valid & batch.example_valid,
        "grading": batch.grade_valid & batch.example_valid,
        "guidance": batch.radiomics_valid & batch.example_valid,
    }


def objective(params: model.Params, batch: Batch, config: Config, *, ramp: Float[""] | float = 1.0) -> tuple[Float[""], Metrics]:
    """L = w_seg L_seg + w_grade L_grade + w_guidance L_guidance + w_rlar ramp L_RLAR, and its parts as (sum, count).

    ``ramp`` in [0, 1] is how much of the angular penalty's weight is already on. Each L is a mean over the examples on which it is
    defined. With ``config.rlar.weight == 0`` nothing of the penalty is computed and this is the plain multitask objective.
    """
    z, skips = model.encode(params, config.model, batch.image)
    tasks, where = task_losses(params, skips, batch, config), task_valid(batch)
    probed = config.rlar.tasks if config.rlar.weight else ()
    losses = {name: task(z) for name, task in tasks.items() if name not in probed}
    metrics: Metrics = {}

    penalty = jnp.float32(0.0)
    if probed:
        directions = rlar.adversarial_directions({name: tasks[name] for name in probed}, z, space=config.rlar.space)
        losses |= dict(zip(probed, directions.loss))
        both = jnp.stack([where[name] for name in probed]).all(0)
        angular = rlar.angular_penalty(directions.unit, kind=config.rlar.kind, margin=config.rlar.margin, where=both)
        penalty = masked_mean(angular * rlar.reliability(directions.norm, tau=config.rlar.reliability), both)
        metrics |= direction_metrics(directions, probed, both, config.rlar.margin) | {"rlar": pair(angular, both)}

    means = {name: masked_mean(losses[name], where[name]) for name in tasks}
    total = (
        config.segmentation.weight * means["segmentation"]
        + config.grading.weight * means["grading"]
        + config.guidance.weight * means["guidance"]
    )
    if probed:
        total = total + config.rlar.weight * ramp * penalty
    metrics |= {f"loss_{name}": pair(losses[name], where[name]) for name in tasks}
    return total, {"loss": Pair(total, jnp.float32(1.0))} | metrics


def direction_metrics(directions: rlar.Directions, names: tuple[str, ...], where: Bool["b"], margin: float) -> Metrics:
    """How the tasks' directions lie: mean cosine, |cosine| and share above the margin over the pairs; gradient norms."""
    s = rlar.cosines(directions.unit)
    alignment = {"cosine": s.mean(0), "cosine_size": jnp.abs(s).mean(0), "cosine_above_margin": (s > margin).mean(0)}
    norms = {f"latent_gradient_{name}": norm for name, norm in zip(names, directions.norm)}
    return {name: pair(jax.lax.stop_gradient(values), where) for name, values in (alignment | norms).items()}


def pair(values: Float["b"], where: Bool["b"]) -> Pair:
    """(sum, count) of per-example values over the examples whose flag is True."""
    return Pair(jnp.where(where, values, 0.0).sum(), where.sum().astype(jnp.float32))
