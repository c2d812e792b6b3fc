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
from jax.sharding import Mesh
from tqdm import tqdm

from thyroid_jax.config import Config
from thyroid_jax.data.pipeline import Examples, TrainingBatches, evaluation_batches, prefetch, steps_per_epoch
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics as measures
from thyroid_jax.files import alone_in
from thyroid_jax.losses import consistency
from thyroid_jax.train.checkpoint import Checkpoints
from thyroid_jax.train.devices import check_divides, copy, data_mesh, spread
from thyroid_jax.train.diagnose import diagnose
from thyroid_jax.train.log import RunLog
from thyroid_jax.train.objective import Metrics, Pair
from thyroid_jax.train.step import TrainState, at_step, compiled_step, evaluate_step, init_state, learning_rate


def fit(
    config: Config,
    run_dir: Path,
    training: Examples,
    validation: Examples,
    facts: dict[str, Any],
    *,
    say: Callable[[str], None] = print,
) -> TrainState:
    """Train for ``config.train.epochs`` epochs in ``run_dir`` and return the last state; go on from the last
    checkpoint if there is one.

    Every random choice follows from (seed, step), and the data position is in the checkpoint: an interrupted and
    resumed run ends with the same parameters, to the bit on one kind of device, as one that was left alone. ``facts``
    (JSON values about the data) go into each checkpoint. A loss or gradient that is not finite stops the run with
    :class:`InputError`; no such state is ever saved.
    """
    mesh = data_mesh()
    check_divides(config.train.batch_size, mesh)
    per_epoch = steps_per_epoch(len(training.cases), config.train.batch_size)
    batches = TrainingBatches(training, config.train.batch_size, seed=config.train.seed)
    state = copy(init_state(config), mesh)
    with alone_in(run_dir), Checkpoints(run_dir / "checkpoints") as checkpoints:
        # Resume order: 1. a fresh state, for its layout  2. state and data position from the last checkpoint
        # 3. forget what was logged beyond it  4. go on at its step; the schedules depend on the step alone.
        if checkpoints.last() is not None:
            state, position, known = checkpoints.restore(state)
            check_facts(facts, known, run_dir)
            batches.restore(position)
            say(f"going on from step {int(state.step)}")
        log = RunLog(run_dir, after=int(state.step))
        stream = prefetch(batches, lambda batch: spread(batch, mesh))
        with Progress(config.train.total_steps, int(state.step), say) as progress:
            for epoch in range(int(state.step) // per_epoch + 1, config.train.epochs + 1):
                started, seen, probes = time.monotonic(), [], []
                for step in range((epoch - 1) * per_epoch, epoch * per_epoch):
                    batch, position = next(stream)
                    if config.train.diagnose_every and step % config.train.diagnose_every == 0:
                        probes.append(diagnose(state.params, batch, config))
                    state, metrics = compiled_step(state, batch, at_step(config, step))
                    seen.append(metrics)
                    progress.step()
                totals = check_finite(jax.device_get(seen), int(state.step) - per_epoch, checkpoints)
                row = {
                    "split": "train",
                    "step": int(state.step),
                    "epoch": epoch,
                    **what_the_prior_says(averages(totals)),
                }
                row["learning_rate"] = float(learning_rate(config)(row["step"] - 1))
                row["images_per_second"] = len(training.cases) / (time.monotonic() - started)
                log.add(row)
                if probes:
                    found = averages(add_up(jax.device_get(probes)))
                    log.add({"split": "diagnosis", "step": row["step"], "epoch": epoch, **found})
                quality: dict[str, float] = {}
                last = epoch == config.train.epochs
                if last or epoch % config.train.evaluate_every == 0:
                    quality = validate(state, validation, config, mesh)
                    log.add({"split": "validation", "step": row["step"], "epoch": epoch, **quality})
                if last or quality or epoch % config.train.checkpoint_every == 0:
                    checkpoints.save(state, position, facts, quality.get("score"))
                progress.line(f"epoch {epoch}/{config.train.epochs}  {summary(row, quality)}")
    return state


class Progress:
    """A progress bar with rate and remaining time on a terminal; elsewhere one plain line for every :meth:`line`."""

    def __init__(self, total: int, done: int, say: Callable[[str], None]):
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not sys.stderr.isatty())
        self._total, self._done, self._first, self._started, self._say = total, done, done, time.monotonic(), say

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
        self._say(f"{text}  | {seconds:.2f} s/step, {seconds * (self._total - self._done) / 60:.1f} min left")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def check_facts(facts: dict[str, Any], known: dict[str, Any], run_dir: Path) -> None:
    """Raise :class:`InputError` when the data are no longer those that the checkpoint was trained on."""
    differing = sorted(name for name in facts.keys() | known.keys() if facts.get(name) != known.get(name))
    if differing:
        raise InputError(
            f"{run_dir}: the data changed since this run was started ({', '.join(differing)} differ); build them as they were, or "
            "train on the new ones in a new run folder."
        )


