"""What a person sees while a run trains, and how long its parts take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from thyroid_jax.train.totals import Averages


def say(text: str) -> None:
    """Print a line at once, also where the output is a file or a pipe."""
    print(text, flush=True)


class ProgressBar:
    """A bar with rate and remaining time on a terminal; elsewhere one plain line for every :meth:`line`."""

    def __init__(self, total: int, done: int, echo: Callable[[str], None], *, drawn: bool = True):
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not (drawn and sys.stderr.isatty()))
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


class Stopwatch:
    """Seconds that the parts of the training took since they were last taken.

    ``clock`` gives seconds that only grow. What runs inside one part is not part of another.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the ``with`` block to ``name``."""
        started = self.clock()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + self.clock() - started

    def take(self, *names: str) -> dict[str, float]:
        """``seconds_NAME`` of each part, 0 for one that did not run; they start at 0 again."""
        return {f"seconds_{name}": self._seconds.pop(name, 0.0) for name in names}


def memory_of(device: Any) -> dict[str, int]:
    """Bytes in use on a JAX device, and the most that were in use; {} for a device that does not tell (a CPU)."""
    stats = device.memory_stats() or {}
    told = {"device_bytes": "bytes_in_use", "device_bytes_peak": "peak_bytes_in_use"}
    return {name: int(stats[key]) for name, key in told.items() if key in stats}


def summary(row: Averages, quality: dict[str, float]) -> str:
    """One epoch in one line: the losses, the mean cosine, and the validation if there was one."""
    parts = [f"loss {row['loss']:.3f}"]
    parts += [f"{name.removeprefix('loss_')} {row[name]:.3f}" for name in row if name.startswith("loss_")]
    parts += [f"cosine {row['cosine']:+.3f}"] if "cosine" in row else []
    shown = ("dice", "balanced_accuracy", "quadratic_kappa", "malignant_auroc")
    parts += [f"| validation {name} {quality[name]:.3f}" for name in shown if name in quality]
    return "  ".join(parts)
