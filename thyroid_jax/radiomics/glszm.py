"""Grey level size zone: how large the patches of one level are. One image at a time; ``jax.vmap`` for a batch.

A zone is a patch of pixels of one level inside the mask, each touching another by an edge or a corner; c(i, j) counts the zones of level
i and j pixels. Formulas: :mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.radiomics.levels import NEIGHBOURS, neighbour
from thyroid_jax.shapes import Int

_SMALL = 64  # sizes up to this have a column of their own


def zones(level: Int["h w"], count: int) -> sizes.Table:
    """Table of the zones of levels 1 to ``count``, 0 outside the mask.

    Sizes run up to the number of pixels, but of large zones there are few: small sizes have a column each, and after them every large zone,
    unless an earlier one has its size.
    """
    pixels = level.size
    size = jnp.zeros(pixels + 1, jnp.int32).at[patches(level).ravel()].add(1)[:pixels]  # of the zone that starts here; else 0
    rank = jnp.cumsum(size > _SMALL)
    large = jnp.append(size, 0)[jnp.searchsorted(rank, jnp.arange(1, pixels // (_SMALL + 1) + 1))]
    first = (large[:, None] == large[None, :]).argmax(1) if large.size else large
    column = jnp.where(size > _SMALL, _SMALL + jnp.append(first, 0)[rank - 1], size - 1)
    columns = _SMALL + large.size
    key = jnp.where(size > 0, level.ravel() * columns + column, 0)
    counts = jnp.zeros((count + 1) * columns, float).at[key].add(1).reshape(count + 1, columns)[1:]
    return sizes.table(counts, jnp.concatenate([jnp.arange(1, _SMALL + 1), jnp.maximum(large, 1)]))


def patches(level: Int["h w"]) -> Int["h w"]:
    """For every pixel the raster number of the first pixel of its zone; h w outside the mask.

    Every pixel points to one of its zone, itself at first. In turns, whatever a pixel points to is made to point to the lowest number
    that a neighbour's points to, and every pixel to where its own points to (Zhang, Azad & Hu 2020, FastSV); a zone is done when all
    of it points to one pixel, after about as many turns as its size has binary digits.
    """
    pixels = level.size
    inside = level > 0
    same = [inside & (neighbour(level, offset, 0) == level) for offset in NEIGHBOURS]
    start = jnp.where(inside, jnp.arange(pixels).reshape(level.shape), pixels)

    def turn(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        parent, _ = state
        lowest = parent
        for offset, alike in zip(NEIGHBOURS, same):
            lowest = jnp.where(alike, jnp.minimum(lowest, neighbour(parent, offset, pixels)), lowest)
        padded = jnp.append(lowest.ravel(), pixels).at[parent.ravel()].min(lowest.ravel())
        new = padded[padded[:pixels]].reshape(level.shape)
        new = jnp.append(new.ravel(), pixels)[new]
        return new, (new != parent).any()

    return jax.lax.while_loop(lambda state: state[1], turn, (start, jnp.array(True)))[0]


FEATURES = {
    "glszm_GrayLevelNonUniformity": sizes.level_non_uniformity,
    "glszm_GrayLevelNonUniformityNormalized": sizes.level_non_uniformity_normalised,
    "glszm_GrayLevelVariance": sizes.level_variance,
    "glszm_HighGrayLevelZoneEmphasis": sizes.high_level,
    "glszm_LargeAreaEmphasis": sizes.large,
    "glszm_LargeAreaHighGrayLevelEmphasis": sizes.large_high_level,
    "glszm_LargeAreaLowGrayLevelEmphasis": sizes.large_low_level,
    "glszm_LowGrayLevelZoneEmphasis": sizes.low_level,
    "glszm_SizeZoneNonUniformity": sizes.size_non_uniformity,
    "glszm_SizeZoneNonUniformityNormalized": sizes.size_non_uniformity_normalised,
    "glszm_SmallAreaEmphasis": sizes.small,
    "glszm_SmallAreaHighGrayLevelEmphasis": sizes.small_high_level,
    "glszm_SmallAreaLowGrayLevelEmphasis": sizes.small_low_level,
    "glszm_ZoneEntropy": sizes.entropy,
    "glszm_ZonePercentage": sizes.percentage,
    "glszm_ZoneVariance": sizes.size_variance,
}
