"""A run, killed at any moment and gone on with: the same parameters to the bit. Whatever is not its own is refused."""

import dataclasses
import json
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest
from conftest import LEAST
from helpers import change_facts, change_settings

from data_prep import builder
from experiments import evaluate as evaluate_script
from experiments import train as train_script
from thyroid_jax import checkpoints, predict, runs
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data import source
from thyroid_jax.data.pipeline import Examples
from thyroid_jax.data.storage import open_records, read_metadata
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases
from thyroid_jax.files import alone_in
from thyroid_jax.losses import consistency
from thyroid_jax.runs import start
from thyroid_jax.runs.start import check_reader, describe, fresh_state, labelled_tasks
from thyroid_jax.train.log import without_machine
from thyroid_jax.train.loop import check_labels, with_prior_agreement
from thyroid_jax.train.step import init_state, unpacked

ENTRIES = ["checkpoints", "config.json", "log.jsonl", "metrics.csv", "split.json"]


def rows(run_dir):
    """The log without what depends on the clock."""
    return [without_machine(json.loads(line)) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def parameters(run_dir, which="last"):
    return jax.device_get(predict.load(run_dir, checkpoint=which).params)


def contents(run_dir):
    """Every file of a folder, by its path."""
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may spoil."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    return run_dir


@pytest.fixture
def train(train_arguments):
    """Train on "drawn" in this process: train(run_dir, "--more", "fields")."""
    return lambda run_dir, *more: train_script.main(train_arguments(run_dir, *more))


@pytest.fixture
def refused(capsys):
    """refused(run): its one message, after making sure that it ends with status 2 and no traceback."""

    def message(run):
        with pytest.raises(SystemExit) as stop:
            run()
        assert stop.value.code == 2
        text = " ".join(capsys.readouterr().err.split())
        assert "rror" in text and "Traceback" not in text
        return text

    return message


@pytest.fixture(scope="module")
def least(train_command, tmp_path_factory):
    """The folder of an uninterrupted run of the smallest network, by a process of its own on one device."""
    run_dir = tmp_path_factory.mktemp("runs") / "least"
    result = subprocess.run(**train_command(run_dir, *LEAST), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return run_dir


# --- one run ----------------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_it_should_and_nothing_else(finished):
    assert sorted(path.name for path in finished.iterdir()) == ENTRIES
    log = rows(finished)
    assert [row["epoch"] for row in log if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in log if row["split"] == "validation"] == [2, 4, 6]
    scores = {row["step"]: row["score"] for row in log if row["split"] == "validation"}
    assert predict.load(finished, checkpoint="best").step == max(scores, key=scores.get)
    assert predict.load(finished, checkpoint="last").step == max(scores)
    assert (finished / "metrics.csv").read_text().count("\n") == len(log) + 1
    validated = [row for row in log if row["split"] == "validation"][-1]
    assert {"dice", "accuracy", "quadratic_kappa", "macro_auroc", "malignant_auroc", "guidance_r2"} <= set(validated)


def test_the_best_checkpoint_holds_parameters_alone(finished):
    (step,) = checkpoints.steps(finished / "checkpoints" / "best")
    about = json.loads((finished / "checkpoints" / "best" / str(step) / "about.json").read_text())
    assert set(about["arrays"]) == {"params", "fitted"}
    assert len(checkpoints.steps(finished / "checkpoints" / "last")) == checkpoints.KEPT


def test_config_and_checkpoints_hold_the_digests_of_data_and_split(finished, drawn_data):
    parts = runs.open_parts(predict.read_config(finished / "config.json")[0])
    made_from = json.loads((finished / "config.json").read_text())["made_from"]
    facts = predict.load(finished).facts
    assert (made_from["data"], made_from["split"]) == (parts.digest, parts.split_digest)
    assert (facts["digest"], facts["split"]) == (parts.digest, parts.split_digest)
    assert facts["tasks"] == ["segmentation", "grading", "malignancy", "guidance"]
    assert facts["grades"] == ["low", "middle", "high"]


@pytest.mark.parametrize("moment", ["before the first checkpoint", "at any moment"])
def test_killed_and_run_again_it_ends_with_the_same_bits(least, tmp_path, moment, train_command):
    run_dir = tmp_path / "killed"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    delay = np.random.default_rng().uniform(0, 0.5) if moment == "at any moment" else 0.0  # after a checkpoint
    print(f"killed {delay:.4f} s later")  # pytest shows it when the test fails
    sign = "config.json" if moment == "before the first checkpoint" else "checkpoints/last/[0-9]*"
    with subprocess.Popen(**train_command(run_dir, *LEAST), **quiet) as process:
        try:
            while process.poll() is None and not list(run_dir.glob(sign)):
                time.sleep(0.001)
            time.sleep(delay)
        finally:
            process.send_signal(signal.SIGKILL)
    result = subprocess.run(**train_command(run_dir, *LEAST), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for which in ("last", "best"):
        chex.assert_trees_all_equal(parameters(run_dir, which), parameters(least, which))
    assert rows(run_dir) == rows(least)
    assert {path.name for path in run_dir.iterdir()} == {path.name for path in least.iterdir()}


def test_the_same_command_after_the_end_does_nothing_more(copied, train, capsys):
    before = rows(copied)
    train(copied)
    assert "going on from step 18" in capsys.readouterr().out
    assert rows(copied) == before


def test_it_says_what_is_trained_on_what(copied, train, capsys):
    train(copied)
    said = capsys.readouterr().out
    assert "18 training and 6 validation images, 18 steps" in said
    assert "minimises 1 segmentation + 1 grading + 1 malignancy + 0.1 guidance + 0.1 rlar (hinge at latent)" in said


def test_what_was_fitted_is_kept_and_not_fitted_again(copied, train, monkeypatch, capsys):
    """Fitting on another kind of device gives other last bits: a run goes on with what it has."""
    shutil.rmtree(copied / "checkpoints" / "last" / "18")
    fitted = predict.load(copied, checkpoint="last").recipe.fitted
    assert np.abs(np.asarray(fitted.scaling.centre)).max() > 1e-3 and float(fitted.mask_cut) == 0.25
    monkeypatch.setattr("thyroid_jax.runs.start.learn_from", lambda *_, **__: pytest.fail("fitted again"))
    train(copied)
    assert "going on from step 15" in capsys.readouterr().out
    again = predict.load(copied, checkpoint="last")
    chex.assert_trees_all_equal(jax.device_get(again.recipe.fitted), jax.device_get(fitted))
    assert again.step == 18


def test_a_damaged_newest_checkpoint_gives_way_and_the_run_ends_as_it_would_have(finished, copied, train, capsys):
    place = copied / "checkpoints" / "last" / "18"
    largest = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 16
    largest.write_bytes(content)
    train(copied)
    said = capsys.readouterr().out
    assert f"{place}: the checkpoint is damaged" in said and "taking that of step 15" in said
    assert "going on from step 15" in said
    chex.assert_trees_all_close(
        parameters(copied), parameters(finished), rtol=1e-3, atol=1e-5
    )  # eight devices, not one
    assert (copied / "checkpoints" / "last" / "18.damaged").is_dir()


def test_pmap_trains_as_jit_does(least, tmp_path, train):
    """On eight devices, where the other run had one."""
    train(tmp_path / "run", *LEAST, "--devices.mode", "pmap")
    chex.assert_trees_all_close(parameters(tmp_path / "run"), parameters(least), rtol=1e-2, atol=1e-4)
    assert [row["loss"] for row in rows(tmp_path / "run") if "loss" in row] == pytest.approx(
        [row["loss"] for row in rows(least) if "loss" in row], rel=1e-3
    )


# --- what is refused --------------------------------------------------------------------------------------------------


def test_another_configuration_in_the_same_folder_is_refused_and_nothing_touched(copied, train, refused):
    before = contents(copied)
    message = refused(lambda: train(copied, "--optimizer.learning-rate", "0.5", "--rlar.weight", "3"))
    assert "rlar.weight, optimizer.learning_rate differ" in message
    assert contents(copied) == before


def test_two_processes_cannot_train_in_one_folder_and_the_second_writes_nothing(copied, train, refused):
    (copied / ".log.jsonl.writing-abc").write_text("the other process's fragment")
    (copied / "checkpoints" / "last" / "21.writing").mkdir()
    before = contents(copied)
    with alone_in(copied):
        assert "another process is writing into this folder" in refused(lambda: train(copied))
    assert contents(copied) == before
    assert (copied / "checkpoints" / "last" / "21.writing").is_dir()
    train(copied)
    assert not (copied / ".log.jsonl.writing-abc").exists()
    assert not (copied / "checkpoints" / "last" / "21.writing").exists()


def test_a_run_that_blows_up_names_the_step_the_parts_and_the_last_good_checkpoint(tmp_path, train, refused):
    hot = ("--optimizer.learning-rate", "1e30", "--optimizer.clip", "0", "--optimizer.warmup", "0.5")
    message = refused(lambda: train(tmp_path / "hot", *LEAST, *hot))
    assert "no longer finite" in message and "step " in message
    assert "loss_segmentation" in message and "loss_grading" in message and "checkpoint" in message
    if checkpoints.steps(tmp_path / "hot" / "checkpoints" / "last"):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(parameters(tmp_path / "hot")))


@pytest.mark.parametrize("more, message", [
    (["--data.name", "nothing"], "'nothing' has not been built there"),
    (["--data.height", "25"], "must be multiples of 4"),
    (["--train.batch-size", "0"], "batch_size"),
    (["--train.batch-size", "12"], "multiple of the number of devices, 8"),
    (["--run-dir", "/dev/null/run"], "Name a folder"),
    (["--run-dir", "/proc/none/run"], "no folder can be made there"),
    (["--data.folds", "40"], "only 15 groups"),
    (["--data.fold", "9"], "data.fold is 9"),
    (["--mtl.method", "pcgrad"], "pcgrad together with rlar.weight 0.1, which you did not ask for"),
    (["--mtl.method", "pcgrad", "--rlar.weight", "0"], "pcgrad together with guidance.weight 0.1"),
    (["--data.reader", "2"], "data.reader is '2', but no training image has the labels of more than 2 readers"),
    (["--rlar.level", "stride4"], "no level 'stride4'; choose one of stride2, latent"),
    (["--segmentation.weight", "0", "--rlar.weight", "0"], "train.monitor is 'dice', but segmentation.weight is 0"),
])  # fmt: skip
def test_settings_that_cannot_work_end_in_one_message(tmp_path, more, message, train, refused):
    run_dir = tmp_path / "run"
    assert message in refused(lambda: train(run_dir, *more))
    assert not run_dir.exists()  # nothing stands in the way of the corrected command


CHANGES = {
    "an image": {"image": lambda record: 255 - record.image},
    "every mask inverted": {"mask": lambda record: None if record.mask is None else ~record.mask},
    "readers' grades swapped": {"reader_grades": lambda record: record.reader_grades[::-1]},
    "malignancy": {"malignant": lambda record: None if record.malignant is None else not record.malignant},
    "spacing": {"spacing": lambda record: (record.spacing[0], 3 * record.spacing[1])},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_data_are_noticed(copied, tmp_path, change, train, refused, drawn_data):
    """Rebuilt with one kind of label changed, the same names: neither going on nor evaluating mixes the two."""
    card, records = open_records(drawn_data, "drawn")
    changed = [
        dataclasses.replace(record, **{name: make(record) for name, make in change.items()}) for record in records
    ]
    builder.build(card, lambda notes: iter(changed), tmp_path / "other")
    shutil.copytree(drawn_data / "drawn" / "folds", tmp_path / "other" / "drawn" / "folds", dirs_exist_ok=True)
    other = str(tmp_path / "other")
    for run in (
        lambda: train(copied, "--data.dir", other),
        lambda: evaluate_script.main(["--run-dir", str(copied), "--data-dir", other]),
    ):
        message = refused(run)
        assert "the data set 'drawn' is not the one that the run was trained on" in message or "folds" in message


def swap_validation_and_test(split):
    split["validation"], split["test"] = split["test"], split["validation"]


def exchange_a_group(split):
    first, other = split["train"][:2], split["test"][:2]
    split["train"][:2], split["test"][:2] = other, first


def leave_one_out(split):
    split["train"].pop()


def name_one_twice(split):
    split["train"].append(split["train"][0])


@pytest.mark.parametrize("edit", [swap_validation_and_test, exchange_a_group, leave_one_out, name_one_twice])
def test_an_edited_split_is_noticed(copied, edit, train, refused):
    split = json.loads((copied / "split.json").read_text())
    edit(split)
    (copied / "split.json").write_text(json.dumps(split))
    for run in (lambda: train(copied), lambda: evaluate_script.main(["--run-dir", str(copied)])):
        assert "split.json" in refused(run)


def test_edited_folds_beside_the_data_are_noticed(copied, tmp_path, train, refused, drawn_data):
    shutil.copytree(drawn_data, tmp_path / "data")
    (path,) = (tmp_path / "data" / "drawn").rglob("5-0.json")
    folds = json.loads(path.read_text())
    folds["folds"][0], folds["folds"][1] = folds["folds"][1], folds["folds"][0]
    path.write_text(json.dumps(folds))
    other = str(tmp_path / "data")
    assert "split otherwise than when the run was started" in refused(lambda: train(copied, "--data.dir", other))


def test_the_folds_of_a_user_serve_instead(tmp_path, train, refused, drawn_data):
    (path,) = (drawn_data / "drawn").rglob("5-0.json")
    folds = json.loads(path.read_text())
    folds["folds"] = folds["folds"][::-1]
    (tmp_path / "mine.json").write_text(json.dumps(folds))
    config = replace_groups(
        Config(), data={"name": "drawn", "dir": str(drawn_data), "split": str(tmp_path / "mine.json")}
    )
    parts = runs.open_parts(config)
    assert sorted(record.case for record in parts.test) == sorted(folds["folds"][0])


def another_network(run_dir):
    change_settings(run_dir, model={"hidden": 8})


@pytest.mark.parametrize("group, field, value", [
    ("data", "height", 64), ("model", "dtype", "bfloat16"), ("grading", "kind", "corn"), ("train", "seed", 7),
])  # fmt: skip
def test_settings_that_were_changed_after_the_start_are_refused(copied, train, refused, group, field, value):
    """The network would read its own parameters otherwise, and the table would name settings that were not used."""
    file = copied / "config.json"
    settings = json.loads(file.read_text())
    assert settings[group][field] != value
    settings[group][field] = value
    file.write_text(json.dumps(settings))
    for action in (
        lambda: train(copied, f"--{group}.{field}", str(value)),
        lambda: evaluate_script.main(["--run-dir", str(copied)]),
    ):
        assert "was changed: its settings are not those" in refused(action)


def test_a_run_goes_on_where_its_data_have_moved_and_devices_differ(copied):
    file = copied / "config.json"
    settings = json.loads(file.read_text())
    settings["data"] |= {"dir": "elsewhere", "split": "elsewhere/folds.json"}
    settings["devices"]["mode"] = "pmap"
    file.write_text(json.dumps(settings))
    assert predict.read_config(file)[0].data.dir == "elsewhere"
    settings["made_from"].pop("settings")  # as in runs of earlier versions
    settings["train"]["seed"] = 7
    file.write_text(json.dumps(settings))
    assert predict.read_config(file)[0].train.seed == 7


def test_a_checkpoint_of_another_configuration_is_refused(copied, train, refused):
    another_network(copied)
    assert "checkpoint is of another configuration" in refused(lambda: train(copied, "--model.hidden", "8"))


@pytest.mark.parametrize("fact, other", [("settings", "grading.kind"), ("split", "data.fold"), ("digest", "data.name")])
def test_a_checkpoint_of_another_run_of_the_same_shape_is_refused(copied, train, refused, fact, other):
    """CORN's logits read as cross-entropy's, or a model that has seen the images held out, give plausible numbers."""
    assert predict.load(copied).facts[fact]
    change_facts(copied, **{fact: f"that of a run with another {other}"})
    for action in (lambda: train(copied), lambda: evaluate_script.main(["--run-dir", str(copied)])):
        assert "a checkpoint is of another run" in refused(action)
    with pytest.raises(InputError, match="a checkpoint is of another run"):
        predict.load(copied, checkpoint="last")


def test_checkpoints_of_before_that_do_not_name_their_settings_are_read(copied):
    change_facts(copied, settings=None)
    assert predict.load(copied, checkpoint="last").step == 18


def test_a_whole_number_is_the_same_setting_as_its_float():
    """A run started from Python with the weight 1 goes on from the command line, which reads 1.0."""
    one, same, other = (replace_groups(Config(), rlar={"weight": value}) for value in (1, 1.0, 1.5))
    assert predict.digest_in_facts(one) == predict.digest_in_facts(same) != predict.digest_in_facts(other)


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run_dir)
    sheet = run_dir.parent / "sheet.png"
    evaluate_script.main(["--run-dir", str(run_dir), "--samples", "50", "--picture", str(sheet)])
    return run_dir


def test_the_evaluated_folder_has_exactly_the_promised_entries(evaluated):
    assert sorted(path.name for path in evaluated.iterdir()) == sorted([*ENTRIES, "cases.csv", "report"])
    assert (evaluated / "report" / "index.html").stat().st_size > 10_000
    assert (evaluated.parent / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_cases_are_the_held_out_ones_and_their_values_are_those_of_the_model(evaluated, drawn_data):
    cases = read_cases(evaluated / "cases.csv")
    split = json.loads((evaluated / "split.json").read_text())
    assert sorted(case.case for case in cases) == sorted(split["test"]) and {case.part for case in cases} == {"test"}
    trained, parts = runs.open_finished(evaluated)
    records = list(parts.test)
    found = predict.predict(trained, [r.image for r in records], spacings=[r.spacing for r in records], batch_size=2)
    for case, record, prediction in zip(cases, records, found):
        predicted = prediction.probability >= 0.5
        if record.mask is None:
            assert np.isnan(case.dice) and case.predicted_area_px == predicted.sum()
            continue
        overlap = 2 * (predicted & record.mask).sum() / (predicted.sum() + record.mask.sum())
        assert case.dice == pytest.approx(overlap, abs=1e-9)
        assert case.grade_truth == ("low", "middle", "high")[record.grade]
        np.testing.assert_allclose(list(case.probability.values()), prediction.grades, rtol=1e-4, atol=1e-6)
        assert case.p_malignant == pytest.approx(prediction.malignant, rel=1e-4)
        assert case.malignant_truth == record.malignant
        if predicted.any():
            assert 0 < case.hd95_mm < case.hd95_px  # pixels of 0.1 or 0.2 mm


def test_pixels_that_are_not_squares_are_made_square_before_the_network(finished):
    """The same image with pixels said to be twice as wide has another letterbox, and so another prediction."""
    trained, parts = runs.open_finished(finished)
    image = parts.test[0].image
    square, wide = predict.predict(trained, [image, image], spacings=[(1.0, 1.0), (1.0, 2.0)])
    assert square.probability.shape == wide.probability.shape == image.shape
    assert np.abs(square.probability - wide.probability).max() > 1e-3


def test_the_page_opens_from_disk_and_tells_what_was_compared(evaluated):
    page = (evaluated / "report" / "index.html").read_text()
    assert "Between readers&#39; outlines: Dice 0." in page and "Between readers&#39; grades: quadratic kappa" in page
    assert "Drawn: test part" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page
    for word in ("Dice", "HD95", "kappa", "confusion", "pixels of the prepared image", "malignan"):
        assert word.lower() in page.lower(), word


@pytest.mark.parametrize("spoil, message", [
    (lambda run: shutil.rmtree(run), "config.json: no such file"),
    (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoints there"),
    (lambda run: shutil.rmtree(run / "checkpoints" / "last") or shutil.rmtree(run / "checkpoints" / "best"),
     "stopped before its first checkpoint"),
    (lambda run: (run / "split.json").unlink(), "it says what was held out"),
    (lambda run: (run / "config.json").write_text("{"), "not valid JSON"),
    (lambda run: (run / "config.json").write_text(json.dumps({"model": {}})), "not the config of a run"),
    (lambda run: (run / "config.json").write_text(json.dumps({"model": {}, "made_from": {}})), "missing fields"),
    (lambda run: [shutil.rmtree(place / "params") for place in (run / "checkpoints").glob("*/*")], "is damaged"),
    (another_network, "of another configuration"),
])  # fmt: skip
def test_a_spoilt_run_ends_in_one_message(copied, refused, spoil, message):
    spoil(copied)
    assert message in refused(lambda: evaluate_script.main(["--run-dir", str(copied)]))


def test_without_a_best_checkpoint_the_last_is_used(copied):
    shutil.rmtree(copied / "checkpoints" / "best")
    assert predict.load(copied).step == 18
    found = runs.evaluate(copied, runs.open_finished(copied), samples=10)
    assert "last, step 18 of 18" in found.page.read_text()


def test_a_readers_own_labels_are_asked_for_only_where_there_are_some(finished, drawn_data):
    config, _ = predict.read_config(finished / "config.json")
    parts = runs.open_parts(config)
    for reader in ("mean", "reference", "sample", "0", "1"):
        check_reader(dataclasses.replace(config.data, reader=reader), parts)
    metadata = read_metadata(drawn_data, "drawn")
    unread = metadata._replace(entries=tuple(entry._replace(readers=0) for entry in metadata.entries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thyroid_jax.runs.start.read_metadata", lambda *_: unread)
        check_reader(config.data, parts)
        for reader in ("sample", "0"):
            with pytest.raises(InputError, match="no training image has labels of several readers; choose another"):
                check_reader(dataclasses.replace(config.data, reader=reader), parts)
        beside = dataclasses.replace(
            parts, added=(source.Added(parts.card, SimpleNamespace(entries=metadata.entries)),)
        )
        check_reader(dataclasses.replace(config.data, reader="sample"), beside)


def test_a_cell_of_a_study_is_trained_once_and_read_after_that(copied, monkeypatch, train_arguments):
    config, _ = predict.read_config(copied / "config.json")
    first = runs.held_out_cases(config, copied, part="validation", checkpoint="last", echo=lambda text: None)
    monkeypatch.setattr("thyroid_jax.runs.evaluation.train", lambda *_, **__: pytest.fail("trained again"))
    again = runs.held_out_cases(config, copied, part="validation", checkpoint="last")
    assert [case.case for case in again] == [case.case for case in first] and {case.part for case in again} == {
        "validation"
    }
    with pytest.raises(InputError, match=r"rlar\.weight differ"):
        runs.held_out_cases(replace_groups(config, rlar={"weight": 7.0}), copied, part="validation", checkpoint="last")


def test_a_table_made_before_the_end_is_never_taken_for_the_finished_runs(tmp_path, train, monkeypatch, capsys):
    """The run is stopped in its second epoch, evaluated, and goes on; comparisons read its cases before and after."""
    run_dir, fit, asked = tmp_path / "run", start.fit, []
    stopped = lambda: (asked.append(1), len(asked) > 4)[1]
    monkeypatch.setattr(start, "fit", lambda *given, **more: fit(*given, **more | {"stop": stopped}))
    train(run_dir, *LEAST)
    monkeypatch.setattr(start, "fit", fit)
    config, _ = predict.read_config(run_dir / "config.json")
    cell = runs.grid.Cell("m", "fold0-seed0", config, run_dir)
    tables = [run_dir / "report" / "validation" / "cases.csv", run_dir / "cases.csv"]
    pages = [run_dir / "report" / "validation" / "index.html", run_dir / "report" / "index.html"]
    for table, page in zip(tables, pages):
        write_cases(table, [Case("early", "g")])
        page.write_text("early")
    with pytest.raises(InputError, match="the run is not finished"):
        runs.results.cases_of_folders([run_dir], part="test", flip=False)
    assert runs.grid.missing_cells([cell]) == [cell]

    train(run_dir, *LEAST)
    assert "removed report/validation/cases.csv, which is of an earlier checkpoint" in capsys.readouterr().out
    assert not any(file.exists() for file in (*tables, *pages)) and runs.grid.missing_cells([cell]) == [cell]
    found = runs.results.cases_of_folders([run_dir], part="test", flip=False)
    finished = runs.open_finished(run_dir)
    assert {case.case for case in found} == set(finished.parts.split["test"])
    assert runs.grid.missing_cells([cell]) == []
    train(run_dir, *LEAST)  # nothing is left to train, and the table stays
    assert runs.grid.missing_cells([cell]) == []


@pytest.mark.parametrize("spoil", [
    lambda cases: cases[1:], lambda cases: [*cases, cases[0]], lambda cases: [*cases[1:], cases[1]],
    lambda cases: [dataclasses.replace(cases[0], case="stranger"), *cases[1:]],
], ids=["cut", "doubled", "replaced", "foreign"])  # fmt: skip
def test_a_table_that_does_not_hold_each_held_out_case_once_is_refused(copied, spoil):
    config, _ = predict.read_config(copied / "config.json")
    split = json.loads((copied / "split.json").read_text())
    cases = [Case(case, "g", part="test") for case in split["test"]]
    write_cases(copied / "cases.csv", cases)
    assert len(runs.results.cases_of_folders([copied], part="test", flip=False)) == len(cases)
    write_cases(copied / "cases.csv", spoil(cases))
    for read in (
        lambda: runs.results.cases_of_folders([copied], part="test", flip=False),
        lambda: runs.held_out_cases(config, copied),
    ):
        with pytest.raises(InputError, match=f"rows are not the {len(cases)} cases of that part of the run's split"):
            read()
    (copied / "split.json").write_text("{}")
    with pytest.raises(InputError, match="names no cases of the test part"):
        runs.results.cases_of_folders([copied], part="test", flip=False)


def test_a_table_made_while_a_run_is_trained_is_removed_at_its_end(tmp_path, train, monkeypatch):
    run_dir, save = tmp_path / "run", checkpoints.save
    meanwhile = lambda *given, **more: (save(*given, **more), write_cases(run_dir / "cases.csv", [Case("early", "g")]))
    monkeypatch.setattr(checkpoints, "save", meanwhile)
    train(run_dir, *LEAST)
    assert sorted(path.name for path in run_dir.iterdir()) == ENTRIES


# --- what must be there to train on -----------------------------------------------------------------------------------


def labels(make_batch, **missing):
    gone = {f"{name}_valid": np.zeros(3, bool) for name in missing}
    return Examples(make_batch()._replace(**gone), ("a", "b", "c"))


def test_published_weights_are_put_into_the_encoder_and_nowhere_else(monkeypatch, tiny_recipe):
    recipe, asked = tiny_recipe(), []
    plain, none = fresh_state(recipe, Config())
    published = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), plain.params["encoder"])
    monkeypatch.setattr(
        "thyroid_jax.model.pretrained.load", lambda *given: asked.append(given) or (published, "a digest")
    )
    for weights, path in (("package", None), ("file.safetensors", "file.safetensors")):
        config = replace_groups(Config(), model={"encoder": "resnet18"}, train={"encoder_weights": weights})
        state, digest = fresh_state(recipe, config)
        assert asked.pop() == ("resnet18", path) and digest == "a digest" and none == ""
        chex.assert_trees_all_equal(state.params, plain.params | {"encoder": published})
        chex.assert_trees_all_equal(state.opt_state, plain.opt_state)
    averaging = tiny_recipe(optimizer={"average": 10})
    state, _ = fresh_state(averaging, config)
    chex.assert_trees_all_equal(state.average, state.params)
    assert state.average["encoder"] is not state.params["encoder"]


def test_tasks_without_a_label_are_left_out_and_said(make_batch):
    recipe = recipe_of(Config())
    kept = labelled_tasks(recipe, labels(make_batch, malignant=True))
    assert [task.name for task in kept.tasks] == ["segmentation", "grading"]
    with pytest.raises(InputError, match="no training image has a label of segmentation or grading or malignancy"):
        labelled_tasks(recipe, labels(make_batch, malignant=True, mask=True, grade=True))


@pytest.mark.parametrize("groups, missing, message", [
    ({"rlar": {"weight": 1.0}}, "grade", r"rlar needs grading, but no training image has its label; set rlar"),
    ({"consistency": {"weight": 1.0}}, "malignant", "consistency needs malignancy"),
    ({"mtl": {"method": "pcgrad"}, "malignancy": {"weight": 0.0}}, "grade", r"mtl\.method pcgrad compares two tasks"),
    ({"cosreg": {"weight": 1.0}, "malignancy": {"weight": 0.0}}, "grade", "cosreg needs grading"),
])  # fmt: skip
def test_what_compares_tasks_needs_their_labels(make_batch, groups, missing, message):
    recipe = recipe_of(replace_groups(Config(), **groups))
    with pytest.raises(InputError, match=message):
        labelled_tasks(recipe, labels(make_batch, **{missing: True}))


def test_the_best_checkpoint_is_chosen_by_a_measure_that_can_be_measured(make_batch):
    recipe, config = recipe_of(Config()), Config().train
    check_labels(config, make_batch(), recipe)
    with pytest.raises(
        InputError, match=r"train\.monitor is 'dice', but no validation image has its label; choose one of acc"
    ):
        check_labels(config, make_batch()._replace(mask_valid=np.zeros(3, bool)), recipe)
    alike = make_batch()._replace(malignant=np.zeros(3, np.float32))
    by_auroc = dataclasses.replace(config, monitor="malignant_auroc")
    with pytest.raises(
        InputError, match="'malignant_auroc', but all labels of the validation images are alike; choose"
    ):
        check_labels(by_auroc, alike, recipe)
    check_labels(dataclasses.replace(config, monitor="malignant_balanced_accuracy"), alike, recipe)
    one_differs = alike._replace(malignant=np.array([0, 0, 1], np.float32))
    check_labels(by_auroc, one_differs, recipe)
    with pytest.raises(InputError, match="are alike"):
        check_labels(by_auroc, one_differs._replace(malignant_valid=np.array([True, True, False])), recipe)
    by_kappa = dataclasses.replace(config, monitor="quadratic_kappa")
    with pytest.raises(InputError, match="are alike; choose one of dice, accuracy, balanced_accuracy, malignant_b"):
        check_labels(by_kappa, alike._replace(grade=np.eye(5, dtype=np.float32)[[2, 2, 2]]), recipe)
    without = recipe.replace(tasks=recipe.tasks[:1])
    with pytest.raises(
        InputError, match="but grading is not trained: no training image has its label; choose one of d"
    ):
        check_labels(by_kappa, make_batch(), without)
    guided = recipe_of(replace_groups(Config(), guidance={"weight": 0.1}))
    with pytest.raises(InputError, match=r"choose one of dice\.$"):  # no measure of the guidance can be the monitor
        check_labels(by_kappa, make_batch(), guided.replace(tasks=(guided.tasks[0], guided.tasks[-1])))


def test_the_description_names_every_term_and_how_they_are_weighed(finished):
    config, _ = predict.read_config(finished / "config.json")
    data = runs.open_data(config)
    weighed = replace_groups(config, mtl={"method": "pcgrad"}, rlar={"weight": 0.5, "level": "stride2"})
    text = describe(recipe_of(weighed, grades=3), data, weighed)
    assert "0.5 rlar (hinge at stride2); weighed by pcgrad at the latent" in text


def test_readers_labels_are_what_is_trained_on_and_references_what_is_validated(finished):
    config, _ = predict.read_config(finished / "config.json")
    data = runs.open_data(config)
    assert {0, 128, 255} <= set(np.unique(data.training.batch.mask)) and len(
        np.unique(data.validation.batch.mask)
    ) <= 256
    soft = (data.training.batch.grade > 0).sum(1)
    assert soft.max() == 2 and (data.validation.batch.grade > 0).sum(1).max() == 1


def test_the_prior_is_logged_as_what_it_says_about_the_label():
    phi, label = np.array([0.2, 0.4, 0.9, 0.7]), np.array([0.0, 0.0, 1.0, 1.0])
    means = np.asarray(consistency.products(phi, label)).mean(0).tolist()
    row = with_prior_agreement({"loss": 1.0, "prior_products": means})
    assert row == {
        "loss": 1.0,
        "prior_correlation": pytest.approx(np.corrcoef(phi, label)[0, 1], abs=1e-4),
        "prior_deviation": pytest.approx(phi.std(), abs=1e-4),
    }
    assert with_prior_agreement({"loss": 1.0}) == {"loss": 1.0}


def test_a_run_with_averaged_parameters_goes_on_to_the_same_bits_and_predicts_with_the_average(tmp_path, train):
    whole, stopped, fields = tmp_path / "whole", tmp_path / "stopped", (*LEAST, "--optimizer.average", "5")
    train(whole, *fields, "--train.epochs", "2")
    best = predict.load(whole, checkpoint="best")
    assert best.step == max(checkpoints.steps(whole / "checkpoints" / "last"))  # the one validation is at the end
    chex.assert_trees_all_equal(best.params, predict.load(whole, checkpoint="last").params)
    train(stopped, *fields, "--train.epochs", "2")
    last = stopped / "checkpoints" / "last"
    shutil.rmtree(last / str(max(checkpoints.steps(last))))  # as if it had been killed before its last checkpoint
    train(stopped, *fields, "--train.epochs", "2")
    chex.assert_trees_all_equal(parameters(stopped), parameters(whole))
    trained = predict.load(whole, checkpoint="last")
    layout = jax.eval_shape(lambda: init_state(trained.recipe, jax.random.key(0)).packed())
    arrays = lambda facts: layout | {"fitted": trained.recipe.fitted}
    saved = checkpoints.newest(whole / "checkpoints" / "last", arrays, echo=print)
    state = unpacked(saved.arrays)
    chex.assert_trees_all_equal(trained.params, state.average)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(state.average), jax.tree.leaves(state.params)))


def test_a_run_with_the_consistency_can_be_trained_resumed_and_loaded(tmp_path, train, capsys):
    """The prior's parameters live in the heads, and a process that goes on finds them there."""
    run_dir = tmp_path / "run"
    fields = ("--consistency.weight", "0.3", "--consistency.warmup", "0", "--consistency.min-pixels", "5")
    fields += ("--model.depth", "1", "--rlar.weight", "0", "--guidance.weight", "0")
    train(run_dir, *fields, "--train.epochs", "2")
    prior = parameters(run_dir)["heads"]["prior"]
    assert prior["weight"].shape == (4,) and np.abs(prior["centre"]).max() > 0
    assert "consistency" in [row for row in rows(run_dir) if row["split"] == "train"][-1]
    train(run_dir, *fields, "--train.epochs", "2")
    assert "going on from step 6" in capsys.readouterr().out


# --- several data sets ------------------------------------------------------------------------------------------------


def test_a_run_on_two_data_sets_resumes_and_names_what_changed(drawn_data, train_arguments, tmp_path, capsys, refused):
    """Outlines from both sets, grades from the first alone: those of the second are of another system."""
    data = tmp_path / "data"
    shutil.copytree(drawn_data, data)
    card, records = open_records(drawn_data, "drawn")
    more = dataclasses.replace(card, name="more", grade_system="another")
    other = [dataclasses.replace(record, image=record.image // 2, case=f"m{record.case}") for record in records]
    builder.build(more, lambda notes: iter(other), data)

    def arguments(epochs):
        fields = ["--data.dir", str(data), "--data.also", "more:0.5", "--train.epochs", str(epochs), *LEAST]
        return train_arguments(tmp_path / "run", *fields)

    train_script.main(arguments(1))
    printed = capsys.readouterr().out
    trained = json.loads((tmp_path / "run" / "split.json").read_text())["train"]
    held_out = len(other) - len(trained)  # darker copies of the images that validation and test hold
    assert f"also trained on: more, {len(trained)} images; left out: {held_out} images of " in printed
    assert "groups that drawn holds out, its grades (" in printed
    assert f"{2 * len(trained)} training and" in printed
    assert f" {-(-(len(trained) + len(trained) // 2) // 8)} steps" in printed  # an epoch holds half of the second set
    evaluate_script.main(["--run-dir", str(tmp_path / "run")])
    assert {case.case for case in read_cases(tmp_path / "run" / "cases.csv")} <= {record.case for record in records}
    changed = [dataclasses.replace(record, malignant=not record.malignant) for record in other]
    builder.build(more, lambda notes: iter(changed), data, overwrite=True)
    assert "is not the one that the run was trained on" in refused(lambda: train_script.main(arguments(1)))
