"""A run that is stopped or killed after any step and resumed is the run that was not: its state, log and best."""

import json
from copy import copy
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest
from loop_runs import CONFIG, LITTLE, PER_EPOCH, STEPS, Killed, ToyRun, after, arrays_of, killed_after, rows

from thyroid_jax import checkpoints
from thyroid_jax.errors import InputError
from thyroid_jax.train.devices import by_jit, by_pmap
from thyroid_jax.train.log import OF_THE_MACHINE
from thyroid_jax.train.options import ProcessOptions
from thyroid_jax.train.validation import out_of_patience


@pytest.fixture(scope="module")
def run(tiny_recipe, make_batch):
    return ToyRun(tiny_recipe(total_steps=10.0, **LITTLE), make_batch)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of the uninterrupted run."""
    run_dir = tmp_path_factory.mktemp("whole")
    run.train(run_dir)
    return run_dir


def assert_same_run(run, run_dir, whole):
    for which in ("last", "best"):
        chex.assert_trees_all_equal(arrays_of(run, run_dir, which), arrays_of(run, whole, which))
        newest = [checkpoints.steps(folder / "checkpoints" / which)[0] for folder in (run_dir, whole)]
        assert newest[0] == newest[1]
    assert rows(run_dir) == rows(whole)


def test_the_uninterrupted_run_is_what_the_others_are_compared_with(run, whole):
    assert [(row["split"], row["step"]) for row in rows(whole)] == [
        ("train", 5), ("diagnosis", 5), ("train", 10), ("diagnosis", 10), ("validation", 10),
    ]  # fmt: skip
    first, second = (row for row in rows(whole) if row["split"] == "train")
    assert first["loss"] != second["loss"] and np.isfinite(first["gradient_norm"])
    assert len(next(row for row in rows(whole) if row["split"] == "diagnosis")["cosine_histogram_latent_full"]) == 40
    assert int(arrays_of(run, whole)["rest"].step) == STEPS
    assert not json.loads((whole / "checkpoints" / "last" / "10" / "about.json").read_text())["facts"].get("epoch_part")


@pytest.mark.parametrize("steps", [2, 4, 5, 6, 10])
def test_stopped_after_any_step_and_resumed_it_is_the_same_run(run, whole, tmp_path, steps):
    """Also the epoch's row, which is of the steps before and after the stop."""
    state = run.train(tmp_path, after(steps))
    assert int(state.step) == steps == checkpoints.steps(tmp_path / "checkpoints" / "last")[0]
    assert len(rows(tmp_path)) == {0: 0, 1: 2, 2: 5}[steps // PER_EPOCH]
    run.train(tmp_path)
    assert_same_run(run, tmp_path, whole)


def test_stopped_after_every_step_it_is_the_same_run(run, whole, tmp_path):
    for _ in range(STEPS):
        run.train(tmp_path, after(1))
    assert_same_run(run, tmp_path, whole)


@pytest.mark.parametrize("steps", [2, 5, 9])
def test_killed_with_a_checkpoint_after_every_step_it_loses_nothing(run, whole, tmp_path, steps):
    with pytest.raises(Killed):
        run.train(tmp_path, killed_after(steps), checkpoint_minutes=1e-9)
    saved = checkpoints.steps(tmp_path / "checkpoints" / "last")
    assert saved[0] == steps and len(saved) == checkpoints.KEPT
    run.train(tmp_path)
    assert_same_run(run, tmp_path, whole)


@pytest.mark.parametrize("steps", [3, 8])
def test_killed_between_checkpoints_it_measures_the_steps_since_again(run, whole, tmp_path, steps):
    run.train(tmp_path, after(2))
    with pytest.raises(Killed):
        run.train(tmp_path, killed_after(steps - 2))
    assert checkpoints.steps(tmp_path / "checkpoints" / "last")[0] == {3: 2, 8: 5}[steps]
    run.train(tmp_path)
    assert_same_run(run, tmp_path, whole)


def test_without_minutes_there_are_checkpoints_at_the_ends_of_epochs_only(run, tmp_path):
    with pytest.raises(Killed):
        run.train(tmp_path, killed_after(9), checkpoint_minutes=0)
    assert checkpoints.steps(tmp_path / "checkpoints" / "last") == [5]


def test_a_stop_between_checkpoints_of_several_epochs_is_saved(run, tmp_path):
    rare = CONFIG.__class__(epochs=4, batch_size=4, evaluate_every=4, checkpoint_every=4)
    run.train(tmp_path, after(PER_EPOCH), config=rare)
    assert checkpoints.steps(tmp_path / "checkpoints" / "last") == [PER_EPOCH]


def test_a_stop_before_the_first_step_writes_nothing(run, tmp_path):
    assert int(run.train(tmp_path, lambda: True).step) == 0
    assert not (tmp_path / "checkpoints").exists()


def edited_facts(run_dir, edit):
    """Rewrite the facts of the newest checkpoint, with their checksum."""
    place = run_dir / "checkpoints" / "last"
    about = place / str(checkpoints.steps(place)[0]) / "about.json"
    content = json.loads(about.read_text())
    content.pop("checksum")
    edit(content["facts"])
    about.write_text(json.dumps(content | {"checksum": checkpoints._checksum(content)}))


def test_checkpoints_of_before_have_no_sums_and_resume_at_an_epochs_end(run, whole, tmp_path):
    run.train(tmp_path, after(PER_EPOCH))
    facts = checkpoints.read_facts(tmp_path / "checkpoints" / "last", PER_EPOCH)
    assert set(facts) == {"grades", "position"}  # those of earlier versions hold the same
    run.train(tmp_path)
    assert_same_run(run, tmp_path, whole)


@pytest.mark.parametrize(
    "edit", [lambda facts: facts.pop("epoch_part"), lambda facts: facts["epoch_part"].update(steps=2)]
)
def test_a_state_within_an_epoch_without_its_sums_is_refused(run, tmp_path, edit):
    run.train(tmp_path, after(3))
    edited_facts(tmp_path, edit)
    with pytest.raises(InputError, match=r"the checkpoint of step 3 holds the sums of [02] steps of its epoch"):
        run.train(tmp_path)


@pytest.mark.parametrize("spread", [by_jit, by_pmap])
def test_on_several_devices_it_resumes_within_an_epoch_too(tiny_recipe, make_batch, tmp_path, spread):
    run = ToyRun(tiny_recipe(**LITTLE), make_batch)
    run.spread = spread(jax.devices()[:2])
    run.train(tmp_path / "whole")
    run.train(tmp_path / "stopped", after(3))
    run.train(tmp_path / "stopped")
    assert_same_run(run, tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize("scores, patience, over", [
    ([], 1, False), ([0.5], 1, False), ([0.5, 0.4], 1, True), ([0.5, 0.5], 1, True), ([0.5, 0.6], 1, False),
    ([0.5, 0.4, 0.45], 2, True), ([0.5, 0.4, 0.6], 2, False), ([0.5, 0.4, 0.3], 0, False), ([-1.0, -1.0], 1, True),
])  # fmt: skip
def test_patience_ends_where_no_score_was_better_than_the_best(scores, patience, over):
    rows = [row for score in scores for row in ({"split": "train"}, {"split": "validation", "score": score})]
    assert out_of_patience(rows, patience) is over


def test_out_of_patience_it_ends_early_and_interrupted_it_ends_with_the_same_bits(run, tiny_recipe, tmp_path):
    """Without a learning rate every score is the first one again."""
    config = replace(CONFIG, epochs=6, evaluate_every=1, diagnose_every=0, patience=2)
    still = copy(run)
    still.recipe = tiny_recipe(total_steps=10.0, **LITTLE, optimizer={"learning_rate": 0.0})
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert int(still.train(whole, config=config).step) == 3 * PER_EPOCH
    assert [row["step"] for row in rows(whole) if row["split"] == "validation"] == [5, 10, 15]
    assert "stopped after epoch 3/6: no better dice in 2 evaluations" in still.echoed[-1]
    still.train(broken, after(5), config=config)
    with pytest.raises(Killed):
        still.train(broken, killed_after(9), config=config, checkpoint_minutes=1e-9)
    for _ in range(2):  # once more after its end, it does nothing
        still.train(broken, config=config)
        assert_same_run(still, broken, whole)


def test_a_row_says_what_the_epoch_cost_and_the_parts_do_not_overlap(run, tmp_path):
    run.train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, second = (row for row in lines if row["split"] == "train")
    (validated,) = (row for row in lines if row["split"] == "validation")
    for row in (first, second):
        busy = row["seconds_data"] + row["seconds_step"]
        assert row["images_per_second"] == pytest.approx(18 / busy)
        assert min(row["seconds_data"], row["seconds_step"]) > 0
    assert first["seconds_checkpoint"] == 0 < second["seconds_checkpoint"]  # that of the first epoch's end
    assert validated["seconds_evaluation"] > 0
    assert {name for row in lines for name in row if name.startswith("seconds")} <= set(OF_THE_MACHINE)


def test_the_rate_of_a_resumed_epoch_is_of_the_images_of_this_process(run, tmp_path):
    run.train(tmp_path, after(4))
    run.train(tmp_path, after(1))
    (row,) = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines() if "train" in line)
    assert row["images_per_second"] == pytest.approx(2 / (row["seconds_data"] + row["seconds_step"]))  # 18 - 4 * 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes is -1.0"),
        ({"checkpoint_minutes": np.nan}, "checkpoint_minutes is nan"),
        ({"profile": -1}, "profile is -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ProcessOptions(**options)
    with pytest.raises((InputError, TypeError)):  # the tests' judge of types may see it first
        ProcessOptions(nonfinite="restore")
