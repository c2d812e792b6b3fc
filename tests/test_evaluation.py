"""An evaluated run: every case's values are those of its own image, and the page and the sheet show the same."""

import base64
import json
import re
from io import BytesIO
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from thyroid_jax import predict, runs
from thyroid_jax.data import pipeline
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import calibration
from thyroid_jax.evaluate.agreement import pairwise_dice
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.metrics import dice
from thyroid_jax.evaluate.report.pictures import svg_path
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs import apply, evaluation


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """(Finished, Evaluation, path of the sheet), without a file in the finished run's folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    for name in ("config.json", "split.json", "log.jsonl"):
        (folder / name).write_bytes((finished / name).read_bytes())
    opened = runs.open_finished(finished)
    return opened, runs.evaluate(folder, opened, samples=20, picture=folder / "sheet.png"), folder / "sheet.png"


@pytest.fixture(scope="module")
def records(evaluated):
    return list(evaluated[0].parts.test)


def case_data(page):
    text = page.read_text()
    return text, json.loads(re.search(r'id="case-data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_target_is_that_of_the_training_pipeline(evaluated, records):
    """Measured another way: the records loaded as for training, and their target scaled as a step would."""
    (trained, _), found, _ = evaluated
    size, scaling = (trained.config.data.height, trained.config.data.width), trained.recipe.fitted.scaling
    examples = pipeline.with_target(pipeline.load(records, 3, size), clinical.Scaling(*map(np.asarray, scaling)))
    measured = 0
    for row, (case, record) in enumerate(zip(found.cases, records)):
        assert case.case == record.case == examples.cases[row]
        assert bool(case.target) == (record.mask is not None) and list(case.guidance) == list(clinical.TARGET)
        values = np.array([case.target.get(name, np.nan) for name in clinical.TARGET])
        if not examples.batch.radiomics_valid[row]:
            assert np.isnan(values).any()
            continue
        scaled = np.clip((values - scaling.centre) / scaling.spread, -3, 3)
        np.testing.assert_allclose(scaled, examples.batch.radiomics[row], atol=1e-3)
        measured += 1
    assert measured > 0


def test_guidance_is_in_the_units_of_the_target(evaluated, records):
    (trained, _), found, _ = evaluated
    scaling = trained.recipe.fitted.scaling
    raw = predict.predict(trained, [r.image for r in records], spacings=[r.spacing for r in records])
    for case, answer in zip(found.cases, raw):
        scaled = (np.array(list(case.guidance.values())) - scaling.centre) / scaling.spread
        np.testing.assert_allclose(scaled, answer.answers["guidance"], rtol=1e-3, atol=1e-3)


def test_readers_findings_and_contrast_are_of_the_case(evaluated, records):
    (trained, _), found, _ = evaluated
    raw = predict.predict(trained, [r.image for r in records], spacings=[r.spacing for r in records])
    for case, record, answer in zip(found.cases, records, raw):
        outline = answer.probability >= 0.5
        assert case.reader_dice == pytest.approx([dice(outline, mask) for mask in record.reader_masks])
        assert case.reader_grades == tuple(("low", "middle", "high")[grade] for grade in record.reader_grades)
        assert dict(case.about) == dict(record.descriptors)
        assert np.isnan(case.contrast_to_noise) == (record.mask is None)


def test_the_table_on_disk_is_the_one_of_the_page(evaluated):
    _, found, _ = evaluated
    assert [repr(case) for case in read_cases(found.table)] == [repr(case) for case in found.cases]
    _, data = case_data(found.page)
    assert [one["key"] for one in data] == [case.case for case in found.cases]
    for one, case in zip(data, found.cases):
        facts = dict(one["facts"])
        assert facts.get("Dice", "–") == ("–" if np.isnan(case.dice) else f"{case.dice:.3f}")


def test_every_case_has_its_own_picture_on_the_page(evaluated, records):
    (trained, _), found, _ = evaluated
    raw = predict.predict(trained, [r.image for r in records], spacings=[r.spacing for r in records])
    _, data = case_data(found.page)
    for one, record, answer in zip(data, records, raw):
        shown = one["picture"]
        assert (shown["height"], shown["width"]) == record.image.shape
        assert shown["reference"] == svg_path(record.mask)
        assert shown["predicted"] == svg_path(answer.probability >= 0.5)
        pixels = Image.open(BytesIO(base64.b64decode(shown["href"].split(",")[1]))).convert("L")
        assert np.corrcoef(np.asarray(pixels, float).ravel(), record.image.ravel())[0, 1] > 0.8


def test_the_page_says_what_was_trained_and_how_readers_agree(evaluated, records):
    (trained, _), found, _ = evaluated
    text, _ = case_data(found.page)
    assert f"step {trained.step} of 18" in text and "residual encoder" in text and "guidance (0.1)" in text
    assert trained.facts["digest"] in text and trained.facts["split"] in text
    assert f"test part, {len(records)} images of {len({r.group for r in records})} groups" in text
    between = np.mean([pairwise_dice(r.reader_masks) for r in records if len(r.reader_masks) >= 2])
    readers = re.search(r'<section aria-labelledby="readers".*?</section>', text, re.DOTALL)[0]
    assert f"{between:.3f}" in readers and readers.count("Model and reader") == 2
    parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(trained.params))
    assert str(parameters) in text


def test_the_sheet_is_drawn_of_the_same_outlines(evaluated):
    _, _, sheet = evaluated
    drawn = np.asarray(Image.open(sheet))
    assert drawn.shape[1] == 1200 and (np.abs(drawn.astype(int) - (86, 180, 233)).max(-1) < 12).sum() > 100


def test_probabilities_are_scaled_by_what_the_validation_part_says(evaluated, tmp_path, monkeypatch):
    opened, _, _ = evaluated
    wanted = {entry.case for entry in opened.parts.validation}
    seen = []

    def fit(cases):
        seen.extend(cases)
        return calibration.fit(cases, least=1)

    monkeypatch.setattr(evaluation, "calibration", SimpleNamespace(fit=fit))
    fitted = runs.calibrate(tmp_path, opened)
    assert {case.case for case in seen} == wanted and {case.part for case in seen} == {"validation"}
    assert apply.calibration_in(tmp_path) == fitted
    assert f"temperature {(fitted.grade or fitted.malignant).temperature:.2f}" in runs.calibration_note(fitted)
    apply.check_calibrated(tmp_path, opened.trained)
    other = opened.trained._replace(params=jax.tree.map(lambda leaf: leaf + 1, opened.trained.params))
    with pytest.raises(InputError, match=r"report/calibration.json: was not fitted for these parameters"):
        apply.check_calibrated(tmp_path, other)

    def nothing(cases):
        raise InputError("too few")

    monkeypatch.setattr(evaluation, "calibration", SimpleNamespace(fit=nothing))
    assert runs.calibrate(tmp_path, opened) is None and not (tmp_path / apply.CALIBRATION).exists()
    assert "uncalibrated" in runs.calibration_note(None)
