"""The tasks: what each predicts, from which label it learns, and how it is measured. A new task is a new entry here.

Its head is a function of (parameters, model config, latent); its group of settings is a field of :class:`TaskSettings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import model
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics
from thyroid_jax.losses import grading, guidance, malignancy, segmentation
from thyroid_jax.model import Latent, ModelConfig, Params
from thyroid_jax.recipe import Fitted, Task, TaskConfig
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array, Bool, Float


@settings
class SegmentationConfig(TaskConfig):
    """The outline: L = bce * BCE + dice * soft Dice loss, per image."""

    bce: float = 0.5
    """weight of the binary cross-entropy"""
    dice: float = 0.5
    """weight of the soft Dice loss"""

    def __post_init__(self):
        check_within(self, "segmentation", ("weight", "bce", "dice"), 0)
        if self.weight and not self.bce and not self.dice:
            raise InputError("segmentation.bce and segmentation.dice are both 0; set one, or segmentation.weight 0.")


@settings
class GradingConfig(TaskConfig):
    """The data set's ordered grade: cross-entropy, or the ordinal CORN."""

    kind: Literal["cross_entropy", "corn"] = "cross_entropy"
    """kind of loss; each reads probabilities from the logits in its own way"""
    balance: float = 0.5
    """class weights are (frequency) ** -balance, mean 1 over the training examples; 0 for none"""

    def __post_init__(self):
        check_within(self, "grading", ("weight", "balance"), 0)


@settings
class MalignancyConfig(TaskConfig):
    """Benign or malignant, predicted by a separate head: binary cross-entropy."""

    balance: float = 0.5
    """class weights are (frequency) ** -balance, mean 1 over the training examples; 0 for none"""

    def __post_init__(self):
        check_within(self, "malignancy", ("weight", "balance"), 0)


@settings
class GuidanceConfig(TaskConfig):
    """The radiomics target that guides a part of the embedding, in training only."""

    weight: float = 0.0
    """weight of the guidance; 0 switches it off"""
    beta: float = 1.0
    """where SmoothL1 turns from quadratic to linear, in units of the fitted scaling"""
    view: Literal["augmented", "original"] = "augmented"
    """what the target is measured on: every augmented view, on the device, or once the original"""

    def __post_init__(self):
        check_within(self, "guidance", ("weight",), 0)
        check_within(self, "guidance", ("beta",), 1e-6)


@dataclass(frozen=True)
class TaskSettings:
    """A group of settings for every task, by the task's name."""

    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    malignancy: MalignancyConfig = field(default_factory=MalignancyConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)


def outline_loss(
    logits: Float[Array, "b h w"],
    mask: Float[Array, "b h w"],
    settings: SegmentationConfig,
    fitted: Fitted,
    where: Bool[Array, "b"],
) -> Float[Array, "b"]:
    """bce * BCE + dice * soft Dice loss."""
    bce = settings.bce * segmentation.bce(logits, mask, where=where)
    return bce + settings.dice * segmentation.soft_dice(logits, mask, where=where)


def hard_dice(probability: Float[Array, "b h w"], mask: Float[Array, "b h w"]) -> Float[Array, "b"]:
    """Dice of probability and mask, both cut at one half, at network size; two empty masks agree, 1."""
    predicted, reference = probability >= 0.5, mask >= 0.5
    overlap, total = (predicted & reference).sum((1, 2)), predicted.sum((1, 2)) + reference.sum((1, 2))
    return jnp.where(total > 0, 2 * overlap / jnp.maximum(total, 1), 1.0)


def grade_head(params: Params, config: ModelConfig, latent: Latent) -> Float[Array, "b k"]:
    """Grade logits from the latent."""
    return model.classify(params, config, model.embed(params, config, latent), latent.measured)


def grade_loss(
    logits: Float[Array, "b k"],
    grade: Float[Array, "b k"],
    settings: GradingConfig,
    fitted: Fitted,
    where: Bool[Array, "b"],
) -> Float[Array, "b"]:
    """The loss of the chosen kind, weighted by the fitted class weights."""
    return grading.LOSSES[settings.kind](logits, grade, class_weights=fitted.class_weights, where=where)


