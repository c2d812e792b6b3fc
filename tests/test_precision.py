"""Precision of the network's arithmetic: what is bfloat16, what stays float32, and how far the numbers are apart."""

import dataclasses
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import flat, params_of

from thyroid_jax import model
from thyroid_jax.model import depthwise
from thyroid_jax.model.depthwise import DepthwiseConv
from thyroid_jax.model.encoders import convnext, efficientnet, resnet
from thyroid_jax.model.layers import Normalize, biased, compute_dtype
from thyroid_jax.penalties import angular, directions_at
from thyroid_jax.recipe import encode
from thyroid_jax.train import evaluate_step, init_state, objective, train_step
from thyroid_jax.train.objective import view_of

LOW = ("bfloat16", "bfloat16_encoder")
RLAR = {"rlar": {"weight": 1.0, "ramp": 0.0}}
SINGLE, HALF = jnp.dtype("float32"), jnp.dtype("bfloat16")
SIDE = 64  # 4 images of 64 x 64: the sums of a bias's gradient have 16384 terms, and bfloat16 stands still from 256 on


@pytest.fixture(scope="module")
def gradients(tiny_recipe, make_batch):
    """Precision -> (gradient of the objective with RLAR, metrics), for the same parameters and batch."""
    run = jax.jit(lambda params, batch, recipe: jax.grad(objective, has_aux=True)(params, batch, recipe))
    params, batch = params_of(tiny_recipe(**RLAR)), make_batch(b=4, h=SIDE, w=SIDE)
    return {dtype: run(params, batch, tiny_recipe(model={"dtype": dtype}, **RLAR)) for dtype in ("float32", *LOW)}


def cosine(a, b):
    return float((a * b).sum() / jnp.sqrt((a**2).sum() * (b**2).sum()))


@pytest.mark.parametrize("dtype", LOW)
def test_gradients_agree_with_those_of_float32(gradients, dtype):
    (found, _), (exact, _) = gradients[dtype], gradients["float32"]
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {SINGLE}
    assert 0.999 < cosine(flat(found), flat(exact)) < 1
    others = dict(jax.tree_util.tree_leaves_with_path(exact))
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        name, length = jax.tree_util.keystr(path), jnp.linalg.norm(others[path])
        assert cosine(leaf, others[path]) > 0.99, name
        assert float(jnp.linalg.norm(leaf) / length) == pytest.approx(1, abs=0.02), name


@pytest.mark.parametrize("dtype", LOW)
def test_losses_and_directions_agree_with_those_of_float32(gradients, dtype):
    metrics, exact = gradients[dtype][1], gradients["float32"][1]
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {SINGLE}
    for name in [name for name in exact if name.startswith(("loss", "latent_gradient"))]:
        ours, theirs = (float(each[name].sum / each[name].count) for each in (metrics, exact))
        assert ours == pytest.approx(theirs, rel=5e-3), name
    assert float(metrics["cosine"].sum / 4) == pytest.approx(float(exact["cosine"].sum / 4), abs=0.01)


SUMMED = {  # a layer, and its parameter that is added at, or multiplies, every position
    "convolution": (lambda dtype: Wrapped(nn.Conv, (3, (3, 3)), dtype), "bias"),
    "dense": (lambda dtype: Wrapped(nn.Dense, (3,), dtype), "bias"),
    "depthwise": (lambda dtype: DepthwiseConv(3, 1, dtype), "bias"),
    "depthwise kernel": (lambda dtype: DepthwiseConv(3, 1, dtype), "kernel"),
    "grey stem": (resnet.GreyStem, "bias"),
    "norm": (lambda dtype: Normalize(1, dtype), "bias"),
    "ConvNeXt's scale": (convnext.ConvNeXtBlock, "scale"),
}


class Wrapped(nn.Module):
    """A layer with :func:`biased`."""

    layer: type
    sizes: tuple
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        return biased(self.layer, *self.sizes, dtype=self.dtype)(x)


@pytest.mark.parametrize("make, name", SUMMED.values(), ids=SUMMED)
def test_sums_over_all_positions_are_formed_in_float32(make, name, monkeypatch):
    """The gradient of the sum of all outputs: for a bias it is the number of positions. bfloat16 would stop at 256."""
    if name == "scale":  # the same values, and 7 x 7 shifted products compile slowly
        monkeypatch.setattr(depthwise, "shifted", depthwise.grouped)
        depthwise.depthwise.clear_cache()
    x = jax.random.uniform(jax.random.key(0), (4, SIDE, SIDE, 1 if make is resnet.GreyStem else 3), minval=0.5)
    params = make(None).init(jax.random.key(1), x)
    total = lambda params, dtype: make(dtype).apply(params, x).astype(jnp.float32).sum()
    assert make(HALF).apply(params, x).dtype == HALF
    found, exact = (jax.jit(jax.grad(total), static_argnums=1)(params, dtype) for dtype in (HALF, None))
    ours, theirs = (
        {path[-1].key: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if len(path) < 4}[name]
        for tree in (found, exact)
    )
    depthwise.depthwise.clear_cache()
    np.testing.assert_allclose(ours, theirs, rtol=0.01)


