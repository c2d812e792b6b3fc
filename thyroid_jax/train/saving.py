"""When a checkpoint of a run is due, and what goes into it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from thyroid_jax import checkpoints
from thyroid_jax.errors import InputError
from thyroid_jax.recipe import Recipe
from thyroid_jax.train.devices import Spread, on_this_host
from thyroid_jax.train.hosts import first
from thyroid_jax.train.progress import Stopwatch
from thyroid_jax.train.step import TrainState
from thyroid_jax.train.totals import NO_STEPS, Totals, totals_from_json, totals_to_json

EPOCH = "epoch_part"  # the fact of a checkpoint within an epoch: what the epoch's steps add up to


class Progress(NamedTuple):
    """Where a run is: the state, the position in the data after it, and the sums of the epoch that it is in.

    Args:
        state: on the host, or on devices as the run's ``Spread`` keeps it.
        position: in the data; None at the start.
        epoch: what the steps of the present epoch add up to; of no step at an epoch's end.
    """

    state: TrainState
    position: dict[str, Any] | None
    epoch: Totals = NO_STEPS


def resumed(state: TrainState, facts: Mapping[str, Any]) -> Progress:
    """The progress that a checkpoint holds: its state, and its facts, those of earlier versions too."""
    return Progress(state, facts["position"], totals_from_json(facts[EPOCH]) if EPOCH in facts else NO_STEPS)


def check_epoch(start: Progress, per_epoch: int) -> None:
    """Raise :class:`InputError` where a state within an epoch comes without the sums of the epoch's steps."""
    step, summed = int(start.state.step), start.epoch.steps
    if step % per_epoch != summed:
        raise InputError(
            f"the checkpoint of step {step} holds the sums of {summed} steps of its epoch, and not of "
            f"{step % per_epoch}: the epoch's row in the log would be wrong. Move this checkpoint away, and the run "
            "goes on from the one before."
        )


class Saver:
    """Writes a run's checkpoints. ``step`` is that of the newest one, or the run's first.

    Of several processes the first one writes; for the others nothing is ever due or written.

    Args:
        run_dir: the run folder.
        spread: how states lie on the devices.
        recipe: of the run; its fitted values go into each checkpoint.
        facts: JSON values that go into each checkpoint.
        step: the number of steps done at the start.
        minutes: time after which a checkpoint is due; 0 for never.
        watch: counts the seconds of writing as ``checkpoint``.
    """

    def __init__(
        self,
        run_dir: Path,
        spread: Spread,
        recipe: Recipe,
        facts: dict[str, Any],
        step: int,
        minutes: float,
        watch: Stopwatch,
    ):
        self.run_dir, self.step = run_dir, step
        self._spread, self._recipe, self._facts, self._watch = spread, recipe, facts, watch
        self._writes = first()
        self._pause = 60 * minutes or math.inf
        self._written = watch.clock()

    def due(self) -> bool:
        """Whether the time after the last checkpoint is up."""
        return self._writes and self._watch.clock() - self._written >= self._pause

    def last(self, at: Progress, step: int) -> None:
        """Write the checkpoint ``last/STEP``, from which the run resumes, unless it is there already."""
        if self._writes and self.step != step:
            partial = {EPOCH: totals_to_json(at.epoch)} if at.epoch.steps else {}
            state = on_this_host(self._spread.whole_state(at.state))
            self._write("last", step, state.packed(), at, partial, kept=checkpoints.KEPT)
            self.step, self._written = step, self._watch.clock()

    def best(self, at: Progress, step: int) -> None:
        """Write the checkpoint ``best/STEP``: the parameters to predict with.

        It comes before the last one of that step: a run killed between the two resumes from an earlier step and
        reaches this one again.
        """
        if not self._writes:
            return
        params = on_this_host(self._spread.whole_state(at.state).evaluated)
        self._write("best", step, {"params": params}, at, {}, kept=1)

    def _write(self, name: str, step: int, arrays: dict[str, Any], at: Progress, more: dict, *, kept: int) -> None:
        arrays |= {"fitted": self._recipe.fitted}
        facts = self._facts | {"position": at.position} | more
        with self._watch.part("checkpoint"):
            checkpoints.save(self.run_dir / "checkpoints" / name, step, arrays, facts, kept=kept)
