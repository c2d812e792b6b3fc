"""Apply finished runs to new images: one prediction of all runs together, its sizes, and how far the runs agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.agreement import pairwise_dice
from thyroid_jax.evaluate.cases import Cell
from thyroid_jax.predict import Prediction, Trained, load, predict
from thyroid_jax.radiomics import clinical

Spacing = tuple[float, float]


def load_all(run_dirs: Sequence[Path | str], *, checkpoint: str = "best") -> list[Trained]:
    """The models of several runs. Raises :class:`InputError` unless all have the same tasks and grades."""
    runs = [load(run_dir, checkpoint=checkpoint) for run_dir in run_dirs]
    first = runs[0].facts
    for run_dir, run in zip(run_dirs, runs):
        for fact in ("tasks", "grade_system", "grades", "target"):
            if run.facts[fact] != first[fact]:
                raise InputError(
                    f"{run_dir}: its {fact} ({_said(run.facts[fact])}) are not those of {run_dirs[0]} "
                    f"({_said(first[fact])}); predict with each of them alone."
                )
    return runs


def _said(fact: object) -> str:
    return " ".join(map(str, fact)) if isinstance(fact, list | tuple) else str(fact)


class Applied(NamedTuple):
    """What all runs together predict for one image, and what each of them predicts."""

    together: Prediction
    each: tuple[Prediction, ...]


def apply(
    runs: Sequence[Trained],
    images: Sequence[np.ndarray],
    spacings: Sequence[Spacing],
    *,
    batch_size: int = 8,
    flip: bool = False,
) -> Iterator[Applied]:
    """Predict uint8[h w] images with every run, and average the probabilities over the runs.

    ``spacings``, ``batch_size`` and ``flip`` as in :func:`thyroid_jax.predict.predict`.
    """
    found = [predict(run, images, spacings=spacings, batch_size=batch_size, flip=flip) for run in runs]
    for each in zip(*found, strict=True):
        each = tuple(unscaled(found, run) for found, run in zip(each, runs, strict=True))
        yield Applied(averaged(each), each)


def unscaled(found: Prediction, run: Trained) -> Prediction:
    """The prediction with guidance values in the units of the radiomics target instead of the run's own z-scores."""
    if "guidance" not in found.answers:
        return found
    scaling = run.recipe.fitted.scaling
    values = found.answers["guidance"] * np.asarray(scaling.spread) + np.asarray(scaling.centre)
    return found._replace(answers={**found.answers, "guidance": values})


def averaged(each: Sequence[Prediction]) -> Prediction:
    """The mean of several predictions of one image, from runs with the same tasks and grades.

    Guidance values, :func:`unscaled` before, are averaged too. Other answers are the first run's, because outlines of
    runs with different input sizes have different shapes.
    """
    answers = dict(each[0].answers)
    if "guidance" in answers:
        answers["guidance"] = np.mean([found.answers["guidance"] for found in each], axis=0)
    outlines = [found.probability for found in each if found.probability is not None]
    grades = [found.grades for found in each if found.grades is not None]
    malignant = [found.malignant for found in each if found.malignant is not None]
    return Prediction(
        probability=np.mean(outlines, axis=0) if outlines else None,
        grades=np.mean(grades, axis=0) if grades else None,
        malignant=float(np.mean(malignant)) if malignant else None,
        answers=answers,
    )


def columns(run: Trained, runs: int) -> list[str]:
    """The header of the table of predictions, in its order; which columns there are depends on the runs alone."""
    tasks = run.facts["tasks"]
    names = ["file", "frame"]
    if "grading" in tasks:
        names += ["grade", *(f"p_{grade}" for grade in run.facts["grades"])]
    names += ["p_malignant"] if "malignancy" in tasks else []
    names += [*SIZES] if "segmentation" in tasks else []
    names += [f"guidance_{name}" for name in clinical.TARGET] if "guidance" in tasks else []
    names += list(AGREEMENT) if runs > 1 else []
    return [*names, "spacing_row_mm", "spacing_column_mm", "remarks"]


SIZES = ("outline_area_px", "outline_area_mm2", "outline_height_mm", "outline_width_mm", "outline_diameter_mm")
AGREEMENT = ("outline_agreement", "grade_disagreement", "p_malignant_sd")


def row_of(run: Trained, found: Applied, spacing: Spacing) -> dict[str, Cell]:
    """One image's cells of :func:`columns` but file, frame and remarks; None where a value is not known.

    ``guidance_*`` are the values of :data:`thyroid_jax.radiomics.clinical.TARGET` that the guided part of the embedding
    predicts, in their own units. ``outline_agreement`` is the mean Dice of pairs of runs,
    ``grade_disagreement`` the mean distance in total variation of a run's probabilities to their mean, in [0, 1].
    """
    together, each = found
    row: dict[str, Cell] = {}
    if together.grades is not None:
        names, mean = run.facts["grades"], together.grades
        row["grade"] = names[int(mean.argmax())]
        row |= {f"p_{name}": float(share) for name, share in zip(names, mean)}
        apart = [np.abs(one.grades - mean).sum() / 2 for one in each if one.grades is not None]
        row["grade_disagreement"] = float(np.mean(apart))
    if together.malignant is not None:
        row["p_malignant"] = together.malignant
        row["p_malignant_sd"] = float(np.std([one.malignant for one in each if one.malignant is not None]))
    if together.probability is not None:
        row |= sizes(together.probability >= 0.5, spacing)
        row["outline_agreement"] = pairwise_dice(
            [one.probability >= 0.5 for one in each if one.probability is not None]
        )
    if "guidance" in together.answers:
        row |= {f"guidance_{n}": float(value) for n, value in zip(clinical.TARGET, together.answers["guidance"])}
    row |= {"spacing_row_mm": spacing[0], "spacing_column_mm": spacing[1]}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def sizes(outline: np.ndarray, spacing: Spacing) -> dict[str, Cell]:
    """Area, extent in depth and across, and largest diameter of an outline bool[h w]; None in mm where unknown.

    Height and width are those of the box around all parts of the outline. The diameter is the largest distance between
    two points of its largest part, counted to the edges of the pixels. An empty outline has area 0 and no other size.
    """
    down, across = spacing
    known = math.isfinite(down) and math.isfinite(across)
    rows, places = np.flatnonzero(outline.any(1)), np.flatnonzero(outline.any(0))
    size: dict[str, Cell] = dict.fromkeys(SIZES)
    size["outline_area_px"] = int(outline.sum())
    if known:
        size["outline_area_mm2"] = float(outline.sum() * down * across)
    if known and len(rows):
        size["outline_height_mm"] = float((rows[-1] - rows[0] + 1) * down)
        size["outline_width_mm"] = float((places[-1] - places[0] + 1) * across)
        size["outline_diameter_mm"] = diameter(outline, spacing)
    return size


def diameter(outline: np.ndarray, spacing: Spacing) -> float:
    """The largest distance in mm between two points of the largest part of an outline bool[h w] that is not empty.

    Parts are 8-connected; a pixel is a rectangle of the size ``spacing`` (rows, columns).
    """
    from scipy.ndimage import label
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    parts, _ = label(outline, np.ones((3, 3)))
    largest = parts == 1 + np.bincount(parts[outline] - 1).argmax()
    rows = np.flatnonzero(largest.any(1))
    first, last = largest[rows].argmax(1), largest.shape[1] - largest[rows, ::-1].argmax(1)
    corners = [(row + edge, column) for row, ends in zip(rows, zip(first, last)) for edge in (0, 1) for column in ends]
    points = np.array(corners, float) * spacing
    return float(pdist(points[ConvexHull(points).vertices]).max())
