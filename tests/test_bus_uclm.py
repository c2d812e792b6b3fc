"""The BUS-UCLM reader against a made folder of the original's layout."""

import os
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from data_prep import builder, tables
from data_prep.readers import bus_uclm
from data_prep.reading import in_order
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (40, 30)  # height and width
HEADER = "Image;Resolution;Label;Doppler;Marks;Combined"


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def coloured(*boxes, size=SIZE):
    """A mask: (colour, top row) of boxes of 6 x 8 pixels on black."""
    mask = np.zeros((*size, 3), np.uint8)
    for colour, top in boxes:
        mask[top : top + 6, 8:16] = colour
    return mask


def box(*tops):
    mask = np.zeros(SIZE, bool)
    for top in tops:
        mask[top : top + 6, 8:16] = True
    return mask


def write_picture(root, place, picture, mode="RGB"):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(root / place)


def add(root, rows):
    """Write {name: (label, mask, "doppler;marks;combined")} with a table and a scan for each."""
    for number, (name, (_, mask, _)) in enumerate(rows.items()):
        write_picture(root, f"images/{name}.png", speckle(number))
        write_picture(root, f"masks/{name}.png", mask)
    write_table(root, *(f"{name}.png;30x40;{label};{kinds}" for name, (label, _, kinds) in rows.items()))


def write_table(root, *lines, header=HEADER):
    (root / bus_uclm.TABLE).write_text("\r\n".join([header, *lines, ""]))


def read(source):
    notes = Notes()
    return {record.case: record for record in bus_uclm.read(source, notes)}, notes


ROWS = {
    "ANFO_005": ("Benign", coloured((bus_uclm.GREEN, 3)), "No;No;No"),
    "ANFO_006": ("Normal", coloured(), "Yes;No;Yes"),
    "COPE_000": ("Malignant", coloured((bus_uclm.RED, 3), (bus_uclm.RED, 20)), "No;Yes;No"),
}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "download" / "BUS-UCLM"
    add(root, ROWS)
    return root


def test_labels_and_counts(root):
    records, notes = read(root)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == list(ROWS)
    assert [record.group for record in records.values()] == ["ANFO", "ANFO", "COPE"]
    assert [record.malignant for record in records.values()] == [False, None, True]
    assert records["ANFO_006"].descriptors == {"class": "normal", "doppler": "yes", "marks": "no", "combined": "yes"}
    assert records["COPE_000"].descriptors == {"class": "malignant", "doppler": "no", "marks": "yes", "combined": "no"}
    np.testing.assert_array_equal(records["ANFO_005"].image, speckle(0))
    np.testing.assert_array_equal(records["ANFO_005"].mask, box(3))
    np.testing.assert_array_equal(records["COPE_000"].mask, box(3, 20))
    assert records["ANFO_006"].mask is None
    expected = {
        "rows": 3,
        "images that are not there": 0,
        "images without row": 0,
        "masks without row": 0,
        "images": 3,
        "patients": 2,
        "normal": 1,
        "benign": 1,
        "malignant": 1,
        "images with doppler": 1,
        "images with marks": 1,
        "images with combined": 1,
        "images with lesions of both kinds": 0,
        "masks with stray colours": 0,
        "masks with too many stray colours left out": 0,
        "masks that contradict the table left out": 0,
        "masks that are empty": 0,
        "masks that mark all corners and over half of the picture": 0,
        "masks of another size left out": 0,
    }
    assert notes.counts == expected and list(notes.counts) == list(expected)


@pytest.mark.parametrize("label", ["Benign", "Malignant"])
def test_lesions_of_both_kinds_make_a_scan_malignant(root, label):
    add(root, {"ANFO_001": (label, coloured((bus_uclm.RED, 3), (bus_uclm.GREEN, 20)), "No;No;No")})
    records, notes = read(root)
    assert records["ANFO_001"].malignant is True and notes.faults == []
    assert records["ANFO_001"].descriptors["class"] == label.lower()
    np.testing.assert_array_equal(records["ANFO_001"].mask, box(3, 20))
    assert notes.counts["images with lesions of both kinds"] == 1


def test_a_few_red_pixels_of_a_green_lesion_make_nothing_malignant(root):
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[2:-2, 2:-2] = bus_uclm.GREEN
    mask[2, 2:4] = bus_uclm.RED
    assert mask[..., 0].astype(bool).sum() == 2 < 0.01 * mask.any(-1).sum()
    add(root, {"ANFO_001": ("Benign", mask, "No;No;No")})
    records, notes = read(root)
    assert records["ANFO_001"].malignant is False and notes.counts["images with lesions of both kinds"] == 0


