"""The UDIAT reader against a made folder of the original's layout."""

import os
import re
from functools import partial

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from data_prep import builder
from data_prep.readers import udiat
from data_prep.reading import in_order
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (40, 30)  # height and width
HEADER = ("Image", "Type", "Diagnosis")
ROWS = ((1, "Benign", "CYST"), (3, "Malignant", "IDC"), (120, "Benign", None))


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def outline(size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[10:18, 8:20] = 255
    return mask


def write_picture(root, place, picture, mode="L"):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(root / place)


def write_table(root, *rows):
    book = Workbook()
    for values in rows:
        book.active.append(values)
    book.save(root / udiat.TABLE)


def add(root, *numbers):
    for number in numbers:
        write_picture(root, f"original/{number:06}.png", speckle(number))
        write_picture(root, f"GT/{number:06}.png", outline())


def read(source):
    notes = Notes()
    return {record.case: record for record in udiat.read(source, notes)}, notes


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "us" / "Dataset_B"
    add(root, 1, 3, 120)
    write_table(root, HEADER, *ROWS)
    return root


def test_labels_and_counts(root):
    records, notes = read(root)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == ["000001", "000003", "000120"]
    assert [record.malignant for record in records.values()] == [False, True, False]
    assert [dict(record.descriptors) for record in records.values()] == [
        {"diagnosis": "CYST"},
        {"diagnosis": "IDC"},
        {},
    ]
    assert all(record.group == case and record.grade is None for case, record in records.items())
    np.testing.assert_array_equal(records["000120"].image, speckle(120))
    np.testing.assert_array_equal(records["000003"].mask, outline() > 0)
    expected = {
        "rows": 3,
        "images that are not there": 0,
        "images without row": 0,
        "masks without row": 0,
        "images": 3,
        "benign": 2,
        "malignant": 1,
        "masks with values between 0 and 255, cut at 127": 0,
        "masks of 0 and 1": 0,
        "masks that are empty": 0,
        "masks that mark all corners and over half of the picture": 0,
    }
    assert notes.counts == expected and list(notes.counts) == list(expected)


def test_a_legend_beside_and_below_the_rows_is_not_read(root):
    write_table(
        root,
        ("Image", "Type", "Diagnosis", None, "Type", "Meaning"),
        (*ROWS[0], None, "CYST", "a cyst"),
        (*ROWS[1], None, "IDC", "invasive ductal carcinoma"),
        ROWS[2],
        (),
        ("FA", "fibroadenoma", None),
        (None, None, "163 images"),
        (None, None, None, None, "PAP", "papilloma"),
    )
    records, notes = read(root)
    assert [record.malignant for record in records.values()] == [False, True, False] and notes.faults == []
    assert notes.counts["rows"] == 3
    assert notes.dropped == [
        ("DatasetB.xlsx: row 6", "below the last image: taken for the legend"),
        ("DatasetB.xlsx: row 7", "below the last image: taken for the legend"),
    ]


def test_the_class_may_be_in_the_other_column(root):
    write_table(root, ("image", "TYPE", "diagnosis "), ("000001", "CYST", "benign"), ("3.png", "IDC", "MALIGNANT"))
    records, notes = read(root)
    assert [record.malignant for record in records.values()] == [False, True] and notes.faults == []
    assert [record.descriptors["diagnosis"] for record in records.values()] == ["CYST", "IDC"]
    assert notes.counts["images without row"] == notes.counts["masks without row"] == 1


def test_no_class_at_all_is_an_error(root):
    write_table(root, HEADER, (1, "CYST", "B"), (3, "IDC", "M"))
    with pytest.raises(InputError, match=r"DatasetB\.xlsx: neither Type nor Diagnosis says Benign or Malignant"):
        read(root)


def test_images_of_any_mode_are_the_same(root):
    for mode in ("L", "RGB", "RGBA"):
        write_picture(root, "original/000001.png", speckle(5), mode)
        write_picture(root, "GT/000001.png", outline(), mode)
        record = read(root)[0]["000001"]
        np.testing.assert_array_equal(record.image, speckle(5))
        np.testing.assert_array_equal(record.mask, outline() > 0)


def test_masks_that_are_soft_or_of_0_and_1_or_empty(root):
    soft = outline()
    soft[9, 8:20], soft[18, 8:20] = 127, 128
    write_picture(root, "GT/000001.png", soft)
    write_picture(root, "GT/000003.png", outline() // 255)
    write_picture(root, "GT/000120.png", np.zeros(SIZE, np.uint8))
    records, notes = read(root)
    assert notes.faults == []
    np.testing.assert_array_equal(records["000001"].mask, soft > 127)
    np.testing.assert_array_equal(records["000003"].mask, outline() > 0)
    assert records["000120"].mask is None and records["000120"].malignant is False
    assert notes.dropped == [("GT/000120.png", "not one pixel is marked: it gives no outline")]
    assert list(notes.counts.values())[-4:] == [1, 1, 1, 0]


def test_notes_do_not_depend_on_the_number_of_threads(root, monkeypatch):
    """Row 1 is noted by its record, and row 6 because its image is not there."""
    add(root, *range(1, 10))
    write_table(root, HEADER, *((number, "Benign", None) for number in range(1, 10)))
    write_picture(root, "GT/000001.png", np.zeros(SIZE, np.uint8))
    os.remove(root / "original" / "000006.png")
    dropped = []
    for threads in (1, 4):
        monkeypatch.setattr(udiat, "in_order", partial(in_order, threads=threads))
        dropped.append(read(root)[1].dropped)
    assert dropped[0] == dropped[1] and [what for what, _ in dropped[0]][:2] == ["original/000006.png", "GT/000001.png"]


def test_what_is_not_on_both_sides_is_listed(root):
    os.remove(root / "original" / "000003.png")
    add(root, 7)
    (root / "GT" / "Thumbs.db").write_bytes(b"")
    records, notes = read(root)
    assert list(records) == ["000001", "000120"] and notes.faults == []
    assert notes.dropped == [
        ("original/000003.png", "row 3 of DatasetB.xlsx names it: it is not there"),
        ("original/000007.png", "DatasetB.xlsx has no row for it"),
        ("GT/000007.png", "DatasetB.xlsx has no row for it"),
        ("GT/Thumbs.db", "DatasetB.xlsx has no row for it"),
    ]
    assert list(notes.counts.values()) == [3, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0]


def test_all_faulty_rows_and_pictures_are_named_at_once(root, tmp_path):
    write_table(
        root,
        HEADER,
        *ROWS,
        ("../etc/passwd", "Benign", "CYST"),
        (1.5, "Benign", "CYST"),
        (0, "Benign", "CYST"),
        (None, "Malignant", "IDC"),
        (4, "Bening", "CYST"),
        (5, None, "CYST"),
        (6, "Benign", "Malignant"),
        (7, "Benign", "x" * 81),
        (1, "Malignant", "IDC"),
        *((number, "Benign", "FA") for number in range(20, 25)),
    )
    add(root, *range(20, 25))
    os.remove(root / "GT" / "000001.png")
    write_picture(root, "GT/000003.png", outline((40, 50)))
    write_picture(root, "GT/000120.png", outline() // 255 * 3)
    write_picture(root, "GT/000020.png", outline() // 2)
    (root / "original" / "000021.png").write_bytes(b"GIF89a")
    Image.fromarray(speckle(1).astype(np.uint16)).save(root / "original" / "000022.png")
    os.remove(root / "original" / "000023.png")
    os.mkfifo(root / "original" / "000023.png")
    os.remove(root / "GT" / "000024.png")
    os.symlink("/dev/zero", root / "GT" / "000024.png")
    records, notes = read(root)
    assert records == {}
    texts = [
        "DatasetB.xlsx: row 5, Image: '../etc/passwd' must be a whole number from 1 to 999999",
        "DatasetB.xlsx: row 6, Image: '1.5' must be a whole number",
        "DatasetB.xlsx: row 7, Image: '0' must be a whole number",
        "DatasetB.xlsx: row 8, Image: '' must be a whole number",
        "DatasetB.xlsx: row 9, Type: 'Bening' must be Benign or Malignant",
        "DatasetB.xlsx: row 10, Type: '' must be Benign or Malignant",
        "DatasetB.xlsx: row 11, Diagnosis: Malignant, but Type is 'Benign'",
        "DatasetB.xlsx: row 12, Diagnosis: 'xxx",
        "DatasetB.xlsx: row 13, Image: 1 is already in row 2",
        "GT/000001.png: file: is not there",
        "GT/000003.png: size: 50 x 40, but the image is 30 x 40",
        "GT/000120.png: values: the largest is 3, so that all is lost at the cut at 127 (a label map?)",
        "GT/000020.png: values: the largest is 127, so that",
        "original/000021.png: picture: not a whole PNG file",
        "original/000022.png: colours: the picture's mode is I",
        "original/000023.png: file: is not a regular file",
        "GT/000024.png: file: is not a regular file",
    ]
    assert len(notes.faults) == len(texts), notes.faults
    for fault, text in zip(notes.faults, texts):
        assert fault.startswith(text)
    assert not any(str(tmp_path) in fault for fault in notes.faults)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"Image,Type,Diagnosis\n1,Benign,FA\n", b"\0" * (2 << 20)])
def test_a_file_that_is_no_table(root, content):
    (root / udiat.TABLE).write_bytes(content)
    with pytest.raises(InputError, match=r"DatasetB\.xlsx: file: .*; replace the file by the original"):
        read(root)


def test_a_table_without_a_column_or_without_rows(root):
    write_table(root, ("Image", "Type"), (1, "Benign"))
    with pytest.raises(InputError, match=r"DatasetB\.xlsx: row 1: the table has no column Diagnosis"):
        read(root)
    write_table(root, HEADER)
    with pytest.raises(InputError, match=r"DatasetB\.xlsx: rows: the table has a header but no case"):
        read(root)
    write_table(root, ())
    with pytest.raises(InputError, match=r"DatasetB\.xlsx: "):
        read(root)


def test_a_wrong_folder_and_what_to_do(root, tmp_path):
    assert list(read(root.parent)[0]) == list(read(root)[0])
    with pytest.raises(InputError, match=f"no original, no GT, .* It is in {re.escape(str(root))}: give that folder"):
        read(tmp_path)
    with pytest.raises(InputError, match=f"It is in {re.escape(str(root))}: give that folder"):
        read(root / "GT")
    for number in (1, 3, 120):
        os.remove(root / "original" / f"{number:06}.png")
    with pytest.raises(InputError, match=r"none of the images that DatasetB\.xlsx names"):
        read(root)
    os.remove(root / udiat.TABLE)
    with pytest.raises(InputError, match=r"there is no DatasetB\.xlsx in it\. Unpack UDIAT"):
        read(root)


def test_a_build_and_back(root, tmp_path):
    survey = builder.build(udiat.CARD, lambda notes: udiat.read(root, notes), tmp_path / "out")
    assert survey.notes.counts["records"] == survey.notes.counts["groups"] == 3
    card, records = storage.open_records(tmp_path / "out", "udiat")
    assert card == udiat.CARD
    assert [(record.case, record.malignant) for record in records] == [
        ("000001", False),
        ("000003", True),
        ("000120", False),
    ]
    np.testing.assert_array_equal(records[1].mask, outline() > 0)
