"""Grey level run length: how long pixels of one level follow each other. One image at a time; ``jax.vmap`` for a batch.

A run is a row of neighbouring pixels of one level inside the mask, as long as it gets, in one of four directions (0,
45, 90, 135 degrees); c(i, j) counts the runs of level i and length j. A feature is the mean over the directions in
which any line holds two pixels of the mask at least; without any it is undefined. Formulas:
:mod:`thyroid_jax.radiomics.sizes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from thyroid_jax.radiomics import sizes
from thyroid_jax.radiomics.raster import ANGLES, Row, moved, neighbours, positions
from thyroid_jax.shapes import Array, Bool, Int


def runs(level: Int[Array, "n"], row: Row, count: int, longest: int) -> tuple[Int[Array, "a l s"], Bool[Array, "a"]]:
    """How many runs there are of each level 1 to ``count`` and length 1 to ``longest`` in each of ``ANGLES``, and
    which say anything.

    The pixels that are the j-th of their run are as many as there are runs of length j or more, so counting every
    pixel by its place in its run gives c(i, j) as a difference.
    """
    width = longest + 1

    def one(place: Int[Array, "n"]) -> Int[Array, "l s"]:
        at_least = (
            jnp.zeros((count + 1) * width, jnp.int32).at[level * width + place].add(1).reshape(count + 1, width)[1:, 1:]
        )
        return at_least - jnp.pad(at_least[:, 1:], ((0, 0), (0, 1)))

    return jnp.stack([one(place) for place in places(level, row, longest)]), _several(level > 0, row)


def places(level: Int[Array, "n"], row: Row, longest: int) -> Int[Array, "a n"]:
    """The number of every pixel within its run in each of ``ANGLES``, from 1; 0 outside the mask. No run is longer
    than ``longest``.

    How many of a run come before a pixel is known up to 1 from its neighbour, then up to 2, 4, 8, ...: where there
    are as many as is known, those before the pixel so far back are added.
    """
    neighbour = neighbours(level, row, tuple((-y, -x) for y, x in ANGLES))
    alike = [(level > 0) & (one == level) for one in neighbour]
    before = [_before(one.astype(jnp.int32), y * row + x, longest) for one, (y, x) in zip(alike, ANGLES)]
    return jnp.stack([jnp.where(level > 0, 1 + one, 0) for one in before])


def _before(before: Int[Array, "n"], step: Row, longest: int) -> Int[Array, "n"]:
    known = 1
    while known < longest - 1:
        full = (
            before == known
        )  # a branch, not only to save work: without it the compiler computes each step again for its two readers
        doubled = lambda before, full=full, known=known: jnp.where(full, before + moved(before, -known * step), before)
        before, known = jax.lax.cond(full.any(), doubled, lambda before: before, before), 2 * known
    return before


def _several(mask: Bool[Array, "n"], row: Row) -> Bool[Array, "a"]:
    """Whether, in each of ``ANGLES``, any line holds two pixels of the mask: looked for side by side, then two apart,
    and so on.
    """
    n = mask.shape[0]
    place, padded = jnp.arange(n), jnp.pad(mask, n)
    _, column = positions(n, row)

    def other(far: jax.Array, y: int, x: int) -> jax.Array:  # is there a pixel so far along, on the same line
        step, across = far * (y * row + x), column + far * x
        return jax.lax.dynamic_slice(padded, (n + step,), (n,)) & (place + step < n) & (across >= 0) & (across < row)

    def look(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        found, far = state
        return found | jnp.stack([(mask & other(far, y, x)).any() for y, x in ANGLES]), far + 1

    def on(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        found, far = state
        return ~found.all() & ((far * row < n) | (far < row)) & (mask.sum() > 1)

    return jax.lax.while_loop(on, look, (jnp.zeros(len(ANGLES), bool), jnp.int32(1)))[0]


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