@pytest.mark.parametrize(
    "label, boxes, count, why",
    [
        (
            "Benign",
            [(bus_uclm.RED, 3)],
            bus_uclm.CONFLICT,
            "all lesions are red, but INFO.csv has Label Benign in row 2",
        ),
        ("Malignant", [(bus_uclm.GREEN, 3)], bus_uclm.CONFLICT, "all lesions are green, but INFO.csv has Label Malig"),
        ("Normal", [(bus_uclm.GREEN, 3)], bus_uclm.CONFLICT, "48 pixels are marked, but INFO.csv has Label Normal"),
        ("Normal", [(bus_uclm.RED, 3)], bus_uclm.CONFLICT, "48 pixels are marked, but INFO.csv has Label Normal"),
        ("Benign", [], "masks that are empty", "not one pixel is marked: it gives no outline"),
        ("Malignant", [], "masks that are empty", "not one pixel is marked: it gives no outline"),
        (
            "Benign",
            [((0, 0, 255), 3)],
            bus_uclm.TOO_STRAY,
            "48 pixels are neither black, green nor red, beside 0 green",
        ),
        ("Benign", [(bus_uclm.RED, 3), ((255, 255, 0), 20)], bus_uclm.TOO_STRAY, "48 pixels are neither"),
        ("Normal", [((0, 128, 0), 3)], bus_uclm.TOO_STRAY, "48 pixels are neither"),
    ],
)
def test_a_mask_that_contradicts_its_row_is_not_used(root, label, boxes, count, why):
    """The image is kept with the label of the table."""
    add(root, {"ANFO_001": (label, coloured(*boxes), "No;No;No")})
    records, notes = read(root)
    assert notes.faults == [] and records["ANFO_001"].mask is None
    assert records["ANFO_001"].malignant is bus_uclm.MALIGNANT[label.lower()]
    assert records["ANFO_001"].descriptors["class"] == label.lower()
    assert notes.dropped[0][0] == "masks/ANFO_001.png" and notes.dropped[0][1].startswith(why)
    others = (bus_uclm.CONFLICT, bus_uclm.TOO_STRAY, bus_uclm.STRAY, bus_uclm.BOTH, "masks that are empty")
    assert [name for name in others if notes.counts[name]] == [count] and notes.counts[count] == 1


@pytest.mark.parametrize("rows, most", [(20, 6), (2, 1)])  # 1 % of 600 pixels; 0.1 % of the picture's 1200
def test_a_few_stray_pixels_are_not_marked_and_counted(root, rows, most):
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[:rows, :] = bus_uclm.GREEN
    mask[rows, :most] = (0, 128, 0)
    add(root, {"ANFO_001": ("Benign", mask, "No;No;No")})
    records, notes = read(root)
    assert records["ANFO_001"].mask.sum() == 30 * rows and not records["ANFO_001"].mask[rows].any()
    assert notes.counts["masks with stray colours"] == 1 and notes.counts[bus_uclm.TOO_STRAY] == 0
    mask[rows, most] = (0, 128, 0)
    add(root, {"ANFO_001": ("Benign", mask, "No;No;No")})
    records, notes = read(root)
    assert records["ANFO_001"].mask is None and notes.counts[bus_uclm.TOO_STRAY] == 1
    assert ("masks/ANFO_001.png", f"{most + 1} pixels are neither") == (
        notes.dropped[0][0],
        notes.dropped[0][1].partition(" black")[0],
    )


def test_notes_do_not_depend_on_the_number_of_threads(root, monkeypatch):
    """Row 1 is noted by its record, and row 6 because its image is not there."""
    wide = coloured((bus_uclm.RED, 3), size=(40, 50))
    rows = {f"HESN_{number:03}": ("Malignant", coloured((bus_uclm.RED, 3)), "No;No;No") for number in range(1, 10)}
    add(root, rows | {"HESN_001": ("Malignant", wide, "No;No;No")})
    os.remove(root / "images" / "HESN_006.png")
    dropped = []
    for threads in (1, 4):
        monkeypatch.setattr(bus_uclm, "in_order", partial(in_order, threads=threads))
        dropped.append(read(root)[1].dropped)
    assert dropped[0] == dropped[1]
    assert [what for what, _ in dropped[0]][:2] == ["images/HESN_006.png", "masks/HESN_001.png"]


