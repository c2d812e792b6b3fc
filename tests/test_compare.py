"""The comparison: every image held out once a seed by a model that did not see it, paired differences, nothing trained
twice.
"""

import contextlib
import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from experiments import compare, tables
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics, paired
from thyroid_jax.evaluate.cases import Case, read_cases

METHODS = ("plain", "only_grading")
CELLS = [f"{method}-fold{fold}-seed{seed}" for seed in (0, 1) for fold in (0, 1) for method in METHODS]


def printed_by(command):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        compare.main(command)
    return text.getvalue()


@pytest.fixture(scope="module")
def compared(drawn_data, tmp_path_factory):
    """The command, the folder and the printed text of a comparison of two methods over two folds and two seeds."""
    out = tmp_path_factory.mktemp("compared")
    fields = f"--methods {' '.join(METHODS)} --folds 0 1 --seeds 0 1 --out {out} --samples 50 --config tiny"
    fields += f" --data.name drawn --data.dir {drawn_data} --data.height 24 --data.width 32 --train.epochs 1"
    return fields.split(), out, printed_by(fields.split())


def pooled(out, method):
    return [case for cell in CELLS if cell.startswith(f"{method}-") for case in read_cases(out / cell / "cases.csv")]


def table_of(printed):
    """Name of a row -> its cells, of all tables of a printed text."""
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {cells[0].removeprefix("| "): [cell.removesuffix(" |") for cell in cells[1:]] for cells in lines}


def test_every_image_is_held_out_once_a_seed_by_a_model_that_did_not_see_its_group(compared):
    _, out, _ = compared
    assert sorted(path.name for path in out.iterdir() if path.name != "test-flip") == sorted([*CELLS, "test"])
    assert sorted(path.name for path in (out / "test").iterdir()) == sorted(f"{method}.csv" for method in METHODS)
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
    measured = metrics.summary(plain, samples=50)
    first, differences = printed[printed.index("| measure") :].split("\n\n")
    found = table_of(first)
    for name in ("dice", "macro_auroc", "malignant_accuracy"):
        entry = measured[name]
        value = f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"
        assert found[name][:3] == [f"{entry['n']:.0f}", f"{entry['groups']:.0f}", value]
    assert found["dice"][3] == "" != found["quadratic_kappa"][3]  # grading alone has no outline
    differ = table_of(differences)
    assert differ["difference to plain"] == ["only_grading"]
    assert set(differ) == {"difference to plain", "quadratic_kappa", "macro_auroc"}
    gap = paired.difference(grading, plain, "macro_auroc", samples=50)
    assert differ["macro_auroc"] == [f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"]


def test_given_again_it_trains_nothing_and_prints_the_same_table(compared, monkeypatch):
    command, _, printed = compared
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", None)
    assert printed_by(command) == printed[printed.index("| measure") :]
    other_order = table_of(printed_by([*command, "--methods", *METHODS[::-1], "--folds", "1", "--seeds", "0"]))
    assert other_order["difference to only_grading"] == ["plain"] and other_order["macro_auroc"]


def test_the_tables_are_printed_again_from_the_pooled_predictions_alone(compared, capsys):
    command, out, printed = compared
    printed_by(command)  # another test compared fewer folds since
    tables.main([str(out / "test"), *METHODS, "--samples", "50"])
    assert capsys.readouterr().out == printed[printed.index("| measure") :]
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
    train = compare.runs.evaluation.train

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


def test_a_measure_that_one_method_lacks_is_compared_for_the_others():
    rng = np.random.default_rng(0)
    outlined = [Case(case=str(i), group=str(i), dice=float(rng.uniform())) for i in range(8)]
    better = [replace(case, dice=min(1.0, case.dice + 0.1)) for case in outlined]
    without = [replace(case, dice=float("nan")) for case in outlined]
    text = paired.comparison({"first": outlined, "better": better, "without": without}, samples=20)
    found = table_of(text.split("\n\n")[1])
    gap = paired.difference(better, outlined, "dice", samples=20)
    assert found["dice"] == [f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})", ""]
    assert "difference" not in paired.comparison({"alone": outlined}, samples=20)


def test_counts_of_methods_that_differ_are_shown_as_a_range():
    outlined = [Case(case=str(i), group=str(i), dice=0.5 + i / 20, hd95_px=float(i)) for i in range(6)]
    one_empty = [replace(outlined[0], hd95_px=float("nan")), *outlined[1:]]
    found = table_of(paired.comparison({"whole": outlined, "one empty": one_empty}, samples=20).split("\n\n")[0])
    assert found["hd95_px"][:2] == ["5 to 6", "5 to 6"] and found["dice"][:2] == ["6", "6"]


def test_nothing_to_compare_is_an_error():
    with pytest.raises(InputError, match="name a method"):
        paired.comparison({})
