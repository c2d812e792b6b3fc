"""A whole run, killed at any moment and gone on with: the same parameters to the bit. A run that blows up: stopped and
named.
"""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from data_prep import builder
from experiments.train import check_consistency, check_monitor, check_tasks, shape_means
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, ConsistencyConfig, ModelConfig, MTLConfig
from thyroid_jax.data.pipeline import Examples
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError
from thyroid_jax.files import alone_in
from thyroid_jax.losses import consistency
from thyroid_jax.predict import load_run
from thyroid_jax.radiomics import soft
from thyroid_jax.train.loop import what_the_prior_says


def rows(run_dir):
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def parameters(run_dir, which="last"):
    return load_run(run_dir, checkpoint=which).params


def test_a_run_folder_holds_what_it_should_and_nothing_else(finished):
    assert sorted(path.name for path in finished.iterdir()) == [
        "checkpoints",
        "config.json",
        "log.jsonl",
        "metrics.csv",
        "split.json",
    ]
    log = rows(finished)
    assert [row["epoch"] for row in log if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in log if row["split"] == "validation"] == [2, 4, 6]
    scores = {row["step"]: row["score"] for row in log if row["split"] == "validation"}
    assert load_run(finished, checkpoint="best").step == max(scores, key=scores.get)
    assert load_run(finished, checkpoint="last").step == max(scores)
    assert (finished / "metrics.csv").read_text().count("\n") == len(log) + 1


@pytest.mark.parametrize(
    "moment", ["before the first checkpoint", "right after a checkpoint", "in an epoch", "at any moment"]
)
def test_killed_and_run_again_it_ends_with_the_same_bits(finished, tmp_path, moment, train_command, train):
    run_dir = tmp_path / "killed"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(**train_command(run_dir), **quiet)
    delay = {"in an epoch": 0.02, "at any moment": np.random.default_rng().uniform(0, 0.3)}.get(moment, 0.0)
    print(f"killed {delay:.4f} s later")  # pytest shows it when the test fails
    sign = "config.json" if moment == "before the first checkpoint" else "checkpoints/last/[0-9]*"
    deadline = time.monotonic() + 120
    while process.poll() is None and not list(run_dir.glob(sign)):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = train(run_dir)
    assert result.returncode == 0, result.stderr
    chex.assert_trees_all_equal(jax.device_get(parameters(run_dir)), jax.device_get(parameters(finished)))
    chex.assert_trees_all_equal(
        jax.device_get(parameters(run_dir, "best")), jax.device_get(parameters(finished, "best"))
    )
    assert rows(run_dir) == rows(finished)
    assert {path.name for path in run_dir.iterdir()} == {path.name for path in finished.iterdir()}


def test_the_same_command_after_the_end_does_nothing_more(finished, train):
    before = rows(finished)
    result = train(finished)
    assert result.returncode == 0, result.stderr
    assert "going on from step" in result.stdout
    assert rows(finished) == before


def test_another_configuration_in_the_same_folder_is_refused(finished, train):
    result = train(finished, "--optimizer.learning-rate", "0.5", "--rlar.weight", "3")
    assert result.returncode == 2
    assert "rlar.weight, optimizer.learning_rate differ" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_that_blows_up_names_the_step_the_parts_and_the_last_good_checkpoint(tmp_path, train):
    run_dir = tmp_path / "hot"
    result = train(run_dir, "--optimizer.learning-rate", "1e30", "--optimizer.clip", "0", "--optimizer.warmup", "0.5")
    assert result.returncode == 2, result.stdout
    assert "no longer finite" in result.stderr
    assert "step " in result.stderr and "loss_segmentation" in result.stderr and "loss_grading" in result.stderr
    assert "checkpoint" in result.stderr
    assert "Traceback" not in result.stderr
    saved = run_dir / "checkpoints" / "last"
    if any(saved.iterdir()):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(parameters(run_dir))))


def test_a_checkpoint_of_another_configuration_is_refused(finished, tmp_path, train):
    run_dir = tmp_path / "mixed"
    shutil.copytree(finished, run_dir)
    config = json.loads((run_dir / "config.json").read_text())
    config["model"]["hidden"] = 8
    (run_dir / "config.json").write_text(json.dumps(config))
    result = train(run_dir, "--model.hidden", "8")
    assert result.returncode == 2
    assert "checkpoint is of another configuration" in result.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data.name", "nothing"], "'nothing' has not been built there"),
        (["--data.height", "25"], "must be multiples of 4"),
        (["--train.batch-size", "0"], "batch_size"),
        (["--run-dir", "/dev/null/run"], "Name a folder"),
        (["--data.folds", "40"], "only 15 groups"),
        (["--data.fold", "9"], "data.fold is 9"),
    ],
)
def test_settings_that_cannot_work_end_in_one_message(tmp_path, more, message, train):
    result = train(tmp_path / "run", *more)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()  # nothing stands in the way of the corrected command


