"""Predictions for a person's own files: the table says what the runs predict, and no file is lost on the way."""

import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps
from script_runs import GRADES, about, load, mask_of, picture, refused, run

from data_prep import cleaning
from experiments import predict as script
from thyroid_jax import model, predict, runs
from thyroid_jax.config import replace_groups
from thyroid_jax.data import formats
from thyroid_jax.runs import apply, evaluation, quality


@pytest.fixture(autouse=True)
def outlining(monkeypatch):
    monkeypatch.setattr(apply, "load", load)
    monkeypatch.setattr(evaluation, "load_trained", load)


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


def test_the_table_holds_what_the_run_predicts(finished, inputs, tmp_path, capsys):
    out = tmp_path / "out"
    rows = run(out, inputs, "--run-dir", finished, "--batch-size", "3")
    assert [row["file"] for row in rows] == [
        str(inputs / name) for name in ("deeper/landscape.bmp", "portrait.png", "same.png", "same.tif")
    ]
    images = [picture((30, 57), 1), picture((41, 30)), picture((33, 33), 2), picture((24, 32), 3)]
    names = ("deeper/landscape", "portrait", "same.png", "same.tif")
    for row, image, name, found in zip(rows, images, names, predict.predict(load(finished), images), strict=True):
        np.testing.assert_allclose([float(row[f"p_{grade}"]) for grade in GRADES], found.grades, atol=1e-6)
        assert row["grade"] == GRADES[int(found.grades.argmax())]
        assert float(row["p_malignant"]) == pytest.approx(found.malignant, abs=1e-6)
        outline = found.probability >= 0.5
        assert 0.05 < outline.mean() < 0.95
        np.testing.assert_array_equal(mask_of(out, name), outline)
        assert int(row["outline_area_px"]) == outline.sum()
        assert row["outline_area_mm2"] == row["spacing_row_mm"] == "" and "outline_agreement" not in row
        with Image.open(out / "overlays" / f"{name}.png") as shown:
            assert shown.size == image.shape[::-1] and shown.mode == "RGB"
            unchanged = (np.asarray(shown) == image[..., None]).all(-1)
        assert 0 < (~unchanged).sum() < outline.sum() and outline[~unchanged].all()
        assert f'src="overlays/{name}.png"' in (out / "index.html").read_text()
    told = about(out)
    assert told["failed"] == {} and told["finished"] and told["calibration"].startswith("uncalibrated: ")
    assert [row["grade"] for row in told["predictions"]] == [row["grade"] for row in rows]
    assert list(told["columns"]) == list(rows[0]) and "TI-RADS axis shape" in told["columns"]["guidance_elongation"]
    assert told["checks"] == quality.CHECKS and "not computed" in told["out_of_distribution"]
    assert "ood_percentile" not in rows[0]
    assert "4 images predicted, 0 files left out" in capsys.readouterr().out


def test_several_runs_are_averaged_and_their_agreement_is_told(finished, second, inputs, tmp_path):
    out = tmp_path / "out"
    arguments = [inputs / "portrait.png", "--run-dir", finished, second, "--spacing", "0.1", "0.2", "--no-overlays"]
    (row,) = run(out, *arguments)
    image, spacings = picture((41, 30)), [(0.1, 0.2)]
    both = [next(predict.predict(load(run_dir), [image], spacings=spacings)) for run_dir in (finished, second)]
    mean = (both[0].grades + both[1].grades) / 2
    np.testing.assert_allclose([float(row[f"p_{grade}"]) for grade in GRADES], mean, atol=1e-6)
    assert float(row["p_malignant_sd"]) == pytest.approx(abs(both[0].malignant - both[1].malignant) / 2, abs=1e-6)
    assert float(row["grade_disagreement"]) == pytest.approx(np.abs(both[0].grades - mean).sum() / 2, abs=1e-6)
    outline = (both[0].probability + both[1].probability) / 2 >= 0.5
    np.testing.assert_array_equal(mask_of(out, "portrait"), outline)
    assert float(row["outline_area_mm2"]) == pytest.approx(outline.sum() * 0.02)
    assert not (out / "overlays").exists() and not (out / "index.html").exists()
    assert about(out)["checkpoint"] == "best and last"  # the second run has no best one


