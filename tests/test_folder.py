"""Data sets from anyone's own folder: layouts, masks, labels of folders, faults, and the command."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main
from data_prep.folder import layout, masks
from data_prep.folder.options import Options
from data_prep.folder.planning import plan_of
from data_prep.folder.read import records
from data_prep.folder.report import summary
from thyroid_jax.data import storage
from thyroid_jax.data.formats import Labels
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (24, 32)  # height and width


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def box(top=5, left=6, size=SIZE, value=255):
    """A mask of 8 x 10 pixels."""
    mask = np.zeros(size, np.uint8)
    mask[top : top + 8, left : left + 10] = value
    return mask


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        picture = Image.fromarray(pixels)
        (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def add(source, *names):
    """A picture for each name: an outline where the name says mask, label or reader, speckle elsewhere."""
    for number, name in enumerate(names):
        words = ("mask", "label", "reader", "gt", "seg", "annot", "tumor", "truth")
        is_mask = any(word in name.lower() for word in words) and "images" not in name
        save(source / name, box() if is_mask else speckle(number))


def write(source, name, document):
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def plan(source, **options):
    return plan_of(Options(source=source, name="mine", **options))


def read(source, **options):
    """Records by case, notes and remarks of a folder."""
    notes, remarks = Notes(), layout.Remarks()
    planned = plan(source, **options)
    found = {record.case: record for record in records(planned, notes, remarks)}
    return found, notes, planned.layout.remarks.found | remarks.found


def command(capsys, *arguments):
    """What the command prints, and the message of an error ("" without one)."""
    code = 0
    try:
        main(["build", "folder", *map(str, arguments)])
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr()
    assert (code == 2) == bool(said.err) and code in (0, 2)
    return said.out, said.err


LAYOUTS = {
    "two folders": (["images/x.png", "masks/x.png"], ["x"]),
    "other words": (["Imgs/x.jpg", "GroundTruth/x.bmp"], ["x"]),
    "ground truth": (["image/x.png", "Ground Truth/x.png"], ["x"]),
    "capitals": (["IMAGES/X.PNG", "Masks/x.png"], ["X"]),
    "folder of masks only": (["scans of 2020/x.png", "scans of 2020/masks/x.png"], ["scans of 2020/x"]),
    "original and gt": (["original/000001.png", "GT/000001.png"], ["000001"]),
    "mask after the name": (["images/x.png", "masks/x_mask.png"], ["x"]),
    "tumor": (["x.png", "x_tumor.png"], ["x"]),
    "dash": (["x.png", "x-mask.png"], ["x"]),
    "seg": (["x.png", "x_seg.png"], ["x"]),
    "gt": (["x.png", "x_gt.tif"], ["x"]),
    "label": (["x.png", "x_label.png"], ["x"]),
    "segmentation": (["x.png", "x_Segmentation.png"], ["x"]),
    "mask before the name": (["x.png", "mask_x.png"], ["x"]),
    "another first word": (["Images/bus_0001-l.png", "Masks/mask_0001-l.png"], ["bus_0001-l"]),
    "splits inside": (["train/images/x.png", "train/masks/x.png"], ["train/x"]),
    "splits below": (["images/train/x.png", "labels/train/x.png"], ["train/x"]),
    "splits in the name": (["train-image/x.jpg", "train-mask/x.png"], ["x"]),
    "classes only beside the images": (["images/benign/x.png", "masks/x.png"], ["benign/x"]),
    "nnU-Net": (["imagesTr/x_0000.png", "labelsTr/x.png"], ["x"]),
    "one name in two folders": (
        ["a/images/x.png", "a/masks/x.png", "b/images/x.png", "b/masks/x.png"],
        ["a/x", "b/x"],
    ),
    "one name in two folders of images": (
        ["train-image/x.png", "train-mask/x.png", "test-image/x.png", "test-mask/x.png"],
        ["test-image/x", "train-image/x"],
    ),
    "all in a folder called like masks": (["segmentation/x.png", "segmentation/x_mask.png"], ["segmentation/x"]),
    "a word more before": (["images/x.png", "nodule_masks/x.png"], ["x"]),
    "a word more after": (["images/x.png", "masks_png/x.png"], ["x"]),
    "a word more and a space": (["images/x.png", "Binary masks/x.png"], ["x"]),
    "by hand": (["images/x.png", "manual_seg/x.png"], ["x"]),
    "annotations": (["images/x.png", "annotations_png/x.png"], ["x"]),
    "labels": (["images/x.png", "thyroid_labels/x.png"], ["x"]),
    "both in one folder": (
        ["USG-images_and_masks/x.png", "USG-images_and_masks/x_mask.png"],
        ["USG-images_and_masks/x"],
    ),
    "with masks": (["set_with_GT/benign/x.png", "set_with_GT/benign/x_mask.png"], ["set_with_GT/benign/x"]),
    "a dot": (["x.png", "x.mask.png"], ["x"]),
    "nothing but the word": (["P1/image.png", "P1/mask.png"], ["P1/image"]),
    "nothing but another word": (["P1/us.png", "P1/Ground Truth.png"], ["P1/us"]),
    "an image's name is a word and a number": (["images/seg_1.png", "masks/seg_1.png"], ["seg_1"]),
    "the same without folders": (["seg_1.png", "seg_1_mask.png"], ["seg_1"]),
    "one letter in two ways": (["images/Mu\u0308ller.png", "masks/M\u00fcller.png"], ["M\u00fcller"]),
    "patients called like readers": (["images/r1/x.png", "masks/r1/x.png"], ["r1/x"]),
    "words in an image's name": (["images/a_tumor.png", "masks/a_tumor.png"], ["a_tumor"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    files, cases = LAYOUTS[name]
    for number, file in enumerate(files):
        is_mask = number % 2 == 1
        save(tmp_path / file, box() if is_mask else speckle(number))
    found, notes, _ = read(tmp_path)
    assert notes.faults == [] and list(found) == cases
    for record in found.values():
        np.testing.assert_array_equal(record.mask, box() == 255)
        if not record.source.endswith("jpg"):
            np.testing.assert_array_equal(record.image, speckle(files.index(record.source)))
    assert notes.counts["images with outline"] == len(cases)


def test_what_is_official(tmp_path):
    add(tmp_path, "train/images/a.png", "val/images/b.png", "test/images/c.png")
    add(tmp_path, "imagesTr/d_0000.png", "imagesTs/e_0000.png", "labelsTs/e.png", "imagesTr/d_0001.png")
    found, notes, _ = read(tmp_path)
    assert {case for case, record in found.items() if record.official_test} == {"test/c", "e"}
    assert found["e"].mask.any() and found["d"].mask is None
    assert notes.counts["images of the official test part"] == 2
    assert notes.dropped == [("imagesTr/d_0001.png", "is a further channel of nnU-Net; only _0000 is read")]
    assert "1 of a validation folder go into the folds" in summary(plan(tmp_path), notes, layout.Remarks())


def test_folders_of_the_test_part_under_other_names(tmp_path):
    tests = ("test2017/a.png", "external_test/b.png", "Test set 2/c.png", "testset/d.png", "external test images/e.png")
    others = ("train2017/f.png", "val2017/g.png", "hospital test B/h.png", "contest/i.png")
    add(tmp_path, *tests, *others, "external test masks/e.png")
    found, notes, remarks = read(tmp_path)
    assert notes.faults == [] and {record.source for record in found.values() if record.official_test} == set(tests)
    assert [record.case for record in found.values() if record.mask is not None] == ["e"]
    assert remarks["folders that say test beside other words are no test part; rename them test"] == ["hospital test b"]


def test_several_masks_are_united(tmp_path):
    add(tmp_path, "x.png", "y.png")
    save(tmp_path / "x_mask.png", box())
    save(tmp_path / "x_mask_1.png", box(14, 20))
    save(tmp_path / "y_mask.png", np.zeros(SIZE, np.uint8))
    found, notes, _ = read(tmp_path)
    np.testing.assert_array_equal(found["x"].mask, (box() | box(14, 20)) == 255)
    assert found["y"].mask is None
    assert notes.counts["images with several masks, united"] == 1
    assert notes.counts["images whose mask is empty"] == 1 and notes.counts["images without mask"] == 0


@pytest.mark.parametrize(
    "names",
    [
        ("masks_reader10/x.png", "masks_reader2/x.png", "masks_reader1/x.png"),
        ("masks/reader10/x.png", "masks/reader2/x.png", "masks/reader1/x.png"),
        ("masks/r10/x.png", "masks/r2/x.png", "masks/r1/x.png"),
        ("x_mask_r10.png", "x_mask_r2.png", "x_mask_r1.png"),
        ("x_reader10.png", "x_reader2.png", "x_reader1.png"),
        ("x_annotator10.png", "x_annotator2.png", "x_annotator1.png"),
        ("annotator_10/x.png", "annotator_2/x.png", "annotator_1/x.png"),
    ],
)
def test_masks_of_several_readers(tmp_path, names):
    third, second, first = names
    save(tmp_path / ("images/x.png" if "/" in first else "x.png"), speckle(0))
    save(tmp_path / first, box(5))
    save(tmp_path / second, box(7))
    save(tmp_path / third, box(9))
    found, notes, _ = read(tmp_path)
    assert notes.faults == []
    for mask, top in zip(found["x"].reader_masks, (5, 7, 9), strict=True):
        np.testing.assert_array_equal(mask, box(top) == 255)
    np.testing.assert_array_equal(found["x"].mask, box(7) == 255)
    assert notes.counts["images outlined by several readers"] == 1


def test_images_that_only_some_readers_labelled_are_named(tmp_path):
    add(tmp_path, "images/a.png", "images/b.png", "images/c.png", "images/d.png")
    for name in ("masks_reader1/a.png", "masks_reader2/a.png", "masks_reader2/b.png", "masks/c.png"):
        save(tmp_path / name, box(7))
    (tmp_path / "t.csv").write_text("image,grade_r1,grade_r2\na,2,3\nc,,3\nd,,\n")
    _, notes, remarks = read(tmp_path)
    said = [places for text, places in remarks.items() if "only some of the readers" in text]
    assert notes.faults == [] and said == [["images/b.png", "images/c.png"]]
    (tmp_path / "masks_reader2/b.png").unlink()
    (tmp_path / "t.csv").unlink()
    assert not [text for text in read(tmp_path)[2] if "only some of the readers" in text]


def test_majority_and_reference(tmp_path):
    add(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    for name, mask in {
        "masks_reader1/a.png": box(5),
        "masks_reader2/a.png": box(7),
        "masks_reader1/b.png": box(2),
        "masks_reader2/b.png": box(14),
        "masks_reader1/c.png": box(2),
        "masks_reader2/c.png": box(2),
        "masks/c.png": box(9),
    }.items():
        save(tmp_path / name, mask)
    found, notes, _ = read(tmp_path)
    np.testing.assert_array_equal(found["a"].mask, (box(5) & box(7)) == 255)  # a tie counts as outside
    assert found["b"].mask is None and len(found["b"].reader_masks) == 2
    np.testing.assert_array_equal(found["c"].mask, box(9) == 255)
    assert len(found["c"].reader_masks) == 2
    assert notes.counts["images whose mask is empty"] == 1


def test_masks_of_unnamed_readers_are_not_united(tmp_path):
    add(tmp_path, "images/x.png", "masks/anna/x.png", "masks/bob/x.png")
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1 and "another mask in masks/anna" in notes.faults[0]


def test_patients_called_like_readers_have_no_readers(tmp_path):
    add(tmp_path, "images/r1/x.png", "images/r2/x.png", "masks/r1/x.png", "masks/r2/x.png")
    found, notes, _ = read(tmp_path)
    assert notes.faults == [] and [record.reader_masks for record in found.values()] == [(), ()]
    assert list(found) == ["r1/x", "r2/x"] and all(record.mask.sum() == 80 for record in found.values())


def test_a_bare_mask_needs_one_image_beside_it(tmp_path):
    add(tmp_path, "P1/a.png", "P1/b.png", "P1/mask.png", "P2/a.png", "P2/mask.png", "P2/mask_2.png")
    found, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("P1/mask.png: is a mask without image")
    assert list(found) == ["P1/a", "P1/b", "P2/a"] and found["P2/a"].mask.sum() == 80


def test_a_folder_of_the_same_names_beside_the_images(tmp_path):
    """Its pictures would be records: masks with grey texture pass for images."""
    for number, name in enumerate("ab"):
        save(tmp_path / f"images/{name}.png", speckle(number))
        save(tmp_path / f"drawn/{name}.png", speckle(number + 5))
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1
    assert notes.faults[0].startswith("drawn/: has the same names as images/. If it holds the masks, give --mask-words")
    assert read(tmp_path, ignore=("drawn/*",))[1].faults == []
    assert plan(tmp_path, mask_words=("drawn",)).items[0].masks[0].path == "drawn/a.png"
    (tmp_path / "drawn").rename(tmp_path / "drawn_images")
    assert read(tmp_path)[1].faults == []
    for folder in ("P1", "P2", "test", "train"):  # names that begin again in each folder of a patient or split
        add(tmp_path / "other", f"{folder}/a.png", f"{folder}/b.png")
    assert plan(tmp_path).layout.faults == []


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2, 3, 90, 255), (12, 200)])
def test_few_grey_values_look_like_a_mask(tmp_path, values):
    picture = np.resize(np.array(values, np.uint8), SIZE)
    save(tmp_path / "x.png", picture)
    assert "x.png: image: has few grey values" in read(tmp_path)[1].faults[0]


def test_what_looks_like_a_mask():
    edges = box()
    edges[4] = np.arange(32) * 7
    assert masks.looks_like_a_mask(edges) and masks.looks_like_a_mask(box())
    assert not masks.looks_like_a_mask(speckle(0))
    scan = np.zeros((60, 60), np.uint8)
    scan[20:40, 20:40] = speckle(1, (20, 20))
    assert not masks.looks_like_a_mask(scan)  # a small scan on black


def test_the_mask_of_a_lost_image_is_not_united_with_another(tmp_path):
    add(tmp_path, "images/scan.png", "images/scan_3.png", "images/b.png")
    for number, name in enumerate(("scan", "scan_2", "scan_3", "b_1", "b_2")):
        save(tmp_path / f"masks/{name}.png", box(2 * number))
    found, notes, remarks = read(tmp_path)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("masks/scan_2.png: is a mask without image")
    np.testing.assert_array_equal(found["scan"].mask, box(0) == 255)
    np.testing.assert_array_equal(found["scan_3"].mask, box(4) == 255)
    np.testing.assert_array_equal(found["b"].mask, (box(6) | box(8)) == 255)
    assert remarks["masks found by the image's name without their number"] == ["masks/b_1.png", "masks/b_2.png"]


def test_frames_of_one_grey_value(tmp_path):
    frames = [speckle(0), np.zeros(SIZE, np.uint8), speckle(2)]
    first, *rest = map(Image.fromarray, frames)
    first.save(tmp_path / "clip.tif", save_all=True, append_images=rest)
    save(tmp_path / "clip_mask.npy", np.stack([box(), box(), box(9)]))
    found, notes, remarks = read(tmp_path)
    assert notes.faults == [] and list(found) == ["clip#0001", "clip#0003"]
    np.testing.assert_array_equal(found["clip#0003"].mask, box(9) == 255)
    assert remarks["frames of one grey value are left out"] == ["clip.tif frame 2"]
    save(tmp_path / "black.png", frames[1])
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1 and "black.png: image: is one grey value; mend or" in notes.faults[0]


def test_a_mask_of_an_image_that_exif_turns(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "images/x.jpg", speckle(0), exif=exif.tobytes())
    save(tmp_path / "masks/x.png", box())
    assert "but the image has 24 x 32 (the image was turned as EXIF says" in read(tmp_path)[1].faults[0]
    exif[274] = 3  # upside down: the size does not tell whether the mask was turned too
    save(tmp_path / "images/x.jpg", speckle(0), exif=exif.tobytes())
    save(tmp_path / "images/y.jpg", speckle(1), exif=exif.tobytes())
    save(tmp_path / "images/z.jpg", speckle(2))
    save(tmp_path / "masks/z.png", box())
    _, notes, remarks = read(tmp_path)
    said = [places for text, places in remarks.items() if "must be drawn on the turned picture" in text]
    assert notes.faults == [] and said == [["images/x.jpg"]]


def dicom_of(path, **fields):
    """A DICOM file of 8 bits; fields of None are left out."""
    pydicom = pytest.importorskip("pydicom")
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = pydicom.uid.UltrasoundImageStorage, pydicom.uid.generate_uid()
    for name, value in fields.items():
        setattr(made, name, value)
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


PIXELS = {
    "Rows": SIZE[0],
    "Columns": SIZE[1],
    "SamplesPerPixel": 1,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
    "PhotometricInterpretation": "MONOCHROME2",
}


def test_dicom_files_without_picture(tmp_path):
    dicom_of(tmp_path / "DICOM/IM1", **PIXELS, PixelData=speckle(0).tobytes())
    dicom_of(tmp_path / "DICOM/SR1.dcm", PatientID="A")
    dicom_of(tmp_path / "DICOMDIR", FileSetID="X")
    found, notes, remarks = read(tmp_path)
    assert notes.faults == [] and list(found) == ["DICOM/IM1"]
    assert notes.dropped == [("DICOM/SR1.dcm", "is a DICOM file without picture, such as a report")]
    assert remarks["files of other kinds are not read"] == ["DICOMDIR"]
    assert "left out: 1\n  DICOM/SR1.dcm: is a DICOM file" in summary(plan(tmp_path), notes, layout.Remarks())
    dicom_of(tmp_path / "cut.dcm", **PIXELS)
    assert "cut.dcm: DICOM: holds no pixels" in read(tmp_path)[1].faults[0]


@pytest.mark.parametrize("size", [5.0, 0.005])
def test_a_pixel_size_of_a_file_that_is_not_plausible(tmp_path, size):
    dicom_of(tmp_path / "a.dcm", **PIXELS, PixelData=speckle(0).tobytes(), PixelSpacing=[size, 0.1])
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1 and f"a.dcm: pixel size: {size:g} x 0.1 mm is not plausible" in notes.faults[0]
    assert read(tmp_path, spacing=(0.1, 0.1))[0]["a"].spacing == (0.1, 0.1)
    found, notes, remarks = read(tmp_path, spacing=(np.nan, np.nan))
    assert notes.faults == [] and np.isnan(found["a"].spacing).all() and not any("differs" in text for text in remarks)


def test_patients_in_folders(tmp_path):
    add(tmp_path, "train/P1/a.png", "train/P1/images/b.png", "benign/P2/a.png")
    found, notes, remarks = read(tmp_path, group_from_folder=True)
    groups = {case: record.group for case, record in found.items()}
    assert groups == {"train/P1/a": "p1", "train/P1/b": "p1", "benign/P2/a": "p2"}
    assert plan(tmp_path, group_from_folder=True).card.grouping == "patient"
    assert notes.faults == [] and not any("no patient column" in text for text in remarks)
    found, notes, _ = read(tmp_path, group_pattern=r"(?:train|benign)/(P\d)/")
    assert notes.faults == [] and [record.group for record in found.values()] == ["P2", "P1", "P1"]
    add(tmp_path, "17/a.png")
    assert read(tmp_path, group_from_folder=True)[0]["17/a"].group == "17"
    add(tmp_path, "c.png", "train/d.png")
    _, notes, _ = read(tmp_path, group_from_folder=True)
    assert [fault.split(":")[0] for fault in notes.faults] == ["c.png", "train/d.png"]


def test_folders_inside_those_of_patients(tmp_path):
    """The inner folder is taken: "left" would join two patients, and part each of them from its other side."""
    add(tmp_path, "images/P1/left/a.png", "images/P1/right/b.png", "images/P2/left/c.png", "images/P2/d.png")
    _, notes, remarks = read(tmp_path, group_from_folder=True)
    assert notes.faults == [
        "--group folder: 'left' is in 'p1' and in 'p2', so it is not the folder of one patient; if an outer folder is, "
        "take it with --group-pattern '^([^/]+)/', which looks at the path; else rename it."
    ]
    (outer,) = [places for text, places in remarks.items() if text.startswith("patients are the innermost folders")]
    assert outer == ["p1", "p2"]
    found, notes, _ = read(tmp_path, group_pattern="images/([^/]+)/")
    assert notes.faults == [] and [record.group for record in found.values()] == ["P1", "P1", "P2", "P2"]


def test_class_folders(tmp_path):
    names = ("Benign/a.png", "malignant/b.png", "normal/c.png", "d.png")
    for number, name in enumerate(names):
        save(tmp_path / name, speckle(number))
    save(tmp_path / "normal/c_mask.png", np.zeros(SIZE, np.uint8))
    found, notes, remarks = read(tmp_path)
    assert {case: record.malignant for case, record in found.items()} == {
        "Benign/a": False,
        "malignant/b": True,
        "normal/c": None,
        "d": None,
    }
    assert not any("normal images" in text for text in remarks)
    save(tmp_path / "normal/c_mask.png", box())
    assert read(tmp_path)[2]["normal images have an outline, which is kept: one of the two is wrong"] == [
        "normal/c.png"
    ]
    assert found["normal/c"].mask is None and (notes.counts["benign"], notes.counts["malignant"]) == (1, 1)
    assert "normal images have none" in plan(tmp_path).card.labels
    assert {record.malignant for record in read(tmp_path, class_folders={})[0].values()} == {None}
    renamed = {"benign": "malignant", "malignant": "benign"}
    assert read(tmp_path, class_folders=renamed)[0]["Benign/a"].malignant is True
    save(tmp_path / "benign/malignant/e.png", speckle(9))
    assert "lies in folders of benign and malignant" in read(tmp_path)[1].faults[0]


def test_grades_of_folders_only_when_asked(tmp_path):
    for number, name in enumerate(("4a/x.png", "2/y.png", "3/images/z.png", "6/w.png")):
        save(tmp_path / name, speckle(number))
    assert plan(tmp_path).card.grades == ()
    asked = plan(tmp_path, grade_from_folder=True)
    assert asked.card.grades == ("2", "3", "4a", "6")
    found, *_ = read(tmp_path, grade_from_folder=True)
    assert {case: record.grade for case, record in found.items()} == {"4a/x": 2, "2/y": 0, "3/z": 1, "6/w": 3}
    _, notes, _ = read(tmp_path, grade_from_folder=True, grades=("2", "3", "4A"))
    assert notes.faults == [] and notes.counts["images with grade"] == 3
    (tmp_path / "other").mkdir()
    save(tmp_path / "other/v.png", speckle(8))
    _, notes, _ = read(tmp_path, grade_from_folder=True)
    assert len(notes.faults) == 1 and "other/v.png: folder: the order of the grades" in notes.faults[0]


INVERTED = 255 - box()
INVERTED[5, 6:16] = 90  # an edge that belongs to the nodule

MASKS = {
    "one bit": (box(), "1", {}, ""),
    "small label": (box(value=1), None, {}, ""),
    "colour": (np.stack([box(), box() * 0, box() * 0], -1), None, {}, ""),
    "grey as colour": (np.stack([box()] * 3, -1), None, {}, ""),
    "two labels": (box(value=1) + box(14, 20, value=2), None, {"all": True, "mask_values": (1, 2)}, ""),
    "chosen label": (box(value=1) + box(14, 20, value=2), None, {"mask_values": (1,)}, "outside --mask-values: 2"),
    "chosen colour": (np.stack([box(), box(14, 20), box() * 0], -1), None, {"mask_values": (0xFF0000,)}, "outside"),
    "two colours": (
        np.stack([box(), box(14, 20), box() * 0], -1),
        None,
        {"all": True, "mask_values": (0xFF0000, 0xFF00)},
        "",
    ),
    "inverted": (255 - box(), None, {"mask_values": (0,)}, ""),
    "inverted with grey edges": (INVERTED, None, {"mask_values": (0,)}, "cut at 127"),
    "a range": (box(value=200) + box(14, 20, value=90), None, {"mask_values": tuple(range(128, 256))}, "outside"),
}


@pytest.mark.parametrize("name", MASKS)
def test_values_of_masks(tmp_path, name):
    pixels, mode, options, remark = MASKS[name]
    options = dict(options)
    both = options.pop("all", False)
    save(tmp_path / "x.png", speckle(0))
    save(tmp_path / "x_mask.png", pixels, mode)
    found, notes, remarks = read(tmp_path, **options)
    assert notes.faults == []
    np.testing.assert_array_equal(found["x"].mask, (box() | box(14, 20) if both else box()) == 255)
    told = [text for text, places in remarks.items() if places == ["x_mask.png"]]
    assert len(told) == bool(remark) and all(remark in text for text in told)


def test_palette_and_alpha(tmp_path):
    save(tmp_path / "x.png", speckle(0))
    palette = Image.new("P", SIZE[::-1])
    palette.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white, index 1 is black
    palette.putdata((box(value=1)).ravel().tolist())
    palette.save(tmp_path / "x_mask.png")
    assert "x_mask.png: values: the nodule, any value but 0, would mark all corners" in read(tmp_path)[1].faults[0]
    np.testing.assert_array_equal(read(tmp_path, mask_values=(1,))[0]["x"].mask, box() == 255)


def palette_mask(path, outside, inside, nodule=1):
    """A mask whose palette has two entries; ``nodule`` is the index of the nodule."""
    picture = Image.fromarray(np.where(box() == 255, nodule, 1 - nodule).astype(np.uint8))
    picture.putpalette([*inside, *outside] if nodule == 0 else [*outside, *inside])
    picture.save(path)


@pytest.mark.parametrize("inside", [(255, 255, 255), (255, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("nodule", [0, 1])
def test_a_palette_says_by_its_colours_what_is_outside(tmp_path, inside, nodule):
    """Programs that save few colours give the nodule index 0 or 1, as they like."""
    save(tmp_path / "x.png", speckle(0))
    if nodule == 0 and not any(inside):
        return  # a black nodule of index 0 is an inverted mask, as in the test above
    palette_mask(tmp_path / "x_mask.png", (0, 0, 0), inside, nodule)
    found, notes, _ = read(tmp_path)
    assert notes.faults == []
    np.testing.assert_array_equal(found["x"].mask, box() == 255)


def test_a_palette_without_black_is_a_fault(tmp_path):
    save(tmp_path / "x.png", speckle(0))
    palette_mask(tmp_path / "x_mask.png", (200, 200, 200), (255, 0, 0))
    assert "palette: index 0 is 0xC8C8C8 and no pixel is black" in read(tmp_path)[1].faults[0]
    np.testing.assert_array_equal(read(tmp_path, mask_values=(1,))[0]["x"].mask, box() == 255)
    palette_mask(tmp_path / "x_mask.png", (10, 10, 30), (255, 0, 0))
    np.testing.assert_array_equal(read(tmp_path)[0]["x"].mask, box() == 255)


def test_inverted_masks_are_a_fault(tmp_path):
    for number, name in enumerate("ab"):
        save(tmp_path / f"images/{name}.png", speckle(number))
        save(tmp_path / f"masks/{name}.{'png' if number else 'jpg'}", 255 - box())
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 2 and all("give --mask-values 0" in fault for fault in notes.faults)
    found, notes, _ = read(tmp_path, mask_values=(0,))
    assert notes.faults == [] and "value 0 (inverted masks)" in plan(tmp_path, mask_values=(0,)).card.labels
    np.testing.assert_array_equal(found["b"].mask, box() == 255)
    assert (found["a"].mask != (box() == 255)).sum() <= 2
    save(tmp_path / "masks/b.png", box())
    assert "leave out --mask-values 0" in read(tmp_path, mask_values=(0,))[1].faults[0]
    save(tmp_path / "masks/b.png", box() * 0 + 255)
    found, notes, _ = read(tmp_path, mask_values=(0,))
    assert notes.faults == [] and found["b"].mask is None
    large = np.full(SIZE, 255, np.uint8)
    large[8:12] = 0
    save(tmp_path / "masks/b.png", large)
    (tmp_path / "masks/a.jpg").unlink()
    found, notes, remarks = read(tmp_path, mask_values=(255,))
    assert notes.faults == [] and found["b"].mask.sum() == 20 * 32
    assert remarks["masks mark all corners and over half of the frame"] == ["masks/b.png"]


@pytest.mark.parametrize("opaque", [np.uint8(0), np.uint8(255)])
def test_a_mask_that_only_its_transparency_shows_is_a_fault(tmp_path, opaque):
    """Black on nothing, or white that is wholly transparent: all of it reads as outside, as an empty mask does."""
    save(tmp_path / "x.png", speckle(0))
    colour = box() * 0 if opaque else box()
    save(tmp_path / "x_mask.png", np.stack([colour] * 3 + [box() if opaque else box() * 0], -1))
    assert (
        "x_mask.png: values: all that is visible is black, the mask is in its transparency"
        in (read(tmp_path)[1].faults[0])
    )
    for alpha in (box() * 0, box() * 0 + 255):  # an empty mask is none
        save(tmp_path / "x_mask.png", np.stack([box() * 0] * 3 + [alpha], -1))
        assert read(tmp_path)[1].faults == [] and read(tmp_path)[0]["x"].mask is None


def test_a_drawn_line_is_no_filled_outline(tmp_path):
    ring = box()
    ring[6:12, 7:15] = 0  # 32 pixels around 48
    thick = box()
    thick[7:11, 8:14] = 0  # 56 pixels around 24
    frame = np.full(SIZE, 255, np.uint8)
    frame[1:-1, 1:-1] = 0
    save(tmp_path / "x.png", speckle(0))
    for line in (ring, frame):
        save(tmp_path / "x_mask.png", line)
        assert "x_mask.png: values: what is marked encloses more pixels than it has" in read(tmp_path)[1].faults[0]
        found, notes, remarks = read(tmp_path, mask_values=(255,))
        assert notes.faults == [] and found["x"].mask.sum() == (line == 255).sum()
        assert remarks["masks enclose more pixels than they mark, as drawn lines do"] == ["x_mask.png"]
    save(tmp_path / "x_mask.png", thick)
    assert read(tmp_path)[1].faults == [] and read(tmp_path)[0]["x"].mask.sum() == 56


def test_values_of_all_masks_are_compared(tmp_path):
    add(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    save(tmp_path / "masks/a.png", box(value=1))
    save(tmp_path / "masks/b.png", box(value=2))
    _, notes, _ = read(tmp_path)
    assert notes.faults == [
        "masks: have several values, 1 (masks/a.png), 2 (masks/b.png); say which are the nodule, as with "
        "--mask-values 1,2."
    ]
    assert read(tmp_path, mask_values=(1, 2))[1].faults == []
    save(tmp_path / "masks/b.png", box())
    save(tmp_path / "masks/c.png", box() == 255)
    found, notes, _ = read(tmp_path)  # 1, 255 and one bit are all white
    assert notes.faults == [] and all(record.mask.sum() == 80 for record in found.values())


def test_grey_edges_and_what_only_looks_like_them():
    edges = box().astype(np.int32)[None]
    edges[0, 5, 6:16] = np.arange(100, 200, 10)
    found = masks.nodule(Labels(edges))
    np.testing.assert_array_equal(found.pixels, edges > 127)
    assert "cut at 127" in found.remark and found.values == ()
    areas = (box(value=128) + box(14, 20)).astype(np.int32)[None]
    picture = np.random.default_rng(0).integers(0, 256, (1, *SIZE)).astype(np.int32)
    picture[0, 0, 0] = 0
    picture[0, 0, 1] = 255
    inverted = np.where(box(), 1, 2).astype(np.int32)[None]
    many = (np.arange(24 * 32).reshape(1, 24, 32) % 100).astype(np.int32)
    for odd, message in {
        "areas": (areas, "not just grey edges"),
        "picture": (picture, "not just grey edges"),
        "no background": (inverted, "no 0"),
        "many": (many, "neither labels below 32"),
        "negative": (inverted - 3, "not negative"),
    }.values():
        with pytest.raises(InputError, match=message):
            masks.nodule(Labels(odd))
    np.testing.assert_array_equal(masks.nodule(Labels(areas), chosen=(128,)).pixels, areas == 128)
    np.testing.assert_array_equal(masks.nodule(Labels(inverted), chosen=(1,)).pixels, inverted == 1)


def test_jpeg_masks(tmp_path):
    save(tmp_path / "images/x.png", speckle(0))
    save(tmp_path / "masks/x.jpg", box(), quality=95)
    found, notes, remarks = read(tmp_path)
    assert notes.faults == [] and (found["x"].mask != (box() == 255)).sum() <= 2
    assert remarks["JPEG masks are cut at 127"] == ["masks/x.jpg"]
    assert "--mask-values cannot be used" in read(tmp_path, mask_values=(255,))[1].faults[0]
    for value in (1, 100, 128, 190):
        save(tmp_path / "masks/x.jpg", box(value=value), quality=100)
        assert "too dark to cut a JPEG at 127; save the mask as PNG" in read(tmp_path)[1].faults[0]
    save(tmp_path / "masks/x.jpg", box() * 0)
    assert read(tmp_path)[0]["x"].mask is None


def test_the_content_of_a_mask_says_whether_it_is_jpeg(tmp_path):
    add(tmp_path, "images/x.png", "images/y.png")
    save(tmp_path / "masks/x.jpg", box(value=1), format="PNG")
    save(tmp_path / "masks/y.png", box(), format="JPEG", quality=90)
    found, notes, remarks = read(tmp_path)
    assert notes.faults == [] and remarks["JPEG masks are cut at 127"] == ["masks/y.png"]
    np.testing.assert_array_equal(found["x"].mask, box() == 255)
    assert (found["y"].mask != (box() == 255)).sum() <= 4


def test_stacks_become_frames(tmp_path):
    frames = [speckle(number) for number in range(3)]
    drawn = [box(), box() * 0, box(9)]
    first, *rest = map(Image.fromarray, frames)
    (tmp_path / "images").mkdir()
    first.save(tmp_path / "images/clip.tif", save_all=True, append_images=rest)
    save(tmp_path / "masks/clip.npy", np.stack(drawn))
    save(tmp_path / "images/single.png", speckle(7))
    found, notes, _ = read(tmp_path)
    assert list(found) == ["clip#0001", "clip#0002", "clip#0003", "single"]
    assert [record.group for record in found.values()] == ["clip", "clip", "clip", "single"]
    for record, frame, mask in zip(found.values(), frames, drawn):
        np.testing.assert_array_equal(record.image, frame)
        assert record.mask is None if not mask.any() else (record.mask == (mask == 255)).all()
    assert (notes.counts["image files"], notes.counts["images"]) == (2, 4)
    save(tmp_path / "masks/single.npy", np.stack(drawn))
    assert "32 x 24 in 3 frames, but the image has 32 x 24" in read(tmp_path)[1].faults[0]


def test_medical_formats_give_the_size_of_a_pixel(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for folder, pixels in {"imagesTr": speckle(0), "labelsTr": box(value=1)}.items():
        (tmp_path / folder).mkdir()
        image = nibabel.Nifti1Image(pixels.T[:, :, None], np.diag([0.2, 0.1, 1.0, 1.0]))
        image.header.set_xyzt_units("mm")
        nibabel.save(image, tmp_path / folder / ("x_0000.nii.gz" if folder == "imagesTr" else "x.nii.gz"))
    found, notes, _ = read(tmp_path)
    assert notes.faults == [] and found["x"].spacing == pytest.approx((0.1, 0.2))
    np.testing.assert_array_equal(found["x"].image, speckle(0))
    np.testing.assert_array_equal(found["x"].mask, box() == 255)
    found, _, remarks = read(tmp_path, spacing=(0.3, 0.3))
    assert found["x"].spacing == (0.3, 0.3) and any("differs from the one given" in text for text in remarks)


def test_a_clip_in_dicom_without_suffix(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    frames = np.stack([speckle(number) for number in range(3)])
    clip = pydicom.Dataset()
    clip.SOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    clip.SOPInstanceUID = pydicom.uid.generate_uid()
    clip.PatientName = "Somebody"
    clip.Rows, clip.Columns, clip.NumberOfFrames, clip.SamplesPerPixel = *SIZE, 3, 1
    clip.BitsAllocated = clip.BitsStored = 8
    clip.HighBit, clip.PixelRepresentation, clip.PhotometricInterpretation = 7, 0, "MONOCHROME2"
    clip.PixelSpacing = [0.1, 0.2]
    clip.PixelData = frames.tobytes()
    clip.file_meta = pydicom.dataset.FileMetaDataset()
    clip.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    (tmp_path / "images").mkdir()
    clip.save_as(tmp_path / "images" / "IM0001", enforce_file_format=True)
    save(tmp_path / "masks" / "IM0001.npy", np.stack([box(), box() * 0, box(9)]))
    found, notes, _ = read(tmp_path)
    assert notes.faults == [] and list(found) == ["IM0001#0001", "IM0001#0002", "IM0001#0003"]
    for record, frame in zip(found.values(), frames):
        np.testing.assert_array_equal(record.image, frame)
        assert record.group == "IM0001" and record.spacing == (0.1, 0.2)
    assert [record.mask is None for record in found.values()] == [False, True, False]


def test_a_mask_taken_for_an_image_is_a_fault(tmp_path):
    save(tmp_path / "x.png", speckle(0))
    save(tmp_path / "x_other1.png", box())
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 1 and notes.faults[0].startswith("x_other1.png: image: has few grey values")
    found, notes, _ = read(tmp_path, mask_words=("other",))
    assert notes.faults == [] and found["x"].mask.any()
    found, notes, _ = read(tmp_path, ignore=("*_OTHER*",))
    assert notes.faults == [] and found["x"].mask is None


def test_groups_by_pattern(tmp_path):
    add(tmp_path, "p01_left.png", "p01_right.png", "p02_left.png")
    found, notes, remarks = read(tmp_path, group_pattern=r"^(p\d+)_")
    assert [record.group for record in found.values()] == ["p01", "p01", "p02"]
    assert plan(tmp_path, group_pattern=r"^(p\d+)_").card.grouping == "patient"
    assert not any("patient" in text for text in remarks)
    assert any("no patient column" in text for text in read(tmp_path)[2])
    _, notes, _ = read(tmp_path, group_pattern="^(p01)_")
    assert len(notes.faults) == 1 and "p02_left.png: --group-pattern '^(p01)_' finds no patient" in notes.faults[0]


def test_patients_of_names_that_look_alike(tmp_path):
    add(tmp_path, "images/P1_a.png", "images/P01_b.png", "images/p2_c.png", "images/P2_d.png", "images/P20_e.png")
    remarks = read(tmp_path, group_pattern="^([Pp][0-9]+)_")[2]
    assert remarks["patients that differ only in capitals, spaces, leading zeros or .0 count as different"] == [
        "P01 = P1",
        "P2 = p2",
    ]


def test_a_whole_build(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    add(source, *(f"images/{name}.png" for name in "abcdef"), *(f"masks/{name}.png" for name in "abcde"))
    write(source, "labels.csv", "image,patient,grade,malignant\na,1,2,no\nb,1,4a,yes\nc,2,3,\nd,3,4a,1\ne,4,2,0\n")
    arguments = ["--name", "mine", "--source", source, "--out", out, "--licence", "CC BY", "--grade-system", "ACR"]
    looked, error = command(capsys, *arguments, "--dry-run")
    assert error == "" and looked.endswith("nothing was written: this was a dry run\n") and not out.exists()
    built, error = command(capsys, *arguments)
    assert error == "" and built.endswith(f"built: {out / 'mine'}\n")
    assert built.splitlines()[:-1] == looked.splitlines()[:-1]
    for line in (
        "layout images/ with masks in masks/: 5",
        "layout images/ without mask file: 1",
        "malignant malignant (guessed from its name)",
        "grades 2: 2, 3: 1, 4a: 2, least suspicious first (order guessed: as numbers); unknown: 1",
        "groups 5 (column patient)",
        "malignancy benign: 2, malignant: 2, unknown: 2",
    ):
        assert line in " ".join(built.split()), line
    card, stored = storage.open_records(out, "mine")
    assert (card.grades, card.grouping, card.licence, card.grade_system) == (
        ("2", "3", "4a"),
        "patient",
        "CC BY",
        "ACR",
    )
    by_case = {record.case: record for record in stored}
    assert {case: record.group for case, record in by_case.items()} == {
        "a": "1", "b": "1", "c": "2", "d": "3", "e": "4", "f": "f"
    }  # fmt: skip
    assert {case: record.grade for case, record in by_case.items()} == dict(zip("abcdef", (0, 2, 1, 2, 0, None)))
    truths = [by_case[case].malignant for case in "abcdef"]
    assert truths == [False, True, None, True, False, None]
    np.testing.assert_array_equal(by_case["b"].image, speckle(1))
    assert by_case["f"].mask is None and by_case["a"].mask.sum() == 80
    assert "already there" in command(capsys, *arguments)[1]
    assert command(capsys, *arguments, "--overwrite")[1] == ""


def test_all_faults_come_at_once(tmp_path, capsys):
    source = tmp_path / "source"
    add(source, *(f"images/{number}.png" for number in range(10)))
    save(source / "masks/1.png", box(size=(10, 10)))  # 1 size
    save(source / "masks/lonely.png", box())  # 2 without image
    (source / "masks/2.png").write_bytes(b"junk")  # 3 no picture
    save(source / "images/twin.png", speckle(20))
    save(source / "images/twin.bmp", speckle(21))  # 4 one name
    save(source / "images/3_bw.png", box())  # 5 a mask among the images
    save(source / "masks/4.png", box(value=128) + box(14, 20))  # 6 values
    write(source, "images/5.json", '{"shapes": 3}')  # 7 Labelme
    write(source, "images/6.xml", "<annotation><object>")  # 8 VOC
    os.mkfifo(source / "images/pipe.png")  # 9 a pipe
    os.symlink(tmp_path / "nowhere", source / "images/link.png")  # 10 a link that leads nowhere
    write(source, "coco.json", '{"images": [], "annotations": ')  # 11 COCO
    write(source, "table.csv", "image,malignant,pixel size\n7,maybe,0.1\n8,yes,-1\n9,no,0.1\n9,yes,0.1\n")  # 12, 13, 14
    (source / "images/line\nbreak.png").write_bytes(b"")  # 15 name
    out, error = command(capsys, "--name", "mine", "--source", source, "--dry-run")
    heading, *lines = error.splitlines()
    assert heading == "error: mine: 15 faults; nothing was written." and len(lines) == 15, error
    assert "images/ with masks in masks/" in out
    expected = (
        "masks/1.png: size: 10 x 10, but the image has 32 x 24",
        "masks/lonely.png: is a mask without image",
        "masks/2.png: ",
        "images/twin.bmp and images/twin.png: have one name",
        "images/3_bw.png: image: has few grey values",
        "masks/4.png: values: 128 255 are not just grey edges",
        "images/5.json: shapes: is not a list",
        "images/6.xml: XML: not well-formed",
        "images/pipe.png: file: is not a regular file",
        "images/link.png: file: is a link that leads nowhere",
        "coco.json: file: not whole JSON",
        "table.csv: row 2, malignant: 'maybe' must be",
        "table.csv: row 3, pixel size: '-1' must be a number",
        "table.csv: row 5, image: images/9.png has row 4 already",
        r"'images/line\nbreak.png': name: is not UTF-8 or has control characters",
    )
    for text in expected:
        assert sum(line.strip().startswith(text) for line in lines) == 1, text


def test_what_a_user_gets_wrong(tmp_path, capsys):
    add(tmp_path, "a.png")
    given = ["--source", tmp_path, "--dry-run"]
    for arguments, message in {
        ("--name", "My-Set", *given): "small letters",
        ("--name", "bus_bra", *given): "built-in",
        ("--name", "phantom", *given): "built-in",
        ("--name", "mine", "--source", tmp_path): "--out: is not given",
        ("--name", "mine", "--source", tmp_path, "--out", tmp_path / "x"): "never written into",
        ("--name", "mine", "--source", tmp_path / "no", "--dry-run"): "no such folder",
        ("--name", "mine", *given, "--group-pattern", "(a"): "not a regular expression",
        ("--name", "mine", *given, "--group-pattern", "a"): "has 0 groups",
        ("--name", "mine", *given, "--group-pattern", "(a+)+$"): "can take for ever",
        ("--name", "mine", *given, "--group-pattern", "(a)", "--group-column", "b"): "cannot be given with",
        ("--name", "mine", *given, "--spacing", "0"): "above 0 and at most 10",
        ("--name", "mine", *given, "--mask-values", "0,1"): "0 stands alone",
        ("--name", "mine", *given, "--mask-values", "9-3"): "whole numbers, ranges or colours",
        ("--name", "mine", *given, "--mask-values", "1-2-3"): "whole numbers, ranges or colours",
        ("--name", "mine", *given, "--mask-values", "1-99999"): "more than 65536 values",
        ("--name", "mine", *given, "--labels", "nodule"): "--labels: there is no COCO or Labelme file",
        ("--name", "mine", *given, "--group", "folder", "--group-pattern", "(a)"): "cannot be given with",
        ("--name", "mine", *given, "--group", "folder", "--group-column", "b"): "cannot be given with",
        ("--name", "mine", *given, "--class-folders", "bad=x"): "benign=NAME",
        ("--name", "mine", *given, "--grades", "2,,3"): "commas between",
        ("--name", "mine", *given, "--grades", "2,2"): "named 2 times",
        ("--name", "mine", *given, "--ignore", "*"): "no image was found",
        ("--name", "mine", *given, "--grade-column", "g"): "--grade-column: there is no table in",
        ("--name", "mine", *given, "--findings", "all"): "--findings: there is no table in",
        ("--name", "mine", *given, "--grade", "folder", "--grade-column", "g"): "cannot be given with",
    }.items():
        assert message in command(capsys, *arguments)[1], arguments
    assert os.listdir(tmp_path) == ["a.png"]


def test_options_of_the_command(tmp_path, capsys):
    save(tmp_path / "4a/M/a.png", speckle(0))
    save(tmp_path / "4a/M/a_bw.png", box(value=7) + box(14, 20, value=9))
    save(tmp_path / "2/B/b.png", speckle(0))
    save(tmp_path / "2/old/c.png", speckle(2))
    arguments = "--grade folder --grades 4a,2 --class-folders malignant=M,benign=B --mask-words bw --mask-values 7,0x2"
    arguments += " --spacing 0.1,0.2 --ignore old/* --ignore */old/* --title Ours --citation us"
    arguments = ["--name", "mine", "--source", tmp_path, *arguments.split(), "--dry-run"]
    out, error = command(capsys, *arguments)
    assert error == "" and not (tmp_path / "mine").exists()
    said = " ".join(out.split())
    for line in (
        "grades 4a: 1, 2: 1, least suspicious first; unknown: 0",
        "malignancy benign: 1, malignant: 1, unknown: 0",
        "2 images whose pixel size is known",
        "masks have values outside --mask-values: 9 (1: 4a/M/a_bw.png)",
        "2/B/b: equal to 4a/M/a, but their labels differ",
        "1 files left out by --ignore",
        "labels are kept as: Outline: mask files, 2, 7. Grade: folder. Malignancy: folder of the class.",
    ):
        assert line in said, line
    out, error = command(capsys, *arguments, "--class-folders", "none", "--mask-values", "7,9")
    assert error == "" and "malignancy benign: 0, malignant: 0, unknown: 2" in " ".join(out.split())


def test_noise_links_and_bad_names(tmp_path):
    add(tmp_path, "a.png", "__MACOSX/a.png", ".hidden/b.png", "sub/c.png", "=1+1.png")
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._a.png"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found, notes, remarks = read(tmp_path)
    assert list(found) == ["=1+1", "a", "sub/c"] and notes.faults == []  # tables of cases escape "=" themselves
    assert remarks["links to folders are not followed"] == ["sub/loop"]
    assert remarks["files of other kinds are not read"] == ["notes.txt", "pipe"]
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    (tmp_path / f"{'long' * 60}.png").write_bytes(b"")
    _, notes, _ = read(tmp_path)
    assert len(notes.faults) == 2
    assert r"'caf\udce9.png': name: is not UTF-8" in notes.faults[0]
    assert "longer than 200 characters" in notes.faults[1]


def test_too_many_files(tmp_path, monkeypatch):
    add(tmp_path, "a.png", "b.png", "c.png")
    monkeypatch.setattr(layout, "MOST_FILES", 2)
    with pytest.raises(InputError, match="more than 2 files"):
        plan(tmp_path)


WORDS = st.sampled_from(["images", "masks", "train", "test", "benign", "a", "Reader1", "masks_reader2", "gt"])
STEMS = st.sampled_from(["x", "X", "y_mask", "y", "mask_y", "x_mask_1", "x_r1", "y_reader2", "img_1", "mask_1", "1"])
ENDS = st.sampled_from([".png", ".jpg", ".nii.gz", ".json", ".xml", ".csv", ".txt", ""])
PATHS = st.builds(lambda dirs, stem, end: "/".join([*dirs, stem + end]), st.lists(WORDS, max_size=3), STEMS, ENDS)


@settings(max_examples=150, deadline=None)
@given(st.sets(PATHS, max_size=25), st.randoms())
def test_planning_does_not_depend_on_the_order_of_files(paths, chance):
    """And every picture is an image, a mask, or in a fault."""
    kinds = {".csv": "table", ".txt": "", ".json": "json", ".xml": "xml"}
    files = [(path, kinds.get(os.path.splitext(path)[1], "image" if "." in path else "")) for path in sorted(paths)]
    one, other = layout.Layout(), layout.Layout()
    layout.paired(files, one)
    shuffled = list(files)
    chance.shuffle(shuffled)
    layout.paired(shuffled, other)
    assert one == other
    used = {path for pair in one.pairs for path in (pair.image.path, *(mask.path for mask in pair.masks))}
    told = "\n".join(one.faults)
    assert all(path in used or path in told for path, kind in files if kind == "image")
    assert len(used) == sum(1 + len(pair.masks) for pair in one.pairs)


def test_a_disk_that_lists_backwards(tmp_path, monkeypatch):
    add(tmp_path, "b/images/x.png", "b/masks/x.png", "a/images/x.png", "a/masks/x.png", "c.png")
    usual = plan(tmp_path)
    walk = os.walk
    backwards = lambda *a, **k: ((top, dirs, files[::-1]) for top, dirs, files in list(walk(*a, **k))[::-1])
    monkeypatch.setattr(os, "walk", backwards)
    assert plan(tmp_path) == usual and len(usual.items) == 3


def test_two_readings_are_equal(tmp_path):
    for number in range(20):
        save(tmp_path / f"images/{number}.png", speckle(number))
        save(tmp_path / f"masks_reader{number % 3}/{number}.png", box(number % 10))
    planned = plan(tmp_path)
    first = [(record.case, record.digest) for record in records(planned, Notes())]
    assert [(record.case, record.digest) for record in records(planned, Notes())] == first
    assert len({digest for _, digest in first}) == 20


def test_a_folder_too_small_to_split_is_said(tmp_path, capsys):
    add(tmp_path / "few", "images/x.png", "masks/x.png", "images/y.png", "masks/y.png")
    said, _ = command(capsys, "--name", "own", "--source", tmp_path / "few", "--out", tmp_path / "out")
    assert "built: " in said and "too small to train on: " in said and "folds: 5" in said
    many = [f"{folder}/{number}.png" for number in range(20) for folder in ("images", "masks")]
    add(tmp_path / "many", *many)
    said, _ = command(capsys, "--name", "own", "--source", tmp_path / "many", "--dry-run")
    assert "dry run" in said and "too small" not in said
