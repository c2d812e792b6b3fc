"""A training run from its first step to its last, through any number of interruptions."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from thyroid_jax.config import Config
from thyroid_jax.data.pipeline import Examples, TrainingBatches, evaluation_batches, prefetch, steps_per_epoch
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics as measures
from thyroid_jax.train.checkpoint import Checkpoints
from thyroid_jax.train.devices import check_divides, copy, data_mesh, spread
from thyroid_jax.train.log import RunLog
from thyroid_jax.train.objective import Metrics
from thyroid_jax.train.step import TrainState, evaluate_step, init_state, learning_rate, train_step


def fit(
    config: Config,
    run_dir: Path,
    training: Examples,
    validation: Examples,
    facts: dict[str, Any],
    *,
    say: Callable[[str], None] = print,
) -> TrainState:
    """Train for ``config.train.epochs`` epochs in ``run_dir`` and return the last state; go on from the last checkpoint if there is one.

    Every random choice follows from (seed, step), and the data position is in the checkpoint: an interrupted and resumed run ends with the
    same parameters, to the bit on one kind of device, as one that was left alone. ``facts`` (JSON values about the data) go into
    each checkpoint. A loss or gradient that is not finite stops the run with :class:`InputError`; no such state is ever saved.
    """
    mesh = data_mesh()
    check_divides(config.train.batch_size, mesh)
    per_epoch = steps_per_epoch(len(training.cases), config.train.batch_size)
    # Resume order: 1. a fresh state, for its layout  2. state and data position from the last checkpoint
    # 3. forget what was logged beyond it  4. go on at its step; the schedules depend on the step alone.
    state = copy(init_state(config), mesh)
    batches = TrainingBatches(training, config.train.batch_size, seed=config.train.seed)
    with Checkpoints(run_dir / "checkpoints") as checkpoints:
        if checkpoints.last() is not None:
            state, position, _ = checkpoints.restore(state)
            batches.restore(position)
            say(f"going on from step {int(state.step)}")
        first = int(state.step)
        log = RunLog(run_dir, after=first)
        stream = prefetch(batches, lambda batch: spread(batch, mesh))
        progress = tqdm(total=config.train.total_steps, initial=first, unit="step", disable=not sys.stderr.isatty())
        started = time.monotonic()
        for epoch in range(first // per_epoch + 1, config.train.epochs + 1):
            epoch_started, seen = time.monotonic(), []
            for _ in range(per_epoch):
                batch, position = next(stream)
                state, metrics = train_step(state, batch, config)
                seen.append(metrics)
                progress.update()
            step = int(state.step)
            totals = check_finite(jax.device_get(seen), step - per_epoch, checkpoints)
            seconds = time.monotonic() - epoch_started
            row = {"split": "train", "step": step, "epoch": epoch, **averages(totals)}
            row |= {"learning_rate": float(learning_rate(config)(step - 1)), "images_per_second": len(training.cases) / seconds}
            log.add(row)
            score, last = None, epoch == config.train.epochs
            if last or epoch % config.train.evaluate_every == 0:
                quality = validate(state, validation, config)
                log.add({"split": "validation", "step": step, "epoch": epoch, **quality})
                score = quality["score"]
            if last or score is not None or epoch % config.train.checkpoint_every == 0:
                checkpoints.save(state, position, facts, score)
            left = (time.monotonic() - started) / (step - first) * (config.train.total_steps - step)
            line = epoch_line(config, row, quality if score is not None else {}, seconds / per_epoch, left)
            progress.write(line) if not progress.disable else say(line)
        progress.close()
    return state


def validate(state: TrainState, validation: Examples, config: Config) -> dict[str, float]:
    """Dice at network size, accuracy, balanced accuracy and quadratic-weighted kappa of the validation part, and their ``score``.

    score = the mean of Dice and balanced accuracy, of which only those count that the labels allow; 0 where they allow neither.
    """
    sums = [jax.device_get(evaluate_step(state.params, batch, config)) for batch, _ in evaluation_batches(validation, config.train.batch_size)]
    total = add_up(sums)
    confusion = np.asarray(total["confusion"].sum)
    quality = {"dice": ratio(*total["dice"])}
    for name in ("accuracy", "balanced_accuracy", "quadratic_kappa"):
        quality[name] = float(getattr(measures, name)(confusion))
    known = [quality[name] for name in ("dice", "balanced_accuracy") if math.isfinite(quality[name])]
    return quality | {"score": float(np.mean(known)) if known else 0.0}


def check_finite(seen: Sequence[Metrics], before: int, checkpoints: Checkpoints) -> Metrics:
    """The sum of the steps' metrics; a loss or gradient norm that is not finite raises, naming step, loss parts and last checkpoint."""
    for offset, metrics in enumerate(seen, start=1):
        if not all(np.isfinite(metrics[name].sum) for name in ("loss", "gradient_norm")):
            parts = ", ".join(f"{name} {ratio(*metrics[name]):.4g}" for name in sorted(metrics) if "loss" in name or name in ("rlar", "gradient_norm"))
            last = checkpoints.last()
            kept = "no checkpoint was written yet" if last is None else f"the last good checkpoint is {checkpoints.folder / 'last' / str(last)}"
            raise InputError(
                f"step {before + offset}: the objective is no longer finite ({parts}); {kept}. Lower optimizer.learning_rate or the "
                "weight of the part that failed, in a new run folder."
            )
    return add_up(seen)


def add_up(seen: Sequence[Metrics]) -> Metrics:
    """Sum of (sum, count) pairs over steps or batches."""
    return jax.tree.map(lambda *values: np.sum(values, axis=0, dtype=np.float64), *seen)


def averages(metrics: Metrics) -> dict[str, float]:
    """sum / count of every metric; NaN where nothing was counted."""
    return {name: ratio(*pair) for name, pair in sorted(metrics.items())}


def ratio(total: float, count: float) -> float:
    """total / count, NaN for a count of 0."""
    return float(total / count) if count else math.nan


def epoch_line(config: Config, row: dict[str, Any], quality: dict[str, float], step_seconds: float, left: float) -> str:
    """One epoch in one line: losses, validation if there was one, seconds a step, time to go."""
    parts = [f"epoch {row['epoch']}/{config.train.epochs}", f"loss {row['loss']:.3f}"]
    parts += [f"{name.removeprefix('loss_')} {row[name]:.3f}" for name in row if name.startswith("loss_")]
    parts += [f"cosine {row['cosine']:+.3f}"] if "cosine" in row else []
    parts += [f"| validation {name} {value:.3f}" for name, value in quality.items() if name in ("dice", "quadratic_kappa", "score")]
    return "  ".join([*parts, f"| {step_seconds:.2f} s/step", f"{left / 60:.1f} min left"])
