"""The loop around the step: epochs, validation, log and checkpoints, through any number of interruptions."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from thyroid_jax import checkpoints
from thyroid_jax.batch import Batch
from thyroid_jax.data.pipeline import Examples, TrainingBatches, evaluation_batches, prefetch, steps_per_epoch
from thyroid_jax.errors import InputError
from thyroid_jax.losses import consistency
from thyroid_jax.losses.reduce import Metrics, Pair
from thyroid_jax.recipe import Recipe
from thyroid_jax.settings import check_within, settings
from thyroid_jax.tasks import MEASURES
from thyroid_jax.train.devices import Spread, copy, deal
from thyroid_jax.train.diagnose import diagnose
from thyroid_jax.train.log import RunLog
from thyroid_jax.train.optimizer import learning_rate
from thyroid_jax.train.step import TrainState, evaluate_step

Averages = dict[str, Any]


@settings
class TrainConfig:
    """Length, batch and book-keeping of a run."""

    epochs: int = 100
    """passes over the training part"""
    batch_size: int = 8
    """images in a step, over all devices together"""
    seed: int = 0
    """seed of parameters, order, views and every other random choice"""
    evaluate_every: int = 5
    """epochs between evaluations of the validation part"""
    checkpoint_every: int = 1
    """epochs between checkpoints"""
    diagnose_every: int = 0
    """steps between diagnoses of the tasks' gradients (`thyroid_jax/train/diagnose.py`), at the parameters that are
    trained and not at their average; 0 for none"""
    encoder_weights: str = ""
    """start of a published encoder: `package` for the weights of the installed package, or a file; else empty"""
    monitor: str = "dice"
    """validation measure whose highest value marks the best checkpoint; on small sets those of grades are noisy"""

    def __post_init__(self):
        check_within(self, "train", ("epochs", "batch_size", "evaluate_every", "checkpoint_every"), 1)
        check_within(self, "train", ("diagnose_every",), 0)
        check_within(self, "train", ("seed",), 0, 2**32 - 1)
        if self.monitor not in MEASURES:
            raise InputError(f"train.monitor is {self.monitor!r}; choose one of {', '.join(MEASURES)}.")


class Progress(NamedTuple):
    """Where a run starts or resumes: the state, on the host or on devices, and the position in the data after it."""

    state: TrainState
    position: dict[str, Any] | None


def fit(
    run_dir: Path,
    recipe: Recipe,
    config: TrainConfig,
    start: Progress,
    training: Examples,
    validation: Examples,
    spread: Spread,
    *,
    facts: dict[str, Any],
    echo: Callable[[str], None] = print,
) -> TrainState:
    """Train from ``start`` to the last of ``config.epochs`` epochs and return the last state, whole.

    Every random choice follows from (key, step), and the data position is in each checkpoint: an interrupted and
    resumed run ends with the same parameters as an uninterrupted one, bit for bit on one kind of device. ``facts``
    (JSON values) go into each checkpoint. The caller holds the run folder's lock.

    A loss or gradient that is not finite stops the run with :class:`InputError`; no such state is ever saved.
    """
    per_epoch = steps_per_epoch(training.per_epoch, config.batch_size)
    batches = TrainingBatches(training, config.batch_size, seed=config.seed)
    if start.position is not None:
        batches.restore(start.position)
    # Resume order: state and data position come from one checkpoint; later rows of the log are removed; the
    # schedules depend on the step alone.
    first = int(start.state.step)
    log = RunLog(run_dir, after=first)
    best = best_score(log.rows)
    state = spread.put_state(start.state)
    stream = prefetch(batches, spread.put_batch)
    with ProgressBar(config.epochs * per_epoch, first, echo) as progress:
        for epoch in range(first // per_epoch + 1, config.epochs + 1):
            started, seen, probes = time.monotonic(), [], []
            for step in range((epoch - 1) * per_epoch, epoch * per_epoch):
                batch, position = next(stream)
                if config.diagnose_every and step % config.diagnose_every == 0:
                    probes.append(diagnose(spread.whole_state(state).params, spread.whole_batch(batch), recipe))
                state, metrics = spread.step(state, batch, recipe)
                seen.append(metrics)
                progress.step()
            done = epoch * per_epoch
            totals = check_finite(jax.device_get(seen), done - per_epoch, run_dir)
            row = {"split": "train", "step": done, "epoch": epoch, **with_prior_agreement(averages(totals))}
            row["learning_rate"] = float(
                learning_rate(recipe.settings["optimizer"], done - 1, recipe.fitted.total_steps)
            )
            row["images_per_second"] = training.per_epoch / (time.monotonic() - started)
            log.add(row)
            if probes:
                log.add(
                    {"split": "diagnosis", "step": done, "epoch": epoch, **averages(add_up(jax.device_get(probes)))}
                )
            quality: dict[str, float] = {}
            last = epoch == config.epochs
            if last or epoch % config.evaluate_every == 0:
                params = spread.whole_state(state).evaluated
                quality = validate(params, validation, recipe, spread, config.batch_size)
                quality["score"] = score_of(quality, config.monitor)
                log.add({"split": "validation", "step": done, "epoch": epoch, **quality})
            if last or quality or epoch % config.checkpoint_every == 0:
                better = bool(quality) and quality["score"] > best
                best = quality["score"] if better else best
                contents = facts | {"position": position}
                save(run_dir / "checkpoints", spread.whole_state(state), recipe, contents, done, best=better)
            progress.line(f"epoch {epoch}/{config.epochs}  {summary(row, quality)}")
    return spread.whole_state(state)


def save(folder: Path, state: TrainState, recipe: Recipe, contents: dict[str, Any], step: int, *, best: bool) -> None:
    """Write the ``last`` checkpoint, which a run resumes from, and before it the ``best`` one where ``state`` is that.

    The best comes first: a run killed between the two resumes from the last one and reaches this step again.
    """
    fitted = {"fitted": recipe.fitted}
    if best:
        checkpoints.save(folder / "best", step, {"params": state.evaluated} | fitted, contents, kept=1)
    checkpoints.save(folder / "last", step, state.packed() | fitted, contents, kept=checkpoints.KEPT)


class ProgressBar:
    """A bar with rate and remaining time on a terminal; elsewhere one plain line for every :meth:`line`."""

    def __init__(self, total: int, done: int, echo: Callable[[str], None]):
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not sys.stderr.isatty())
        self._total, self._done, self._first, self._started, self._echo = total, done, done, time.monotonic(), echo

    def step(self) -> None:
        """One step more."""
        self._done += 1
        self._bar.update()

    def line(self, text: str) -> None:
        """Print a line, above the bar where there is one, else with rate and remaining time behind it."""
        if not self._bar.disable:
            self._bar.write(text)
            return
        seconds = (time.monotonic() - self._started) / max(1, self._done - self._first)
        left = seconds * (self._total - self._done) / 60
        self._echo(f"{text}  | {seconds:.2f} s/step, {left:.1f} min left")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def validate(params: Any, validation: Examples, recipe: Recipe, spread: Spread, batch_size: int) -> dict[str, float]:
    """Every trained task's measures and mean loss on the validation part, at network size, without augmentation."""
    params = copy(params, spread.mesh)
    scores: dict[str, list[np.ndarray]] = {}
    for batch, cases in evaluation_batches(validation, batch_size):
        found = jax.device_get(evaluate_step(params, deal(batch, spread.mesh), recipe))
        for name, values in found.items():
            scores.setdefault(name, []).append(values[: len(cases)])
    quality: dict[str, float] = {}
    for task in recipe.tasks:
        label, where = task.label(validation.batch), task.valid(validation.batch)
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


