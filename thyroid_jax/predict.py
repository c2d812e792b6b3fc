"""Prediction of outlines, grades and malignancy, at each image's own resolution. It needs only a run's parameters."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from thyroid_jax import checkpoints, command, model
from thyroid_jax.config import Config, may_not_differ, recipe_of
from thyroid_jax.data.pipeline import letterbox, undo_letterbox
from thyroid_jax.data.record import digest_of
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import Calibration, scale_grades, scale_malignancy
from thyroid_jax.files import read_json
from thyroid_jax.model import Params
from thyroid_jax.recipe import Recipe, init_params, measure_evidence
from thyroid_jax.settings import flat, from_dict, to_dict
from thyroid_jax.shapes import Array
from thyroid_jax.tasks import TASKS

ABOUT_RUN = "made_from"
"""key of ``config.json`` beside the groups of settings: digests of the data, of the split and of the settings"""


class Trained(NamedTuple):
    """A trained model: config, recipe, parameters, a description of its data (``facts``), its checkpoint's step.

    With a ``calibration``, probabilities of grades and malignancy are scaled by it.
    """

    config: Config
    recipe: Recipe
    params: Params
    facts: dict[str, Any]
    step: int
    calibration: Calibration | None = None


class Prediction(NamedTuple):
    """The model's prediction for one image; None where it was not trained for it.

    probability  f32[h w] in [0, 1], of a nodule at each pixel of the image; the outline is where it is at least 1/2
    grades       f32[k] in [0, 1] with sum 1, in the order of ``Trained.facts["grades"]``
    malignant    probability in [0, 1]
    answers      every trained task's answer by its name, as the network gives it: ``segmentation`` at the network's
                 size, ``grading`` and ``malignancy`` before any calibration, ``guidance`` f32[r] as z-scores
    """

    probability: np.ndarray | None
    grades: np.ndarray | None
    malignant: float | None
    answers: dict[str, np.ndarray]


def settings_digest(values: dict[str, Any]) -> str:
    """Digest of a run's settings, as ``config.json`` holds them, without those that may differ when it is resumed."""
    return digest_of({name: value for name, value in flat(values) if may_not_differ(name)})


def read_config(path: Path) -> tuple[Config, dict[str, Any]]:
    """A run's ``config.json``: its settings, and what the run was made from.

    Raises :class:`InputError` for a file that is missing, is no config of a run, or was changed after the run's start.
    """
    if not path.is_file():
        train = f"{command.spelled('train')} --run-dir {shlex.quote(str(path.parent))}"
        raise InputError(f"{path}: no such file. Name the folder of a run, or train one there first: {train}")
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get(ABOUT_RUN), dict):
        raise InputError(f"{path}: not the config of a run, or of one made by another version; start a new run folder.")
    made_from = values.pop(ABOUT_RUN)
    config = from_dict(Config, values, where=str(path))
    if made_from.get("settings", "") not in ("", settings_digest(values)):  # runs of earlier versions have none
        raise InputError(
            f"{path}: was changed: its settings are not those that the run was started with. Restore the file; other "
            "settings need a run folder of their own."
        )
    return config, made_from


def digest_in_facts(config: Config) -> str:
    """The digest of a run's settings in its checkpoints: :func:`settings_digest`, with every whole number of a float
    field as a float, as a config is read back.
    """
    return settings_digest(to_dict(from_dict(Config, to_dict(config))))


