"""Patches and zones against scipy's labels, on shapes that are hard to label and with zones of every size."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.radiomics import glszm, raster, sizes

SIDES, COUNT, SMALL = (24, 31), 8, 64
TOUCHING = np.ones((3, 3))
patches = jax.jit(lambda level: glszm.patches(*raster.to_line(level)))
zones = jax.jit(lambda level: sizes.table(*glszm.zones(*raster.to_line(level), COUNT)))
measured = jax.jit(lambda level: {name: feature(zones(level)) for name, feature in glszm.FEATURES.items()})


def drawn(seed, most, inside=0.8, coarse=1):
    rng = np.random.default_rng(seed)
    level = np.kron(rng.integers(1, most + 1, (24, 31)), np.ones((coarse, coarse), int))[:24, :31]
    return level * (rng.random(SIDES) < inside)


def spiral():
    """A path one pixel wide around itself, with a gap one pixel wide."""
    level, (y, x), (dy, dx) = np.zeros(SIDES, int), (0, 0), (0, 1)
    free = lambda y, x: not (0 <= y < SIDES[0] and 0 <= x < SIDES[1]) or level[y, x] == 0
    inside = lambda y, x: 0 <= y < SIDES[0] and 0 <= x < SIDES[1]
    level[y, x] = 1
    while True:
        for _ in range(2):
            if inside(y + dy, x + dx) and free(y + dy, x + dx) and free(y + 2 * dy, x + 2 * dx):
                break
            dy, dx = dx, -dy
        else:
            return level
        y, x = y + dy, x + dx
        level[y, x] = 1


def comb():
    """Teeth that hang together at the last row only: every label has to travel down one and up the next."""
    level = np.zeros(SIDES, int)
    level[:, ::2] = 1
    level[-1] = 1
    return level


def zigzag():
    """One line from end to end of every second row, joined at alternating ends."""
    level = np.zeros(SIDES, int)
    level[::2] = 1
    level[1::4, -1] = level[3::4, 0] = 1
    return level


def halves(first, second):
    """Two blocks of 12 x 10 = 120 pixels apart from each other, a third of 9 x 10 = 90, and a little one of 6."""
    level = np.zeros(SIDES, int)
    level[:12, :10], level[:12, 12:22], level[13:22, :10], level[14:16, 20:23] = first, second, first, second
    return level


LEVELS = {
    "two levels": drawn(0, 2),
    "eight levels": drawn(1, 8),
    "two levels in squares": drawn(2, 2, 1, 3),
    "three levels in squares with holes": drawn(3, 3, 0.9, 5),
    "one level with holes": drawn(4, 1, 0.6),
    "one level": np.full(SIDES, 4),
    "a spiral": spiral(),
    "a spiral in a spiral": spiral() + 2 * (spiral() == 0),
    "a comb": comb(),
    "a comb upside down": comb()[::-1].copy(),
    "two combs": comb() + 5 * (comb() == 0),
    "a zigzag": zigzag(),
    "a checkerboard": 1 + np.indices(SIDES).sum(0) % 2,
    "equal large zones of one level": halves(3, 3),
    "equal large zones of two levels": halves(3, 7),
    "stripes of 3 x 31": 1 + np.arange(24)[:, None] // 3 % 2 * np.ones(31, int),
    "nothing": np.zeros(SIDES, int),
    "one pixel": np.pad([[2]], ((5, 18), (7, 23))),
}


def labelled(level):
    """For every pixel the raster number of its zone's first, h w outside; and a Counter of (level, size)."""
    first, found = np.full(SIDES, level.size), Counter()
    for value in np.unique(level[level > 0]):
        labels, count = ndimage.label(level == value, TOUCHING)
        for number in range(1, count + 1):
            first[labels == number] = np.flatnonzero(labels == number)[0]
            found[int(value), int((labels == number).sum())] += 1
    return first, found


@pytest.mark.parametrize("name", LEVELS)
def test_patches_are_scipys_labels(name):
    first, _ = labelled(LEVELS[name])
    place, _ = raster.to_line(jnp.ones(SIDES, int))  # what lies outside points to the end of the line
    line, end = np.asarray(patches(LEVELS[name])), place.size
    expected = np.full(end, end)
    expected[np.flatnonzero(place)] = np.append(np.flatnonzero(place), end)[first.ravel()]
    np.testing.assert_array_equal(line, expected)


