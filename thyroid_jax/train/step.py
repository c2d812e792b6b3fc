"""One update: augment, gradient, optax, new state. A pure function of state, batch and recipe."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.compiling import QUICK
from thyroid_jax.data.augment import augment
from thyroid_jax.data.distort import distort
from thyroid_jax.losses.reduce import Metrics, summed, whole
from thyroid_jax.model import PUBLISHED, Params, encoder_levels
from thyroid_jax.mtl import scalarize
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Recipe, encode, example_losses, init_params, measure_evidence, with_own_evidence
from thyroid_jax.shapes import Array, Float, Int, Key
from thyroid_jax.train.gradient import gradient, loss_vector
from thyroid_jax.train.objective import evaluate
from thyroid_jax.train.optimizer import averaged, optimizer

_DISTORTIONS = 0x62656E74  # folded into the key of the distorted outlines
_MULTITASK_DRAWS = 0x6C6F7473  # folded into the key of a multitask method's draws: they differ from the augmentation's


class TrainState(NamedTuple):
    """Everything that changes in training, as one plain pytree.

    ``mtl_state`` belongs to the multitask method. ``average`` is the average of the parameters, () where none is kept.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    mtl_state: Any
    key: Key
    average: Any = ()

    @property
    def evaluated(self) -> Params:
        """The parameters to evaluate and to predict with: their average, or where none is kept, the present ones."""
        return self.average or self.params

    def packed(self) -> dict[str, Any]:
        """The state in two parts for a checkpoint: the parameters to predict with, and what else training needs."""
        rest = self._replace(average=()) if self.average else self._replace(params={})
        return {"params": self.evaluated, "rest": rest}


def unpacked(parts: dict[str, Any]) -> TrainState:
    """The state from the parts of :meth:`TrainState.packed`."""
    field = "average" if parts["rest"].params else "params"
    return parts["rest"]._replace(**{field: parts["params"]})


def init_state(recipe: Recipe, key: Key) -> TrainState:
    """A fresh state. Parameters and every later random choice follow from ``key``."""
    init_key, key = jax.random.split(key)
    draw = model.init if isinstance(key, jax.core.Tracer) else _quick_init  # options are for outermost programs only
    params = init_params(recipe, init_key, draw)
    opt_state = _init_optimizer(recipe, params)
    average = jax.tree.map(jnp.copy, params) if recipe.settings["optimizer"].average else ()
    return TrainState(jnp.int32(0), params, opt_state, init_mtl_state(recipe, key), key, average)


_quick_init = jax.jit(model.init, static_argnums=1, compiler_options=QUICK)  # one program serves all recipes of a model


@jax.jit
def _init_optimizer(recipe: Recipe, params: Params) -> Any:
    return _optimizer(recipe).init(params)


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    levels = encoder_levels(recipe.model) if recipe.model.encoder in PUBLISHED else None
    return optimizer(recipe.settings["optimizer"], recipe.fitted.total_steps, levels, recipe.model.frozen_levels)


def init_mtl_state(recipe: Recipe, key: Key) -> Any:
    """Fresh state of the multitask method; () where it has none."""
    method = recipe.settings["mtl"].method
    if method not in scalarize.SCALARIZERS:
        return ()
    key = jax.random.fold_in(key, _MULTITASK_DRAWS)
    return scalarize.init(method, len(recipe.tasks), key=key, steps_per_epoch=int(recipe.fitted.epoch_steps))


