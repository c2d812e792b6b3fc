"""Images of any size are put on rasters of a few lengths, so that a data set needs few programs. Numpy, on the host."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from thyroid_jax.radiomics import raster

_SHORTEST = 1024  # places

Box = tuple[slice, slice]


class Part(NamedTuple):
    """Images that are measured together: the length of their rasters, their numbers, and the boxes of their masks."""

    length: int
    numbers: list[int]
    boxes: list[Box]


class Rasters(NamedTuple):
    """Rasters of one length: image f[b n], mask bool[b n], row i[b], and (row, column) size of a pixel f[b 2].

    ``row`` is the number of places from a pixel to the one below (:mod:`thyroid_jax.radiomics.raster`). The last
    rasters may be empty.
    """

    image: np.ndarray
    mask: np.ndarray
    row: np.ndarray
    spacing: np.ndarray


def sides(length: int) -> tuple[int, int]:
    """The most columns and the longest side that an image on a raster of ``length`` places can have."""
    return math.isqrt(length), 2 * math.isqrt(length)


def plan(masks: list[np.ndarray], size: int) -> list[Part]:
    """Which images are measured together, at most ``size`` in a part; the lengths of rasters are powers of two.

    Each length comes once before any length comes again, so that every program is compiled early. Long rasters come
    first.
    """
    boxes = [(_extent(np.any(mask, 1)), _extent(np.any(mask, 0))) for mask in masks]
    groups: dict[int, list[int]] = {}
    for number, box in enumerate(boxes):
        short, long = sorted(side.stop - side.start for side in box)
        places = max(raster.length(long, short), ((long + 1) // 2) ** 2, _SHORTEST)
        groups.setdefault(1 << (places - 1).bit_length(), []).append(number)
    starts = [(length, start) for length, numbers in groups.items() for start in range(0, len(numbers), size)]
    parts = []
    for length, start in sorted(starts, key=lambda place: (place[1] > 0, -place[0])):
        numbers = groups[length][start : start + size]
        parts.append(Part(length, numbers, [boxes[number] for number in numbers]))
    return parts


def pack(
    images: list[np.ndarray], masks: list[np.ndarray], spacings: np.ndarray, size: int, length: int, dtype: np.dtype
) -> Rasters:
    """Put images that are cut to their boxes on ``size`` rasters of ``length`` places.

    An image that is wider than high is transposed, with its spacing, so that it has no more columns than rows. No
    feature changes when image and spacing are transposed together.
    """
    rasters = Rasters(
        np.zeros((size, length), dtype), np.zeros((size, length), bool), np.full(size, 2), np.ones((size, 2), dtype)
    )
    for place, (image, mask) in enumerate(zip(images, masks)):
        wide = mask.shape[1] > mask.shape[0]
        h, w = sorted(mask.shape, reverse=True)
        rasters.row[place], rasters.spacing[place] = w + 1, spacings[place][::-1] if wide else spacings[place]
        for line, grid in ((rasters.image[place], image), (rasters.mask[place], mask)):
            line[: raster.length(h, w)].reshape(h + 1, w + 1)[1:, 1:] = grid.T if wide else grid
    return rasters


def _extent(line: np.ndarray) -> slice:
    """The places from the first True to the last; the first place alone where there is none."""
    return slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) if line.any() else slice(0, 1)
