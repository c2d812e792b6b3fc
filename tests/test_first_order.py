"""Grey values inside a mask against numpy and pyradiomics."""

from functools import partial

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import first_order, levels

RANKS = (0, 5, 10, 37, 50, 90, 100)
percentiles = jax.jit(lambda image, mask: first_order.percentiles(image, (mask, RANKS))[0])

mean_and_deviation = jax.jit(first_order.mean_and_deviation)


@partial(jax.jit, static_argnames="bin_count")
def entropy(image, mask, *, bin_count):
    return first_order.entropy_of(first_order.shares(levels.by_count(image, mask, bin_count), bin_count))


def drawn(seed, pixels=None):
    rng = np.random.default_rng(seed)
    image, mask = rng.random((18, 23), dtype=np.float32), rng.random((18, 23)) < 0.4
    if pixels is not None:
        mask = np.zeros_like(mask)
        mask.flat[rng.choice(mask.size, pixels, replace=False)] = True
    return image, mask


@pytest.mark.parametrize("pixels", [1, 2, 3, 10, 11, None])
def test_percentiles_mean_and_deviation_are_those_of_numpy(pixels):
    for seed in range(4):
        image, mask = drawn(seed, pixels)
        np.testing.assert_allclose(percentiles(image, mask), np.percentile(image[mask], RANKS), rtol=1e-5)
        mean, deviation = mean_and_deviation(image, mask)
        np.testing.assert_allclose([mean, deviation], [image[mask].mean(), image[mask].std()], rtol=1e-5, atol=1e-7)


def test_what_lies_outside_the_mask_does_not_matter():
    image, mask = drawn(5)
    other = np.where(mask, image, 1e6).astype(np.float32)
    np.testing.assert_array_equal(percentiles(other, mask), percentiles(image, mask))
    assert mean_and_deviation(other, mask) == mean_and_deviation(image, mask)
    assert entropy(other, mask, bin_count=32) == entropy(image, mask, bin_count=32)


def test_an_empty_mask_gives_zeros():
    image, mask = drawn(0)[0], np.zeros((18, 23), bool)
    assert not np.any(percentiles(image, mask))
    assert mean_and_deviation(image, mask) == (0, 0)
    assert entropy(image, mask, bin_count=32) == 0


def test_one_grey_level_has_no_spread_and_no_entropy():
    image, mask = np.full((18, 23), 0.3, np.float32), drawn(1)[1]
    np.testing.assert_allclose(percentiles(image, mask), 0.3, rtol=1e-6)
    mean, deviation = mean_and_deviation(image, mask)
    assert mean == pytest.approx(0.3, rel=1e-5) and deviation < 1e-6
    assert entropy(image, mask, bin_count=32) == 0


@pytest.mark.parametrize("bins", [2, 8, 32])
def test_equally_filled_bins_have_the_highest_entropy(bins):
    image = np.tile(np.arange(bins, dtype=np.float32), (4, 1))
    np.testing.assert_allclose(entropy(image, np.ones_like(image, bool), bin_count=bins), np.log2(bins), rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 255], ids=["whole greys", "x / 255"])
@pytest.mark.parametrize("grey_levels", [32, 64, 96, 128, 255, 3, 60])
def test_entropy_is_that_of_pyradiomics_on_the_same_numbers(grey_levels, scale):
    radiomics = pytest.importorskip("radiomics")
    import SimpleITK as sitk
    from radiomics import firstorder

    radiomics.setVerbosity(60)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lowest = int(rng.integers(0, 256 - grey_levels))
        image = rng.integers(lowest, lowest + grey_levels + 1, (18, 23))
        image[4, 4], image[5, 5] = lowest, lowest + grey_levels
        image = (image / scale).astype(np.float32)
        mask = drawn(seed)[1]
        mask[4:6, 4:6] = True
        picture, label = (
            sitk.GetImageFromArray(image[None].astype(float)),
            sitk.GetImageFromArray(mask[None].astype(np.uint8)),
        )
        oracle = firstorder.RadiomicsFirstOrder(picture, label, binCount=32, force2D=True)
        oracle.enableFeatureByName("Entropy")
        expected = float(oracle.execute()["Entropy"])
        np.testing.assert_allclose(entropy(image, mask, bin_count=32), expected, rtol=1e-5)


def by_formula(values, level, pixel):
    """Every feature of the masked values in double precision."""
    values, n = values.astype(np.float64), len(values)
    mu, share = values.sum() / n, np.bincount(level) / n
    share = share[share > 0]
    low, quarter, half, three_quarters, high = np.percentile(values, (10, 25, 50, 75, 90))
    moment = lambda power: ((values - mu) ** power).sum() / n
    kept = values[(values >= low) & (values <= high)]
    varied = moment(2) if values.max() > values.min() else np.inf
    return {
        "firstorder_10Percentile": low,
        "firstorder_90Percentile": high,
        "firstorder_Energy": (values**2).sum(),
        "firstorder_Entropy": -(share * np.log2(share)).sum(),
        "firstorder_InterquartileRange": three_quarters - quarter,
        "firstorder_Kurtosis": moment(4) / varied**2,
        "firstorder_Maximum": values.max(),
        "firstorder_MeanAbsoluteDeviation": np.abs(values - mu).sum() / n,
        "firstorder_Mean": mu,
        "firstorder_Median": half,
        "firstorder_Minimum": values.min(),
        "firstorder_Range": values.max() - values.min(),
        "firstorder_RobustMeanAbsoluteDeviation": np.abs(kept - kept.mean()).mean(),
        "firstorder_RootMeanSquared": np.sqrt((values**2).sum() / n),
        "firstorder_Skewness": moment(3) / varied**1.5,
        "firstorder_TotalEnergy": pixel * (values**2).sum(),
        "firstorder_Uniformity": (share**2).sum(),
        "firstorder_Variance": moment(2),
    }


