"""Finished runs on other data sets: what they have seen is refused, grades are compared as they are mapped, several
runs are one method.
"""

import errno
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import change_settings

from data_prep import builder
from experiments import evaluate
from experiments import external as script
from thyroid_jax import runs
from thyroid_jax.data.record import Card
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.runs import external


@pytest.fixture(scope="module")
def data(drawn_data, tmp_path_factory):
    """The drawn set, and "strangers": other pictures like those, graded in another way."""
    folder = tmp_path_factory.mktemp("external")
    shutil.copytree(drawn_data / "drawn", folder / "drawn")
    card, records = open_records(drawn_data, "drawn")
    strangers = []
    for number, record in enumerate(list(records)[:12]):
        noise = np.random.default_rng(100 + number).normal(size=record.image.shape) * 12
        image = np.clip(record.image[::-1].astype(float) + noise, 1, 255).astype(np.uint8)
        mask = None if record.mask is None else record.mask[::-1].copy()
        strangers.append(
            replace(
                record, image=image, mask=mask, case=f"s{number}", group=f"s{number}", reader_masks=(), reader_grades=()
            )
        )
    builder.build(replace(card, name="strangers"), lambda notes: iter(strangers), folder, near=False)
    coarse = [replace(record, grade=None if record.grade is None else min(record.grade, 1)) for record in strangers]
    other = replace(card, name="coarse", grades=("benign", "suspicious"), grade_system="another")
    builder.build(other, lambda notes: iter(coarse), folder, near=False)
    known = next(iter(records)).image
    seen = [strangers[0], replace(strangers[1], image=known, mask=None), replace(strangers[2], group="s1")]
    builder.build(replace(card, name="seen"), lambda notes: iter(seen), folder, near=False)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def table_of(run, data, name, *more):
    fields = ["--run-dir", str(run), "--data.name", name, "--data.dir", str(data), "--run-data-dir", str(data)]
    script.main([*fields, "--samples", "20", *more])
    words = [word for option, word in (("--grades", "mapped"), ("--leave-out-shared", "unshared")) if option in more]
    return read_cases(run / "report" / "-".join(["external", name, *words]) / "cases.csv")


def test_the_table_is_what_the_run_predicts_for_the_other_set(run, data, capsys):
    cases = table_of(run, data, "strangers")
    card, records = open_records(data, "strangers")
    trained, _ = runs.open_finished(run, "best", data)
    assert [case.case for case in cases] == [record.case for record in records]
    assert {case.part for case in cases} == {"external"}
    for case, (record, found) in zip(cases, runs.predicted(trained, records), strict=True):
        assert list(case.probability) == list(card.grades)
        np.testing.assert_allclose(list(case.probability.values()), found.grades, atol=1e-6)
        assert case.grade_truth == ("" if record.grade is None else card.grades[record.grade])
        assert case.malignant_truth == record.malignant and np.isnan(case.dice) == (record.mask is None)
    printed = capsys.readouterr().out
    assert "| dice |" in printed and "| quadratic_kappa |" in printed and "not compared" not in printed


def test_grades_of_another_system_are_compared_only_as_they_are_mapped(run, data, capsys):
    plain = table_of(run, data, "coarse")
    assert all(not case.probability and not case.grade_predicted for case in plain)
    assert {case.grade_truth for case in plain} - {""} == {"benign", "suspicious"}  # subgroups need the truth
    printed = capsys.readouterr().out
    assert "its grades (low middle high) are not those of coarse (another benign suspicious): not compared" in printed
    assert "--grades says which of its grades counts as which" in printed
    mapped = table_of(run, data, "coarse", "--grades", "low=benign", "middle=suspicious", "high=suspicious")
    assert "grades count as those of coarse: low as benign, middle as suspicious, high as suspicious." in (
        capsys.readouterr().out
    )
    whole = table_of(run, data, "strangers")
    for coarse, fine in zip(mapped, whole, strict=True):
        low, middle, high = fine.probability.values()
        np.testing.assert_allclose(list(coarse.probability.values()), [low, middle + high], atol=1e-6)
        assert coarse.grade_truth in ("", "benign", "suspicious")


def test_what_the_run_has_seen_is_refused_or_left_out(run, data, capsys):
    first = next(iter(open_records(data, "drawn")[1]))
    with pytest.raises(SystemExit):
        table_of(run, data, "drawn")
    assert "images were seen in training" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        table_of(run, data, "seen")
    error = capsys.readouterr().err
    parts = runs.open_finished(run, "best", data).parts
    trained_on = {record.case for part in (parts.train, parts.validation) for record in part}
    assert first.case in trained_on  # else the test would show nothing
    assert "1 of 3 images were seen in training; their groups hold 2" in error and f"s1: equal to {first.case}" in error
    cases = table_of(run, data, "seen", "--leave-out-shared")
    assert [case.case for case in cases] == ["s0"]
    assert "left out: 2 of 3 images, of groups with 1 that were seen" in capsys.readouterr().out


