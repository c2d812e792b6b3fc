"""Moves between resolutions undo each other or average exactly."""

import chex
import jax
import jax.numpy as jnp

from thyroid_jax.model import layers

x = jax.random.normal(jax.random.key(0), (2, 4, 6, 8))


def test_squares_and_channels_undo_each_other():
    chex.assert_trees_all_equal(layers.channels_to_squares(layers.squares_to_channels(x)), x)
    chex.assert_trees_all_equal(layers.squares_to_channels(layers.channels_to_squares(x)), x)


def test_a_square_of_pixels_becomes_neighbouring_channels():
    picture = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert layers.squares_to_channels(picture)[0, 0, 1].tolist() == [2.0, 3.0, 6.0, 7.0]


def test_halving_a_doubled_image_gives_it_back():
    chex.assert_trees_all_close(layers.halve(layers.double(x)), x, rtol=1e-6)
    assert layers.double(x)[0, 3, 5].tolist() == x[0, 1, 2].tolist()


def test_halving_is_the_mean_of_each_square():
    chex.assert_trees_all_close(layers.halve(x)[1, 1, 2], x[1, 2:4, 4:6].mean((0, 1)), rtol=1e-6)


def test_normalisation_is_per_example_and_stateless():
    norm = layers.Normalize(groups=4, dtype=jnp.float32)
    variables = norm.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    y = norm.apply(variables, x)
    chex.assert_trees_all_close(norm.apply(variables, x[1:]), y[1:], rtol=1e-5, atol=1e-6)
    groups = y.reshape(2, 24, 4, 2)
    chex.assert_trees_all_close(groups.mean((1, 3)), jnp.zeros((2, 4)), atol=1e-5)
    chex.assert_trees_all_close(groups.var((1, 3)), jnp.ones((2, 4)), atol=1e-3)