@jax.jit
def measured(image, mask, level, pixel):
    g = first_order.greys(image, mask, level, 8, pixel=pixel)
    return {name: feature(g) for name, feature in first_order.FEATURES.items()}


GREYS = {
    "uniform": drawn(0),
    "whole greys": (np.rint(255 * drawn(1)[0]), drawn(1)[1]),
    "hardly varied, far from 0": (np.rint(128 + drawn(2)[0]), drawn(2)[1]),
    "of both signs": (4 * drawn(3)[0] - 2, drawn(3)[1]),
    "two greys": (np.where(drawn(4)[0] > 0.3, 1, 0.25).astype(np.float32), drawn(4)[1]),
    "one grey": (np.full((18, 23), 0.3, np.float32), drawn(5)[1]),
    "five pixels": drawn(6, 5),
    "eleven pixels": drawn(7, 11),
    "the whole image": (drawn(8)[0], np.ones((18, 23), bool)),
}


@pytest.mark.parametrize("name", GREYS)
def test_features_are_those_of_the_formulas(name):
    image, mask = GREYS[name]
    level = np.random.default_rng(9).integers(1, 9, image.shape) * mask
    found, expected = measured(image, mask, level, 0.28), by_formula(image[mask], level[mask], 0.28)
    assert set(found) == set(expected)
    for feature, value in expected.items():
        np.testing.assert_allclose(found[feature], value, rtol=2e-5, atol=5e-6, err_msg=feature)


@pytest.mark.parametrize("name", ["uniform", "hardly varied, far from 0", "of both signs", "one grey"])
def test_features_are_those_of_the_formulas_in_double_precision(name, x64):
    image, mask = GREYS[name]
    level = np.random.default_rng(9).integers(1, 9, image.shape) * mask
    found, expected = measured(image.astype(np.float64), mask, level, 0.28), by_formula(image[mask], level[mask], 0.28)
    for feature, value in expected.items():
        np.testing.assert_allclose(found[feature], value, rtol=1e-12, atol=1e-13, err_msg=feature)


def test_moments_do_not_lose_digits_to_an_offset():
    image, mask = (1000 + drawn(10)[0] ** 2).astype(np.float32), drawn(10)[1]  # the mean is rounded by up to 3e-5
    found, expected = measured(image, mask, mask.astype(int), 1.0), by_formula(image[mask], mask[mask].astype(int), 1.0)
    for name in ("firstorder_Skewness", "firstorder_Variance"):
        np.testing.assert_allclose(found[name], expected[name], rtol=5e-6, err_msg=name)


def test_a_ramp_by_hand():
    image = np.arange(1, 415, dtype=np.float32).reshape(18, 23)  # 1, 2, ..., n with n = 414
    found, n = measured(image, np.ones((18, 23), bool), np.ones((18, 23), int), 1.0), 414
    expected = {"Mean": (n + 1) / 2, "Median": (n + 1) / 2, "Variance": (n**2 - 1) / 12, "Skewness": 0, "Range": n - 1}
    expected |= {
        "Kurtosis": 3 - 1.2 * (n**2 + 1) / (n**2 - 1),
        "MeanAbsoluteDeviation": n / 4,
        "Energy": n * (n + 1) * (2 * n + 1) / 6,
    }
    expected |= {
        "10Percentile": 1 + 0.1 * (n - 1),
        "90Percentile": 1 + 0.9 * (n - 1),
        "InterquartileRange": 0.5 * (n - 1),
    }
    # 43 to 372 lie between the percentiles.
    expected |= {"RobustMeanAbsoluteDeviation": 330 / 4, "Entropy": 0, "Uniformity": 1}
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[f"firstorder_{name}"], value, rtol=5e-6, atol=1e-6, err_msg=name
        )  # float32 sums


def test_shares_count_the_levels_inside():
    level = np.array([[0, 3, 3, 1], [1, 0, 5, 3]])
    np.testing.assert_allclose(first_order.shares(level, 6), np.array([2, 0, 3, 0, 1, 0]) / 6, rtol=1e-6)
    assert not np.any(first_order.shares(np.zeros((2, 4), int), 6))


def test_values_are_ordered_whatever_their_sign():
    special = [0.0, -0.0, 1e-40, -1e-40, np.inf, -np.inf, 3e38, -3e38, 1.0, -1.0]
    values = np.concatenate([np.random.default_rng(0).standard_normal(90) * np.logspace(-45, 37, 90), special]).astype(
        np.float32
    )
    same_group = np.zeros(100, int)
    ranked = jax.jit(first_order._nth)(values, same_group, np.arange(100), same_group)
    np.testing.assert_array_equal(ranked, np.sort(values))


def test_parts_have_percentiles_of_their_own():
    image, mask = drawn(8)
    image[:, ::3] = 0.5  # the same value in both, many times
    other = ~mask & (drawn(9)[0] < 0.3)
    parts = (mask, (5, 50)), (other, (10,)), (np.zeros_like(mask), (50,))
    first, second, nothing = jax.jit(lambda image: first_order.percentiles(image, *parts))(image)
    np.testing.assert_allclose(first, np.percentile(image[mask], (5, 50)), rtol=1e-6)
    np.testing.assert_allclose(second, np.percentile(image[other], (10,)), rtol=1e-6)
    assert nothing == 0
