"""What the training part teaches: class weights, the target's scaling on what the step sees, shape means, lengths."""

from functools import partial

import jax
import numpy as np
import pytest

from data_prep.phantom import PhantomOptions, phantom
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.data.augment import AugmentConfig
from thyroid_jax.data.pipeline import Examples, ReaderLabels, TrainingBatches, joined, measure, take
from thyroid_jax.fitting import TARGET_VIEWS, class_weights, learn_from, measure_views, shape_means, target_scaling
from thyroid_jax.penalties import ConsistencyConfig
from thyroid_jax.radiomics import clinical, soft

STILL = dict.fromkeys(vars(AugmentConfig()), 0.0)


@pytest.fixture(scope="module")
def phantoms():
    """Twelve phantoms of 48 x 48 with the mean of two readers' outlines, as bytes."""
    keys = jax.random.split(jax.random.key(0), 12)
    drawn = jax.jit(jax.vmap(partial(phantom, size=(48, 48))))(keys)
    as_bytes = lambda a: np.round(255 * np.asarray(a)).astype(np.uint8)
    assert PhantomOptions().count > 0
    return as_bytes(drawn.image), as_bytes(drawn.reader_masks.mean(1))


@pytest.fixture(scope="module")
def training(phantoms, make_batch):
    image, mask = phantoms
    batch = make_batch(b=12, h=48, w=48)
    grade = np.eye(5, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]]
    flags = lambda *missing: np.array([place not in missing for place in range(12)])
    return Examples(
        batch._replace(
            image=image[..., None],
            mask=mask,
            grade=grade,
            malignant=(np.arange(12) < 4).astype(np.float32),
            grade_valid=flags(0, 1),
            malignant_valid=flags(11),
            mask_valid=flags(5),
            radiomics_valid=flags(5),
        ),
        tuple(f"case {i}" for i in range(12)),
    )


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_class_weights_are_powers_of_the_frequency_with_mean_one_over_the_examples(balance):
    labels = np.eye(3)[[0, 0, 0, 0, 0, 0, 1, 1, 2]]
    weights = class_weights(labels, balance)
    np.testing.assert_allclose(weights / weights[0], (np.array([6, 2, 1]) / 6) ** -balance, rtol=1e-6)
    assert (labels @ weights).mean() == pytest.approx(1, rel=1e-6)


def test_readers_distributions_count_in_part_and_classes_without_examples_weigh_nothing():
    weights = class_weights(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), 1.0)
    np.testing.assert_allclose(weights, [1 / 1.5, 1 / 0.5, 0] / np.float64(2 / 2), rtol=1e-6)
    np.testing.assert_array_equal(class_weights(np.zeros((0, 4)), 0.5), np.ones(4))


def test_everything_that_a_run_uses_is_fitted_and_the_rest_is_neutral(training):
    config = replace_groups(Config(), train={"epochs": 3, "batch_size": 5}, malignancy={"balance": 1.0})
    learned = learn_from(training, config)
    known = training.batch.grade[training.batch.grade_valid]
    np.testing.assert_allclose(learned.class_weights, class_weights(known, 0.5))
    np.testing.assert_allclose(learned.malignant_weights, class_weights(np.eye(2)[[1] * 4 + [0] * 7], 1.0))
    assert float(learned.total_steps) == 9 and int(learned.epoch_steps) == 3
    np.testing.assert_array_equal(learned.scaling.spread, np.ones(len(clinical.TARGET)))
    np.testing.assert_array_equal(learned.shape_centre, np.zeros(4))
    assert float(learned.mask_cut) == 0.5
    two = learn_from(training._replace(readers=frozenset({2})), config)
    assert float(two.mask_cut) == clinical.mask_cut({2}) == 0.25
    expected = target_scaling(training, config, 0.5)
    assert np.abs(expected.spread - 1).min() > 0
    for read in ({"guidance": {"weight": 0.1}}, {"model": {"evidence": "measured"}}):
        np.testing.assert_array_equal(
            learn_from(training, replace_groups(config, **read)).scaling.spread, expected.spread
        )
    shaped = replace_groups(config, consistency={"weight": 0.1, "features": ("elongation",)})
    expected = shape_means(training.batch.mask[training.batch.mask_valid], shaped.consistency)
    np.testing.assert_allclose(learn_from(training, shaped).shape_centre, expected)
    assert expected.shape == (1,) and expected[0] > 0.05


def test_class_weights_count_every_reader_where_each_epoch_samples_one(training):
    """A grade that a record's other reader gave comes up in training: weight 0 would leave it out of the loss."""
    grade = np.zeros((12, 2, 5), np.float32)
    grade[:, 0], grade[:2, 1, 4], grade[2, 1, 3] = training.batch.grade, 1, 1
    grade[:, 0, 3:], grade[8:, 0, 0] = 0, 1  # the first readers never give the two highest grades
    numbers = np.where(np.arange(12) < 3, 2, 1)
    everyone = ReaderLabels(np.repeat(training.batch.mask[:, None], 2, 1), grade, numbers, numbers)
    batch = training.batch._replace(grade=grade[:, 0], grade_valid=np.ones(12, bool))
    sampled = training._replace(batch=batch, sampled=everyone)
    learned = learn_from(sampled, Config()).class_weights
    assert learned[4] > 0 and learned[3] > 0
    drawn = np.concatenate([
        take(sampled, range(12), 12, np.random.default_rng(seed).integers(1 << 31, size=12).tolist()).grade
        for seed in range(400)
    ])  # fmt: skip
    np.testing.assert_allclose(learned, class_weights(drawn, 0.5), rtol=0.05)
    assert (drawn @ learned).mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(learn_from(sampled._replace(sampled=None), Config()).class_weights[3:], 0)