def validate(state: TrainState, validation: Examples, config: Config, mesh: Mesh) -> dict[str, float]:
    """Dice at network size, accuracy, balanced accuracy and quadratic-weighted kappa of the validation part, and the
    ``score``.

    The score, by which the best checkpoint is chosen, is ``config.train.monitor``, and -1 where that is undefined (a
    kappa when all is one grade).
    """
    batches = evaluation_batches(validation, config.train.batch_size)
    sums = [jax.device_get(evaluate_step(state.params, spread(batch, mesh), config)) for batch, _ in batches]
    total = add_up(sums)
    confusion = np.asarray(total["confusion"].sum)
    quality = {"dice": ratio(*total["dice"])}
    for name in ("accuracy", "balanced_accuracy", "quadratic_kappa"):
        quality[name] = float(getattr(measures, name)(confusion))
    score = quality[config.train.monitor]
    return quality | {"score": score if math.isfinite(score) else -1.0}


def check_finite(seen: Sequence[Metrics], before: int, checkpoints: Checkpoints) -> Metrics:
    """The sum of the steps' metrics; a loss or gradient norm that is not finite raises, naming step, loss parts and last
    checkpoint.
    """
    for offset, metrics in enumerate(seen, start=1):
        if all(np.isfinite(metrics[name].sum) for name in ("loss", "gradient_norm")):
            continue
        shown = [name for name in sorted(metrics) if name.startswith("loss") or name in ("rlar", "gradient_norm")]
        parts = ", ".join(f"{name} {ratio(*metrics[name]):.4g}" for name in shown)
        last = checkpoints.last()
        kept = (
            "no checkpoint was written yet"
            if last is None
            else f"the last good checkpoint is {checkpoints.folder / 'last' / str(last)}"
        )
        raise InputError(
            f"step {before + offset}: the objective is no longer finite ({parts}); {kept}. Lower optimizer.learning_rate or the "
            "weight of the part that failed, in a new run folder."
        )
    return add_up(seen)


def add_up(seen: Sequence[Metrics]) -> Metrics:
    """Sum of (sum, count) pairs over steps or batches, each metric over those that have it."""
    total: dict[str, list[Pair]] = {}
    for metrics in seen:
        for name, pair in metrics.items():
            total.setdefault(name, []).append(pair)
    return {
        name: Pair(*(np.sum(values, axis=0, dtype=np.float64) for values in zip(*pairs)))
        for name, pairs in total.items()
    }


def averages(metrics: Metrics) -> dict[str, float | list[float]]:
    """sum / count of every metric; NaN where nothing was counted. Histograms become lists, and are left out there."""
    found: dict[str, float | list[float]] = {}
    for name, (total, count) in sorted(metrics.items()):
        if np.ndim(total) == 0:
            found[name] = ratio(total, count)
        elif count:
            found[name] = (np.asarray(total) / count).tolist()
    return found


def what_the_prior_says(row: dict[str, Any]) -> dict[str, Any]:
    """The same averages with the shape prior's products turned into its correlation with the labelled malignancy and
    its deviation.

    A prior whose deviation goes to 0 agrees with the head by saying nothing.
    """
    products = row.pop("prior_products", None)
    if products is None:
        return row
    correlation, deviation = consistency.agreement(np.asarray(products, np.float32))
    return row | {"prior_correlation": float(correlation), "prior_deviation": float(deviation)}


def ratio(total: float, count: float) -> float:
    """total / count, NaN for a count of 0."""
    return float(total / count) if count else math.nan


def summary(row: dict[str, Any], quality: dict[str, float]) -> str:
    """One epoch in one line: the losses, the mean cosine, and the validation if there was one."""
    parts = [f"loss {row['loss']:.3f}"]
    parts += [f"{name.removeprefix('loss_')} {row[name]:.3f}" for name in row if name.startswith("loss_")]
    parts += [f"cosine {row['cosine']:+.3f}"] if "cosine" in row else []
    parts += [
        f"| validation {name} {quality[name]:.3f}"
        for name in ("dice", "balanced_accuracy", "quadratic_kappa")
        if name in quality
    ]
    return "  ".join(parts)
