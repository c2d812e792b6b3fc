"""A check reads everything, says what is there, and lists all that is wrong."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from toys import CARD, factory, toys

from data_prep import builder
from data_prep.check import against, check
from thyroid_jax.data import storage
from thyroid_jax.data.record import Record
from thyroid_jax.errors import InputError


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    builder.build(CARD, factory, out)
    return out


def test_check_describes_and_draws(built, tmp_path):
    text = check(built, "toy", sheet=tmp_path / "sheet.png", sheet_records=7)
    assert "records        9" in text and "groups         5" in text and "a fault" in text
    assert f"digest         {storage.open_records(built, 'toy')[1].digest}" in text
    assert "records: 9" not in text and "official" not in text
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 240, 2 * 194)


def test_the_official_test_part_is_counted(tmp_path):
    builder.build(CARD, lambda notes: (replace(toy, official_test=toy.group == "2") for toy in toys()), tmp_path)
    assert "official test  2" in check(tmp_path, "toy")


def test_check_lists_everything_that_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "problems_of", lambda record, card: [])  # as if built before builds looked at this

    def wrong(notes):
        image = next(toys(1)).image
        yield Record("a", "1", "a", image, mask=np.zeros_like(image, bool))
        yield Record("b", "2", "b", image, spacing=(0.0, 1.0))

    builder.build(CARD, wrong, tmp_path)
    with pytest.raises(InputError, match=r"(?s)2 problems.*a: mask is empty.*b: spacing is"):
        check(tmp_path, "toy")


def test_every_damaged_record_is_listed(built, tmp_path):
    """Records of another build, in a file that is sound."""
    shutil.copytree(built, tmp_path / "built")

    def other(notes):
        for number, toy in enumerate(toys()):
            yield toy if number not in (2, 5) else replace(toy, malignant=None, grade=0)

    builder.build(CARD, other, tmp_path / "other")
    (theirs,), (ours,) = (
        storage.folder_of(tmp_path / name, "toy").glob("*.array_record*") for name in ("other", "built")
    )
    shutil.copy(theirs, ours)
    with pytest.raises(InputError, match=r"(?s)2 problems;.*record 2, case '2_é', is damaged.*record 5, case '5_é'"):
        check(tmp_path / "built", "toy")


def test_two_data_sets_that_share_images_are_named(tmp_path):
    from test_builder import CARD_OF_COPIES, copies, speckle

    records = copies()
    builder.build(CARD_OF_COPIES, lambda notes: iter(records[:5]), tmp_path)
    other = replace(CARD_OF_COPIES, name="others")
    apart = [replace(record, image=speckle(50 + i)) for i, record in enumerate(records)]
    builder.build(other, lambda notes: iter(apart), tmp_path)
    assert against(tmp_path, "scans", "others") == (
        "no image of scans (5) is equal or nearly equal to one of others (6)"
    )
    mixed = [*apart[:4], replace(records[1], case="same"), replace(records[5], case="near")]
    builder.build(other, lambda notes: iter(mixed), tmp_path, overwrite=True)
    with pytest.raises(InputError, match="2 pairs of images show the same picture") as error:
        against(tmp_path, "scans", "others")
    lines = str(error.value).splitlines()[1:]
    assert lines[1].strip() == "c1 of scans is equal to same of others"
    assert lines[0].strip().startswith("c0 of scans is near to near of others (correlation 0.")
    with pytest.raises(InputError, match="is the data set itself"):
        against(tmp_path, "scans", "scans")


def test_the_report_says_how_far_readers_agree(tmp_path):
    builder.build(CARD, factory, tmp_path)
    report = check(tmp_path, "toy")
    assert "agreement      readers' outlines: Dice 0." in report and "ICC of the area" in report
    assert "agreement      readers' grades: quadratic kappa" in report and "\ncleaned        4\n" in report


def test_the_sheet_shows_the_originals_beside_the_records(tmp_path):
    """A record that was cut to its left half; a second one whose original is not there."""
    original = np.full((60, 80), 40, np.uint8)
    original[:, 40:] = 200
    original[::7] = 90
    Image.fromarray(original).save(tmp_path / "a.png")
    left = original[:, :40].copy()
    records = [Record("a", "a", "a.png", left, cleaning=("cut to the left half",)), Record("b", "b", "b.png", left + 1)]
    builder.build(replace(CARD, name="halves"), lambda notes: iter(records), tmp_path / "data", near=False)
    for source, wide in ((None, 6), (tmp_path, 6)):
        report = check(tmp_path / "data", "halves", sheet=tmp_path / "sheet.png", source=source)
        assert (f"originals that were not found in {tmp_path}: 1" in report) == (source is not None)
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size == (wide * 240, 194)
            page = np.asarray(sheet.convert("L"))[14:]
    assert (page[:, 120:230] > 150).any() and not (page[:, 240:480] > 150).any()  # the right half is in the original
    assert page[:, 240:480].any() and not page[:, 480:720].any() and page[:, 720:960].any()


def test_a_frame_of_a_clip_and_a_picture_in_an_inner_folder_are_found(tmp_path):
    from data_prep.check import _original

    frames = [Image.fromarray(np.full((20, 30), 40 * number + 20, np.uint8)) for number in range(3)]
    (tmp_path / "inner").mkdir()
    frames[0].save(tmp_path / "inner" / "clip.tif", save_all=True, append_images=frames[1:])
    blank = np.zeros((20, 30), np.uint8)
    for case, grey in (("clip#0001", 20), ("clip#0003", 100), ("clip", 20)):
        assert (_original(tmp_path, Record(case, "g", "clip.tif", blank)) == grey).all()
    assert _original(tmp_path, Record("clip#0004", "g", "clip.tif", blank)) is None
    assert _original(tmp_path, Record("other", "g", "other.png", blank)) is None
