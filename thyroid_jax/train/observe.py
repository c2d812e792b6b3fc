"""What other programs show of a training: a profile of some steps for Perfetto, and the log for TensorBoard."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from thyroid_jax import extras
from thyroid_jax.errors import names_a_full_disk
from thyroid_jax.train.log import Row

PROFILE, EVENTS = "profile", "tensorboard"
"""folders of a run folder, written on request"""
FIRST_STEPS = 2  # steps before a profile begins: they compile the step, or load it


class Profiler:
    """Trace ``steps`` steps of this process, after the first two, into ``folder``; 0 for none.

    Perfetto and TensorBoard's profile page open the trace. ``echo`` is called with a line when it is written, and with
    another when the training ended before there was a step to trace. Of a trace that cannot be written, as on a full
    disk, nothing is left.
    """

    def __init__(self, folder: Path, steps: int, echo: Callable[[str], None]):
        self._folder, self._steps, self._echo = folder, steps, echo
        self._seen, self._running = 0, False

    def before_step(self) -> None:
        """Start the trace where it is time."""
        if self._steps and self._seen == FIRST_STEPS:
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._running = True

    def after_step(self, state: Any) -> None:
        """Count a step; end the trace when all steps are in it, and wait for the device first."""
        self._seen += 1
        if self._running and self._seen == FIRST_STEPS + self._steps:
            jax.block_until_ready(state)
            self._write()

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *error: object) -> None:
        if self._running:
            self._write()
        elif self._steps and self._seen <= FIRST_STEPS:
            self._echo(f"no profile: this process trained {self._seen} steps, and a profile begins after {FIRST_STEPS}")

    def _write(self) -> None:
        self._running = False
        earlier = set(self._traces())
        try:
            with names_a_full_disk(self._folder):
                jax.profiler.stop_trace()
        except BaseException:
            for fragment in set(self._traces()) - earlier:
                shutil.rmtree(fragment, ignore_errors=True)
            raise
        traces = sorted(self._folder.rglob("perfetto_trace.json.gz"), key=lambda path: path.stat().st_mtime)
        self._echo(
            f"profile of {min(self._seen - FIRST_STEPS, self._steps)} steps: open {traces[-1]} at ui.perfetto.dev"
        )

    def _traces(self) -> list[Path]:
        """The folders of traces, one each, as JAX lays them out."""
        return list(self._folder.glob("plugins/profile/*"))


class EventFile:
    """A TensorBoard event file with the numbers of a run's log; the files of earlier processes are replaced.

    Written synchronously: a full disk is an error here, and not a thread that dies.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]):
        extras.require("tensorboardX")
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event

        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with names_a_full_disk(folder):
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            now = time.time()
            self._writer = RecordWriter(
                str(folder.absolute() / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}")
            )
            self._writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Write the numbers of a row as SPLIT/NAME at its step; None and lists are left out."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
        with names_a_full_disk(self._folder):
            for name, value in numbers.items():
                text = f"{row.get('split', 'train')}/{name}"
                event = Event(wall_time=time.time(), step=row["step"], summary=scalar(text, value))
                self._writer.write(event.SerializeToString())
            self._writer.flush()

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *error: object) -> None:
        # After a full disk the lines that did not fit are tried again here; the first message counts.
        with contextlib.suppress(OSError) if any(error) else names_a_full_disk(self._folder):
            self._writer.close()