def test_masks_of_the_patient_with_another_size_are_left_out(root):
    wide = coloured((bus_uclm.RED, 3), size=(40, 50))
    add(root, {"HESN_001": ("Malignant", wide, "No;No;No"), "ANFO_001": ("Malignant", wide, "No;No;No")})
    records, notes = read(root)
    assert list(records) == ["HESN_001"]
    assert records["HESN_001"].mask is None and records["HESN_001"].malignant is True
    why = "size: 50 x 40, but the image is 30 x 40; the image is kept without outline"
    assert ("masks/HESN_001.png", why) in notes.dropped
    assert notes.counts["masks of another size left out"] == 1
    assert notes.faults == [
        "masks/ANFO_001.png: size: 50 x 40, but the image is 30 x 40; replace the file by the original."
    ]


def test_colour_doppler_becomes_luma(root):
    picture = np.repeat(speckle(9)[..., None], 3, axis=-1)
    picture[4, 5] = (255, 0, 0)
    write_picture(root, "images/ANFO_006.png", picture)
    image = read(root)[0]["ANFO_006"].image
    assert image[4, 5] == 76 and (image != speckle(9)).sum() == 1


def test_masks_of_other_modes_are_the_same(root):
    for mode in ("P", "RGBA"):
        write_picture(root, "masks/COPE_000.png", ROWS["COPE_000"][1], mode)
        np.testing.assert_array_equal(read(root)[0]["COPE_000"].mask, box(3, 20))


def test_what_is_transparent_in_a_mask_is_not_marked(root):
    alpha = np.where(box(3), 255, 0).astype(np.uint8)
    green = np.full((*alpha.shape, 3), bus_uclm.GREEN, np.uint8)  # also where nothing of it is seen
    write_picture(root, "masks/ANFO_005.png", np.dstack([green, alpha]), "RGBA")
    np.testing.assert_array_equal(read(root)[0]["ANFO_005"].mask, box(3))


def test_a_mask_that_is_inside_out_is_left_out(root):
    write_picture(root, "masks/ANFO_005.png", np.uint8(bus_uclm.GREEN) * ~box(3)[..., None])
    records, notes = read(root)
    assert records["ANFO_005"].mask is None and records["ANFO_005"].malignant is False
    assert notes.counts["masks that mark all corners and over half of the picture"] == 1


def test_letters_of_either_case_are_one_patient(root):
    add(root, {name.lower() if name == "ANFO_006" else name: row for name, row in ROWS.items()})
    assert [record.group for record in read(root)[0].values()] == ["ANFO", "ANFO", "COPE"]


def test_what_is_not_on_both_sides_is_listed(root):
    os.remove(root / "images" / "ANFO_006.png")
    write_picture(root, "images/ZZZZ_001.png", speckle(9))
    write_picture(root, "masks/ZZZZ_002.png", coloured())
    records, notes = read(root)
    assert list(records) == ["ANFO_005", "COPE_000"] and notes.faults == []
    assert notes.dropped == [
        ("images/ANFO_006.png", "row 3 of INFO.csv names it: it is not there"),
        ("images/ZZZZ_001.png", "INFO.csv has no row for it"),
        ("masks/ZZZZ_002.png", "INFO.csv has no row for it"),
    ]
    assert list(notes.counts.values())[:6] == [3, 1, 1, 1, 2, 2]


