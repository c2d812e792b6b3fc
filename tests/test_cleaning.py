"""A screenshot cleaned in named steps: only what is drawn changes, outlines move with the picture, steps are told."""

import numpy as np
import pytest
from medical_files import dicom
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from data_prep import cleaning, scan
from data_prep.__main__ import main
from thyroid_jax.data.formats import read_picture
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError

SCAN = np.s_[30:210, 60:280]  # of a page of 240 x 340


def tissue():
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(180, 220)), 1.6)
    return np.clip(90 + 160 * noise, 20, 150).astype(np.uint8)


def screenshot(*marks):
    """A dark page with a scan and a title, and on the scan a cross or a word."""
    page = np.zeros((240, 340), np.uint8)
    page[SCAN] = tissue()
    picture = Image.fromarray(page)
    pen = ImageDraw.Draw(picture)
    pen.text((5, 5), "CLINIC", fill=255)
    if "text" in marks:
        pen.text((200, 60), "TIRADS 5", fill=255)
    page = np.array(picture)
    for row, column in ((100, 120), (100, 170)) if "callipers" in marks else ():
        for step in range(-4, 5):
            page[row + step, column + step] = page[row + step, column - step] = 255
    return page


def test_a_page_is_cut_to_its_scan():
    found = cleaning.clean(screenshot(), ["scan"])
    top, bottom, left, right = found.box
    assert abs(np.array([top - 30, bottom - 210, left - 60, right - 280])).max() <= 6
    np.testing.assert_array_equal(found.image, screenshot()[top:bottom, left:right])
    assert found.steps == (f"cut to the scan: rows {top}-{bottom - 1}, columns {left}-{right - 1}",)


@pytest.mark.parametrize("mark", ["text", "callipers"])
def test_a_mark_is_filled_in_and_nothing_else_is_touched(mark):
    plain, marked = screenshot(), screenshot(mark)
    drawn = plain != marked
    found = cleaning.clean(marked, ["scan", mark])
    cut = found.box.slices
    changed = found.image != marked[cut]
    assert changed[drawn[cut]].mean() > 0.95  # what is drawn is changed, but where it looks like tissue already
    assert found.image[drawn[cut]].max() < 200  # and looks like tissue
    assert changed.sum() < 12 * drawn.sum()
    assert [step.split(":")[0] for step in found.steps] == ["cut to the scan", f"{mark} filled in"]
    if mark == "text":
        assert len(cleaning.clean(marked, ["scan", "callipers"]).steps) == 1  # letters are no crosses


@pytest.mark.parametrize("kind", ["png", "jpg", "dcm"])
def test_coloured_marks_are_filled_in_and_a_coloured_picture_is_left(tmp_path, kind):
    grey = np.repeat(screenshot()[..., None], 3, axis=-1)
    marked = grey.copy()
    marked[80:84, 100:180] = marked[80:120, 100:103] = (30, 200, 40)  # an edge as dark as the tissue, and green
    path = tmp_path / f"shot.{kind}"
    if kind == "dcm":
        path.write_bytes(dicom(marked, Rows=240, Columns=340))
    else:
        Image.fromarray(marked).save(path, quality=95)
    picture = read_picture(path)
    drawn = (marked != grey).any(-1)
    found = cleaning.clean(picture.frames[0], ["scan", "colours"], colour=picture.colour[0])
    cut = found.box.slices
    assert [step.split(":")[0] for step in found.steps] == ["cut to the scan", "coloured marks filled in"]
    changed = found.image != picture.frames[0][cut]
    assert changed[drawn[cut]].mean() > 0.9 and changed.sum() < 4 * drawn.sum()
    tinted = np.clip(grey * np.array([1.0, 0.7, 0.3]), 0, 255).astype(np.uint8)
    assert cleaning.clean(picture.frames[0], ["colours"], colour=scan.colour_of(tinted)).steps == ()
    assert cleaning.clean(picture.frames[0], ["colours"]).steps == ()  # no colour, no mark


def test_without_a_step_a_picture_stays_as_it_is():
    page = screenshot("text", "callipers")
    found = cleaning.clean(page, [])
    np.testing.assert_array_equal(found.image, page)
    assert found.steps == () and found.box == (0, 240, 0, 340)


def test_what_cannot_be_cleaned():
    with pytest.raises(InputError, match="no ultrasound scan is found"):
        cleaning.clean(np.zeros((100, 100), np.uint8), ["scan"])
    with pytest.raises(InputError, match="'crop' is no step; known are scan, colours, callipers, text"):
        cleaning.clean(screenshot(), ["crop"])


def test_an_own_folder_of_screenshots_is_cleaned_with_its_outlines(tmp_path, capsys):
    nodule = np.zeros((240, 340), np.uint8)
    nodule[90:130, 110:170] = 255
    for name in ("a", "b"):
        Image.fromarray(screenshot("text")[:: 1 if name == "a" else -1].copy()).save(tmp_path / f"{name}.png")
        Image.fromarray(nodule[:: 1 if name == "a" else -1].copy()).save(tmp_path / f"{name}_mask.png")
    fields = ["build", "folder", "--name", "shots", "--source", str(tmp_path), "--out", str(tmp_path.parent / "built")]
    main([*fields, "--clean", "scan", "text"])
    card, records = open_records(tmp_path.parent / "built", "shots")
    assert card.holds == ("outlines",) and card.access == "your own"
    expected = cleaning.clean(screenshot("text"), ["scan", "text"])
    np.testing.assert_array_equal(records[0].image, expected.image)
    np.testing.assert_array_equal(records[0].mask, nodule[expected.box.slices] > 0)
    assert records[0].cleaning == expected.steps and len(records[0].cleaning) == 2
    (tmp_path / "a.png").unlink()
    (tmp_path / "a_mask.png").unlink()
    Image.fromarray((np.eye(240, 340) * np.arange(240)[:, None]).astype(np.uint8)).save(tmp_path / "dark.png")
    with pytest.raises(SystemExit):
        main([*fields[:3], "dark", *fields[4:], "--clean", "scan"])
    assert "dark.png: cleaning: no ultrasound scan is found in the picture" in capsys.readouterr().err
