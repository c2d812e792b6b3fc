"""The TNUI-2021 reader against made folders of the original's layout."""

import os

import numpy as np
import pytest
from PIL import Image

from data_prep import builder
from data_prep.readers import tnui2021
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (36, 44)  # height and width
# Numbers of images of each part; the first digit of a name is its label, as in the original.
NAMES = {"train": ["000", "10100", "101003"], "val": ["0013", "10103"], "test": ["002", "101006"]}


def speckle(seed):
    return np.random.default_rng(seed).integers(20, 200, SIZE, np.uint8)


def outline():
    mask = np.zeros(SIZE, np.uint8)
    mask[5:15, 20:31] = 255
    return mask


def write(path, picture, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(path)


def add(folder, *, mode="RGB", head="ID,Labels"):
    for number, (part, stems) in enumerate(NAMES.items()):
        for stem in stems:
            write(folder / part / "images" / f"{stem}.png", speckle(int(stem)), mode)
            write(folder / part / "masks" / f"{stem}.png", outline(), "L" if number else "RGB")
        (folder / f"{part}_img_labels.csv").write_text(
            "\n".join([*([head] if head else []), *(f"{stem}.png,{stem[0]}" for stem in stems)]) + "\n"
        )
    return folder


def read(source):
    notes = Notes()
    return {record.case: record for record in tnui2021.read(source, notes)}, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "TNUI-2021--main" / "thyroid_data"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_labels_parts_and_counts(source, mode):
    add(source, mode=mode)
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == [f"{part}_{stem}" for part in ("test", "train", "val") for stem in NAMES[part]]
    for case, record in records.items():
        part, stem = case.split("_")
        assert record.descriptors == {"part": part, "label": stem[0]}
        assert record.malignant is None and record.grade is None and record.group == case
        assert record.official_test is (part == "test") and record.source == f"{part}/images/{stem}.png"
        np.testing.assert_array_equal(record.image, speckle(int(stem)))
        np.testing.assert_array_equal(record.mask, outline() == 255)
    expected = dict.fromkeys(tnui2021.COUNTED, 0) | {
        "images": 7,
        "images of test": 2,
        "images of train": 3,
        "images of val": 2,
        "label 0": 3,
        "label 1": 4,
    }
    assert dict(notes.counts) == expected and list(notes.counts) == list(tnui2021.COUNTED)


@pytest.mark.parametrize(
    "text",
    [
        "000.png,0\n10100.png,1\n101003.png,1\n",  # no header
        "\ufeffimage;class\r\n000.png;0\r\n10100.png;1\r\n101003.png;1\r\n",
        ",ID,Labels\n0,000.png,0\n1,10100.png,1\n2,101003.png,1\n",  # an index without a name
        "label,name,doctor\n0,000.png,A\n1,10100.png,B\n1,101003.png,A\n",
    ],
)
def test_columns_are_found_by_their_content(source, text):
    add(source)
    (source / "train_img_labels.csv").write_bytes(text.encode())
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert [record.descriptors["label"] for case, record in records.items() if "train" in case] == ["0", "1", "1"]


@pytest.mark.parametrize(
    "text, faults",
    [
        ("ID,Labels\n", ["rows: the table has a header but no image"]),
        (
            "ID,Labels\n000.png,0,1\n",
            ["row 2: 3 fields, but the header has 2", "rows: the table has a header but no image"],
        ),
        ("ID,label,Labels\n000.png,0,1\n", ["columns: one must"]),
        ("a,b,c\n000.png,0,1\n10100.png,1,1\n101003.png,1,0\n", ["columns: one must"]),
        ("a,b,c\n000.png,0,000.png\n10100.png,1,10100.png\n", ["columns: one must"]),
        ("id,file,label\n0,000.png,0\n1,10100.png,1\n2,101003.png,1\n", ["columns: one must"]),  # id counts the rows
        (
            "ID,Labels\n000.png,0\n10100.png,1\n101003.png,-1\nx.png,1\n000.png,1\n",
            [
                "row 4, label: '-1' must be 0 or 1",
                "row 5, name: 'x.png' must be a number",
                "row 6, name: 000 is already in row 2",
            ],
        ),
    ],
)
def test_labels_that_cannot_be_read(source, text, faults):
    add(source)
    (source / "train_img_labels.csv").write_text(text)
    _, notes = read(source)
    assert len(notes.faults) == len(faults), notes.faults
    for fault, text in zip(notes.faults, faults):
        assert fault.startswith(f"train_img_labels.csv: {text}")


def test_missing_labels_are_none(source):
    add(source)
    os.remove(source / "val_img_labels.csv")
    (source / "train_img_labels.csv").write_text("ID,Labels\n000.png,0\n10100.png,\n")
    records, notes = read(source)
    assert notes.faults == [] and len(records) == 7
    assert [case for case, record in records.items() if "label" not in record.descriptors] == [
        "train_10100",
        "train_101003",
        "val_0013",
        "val_10103",
    ]
    assert notes.counts["images without label"] == 4 and notes.counts["images without row"] == 1
    assert notes.dropped == [
        ("the label of train/images/101003.png", "train_img_labels.csv has no row for it"),
        ("the labels of val_img_labels.csv", "the table is not there"),
    ]


def test_what_does_not_belong_together_is_listed(source):
    add(source)
    os.remove(source / "test" / "images" / "002.png")
    (source / "val" / "masks" / ".ipynb_checkpoints").mkdir()
    records, notes = read(source)
    assert notes.faults == [] and len(records) == 6
    assert notes.dropped == [
        ("test/images/002", "test_img_labels.csv names it: it is not there"),
        ("test/masks/002.png", "its image is not there"),
        ("val/masks/.ipynb_checkpoints", "its name is not a number and .png"),
    ]
    assert [notes.counts[name] for name in tnui2021.COUNTED[7:]] == [1, 0, 1, 0, 0, 0, 0, 1, 0]


def test_pictures_that_cannot_be_used_are_named_at_once(source, tmp_path):
    add(source)
    train = source / "train"
    os.remove(train / "masks" / "000.png")
    write(train / "masks" / "10100.png", outline() // 2)
    write(train / "masks" / "101003.png", np.zeros(SIZE, np.uint8))
    write(source / "val" / "masks" / "0013.png", outline().T)
    Image.fromarray(speckle(1).astype(np.uint16) * 100).save(source / "val" / "images" / "10103.png")
    os.remove(source / "test" / "images" / "002.png")
    (source / "test" / "images" / "002.png").symlink_to(tmp_path / "nowhere")
    (source / "test" / "images" / "101006.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    records, notes = read(source)
    assert list(records) == ["train_101003"] and len(notes.faults) == 6
    assert records["train_101003"].mask is None
    assert notes.dropped == [("train/masks/101003.png", "not one pixel is marked: it gives no outline")]
    assert notes.counts["masks that are empty"] == 1
    expected = [
        "test/images/002.png: file: is a link that leads nowhere; replace the file by the original.",
        "test/images/101006.png: picture: not a whole PNG file",
        "train/masks/000.png: is not there, but its image is; copy it from the original.",
        "train/masks/10100.png: values: the largest is 127, so that all is lost at the cut at 127 (a label map?)",
        "val/masks/0013.png: size: 36 x 44, but the image is 44 x 36; replace the file by the original.",
        "val/images/10103.png: colours: the picture's mode is I;16",
    ]
    for fault, text in zip(notes.faults, expected):
        assert fault.startswith(text)
    with pytest.raises(InputError, match="6 faults; nothing was written"):
        builder.build(tnui2021.CARD, lambda notes: tnui2021.read(source, notes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_soft_masks_and_masks_of_0_and_1_are_read_and_counted(source):
    add(source)
    soft = outline()
    soft[4, 20:31], soft[15, 20:31] = 127, 128
    write(source / "train" / "masks" / "000.png", soft)
    write(source / "train" / "masks" / "10100.png", outline() // 255)
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    np.testing.assert_array_equal(records["train_000"].mask, soft > 127)
    np.testing.assert_array_equal(records["train_10100"].mask, outline() == 255)
    counts = ("masks with values between 0 and 255, cut at 127", "masks of 0 and 1", "masks that are empty")
    assert [notes.counts[name] for name in counts] == [1, 1, 0] and notes.remarks == []


def test_a_mask_that_loses_a_label_at_the_cut_is_named(source):
    add(source)
    labels = outline()
    labels[25:35, 2:13] = 100
    write(source / "train" / "masks" / "000.png", labels)
    records, notes = read(source)
    np.testing.assert_array_equal(records["train_000"].mask, outline() == 255)
    why = "110 pixels of values 64 to 127 are not marked, beside 110 that are: look at it"
    assert notes.remarks == [("train/masks/000.png", why)] and notes.faults == []


def test_a_build_comes_back(source, tmp_path):
    add(source)
    write(source / "val" / "images" / "0013.png", speckle(2))  # which is 002 of the test part
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    survey = builder.build(tnui2021.CARD, lambda notes: tnui2021.read(source.parent, notes), tmp_path / "out")
    assert survey.notes.dropped == [
        ("val/images/0013.png", "an exact copy of test_002 of the official test part"),
    ]
    _, records = storage.open_records(tmp_path / "out", "tnui2021")
    entries = storage.read_metadata(tmp_path / "out", "tnui2021").entries
    first, _ = read(source)
    assert [record.digest for record in records] == [record.digest for record in first.values()]
    assert len(records) == 6 and [entry.official_test for entry in entries] == [True] * 2 + [False] * 4
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_a_wrong_folder_and_what_to_do(source):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    add(source)
    with pytest.raises(InputError, match=f"It is in {source}: give that folder"):
        read(source.parent.parent)
    os.rename(source / "val" / "masks", source / "val" / "mask")
    with pytest.raises(InputError, match=r"not the folder of TNUI-2021, there is no val/masks in it\. Unpack"):
        read(source)


def test_the_card_adds_up():
    expected = tnui2021.CARD.expected
    assert sum(expected[f"images of {part}"] for part in NAMES) == expected["images"]
    assert expected["label 0"] + expected["label 1"] == expected["images"]
    assert set(expected) <= set(tnui2021.COUNTED)