def test_an_image_is_small_where_it_is_for_any_of_the_runs(finished):
    """Runs of one method may have inputs of different sizes; the first one's alone says nothing of the others."""
    first = load(finished)
    size = first.config.data.height, first.config.data.width
    other = first._replace(config=replace_groups(first.config, data={"height": 4 * size[0], "width": 4 * size[1]}))
    image = picture(size)
    cleaned = cleaning.clean(image, ())
    seen = script.Seen(Path("a.png"), "a.png", 1, 1, "a", image, cleaned, (np.nan, np.nan), "")
    (applied,) = apply.apply([first], [image], [(np.nan, np.nan)])
    quality_of = lambda *models: script.row_of(script.Models([*models], "", [], {}), seen, applied, ())["quality"]
    assert "small image" not in quality_of(first)
    assert "small image" in quality_of(first, other) and "small image" in quality_of(other, first)


def test_evaluation_and_prediction_agree_on_the_same_images(finished, drawn_data, tmp_path):
    trained, parts = runs.open_finished(finished, data_dir=drawn_data)
    cases = runs.cases_of(trained, parts.test)
    spacings = sorted({record.spacing for record in parts.test})
    assert len(spacings) == 2 and len(cases) >= 4
    compared = 0
    for number, spacing in enumerate(spacings):
        folder, out = tmp_path / f"in{number}", tmp_path / f"out{number}"
        folder.mkdir()
        kept = [(place, record) for place, record in enumerate(parts.test) if record.spacing == spacing]
        for _, record in kept:
            Image.fromarray(record.image).save(folder / f"{record.case}.png")
        rows = {
            os.path.basename(row["file"]): row for row in run(out, folder, "--run-dir", finished, "--spacing", *spacing)
        }
        for place, record in kept:
            row, case = rows[f"{record.case}.png"], cases[place]
            assert case.case == record.case
            assert [float(row[f"p_{grade}"]) for grade in GRADES] == pytest.approx(
                [*case.probability.values()], abs=1e-6
            )
            assert float(row["p_malignant"]) == pytest.approx(case.p_malignant, abs=1e-6)
            assert row["grade"] == case.grade_predicted and int(row["outline_area_px"]) == case.predicted_area_px
            mask = mask_of(out, record.case)
            if record.mask is not None and (mask.any() or record.mask.any()):
                dice = 2 * (mask & record.mask).sum() / (mask.sum() + record.mask.sum())
                assert dice == pytest.approx(case.dice, abs=1e-9) and dice > 0
                compared += 1
    assert compared >= 3


def stored_turned(image, orientation):
    """The pixels that a file with this EXIF orientation stores, so that it is shown as ``image``."""
    turn = Image.Transpose
    back = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE}
    back |= {6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    shown = Image.fromarray(image)
    return shown.transpose(back[orientation]) if orientation in back else shown


def test_masks_have_the_size_and_orientation_of_the_picture_as_it_is_shown(finished, tmp_path):
    folder, out, grey = tmp_path / "in", tmp_path / "out", {}
    folder.mkdir()

    def keep(name, image, content, **options):
        content.save(folder / f"{name}.png", **options)
        grey[name] = image

    for name, shape in (("portrait", (60, 31)), ("landscape", (29, 64)), ("odd", (37, 43)), ("line", (1, 40))):
        keep(name, picture(shape), Image.fromarray(picture(shape)))
    image = picture((35, 52), 4)
    image[:12, :20] = 230  # a corner, so that a turned picture is another
    keep("16 bit", image, Image.fromarray(image.astype(np.uint16) * 257))
    keep("rgb", image, Image.fromarray(image).convert("RGB"))
    keep("rgba", image, Image.fromarray(image).convert("RGBA"))
    palette = Image.fromarray(255 - image, "L").convert("P")
    palette.putpalette([255 - level for level in range(256) for _ in range(3)])
    keep("palette", image, palette)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        keep(f"exif {orientation}", image, stored_turned(image, orientation), exif=exif)
        with Image.open(folder / f"exif {orientation}.png") as file:
            np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(file)), image)
    rows = run(out, folder, "--run-dir", finished)
    assert len(rows) == len(grey) == 16
    found = dict(zip(grey, predict.predict(load(finished), list(grey.values()))))
    by_name = {os.path.basename(row["file"]).removesuffix(".png"): row for row in rows}
    for name, one in found.items():
        outline = one.probability >= 0.5
        assert outline.any() and not outline.all()
        np.testing.assert_array_equal(mask_of(out, name), outline, err_msg=name)
        assert float(by_name[name]["p_malignant"]) == pytest.approx(one.malignant, abs=1e-6)


