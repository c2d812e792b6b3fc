"""A step that is not finite ends the run, or its update is left out; no such state is ever saved."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loop_runs import LITTLE, STEPS, ToyRun, after, arrays_of, rows

from thyroid_jax import checkpoints
from thyroid_jax.errors import InputError
from thyroid_jax.train.devices import by_jit, by_pmap
from thyroid_jax.train.nonfinite import MOST_LEFT_OUT, all_finite, check_left_out, leaves_out_nonfinite, state_is_finite

BAD = (3, 9)  # one step of each epoch


def with_step(run, change):
    """The run with ``change(state, metrics)`` applied after each step."""
    run.spread = changed(run.spread, change)
    return run


def changed(spread, change):
    return dataclasses.replace(spread, step=lambda *given: change(*spread.step(*given)))


def spoils(*steps, loss=True):
    """Parameters that are NaN after the given steps, whose loss is NaN too, or finite."""

    @jax.jit
    def change(state, metrics):
        factor = jnp.where(jnp.isin(state.step.reshape(-1)[0], jnp.array(steps)), jnp.nan, 1.0)
        params = jax.tree.map(lambda p: p * factor, state.params)
        spoilt = metrics["loss"]._replace(sum=metrics["loss"].sum * factor)
        return state._replace(params=params), metrics | ({"loss": spoilt} if loss else {})

    return change


@pytest.fixture
def run(tiny_recipe, make_batch):
    """A run in which two steps are not finite."""
    return with_step(ToyRun(tiny_recipe(**LITTLE), make_batch), spoils(*BAD))


@pytest.mark.parametrize(
    "value, finite", [(0.0, True), (3e38, True), (np.inf, False), (-np.inf, False), (np.nan, False)]
)
def test_one_number_is_enough(value, finite):
    tree = {"a": jnp.zeros(3), "b": (jnp.array([1.0, value]), jnp.int32(4), jax.random.key(0))}
    assert bool(all_finite(tree)) == finite
    assert bool(all_finite((jnp.int32(4), ())))


@pytest.mark.parametrize("minutes, saved", [(0.0, []), (1e-9, [2, 1])])
def test_the_run_stops_at_the_step_and_has_saved_nothing_bad(run, tmp_path, minutes, saved):
    with pytest.raises(InputError, match=r"^step 3: the objective is no longer finite \(.*loss nan.*\); .*checkpoint"):
        run.train(tmp_path, checkpoint_minutes=minutes)
    assert checkpoints.steps(tmp_path / "checkpoints" / "last") == saved
    assert not saved or all_finite(arrays_of(run, tmp_path)["params"])


@pytest.mark.parametrize("minutes", [0.0, 1e-9])
@pytest.mark.parametrize("step", [2, 5])
def test_parameters_that_overflow_from_a_finite_loss_are_not_saved(tiny_recipe, make_batch, tmp_path, step, minutes):
    """In the last step of an epoch nothing but the parameters shows it: the next loss is one epoch away."""
    run = with_step(ToyRun(tiny_recipe(**LITTLE), make_batch), spoils(step, loss=False))
    text = rf"step {step}: the parameters are no longer finite|step {step + 1}: the objective is no longer finite"
    with pytest.raises(InputError, match=text):
        run.train(tmp_path, checkpoint_minutes=minutes)
    saved = checkpoints.steps(tmp_path / "checkpoints" / "last")
    assert saved == ([step - 1, step - 2][: step - 1] if minutes else [])
    assert not (tmp_path / "checkpoints" / "best").exists()


def test_skipping_goes_on_with_the_state_of_before_and_says_which_steps(run, tmp_path):
    state = run.train(tmp_path, nonfinite="skip")
    assert int(state.step) == STEPS and state_is_finite(state)
    first, second = (row for row in rows(tmp_path) if row["split"] == "train")
    assert (first["updates_left_out"], first["left_out"]) == (1, [3])
    assert (second["updates_left_out"], second["left_out"]) == (1, [9])
    assert first["loss"] is not None
    assert [line.split("  |")[0] for line in run.echoed if "left out" in line] == [
        "not finite, update left out: step 3", "not finite, update left out: step 9",
    ]  # fmt: skip


def test_the_means_of_an_epoch_are_over_its_other_steps(run, tmp_path):
    """Stopped before the bad step, the run has the sums of two steps; after it the same."""
    sums = []
    for steps in (2, 1):
        run.train(tmp_path, after(steps), nonfinite="skip")
        newest = checkpoints.steps(tmp_path / "checkpoints" / "last")[0]
        sums.append(checkpoints.read_facts(tmp_path / "checkpoints" / "last", newest)["epoch_part"])
    assert (sums[0]["steps"], sums[1]["steps"], sums[1]["left_out"]) == (2, 3, [3])
    assert sums[0]["metrics"] == sums[1]["metrics"] and sums[0]["metrics"]["loss"][1] == 2


def test_a_run_that_skips_and_is_interrupted_is_the_same_run(run, tmp_path):
    for name, stops in (("whole", []), ("stopped", [1, 2, 3, 2])):
        for steps in stops:
            run.train(tmp_path / name, after(steps), nonfinite="skip")
        run.train(tmp_path / name, nonfinite="skip")
    for which in ("last", "best"):
        chex.assert_trees_all_equal(
            arrays_of(run, tmp_path / "stopped", which), arrays_of(run, tmp_path / "whole", which)
        )
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")


def test_a_stopped_run_can_go_on_by_skipping(run, tmp_path):
    with pytest.raises(InputError, match="train on with --nonfinite skip"):
        run.train(tmp_path, checkpoint_minutes=1e-9)
    assert int(run.train(tmp_path, nonfinite="skip").step) == STEPS


def test_where_nothing_fails_skipping_changes_nothing(tiny_recipe, make_batch, tmp_path):
    run = ToyRun(tiny_recipe(**LITTLE), make_batch)
    run.train(tmp_path / "stop")
    run.train(tmp_path / "skip", nonfinite="skip")
    chex.assert_trees_all_equal(arrays_of(run, tmp_path / "skip"), arrays_of(run, tmp_path / "stop"))
    assert rows(tmp_path / "skip") == rows(tmp_path / "stop")


@pytest.mark.parametrize("spread", [by_jit, by_pmap])
def test_only_numbers_go_back_and_counters_and_keys_go_on(tiny_recipe, make_batch, tmp_path, spread):
    run = ToyRun(tiny_recipe(**LITTLE, mtl={"method": "rlw"}), make_batch)
    start, batch = run.start(tmp_path).state, run.training.batch
    numbers = []
    for step in (99, 1):
        on_two = changed(spread(jax.devices()[:2]), spoils(step))
        state = on_two.put_state(jax.tree.map(jnp.copy, start))
        state, metrics = leaves_out_nonfinite(on_two)(state, on_two.put_batch(batch), run.recipe)
        numbers.append((on_two.whole_state(state), jax.device_get(metrics)))
    (good, good_metrics), (bad, bad_metrics) = numbers
    same = lambda a, b: jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b))
    assert same(bad.params, start.params) and not same(good.params, start.params)
    assert int(bad.step) == int(good.step) == 1
    integers = lambda tree: [int(leaf) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.integer)]
    assert set(integers(bad.opt_state)) == set(integers(good.opt_state)) == {1}
    drawn = lambda state: np.asarray(jax.random.key_data(state.mtl_state.key))
    assert (drawn(bad) == drawn(good)).all() and (drawn(good) != drawn(start)).any()
    assert (good_metrics["left_out"].sum, bad_metrics["left_out"].sum) == (0, 1)
    assert all(not np.any(pair.sum) and pair.count == 0 for name, pair in bad_metrics.items() if name != "left_out")


def test_the_number_of_steps_left_out_is_limited_over_all_resumptions(run, tmp_path, monkeypatch):
    check_left_out(range(MOST_LEFT_OUT), tmp_path)
    with pytest.raises(InputError, match=rf"step {MOST_LEFT_OUT}: 11 updates were not finite, and a run leaves out 10"):
        check_left_out(range(MOST_LEFT_OUT + 1), tmp_path)
    monkeypatch.setattr("thyroid_jax.train.nonfinite.MOST_LEFT_OUT", 1)
    run.train(tmp_path, after(5), nonfinite="skip")
    with pytest.raises(InputError, match="step 9: 2 updates were not finite"):
        run.train(tmp_path, nonfinite="skip")
    assert checkpoints.steps(tmp_path / "checkpoints" / "last") == [5]
