"""A grid of runs: each is computed once, one that another process holds is passed over, and the rest is estimated."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from thyroid_jax.config import Config
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.files import write_json
from thyroid_jax.predict import ABOUT_RUN
from thyroid_jax.runs import grid
from thyroid_jax.runs.folder import check_settings
from thyroid_jax.settings import to_dict

HOLD = """
import sys, time
from pathlib import Path
from thyroid_jax.files import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def cells(tmp_path):
    return [grid.Cell("m", f"fold{fold}-seed0", Config(), tmp_path / f"m-fold{fold}-seed0") for fold in range(3)]


@pytest.fixture
def computed(monkeypatch):
    """Names of the folders that were computed, in order; a folder's table is written when it was computed."""
    names = []

    def fake(config, folder, *, part, flip, echo):
        table = grid.table_of(folder, part, flip=flip)
        if not table.is_file():
            names.append(folder.name)
            echo("trained")
            write_cases(table, [Case(case=folder.name, group="g")])
        return [Case(case=folder.name, group="g")]

    monkeypatch.setattr(grid, "held_out_cases", fake)
    return names


@pytest.fixture
def hold():
    """Hold a folder's lock in another process: hold(folder) -> the process, which the test may kill."""
    started = []

    def start(folder):
        folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_every_cell_is_computed_once_and_read_after_that(cells, computed):
    said = []
    found = list(grid.run_cells(cells, echo=said.append))
    assert [cell.folder.name for cell, _ in found] == computed == [cell.folder.name for cell in cells]
    assert [cases[0].case for _, cases in found] == computed
    assert said[0] == "3 cells, 0 of them are there" and said[1] == "m-fold0-seed0: trained"
    assert said[2].startswith("cells 1/3 done, about ") and said[-1] == "cells 3/3 done"
    again = []
    assert len(list(grid.run_cells(cells, echo=again.append))) == 3 == len(computed)
    assert again == ["3 cells, 3 of them are there"]


def test_tables_over_mirror_images_and_of_other_parts_are_other_cells(cells, computed):
    list(grid.run_cells(cells, echo=str))
    list(grid.run_cells(cells, part="validation", flip=True, echo=str))
    assert len(computed) == 6


@pytest.mark.parametrize("place", ["lock", "run"])
def test_a_cell_of_another_process_is_passed_over_and_taken_when_that_process_is_killed(cells, computed, hold, place):
    """The lock is that of a grid, or that of a training in the run's folder."""
    held = cells[1].folder.parent / grid.LOCKS / cells[1].folder.name if place == "lock" else cells[1].folder
    process, said = hold(held), []

    def echo(text):
        said.append(text)
        if text.startswith("cells 2/3"):
            process.kill()
            process.wait()

    found = list(grid.run_cells(cells, wait=0.05, echo=echo))
    assert computed == [cells[place].folder.name for place in (0, 2, 1)]
    assert [cell.run for cell, _ in found] == ["fold0-seed0", "fold2-seed0", "fold1-seed0"]
    assert said.count("m-fold1-seed0: another process computes it; passed over for now") == 1


def test_a_table_that_another_process_finishes_is_read(cells, computed, hold):
    hold(cells[0].folder.parent / grid.LOCKS / cells[0].folder.name)

    def echo(text):
        if text.startswith("cells 2/3"):  # the other process writes its table and keeps its lock
            write_cases(grid.table_of(cells[0].folder), [Case(case="theirs", group="g")])

    found = list(grid.run_cells(cells, wait=0.05, echo=echo))
    assert cells[0].folder.name not in computed and len(found) == 3


def test_two_grids_in_one_process_do_not_compute_the_same_cell(cells, computed, monkeypatch):
    """A lock is one of the open file, so that a second grid of the same process is kept out, too."""
    inner = []
    original = grid.held_out_cases

    def nested(config, folder, **options):
        if folder == cells[0].folder and not inner:
            with grid._alone_with(cells[0]) as ours:
                inner.append(ours)
        return original(config, folder, **options)

    monkeypatch.setattr(grid, "held_out_cases", nested)
    list(grid.run_cells(cells, echo=str))
    assert inner == [False] and len(computed) == 3


def test_an_error_of_a_cell_is_raised_and_its_lock_is_free_again(cells, monkeypatch):
    def fails(*given, **options):
        raise InputError("no such data set")

    monkeypatch.setattr(grid, "held_out_cases", fails)
    with pytest.raises(InputError, match="no such data set"):
        list(grid.run_cells(cells, echo=str))
    with grid._alone_with(cells[0]) as ours:
        assert ours


@pytest.mark.parametrize("done, total, seconds, text", [
    (1, 3, [30.0], "cells 1/3 done, about 60 s left at 30 s a cell"),
    (2, 4, [100.0, 200.0], "cells 2/4 done, about 5 min left at 150 s a cell"),
    (1, 101, [360.0], "cells 1/101 done, about 10.0 h left at 360 s a cell"),
    (4, 4, [1.0], "cells 4/4 done"),
])  # fmt: skip
def test_the_rest_is_estimated_from_the_cells_computed_here(done, total, seconds, text):
    assert grid.progress(done, total, seconds) == text


def test_waiting_does_not_count_as_computing(cells, computed, hold, monkeypatch):
    said, naps = [], []
    process = hold(cells[2].folder)

    def sleep(seconds):
        naps.append(seconds)
        process.kill()
        process.wait()

    monkeypatch.setattr(time, "sleep", sleep)
    list(grid.run_cells(cells, wait=7.0, echo=said.append))
    assert naps == [7.0] and said[-1] == "cells 3/3 done"


def test_other_settings_are_refused_before_anything_is_computed(cells, computed):
    other = Config(train=replace(Config().train, epochs=7))
    write_json(cells[2].folder / "config.json", to_dict(other) | {ABOUT_RUN: {"version": "", "data": "", "split": ""}})
    with pytest.raises(InputError, match=r"another configuration; train\.epochs differ"):
        grid.check_cells(cells)
    check_settings(cells[2].folder / "config.json", other)
    assert not computed