@pytest.mark.parametrize("dtype", LOW)
def test_penalties_see_float32_alone(tiny_recipe, make_batch, dtype):
    seen = []

    def spy(view, recipe):
        gradients = [view.gradients[name]().z for name in view.gradients]
        seen.extend([view.latent.z, *view.losses.values(), *gradients, *jax.tree.leaves(view.params)])
        return angular(view, recipe)

    recipe = tiny_recipe(model={"dtype": dtype}, **RLAR)
    recipe = recipe.replace(penalties=tuple(dataclasses.replace(p, value=spy) for p in recipe.penalties))
    found = jax.eval_shape(lambda p, b: objective(p, b, recipe), params_of(recipe), make_batch())
    assert len(seen) > 10 and {leaf.dtype for leaf in seen} == {SINGLE}
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {SINGLE}


@pytest.mark.parametrize("space", ["channel", "full"])
def test_directions_behind_a_bfloat16_encoder_are_those_of_float32_from_its_latent_on(tiny_recipe, make_batch, space):
    """At one and the same latent: bfloat16_encoder gives float32's numbers, bfloat16 directions that are close."""
    batch, recipes = make_batch(b=4, h=SIDE, w=SIDE), {d: tiny_recipe(model={"dtype": d}) for d in ("float32", *LOW)}
    params = params_of(recipes["float32"])
    latent = jax.jit(encode)(params, batch, recipes["bfloat16"])
    assert {skip.dtype for skip in latent.skips} == {HALF} and latent.z.dtype == SINGLE

    @jax.jit
    def directions(latent, recipe):
        names = ("segmentation", "grading")
        return directions_at(view_of(params, latent, batch, recipe), recipe, model.LATENT, names, space=space).unit

    wide = latent._replace(skips=tuple(skip.astype(SINGLE) for skip in latent.skips))
    exact = directions(wide, recipes["float32"])
    np.testing.assert_allclose(directions(latent, recipes["bfloat16_encoder"]), exact, rtol=1e-5, atol=1e-7)
    close = (directions(latent, recipes["bfloat16"]) * exact).sum(-1)
    assert 0.999 < float(close.min()) and float(close.max()) < 1 + 1e-6


def convolutions(text, dtype):
    """Number of convolutions in a lowered program whose result has the precision ``dtype``."""
    return len(re.findall(rf"stablehlo\.convolution.*-> tensor<[0-9x]*x{dtype}>", text))


def test_training_and_evaluation_compute_as_set(tiny_recipe, make_batch):
    """In evaluation: six convolutions of the encoder; of the decoder three, and its last, which is always float32.

    The outline is decoded twice, for the answer and for the loss.
    """
    batch, training, evaluation = make_batch(), {}, {}
    for dtype in ("float32", *LOW):
        recipe = tiny_recipe(model={"dtype": dtype}, **RLAR)
        state = jax.eval_shape(partial(init_state, recipe), jax.random.key(0))
        texts = (train_step.lower(state, batch, recipe), evaluate_step.lower(state.params, batch, recipe))
        training[dtype], evaluation[dtype] = (
            (convolutions(text.as_text(), "bf16"), convolutions(text.as_text(), "f32")) for text in texts
        )
    assert evaluation == {"float32": (0, 14), "bfloat16": (12, 2), "bfloat16_encoder": (6, 8)}
    assert training["float32"][0] == 0 < training["bfloat16_encoder"][0] < training["bfloat16"][0]


def test_an_update_keeps_every_type(tiny_recipe, make_batch):
    recipe = tiny_recipe(model={"dtype": "bfloat16"}, optimizer={"average": 5})
    state = init_state(recipe, jax.random.key(0))
    after, metrics = jax.eval_shape(train_step, state, make_batch(), recipe)
    types = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)
    assert types(after) == types(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {SINGLE}


def test_a_published_encoder_agrees_too(monkeypatch, tiny_recipe, make_batch):
    narrow = partial(efficientnet.EfficientNetLite, width=0.3, depth=0.3)
    monkeypatch.setitem(model.ENCODERS, "efficientnet_lite0", narrow)
    monkeypatch.setattr(depthwise, "shifted", depthwise.grouped)  # the same values, compiled faster
    depthwise.depthwise.clear_cache()
    config = lambda dtype: model.ModelConfig(encoder="efficientnet_lite0", dtype=dtype)
    image = make_batch(b=2, h=64, w=64).image
    params = {"encoder": jax.jit(narrow(config("float32")).init)(jax.random.key(0), image)["params"]}

    @partial(jax.jit, static_argnums=1)
    def slope(params, dtype):
        return jax.value_and_grad(lambda p: (model.encode(p, config(dtype), image).z ** 2).mean())(params)

    (exact, gradient), (value, found) = slope(params, "float32"), slope(params, "bfloat16")
    depthwise.depthwise.clear_cache()
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {SINGLE} == {value.dtype}
    assert float(value) == pytest.approx(float(exact), rel=0.02)
    assert cosine(flat(found), flat(gradient)) > 0.99


def test_names_of_precisions():
    kinds = {name: (compute_dtype(name), compute_dtype(name, behind_latent=True)) for name in ("float32", *LOW)}
    assert kinds == {"float32": (None, None), "bfloat16": (HALF, HALF), "bfloat16_encoder": (HALF, None)}
    with pytest.raises(ValueError, match=r"float16.*choose float32, bfloat16 or bfloat16_encoder"):
        compute_dtype("float16")
