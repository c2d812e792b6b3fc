"""Recomputing in place of keeping: the same losses and derivatives of every order, fewer values kept."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, double_precision, params_of

from thyroid_jax import model
from thyroid_jax.model import depthwise
from thyroid_jax.model.encoders import convnext, efficientnet, resnet
from thyroid_jax.recipe import encode
from thyroid_jax.train.gradient import gradient

LESS = ("activations", "blocks")
RLAR = {"rlar": {"weight": 1.0, "kind": "square", "ramp": 0.0}}
GROUPS = {
    "RLAR at an earlier level": {"rlar": RLAR["rlar"] | {"level": "stride2", "space": "full"}},
    "RLAR and Gramians": RLAR | {"mtl": {"method": "mgda"}},
}
TWO_TASKS = {"malignancy": {"weight": 0.0}, "guidance": {"weight": 0.0}}
NARROW = {
    "efficientnet_lite0": partial(efficientnet.EfficientNetLite, width=0.3, depth=0.3),
    "resnet18": partial(resnet.ResNet, blocks=(1, 1, 1, 1), bottleneck=False),
    "resnet50": partial(resnet.ResNet, blocks=(1, 1, 1, 1), bottleneck=True),
    "convnext_tiny": partial(convnext.ConvNeXt, blocks=(1, 1, 1, 1), channels=(4, 6, 8, 10)),
}


def change_of(params, batch, recipe):
    found = gradient(params, batch, recipe, key=jax.random.key(0))
    return found.params, {name: value.sum for name, value in found.metrics.items()}


def shaped(tiny_recipe, remat, groups):
    return tiny_recipe(model={"width": 2, "groups": 1, "hidden": 4, "remat": remat}, **TWO_TASKS, **groups)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_losses_and_gradients_are_those_without(groups, tiny_recipe, make_batch, x64):
    recipes = {remat: double_precision(shaped(tiny_recipe, remat, groups)) for remat in ("none", *LESS)}
    params, batch = double_precision((params_of(recipes["none"]), make_batch(b=2, h=8, w=12)))
    run = jax.jit(change_of)
    change, metrics = run(params, batch, recipes["none"])
    for remat in LESS:
        found, seen = run(params, batch, recipes[remat])
        assert_close(found, change, 1e-9)
        for name, value in metrics.items():
            np.testing.assert_allclose(seen[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def kept_bytes(value, params, side):
    """Bytes an image of what the backward pass of ``value(params, image)`` keeps; parameters do not count."""

    def kept(images):
        image = jnp.zeros((images, side, side, 1))
        pull = jax.eval_shape(lambda params: jax.vjp(lambda params: value(params, image), params)[1], params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))

    return kept(2) - kept(1)


def test_less_is_kept_and_only_blocks_repeat_convolutions(tiny_recipe, make_batch):
    batch, kept, convolutions = make_batch(b=1, h=32, w=32), {}, {}
    for remat in ("none", *LESS):
        recipe = shaped(tiny_recipe, remat, {})
        params = params_of(recipe)
        outline = lambda p, image, r=recipe: model.decode(p, r.model, encode(p, batch._replace(image=image), r)).sum()
        kept[remat] = kept_bytes(outline, params, 32)
        lowered = jax.jit(jax.grad(outline)).lower(params, batch.image)
        convolutions[remat] = lowered.as_text().count("stablehlo.convolution")
    assert kept["blocks"] < 0.8 * kept["activations"] and kept["activations"] < 0.3 * kept["none"]
    assert convolutions["none"] == convolutions["activations"] < convolutions["blocks"]


@pytest.mark.parametrize("encoder", NARROW)
def test_published_encoders_keep_less_too(encoder, monkeypatch):
    monkeypatch.setitem(model.ENCODERS, encoder, NARROW[encoder])
    monkeypatch.setattr(depthwise, "shifted", depthwise.grouped)
    depthwise.depthwise.clear_cache()
    config = lambda remat: model.ModelConfig(encoder=encoder, remat=remat)
    image = jnp.zeros((1, 64, 64, 1))
    params = {"encoder": jax.eval_shape(NARROW[encoder](config("none")).init, jax.random.key(1), image)["params"]}
    value = lambda params, image, remat: model.encode(params, config(remat), image).z.sum()
    kept = [kept_bytes(partial(value, remat=remat), params, 64) for remat in ("none", *LESS)]
    depthwise.depthwise.clear_cache()
    assert kept[2] < 0.8 * kept[1] and kept[1] < kept[0]


def test_the_parameters_are_the_same(tiny_recipe):
    for remat in LESS:
        np.testing.assert_equal(
            jax.device_get(params_of(shaped(tiny_recipe, remat, {}))),
            jax.device_get(params_of(shaped(tiny_recipe, "none", {}))),
        )
