"""The table of predictions: its columns, what each of them means, and one image's row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thyroid_jax.evaluate.agreement import pairwise_dice
from thyroid_jax.evaluate.cases import Cell
from thyroid_jax.predict import Trained
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs import quality
from thyroid_jax.runs.apply import Applied, Spacing

SIZES = {
    "outline_area_px": "pixels with a probability of one half or more",
    "outline_parts": "connected parts of the outline; corners count as connected",
    "outline_area_mm2": "area of all parts, mm^2",
    "outline_height_mm": "extent in depth (rows) of the box around all parts, mm",
    "outline_width_mm": "extent across (columns) of the box around all parts, mm",
    "outline_diameter_mm": "largest distance between two points of the largest part, mm",
}
AGREEMENT = {
    "outline_agreement": "mean Dice of pairs of runs, in [0, 1]; 1 where both outlines are empty",
    "grade_disagreement": "mean distance in total variation of a run's grade probabilities to their mean, in [0, 1]",
    "p_malignant_sd": "standard deviation (divided by the number of runs) of the runs' probabilities of malignancy",
}
_AGREE_ON = dict(zip(AGREEMENT, ("segmentation", "grading", "malignancy")))
OOD = {
    "ood_distance": "Mahalanobis distance to the training images; about 1 for an image like them",
    "ood_percentile": "percentage of the run's validation images that are nearer, in [0, 100]",
}
AXES = {
    "log_height_to_width": ("shape", "log(extent in depth / extent across); above 0 is taller than wide"),
    "elongation": ("shape", "minor / major axis, in (0, 1]; 1 for a circle"),
    "ellipse_to_perimeter": ("margin", "perimeter of the fitted ellipse / perimeter; lower is lobed or irregular"),
    "circle_to_perimeter": ("margin", "perimeter of a circle of its area / perimeter; 1 for a circle"),
    "boundary_sharpness": ("margin", "grey gradient across the outline / standard deviation of the tissue around it"),
    "echogenicity": ("echogenicity", "log(mean grey of the nodule / of the tissue around it); below 0 is hypoechoic"),
    "echogenicity_low": ("echogenicity", "10th percentile of the nodule / median of the tissue around it"),
    "root_anechoic_share": ("composition", "square root of the share as dark as the darkest tissue around it"),
    "smoothed_entropy": ("composition", "entropy of its grey levels, bits"),
    "log_smoothed_contrast": ("texture", "log(1 + contrast of neighbouring pixels)"),
    "smoothed_idm": ("texture", "inverse difference moment of neighbouring pixels, in (0, 1]; 1 for one grey"),
    "root_foci_share": ("echogenic foci", "square root of the share of small bright spots"),
    "foci_strength": ("echogenic foci", "strength of small bright spots, compared with the tissue around it"),
}
"""radiomics value -> its axis of TI-RADS and what it says; ``texture`` is no axis of TI-RADS. The exact definitions are
those of :data:`thyroid_jax.radiomics.clinical.TARGET`"""


def describe(run: Trained, runs: int, *, ood: bool = False) -> dict[str, str]:
    """Column -> its meaning, in the table's order. Which columns there are depends on the runs and ``ood`` alone."""
    tasks, grades = run.facts["tasks"], run.facts["grades"]
    system = f" ({run.facts['grade_system']})" if run.facts["grade_system"] else ""
    columns = {"file": "the picture's file", "frame": "number of the picture in its file, from 1"}
    if "grading" in tasks:
        columns["grade"] = f"the most probable grade{system}"
        columns |= {f"p_{grade}": f"probability of grade {grade}{system}" for grade in grades}
    columns |= {"p_malignant": "probability of malignancy"} if "malignancy" in tasks else {}
    columns |= SIZES if "segmentation" in tasks else {}
    if "guidance" in tasks:
        columns |= {f"guidance_{name}": _guidance(name) for name in clinical.TARGET}
    columns |= {name: AGREEMENT[name] for name, task in _AGREE_ON.items() if runs > 1 and task in tasks}
    columns |= OOD if ood else {}
    return columns | {
        "quality": "checks that the image has reason to be looked at for: " + "; ".join(quality.CHECKS),
        "spacing_row_mm": "height of a pixel, mm",
        "spacing_column_mm": "width of a pixel, mm",
        "remarks": "what was done to the picture before it was predicted",
    }


