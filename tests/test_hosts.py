"""Several processes train one run: their options, what they agree on, and real processes that stop and die."""

import os
import signal
import socket
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from conftest import LEAST, QUICK, ROOT
from loop_runs import DoubleRun, arrays_of, assert_rows_close, rows

from thyroid_jax import checkpoints
from thyroid_jax.errors import InputError, Interrupted
from thyroid_jax.files import alone_in
from thyroid_jax.train import devices, hosts
from thyroid_jax.train.devices import by_jit, by_pmap, data_mesh

PATIENCE = 900  # seconds until a test gives up on a process: far more than a busy machine needs


# --- one process ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"processes": 2}, "need distributed"),
        ({"process": 0}, "need distributed"),
        ({"heartbeat_seconds": 5}, "need distributed"),
        ({"distributed": "here"}, "HOST:PORT"),
        ({"distributed": ":1234"}, "HOST:PORT"),
        ({"distributed": "host:"}, "HOST:PORT"),
        ({"distributed": "host:1", "processes": 2, "process": 2}, "numbered from 0 to 1"),
        ({"distributed": "host:1", "processes": -1, "process": 0}, "processes -1"),
        ({"distributed": "host:1", "process": -2}, "process is -2"),
        ({"distributed": "auto", "heartbeat_seconds": 0}, "at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        hosts.HostOptions(**options)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--processes 2 --process 1", "need distributed"),
        ("--heartbeat-seconds 5", "need distributed"),
        ("--distributed here", "HOST:PORT"),
        ("--devices.distributed here", "HOST:PORT"),
        ("--profile -1", "profile is -1"),
    ],
)
def test_the_script_refuses_them_too(words, message, train_arguments, tmp_path, capsys):
    from experiments import train

    with pytest.raises(SystemExit) as ended:
        train.main(train_arguments(tmp_path / "run", *words.split()))
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert ended.value.code == 2 and message in said and not any(tmp_path.iterdir())


def test_options_that_mean_something():
    for options in ({}, {"distributed": "auto"}, {"distributed": "[::1]:99", "processes": 2, "process": 1}):
        hosts.HostOptions(**options)


def test_one_process_decides_alone_and_nothing_is_joined():
    hosts.join(hosts.HostOptions())
    assert hosts.first() and not hosts.several() and not jax.distributed.is_initialized()
    assert hosts.decided_by_first(lambda: {"a": (1, 2)}) == {"a": (1, 2)}
    tree = {"a": np.ones(3)}
    assert hosts.as_in_first(tree) is tree
    assert hosts.most(7) == 7
    hosts.check_same({"a": (1, 2)})
    agreement = hosts.Agreement(data_mesh())
    for answer in (True, False):
        assert agreement.now(answer) is answer and agreement.later(lambda answer=answer: answer) is answer


def test_where_no_cluster_is_found_the_message_says_what_to_give(monkeypatch):
    def initialize(*arguments, **more):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    with pytest.raises(InputError, match=r"--distributed auto: .*coordinator_address should be defined.*--processes"):
        hosts.join(hosts.HostOptions(distributed="auto"))


def test_only_what_another_process_caused_is_taken_for_its_end(monkeypatch):
    gone = ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    with pytest.raises(ValueError, match="Gloo"), hosts.together():
        raise gone  # there is no other process
    monkeypatch.setattr(hosts, "several", lambda: True)
    with pytest.raises(Interrupted, match="another process of this run has ended") as stopped, hosts.together():
        raise gone
    assert stopped.value.status == hosts.LOST == 69
    for error in (ValueError("shapes differ"), InputError("UNAVAILABLE"), jax.errors.JaxRuntimeError("out of memory")):
        with pytest.raises(type(error), match=str(error)), hosts.together():
            raise error