def test_changed_data_are_noticed(finished, tmp_path, train_command, drawn_data):
    """Rebuilt with other pictures, the same names: neither going on nor evaluating mixes the two."""
    data, run_dir = tmp_path / "data", tmp_path / "run"
    card, records = open_records(drawn_data, "drawn")
    changed = [dataclasses.replace(record, image=255 - record.image) for record in records]
    builder.build(card, lambda notes: iter(changed), data)
    shutil.copytree(finished, run_dir)
    command = train_command(run_dir, "--data.dir", str(data))
    evaluate = [sys.executable, "-m", "experiments.evaluate", "--run-dir", str(run_dir), "--data-dir", str(data)]
    for arguments in (command["args"], evaluate):
        result = subprocess.run(arguments, env=command["env"], capture_output=True, text=True, check=False)
        assert result.returncode == 2, result.stdout
        assert "data" in result.stderr and "Traceback" not in result.stderr


def test_two_processes_cannot_train_in_one_folder(finished, tmp_path, train):
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    with alone_in(run_dir):
        result = train(run_dir)
    assert result.returncode == 2
    assert "another process is writing into this folder" in result.stderr


def test_the_presets_can_be_read_back():
    from experiments.configs import CONFIGS
    from thyroid_jax.config import from_dict, to_dict

    for make in CONFIGS.values():
        assert from_dict(Config, json.loads(json.dumps(to_dict(make())))) == make()
    assert CONFIGS["base"]().model == ModelConfig.preset("base", dtype="bfloat16")


def test_the_best_checkpoint_is_chosen_by_a_task_that_is_trained(make_batch):
    validation = Examples(make_batch(), ("a", "b", "c"))
    off = {name: dataclasses.replace(getattr(Config(), name), weight=0.0) for name in ("segmentation", "rlar")}
    grades_alone = Config(**off)
    with pytest.raises(InputError, match=r"train\.monitor is 'dice', but segmentation\.weight is 0"):
        check_monitor(grades_alone, validation)
    by_kappa = dataclasses.replace(
        grades_alone, train=dataclasses.replace(grades_alone.train, monitor="quadratic_kappa")
    )
    check_monitor(by_kappa, validation)
    unlabelled = validation._replace(batch=validation.batch._replace(grade_valid=np.zeros(3, bool)))
    with pytest.raises(InputError, match="no validation image has the label for it; choose 'dice'"):
        check_monitor(by_kappa, unlabelled)


def test_a_method_has_labels_of_every_task_to_weigh(make_batch):
    unlabelled = Examples(make_batch()._replace(grade_valid=np.zeros(3, bool)), ("a", "b", "c"))
    with pytest.raises(
        InputError,
        match=r"mtl\.method pcgrad weighs grading, but no training image has its label; set grading\.weight 0",
    ):
        check_tasks(Config(mtl=MTLConfig(method="pcgrad")), unlabelled)
    check_tasks(Config(), unlabelled)  # the plain sum learns what there is


def test_the_consistency_names_malignant_grades_and_features_that_there_are():
    of = lambda **fields: Config(consistency=ConsistencyConfig(weight=0.3, **fields))
    for first in (-1, 1, 4, -4):
        check_consistency(of(first_malignant=first), 5)
    for first in (0, 5, -5):
        with pytest.raises(InputError, match=rf"first_malignant is {first}; of 5 grades choose 1 to 4, or -1"):
            check_consistency(of(first_malignant=first), 5)
    with pytest.raises(InputError, match=r"consistency\.features names 'roundness'; choose of non_compactness,"):
        check_consistency(of(features=("elongation", "roundness")), 5)
    check_consistency(Config(consistency=ConsistencyConfig(first_malignant=9)), 5)  # switched off


def test_shape_means_are_of_the_outlines_that_are_large_enough():
    y, x = np.mgrid[:32, :40]
    disc, tall = np.hypot(y - 16, x - 20) < 8, np.hypot((y - 16) / 2, x - 20) < 6
    masks = np.stack([disc, tall, np.hypot(y - 16, x - 20) < 2, np.ones((32, 40), bool)]).astype(np.uint8) * 255
    flags = np.array([True, True, True, False])
    training = Examples(Batch(masks, masks, *[flags] * 6), tuple("abcd"))
    settings = ConsistencyConfig(weight=0.3, features=("taller_than_wide", "elongation"))
    expected = np.mean(
        [soft.morphology(mask[None].astype(np.float32), features=settings.features)[0] for mask in (disc, tall)], axis=0
    )
    np.testing.assert_allclose(shape_means(training, settings), expected, rtol=1e-5)
    assert shape_means(training, ConsistencyConfig()) == ()
    assert shape_means(training, dataclasses.replace(settings, min_pixels=1e4)) == ()


def test_the_prior_is_logged_as_what_it_says_about_the_label():
    phi, label = np.array([0.2, 0.4, 0.9, 0.7]), np.array([0.0, 0.0, 1.0, 1.0])
    means = np.asarray(consistency.products(phi, label)).mean(0).tolist()
    row = what_the_prior_says({"loss": 1.0, "prior_products": means})
    assert row == {
        "loss": 1.0,
        "prior_correlation": pytest.approx(np.corrcoef(phi, label)[0, 1], abs=1e-4),
        "prior_deviation": pytest.approx(phi.std(), abs=1e-4),
    }
    assert what_the_prior_says({"loss": 1.0}) == {"loss": 1.0}