def test_all_faulty_rows_and_pictures_are_named_at_once(root, tmp_path):
    bad = {
        "row 2, Image: '../a_1' must be a name such as ANFO_005.png": "../a_1;;Benign;No;No;No",
        "row 3, Label: 'Bening' must be Normal, Benign or Malignant": "ABCD_001.png;;Bening;No;No;No",
        "row 4, Label: '' must be": "ABCD_002.png;;;No;No;No",
        "row 5, Doppler: 'maybe' must be Yes or No": "ABCD_003.png;;Benign;maybe;No;No",
        "row 6, Marks: '' must be Yes or No": "ABCD_004.png;;Benign;No;;No",
        "row 7, Combined: '1' must be Yes or No": "ABCD_005.png;;Benign;No;No;1",
        "row 9, Image: ABCD_006 is already in row 8": "ABCD_006.png;;Benign;No;No;No\nABCD_006;;Benign;No;No;No",
    }
    good = [f"ABCD_{number:03}.png;;Benign;No;No;No" for number in range(10, 15)]
    write_table(root, *bad.values(), "ABCD_007.png;;Benign;No;No", *good)
    for name in ("ABCD_006", *(line[:8] for line in good)):
        write_picture(root, f"images/{name}.png", speckle(1))
        write_picture(root, f"masks/{name}.png", coloured((bus_uclm.GREEN, 3)))
    os.remove(root / "masks" / "ABCD_010.png")
    write_picture(root, "masks/ABCD_011.png", coloured((bus_uclm.GREEN, 3)), "L")
    (root / "images" / "ABCD_012.png").write_bytes((root / "images" / "ABCD_012.png").read_bytes()[:300])
    os.remove(root / "images" / "ABCD_013.png")
    os.mkfifo(root / "images" / "ABCD_013.png")
    os.remove(root / "masks" / "ABCD_014.png")
    os.symlink("/dev/zero", root / "masks" / "ABCD_014.png")
    records, notes = read(root)
    assert list(records) == ["ABCD_006"]
    texts = [
        "INFO.csv: row 10: 5 fields, but the header has 6",
        *(f"INFO.csv: {text}" for text in bad),
        "masks/ABCD_010.png: file: is not there",
        "masks/ABCD_011.png: colours: the picture's mode is L",
        "images/ABCD_012.png: picture: not a whole PNG file",
        "images/ABCD_013.png: file: is not a regular file",
        "masks/ABCD_014.png: file: is not a regular file",
    ]
    assert len(notes.faults) == len(texts), notes.faults
    for fault, text in zip(notes.faults, texts):
        assert fault.startswith(text)
    assert not any(str(tmp_path) in fault for fault in notes.faults)


@pytest.mark.parametrize("column", bus_uclm.COLUMNS)
def test_a_missing_column_is_named_at_once(root, column):
    write_table(root, "a;b;c;d;e;f", header=HEADER.replace(column, "Other"))
    with pytest.raises(InputError, match=rf"INFO\.csv: row 1: the table has no column {column}; replace the file"):
        read(root)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "rows: the table is empty"),
        (HEADER.encode() + b"\n", "a header but no case"),
        (b"PK\x03\x04\xff\xfe", "not a CSV table in UTF-8"),
        (b"x" * (tables.LARGEST_CSV + 1), f"at most {tables.LARGEST_CSV}"),
    ],
)
def test_a_file_that_is_no_table(root, content, text):
    (root / bus_uclm.TABLE).write_bytes(content)
    with pytest.raises(InputError, match=rf"INFO\.csv: .*{text}.*; replace the file by the original"):
        read(root)


def test_a_wrong_folder_and_what_to_do(root, tmp_path):
    assert list(read(root.parent)[0]) == list(ROWS)
    with pytest.raises(InputError, match=r"no such folder\. Give the folder of BUS-UCLM"):
        read(tmp_path / "nothing")
    with pytest.raises(InputError, match=f"no images, no masks, .* It is in {re.escape(str(root))}: give that folder"):
        read(tmp_path)
    for name in ROWS:
        os.remove(root / "images" / f"{name}.png")
    with pytest.raises(InputError, match=r"none of the images that INFO\.csv names"):
        read(root)
    os.remove(root / bus_uclm.TABLE)
    with pytest.raises(InputError, match=r"there is no INFO\.csv in it\. Unpack BUS-UCLM"):
        read(root)


def test_a_build_and_back(root, tmp_path):
    survey = builder.build(bus_uclm.CARD, lambda notes: bus_uclm.read(root, notes), tmp_path / "out")
    assert survey.notes.counts["records"] == 3 and survey.notes.counts["groups"] == 2
    card, records = storage.open_records(tmp_path / "out", "bus_uclm")
    assert card == bus_uclm.CARD
    assert [(record.case, record.group, record.malignant) for record in records] == [
        ("ANFO_005", "ANFO", False),
        ("ANFO_006", "ANFO", None),
        ("COPE_000", "COPE", True),
    ]
    np.testing.assert_array_equal(records[2].mask, box(3, 20))
    assert records[1].mask is None


def test_the_card_adds_up():
    expected = bus_uclm.CARD.expected
    assert sum(expected[label] for label in bus_uclm.MALIGNANT) == expected["images"] == expected["rows"]
    assert set(expected) <= set(bus_uclm.COUNTED)
