"""The comparison: every image held out once a seed by a model that did not see it, paired differences, nothing trained
twice.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import LEAST, QUICK, ROOT

from experiments import compare, tables
from thyroid_jax.evaluate import ensembles, paired
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.runs import evaluation

METHODS = ("plain", "only_grading")
MEANS = tuple(f"{method}, seeds averaged" for method in METHODS)
CELLS = [f"{method}-fold{fold}-seed{seed}" for seed in (0, 1) for fold in (0, 1) for method in METHODS]


def printed_by(command):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        compare.main(command)
    return text.getvalue()


@pytest.fixture(scope="module")
def compared(drawn_data, tmp_path_factory):
    """The command, the folder and the printed text of a comparison of two methods over two folds and two seeds."""
    out = tmp_path_factory.mktemp("compared")
    fields = f"--methods {' '.join(METHODS)} --folds 0 1 --seeds 0 1 --out {out} --samples 50 --page no --config tiny"
    fields += (
        f" --model.depth 1 --data.name drawn --data.dir {drawn_data} --data.height 24 --data.width 32 --train.epochs 1"
    )
    return fields.split(), out, printed_by(fields.split())


def pooled(out, method):
    return [
        replace(case, part=cell.removeprefix(f"{method}-"))
        for cell in CELLS
        if cell.startswith(f"{method}-")
        for case in read_cases(out / cell / "cases.csv")
    ]


def table_of(printed):
    """Name of a row -> its cells, of all tables of a printed text."""
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {cells[0].removeprefix("| "): [cell.removesuffix(" |") for cell in cells[1:]] for cells in lines}


def test_every_image_is_held_out_once_a_seed_by_a_model_that_did_not_see_its_group(compared):
    _, out, _ = compared
    assert {path.name for path in out.iterdir()} - {"test-flip"} == {*CELLS, "test", ".locks"}
    written = {*(f"{name}.csv" for name in (*METHODS, *MEANS)), "table.md", "table.tex", "table.csv"}
    assert {path.name for path in (out / "test").iterdir()} - {"ensembles"} == written
    for cell in CELLS:
        method, fold, seed = cell.split("-")
        config = json.loads((out / cell / "config.json").read_text())
        assert (config["data"]["fold"], config["train"]["seed"]) == (int(fold[-1]), int(seed[-1]))
        assert (config["segmentation"]["weight"] > 0) == (method == "plain")
        split = json.loads((out / cell / "split.json").read_text())
        cases = [case.case for case in read_cases(out / cell / "cases.csv")]
        assert sorted(cases) == sorted(split["test"])
        group = lambda case: case.split("_")[0]
        assert not {group(case) for case in cases} & {group(case) for case in split["train"] + split["validation"]}
    for method in METHODS:
        counted = Counter(case.case for case in pooled(out, method))
        assert len(counted) == 12 and set(counted.values()) == {2}


def test_the_table_is_of_the_pooled_predictions_and_their_paired_differences(compared):
    _, out, printed = compared
    plain, grading = (pooled(out, method) for method in METHODS)
    measured = summary(plain, samples=50)
    blocks = printed[printed.index("| measure") :].split("\n\n")
    found = table_of(blocks[0])
    assert found["measure"] == ["predictions", "groups", *METHODS, *MEANS]
    for name in ("dice", "iou", "malignant_auroc"):
        entry = measured[name]
        bounds = f"{entry['low']:.3f} to {entry['high']:.3f}" if entry["low"] == entry["low"] else "no interval"
        value = f"{entry['value']:.3f} ({bounds})"
        assert value in found[name][2] and found[name][1] == f"{entry['groups']:.0f}"
    assert found["dice"][3:] == ["", "", ""] != found["quadratic_kappa"][3:]  # grading alone has no outline
    differ = table_of(blocks[1])
    assert differ["difference to plain"] == ["pairs", "groups", "only_grading"]
    assert set(differ) == {"difference to plain", "quadratic_kappa", "macro_auroc"}
    gap = paired.difference(grading, plain, "macro_auroc", samples=50)
    assert differ["macro_auroc"][2] == f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
    of_means = table_of(blocks[3])
    gap = paired.difference(ensembles.averaged(grading), ensembles.averaged(plain), "macro_auroc", samples=50)
    assert of_means["macro_auroc"][2] == f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
    assert "Each" not in blocks[-1] and "folds 0 1, seeds 0 1." in blocks[-1] and "drawn, test part." in blocks[-1]


def test_given_again_it_trains_nothing_and_prints_the_same_table(compared, monkeypatch):
    command, out, printed = compared
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", None)
    written = {path.name: path.read_bytes() for path in (out / "test").glob("table.*")}
    assert printed_by(command) == "8 cells, 8 of them are there\n" + printed[printed.index("| measure") :]
    assert {path.name: path.read_bytes() for path in (out / "test").glob("table.*")} == written
    other_order = table_of(printed_by([*command, "--methods", *METHODS[::-1], "--folds", "1", "--seeds", "0"]))
    assert other_order["difference to only_grading"][2:] == ["plain"] and other_order["macro_auroc"]


def test_jobs_compute_the_cells_before_jax_starts(compared, monkeypatch):
    command, out, printed = compared
    seen = []
    monkeypatch.setattr(compare, "prepare", lambda: seen.append("prepare"))

    def run_jobs(grids, folder, options, prepare, *, echo):
        prepare()
        seen.append(
            ([cell.folder.name for cell in grids[0].cells], *grids[0][1:], folder, options.submit, options.jobs)
        )

    monkeypatch.setattr("thyroid_jax.runs.jobs.run_jobs", run_jobs)
    assert printed_by([*command, "--submit", "slurm", "--jobs", "3"]).endswith(printed[printed.index("| measure") :])
    assert seen == ["prepare", (CELLS, "test", False, out / "jobs", "slurm", 3), "prepare"]


def test_the_tables_are_printed_again_from_the_pooled_predictions_alone(compared, capsys):
    command, out, printed = compared
    printed_by(command)  # another test compared fewer folds since
    tables.main([str(out / "test"), *METHODS, "--samples", "50"])
    assert capsys.readouterr().out == printed[printed.index("| measure") :].replace("drawn, test part.\n", "")
    parts = {case.part for case in read_cases(out / "test" / "plain.csv")}
    assert parts == {f"fold{fold}-seed{seed}" for fold in (0, 1) for seed in (0, 1)}


def test_predictions_averaged_over_mirror_images_are_kept_apart(compared, monkeypatch):
    command, out, _ = compared
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", lambda *given, **options: None)  # all runs are finished
    printed = printed_by([*command, "--flip", "--folds", "0", "--seeds", "0"])
    assert "difference to plain" in printed
    found, plain = (
        {case.case: case.p_malignant for case in read_cases(out / "plain-fold0-seed0" / table)}
        for table in ("report/test-flip/cases.csv", "cases.csv")
    )
    assert set(found) == set(plain) and found != plain
    for name, both in found.items():
        assert both == pytest.approx(plain[name], abs=0.2)
    pooled_cases = read_cases(out / "test-flip" / "plain.csv")
    assert {case.case: case.p_malignant for case in pooled_cases} == found


def test_only_an_unfinished_cell_goes_on(compared, monkeypatch):
    command, out, printed = compared
    went_on = []
    train = evaluation.train

    def counting(config, run_dir, **options):
        went_on.append(run_dir.name)
        return train(config, run_dir, **options)

    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", counting)
    (out / "plain-fold1-seed0" / "cases.csv").unlink()
    again = printed_by(command)
    assert went_on == ["plain-fold1-seed0"]
    assert "plain-fold1-seed0: going on from step 3" in again
    assert again.endswith(printed[printed.index("| measure") :])


@pytest.mark.parametrize("more, message", [
    (["--optimizer.learning-rate", "0.5"], "another configuration; optimizer.learning_rate differ"),
    (["--config", "tiny", "rlar"], "name one size; the methods stand after --methods"),
    (["--methods", "plain", "nodule"], "name a method before its options, such as plain+nodule"),
    (["--config", "tiny", "base"], "name one size"),
    (["--data.fold", "1"], "--data.fold 1: --folds says which ones are compared; give --folds 1 instead."),
    (["--train.seed", "3"], "--train.seed 3: --seeds says which ones are compared; give --seeds 3 instead."),
])  # fmt: skip
def test_what_cannot_be_compared_is_named_and_nothing_is_trained(compared, monkeypatch, capsys, more, message):
    command, _, _ = compared
    kept = (
        command[: command.index("--config")] + command[command.index("--config") + 2 :]
        if "--config" in more
        else command
    )
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", None)
    with pytest.raises(SystemExit) as stop:
        compare.main([*kept, *more])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_misspelt_method_is_named_before_the_first_run_begins(compared, tmp_path, capsys):
    command, _, _ = compared
    with pytest.raises(SystemExit):
        compare.main([*command, "--out", str(tmp_path / "new"), "--methods", "plain", "magic"])
    assert "'magic' does not exist" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("method, setting", [
    ("plain+lite0+nodule", "--model.frozen-levels 2"),
    ("plain+measured", "--distort.shift 0.2"),
    ("plain", "--mtl.method pcgrad"),
])  # fmt: skip
def test_a_setting_that_suits_the_methods_alone_is_taken(tmp_path, method, setting):
    words = f"--methods {method} {setting} --data.name drawn --data.dir {tmp_path} --out {tmp_path / 'out'} --folds 0"
    (study,) = compare.studies(words.split())
    (cell,) = study.cells
    group, field = setting.split()[0].removeprefix("--").replace("-", "_").split(".")
    assert str(getattr(getattr(cell.config, group), field)) == setting.split()[1]
    assert compare.studies([*words.split(), "--grid", str(_grid(tmp_path, method))])[0].cells == study.cells


def _grid(folder, method):
    (folder / "grid.json").write_text(json.dumps({"methods": [method]}))
    return folder / "grid.json"


def test_finished_runs_are_a_method_beside_those_of_the_grid(compared, monkeypatch, tmp_path):
    """The same runs under another name: every difference is 0, and p is 1."""
    command, out, _ = compared
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", None)
    own = [str(out / cell) for cell in CELLS if cell.startswith("plain-")]
    words = [*command, "--methods", "plain", "--out", str(out), "--runs", f"again={own[0]}", *own[1:]]
    found = [table_of(block) for block in printed_by(words).split("\n\n")]
    assert found[1]["dice"] == ["22", "6", "+0.000 (+0.000 to +0.000)"] and found[2]["dice"][2] == "1.0000 (1.0000)"
    alone = ["--runs", f"a={own[0]}", own[2], f"b={own[0]}", own[2], "--out", str(tmp_path), "--samples", "10"]
    assert "| difference to a | pairs | groups | b |" in printed_by([*alone, "--page", "no"])
    assert not (tmp_path / ".locks").exists()  # no grid, no locks


def test_runs_of_several_seeds_predict_together(compared, monkeypatch):
    """Outline, grades and malignancy of an ensemble are those of the averaged probabilities of its two runs."""
    from thyroid_jax import runs

    command, out, _ = compared
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", None)
    words = [*command, "--methods", "plain", "--folds", "0", "--ensemble"]
    first = printed_by(words)
    assert "plain: 2 runs predict together" in first and "of outlines, grades and malignancy" in first
    assert printed_by(words) == first.replace("plain: 2 runs predict together\n", "")
    found = read_cases(out / "test" / "plain, seeds averaged.csv")
    opened = [runs.open_finished(out / f"plain-fold0-seed{seed}") for seed in (0, 1)]
    predicted = [runs.predicted(finished.trained, finished.parts.test) for finished in opened]
    for case, (record, one), (_, two) in zip(found, *predicted, strict=True):
        assert case.case == record.case and case.part == "fold0-ensemble"
        np.testing.assert_allclose(list(case.probability.values()), (one.grades + two.grades) / 2, atol=1e-6)
        assert case.p_malignant == pytest.approx((one.malignant + two.malignant) / 2, abs=1e-6)
        assert case.predicted_area_px == int(((one.probability + two.probability) / 2 >= 0.5).sum())
        assert np.isnan(case.dice) == (record.mask is None)
    by_table = ensembles.averaged([case for case in pooled(out, "plain") if case.case in {c.case for c in found}])
    assert {case.case: case.p_malignant for case in by_table} == pytest.approx(
        {case.case: case.p_malignant for case in found}, abs=1e-6
    )


def test_a_run_that_is_not_finished_is_no_method(compared, monkeypatch, tmp_path, capsys):
    _, out, _ = compared
    shutil.copytree(out / CELLS[0], tmp_path / "run")
    (tmp_path / "run" / "cases.csv").unlink()
    words = ["--runs", f"a={tmp_path / 'run'}", "--out", str(tmp_path / "out"), "--samples", "5", "--page", "no"]
    with monkeypatch.context() as changed, pytest.raises(SystemExit):
        changed.setattr("thyroid_jax.runs.results.last_step", lambda folder: 2)
        compare.main(words)
    assert "the run is not finished; repeat the command that trains it" in capsys.readouterr().err
    printed_by(words)  # its table is made where it is missing
    assert repr(read_cases(tmp_path / "run" / "cases.csv")) == repr(read_cases(out / CELLS[0] / "cases.csv"))


def test_without_several_seeds_there_is_no_ensemble(compared, tmp_path, capsys):
    command, _, _ = compared
    with pytest.raises(SystemExit):
        compare.main([*command, "--out", str(tmp_path / "new"), "--seeds", "0", "--ensemble"])
    assert "no image is held out by several runs of a method" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()  # nothing was trained before


def test_a_grid_that_is_killed_three_times_ends_with_the_tables_of_one_that_is_not(drawn_data, tmp_path):
    """Killed after a checkpoint of the first cell, after the first cell, and after a checkpoint of the second."""
    environment = os.environ | {"XLA_FLAGS": QUICK, "PYTHONPATH": str(ROOT)}
    fields = "--methods plain --config tiny --folds 0 1 --samples 20 --page no --data.name drawn"
    fields += f" --data.dir {drawn_data} --data.height 24 --data.width 32 --train.epochs 2"
    words = [sys.executable, "-u", "-m", "experiments.compare", *fields.split(), *LEAST, "--out"]

    def run(out, until=None):
        """The lines that the command prints; killed when one begins with ``until``."""
        with subprocess.Popen([*words, str(out)], env=environment, stdout=subprocess.PIPE, text=True) as process:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if until and line.startswith(until):
                    process.kill()
                    break
        return lines

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole)
    run(killed, "plain-fold0-seed0: epoch 1/2")
    second = run(killed, "cells 1/2 done")
    assert "plain-fold0-seed0: going on from step 3\n" in second
    third = run(killed, "plain-fold1-seed0: epoch 1/2")
    assert third[0] == "2 cells, 1 of them are there\n" and not any("fold0-seed0" in line for line in third)
    last = run(killed)
    assert "plain-fold1-seed0: going on from step 3\n" in last and "cells 2/2 done\n" in last
    for name in ("table.md", "table.tex", "table.csv", "plain.csv"):
        assert (killed / "test" / name).read_bytes() == (whole / "test" / name).read_bytes(), name
    for cell in ("plain-fold0-seed0", "plain-fold1-seed0"):
        logs = [
            [json.loads(line)["step"] for line in (out / cell / "log.jsonl").read_text().splitlines()]
            for out in (whole, killed)
        ]
        assert logs[0] == logs[1]
