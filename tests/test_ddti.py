"""The DDTI reader against a made folder that holds every trap of the real one."""

import json
import os
import re
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from data_prep import builder, cleaning, scan
from data_prep.readers import ddti
from thyroid_jax.data.record import Notes
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError

BOX = [(200, 100), (300, 100), (300, 200), (200, 200)]
OTHER = [(330, 120), (400, 120), (400, 180), (330, 180)]


def shape(points, kind="freehand"):
    return {"points": [{"x": x, "y": y} for x, y in points], "annotation": {}, "regionType": kind}


def screen(seed, size=(560, 360), text="TIRADS 5 (4C)"):
    page = np.zeros((size[1], size[0]), np.uint8)
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=page.shape), (1, 2))
    page[8:310, 87:472] = np.clip(80 + 160 * noise, 12, 150).astype(np.uint8)[8:310, 87:472]
    page[170:290, 0:16] = 200
    image = Image.fromarray(page).convert("RGB")
    pen = ImageDraw.Draw(image)
    pen.text((200, 330), text, fill="white")
    return image


def report(number, tirads="4a", marks=None, extra="<margins>ill- defined</margins>"):
    marks = [("1", [shape(BOX)])] if marks is None else marks
    body = "".join(
        f"<mark><image>{k}</image><svg>{s if isinstance(s, str) else json.dumps(s)}</svg></mark>" for k, s in marks
    )
    return f"<case><number>{number}</number>{extra}<tirads>{tirads}</tirads>{body}</case>"


def add(folder, number, images=(1,), same_as=None, **fields):
    folder.mkdir(exist_ok=True)
    (folder / f"{number}.xml").write_text(report(number, **fields))
    for k in images:
        screen(same_as or 100 * number + k).save(folder / f"{number}_{k}.jpg", quality=95)


def read(folder):
    notes = Notes()
    records = {record.case: record for record in ddti.read(folder, notes)}
    return records, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "ddti"


def cut(points, length):
    return json.dumps([shape(points)])[:length]


def test_every_trap_at_once(source):
    many = [(200 + 100 * np.cos(t), 150 + 60 * np.sin(t)) for t in np.linspace(0, 6, 120)]
    text = json.dumps([shape([(round(x), round(y)) for x, y in many])])
    spelt = "<margins>ill- defined</margins><calcifications>\n  micro\u0063alcification </calcifications>"
    add(source, 1, extra=f"{spelt}<composition></composition>")
    add(source, 2, marks=[("1", text[:2000])], tirads="")
    add(source, 3, marks=[("1", "")], tirads="4C ")
    add(source, 4, marks=[("1", [shape(BOX[:2], "arrow")])], tirads="")
    add(source, 5, marks=[("1", [shape(BOX), shape(OTHER)])], tirads="5")
    add(source, 6, marks=[("1", [shape([(200, 100), (300, 100), (300, 500), (200, 500)])])], tirads="2")
    add(source, 7, images=(1, 2), marks=[("1", [shape(BOX), shape(BOX[:2], "arrow")])], tirads="3")
    screen(999).save(source / "8_1.jpg")
    records, notes = read(source)

    assert notes.faults == []
    assert sorted(records) == ["1_1", "2_1", "3_1", "5_1", "6_1", "7_1", "7_2"]
    assert records["1_1"].descriptors == {"margins": "ill defined", "calcifications": "microcalcifications"}
    assert [records[c].grade for c in sorted(records)] == [2, None, 4, 5, 0, 1, 1]
    assert [records[c].malignant for c in sorted(records)] == [True, None, True, True, False, False, False]
    assert records["2_1"].mask.sum() > 8000
    assert records["3_1"].mask is None and records["7_2"].mask is None
    assert records["5_1"].mask.sum() == pytest.approx(100 * 100 + 70 * 60, rel=0.05)
    assert records["6_1"].mask[-1].any() and records["6_1"].mask.shape == records["6_1"].image.shape
    assert records["1_1"].group == "1" and records["7_2"].group == "7"
    assert np.isnan(records["1_1"].spacing).all()
    expected = {
        "cases": 7,
        "images": 9,
        "images with outline": 5,
        "images with outline and category": 4,
        "images with two outlines": 1,
        "arrows dropped": 2,
        "marks empty": 1,
        "marks cut short, whole points kept": 1,
        "outlines clipped": 1,
        "images without mark": 1,
        "images without report": 1,
    }
    assert {name: notes.counts[name] for name in expected} == expected
    assert {what for what, _ in notes.dropped} == {"4_1.jpg", "8_1.jpg"}


