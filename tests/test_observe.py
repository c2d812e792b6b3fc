"""What is shown of a training: rates and parts in the log, lines at once, a trace for Perfetto, TensorBoard's files."""

import gzip
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from loop_runs import LITTLE, ToyRun, after, rows

from thyroid_jax.config import Config
from thyroid_jax.errors import InputError
from thyroid_jax.runs import train
from thyroid_jax.train.log import read_log
from thyroid_jax.train.observe import EventFile
from thyroid_jax.train.options import ProcessOptions
from thyroid_jax.train.progress import Stopwatch, memory_of, say


@pytest.fixture(scope="module")
def run(tiny_recipe, make_batch):
    return ToyRun(tiny_recipe(**LITTLE), make_batch)


def test_the_parts_of_a_stopwatch_add_up_and_start_again():
    times = iter([0.0, 1.0, 10.0, 12.0, 20.0, 20.5, 30.0, 34.0])
    watch = Stopwatch(lambda: next(times))
    for name in ("data", "step", "data"):
        with watch.part(name):
            pass
    assert watch.take("data", "other") == {"seconds_data": 1.5, "seconds_other": 0.0}
    with pytest.raises(KeyError), watch.part("step"):
        raise KeyError
    assert watch.take("data", "step") == {"seconds_data": 0.0, "seconds_step": 6.0}


def test_memory_is_told_where_the_device_tells_it():
    device = lambda stats: SimpleNamespace(memory_stats=lambda: stats)
    told = memory_of(device({"bytes_in_use": 5, "peak_bytes_in_use": 9, "num_allocs": 3}))
    assert told == {"device_bytes": 5, "device_bytes_peak": 9}
    assert memory_of(device(None)) == {} and memory_of(device({"bytes_in_use": 5})) == {"device_bytes": 5}


def test_a_line_is_there_at_once_where_the_output_is_a_file(tmp_path):
    """The process ends without flushing anything."""
    code = "import os; from thyroid_jax.train.progress import say; say('a line'); os._exit(0)"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "a line\n" and say.__doc__


@pytest.mark.parametrize("asked, traced", [(2, 2), (100, 8)])
def test_a_profile_opens_in_perfetto_and_holds_the_steps(run, tmp_path, asked, traced):
    run.echoed.clear()
    run.train(tmp_path, profile=asked)
    (said,) = (line for line in run.echoed if "profile of" in line)
    (path,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    assert said.startswith(f"profile of {traced} steps: open {path} ")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert {"X", "M"} <= {event.get("ph") for event in events}
    steps = [event for event in events if event.get("ph") == "X" and event["name"] == "train_step"]
    assert len(steps) == traced and all(event["dur"] > 0 for event in steps)


def test_a_profile_that_cannot_begin_says_so(run, tmp_path):
    run.echoed.clear()
    run.train(tmp_path, after(2), profile=3)
    assert any(line.startswith("no profile: this process trained 2 steps") for line in run.echoed)
    assert not (tmp_path / "profile").exists()


def test_a_missing_package_is_named_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"missing packages: tensorboardX\. .*'\.\[tensorboard\]'"):
        train(Config(), tmp_path / "run", options=ProcessOptions(tensorboard=True))
    assert not any(tmp_path.iterdir())


def events_of(folder):
    """(name, step, value) of every number in the folder's one event file, read back by the package's own message."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.iterdir()
    content, place, found = path.read_bytes(), 0, []
    while place < len(content):  # TFRecord: length u64, its crc u32, data, its crc u32
        length = int.from_bytes(content[place : place + 8], "little")
        event = Event.FromString(content[place + 12 : place + 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        place += 16 + length
    return found


def test_event_files_hold_the_numbers_of_the_log_also_after_an_interruption(run, tmp_path):
    pytest.importorskip("tensorboardX")
    run.train(tmp_path, after(6), tensorboard=True)
    run.train(tmp_path, tensorboard=True)
    expected = {
        (f"{row['split']}/{name}", row["step"]): value
        for row in read_log(tmp_path / "log.jsonl")
        for name, value in row.items()
        if isinstance(value, int | float) and name != "step"
    }
    found = events_of(tmp_path / "tensorboard")
    assert {(name, step): value for name, step, value in found} == pytest.approx(expected, rel=1e-6)
    assert len(found) == len(expected) > 40
    assert len(rows(tmp_path)) == 5


def test_what_is_no_number_is_left_out_of_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    with EventFile(tmp_path, [{"split": "train", "step": 3, "loss": 0.5, "dice": None, "histogram": [0.5, 0.5]}]):
        pass
    assert events_of(tmp_path) == [("train/loss", 3, 0.5)]