def check_own(folder: Path, facts: Mapping[str, Any], config: Config, made_from: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` where a checkpoint with these facts is not of the run with that ``config.json``.

    One of the same shape would be read with other settings, and answer with plausible numbers. What checkpoints or
    configs of earlier versions do not say is not compared.
    """
    own = {"settings": digest_in_facts(config), "digest": made_from.get("data"), "split": made_from.get("split")}
    if any(own[name] and facts.get(name, own[name]) != own[name] for name in own):
        raise InputError(
            f"{folder}: a checkpoint is of another run: its settings, data or split are not those of config.json. Put "
            "back the checkpoints of this run, or name the other run's folder."
        )


def recipe_from_facts(config: Config, facts: dict[str, Any]) -> Recipe:
    """The recipe of a run's config for the data that ``facts`` describe, with the tasks that had labels."""
    recipe = recipe_of(config, grades=max(2, len(facts["grades"])))
    return recipe.replace(tasks=tuple(task for task in TASKS if task.name in facts["tasks"]))


def layout(recipe: Recipe) -> Params:
    """Shapes of the parameters of a recipe."""
    return jax.eval_shape(partial(init_params, recipe), jax.random.key(0))


CHECKPOINTS = ("best", "last")


def checkpoint_read(run_dir: Path | str, checkpoint: str) -> str:
    """The checkpoint that :func:`load` reads where ``checkpoint`` is asked for: "last" where there is no best one."""
    there = checkpoint == "last" or checkpoints.steps(Path(run_dir) / "checkpoints" / "best")
    return checkpoint if there else "last"


def load(
    run_dir: Path | str,
    *,
    checkpoint: str = "best",
    calibration: Calibration | None = None,
    echo: Callable[[str], Any] = print,
) -> Trained:
    """Read a finished run.

    Args:
        run_dir: the run's folder, as `python -m experiments.train` makes it.
        checkpoint: "best" by the run's validation measure, or "last". Without a best one, as in a run that was stopped
            early, the last is taken.
        calibration: scales the predicted probabilities; fit it on this run's validation part.
        echo: called with one line where the newest of several checkpoints is damaged, and the one before is read. A
            run keeps one best checkpoint: where that is damaged, :class:`InputError`.

    Raises :class:`InputError` for a folder without config or checkpoint, for another run's checkpoint, or a calibration
    of other grades; ValueError for another ``checkpoint``.
    """
    if checkpoint not in CHECKPOINTS:
        raise ValueError(f"checkpoint {checkpoint!r}: choose one of {', '.join(CHECKPOINTS)}.")
    run_dir = Path(run_dir)
    config, made_from = read_config(run_dir / "config.json")
    folder = run_dir / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{folder}: no checkpoints there; train first, or name the folder of a run.")

    def like(facts: dict[str, Any]) -> dict[str, Any]:
        check_own(folder, facts, config, made_from)
        recipe = recipe_from_facts(config, facts)
        return {"params": layout(recipe), "fitted": recipe.fitted}

    saved = checkpoints.newest(folder / "best", like, echo=echo) if checkpoint == "best" else None
    saved = saved or checkpoints.newest(folder / "last", like, echo=echo)
    if saved is None:
        raise InputError(f"{folder}: the run was stopped before its first checkpoint; run the training command again.")
    recipe = recipe_from_facts(config, saved.facts).replace(fitted=jax.device_get(saved.arrays["fitted"]))
    if calibration is not None and calibration.grade is not None and [*calibration.names] != saved.facts["grades"]:
        raise InputError(f"{run_dir}: its grades are not those of the calibration, {' '.join(calibration.names)}.")
    return Trained(config, recipe, saved.arrays["params"], saved.facts, saved.step, calibration)


def fingerprint(trained: Trained) -> str:
    """SHA-256 of the trained parameters and of the values fitted with them, in hexadecimal."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((trained.params, trained.recipe.fitted)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


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
    images: Sequence[np.ndarray] | np.ndarray,
    *,
    spacings: Sequence[tuple[float, float]] | None = None,
    batch_size: int = 8,
    flip: bool = False,
) -> Iterator[Prediction]:
    """Predict grey images of any sizes, one after the other, in batches of one compiled shape.

    Args:
        trained: a run, as :func:`load` reads it.
        images: list of uint8[h w] in [0, 255], or one uint8[n h w]. Crop each to the scan, as the training data were.
        spacings: (row, column) sizes of each image's pixels in mm, (NaN, NaN) where unknown. An image whose pixels are
            not squares is resampled to squares first. Without ``spacings`` all pixels are taken as squares.
        batch_size: images that are predicted at once. The last batch is filled up, so that it needs no new program.
        flip: average the probabilities over an image and its left-right mirror image, at twice the time.

    Yields a :class:`Prediction` for each image, in their order. An image's prediction does not depend on the others;
    another ``batch_size`` rounds otherwise, which bfloat16 networks show in the third decimal.
    All arguments are checked before the first image is predicted. Raises ValueError for an image that is not
    uint8[h w] (fractions, 16 bits, colours, a mask) and says how to convert it; for another number of spacings than of
    images; for sizes that are not above 0, or of which only one is known; and for a ``batch_size`` below 1. Raises
    :class:`InputError` where the network's answers are not finite: there is then no grade and no outline.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: it is at least 1.")
    for place, image in enumerate(images):
        check_grey(image, f"image {place}")
    sides = [(math.nan, math.nan)] * len(images) if spacings is None else list(spacings)
    if len(sides) != len(images):
        raise ValueError(f"{len(sides)} spacings for {len(images)} images; give (row, column) in mm for each.")
    for place, spacing in enumerate(sides):
        check_spacing(spacing, f"spacing {place}")
    return _in_batches(trained, images, sides, batch_size, forward_both_ways if flip else forward)


def _in_batches(
    trained: Trained,
    images: Sequence[np.ndarray] | np.ndarray,
    spacings: Sequence[tuple[float, float]],
    batch_size: int,
    answer: Callable[..., dict[str, Array]],
) -> Iterator[Prediction]:
    size = (trained.config.data.height, trained.config.data.width)
    for start in range(0, len(images), batch_size):
        chunk, sides = images[start : start + batch_size], spacings[start : start + batch_size]
        answers = jax.device_get(answer(trained.params, trained.recipe, letterboxed(chunk, sides, size, batch_size)))
        check_finite(answers, len(chunk))
        for row, (image, spacing) in enumerate(zip(chunk, sides)):
            found = {name: values[row] for name, values in answers.items()}
            outline = found.get("segmentation")
            plain = Prediction(
                probability=None if outline is None else undo_letterbox(outline, image.shape, spacing),
                grades=found.get("grading"),
                malignant=None if "malignancy" not in found else float(found["malignancy"]),
                answers=found,
            )
            yield plain if trained.calibration is None else calibrated(plain, trained.calibration)


def check_finite(answers: Mapping[str, np.ndarray], rows: int) -> None:
    """Raise :class:`InputError` where one of the first ``rows`` answers of a task is NaN or infinite.

    The most probable of grades that are NaN would be the first one, and an outline of NaN would be empty.
    """
    for name, values in answers.items():
        if not np.isfinite(values[:rows]).all():
            raise InputError(
                f"the run's answers for {name} are not finite: its parameters are damaged, or its training diverged. "
                "Use another checkpoint or another run."
            )


def calibrated(found: Prediction, calibration: Calibration) -> Prediction:
    """The prediction with probabilities of grades and malignancy scaled; what has no scaling stays as it is."""
    if calibration.grade is not None and found.grades is not None:
        found = found._replace(grades=scale_grades(calibration.grade, found.grades).astype(np.float32))
    if calibration.malignant is not None and found.malignant is not None:
        scaled = scale_malignancy(calibration.malignant, np.array(found.malignant))
        found = found._replace(malignant=float(scaled))
    return found


def letterboxed(
    images: Sequence[np.ndarray] | np.ndarray,
    spacings: Sequence[tuple[float, float]],
    size: tuple[int, int],
    rows: int,
) -> np.ndarray:
    """A batch uint8[rows h w 1] of the network's ``size`` from at most ``rows`` images uint8[h w]; the rest is 0."""
    batch = np.zeros((rows, *size, 1), np.uint8)
    for row, (image, spacing) in enumerate(zip(images, spacings, strict=True)):
        batch[row, ..., 0] = letterbox(image, size, spacing)
    return batch


def check_grey(image: Any, name: str) -> None:
    """Raise ValueError, which starts with ``name`` and says how to convert it, unless ``image`` is uint8[h w]."""
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"{name}: is of type {type(image).__name__}; give a numpy array uint8[h w]: np.asarray(image)."
        )
    if image.ndim == 1:
        raise ValueError(f"{name}: has one axis; a single picture is given as a list, [picture].")
    said = f"{name}: is {image.dtype}{list(image.shape)}"
    if image.ndim == 3 and image.shape[-1] in (3, 4):
        raise ValueError(f"{said}, a colour picture; give its grey levels: np.asarray(PIL_image.convert('L')).")
    if image.ndim != 2:
        raise ValueError(f"{said}; give uint8[h w], such as image[..., 0] of one channel, or a list of frames.")
    if image.size == 0:
        raise ValueError(f"{said}, without a pixel.")
    if image.dtype != np.uint8:
        raise ValueError(f"{said}; {_ADVICE_FOR_TYPE.get(image.dtype.kind, _ADVICE_FOR_TYPE['u'])}")


_ADVICE_FOR_TYPE = {
    "f": "give uint8 from 0 to 255. For fractions in [0, 1]: np.round(image * 255).astype(np.uint8).",
    "b": "this is a mask; give the picture's grey levels, uint8 from 0 to 255.",
    "u": "give uint8 from 0 to 255. For the full range of 16 bits: np.round(image / 257).astype(np.uint8).",
}


def check_spacing(spacing: Sequence[float], name: str) -> None:
    """Raise ValueError, which starts with ``name``, unless ``spacing`` is two sizes in mm above 0, or (NaN, NaN)."""
    sides = [float(side) for side in spacing]
    unknown = [math.isnan(side) for side in sides]
    if len(sides) != 2 or any(unknown) != all(unknown):
        raise ValueError(f"{name}: {spacing}; give (row, column) in mm, or (NaN, NaN) where they are unknown.")
    if not all(unknown) and not all(0 < side < math.inf for side in sides):
        raise ValueError(f"{name}: {spacing}; sizes in mm are above 0 and finite.")
