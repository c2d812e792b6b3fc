"""The DDTI reader against a made folder that holds every trap of the real one."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from data_prep.readers import ddti
from thyroid_jax.data.record import Notes
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
    crosses = ddti.scan.drawn_marks(records["1_1"].image, ddti.CALLIPERS, alike=0.56)
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
    assert ("the outline of 1_1.jpg", "it lies outside the scan") in notes.dropped


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
