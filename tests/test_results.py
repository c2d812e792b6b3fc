"""What scripts that compare methods share: options, folders of methods, rows of ensembles, files that are written."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import tables
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import tabulate
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases
from thyroid_jax.files import write_json
from thyroid_jax.predict import ABOUT_RUN
from thyroid_jax.runs import results
from thyroid_jax.runs.results import TableOptions
from thyroid_jax.settings import to_dict


def table(seed, runs=("fold0-seed0",), n=12):
    """A method's table: n images of n / 2 groups, each predicted by every run. The truth is one."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    malignant = truth.integers(2, size=n)
    return [
        Case(
            case=f"{image}", group=f"{image // 2}", part=run, dice=float(rng.uniform()),
            malignant_truth=bool(malignant[image]), p_malignant=float(rng.uniform()),
        )
        for run in runs
        for image in range(n)
    ]  # fmt: skip


SEEDS = ("fold0-seed0", "fold0-seed1")
FEW = TableOptions(samples=20, page="no")


@pytest.mark.parametrize("texts, expected", [
    ((), {}), (("dice=0.02", "iou=1e-3"), {"dice": 0.02, "iou": 0.001}),
])  # fmt: skip
def test_margins_are_read(texts, expected):
    assert results.parse_margins(texts) == expected


@pytest.mark.parametrize("texts", [("dice",), ("dice=",), ("=1",), ("dice=much",), ("dice=nan",), ("a=1", "a=2")])
def test_margins_of_another_form_are_refused(texts):
    with pytest.raises(InputError, match="give MEASURE=MARGIN once for each measure"):
        results.parse_margins(texts)


