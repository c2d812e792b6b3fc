"""Dependences counted pixel by pixel, and patterns worked out by hand."""

from collections import Counter

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import gldm, raster, sizes

SIDES, COUNT = (9, 12), 8
dependences = jax.jit(lambda level: sizes.table(gldm.dependences(*raster.to_line(level), COUNT)))
measured = jax.jit(lambda level: {name: feature(dependences(level)) for name, feature in gldm.FEATURES.items()})


def drawn(seed, most, inside=0.7):
    rng = np.random.default_rng(seed)
    return rng.integers(1, most + 1, SIDES) * (rng.random(SIDES) < inside)


LEVELS = {
    "eight levels with holes": drawn(0, 8),
    "two levels": drawn(1, 2),
    "three levels, the whole image": drawn(2, 3, 1),
    "few pixels": drawn(3, 3, 0.15),
    "one level with holes": drawn(4, 1, 0.8),
    "two parts": drawn(5, 2) * (np.abs(np.arange(SIDES[1]) - 5) > 2),
    "nothing": drawn(6, 2, 0),
}


def counted(level):
    found = Counter()
    for y, x in np.argwhere(level):
        square = level[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        found[level[y, x], np.count_nonzero(square == level[y, x])] += 1  # the pixel itself is the 1 that is added
    return found


@pytest.mark.parametrize("name", LEVELS)
def test_dependences_are_those_counted_pixel_by_pixel(name):
    table, expected = dependences(LEVELS[name]), counted(LEVELS[name])
    assert np.asarray(table.sizes).tolist() == list(range(1, 10)) and table.total == (LEVELS[name] > 0).sum()
    counts = np.array([[expected[i, j] for j in range(1, 10)] for i in range(1, COUNT + 1)])
    np.testing.assert_allclose(np.asarray(table.p) * table.total, counts, atol=1e-4)
    np.testing.assert_array_equal(table.of_level, counts.sum(1))
    np.testing.assert_array_equal(table.of_size, counts.sum(0))


def test_one_level_depends_on_as_many_as_there_are_around():
    found, (h, w) = measured(np.full(SIDES, 3)), SIDES
    inner, edges, corners = (h - 2) * (w - 2), 2 * (h - 2) + 2 * (w - 2), 4  # of 9, 6 and 4
    n = h * w
    assert inner + edges + corners == n
    expected = {
        "LargeDependenceEmphasis": (81 * inner + 36 * edges + 16 * corners) / n,
        "SmallDependenceEmphasis": (inner / 81 + edges / 36 + corners / 16) / n,
        "DependenceNonUniformity": (inner**2 + edges**2 + corners**2) / n,
        "GrayLevelNonUniformity": n,
        "GrayLevelVariance": 0,
        "HighGrayLevelEmphasis": 9,
        "LowGrayLevelEmphasis": 1 / 9,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"gldm_{name}"], value, rtol=1e-6, err_msg=name)


def test_a_checkerboard_depends_on_its_diagonals():
    table = dependences(1 + np.indices(SIDES).sum(0) % 2)
    h, w = SIDES
    # They have four, two and one diagonal neighbours of their level, and themselves.
    inner, edges, corners = (h - 2) * (w - 2), 2 * (h - 2) + 2 * (w - 2), 4
    np.testing.assert_array_equal(np.asarray(table.of_size), [0, corners, edges, 0, inner, 0, 0, 0, 0])
    np.testing.assert_array_equal(np.asarray(table.of_level)[:3], [h * w / 2, h * w / 2, 0])


def test_pixels_apart_depend_on_none():
    level = np.zeros(SIDES, int)
    level[::2, ::2] = 2
    found = measured(level)
    assert found["gldm_SmallDependenceEmphasis"] == found["gldm_LargeDependenceEmphasis"] == 1
    assert found["gldm_DependenceVariance"] == found["gldm_DependenceEntropy"] == 0
    level[::2, ::2] += np.arange(6)[None, :]  # other levels, still alone
    assert measured(level)["gldm_LargeDependenceEmphasis"] == 1
    np.testing.assert_allclose(measured(level)["gldm_DependenceEntropy"], np.log2(6), rtol=1e-6)
