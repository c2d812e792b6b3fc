"""Sliding windows against scipy.ndimage."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.radiomics import windows

IMAGE = np.random.default_rng(0).random((17, 26), dtype=np.float32)
MASK = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((17, 26)), 2) > 0.15
RADII = [0, 1, 2, 5]
windowed = {
    name: jax.jit(getattr(windows, name), static_argnums=1)
    for name in ("highest", "lowest", "box_mean", "white_top_hat", "dilate")
}


@pytest.mark.parametrize("radius", RADII)
def test_highest_and_lowest_are_scipys_filters(radius):
    size = 2 * radius + 1
    np.testing.assert_array_equal(
        windowed["highest"](IMAGE, radius), ndimage.maximum_filter(IMAGE, size, mode="constant", cval=-np.inf)
    )
    np.testing.assert_array_equal(
        windowed["lowest"](IMAGE, radius), ndimage.minimum_filter(IMAGE, size, mode="constant", cval=np.inf)
    )


@pytest.mark.parametrize("radius", RADII)
def test_box_mean_counts_what_lies_inside(radius):
    size = (2 * radius + 1,) * 2
    total, count = (
        ndimage.convolve(a, np.ones(size), mode="constant") for a in (IMAGE.astype(float), np.ones(IMAGE.shape))
    )
    np.testing.assert_allclose(windowed["box_mean"](IMAGE, radius), total / count, rtol=1e-5)
    inner = (slice(radius, IMAGE.shape[0] - radius), slice(radius, IMAGE.shape[1] - radius))
    np.testing.assert_allclose(
        windowed["box_mean"](IMAGE, radius)[inner], ndimage.uniform_filter(IMAGE, size)[inner], rtol=1e-5
    )


def test_box_mean_slides_over_the_image_alone():
    """Its counts are numbers in the program: a window over a constant is folded by the compiler, which takes long."""
    program = str(jax.make_jaxpr(lambda image: windows.box_mean(image, 1))(IMAGE))
    assert program.count("reduce_window") == 2


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_white_top_hat_is_scipys_with_a_square(radius):
    hat = windowed["white_top_hat"](IMAGE, radius)
    np.testing.assert_array_equal(hat, ndimage.white_tophat(IMAGE, size=2 * radius + 1, mode="nearest"))
    assert hat.min() >= 0


@pytest.mark.parametrize("radius", RADII)
def test_dilate_reaches_the_chessboard_distance(radius):
    distance = ndimage.distance_transform_cdt(~MASK, metric="chessboard")
    np.testing.assert_array_equal(windowed["dilate"](MASK, radius), distance <= radius)
    assert not windowed["dilate"](np.zeros_like(MASK), radius).any()


def test_a_top_hat_keeps_narrow_spots_and_drops_wide_ones():
    image = np.full((20, 20), 0.2, np.float32)
    image[3:7, 3:7] = 0.9  # narrower than the square of side 5
    image[10:15, 10:15] = 0.9  # as wide as it
    hat = windowed["white_top_hat"](image, 2)
    np.testing.assert_allclose(hat[3:7, 3:7], 0.7, rtol=1e-6)
    assert float(hat.sum()) == pytest.approx(16 * 0.7, rel=1e-5)
