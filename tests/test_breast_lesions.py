"""The BrEaST reader against a made folder that holds every kind of row and every trap of the real one."""

import os
import re
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from data_prep import builder, excel
from data_prep.__main__ import main
from data_prep.readers import breast_lesions as breast
from thyroid_jax.data.record import Notes
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError

SIZE = (40, 60)
FINDINGS = {
    "Tissue_composition": "homogeneous: fat",
    "Shape": "Oval",
    "Margin": "not circumscribed -  angular&indistinct",
    "Echogenicity": "hypoechoic",
    "Posterior_features": "no",
    "Halo": "no",
    "Calcifications": "in a mass",
    "Skin_thickening": "not available",
}
NOTHING = dict.fromkeys(FINDINGS, "not applicable")


def row(number, **changed):
    name = f"case{number:03d}"
    usual = {
        "CaseID": number,
        "Image_filename": f"{name}.png",
        "Mask_tumor_filename": f"{name}_tumor.png",
        "Mask_other_filename": None,
        "Pixel_size": 0.0078125,
        "Age": "not available",
        **FINDINGS,
        "BIRADS": "4a",
        "Verification": "confirmed by biopsy",
        "Diagnosis": "Fibroadenoma",
        "Classification": "benign",
    }
    return usual | changed


def write_table(source, rows, name="clinical-data.xlsx"):
    book = Workbook()
    book.active.append(list(rows[0]))
    for values in rows:
        book.active.append(list(values.values()))
    book.create_sheet("Data Dictionary").append(["type", "description"])
    book.save(source / name)


