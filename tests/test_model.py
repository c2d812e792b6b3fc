"""The model: shapes, sizes, levels of the encoder, independence of examples, and clear refusals."""

import dataclasses
import inspect
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import model
from thyroid_jax.errors import InputError

TINY = model.ModelConfig.preset("tiny", radiomics=3)
apply = jax.jit(model.apply, static_argnums=1)


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(0), TINY)


def image(b=2, h=16, w=24, seed=0):
    return jax.random.uniform(jax.random.key(seed), (b, h, w, 1))


@pytest.mark.parametrize(("name", "low", "high"), [("tiny", 0, 2e4), ("small", 0.8e6, 1.4e6), ("base", 15e6, 25e6)])
def test_presets_have_the_promised_size_and_top_level_keys(name, low, high):
    config = model.ModelConfig.preset(name)
    params = jax.eval_shape(partial(model.init, config=config), jax.random.key(0))
    assert set(params) == {"encoder", "decoder", "heads"}
    assert set(params["heads"]) == {"embed", "classify", "malignant", "radiomics"}
    assert low < model.parameter_count(params) <= high
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_a_preset_is_a_dict_of_changes():
    for name, changes in model.PRESETS.items():
        assert model.NetworkConfig.preset(name) == dataclasses.replace(model.NetworkConfig(), **changes)
        assert model.ModelConfig.preset(name, depth=1, grades=3) == model.ModelConfig(
            **changes | {"depth": 1}, grades=3
        )


