"""Moves between resolutions undo each other or average exactly."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

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


@pytest.mark.parametrize("channels, groups", [(8, 4), (6, 4), (3, 8)])
def test_normalisation_is_flaxs_group_norm(channels, groups):
    """Values and derivatives; 6 channels have 3 groups, the largest divisor up to 4."""
    ours, theirs = layers.Normalize(groups=groups, dtype=None), nn.GroupNorm(num_groups={8: 4, 6: 3, 3: 3}[channels])
    image = 2 + 3 * jax.random.normal(jax.random.key(1), (2, 4, 6, channels))
    scale, bias = jax.random.normal(jax.random.key(2), (2, channels))

    def value_and_gradients(layer):
        value = lambda image, scale, bias: jnp.tanh(
            layer.apply({"params": {"scale": scale, "bias": bias}}, image)
        ).sum()
        return jax.jit(jax.value_and_grad(value, (0, 1, 2)))(image, scale, bias)

    (our_value, our_gradients), (their_value, their_gradients) = map(value_and_gradients, (ours, theirs))
    chex.assert_trees_all_close(our_value, their_value, rtol=1e-4)
    chex.assert_trees_all_close(our_gradients, their_gradients, atol=1e-4)


def test_normalisation_of_half_precision_has_its_statistics_in_float32():
    norm = layers.Normalize(groups=2, dtype=jnp.bfloat16)
    flat = (100 + x).astype(jnp.bfloat16)  # mean far above the spread: bfloat16 moments would lose it
    y = norm.apply(norm.init(jax.random.key(0), flat), flat)
    assert y.dtype == jnp.bfloat16
    exact = norm.apply(norm.init(jax.random.key(0), flat), flat.astype(jnp.float32))
    assert float(jnp.abs(y - exact).max()) < 0.05
