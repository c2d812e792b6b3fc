"""Sliding windows over one image: dilation, white top-hat, box mean. Separable, so a window of n x n costs 2 n."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from thyroid_jax.shapes import Array, Bool, Float


def _slide(x: Float[Array, "h w"], radius: int, start: float, combine) -> Float[Array, "h w"]:
    size = 2 * radius + 1
    x = lax.reduce_window(x, start, combine, (size, 1), (1, 1), "SAME")
    return lax.reduce_window(x, start, combine, (1, size), (1, 1), "SAME")


def highest(x: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """Maximum over the square of side 2 radius + 1; pixels outside the image are ignored."""
    return _slide(x, radius, -jnp.inf, lax.max)


def lowest(x: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """Minimum over the square of side 2 radius + 1; pixels outside the image are ignored."""
    return _slide(x, radius, jnp.inf, lax.min)


def box_mean(x: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """Mean over the part of the square of side 2 radius + 1 that lies inside the image."""
    rows, columns = (_inside(side, radius) for side in x.shape)
    return _slide(x, radius, 0.0, lax.add) / (rows[:, None] * columns[None, :]).astype(x.dtype)


def _inside(side: int, radius: int) -> np.ndarray:
    """How many of the 2 radius + 1 places around each place 0 ... side - 1 lie in this range: those from max(i - r, 0)
    to min(i + r, n - 1).
    """
    place = np.arange(side)
    return np.minimum(place + radius, side - 1) - np.maximum(place - radius, 0) + 1


def dilate(mask: Bool[Array, "h w"], radius: int) -> Bool[Array, "h w"]:
    """Pixels within ``radius`` of the mask in the chessboard distance.

    Each step looks at a pixel and at the two that lie a distance d above and below it (then left and right of it). d is
    1, 3, 9, ..., so that every step triples the reach; the last d is what is left up to ``radius``.
    """
    done, step = 0, 1
    while done < radius:
        step = min(2 * done + 1, radius - done)
        for window, apart in (((3, 1), (step, 1)), ((1, 3), (1, step))):
            mask = lax.reduce_window(mask, False, lax.bitwise_or, window, (1, 1), "SAME", window_dilation=apart)
        done += step
    return mask


def white_top_hat(x: Float[Array, "h w"], radius: int) -> Float[Array, "h w"]:
    """x minus its grey-scale opening: bright spots narrower than the square of side 2 radius + 1, >= 0."""
    return x - highest(lowest(x, radius), radius)
