"""This project's side of the comparison: recipe, update without augmentation, and both described for the twin."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import recipe_of, replace_groups
from thyroid_jax.errors import InputError
from thyroid_jax.recipe import Recipe
from thyroid_jax.shapes import Array
from thyroid_jax.train.gradient import gradient
from thyroid_jax.train.optimizer import optimizer

from ..configs import named

SIZES, METHODS = ("small", "base", "tiny"), ("plain", "rlar")
SHAPE = ("width", "max_width", "depth", "blocks", "full_resolution", "groups", "embedding", "hidden")
RATES = ("learning_rate", "final_share", "warmup", "weight_decay", "clip", "b1", "b2")


def recipe(size: str, method: str, *, bfloat16: bool = False, total_steps: int = 1000) -> Recipe:
    """The recipe of a size and a method of ``experiments/configs.py``, with neutral class weights.

    ``bfloat16`` sets ``model.dtype``, the type of the convolutions, in place of what the size says.
    """
    if size not in SIZES or method not in METHODS:
        raise InputError(f"{size} {method}: the twin knows {', '.join(SIZES)} and {', '.join(METHODS)}.")
    config = replace_groups(named([size, method]), model={"dtype": "bfloat16" if bfloat16 else "float32"})
    found = recipe_of(config)
    return found.replace(fitted=found.fitted._replace(total_steps=np.array(total_steps, np.float32)))


def shape_fields(chosen: Recipe) -> dict[str, Any]:
    """The fields of the twin's ``Shape``."""
    return {name: getattr(chosen.model, name) for name in (*SHAPE, "grades", "radiomics")}


def training_fields(chosen: Recipe) -> dict[str, Any]:
    """The fields of the twin's ``Training``; InputError where the settings ask for what the twin lacks."""
    rates, rlar = chosen.settings["optimizer"], chosen.settings["rlar"]
    twin = {"head_decay": 1.0, "encoder_rate": 1.0, "level_decay": 1.0, "average": 0}
    fixed = {"kind": "hinge", "margin": 0.0, "space": "channel", "level": "latent", "hold": ()}
    fixed |= {"tasks": ("segmentation", "grading")}
    asked = dataclasses.asdict(rates) | dataclasses.asdict(rlar)
    odd = [name for name, value in (twin | fixed).items() if asked[name] != value]
    if odd or [task.name for task in chosen.tasks] != ["segmentation", "grading", "malignancy"]:
        raise InputError(f"the twin knows the default optimiser, tasks and RLAR alone; changed: {', '.join(odd)}.")
    fields = {name: getattr(rates, name) for name in RATES}
    fields |= {f"rlar_{name}": getattr(rlar, name) for name in ("weight", "warmup", "ramp")}
    return fields | {"total_steps": int(chosen.fitted.total_steps)}


def parameter_shapes(chosen: Recipe) -> Any:
    """The tree of the parameters' shapes and types; nothing is computed."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), chosen.model))


def as_batch(arrays: dict[str, np.ndarray], chosen: Recipe) -> Batch:
    """The project's batch from the arrays of :func:`weights.random_batch`. There is no guidance target."""
    b = len(arrays["image"])
    return Batch(
        image=np.moveaxis(arrays["image"], 1, -1),
        radiomics=np.zeros((b, chosen.model.radiomics), np.float32),
        radiomics_valid=np.zeros(b, bool),
        **{name: arrays[name] for name in arrays if name != "image"},
    )


def initial_optimizer(params: Any, chosen: Recipe) -> Any:
    """Fresh state of the optimiser."""
    return _optimizer(chosen).init(params)


def update(params: Any, opt_state: Any, step: Array, batch: Batch, chosen: Recipe) -> tuple[Any, Any, Array, Array]:
    """``thyroid_jax.train.step.update`` without the augmentation: new parameters, state, step, and the objective."""
    change, metrics, _ = gradient(params, batch, chosen, step=step, key=jax.random.key(0))
    change, opt_state = _optimizer(chosen).update(change, opt_state, params)
    return optax.apply_updates(params, change), opt_state, step + 1, metrics["loss"].sum


def _optimizer(chosen: Recipe) -> optax.GradientTransformation:
    return optimizer(chosen.settings["optimizer"], chosen.fitted.total_steps)