@pytest.mark.parametrize("size", [(4, 4), (16, 24), (12, 40)])
def test_any_size_that_the_depth_divides_works(params, size):
    outputs = apply(params, TINY, image(2, *size))
    chex.assert_shape(outputs.mask_logits, (2, *size))
    chex.assert_shape(outputs.grade_logits, (2, 5))
    chex.assert_shape(outputs.malignant_logit, (2,))
    chex.assert_shape(outputs.radiomics, (2, 3))
    chex.assert_shape(outputs.latent.z, (2, size[0] // 4, size[1] // 4, 8))
    chex.assert_shape([outputs.embedding.guided, outputs.embedding.free], [(2, 3), (2, 13)])
    chex.assert_tree_all_finite(outputs)


@pytest.mark.parametrize("size", [(15, 24), (16, 22), (0, 24)])
def test_other_sizes_are_refused_with_the_multiple_to_use(params, size):
    with pytest.raises(InputError, match=r"multiples of 4.*letterbox"):
        model.encode(params, TINY, jnp.zeros((1, *size, 1)))


@pytest.mark.parametrize(
    "changes", [{"full_resolution": True}, {"depth": 1, "blocks": 2}, {"depth": 3, "width": 6, "max_width": 9}]
)
def test_width_depth_and_blocks_are_free(changes):
    config = model.ModelConfig.preset("tiny", **changes)
    params = jax.eval_shape(partial(model.init, config=config), jax.random.key(0))
    outputs = jax.eval_shape(lambda p, x: model.apply(p, config, x), params, image())
    assert outputs.mask_logits.shape == (2, 16, 24)
    assert outputs.latent.z.shape[1:3] == (16 // 2**config.depth, 24 // 2**config.depth)


def test_the_whole_is_its_parts(params):
    x = image()
    latent = model.encode(params, TINY, x)
    embedding = model.embed(params, TINY, latent)
    parts = (
        model.decode(params, TINY, latent),
        model.classify(params, TINY, embedding),
        model.malignancy(params, TINY, embedding),
        model.predict_radiomics(params, TINY, embedding),
    )
    whole = model.apply(params, TINY, x)
    heads = whole.mask_logits, whole.grade_logits, whole.malignant_logit, whole.radiomics
    chex.assert_trees_all_close(parts, heads, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close((latent, embedding), (whole.latent, whole.embedding), rtol=1e-5, atol=1e-6)


def test_an_example_does_not_see_the_others(params):
    x = image(3)
    other = x.at[1].set(image(1, seed=7)[0])
    one, two = apply(params, TINY, x), apply(params, TINY, other)
    keep = np.array([0, 2])
    chex.assert_trees_all_close(
        jax.tree.map(lambda a: a[keep], one), jax.tree.map(lambda a: a[keep], two), rtol=1e-5, atol=1e-6
    )
    assert float(jnp.abs(one.mask_logits[1] - two.mask_logits[1]).max()) > 1e-4


def test_grade_and_malignancy_depend_on_the_whole_embedding_and_radiomics_on_its_guided_part(params):
    embedding = model.embed(params, TINY, model.encode(params, TINY, image()))
    for head in (model.classify, model.malignancy):
        slopes = jax.grad(lambda e, head=head: head(params, TINY, e).sum())(embedding)
        assert all(float(jnp.abs(part).min(axis=-1).max()) > 0 for part in slopes)
    by_radiomics = jax.grad(lambda e: model.predict_radiomics(params, TINY, e).sum())(embedding)
    assert float(jnp.abs(by_radiomics.guided).max()) > 0
    assert float(jnp.abs(by_radiomics.free).max()) == 0


def test_every_parameter_reaches_the_outputs(params):
    def total(p):
        outputs = model.apply(p, TINY, image())
        heads = (outputs.mask_logits, outputs.grade_logits, outputs.malignant_logit, outputs.radiomics)
        return sum((head**2).mean() for head in heads)

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params)):
        assert float(jnp.abs(gradient).max()) > 0, jax.tree_util.keystr(path)


def test_grade_and_malignancy_are_not_linear_in_the_latent(params):
    """A linear head would give every example the same latent direction, up to its sign."""
    latent = model.encode(params, TINY, image(2))
    embed = lambda z: model.embed(params, TINY, latent._replace(z=z))
    grade = lambda z: model.classify(params, TINY, embed(z))[:, 0].sum()
    malignant = lambda z: model.malignancy(params, TINY, embed(z)).sum()
    for logit in (grade, malignant):
        g = jax.grad(logit)(latent.z).reshape(2, -1)
        cosine = (g[0] * g[1]).sum() / jnp.linalg.norm(g[0]) / jnp.linalg.norm(g[1])
        assert abs(float(cosine)) < 0.9999


# --- levels of the encoder --------------------------------------------------------------------------------------------

LEVELS = {
    "tiny": ({}, ("stride2", "latent")),
    "full resolution": ({"full_resolution": True}, ("stride1", "stride2", "latent")),
    "several blocks": ({"blocks": 2, "depth": 3}, ("stride2", "stride4", "latent")),
    "several blocks at full resolution": (
        {"blocks": 3, "full_resolution": True, "width": 2},
        ("stride1", "stride2", "latent"),
    ),
    "half precision": ({"dtype": "bfloat16", "full_resolution": True}, ("stride1", "stride2", "latent")),
    "one level": ({"depth": 1}, ("latent",)),
}


@pytest.fixture(params=LEVELS.values(), ids=LEVELS, scope="module")
def levelled(request):
    changes, names = request.param
    config = model.ModelConfig.preset("tiny", **changes)
    params = model.init(jax.random.key(1), config)
    return params, config, names, jax.jit(partial(model.encode, params, config))(image())


def test_levels_are_named_by_their_stride(levelled):
    _, config, names, latent = levelled
    assert model.level_names(config) == names
    for name, found in zip(names, (*latent.skips, latent.z)):
        features = model.features_at(config, latent, name)
        stride = 2**config.depth if name == model.LATENT else int(name.removeprefix("stride"))
        assert features.shape[1:3] == (16 // stride, 24 // stride)
        assert features.dtype == jnp.float32
        np.testing.assert_array_equal(features, found.astype(jnp.float32))


def test_the_features_that_are_there_give_the_same_latent(levelled):
    params, config, names, latent = levelled
    for name in names:
        features = model.features_at(config, latent, name)
        again = jax.jit(partial(model.encode_from, params, config, level=name))(latent=latent, features=features)
        tolerance = {"rtol": 0.02, "atol": 0.02} if config.dtype == "bfloat16" else {"rtol": 1e-5, "atol": 1e-6}
        chex.assert_trees_all_close(again, latent, **tolerance)
        chex.assert_trees_all_equal_shapes_and_dtypes(again, latent)


def test_a_change_at_a_level_changes_nothing_finer_and_everything_behind_it(levelled):
    params, config, names, latent = levelled
    for place, name in enumerate(names):
        features = model.features_at(config, latent, name)
        noise = jax.random.normal(jax.random.key(2), features.shape)
        moved = model.encode_from(params, config, latent, name, features + noise)
        before, after = (*latent.skips, latent.z), (*moved.skips, moved.z)
        chex.assert_trees_all_equal(after[:place], before[:place])
        chex.assert_trees_all_close(model.features_at(config, moved, name), features + noise, rtol=0.01, atol=0.01)
        for one, two in zip(before[place:], after[place:]):
            assert float(jnp.abs(one - two).mean((1, 2, 3)).min()) > 1e-3


def test_an_unknown_level_or_encoder_is_refused_with_those_that_there_are(params):
    latent = model.encode(params, TINY, image())
    for call in (
        lambda: model.features_at(TINY, latent, "stride8"),
        lambda: model.encode_from(params, TINY, latent, "stride8", latent.z),
    ):
        with pytest.raises(InputError, match="no level 'stride8'; choose one of stride2, latent"):
            call()
    other = dataclasses.replace(TINY, encoder="transformer")
    for call in (
        lambda: model.init(jax.random.key(0), other),
        lambda: model.encode(params, other, image()),
        lambda: model.level_names(other),
    ):
        with pytest.raises(InputError, match=r"model\.encoder is 'transformer'; choose one of residual"):
            call()


class Pyramid(nn.Module):
    """The smallest encoder: one convolution a level, each at half the resolution of the one before."""

    config: model.ModelConfig

    @staticmethod
    def strides(config):
        return tuple(2**level for level in range(1, config.depth))

    @nn.compact
    def __call__(self, x, *, after=-1):
        found = []
        for level in range(after + 1, self.config.depth):
            x = nn.tanh(nn.Conv(3 + level, (3, 3), strides=2, name=f"level_{level}")(x))
            found.append(x)
        return found[-1], tuple(found[:-1])


def test_an_added_encoder_needs_its_entry_alone(monkeypatch):
    monkeypatch.setitem(model.ENCODERS, "pyramid", Pyramid)
    config = model.ModelConfig.preset("tiny", encoder="pyramid", depth=3)
    params = model.init(jax.random.key(0), config)
    outputs = apply(params, config, image())
    assert outputs.mask_logits.shape == (2, 16, 24) and outputs.latent.z.shape == (2, 2, 3, 5)
    assert model.level_names(config) == ("stride2", "stride4", "latent")
    features = model.features_at(config, outputs.latent, "stride2")
    again = model.encode_from(params, config, outputs.latent, "stride2", features)
    chex.assert_trees_all_close(again, outputs.latent, rtol=1e-5, atol=1e-6)


def test_bfloat16_computes_low_and_answers_in_float32():
    config = model.ModelConfig.preset("tiny", dtype="bfloat16")
    params = model.init(jax.random.key(0), config)
    outputs = apply(params, config, image())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    answers = (outputs.mask_logits, outputs.grade_logits, outputs.malignant_logit, outputs.latent.z)
    assert {answer.dtype for answer in answers} == {jnp.dtype("float32")}
    exact = apply(params, model.ModelConfig.preset("tiny"), image())
    error = float(jnp.abs(outputs.mask_logits - exact.mask_logits).max())
    assert 0 < error < 0.2


@pytest.mark.parametrize("kind", [np.uint8, np.int32, bool])
def test_an_image_of_whole_numbers_is_refused_also_under_jit(params, kind):
    pixels = np.asarray(255 * image()).astype(kind)
    encode = inspect.unwrap(model.encode)  # without the tests' check of types, which a user does not have
    for function in (encode, jax.jit(encode, static_argnums=1)):
        with pytest.raises(ValueError, match=f"image is of {np.dtype(kind)}; .*Divide 8-bit values by 255"):
            function(params, TINY, pixels)


def test_a_float_image_of_0_to_255_is_refused_where_its_values_are_known(params):
    with pytest.raises(ValueError, match=r"image holds values from 0 to 255; an image is in \[0, 1\]"):
        model.encode(params, TINY, jnp.zeros((1, 4, 4, 1)).at[0, 0, 0].set(255.0))
    for kind in (jnp.float16, jnp.bfloat16):
        assert model.encode(params, TINY, image().astype(kind)).z.dtype == jnp.float32


def test_impossible_configurations_name_the_field():
    with pytest.raises(InputError, match=r"model\.depth is 0"):
        model.ModelConfig(depth=0)
    with pytest.raises(InputError, match=r"model\.radiomics is 200.*embedding"):
        model.ModelConfig(radiomics=200)
    with pytest.raises(InputError, match=r"huge.*tiny, small, base"):
        model.ModelConfig.preset("huge")
