"""A disk that fills at any write of a run: one error that names the place, nothing half-written, nothing lost."""

import contextlib
import errno
import os
import resource
import shutil

import chex
import jax
import pytest
from loop_runs import LITTLE, ToyRun, after, arrays_of, rows

from thyroid_jax import checkpoints, files
from thyroid_jax.train.log import RunLog, read_log
from thyroid_jax.train.observe import EventFile
from thyroid_jax.train.options import TrainConfig

CONFIG = TrainConfig(epochs=1, batch_size=4, evaluate_every=1, diagnose_every=3)


@pytest.fixture(scope="module")
def run(tiny_recipe, make_batch):
    return ToyRun(tiny_recipe(**LITTLE), make_batch, CONFIG)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    run.train(run_dir)
    return run_dir


def leftovers(run_dir):
    return [path.name for path in run_dir.rglob("*") if "writing" in path.name or "tmp" in path.name]


def assert_nothing_lost(run, run_dir, whole):
    assert leftovers(run_dir) == []
    text = (run_dir / "log.jsonl").read_text() if (run_dir / "log.jsonl").exists() else ""
    assert text == "" or text.endswith("\n")
    for name in ("last", "best"):
        for step in checkpoints.steps(run_dir / "checkpoints" / name):
            checkpoints.read_facts(run_dir / "checkpoints" / name, step)
    run.train(run_dir)
    assert rows(run_dir) == rows(whole)
    for which in ("last", "best"):
        chex.assert_trees_all_equal(arrays_of(run, run_dir, which), arrays_of(run, whole, which))


class FullDisk:
    """Counts the writes of a run, and lets one of them fail as a full disk does."""

    def __init__(self, failing):
        self.failing, self.count = failing, 0

    def __call__(self, real):
        def write(*args, **kwargs):
            self.count += 1
            if self.count == self.failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return write


@contextlib.contextmanager
def failing_write(number):
    """Every write: the log's lines, the files beside their place and their renaming, and the arrays of checkpoints."""
    from orbax.checkpoint import Checkpointer

    disk = FullDisk(number)
    with pytest.MonkeyPatch.context() as patch:
        for place, name in ((os, "fsync"), (os, "replace"), (files.tempfile, "mkstemp"), (Checkpointer, "save")):
            patch.setattr(place, name, disk(getattr(place, name)))
        yield disk


def writes_of(run, folder):
    with failing_write(0) as disk:
        run.train(folder, checkpoint_minutes=1e-9)
    return disk.count


def test_a_failure_at_any_write_loses_nothing(run, whole, tmp_path):
    """Every third of them; which ones follows from the process, so that in time all are tried."""
    count = writes_of(run, tmp_path / "counted")
    tried = range(1 + os.getpid() % 3, count + 1, 3)
    assert len(tried) >= 13
    for number in tried:
        run_dir = tmp_path / str(number)
        with failing_write(number), pytest.raises(OSError, match="No space left on device") as error:
            run.train(run_dir, checkpoint_minutes=1e-9)
        assert (error.value.errno, str(error.value.filename).startswith(str(run_dir))) == (errno.ENOSPC, True), number
        assert leftovers(run_dir) == [], number
        if number % 4 == 0:  # the others differ in what is resumed only, and that is tested elsewhere
            assert_nothing_lost(run, run_dir, whole)


@contextlib.contextmanager
def largest_file(size):
    """The system refuses to write a file beyond ``size`` bytes, also to orbax's own threads."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 200, 20_000])
def test_a_system_that_refuses_to_write_loses_nothing(run, whole, tmp_path, size):
    """The log's first line fails, or the room for a checkpoint."""
    run.train(tmp_path, lambda: True)  # the two tables of the log are there
    with largest_file(size), pytest.raises(OSError, match="File too large") as error:
        run.train(tmp_path, checkpoint_minutes=1e-9)
    assert error.value.errno == errno.EFBIG and str(error.value.filename).startswith(str(tmp_path))
    assert_nothing_lost(run, tmp_path, whole)


def test_nothing_of_a_line_that_did_not_fit_is_left(tmp_path):
    log = RunLog(tmp_path, after=0)
    log.add({"step": 1})
    before = (tmp_path / "log.jsonl").read_bytes()
    with largest_file(len(before) + 5), pytest.raises(OSError, match="File too large"):
        log.add({"step": 2, "loss": 0.25})
    assert (tmp_path / "log.jsonl").read_bytes() == before and log.rows == [{"step": 1}]
    log.add({"step": 2})
    assert log.rows == read_log(tmp_path / "log.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_full_disk_is_named_and_nothing_of_a_profile_is_left(run, tmp_path):
    """The trace and TensorBoard's file are written by others: JAX leaves fragments, tensorboardX fails again at its
    end, without a file's name.
    """
    pytest.importorskip("tensorboardX")
    run.train(tmp_path, after(4), profile=1)
    earlier = [path for path in (tmp_path / "profile").rglob("*") if path.is_file()]
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(OSError, match="File too large") as error, largest_file(2000):
        run.train(tmp_path, profile=1, tensorboard=True)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(tmp_path / "profile"))
    assert [path for path in (tmp_path / "profile").rglob("*") if path.is_file()] == earlier
    with contextlib.suppress(RuntimeError):  # from 0.12 on JAX has ended it
        jax.profiler.stop_trace()  # else this process could trace no more


def test_the_end_of_an_event_file_keeps_the_first_message(tmp_path):
    pytest.importorskip("tensorboardX")
    row = {"split": "train", "step": 1, **{f"value_{number}": 1.0 for number in range(9)}}
    with pytest.raises(OSError, match="File too large") as error, largest_file(200), EventFile(tmp_path, []) as events:
        events.add(row)
    assert error.value.filename == str(tmp_path)
