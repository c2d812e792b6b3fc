"""Prediction of outlines, grades and malignancy, at each image's own resolution. It needs only a run's parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from thyroid_jax import checkpoints, model
from thyroid_jax.config import Config, recipe_of
from thyroid_jax.data.pipeline import letterbox, undo_letterbox
from thyroid_jax.errors import InputError
from thyroid_jax.files import read_json
from thyroid_jax.model import Params
from thyroid_jax.recipe import Recipe, init_params, measure_evidence
from thyroid_jax.settings import from_dict
from thyroid_jax.shapes import Array
from thyroid_jax.tasks import TASKS

ABOUT_RUN = "made_from"
"""key of ``config.json`` beside the groups of settings: digests of the data and of the split"""


class Trained(NamedTuple):
    """A trained model: config, recipe, parameters, a description of its data (``facts``), its checkpoint's step."""

    config: Config
    recipe: Recipe
    params: Params
    facts: dict[str, Any]
    step: int


class Prediction(NamedTuple):
    """The model's prediction for one image; None where it was not trained for it.

    ``probability f32[h w]`` of a nodule at the image's own size, ``grades f32[k]`` with sum 1, ``malignant`` a
    probability, ``answers`` every trained task's answer by name, with the outline at the network's size.
    """

    probability: np.ndarray | None
    grades: np.ndarray | None
    malignant: float | None
    answers: dict[str, np.ndarray]


def read_config(path: Path) -> tuple[Config, dict[str, Any]]:
    """A run's ``config.json``: its settings, and what the run was made from."""
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get(ABOUT_RUN), dict):
        raise InputError(f"{path}: not the config of a run, or of one made by another version; start a new run folder.")
    made_from = values.pop(ABOUT_RUN)
    return from_dict(Config, values, where=str(path)), made_from


def recipe_from_facts(config: Config, facts: dict[str, Any]) -> Recipe:
    """The recipe of a run's config for the data that ``facts`` describe, with the tasks that had labels."""
    recipe = recipe_of(config, grades=max(2, len(facts["grades"])))
    return recipe.replace(tasks=tuple(task for task in TASKS if task.name in facts["tasks"]))


def layout(recipe: Recipe) -> Params:
    """Shapes of the parameters of a recipe."""
    return jax.eval_shape(partial(init_params, recipe), jax.random.key(0))


def load(run_dir: Path | str, *, checkpoint: str = "best", echo: Any = print) -> Trained:
    """Read a run's ``"best"`` or ``"last"`` checkpoint; a folder without any raises :class:`InputError`.

    Without a best one, as in a run that was stopped early, the last is taken. Where the newest of several checkpoints
    is damaged, the one before is read and ``echo`` is called with one line about it. A run keeps one best checkpoint:
    where that is damaged, :class:`InputError`.
    """
    run_dir = Path(run_dir)
    config, _ = read_config(run_dir / "config.json")
    folder = run_dir / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{folder}: no checkpoints there; train first, or name the folder of a run.")

    def like(facts: dict[str, Any]) -> dict[str, Any]:
        recipe = recipe_from_facts(config, facts)
        return {"params": layout(recipe), "fitted": recipe.fitted}

    saved = checkpoints.newest(folder / "best", like, echo=echo) if checkpoint == "best" else None
    saved = saved or checkpoints.newest(folder / "last", like, echo=echo)
    if saved is None:
        raise InputError(f"{folder}: the run was stopped before its first checkpoint; run the training command again.")
    recipe = recipe_from_facts(config, saved.facts).replace(fitted=jax.device_get(saved.arrays["fitted"]))
    return Trained(config, recipe, saved.arrays["params"], saved.facts, saved.step)


@jax.jit
def forward(params: Params, recipe: Recipe, image: Array) -> dict[str, Array]:
    """Every trained task's answer for a batch at network size; ``image`` uint8, or float32 in [0, 1]."""
    image = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    latent = model.encode(params, recipe.model, image)
    if recipe.model.evidence == "measured":
        outline = jax.nn.sigmoid(model.decode(params, recipe.model, latent))
        latent = latent._replace(measured=measure_evidence(image, outline, recipe))
    return {
        task.name: task.answer(task.head(params, recipe.model, latent), recipe.settings[task.name])
        for task in recipe.tasks
    }


@jax.jit
def forward_both_ways(params: Params, recipe: Recipe, image: Array) -> dict[str, Array]:
    """:func:`forward`, averaged over the batch and its left-right mirror image; outlines are mirrored back first."""
    plain, mirrored = (forward(params, recipe, seen) for seen in (image, image[:, :, ::-1]))
    back = lambda answer: answer[:, :, ::-1] if answer.shape[1:3] == image.shape[1:3] else answer
    return {name: (plain[name] + back(mirrored[name])) / 2 for name in plain}


def predict(
    trained: Trained,
    images: Sequence[np.ndarray],
    *,
    spacings: Sequence[tuple[float, float]] | None = None,
    batch_size: int = 8,
    flip: bool = False,
) -> Iterator[Prediction]:
    """Predict uint8[h w] images of any sizes, one after the other, in batches of one compiled shape.

    Each image should be cropped to the scan, as the training data were. ``spacings`` are (row, column) sizes of an
    image's pixels, NaN where unknown: pixels that are not squares are resampled to squares first. With ``flip``,
    probabilities are averaged over an image and its mirror image, at twice the time.
    """
    answer = forward_both_ways if flip else forward
    size = (trained.config.data.height, trained.config.data.width)
    unknown = (math.nan, math.nan)
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        sides = [unknown] * len(chunk) if spacings is None else list(spacings[start : start + batch_size])
        batch = np.zeros((batch_size, *size, 1), np.uint8)
        for row, (image, spacing) in enumerate(zip(chunk, sides)):
            batch[row, ..., 0] = letterbox(image, size, spacing)
        answers = jax.device_get(answer(trained.params, trained.recipe, batch))
        for row, (image, spacing) in enumerate(zip(chunk, sides)):
            found = {name: values[row] for name, values in answers.items()}
            outline = found.get("segmentation")
            yield Prediction(
                probability=None if outline is None else undo_letterbox(outline, image.shape, spacing),
                grades=found.get("grading"),
                malignant=None if "malignancy" not in found else float(found["malignancy"]),
                answers=found,
            )
