"""Evidence is pooled over the outline that the model sees, which is a constant: no task trains it that way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import model, tasks
from thyroid_jax.errors import InputError
from thyroid_jax.losses import rlar
from thyroid_jax.model import ModelConfig, evidence

POOLINGS = ("nodule", "mean", "attention")
encode, decode, embed, apply = (
    jax.jit(function, static_argnums=1) for function in (model.encode, model.decode, model.embed, model.apply)
)


@partial(jax.jit, static_argnums=1)
def grade_logits(params, config, latent):
    return model.classify(params, config, model.embed(params, config, latent))


def network(seed=0, **fields):
    config = ModelConfig.preset("tiny", **{"depth": 3, "pooling": "nodule", "pooled_levels": 3} | fields)
    return model.init(jax.random.key(seed), config), config


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(7), (2, 16, 24, 1))


def test_weights_are_the_squared_share_of_every_cell():
    probability = np.zeros((1, 4, 6), np.float32)
    probability[0, :2, :2] = 1.0
    probability[0, 2:, 4:] = [[0.5, 0.5], [0.0, 0.0]]
    raw = np.array([[1.0, 0, 0], [0, 0, 0.25**2]]) + evidence.EVERYWHERE
    np.testing.assert_allclose(evidence.nodule_weights(probability, (2, 3))[0], raw / raw.sum(), rtol=1e-6)


def test_without_a_nodule_the_mean_over_the_image_is_taken():
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    for constant in (0.0, 1.0):
        weights = evidence.nodule_weights(np.full((2, 12, 16), constant, np.float32), (3, 4))
        np.testing.assert_allclose(evidence.weighted_mean(features, weights), features.mean((1, 2)), atol=1e-6)


def test_a_nodule_that_fills_one_cell_gives_its_features():
    features = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype(np.float32)
    probability = np.zeros((1, 12, 16), np.float32)
    probability[0, 4:8, 8:12] = 1
    found = evidence.weighted_mean(features, evidence.nodule_weights(probability, (3, 4)))
    np.testing.assert_allclose(found[0], features[0, 1, 2], atol=0.03)


def test_attention_weights_are_a_softmax_over_all_positions():
    score = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    found = evidence.attention_weights(score)
    np.testing.assert_allclose(found, np.exp(score) / np.exp(score).sum((1, 2), keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_grade_reads_as_many_levels_as_asked_for(pooling, image):
    params, config = network(pooling=pooling, pooled_levels=2)
    latent = encode(params, config, image)
    logits = lambda latent: grade_logits(params, config, latent)
    before = logits(latent)
    for place, read in ((0, False), (1, True)):  # levels of stride 2, 4 and the latent
        skips = list(latent.skips)
        skips[place] = skips[place] * np.linspace(0, 2, skips[place].shape[-1], dtype=np.float32)[None, None, None]
        changed = np.abs(logits(latent._replace(skips=tuple(skips))) - before).max() > 1e-6
        assert changed == read


def test_an_untrained_attention_is_the_mean(image):
    params, config = network(pooling="attention")
    as_mean, plain = network(pooling="mean")
    found, expected = apply(params, config, image), apply(as_mean, plain, image)
    np.testing.assert_allclose(found.grade_logits, expected.grade_logits, atol=1e-6)


def test_the_outline_that_is_pooled_over_is_the_models_own(image):
    params, config = network()
    latent = encode(params, config, image)
    np.testing.assert_allclose(latent.nodule, jax.nn.sigmoid(decode(params, config, latent)), atol=1e-6)
    assert encode(*network(pooling="mean"), image).nodule is None


@pytest.mark.parametrize("trains", ["latent", "all"])
def test_the_grade_trains_the_levels_that_it_may_and_never_the_outline(trains, image):
    params, config = network(pooled_trains=trains)
    latent = encode(params, config, image)
    gradient = jax.jit(jax.grad(lambda latent: _grade_loss(params, config, latent).sum()))(latent)
    moved = [bool(jnp.abs(level).max() > 0) for level in (*gradient.skips, gradient.z, gradient.nodule)]
    assert moved == [trains == "all", trains == "all", True, False]
    of_params = jax.jit(jax.grad(lambda p: _grade_loss(p, config, encode(p, config, image)).sum()))(params)
    assert all(not leaf.any() for leaf in jax.tree.leaves(of_params["decoder"]))


def test_training_levels_that_the_heads_do_not_read_is_refused():
    with pytest.raises(InputError, match="the heads read the latent alone"):
        model.NetworkConfig(pooled_trains="all")


def _grade_loss(params, config, latent):
    return -jax.nn.log_softmax(grade_logits(params, config, latent))[:, 0]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_penaltys_gradient_at_the_latent_is_that_of_finite_differences(pooling, image, x64):
    double = lambda tree: jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
    params, config = network(pooling=pooling)
    params, image = double(params), double(image)
    if pooling == "attention":  # away from its start, where all weights are equal
        pool = params["heads"]["embed"]["pool_0"]["score"]
        pool["kernel"] = pool["kernel"] + np.linspace(-1, 1, pool["kernel"].size).reshape(pool["kernel"].shape)
    latent = encode(params, config, image)

    @jax.jit
    def penalty(z):
        at = lambda z: latent._replace(z=z)
        tasks = {
            "outline": lambda z: jax.nn.softplus(decode(params, config, at(z))).mean((1, 2)),
            "grade": lambda z: _grade_loss(params, config, at(z)),
        }
        return rlar.angular_penalty(rlar.adversarial_directions(tasks, z).unit, kind="square").sum()

    direction = jax.random.normal(jax.random.key(1), latent.z.shape, jnp.float64)
    step = 1e-5
    expected = (penalty(latent.z + step * direction) - penalty(latent.z - step * direction)) / (2 * step)
    found = (jax.jit(jax.grad(penalty))(latent.z) * direction).sum()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_measured_evidence_is_read_by_grade_and_malignancy_and_not_by_the_radiomics_head(image):
    params, config = network(evidence="measured")
    latent = encode(params, config, image)
    heads = (tasks.grade_head, tasks.malignancy_head, tasks.guidance_head)
    outputs = []
    for value in (0.0, 1.0):
        seen = latent._replace(measured=jnp.full((2, 2 * config.radiomics), value))
        outputs.append([head(params, config, seen) for head in heads])
    changed = [bool(np.abs(a - b).max() > 1e-6) for a, b in zip(*outputs)]
    assert changed == [True, True, False]
    applied = apply(params, config, image, seen.measured)
    np.testing.assert_allclose(applied.grade_logits, outputs[1][0], atol=1e-6)
    with pytest.raises(ValueError, match="'measured', but of measured evidence none was given"):
        tasks.grade_head(params, config, latent)
    with pytest.raises(ValueError, match="'learned', but of measured evidence some was given"):
        tasks.grade_head(*network(), seen)


def test_at_random_parameters_images_differ_over_the_nodule_and_hardly_over_the_whole_image(make_batch):
    """Why a grade that is read from the mean over the image is learned late (docs/grades.md).

    Nodules of different darkness; the share of an embedding's mean square that differs between images.
    """
    drawn = make_batch(b=24, h=48, w=48)
    darkness = np.linspace(0.05, 0.6, 24, dtype=np.float32)[:, None, None]
    speckle = np.random.default_rng(0).rayleigh(0.4, (24, 48, 48)).astype(np.float32)
    image = np.clip(speckle * np.where(drawn.mask > 0, darkness, 1.0), 0, 1)[..., None].astype(np.float32)

    def share(pooling, levels):
        params, config = network(pooling=pooling, pooled_levels=levels, depth=4, width=8, embedding=32)
        latent = encode(params, config, image)
        latent = latent if pooling == "mean" else latent._replace(nodule=jnp.asarray(drawn.mask))
        embedding = np.concatenate(embed(params, config, latent), axis=-1)
        return embedding.var(0).sum() / (embedding**2).mean(0).sum()

    means = share("mean", 1), share("mean", 3)
    assert max(means) < 0.12 and share("nodule", 3) > 2 * max(means)
