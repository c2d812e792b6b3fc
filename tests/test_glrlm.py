"""Runs counted by walking along every line, and patterns whose runs are plain."""

from collections import Counter
from itertools import pairwise

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import glrlm, raster, sizes

SIDES, COUNT = (9, 12), 8
DIRECTIONS = raster.ANGLES


@jax.jit
def runs(level):
    counts, where = glrlm.runs(*raster.to_line(level), COUNT, max(level.shape))
    return sizes.table(counts), where


measured = jax.jit(lambda level: {name: feature(runs(level)[0]) for name, feature in glrlm.FEATURES.items()})


def drawn(seed, most, inside=0.7):
    rng = np.random.default_rng(seed)
    return rng.integers(1, most + 1, SIDES) * (rng.random(SIDES) < inside)


def pixels(*places):
    level = np.zeros(SIDES, int)
    for place in places:
        level[place] = 2
    return level


LEVELS = {
    "eight levels with holes": drawn(0, 8),
    "two levels": drawn(1, 2),
    "two levels, the whole image": drawn(2, 2, 1),
    "three levels, few pixels": drawn(3, 3, 0.12),
    "one level": drawn(4, 1, 0.8),
    "one level, the whole image": np.full(SIDES, 3),
    "two parts": drawn(5, 2) * (np.abs(np.arange(SIDES[1]) - 5) > 2),
    "a ring": drawn(6, 3, 1) * (np.abs(np.hypot(*np.ogrid[-4:5, -5:7]) - 3.5) < 1),
    "one row": drawn(7, 2, 1) * (np.arange(SIDES[0]) == 3)[:, None],
    "isolated pixels": pixels((0, 0), (2, 5), (8, 11), (5, 1)),
    "nothing": pixels(),
}


def walked(level, direction):
    """Counter of (level, length), and whether a line holds two pixels of the mask: a walk along every line."""
    (dy, dx), (h, w) = direction, SIDES
    found, several = Counter(), False
    for y, x in np.ndindex(SIDES):
        if 0 <= y - dy < h and 0 <= x - dx < w:
            continue  # not the first of its line
        line = []
        while 0 <= y < h and 0 <= x < w:
            line.append(level[y, x])
            y, x = y + dy, x + dx
        several |= np.count_nonzero(line) > 1
        starts = [0, *(k for k in range(1, len(line)) if line[k] != line[k - 1]), len(line)]
        for start, stop in pairwise(starts):
            if line[start]:
                found[line[start], stop - start] += 1
    return found, several


@pytest.mark.parametrize("name", LEVELS)
def test_runs_are_those_met_on_a_walk(name):
    table, where = runs(LEVELS[name])
    lengths = np.asarray(table.sizes)
    assert lengths.tolist() == list(range(1, max(SIDES) + 1))
    for number, direction in enumerate(DIRECTIONS):
        found, several = walked(LEVELS[name], direction)
        expected = np.array([[found[i, j] for j in lengths] for i in range(1, COUNT + 1)])
        np.testing.assert_allclose(np.asarray(table.p[number]) * table.total[number], expected, atol=1e-4)
        np.testing.assert_array_equal(table.of_level[number], expected.sum(1))
        np.testing.assert_array_equal(table.of_size[number], expected.sum(0))
        assert table.total[number] == expected.sum() and bool(where[number]) == several
        assert (expected * lengths).sum() == (LEVELS[name] > 0).sum()  # every pixel is in one run


def test_two_pixels_on_a_line_make_a_direction_count_even_with_a_gap():
    for places, expected in (
        ([(2, 3), (2, 9)], {(0, 1)}),
        ([(1, 3), (8, 3)], {(1, 0)}),
        ([(1, 2), (5, 6)], {(1, 1)}),
        ([(1, 9), (7, 3)], {(1, -1)}),
        ([(1, 2), (4, 10)], set()),
        ([(0, 0)], set()),
        ([(2, 3), (2, 9), (8, 3)], {(0, 1), (1, 0), (1, -1)}),
    ):
        where = runs(pixels(*places))[1]
        assert {direction for direction, there in zip(DIRECTIONS, where) if there} == expected


def test_a_run_ends_at_a_hole_and_at_the_border():
    level = np.full(SIDES, 1)
    level[4, 5] = 0
    table, _ = runs(level)
    along = dict(zip(DIRECTIONS, np.asarray(table.of_size)))
    assert {n + 1: c for n, c in enumerate(along[0, 1]) if c} == {12: 8, 5: 1, 6: 1}
    assert {n + 1: c for n, c in enumerate(along[1, 0]) if c} == {9: 11, 4: 2}
    full = dict(zip(DIRECTIONS, np.asarray(runs(np.full(SIDES, 1))[0].of_size)))
    for diagonal in ((1, 1), (1, -1)):  # two of each length up to 8, four of 9
        assert {n + 1: c for n, c in enumerate(full[diagonal]) if c} == {**dict.fromkeys(range(1, 9), 2), 9: 4}


def test_one_level_is_as_long_as_the_image():
    found = measured(np.full(SIDES, 3))
    h, w = SIDES
    for number, length in ((DIRECTIONS.index((0, 1)), w), (DIRECTIONS.index((1, 0)), h)):
        expected = {
            "ShortRunEmphasis": 1 / length**2,
            "LongRunEmphasis": length**2,
            "RunPercentage": 1 / length,
            "RunEntropy": 0,
        }
        expected |= {"RunLengthNonUniformity": h * w / length, "GrayLevelNonUniformityNormalized": 1, "RunVariance": 0}
        expected |= {
            "HighGrayLevelRunEmphasis": 9,
            "LowGrayLevelRunEmphasis": 1 / 9,
            "LongRunHighGrayLevelEmphasis": 9 * length**2,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[f"glrlm_{name}"][number], value, rtol=1e-6, err_msg=name)


def test_a_checkerboard_has_runs_of_one_and_whole_diagonals():
    found = measured(1 + np.indices(SIDES).sum(0) % 2)
    straight = [DIRECTIONS.index(direction) for direction in ((0, 1), (1, 0))]
    diagonal = [DIRECTIONS.index(direction) for direction in ((1, 1), (1, -1))]
    for number in straight:
        assert found["glrlm_RunPercentage"][number] == found["glrlm_ShortRunEmphasis"][number] == 1
        assert found["glrlm_RunEntropy"][number] == 1 and found["glrlm_RunLengthNonUniformityNormalized"][number] == 1
    for number in diagonal:  # 20 diagonals, each of one level
        np.testing.assert_allclose(found["glrlm_RunPercentage"][number], 20 / 108, rtol=1e-6)
        # 1 + 4 + ... + 64 = 204
        np.testing.assert_allclose(found["glrlm_LongRunEmphasis"][number], (2 * 204 + 4 * 81) / 20, rtol=1e-6)


def test_turning_the_image_turns_the_directions():
    level = drawn(8, 3)
    square = np.pad(level, ((0, SIDES[1] - SIDES[0]), (0, 0)))
    (table, where), (turned, turned_where) = runs(square), runs(np.rot90(square).copy())
    for before, after in (((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 1), (1, -1)), ((1, -1), (1, 1))):
        before, after = DIRECTIONS.index(before), DIRECTIONS.index(after)
        np.testing.assert_array_equal(turned.p[after], table.p[before])
        assert turned_where[after] == where[before]
