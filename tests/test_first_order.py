"""Grey values inside a mask against numpy and pyradiomics."""

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import first_order

LEVELS = (0.0, 5.0, 10.0, 37.5, 50.0, 90.0, 100.0)
percentiles = jax.jit(lambda image, mask: first_order.percentiles(image, mask, LEVELS))
entropy = jax.jit(first_order.entropy, static_argnames="bin_count")
mean_and_deviation = jax.jit(first_order.mean_and_deviation)


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
        np.testing.assert_allclose(percentiles(image, mask), np.percentile(image[mask], LEVELS), rtol=1e-5)
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


@pytest.mark.parametrize("grey_levels", [32, 64, 96, 128, 255, 3, 60])
def test_entropy_is_that_of_pyradiomics_on_8_bit_images(grey_levels):
    radiomics = pytest.importorskip("radiomics")
    import SimpleITK as sitk
    from radiomics import firstorder

    radiomics.setVerbosity(60)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lowest = int(rng.integers(0, 256 - grey_levels))
        image = rng.integers(lowest, lowest + grey_levels + 1, (18, 23))
        image[4, 4], image[5, 5] = lowest, lowest + grey_levels
        mask = drawn(seed)[1]
        mask[4:6, 4:6] = True
        picture, label = sitk.GetImageFromArray(image[None].astype(float)), sitk.GetImageFromArray(mask[None].astype(np.uint8))
        oracle = firstorder.RadiomicsFirstOrder(picture, label, binCount=32, force2D=True)
        oracle.enableFeatureByName("Entropy")
        expected = float(oracle.execute()["Entropy"])
        np.testing.assert_allclose(entropy((image / 255).astype(np.float32), mask, bin_count=32), expected, rtol=1e-5)
