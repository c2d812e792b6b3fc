"""Grey level run length: how long pixels of one level follow each other. One image at a time; ``jax.vmap`` for a batch.

A run is a longest possible row of neighbouring pixels of one level inside the mask, in one of four directions (0, 45,
90, 135 degrees). c(i,j) is the number of runs of level i and length j.

A feature is the mean over the directions in which some line holds at least two pixels of the mask. Where no direction
has such a line the feature is undefined. Formulas: :mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.radiomics.raster import ANGLES, Row, moved, neighbours, positions
from thyroid_jax.shapes import Array, Bool, Int


def runs(level: Int[Array, "n"], row: Row, count: int, longest: int) -> tuple[Int[Array, "a l s"], Bool[Array, "a"]]:
    """The number of runs of each level and length in each of ``ANGLES``, and which directions define a feature.

    Levels run from 1 to ``count``, lengths from 1 to ``longest``. The number of pixels that are the j-th of their run
    is the number of runs of length j or more. So c(i,j) is a difference of counts of pixels by their place in the run.
    """
    width = longest + 1

    def runs_of_direction(place: Int[Array, "n"]) -> Int[Array, "l s"]:
        counts = jnp.zeros((count + 1) * width, jnp.int32).at[level * width + place].add(1)
        at_least = counts.reshape(count + 1, width)[1:, 1:]
        return at_least - jnp.pad(at_least[:, 1:], ((0, 0), (0, 1)))

    counted = [runs_of_direction(place) for place in places(level, row, longest)]
    return jnp.stack(counted), _line_holds_two(level > 0, row)


def places(level: Int[Array, "n"], row: Row, longest: int) -> Int[Array, "a n"]:
    """The place of every pixel within its run in each of ``ANGLES``, from 1; 0 outside the mask.

    No run is longer than ``longest``.
    """
    previous = neighbours(level, row, tuple((-y, -x) for y, x in ANGLES))
    found = []
    for value, (y, x) in zip(previous, ANGLES):
        same_level = ((level > 0) & (value == level)).astype(jnp.int32)
        found.append(jnp.where(level > 0, 1 + _pixels_before(same_level, y * row + x, longest), 0))
    return jnp.stack(found)


def _pixels_before(same_level: Int[Array, "n"], step: Row, longest: int) -> Int[Array, "n"]:
    """The number of pixels before each pixel in its run, given whether the previous pixel has the same level.

    ``step`` is the number of places from the previous pixel. The number is known up to 1, then up to 2, 4, 8, ...:
    where it has reached the limit, the number at the pixel so many steps back is added.
    """
    before, known = same_level, 1
    while known < longest - 1:
        at_limit = before == known
        doubled = lambda before, at_limit=at_limit, known=known: jnp.where(
            at_limit, before + moved(before, -known * step), before
        )
        # A branch saves work; without it the compiler also computes each step again for each of its two uses.
        before, known = jax.lax.cond(at_limit.any(), doubled, lambda before: before, before), 2 * known
    return before


def _line_holds_two(mask: Bool[Array, "n"], row: Row) -> Bool[Array, "a"]:
    """Whether, in each of ``ANGLES``, some line holds two pixels of the mask.

    Pairs are looked for side by side, then two pixels apart, and so on.
    """
    n = mask.shape[0]
    place, padded = jnp.arange(n), jnp.pad(mask, n)
    _, column = positions(n, row)

    def has_partner(far: Array, y: int, x: int) -> Array:
        """Whether the pixel ``far`` steps along the same line is in the mask."""
        step, across = far * (y * row + x), column + far * x
        return jax.lax.dynamic_slice(padded, (n + step,), (n,)) & (place + step < n) & (across >= 0) & (across < row)

    def look_farther(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        found, far = state
        return found | jnp.stack([(mask & has_partner(far, y, x)).any() for y, x in ANGLES]), far + 1

    def not_done(state: tuple[Array, Array]) -> Array:
        found, far = state
        return ~found.all() & ((far * row < n) | (far < row)) & (mask.sum() > 1)

    return jax.lax.while_loop(not_done, look_farther, (jnp.zeros(len(ANGLES), bool), jnp.int32(1)))[0]


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
