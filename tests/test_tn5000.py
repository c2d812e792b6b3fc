"""The TN5000 reader against made folders of the original's layout."""

import os

import numpy as np
import pytest
from PIL import Image

from data_prep import builder
from data_prep.readers import tn5000
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (40, 56)  # height and width
PARTS = {"train": [1, 2, 5, 6], "val": [3], "test": [4, 10]}
BOX = (7, 8, 30, 25)


def speckle(seed):
    return np.random.default_rng(seed).integers(20, 200, SIZE, np.uint8)


def annotation(*objects, size=SIZE):
    """An annotation of (name, (xmin, ymin, xmax, ymax)) objects."""
    lines = [
        f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size><segmented>0</segmented>",
        *(
            f"<object><name>{name}</name><pose>Unspecified</pose><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
            for name, (left, top, right, bottom) in objects
        ),
    ]
    return "<annotation><folder>JPEGImages</folder>" + "\n".join(lines) + "</annotation>"


def write_annotation(folder, number, text):
    (folder / "Annotations" / f"{number:06d}.xml").write_text(text)


def write_image(folder, number, picture, mode="RGB"):
    Image.fromarray(picture).convert(mode).save(folder / "JPEGImages" / f"{number:06d}.jpg", quality=90)


def write_list(folder, part, numbers):
    (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("".join(f"{number:06d}\n" for number in numbers))


def add(folder):
    """Write the images of all parts; an odd number is malignant."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for part, numbers in PARTS.items():
        write_list(folder, part, numbers)
        for number in numbers:
            write_image(folder, number, speckle(number))
            write_annotation(folder, number, annotation((number % 2, BOX)))
    write_list(folder, "trainval", sorted(PARTS["train"] + PARTS["val"]))
    return folder


def read(source):
    notes = Notes()
    return {record.case: record for record in tn5000.read(source, notes)}, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "TN5000_forReview"


def test_labels_parts_boxes_and_counts(source):
    add(source)
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    numbers = [4, 10, 1, 2, 5, 6, 3]  # test, train, val
    assert list(records) == [f"{number:06d}" for number in numbers]
    assert [record.malignant for record in records.values()] == [number % 2 == 1 for number in numbers]
    assert [record.official_test for record in records.values()] == [True] * 2 + [False] * 5
    assert [record.descriptors["part"] for record in records.values()] == ["test"] * 2 + ["train"] * 4 + ["val"]
    record = records["000005"]
    assert record.mask is None and record.grade is None and record.group == "000005"
    assert record.descriptors == {"part": "train", "box": "7 8 30 25"}
    assert record.source == "JPEGImages/000005.jpg"
    np.testing.assert_array_equal(record.image, np.asarray(Image.open(source / record.source).convert("L")))
    expected = dict.fromkeys(tn5000.COUNTED, 0) | {
        "images": 7,
        "images of test": 2,
        "images of train": 4,
        "images of val": 1,
        "benign": 4,
        "malignant": 3,
    }
    assert dict(notes.counts) == expected and list(notes.counts) == list(tn5000.COUNTED)


def test_an_image_of_several_nodules_is_malignant_if_one_is(source):
    add(source)
    write_annotation(source, 1, annotation((0, BOX), (1, (31.5, 0, 56, 40)), (0, (1, 1, 2, 2))))
    write_annotation(source, 2, annotation((0, BOX), (0, (-1, 2, 57, 9))))
    write_annotation(source, 5, annotation((1, BOX), size=(0, 0)))
    records, notes = read(source)
    assert notes.faults == []
    assert records["000001"].malignant is True and records["000002"].malignant is False
    assert records["000001"].descriptors["box"] == "7 8 30 25; 31.5 0 56 40; 1 1 2 2"
    assert records["000005"].malignant is True
    counts = {name: notes.counts[name] for name in tn5000.COUNTED[7:10]}
    assert counts == {
        "images with several boxes": 2,
        "images with benign and malignant boxes": 1,
        "images with a box that leaves the image": 1,
    }


def test_copies_of_test_images_are_left_out_elsewhere(source, tmp_path):
    add(source)
    for number in (2, 3):
        write_image(source, number, speckle(4))
    write_image(source, 6, speckle(5))
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    survey = builder.build(tn5000.CARD, lambda notes: tn5000.read(source.parent, notes), tmp_path / "out")
    assert survey.notes.dropped == [
        (f"JPEGImages/00000{number}.jpg", "an exact copy of 000004 of the official test part") for number in (2, 3)
    ]
    assert survey.notes.counts["images"] == 7 and survey.notes.counts["groups joined by equal images"] == 1
    _, records = storage.open_records(tmp_path / "out", "tn5000")
    entries = storage.read_metadata(tmp_path / "out", "tn5000").entries
    first, _ = read(source)
    assert [record.case for record in records] == ["000004", "000010", "000001", "000005", "000006"]
    assert [record.digest for record in records][:4] == [first[record.case].digest for record in records][:4]
    assert [entry.group for entry in entries][3:] == ["000005", "000005"]
    assert not any(entry.has_mask for entry in entries)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_what_does_not_belong_together_is_listed(source):
    add(source)
    os.remove(source / "JPEGImages" / "000003.jpg")
    write_image(source, 77, speckle(77))
    (source / "JPEGImages" / "readme.txt").write_text("")
    records, notes = read(source)
    assert notes.faults == [] and len(records) == 6
    assert notes.dropped == [
        ("JPEGImages/readme.txt", "its name is not a number and .jpg"),
        ("JPEGImages/000003.jpg", "val.txt names it: it is not there"),
        ("JPEGImages/000077.jpg", "no list in ImageSets/Main names it: its part is unknown"),
    ]
    assert [notes.counts[name] for name in tn5000.COUNTED[10:]] == [0, 0, 1, 1, 1, 1, 0]


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    "text, fault",
    [
        (annotation(*[(0, BOX)] * 65), "object: there are 65, an annotation has at most 64"),
        ("<html><object/></html>", "XML: its root is 'html', not 'annotation'"),
        (annotation(("nodule", BOX)), "object 1, name: 'nodule' must be 0 or 1"),
        (annotation((1, BOX), ("", BOX)), "object 2, name: '' must be 0 or 1"),
        (annotation((1, ("1e3", 0, 5, 5))), "object 1, xmin: '1e3' must be a number of pixels"),
        (annotation((1, (0, 0, "nan", 5))), "object 1, xmax: 'nan' must be a number of pixels"),
        (annotation((1, (0, 0, 5, "9" * 400))), "object 1, ymax: '9999999999999999999999999999999999999999' must be"),
        (BOMB, "XML: declares a document type or entities"),
        ("<annotation>", "XML: not well-formed"),
        (" " * (tn5000.LARGEST_XML + 1), "file: 65537 bytes, such a file has at most 65536"),
    ],
)
def test_an_annotation_that_cannot_be_used(source, text, fault):
    add(source)
    write_annotation(source, 1, text)
    records, notes = read(source)
    assert "000001" not in records and len(records) == 6 and len(notes.faults) == 1
    assert notes.faults[0].startswith(f"Annotations/000001.xml: {fault}")
    assert notes.faults[0].endswith("; replace the file by the original.")


@pytest.mark.parametrize(
    "text, malignant, why",
    [
        (annotation((1, BOX), (0, (30, 8, 7, 25))), True, "object 2, bndbox: 30 8 7 25 has no area"),
        (annotation((0, (7, 8, 30, 8))), False, "object 1, bndbox: 7 8 30 8 has no area"),
        (annotation((1, BOX), size=SIZE[::-1]), True, "size, height: '56', but the image has 40"),
        (annotation((0, BOX), size=(SIZE[0], "x")), False, "size, width: 'x', but the image has 56"),
    ],
)
def test_boxes_that_cannot_be_those_of_the_image_are_left_out(source, text, malignant, why):
    add(source)
    write_annotation(source, 1, text)
    records, notes = read(source)
    assert notes.faults == [] and len(records) == 7
    assert records["000001"].malignant is malignant and records["000001"].descriptors == {"part": "train"}
    assert notes.dropped == [("the boxes of 000001", f"Annotations/000001.xml: {why}")]
    assert notes.counts["images whose boxes are left out"] == 1
    assert records["000002"].descriptors["box"] == "7 8 30 25"


def test_an_annotation_without_object_gives_no_label(source):
    add(source)
    write_annotation(source, 1, annotation())
    records, notes = read(source)
    assert notes.faults == [] and records["000001"].malignant is None
    assert records["000001"].descriptors == {"part": "train"}
    assert notes.dropped == [("the label of 000001", "Annotations/000001.xml has no object")]
    assert notes.counts["images without object"] == notes.counts["images without malignancy"] == 1


def test_lists_that_do_not_fit(source):
    add(source)
    lists = source / "ImageSets" / "Main"
    write_list(source, "val", [3, 4])
    (lists / "test.txt").write_text("000004\n\n../000010\n000010 1\n")
    _, notes = read(source)
    assert notes.faults == [
        "ImageSets/Main/test.txt: line 3: '../000010' must be a number; correct it after the original.",
        "ImageSets/Main/test.txt: line 4: '000010 1' must be a number; correct it after the original.",
        "ImageSets/Main/val.txt: 000004 is also in test.txt; replace the files by the original.",
    ]
    write_list(source, "val", [3])
    write_list(source, "test", [4, 10])
    write_list(source, "trainval", [1, 2, 3, 4, 5])
    _, notes = read(source)
    assert notes.faults == [
        "ImageSets/Main/trainval.txt: is not train.txt and val.txt together, 2 numbers differ, such as 000004; "
        "replace the files by the original."
    ]


def test_without_its_list_a_part_is_unknown(source):
    """Without test.txt, images of the test part could be trained on: this is a fault."""
    add(source)
    lists = source / "ImageSets" / "Main"
    os.remove(lists / "test.txt")
    os.remove(lists / "train.txt")
    os.mkfifo(lists / "train.txt")
    os.remove(lists / "trainval.txt")
    (lists / "val.txt").write_bytes(b"\xff\xfe")
    records, notes = read(source)
    assert records == {}
    assert [fault.partition(";")[0] for fault in notes.faults] == [
        "ImageSets/Main/test.txt: is not there, without it the parts are unknown",
        "ImageSets/Main/train.txt: file: is not a regular file",
        "ImageSets/Main/val.txt: file: not a text in UTF-8 ('utf-8' codec can't decode byte 0xff in position 0: "
        "invalid start byte)",
    ]


def test_files_that_cannot_be_used_are_named_at_once(source, tmp_path):
    add(source)
    os.remove(source / "Annotations" / "000001.xml")
    os.remove(source / "JPEGImages" / "000002.jpg")
    (source / "JPEGImages" / "000002.jpg").symlink_to("/dev/zero")
    Image.fromarray(speckle(3)).save(source / "JPEGImages" / "000003.jpg", "PNG")
    os.remove(source / "Annotations" / "000003.xml")
    os.mkfifo(source / "Annotations" / "000003.xml")
    with pytest.raises(InputError) as caught:
        builder.build(tn5000.CARD, lambda notes: tn5000.read(source, notes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for text in (
        "4 faults",
        "Annotations/000001.xml: is not there, but its image is; copy it from the original.",
        "JPEGImages/000002.jpg: file: is not a regular file",
        "JPEGImages/000003.jpg: picture: not a whole JPEG file",
        "Annotations/000003.xml: file: is not a regular file",
    ):
        assert text in str(caught.value)


def test_a_wrong_folder_and_what_to_do(source, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    inner = add(tmp_path / "download" / "TN5000" / "VOC")
    with pytest.raises(InputError, match=f"It is in {inner}: give that folder"):
        read(tmp_path / "download")
    for part in PARTS:
        write_list(inner, part, [])
    write_list(inner, "trainval", [])
    with pytest.raises(InputError, match="there is no image of TN5000 in it"):
        read(inner)


def test_the_card_adds_up():
    expected = tn5000.CARD.expected
    assert sum(expected[f"images of {part}"] for part in PARTS) == expected["images"]
    assert set(expected) <= set(tn5000.COUNTED)
