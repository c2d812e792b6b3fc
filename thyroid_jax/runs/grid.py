"""Many runs, one after the other: each is computed once, also where several processes share the folder.

A finished run whose table of cases is there is read. Any other is trained, or goes on where it was stopped, and is
evaluated. A lock keeps two processes from computing the same run; the system releases it when a process ends, even a
killed one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.config import Config
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.files import alone_in
from thyroid_jax.runs.evaluation import held_out_cases, table_of
from thyroid_jax.runs.folder import Echo, check_settings, was_stopped

LOCKS = ".locks"  # folder beside the runs; a lock cannot be inside a run that does not exist yet


class Cell(NamedTuple):
    """One run of a grid: its method, its fold and seed as ``fold0-seed0``, its settings and its folder."""

    method: str
    run: str
    config: Config
    folder: Path


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise :class:`InputError` when a folder holds a run of other settings, before anything is trained."""
    for cell in cells:
        if (cell.folder / "config.json").is_file():
            check_settings(cell.folder / "config.json", cell.config)


def missing_cells(cells: Sequence[Cell], part: str = "test", *, flip: bool = False) -> list[Cell]:
    """The cells that have no table of cases of a finished run yet."""
    return [cell for cell in cells if not _is_there(cell, part, flip)]


def run_cells(
    cells: Sequence[Cell], *, part: str = "test", flip: bool = False, wait: float | None = 10.0, echo: Echo = print
) -> Iterator[tuple[Cell, list[Case]]]:
    """The held-out cases of every cell, in the order in which they are there.

    A cell that another process computes is passed over, with a line that says so, and looked at again after the
    others, every ``wait`` seconds; with None it is left to that process. After each computed cell a line says how many
    are done and about how long the rest takes, from the mean of those computed here. Raises what
    :func:`~thyroid_jax.runs.held_out_cases` raises.
    """
    waiting, seconds, told = list(cells), list[float](), set[Path]()
    done = len(cells) - len(missing_cells(cells, part, flip=flip))
    echo(f"{len(cells)} cells, {done} of them are there")
    done = 0
    while waiting:
        left = []
        for cell in waiting:
            there, started = _is_there(cell, part, flip), time.monotonic()
            with _alone_with(cell) as ours:
                if not (there or ours):
                    left.append(cell)
                    if cell.folder not in told:
                        echo(f"{cell.folder.name}: another process computes it; passed over for now")
                    told.add(cell.folder)
                    continue
                say = lambda text, cell=cell: echo(f"{cell.folder.name}: {text}")
                cases = held_out_cases(cell.config, cell.folder, part=part, flip=flip, echo=say)
            done += 1
            if not there:
                seconds.append(time.monotonic() - started)
                echo(progress(done, len(cells), seconds))
            yield cell, cases
        waited = len(left) == len(waiting)
        waiting = left
        if waited:
            if wait is None:
                return
            time.sleep(wait)


def progress(done: int, total: int, seconds: Sequence[float]) -> str:
    """How many cells are done, and about how long the others take at the mean of ``seconds``."""
    mean = sum(seconds) / len(seconds)
    left = (total - done) * mean
    about = f"{left / 3600:.1f} h" if left >= 5400 else f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    rest = f", about {about} left at {mean:.0f} s a cell" if done < total else ""
    return f"cells {done}/{total} done{rest}"


def _is_there(cell: Cell, part: str, flip: bool) -> bool:
    return table_of(cell.folder, part, flip=flip).is_file() and not was_stopped(cell.folder, cell.config.train)


@contextlib.contextmanager
def _alone_with(cell: Cell) -> Iterator[bool]:
    """Hold the cell's lock; False where another process holds it, or trains in the run's folder without it."""
    lock = cell.folder.parent / LOCKS / cell.folder.name
    lock.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone_in(lock))
            with alone_in(cell.folder) if cell.folder.is_dir() else contextlib.nullcontext():
                ours = True
        except InputError:
            ours = False
        yield ours
