"""One row of the per-case table, from a prediction and its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case

NAN = float("nan")


def measure(
    case: str,
    group: str,
    *,
    part: str = "",
    predicted: np.ndarray | None = None,
    reference: np.ndarray | None = None,
    spacing: tuple[float, float] = (NAN, NAN),
    image: np.ndarray | None = None,
    readers: Sequence[np.ndarray | None] = (),
    probability: Mapping[str, float] | None = None,
    grade_truth: str = "",
    reader_grades: Sequence[str] = (),
    p_malignant: float | None = None,
    malignant_truth: bool | None = None,
    guidance: Mapping[str, float] | None = None,
    target: Mapping[str, float] | None = None,
    about: Mapping[str, str] | None = None,
) -> Case:
    """Row of the per-case table: one prediction beside its reference.

    Args:
        part: train, validation, test, or the name of a fold.
        predicted, reference: bool[h w], or None when there is no such mask (a missing reference is not an empty one).
        spacing: (row, column) pixel pitch of these masks in mm; NaN where it is unknown; measures in mm are then NaN.
        image: uint8[h w] of the masks' shape, for the contrast of the reference nodule; None leaves it NaN.
        readers: each reader's mask bool[h w], None for a reader who drew none; the order is the same in every row.
        probability: grade name -> probability, ascending risk; the predicted grade is the most probable, the lower
            one on a tie.
        grade_truth: a key of ``probability``, or "" when the case has no grade.
        reader_grades: each reader's grade, "" for a reader who gave none; in the order of ``readers``.
        p_malignant: in [0, 1]; None or NaN when nothing predicts malignancy.
        malignant_truth: proven malignancy, None when it is unknown.
        guidance: radiomics value's name -> what the model predicts.
        target: the same names -> what is measured on the reference.
        about: finding, device and the like -> its value, for subgroups.

    Raises ValueError for masks or an image that do not fit (:func:`~thyroid_jax.evaluate.metrics.dice`,
    :func:`~thyroid_jax.evaluate.metrics.contrast_to_noise`), a spacing that is not positive, a grade's probability that
    is not finite, or what :class:`~thyroid_jax.evaluate.cases.Case` refuses.
    """
    probability = {str(name): float(value) for name, value in (probability or {}).items()}
    if not np.isfinite(list(probability.values())).all():
        raise ValueError(f"case {case!r}: every grade needs a probability, not {probability}.")
    values: dict[str, Any] = {}
    if predicted is not None and reference is not None:
        values |= metrics.outline_measures(predicted, reference, spacing)
    for name, mask in (("predicted", predicted), ("reference", reference)):
        if mask is not None:
            values[f"{name}_area_px"] = int(np.count_nonzero(mask))
            values[f"{name}_area_mm2"] = metrics.area_mm2(mask, spacing)
    if image is not None and reference is not None:
        values["contrast_to_noise"] = metrics.contrast_to_noise(image, reference)
    return Case(
        case=str(case),
        group=str(group),
        part=str(part),
        grade_truth=str(grade_truth),
        grade_predicted=max(probability, key=probability.__getitem__) if probability else "",
        probability=probability,
        malignant_truth=malignant_truth,
        p_malignant=NAN if p_malignant is None else float(p_malignant),
        guidance={str(name): float(value) for name, value in (guidance or {}).items()},
        target={str(name): float(value) for name, value in (target or {}).items()},
        reader_dice=metrics.dice_with_readers(predicted, readers),
        reader_grades=tuple(map(str, reader_grades)),
        about={str(name): str(value) for name, value in (about or {}).items()},
        **values,
    )
