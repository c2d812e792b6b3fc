"""The batch that all parts of the library share: arrays, and a validity flag for every label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from thyroid_jax.shapes import Array, Bool, Float


class Label(NamedTuple):
    """Label of a task that a user adds: ``value [b ...]``, and ``valid bool[b]``, False where it is missing."""

    value: Array
    valid: Bool[Array, "b"]


class Batch(NamedTuple):
    """A batch of images and their labels. A missing label is marked by a False flag, never by a zero.

    image            f32[b h w 1] in [0, 1]; 8-bit grey values, uint8[b h w 1], until the step converts them
    mask             f32[b h w] in [0, 1], soft when several readers drew it; uint8[b h w], 255 inside, until the step
                     converts it
    grade            f32[b k]; one-hot, or the distribution of several readers' grades
    malignant        f32[b] in [0, 1]; 1 for malignant
    radiomics        f32[b r]; the guidance target, robustly scaled
    mask_valid, grade_valid, malignant_valid, radiomics_valid   bool[b]; False where that label is missing
    example_valid    bool[b]; False on the rows that pad a last batch
    extra            labels of tasks that a user adds, by task name
    measured         f32[b 2r]; measured evidence, an input and no label: the target's values on an outline that a model
                     could have predicted, 0 where undefined, then 1 for every defined value. The step fills it in
    """

    image: Array
    mask: Array
    grade: Float[Array, "b k"]
    malignant: Float[Array, "b"]
    radiomics: Float[Array, "b r"]
    mask_valid: Bool[Array, "b"]
    grade_valid: Bool[Array, "b"]
    malignant_valid: Bool[Array, "b"]
    radiomics_valid: Bool[Array, "b"]
    example_valid: Bool[Array, "b"]
    extra: Mapping[str, Label] = {}
    measured: Array | None = None