def test_the_crop_holds_the_scan_and_nothing_else(source):
    add(source, 1)
    image = read(source)[0]["1_1"].image
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image.shape, (296, 379), atol=3)
    assert image.min() >= 5 and image.max() < 190


def test_callipers_are_filled_in(source):
    add(source, 1)
    path = source / "1_1.jpg"
    image = Image.open(path)
    pen = ImageDraw.Draw(image)
    pen.line((250, 146, 250, 154), fill=(60, 220, 220))
    pen.line((246, 150, 254, 150), fill=(60, 220, 220))
    pen.line((300, 200, 308, 208), fill=(180, 180, 180))
    pen.line((308, 200, 300, 208), fill=(180, 180, 180))
    image.save(path, quality=95)
    records, notes = read(source)
    assert notes.counts["images with callipers filled in"] == 1
    left, top = 90, 11
    assert records["1_1"].image[148 - top : 153 - top, 248 - left : 253 - left].max() < 150
    crosses = scan.drawn_marks(records["1_1"].image, cleaning.CALLIPERS, alike=0.56)
    assert not crosses.any()


def test_the_mask_lies_where_it_was_drawn(source):
    add(source, 1)
    mask = read(source)[0]["1_1"].mask
    rows, columns = np.nonzero(mask)
    np.testing.assert_allclose(
        [rows.min(), rows.max(), columns.min(), columns.max()], [100 - 11, 200 - 11, 200 - 90, 300 - 90], atol=3
    )


LAUGHS = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><case><tirads>&b;</tirads></case>'


def test_all_faulty_files_are_named_at_once(source, tmp_path):
    add(source, 1)
    add(source, 2)
    (source / "2_1.jpg").write_bytes((source / "2_1.jpg").read_bytes()[:9000])
    add(source, 3, tirads="4x")
    add(source, 4, images=())
    add(source, 5)
    (source / "5.xml").write_text(LAUGHS)
    add(source, 6)
    (source / "6.xml").write_text("<case><number>6</number>" + " " * (ddti.LARGEST_XML + 1) + "</case>")
    add(source, 7)
    (source / "7.xml").write_text("<case><number>7</case>")
    add(source, 8)
    screen(1, size=(800, 600)).save(source / "8_1.jpg")
    add(source, 9, marks=[("1", "nothing to see")])
    add(source, 10, marks=[("1", [{"points": 3}])])
    add(source, 11, marks=[("../../1", [shape(BOX)])])
    add(source, 12)
    Image.new("RGB", (560, 360)).save(source / "12_1.jpg")
    add(source, 13, marks=[("1", '[{"points": [{"x": 1e400, "y": 2}, {"x": 1, "y": 2}, {"x": 3, "y": 2}]}]')])
    add(source, 14)
    (source / "14_1.jpg").write_text("not an image")
    add(source, 15, marks=[("1", '{"points": 1}')])
    add(source, 16, marks=[("1", "[" * 100000)])
    (source / "17.xml").write_bytes(b"\xff\xfe\x00case")
    records, notes = read(source)
    assert "1_1" in records
    texts = {
        "2_1.jpg": "image: not a whole JPEG",
        "3.xml": "tirads: unknown category '4x', known are 2 3 4a 4b 4c 5",
        "4.xml": "mark: image 1 is marked, but 4_1.jpg is not there",
        "5.xml": "document type or entities",
        "6.xml": "at most 1048576",
        "7.xml": "not well-formed",
        "8_1.jpg": "800 x 600, but outlines are drawn on 560 x 360",
        "9.xml": "no point can be read",
        "10.xml": "not a list of shapes",
        "11.xml": "is not an image number",
        "12_1.jpg": "no ultrasound scan",
        "13.xml": "not a usable number",
        "14_1.jpg": "not a whole JPEG",
        "15.xml": "not a list of shapes",
        "16.xml": "svg",
        "17.xml": "not well-formed",
    }
    for name, text in texts.items():
        assert any(fault.startswith(f"{name}: ") and text in fault for fault in notes.faults), (name, notes.faults)
    assert len(notes.faults) == len(texts)
    assert not any(str(tmp_path) in fault for fault in notes.faults)


