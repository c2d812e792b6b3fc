"""Features of level-by-size tables against the published double sums, and on tables whose answer is known."""

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import gldm, glrlm, glszm, sizes

FEATURES = {feature.__name__: feature for feature in glrlm.FEATURES.values()}  # runs have all sixteen
measured = jax.jit(
    lambda counts, sides: {name: feature(sizes.table(counts, sides)) for name, feature in FEATURES.items()}
)


def by_formula(c, sides):
    """Every feature of counts c(i, j) in double precision, as double sums over i and j."""
    i, j = np.meshgrid(np.arange(1, len(c) + 1), sides, indexing="ij")
    n, of_level, of_size = c.sum(), c.sum(1), c.sum(0)
    p = c / n
    mean_level, mean_size = (i * p).sum(), (j * p).sum()
    return {
        "small": (c / j**2).sum() / n,
        "large": (c * j**2).sum() / n,
        "low_level": (c / i**2).sum() / n,
        "high_level": (c * i**2).sum() / n,
        "small_low_level": (c / (i * j) ** 2).sum() / n,
        "small_high_level": (c * i**2 / j**2).sum() / n,
        "large_low_level": (c * j**2 / i**2).sum() / n,
        "large_high_level": (c * (i * j) ** 2).sum() / n,
        "level_non_uniformity": (of_level**2).sum() / n,
        "level_non_uniformity_normalised": (of_level**2).sum() / n**2,
        "size_non_uniformity": (of_size**2).sum() / n,
        "size_non_uniformity_normalised": (of_size**2).sum() / n**2,
        "percentage": n / (j * c).sum(),
        "level_variance": ((i - mean_level) ** 2 * p).sum(),
        "size_variance": ((j - mean_size) ** 2 * p).sum(),
        "entropy": -(p[p > 0] * np.log2(p[p > 0])).sum(),
    }


def drawn(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 9, shape) * (rng.random(shape) < 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_features_are_those_of_the_formulas(seed):
    counts, sides = drawn(seed, 6, 9), np.sort(np.random.default_rng(seed).choice(np.arange(1, 400), 9, replace=False))
    found, expected = measured(counts.astype(np.float32), sides), by_formula(counts, sides)
    assert set(expected) == set(FEATURES)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_features_are_those_of_the_formulas_in_double_precision(x64):
    counts, sides = drawn(4, 6, 9), np.arange(1, 10)
    found = measured(counts.astype(np.float64), sides)
    for name, value in by_formula(counts, sides).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-13, err_msg=name)


def test_directions_are_measured_one_by_one():
    counts, sides = drawn(5, 4, 6, 9).astype(np.float32), np.arange(1, 10)
    found = measured(counts, sides)
    for direction in range(4):
        for name, value in measured(counts[direction], sides).items():
            np.testing.assert_allclose(found[name][direction], value, rtol=1e-6, err_msg=name)


def test_an_empty_table_is_all_zeros():
    assert not any(
        np.asarray(value).any() for value in measured(np.zeros((6, 9), np.float32), np.arange(1, 10)).values()
    )


def test_one_cell_has_no_spread():
    counts = np.zeros((6, 9), np.float32)
    counts[2, 3] = 5  # level 3, size 4
    found = measured(counts, np.arange(1, 10))
    expected = {
        "small": 1 / 16,
        "large": 16,
        "low_level": 1 / 9,
        "high_level": 9,
        "small_low_level": 1 / 144,
        "large_high_level": 144,
    }
    expected |= {
        "small_high_level": 9 / 16,
        "large_low_level": 16 / 9,
        "level_variance": 0,
        "size_variance": 0,
        "entropy": 0,
    }
    expected |= {"level_non_uniformity": 5, "size_non_uniformity": 5, "percentage": 1 / 4}
    expected |= {"level_non_uniformity_normalised": 1, "size_non_uniformity_normalised": 1}
    assert set(expected) == set(FEATURES)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


def test_equal_shares_have_the_highest_entropy_and_the_lowest_non_uniformity():
    found = measured(np.full((6, 9), 3, np.float32), np.arange(1, 10))
    expected = {"entropy": np.log2(54), "level_non_uniformity": 162 / 6, "size_non_uniformity": 162 / 9}
    expected |= {"level_non_uniformity_normalised": 1 / 6, "size_non_uniformity_normalised": 1 / 9, "percentage": 1 / 5}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
    uneven = measured(drawn(6, 6, 9).astype(np.float32), np.arange(1, 10))
    assert uneven["entropy"] < found["entropy"] and uneven["level_non_uniformity_normalised"] > 1 / 6


def test_large_counts_lose_no_digits():
    counts = np.array([[0, 1e5], [3e5, 2e5]], np.float32)
    for name, value in by_formula(counts.astype(np.float64), np.array([1, 1000])).items():
        np.testing.assert_allclose(measured(counts, np.array([1, 1000]))[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", [glrlm, glszm, gldm], ids=["glrlm", "glszm", "gldm"])
def test_every_formula_has_one_name_in_each_kind(kind):
    used = [feature.__name__ for feature in kind.FEATURES.values()]
    assert len(used) == len(set(used))
    missing = {"level_non_uniformity_normalised", "percentage"} if kind is gldm else set()  # 1 / N times another, and 1
    assert set(used) == {*FEATURES} - missing
