"""The ThyroidXL reader against a made folder of the original's layout."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from data_prep import builder
from data_prep.readers import thyroidxl
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (30, 40)
FOLDERS = [f"{part}/{kind}" for part in ("train", "test") for kind in ("images", "masks")]


def nodule(**changed):
    usual = {
        "Position": "Right lobe",
        "Width": 12.5,
        "Height": 9,
        "Depth": None,
        "TIRADS": 4,
        "FNAC": "Benign",
        "Conclusion": "Benign (FNAC)",
        "Histopathology": None,
    }
    return usual | changed


MALIGNANT = {"Conclusion": "Malignant (Histopathology)", "Histopathology": "Papillary thyroid carcinoma", "FNAC": None}


def patient(name, *nodules, images=1, conclusion=3, **changed):
    """(name, description) of a patient; image k is called name_2201CE11_k.png."""
    described = {f"nodule_{k + 1}": nodules[k] if k < len(nodules) else None for k in range(4)}
    files = [f"{name}_2201CE11_{k}.png" for k in range(images)]
    return name, {"age": 2005, "gender": 2, "conclusion": conclusion, **described, "images": files} | changed


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def outline(size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[8:20, 10:25] = 255
    return mask


def write_picture(source, place, picture, mode="L"):
    Image.fromarray(picture).convert(mode).save(source / place)


def add(source, train=(), test=()):
    """Write the JSON, and a scan and an outline for every image."""
    for folder in (*FOLDERS, "stats"):
        (source / folder).mkdir(parents=True, exist_ok=True)
    seed = 0
    for part, patients in (("train", train), ("test", test)):
        for _, described in patients:
            for image in described["images"] or ():
                write_picture(source, f"{part}/images/{image}", speckle(seed), "RGB")
                write_picture(source, f"{part}/masks/{image}", outline())
                seed += 1
    write_json(source, dict([*train, *test]))


def write_json(source, values):
    (source / "stats" / "id2info_eng.json").write_text(json.dumps(values, indent=1))


def read(source):
    notes = Notes()
    return {record.case: record for record in thyroidxl.read(source, notes)}, notes


@pytest.fixture
def source(tmp_path):
    return tmp_path / "ThyroidXL"


def test_labels_parts_and_counts(source):
    add(
        source,
        [patient("00000058", nodule(), images=2), patient("00000060", nodule(**MALIGNANT, TIRADS="5"), conclusion=1)],
        [patient("00000007", nodule(TIRADS=2, Position=None), images=3)],
    )
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == []
    assert list(records) == [  # the test part comes first
        *(f"00000007_2201CE11_{k}" for k in range(3)),
        "00000058_2201CE11_0",
        "00000058_2201CE11_1",
        "00000060_2201CE11_0",
    ]
    first, second, tested = (records[f"{name}_2201CE11_0"] for name in ("00000058", "00000060", "00000007"))
    assert (first.group, first.grade, first.malignant, first.official_test) == ("00000058", 3, False, False)
    assert (second.grade, second.malignant) == (4, True)
    assert (tested.grade, tested.malignant, tested.official_test) == (1, False, True)
    assert first.source == "train/images/00000058_2201CE11_0.png"
    assert first.descriptors == {"position": "Right lobe", "cytology": "Benign"}
    assert second.descriptors == {"position": "Right lobe", "histology": "Papillary thyroid carcinoma"}
    assert tested.descriptors == {"cytology": "Benign"}
    np.testing.assert_array_equal(first.image, speckle(0))
    np.testing.assert_array_equal(first.mask, outline() == 255)
    expected = {
        "patients listed": 3,
        "images": 6,
        "train images": 3,
        "test images": 3,
        "patients": 3,
        "train patients": 2,
        "test patients": 1,
        "patients malignant by code": 1,
        "patients benign by code": 2,
        "first nodules TI-RADS 2": 1,
        "first nodules TI-RADS 4": 1,
        "first nodules TI-RADS 5": 1,
        "benign": 5,
        "malignant": 1,
    }
    assert {name: count for name, count in notes.counts.items() if count} == expected
    assert list(notes.counts) == list(thyroidxl.COUNTED)


@pytest.mark.parametrize(
    "given, grade",
    [
        (1, 0),
        ("5", 4),
        (" 3 ", 2),
        (4.0, 3),  # as of a column with gaps
        ("4.0", 3),
        *((other, None) for other in (0, 6, "4a", "", None, True, 4.5, "4.00", "٣", [4], "TIRADS 4", 10**4000)),
    ],
)
def test_a_category_is_1_to_5_or_unknown(source, given, grade):
    add(source, [patient("1", nodule(TIRADS=given))])
    records, notes = read(source)
    assert records["1_2201CE11_0"].grade == grade
    counts = ("nodules whose TIRADS is not 1 to 5", "images without category")
    assert [notes.counts[name] for name in counts] == [grade is None] * 2


@pytest.mark.parametrize(
    "grades, grade, differ",
    [((3, 3), 2, 0), ((3, "3", 3, 3), 2, 0), ((3, 4), None, 1), ((3, None), None, 0), ((None, None), None, 0)],
)
def test_nodules_must_agree_in_category(source, grades, grade, differ):
    add(source, [patient("1", *(nodule(TIRADS=value) for value in grades), images=2)])
    records, notes = read(source)
    assert [record.grade for record in records.values()] == [grade] * 2
    assert notes.counts["images of patients with several nodules"] == 2
    assert notes.counts["images whose nodules differ in category"] == 2 * differ
    assert all(record.descriptors == {} for record in records.values())


NO_WORDS = {"FNAC": None, "Conclusion": None, "Histopathology": ""}
CONTRADICTION = "nodules whose words contradict each other"
AGAINST = "patients whose code contradicts the words"


@pytest.mark.parametrize(
    "words, code, malignant, counted",
    [
        ([{}], 3, False, None),
        ([{}], None, False, None),
        ([MALIGNANT], 1, True, None),
        ([{**MALIGNANT, "FNAC": "Benign"}], 1, True, None),  # histology is decisive
        ([{"Conclusion": "  malignant\n(fnac) ", "FNAC": None}], 2, True, None),
        ([{"Conclusion": None, "Histopathology": "Colloid nodule", "FNAC": "Malignant"}], 4, False, None),
        ([{"Conclusion": None, "FNAC": "Malignant"}], None, True, None),
        ([{"Conclusion": None, "Histopathology": "Follicular tumor", "FNAC": "Benign"}], None, None, None),
        ([{"Histopathology": "Papillary thyroid carcinoma"}], 3, None, CONTRADICTION),
        ([{}], 1, None, AGAINST),
        ([NO_WORDS], 1, True, None),
        ([NO_WORDS], "4", False, None),
        ([NO_WORDS], 5, None, None),
        ([NO_WORDS], "3, 4", None, None),
        ([NO_WORDS], True, None, None),
        ([{**NO_WORDS, "FNAC": "Bethesda III"}], None, None, None),
        ([{**NO_WORDS, "FNAC": 2}], None, None, None),
        ([{}, {}], 3, False, None),
        ([{}, MALIGNANT], 1, None, "images whose nodules differ in malignancy"),
        ([MALIGNANT, NO_WORDS], 1, None, None),
        ([NO_WORDS, NO_WORDS], 3, None, None),  # the code is not that of each nodule
        ([], 1, None, None),
    ],
)
def test_malignancy_is_known_only_from_certain_words_and_codes(source, words, code, malignant, counted):
    add(source, [patient("1", *(nodule(**changed) for changed in words), conclusion=code)])
    records, notes = read(source)
    assert notes.faults == [] and records["1_2201CE11_0"].malignant is malignant
    counts = (CONTRADICTION, AGAINST, "images whose nodules differ in malignancy")
    assert [name for name in counts if notes.counts[name]] == ([counted] if counted else [])
    name = {True: "malignant", False: "benign", None: "images without malignancy"}[malignant]
    assert notes.counts[name] == 1


def test_unknown_words_are_listed_with_their_number(source):
    unknown = {"Conclusion": None, "Histopathology": "Thyroiditis", "FNAC": "Benign"}
    add(source, [patient(str(k), nodule(**unknown), conclusion=None) for k in range(3)])
    _, notes = read(source)
    why = "neither benign nor malignant for certain: 3 nodules have no malignancy from it"
    assert ("Histopathology 'Thyroiditis'", why) in notes.dropped


def test_masks_are_cut_above_127_and_may_be_empty(source):
    add(source, [patient("1", nodule(), images=5)])
    mask = outline()
    mask[0, :2] = 127, 128
    write_picture(source, "train/masks/1_2201CE11_0.png", mask, "RGB")
    write_picture(source, "train/masks/1_2201CE11_1.png", outline(), "1")
    write_picture(source, "train/masks/1_2201CE11_2.png", outline() // 3)
    write_picture(source, "train/masks/1_2201CE11_3.png", np.zeros(SIZE, np.uint8))
    write_picture(source, "train/masks/1_2201CE11_4.png", outline() // 255)
    records, notes = read(source)
    assert notes.faults == [] and notes.dropped == [
        ("train/masks/1_2201CE11_2.png", "its largest value is 85; the image is kept without outline"),
        ("train/masks/1_2201CE11_3.png", "not one pixel is marked: it gives no outline"),
    ]
    for count in ("masks that are empty", "masks with no value above 127", "masks of 0 and 1"):
        assert notes.counts[count] == 1
    assert notes.counts["masks with values between 0 and 255, cut at 127"] == 1
    np.testing.assert_array_equal(records["1_2201CE11_4"].mask, outline() == 255)
    assert records["1_2201CE11_3"].mask is None
    np.testing.assert_array_equal(records["1_2201CE11_0"].mask, mask > 127)
    np.testing.assert_array_equal(records["1_2201CE11_1"].mask, outline() == 255)
    assert records["1_2201CE11_2"].mask is None


def test_what_is_not_on_both_sides_is_listed(source):
    without = patient("2", nodule(), images=0)
    without[1]["images"] = None
    add(source, [patient("1", nodule(), images=2), without], [patient("3", nodule())])
    (source / "train/images/1_2201CE11_1.png").unlink()
    write_picture(source, "test/masks/9_2201CE11_0.png", outline())
    (source / "test/images/readme.txt").write_text("")
    records, notes = read(source)
    assert list(records) == ["3_2201CE11_0", "1_2201CE11_0"] and notes.faults == []
    assert notes.dropped == [
        ("1_2201CE11_1.png", "stats/id2info_eng.json names it: it is in neither part"),
        ("test/masks/9_2201CE11_0.png", "stats/id2info_eng.json does not name it"),
    ]
    counts = ["images that are not there", "images without entry", "masks without entry", "patients listed", "patients"]
    assert [notes.counts[name] for name in counts] == [1, 0, 1, 3, 2]


def test_an_image_that_is_not_listed_is_kept_without_labels(source, tmp_path):
    """Its patient is the one of its name; an image of a patient of the other part is left out."""
    add(source, [patient("1", nodule(), nodule())], [patient("3", nodule())])
    for seed, place in enumerate(
        ["test/{}/9_2201CE11_0", "train/{}/9_2201CE11_0", "train/{}/1_2201CE11_7", "train/{}/3_2201CE11_8"], start=20
    ):
        write_picture(source, place.format("images") + ".png", speckle(seed))
        write_picture(source, place.format("masks") + ".png", outline())
    write_picture(source, "train/images/what.png", speckle(9))
    survey = builder.build(thyroidxl.CARD, lambda notes: thyroidxl.read(source, notes), tmp_path / "out")
    _, records = storage.open_records(tmp_path / "out", "thyroidxl")
    assert [
        (record.case, record.group, record.grade, record.malignant, record.official_test) for record in records
    ] == [
        ("3_2201CE11_0", "3", 3, False, True),
        ("9_2201CE11_0", "9", None, None, True),
        ("1_2201CE11_0", "1", 3, False, False),
        ("1_2201CE11_7", "1", None, None, False),
    ]
    assert records[3].descriptors == {} and records[3].mask.sum() == (outline() == 255).sum()
    why = "stats/id2info_eng.json does not name it"
    assert survey.notes.dropped == [
        ("the labels of test/images/9_2201CE11_0.png", why),
        ("the labels of train/images/1_2201CE11_7.png", why),
        ("train/images/3_2201CE11_8.png", f"{why}, and its patient is in test"),
        ("train/images/9_2201CE11_0.png", f"{why}, and its patient is in test"),
        ("train/images/what.png", "its name is not that of an image of a patient"),
    ]
    counts = ["images without entry", "files that do not belong here", "patients", "images without category"]
    assert [survey.notes.counts[name] for name in counts] == [4, 1, 3, 2]
    assert survey.notes.counts["images of patients with several nodules"] == 1


def test_absent_fields_are_unknown_labels_and_an_absent_mask_no_outline(source):
    files = {name: [f"{name}_2201CE11_0.png"] for name in ("1", "2", "3")}
    add(source, [(name, {"images": images}) for name, images in files.items()])
    write_json(
        source,
        {
            "1": {"images": files["1"]},
            "2": {"images": files["2"], "nodule_1": {"TIRADS": 4}},
            "3": {"images": files["3"], "nodule_1": {"Conclusion": "Malignant"}, "conclusion": 1},
        },
    )
    (source / "train/masks/2_2201CE11_0.png").unlink()
    records, notes = read(source)
    assert notes.faults == []
    assert [(record.grade, record.malignant) for record in records.values()] == [(None, None), (3, None), (None, True)]
    assert [record.mask is None for record in records.values()] == [False, True, False]
    why = "is not there; the image is kept without outline"
    assert notes.dropped == [("train/masks/2_2201CE11_0.png", why)]
    counts = ["masks that are not there", "images without category", "images without malignancy"]
    assert [notes.counts[name] for name in counts] == [1, 2, 2]


def test_a_training_image_that_is_in_the_test_part_is_left_out(source, tmp_path):
    add(source, [patient("1", nodule(), images=2)], [patient("3", nodule())])
    write_picture(source, "train/images/1_2201CE11_1.png", speckle(2))  # which is that of patient 3
    survey = builder.build(thyroidxl.CARD, lambda notes: thyroidxl.read(source, notes), tmp_path / "out")
    assert [entry.case for entry in survey.entries] == ["3_2201CE11_0", "1_2201CE11_0"]
    assert survey.notes.counts["images left out as exact copies of a test image"] == 1
    assert survey.notes.dropped[0][0] == "train/images/1_2201CE11_1.png"
    why = "has a copy of 3_2201CE11_0 of the official test part; the patient's other images stay outside it"
    assert ("patient 1", why) in survey.notes.remarks


def test_a_build_comes_back(source, tmp_path):
    add(source, [patient("1", nodule(), images=2), patient("2", nodule(**MALIGNANT), conclusion=1)], [patient("3")])
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    survey = builder.build(thyroidxl.CARD, lambda notes: thyroidxl.read(source, notes), tmp_path / "out")
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    _, records = storage.open_records(tmp_path / "out", "thyroidxl")
    found = [(record.case[0], record.group, record.grade, record.malignant, record.official_test) for record in records]
    assert found == [
        ("3", "3", None, None, True),
        ("1", "1", 3, False, False),
        ("1", "1", 3, False, False),
        ("2", "2", 3, True, False),
    ]
    np.testing.assert_array_equal(records[1].image, speckle(0))
    assert "4  images  (the whole original has 11635)" in builder.summary(thyroidxl.CARD, survey.notes)


def test_a_patient_in_both_parts_stops_a_build(source, tmp_path):
    add(source, [patient("1", nodule(), images=2)], [patient("3", nodule())])
    for kind in ("images", "masks"):
        os.rename(source / f"train/{kind}/1_2201CE11_1.png", source / f"test/{kind}/1_2201CE11_1.png")
    with pytest.raises(InputError, match=r"group '1': 1_2201CE11_1 of the official test part"):
        builder.build(thyroidxl.CARD, lambda notes: thyroidxl.read(source, notes), tmp_path / "out")


def test_all_faulty_pictures_and_patients_are_named_at_once(source):
    add(source, [patient("1", nodule(), images=8)], [patient("3", nodule())])
    images, masks = source / "train/images", source / "train/masks"
    name = "1_2201CE11_{}.png".format
    (masks / name(0)).unlink()
    write_picture(source, f"train/masks/{name(1)}", outline((31, 40)))
    (images / name(2)).write_bytes((images / name(2)).read_bytes()[:300])
    (images / name(3)).unlink()
    os.mkfifo(images / name(3))
    (masks / name(4)).unlink()
    (masks / name(4)).symlink_to("/dev/zero")
    (images / name(5)).write_bytes(b"\0" * ((16 << 20) + 1))
    Image.new("I;16", SIZE[::-1]).save(images / name(6))
    write_picture(source, f"test/images/{name(7)}", speckle(1))
    values = json.loads((source / "stats/id2info_eng.json").read_text())
    values |= {
        "../2": {},
        "4": [],
        "5": {"images": "5_0.png"},
        "6": {"images": [7]},
        "7": {"images": ["8_0.png"]},
        "8": {"images": ["8_../../0.png"]},
        "9": {"images": ["9_0.png"], "nodule_2": "none"},
        "10": {"images": ["10_0.png"], "nodule_1": nodule(), "nodule_5": nodule(**MALIGNANT), "nodule_count": 2},
    }
    write_json(source, values)
    _, notes = read(source)
    assert not any(str(source) in fault for fault in notes.faults)
    texts = [
        "stats/id2info_eng.json: patient '../2': name: must be letters and digits",
        "stats/id2info_eng.json: patient '4': is a list, not a description",
        "stats/id2info_eng.json: patient '5': images: must be a list of file names",
        "stats/id2info_eng.json: patient '6': images: must be a list of file names",
        "stats/id2info_eng.json: patient '7': images: '8_0.png' must be 7_",
        "stats/id2info_eng.json: patient '8': images: '8_../../0.png' must be 8_",
        "stats/id2info_eng.json: patient '9': nodule_2: is a str, not a description",
        "stats/id2info_eng.json: patient '10': nodule_5: the nodules that are known are nodule_1, nodule_2",
        f"{name(7)}: is in test and in train; remove one",
        f"train/masks/{name(1)}: size: 40 x 31, but the image is 40 x 30",
        f"train/images/{name(2)}: picture: not a whole PNG file",
        f"train/images/{name(3)}: file: is not a regular file",
        f"train/masks/{name(4)}: file: is not a regular file",
        f"train/images/{name(5)}: file: 16777217 bytes",
        f"train/images/{name(6)}: colours: the picture's mode is I",
    ]
    assert len(notes.faults) == len(texts), notes.faults
    for text, fault in zip(texts, notes.faults):
        assert fault.startswith(text), (text, fault)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "JSON: cannot be read"),
        (b"{", "JSON: cannot be read"),
        (b"\xff\xfe\xfa", "JSON: cannot be read"),
        (b"[" * 100_000, "JSON: cannot be read"),
        (b'{"1": {"age": ' + b"9" * 5000 + b"}}", "JSON: cannot be read"),
        (b"[]", "JSON: must hold a description"),
        (b"{}", "JSON: must hold a description"),
        (b'{"1": {}, "1": {}}', "JSON: '1' is there twice"),
        (b'{"1": {"images": [], "images": []}}', "JSON: 'images' is there twice"),
    ],
)
def test_a_file_that_is_no_list_of_patients(source, content, text):
    add(source)
    (source / "stats/id2info_eng.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"id2info_eng\.json: {text}.*; replace the file by the original"):
        read(source)


def test_a_json_that_is_too_large_or_no_file(source, monkeypatch):
    add(source)
    file = source / "stats/id2info_eng.json"
    with file.open("wb") as sparse:
        sparse.truncate(thyroidxl.LARGEST_JSON + 1)
    with pytest.raises(InputError, match=f"such a file has at most {64 << 20}"):
        read(source)
    file.unlink()
    with pytest.raises(InputError, match="is not there"):
        read(source)
    os.mkfifo(file)
    with pytest.raises(InputError, match="is not a regular file"):
        read(source)


def test_a_wrong_folder_and_what_to_do(source):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    source.mkdir()
    with pytest.raises(InputError, match=r"there is no test/images, no test/masks, no train/images.*Unpack"):
        read(source)
    add(source, [patient("1", nodule())])
    assert list(read(source.parent)[0]) == ["1_2201CE11_0"]  # the folder above
    inner = source.rename(source.with_name("download"))
    with pytest.raises(InputError, match=f"It is in {re.escape(str(inner))}: give that folder"):
        read(inner.parent)
    (inner / "train/images/1_2201CE11_0.png").unlink()
    with pytest.raises(InputError, match="there is no image of ThyroidXL in it"):
        read(inner)


def test_the_card_adds_up():
    expected = thyroidxl.CARD.expected
    for what in ("images", "patients"):
        assert expected[f"train {what}"] + expected[f"test {what}"] == expected[what]
    assert expected["patients malignant by code"] + expected["patients benign by code"] == expected["patients"]
    assert sum(expected[f"first nodules TI-RADS {grade}"] for grade in thyroidxl.GRADES) == expected["patients"]
    assert all(word == word.lower() for word in thyroidxl.VERDICTS)