def check_labels(config: TrainConfig, validation: Batch, recipe: Recipe) -> None:
    """Raise :class:`InputError` when the measure that chooses the best checkpoint has no label to be measured on."""
    name = MEASURES[config.monitor]
    tasks = {task.name: task for task in recipe.tasks}
    if name not in tasks:
        raise InputError(
            f"train.monitor is {config.monitor!r}, but {name} is not trained: no training image has its label. "
            f"Choose a measure of {' or '.join(tasks)}."
        )
    if not np.asarray(tasks[name].valid(validation)).any():
        others = [
            measure for measure, of in MEASURES.items() if of in tasks and np.asarray(tasks[of].valid(validation)).any()
        ]
        advice = f"choose one of {', '.join(others)}" if others else "choose other folds"
        raise InputError(f"train.monitor is {config.monitor!r}, but no validation image has its label; {advice}.")


def check_finite(seen: Sequence[Metrics], before: int, run_dir: Path) -> Metrics:
    """The sum of the steps' metrics.

    A loss or gradient norm that is not finite raises :class:`InputError` that names step, parts and last checkpoint.
    """
    for offset, metrics in enumerate(seen, start=1):
        if all(np.isfinite(metrics[name].sum) for name in ("loss", "gradient_norm")):
            continue
        shown = [name for name in sorted(metrics) if np.ndim(metrics[name].sum) == 0 and not name.startswith("cosine")]
        parts = ", ".join(f"{name} {ratio(*metrics[name]):.4g}" for name in shown)
        folder = run_dir / "checkpoints" / "last"
        saved = checkpoints.steps(folder)
        kept = f"the last good checkpoint is {folder / str(saved[0])}" if saved else "no checkpoint was written yet"
        raise InputError(
            f"step {before + offset}: the objective is no longer finite ({parts}); {kept}. Lower "
            "optimizer.learning_rate or the weight of the part that failed, in a new run folder."
        )
    return add_up(seen)


