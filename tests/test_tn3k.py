"""The TN3K reader against made folders of the original's layout, with and without labels and folds."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from data_prep import builder
from data_prep.__main__ import main
from data_prep.readers import tn3k
from thyroid_jax.data import splits, storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (40, 32)  # height and width
LABELS = {"trainval": [n % 3 == 0 for n in range(10)], "test": [True, False, False]}  # malignant, by number


def speckle(seed):
    return np.random.default_rng(seed).integers(20, 200, SIZE, np.uint8)


def outline():
    mask = np.zeros(SIZE, np.uint8)
    mask[11:21, 9:19] = 255
    return mask


def write(path, picture, mode="RGB", quality=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(path, "JPEG", quality=quality)


def decoded(path):
    return np.asarray(Image.open(path).convert("L"))


def add(folder, *, labels=True, folds=True, suffix=".jpg"):
    """Write ten images, and three of the test part; every second image and its neighbour are in one fold."""
    for seed, (part, malignant) in enumerate(LABELS.items()):
        for number in range(len(malignant)):
            write(folder / f"{part}-image" / f"{number:04d}.jpg", speckle(100 * seed + number))
            write(folder / f"{part}-mask" / f"{number:04d}.jpg", outline(), mode="L")
        if labels:
            rows = [f"{number:04d}{suffix},{int(label)}" for number, label in enumerate(malignant)]
            (folder / f"label4{part}.csv").write_text("\n".join(rows) + "\n")
    for fold in range(5 if folds else 0):
        write_fold(folder, fold, [2 * fold, 2 * fold + 1])
    return folder


def write_fold(folder, fold, val, count=10):
    content = {"train": [index for index in range(count) if index not in val], "val": val}
    (folder / f"tn3k-trainval-fold{fold}.json").write_text(json.dumps(content))


def read(source):
    notes = Notes()
    return {record.case: record for record in tn3k.read(source, notes)}, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "data" / "tn3k"


@pytest.mark.parametrize("suffix", [".jpg", ""])
def test_labels_parts_and_counts(source, suffix):
    add(source, suffix=suffix)
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == [f"test_{n:04d}" for n in range(3)] + [f"trainval_{n:04d}" for n in range(10)]
    for part, malignant in LABELS.items():
        of_part = [record for case, record in records.items() if case.startswith(part)]
        assert [record.malignant for record in of_part] == malignant
        assert {record.official_test for record in of_part} == {part == "test"}
    record = records["trainval_0002"]
    assert record.source == "trainval-image/0002.jpg" and record.group == record.case and record.grade is None
    np.testing.assert_array_equal(record.image, decoded(source / record.source))
    assert np.isnan(record.spacing).all() and record.descriptors == {}
    expected = dict.fromkeys(tn3k.COUNTED, 0) | {
        "images": 13,
        "images of the test part": 3,
        "images outside the test part": 10,
        "benign": 8,
        "malignant": 5,
    }
    assert dict(notes.counts) == expected and list(notes.counts) == list(tn3k.COUNTED)


def test_masks_are_cut_at_128(source):
    add(source)
    steps = np.repeat(np.array([0, 127, 128, 255], np.uint8), 8)  # JPEG keeps blocks of 8 pixels at this quality
    mask = source / "test-mask" / "0000.jpg"
    write(mask, np.tile(steps, (SIZE[0], 1)), mode="L", quality=100)
    np.testing.assert_array_equal(decoded(mask)[0], steps)
    records, notes = read(source)
    np.testing.assert_array_equal(records["test_0000"].mask, np.tile(steps >= 128, (SIZE[0], 1)))
    rough = decoded(source / "test-mask" / "0001.jpg")
    assert ((rough > 0) & (rough < 255)).any()  # as the original's masks
    np.testing.assert_array_equal(records["test_0001"].mask, outline() == 255)
    assert notes.faults == []


def test_an_image_with_a_black_mask_is_kept_without_outline(source, tmp_path):
    add(source, folds=False)
    write(source / "trainval-mask" / "0003.jpg", np.zeros(SIZE, np.uint8), mode="L")
    survey = builder.build(tn3k.CARD, lambda notes: tn3k.read(source, notes), tmp_path / "out")
    why = "not one pixel is marked: it gives no outline"
    assert ("trainval-mask/0003.jpg", why) in survey.notes.dropped and survey.notes.counts["masks that are empty"] == 1
    _, records = storage.open_records(tmp_path / "out", "tn3k")
    assert [record.case for record in records if record.mask is None] == ["trainval_0003"]
    assert len(records) == 13 and [record.malignant for record in records][6] is True


def test_a_mask_that_is_inside_out_gives_no_outline(source):
    add(source, folds=False)
    write(source / "trainval-mask" / "0003.jpg", 255 - outline(), mode="L")
    records, notes = read(source)
    assert notes.faults == [] and records["trainval_0003"].mask is None
    assert [place for place, _ in notes.dropped if "mask" in place] == ["trainval-mask/0003.jpg"]
    assert notes.counts["masks that mark all corners and over half of the picture"] == 1


def test_images_and_masks_only(source):
    add(source, labels=False, folds=False)
    records, notes = read(source)
    assert len(records) == 13 and {record.malignant for record in records.values()} == {None}
    assert notes.faults == [] and notes.folds == {} and notes.counts["images without malignancy"] == 13
    assert [what for what, _ in notes.dropped] == [
        "the labels of label4test.csv",
        "the labels of label4trainval.csv",
        "the folds official-5",
    ]
    assert "tn3k-trainval-fold0.json, tn3k-trainval-fold1.json" in notes.dropped[-1][1]


def test_the_publishers_folds_become_files(source, tmp_path, capsys):
    add(source)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    main(["build", "tn3k", "--source", str(source.parent), "--out", str(tmp_path / "out")])  # the folder above is given
    assert "13  images  (the whole original has 3493)" in capsys.readouterr().out
    _, records = storage.open_records(tmp_path / "out", "tn3k")
    metadata = storage.read_metadata(tmp_path / "out", "tn3k")
    assert [record.official_test for record in records].count(True) == 3
    np.testing.assert_array_equal(records[5].mask, outline() == 255)
    file = splits.folds_folder(tmp_path / "out", "tn3k") / "official-5.json"
    folds = splits.load_folds(file, "tn3k", metadata.digest, metadata.entries)
    assert folds.folds == tuple((f"trainval_{2 * k:04d}", f"trainval_{2 * k + 1:04d}") for k in range(5))
    assert folds.test == ("test_0000", "test_0001", "test_0002")
    assert {path: path.read_bytes() for path in before} == before


def test_indices_of_folds_count_the_complete_list(source):
    """The files are counted in the order of their numbers, with those that are not there but in the table."""
    add(source)
    for what in ("image", "mask"):
        os.rename(source / f"trainval-{what}" / "0009.jpg", source / f"trainval-{what}" / "00009.jpg")
        os.remove(source / f"trainval-{what}" / "0004.jpg")
    table = source / "label4trainval.csv"
    table.write_text(table.read_text().replace("0009", "00009"))
    records, notes = read(source)
    assert len(records) == 12 and notes.dropped == [
        ("trainval-image/0004", "label4trainval.csv names it: it is not there")
    ]
    assert notes.folds["official-5"]["trainval_0005"] == 2 and notes.folds["official-5"]["trainval_00009"] == 4
    os.remove(table)  # now nothing tells that 0004 is missing, and index 5 would be another image
    records, notes = read(source)
    assert len(records) == 12 and notes.folds == {} and notes.faults == []
    assert notes.dropped[-1] == (
        "the folds official-5",
        "tn3k-trainval-fold0.json has indices of 10 images, but 9 are known here",
    )


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda folder: write_fold(folder, 1, [2, 4]), "not every image is in one val list"),
        (lambda folder: write_fold(folder, 3, [6, 10], 11), "fold3.json has indices of 11 images, but 10"),
        (
            lambda folder: (folder / tn3k.FOLDS[2]).write_text('{"train": [0,1,2,3,6,7,8,9], "val": [4, -1]}'),
            "fold2.json: train and val do not hold every image once",
        ),
        (lambda folder: os.remove(folder / tn3k.FOLDS[4]), "tn3k-trainval-fold4.json: not there"),
    ],
)
def test_folds_that_are_no_partition_are_left_out(source, change, why):
    change(add(source))
    records, notes = read(source)
    assert len(records) == 13 and notes.faults == [] and notes.folds == {}
    assert [what for what, _ in notes.dropped] == ["the folds official-5"] and why in notes.dropped[0][1]


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"{", "file: not JSON (JSONDecodeError)"),
        (b"[" * 100000, "file: not JSON (RecursionError)"),
        (b"\xff\xfe\x00", "file: not JSON"),
        (b"[1]", "content: must be"),
        (b'{"train": [], "val": [true]}', "content: must be"),
        (b'{"train": [0.0], "val": []}', "content: must be"),
        (b'{"train": [' + b"9" * 5000 + b'], "val": []}', "file: not JSON (ValueError)"),
        (b" " * (tn3k.LARGEST_JSON + 1), "file: 1048577 bytes"),
    ],
)
def test_a_folds_file_that_cannot_be_read(source, content, fault):
    (add(source) / tn3k.FOLDS[0]).write_bytes(content)
    _, notes = read(source)
    assert len(notes.faults) == 1 and notes.folds == {}
    assert notes.faults[0].startswith(f"tn3k-trainval-fold0.json: {fault}")


def test_a_copy_of_a_test_image_is_left_out_elsewhere(source, tmp_path):
    add(source)
    for number in (3, 7):
        write(source / "trainval-image" / f"000{number}.jpg", speckle(101))  # which is test_0001
    survey = builder.build(tn3k.CARD, lambda notes: tn3k.read(source, notes), tmp_path / "out")
    assert survey.notes.dropped[:2] == [
        (f"trainval-image/000{number}.jpg", "an exact copy of test_0001 of the official test part") for number in (3, 7)
    ]
    assert survey.notes.counts[tn3k.COUNTED[-1]] == 2 and survey.notes.counts["images"] == 13
    assert len(survey.entries) == 11
    file = splits.folds_folder(tmp_path / "out", "tn3k") / "official-5.json"
    assert splits.read_folds(file).folds[1] == ("trainval_0002",)


def test_what_does_not_belong_together_is_listed(source):
    add(source, folds=False)
    os.remove(source / "test-image" / "0002.jpg")
    write(source / "trainval-image" / "0010.jpg", speckle(10))
    write(source / "trainval-mask" / "0010.jpg", outline())
    (source / "trainval-image" / "Thumbs.db").write_bytes(b"")
    (source / "trainval-image" / os.fsdecode(b"\xff\n.jpg")).write_bytes(b"")
    records, notes = read(source)
    assert notes.faults == [] and len(records) == 13 and records["trainval_0010"].malignant is None
    assert notes.dropped[:-1] == [
        ("test-image/0002", "label4test.csv names it: it is not there"),
        ("test-mask/0002.jpg", "its image is not there"),
        ("trainval-image/Thumbs.db", "its name is not a number and .jpg"),
        ("trainval-image/\\udcff\\n.jpg", "its name is not a number and .jpg"),
        ("the label of trainval-image/0010.jpg", "label4trainval.csv has no row for it"),
    ]
    assert [notes.counts[name] for name in tn3k.COUNTED[6:]] == [1, 1, 1, 0, 0, 2, 0]


def test_all_faulty_rows_and_pictures_are_named_at_once(source, tmp_path):
    add(source, folds=False)
    table = source / "label4trainval.csv"
    table.write_text(
        "0000.jpg,2\n0001.jpg,benign\n../0002.jpg,0\n0003.jpg,1\n0003,0\n0004.jpg,\n0005.jpg,1,1\n0006.jpg,0\n"
        "0007.jpg,0\n0008.jpg,1\n0009.jpg,1\n"
    )
    images, masks = source / "trainval-image", source / "trainval-mask"
    (images / "0000.jpg").write_bytes((images / "0000.jpg").read_bytes()[:700])
    (images / "0001.jpg").write_bytes(b"\0" * 100)
    Image.new("CMYK", (8, 8)).save(images / "0002.jpg")
    os.remove(images / "0003.jpg")
    os.mkfifo(images / "0003.jpg")
    os.remove(masks / "0005.jpg")
    (masks / "0006.jpg").unlink()
    (masks / "0006.jpg").symlink_to("/dev/zero")
    write(masks / "0007.jpg", outline() // 255)  # a mask of 0 and 1
    write(masks / "0008.jpg", outline()[:, :-8])
    Image.new("L", (9000, 8)).save(images / "0009.jpg")
    Image.fromarray(outline()).save(masks / "0009.jpg", "PNG")
    records, notes = read(source)
    assert [case for case in records if case.startswith("trainval")] == ["trainval_0004"]
    assert records["trainval_0004"].malignant is None
    expected = [
        "label4trainval.csv: row 7: 3 fields, but the header has 2; mend the row.",
        "label4trainval.csv: row 1, label: '2' must be 0 or 1; correct it after the original.",
        "label4trainval.csv: row 2, label: 'benign' must be 0 or 1; correct it after the original.",
        "label4trainval.csv: row 3, name: '../0002.jpg' must be a number",
        "label4trainval.csv: row 5, name: 0003 is already in row 4; correct it after the original.",
        "trainval-image/0000.jpg: picture: not a whole JPEG file",
        "trainval-image/0001.jpg: picture: not a whole JPEG file",
        "trainval-image/0002.jpg: colours: the picture's mode is CMYK",
        "trainval-image/0003.jpg: file: is not a regular file; replace the file by the original.",
        "trainval-mask/0005.jpg: is not there, but its image is; copy it from the original.",
        "trainval-mask/0006.jpg: file: is not a regular file",
        "trainval-mask/0007.jpg: values: the largest is 1, so that all is lost at the cut at 127 (a label map?)",
        "trainval-mask/0008.jpg: size: 24 x 40, but the image is 32 x 40",
        "trainval-image/0009.jpg: size: 9000 x 8, a side has at most 4096 pixels",
        "trainval-mask/0009.jpg: picture: not a whole JPEG file",
    ]
    assert len(notes.faults) == len(expected), notes.faults
    for fault, text in zip(notes.faults, expected):
        assert fault.startswith(text)
    assert not any(str(tmp_path) in fault for fault in notes.faults)
    with pytest.raises(InputError, match=r"(?s)15 faults.*row 1, label.*0009\.jpg: picture"):
        builder.examine(tn3k.CARD, lambda notes: tn3k.read(source, notes))


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"", "rows: the table is empty"),
        (b"PK\x03\x04\xff\xfe", "file: not a CSV table in UTF-8"),
        (b"0000.jpg\n0001.jpg\n", "columns: one must hold names"),
        (b"0000.jpg,x\n0001.jpg,y\n0002.jpg,z\n", "columns: one must hold names"),
        (b"0000.jpg,0,1\n0001.jpg,1,1\n0002.jpg,1,0\n", "columns: one must hold names"),
    ],
)
def test_a_file_that_is_no_table_of_labels(source, content, fault):
    (add(source) / "label4test.csv").write_bytes(content)
    records, notes = read(source)
    assert len(notes.faults) == 1 and notes.faults[0].startswith(f"label4test.csv: {fault}")
    assert {record.malignant for case, record in records.items() if case.startswith("test")} == {None}


def test_a_wrong_folder_and_what_to_do(source, tmp_path):
    with pytest.raises(InputError, match=r"no such folder\. Give the folder of TN3K; it holds test-image, test-mask"):
        read(source)
    (source / "trainval-image").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no test-image, no test-mask, no trainval-mask in it\. Unpack TN3K"):
        read(source)
    deeper = add(tmp_path / "a" / "b" / "copy")
    with pytest.raises(InputError, match=f"It is in {deeper}: give that folder"):
        read(tmp_path / "a")
    empty = tmp_path / "empty"
    for part in LABELS:
        for what in ("image", "mask"):
            (empty / f"{part}-{what}").mkdir(parents=True)
    with pytest.raises(InputError, match="there is no image of TN3K in it"):
        read(empty)
    write(empty / "test-image" / "0000.JPG", speckle(0))
    with pytest.raises(
        InputError, match=r"no image of TN3K in it\..* test-image/0000\.JPG: its name is not a number and"
    ):
        read(empty)


def test_the_card_adds_up():
    expected = tn3k.CARD.expected
    assert expected["images of the test part"] + expected["images outside the test part"] == expected["images"]
    assert set(expected) <= set(tn3k.COUNTED)
