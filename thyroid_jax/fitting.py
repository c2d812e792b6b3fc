"""Values fitted on the training part before the first step: class weights, target scaling, shape means, step counts."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from thyroid_jax.config import Config
from thyroid_jax.data.augment import AugmentConfig, augment
from thyroid_jax.data.pipeline import Examples, measure, steps_per_epoch
from thyroid_jax.penalties import ConsistencyConfig
from thyroid_jax.radiomics import clinical, soft
from thyroid_jax.recipe import Fitted
from thyroid_jax.shapes import Array

TARGET_VIEWS = 256
"""number of views on which the guidance target's scaling is fitted"""
_VIEWS_SEED = 0x76696577  # the same for every run, so that runs with different seeds share their scaling


def learn_from(training: Examples, config: Config) -> Fitted:
    """Everything that a step needs to know of the training part.

    Values that a run does not use stay neutral: the scaling without guidance and measured evidence, the shape means
    without the consistency. Class weights count the examples of every data set as often as an epoch draws them.
    """
    batch = training.batch
    per_epoch = steps_per_epoch(training.per_epoch, config.train.batch_size)
    cut = clinical.mask_cut(training.readers)
    scaled = config.guidance.weight or config.model.evidence == "measured"
    times = training.drawn[:, None]
    grades, malignant = times * grades_seen(training), times * np.stack([1 - batch.malignant, batch.malignant], axis=1)
    neutral = Fitted.neutral(batch.grade.shape[1], len(clinical.TARGET), len(config.consistency.features))
    return neutral._replace(
        class_weights=class_weights(grades[batch.grade_valid], config.grading.balance),
        malignant_weights=class_weights(malignant[batch.malignant_valid], config.malignancy.balance),
        scaling=target_scaling(training, config, cut) if scaled else neutral.scaling,
        mask_cut=np.array(cut, np.float32),
        shape_centre=shape_means(batch.mask[batch.mask_valid], config.consistency)
        if config.consistency.weight
        else neutral.shape_centre,
        total_steps=np.array(config.train.epochs * per_epoch, np.float32),
        epoch_steps=np.array(per_epoch, np.int32),
    )


def grades_seen(training: Examples) -> Array:
    """Each example's grade as the steps see it on average, f32[n k]: over all readers where each epoch samples one."""
    everyone = training.sampled
    if everyone is None:
        return training.batch.grade
    return everyone.grade.sum(1) / np.maximum(everyone.grades, 1)[:, None]


def class_weights(labels: Array, balance: float) -> np.ndarray:
    """Class weights frequency ** -balance, f32[k], scaled so that the examples' mean weight is 1.

    ``labels`` f[n k] are one-hot or distributions, times a weight where examples count unequally. A class without any
    example has weight 0; without any example at all the weights are 1.
    """
    counts = np.asarray(labels, np.float64).sum(0)
    if not counts.sum():
        return np.ones(labels.shape[1], np.float32)
    raw = np.where(counts > 0, np.maximum(counts, 1e-9) ** -balance, 0.0)
    return (raw * counts.sum() / (raw * counts).sum()).astype(np.float32)


def target_scaling(training: Examples, config: Config, cut: float) -> clinical.Scaling:
    """The robust scaling of the radiomics target, fitted on what a step sees: random views, or original images.

    The original images count where the guidance learns their target (``guidance.view``). Otherwise
    :data:`TARGET_VIEWS` views are measured: one or more of each outlined example, or one of each of evenly spaced
    examples where there are more than that.
    """
    outlined = np.flatnonzero(training.batch.radiomics_valid)
    if not len(outlined):
        return Fitted.neutral(1, len(clinical.TARGET)).scaling
    if config.guidance.weight and config.guidance.view == "original":
        image, mask = training.batch.image[outlined, ..., 0], training.batch.mask[outlined]
        return clinical.fit_scaling(*_whole_rows(*measure(image, mask, cut=cut)))
    rows = np.resize(outlined, max(len(outlined), TARGET_VIEWS))
    if len(outlined) > TARGET_VIEWS:
        rows = outlined[np.linspace(0, len(outlined) - 1, TARGET_VIEWS).round().astype(int)]
    image, mask = training.batch.image[rows, ..., 0], training.batch.mask[rows]
    seen = measure_views(image, mask, config.augment, cut=cut, seed=_VIEWS_SEED, chunk=config.train.batch_size)
    return clinical.fit_scaling(*_whole_rows(*seen))


def measure_views(
    image: Array, mask: Array, config: AugmentConfig, *, cut: float, seed: int = 0, chunk: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """The guidance target of one random view of every image, f32[n r], and whether each value is defined, bool[n r].

    ``image`` and ``mask`` uint8[n h w]; the views depend on ``seed`` and on the image's place only. With ``chunk`` the
    batch size of a run, augmentation and target are traced once for this and for the training step.
    """
    values, valid, key = [], [], jax.random.key(seed)
    unit = lambda pixels: pixels.astype(np.float32) / 255
    for start in range(0, len(image), chunk):
        rows = np.minimum(np.arange(start, start + chunk), len(image) - 1)  # the last chunk is filled up
        seen, outline = augment(
            key, unit(image[rows])[..., None], unit(mask[rows]), config, first=np.array(start, np.int32)
        )
        found, defined = clinical.target(seen[..., 0], outline, cut=np.array(cut, np.float32))
        values.append(np.asarray(found))
        valid.append(np.asarray(defined))
    return np.concatenate(values)[: len(image)], np.concatenate(valid)[: len(image)]


def _whole_rows(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values, and flags that are True only in rows in which every value is defined: a step uses no other rows."""
    return values, np.broadcast_to(valid.all(-1, keepdims=True), valid.shape)


def shape_means(masks: Array, settings: ConsistencyConfig) -> np.ndarray:
    """Mean of the shape features over masks uint8[n h w] that are large enough; 0 where there are none."""
    masks = masks[(masks >= 128).sum((1, 2)) > settings.min_pixels]
    if not len(masks):
        return np.zeros(len(settings.features), np.float32)
    morphology = jax.jit(partial(soft.morphology, features=settings.features))
    found = [np.asarray(morphology(mask[None].astype(np.float32) / 255))[0] for mask in masks]
    return np.mean(found, axis=0).astype(np.float32)