def update(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[TrainState, Metrics]:
    """One training update: augmentation, gradient, optimiser step, new state.

    ``batch`` holds images and masks as uint8, or as float32 in [0, 1]. Metrics are sums and counts of the whole batch.
    """
    key = jax.random.fold_in(state.key, state.step)
    batch = seen_by_the_network(key, batch, recipe)
    change, metrics, mtl_state = gradient(
        state.params,
        batch,
        recipe,
        step=state.step,
        mtl_state=state.mtl_state,
        key=jax.random.fold_in(key, _MULTITASK_DRAWS),
    )
    metrics |= {"gradient_norm": whole(jnp.linalg.norm(ravel_pytree(change)[0]), recipe.axis)}
    change, opt_state = _optimizer(recipe).update(change, state.opt_state, state.params)
    params = optax.apply_updates(state.params, change)
    average = averaged(recipe.settings["optimizer"], state.average, params, state.step) if state.average else ()
    if recipe.settings["mtl"].method == "famo":  # it needs the decrease of each loss on the same batch
        mtl_state = scalarize.famo_observe(mtl_state, mean_losses(params, batch, recipe))
    return TrainState(state.step + 1, params, opt_state, mtl_state, state.key, average), summed(metrics, recipe.axis)


def seen_by_the_network(key: Key, batch: Batch, recipe: Recipe) -> Batch:
    """The batch as a training step sees it: random views, and the guidance target of these views.

    Example i's view depends on ``key`` and on its place in the whole batch, however the batch is spread.
    """
    batch = in_unit_range(batch)
    first = jnp.int32(0) if recipe.axis is None else jax.lax.axis_index(recipe.axis) * batch.image.shape[0]
    image, mask = augment(key, batch.image, batch.mask, recipe.settings["augment"], first=first)
    batch = batch._replace(image=image, mask=mask)
    if recipe.model.evidence == "measured":
        wrong = distort(jax.random.fold_in(key, _DISTORTIONS), mask, recipe.settings["distort"], first=first)
        outlined = jnp.where(batch.mask_valid[:, None, None], wrong, 0.0)  # without an outline no value is defined
        batch = batch._replace(measured=measure_evidence(image, outlined, recipe))
    return with_own_target(batch, recipe)


def with_own_target(batch: Batch, recipe: Recipe) -> Batch:
    """The batch with the guidance target of its present views where a step measures it; otherwise as it is."""
    guided = any(task.name == "guidance" for task in recipe.tasks)
    return measured(batch, recipe) if guided and recipe.settings["guidance"].view == "augmented" else batch


def in_unit_range(batch: Batch) -> Batch:
    """8-bit images and masks as float32 in [0, 1], as :func:`unit_range` does."""
    return batch._replace(image=unit_range(batch.image), mask=unit_range(batch.mask))


def unit_range(pixels: Array) -> Array:
    """8-bit pixels and truth values as float32 in [0, 1]; floats as they are.

    Raises ValueError for other whole numbers, whose range is not known.
    """
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    if pixels.dtype not in (jnp.uint8, jnp.bool_):
        raise ValueError(f"pixels are of {pixels.dtype}; give uint8, or floats in [0, 1].")
    return pixels.astype(jnp.float32) / (255 if pixels.dtype == jnp.uint8 else 1)


def measured(batch: Batch, recipe: Recipe) -> Batch:
    """The batch with the guidance target measured on its present images and masks.

    The target of an example is valid only where it was valid before and every value is defined on the new view too.
    """
    values, valid = clinical.target(batch.image[..., 0], batch.mask, cut=recipe.fitted.mask_cut)
    scaled = recipe.fitted.scaling(values)
    return batch._replace(radiomics=scaled, radiomics_valid=batch.radiomics_valid & valid.all(-1))


def mean_losses(params: Params, batch: Batch, recipe: Recipe) -> Float[Array, "t"]:
    """The tasks' weighted mean losses f[t] over the whole batch, in their fixed order, without any penalty."""
    bare = recipe.replace(penalties=())
    terms = evaluate(params, encode(params, batch, recipe), batch, bare)
    return summed(loss_vector(terms.losses, recipe), recipe.axis)


train_step = jax.jit(update, donate_argnums=0)
"""``(state, batch, recipe) -> (state, metrics)``: :func:`update`, compiled once for a structure of recipe and a shape.

The old state's buffers are donated: do not use it again.
"""


@jax.jit
def evaluate_step(params: Params, batch: Batch, recipe: Recipe) -> dict[str, Array]:
    """Each task's score of every example, f32[b ...], at network size and without augmentation.

    ``loss_<task>`` f32[b] is the task's loss of every example, 0 where it has no label.
    """
    batch = with_own_evidence(params, in_unit_range(batch), recipe)
    latent = encode(params, batch, recipe)
    scores = {}
    for task in recipe.tasks:
        answer = task.answer(task.head(params, recipe.model, latent), recipe.settings[task.name])
        scores[task.name] = task.score(answer, task.label(batch))
        scores[f"loss_{task.name}"] = example_losses(task, params, latent, batch, recipe)
    return scores
