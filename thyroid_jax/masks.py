"""The range of soft masks and of images, which every public function that takes one checks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.shapes import Array

ROUNDING = 1e-5  # resampled soft masks leave [0, 1] by float32 rounding


def check_mask(mask: Array, name: str = "probability") -> None:
    """Raise ValueError, with the argument's ``name``, where a value of a mask f[...] is known and outside [0, 1].

    An 8-bit mask of 0 and 255 is the usual case. Under ``jit``, ``vmap`` and the like values are not known, and nothing
    is checked. NaN passes, so that it stays visible in the result. A bool mask and an empty array pass.
    """
    _check_range(mask, name, "a mask", "mask")


def check_image(image: Array) -> None:
    """Raise ValueError for an image of whole numbers, or with known values outside [0, 1], as :func:`check_mask` does.

    Whole numbers are 8-bit grey values or truth values. They are refused under ``jit`` too: the type is known there.
    """
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image is of {image.dtype}; an image is of floats in [0, 1]. Divide 8-bit values by 255.")
    _check_range(image, "image", "an image", "image")


def _check_range(values: Array, name: str, kind: str, noun: str) -> None:
    if isinstance(values, jax.core.Tracer) or not getattr(values, "is_fully_addressable", True):
        return
    values = np.asarray(values)  # with jnp a constant would be traced under jit
    if ((values < -ROUNDING) | (values > 1 + ROUNDING)).any():
        lowest, highest = float(np.nanmin(values)), float(np.nanmax(values))
        raise ValueError(
            f"{name} holds values from {lowest:g} to {highest:g}; {kind} is in [0, 1]. Divide an 8-bit {noun} by 255."
        )
