"""Grey level dependence: how many neighbours have a pixel's own level. One image at a time; ``jax.vmap`` for a batch.

A pixel's dependence j is 1 plus the number of its eight neighbours inside the mask that have its own level (distance
1, difference 0). c(i,j) is the number of pixels of level i and dependence j, N the number of all pixels. Formulas:
:mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.radiomics.raster import NEIGHBOURS, Row, neighbours
from thyroid_jax.shapes import Array, Int


def dependences(level: Int[Array, "n"], row: Row, count: int) -> Int[Array, "l 9"]:
    """The number of pixels of each level 1 to ``count`` (0 outside the mask) and each dependence 1 to 9."""
    most = len(NEIGHBOURS) + 1
    alike = sum((other == level).astype(jnp.int32) for other in neighbours(level, row))
    return jnp.zeros((count + 1) * most, jnp.int32).at[level * most + alike].add(1).reshape(count + 1, most)[1:]


FEATURES = {
    "gldm_DependenceEntropy": sizes.entropy,
    "gldm_DependenceNonUniformity": sizes.size_non_uniformity,
    "gldm_DependenceNonUniformityNormalized": sizes.size_non_uniformity_normalised,
    "gldm_DependenceVariance": sizes.size_variance,
    "gldm_GrayLevelNonUniformity": sizes.level_non_uniformity,
    "gldm_GrayLevelVariance": sizes.level_variance,
    "gldm_HighGrayLevelEmphasis": sizes.high_level,
    "gldm_LargeDependenceEmphasis": sizes.large,
    "gldm_LargeDependenceHighGrayLevelEmphasis": sizes.large_high_level,
    "gldm_LargeDependenceLowGrayLevelEmphasis": sizes.large_low_level,
    "gldm_LowGrayLevelEmphasis": sizes.low_level,
    "gldm_SmallDependenceEmphasis": sizes.small,
    "gldm_SmallDependenceHighGrayLevelEmphasis": sizes.small_high_level,
    "gldm_SmallDependenceLowGrayLevelEmphasis": sizes.small_low_level,
}