CARD = Card("other", "Other", "-", "-", "-", "case", ("2", "3", "4"), "BI-RADS")


def test_which_mappings_are_refused(finished, data):
    trained, _ = runs.open_finished(finished, "best", data)
    good = {"low": "2", "middle": "4", "high": "4"}
    assert external.grade_columns(trained, CARD, good) == good
    assert external.grade_columns(trained, CARD, {}) is None
    for wrong, why in (
        ({"low": "2", "middle": "3"}, "high counts as ''"),
        ({**good, "low": "7"}, "low counts as '7', which is not a grade of other"),
        ({**good, "none": "2"}, "none is not a grade of the run"),
        ({"low": "4", "middle": "3", "high": "2"}, "the order of the grades would change"),
    ):
        with pytest.raises(InputError, match=why.replace("(", r"\(")):
            external.grade_columns(trained, CARD, wrong)
    for texts in (("low",), ("=2",), ("low=",), ("low=2", "low=3")):
        with pytest.raises(InputError, match="--grades"):
            script.mapping_of(texts)


def test_what_cannot_be_tested(run, data, capsys):
    for more, message in (
        (("--data.name", "strangers", "--part", "test"), "has no official test part"),
        (("--data.name", "nowhere"), "has not been built there"),
    ):
        with pytest.raises(SystemExit):
            script.main(["--run-dir", str(run), "--data.dir", str(data), "--run-data-dir", str(data), *more])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        table_of(run, data, "strangers", "--run-dir", str(run), str(run))
    assert "same folder name" in capsys.readouterr().err
    for more, message in (
        (("--runs", f"whole={run}", str(run)), "a folder is named twice"),
        (("--runs", f"one={run}", "--data.name", "strangers", "strangers"), "name each data set once"),
        ((), "name the runs to test"),
        (("--runs", f"one={run}", "--margin", "dice=-1"), "above 0"),
        (("--runs", f"one={run}", "--data.name", "strangers", "nowhere"), "has not been built there"),
    ):
        with pytest.raises(SystemExit):
            script.main(["--data.name", "strangers", "--data.dir", str(data), *more])
        assert message in capsys.readouterr().err


def test_a_run_that_cannot_be_written_into_is_refused_before_anything_is_predicted(run, data, capsys, monkeypatch):
    def read_only(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr("thyroid_jax.files.tempfile.TemporaryFile", read_only)
    monkeypatch.setattr("thyroid_jax.runs.evaluate", None)
    monkeypatch.setattr("thyroid_jax.runs.external.external_cases", None)
    with pytest.raises(SystemExit):
        table_of(run, data, "strangers")
    assert f"{run} cannot be written into (Read-only file system)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["--run-dir", str(run), "--data-dir", str(data)])
    assert f"{run} cannot be written into (Read-only file system)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, more, message",
    [
        (("strangers", "seen"), (), "seen: 1 of 3 images were seen in training"),
        (("coarse", "strangers"), ("--grades", "low=benign", "middle=suspicious", "high=suspicious"), "of strangers"),
    ],
)
def test_what_one_set_is_refused_for_is_said_before_another_is_predicted(run, data, names, more, message, capsys):
    with pytest.raises(SystemExit):
        script.main(
            ["--run-dir", str(run), "--data.name", *names, "--data.dir", str(data), "--run-data-dir", str(data), *more]
        )
    assert message in capsys.readouterr().err and not list((run / "report").glob("external*"))


def test_copies_and_added_data_sets_count_as_seen(finished, data, tmp_path):
    """A run that is said to have trained on "strangers" too, which has an official test part, and cropped copies."""
    from test_builder import speckle

    card, records = open_records(data, "strangers")
    folder = tmp_path / "data"
    shutil.copytree(data / "drawn", folder / "drawn")
    textured = [replace(record, image=speckle(i), mask=None) for i, record in enumerate(list(records)[:6])]
    textured[5] = replace(textured[5], official_test=True)
    builder.build(card, lambda notes: iter(textured), folder, near=False)
    copies = [replace(record, image=record.image[2:-3, 4:-2].copy(), official_test=False) for record in textured]
    builder.build(replace(card, name="copies"), lambda notes: iter(copies), folder, near=False)
    trained, _ = runs.open_finished(finished, "best", data)
    config = replace(trained.config, data=replace(trained.config.data, dir=str(folder), also=("strangers",)))
    run = runs.Finished(trained, runs.open_parts(config))
    arguments = script.Arguments(run_dir=(finished,), data=script.Other(("copies",), folder), leave_out_shared=True)
    seen = script.seen_pictures({"run": {finished: run}})
    left, said = script.unseen(arguments, "copies", seen, open_records(folder, "copies")[1])
    assert [record.case for record in left] == ["s5"]  # the copy of an image that the added set keeps for testing
    assert said.endswith("without fine-tuning. Left out: 5 of 6 images, of groups with 5 that were seen.")
    own = script.Arguments(run_dir=(finished,), data=script.Other(("strangers",), folder), part="test")
    left, said = script.unseen(own, "strangers", seen, open_records(folder, "strangers")[1])
    assert [record.case for record in left] == ["s5"] and "official test part" in said


