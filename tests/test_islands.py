"""Connected parts of a mask against scipy.ndimage, and what they promise of gaps and soft edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.radiomics import islands

SIDES = (37, 50)
SQUARE = np.ones((3, 3))
labels_with_edge = jax.jit(islands.labels)


def labels(mask):
    return labels_with_edge(mask, np.zeros(SIDES, bool))


def areas(label):
    """How many pixels the parts have, all in one bin: a sum over the parts that shows each of them."""
    size = jnp.arange(SIDES[0] * SIDES[1] + 1)
    return islands.total(label, lambda part: (size == part.sum()).astype(jnp.int32))


total_areas = jax.jit(areas)


def spiral():
    mask = np.zeros(SIDES, bool)
    top, left, bottom, right = 1, 1, SIDES[0] - 2, SIDES[1] - 2
    mask[top, left:right] = True
    while bottom - top > 8 and right - left > 8:
        mask[top:bottom, right] = mask[bottom, left : right + 1] = mask[top + 5 : bottom, left] = True
        top, left, bottom, right = top + 5, left + 5, bottom - 5, right - 5
        mask[top, left - 5 : right + 1] = True
    return mask


def blobs(seed):
    """Some ellipses anywhere, which may join."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    places, axes = rng.uniform(0, SIDES, (5, 2)), rng.uniform(1, 6, (5, 2))
    return np.any([((y - a) / h) ** 2 + ((x - b) / w) ** 2 <= 1 for (a, b), (h, w) in zip(places, axes)], axis=0)


def same_parts(ours, theirs):
    """Two labellings of the same pixels name the same parts."""
    pairs = {(int(a), int(b)) for a, b in zip(ours.ravel(), theirs.ravel())}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_parts_are_scipys():
    compared = 0
    for seed in range(40):
        mask = blobs(seed)
        expected, count = ndimage.label(mask, SQUARE)
        if ndimage.label(ndimage.binary_dilation(mask, SQUARE), SQUARE)[1] < count:
            continue  # parts with fewer than 3 pixels between them may be one
        compared += 1
        assert same_parts(np.where(mask, labels(mask), 0), expected), seed
        sizes = np.bincount(np.bincount(expected[mask])[1:])
        label = np.where(mask, labels(mask), 0)
        np.testing.assert_array_equal(np.asarray(total_areas(label))[: len(sizes)], sizes)
    assert compared >= 10


def test_a_long_way_round_is_one_part():
    mask = spiral()
    assert ndimage.label(mask, SQUARE)[1] == 1 and len(np.unique(np.asarray(labels(mask))[mask])) == 1


@pytest.mark.parametrize("offset", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_gap_of_three_pixels_parts_and_a_shared_corner_joins(offset):
    mask = np.zeros(SIDES, bool)
    y, x = 10 + offset[0], 12 + offset[1]
    mask[y : y + 6, x : x + 5] = True
    mask[y + 6 : y + 9, x + 5 : x + 7] = True  # touches at a corner
    mask[y : y + 3, x + 8 : x + 12] = True  # three pixels further, and three above the corner's part
    label = np.asarray(labels(mask))
    first, corner, other = label[y, x], label[y + 7, x + 6], label[y, x + 9]
    assert first == corner > 0
    assert other > 0 and other != first


def test_a_soft_edge_belongs_to_its_part_and_what_touches_none_to_nothing():
    mask, edge = np.zeros(SIDES, bool), np.zeros(SIDES, bool)
    mask[11:20, 8:13] = mask[11:20, 30:35] = True
    edge[9:22, 5:16] = edge[8:24, 27:40] = True  # around each
    edge[28:32, 5:40] = True  # a haze further down
    label = np.asarray(labels_with_edge(mask, edge))
    left, right = label[15, 10], label[15, 32]
    assert 0 < left != right > 0
    assert (label[9:22, 5:16] == left).all() and (label[8:24, 27:40] == right).all()
    assert not label[24:].any() and not label[~(mask | edge)].any()


def test_where_two_edges_meet_each_part_keeps_its_half():
    mask, edge = np.zeros(SIDES, bool), np.zeros(SIDES, bool)
    mask[10:20, 6:10] = mask[10:20, 30:34] = True
    edge[10:20, 6:34] = True
    label = np.asarray(labels_with_edge(mask, edge))
    assert (label[10:20, 6:18] == label[15, 7]).all() and (label[10:20, 22:34] == label[15, 31]).all()
    assert label[15, 7] != label[15, 31]


def test_nothing_and_everything():
    assert not np.asarray(labels(np.zeros(SIDES, bool))).any()
    assert len(np.unique(labels(np.ones(SIDES, bool)))) == 1
    assert not np.asarray(total_areas(np.zeros(SIDES, np.int32))).any()


def test_a_batch_is_its_examples():
    masks = np.stack([spiral(), np.zeros(SIDES, bool), spiral()[::-1] & (np.arange(SIDES[1]) < 20)])
    together = jax.vmap(islands.labels)(masks, np.zeros_like(masks))
    np.testing.assert_array_equal(together, np.stack([labels(mask) for mask in masks]))
    np.testing.assert_array_equal(jax.vmap(areas)(together), np.stack([total_areas(label) for label in together]))
