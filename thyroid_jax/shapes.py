"""Shape annotations for signatures: ``Float[Array, "b h w c"]`` is a float array of that shape.

Letters, everywhere in the project: b batch, h w image, c channels, k grades, r radiomics features, t tasks, d length of
a latent direction. A type checker reads ``Array``. With ``jaxtyping`` installed (the ``dev`` extra) the annotations
are real, and the tests check every call with ``beartype``; without it they cost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

Array = jax.Array | np.ndarray

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Int
else:
    try:
        from jaxtyping import Bool, Float
        from jaxtyping import Integer as Int
    except ModuleNotFoundError:  # an optional development dependency

        class _Unchecked:
            """``Float[Array, "b h"]`` without jaxtyping: the array's type alone."""

            def __getitem__(self, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = _Unchecked()

Key = jax.Array
Number = float | Float[Array, ""]
"""a Python number, or a traced one"""

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Number"]
