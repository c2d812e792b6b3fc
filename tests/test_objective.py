"""The objective: its parts, its gradient, and what must not change it."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import model
from thyroid_jax.config import Config, ConsistencyConfig, GradingConfig, ModelConfig, RLARConfig
from thyroid_jax.losses import consistency, grading, guidance, masked_mean, rlar, segmentation
from thyroid_jax.radiomics import soft
from thyroid_jax.train import objective
from thyroid_jax.train.objective import Ramps

TINY = ModelConfig.preset("tiny", radiomics=11)
CONFIG = Config(model=TINY, rlar=RLARConfig(weight=5.0))
NO_RLAR = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=0.0))
value_and_gradient = jax.jit(jax.value_and_grad(objective, has_aux=True), static_argnums=2)


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(0), TINY)


def padded(batch, rows):
    """The batch with rows of zeros below it, every flag False."""
    return jax.tree.map(lambda a: np.concatenate([a, np.zeros((rows, *a.shape[1:]), a.dtype)]), batch)


def test_it_is_the_weighted_sum_of_the_papers_terms(params, make_batch):
    batch = make_batch()
    z, skips = model.encode(params, TINY, batch.image)
    outline = lambda z: (
        0.5 * segmentation.bce(model.decode(params, TINY, model.Latent(z, skips)), batch.mask)
        + (0.5 * segmentation.soft_dice(model.decode(params, TINY, model.Latent(z, skips)), batch.mask))
    )
    grade = lambda z: grading.cross_entropy(model.classify(params, TINY, model.embed(params, TINY, z)), batch.grade)
    target = guidance.guidance(model.predict_radiomics(params, TINY, model.embed(params, TINY, z)), batch.radiomics)
    penalty = rlar.angular_penalty(rlar.adversarial_directions({"s": outline, "g": grade}, z).unit)
    expected = outline(z).mean() + grade(z).mean() + 0.1 * target.mean() + 5.0 * 0.25 * penalty.mean()
    assert float(objective(params, batch, CONFIG, ramps=Ramps(0.25))[0]) == pytest.approx(float(expected), rel=1e-5)


def test_ramp_zero_leaves_the_multitask_value_and_the_penalty_is_felt_at_one(params, make_batch):
    batch = make_batch(b=8, seed=1)
    plain, _ = objective(params, batch, NO_RLAR)
    config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=5.0, kind="square"))
    assert float(objective(params, batch, config, ramps=Ramps(0.0))[0]) == pytest.approx(float(plain), rel=1e-6)
    assert float(objective(params, batch, config, ramps=Ramps(1.0))[0]) > float(plain) + 1e-5


def test_padding_changes_nothing(params, make_batch):
    batch = make_batch()
    (value, metrics), gradient = value_and_gradient(params, batch, CONFIG)
    (same, same_metrics), same_gradient = value_and_gradient(params, padded(batch, 2), CONFIG)
    chex.assert_trees_all_close((value, metrics), (same, same_metrics), rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(gradient, same_gradient, rtol=1e-3, atol=1e-5)


def test_order_changes_nothing(params, make_batch):
    batch = make_batch()
    (value, _), gradient = value_and_gradient(params, batch, CONFIG)
    (same, _), same_gradient = value_and_gradient(params, jax.tree.map(lambda a: a[::-1], batch), CONFIG)
    chex.assert_trees_all_close(value, same, rtol=1e-5)
    chex.assert_trees_all_close(gradient, same_gradient, rtol=1e-3, atol=1e-5)


def test_a_missing_label_counts_in_no_mean_and_leaves_no_direction(params, make_batch):
    batch = make_batch()
    missing = np.array([True, False, True])
    hole = batch._replace(
        mask_valid=missing,
        grade_valid=missing,
        radiomics_valid=missing,
        mask=np.where(missing[:, None, None], batch.mask, np.nan),
        grade=np.where(missing[:, None], batch.grade, np.nan),
        radiomics=np.where(missing[:, None], batch.radiomics, np.nan),
    )
    (value, metrics), gradient = value_and_gradient(params, hole, CONFIG)
    (same, same_metrics), _ = value_and_gradient(params, jax.tree.map(lambda a: a[[0, 2]], batch), CONFIG)
    chex.assert_trees_all_close((value, metrics), (same, same_metrics), rtol=1e-4, atol=1e-6)
    chex.assert_tree_all_finite(gradient)
    assert float(metrics["rlar"].count) == 2


def test_no_label_at_all_is_a_zero_with_a_zero_gradient(params, make_batch):
    batch = make_batch()._replace(example_valid=np.zeros(3, bool))
    (value, _), gradient = value_and_gradient(params, batch, CONFIG)
    assert float(value) == 0
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) == 0


@pytest.mark.parametrize("space", ["channel", "full"])
def test_whole_gradient_against_finite_differences(space, make_batch, x64):
    """Second order included, in float64, along random directions in parameter space."""
    config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=5.0, kind="abs", space=space))
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), model.init(jax.random.key(0), TINY))
    batch = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64 if a.dtype == np.float32 else a.dtype), make_batch())
    value = jax.jit(lambda p: objective(p, batch, config)[0])
    gradient = jax.jit(jax.grad(value))(params)
    assert float(objective(params, batch, config)[1]["rlar"].sum) > 1e-4
    leaves, layout = jax.tree.flatten(params)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        direction = jax.tree.unflatten(layout, [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in leaves])
        moved = lambda t, d=direction: jax.tree.map(lambda p, q: p + t * q, params, d)
        numeric = (value(moved(1e-6)) - value(moved(-1e-6))) / 2e-6
        exact = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
        assert float(exact) == pytest.approx(float(numeric), rel=1e-6)


def test_no_second_pass_through_the_encoder(params, make_batch):
    """The directions are taken at the latent: the compiled gradient holds each encoder convolution as often as the plain
    one does.
    """
    counts = []
    for config in (CONFIG, NO_RLAR):
        compiled = value_and_gradient.lower(params, make_batch(), config).compile().as_text()
        counts.append(sum(" convolution(" in line and "Encoder" in line for line in compiled.splitlines()))
    with_penalty, plain = counts
    assert (
        plain >= 7
    )  # a convolution before the levels, two in each block, one in the second block's shortcut: at least once each
    assert with_penalty == plain


def test_a_third_task_and_corn_fit_in(params, make_batch):
    config = dataclasses.replace(
        CONFIG,
        rlar=RLARConfig(weight=1.0, tasks=("segmentation", "grading", "guidance")),
        grading=GradingConfig(kind="corn"),
    )
    value, metrics = objective(params, make_batch(), config)
    assert np.isfinite(value)
    assert "latent_gradient_guidance" in metrics


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saturated_images_and_half_precision_stay_finite(params, make_batch, dtype):
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, dtype=dtype))
    batch = make_batch()
    for image in (np.zeros_like(batch.image), np.ones_like(batch.image)):
        large = jax.tree.map(lambda p: 30 * p, params)
        (value, _), gradient = value_and_gradient(large, batch._replace(image=image), config)
        assert np.isfinite(value)
        chex.assert_tree_all_finite(gradient)


def test_masked_means_of_the_metrics_are_the_losses(params, make_batch):
    value, metrics = objective(params, make_batch(), NO_RLAR)
    weights = {"loss_segmentation": 1.0, "loss_grading": 1.0, "loss_guidance": 0.1}
    total = sum(weight * metrics[name].sum / metrics[name].count for name, weight in weights.items())
    assert float(value) == pytest.approx(float(total), rel=1e-6)
    assert masked_mean(jnp.ones(2)) == 1


def consistent(**fields):
    return dataclasses.replace(NO_RLAR, consistency=ConsistencyConfig(weight=2.0, min_pixels=5, **fields))


@pytest.fixture(scope="module")
def with_prior(params):
    """The parameters with a shape prior, and a decoder that outlines something."""
    prior = consistency.init_prior(4, centre=[0.4, 0.5, 0.2, 0.3])
    last = params["decoder"]["Conv_3"]
    decoder = params["decoder"] | {"Conv_3": last | {"bias": last["bias"] + 2.0}}
    return params | {"decoder": decoder, "heads": params["heads"] | {"prior": prior}}


def test_the_consistency_is_added_as_the_paper_writes_it(with_prior, make_batch):
    batch, config = make_batch(), consistent(first_malignant=3)
    outputs = model.apply(with_prior, TINY, batch.image)
    mask, grades = jax.nn.sigmoid(outputs.mask_logits), jax.nn.softmax(outputs.grade_logits)
    assert ((mask > 0.5).sum((1, 2)) > 5).all()
    phi = consistency.malignancy_prior(with_prior["heads"]["prior"], soft.morphology(mask))
    expected = float(objective(with_prior, batch, NO_RLAR)[0]) + 2.0 * 0.5 * float(
        ((grades[:, 3:].sum(1) - phi) ** 2).mean()
    )
    value, metrics = objective(with_prior, batch, config, ramps=Ramps(consistency=0.5))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    means = metrics["prior_products"].sum / metrics["prior_products"].count
    label = batch.grade[:, 3:].sum(1)
    np.testing.assert_allclose(consistency.agreement(means).correlation, np.corrcoef(phi, label)[0, 1], atol=2e-3)
    assert float(metrics["prior_weight_non_compactness"].sum) == pytest.approx(1.0)


def test_small_masks_and_padding_have_no_consistency(with_prior, make_batch):
    batch, config = make_batch(), consistent()
    (value, _), gradient = value_and_gradient(with_prior, batch, config)
    (same, _), same_gradient = value_and_gradient(with_prior, padded(batch, 2), config)
    assert float(same) == pytest.approx(float(value), rel=1e-4)
    chex.assert_trees_all_close(gradient, same_gradient, rtol=1e-3, atol=1e-5)
    large = dataclasses.replace(config, consistency=ConsistencyConfig(weight=2.0, min_pixels=1e4))
    (value, metrics), gradient = value_and_gradient(with_prior, batch, large)
    assert float(metrics["consistency"].count) == 0
    assert float(value) == pytest.approx(float(objective(with_prior, batch, NO_RLAR)[0]), rel=1e-6)
    chex.assert_trees_all_equal(gradient["heads"]["prior"], jax.tree.map(jnp.zeros_like, gradient["heads"]["prior"]))


def test_who_moves_can_be_chosen(with_prior, make_batch):
    batch = make_batch()
    plain, head, mask, both = (
        value_and_gradient(with_prior, batch, config)[1]
        for config in (NO_RLAR, consistent(gradient="head"), consistent(gradient="mask"), consistent())
    )
    moved = lambda one, part: max(
        jax.tree.leaves(jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one[part], plain[part]))
    )
    classify = lambda tree: {"classify": tree["heads"]["classify"]}
    assert moved(head, "decoder") == 0 < moved(mask, "decoder")
    assert max(jax.tree.leaves(jax.tree.map(lambda g: float(jnp.abs(g).max()), head["heads"]["prior"]))) == 0
    assert float(jnp.abs(mask["heads"]["prior"]["weight"]).max()) > 0
    chex.assert_trees_all_equal(classify(mask), classify(plain))
    chex.assert_trees_all_close(jax.tree.map(lambda h, m, p: h + m - p, head, mask, plain), both, rtol=1e-3, atol=1e-5)
    assert float(jnp.abs(both["heads"]["prior"]["centre"]).max()) == 0
