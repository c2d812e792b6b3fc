"""The input of a training step besides state and batch: tasks, penalties, their settings, and fitted values.

A :class:`Recipe` is one argument of a jitted function. Its numbers and arrays are traced; tasks, penalties, kinds and
the network's shape are structure. Recipes that differ in numbers alone, such as those of a sweep over weights,
learning rates, folds or seeds, share one compiled program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.errors import InputError
from thyroid_jax.losses.reduce import Metrics, Pair
from thyroid_jax.model import Latent, ModelConfig, Params
from thyroid_jax.radiomics import clinical
from thyroid_jax.radiomics.clinical import Scaling
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array, Bool, Float, Key


@dataclass(frozen=True)
class Task:
    """Definition of one task. Objective, multitask methods, validation and prediction iterate over a tuple of these.

    Args:
        name: of the task, of its group of settings, and of its loss in the log.
        label: batch -> the label's array [b ...].
        valid: batch -> bool[b], False where the label is missing.
        head: (parameters, model config, latent) -> prediction [b ...], the head's own output.
        loss: (prediction, label, settings, fitted, where) -> f32[b], unreduced.
        answer: (prediction, settings) -> what a user gets, such as probabilities [b ...].
        score: (answer, label) -> f32[b ...] of each example, small enough to go to the host.
        measures: (scores, labels, where), NumPy arrays of a whole part -> measures by name, higher is better.
    """

    name: str
    label: Callable[[Batch], Array]
    valid: Callable[[Batch], Array]
    head: Callable[[Params, ModelConfig, Latent], Array]
    loss: Callable[[Array, Array, Any, Fitted, Array], Array]
    answer: Callable[[Array, Any], Array]
    score: Callable[[Array, Array], Array]
    measures: Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]

    def defined(self, batch: Batch) -> Bool[Array, "b"]:
        """Whether the task is defined on each example: it has the label and does not pad the batch.

        Raises ValueError unless both flags are of one shape: one flag would otherwise be that of every example.
        """
        valid = self.valid(batch)
        if valid.shape != batch.example_valid.shape:
            raise ValueError(
                f"flags of {self.name} {valid.shape}, example_valid {batch.example_valid.shape}: both hold one flag "
                "for each example."
            )
        return valid & batch.example_valid


@settings
class TaskConfig:
    """Settings that every task has."""

    weight: float = 1.0
    """weight of the task's mean loss in the objective; 0 switches the task off"""


@settings
class PenaltyConfig:
    """Settings that every penalty has."""

    weight: float = 0.0
    """weight of the penalty in the objective; 0 switches it off"""
    warmup: float = 0.0
    """share of all steps before it sets in"""
    ramp: float = 0.0
    """share of all steps over which its weight then rises linearly"""

    def check(self, where: str) -> None:
        """Raise :class:`InputError` for numbers that make no sense."""
        check_within(self, where, ("weight",), 0)
        check_within(self, where, ("warmup", "ramp"), 0, 1)
        if self.warmup == 1:
            raise InputError(
                f"{where}.warmup is 1: a share of all steps, so the penalty would never set in. Make it smaller, or "
                f"set {where}.weight 0."
            )


class View(NamedTuple):
    """The input of a penalty: parameters, latent and batch, and every trained task's losses and gradients.

    ``losses`` holds f32[b] per task. Each function in ``gradients`` returns the gradient of the task's summed losses at
    the latent and the skips; it shares its trace with the losses.
    """

    params: Params
    latent: Latent
    batch: Batch
    losses: Mapping[str, Float[Array, "b"]]
    gradients: Mapping[str, Callable[[], Latent]]


@dataclass(frozen=True)
class Penalty:
    """Definition of one regulariser. Both forms of the gradient, the log and the settings use a tuple of these.

    Args:
        name: of the penalty, of its group of settings, and of its value in the log.
        value: (view, recipe) -> its sum and count, and what to log.
        parameters: (settings, fitted) -> parameters of its own by name, which live in ``params["heads"]``; or None.
        counted: (batch, recipe) -> bool[b], the examples that it sums over, where they follow from the labels; or None.
        adds_up: whether its sum over a batch is the sum over the batch's parts; without it, a batch is never divided.
    """

    name: str
    value: Callable[[View, Recipe], tuple[Pair, Metrics]]
    parameters: Callable[[Any, Fitted], dict[str, Any]] | None = None
    counted: Callable[[Batch, Recipe], Array] | None = None
    adds_up: bool = False