def test_a_run_on_a_share_does_not_hide_what_another_run_has_seen(finished, data):
    trained, parts = runs.open_finished(finished, "best", data)
    config = replace(trained.config, data=replace(trained.config.data, dir=str(data), share=0.1))
    few = runs.Finished(trained._replace(config=config), runs.open_parts(config))
    assert len(few.parts.train) < len(parts.train) and few.parts.split_digest == parts.split_digest
    methods = {"whole": {finished: runs.Finished(trained, parts)}, "share": {finished: few}}
    known = {record.case for part in (parts.train, parts.validation) for record in part}
    for order in (methods, dict(reversed(methods.items()))):
        assert {case for pictures in script.seen_pictures(order) for case in pictures.cases} == known


# --- several runs of a method -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_runs(finished, tmp_path_factory):
    """The finished run, and a copy of it that answers otherwise and is said to have another seed."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("one", "two"):
        shutil.copytree(finished, folder / name)
    change_settings(folder / "two", train={"seed": 5})
    shutil.rmtree(folder / "two" / "checkpoints" / "best")
    return folder


def run_script(two_runs, data, out, *more):
    words = ["--runs", f"both={two_runs / 'one'}", str(two_runs / "two"), f"second={two_runs / 'two'}"]
    words += [
        "--data.dir",
        str(data),
        "--run-data-dir",
        str(data),
        "--out",
        str(out),
        "--samples",
        "20",
        "--page",
        "no",
    ]
    script.main([*words, "--data.name", *more])


def test_runs_of_a_method_are_rows_of_their_own_and_together(two_runs, data, tmp_path, capsys):
    run_script(two_runs, data, tmp_path, "strangers", "coarse")
    printed = capsys.readouterr().out
    assert "strangers, all images, without fine-tuning." in printed
    assert "Not compared, because they have more or fewer predictions: second." in printed
    assert {path.name for path in (tmp_path / "strangers").iterdir()} == {
        *("table.md", "table.tex", "table.csv", "both.csv", "second.csv", "both, seeds averaged.csv")
    }
    assert (tmp_path / "coarse" / "table.md").is_file()
    each, together = (read_cases(tmp_path / "strangers" / f"{name}.csv") for name in ("both", "both, seeds averaged"))
    assert [case.part for case in each] == ["fold0-seed0"] * 12 + ["fold0-seed5"] * 12
    finished = [runs.open_finished(two_runs / name, "best", data) for name in ("one", "two")]
    _, records = open_records(data, "strangers")
    predictions = [runs.predicted(trained, records) for trained, _ in finished]
    differ = 0
    for row, (mean, (record, one), (_, two)) in enumerate(zip(together, *predictions, strict=True)):
        assert mean.case == each[row].case == each[row + 12].case == record.case and mean.part == "ensemble"
        for case, found in ((each[row], one), (each[row + 12], two)):
            np.testing.assert_allclose(list(case.probability.values()), found.grades, atol=1e-6)
        np.testing.assert_allclose(list(mean.probability.values()), (one.grades + two.grades) / 2, atol=1e-6)
        assert mean.p_malignant == pytest.approx((one.malignant + two.malignant) / 2, abs=1e-6)
        assert mean.predicted_area_px == int(((one.probability + two.probability) / 2 >= 0.5).sum())
        differ += abs(one.malignant - two.malignant) > 1e-4
    assert differ  # else the test would show nothing


def test_runs_that_are_not_of_one_method_are_refused(two_runs, data, tmp_path, finished):
    one = runs.open_finished(two_runs / "one", "best", data)
    other = one.trained._replace(facts=one.trained.facts | {"grades": ["a", "b"]})
    with pytest.raises(InputError, match=r"two: its grades .* are not those of one"):
        external.external_cases({"one": one.trained, "two": other}, CARD, [], columns=None)


@pytest.mark.parametrize(
    "changed, message",
    [({"epochs": 99, "seed": 5}, "differ in train.epochs, so they are not one"), ({}, "are both fold0-seed0 of one")],
)
def test_a_method_is_of_one_setting_and_no_run_counts_twice(finished, data, tmp_path, changed, message, capsys):
    for name in ("one", "two"):
        shutil.copytree(finished, tmp_path / name)
    change_settings(tmp_path / "two", train=changed)
    with pytest.raises(SystemExit):
        run_script(tmp_path, data, tmp_path / "out", "strangers")
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_runs_with_the_same_fold_and_seed_are_told_apart_by_their_folders(two_runs, data):
    one = runs.open_finished(two_runs / "one", "best", data).trained
    places = [two_runs / name for name in ("one", "two")]
    assert list(script._labels(dict(zip(places, (one, one)))).values()) == [str(place) for place in places]
