"""The BUS-BRA reader against a made folder of the original's layout, and the publishers' folds up to a run's split."""

import csv
import os
import re

import numpy as np
import pytest
from PIL import Image

from data_prep import builder, tables
from data_prep.__main__ import main
from data_prep.readers import bus_bra
from thyroid_jax.data import source as data_source
from thyroid_jax.data import splits, storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (40, 30)  # height and width
BOX = "[9,11,11,7]"  # of outline(): the first column and row counted from 1, one pixel less wide and high


def row(number, side="l", **changed):
    """A row of bus_data.csv."""
    usual = {
        "ID": f"bus_{number:04d}-{side}",
        "Case": number,
        "Histology": "fibroadenoma",
        "Pathology": "benign",
        "BIRADS": 2 + number % 4,
        "Device": "GE Logiq 7 @10-14MHz",
        "Width": SIZE[1],
        "Height": SIZE[0],
        "Side": bus_bra.SIDES[side],
        "BBOX": BOX,
    }
    return usual | changed


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def outline(size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[10:18, 8:20] = 255
    return mask


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def fold_rows(rows, count, changed=()):
    """The rows of a folds file: every patient in the fold of its number, fold 1 to ``count``."""
    found = []
    for values in rows:
        fold = dict(changed).get(values["ID"], 1 + int(values["Case"]) % count)
        valid = {f"valid_{k}": "NaN" if k == fold else int(values["ID"][-1] == "l") for k in range(1, count + 1)}
        found.append({"ID": values["ID"], "Pathology": values["Pathology"], "kFold": fold, **valid})
    return found


def write_picture(source, place, picture, mode=None):
    Image.fromarray(picture).convert(mode or "L").save(source / place)


def names_of(values):
    return f"Images/{values['ID']}.png", f"Masks/{values['ID'].replace('bus', 'mask')}.png"


def add(source, *rows):
    """Write the tables, and a scan and an outline for every row."""
    for folder in ("Images", "Masks"):
        (source / folder).mkdir(parents=True, exist_ok=True)
    write_table(source / "bus_data.csv", rows)
    write_table(source / "5-fold-cv.csv", fold_rows(rows, 5))
    write_table(source / "10-fold-cv.csv", fold_rows(rows, 10))
    for number, values in enumerate(rows):
        image, mask = names_of(values)
        write_picture(source, image, speckle(number))
        write_picture(source, mask, outline(), "1")


def read(source):
    notes = Notes()
    return {record.case: record for record in bus_bra.read(source, notes)}, notes


def whole():
    """Two images of each of ten patients."""
    return [
        row(number, side, Pathology="malignant" if number > 7 else "benign") for number in range(1, 11) for side in "lr"
    ]


@pytest.fixture
def source(tmp_path):
    return tmp_path / "bus_bra"


def test_labels_and_counts(source):
    add(
        source,
        row(1),
        row(1, "r", BIRADS=5),
        row(2, "s", Pathology="malignant", Histology="invasive ductal carcinoma", Device="Toshiba Aplio 300"),
        row(12, BIRADS=2),
    )
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == ["bus_0001-l", "bus_0001-r", "bus_0002-s", "bus_0012-l"]
    assert [record.group for record in records.values()] == ["1", "1", "2", "12"]
    assert [bus_bra.GRADES[record.grade] for record in records.values()] == ["3", "5", "4", "2"]
    assert [record.malignant for record in records.values()] == [False, False, True, False]
    assert records["bus_0002-s"].descriptors == {
        "histology": "invasive ductal carcinoma",
        "device": "Toshiba Aplio 300",
        "side": "single",
    }
    assert records["bus_0001-r"].source == "Images/bus_0001-r.png"
    assert all(np.isnan(record.spacing).all() for record in records.values())
    np.testing.assert_array_equal(records["bus_0002-s"].image, speckle(2))
    np.testing.assert_array_equal(records["bus_0002-s"].mask, outline() == 255)
    expected = {
        "rows": 4,
        "images that are not there": 0,
        "images without row": 0,
        "masks without row": 0,
        "images": 4,
        "cases": 3,
        "benign": 3,
        "malignant": 1,
        "cases benign": 2,
        "cases malignant": 1,
        "BI-RADS 2": 1,
        "BI-RADS 3": 1,
        "BI-RADS 4": 1,
        "BI-RADS 5": 1,
        "images whose height in the table is wrong": 0,
        "images whose outline does not fill its box in the table": 0,
    }
    assert notes.counts == expected and list(notes.counts) == list(expected)
    assert notes.folds["official-5"] == {"bus_0001-l": 1, "bus_0001-r": 1, "bus_0002-s": 2, "bus_0012-l": 2}


def test_a_mask_saved_with_eight_bits_is_the_same(source):
    add(source, row(1))
    write_picture(source, "Masks/mask_0001-l.png", outline(), "L")
    np.testing.assert_array_equal(read(source)[0]["bus_0001-l"].mask, outline() == 255)


def test_the_four_wrong_heights_are_counted_and_others_are_faults(source):
    add(source, row(856, Height=405), row(856, "r", Height=405), row(990, Width=SIZE[1] + 1))
    records, notes = read(source)
    assert list(records) == ["bus_0856-l"]
    assert notes.counts["images whose height in the table is wrong"] == 1
    assert notes.faults == [
        "Images/bus_0856-r.png: size: 30 x 40, but 30 x 405 in row 3 of bus_data.csv, Width and Height; "
        "replace the file by the original.",
        "Images/bus_0990-l.png: size: 30 x 40, but 31 x 40 in row 4 of bus_data.csv, Width and Height; "
        "replace the file by the original.",
    ]


def test_an_outline_that_is_not_in_its_box_is_counted(source):
    add(source, row(1), row(2, BBOX="[9,11,12,8]"), row(3, BBOX="[9,13,11,7]"), row(4, BBOX="[1,1,29,39]"))
    records, notes = read(source)
    assert len(records) == 4 and notes.faults == []
    assert notes.counts["images whose outline does not fill its box in the table"] == 2


def test_what_is_not_on_both_sides_is_listed(source):
    add(source, row(1), row(2), row(3))
    (source / "Images" / "bus_0002-l.png").unlink()
    write_picture(source, "Images/bus_0009-r.png", speckle(9))
    write_picture(source, "Masks/mask_0008-r.png", outline())
    (source / "Images" / "Thumbs.db").write_bytes(b"")
    records, notes = read(source)
    assert list(records) == ["bus_0001-l", "bus_0003-l"] and notes.faults == []
    assert notes.dropped == [
        ("Images/bus_0002-l.png", "row 3 of bus_data.csv names it: it is not there"),
        ("Images/bus_0009-r.png", "bus_data.csv has no row for it"),
        ("Masks/mask_0008-r.png", "bus_data.csv has no row for it"),
    ]
    counts = {name: notes.counts[name] for name in bus_bra.COUNTED[:6]}
    assert list(counts.values()) == [3, 1, 1, 1, 2, 2]


def test_all_faulty_rows_and_pictures_are_named_at_once(source, tmp_path):
    bad_rows = {
        "row 2, ID: 'bus_1-l' must be bus_NNNN-l, -r or -s": row(1, ID="bus_1-l"),
        "row 3, ID: '../../etc/passwd' must be": row(2, ID="../../etc/passwd"),
        "row 4, Case: 'three' must be a whole number": row(3, Case="three"),
        "row 5, Case: 5, but ID is bus_0004-l": row(4, Case=5),
        "row 6, Histology: '' must be a text": row(5, Histology=""),
        "row 7, Pathology: 'normal' must be benign or malignant": row(6, Pathology="normal"),
        "row 8, BIRADS: '4a' must be one of 2 3 4 5": row(7, BIRADS="4a"),
        "row 9, Device: 'x": row(8, Device="x" * 81),
        "row 10, Width: '0' must be a whole number": row(9, Width=0),
        "row 11, Height: '1e3' must be a whole number": row(10, Height="1e3"),
        "row 12, Side: right, but ID is bus_0011-l": row(11, Side="right"),
        "row 13, BBOX: '[1,2,3]' must be four whole numbers": row(12, BBOX="[1,2,3]"),
    }
    good = [row(number, "s") for number in range(20, 30)]
    rows = [*bad_rows.values(), *good, row(20, "s"), row(21, "l", Pathology="malignant"), row(30, BIRADS=6, Width="a")]
    add(source, *good)
    write_table(source / "bus_data.csv", rows)
    write_table(source / "5-fold-cv.csv", fold_rows(good, 5))
    os.remove(source / "10-fold-cv.csv")
    masks, images = source / "Masks", source / "Images"
    (masks / "mask_0020-s.png").unlink()
    write_picture(source, "Masks/mask_0021-s.png", outline((40, 50)), "1")
    write_picture(source, "Masks/mask_0022-s.png", outline() // 2)
    write_picture(source, "Masks/mask_0023-s.png", np.zeros(SIZE, np.uint8), "1")
    (images / "bus_0024-s.png").write_bytes((images / "bus_0024-s.png").read_bytes()[:600])
    (images / "bus_0025-s.png").write_bytes(b"\0" * (bus_bra.LARGEST_PNG + 1))
    Image.new("L", (bus_bra.LARGEST_SIDE + 1, 2)).save(images / "bus_0026-s.png")
    write_picture(source, "Images/bus_0027-s.png", speckle(27), "RGB")
    (images / "bus_0028-s.png").unlink()
    os.mkfifo(images / "bus_0028-s.png")
    (masks / "mask_0029-s.png").unlink()
    (masks / "mask_0029-s.png").symlink_to("/dev/zero")
    records, notes = read(source)
    assert records == {}
    texts = [f"bus_data.csv: {text}" for text in bad_rows] + [
        "bus_data.csv: row 24, ID: bus_0020-s is already in row 14",
        "bus_data.csv: row 25, Pathology: malignant, but case 21 is benign in row 15",
        "bus_data.csv: row 26, BIRADS: '6' must be one of 2 3 4 5",
        "bus_data.csv: row 26, Width: 'a' must be a whole number",
        "5-fold-cv.csv: ID: has no row for bus_1-l, ",
        "Masks/mask_0020-s.png: is not there, but its image is",
        "Masks/mask_0021-s.png: size: 50 x 40, but the image is 30 x 40",
        "Masks/mask_0022-s.png: values: 96 pixels are neither 0 nor 255",
        "Masks/mask_0023-s.png: outline: not one pixel is marked",
        "Images/bus_0024-s.png: picture: not a whole PNG file",
        f"Images/bus_0025-s.png: file: {bus_bra.LARGEST_PNG + 1} bytes",
        "Images/bus_0026-s.png: size: 2049 x 2, a side has at most 2048",
        "Images/bus_0027-s.png: colours: the picture's mode is RGB",
        "Images/bus_0028-s.png: file: is not a regular file",
        "Masks/mask_0029-s.png: file: is not a regular file",
    ]
    for text in texts:
        assert any(fault.startswith(text) for fault in notes.faults), (text, notes.faults)
    assert len(notes.faults) == len(texts), notes.faults
    assert not any(str(tmp_path) in fault for fault in notes.faults)
    assert notes.dropped == [("the folds official-10", "10-fold-cv.csv is not there")]


def test_files_that_are_no_files(source):
    add(source, *(row(number) for number in range(1, 6)))
    for name, replace in {
        "Images/bus_0001-l.png": lambda path: path.symlink_to("nowhere"),
        "Masks/mask_0002-l.png": lambda path: path.symlink_to("nowhere"),
        "Masks/mask_0003-l.png": os.mkfifo,
        "Images/bus_0004-l.png": lambda path: path.mkdir(),
        "5-fold-cv.csv": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        (source / name).unlink()
        replace(source / name)
    records, notes = read(source)
    assert list(records) == ["bus_0005-l"]
    assert notes.faults == [
        "5-fold-cv.csv: file: is not a regular file; replace the file by the original.",
        "Images/bus_0001-l.png: file: is a link that leads nowhere; replace the file by the original.",
        "Masks/mask_0002-l.png: file: is a link that leads nowhere; replace the file by the original.",
        "Masks/mask_0003-l.png: file: is not a regular file; replace the file by the original.",
        "Images/bus_0004-l.png: file: is not a regular file; replace the file by the original.",
    ]


@pytest.mark.parametrize("value", ["=1+1", "../bus_0001-l", "bus_0001-l\0", "bus_000\u0661-l", "bus_0001-l.png", " "])
def test_names_that_are_no_names(source, value):
    add(source, row(1))
    write_table(source / "bus_data.csv", [row(1, ID=value)])
    records, notes = read(source)
    assert records == {} and notes.faults[0].startswith("bus_data.csv: row 2, ID: ")


@pytest.mark.parametrize("column", ["Histology", "Device"])
@pytest.mark.parametrize("value", ["=HYPERLINK(1)", "@x", "+1", "x\x1by"])
def test_a_text_that_a_spreadsheet_would_run_is_refused(source, column, value):
    add(source, row(1))
    write_table(source / "bus_data.csv", [row(1, **{column: value})])
    assert read(source)[1].faults[0].startswith(f"bus_data.csv: row 2, {column}: ")


def test_a_fault_stops_a_build(source, tmp_path):
    add(source, row(1), row(2, BIRADS=6), row(3))
    os.remove(source / "Masks" / "mask_0003-l.png")
    with pytest.raises(InputError, match=r"(?s)2 faults.*row 3, BIRADS.*mask_0003-l\.png: is not there"):
        builder.build(bus_bra.CARD, lambda notes: bus_bra.read(source, notes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", bus_bra.COLUMNS)
def test_a_missing_column_is_named_at_once(source, column):
    add(source, row(1))
    values = row(1)
    del values[column]
    write_table(source / "bus_data.csv", [values])
    with pytest.raises(InputError, match=rf"bus_data\.csv: row 1: .* no column {column}; replace the file"):
        read(source)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "rows: the table is empty"),
        (",".join(bus_bra.COLUMNS).encode() + b"\n\n", "a header but no case"),
        (",".join((*bus_bra.COLUMNS, "Case")).encode() + b"\n", "two columns Case"),
        (b"PK\x03\x04\xff\xfe", "not a CSV table in UTF-8"),
        (b'ID,Case\n"bus', "not a CSV table in UTF-8"),
        (b"ID\n" + b"x" * (1 << 18), "not a CSV table in UTF-8"),
        (b"\n" * (tables.MOST_ROWS + 1), f"at most {tables.MOST_ROWS}"),
        (b"x" * (tables.LARGEST_CSV + 1), f"at most {tables.LARGEST_CSV}"),
    ],
)
def test_a_file_that_is_no_table(source, content, text):
    add(source, row(1))
    (source / "bus_data.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"bus_data\.csv: .*{text}.*; replace the file by the original"):
        read(source)


def test_a_pipe_in_the_place_of_a_table(source):
    add(source, row(1))
    os.remove(source / "bus_data.csv")
    os.mkfifo(source / "bus_data.csv")
    with pytest.raises(InputError, match="not a regular file"):
        read(source)


def test_rows_that_are_not_like_the_header(source):
    add(source, row(1), row(2))
    table = source / "bus_data.csv"
    lines = table.read_text().splitlines()
    broken = lines[2].replace("fibroadenoma", '"fibro\nadenoma"')
    table.write_bytes(("\ufeff" + "\r\n".join([*lines[:2], "", lines[2] + ",7", broken, "bus_0003-l,3"])).encode())
    records, notes = read(source)
    assert list(records) == ["bus_0001-l"]
    assert notes.faults[:3] == [
        "bus_data.csv: row 4: 11 fields, but the header has 10; mend the row.",
        "bus_data.csv: row 5: a line break in a field; mend the row.",
        "bus_data.csv: row 6: 2 fields, but the header has 10; mend the row.",
    ]


def test_folds_that_do_not_fit_the_table(source):
    rows = whole()
    add(source, *rows)
    folds = fold_rows(rows, 5)
    folds[0]["kFold"], folds[2]["kFold"], folds[5]["kFold"] = "0", "6", "1.5"
    folds[6]["Pathology"] = "malignant"
    folds[9]["kFold"] = 2  # the other image of patient 5 is in fold 1
    folds[11]["ID"] = "bus_0099-l"
    write_table(source / "5-fold-cv.csv", [*folds, folds[19]])
    write_table(source / "10-fold-cv.csv", [{"ID": "bus_0001-l", "Pathology": "benign"}])
    _, notes = read(source)
    assert notes.faults == [
        "5-fold-cv.csv: row 2, kFold: '0' must be a whole number from 1 to 5; correct it after the original.",
        "5-fold-cv.csv: row 4, kFold: '6' must be a whole number from 1 to 5; correct it after the original.",
        "5-fold-cv.csv: row 7, kFold: '1.5' must be a whole number from 1 to 5; correct it after the original.",
        "5-fold-cv.csv: row 8, Pathology: 'malignant', but 'benign' in bus_data.csv; correct it after the original.",
        "5-fold-cv.csv: row 11, kFold: 2, but an image of the same patient (row 10) is in fold 1; "
        "correct it after the original.",
        "5-fold-cv.csv: row 13, ID: 'bus_0099-l' is not in bus_data.csv; correct it after the original.",
        "5-fold-cv.csv: row 22, ID: 'bus_0010-r' is already in row 21; correct it after the original.",
        "5-fold-cv.csv: ID: has no row for bus_0006-r; replace the file by the original.",
        "10-fold-cv.csv: row 1: the table has no column kFold; replace the file by the original.",
    ]


def test_the_publishers_folds_become_those_of_a_run(source, tmp_path, capsys):
    add(source, *whole())
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    main(["build", "bus_bra", "--source", str(source), "--out", str(tmp_path / "out")])
    file = tmp_path / "out" / "bus_bra" / "folds" / "official-5.json"
    printed = capsys.readouterr().out
    assert "20  images  (the whole original has 1875)" in printed
    assert f"the publishers' folds, for --data.split: {file}\n" in printed
    metadata = storage.read_metadata(tmp_path / "out", "bus_bra")
    folds = splits.load_folds(file, "bus_bra", metadata.digest, metadata.entries)
    assert folds.seed is None and folds.test == ()
    for number, cases in enumerate(folds.folds):
        held = [values["ID"] for values in fold_rows(whole(), 5) if values["kFold"] == number + 1]
        assert list(cases) == held and len(held) == 4
    parts = data_source.open_parts(tmp_path / "out", "bus_bra", fold=2, split_file=file)
    assert parts.split["test"] == list(folds.folds[2]) and parts.split["validation"] == list(folds.folds[3])
    ten = data_source.open_parts(tmp_path / "out", "bus_bra", folds=10, split_file=file.with_name("official-10.json"))
    assert len(ten.split["test"]) == 2
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def build(source, tmp_path, **options):
    return builder.build(bus_bra.CARD, lambda notes: bus_bra.read(source, notes), tmp_path / "out", **options)


def test_patients_that_share_an_image_go_to_one_fold(source, tmp_path):
    """Patient 3 is in fold 4 of 5, and patient 7 in fold 3. The group goes to the fold of its first record."""
    add(source, *whole())
    write_picture(source, "Images/bus_0007-r.png", speckle(5))  # which is bus_0003-r
    survey = build(source, tmp_path)
    assert survey.notes.counts["groups joined by equal images"] == 1
    assert survey.notes.counts["records moved to another fold of official-5 for an equal image"] == 2
    metadata = storage.read_metadata(tmp_path / "out", "bus_bra")
    file = splits.folds_folder(tmp_path / "out", "bus_bra") / "official-5.json"
    folds = splits.load_folds(file, "bus_bra", metadata.digest, metadata.entries)
    assert {"bus_0003-l", "bus_0003-r", "bus_0007-l", "bus_0007-r"} < set(folds.folds[3])
    assert folds.made_by["moved, for an equal image"] == "bus_0007-l from 2 to 3, bus_0007-r from 2 to 3"


def test_folds_that_a_part_of_the_images_leaves_empty_are_left_out(source, tmp_path, capsys):
    add(source, *whole())
    for side in "lr":
        os.remove(source / "Images" / f"bus_0004-{side}.png")
    survey = build(source, tmp_path)
    assert list(survey.folds) == ["official-5"]
    assert survey.notes.dropped[-1] == ("the folds official-10", "fold 4: is empty")
    assert os.listdir(splits.folds_folder(tmp_path / "out", "bus_bra")) == ["official-5.json"]


def test_building_again_writes_the_folds_of_the_new_original(source, tmp_path):
    add(source, *whole())
    build(source, tmp_path)
    file = splits.folds_folder(tmp_path / "out", "bus_bra") / "official-5.json"
    first = splits.read_folds(file)
    write_table(source / "5-fold-cv.csv", fold_rows(whole(), 5, {"bus_0001-l": 1, "bus_0001-r": 1}))
    build(source, tmp_path, overwrite=True)
    second = splits.read_folds(file)
    assert first.data == second.data and "bus_0001-l" in first.folds[1] and "bus_0001-l" in second.folds[0]


def test_a_wrong_folder_and_what_to_do(source):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    source.mkdir()
    with pytest.raises(InputError, match=r"there is no Images, no Masks, no bus_data\.csv in it. Unpack"):
        read(source)
    add(source, row(1))
    with pytest.raises(InputError, match=f"It is in {re.escape(str(source))}: give that folder"):
        read(source.parent)
    os.remove(source / "Images" / "bus_0001-l.png")
    with pytest.raises(InputError, match=r"none of the images that bus_data\.csv names"):
        read(source)


def test_the_card_adds_up():
    expected = bus_bra.CARD.expected
    assert expected["benign"] + expected["malignant"] == expected["images"]
    assert expected["cases benign"] + expected["cases malignant"] == expected["cases"]
    assert sum(expected[f"BI-RADS {grade}"] for grade in bus_bra.GRADES) == expected["images"]
    assert set(expected) <= set(bus_bra.COUNTED)
    assert expected["images whose height in the table is wrong"] == len(bus_bra.WRONG_HEIGHT)
