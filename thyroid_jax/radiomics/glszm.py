"""Grey level size zone: how large the patches of one level are. One image at a time; ``jax.vmap`` for a batch.

A zone is a largest possible patch of pixels of one level inside the mask that touch by edges or corners. c(i,j) is the
number of zones of level i and j pixels. Formulas: :mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.radiomics.raster import Row, neighbours
from thyroid_jax.shapes import Array, Int

_SMALL = 64  # sizes up to this have a column of their own


def zones(level: Int[Array, "n"], row: Row, count: int) -> tuple[Int[Array, "l s"], Int[Array, "s"]]:
    """The number of zones of each level 1 to ``count`` (0 outside the mask) and each of some sizes, and these sizes.

    A size can be as large as the number of pixels, but few zones are large. So every size up to 64 has a column of
    its own. After them comes one column for each large zone; it is empty where an earlier zone has the same size.
    """
    n = level.shape[0]
    size = jnp.zeros(n + 1, jnp.int32).at[patches(level, row)].add(1)[:n]  # of the zone that starts here; else 0
    most = n // (_SMALL + 1)  # there cannot be more large zones
    number = jnp.where(size > _SMALL, jnp.cumsum(size > _SMALL) - 1, most)
    large = jnp.zeros(most, jnp.int32).at[number].set(size, mode="drop")
    first = jnp.full(n + 1, most).at[large].min(jnp.arange(most))[large]
    columns = _SMALL + most
    column = jnp.where(size > _SMALL, _SMALL + first[jnp.minimum(number, most - 1)], size - 1) if most else size - 1
    key = jnp.where(size > 0, level * columns + column, 0)
    counts = jnp.zeros((count + 1) * columns, jnp.int32).at[key].add(1).reshape(count + 1, columns)[1:]
    return counts, jnp.concatenate([jnp.arange(1, _SMALL + 1), jnp.maximum(large, 1)])


def patches(level: Int[Array, "n"], row: Row) -> Int[Array, "n"]:
    """For every pixel the number of the first place of its zone; n outside the mask.

    Every pixel points to a pixel of its zone, its parent; at first to itself. Each turn lowers the parents: the parent
    of a pixel gets the lowest parent among the pixel's neighbours, and then every pixel gets its parent's parent. The
    turns end when no neighbour has a lower parent, after about log2(size of the zone) turns.

    Source: Zhang, Azad & Hu 2020 (FastSV).
    """
    n = level.shape[0]
    same = [(level > 0) & (other == level) for other in neighbours(level, row)]
    start = jnp.where(level > 0, jnp.arange(n, dtype=jnp.int32), n)

    def lowest_around(parent: jax.Array) -> jax.Array:
        of_neighbours = [jnp.where(alike, other, n) for alike, other in zip(same, neighbours(parent, row))]
        return reduce(jnp.minimum, of_neighbours, parent)

    def turn(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        parent, low = state
        hooked = jnp.append(low, n).at[parent].min(low)
        parent = hooked[hooked[:n]]
        parent = jnp.append(parent, n)[parent]
        return parent, lowest_around(parent)

    def not_done(state: tuple[Array, Array]) -> Array:
        return (state[0] != state[1]).any()

    return jax.lax.while_loop(not_done, turn, (start, lowest_around(start)))[0]


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
