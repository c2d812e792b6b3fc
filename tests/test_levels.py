"""Grey values to grey levels: against rational arithmetic on and beside every edge, and against pyradiomics."""

from fractions import Fraction
from functools import partial

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import levels

SIDES = (18, 23)
FULL = np.ones(SIDES, bool)
by_count = jax.jit(levels.by_count, static_argnums=2)
by_width = jax.jit(levels.by_width, static_argnums=2)
COUNTS, WIDTHS = (32, 10, 7), (25.0, 25 / 255, 5.0, 0.5)


def drawn(seed, lowest=0, highest=255):
    """Whole grey values of 8 bits, the extremes among them, and a mask of many parts."""
    rng = np.random.default_rng(seed)
    image, mask = rng.integers(lowest, highest + 1, SIDES), rng.random(SIDES) < 0.5
    image[3, 4:6], mask[3, 4:6] = (lowest, highest), True
    return image, mask


def count_exactly(values, bins):
    """level 1 + floor(bins (x - min) / (max - min)) with rational numbers, the maximum in the last bin."""
    values = [Fraction(float(value)) for value in values]
    lowest, highest = min(values), max(values)
    return [1 + min(bins * (value - lowest) // (highest - lowest), bins - 1) for value in values]


def width_exactly(values, width):
    values, width = [Fraction(float(value)) for value in values], Fraction(width)
    return [1 + value // width - min(values) // width for value in values]


def beside_edges(rng, edges):
    """Each edge as the type has it, the number just below it or the one just above."""
    return np.choose(
        rng.integers(0, 3, edges.shape), [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf)]
    ).astype(edges.dtype)


def binned_by_pyradiomics(image, mask, **bins):
    """Its levels, and which pixels lie beside every edge by more than its own rounding; 0 and True outside the mask."""
    operations = pytest.importorskip("radiomics").imageoperations
    image = image.astype(np.float64)
    level, edges = operations.binImage(image, np.nonzero(mask), **bins)
    inner = np.array(edges[1:-1] if "binCount" in bins else edges)
    apart = np.abs(image[..., None] - inner).min(-1, initial=np.inf) > 1e-12 * np.abs(inner).max(initial=1)
    return level, apart | ~mask


@pytest.mark.parametrize("bins", [2, 3, 7, 10, 32, 100, 255, 1000, 4096])
def test_counts_are_exact_on_and_beside_every_edge(bins):
    rng = np.random.default_rng(bins)
    for lowest, spread in ((0, 1), (0.3, 0.7), (1 / 255, 200 / 255), (1000, 3e-2), (1e-4, 1e3)):
        lowest, highest = np.float32(lowest), np.float32(lowest) + np.float32(spread)
        edges = lowest + rng.integers(0, bins + 1, SIDES) * (np.float64(highest) - lowest) / bins
        image = np.clip(beside_edges(rng, edges.astype(np.float32)), lowest, highest)
        image[0, :2] = lowest, highest
        np.testing.assert_array_equal(by_count(image, FULL, bins).ravel(), count_exactly(image.ravel(), bins))


@pytest.mark.parametrize("width", [25.0, 25 / 255, 5.0, 0.5, 0.1, 1 / 3, 7e-3, float(np.pi)])
def test_widths_are_exact_on_and_beside_every_edge(width):
    rng = np.random.default_rng(0)
    for most in (10, 255, 4095):
        edges = (rng.integers(0, most + 1, SIDES) * width).astype(np.float32)
        image = np.maximum(beside_edges(rng, edges), 0)
        np.testing.assert_array_equal(by_width(image, FULL, width).ravel(), width_exactly(image.ravel(), width))


def test_both_are_exact_in_double_precision(x64):
    rng = np.random.default_rng(0)
    for bins, width in ((7, 0.1), (32, 25 / 255), (1000, 1 / 3)):
        image = np.clip(beside_edges(rng, 0.3 + rng.integers(0, bins + 1, SIDES) * (0.9 / bins)), 0.3, 1.2)
        np.testing.assert_array_equal(by_count(image, FULL, bins).ravel(), count_exactly(image.ravel(), bins))
        image = np.maximum(beside_edges(rng, rng.integers(0, bins + 1, SIDES) * width), 0)
        np.testing.assert_array_equal(by_width(image, FULL, width).ravel(), width_exactly(image.ravel(), width))


@pytest.mark.parametrize("scale", [1, 255], ids=["whole greys", "x / 255"])
@pytest.mark.parametrize("bins", COUNTS)
def test_counts_are_those_of_pyradiomics(bins, scale):
    for seed, (lowest, highest) in enumerate([(0, 255), (0, 32), (7, 103), (40, 43), (100, 101), (3, 255)]):
        image, mask = drawn(seed, lowest, highest)
        image = (image / scale).astype(np.float32)
        expected, apart = binned_by_pyradiomics(image, mask, binCount=bins)
        if bins == 32:  # a 32nd is exact in binary, its edges too
            apart[:] = True
        assert apart.sum() > apart.size / 2
        np.testing.assert_array_equal(np.asarray(by_count(image, mask, bins))[apart], expected[apart])


@pytest.mark.parametrize("scale", [1, 255], ids=["whole greys", "x / 255"])
@pytest.mark.parametrize("width", WIDTHS)
def test_widths_are_those_of_pyradiomics(width, scale):
    for seed, (lowest, highest) in enumerate([(0, 255), (25, 75), (7, 103), (49, 51), (3, 255)]):
        image, mask = drawn(seed, lowest, highest)
        image = (image / scale).astype(np.float32)
        expected, apart = binned_by_pyradiomics(image, mask, binWidth=width)
        if width != 25 / 255:  # multiples of the others are exact in binary
            apart[:] = True
        assert apart.sum() > apart.size / 2
        np.testing.assert_array_equal(np.asarray(by_width(image, mask, width))[apart], expected[apart])


@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0, 25.0, 250.0])
@pytest.mark.parametrize("bins", [2, 7, 32])
def test_one_grey_value_is_the_middle_of_a_count_and_the_first_of_a_width(grey, bins):
    image, mask = np.full(SIDES, grey, np.float32), drawn(0)[1]
    assert {*np.asarray(by_count(image, mask, bins))[mask].tolist()} == {1 + bins // 2}
    assert {*np.asarray(by_width(image, mask, 25.0))[mask].tolist()} == {1}
    expected, _ = binned_by_pyradiomics(image, mask, binCount=bins)
    np.testing.assert_array_equal(by_count(image, mask, bins), expected)


@pytest.mark.parametrize("leveled", [partial(by_count, bins=32), partial(by_width, width=25.0)], ids=["count", "width"])
def test_outside_the_mask_is_level_0_whatever_lies_there(leveled):
    image, mask = drawn(1)
    image = image.astype(np.float32)
    level = np.asarray(leveled(image, mask))
    assert not level[~mask].any() and level[mask].min() == 1
    for outside in (np.nan, np.inf, -np.inf, -1e30, 1e30):
        np.testing.assert_array_equal(leveled(np.where(mask, image, outside).astype(np.float32), mask), level)
    assert not np.any(leveled(image, np.zeros_like(mask)))


@pytest.mark.parametrize("leveled", [partial(by_count, bins=32), partial(by_width, width=0.03)], ids=["count", "width"])
def test_levels_follow_the_grey_values_and_nothing_else(leveled):
    rng = np.random.default_rng(2)
    image, mask = rng.random(SIDES, dtype=np.float32), drawn(2)[1]
    level = np.asarray(leveled(image, mask))
    order = rng.permutation(image.size)
    shuffled = leveled(image.ravel()[order].reshape(SIDES), mask.ravel()[order].reshape(SIDES))
    np.testing.assert_array_equal(np.asarray(shuffled).ravel(), level.ravel()[order])
    rising = level[mask][np.argsort(image[mask])]
    assert (np.diff(rising) >= 0).all() and rising[0] == 1 and rising[-1] > 20


def test_counts_do_not_see_gain_and_offset_and_widths_do_not_see_whole_bins():
    image, mask = drawn(3, 20, 120)
    image = image.astype(np.float32)
    for changed in (4 * image, image / 8, image + 64, 3 * image + 5):
        np.testing.assert_array_equal(by_count(changed, mask, 32), by_count(image, mask, 32))
    np.testing.assert_array_equal(by_width(image + 75, mask, 25.0), by_width(image, mask, 25.0))
    assert (np.asarray(by_width(image + 10, mask, 25.0)) != by_width(image, mask, 25.0)).any()


def test_a_histogram_counts_every_level():
    level = np.array([[0, 3, 3], [1, 0, 5]])
    assert levels.histogram(level, 6).tolist() == [1, 0, 2, 0, 1, 0]
    assert not levels.histogram(np.zeros((2, 2), int), 4).any()
