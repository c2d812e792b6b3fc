"""Random views: image and mask move together, alone in their row, by the key, and inside [0, 1]."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.data import augment as views
from thyroid_jax.data.augment import AugmentConfig

SIDES = (32, 40)
NOTHING = AugmentConfig(
    flip=0.0, rotate=0.0, scale=0.0, shift=0.0, gamma=0.0, gain=0.0, speckle=0.0, blur=0.0, shadow=0.0
)
GEOMETRY = replace(NOTHING, flip=0.5, rotate=25.0, scale=0.2, shift=0.15)
EVERYTHING = replace(GEOMETRY, gamma=0.5, gain=0.5, speckle=0.3, blur=0.7, shadow=0.7)
augment = jax.jit(views.augment)


def drawn(rows=4, seed=0):
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.standard_normal((2, rows, *SIDES)), (0, 0, 2, 2))
    image = np.clip(0.5 + 2 * fields[0], 0, 1)[..., None].astype(np.float32)
    return jnp.asarray(image), jnp.asarray(fields[1] > 0.05, jnp.float32)


def square(half=6, centre=(16, 20)):
    mask = np.zeros(SIDES, np.float32)
    mask[centre[0] - half : centre[0] + half, centre[1] - half : centre[1] + half] = 1
    return mask


def moved(config, pixels, key):
    pixels = jnp.asarray(pixels, jnp.float32)
    y, x = views.source_coordinates(key, SIDES, config)
    return np.asarray(jax.scipy.ndimage.map_coordinates(pixels, [y, x], order=1, mode="constant"))


def centre_of(mask):
    return np.array(ndimage.center_of_mass(mask))


def test_no_strength_is_no_change():
    image, mask = drawn()
    same_image, same_mask = augment(jax.random.key(0), image, mask, NOTHING)
    np.testing.assert_allclose(same_image, image, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(same_mask, mask, rtol=1e-5, atol=1e-6)


def test_one_program_serves_all_strengths():
    image, mask = drawn()
    fresh = jax.jit(lambda *arguments: views.augment(*arguments))
    found = [fresh(jax.random.key(0), image, mask, config)[0] for config in (NOTHING, GEOMETRY, EVERYTHING)]
    assert fresh._cache_size() == 1
    assert len({round(float(view.mean()), 6) for view in found}) == 3


def test_image_and_mask_move_together():
    _, mask = drawn()
    for seed in range(3):
        image, moved_mask = augment(jax.random.key(seed), mask[..., None], mask, GEOMETRY)
        np.testing.assert_array_equal(image[..., 0], moved_mask)
        assert (np.abs(moved_mask - mask).mean((1, 2)) > 0.01).all()


@pytest.mark.parametrize("strength", [{"gain": 0.5}, {"gamma": 0.5}, {"speckle": 0.3}, {"blur": 1.0}, {"shadow": 1.0}])
def test_what_changes_grey_values_leaves_the_mask_alone(strength):
    image, mask = drawn()
    changed, same = augment(jax.random.key(1), image, mask, replace(NOTHING, **strength))
    np.testing.assert_allclose(same, mask, atol=1e-6)
    assert (np.abs(changed - image).mean((1, 2, 3)) > 1e-3).all()


def test_views_follow_from_the_key():
    image, mask = drawn()
    first, again, other = (augment(jax.random.key(seed), image, mask, EVERYTHING) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (np.abs(first[0] - other[0]).mean((1, 2, 3)) > 0.01).all()


def test_a_row_does_not_see_the_other_rows():
    (image, mask), (others, other_masks) = drawn(seed=1), drawn(seed=2)
    mixed = augment(jax.random.key(5), others.at[2].set(image[2]), other_masks.at[2].set(mask[2]), EVERYTHING)
    alone = augment(jax.random.key(5), image, mask, EVERYTHING)
    np.testing.assert_array_equal(mixed[0][2], alone[0][2])
    np.testing.assert_array_equal(mixed[1][2], alone[1][2])
    same = augment(jax.random.key(5), jnp.tile(image[:1], (4, 1, 1, 1)), jnp.tile(mask[:1], (4, 1, 1)), EVERYTHING)[0]
    assert np.abs(same[0] - same[1]).mean() > 0.01  # equal rows get views of their own


def test_views_follow_from_the_place_in_the_whole_batch_however_it_is_spread():
    image, mask = drawn(rows=8)
    whole = augment(jax.random.key(5), image, mask, EVERYTHING)
    for first in (0, 4):
        part = augment(jax.random.key(5), image[first : first + 4], mask[first : first + 4], EVERYTHING, first=first)
        for ours, theirs in zip(part, whole):
            np.testing.assert_allclose(ours, theirs[first : first + 4], rtol=1e-5, atol=1e-6)
    misplaced = augment(jax.random.key(5), image[4:], mask[4:], EVERYTHING)[0]
    assert (np.abs(misplaced - whole[0][4:]).mean((1, 2, 3)) > 0.01).all()


def test_everything_stays_in_range():
    image, mask = drawn()
    for seed in range(8):
        for view in augment(jax.random.key(seed), image, mask, EVERYTHING):
            assert np.isfinite(view).all() and view.min() >= 0 and view.max() <= 1
            assert view.dtype == jnp.float32


def test_flip_is_the_rate_of_exact_mirrors():
    pixels = jnp.asarray(drawn()[0][0, ..., 0])
    views_of = jax.jit(jax.vmap(partial(views.source_coordinates, shape=SIDES, config=replace(NOTHING, flip=0.3))))
    y, x = views_of(jax.random.split(jax.random.key(0), 2000))
    mirrored = np.asarray(x[:, 0, 0] > x[:, 0, -1])
    assert mirrored.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 2000))
    for row in (int(np.argmax(mirrored)), int(np.argmin(mirrored))):
        view = jax.scipy.ndimage.map_coordinates(pixels, [y[row], x[row]], order=1, mode="constant")
        np.testing.assert_array_equal(view, pixels[:, ::-1] if mirrored[row] else pixels)


def test_a_rotation_turns_the_axes_of_a_bar_by_its_angle():
    bar = np.zeros(SIDES, np.float32)
    bar[13:19, 10:30] = 1  # centred at (15.5, 19.5), the centre of rotation
    angles = []
    for seed in range(6):
        turned = moved(replace(NOTHING, rotate=30.0), bar, jax.random.key(seed))
        np.testing.assert_allclose(centre_of(turned), [15.5, 19.5], atol=0.05)
        assert turned.sum() == pytest.approx(bar.sum(), rel=0.01)
        y, x = np.mgrid[: SIDES[0], : SIDES[1]] - np.array([15.5, 19.5])[:, None, None]
        yy, xx, xy = ((turned * a).sum() / turned.sum() for a in (y * y, x * x, x * y))
        angles.append(np.degrees(np.arctan2(2 * xy, xx - yy) / 2))
        minor, major = np.linalg.eigvalsh([[yy, xy], [xy, xx]])  # (n^2 - 1) / 12 of the bar's sides, and a little blur
        assert major == pytest.approx((20**2 - 1) / 12, rel=0.03) and minor == pytest.approx((6**2 - 1) / 12, abs=0.3)
    assert max(np.abs(angles)) < 30.5 and np.std(angles) > 5


def test_zoom_and_shift_move_a_square_as_far_as_they_say():
    mask = square()
    areas = [moved(replace(NOTHING, scale=0.2), mask, jax.random.key(seed)).sum() / mask.sum() for seed in range(12)]
    assert 0.8**2 - 0.02 < min(areas) < 0.9 and 1.1 < max(areas) < 1.2**2 + 0.02
    shifts = [
        centre_of(moved(replace(NOTHING, shift=0.1), mask, jax.random.key(seed))) - centre_of(mask)
        for seed in range(12)
    ]
    assert (np.abs(shifts).max(0) <= np.array(SIDES) * 0.1 + 1e-3).all()
    assert (np.abs(shifts).max(0) >= np.array(SIDES) * 0.05).all() and min(np.min(shifts, 0)) < 0 < max(
        np.max(shifts, 0)
    )


def test_what_comes_from_outside_is_black():
    ones = np.ones(SIDES, np.float32)
    view = moved(replace(NOTHING, shift=0.5), ones, jax.random.key(0))
    shift = np.abs(centre_of(view) - centre_of(ones)) * 2  # each side cut off by s moves the centre by s / 2
    assert shift.max() > 3
    assert view.sum() == pytest.approx(np.prod(SIDES - shift), rel=0.05) and view.min() == 0


def test_gain_and_gamma_keep_the_order_of_grey_values_and_the_black():
    grey = jnp.linspace(0, 1, 40).reshape(1, 40)
    keys, slopes, gains = jax.random.split(jax.random.key(0), 60), [], []
    for changed in np.asarray(jax.vmap(lambda key: views.intensity(key, grey, gain=0.5, gamma=0.5))(keys))[:, 0]:
        assert (np.diff(changed) >= 0).all() and changed[0] == 0
        inner = (changed > 0) & (changed < 1)
        slope, log_gain = np.polyfit(np.log(np.asarray(grey)[0, inner]), np.log(changed[inner]), 1)
        slopes.append(np.log(slope))
        gains.append(log_gain)
    for drawn_logs in (slopes, gains):  # uniform in +-0.5
        assert -0.501 < min(drawn_logs) < -0.45 and 0.45 < max(drawn_logs) < 0.501
    np.testing.assert_allclose(views.intensity(jax.random.key(0), grey, gain=0.0, gamma=0.0), grey, rtol=1e-6)


def test_blur_is_the_binomial_filter():
    pixels = drawn()[0][0, ..., 0]
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    np.testing.assert_allclose(
        views.blur(pixels), ndimage.convolve(np.asarray(pixels), kernel, mode="nearest"), rtol=1e-5
    )


def test_a_shadow_only_darkens_and_the_more_the_deeper():
    for seed in range(8):
        left = np.asarray(views.shadow(jax.random.key(seed), jnp.ones((64, 80))))
        assert left.max() <= 1 and 0.2 - 1e-6 <= left.min() <= 0.71
        assert (np.diff(left, axis=0) <= 1e-6).all()  # downwards it never gets lighter
        assert (left[0] > 0.95).all()  # the skin is not in it
        below = left[-1]
        darkest = below.argmin()  # to either side of it the shadow fades
        assert (np.diff(below[: darkest + 1]) <= 1e-6).all() and (np.diff(below[darkest:]) >= -1e-6).all()
        assert (below > 0.99).any()


@pytest.mark.parametrize("dtype", [bool, np.uint8, jnp.bfloat16])
def test_a_mask_of_any_type_moves_as_the_same_mask_in_float32(dtype):
    image, mask = drawn()
    expected = augment(jax.random.key(2), image, mask, GEOMETRY)
    found = augment(jax.random.key(2), image, mask.astype(dtype), GEOMETRY)
    for part, same in zip(found, expected):
        np.testing.assert_allclose(part, same, atol=1e-5)
    assert ((found[1] > 0.01) & (found[1] < 0.99)).any()
