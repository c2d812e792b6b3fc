"""Depthwise convolution: shifted products are XLA's grouped convolution, with their first and second derivatives."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.model import depthwise

CASES = [((6, 8), 3, 1), ((6, 8), 5, 1), ((6, 8), 3, 2), ((6, 8), 5, 2), ((7, 5), 3, 2), ((3, 4), 7, 1), ((1, 1), 5, 2)]


@pytest.fixture(params=CASES, ids=str)
def drawn(request, x64):
    (h, w), n, stride = request.param
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((2, h, w, 3), (n, n, 1, 3), (2, h, w, 3), (n, n, 1, 3))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)], stride


def test_shifted_products_are_the_grouped_convolution_with_first_and_second_derivatives(drawn):
    (x, kernel, *direction), stride = drawn

    def value_slope_and_bend(convolve):
        value = lambda x, kernel: jnp.sin(convolve(x, kernel, stride)).sum()
        slope = jax.grad(value, (0, 1))
        along = lambda x, kernel: sum((s * d).sum() for s, d in zip(slope(x, kernel), direction))
        forward = jax.jvp(slope, (x, kernel), tuple(direction))[1]
        return convolve(x, kernel, stride), slope(x, kernel), jax.grad(along, (0, 1))(x, kernel), forward

    ours, theirs = (jax.jit(partial(value_slope_and_bend, f))() for f in (depthwise.shifted, depthwise.grouped))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-12)
    chex.assert_trees_all_close(ours[2], ours[3], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_each_channel_is_convolved_with_its_own_kernel(stride, x64):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 6, 4, 2)), rng.normal(size=(3, 3, 1, 2))
    top = 1 if stride == 1 else 0  # an even size at stride 2 gets its zero below and to the right
    padded = np.pad(x, ((0, 0), (top, 1), (top, 1), (0, 0)))
    y = depthwise.depthwise(x, kernel, stride)
    assert y.shape == (1, 6 // stride, 4 // stride, 2)
    for row, column, channel in np.ndindex(y.shape[1:]):
        window = padded[0, row * stride :, column * stride :, channel][:3, :3]
        assert y[0, row, column, channel] == pytest.approx((window * kernel[:, :, 0, channel]).sum(), rel=1e-12)


@pytest.mark.parametrize("backend, convolutions", [("cpu", 0), ("gpu", 1), ("tpu", 1)])
def test_a_cpu_multiplies_and_other_devices_convolve(backend, convolutions, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    jax.clear_caches()
    program = str(jax.make_jaxpr(depthwise.depthwise)(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))))
    jax.clear_caches()
    assert program.count("conv_general_dilated") == convolutions


def test_the_layer_adds_its_bias_and_computes_in_the_named_precision():
    x = jax.random.normal(jax.random.key(0), (1, 4, 6, 3))
    layer = depthwise.DepthwiseConv(kernel=3, stride=2, dtype=None)
    params = layer.init(jax.random.key(1), x)["params"]
    chex.assert_shape([params["kernel"], params["bias"]], [(3, 3, 1, 3), (3,)])
    bias = jnp.array([1.0, 2.0, 3.0])
    y = layer.apply({"params": params | {"bias": bias}}, x)
    without = depthwise.depthwise(x, params["kernel"], 2)
    chex.assert_trees_all_close(y, without + bias[None, None, None], rtol=1e-6)
    low = depthwise.DepthwiseConv(kernel=3, stride=2, dtype=jnp.bfloat16).apply({"params": params}, x)
    assert low.dtype == jnp.bfloat16 and float(jnp.abs(low - without).max()) < 0.1
