"""Quality checks: each holds for an image made for it, none for an ordinary one, and its limit is where it is said."""

import math

import numpy as np
import pytest

from thyroid_jax.runs import quality

SIZE = (100, 150)
NAN = (math.nan, math.nan)


def ordinary(shape=(100, 150)):
    return np.random.default_rng(0).integers(20, 200, shape).astype(np.uint8)


def with_share(value, share):
    image = ordinary().ravel()
    image[: round(share * image.size)] = value
    return image.reshape(100, 150)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (ordinary(), []),
        (ordinary((50, 75)), []),  # enlarged twice
        (ordinary((49, 73)), ["small image"]),
        (ordinary((400, 20)), []),  # limited by its height
        (with_share(255, 0.05), []),
        (with_share(255, 0.051), ["saturated"]),
        (with_share(0, 0.5), []),
        (with_share(0, 0.51), ["mostly black"]),
        (np.full((100, 150), 128, np.uint8), ["little contrast"]),
        (np.zeros((100, 150), np.uint8), ["little contrast", "mostly black"]),
        (np.full((100, 150), 255, np.uint8), ["saturated", "little contrast"]),
    ],
)
def test_an_image_has_the_faults_that_it_was_made_with(image, found):
    assert quality.of_image(image, SIZE, NAN) == found
    assert set(found) <= set(quality.CHECKS)


def test_contrast_is_counted_in_grey_levels_without_black():
    ramp = lambda levels: (100 + np.arange(15000) * (levels + 1) // 15000).astype(np.uint8).reshape(100, 150)
    wide, narrow = ramp(30), ramp(20)  # 27 and 18 levels between the percentiles
    assert quality.of_image(wide, SIZE) == [] and quality.of_image(narrow, SIZE) == ["little contrast"]
    narrow[:40] = 0  # a black border is no contrast
    assert quality.of_image(narrow, SIZE) == ["little contrast"]


def test_pixels_that_are_not_squares_count_by_their_size():
    image = ordinary((40, 150))
    assert quality.of_image(image, SIZE) == []  # the width fills the input
    assert quality.of_image(ordinary((40, 60)), SIZE, (1.0, 1.0)) == ["small image"]
    assert quality.of_image(ordinary((40, 60)), SIZE, (2.0, 1.0)) == []  # 80 x 60 squares


def test_outlines():
    outline = np.zeros((20, 20), bool)
    assert quality.of_outline(outline, np.array([], int)) == ["no outline"]
    outline[5:15, 5:15] = True
    assert quality.of_outline(outline, np.array([100])) == []
    assert quality.of_outline(outline, np.array([100, 5])) == []  # a speck
    assert quality.of_outline(outline, np.array([6, 100])) == ["outline in several parts"]
    for edge in (np.s_[0, 7], np.s_[-1, 7], np.s_[7, 0], np.s_[7, -1]):
        touching = outline.copy()
        touching[edge] = True
        assert quality.of_outline(touching, np.array([101])) == ["outline touches the border"]
