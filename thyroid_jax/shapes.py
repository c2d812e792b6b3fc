"""Shape annotations for signatures: ``Float["b h w c"]`` reads as a float array of that shape.

Letters, everywhere in the project: b batch, h w image, c channels, k grades, r radiomics features, t tasks, d length of a
latent direction. With ``jaxtyping`` installed (the ``dev`` extra) the annotations are real and the tests check every call
with ``beartype``; without it they cost nothing and mean nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

try:
    import jaxtyping
except ModuleNotFoundError:  # an optional development dependency
    jaxtyping = None


class _Shaped:
    """``Shaped["b h"]`` is a JAX or NumPy array of that shape (``jaxtyping``), or plainly an array when jaxtyping is not installed."""

    def __init__(self, kind: str):
        self._kind = kind

    def __getitem__(self, shape: str) -> Any:
        if jaxtyping is None:
            return jax.Array
        return getattr(jaxtyping, self._kind)[jax.Array | np.ndarray, shape]


Float = _Shaped("Float")
Int = _Shaped("Integer")
Bool = _Shaped("Bool")
Key = jax.Array