def write_picture(source, name, colour, alpha=255):
    """``colour`` uint8[h w] or uint8[h w 3]; ``alpha`` a number or uint8[h w]."""
    colour = np.broadcast_to(colour[..., None] if colour.ndim == 2 else colour, (*colour.shape[:2], 3))
    alpha = np.broadcast_to(np.asarray(alpha, np.uint8), colour.shape[:2])
    Image.fromarray(np.dstack([colour, alpha]).astype(np.uint8)).save(source / breast.FOLDER / name)


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def outline(top=10, left=20, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[top : top + 12, left : left + 16] = 255
    return mask


def add(source, *rows, pictures=True):
    """Write the table, and the pictures that it names."""
    (source / breast.FOLDER).mkdir(parents=True, exist_ok=True)
    write_table(source, rows)
    for values in rows if pictures else ():
        write_picture(source, values["Image_filename"], speckle(int(values["CaseID"])))
        if values["Mask_tumor_filename"]:
            mask = outline()
            write_picture(source, values["Mask_tumor_filename"], mask, mask)


def read(source):
    notes = Notes()
    return {record.case: record for record in breast.read(source, notes)}, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "breast"


def test_every_kind_of_row(source):
    add(
        source,
        row(1),
        row(
            2,
            BIRADS=3,
            Verification="confirmed by follow-up care",
            Mask_other_filename="case002_other1.png&case002_other2.png",
        ),
        row(3, BIRADS=5.0, Classification="malignant"),
        row(4, BIRADS=1, Classification="normal", Mask_tumor_filename=None, Verification="not applicable", **NOTHING),
        row(5, BIRADS=" 4C ", Classification="Malignant", Pixel_size="not available"),
        row(6, BIRADS="not available", Mask_tumor_filename=None, Pixel_size="0.01"),
    )
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == [f"case00{number}" for number in range(1, 7)]
    assert [breast.GRADES[r.grade] if r.grade is not None else None for r in records.values()] == [
        "4a",
        "3",
        "5",
        "1",
        "4c",
        None,
    ]
    assert [r.malignant for r in records.values()] == [False, False, True, None, True, False]
    assert [r.mask is None for r in records.values()] == [False, False, False, True, False, True]
    assert records["case001"].descriptors == {
        "tissue_composition": "homogeneous: fat",
        "shape": "oval",
        "margins": "not circumscribed - angular&indistinct",
        "echogenicity": "hypoechoic",
        "posterior_features": "no",
        "halo": "no",
        "calcifications": "in a mass",
    }
    assert records["case004"].descriptors == {}
    assert records["case001"].spacing == (0.078125, 0.078125)
    assert records["case006"].spacing == (0.1, 0.1)
    assert np.isnan(records["case005"].spacing).all()
    assert (records["case002"].group, records["case002"].source) == ("case002", "case002.png")
    np.testing.assert_array_equal(records["case001"].image, speckle(1))
    np.testing.assert_array_equal(records["case001"].mask, outline() == 255)
    expected = {
        "cases": 6,
        "cases whose image is not there": 0,
        "images": 6,
        "images without row": 0,
        "images with outline": 4,
        "images without outline, kept for their labels": 2,
        "images with category": 5,
        "images without pixel size": 1,
        "images with transparent parts": 0,
        "benign": 3,
        "malignant": 2,
        "normal": 1,
        "confirmed by biopsy": 4,
        "confirmed by follow-up care": 1,
        "other outlines left out": 2,
    }
    assert notes.counts == expected
    assert list(notes.counts) == list(expected)


def test_a_tinted_scan_becomes_its_luma(source):
    add(source, row(1))
    write_picture(source, "case001.png", speckle(1)[..., None] + np.array([0, 10, 28], np.uint8))
    expected = speckle(1) + 0.587 * 10 + 0.114 * 28
    np.testing.assert_allclose(read(source)[0]["case001"].image, expected, atol=0.51)


def test_what_is_transparent_is_black(source):
    add(source, row(1))
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[:, 50:] = 0
    grey = speckle(1)
    grey[:, 59] = 255  # the line that hides there in some scans
    write_picture(source, "case001.png", grey, alpha)
    records, notes = read(source)
    np.testing.assert_array_equal(records["case001"].image, np.where(alpha, speckle(1), 0))
    assert notes.counts["images with transparent parts"] == 1


def test_a_mask_is_white_and_not_transparent(source):
    add(source, row(1))
    alpha = outline()
    alpha[10, 20] = 75  # as in case010
    alpha[21] = 0
    write_picture(source, "case001_tumor.png", outline(), alpha)
    expected = outline() == 255
    expected[21] = False
    np.testing.assert_array_equal(read(source)[0]["case001"].mask, expected)


def test_several_outlines_of_one_scan_are_united(source):
    add(source, row(1), row(2, Mask_tumor_filename="case001_tumor.png&case002_tumor.png"), pictures=False)
    for number in (1, 2):
        write_picture(source, f"case00{number}.png", speckle(number))
        write_picture(source, f"case00{number}_tumor.png", outline(left=20 * number))
    np.testing.assert_array_equal(read(source)[0]["case002"].mask, (outline(left=20) | outline(left=40)) == 255)


def test_what_is_not_on_both_sides_is_left_out(source):
    add(source, row(1), row(2), row(3))
    (source / breast.FOLDER / "case002.png").unlink()
    (source / breast.FOLDER / "case003.png").rename(source / breast.FOLDER / "case004.png")
    records, notes = read(source)
    assert list(records) == ["case001"] and notes.faults == []
    assert notes.dropped == [
        ("case002.png", "row 3 of the table names it, but it is not there"),
        ("case003.png", "row 4 of the table names it, but it is not there"),
        ("case004.png", "the table has no row for it"),
    ]
    assert notes.counts["cases whose image is not there"] == 2
    assert notes.counts["images without row"] == 1
    assert notes.counts["images"] == 1


def test_all_faulty_rows_and_pictures_are_named_at_once(source, tmp_path):
    add(
        source,
        row(1),
        row(2),
        row(3),
        row(4),
        row(5),
        row(6, BIRADS="4d"),
        row(7, Classification="suspicious"),
        row(8, Classification=None),
        row(9, Classification="normal"),
        row(10, Pixel_size=-0.0078),
        row(11, Pixel_size=0.78),
        row(12, Pixel_size="small"),
        row(13, Pixel_size="nan"),
        row(13, Image_filename="case014.png"),
        row(15, Image_filename="case001.png"),
        row(16),
        row(17),
        row(18),
        row(19),
        row(20),
    )
    folder = source / breast.FOLDER
    (folder / "case002_tumor.png").unlink()
    write_picture(source, "case003_tumor.png", outline(size=(40, 50)))
    write_picture(source, "case004_tumor.png", outline() // 2)
    write_picture(source, "case005_tumor.png", outline()[..., None] * np.array([0, 1, 0], np.uint8))
    write_picture(source, "case016_tumor.png", np.zeros(SIZE, np.uint8))
    (folder / "case017.png").write_bytes((folder / "case017.png").read_bytes()[:900])
    (folder / "case018.png").write_bytes(b"\0" * (breast.LARGEST_PNG + 1))
    Image.new("L", (breast.LARGEST_SIDE + 1, 2)).save(folder / "case019.png")
    Image.fromarray(speckle(20).astype(np.uint16)).save(folder / "case020.png")
    records, notes = read(source)
    assert list(records) == ["case001"]
    assert notes.counts["images"] == 1
    texts = {
        "clinical-data.xlsx: row 3, Mask_tumor_filename: ": "case002_tumor.png is not there; copy it",
        "case003_tumor.png: size: ": "50 x 40, but the image is 60 x 40",
        "case004_tumor.png: values: ": "192 pixels are neither 0 nor 255",
        "case005_tumor.png: values: ": "192 pixels are neither 0 nor 255",
        "clinical-data.xlsx: row 7, BIRADS: ": "unknown value '4d', known are 1 2 3 4a 4b 4c 5",
        "clinical-data.xlsx: row 8, Classification: ": "unknown value 'suspicious', known are benign malignant normal",
        "clinical-data.xlsx: row 9, Classification: ": "is empty",
        "clinical-data.xlsx: row 10, Mask_tumor_filename: ": "but Classification is normal",
        "clinical-data.xlsx: row 11, Pixel_size: ": "-0.0078 is not a pixel's size in centimetres",
        "clinical-data.xlsx: row 12, Pixel_size: ": "0.78 is not a pixel's size in centimetres",
        "clinical-data.xlsx: row 13, Pixel_size: ": "'small' is not a number",
        "clinical-data.xlsx: row 14, Pixel_size: ": "nan is not a pixel's size",
        "clinical-data.xlsx: row 15, CaseID: ": "'13' is already in row 14",
        "clinical-data.xlsx: row 16, Image_filename: ": "'case001.png' is already in row 2",
        "case016_tumor.png: outline: ": "not one pixel is marked",
        "case017.png: picture: ": "not a whole PNG file",
        "case018.png: file: ": f"at most {breast.LARGEST_PNG}",
        "case019.png: size: ": f"at most {breast.LARGEST_SIDE}",
        "case020.png: colours: ": "mode is I;16",
    }
    for start, text in texts.items():
        assert any(fault.startswith(start) and text in fault for fault in notes.faults), (start, notes.faults)
    assert len(notes.faults) == len(texts)
    assert not any(str(tmp_path) in fault for fault in notes.faults)


def test_a_huge_image_is_refused_before_it_is_decoded(source, monkeypatch):
    add(source, row(1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    _, notes = read(source)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("case001.png: picture: not a whole PNG file")


@pytest.mark.parametrize(
    "column, value",
    [
        ("Image_filename", "../../secret.png"),
        ("Image_filename", "/etc/passwd"),
        ("Image_filename", "case001.png&case002.png"),
        ("Image_filename", None),
        ("Mask_tumor_filename", "..\\case001_tumor.png"),
        ("Mask_tumor_filename", "case001_tumor.png&"),
        ("Mask_other_filename", "case001_other1.png,case001_other2.png"),
        ("Image_filename", "=1+1"),
        ("Image_filename", "=case001.png"),
        ("Image_filename", "..png"),
        ("CaseID", "one"),
        ("CaseID", "../1"),
        ("CaseID", "\u0661"),
        ("Shape", "=HYPERLINK(1)"),
        ("Verification", "x" * 161),
        ("CaseID", None),
    ],
)
def test_names_that_are_no_names(source, column, value):
    add(source, row(1))
    write_table(source, [row(1, **{column: value})])
    records, notes = read(source)
    assert records == {}
    assert len(notes.faults) == 1 and notes.faults[0].startswith(f"clinical-data.xlsx: row 2, {column}: ")


@pytest.mark.parametrize("column", breast.COLUMNS)
def test_a_missing_column_is_named_at_once(source, column):
    values = row(1)
    del values[column]
    (source / breast.FOLDER).mkdir(parents=True)
    write_table(source, [values])
    with pytest.raises(InputError, match=rf"clinical-data\.xlsx: row 1: .* no column {column}; replace the file"):
        read(source)


def test_a_column_that_is_there_twice(source):
    add(source, row(1))
    write_table(source, [row(1) | {" BIRADS ": 5}])
    with pytest.raises(InputError, match="two columns BIRADS"):
        read(source)


def test_rows_without_anything_are_no_cases(source):
    add(source, row(1))
    write_table(source, [row(1), dict.fromkeys(row(1)), row(2)])
    _, notes = read(source)
    assert notes.counts["cases"] == 2
    assert notes.dropped == [("case002.png", "row 4 of the table names it, but it is not there")]


def test_a_table_without_rows(source):
    add(source, row(1))
    write_table(source, [dict.fromkeys(row(1))])
    with pytest.raises(InputError, match="a header but no case"):
        read(source)


def test_too_many_rows(source, monkeypatch):
    add(source, row(1), row(2))
    monkeypatch.setattr(excel, "MOST_ROWS", 3)
    assert len(read(source)[0]) == 2
    monkeypatch.setattr(excel, "MOST_ROWS", 2)
    with pytest.raises(InputError, match="more than 2"):
        read(source)


def table_with(source, name, content):
    """Add a part to the table, or put ``content`` in the place of one that is there."""
    table = source / "clinical-data.xlsx"
    with zipfile.ZipFile(table) as old:
        parts = {part: old.read(part) for part in old.namelist()} | {name: content}
    with zipfile.ZipFile(table, "w", zipfile.ZIP_DEFLATED) as new:
        for part, held in parts.items():
            new.writestr(part, held)


def test_rows_beyond_the_declared_dimension_are_read(source):
    add(source, row(1), row(2), row(3))
    part = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(source / "clinical-data.xlsx") as table:
        sheet = table.read(part).decode()
    declared = re.search(r'<dimension ref="([^"]+)"', sheet)
    table_with(source, part, sheet.replace(declared[1], declared[1][:-1] + "2"))
    records, notes = read(source)
    assert list(records) == ["case001", "case002", "case003"] and notes.counts["cases"] == 3


def test_files_that_are_no_files(source):
    add(source, *(row(number) for number in range(1, 5)))
    for name, replace in {
        "case001.png": lambda path: path.symlink_to("nowhere"),
        "case002_tumor.png": os.mkfifo,
        "case003.png": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        (source / breast.FOLDER / name).unlink()
        replace(source / breast.FOLDER / name)
    records, notes = read(source)
    assert list(records) == ["case004"]
    assert notes.faults == [
        "case001.png: file: is a link that leads nowhere; replace the file by the original.",
        "case002_tumor.png: file: is not a regular file; replace the file by the original.",
        "case003.png: file: is not a regular file; replace the file by the original.",
    ]


def test_a_pipe_in_the_place_of_the_table(source):
    add(source, row(1))
    (source / "clinical-data.xlsx").unlink()
    os.mkfifo(source / "clinical-data.xlsx")
    with pytest.raises(InputError, match="not a regular file"):
        read(source)


def test_a_sheet_of_empty_cells(source):
    add(source, row(1))
    table_with(source, "xl/worksheets/sheet1.xml", EMPTY_CELLS)
    with pytest.raises(InputError, match="empty"):
        read(source)


EMPTY_CELLS = (
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    b'<row r="1"><c r="A1"/></row><row r="4000"><c r="B4000"/></row></sheetData></worksheet>'
)
LAUGHS = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><worksheet>&b;</worksheet>'
BOMB = b"<worksheet>" + b" " * excel.LARGEST_PART + b"</worksheet>"


@pytest.mark.parametrize(
    "part, content, text",
    [
        ("xl/worksheets/sheet1.xml", BOMB, f"{len(BOMB)} bytes when unpacked"),
        ("unused.bin", BOMB, f"unused.bin: {len(BOMB)} bytes when unpacked"),
        ("xl/worksheets/sheet1.xml", LAUGHS.encode(), "sheet1.xml: declares a document type or entities"),
        ("xl/sharedStrings.xml", LAUGHS.encode("utf-16"), "sharedStrings.xml: declares a document type or entities"),
        ("xl/worksheets/sheet1.xml", b"<worksheet>", "not a whole Excel table"),
        ("xl/worksheets/sheet1.xml", b'<worksheet xmlns="x"/>', "first sheet is empty"),
        ("xl/workbook.xml", b"nothing", "not a whole Excel table"),
    ],
)
def test_a_table_that_is_not_to_be_trusted(source, part, content, text):
    add(source, row(1))
    table_with(source, part, content)
    assert (source / "clinical-data.xlsx").stat().st_size < excel.LARGEST_TABLE
    with pytest.raises(InputError, match=text):
        read(source)


@pytest.mark.parametrize("checksum_fits", [False, True])
def test_a_part_that_unpacks_to_more_than_it_declares(source, checksum_fits):
    add(source, row(1))
    bomb = b" " * (96 << 20)
    table_with(source, "unused.xml", bomb)
    table = source / "clinical-data.xlsx"
    content = table.read_bytes().replace(len(bomb).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    if checksum_fits:
        content = content.replace(zlib.crc32(bomb).to_bytes(4, "little"), zlib.crc32(bomb[:9]).to_bytes(4, "little"))
    table.write_bytes(content)
    with zipfile.ZipFile(table) as parts:
        assert parts.getinfo("unused.xml").file_size == 9
    tracemalloc.start()
    if checksum_fits:
        assert list(read(source)[0]) == ["case001"]
    else:
        with pytest.raises(InputError, match="not a whole Excel table"):
            read(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


def test_a_table_of_many_parts(source):
    add(source, row(1))
    with zipfile.ZipFile(source / "clinical-data.xlsx", "a") as table:
        for number in range(excel.MOST_PARTS):
            table.writestr(f"{number}.xml", "<a/>")
    with pytest.raises(InputError, match=f"a table has at most {excel.MOST_PARTS}"):
        read(source)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"CaseID;Image_filename\n1;case001.png\n", "not a whole Excel table"),
        (b"", "not a whole Excel table"),
        (b"PK" + b"\0" * excel.LARGEST_TABLE, f"at most {excel.LARGEST_TABLE}"),
    ],
)
def test_a_file_that_is_no_table(source, content, text):
    add(source, row(1))
    (source / "clinical-data.xlsx").write_bytes(content)
    with pytest.raises(InputError, match=rf"clinical-data\.xlsx: file: .*{text}.*; replace the file by the original"):
        read(source)


def test_half_a_table(source):
    add(source, row(1))
    table = source / "clinical-data.xlsx"
    table.write_bytes(table.read_bytes()[:-400])
    with pytest.raises(InputError, match="not a whole Excel table"):
        read(source)


def test_a_folder_in_the_place_of_the_table(source):
    add(source, row(1))
    (source / "clinical-data.xlsx").unlink()
    (source / "clinical-data.xlsx").mkdir()
    with pytest.raises(InputError, match="is not a regular file"):
        read(source)


def test_a_wrong_folder_and_what_to_do(source):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    source.mkdir()
    with pytest.raises(InputError, match=f"there is no {breast.FOLDER} in it. Unpack"):
        read(source)
    add(source, row(1))
    with pytest.raises(InputError, match=f"It is in {re.escape(str(source))}: give that folder"):
        read(source.parent)
    with pytest.raises(InputError, match="give the folder above"):
        read(source / breast.FOLDER)
    write_table(source, [row(1)], name="copy.xlsx")
    with pytest.raises(InputError, match=r"must hold one table \(\.xlsx\), found clinical-data\.xlsx copy\.xlsx\."):
        read(source)
    (source / "copy.xlsx").rename(source / "~$clinical-data.xlsx")
    assert list(read(source)[0]) == ["case001"]
    (source / "clinical-data.xlsx").unlink()
    with pytest.raises(InputError, match="found none"):
        read(source)


def test_a_folder_without_any_image(source):
    add(source, row(1), row(2), pictures=False)
    with pytest.raises(InputError, match=r"none of the images that clinical-data\.xlsx names"):
        read(source)


def test_the_command_builds_it(source, tmp_path, capsys):
    add(
        source,
        row(1),
        row(2, BIRADS=1, Classification="normal", Mask_tumor_filename=None, **NOTHING),
        row(3, BIRADS=5, Classification="malignant"),
    )
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    main(["build", "breast_lesions", "--source", str(source), "--out", str(tmp_path / "out")])
    assert "3  cases  (the whole original has 256)" in capsys.readouterr().out
    card, records = open_records(tmp_path / "out", "breast_lesions")
    assert card == breast.CARD
    direct = read(source)[0]
    assert [record.case for record in records] == list(direct)
    for record in records:
        same = direct[record.case]
        np.testing.assert_array_equal(record.image, same.image)
        assert (record.mask is None) == (same.mask is None) and (same.mask is None or (record.mask == same.mask).all())
        assert (record.grade, record.malignant, record.spacing) == (same.grade, same.malignant, same.spacing)
        assert record.descriptors == same.descriptors
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_a_fault_stops_a_build(source, tmp_path):
    add(source, row(1), row(2, BIRADS=6), row(3))
    os.remove(source / breast.FOLDER / "case003_tumor.png")
    with pytest.raises(InputError, match=r"(?s)2 faults.*row 3, BIRADS.*row 4, Mask_tumor_filename"):
        builder.build(breast.CARD, lambda notes: breast.read(source, notes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_adds_up():
    expected = breast.CARD.expected
    assert expected["benign"] + expected["malignant"] == expected["images with outline"]
    assert expected["images with outline"] + expected["normal"] == expected["images"] == expected["cases"]
    assert set(expected) <= set(breast.COUNTED)