def _guidance(name: str) -> str:
    axis, meaning = AXES[name]
    kind = f"TI-RADS axis {axis}" if axis != "texture" else "texture, which is no axis of TI-RADS"
    return f"{kind}: {meaning}. Predicted by the embedding, not measured on the outline"


def row_of(run: Trained, found: Applied, spacing: Spacing, *, checks: Sequence[str] = ()) -> dict[str, Cell]:
    """One image's cells of :func:`describe` but file, frame and remarks; None where a value is not known.

    ``guidance_*`` are the values of :data:`thyroid_jax.radiomics.clinical.TARGET` that the guided part of the embedding
    predicts, in their own units. ``checks`` are names in :data:`thyroid_jax.runs.quality.CHECKS` that hold for the
    image; those of the outline are added.
    """
    together, each = found
    row: dict[str, Cell] = {}
    if together.grades is not None:
        row |= _grade_cells(run.facts["grades"], together.grades, [alone.grades for alone in each])
    if together.malignant is not None:
        row["p_malignant"] = together.malignant
        row["p_malignant_sd"] = float(np.std([alone.malignant for alone in each if alone.malignant is not None]))
    if together.probability is not None:
        outline = together.probability >= 0.5
        row |= sizes(outline, spacing)
        row["outline_agreement"] = pairwise_dice(
            [alone.probability >= 0.5 for alone in each if alone.probability is not None]
        )
        checks = [*checks, *quality.of_outline(outline, np.bincount(parts_of(outline)[outline])[1:])]
    if "guidance" in together.answers:
        row |= {f"guidance_{n}": float(value) for n, value in zip(clinical.TARGET, together.answers["guidance"])}
    row |= {"quality": "; ".join(checks), "spacing_row_mm": spacing[0], "spacing_column_mm": spacing[1]}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def _grade_cells(names: Sequence[str], mean: np.ndarray, each: Sequence[np.ndarray | None]) -> dict[str, Cell]:
    apart = [np.abs(alone - mean).sum() / 2 for alone in each if alone is not None]
    return {
        "grade": names[int(mean.argmax())],
        **{f"p_{name}": float(share) for name, share in zip(names, mean)},
        "grade_disagreement": float(np.mean(apart)),
    }


def sizes(outline: np.ndarray, spacing: Spacing) -> dict[str, Any]:
    """The :data:`SIZES` of an outline bool[h w]; None in mm where the pixel's size is not known.

    An empty outline has area 0, no parts, and no other size. The diameter is counted to the edges of the pixels.
    """
    down, across = spacing
    known = math.isfinite(down) and math.isfinite(across)
    rows, places = np.flatnonzero(outline.any(1)), np.flatnonzero(outline.any(0))
    size: dict[str, Any] = dict.fromkeys(SIZES)
    label = parts_of(outline)
    size["outline_parts"] = int(label.max())
    size["outline_area_px"] = int(outline.sum())
    if known:
        size["outline_area_mm2"] = float(outline.sum() * down * across)
    if known and len(rows):
        size["outline_height_mm"] = float((rows[-1] - rows[0] + 1) * down)
        size["outline_width_mm"] = float((places[-1] - places[0] + 1) * across)
        size["outline_diameter_mm"] = diameter(label == 1 + np.bincount(label[outline] - 1).argmax(), spacing)
    return size


def parts_of(outline: np.ndarray) -> np.ndarray:
    """The number int[h w] of each pixel's part, from 1; 0 outside. Pixels that share a corner are connected."""
    from scipy.ndimage import label

    return label(outline, np.ones((3, 3)))[0]


def diameter(part: np.ndarray, spacing: Spacing) -> float:
    """The largest distance in mm between two points of a part bool[h w] that is not empty.

    A pixel is a rectangle of the size ``spacing`` (rows, columns).
    """
    from scipy.spatial import ConvexHull
    from scipy.spatial.distance import pdist

    rows = np.flatnonzero(part.any(1))
    first, last = part[rows].argmax(1), part.shape[1] - part[rows, ::-1].argmax(1)
    corners = [(row + edge, column) for row, ends in zip(rows, zip(first, last)) for edge in (0, 1) for column in ends]
    points = np.array(corners, float) * spacing
    return float(pdist(points[ConvexHull(points).vertices]).max())


def brief(columns: Mapping[str, str]) -> list[str]:
    """The columns that a page shows beside a picture: not the guidance values, nor the pixel's size."""
    return [name for name in columns if not name.startswith(("guidance_", "spacing_", "ood_distance"))]
