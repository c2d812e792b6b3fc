"""Evaluating a run: the table and the page agree with a recomputation from the model itself; mistakes end in one
message.
"""

import csv
import json
import shutil

import numpy as np
import pytest

from experiments import evaluate
from thyroid_jax.config import DataConfig
from thyroid_jax.data import source
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.predict import load_run, predict


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run_dir)
    evaluate.main(["--run-dir", str(run_dir), "--samples", "50", "--picture", str(run_dir.parent / "sheet.png")])
    return run_dir


def test_the_run_folder_has_exactly_the_promised_entries(evaluated):
    expected = ["cases.csv", "checkpoints", "config.json", "log.jsonl", "metrics.csv", "report", "split.json"]
    assert sorted(path.name for path in evaluated.iterdir()) == expected
    assert (evaluated / "report" / "index.html").stat().st_size > 10_000
    assert (evaluated.parent / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_cases_are_the_held_out_ones_and_their_dice_is_that_of_the_model(evaluated, drawn_data):
    cases = read_cases(evaluated / "cases.csv")
    split = json.loads((evaluated / "split.json").read_text())
    assert sorted(case.case for case in cases) == sorted(split["test"])
    run = load_run(evaluated)
    parts = source.open_parts(DataConfig(name="drawn", dir=str(drawn_data)), evaluated / "split.json")
    for case, record, prediction in zip(
        cases, parts.test, predict(run, [record.image for record in parts.test], batch_size=2)
    ):
        predicted = prediction.probability >= 0.5
        overlap = 2 * (predicted & record.mask).sum() / (predicted.sum() + record.mask.sum())
        assert case.dice == pytest.approx(overlap, abs=1e-9)
        assert case.grade_truth == ("low", "middle", "high")[record.grade]
        np.testing.assert_allclose(list(case.probability.values()), prediction.grades, rtol=1e-4, atol=1e-6)
        assert sum(case.probability.values()) == pytest.approx(1, abs=1e-5)


def test_the_table_has_the_promised_columns(evaluated):
    header = next(csv.reader((evaluated / "cases.csv").read_text().splitlines()))
    assert header[:5] == ["case", "group", "dice", "iou", "hd95_px"]
    assert header[-3:] == ["prob_low", "prob_middle", "prob_high"]


def test_the_page_opens_from_disk_and_tells_what_was_compared(evaluated):
    page = (evaluated / "report" / "index.html").read_text()
    assert "Drawn: test part" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page
    for word in ("Dice", "HD95", "kappa", "confusion", "pixels of the prepared image"):
        assert word.lower() in page.lower(), word


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "config.json: no such file"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "no checkpoints there"),
        (lambda run: (run / "split.json").unlink(), "the run's own split is needed"),
        (lambda run: (run / "config.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "config.json").write_text(json.dumps({"model": {}})), "missing fields"),
        (lambda run: shutil.rmtree(next((run / "checkpoints" / "best").iterdir()) / "state"), "is damaged"),
    ],
)
def test_a_spoilt_run_ends_in_one_message(finished, tmp_path, capsys, spoil, message):
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    spoil(run_dir)
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--run-dir", str(run_dir)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
