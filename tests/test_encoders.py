"""Every encoder behind the same levels: names, channels, tails that agree, gradients, and refused fields."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import model
from thyroid_jax.errors import InputError
from thyroid_jax.model import depthwise
from thyroid_jax.model.config import PUBLISHED
from thyroid_jax.model.encoders import convnext, efficientnet, resnet

CHANNELS = {
    "efficientnet_lite0": (16, 24, 40, 112, 320),
    "efficientnet_lite1": (16, 24, 40, 112, 320),
    "efficientnet_lite2": (16, 24, 48, 120, 352),
    "resnet18": (64, 64, 128, 256, 512),
    "resnet34": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
    "convnext_tiny": (96, 192, 384, 768),
}
PARAMETERS = {  # of the papers' networks without their classifiers, batch norms folded, one-channel stems
    "efficientnet_lite0": 2_938_544,
    "efficientnet_lite1": 3_697_392,
    "efficientnet_lite2": 4_329_608,
    "resnet18": 11_168_576,
    "resnet34": 21_273_024,
    "resnet50": 23_478_336,
    "convnext_tiny": 27_815_520,
}
NARROW = {
    "efficientnet_lite0": partial(efficientnet.EfficientNetLite, width=0.3, depth=0.3),
    "resnet18": partial(resnet.ResNet, blocks=(1, 1, 1, 1), bottleneck=False),
    "resnet50": partial(resnet.ResNet, blocks=(1, 1, 1, 1), bottleneck=True),
    "convnext_tiny": partial(convnext.ConvNeXt, blocks=(1, 1, 1, 1), channels=(4, 6, 8, 10)),
}
IMAGE = jax.random.uniform(jax.random.key(0), (2, 64, 32, 1))


def test_every_published_encoder_has_its_entry():
    assert tuple(model.ENCODERS) == ("residual", *PUBLISHED)


@pytest.mark.parametrize("encoder", PUBLISHED)
def test_levels_have_the_strides_and_channels_of_the_paper(encoder):
    config = model.ModelConfig(encoder=encoder, dtype="bfloat16")
    params = jax.eval_shape(partial(model.init, config=config), jax.random.key(0))
    outputs = jax.eval_shape(lambda p, x: model.apply(p, config, x), params, IMAGE)
    levels = (*outputs.latent.skips, outputs.latent.z)
    strides = (2, 4, 8, 16, 32)[-len(levels) :]
    assert model.level_names(config) == (*(f"stride{stride}" for stride in strides[:-1]), "latent")
    for level, stride, channels in zip(levels, strides, CHANNELS[encoder], strict=True):
        assert level.shape == (2, 64 // stride, 32 // stride, channels)
    assert outputs.mask_logits.shape == (2, 64, 32)
    assert model.parameter_count(params["encoder"]) == PARAMETERS[encoder]
    assert model.parameter_count(params["decoder"]) < 3_000_000
    assert {level.dtype for level in outputs.latent.skips} == {jnp.dtype("bfloat16")}
    assert outputs.latent.z.dtype == outputs.mask_logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.fixture(scope="module", params=NARROW)
def narrow(request):
    """A shallow form of each kind of encoder: (params, config, compiled encode(params, image), its latent)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model.ENCODERS, request.param, NARROW[request.param])
        if request.param == "convnext_tiny":  # the same values, and 7 x 7 shifted products compile slowly
            patch.setattr(depthwise, "shifted", depthwise.grouped)
            depthwise.depthwise.clear_cache()
        config = model.ModelConfig(encoder=request.param)
        params = {"encoder": jax.jit(NARROW[request.param](config).init)(jax.random.key(1), IMAGE)["params"]}
        encode = jax.jit(lambda params, image: model.encode(params, config, image))
        yield params, config, encode, encode(params, IMAGE)
    depthwise.depthwise.clear_cache()


def test_a_changed_level_changes_what_is_behind_it_and_the_present_features_change_nothing(narrow):
    params, config, _, latent = narrow
    for place, name in enumerate(model.level_names(config)[:-1]):
        resume = jax.jit(partial(model.encode_from, config=config, level=name))
        features = model.features_at(config, latent, name)
        behind = lambda features, resume=resume: resume(params, latent=latent, features=features)
        chex.assert_trees_all_close(behind(features), latent, rtol=1e-4, atol=1e-5)
        moved = behind(features + jax.random.normal(jax.random.key(2), features.shape))
        before, after = (*latent.skips, latent.z), (*moved.skips, moved.z)
        chex.assert_trees_all_equal(after[:place], before[:place])
        assert all(float(jnp.abs(one - two).max()) > 1e-4 for one, two in zip(before[place:], after[place:]))


