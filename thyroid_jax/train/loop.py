"""The loop around the step: epochs, validation, log and checkpoints, through any number of interruptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from thyroid_jax.batch import Batch
from thyroid_jax.data.pipeline import Examples, TrainingBatches, prefetch, steps_per_epoch
from thyroid_jax.losses.reduce import Metrics
from thyroid_jax.recipe import Recipe
from thyroid_jax.train import hosts
from thyroid_jax.train.devices import Spread
from thyroid_jax.train.diagnose import diagnose
from thyroid_jax.train.log import Row, RunLog, UnwrittenLog
from thyroid_jax.train.nonfinite import (
    Step,
    check_finite,
    check_left_out,
    leaves_out_nonfinite,
    steps_left_out,
    without_left_out,
)
from thyroid_jax.train.observe import EVENTS, PROFILE, EventFile, Profiler
from thyroid_jax.train.optimizer import learning_rate
from thyroid_jax.train.options import DEFAULTS, ProcessOptions, TrainConfig
from thyroid_jax.train.progress import ProgressBar, Stopwatch, memory_of, say, summary
from thyroid_jax.train.saving import Progress, Saver, check_epoch
from thyroid_jax.train.step import TrainState
from thyroid_jax.train.totals import NO_STEPS, Totals, add_up, averages, with_prior_agreement
from thyroid_jax.train.validation import best_score, check_labels, out_of_patience, score_of, validate

__all__ = ["ProcessOptions", "Progress", "TrainConfig", "check_labels", "fit"]


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
    options: ProcessOptions = DEFAULTS,
    stop: Callable[[], bool] = lambda: False,
    echo: Callable[[str], None] = say,
) -> TrainState:
    """Train from ``start`` to the last of ``config.epochs`` epochs and return the last state, whole.

    With ``config.patience`` it ends earlier, after so many validations in a row without a new best score.

    Every random choice follows from (key, step), and each checkpoint holds the data position and the sums of its
    epoch: an interrupted and resumed run ends with the same parameters and the same log as an uninterrupted one, bit
    for bit on one kind and number of devices. ``facts`` (JSON values) go into each checkpoint. The caller holds the
    run folder's lock.

    Several processes call it alike, each with all examples; the first one writes. They stop where any of them asks.

    ``stop`` is called after every step. Where it is true, an epoch that is just complete is measured, a checkpoint is
    written, and the state is returned. A loss, gradient or parameter that is not finite raises :class:`InputError`, or
    the update of its step is left out (``options.nonfinite``); no such state is ever saved.
    """
    # Resume order: state, data position and the epoch's sums come from one checkpoint; later rows of the log are
    # removed; the schedules depend on the step alone.
    step, per_epoch = int(start.state.step), steps_per_epoch(training.per_epoch, config.batch_size)
    check_epoch(start, per_epoch)
    batches = TrainingBatches(training, config.batch_size, seed=config.seed, part=spread.feeds)
    if start.position is not None:
        batches.restore(start.position)
    at = start._replace(state=spread.put_state(start.state))
    with records_of(run_dir, step, config.epochs * per_epoch, options, echo) as records:
        loop = Loop(
            recipe,
            config,
            spread,
            training,
            validation,
            per_epoch,
            first=step,
            take_step=leaves_out_nonfinite(spread) if options.nonfinite == "skip" else spread.step,
            stream=prefetch(batches, spread.put_batch),
            stop=stop,
            agreement=hosts.Agreement(spread.mesh),
            saver=Saver(run_dir, spread, recipe, facts, step, options.checkpoint_minutes, records.watch),
            records=records,
        )
        ends_early = lambda: out_of_patience(records.log.rows, config.patience)
        while step < config.epochs * per_epoch and not loop.agreement.now(stop() or ends_early()):
            at, step = steps_in_a_row(loop, at, step)
            if step % per_epoch == 0:
                at = end_epoch(loop, at, step)
            elif loop.saver.due():
                loop.saver.last(at, step)
        loop.saver.last(at, step)
        if step < config.epochs * per_epoch and ends_early():
            records.bar.line(
                f"stopped after epoch {step // per_epoch}/{config.epochs}: no better {config.monitor} in "
                f"{config.patience} evaluations in a row; the best checkpoint is kept"
            )
    return spread.whole_state(at.state)


class Records(NamedTuple):
    """What is written about a training beside its checkpoints, and the stopwatch of its parts."""

    log: RunLog | UnwrittenLog
    bar: ProgressBar
    profiler: Profiler
    watch: Stopwatch


@contextmanager
def records_of(
    run_dir: Path, step: int, last: int, options: ProcessOptions, echo: Callable[[str], None]
) -> Iterator[Records]:
    """The records of a training from ``step`` to ``last``; they are closed after the ``with`` block.

    Of several processes the first one writes and says; the others keep the log's rows.
    """
    log = log_of(run_dir, step)
    if not isinstance(log, RunLog):
        options, echo = replace(options, tensorboard=False, profile=0), lambda text: None
    with ExitStack() as stack:
        if isinstance(log, RunLog) and options.tensorboard:
            log.copy_to(stack.enter_context(EventFile(run_dir / EVENTS, log.rows)).add)
        bar = stack.enter_context(ProgressBar(last, step, echo, drawn=isinstance(log, RunLog)))
        profiler = stack.enter_context(Profiler(run_dir / PROFILE, options.profile, echo))
        yield Records(log, bar, profiler, Stopwatch())


def log_of(run_dir: Path, step: int) -> RunLog | UnwrittenLog:
    """The run's log up to ``step``: the file in the first of several processes, its rows in the others."""
    opened: list[RunLog] = []

    def rows() -> list[Row]:
        opened.append(RunLog(run_dir, after=step))
        return opened[0].rows

    found = hosts.decided_by_first(rows)
    return opened[0] if opened else UnwrittenLog(found)


