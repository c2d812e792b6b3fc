"""Normalisation of pictures for the encoders that were trained on ImageNet with a mean and deviation per channel."""

from __future__ import annotations

import numpy as np

from thyroid_jax.shapes import Array, Float

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
"""of red, green and blue in [0, 1]"""
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226


def normalized(grey: Float[Array, "b h w 1"]) -> Float[Array, "b h w 1"]:
    """u = (grey - 0.449) / 0.226.

    The three channels of the published networks are then slope u + offset, with the constants of :func:`channels`.
    """
    return (grey - GREY_MEAN) / GREY_DEVIATION


def channels() -> tuple[np.ndarray, np.ndarray]:
    """Slope f64[3] and offset f64[3] with (grey - MEAN) / DEVIATION = slope u + offset."""
    return GREY_DEVIATION / DEVIATION, (GREY_MEAN - MEAN) / DEVIATION
