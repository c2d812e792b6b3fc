"""A grid in jobs: submitit's local processes compute it, go on when they are queued again, and name their faults."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from thyroid_jax.config import Config
from thyroid_jax.errors import InputError, Interrupted
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.runs import grid, jobs


@pytest.fixture
def cells(tmp_path):
    return [grid.Cell("m", f"fold{fold}-seed0", Config(), tmp_path / f"m-fold{fold}-seed0") for fold in range(3)]


def finish(cell):
    write_cases(grid.table_of(cell.folder), [Case(case=cell.folder.name, group="g")])


def run(cells, folder, said, **options):
    chosen = jobs.JobOptions(submit="local", **options)
    jobs.run_jobs([jobs.Grid(cells, "test", False)], folder, chosen, print, wait=0.01, echo=said.append)


def test_a_local_job_goes_on_after_its_checkpoint_and_a_fault_is_named_with_the_log(cells, tmp_path):
    """In the job, fold 0 is computed; fold 1 is stopped by submitit's signal, and computed in turn; fold 2 fails."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")

    def prepare():  # runs in the job, and makes its trainings quick
        import os
        import signal

        from thyroid_jax.errors import InputError, Interrupted
        from thyroid_jax.evaluate.cases import Case, write_cases
        from thyroid_jax.runs import grid
        from thyroid_jax.train.signals import heeded

        def held_out_cases(config, folder, *, part, flip, echo):
            checkpoint = folder / "checkpoint"
            if "fold1" in folder.name and not checkpoint.exists():
                with heeded() as asked:
                    os.kill(os.getpid(), signal.SIGUSR2)
                    folder.mkdir()
                    checkpoint.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
                assert asked()
                raise Interrupted("stopped", status=75)
            if "fold2" in folder.name:
                raise InputError("no such data set")
            table, cases = grid.table_of(folder, part, flip=flip), [Case(case=folder.name, group="g")]
            if not table.exists():
                echo("computed")
                write_cases(table, cases)
            return cases

        grid.held_out_cases = held_out_cases

    said = []
    chosen = jobs.JobOptions(submit="local", jobs=1, job_gpus=2)
    with pytest.raises(
        InputError, match=r"(?s)cells are missing.*job \d+: .*InputError: no such data set, see (.*)$"
    ) as error:
        jobs.run_jobs([jobs.Grid(cells, "test", False)], tmp_path / "jobs", chosen, prepare, wait=0.1, echo=said.append)
    log = str(error.value).rpartition("see ")[2]
    told = Path(log).read_text()
    assert said[0].endswith(log) and said[-1] == "1 cells left"
    assert told.count("fold0-seed0: computed") == told.count("fold1-seed0: computed") == told.count("Requeued job") == 1
    assert [cell.run for cell in grid.missing_cells(cells)] == ["fold2-seed0"]
    assert (cells[1].folder / "checkpoint").read_text() == "0,1" and os.environ.get("CUDA_VISIBLE_DEVICES") == before


class FakeJob:
    def __init__(self, done, error=None):
        self.job_id, self.paths, self.cancelled = "7", SimpleNamespace(stdout="jobs/7.out"), False
        self.done, self.error = done, error

    def exception(self):
        return self.error

    def cancel(self, check):
        self.cancelled = True


def test_what_a_failed_job_left_and_others_computed_is_no_fault(cells, tmp_path, monkeypatch):
    broken = FakeJob(lambda: True, RuntimeError("state: FAILED\n---\nslurmstepd: node is down\n"))

    def others():
        for cell in cells:
            finish(cell)
        return True

    asked = []
    fakes = [broken, FakeJob(others)]
    monkeypatch.setattr(jobs, "_submitted", lambda worker, number, folder, options: asked.append(number) or fakes)
    said = []
    run(cells, tmp_path / "jobs", said, jobs=9)
    assert asked == [3]  # no more jobs than cells
    assert said[-1] == "job 7: slurmstepd: node is down, see jobs/7.out; the other jobs computed its cells"
    run(cells, tmp_path / "jobs", said)
    assert asked == [3] and not broken.cancelled