@pytest.mark.parametrize("name", LEVELS)
def test_zones_are_scipys_labels_counted(name):
    table, (_, expected) = zones(LEVELS[name]), labelled(LEVELS[name])
    sides, counts = np.asarray(table.sizes), np.rint(np.asarray(table.p) * table.total)
    found = {(int(i) + 1, int(sides[j])): int(counts[i, j]) for i, j in np.argwhere(counts)}
    assert found == dict(expected) and counts.sum() == np.count_nonzero(counts) + sum(expected.values()) - len(expected)
    np.testing.assert_array_equal(table.of_level, counts.sum(1))
    np.testing.assert_array_equal(table.of_size, counts.sum(0))
    used = sides[counts.any(0)]
    # Zones of one size share a column: the size non-uniformity sums the square of their number.
    assert len(used) == len(set(used.tolist()))


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "nothing"])
def test_features_are_those_of_the_whole_table_of_sizes(name):
    """What pyradiomics has: a column for every size there is, however large."""
    _, zones_there = labelled(LEVELS[name])
    i, j, c = np.array([(level, size, count) for (level, size), count in zones_there.items()], float).T
    n = c.sum()
    of_size, of_level = Counter(), Counter()
    for level, size, count in zip(i, j, c):
        of_size[size] += count
        of_level[level] += count
    expected = {
        "SmallAreaEmphasis": (c / j**2).sum() / n,
        "LargeAreaEmphasis": (c * j**2).sum() / n,
        "SizeZoneNonUniformity": sum(count**2 for count in of_size.values()) / n,
        "GrayLevelNonUniformity": sum(count**2 for count in of_level.values()) / n,
        "ZonePercentage": n / (LEVELS[name] > 0).sum(),
        "ZoneVariance": (c * j**2).sum() / n - ((c * j).sum() / n) ** 2,
        "ZoneEntropy": -(c / n * np.log2(c / n)).sum(),
        "LargeAreaHighGrayLevelEmphasis": (c * i**2 * j**2).sum() / n,
    }
    found = measured(LEVELS[name])
    for feature, value in expected.items():
        np.testing.assert_allclose(found[f"glszm_{feature}"], value, rtol=1e-5, atol=1e-5, err_msg=feature)


def test_the_hard_shapes_are_what_their_names_say():
    for name, turns in (("a spiral", 300), ("a comb", 300), ("a zigzag", 300)):
        first, found = labelled(LEVELS[name])
        assert len(found) == 1 and sum(found.values()) == 1  # one zone,
        assert (first < first.size).sum() > turns  # and a long one
    assert set(labelled(LEVELS["equal large zones of one level"])[1].items()) == {
        ((3, 120), 2),
        ((3, 90), 1),
        ((3, 6), 1),
    }
    assert set(labelled(LEVELS["equal large zones of two levels"])[1].items()) == {
        ((3, 120), 1),
        ((7, 120), 1),
        ((3, 90), 1),
        ((7, 6), 1),
    }


def test_equal_large_zones_are_counted_as_one_size():
    one_level, two_levels = (measured(LEVELS[f"equal large zones of {of}"]) for of in ("one level", "two levels"))
    for found in (one_level, two_levels):
        np.testing.assert_allclose(found["glszm_SizeZoneNonUniformity"], (2**2 + 1 + 1) / 4, rtol=1e-6)
        np.testing.assert_allclose(found["glszm_SizeZoneNonUniformityNormalized"], 6 / 16, rtol=1e-6)
    np.testing.assert_allclose(one_level["glszm_ZoneEntropy"], 1.5, rtol=1e-6)  # shares 1/2, 1/4, 1/4
    np.testing.assert_allclose(two_levels["glszm_ZoneEntropy"], 2.0, rtol=1e-6)  # four shares of 1/4


@pytest.mark.parametrize("size", [SMALL - 1, SMALL, SMALL + 1, SMALL + 2, 2 * SMALL + 2])
def test_the_border_between_small_and_large_is_seamless(size):
    level = np.zeros(SIDES, int)
    level.ravel()[:size] = 2  # whole rows and a piece of one
    table = zones(level)
    assert table.total == 1 and float((table.of_size * table.sizes).sum()) == size
    assert measured(level)["glszm_LargeAreaEmphasis"] == size**2


def test_the_most_large_zones_that_fit_all_find_a_place():
    level = np.zeros((21, 66), int)
    level[::2, :65] = 1 + np.arange(11)[:, None] % 2  # eleven of 65 pixels, each in a row of its own
    table = zones(level)
    assert table.total == 11
    assert {int(table.sizes[j]): int(n) for j, n in enumerate(table.of_size) if n} == {65: 11}
    np.testing.assert_array_equal(table.of_level[:3], [6, 5, 0])


def test_a_zone_is_one_level_and_touches_by_corners():
    level = np.zeros(SIDES, int)
    level[2, 2] = level[3, 3] = level[4, 2] = 5
    level[3, 2] = 6
    table = zones(level)
    assert {(int(i) + 1, int(table.sizes[j])) for i, j in np.argwhere(np.asarray(table.p))} == {(5, 3), (6, 1)}


def test_one_level_is_one_zone():
    found = measured(np.full(SIDES, 4))
    pixels = SIDES[0] * SIDES[1]
    expected = {
        "LargeAreaEmphasis": pixels**2,
        "SmallAreaEmphasis": 1 / pixels**2,
        "ZonePercentage": 1 / pixels,
        "ZoneEntropy": 0,
    }
    expected |= {
        "GrayLevelNonUniformity": 1,
        "SizeZoneNonUniformity": 1,
        "HighGrayLevelZoneEmphasis": 16,
        "ZoneVariance": 0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"glszm_{name}"], value, rtol=1e-6, err_msg=name)
