"""A grid in several jobs of a cluster (SLURM), or in several processes of this machine, through submitit.

Every job computes cells that no other is at, and ends when only those of others are left. A job that is stopped by its
time limit or by preemption leaves a checkpoint, is queued again, and goes on.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from thyroid_jax import extras
from thyroid_jax.errors import InputError, Interrupted
from thyroid_jax.runs.folder import Echo
from thyroid_jax.runs.grid import Cell, missing_cells, run_cells
from thyroid_jax.runs.job_options import JobOptions
from thyroid_jax.train.progress import say
from thyroid_jax.train.signals import STATUS

FOLDER = "jobs"
"""folder beside the runs: logs of the jobs, and what submitit hands over to them"""
QUEUED_AGAIN = 100  # times that a job may reach its time limit


class Grid(NamedTuple):
    """The cells of one data set, and which table of cases is wanted of each."""

    cells: list[Cell]
    part: str
    flip: bool


@dataclass(frozen=True)
class Worker:
    """What one job does. ``prepare`` makes a script's settings before JAX starts."""

    grids: tuple[Grid, ...]
    prepare: Callable[[], None]

    def __call__(self) -> None:
        """Compute cells until all are there or held by other jobs.

        At submitit's signal the training in hand writes a checkpoint first; then the job is queued again. Any other
        signal that stops the training ends the job (:class:`Interrupted`).
        """
        with _after_a_checkpoint() as queue_again:
            self.prepare()
            try:
                for grid in self.grids:
                    for _ in run_cells(grid.cells, part=grid.part, flip=grid.flip, wait=None, echo=say):
                        queue_again()
            except Interrupted:
                queue_again()
                raise

    def checkpoint(self) -> Any:
        """The job to queue again, for submitit: this one. What is done lies in the run folders."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@contextlib.contextmanager
def _after_a_checkpoint() -> Iterator[Callable[[], None]]:
    """Inside the ``with`` block, submitit's signal stops a training as SIGTERM does; elsewhere it acts at once.

    The value does what that signal asks for: it ends the process and queues the job again. Without such a signal it
    does nothing.
    """
    from submitit import JobEnvironment

    number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
    act, idle = signal.getsignal(number), signal.getsignal(signal.SIGTERM)
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            return
        asked.append(number)
        if signal.getsignal(signal.SIGTERM) == idle:  # no training that heeds it
            queue_again()
        else:
            signal.raise_signal(signal.SIGTERM)

    def queue_again() -> None:
        if asked and callable(act):
            act(number, None)

    signal.signal(number, note)
    try:
        yield queue_again
    finally:
        signal.signal(number, act)


# --- the caller -------------------------------------------------------------------------------------------------------


def run_jobs(
    grids: Sequence[Grid],
    folder: Path,
    options: JobOptions,
    prepare: Callable[[], None],
    *,
    wait: float = 2.0,
    echo: Echo = print,
) -> None:
    """Submit the jobs, wait for their ends, and say which of them failed; every cell is there afterwards.

    ``folder`` holds the jobs' logs, one a job, and ``options.submit`` is local or slurm. ``prepare`` is handed over by
    its module's name. No more jobs are submitted than there are cells to compute. Ctrl-C cancels the jobs and raises
    :class:`Interrupted`. Raises :class:`InputError` where jobs cannot be submitted, and where cells are missing at the
    end, with the errors and logs of the jobs that failed.
    """
    left = _missing(grids)
    if not left:
        return
    extras.require("submitit")
    jobs: list[Any] = []
    try:
        for job in _submitted(Worker(tuple(grids), prepare), min(options.jobs, left), folder, options):
            jobs.append(job)
            echo(f"job {job.job_id}: {job.paths.stdout}")
        while not all([job.done() for job in jobs]):
            time.sleep(wait)
            if (now := _missing(grids)) < left:
                left = now
                echo(f"{left} cells left")
    except BaseException as error:
        for job in jobs:
            job.cancel(check=False)
        if isinstance(error, KeyboardInterrupt):
            text = "the jobs are cancelled; the same command goes on"
            raise Interrupted(text, status=STATUS[signal.SIGINT]) from error
        raise
    ends = [(job, job.exception()) for job in jobs]
    failed = [f"job {job.job_id}: {_last_line(end)}, see {job.paths.stdout}" for job, end in ends if end]
    if _missing(grids):
        failed = failed or ["no job failed, but another process was at work in a run's folder"]
        raise InputError("\n  ".join(["cells are missing; mend the cause and repeat the command:", *failed]))
    for text in failed:
        echo(f"{text}; the other jobs computed its cells")


def _missing(grids: Sequence[Grid]) -> int:
    return sum(len(missing_cells(grid.cells, grid.part, flip=grid.flip)) for grid in grids)


def _submitted(worker: Worker, number: int, folder: Path, options: JobOptions) -> Iterator[Any]:
    import submitit

    chosen: dict[str, Any] = {
        "timeout_min": options.job_minutes,
        "gpus_per_node": options.job_gpus,
        "stderr_to_stdout": True,
    }
    try:
        if options.submit == "local":
            local = submitit.LocalExecutor(folder, max_num_timeout=QUEUED_AGAIN)
            for place in range(number):
                first = place * options.job_gpus
                local.update_parameters(**chosen, visible_gpus=tuple(range(first, first + options.job_gpus)))
                yield local.submit(worker)
            return
        slurm = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=QUEUED_AGAIN)
        chosen |= {"name": "thyroid_jax", "cpus_per_task": options.job_cpus, "mem_gb": options.job_memory_gb}
        names = {"slurm_partition": options.job_partition, "slurm_account": options.job_account}
        slurm.update_parameters(**chosen, **{name: value for name, value in names.items() if value})
        for _ in range(number):
            yield slurm.submit(worker)
    except RuntimeError as error:
        raise InputError(f"--submit {options.submit}: {error}") from error


def _last_line(error: Exception) -> str:
    """The last line of a job's traceback, or of its log where it ended without one."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith((" ", "---", "You can check"))]
    return lines[-1] if lines else type(error).__name__
