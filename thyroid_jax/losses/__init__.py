"""Losses as plain functions ``(prediction, target, *, where=None, ...) -> f32[b]``: per example, unreduced;
:func:`masked_mean` reduces.
"""

from thyroid_jax.losses import consistency, grading, guidance, rlar, segmentation
from thyroid_jax.losses.reduce import masked_mean

__all__ = ["consistency", "grading", "guidance", "masked_mean", "rlar", "segmentation"]
