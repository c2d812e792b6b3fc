"""The log matches the checkpoint that a run goes on from, and survives a kill."""

import csv
import json
import math
import os

import pytest

from thyroid_jax.errors import InputError
from thyroid_jax.train.log import OF_THE_MACHINE, RunLog, read_log, table, without_machine


def written(folder, *rows, after=0):
    log = RunLog(folder, after=after)
    for row in rows:
        log.add(row)
    return log


def on_disk(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    with open(folder / "metrics.csv", newline="") as file:
        return lines, list(csv.DictReader(file))


ROWS = [{"split": "train", "step": step, "loss": 1 / step} for step in (10, 20, 30, 40)]


def test_every_row_is_on_disk_as_soon_as_it_is_added(tmp_path):
    log = RunLog(tmp_path, after=0)
    for count, row in enumerate(ROWS, start=1):
        log.add(row)
        lines, cells = on_disk(tmp_path)
        assert lines == log.rows == read_log(tmp_path / "log.jsonl") == ROWS[:count]
        assert [float(cell["loss"]) for cell in cells] == [row["loss"] for row in ROWS[:count]]
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "metrics.csv"]


@pytest.mark.parametrize("after, kept", [(0, 0), (9, 0), (20, 2), (25, 2), (40, 4), (99, 4)])
def test_what_lies_beyond_the_resumed_step_is_forgotten_in_both_files(tmp_path, after, kept):
    written(tmp_path, *ROWS)
    log = RunLog(tmp_path, after=after)
    lines, cells = on_disk(tmp_path)
    assert log.rows == lines == ROWS[:kept]
    assert [int(cell["step"]) for cell in cells] == [row["step"] for row in ROWS[:kept]]
    log.add({"step": after + 1})
    assert read_log(tmp_path / "log.jsonl") == [*ROWS[:kept], {"step": after + 1}]


@pytest.mark.parametrize("cut", range(1, 30, 7))
def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path, cut):
    written(tmp_path, *ROWS)
    file = tmp_path / "log.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) - 1 - cut])
    assert read_log(file) == ROWS[:3]
    log = written(tmp_path, {"step": 41}, after=40)
    assert log.rows == read_log(file) == [*ROWS[:3], {"step": 41}]


def test_a_last_line_that_lacks_only_its_end_of_line_is_whole(tmp_path):
    written(tmp_path, *ROWS)
    file = tmp_path / "log.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    assert read_log(file) == ROWS
    assert written(tmp_path, {"step": 41}, after=40).rows == read_log(file) == [*ROWS, {"step": 41}]


@pytest.mark.parametrize(
    "broken", ['{"step": 2', "", "not json", "5", "[]", '{"loss": 1.0}', '{"step": "2"}', '{"step": true}']
)
def test_a_broken_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path, broken):
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 1}\n' + broken + '\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"log\.jsonl: line 2 is not"):
        read_log(file)
    before = file.read_bytes()
    with pytest.raises(InputError, match="line 2"):
        RunLog(tmp_path, after=10)
    assert file.read_bytes() == before


def test_no_log_is_no_rows(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []
    RunLog(tmp_path, after=0)
    assert on_disk(tmp_path) == ([], [])


def test_what_is_not_finite_is_null_and_an_empty_cell(tmp_path):
    written(tmp_path, {"step": 1, "dice": math.nan, "loss": math.inf, "score": 0.5})
    lines, cells = on_disk(tmp_path)
    assert lines == [{"step": 1, "dice": None, "loss": None, "score": 0.5}]
    assert cells == [{"step": "1", "dice": "", "loss": "", "score": "0.5"}]


def test_columns_come_in_the_order_of_their_first_appearance():
    rows = [{"step": 1, "loss": 0.5}, {"step": 1, "dice": 0.8, "note": 'a, "b"'}, {"loss": 0.25, "step": 2}]
    assert table(rows) == 'step,loss,dice,note\n1,0.5,,\n1,,0.8,"a, ""b"""\n2,0.25,,\n'
    assert table([]) == ""


def test_histograms_stay_out_of_the_table_and_in_the_lines(tmp_path):
    written(tmp_path, {"split": "diagnosis", "step": 1, "histogram": [0.25, 0.75], "cosine": 0.5})
    lines, cells = on_disk(tmp_path)
    assert lines[0]["histogram"] == [0.25, 0.75]
    assert set(cells[0]) == {"split", "step", "cosine"}


def test_further_rows_are_copied_after_they_were_written(tmp_path):
    log, copied = written(tmp_path, ROWS[0]), []
    log.copy_to(lambda row: copied.append((row, on_disk(tmp_path)[0][-1])))
    log.add({"step": 20, "dice": math.nan})
    assert copied == [({"step": 20, "dice": None},) * 2]


def test_what_depends_on_the_machine_can_be_left_out():
    row = {"step": 1, "loss": 0.5} | dict.fromkeys(OF_THE_MACHINE, 1.0)
    assert without_machine(row) == {"step": 1, "loss": 0.5}


def test_a_line_that_cannot_be_written_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    log = written(tmp_path, *ROWS[:2])
    before = (tmp_path / "log.jsonl").read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as error:
        patch.setattr(os, "fsync", full)
        log.add(ROWS[2])
    assert error.value.filename == str(tmp_path / "log.jsonl")
    assert (tmp_path / "log.jsonl").read_bytes() == before and log.rows == ROWS[:2]
    log.add(ROWS[2])
    assert read_log(tmp_path / "log.jsonl") == log.rows == ROWS[:3]