def grade_measures(probability: np.ndarray, grade: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy, quadratic-weighted kappa and macro-AUROC of probabilities f[n k], grades f[n k]."""
    probability, truth = probability[where], grade[where].argmax(-1)
    confusion = metrics.confusion_matrix(probability.argmax(-1), truth, grade.shape[1])
    return {
        "accuracy": float(metrics.accuracy(confusion)),
        "balanced_accuracy": float(metrics.balanced_accuracy(confusion)),
        "quadratic_kappa": float(metrics.quadratic_kappa(confusion)),
        "macro_auroc": float(metrics.macro_auroc(probability, truth)) if len(truth) else float("nan"),
    }


def malignancy_head(params: Params, config: ModelConfig, latent: Latent) -> Float[Array, "b"]:
    """Logit of malignancy from the latent."""
    return model.malignancy(params, config, model.embed(params, config, latent), latent.measured)


def malignancy_loss(
    logit: Float[Array, "b"],
    malignant: Float[Array, "b"],
    settings: MalignancyConfig,
    fitted: Fitted,
    where: Bool[Array, "b"],
) -> Float[Array, "b"]:
    """Binary cross-entropy, weighted by the fitted class weights."""
    return malignancy.malignancy(logit, malignant, class_weights=fitted.malignant_weights, where=where)


def malignancy_measures(probability: np.ndarray, malignant: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """AUROC, and balanced accuracy at one half, of probabilities f[n], labels f[n]."""
    probability, truth = probability[where], malignant[where] > 0.5
    confusion = metrics.confusion_matrix((probability >= 0.5).astype(int), truth.astype(int), 2)
    return {
        "malignant_auroc": float(metrics.auroc(probability, truth)),
        "malignant_balanced_accuracy": float(metrics.balanced_accuracy(confusion)),
    }


def guidance_head(params: Params, config: ModelConfig, latent: Latent) -> Float[Array, "b r"]:
    """Predicted radiomics target from the latent."""
    return model.predict_radiomics(params, config, model.embed(params, config, latent))


def guidance_loss(
    predicted: Float[Array, "b r"],
    target: Float[Array, "b r"],
    settings: GuidanceConfig,
    fitted: Fitted,
    where: Bool[Array, "b"],
) -> Float[Array, "b"]:
    """SmoothL1 between the predicted and the measured target."""
    return guidance.guidance(predicted, target, beta=settings.beta, where=where)


def guidance_measures(predicted: np.ndarray, target: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """Mean over the values of R^2 = 1 - sum (t - p)^2 / sum (t - mean t)^2; values that do not vary are left out."""
    predicted, target = predicted[where], target[where]
    if not len(target):
        return {"guidance_r2": float("nan")}
    variation = ((target - target.mean(0)) ** 2).sum(0)
    varies = variation > 0
    r2 = 1 - ((target - predicted) ** 2).sum(0)[varies] / variation[varies]
    return {"guidance_r2": float(r2.mean()) if varies.any() else float("nan")}


TASKS: tuple[Task, ...] = (
    Task(
        name="segmentation",
        label=lambda batch: batch.mask,
        valid=lambda batch: batch.mask_valid,
        head=model.decode,
        loss=outline_loss,
        answer=lambda logits, settings: jax.nn.sigmoid(logits),
        score=hard_dice,
        measures=lambda dice, mask, where: {"dice": float(dice[where].mean()) if where.any() else float("nan")},
    ),
    Task(
        name="grading",
        label=lambda batch: batch.grade,
        valid=lambda batch: batch.grade_valid,
        head=grade_head,
        loss=grade_loss,
        answer=lambda logits, settings: grading.probabilities(logits, kind=settings.kind),
        score=lambda probability, grade: probability,
        measures=grade_measures,
    ),
    Task(
        name="malignancy",
        label=lambda batch: batch.malignant,
        valid=lambda batch: batch.malignant_valid,
        head=malignancy_head,
        loss=malignancy_loss,
        answer=lambda logit, settings: jax.nn.sigmoid(logit),
        score=lambda probability, malignant: probability,
        measures=malignancy_measures,
    ),
    Task(
        name="guidance",
        label=lambda batch: batch.radiomics,
        valid=lambda batch: batch.radiomics_valid,
        head=guidance_head,
        loss=guidance_loss,
        answer=lambda predicted, settings: predicted,
        score=lambda predicted, target: predicted,
        measures=guidance_measures,
    ),
)

MEASURES = {  # measure of a part -> its task
    "dice": "segmentation",
    "accuracy": "grading",
    "balanced_accuracy": "grading",
    "quadratic_kappa": "grading",
    "macro_auroc": "grading",
    "malignant_auroc": "malignancy",
    "malignant_balanced_accuracy": "malignancy",
}
COMPARE_LABELS = ("quadratic_kappa", "macro_auroc", "malignant_auroc")
"""measures that say nothing where all labels are alike: undefined, or the same for every model"""
