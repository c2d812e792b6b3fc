"""The batch that flows through the house: arrays with a validity flag for every label."""

from __future__ import annotations

from typing import NamedTuple

from thyroid_jax.shapes import Array, Bool, Float


class Batch(NamedTuple):
    """A batch of images with whatever labels they have; a missing label is a False flag, never a zero.

    image            f32[b h w 1] in [0, 1]
    mask             f32[b h w] in [0, 1]; soft when several readers drew it
    grade            f32[b k]; one-hot, or the distribution of several readers' grades
    radiomics        f32[b r]; the guidance target, robustly scaled
    mask_valid, grade_valid, radiomics_valid   bool[b]; False where that label is missing
    example_valid    bool[b]; False on the rows that pad a last batch
    """

    image: Float[Array, "b h w 1"]
    mask: Float[Array, "b h w"]
    grade: Float[Array, "b k"]
    radiomics: Float[Array, "b r"]
    mask_valid: Bool[Array, "b"]
    grade_valid: Bool[Array, "b"]
    radiomics_valid: Bool[Array, "b"]
    example_valid: Bool[Array, "b"]
