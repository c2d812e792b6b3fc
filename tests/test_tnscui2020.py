"""The TNSCUI2020 reader against made folders of the original's layout, and against the copy of DDTI in this form."""

import os

import numpy as np
import pytest
from PIL import Image

from data_prep import builder
from data_prep.readers import tnscui2020
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (36, 44)  # height and width


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def outline(size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[5:15, 20:31] = 255
    return mask


def write(path, picture, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(path, "PNG")


def add(folder, count=12, *, size=SIZE, table="train.csv", suffix=".PNG"):
    """Write ``count`` images; every third is malignant."""
    for number in range(1, count + 1):
        write(folder / "image" / f"{number}{suffix}", speckle(number, size))
        write(folder / "mask" / f"{number}{suffix}", outline(size))
    if table:
        rows = [f"{number}{suffix},{int(number % 3 == 0)}" for number in range(1, count + 1)]
        (folder / table).write_text("\n".join(["ID,CATE", *rows]) + "\n")
    return folder


def read(source):
    notes = Notes()
    return {record.case: record for record in tnscui2020.read(source, notes)}, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "TNSCUI2020_train"


@pytest.mark.parametrize("suffix", [".PNG", ".png"])
def test_labels_and_counts(source, suffix):
    add(source, suffix=suffix)
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == [str(number) for number in range(1, 13)]
    assert [record.malignant for record in records.values()] == [number % 3 == 0 for number in range(1, 13)]
    record = records["10"]
    assert record.source == f"image/10{suffix}" and record.group == "10" and not record.official_test
    np.testing.assert_array_equal(record.image, speckle(10))
    np.testing.assert_array_equal(record.mask, outline() == 255)
    expected = dict.fromkeys(tnscui2020.COUNTED, 0) | {"images": 12, "benign": 8, "malignant": 4}
    assert dict(notes.counts) == expected and list(notes.counts) == list(tnscui2020.COUNTED)


def test_without_table_malignancy_is_unknown(source):
    add(source, table="")
    records, notes = read(source)
    assert {record.malignant for record in records.values()} == {None} and len(records) == 12
    assert notes.counts["images without malignancy"] == 12
    assert notes.dropped == [("the labels of train.csv", "the table is not there")]


def test_the_copy_of_ddti_has_no_labels(source):
    """It is known by its table's name, by its number of images, or by the size of all of them."""
    add(source, 2)
    (source / "category.csv").write_text("ID,CATE\n1.PNG,1\n2.PNG,1\n")
    records, notes = read(source)
    assert [record.malignant for record in records.values()] == [None, None] and notes.faults == []
    assert notes.dropped == [
        ("all categories", "this is the copy of DDTI with invented categories: there is a category.csv")
    ]


def test_screens_of_ddti_have_no_labels(source):
    add(source, 3, size=(360, 560))
    (source / "image" / "1.PNG").write_bytes(b"")  # says nothing about the size of the others
    records, notes = read(source)
    assert [record.malignant for record in records.values()] == [None, None]
    assert notes.dropped[0][1].endswith("every image is 560 x 360") and len(notes.faults) == 1
    write(source / "image" / "1.PNG", speckle(1, (360, 560)))
    for what, picture in (("image", speckle(3, (360, 561))), ("mask", outline((360, 561)))):
        write(source / what / "3.PNG", picture)
    records, notes = read(source)
    assert [record.malignant for record in records.values()] == [False, False, True] and notes.dropped == []


@pytest.mark.parametrize("count, malignant", [(636, {False, True}), (637, {None})])
def test_the_number_of_images_of_ddti(source, count, malignant):
    add(source, count, size=(16, 32))
    records, notes = read(source)
    assert {record.malignant for record in records.values()} == malignant and len(records) == count
    assert bool(notes.dropped) == (count == 637) and notes.faults == []


def test_faults_are_named_at_once(source, tmp_path):
    add(source, 8)
    table = source / "train.csv"
    table.write_text(table.read_text().replace("1.PNG,0", "1.PNG,7").replace("2.PNG,0", "two.PNG,0") + "9.PNG,1\n")
    write(source / "image" / "3.png", speckle(3))
    os.remove(source / "mask" / "4.PNG")
    write(source / "mask" / "5.PNG", outline(), "1")
    write(source / "mask" / "6.PNG", outline() // 255 * 2)
    (source / "image" / "7.PNG").write_bytes(b"\0" * (17 << 20))
    os.remove(source / "mask" / "8.PNG")
    (source / "mask" / "8.PNG").mkdir()
    records, notes = read(source)
    assert list(records) == ["1", "2", "3", "5"] and records["1"].malignant is None
    expected = [
        "image/3.png: is also there as image/3.PNG; keep the original of the two.",
        "train.csv: row 2, label: '7' must be 0 or 1; correct it after the original.",
        "train.csv: row 3, name: 'two.PNG' must be a number, as 0001 or 0001 and the suffix; correct it",
        "mask/4.PNG: is not there, but its image is; copy it from the original.",
        "mask/6.PNG: values: the largest is 2, so that all is lost at the cut at 127 (a label map?); replace the file",
        "image/7.PNG: file: 17825792 bytes, such a file has at most 16777216; replace",
        "mask/8.PNG: file: is not a regular file; replace the file by the original.",
    ]
    assert len(notes.faults) == len(expected), notes.faults
    for fault, text in zip(notes.faults, expected):
        assert fault.startswith(text)
    assert ("image/9", "train.csv names it: it is not there") in notes.dropped
    assert not any(str(tmp_path) in fault for fault in notes.faults)


def test_masks_that_are_soft_or_of_0_and_1_or_empty(source):
    add(source, 4)
    soft = outline()
    soft[4, 20:31], soft[15, 20:31] = 127, 128
    write(source / "mask" / "1.PNG", soft)
    write(source / "mask" / "2.PNG", outline() // 255)
    write(source / "mask" / "3.PNG", np.zeros(SIZE, np.uint8))
    write(source / "mask" / "4.PNG", 255 - outline())
    records, notes = read(source)
    assert notes.faults == []
    np.testing.assert_array_equal(records["1"].mask, soft > 127)
    np.testing.assert_array_equal(records["2"].mask, outline() == 255)
    assert records["3"].mask is None and records["3"].malignant is True
    assert records["4"].mask is None
    inverted = "all corners and over half of the picture are marked (inside out?): it gives no outline"
    assert notes.dropped == [
        ("mask/3.PNG", "not one pixel is marked: it gives no outline"),
        ("mask/4.PNG", inverted),
    ]
    counts = ("masks with values between 0 and 255, cut at 127", "masks of 0 and 1", "masks that are empty")
    assert [notes.counts[name] for name in counts] == [1, 1, 1]
    assert notes.counts["masks that mark all corners and over half of the picture"] == 1


def test_a_build_comes_back(source, tmp_path):
    add(source, 6)
    write(source / "image" / "6.PNG", speckle(2))  # a copy of image 2 with another label
    survey = builder.build(tnscui2020.CARD, lambda notes: tnscui2020.read(source.parent, notes), tmp_path / "out")
    assert survey.notes.counts["groups joined by equal images"] == 1 and survey.groups[5] == "2"
    _, records = storage.open_records(tmp_path / "out", "tnscui2020")
    assert [record.malignant for record in records] == [False, False, True, False, False, True]
    np.testing.assert_array_equal(records[2].image, speckle(3))
    np.testing.assert_array_equal(records[2].mask, outline() == 255)
    entries = storage.read_metadata(tmp_path / "out", "tnscui2020").entries
    assert [entry.group for entry in entries] == ["1", "2", "3", "4", "5", "2"]


def test_a_wrong_folder_and_what_to_do(source, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    inner = add(tmp_path / "other" / "TNSCUI")
    with pytest.raises(InputError, match=f"It is in {inner}: give that folder"):
        read(tmp_path / "other")
    with pytest.raises(InputError, match=rf"there is no image, no mask in it\. It is in {inner}: give that folder"):
        read(inner / "image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there is no image, no mask in it\. Unpack TNSCUI2020"):
        read(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        read(inner / "train.csv")


def test_the_card_adds_up():
    expected = tnscui2020.CARD.expected
    assert expected["benign"] + expected["malignant"] == expected["images"] and set(expected) <= set(tnscui2020.COUNTED)