@dataclass(frozen=True)
class Loop:
    """What stays the same while a process trains a run; ``first`` is the number of steps done before."""

    recipe: Recipe
    config: TrainConfig
    spread: Spread
    training: Examples
    validation: Examples
    per_epoch: int
    first: int
    take_step: Step
    stream: Iterator[tuple[Batch, dict[str, Any]]]
    stop: Callable[[], bool]
    agreement: hosts.Agreement
    saver: Saver
    records: Records


def steps_in_a_row(loop: Loop, at: Progress, step: int) -> tuple[Progress, int]:
    """Train up to the end of the epoch, a checkpoint that is due, or a stop; add what was measured to the epoch's sums.

    Only then the host waits for the device. Raises :class:`InputError` for a step that is not finite.
    """
    state, before = at.state, step
    seen: list[Metrics] = []
    probes: list[Metrics] = []
    while True:
        with loop.records.watch.part("data"):
            batch, position = next(loop.stream)
        loop.records.profiler.before_step()
        with loop.records.watch.part("step"), jax.profiler.StepTraceAnnotation("train_step", step_num=step):
            if loop.config.diagnose_every and step % loop.config.diagnose_every == 0:
                params, whole = loop.spread.whole_state(state).params, loop.spread.whole_batch(batch)
                probes.append(diagnose(params, whole, loop.recipe))
            state, metrics = loop.take_step(state, batch, loop.recipe)
        seen.append(metrics)
        step += 1
        loop.records.profiler.after_step(state)
        loop.records.bar.step()
        if step % loop.per_epoch == 0 or loop.agreement.later(lambda: loop.saver.due() or loop.stop()):
            break
    with loop.records.watch.part("step"):
        seen, probes = jax.device_get((seen, probes))
        check_finite(seen, state, before, loop.saver.run_dir)
    left_out = steps_left_out(seen, before)
    epoch = Totals(
        at.epoch.steps + len(seen),
        add_up(map(without_left_out, seen), at.epoch.metrics),
        add_up(probes, at.epoch.diagnosis),
        at.epoch.left_out + left_out,
    )
    if left_out:
        earlier = [number for row in loop.records.log.rows for number in row.get("left_out", ())]
        loop.records.bar.line(f"not finite, update left out: step {', '.join(map(str, left_out))}")
        check_left_out([*earlier, *epoch.left_out], loop.saver.run_dir)
    return Progress(state, position, epoch), step


def end_epoch(loop: Loop, at: Progress, done: int) -> Progress:
    """Log the epoch that ends with step ``done``, validate and save where it is time, and print a line."""
    number, epochs = done // loop.per_epoch, loop.config.epochs
    row = training_row(loop, at.epoch, done)
    loop.records.log.add(row)
    if at.epoch.diagnosis:
        loop.records.log.add({"split": "diagnosis", "step": done, "epoch": number, **averages(at.epoch.diagnosis)})
    at = at._replace(epoch=NO_STEPS)
    quality: dict[str, float] = {}
    if number == epochs or number % loop.config.evaluate_every == 0:
        quality = evaluation(loop, at, done)
    if quality or number % loop.config.checkpoint_every == 0 or loop.saver.due():
        loop.saver.last(at, done)
    loop.records.bar.line(f"epoch {number}/{epochs}  {summary(row, quality)}")
    return at


def training_row(loop: Loop, epoch: Totals, done: int) -> Row:
    """The log's row of an epoch: means over its steps, the learning rate of the last one, and what they cost.

    Rates and seconds are of the steps of this process alone. ``seconds_checkpoint`` is of the checkpoints since the row
    before; the three ``seconds`` do not overlap. The device works on while the host makes the next batch, so
    ``seconds_data`` is lost time only where it is long beside ``seconds_step``.
    """
    number = done // loop.per_epoch
    row = {"split": "train", "step": done, "epoch": number, **with_prior_agreement(averages(epoch.metrics))}
    fitted, settings = loop.recipe.fitted, loop.recipe.settings["optimizer"]
    row["learning_rate"] = float(learning_rate(settings, done - 1, fitted.total_steps))
    if epoch.left_out:
        row |= {"updates_left_out": len(epoch.left_out), "left_out": list(epoch.left_out)}
    seconds = loop.records.watch.take("data", "step", "checkpoint")
    missed = max(0, loop.first - (done - loop.per_epoch)) * loop.config.batch_size
    busy = seconds["seconds_data"] + seconds["seconds_step"]
    row["images_per_second"] = (loop.training.per_epoch - missed) / busy
    return row | seconds | memory_of(loop.spread.mesh.local_devices[0])


def evaluation(loop: Loop, at: Progress, done: int) -> dict[str, float]:
    """Measure the validation part, log it, and save the parameters if they are the best so far."""
    with loop.records.watch.part("evaluation"):
        params = loop.spread.whole_state(at.state).evaluated
        quality = validate(params, loop.validation, loop.recipe, loop.spread, loop.config.batch_size)
    quality["score"] = score_of(quality, loop.config.monitor)
    better = quality["score"] > best_score(loop.records.log.rows)
    number, seconds = done // loop.per_epoch, loop.records.watch.take("evaluation")
    loop.records.log.add({"split": "validation", "step": done, "epoch": number, **quality, **seconds})
    if better:
        loop.saver.best(at, done)
    return quality