def test_pmap_over_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "_processes", lambda given: 2)
    with pytest.raises(InputError, match=r"set --devices\.mode jit"):
        by_pmap()


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def started():
    """Start processes that are all gone after the test: started(list of words, list of words, ...)."""
    running = []

    def start(*commands, env):
        for words in commands:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            running.append(subprocess.Popen(words, env=env, **pipes))
        return running[-len(commands) :]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def address():
    """HOST:PORT of this machine with a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def together(started, run_dir, number, what, steps):
    """Train by ``number`` processes; after ``steps`` the last one asks to stop or dies; (status, stdout, stderr)."""
    where = address()
    worker = [sys.executable, str(ROOT / "tests" / "hosts_worker.py"), str(run_dir), where, str(number)]
    words = [[*worker, str(place)] for place in range(number)]
    words[-1] += [what, str(steps)]
    env = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "1"}
    ends = [(process, *process.communicate(timeout=PATIENCE)) for process in started(*words, env=env)]
    return [(process.returncode, out, errors) for process, out, errors in ends]


def test_four_processes_then_two_then_one_train_the_run_of_one(started, tmp_path, x64):
    """Of the last batch of an epoch, the fourth process feeds padding alone; of the two, one dies."""
    run_dir, last = tmp_path / "moved", tmp_path / "moved" / "checkpoints" / "last"
    # The fourth process asks after step 4, the first of the second epoch: all stop one step later.
    for status, _, errors in together(started, run_dir, 4, "stop", 4):
        assert status == 75 and errors.endswith("stopped after step 5\n"), errors
    assert checkpoints.steps(last)[0] == 5
    # The second one dies two steps after that; the first one says so and ends.
    (status, _, errors), (killed, _, _) = together(started, run_dir, 2, "die", 2)
    assert killed == -signal.SIGKILL
    assert status == hosts.LOST and "another process of this run has ended" in errors, errors
    assert "Traceback" not in errors
    assert checkpoints.steps(last)[0] in (5, 6)
    run, whole = DoubleRun(by_jit(jax.devices()[:1])), tmp_path / "whole"
    for folder in (run_dir, whole):
        run.train(folder)
    for which in ("last", "best"):
        found, expected = arrays_of(run, run_dir, which), arrays_of(run, whole, which)
        assert {leaf.dtype for leaf in jax.tree.leaves(expected["params"])} == {np.dtype("float64")}
        chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-9)
        newest = [checkpoints.steps(place / "checkpoints" / which)[0] for place in (run_dir, whole)]
        assert newest[0] == newest[1]
    assert len(rows(whole)) == 9
    assert_rows_close(rows(run_dir), rows(whole))


def test_a_signal_to_one_process_stops_all_at_one_step(started, train_arguments, tmp_path):
    """By the script, with float32 and one lock for all."""
    run_dir, where = tmp_path / "run", address()
    words = [sys.executable, "-m", "experiments.train", *train_arguments(run_dir, *LEAST, "--train.epochs", "1000000")]
    members = [f"--distributed {where} --processes 2 --process {place}".split() for place in range(2)]
    env = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
    first, second = started(*([*words, *member] for member in members), env=env)
    for line in first.stdout:
        if "epoch " in line:
            break
    with pytest.raises(InputError, match="another process is writing into this folder"), alone_in(run_dir):
        pass
    second.send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=PATIENCE) for process in (first, second)]
    step = checkpoints.steps(run_dir / "checkpoints" / "last")[0]
    for process, (_, errors) in zip((first, second), said):
        assert process.returncode == 75, errors
        assert errors.count(f"SIGTERM: stopped after step {step}; the same command goes on from there") == 1
        assert "Traceback" not in errors
    assert "epoch" not in said[1][0] and "training" not in said[1][0]  # the first one speaks for both
    with alone_in(run_dir):
        pass


@pytest.mark.parametrize("numbers", [(0,), (1, 1)], ids=["one is missing", "the same number twice"])
def test_where_not_all_come_each_ends_with_one_message(started, numbers):
    where = address()
    code = (
        "from thyroid_jax.train import hosts; hosts.MEETING = 3.0; "
        f"hosts.join(hosts.HostOptions(distributed={where!r}, processes=2, process=%d))"
    )
    pairs = started(
        *([sys.executable, "-c", code % number] for number in numbers), env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    for process in pairs:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2, errors
        assert errors.startswith(f"error: --distributed {where}: after 3 s not all processes of the run had come.")
        assert len(errors.splitlines()) == 1


def test_processes_with_different_settings_are_refused_by_all(started, train_arguments, tmp_path):
    where = address()
    env = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "experiments.train", *train_arguments(tmp_path / "run")]
    members = [f"--distributed {where} --processes 2 --process {place}".split() for place in range(2)]
    pair = started([*words, *members[0]], [*words, *members[1], "--optimizer.learning-rate", "0.5"], env=env)
    ends = [process.communicate(timeout=PATIENCE)[1] for process in pair]
    assert [process.returncode for process in pair] == [2, 2], ends
    assert "optimizer.learning_rate differ" in ends[1] and "another process differs" in ends[0]
    assert not (tmp_path / "run").exists()
