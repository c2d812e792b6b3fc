"""Neighbours, distances and places on the line against the image itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.radiomics import raster

SIZES = [(5, 6), (1, 4), (7, 1), (1, 1), (2, 9)]


def numbered(size):
    """An image of the numbers from 1, its line, and where its pixels lie on it."""
    image = np.arange(1, 1 + np.prod(size)).reshape(size)
    line, row = raster.to_line(jnp.asarray(image))
    return image, line, row, np.flatnonzero(np.asarray(line))


def at(image, y, x):
    return image[y, x] if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] else 0


@pytest.mark.parametrize("size", SIZES)
def test_an_image_lies_on_the_line_row_by_row(size):
    image, line, row, places = numbered(size)
    assert line.shape == (raster.length(*size),) and row == size[1] + 1
    np.testing.assert_array_equal(np.asarray(line)[places], image.ravel())
    y, x = (np.asarray(positions)[places] for positions in raster.positions(line.size, row))
    np.testing.assert_array_equal(np.stack([y, x], 1), 1 + np.argwhere(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("longer", [0, 50])
def test_neighbours_are_the_pixels_at_the_offsets_and_outside_is_empty(size, longer):
    image, line, row, places = numbered(size)
    around = jax.jit(raster.neighbours)(jnp.pad(line, (0, longer)), row)  # a traced row, on a line with places to spare
    for offset, found in zip(raster.NEIGHBOURS, around):
        expected = [at(image, y + offset[0], x + offset[1]) for y, x in np.argwhere(image)]
        np.testing.assert_array_equal(np.asarray(found)[places], expected)


def test_the_eight_neighbours_are_four_angles_and_their_opposites():
    everything = {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)} - {(0, 0)}
    assert set(raster.NEIGHBOURS) == everything and len(raster.NEIGHBOURS) == 8
    assert {angle if turn else (-angle[0], -angle[1]) for angle in raster.ANGLES for turn in (0, 1)} == everything


@pytest.mark.parametrize("places", [0, 1, -1, 7, -7, 41, 42, -42])
def test_what_is_moved_leaves_nothing_behind(places):
    _, line, _, _ = numbered((5, 6))
    expected = [line[k + places] if 0 <= k + places < line.size else 0 for k in range(line.size)]
    np.testing.assert_array_equal(jax.jit(raster.moved)(line, places), expected)


def test_positions_are_exact_on_long_lines():
    for row in (2, 3, 7, 641, 1000, 2049):
        y, x = raster.positions(4_000_000, row)
        np.testing.assert_array_equal(y, np.arange(4_000_000) // row)
        np.testing.assert_array_equal(x, np.arange(4_000_000) % row)


def test_each_measures_every_image():
    images, factors = np.arange(24.0).reshape(4, 2, 3), np.arange(4.0)
    sums, double = jax.jit(lambda *images: raster.map_images(lambda image, factor: (image.sum(), 2 * factor), *images))(
        images, factors
    )
    np.testing.assert_array_equal(sums, images.sum((1, 2)))
    np.testing.assert_array_equal(double, 2 * factors)