def test_every_parameter_has_a_gradient(narrow):
    params, config, *_ = narrow

    def total(encoder):
        latent = model.encode({"encoder": encoder}, config, IMAGE)
        return sum((level**2).mean() for level in (*latent.skips, latent.z))

    slope = jax.jit(jax.grad(total))(params["encoder"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        assert bool(jnp.isfinite(leaf).all()) and float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_entries_of_the_encoder_belong_to_the_level_that_first_needs_them(narrow):
    params, config, encode, before = narrow
    levels = model.encoder_levels.__wrapped__(config)  # not cached: the encoder is another one after this test
    assert set(levels) == set(params["encoder"]) and set(levels.values()) == set(range(len(model.level_names(config))))
    for name, level in levels.items():
        other = params["encoder"] | {name: jax.tree.map(lambda leaf: leaf + 0.1, params["encoder"][name])}
        after = encode({"encoder": other}, IMAGE)
        changed = [bool((a != b).any()) for a, b in zip((*before.skips, before.z), (*after.skips, after.z))]
        assert changed.index(True) == level, name


def test_the_tail_behind_a_level_has_second_derivatives(narrow):
    params, config, _, latent = narrow
    level = model.level_names(config)[-2]
    features = model.features_at(config, latent, level)

    def length_of_slope(features):
        value = lambda f: jnp.sin(model.encode_from(params, config, latent, level, f).z).sum()
        return (jax.grad(value)(features) ** 2).sum()

    bend = jax.jit(jax.grad(length_of_slope))(features)
    assert bool(jnp.isfinite(bend).all()) and float(jnp.abs(bend).max()) > 0


def test_an_example_does_not_see_the_others(narrow):
    params, _, encode, latent = narrow
    other = encode(params, IMAGE.at[1].set(1 - IMAGE[1]))
    first = lambda latent: jax.tree.map(lambda leaf: leaf[0], latent)
    chex.assert_trees_all_close(first(other), first(latent), rtol=1e-5, atol=1e-6)


def test_frozen_levels_have_no_gradient_and_the_others_the_same(monkeypatch):
    module = NARROW["efficientnet_lite0"]
    monkeypatch.setitem(model.ENCODERS, "efficientnet_lite0", module)
    free, held = (model.ModelConfig(encoder="efficientnet_lite0", frozen_levels=n) for n in (0, 2))
    params = {"encoder": jax.jit(module(free).init)(jax.random.key(1), IMAGE[:1])["params"]}
    loss = lambda config: jax.jit(jax.grad(lambda p: (model.encode(p, config, IMAGE[:1]).z ** 2).mean()))
    slopes, kept = (loss(config)(params)["encoder"] for config in (free, held))
    levels = model.encoder_levels.__wrapped__(free)
    frozen = {name for name, level in levels.items() if level < 2}
    assert frozen == {"stem", "block0", "block1"}  # one block each at strides 2 and 4
    for name in levels:
        moved = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(kept[name])]
        assert (max(moved) == 0) == (name in frozen)
        if name not in frozen:
            chex.assert_trees_all_close(kept[name], slopes[name], rtol=1e-3, atol=1e-7)


def test_an_encoder_that_starts_at_random_is_not_frozen():
    with pytest.raises(InputError, match="the encoder residual starts at random"):
        model.ModelConfig(frozen_levels=1)


def test_the_pooling_has_second_derivatives(x64):
    module = resnet.ResNet(model.ModelConfig(encoder="resnet18"), blocks=(1, 0, 0, 0), bottleneck=False)
    stem = jax.random.uniform(jax.random.key(0), (1, 4, 6, 64), jnp.float64)
    params = module.init(jax.random.key(1), stem, after=0)
    direction = jax.random.normal(jax.random.key(2), stem.shape)
    slope = jax.jit(
        lambda x: (jax.grad(lambda x: jnp.sin(module.apply(params, x, after=0)[0]).sum())(x) * direction).sum()
    )
    along = 1e-6 * direction
    expected = (slope(stem + along) - slope(stem - along)) / 2e-6
    np.testing.assert_allclose((jax.jit(jax.grad(slope))(stem) * direction).sum(), expected, rtol=1e-5)


@pytest.mark.parametrize("encoder", PUBLISHED)
def test_fields_that_shape_another_encoder_are_refused_together(encoder):
    with pytest.raises(InputError) as error:
        model.NetworkConfig(encoder=encoder, width=8, depth=4, full_resolution=True)
    words = str(error.value)
    assert encoder in words
    for line in ("model.width is 8; it must be 16", "model.depth is 4; it must be 5", "model.full_resolution is True"):
        assert line in words
    model.NetworkConfig(encoder=encoder, max_width=32, blocks=2, groups=4, dtype="bfloat16")


@pytest.mark.parametrize("scale, depths", [((1, 1), (1, 2, 2, 6, 5)), ((1, 1.1), (1, 3, 3, 8, 6))])
def test_scaled_depths_leave_the_first_and_the_last_stage(scale, depths):
    assert tuple(map(len, efficientnet.levels(*scale))) == depths


def test_the_border_of_the_grey_stem_is_free_of_the_picture():
    stem = resnet.GreyStem(None)
    params = stem.init(jax.random.key(0), IMAGE)["params"]
    with_border = params | {"inside": jax.random.normal(jax.random.key(1), params["inside"].shape)}
    added = stem.apply({"params": with_border}, IMAGE) - stem.apply({"params": params}, IMAGE)
    chex.assert_trees_all_close(added[0], added[1], atol=1e-4)
    assert float(jnp.abs(added[0] - added[0, 8, 8][None, None]).max()) > 0.1
    chex.assert_trees_all_close(added[0, 5:-5, 5:-5].std((0, 1)), jnp.zeros(64), atol=1e-4)
