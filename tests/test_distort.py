"""Distorted outlines: as wrong as asked for, without a bias in size, the same however a batch is spread."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.data.distort import DistortConfig, distort
from thyroid_jax.errors import InputError

ROWS, COLUMNS = np.mgrid[:64, :96]
ELLIPSE = (((ROWS - 30) / 14) ** 2 + ((COLUMNS - 50) / 22) ** 2 < 1).astype(np.float32)


def dice(a, b):
    a, b = np.asarray(a) >= 0.5, np.asarray(b) >= 0.5
    return 2 * (a & b).sum((-2, -1)) / (a.sum((-2, -1)) + b.sum((-2, -1)))


def views(config, n=200, seed=0):
    return np.asarray(distort(jax.random.key(seed), np.repeat(ELLIPSE[None], n, 0), config))


def test_without_strength_nothing_changes():
    np.testing.assert_allclose(
        views(DistortConfig(shift=0, stretch=0, bend=0), 2), ELLIPSE[None].repeat(2, 0), atol=1e-5
    )


@pytest.mark.parametrize("field", ["shift", "stretch", "bend"])
def test_every_strength_does_something(field):
    found = views(DistortConfig(**{"shift": 0, "stretch": 0, "bend": 0, field: 0.3}), 20)
    assert dice(found, ELLIPSE).mean() < 0.95 and dice(found, ELLIPSE).min() > 0.2
    assert found.min() >= 0 and found.max() <= 1


def test_the_default_is_about_as_wrong_as_a_network():
    found = dice(views(DistortConfig()), ELLIPSE)
    assert 0.70 < found.mean() < 0.85 and found.std() > 0.04


def test_the_size_has_no_bias_and_a_move_is_a_move():
    found = views(DistortConfig())
    assert np.median(found.sum((1, 2)) / ELLIPSE.sum()) == pytest.approx(1, abs=0.05)
    moved = views(DistortConfig(shift=0.2, stretch=0, bend=0))
    np.testing.assert_allclose(moved.sum((1, 2)), ELLIPSE.sum(), rtol=0.02)
    radius = np.sqrt(ELLIPSE.sum() / np.pi)
    down = (moved * ROWS).sum((1, 2)) / moved.sum((1, 2)) - (ELLIPSE * ROWS).sum() / ELLIPSE.sum()
    assert np.std(down) == pytest.approx(0.2 * radius, rel=0.2)


def test_an_example_depends_on_its_place_in_the_whole_batch_alone():
    whole, config = views(DistortConfig(), 6), DistortConfig()
    part = distort(jax.random.key(0), ELLIPSE[None].repeat(3, 0), config, first=3)
    np.testing.assert_allclose(part, whole[3:], atol=1e-5)
    assert len({round(float(dice(view, ELLIPSE)), 4) for view in whole}) == 6


def test_an_empty_outline_stays_empty():
    found = np.asarray(distort(jax.random.key(0), np.zeros((2, 16, 16), np.float32), DistortConfig()))
    assert not found.any() and np.isfinite(found).all()


def test_impossible_numbers_are_named():
    with pytest.raises(InputError, match=r"distort\.shift is -0\.1"):
        DistortConfig(shift=-0.1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, jnp.bfloat16, np.float64])
def test_a_mask_of_any_type_is_distorted_as_the_same_mask_in_float32(dtype):
    found = distort(jax.random.key(0), ELLIPSE[None].astype(dtype), DistortConfig())
    np.testing.assert_array_equal(found, views(DistortConfig(), 1))


def test_it_is_the_formula():
    """A move, then a zoom about the centre; shift and zoom are read off a second mask's centre and area."""
    config, keys = (
        DistortConfig(shift=0.3, stretch=0.3, bend=0),
        jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 3),
    )
    centre = np.array([(ELLIPSE * ROWS).sum(), (ELLIPSE * COLUMNS).sum()])[:, None, None] / ELLIPSE.sum()
    shift = 0.3 * np.sqrt(ELLIPSE.sum() / np.pi) * np.asarray(jax.random.normal(keys[0], (2, 1, 1)))
    zoom = np.exp(0.3 * np.asarray(jax.random.normal(keys[1], (2, 1, 1))))
    source = centre + (np.stack([ROWS, COLUMNS]) - centre - shift) / zoom
    expected = ndimage.map_coordinates(ELLIPSE, source, order=1, mode="grid-constant")
    np.testing.assert_allclose(views(config, 1)[0], expected, atol=1e-4)


def test_a_mask_of_less_than_a_pixel_stays_about_its_own_centre():
    faint = np.zeros((20, 16, 24), np.float32)
    faint[:, 11, 17] = 0.5
    found = np.asarray(distort(jax.random.key(0), faint, DistortConfig(shift=0, stretch=0.4, bend=0)))
    assert (found[:, 11, 17] > 0.49).all()
