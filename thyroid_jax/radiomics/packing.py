"""Images of any size to rasters of a few lengths, so that a data set needs a few compiled programs. On the host, with
numpy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from thyroid_jax.radiomics import raster

_SHORTEST = 1024  # places


Box = tuple[slice, slice]


class Rasters(NamedTuple):
    """Rasters of one length: values, mask, ``row`` and (row, column) size of a pixel of each. The last ones may be
    empty.
    """

    image: np.ndarray
    mask: np.ndarray
    row: np.ndarray
    spacing: np.ndarray


def sides(length: int) -> tuple[int, int]:
    """The most columns, and the longest side, of an image that is put on a raster of so many places."""
    return math.isqrt(length), 2 * math.isqrt(length)


def plan(masks: list[np.ndarray], size: int) -> list[tuple[int, list[int], list[Box]]]:
    """Which images go together, ``size`` of them at most: a power of two as the length of raster, their numbers, the
    boxes of their masks.

    Each length comes once before any comes again: what is compiled for it is then there. Long ones come first.
    """
    boxes = [(_extent(mask.any(1)), _extent(mask.any(0))) for mask in masks]
    groups: dict[int, list[int]] = {}
    for number, box in enumerate(boxes):
        short, long = sorted(side.stop - side.start for side in box)
        places = max(raster.length(long, short), ((long + 1) // 2) ** 2, _SHORTEST)
        groups.setdefault(1 << (places - 1).bit_length(), []).append(number)
    parts = [(start, length) for length, numbers in groups.items() for start in range(0, len(numbers), size)]
    chosen = [
        (length, groups[length][start : start + size])
        for start, length in sorted(parts, key=lambda part: (part[0] > 0, -part[1]))
    ]
    return [(length, numbers, [boxes[number] for number in numbers]) for length, numbers in chosen]


def pack(
    images: list[np.ndarray], masks: list[np.ndarray], spacings: np.ndarray, size: int, length: int, dtype: np.dtype
) -> Rasters:
    """Images cut to their boxes, on ``size`` rasters of so many places.

    One that is wider than high is turned, so that it has no more columns than rows; no feature minds, if its spacing
    is turned too.
    """
    rasters = Rasters(
        np.zeros((size, length), dtype), np.zeros((size, length), bool), np.full(size, 2), np.ones((size, 2), dtype)
    )
    for place, (image, mask) in enumerate(zip(images, masks)):
        turned = mask.shape[1] > mask.shape[0]
        h, w = sorted(mask.shape, reverse=True)
        rasters.row[place], rasters.spacing[place] = w + 1, spacings[place][::-1] if turned else spacings[place]
        for line, piece in ((rasters.image[place], image), (rasters.mask[place], mask)):
            line[: raster.length(h, w)].reshape(h + 1, w + 1)[1:, 1:] = piece.T if turned else piece
    return rasters


def _extent(line: np.ndarray) -> slice:
    """From the first True to the last; one place where there is none."""
    return slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) if line.any() else slice(0, 1)
