"""One update: augment, gradient, optax, new state. A pure function of (state, batch), compiled once, its state donated."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.data.augment import augment
from thyroid_jax.losses import consistency, grading
from thyroid_jax.mtl import scalarize
from thyroid_jax.radiomics import clinical
from thyroid_jax.shapes import Array, Float, Int, Key
from thyroid_jax.train.gradient import gradient
from thyroid_jax.train.objective import Metrics, Pair, Ramps, one, pair, task_valid, terms, trained

_LOTS = 0x6C6F7473  # folded into a key where a multitask method draws lots, apart from the augmentation's keys


class TrainState(NamedTuple):
    """Everything that changes in training, one plain pytree. ``mtl_state`` belongs to ``config.mtl.method``; () where it
    has none.
    """

    step: Int[Array, ""]
    params: model.Params
    opt_state: Any
    mtl_state: Any
    key: Key


def learning_rate(config: Config) -> optax.Schedule:
    """Linear warm-up, then a cosine down to ``final_share``, by step over ``config.train.total_steps``; constant where
    that is 0.
    """
    o, steps = config.optimizer, config.train.total_steps
    if steps == 0:
        return optax.constant_schedule(o.learning_rate)
    warmup = max(1, round(o.warmup * steps))
    return optax.warmup_cosine_decay_schedule(
        0.0, o.learning_rate, warmup, max(steps, warmup + 1), end_value=o.learning_rate * o.final_share
    )


def optimizer(config: Config) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW that decays matrices and kernels but not biases and normalisation scales."""
    o = config.optimizer
    decayed = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    adamw = optax.adamw(learning_rate(config), b1=o.b1, b2=o.b2, weight_decay=o.weight_decay, mask=decayed)
    return optax.chain(optax.clip_by_global_norm(o.clip), adamw) if o.clip else adamw


def ramps_at(step: Int[Array, ""], config: Config) -> Ramps:
    """How much of each regulariser's weight is on: 0 up to its start, then rising linearly to 1, all by step over
    ``total_steps``.

    RLAR starts at once and rises over ``rlar.ramp`` of all steps; the shape consistency starts after
    ``consistency.warmup`` of them. A length of 0 steps is a jump.
    """

    def rise(start: float, length: float) -> jax.Array:
        start, length = start * config.train.total_steps, length * config.train.total_steps
        risen = (step - start) / length if length else jnp.where(step >= start, 1.0, 0.0)
        return jnp.clip(jnp.asarray(risen, jnp.float32), 0.0, 1.0)

    return Ramps(rlar=rise(0.0, config.rlar.ramp), consistency=rise(config.consistency.warmup, config.consistency.ramp))


def init_state(config: Config, key: Key | None = None) -> TrainState:
    """A fresh state. ``key`` defaults to the one of ``config.train.seed``; parameters and every later random choice
    follow from it.
    """
    key = jax.random.key(config.train.seed) if key is None else key
    init_key, key = jax.random.split(key)
    params = model.init(init_key, config.model)
    if config.consistency.weight:
        params["heads"] |= {
            "prior": consistency.init_prior(len(config.consistency.features), config.consistency.centre or None)
        }
    return TrainState(jnp.int32(0), params, jax.jit(optimizer(config).init)(params), multitask_state(config, key), key)