def test_class_weights_count_an_added_data_set_as_often_as_an_epoch_draws_it(training):
    """Of a large benign set, a tenth is drawn: what is rare in an epoch weighs more, not what is rare in the files."""
    batch = jax.tree.map(lambda a: a[:4], training.batch)
    own = training._replace(batch=batch._replace(grade_valid=np.ones(4, bool)), cases=training.cases[:4])
    benign = training.batch._replace(malignant=np.zeros(12, np.float32), malignant_valid=np.ones(12, bool))
    added = training._replace(batch=benign)
    both = joined([own, added], [1.0, 0.1])
    np.testing.assert_allclose(both.drawn, [1.0] * 4 + [0.1] * 12)
    config = replace_groups(Config(), malignancy={"balance": 1.0})
    learned = learn_from(both, config)
    np.testing.assert_allclose(learned.malignant_weights[0] / learned.malignant_weights[1], 4 / 1.2, rtol=1e-5)
    grades = both.drawn[:, None] * both.batch.grade
    np.testing.assert_allclose(learned.class_weights, class_weights(grades[both.batch.grade_valid], 0.5), rtol=1e-6)
    batches = TrainingBatches(both, 8, seed=0)
    drawn = np.concatenate([next(batches).malignant for _ in range(200)])
    seen = learned.malignant_weights[drawn.astype(int)]
    assert seen.mean() == pytest.approx(1, abs=0.02)
    alike = joined([own, added], [1.0, 1.0])
    np.testing.assert_allclose(
        learn_from(alike, config).malignant_weights, class_weights(np.eye(2)[[1] * 4 + [0] * 12], 1)
    )


def test_the_scaling_is_fitted_on_the_views_that_a_step_sees(training):
    """Fresh views have a mean z-score near 0; scaled by the originals' they do not."""
    config = replace_groups(Config(), guidance={"weight": 0.1}, augment={"gamma": 1.5, "shadow": 0.0})
    image, mask = training.batch.image[..., 0], training.batch.mask
    kept = training.batch.radiomics_valid
    views = [measure_views(image, mask, config.augment, cut=0.25, seed=seed)[0][kept] for seed in range(40)]
    mean_z = lambda scaling: np.abs(np.mean([np.asarray(scaling(view)) for view in views], axis=(0, 1)))
    fitted = mean_z(target_scaling(training, config, 0.25))
    assert fitted.max() < 0.15
    original = replace_groups(config, guidance={"view": "original"})
    unguided = replace_groups(
        original, guidance={"weight": 0.0}
    )  # measured evidence is of views, whatever the guidance
    np.testing.assert_array_equal(
        target_scaling(training, unguided, 0.25).centre, target_scaling(training, config, 0.25).centre
    )
    of_originals = target_scaling(training, original, 0.25)
    assert mean_z(of_originals).max() > 0.3
    values, valid = measure(image[kept], mask[kept], cut=0.25)
    expected = clinical.fit_scaling(values, np.broadcast_to(valid.all(1, keepdims=True), valid.shape))
    np.testing.assert_allclose(of_originals.centre, expected.centre)


def test_views_follow_from_seed_and_place_and_without_strength_are_the_images(training):
    image, mask = training.batch.image[:5, ..., 0], training.batch.mask[:5]
    config = AugmentConfig()
    found = measure_views(image, mask, config, cut=0.25, seed=3)
    again = measure_views(image[:3], mask[:3], config, cut=0.25, seed=3)
    other = measure_views(image, mask, config, cut=0.25, seed=4)
    np.testing.assert_array_equal(found[0][:3], again[0])
    assert np.abs(found[0] - other[0]).max() > 1e-3
    still, valid = measure_views(image, mask, AugmentConfig(**STILL), cut=0.25)
    values, expected = measure(image, mask, cut=0.25)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_allclose(still, values, rtol=1e-3, atol=1e-3)


def test_enough_views_are_measured_and_without_outlines_none(training, monkeypatch):
    counted = []
    config = replace_groups(Config(), guidance={"weight": 0.1})

    def count(image, mask, *args, **kwargs):
        counted.append(len(image))
        return np.zeros((len(image), 13)), np.ones((len(image), 13), bool)

    monkeypatch.setattr("thyroid_jax.fitting.measure_views", count)
    target_scaling(training, config, 0.5)
    assert counted == [TARGET_VIEWS]
    blind = training._replace(batch=training.batch._replace(radiomics_valid=np.zeros(12, bool)))
    np.testing.assert_array_equal(target_scaling(blind, config, 0.5).centre, np.zeros(13))
    assert counted == [TARGET_VIEWS]


def test_shape_means_are_of_the_outlines_that_are_large_enough():
    y, x = np.mgrid[:32, :40]
    disc, tall = np.hypot(y - 16, x - 20) < 8, np.hypot((y - 16) / 2, x - 20) < 6
    masks = np.stack([disc, tall, np.hypot(y - 16, x - 20) < 2]).astype(np.uint8) * 255
    settings = ConsistencyConfig(weight=0.3, features=("taller_than_wide", "elongation"))
    each = [soft.morphology(mask[None].astype(np.float32), features=settings.features)[0] for mask in (disc, tall)]
    np.testing.assert_allclose(shape_means(masks, settings), np.mean(each, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(shape_means(masks, ConsistencyConfig(min_pixels=1e4)), np.zeros(4))