def test_methods_are_names_with_folders_also_folders_with_an_equals_sign(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    found = results.parse_methods(["ours=a", "lr=1", "plain+lite0=c"])
    assert found == {"ours": [Path("a"), Path("lr=1")], "plain+lite0": [Path("c")]}
    assert results.parse_methods([]) == {}


@pytest.mark.parametrize("texts, said", [
    (["a"], "stands before the first name"), (["a=b", "a=c"], "once for each method"), (["a="], "once for each method"),
    (["=b"], "cannot name a method"), (["a/b=c"], "cannot name a method"), (["table=c"], "cannot name a method"),
    ([".a=c"], "cannot name a method"), (["../a=c"], "cannot name a method"),
])  # fmt: skip
def test_methods_of_another_form_are_refused(texts, said):
    with pytest.raises(InputError, match=said):
        results.parse_methods(texts)


def test_a_run_has_ended_at_its_last_step_or_out_of_patience(tmp_path, monkeypatch):
    scored = lambda step, score: {"split": "validation", "step": step, "score": score}
    log = [scored(5, 0.6), scored(10, 0.5), scored(15, 0.6)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    patient, plain = (replace_groups(Config(), train={"patience": patience}) for patience in (2, 0))
    for newest, ended in ((10, False), (15, True)):  # a row after the newest checkpoint does not count
        monkeypatch.setattr(results, "last_step", lambda folder, newest=newest: newest)
        assert results.has_ended(tmp_path, patient, 30) is ended
        assert not results.has_ended(tmp_path, plain, 30) and results.has_ended(tmp_path, plain, newest)


def test_a_folder_with_a_table_is_a_method(tmp_path):
    write_cases(tmp_path / "nnunet" / "cases.csv", [replace(case, part="test") for case in table(1)])
    found = results.cases_of_folders([tmp_path / "nnunet"], part="test", flip=False)
    assert [case.case for case in found] == [case.case for case in table(1)]
    write_cases(tmp_path / "pooled" / "cases.csv", table(1, SEEDS))
    assert len(results.cases_of_folders([tmp_path / "pooled"], part="test", flip=False)) == 24
    with pytest.raises(InputError, match="holds cases of test, not of validation"):
        results.cases_of_folders([tmp_path / "nnunet"], part="validation", flip=False)


def test_folders_that_cannot_be_methods_are_named_before_anything_is_trained(tmp_path):
    write_cases(tmp_path / "nnunet" / "cases.csv", table(1))
    runs = (
        ("one", "digest", {"train": {"seed": 0}}),
        ("two", "digest", {"train": {"seed": 1, "start_from": "a"}, "data": {"fold": 1, "dir": "b"}}),
        ("copy", "digest", {"train": {"seed": 0}}),
        ("other", "another", {"train": {"seed": 2}}),
        ("wider", "digest", {"train": {"seed": 3, "epochs": 7}, "model": {"width": 24}}),
    )
    for name, data, changes in runs:
        about = {"version": "", "data": data, "split": ""}
        config = replace_groups(Config(), **changes)
        write_json(tmp_path / name / "config.json", to_dict(config) | {ABOUT_RUN: about})
    place = lambda *names: {"m": [tmp_path / name for name in names]}
    results.check_folders(place("one", "two"), flip=True)
    results.check_folders(place("one") | {"n": [tmp_path / "other"], "o": [tmp_path / "nnunet"]}, flip=False)
    for folders, flip, said in (
        (place("nnunet"), True, "cannot be averaged over mirror images"),
        (place("one", "one"), False, "--runs m: a folder is named twice"),
        (place("one", "two", "copy"), False, "one and .*copy are both fold0-seed0 of one split"),
        (place("nowhere"), False, "neither a run nor results from elsewhere"),
        (place("one", "other"), False, "were trained on different data; give two names"),
        (place("one", "two", "wider"), False, "one and .*wider differ in model.width, train.epochs, so they"),
    ):
        with pytest.raises(InputError, match=said):
            results.check_folders(folders, flip=flip)


def test_each_method_of_several_runs_has_an_ensemble_that_is_compared_to_the_firsts():
    rows = results.with_ensembles({"a": table(1, SEEDS), "b": table(2, SEEDS)}, {})
    assert list(rows.found) == ["a", "b", "a, seeds averaged", "b, seeds averaged"]
    assert rows.against == {"b": "a", "b, seeds averaged": "a, seeds averaged"}
    for name in "ab":
        both = {seed: [case for case in rows.found[name] if case.part == seed] for seed in SEEDS}
        for mean, one, two in zip(rows.found[f"{name}, seeds averaged"], *both.values(), strict=True):
            assert mean.p_malignant == (one.p_malignant + two.p_malignant) / 2 and np.isnan(mean.dice)
    assert rows.notes == ["Rows called averaged are means of the runs' probabilities, of grades and malignancy."]


def test_an_ensemble_that_was_predicted_has_its_outlines():
    predicted = [replace(case, part="fold0-ensemble", dice=0.9) for case in table(5)]
    rows = results.with_ensembles({"a": table(1, SEEDS), "b": table(2, SEEDS)}, {"a": predicted, "b": predicted})
    assert rows.found["a, seeds averaged"] == predicted
    assert rows.notes[0].endswith("of outlines, grades and malignancy.")


def test_rows_of_different_numbers_of_predictions_are_not_compared_and_named():
    rows = results.with_ensembles({"a": table(1, SEEDS), "theirs": table(2)}, {})
    assert list(rows.found) == ["a", "theirs", "a, seeds averaged"] and rows.against == {}
    assert rows.notes[1] == "Not compared, because they have more or fewer predictions: theirs."
    lacking = table(1, SEEDS)[:-1]
    rows = results.with_ensembles({"a": lacking, "b": lacking}, {})
    assert list(rows.found) == ["a", "b"] and rows.against == {"b": "a"}
    assert rows.notes == ["Not averaged, because not equally many runs predict each image: a; b."]
    with pytest.raises(InputError, match="name a method"):
        results.with_ensembles({}, {})


def test_tables_and_cases_are_written_and_printed_again_alike(tmp_path, capsys):
    rows = results.with_ensembles({"a": table(1, SEEDS), "b": table(2, SEEDS)}, {})
    printed = results.publish(tmp_path / "out", rows, FEW, ["Toys."])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    cases = ["a, seeds averaged.csv", "a.csv", "b, seeds averaged.csv", "b.csv"]
    assert names == [*cases, "table.csv", "table.md", "table.tex"]
    assert (tmp_path / "out" / "table.md").read_text() == printed + "\n" and "Toys." in printed
    assert repr(read_cases(tmp_path / "out" / "b.csv")) == repr(rows.found["b"])
    tables.main([str(tmp_path / "out"), "a", "b", "--samples", "20", "--page", "no", "--out", str(tmp_path / "again")])
    assert capsys.readouterr().out.replace("\n\nRows", "\n\nToys.\nRows") == printed + "\n"
    assert (tmp_path / "again" / "table.csv").read_bytes() == (tmp_path / "out" / "table.csv").read_bytes()


def test_rows_that_cannot_be_compared_leave_the_folder_as_it_is(tmp_path):
    """Tables of an earlier comparison must not stand beside the cases of one that was refused."""
    found = {"a": table(1), "b": table(2)}
    results.publish(tmp_path, results.with_ensembles(found, {}), FEW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = [replace(case, malignant_truth=not case.malignant_truth) for case in table(3)]
    with pytest.raises(InputError, match="differ in their reference"):
        results.publish(tmp_path, results.with_ensembles(found | {"b": other}, {}), FEW)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_table_of_differences_alone_says_what_is_not_compared(tmp_path, capsys):
    for name, runs in (("ours", SEEDS), ("theirs", SEEDS[:1])):
        write_cases(tmp_path / f"{name}.csv", table(1, runs))
    words = [str(tmp_path), "ours", "theirs", "--samples", "20", "--page", "no", "--parts"]
    tables.main([*words, "differences", "p"])
    printed = capsys.readouterr()
    assert "| difference to ours" not in printed.out and "Not compared" in printed.err and "theirs" in printed.err
    tables.main([*words, "values", "caption"])
    assert not capsys.readouterr().err


def test_the_tables_of_predicted_ensembles_are_printed_again_with_their_outlines(tmp_path, capsys):
    predicted = [replace(case, part="fold0-ensemble") for case in table(5)]
    rows = results.with_ensembles({"a": table(1, SEEDS)}, {"a": predicted})
    printed = results.publish(tmp_path, rows, FEW)
    tables.main([str(tmp_path), "a", "--samples", "20", "--page", "no"])
    assert capsys.readouterr().out == printed + "\n"
    dice = next(line for line in printed.splitlines() if line.startswith("| dice"))
    assert f"{np.mean([case.dice for case in predicted]):.3f}" in dice


def test_a_table_from_elsewhere_stands_beside_those_of_the_folder(tmp_path, capsys):
    write_cases(tmp_path / "a.csv", table(1))
    write_cases(tmp_path / "theirs" / "cases.csv", [replace(case, part="all") for case in table(2)])
    tables.main([str(tmp_path), "a", f"theirs={tmp_path / 'theirs'}", "--samples", "20"])
    first = capsys.readouterr().out
    assert "| difference to a | pairs | groups | theirs |" in first
    tables.main([str(tmp_path), "a", f"theirs={tmp_path / 'theirs' / 'cases.csv'}", "--samples", "20"])
    assert capsys.readouterr().out == first
    for words, said in ((["a", "a"], "name each method once"), (["a", "b"], "b.csv: no such file")):
        with pytest.raises(SystemExit):
            tables.main([str(tmp_path), *words])
        assert said in capsys.readouterr().err


def test_measures_and_margins_are_those_that_were_asked_for():
    rows = results.with_ensembles({"a": table(1), "b": table(2)}, {})
    found = results.compared(rows, replace(FEW, measures=("dice", "malignant_accuracy"), margin=("dice=0.5",)))
    assert [gap.measure for gap in found.gaps] == ["dice", "malignant_accuracy"] and found.gaps[0].margin == 0.5
    for options, said in (
        (replace(FEW, measures=("nice",)), "'nice' cannot be compared"),
        (replace(FEW, margin=("iou=1",)), "not among the compared"),
        (replace(FEW, samples=0), "at least 1"),
    ):
        with pytest.raises(InputError, match=said):
            results.check_options(options)


def test_a_page_is_written_where_it_is_asked_for_or_can_be(tmp_path, monkeypatch, capsys):
    import sys

    rows = results.with_ensembles({"a": table(1, SEEDS), "b": table(2, SEEDS), "one": table(3)}, {})
    page = lambda found, *, title, compared: f"{title}: {compared.samples} {' '.join(found)}"
    monkeypatch.setattr(results.report, "render_comparison", page)
    results.publish(tmp_path / "auto", rows, replace(FEW, page="auto"))
    assert (tmp_path / "auto" / "index.html").read_text().endswith(", auto: 20 a b")  # the others are not compared to a
    results.publish(tmp_path / "no", rows, FEW)
    assert not (tmp_path / "no" / "index.html").exists()
    results.publish(tmp_path / "alone", results.with_ensembles({"a": table(1)}, {}), replace(FEW, page="yes"))
    assert "no page: it needs two methods" in capsys.readouterr().out and not (tmp_path / "alone/index.html").exists()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    results.publish(tmp_path / "missing", rows, replace(FEW, page="auto"))
    assert not (tmp_path / "missing" / "index.html").exists()
    results.require(replace(FEW, page="auto"))
    with pytest.raises(InputError, match="missing packages: jinja2"):
        results.require(replace(FEW, page="yes"))


def test_the_page_is_that_of_the_report(tmp_path):
    rows = results.with_ensembles({"a": table(1), "b": table(2)}, {})
    results.publish(tmp_path, rows, replace(FEW, page="yes"))
    page = (tmp_path / "index.html").read_text()
    assert page.startswith("<!") and "malignancy" in page.lower()


def test_an_unnamed_row_of_the_csv_table_is_none(tmp_path):
    """Every method and measure is there once."""
    rows = results.with_ensembles({"a": table(1, SEEDS), "b": table(2, SEEDS)}, {})
    keys = [(row["method"], row["measure"]) for row in tabulate.csv_rows(results.compared(rows, FEW))]
    assert len(set(keys)) == len(keys) and {method for method, _ in keys} == set(rows.found)


def test_a_kept_ensemble_is_predicted_again_only_when_a_run_is_evaluated_again(tmp_path, monkeypatch):
    import os

    runs_of_it = [tmp_path / name for name in ("one", "two")]
    for run_dir in runs_of_it:
        write_cases(run_dir / "cases.csv", table(1))
    predicted = []
    monkeypatch.setattr(results, "ensemble_cases", lambda dirs, **options: predicted.append(dirs) or table(3))
    kept = lambda dirs: repr(results.kept_ensemble(tmp_path / "kept", "m", dirs, part="test", flip=False))
    assert kept(runs_of_it) == kept(runs_of_it) == kept(runs_of_it[::-1]) == repr(table(3)) and len(predicted) == 1
    kept(runs_of_it[:1])  # other runs under the same name are another ensemble
    assert len(predicted) == 2
    later = max(path.stat().st_mtime for path in (tmp_path / "kept").iterdir()) + 10
    os.utime(runs_of_it[1] / "cases.csv", (later, later))
    kept(runs_of_it)
    assert len(predicted) == 3


def test_runs_are_put_together_by_the_images_that_they_hold_out(tmp_path):
    for name, cases in (("a", table(1)), ("b", table(2)), ("c", table(1)[:5])):
        write_cases(tmp_path / name / "cases.csv", cases)
    a, b, c = (tmp_path / name for name in "abc")
    assert results.of_equal_cases([a, c, b], part="test", flip=False) == [[a, b], [c]]


def test_options_that_all_methods_share_are_said_once(tmp_path, capsys):
    found = {
        f"{name}+lite0+{more}nodule": table(seed, SEEDS) for seed, (name, more) in enumerate([("a", ""), ("b", "x+")])
    }
    printed = results.publish(tmp_path, results.with_ensembles(found, {}), FEW)
    assert "| measure | predictions | groups | a | b+x | a, seeds averaged | b+x, seeds averaged |" in printed
    assert "Options of all methods: lite0, nodule." in printed and "+lite0" not in printed
    files = {path.stem for path in tmp_path.glob("*.csv")} - {"table"}
    assert files == {*found, *(f"{name}, seeds averaged" for name in found)}
    tables.main([str(tmp_path), *found, "--samples", "20"])
    assert capsys.readouterr().out.strip() == printed.strip()


@pytest.mark.parametrize("names", [
    ("a+lite0", "b+lite0"), ("a+lite0+nodule", "b"), ("a+lite0+nodule",), ("a+x+y+z", "a+y+z+x"),
])  # fmt: skip
def test_names_stay_where_they_are_short_or_would_be_one(names):
    rows = results.with_ensembles({name: table(seed) for seed, name in enumerate(names)}, {})
    assert results.with_short_names(rows) == rows
