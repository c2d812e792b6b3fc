"""Options of `experiments.predict`: calibrated probabilities, distance to the training images, DICOM segmentations."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from script_runs import GRADES, about, load, mask_of, picture, refused, run

from thyroid_jax import runs
from thyroid_jax.evaluate.calibration import Calibration, Scaling
from thyroid_jax.files import read_json, write_json
from thyroid_jax.runs import apply, evaluation, ood, prediction_table


@pytest.fixture(autouse=True)
def outlining(monkeypatch):
    monkeypatch.setattr(apply, "load", load)
    monkeypatch.setattr(evaluation, "load_trained", load)


@pytest.fixture
def inputs(tmp_path):
    """A folder of two ordinary pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(picture((41, 30))).save(folder / "portrait.png")
    Image.fromarray(picture((24, 32), 3)).save(folder / "landscape.png")
    return folder


@pytest.fixture
def own(finished, tmp_path):
    """The run in a folder that the test may write into."""
    return shutil.copytree(finished, tmp_path / "own")


@pytest.fixture
def second(finished, tmp_path):
    """A second run: the last checkpoint of the first one, as if it were the best."""
    run_dir = tmp_path / "second"
    shutil.copytree(finished, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "best")
    return run_dir


def test_probabilities_are_calibrated_where_every_run_has_a_calibration(own, second, inputs, tmp_path, capsys):
    fitted = Scaling("temperature", 2.0, 0.0, cases=30, groups=20, nll_before=1.0, nll_after=0.9)
    apply.write_calibration(own, load(own), Calibration("validation", GRADES, fitted, fitted))
    file = inputs / "portrait.png"
    (row,) = run(tmp_path / "a", file, "--run-dir", own)
    (plain,) = run(tmp_path / "b", file, "--run-dir", own, "--no-calibrate")
    roots = np.sqrt([float(plain[f"p_{grade}"]) for grade in GRADES])
    assert [float(row[f"p_{grade}"]) for grade in GRADES] == pytest.approx([*(roots / roots.sum())], abs=1e-6)
    odds = lambda cells: float(cells["p_malignant"]) / (1 - float(cells["p_malignant"]))
    assert odds(row) == pytest.approx(np.sqrt(odds(plain)), rel=1e-5)
    assert row["outline_area_px"] == plain["outline_area_px"]
    assert about(tmp_path / "a")["calibration"][0]["grade"]["temperature"] == 2
    assert about(tmp_path / "b")["calibration"] == "uncalibrated: --no-calibrate was given"
    for place, options in enumerate((["--flip"], ["--checkpoint", "last"])):
        run(tmp_path / f"c{place}", file, "--run-dir", own, *options)
        assert "fitted for the best checkpoint without --flip" in about(tmp_path / f"c{place}")["calibration"]
    run(tmp_path / "d", file, "--run-dir", own, second)
    assert about(tmp_path / "d")["calibration"] == f"uncalibrated: no report/calibration.json in {second}"
    kept = read_json(own / apply.CALIBRATION)
    write_json(own / apply.CALIBRATION, {name: kept[name] for name in kept if name != "parameters"})
    assert "was not fitted for these parameters" in refused(capsys, tmp_path / "e", file, "--run-dir", own)


def test_images_are_compared_with_the_training_images(own, inputs, drawn_data, tmp_path, capsys, monkeypatch):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)).save(inputs / "noise.png")
    rows = run(tmp_path / "a", inputs, "--run-dir", own, "--ood", "--data-dir", drawn_data)
    assert "looking at its training and validation images" in capsys.readouterr().out
    far = {os.path.basename(row["file"]): float(row["ood_distance"]) for row in rows}
    assert max(far, key=far.get) == "noise.png"
    noise = next(row for row in rows if row["file"].endswith("noise.png"))
    assert float(noise["ood_percentile"]) == 100 and "unlike the training images" in noise["quality"]
    (told,) = about(tmp_path / "a")["out_of_distribution"]
    _, parts = runs.open_finished(own, data_dir=drawn_data)
    assert (told["training_images"], told["validation_images"]) == (len(parts.train), len(parts.validation))
    monkeypatch.setattr(ood, "fit", lambda *_: pytest.fail("fitted again"))
    again = run(tmp_path / "b", inputs, "--run-dir", own)  # the run folder has it now
    assert [row["ood_distance"] for row in again] == [row["ood_distance"] for row in rows]
    assert set(again[0]) == set(prediction_table.describe(load(own), 1, ood=True))


def test_a_missing_data_set_is_said_before_any_work(own, inputs, tmp_path, capsys):
    arguments = [inputs, "--run-dir", own, "--ood", "--data-dir", tmp_path / "nowhere"]
    assert "nowhere" in refused(capsys, tmp_path / "out", *arguments) and not (tmp_path / "out").exists()


def test_dicom_images_get_segmentations_on_request_only(finished, inputs, tmp_path, capsys):
    pytest.importorskip("highdicom", reason="needs the extra `formats`")
    pydicom = pytest.importorskip("pydicom")
    from test_segments import source

    folder, out = tmp_path / "dicom", tmp_path / "out"
    folder.mkdir()
    source(folder / "still.dcm", (40, 31))
    source(folder / "clip.dcm", (5, 30, 41))
    source(folder / "unnamed.dcm", (30, 31), StudyInstanceUID="")
    shutil.copy(inputs / "portrait.png", folder)
    run(tmp_path / "plain", folder, "--run-dir", finished, "--batch-size", "2")
    assert not (tmp_path / "plain" / "segmentations").exists()
    for file in (tmp_path / "plain").rglob("*"):
        assert not file.is_file() or not re.search(rb"Secret|P-17|19610203|1\.2\.(40|50|60)", file.read_bytes())
    run(out, folder, "--run-dir", finished, "--batch-size", "2", "--dicom-seg")
    assert sorted(os.listdir(out / "segmentations")) == ["clip.dcm", "still.dcm"]
    still = pydicom.dcmread(out / "segmentations" / "still.dcm")
    np.testing.assert_array_equal(still.pixel_array, mask_of(out, "still"))
    clip = pydicom.dcmread(out / "segmentations" / "clip.dcm")
    masks = np.stack([mask_of(out, f"clip#{number:04d}") for number in range(1, 6)])
    np.testing.assert_array_equal(clip.pixel_array, masks)
    assert masks.any() and not masks.all() and clip.PatientName == "Secret^Name"
    told = about(out)
    assert told["segmentations"] == ["clip", "still"] and told["failed"] == {}
    assert told["without_segmentation"] == {
        str(folder / "portrait.png"): "file: is no DICOM file",
        str(folder / "unnamed.dcm"): "DICOM: has no StudyInstanceUID, so a segmentation cannot refer to it",
    }
    said = capsys.readouterr().out
    assert "2 DICOM segmentations, 2 files without one." in said and "hold the patient's name" in said
