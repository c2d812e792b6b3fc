"""Grey level dependence: how many neighbours have a pixel's own level. One image at a time; ``jax.vmap`` for a batch.

c(i, j) counts the pixels of level i of which j - 1 of the eight neighbours lie inside the mask and have level i (distance 1,
difference 0). N is the number of pixels. Formulas: :mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.radiomics.levels import NEIGHBOURS, neighbour
from thyroid_jax.shapes import Int


def dependences(level: Int["h w"], count: int) -> sizes.Table:
    """Table of the dependences of levels 1 to ``count``, 0 outside the mask."""
    alike = sum((neighbour(level, offset, 0) == level).astype(jnp.int32) for offset in NEIGHBOURS)
    most = len(NEIGHBOURS) + 1
    counts = jnp.zeros((count + 1) * most, float).at[(level * most + alike).ravel()].add(1)
    return sizes.table(counts.reshape(count + 1, most)[1:], jnp.arange(1, most + 1))


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