def multitask_state(config: Config, key: Key) -> Any:
    """Fresh state of ``config.mtl.method``."""
    if config.mtl.method not in scalarize.SCALARIZERS:
        return ()
    per_epoch = max(1, config.train.total_steps // config.train.epochs)
    return scalarize.init(
        config.mtl.method, len(trained(config)), key=jax.random.fold_in(key, _LOTS), steps_per_epoch=per_epoch
    )


def update(state: TrainState, batch: Batch, config: Config) -> tuple[TrainState, Metrics]:
    """One update as a pure function: the method, in the order in which it happens.

    A config with ``rlar.every`` above 1 means two kinds of steps; :func:`at_step` says which this one is.
    """
    if config.rlar.weight and config.rlar.every != 1:
        raise ValueError(
            f"rlar.every is {config.rlar.every}: give update the config of the step, at_step(config, step)."
        )
    key = jax.random.fold_in(state.key, state.step)
    image, mask = augment(key, batch.image, batch.mask, config.augment)
    batch = batch._replace(image=image, mask=mask)
    if config.guidance.weight and config.guidance.view == "augmented":
        batch = measured(batch, config)
    change, metrics, mtl_state = gradient(
        state.params,
        batch,
        config,
        ramps=ramps_at(state.step, config),
        state=state.mtl_state,
        key=jax.random.fold_in(key, _LOTS),
    )
    metrics |= {"gradient_norm": one(optax.tree.norm(change))}
    change, opt_state = optimizer(config).update(change, state.opt_state, state.params)
    params = optax.apply_updates(state.params, change)
    if config.mtl.method == "famo":  # which asks how far each loss fell on the very same batch
        mtl_state = scalarize.famo_observe(mtl_state, losses_vector(params, batch, config))
    return TrainState(state.step + 1, params, opt_state, mtl_state, state.key), metrics


def measured(batch: Batch, config: Config) -> Batch:
    """The batch with the guidance target of what its images and masks are now; as it is where the target's scaling is
    not known.

    An example keeps its target only where it had one and every value is defined on the new view too.
    """
    if not config.guidance.centre:
        return batch
    values, valid = clinical.target(batch.image[..., 0], batch.mask >= 0.5)
    scaling = clinical.Scaling(
        np.asarray(config.guidance.centre, np.float32), np.asarray(config.guidance.spread, np.float32)
    )
    return batch._replace(radiomics=scaling(values), radiomics_valid=batch.radiomics_valid & valid.all(-1))


def losses_vector(params: model.Params, batch: Batch, config: Config) -> Float[Array, "t"]:
    """The trained tasks' weighted mean losses f[t], in their fixed order, without any penalty."""
    without = {name: dataclasses.replace(getattr(config, name), weight=0.0) for name in ("rlar", "consistency")}
    bare = dataclasses.replace(config, **without)
    return jnp.stack(list(terms(params, batch, bare).losses.values()))


def at_step(config: Config, step: int) -> Config:
    """The config of one step: with ``rlar.every`` = n the penalty weighs n times as much on every n-th step and
    nothing on the others.

    Chosen on the host, between two compiled steps: inside one, XLA's conditionals keep a CPU from its fast
    convolutions.
    """
    weight = 0.0 if step % config.rlar.every else config.rlar.weight * config.rlar.every
    return dataclasses.replace(config, rlar=dataclasses.replace(config.rlar, weight=weight, every=1))


def train_step(state: TrainState, batch: Batch, config: Config) -> tuple[TrainState, Metrics]:
    """:func:`update`, compiled once for a shape and a config. The old state's buffers are donated: do not use it again."""
    every = config.rlar.every if config.rlar.weight else 1
    return compiled_step(state, batch, at_step(config, int(state.step) if every > 1 else 0))


compiled_step = jax.jit(update, static_argnums=2, donate_argnums=0)


@partial(jax.jit, static_argnums=2)
def evaluate_step(params: model.Params, batch: Batch, config: Config) -> Metrics:
    """Validation sums at network size: hard Dice, and the confusion matrix f32[k k] (truth, prediction).

    Dice of each image at probability 0.5 against the mask at 0.5; two empty masks agree, 1.
    """
    outputs, where = model.apply(params, config.model, batch.image), task_valid(batch)
    predicted, reference = outputs.mask_logits > 0, batch.mask >= 0.5
    overlap, total = (predicted & reference).sum((1, 2)), predicted.sum((1, 2)) + reference.sum((1, 2))
    dice = jnp.where(total > 0, 2 * overlap / jnp.maximum(total, 1), 1.0)
    chosen = grading.probabilities(outputs.grade_logits, kind=config.grading.kind).argmax(-1)
    truth = jnp.where(where["grading"][:, None], jax.nn.one_hot(batch.grade.argmax(-1), config.model.grades), 0.0)
    confusion = truth.T @ jax.nn.one_hot(chosen, config.model.grades)
    return {"dice": pair(dice, where["segmentation"]), "confusion": Pair(confusion, truth.sum())}
