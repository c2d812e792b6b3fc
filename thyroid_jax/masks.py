"""The range of a soft mask, which every public function of soft masks checks."""

from __future__ import annotations

import jax
import numpy as np

from thyroid_jax.shapes import Array

ROUNDING = 1e-5  # resampled soft masks leave [0, 1] by float32 rounding


def check_mask(mask: Array, name: str = "probability") -> None:
    """Raise ValueError, with the argument's ``name``, where a value of a mask f[...] is known and outside [0, 1].

    An 8-bit mask of 0 and 255 is the usual case. Under ``jit``, ``vmap`` and the like values are not known, and nothing
    is checked. NaN passes, so that it stays visible in the result. A bool mask and an empty array pass.
    """
    if isinstance(mask, jax.core.Tracer) or not getattr(mask, "is_fully_addressable", True):
        return
    values = np.asarray(mask)  # with jnp a constant would be traced under jit
    if ((values < -ROUNDING) | (values > 1 + ROUNDING)).any():
        raise ValueError(
            f"{name} holds values from {np.nanmin(values):g} to {np.nanmax(values):g}; a mask is in [0, 1]. Divide an "
            "8-bit mask by 255."
        )
