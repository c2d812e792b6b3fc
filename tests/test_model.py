"""The model: shapes, sizes, independence of examples, and clear refusals."""

from functools import partial

import chex
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
    params = jax.eval_shape(partial(model.init, config=model.PRESETS[name]), jax.random.key(0))
    assert set(params) == {"encoder", "decoder", "heads"}
    assert set(params["heads"]) == {"embed", "classify", "radiomics"}
    assert low < model.parameter_count(params) <= high
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("size", [(4, 4), (16, 24), (12, 40)])
def test_any_size_that_the_depth_divides_works(params, size):
    outputs = apply(params, TINY, image(2, *size))
    chex.assert_shape(outputs.mask_logits, (2, *size))
    chex.assert_shape(outputs.grade_logits, (2, 5))
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
    embedding = model.embed(params, TINY, latent.z)
    parts = (
        model.decode(params, TINY, latent),
        model.classify(params, TINY, embedding),
        model.predict_radiomics(params, TINY, embedding),
    )
    whole = model.apply(params, TINY, x)
    chex.assert_trees_all_close(parts, (whole.mask_logits, whole.grade_logits, whole.radiomics), rtol=1e-5, atol=1e-6)


def test_an_example_does_not_see_the_others(params):
    x = image(3)
    other = x.at[1].set(image(1, seed=7)[0])
    one, two = apply(params, TINY, x), apply(params, TINY, other)
    keep = np.array([0, 2])
    chex.assert_trees_all_close(
        jax.tree.map(lambda a: a[keep], one), jax.tree.map(lambda a: a[keep], two), rtol=1e-5, atol=1e-6
    )
    assert float(jnp.abs(one.mask_logits[1] - two.mask_logits[1]).max()) > 1e-4


def test_the_grade_depends_on_both_parts_of_the_embedding_and_radiomics_on_the_guided_one(params):
    embedding = model.embed(params, TINY, model.encode(params, TINY, image()).z)
    by_grade = jax.grad(lambda e: model.classify(params, TINY, e).sum())(embedding)
    assert all(float(jnp.abs(part).min(axis=-1).max()) > 0 for part in by_grade)
    by_radiomics = jax.grad(lambda e: model.predict_radiomics(params, TINY, e).sum())(embedding)
    assert float(jnp.abs(by_radiomics.guided).max()) > 0
    assert float(jnp.abs(by_radiomics.free).max()) == 0


def test_every_parameter_reaches_the_outputs(params):
    def total(p):
        outputs = model.apply(p, TINY, image())
        return (outputs.mask_logits**2).mean() + (outputs.grade_logits**2).mean() + (outputs.radiomics**2).mean()

    for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params)):
        assert float(jnp.abs(gradient).max()) > 0, jax.tree_util.keystr(path)


def test_the_grade_is_not_linear_in_the_latent(params):
    """A linear head would give every example the same latent direction."""
    z = model.encode(params, TINY, image(2)).z
    g = jax.grad(lambda z: model.classify(params, TINY, model.embed(params, TINY, z))[:, 0].sum())(z).reshape(2, -1)
    cosine = (g[0] * g[1]).sum() / jnp.linalg.norm(g[0]) / jnp.linalg.norm(g[1])
    assert abs(float(cosine)) < 0.9999


def test_bfloat16_computes_low_and_answers_in_float32():
    config = model.ModelConfig.preset("tiny", dtype="bfloat16")
    params = model.init(jax.random.key(0), config)
    outputs = apply(params, config, image())
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {outputs.mask_logits.dtype, outputs.grade_logits.dtype, outputs.latent.z.dtype} == {jnp.dtype("float32")}
    exact = apply(params, model.ModelConfig.preset("tiny"), image())
    error = float(jnp.abs(outputs.mask_logits - exact.mask_logits).max())
    assert 0 < error < 0.2


def test_impossible_configurations_name_the_field():
    with pytest.raises(InputError, match=r"model\.depth is 0"):
        model.ModelConfig(depth=0)
    with pytest.raises(InputError, match=r"model\.radiomics is 200.*embedding"):
        model.ModelConfig(radiomics=200)
    with pytest.raises(InputError, match=r"huge.*tiny, small, base"):
        model.ModelConfig.preset("huge")
