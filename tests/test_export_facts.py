"""The facts of an export are the run's, and a table of another checkpoint is not shown."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from helpers import change_settings

from data_prep import builder
from thyroid_jax import predict, runs
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import Calibration, Scaling
from thyroid_jax.evaluate.cases import read_cases, write_cases
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.export import facts
from thyroid_jax.runs import apply


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """The finished run with its table of results."""
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run_dir)
    trained, parts = runs.open_finished(run_dir)
    write_cases(run_dir / "cases.csv", runs.cases_of(trained, parts.test, part="test"))
    return run_dir


@pytest.fixture
def copied(evaluated, tmp_path):
    """A copy of the evaluated run that a test may spoil."""
    return shutil.copytree(evaluated, tmp_path / "copied")


@pytest.fixture(scope="module")
def told(evaluated):
    """The facts of the evaluated run, after a journey through JSON."""
    found = facts.facts_of(evaluated, opened(evaluated), checkpoint="best", samples=200)
    return json.loads(json.dumps(found, allow_nan=False))


def opened(run_dir, data_dir=None, echo=pytest.fail):
    return facts.open_source(run_dir, "best", data_dir, echo)


def test_the_facts_are_the_runs(told, evaluated, drawn_data):
    trained = predict.load(evaluated)
    assert (told["data"]["digest"], told["data"]["split_digest"]) == (trained.facts["digest"], trained.facts["split"])
    assert told["data"]["card"]["labels"] == "Drawn discs." and told["data"]["missing"] == ""
    _, records = open_records(drawn_data, "drawn")
    split = json.loads((evaluated / "split.json").read_text())
    for part, counts in told["data"]["parts"].items():
        chosen = [record for record in records if record.case in split[part]]
        assert counts == {
            "groups": len({record.group for record in chosen}),
            "images": len(split[part]),
            "outlines": sum(record.mask is not None for record in chosen),
            "grades": sum(record.grade is not None for record in chosen),
            "malignant": sum(record.malignant is True for record in chosen),
            "benign": sum(record.malignant is False for record in chosen),
        }
    about = told["training"]
    assert (about["checkpoint"], about["step"], about["encoder_weights_sha256"]) == ("best", trained.step, "")
    assert about["last_step"] == about["total_steps"] == int(trained.recipe.fitted.total_steps)
    log = [json.loads(line) for line in (evaluated / "log.jsonl").read_text().splitlines()]
    scores = [row["score"] for row in log if row["split"] == "validation"]
    assert about["validation_score"] == max(scores)
    assert about["settings"]["train.epochs"] == 6 and "train.epochs" in about["differing"]
    assert "train.seed" not in about["differing"] and not any(name.startswith("data.dir") for name in about["settings"])
    assert str(drawn_data) not in json.dumps(told) and str(evaluated.parent) not in json.dumps(told)


def test_the_calibration_is_that_of_these_parameters(told, copied):
    assert told["calibration"] is None
    trained = predict.load(copied)
    fitted = Scaling("temperature", 2.0, 0.0, cases=30, groups=20, nll_before=1.0, nll_after=0.9)
    apply.write_calibration(copied, trained, Calibration("validation", tuple(trained.facts["grades"]), fitted, None))
    found = facts.calibration_facts(copied, trained)
    assert json.loads(json.dumps(found))["grade"]["temperature"] == 2.0 and found["malignant"] is None
    other = trained._replace(params=jax.tree.map(lambda leaf: leaf + 1, trained.params))
    assert facts.calibration_facts(copied, other) is None


def test_the_results_are_those_of_the_runs_table(told, evaluated):
    told = told["results"]
    cases = read_cases(evaluated / "cases.csv")
    assert told["images"] == len(cases) and told["missing"] == ""
    assert told["compared"] == min(len(cases), facts.COMPARED) and told["largest_difference"] < 1e-5
    wanted = summary(cases, samples=200)
    assert set(told["measures"]) == set(wanted)
    for name, entry in wanted.items():
        for key, value in entry.items():
            found = told["measures"][name][key]
            assert (np.isnan(value) and found is None) or found == pytest.approx(value)


def results_of(run_dir):
    return facts.result_facts(run_dir, opened(run_dir), checkpoint="best", samples=10)


def test_a_table_of_another_checkpoint_or_part_is_not_shown(copied):
    cases = read_cases(copied / "cases.csv")
    row = next(place for place, case in enumerate(cases) if case.p_malignant > 0.1)
    older = list(cases)
    older[row] = dataclasses.replace(cases[row], p_malignant=cases[row].p_malignant - 0.05)
    assert len(cases) <= facts.COMPARED  # so that every row is compared
    write_cases(copied / "cases.csv", older)
    found = results_of(copied)
    assert "another checkpoint (its rows differ by 0.05)" in found["missing"] and found["measures"] == {}
    write_cases(copied / "cases.csv", cases[1:])
    assert "not of the run's test part" in results_of(copied)["missing"]
    (copied / "cases.csv").unlink()
    assert results_of(copied)["missing"] == "the run has no cases.csv; make it with python -m experiments.evaluate"


def test_a_value_that_one_side_lacks_is_a_difference(evaluated):
    case = next(case for case in read_cases(evaluated / "cases.csv") if case.malignant_truth is not None)
    grades = list(case.probability)
    found = predict.Prediction(None, np.array(list(case.probability.values())), case.p_malignant, {})
    without_outline = dataclasses.replace(case, dice=float("nan"))
    assert facts.difference(without_outline, found, None, grades) == 0
    assert facts.difference(case, found, None, grades) == 1
    assert facts.difference(without_outline, found._replace(malignant=None), None, grades) == 1
    assert facts.difference(without_outline, found._replace(grades=None), None, grades) == 1
    moved = found._replace(malignant=case.p_malignant + 0.25)
    assert facts.difference(without_outline, moved, None, grades) == pytest.approx(0.25)


def test_without_the_data_set_what_it_knows_is_missing(copied, tmp_path):
    change_settings(copied, data={"dir": str(tmp_path / "gone")})
    said = []
    found = facts.facts_of(copied, opened(copied, echo=said.append), checkpoint="best", samples=10)
    assert found["data"]["card"] is None and found["data"]["missing"] == facts.UNREADABLE
    assert found["data"]["parts"]["train"] == {"images": len(json.loads((copied / "split.json").read_text())["train"])}
    assert found["results"]["compared"] == 0 and found["results"]["measures"] and not found["results"]["missing"]
    assert "gone" not in json.dumps(found) and len(said) == 1 and "gone" in said[0]
    with pytest.raises(InputError, match="gone"):
        opened(copied, tmp_path / "gone")


def test_only_the_share_that_was_trained_on_is_counted(copied, tmp_path):
    whole = len(json.loads((copied / "split.json").read_text())["train"])
    change_settings(copied, data={"share": 0.5})
    source = opened(copied)
    counts = facts.data_facts(copied, source)["parts"]
    assert counts["train"]["images"] == len(source.parts.train) < whole
    assert counts["train"]["groups"] == len({record.group for record in source.parts.train})
    gone = facts.data_facts(copied, source._replace(parts=None, missing=facts.UNREADABLE))["parts"]
    assert gone["train"]["images"] is None and gone["test"]["images"] == counts["test"]["images"]


def test_a_changed_data_set_is_not_described(copied, drawn_data, tmp_path):
    (tmp_path / "data").mkdir()
    card, records = open_records(drawn_data, "drawn")
    changed = [dataclasses.replace(record, malignant=True) for record in records]
    builder.build(card, lambda notes: iter(changed), tmp_path / "data", near=False)
    with pytest.raises(InputError, match="not the one that the run was trained on"):
        opened(copied, tmp_path / "data")


def test_a_run_that_was_stopped_says_so(copied):
    shutil.rmtree(copied / "checkpoints" / "best")
    rows = (copied / "log.jsonl").read_text().splitlines(keepends=True)
    (copied / "log.jsonl").write_text("".join(rows[:1]))
    trained = predict.load(copied)
    about = facts.training_facts(copied, trained, "best")
    assert about["checkpoint"] == "last" and about["validation_score"] is None
    assert about["last_step"] == json.loads(rows[0])["step"] < about["total_steps"]
    (copied / "log.jsonl").unlink()
    old = trained._replace(facts={name: fact for name, fact in trained.facts.items() if name != "encoder_weights"})
    about = facts.training_facts(copied, old, "last")
    assert about["last_step"] is None and about["encoder_weights_sha256"] is None