def add_up(seen: Sequence[Metrics]) -> Metrics:
    """Sum of (sum, count) pairs over steps or batches, each metric over those that have it."""
    found: dict[str, list[Pair]] = {}
    for metrics in seen:
        for name, value in metrics.items():
            found.setdefault(name, []).append(value)
    added = lambda values: np.asarray(np.sum(values, axis=0, dtype=np.float64))
    return {
        name: Pair(added([pair.sum for pair in pairs]), added([pair.count for pair in pairs]))
        for name, pairs in found.items()
    }


def averages(metrics: Metrics) -> Averages:
    """sum / count of every metric; NaN for a count of 0. Histograms become lists, left out for a count of 0."""
    found: Averages = {}
    for name, (total, count) in sorted(metrics.items()):
        if np.ndim(total) == 0:
            found[name] = ratio(total, count)
        elif count:
            found[name] = (np.asarray(total) / count).tolist()
    return found


def with_prior_agreement(row: Averages) -> Averages:
    """The averages with the shape prior's products turned into its correlation with the malignancy and its deviation.

    Where the deviation goes to 0 the prior is constant: it may agree with the head, but carries no information.
    """
    products = row.pop("prior_products", None)
    if products is None:
        return row
    correlation, deviation = consistency.agreement(np.asarray(products, np.float32))
    return row | {"prior_correlation": float(correlation), "prior_deviation": float(deviation)}


def ratio(total: Any, count: Any) -> float:
    """total / count, NaN for a count of 0."""
    return float(total / count) if count else math.nan


def summary(row: Averages, quality: dict[str, float]) -> str:
    """One epoch in one line: the losses, the mean cosine, and the validation if there was one."""
    parts = [f"loss {row['loss']:.3f}"]
    parts += [f"{name.removeprefix('loss_')} {row[name]:.3f}" for name in row if name.startswith("loss_")]
    parts += [f"cosine {row['cosine']:+.3f}"] if "cosine" in row else []
    shown = ("dice", "balanced_accuracy", "quadratic_kappa", "malignant_auroc")
    parts += [f"| validation {name} {quality[name]:.3f}" for name in shown if name in quality]
    return "  ".join(parts)
