"""A whole run, killed at any moment and gone on with: the same parameters to the bit. A run that blows up: stopped and named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from data_prep import builder
from data_prep.schema import Card, Record
from thyroid_jax.config import Config, ModelConfig
from thyroid_jax.predict import load_run

ROOT = Path(__file__).parent.parent
CARD = Card(name="drawn", title="Drawn", source="test", licence="-", labels="-", grouping="case", grades=("low", "middle", "high"))


def drawn(notes):
    """Thirty discs, darker and rougher with the grade; two images of every case."""
    rng = np.random.default_rng(0)
    for number in range(30):
        grade = number // 2 % 3
        rows, columns = np.mgrid[:24, :32]
        mask = (rows - rng.uniform(9, 15)) ** 2 + (columns - rng.uniform(12, 20)) ** 2 < rng.uniform(4, 7) ** 2
        image = np.clip(150 - 30 * grade * mask + rng.normal(size=mask.shape) * (10 + 5 * grade), 1, 255).astype(np.uint8)
        yield Record(case=f"{number // 2}_{number % 2}", group=str(number // 2), source="-", image=image, mask=mask, grade=grade)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    builder.build(CARD, drawn, folder)
    return folder


def command(data, run_dir, *more):
    fields = "--config tiny --data.name drawn --data.height 24 --data.width 32 --train.epochs 6 --train.evaluate-every 2"
    fields += " --train.batch-size 4"
    return [sys.executable, "-m", "experiments.train", *fields.split(), "--data.dir", str(data), "--run-dir", str(run_dir), *more]


def environment():
    own = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return own | {"PYTHONPATH": str(ROOT)}


def train(data, run_dir, *more):
    return subprocess.run(command(data, run_dir, *more), env=environment(), cwd=run_dir.parent, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """An uninterrupted run."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    result = train(data, run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir


def rows(run_dir):
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def parameters(run_dir, which="last"):
    return load_run(run_dir, checkpoint=which).params


def test_a_run_folder_holds_what_it_should_and_nothing_else(finished):
    assert sorted(path.name for path in finished.iterdir()) == ["checkpoints", "config.json", "log.jsonl", "metrics.csv", "split.json"]
    log = rows(finished)
    assert [row["epoch"] for row in log if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in log if row["split"] == "validation"] == [2, 4, 6]
    scores = {row["step"]: row["score"] for row in log if row["split"] == "validation"}
    assert load_run(finished, checkpoint="best").step == max(scores, key=scores.get)
    assert load_run(finished, checkpoint="last").step == max(scores)
    assert (finished / "metrics.csv").read_text().count("\n") == len(log) + 1


@pytest.mark.parametrize("moment", ["right after a checkpoint", "in the middle of an epoch", "at any moment"])
def test_killed_and_run_again_it_ends_with_the_same_bits(data, finished, tmp_path, moment):
    run_dir = tmp_path / "killed"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command(data, run_dir), env=environment(), cwd=tmp_path, **quiet)
    anywhere = np.random.default_rng().uniform(0, 0.3)
    wait = {"right after a checkpoint": 0.0, "in the middle of an epoch": 0.02, "at any moment": anywhere}[moment]
    deadline = time.monotonic() + 120
    while process.poll() is None and not list(run_dir.glob("checkpoints/last/[0-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = train(data, run_dir)
    assert result.returncode == 0, result.stderr
    chex.assert_trees_all_equal(jax.device_get(parameters(run_dir)), jax.device_get(parameters(finished)))
    chex.assert_trees_all_equal(jax.device_get(parameters(run_dir, "best")), jax.device_get(parameters(finished, "best")))
    assert rows(run_dir) == rows(finished)


def test_the_same_command_after_the_end_does_nothing_more(data, finished):
    before = rows(finished)
    result = train(data, finished)
    assert result.returncode == 0, result.stderr
    assert "going on from step" in result.stdout
    assert rows(finished) == before


def test_another_configuration_in_the_same_folder_is_refused(data, finished):
    result = train(data, finished, "--optimizer.learning-rate", "0.5", "--rlar.weight", "3")
    assert result.returncode == 2
    assert "optimizer.learning_rate, rlar.weight differ" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_that_blows_up_names_the_step_the_parts_and_the_last_good_checkpoint(data, tmp_path):
    run_dir = tmp_path / "hot"
    result = train(data, run_dir, "--optimizer.learning-rate", "1e30", "--optimizer.clip", "0", "--optimizer.warmup", "0.5")
    assert result.returncode == 2, result.stdout
    assert "no longer finite" in result.stderr
    assert "step " in result.stderr and "loss_segmentation" in result.stderr and "loss_grading" in result.stderr
    assert "checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    saved = run_dir / "checkpoints" / "last"
    if any(saved.iterdir()):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(parameters(run_dir))))


def test_a_checkpoint_of_another_configuration_is_refused(finished, tmp_path, data):
    run_dir = tmp_path / "mixed"
    shutil.copytree(finished, run_dir)
    config = json.loads((run_dir / "config.json").read_text())
    config["model"]["hidden"] = 8
    (run_dir / "config.json").write_text(json.dumps(config))
    result = train(data, run_dir, "--model.hidden", "8")
    assert result.returncode == 2
    assert "checkpoint is of another configuration" in result.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.name", "nothing"], "'nothing' has not been built there"),
        (["--data.height", "25"], "must be multiples of 4"),
        (["--train.batch-size", "0"], "batch_size"),
        (["--data.folds", "40"], "only 15 groups"),
        (["--data.fold", "9"], "the folds are 0 to 4"),
    ],
)
def test_settings_that_cannot_work_end_in_one_message(data, tmp_path, more, message):
    result = train(data, tmp_path / "run", *more)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_presets_can_be_read_back():
    from experiments.configs import CONFIGS
    from thyroid_jax.config import from_dict, to_dict

    for make in CONFIGS.values():
        assert from_dict(Config, json.loads(json.dumps(to_dict(make())))) == make()
    assert CONFIGS["base"]().model == ModelConfig.preset("base", dtype="bfloat16")