def test_a_bad_file_is_named_and_the_others_are_predicted(finished, inputs, tmp_path, capsys):
    out = tmp_path / "out"
    (inputs / "broken.png").write_bytes((inputs / "portrait.png").read_bytes()[:60])
    (inputs / "zip.png").write_bytes(b"PK\3\4" + bytes(60))
    (inputs / "lost.png").symlink_to(inputs / "nowhere")
    (inputs / "link").symlink_to(tmp_path)
    os.mkfifo(inputs / "pipe.png")
    Image.fromarray(np.zeros((1, 9000), np.uint8)).save(inputs / "huge.png")
    shutil.copy(inputs / "portrait.png", os.fsencode(inputs) + b"/\xff.png")
    rows = run(out, inputs, "--run-dir", finished)
    assert len(rows) == 5 and rows[-1]["file"] == f"{inputs}/\\xff.png"
    assert os.path.isfile(os.fsencode(out) + b"/masks/\xff.png")
    bad = ("broken.png", "zip.png", "lost.png", "link", "pipe.png", "huge.png")
    assert set(about(out)["failed"]) == {str(inputs / name) for name in bad}
    told = capsys.readouterr()
    assert all(f"left out: {inputs / name}: " in told.err for name in bad)
    assert "5 images predicted, 6 files left out" in told.out
    assert "none of 1 files could be read" in refused(capsys, tmp_path / "n", inputs / "zip.png", "--run-dir", finished)
    assert not (tmp_path / "n").exists()


def test_every_frame_of_a_clip_is_predicted(finished, tmp_path, capsys):
    frames = [Image.fromarray(picture((30, 40), seed)) for seed in range(3)]
    frames[0].save(tmp_path / "=clip.tif", save_all=True, append_images=frames[1:])
    rows = run(tmp_path / "out", tmp_path / "=clip.tif", "--run-dir", finished, "--batch-size", "2")
    assert [row["frame"] for row in rows] == ["1", "2", "3"]
    assert sorted(os.listdir(tmp_path / "out" / "masks")) == [f"=clip#{n:04d}.png" for n in (1, 2, 3)]
    whole = [found.malignant for found in predict.predict(load(finished), [picture((30, 40), s) for s in range(3)])]
    np.testing.assert_allclose([float(row["p_malignant"]) for row in rows], whole, atol=1e-6)
    frames[0].save(tmp_path / "=clip#0002.png")
    (row,) = run(tmp_path / "o", tmp_path / "=clip.tif", tmp_path / "=clip#0002.png", "--run-dir", finished)
    assert row["file"].endswith("#0002.png") and "is also another file" in capsys.readouterr().err


def test_one_program_serves_all_pictures(finished, inputs, tmp_path, monkeypatch):
    traces = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *a: traces.append(1) or encode(*a))
    jax.clear_caches()
    assert len(run(tmp_path / "out", inputs, "--run-dir", finished, "--batch-size", "3")) == 4
    assert len(traces) == 1


def test_after_ctrl_c_the_table_holds_what_is_done(finished, inputs, tmp_path, monkeypatch, capsys):
    out, calls = tmp_path / "out", []

    def interrupted(*given, **more):
        calls.append(given)
        if len(calls) == stop_at:
            raise error
        return clean(*given, **more)

    clean = cleaning.clean
    monkeypatch.setattr(cleaning, "clean", interrupted)
    arguments = [inputs, "--run-dir", finished, "--batch-size", "1"]
    stop_at, error = 1, KeyboardInterrupt()
    with pytest.raises(SystemExit) as stop:
        run(out, *arguments)
    assert stop.value.code == 130 and not out.exists()
    assert "stopped after 0 images: nothing was written" in capsys.readouterr().err
    calls.clear()
    stop_at = 3
    with pytest.raises(SystemExit) as stop:
        run(out, *arguments)
    assert stop.value.code == 130 and "stopped after 2 images" in capsys.readouterr().err
    told = about(out)
    assert not told["finished"] and len(told["predictions"]) == len(told["masks"]) == 2
    assert len((out / "predictions.csv").read_text().splitlines()) == 3
    assert (out / "index.html").read_text().count("<img") == 2
    calls.clear()
    error = RuntimeError("a fault of the program")
    with pytest.raises(RuntimeError, match="a fault"):
        run(out, *arguments, "--overwrite")
    assert not about(out)["finished"] and len(about(out)["predictions"]) == 2
    assert len(run(out, *arguments, "--overwrite")) == 4 and about(out)["finished"]


