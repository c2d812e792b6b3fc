"""Grey level run length: how long pixels of one level follow each other. One image at a time; ``jax.vmap`` for a batch.

A run is a row of neighbouring pixels of one level inside the mask, as long as it gets, in one of four directions (0, 45, 90, 135
degrees); c(i, j) counts the runs of level i and length j. A feature is the mean over the directions in which any line holds two pixels
of the mask at least; without any it is undefined. Formulas: :mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.shapes import Bool, Int


def runs(level: Int["h w"], count: int) -> tuple[sizes.Table, Bool["a"]]:
    """Table of the runs of levels 1 to ``count`` (0 outside the mask) in each direction, and in which directions it says anything.

    The pixels that are the j-th of their run are as many as there are runs of length j or more, so counting every pixel by its place
    in its run gives c(i, j) as a difference.
    """
    (down, several), (along, in_rows) = _places(level, (0, 1, -1)), _places(level.T, (0,))
    place = jnp.concatenate([down, along.swapaxes(1, 2)])
    longest = max(level.shape)
    key = (level * (longest + 1))[None] + place + ((count + 1) * (longest + 1) * jnp.arange(len(place)))[:, None, None]
    counts = jnp.zeros(len(place) * (count + 1) * (longest + 1), float).at[key.ravel()].add(1)
    at_least = counts.reshape(len(place), count + 1, longest + 1)[:, 1:, 1:]
    exactly = at_least - jnp.pad(at_least[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
    return sizes.table(exactly, jnp.arange(1, longest + 1)), jnp.concatenate([several, in_rows])


def _places(level: Int["h w"], sideways: tuple[int, ...]) -> tuple[Int["a h w"], Bool["a"]]:
    """The number of every pixel within its run, from 1, and whether any line holds two pixels of the mask.

    The lines go a row down and ``sideways`` columns to the side at each step, and all are walked together, row by row.
    """

    def moved(row: jax.Array, by: int) -> jax.Array:  # no line enters from the side
        return row if by == 0 else jnp.pad(row[:-1], (1, 0)) if by == 1 else jnp.pad(row[1:], (0, 1))

    def down(before: tuple[jax.Array, ...], row: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        last, place, seen, several = before
        shifted = lambda rows: jnp.stack([moved(one, by) for one, by in zip(rows, sideways)])
        place = jnp.where(row[None] == shifted([last] * len(sideways)), shifted(place) + 1, 1)
        seen = shifted(seen)
        several = several | (seen & (row > 0)[None])
        return (row, place, seen | (row > 0)[None], several), place

    none = jnp.zeros((len(sideways), level.shape[1]), bool)
    start = (jnp.zeros_like(level[0]), jnp.zeros(none.shape, level.dtype), none, none)
    (*_, several), place = jax.lax.scan(down, start, level)
    return place.swapaxes(0, 1), several.any(1)


FEATURES = {
    "glrlm_GrayLevelNonUniformity": sizes.level_non_uniformity,
    "glrlm_GrayLevelNonUniformityNormalized": sizes.level_non_uniformity_normalised,
    "glrlm_GrayLevelVariance": sizes.level_variance,
    "glrlm_HighGrayLevelRunEmphasis": sizes.high_level,
    "glrlm_LongRunEmphasis": sizes.large,
    "glrlm_LongRunHighGrayLevelEmphasis": sizes.large_high_level,
    "glrlm_LongRunLowGrayLevelEmphasis": sizes.large_low_level,
    "glrlm_LowGrayLevelRunEmphasis": sizes.low_level,
    "glrlm_RunEntropy": sizes.entropy,
    "glrlm_RunLengthNonUniformity": sizes.size_non_uniformity,
    "glrlm_RunLengthNonUniformityNormalized": sizes.size_non_uniformity_normalised,
    "glrlm_RunPercentage": sizes.percentage,
    "glrlm_RunVariance": sizes.size_variance,
    "glrlm_ShortRunEmphasis": sizes.small,
    "glrlm_ShortRunHighGrayLevelEmphasis": sizes.small_high_level,
    "glrlm_ShortRunLowGrayLevelEmphasis": sizes.small_low_level,
}