def test_a_huge_image_is_refused_before_it_is_decoded(source, monkeypatch):
    add(source, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    _, notes = read(source)
    assert len(notes.faults) == 1 and "not a whole JPEG file" in notes.faults[0]


def test_an_outline_outside_the_scan_is_no_mask(source):
    add(source, 1, marks=[("1", [shape([(10, 320), (60, 320), (60, 350), (10, 350)])])])
    add(source, 2)
    records, notes = read(source)
    assert records["1_1"].mask is None
    assert ("an outline of 1_1.jpg", "it lies outside the scan") in notes.dropped


def test_every_outline_that_is_lost_is_noted(source):
    """One in the text below the scan, one outside the image, and one in the scan."""
    below = [(10, 320), (60, 320), (60, 350), (10, 350)]
    beyond = [(900, 900), (950, 900), (950, 950)]
    add(source, 1, marks=[("1", [shape(BOX), shape(below), shape(beyond)])])
    records, notes = read(source)
    assert records["1_1"].mask.sum() == 101 * 101
    assert notes.dropped == [("an outline of 1_1.jpg", "it lies outside the scan")] * 2
    assert (notes.counts["outlines"], notes.counts["outlines outside the scan dropped"]) == (1, 2)


def test_what_is_left_of_176_1_is_no_reference(source):
    whole = json.dumps([shape(BOX + OTHER)])
    add(source, 176, marks=[("1", whole[:-60])], tirads="4b")
    add(source, 177, marks=[("1", whole[:-60])], tirads="4b")
    records, notes = read(source)
    assert records["176_1"].mask is None and records["176_1"].grade == ddti.GRADES.index("4b")
    assert records["177_1"].mask is not None
    assert [what for what, _ in notes.dropped] == ["the outline of 176_1.jpg"]
    assert notes.counts["images without outline, kept for their category"] == 1


def test_a_text_that_is_damaged_before_its_end_is_a_fault(source):
    whole = json.dumps([shape(BOX)])
    add(source, 1, marks=[("1", whole.replace('"x": 300', '"x": 3#0', 1))])
    add(source, 2, marks=[("1", whole.replace('"annotation"', 'annotation" ' + "?" * 300))])
    records, notes = read(source)
    assert all(record.mask is None for record in records.values())
    assert [fault.partition(":")[0] for fault in notes.faults] == ["1.xml", "2.xml"]


@pytest.mark.parametrize("lost", range(1, 60))
def test_a_text_that_is_cut_anywhere_keeps_its_whole_points(lost):
    text = json.dumps([shape(BOX[:2], "arrow"), shape(BOX)])[:-lost]
    notes = Notes()
    shapes = ddti._shapes(text, notes)
    whole = len(re.findall(r'\{"x": [0-9]+, "y": [0-9]+\}', text)) - 2
    assert notes.counts["marks cut short, whole points kept"] == 1
    assert [kind for kind, _ in shapes] == ["arrow", ""] and 3 <= whole <= 4
    np.testing.assert_array_equal(shapes[1][1], BOX[:whole])


def test_too_many_points_are_refused_at_once(source):
    many = [(200 + k % 90, 100 + k % 77) for k in range(45_000)]
    compact = json.dumps([{"points": [{"x": x, "y": y} for x, y in many]}], separators=(",", ":"))
    add(source, 1, marks=[("1", compact)])
    add(source, 2, marks=[("1", [shape(BOX)] * (ddti.MOST_SHAPES + 1))])
    add(source, 3, marks=[("1", [shape(many[:3000])]), ("1", [shape(many[:3000])])])
    add(source, 4, marks=[("1", [shape(many[: ddti.MOST_POINTS])])])
    assert (source / "1.xml").stat().st_size < ddti.LARGEST_XML
    start = time.monotonic()
    _, notes = read(source)
    assert time.monotonic() - start < 10
    assert notes.faults == [
        f"{n}.xml: svg of image {n}_1.jpg: an image has at most 64 shapes and 5000 points; "
        "replace the file by the original."
        for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "value", ["9" * 400, "9" * 5000, "-1e400", "NaN", "1e300", "true", "null", '"5"', "[" * 400 + "]" * 400]
)
def test_a_coordinate_that_is_none(source, value):
    points = f'[{{"x": {value}, "y": 2}}, {{"x": 1, "y": 2}}, {{"x": 3, "y": 2}}]'
    add(source, 1, marks=[("1", f'[{{"points": {points}, "regionType": {"[" * 300 + "]" * 300}}}]')])
    _, notes = read(source)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("1.xml: svg of image 1_1.jpg: ")
    assert len(notes.faults[0]) < 300


@pytest.mark.parametrize("text", ["[" * 100_000, '{"points": ' * 50_000, "[" * 900 + "]" * 900])
def test_lists_in_lists_are_no_shapes(source, text):
    add(source, 1, marks=[("1", text)])
    _, notes = read(source)
    assert len(notes.faults) == 1 and "1.xml: svg of image 1_1.jpg: not a list of shapes" in notes.faults[0]


def test_only_regular_files_are_opened(source):
    for number in range(1, 8):
        add(source, number)
    for name, replace in {
        "1.xml": lambda path: path.symlink_to("/dev/zero"),
        "2.xml": os.mkfifo,
        "3.xml": lambda path: path.symlink_to("nowhere"),
        "4_1.jpg": lambda path: path.symlink_to("/dev/zero"),
        "5_1.jpg": os.mkfifo,
        "6_1.jpg": lambda path: path.symlink_to("nowhere"),
    }.items():
        (source / name).unlink()
        replace(source / name)
    records, notes = read(source)
    assert list(records) == ["7_1"]
    no_file, no_end = "is not a regular file", "is a link that leads nowhere"
    assert notes.faults == [
        f"{name}: file: {what}; replace the file by the original."
        for name, what in {
            "1.xml": no_file,
            "2.xml": no_file,
            "3.xml": no_end,
            "4_1.jpg": no_file,
            "5_1.jpg": no_file,
            "6_1.jpg": no_end,
        }.items()
    ]


def test_two_files_of_one_number_are_a_fault(source):
    add(source, 1)
    (source / "01.xml").write_text(report(1))
    screen(7).save(source / "01_1.jpg")
    screen(8).save(source / "1_1.JPEG")
    _, notes = read(source)
    assert notes.faults == [
        "1.xml: is the report of case 1, and so is 01.xml; keep the file of the original alone.",
        "1_1.JPEG: is image 1 of case 1, and so is 01_1.jpg; keep the file of the original alone.",
        "1_1.jpg: is image 1 of case 1, and so is 01_1.jpg; keep the file of the original alone.",
    ]


def test_the_report_of_another_case_is_a_fault(source):
    add(source, 1)
    add(source, 2)
    (source / "2.xml").write_text(report(3))
    add(source, 4)
    (source / "4.xml").write_text("<case><tirads>2</tirads></case>")
    records, notes = read(source)
    assert list(records) == ["1_1"]
    assert notes.faults == [
        "2.xml: number: '3', but this is the report of case 2; replace the file by the original.",
        "4.xml: number: '', but this is the report of case 4; replace the file by the original.",
    ]


def test_names_of_other_alphabets_and_files_are_noted(source):
    add(source, 1)
    (source / "\u0663.xml").write_text(report(3))
    (source / "Thumbs.db").write_bytes(b"")
    records, notes = read(source)
    assert list(records) == ["1_1"] and notes.faults == []
    why = "is called neither N.xml nor N_k.jpg"
    assert notes.dropped == [("Thumbs.db", why), ("\u0663.xml", why)] and notes.counts["other files"] == 2


def test_a_descriptor_is_short(source):
    add(source, 1, extra=f"<margins>{'x' * 81}</margins>")
    _, notes = read(source)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("1.xml: margins: 'xxx")


def stamped(path, drawing, left, top=19):
    """Draw an orientation mark into an image, as the machine does."""
    with Image.open(path) as image:
        page = np.array(image.convert("L"))
    inked = drawing > 0
    page[top : top + 10, left : left + 9][inked] = drawing[inked]
    Image.fromarray(page).convert("RGB").save(path, quality=95)
    return page


def test_the_orientation_marks_are_filled_in(source):
    """A bright one beside tissue as bright, and the faint one of the other view, which alone is none."""
    add(source, 1)
    add(source, 2)
    with Image.open(source / "1_1.jpg") as image:
        page = np.array(image.convert("L"))
    page[15:40, 240:280] = np.clip(page[15:40, 240:280].astype(int) + 110, 0, 255)
    Image.fromarray(page).convert("RGB").save(source / "1_1.jpg", quality=95)
    stamped(source / "1_1.jpg", ddti.ORIENTATION, 248)
    stamped(source / "1_1.jpg", ddti.FAINT, 440)
    before = stamped(source / "2_1.jpg", ddti.FAINT, 440)
    records, _ = read(source)
    for case, left, is_left in (("1_1", 248, False), ("1_1", 440, False), ("2_1", 440, True)):
        drawing = ddti.FAINT if left == 440 else ddti.ORIENTATION
        patch = records[case].image[19 - 11 : 29 - 11, left - 90 : left - 90 + 9].astype(int)
        rest = np.abs(patch - drawing)[drawing > 0].mean()
        assert (rest < 12) == is_left, (case, left, rest)
    far = before[100:200, 300:400]
    assert np.abs(records["2_1"].image[100 - 11 : 200 - 11, 300 - 90 : 400 - 90].astype(int) - far).mean() < 6


def test_outlines_are_filled_as_by_scikit_image():
    draw = pytest.importorskip("skimage.draw")
    rng = np.random.default_rng(0)
    for _ in range(300):
        points = rng.integers(-6, 36, (rng.integers(3, 12), 2)).astype(float)
        filled = np.zeros((30, 25), bool)
        filled[draw.polygon(points[:, 1], points[:, 0], filled.shape)] = True
        np.testing.assert_array_equal(ddti.enclosed(points, filled.shape), filled, err_msg=str(points))
    assert not ddti.enclosed(points + 1e6, (30, 25)).any()


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_a_wrong_folder(source, make):
    make(source)
    with pytest.raises(InputError, match=r"no such folder|not a DDTI folder"):
        read(source)


def test_the_folder_above_is_recognised(source):
    add(source, 1)
    with pytest.raises(InputError, match="give that folder"):
        read(source.parent)


def test_no_outline_at_all(source):
    add(source, 1, marks=())
    with pytest.raises(InputError, match="no image has a usable outline"):
        read(source)


def test_the_card_adds_up():
    categories = [ddti.CARD.expected[f"images with outline, category {grade}"] for grade in ddti.GRADES]
    assert sum(categories) == ddti.CARD.expected["images with outline and category"]
    assert categories == [42, 19, 96, 78, 67, 45]
    assert set(ddti.CARD.expected) - {"cases", "images"} <= set(ddti.COUNTED)


def test_a_build_and_what_comes_back(source, tmp_path):
    add(source, 1)
    add(source, 2, same_as=101, marks=[("1", "")], tirads="2")
    add(source, 3, images=(1, 2))
    survey = builder.build(ddti.CARD, lambda notes: ddti.read(source, notes), tmp_path / "out")
    _, stored = open_records(tmp_path / "out", "ddti")
    direct, _ = read(source)
    assert [record.case for record in stored] == list(direct) == ["1_1", "2_1", "3_1", "3_2"]
    assert [record.group for record in stored] == ["1", "1", "3", "3"]
    for record in stored:
        same = direct[record.case]
        np.testing.assert_array_equal(record.image, same.image)
        assert (record.mask is None) == (same.mask is None) and (same.mask is None or (record.mask == same.mask).all())
        assert (record.grade, record.malignant) == (same.grade, same.malignant)
    assert survey.notes.counts["groups joined by equal images"] == 1
