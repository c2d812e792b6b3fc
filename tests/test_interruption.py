"""SIGTERM and SIGINT to scripts that train: a checkpoint, one line that says how to go on, and an exit status."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import LEAST, QUICK, ROOT

from thyroid_jax import checkpoints
from thyroid_jax.train.signals import STATUS

FOR_EVER = ("--train.epochs", "1000000", *LEAST)


@pytest.fixture
def commands(train_command, tmp_path, drawn_data):
    """What to hand to subprocess, and the run folder: of one run, and of a grid of two cells."""
    fields = f"--methods plain --config tiny --folds 0 1 --data.name drawn --data.dir {drawn_data} --data.height 24"
    fields += f" --data.width 32 --train.evaluate-every 1000000 --out {tmp_path / 'grid'}"
    compare = [sys.executable, "-m", "experiments.compare", *fields.split(), *FOR_EVER]
    environment = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
    return {
        "train": (train_command(tmp_path / "run", *FOR_EVER), tmp_path / "run"),
        "compare": ({"args": compare, "env": environment}, tmp_path / "grid" / "plain-fold0-seed0"),
    }


@pytest.fixture(autouse=True)
def as_from_a_terminal():
    """Background jobs of a shell ignore SIGINT, and so do their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signalled(command, number):
    """The process's first lines up to that of an epoch, its exit status and its stderr, signalled after that line."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(**command, **pipes) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "epoch " in line:
                    break
            process.send_signal(number)
            _, errors = process.communicate()
        finally:
            process.kill()
    return "".join(lines), process.returncode, errors


@pytest.mark.parametrize("script", ["train", "compare"])
def test_a_signal_stops_with_a_checkpoint_and_the_same_command_goes_on(commands, script):
    command, run_dir = commands[script]
    step = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        said, status, errors = signalled(command, number)
        assert f"going on from step {step}\n" in said or not step
        before, step = step, checkpoints.steps(run_dir / "checkpoints" / "last")[0]
        assert status == STATUS[number], errors
        assert step > before
        assert errors.count(f"{number.name}: stopped after step {step}; the same command goes on from there") == 1
        assert "Traceback" not in errors
        assert not [path.name for path in run_dir.rglob("*") if "writing" in path.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", ["train", "compare"])
def test_before_and_after_the_training_a_signal_ends_with_one_line(commands, script, number):
    """As while the data are read: no traceback, and nothing catches what has no way on."""
    command, _ = commands[script]
    interrupted = (
        "import importlib, os, sys, thyroid_jax.runs as runs, thyroid_jax.runs.evaluation as evaluation\n"
        "number, name = int(sys.argv.pop(1)), sys.argv.pop(1)\n"
        "def read(*_, **__):\n    try:\n        os.kill(os.getpid(), number)\n"
        "    except BaseException:\n        sys.exit('caught')\n"
        "runs.train = evaluation.train = read\n"
        "importlib.import_module(name).main()\n"
    )
    words = [command["args"][0], "-c", interrupted, str(int(number)), *command["args"][2:]]
    done = subprocess.run(words, env=command["env"], capture_output=True, text=True, check=False)
    assert done.returncode == STATUS[number], done.stderr
    assert len(done.stderr.splitlines()) == 2 and f"{number.name}: stopped; the same command" in done.stderr


def test_the_help_states_the_statuses(capsys):
    from experiments import train

    with pytest.raises(SystemExit):
        train.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "exit status 75 or 130" in said
    for option in ("--checkpoint-minutes", "--nonfinite", "--tensorboard", "--profile"):
        assert option in said