def test_what_cannot_be_asked_for(finished, inputs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert "no such file" in refused(capsys, out, tmp_path / "nowhere", "--run-dir", finished)
    for sides in (("0", "1"), ("nan", "1"), ("nan", "nan"), ("inf", "1")):
        assert "--spacing" in refused(capsys, out, inputs, "--run-dir", finished, "--spacing", *sides)
    assert "--batch-size" in refused(capsys, out, inputs, "--run-dir", finished, "--batch-size", "0")
    assert "two inputs hold" in refused(capsys, out, inputs, inputs, "--run-dir", finished)
    assert "--data-dir is used by --ood" in refused(capsys, out, inputs, "--run-dir", finished, "--data-dir", tmp_path)
    assert "is named twice" in refused(capsys, out, inputs, "--run-dir", finished, finished)
    (tmp_path / "empty").mkdir()
    assert "no picture there" in refused(capsys, out, tmp_path / "empty", "--run-dir", finished)
    inside = refused(capsys, inputs / "deeper" / "out", inputs, "--run-dir", finished)
    assert "lies inside the input" in inside
    run(out, inputs / "same.png", "--run-dir", finished)
    assert "already there" in refused(capsys, out, inputs / "same.png", "--run-dir", finished)
    run(out, inputs / "same.tif", "--run-dir", finished, "--overwrite")
    assert os.listdir(out / "masks") == ["same.png"]  # of same.tif; that of the older table is gone
    monkeypatch.setattr(apply, "load_all", lambda *_, **__: pytest.fail("a run was read"))
    (tmp_path / "file").write_text("x")
    assert "cannot be written into" in refused(capsys, tmp_path / "file" / "out", inputs, "--run-dir", finished)


def test_a_pixel_size_that_replaces_the_files_own_is_told():
    unknown = (np.nan, np.nan)
    for asked, own, used, words in (
        (None, (0.1, 0.2), (0.1, 0.2), ()),
        ((0.3, 0.3), unknown, (0.3, 0.3), ()),
        ((0.1, 0.2), (0.1, 0.2), (0.1, 0.2), ()),
        ((0.3, 0.3), (0.1, 0.2), (0.3, 0.3), ("pixel size of the file, 0.1 x 0.2 mm, replaced by --spacing",)),
    ):
        arguments = script.Arguments(inputs=(), run_dir=(), out=Path("out"), spacing=asked)
        grey = np.zeros((1, 2, 2), np.uint8)
        assert script.spacing_of(arguments, formats.Picture(grey, own, ())) == (used, words)
    arguments = script.Arguments(inputs=(), run_dir=(), out=Path("out"))
    assert np.isnan(script.spacing_of(arguments, formats.Picture(grey, unknown, ()))[0]).all()


def test_a_screenshot_is_cleaned_and_its_mask_lies_in_the_whole_picture(finished, tmp_path):
    page = np.zeros((140, 200), np.uint8)
    page[30:120, 50:170] = picture((90, 120), 7)
    page[3:9, 4:12] = 255  # a letter's place
    Image.fromarray(page).save(tmp_path / "shot.png")
    (row,) = run(tmp_path / "out", tmp_path / "shot.png", "--run-dir", finished, "--clean", "scan")
    assert "cut to the scan: rows" in row["remarks"]
    top, bottom, left, right = (int(number) for number in re.findall(r"[0-9]+", row["remarks"]))
    part = page[top : bottom + 1, left : right + 1]
    (found,) = predict.predict(load(finished), [part])
    whole = mask_of(tmp_path / "out", "shot")
    assert whole.shape == page.shape and whole.sum() == (found.probability >= 0.5).sum() > 0
    np.testing.assert_array_equal(whole[top : bottom + 1, left : right + 1], found.probability >= 0.5)
    Image.fromarray(page[:25]).save(tmp_path / "dark.png")
    rows = run(
        tmp_path / "out2", tmp_path / "shot.png", tmp_path / "dark.png", "--run-dir", finished, "--clean", "scan"
    )
    assert len(rows) == 1 and "dark.png" in (tmp_path / "out2" / "predictions.json").read_text()
