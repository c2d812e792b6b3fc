"""Stacked steps are the separate steps; the table and the file say what was measured and what was not."""

import json

import jax
import numpy as np
import pytest

from experiments import sweep_speed
from experiments.timing.variants import random_batch
from thyroid_jax.errors import InputError
from thyroid_jax.train import init_state, train_step

TINY = ["--config", "tiny", "--height", "16", "--width", "16", "--batch-size", "2", "--methods", "plain"]


@pytest.mark.parametrize("batches", ["own", "shared"])
def test_a_stacked_step_is_the_step_of_every_seed(batches):
    arguments = sweep_speed.Arguments(config="tiny", height=16, width=16, batch_size=2)
    recipe = sweep_speed.recipe_for(arguments, "rlar")
    given = [random_batch((16, 16), 2, recipe.model.grades, seed) for seed in range(2)]
    given = given if batches == "own" else given[:1] * 2
    fresh = lambda: [init_state(recipe, jax.random.key(seed)) for seed in range(2)]
    stacked = sweep_speed.stack(given) if batches == "own" else given[0]
    state, metrics = sweep_speed.stacked_step(batches)(sweep_speed.stack(fresh()), stacked, recipe)
    for place, (alone, batch) in enumerate(zip(fresh(), given)):
        expected, losses = train_step(alone, batch, recipe)
        np.testing.assert_allclose(metrics["loss"].sum[place], losses["loss"].sum, rtol=1e-4)
        for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params)):
            np.testing.assert_allclose(ours[place], theirs, rtol=1e-3, atol=1e-5)
    first, second = (jax.tree.leaves(state.params)[0][place] for place in range(2))
    assert np.abs(first - second).max() > 1e-3  # seeds differ


def test_rows_are_printed_and_kept_and_what_was_not_measured_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sweep_speed, "prepare", lambda: None)
    monkeypatch.setattr(sweep_speed, "ROUNDS", 2)
    monkeypatch.setattr(sweep_speed, "TURN", 0.01)
    out = tmp_path / "rows.jsonl"
    sweep_speed.main([*TINY, "--runs", "1", "--out", str(out), "--seconds", "300"])
    sweep_speed.main([*TINY, "--runs", "2", "--out", str(out), "--seconds", "1e-9"])
    measured, left_out = (json.loads(line) for line in out.read_text().splitlines())
    assert measured["runs"] == 1 and measured["missing"] == "" and min(measured["stacked"], measured["in_turn"]) > 0
    assert measured["ratio"] == pytest.approx(measured["in_turn"] / measured["stacked"], rel=0.9)
    assert left_out["missing"] == "no time left" and left_out["stacked"] is None
    printed = capsys.readouterr().out
    assert "| plain | 1 | " in printed and "| plain | 2 | no time left |" in printed


def test_the_table_tells_runs_an_hour():
    row = sweep_speed.Row("plain", 4, "own", stacked=0.1, in_turn=0.2, ratio=2.0, compile=3.0, mib=5.0)
    assert sweep_speed.line_of(row, 100) == "| plain | 4 | 0.2000 | 0.1000 | 720.0 | 1440.0 | 2.00 | 3.0 | 5 |"


def test_what_does_not_fit_ends_its_method_and_other_faults_are_raised(monkeypatch):
    def full(arguments, method, runs, until, expected):
        if runs == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory" if method == "plain" else "INTERNAL")
        return sweep_speed.Row(method, runs, "own", 1.0, 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(sweep_speed, "measure", full)
    found = list(sweep_speed.rows(sweep_speed.Arguments(methods=("plain",), runs=(4, 1, 2))))
    assert [(row.runs, row.missing) for row in found] == [
        (1, ""), (2, "does not fit into the memory"), (4, "does not fit into the memory"),
    ]  # fmt: skip
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        list(sweep_speed.rows(sweep_speed.Arguments(methods=("rlar",), runs=(2,))))


@pytest.mark.parametrize("field, value", [("seconds", 0.0), ("runs", (0,)), ("steps", 0)])
def test_impossible_numbers_are_named(field, value):
    with pytest.raises(InputError, match=f"{field} is"):
        sweep_speed.Arguments(**{field: value})
