"""Which images go together, and what lies on their rasters."""

import numpy as np
import pytest

from thyroid_jax.radiomics import packing, raster


def box(height, width, top=3, left=5, size=(300, 300)):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def drawn(*sizes):
    masks = [box(*size) for size in sizes]
    return np.random.default_rng(0).integers(1, 256, (len(masks), 300, 300)).astype(np.float32), masks


def unpacked(rasters, place, shape):
    """The image on a raster, from its ``row`` alone."""
    row = rasters.row[place]
    line = rasters.image[place][: (shape[0] + 1) * row].reshape(-1, row)
    return line[1:, 1:]


def test_every_image_is_planned_once_and_fits():
    sizes = [
        (30, 30),
        (250, 250),
        (31, 20),
        (200, 3),
        (1, 1),
        (3, 290),
        (90, 40),
        (40, 90),
        (63, 15),
        (64, 15),
        (31, 31),
        (0, 0),
    ]
    _, masks = drawn(*sizes)
    parts = packing.plan(masks, 2)
    assert sorted(number for _, numbers, _ in parts for number in numbers) == list(range(len(sizes)))
    for length, numbers, boxes in parts:
        columns, longest = packing.sides(length)
        assert len(numbers) <= 2 and length & (length - 1) == 0
        for number, cut in zip(numbers, boxes):
            h, w = masks[number][cut].shape
            assert (h, w) == tuple(max(side, 1) for side in sizes[number])  # an empty mask has a box of one place
            assert raster.length(h, w) <= length and min(h, w) < columns and max(h, w) <= longest


def test_each_length_comes_once_before_any_comes_again():
    _, masks = drawn(*[(30, 30)] * 5, *[(80, 80)] * 3, (200, 200))
    lengths = [length for length, _, _ in packing.plan(masks, 2)]
    assert lengths == [65536, 8192, 1024, 8192, 1024, 1024]


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (25, 25), (1, 40)])
def test_what_is_packed_is_there_and_turned_where_it_is_wider_than_high(size):
    image, masks = drawn(size)
    ((length, _, (cut,)),) = packing.plan(masks, 4)
    rasters = packing.pack([image[0][cut]], [masks[0][cut]], np.array([[0.5, 2.0]]), 4, length, np.dtype(np.float32))
    expected = image[0][cut].T if size[1] > size[0] else image[0][cut]
    np.testing.assert_array_equal(unpacked(rasters, 0, expected.shape), expected)
    assert rasters.spacing[0].tolist() == ([2.0, 0.5] if size[1] > size[0] else [0.5, 2.0])
    assert rasters.mask[0].sum() == masks[0].sum() and rasters.image[0].sum() == expected.sum()
    assert not rasters.mask[1:].any() and not rasters.image[1:].any() and rasters.image.shape == (4, length)