class Fitted(NamedTuple):
    """Values fitted on the training part: arrays, kept with the run, traced under jit.

    class_weights   f32[k] of the grading loss, mean 1 over the training examples
    malignant_weights   f32[2] of the malignancy loss, for benign and malignant
    scaling         centre and spread f32[r] of the radiomics target, as guidance and as measured evidence
    mask_cut        f32[], where soft outlines are cut to measure the target; not a value of the readers' mean
    shape_centre    f32[n], mean shape features of the training outlines, for the malignancy prior
    total_steps     f32[], length of the schedules; 0, for steps called by hand, keeps rates and weights constant
    epoch_steps     i32[], steps in an epoch
    """

    class_weights: Float[Array, "k"]
    malignant_weights: Float[Array, "2"]
    scaling: Scaling
    mask_cut: Float[Array, ""]
    shape_centre: Float[Array, "n"]
    total_steps: Float[Array, ""]
    epoch_steps: Array

    @classmethod
    def neutral(cls, grades: int, radiomics: int, shapes: int = 4, *, total_steps: float = 0.0) -> Fitted:
        """Values without an effect: weights 1, no scaling; for steps called by hand."""
        full = lambda count, value: np.full(count, value, np.float32)
        return cls(
            class_weights=full(grades, 1.0),
            malignant_weights=full(2, 1.0),
            scaling=Scaling(full(radiomics, 0.0), full(radiomics, 1.0)),
            mask_cut=np.array(0.5, np.float32),
            shape_centre=full(shapes, 0.0),
            total_steps=np.array(total_steps, np.float32),
            epoch_steps=np.array(1, np.int32),
        )


@dataclass(frozen=True)
class Recipe:
    """Everything that a training step depends on besides its state and its batch.

    Args:
        model: shape of the network.
        tasks: the trained tasks, in their fixed order.
        penalties: the penalties whose weight is above 0.
        settings: groups of settings by name: of tasks, penalties, ``augment``, ``mtl``, ``optimizer``.
        fitted: values fitted on the training part.
        axis: mapped axis (``pmap``) that the batch is spread over, or None where arrays are whole.
        accumulate: parts of a batch that a training step works on one after the other.
    """

    model: ModelConfig
    tasks: tuple[Task, ...]
    penalties: tuple[Penalty, ...]
    settings: dict[str, Any]
    fitted: Fitted
    axis: str | None = field(default=None)
    accumulate: int = 1

    def replace(self, **changes: Any) -> Recipe:
        """The recipe with some fields changed."""
        return dataclasses.replace(self, **changes)

    def with_settings(self, name: str, **changes: Any) -> Recipe:
        """The recipe with some fields of the group of settings ``name`` changed."""
        return self.replace(settings=self.settings | {name: dataclasses.replace(self.settings[name], **changes)})


jax.tree_util.register_dataclass(
    Recipe, data_fields=["settings", "fitted"], meta_fields=["model", "tasks", "penalties", "axis", "accumulate"]
)


def init_params(recipe: Recipe, key: Key, draw: Callable[[Key, ModelConfig], Params] = model.init) -> Params:
    """Fresh parameters: those of the network, which ``draw`` makes, and those of the penalties."""
    params = draw(key, recipe.model)
    for penalty in recipe.penalties:
        if penalty.parameters is not None:
            params["heads"] |= penalty.parameters(recipe.settings[penalty.name], recipe.fitted)
    return params


def example_losses(task: Task, params: Params, latent: Latent, batch: Batch, recipe: Recipe) -> Float[Array, "b"]:
    """A task's loss f32[b] of every example, at least float32; 0 where the task is not defined."""
    prediction = task.head(params, recipe.model, latent)
    losses = task.loss(prediction, task.label(batch), recipe.settings[task.name], recipe.fitted, task.defined(batch))
    return losses.astype(jnp.promote_types(losses.dtype, jnp.float32))


def encoder_and_rest(params: Params) -> tuple[Params, Params]:
    """The parameters that the tasks share, and the others."""
    return {"encoder": params["encoder"]}, {name: tree for name, tree in params.items() if name != "encoder"}


def encode(params: Params, batch: Batch, recipe: Recipe) -> Latent:
    """The latent of a batch, with its measured evidence where the model reads it."""
    latent = model.encode(params, recipe.model, batch.image)
    return latent._replace(measured=batch.measured) if recipe.model.evidence == "measured" else latent


def encode_with(encoder: Params, rest: Params, batch: Batch, recipe: Recipe) -> Latent:
    """:func:`encode` from the two parts of :func:`encoder_and_rest`."""
    return encode(rest | encoder, batch, recipe)


def measure_evidence(image: Float[Array, "b h w 1"], outline: Array, recipe: Recipe) -> Float[Array, "b m"]:
    """Measured evidence f32[b 2r] of soft outlines f32[b h w]: the scaled values of the radiomics target, 0 where one
    is undefined, then a 1 for every value that is defined.

    Reference and predicted outlines are cut at the fitted ``mask_cut``. It is 1/2, but not where the outline is the
    mean of an even number of readers: that is 1/2 wherever they disagree, and rounding would decide.
    """
    values, valid = clinical.target(image[..., 0], outline >= recipe.fitted.mask_cut)
    scaled = jnp.where(valid, recipe.fitted.scaling(values), 0.0)
    return jnp.concatenate([scaled, valid.astype(scaled.dtype)], axis=-1)


def with_own_evidence(params: Params, batch: Batch, recipe: Recipe) -> Batch:
    """The batch with evidence measured on the model's own outline, as at prediction; unchanged where it reads none."""
    if recipe.model.evidence == "learned":
        return batch
    latent = model.encode(params, recipe.model, batch.image)
    outline = jax.nn.sigmoid(model.decode(params, recipe.model, latent))
    return batch._replace(measured=measure_evidence(batch.image, outline, recipe))
