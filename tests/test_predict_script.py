"""Predictions for a person's own files: the table says what the runs predict, and no file is lost on the way."""

import csv
import json
import math
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import predict as script
from thyroid_jax import predict
from thyroid_jax.errors import InputError
from thyroid_jax.runs import apply


def picture(shape, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < (min(shape) / 4) ** 2
    return np.clip(150 - 60 * inside + rng.normal(size=shape) * 8, 1, 255).astype(np.uint8)


@pytest.fixture
def inputs(tmp_path):
    """Portrait, landscape, odd sides, a folder in a folder, two files of one stem, and what is no picture."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    Image.fromarray(picture((41, 30))).save(folder / "portrait.png")
    Image.fromarray(picture((30, 57), 1)).convert("RGB").save(folder / "deeper" / "landscape.bmp")
    Image.fromarray(picture((33, 33), 2)).save(folder / "same.png")
    Image.fromarray(picture((24, 32), 3)).save(folder / "same.tif")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def second(finished, tmp_path):
    """A second run: the last checkpoint of the first one, as if it were the best."""
    run_dir = tmp_path / "second"
    shutil.copytree(finished, run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "best")
    return run_dir


def run(out, *arguments):
    script.main([*map(str, arguments), "--out", str(out)])
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_what_the_run_predicts(finished, inputs, tmp_path, capsys):
    rows = run(tmp_path / "out", inputs, "--run-dir", finished, "--batch-size", "3")
    assert [row["file"] for row in rows] == [
        str(inputs / name) for name in ("deeper/landscape.bmp", "portrait.png", "same.png", "same.tif")
    ]
    trained = predict.load(finished)
    images = [picture((30, 57), 1), picture((41, 30)), picture((33, 33), 2), picture((24, 32), 3)]
    names = ("deeper/landscape", "portrait", "same.png", "same.tif")
    for row, image, name, found in zip(rows, images, names, predict.predict(trained, images), strict=True):
        shares = [float(row[f"p_{grade}"]) for grade in ("low", "middle", "high")]
        np.testing.assert_allclose(shares, found.grades, atol=1e-6)
        assert row["grade"] == ("low", "middle", "high")[int(found.grades.argmax())]
        assert float(row["p_malignant"]) == pytest.approx(found.malignant, abs=1e-6)
        with Image.open(tmp_path / "out" / "masks" / f"{name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), np.where(found.probability >= 0.5, 255, 0))
        assert int(row["outline_area_px"]) == (found.probability >= 0.5).sum()
        assert row["outline_area_mm2"] == row["spacing_row_mm"] == "" and "outline_agreement" not in row
        with Image.open(tmp_path / "out" / "overlays" / f"{name}.png") as shown:
            assert shown.size == image.shape[::-1] and shown.mode == "RGB"
    about = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert about["failed"] == {} and [row["grade"] for row in about["predictions"]] == [row["grade"] for row in rows]
    assert "4 images predicted, 0 files left out" in capsys.readouterr().out


def test_several_runs_are_averaged_and_their_agreement_is_told(finished, second, inputs, tmp_path):
    file = inputs / "portrait.png"
    (row,) = run(tmp_path / "out", file, "--run-dir", finished, second, "--spacing", "0.1", "0.2", "--no-overlays")
    image, spacings = picture((41, 30)), [(0.1, 0.2)]
    both = [next(predict.predict(predict.load(run_dir), [image], spacings=spacings)) for run_dir in (finished, second)]
    mean = (both[0].grades + both[1].grades) / 2
    np.testing.assert_allclose([float(row[f"p_{grade}"]) for grade in ("low", "middle", "high")], mean, atol=1e-6)
    assert float(row["p_malignant_sd"]) == pytest.approx(abs(both[0].malignant - both[1].malignant) / 2, abs=1e-6)
    assert float(row["grade_disagreement"]) == pytest.approx(np.abs(both[0].grades - mean).sum() / 2, abs=1e-6)
    outline = (both[0].probability + both[1].probability) / 2 >= 0.5
    with Image.open(tmp_path / "out" / "masks" / "portrait.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) > 0, outline)
    assert float(row["outline_area_mm2"]) == pytest.approx(outline.sum() * 0.02)
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_bad_file_is_named_and_the_others_are_predicted(finished, inputs, tmp_path, capsys):
    (inputs / "broken.png").write_bytes((inputs / "portrait.png").read_bytes()[:60])
    os.mkfifo(inputs / "pipe.png")
    rows = run(tmp_path / "out", inputs, inputs / "pipe.png", "--run-dir", finished)
    assert len(rows) == 4
    failed = json.loads((tmp_path / "out" / "predictions.json").read_text())["failed"]
    assert set(failed) == {str(inputs / "broken.png"), str(inputs / "pipe.png")}
    assert f"left out: {inputs / 'broken.png'}: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path / "none", inputs / "broken.png", "--run-dir", finished)
    assert "none of 1 files could be read" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_every_frame_of_a_clip_is_predicted(finished, tmp_path):
    frames = [Image.fromarray(picture((30, 40), seed)) for seed in range(3)]
    frames[0].save(tmp_path / "=clip.tif", save_all=True, append_images=frames[1:])
    rows = run(tmp_path / "out", tmp_path / "=clip.tif", "--run-dir", finished)
    assert [row["frame"] for row in rows] == ["1", "2", "3"]
    assert sorted(os.listdir(tmp_path / "out" / "masks")) == [f"=clip#{n:04d}.png" for n in (1, 2, 3)]
    whole = [
        found.malignant for found in predict.predict(predict.load(finished), [picture((30, 40), s) for s in range(3)])
    ]
    np.testing.assert_allclose([float(row["p_malignant"]) for row in rows], whole, atol=1e-6)


def test_what_cannot_be_asked_for(finished, inputs, tmp_path, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            run(tmp_path / "out", *arguments)
        assert stop.value.code == 2
        return capsys.readouterr().err

    assert "no such file" in refused(tmp_path / "nowhere", "--run-dir", finished)
    assert "--spacing" in refused(inputs, "--run-dir", finished, "--spacing", "0", "1")
    assert "--batch-size" in refused(inputs, "--run-dir", finished, "--batch-size", "0")
    assert "two inputs hold" in refused(inputs, inputs, "--run-dir", finished)
    (tmp_path / "empty").mkdir()
    assert "no picture there" in refused(tmp_path / "empty", "--run-dir", finished)
    run(tmp_path / "out", inputs / "same.png", "--run-dir", finished)
    assert "already there" in refused(inputs / "same.png", "--run-dir", finished)
    run(tmp_path / "out", inputs / "same.tif", "--run-dir", finished, "--overwrite")
    assert os.listdir(tmp_path / "out" / "masks") == ["same.png"]  # of same.tif; that of the older table is gone
    with pytest.raises(SystemExit):
        run(inputs / "deeper" / "out", inputs, "--run-dir", finished)
    assert "lies inside the input" in capsys.readouterr().err


def test_runs_that_do_not_fit_together(finished, tmp_path, monkeypatch):
    other = predict.load(finished)
    other = other._replace(facts={**other.facts, "grades": ["2", "3", "4"]})
    own = predict.load(finished)
    monkeypatch.setattr(apply, "load", lambda run_dir, checkpoint: other if "other" in str(run_dir) else own)
    with pytest.raises(InputError, match=r"other: its grades \(2 3 4\) are not those of .* \(low middle high\)"):
        apply.load_all([finished, tmp_path / "other"])


def test_sizes_of_a_rectangle_and_of_a_disc():
    outline = np.zeros((40, 60), bool)
    outline[10:14, 20:32] = True
    outline[30, 5] = True  # a smaller part widens the box, not the diameter
    found = apply.sizes(outline, (0.5, 0.25))
    assert found["outline_area_px"] == 49 and found["outline_area_mm2"] == pytest.approx(49 * 0.125)
    assert found["outline_height_mm"] == pytest.approx(21 * 0.5) and found["outline_width_mm"] == pytest.approx(27 / 4)
    assert found["outline_diameter_mm"] == pytest.approx(math.hypot(4 * 0.5, 12 * 0.25))
    rows, columns = np.ogrid[:200, :200]
    disc = (rows - 100) ** 2 + (columns - 100) ** 2 < 80**2
    assert apply.diameter(disc, (0.1, 0.1)) == pytest.approx(16, rel=0.02)
    turned = np.eye(50, dtype=bool)
    assert apply.diameter(turned, (1.0, 1.0)) == pytest.approx(50 * math.sqrt(2))


def test_without_outline_or_spacing_there_is_no_size():
    empty = apply.sizes(np.zeros((4, 4), bool), (0.1, 0.1))
    assert empty["outline_area_px"] == empty["outline_area_mm2"] == 0 and empty["outline_diameter_mm"] is None
    unknown = apply.sizes(np.ones((4, 4), bool), (math.nan, math.nan))
    assert unknown["outline_area_px"] == 16 and unknown["outline_area_mm2"] is None


def test_a_screenshot_is_cleaned_and_its_mask_lies_in_the_whole_picture(finished, tmp_path):
    page = np.zeros((140, 200), np.uint8)
    page[30:120, 50:170] = picture((90, 120), 7)
    page[3:9, 4:12] = 255  # a letter's place
    Image.fromarray(page).save(tmp_path / "shot.png")
    (row,) = run(tmp_path / "out", tmp_path / "shot.png", "--run-dir", finished, "--clean", "scan")
    assert "cut to the scan: rows" in row["remarks"]
    top, bottom, left, right = (int(number) for number in re.findall(r"[0-9]+", row["remarks"]))
    part = page[top : bottom + 1, left : right + 1]
    (found,) = predict.predict(predict.load(finished), [part])
    with Image.open(tmp_path / "out" / "masks" / "shot.png") as mask:
        whole = np.asarray(mask) > 0
    assert whole.shape == page.shape and whole.sum() == (found.probability >= 0.5).sum()
    np.testing.assert_array_equal(whole[top : bottom + 1, left : right + 1], found.probability >= 0.5)
    Image.fromarray(page[:25]).save(tmp_path / "dark.png")
    rows = run(
        tmp_path / "out2", tmp_path / "shot.png", tmp_path / "dark.png", "--run-dir", finished, "--clean", "scan"
    )
    assert len(rows) == 1 and "dark.png" in (tmp_path / "out2" / "predictions.json").read_text()