def test_ctrl_c_cancels_the_jobs(cells, tmp_path, monkeypatch):
    def done():
        raise KeyboardInterrupt

    fakes = [FakeJob(done), FakeJob(done)]
    monkeypatch.setattr(jobs, "_submitted", lambda *given: fakes)
    with pytest.raises(Interrupted, match="the same command goes on") as stopped:
        run(cells, tmp_path / "jobs", [])
    assert stopped.value.status == 130 and all(job.cancelled for job in fakes)


def test_cells_of_a_process_outside_the_jobs_are_missing_and_said_to_be(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_submitted", lambda *given: [FakeJob(lambda: True)])
    with pytest.raises(InputError, match="no job failed, but another process"):
        run(cells, tmp_path / "jobs", [])


def test_a_worker_leaves_the_cells_of_others_and_ends(cells, monkeypatch):
    def held_out_cases(config, folder, **options):
        finish(next(cell for cell in cells if cell.folder == folder))
        return []

    monkeypatch.setattr(grid, "held_out_cases", held_out_cases)
    with grid._alone_with(cells[0]) as ours:
        assert ours
        jobs.Worker((jobs.Grid(cells, "test", False),), lambda: None)()
    assert grid.missing_cells(cells) == [cells[0]]


def test_without_a_training_the_signal_acts_at_once_and_only_once():
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        with jobs._after_a_checkpoint() as queue_again:
            queue_again()
            assert not seen
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR2)
            assert seen == [signal.SIGUSR2]
        signal.raise_signal(signal.SIGUSR2)
        assert len(seen) == 2  # the handler of before
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """SLURM's commands, which keep the file that they are given: the folder of both."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", "exit 0"), ("sbatch", f"cat $1 > {folder}/given; echo Submitted batch job 12")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm_is_asked_for_what_the_options_say(cells, tmp_path, slurm):
    options = jobs.JobOptions("slurm", job_minutes=30, job_gpus=1, job_cpus=8, job_memory_gb=32, job_partition="short")
    worker = jobs.Worker((jobs.Grid(cells, "test", False),), print)
    (job,) = jobs._submitted(worker, 1, tmp_path / "jobs", options)
    assert job.job_id == "12"
    given = {line.removeprefix("#SBATCH --") for line in (slurm / "given").read_text().splitlines()}
    asked = {"time=30", "gpus-per-node=1", "cpus-per-task=8", "mem=32GB", "partition=short", "signal=USR2@90"}
    assert asked < given and not any(line.startswith(("account", "error")) for line in given)


def test_a_refused_submission_and_a_machine_without_slurm_give_one_message(cells, tmp_path, slurm, monkeypatch):
    worker, options = jobs.Worker((), print), jobs.JobOptions("slurm")
    (slurm / "sbatch").write_text("#!/bin/sh\necho sbatch: error: invalid partition >&2; exit 1\n")
    with pytest.raises(InputError, match=r"--submit slurm: .*invalid partition"):
        list(jobs._submitted(worker, 1, tmp_path / "jobs", options))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r'--submit slurm: Could not detect "srun"'):
        list(jobs._submitted(worker, 1, tmp_path / "jobs", options))


@pytest.mark.parametrize("field, least", [("jobs", 1), ("job_minutes", 1), ("job_gpus", 0)])
def test_impossible_numbers_are_named(field, least):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')} is {least - 1}; it must be at least {least}"):
        jobs.JobOptions(**{field: least - 1})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"jobs": 2}, "--jobs does nothing with --submit no; leave it out, or give --submit local or slurm"),
        ({"submit": "local", "job_cpus": 8}, "--job-cpus does nothing with --submit local; .*give --submit slurm"),
        ({"submit": "local", "job_account": "a"}, "--job-account does nothing"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        jobs.JobOptions(**options)
