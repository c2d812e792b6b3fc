"""Grey values to grey levels, with the bins of exact arithmetic. One image at a time; ``jax.vmap`` for a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.shapes import Array, Bool, Float, Int


def by_count(image: Float[Array, "*n"], mask: Bool[Array, "*n"], bins: int) -> Int[Array, "*n"]:
    """Grey levels of ``bins`` equal bins from the masked minimum to the maximum; pyradiomics' ``binCount``.

        level = 1 + floor(bins (x - min) / (max - min))        0 outside the mask

    A value on an edge belongs to the bin above it, the maximum to the last bin. Where the mask holds one grey value
    only, the level is 1 + bins // 2, as in numpy's histogram. ``bins`` is at most 4096.
    """
    image, lowest, highest = _inside(image, mask)
    distance, spread = _difference(image, lowest), _difference(highest, lowest)
    guess = jnp.floor(bins * distance[0] / jnp.maximum(spread[0], jnp.finfo(image.dtype).tiny))

    def reached(k: Array) -> Array:  # bins (x - min) >= k (max - min)
        parts = [
            bins * d - k * s for d, s in zip((*_halves(distance[0]), distance[1]), (*_halves(spread[0]), spread[1]))
        ]
        return parts[0] + parts[1] + parts[2] >= 0

    level = 1 + jnp.minimum(_settled(guess, reached), bins - 1)
    return jnp.where(mask, jnp.where(spread[0] > 0, level, 1 + bins // 2), 0).astype(jnp.int32)


def by_width(image: Float[Array, "*n"], mask: Bool[Array, "*n"], width: float) -> Int[Array, "*n"]:
    """Grey levels of bins of one width, whose edges are its multiples; pyradiomics' ``binWidth``.

        level = 1 + floor(x / width) - floor(min / width)        0 outside the mask

    Exact for values up to 4096 widths. Above, a value within rounding of an edge may fall into the neighbouring bin.
    """
    image, lowest, _ = _inside(image, mask)
    pieces = _pieces(width, image.dtype)

    def bin_of(x: Array) -> Array:
        guess = jnp.floor(x / jnp.asarray(width, x.dtype))
        return _settled(guess, lambda k: (((x - k * pieces[0]) - k * pieces[1]) - k * pieces[2]) - k * pieces[3] >= 0)

    return jnp.where(mask, 1 + bin_of(image) - bin_of(lowest), 0).astype(jnp.int32)


def histogram(level: Int[Array, "*n"], count: int) -> Float[Array, "l"]:
    """The number of pixels of each of the levels 1 to ``count``."""
    return jnp.zeros(count + 1, float).at[level.ravel()].add(1)[1:]


def _inside(
    image: Float[Array, "*n"], mask: Bool[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, ""], Float[Array, ""]]:
    lowest = jnp.where(mask, image, jnp.inf).min()
    lowest = jnp.where(jnp.isfinite(lowest), lowest, 0.0)
    image = jnp.where(mask, image, lowest)
    return image, lowest, image.max()


def _settled(guess: Array, reached) -> Array:
    """The highest k with ``reached(k)`` among guess - 1, guess and guess + 1: division may miss an edge by rounding."""
    return guess + reached(guess + 1) - ~reached(guess)


def _difference(a: Array, b: Array) -> tuple[Array, Array]:
    """a - b without rounding, as a number and its remainder (Knuth's two-sum)."""
    total = a - b
    taken = total - a
    return total, (a - (total - taken)) - (b + taken)


def _halves(a: Array) -> tuple[Array, Array]:
    """A number as the sum of two of half its digits each: their products with integers up to 4096 are exact."""
    whole, keep = (jnp.int64, -(1 << 26)) if a.dtype == jnp.float64 else (jnp.int32, -(1 << 12))
    high = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(a, whole) & keep, a.dtype)
    return high, a - high


def _pieces(number: float, dtype: jnp.dtype) -> tuple[Array, ...]:
    """A number as the sum of four: three of half a precision's digits each, and the rest."""
    digits, pieces = (26 if dtype == jnp.float64 else 12), []
    for _ in range(3):
        mantissa, exponent = np.frexp(number)
        pieces.append(float(np.ldexp(np.trunc(np.ldexp(mantissa, digits)), exponent - digits)))
        number -= pieces[-1]
    return tuple(jnp.asarray(piece, dtype) for piece in (*pieces, number))
