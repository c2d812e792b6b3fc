"""The validation part in training: its measures, and the one that marks the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thyroid_jax.batch import Batch
from thyroid_jax.data.pipeline import Examples, evaluation_batches
from thyroid_jax.errors import InputError
from thyroid_jax.recipe import Recipe, Task
from thyroid_jax.tasks import COMPARE_LABELS, MEASURES
from thyroid_jax.train.devices import Spread, copy, deal, fetch
from thyroid_jax.train.options import TrainConfig
from thyroid_jax.train.step import evaluate_step, unit_range
from thyroid_jax.train.totals import ratio


def validate(params: Any, validation: Examples, recipe: Recipe, spread: Spread, batch_size: int) -> dict[str, float]:
    """Every trained task's measures and mean loss on the validation part, at network size, without augmentation."""
    params = copy(params, spread.mesh)
    scores: dict[str, list[np.ndarray]] = {}
    for batch, cases in evaluation_batches(validation, batch_size):
        found = fetch(evaluate_step(params, deal(batch, spread.mesh), recipe), spread.mesh)
        for name, values in found.items():
            scores.setdefault(name, []).append(values[: len(cases)])
    quality: dict[str, float] = {}
    labelled = validation.batch._replace(mask=unit_range(validation.batch.mask))  # as losses and scores see it
    for task in recipe.tasks:
        label, where = task.label(labelled), task.valid(labelled)
        quality |= task.measures(np.concatenate(scores[task.name]), np.asarray(label), np.asarray(where))
        losses = np.concatenate(scores[f"loss_{task.name}"])[np.asarray(task.defined(validation.batch))]
        quality[f"loss_{task.name}"] = ratio(losses.sum(dtype=np.float64), len(losses))
    return quality


def score_of(quality: dict[str, float], monitor: str) -> float:
    """The measure by which the best checkpoint is chosen; -1 where it is undefined (a kappa of one grade only)."""
    score = quality.get(monitor, math.nan)
    return score if math.isfinite(score) else -1.0


def best_score(rows: Sequence[dict[str, Any]]) -> float:
    """The best validation score of a log; minus infinity before the first one."""
    return max((row["score"] for row in rows if row.get("split") == "validation"), default=-math.inf)


def out_of_patience(rows: Sequence[dict[str, Any]], patience: int) -> bool:
    """Whether the last ``patience`` validations of a log, or more, brought no new best score; never for 0.

    An equal score is no new best. It follows from the log alone: a resumed run stops where an uninterrupted one does.
    """
    scores = [row["score"] for row in rows if row.get("split") == "validation"]
    return bool(patience and scores) and len(scores) - 1 - scores.index(max(scores)) >= patience


def check_labels(config: TrainConfig, validation: Batch, recipe: Recipe) -> None:
    """Raise :class:`InputError` when the measure that chooses the best checkpoint has no label to be measured on, or
    compares labels and all of them are alike: the first checkpoint would stay the best.
    """
    name = MEASURES[config.monitor]
    found = {task.name: labels_of(task, validation) for task in recipe.tasks}
    can = [measure for measure, of in MEASURES.items() if of in found and can_be_measured(measure, found[of])]
    if config.monitor in can:
        return
    if name not in found:
        fault = f"{name} is not trained: no training image has its label"
    elif len(found[name]):
        fault = "all labels of the validation images are alike"
    else:
        fault = "no validation image has its label"
    advice = f"choose one of {', '.join(can)}" if can else "choose other folds"
    raise InputError(f"train.monitor is {config.monitor!r}, but {fault}; {advice}.")


def labels_of(task: Task, batch: Batch) -> np.ndarray:
    """The labels of a task that a batch has."""
    return np.asarray(task.label(batch))[np.asarray(task.valid(batch))]


def can_be_measured(measure: str, labels: np.ndarray) -> bool:
    """Whether there are labels, and unequal ones for a measure of :data:`~thyroid_jax.tasks.COMPARE_LABELS`."""
    return len(labels) > 0 and (measure not in COMPARE_LABELS or bool((labels != labels[:1]).any()))
