"""Losses as plain functions ``(prediction, target, *, where=None, ...) -> f32[b]``: per example, never reduced.

They are computed in float32 at least, whatever the network computes in.
:mod:`thyroid_jax.losses.reduce` reduces them to scalars.
"""

from thyroid_jax.losses import consistency, grading, guidance, malignancy, reduce, rlar, segmentation
from thyroid_jax.losses.reduce import masked_mean

__all__ = ["consistency", "grading", "guidance", "malignancy", "masked_mean", "reduce", "rlar", "segmentation"]
