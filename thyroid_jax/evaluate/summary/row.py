"""One row of the per-case table, from a prediction and its reference.

:func:`measure` takes both as plain arguments. :func:`reference_of` takes the reference half from a record, and
:func:`row_of` adds a prediction to it: rows of runs, of ensembles, on other data sets and of other people's results are
all made by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.data.record import Record
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


class Answer(NamedTuple):
    """What is predicted for a record; a part that is not predicted keeps its default.

    outline      bool[h w] of the record's own image
    probability  grade name -> probability, ascending risk
    grade        "" for the most probable grade, the lower one on a tie; else the grade that was given
    p_malignant  in [0, 1]
    guidance, target  radiomics value's name -> what the model predicts, and what is measured on the reference
    """

    outline: np.ndarray | None = None
    probability: Mapping[str, float] | None = None
    grade: str = ""
    p_malignant: float | None = None
    guidance: Mapping[str, float] | None = None
    target: Mapping[str, float] | None = None


CLEANING = "cleaning"
"""name in ``about`` of what was done to the picture, without the numbers of pixels"""


def reference_of(record: Record, grades: Sequence[str]) -> dict[str, Any]:
    """What :func:`measure` takes of a record, whatever is predicted.

    That is: case, group, reference outline, image, spacing, each reader's outline and grade, the true grade by its name
    in ``grades`` (those of the data set, in ascending order of risk), malignancy, and in ``about`` the written findings
    and, where the picture was cleaned, the kinds of :data:`CLEANING`. What the record lacks stays missing.
    """
    kinds = dict.fromkeys(step.partition(":")[0].strip() for step in record.cleaning)
    return {
        "case": record.case,
        "group": record.group,
        "reference": record.mask,
        "spacing": record.spacing,
        "image": record.image,
        "readers": record.reader_masks,
        "reader_grades": [grades[grade] for grade in record.reader_grades],
        "grade_truth": "" if record.grade is None else grades[record.grade],
        "malignant_truth": record.malignant,
        "about": ({CLEANING: "; ".join(kinds)} if kinds else {}) | dict(record.descriptors),
    }


def row_of(record: Record, grades: Sequence[str], answer: Answer, part: str = "") -> Case:
    """A record's row of the per-case table: its :func:`reference_of` and the answer.

    A grade that the answer names is kept, also where another one is more probable. Raises ValueError as
    :func:`measure`.
    """
    row = measure(
        **reference_of(record, grades),
        part=part,
        predicted=answer.outline,
        probability=answer.probability,
        p_malignant=answer.p_malignant,
        guidance=answer.guidance,
        target=answer.target,
    )
    return replace(row, grade_predicted=answer.grade) if answer.grade else row
