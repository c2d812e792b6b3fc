"""The BUSI reader against a made folder of the original's layout."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from data_prep import builder, pictures
from data_prep.__main__ import main
from data_prep.readers import busi
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (40, 30)  # height and width


def speckle(seed, size=SIZE):
    return np.random.default_rng(seed).integers(20, 200, size, np.uint8)


def box(top=10, left=8, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[top : top + 6, left : left + 8] = 255
    return mask


def write(root, place, picture, mode="L"):
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).convert(mode).save(path)


def add(root, label, number, *masks, mode="1"):
    """A scan with its masks; without masks it has one that is black, of three channels, as those of normal scans."""
    write(root, f"{label}/{label} ({number}).png", speckle(number * 7 + len(label)), "RGB")
    for k, mask in enumerate(masks or [np.zeros(SIZE, np.uint8)]):
        further = f"_{k}" if k else ""
        write(root, f"{label}/{label} ({number})_mask{further}.png", mask, mode if masks else "RGB")


def read(source):
    notes = Notes()
    return {record.case: record for record in busi.read(source, notes)}, notes


@pytest.fixture
def root(tmp_path):
    """Five scans: the classes, numbers of different length, and one scan with three lesions."""
    root = tmp_path / "busi" / busi.FOLDER
    add(root, "benign", 10, box())
    add(root, "benign", 9, box(), box(12, 9), box(30, 2))
    add(root, "malignant", 1, box(3, 3), mode="L")
    add(root, "malignant", 2, box(5, 5), mode="RGBA")
    add(root, "normal", 1)
    return root


def test_labels_masks_and_counts(root):
    records, notes = read(root)
    assert list(records) == ["benign (9)", "benign (10)", "malignant (1)", "malignant (2)", "normal (1)"]
    assert notes.faults == [] and notes.dropped == []
    expected = {
        "images": 5,
        "benign": 2,
        "malignant": 2,
        "normal": 1,
        "masks": 7,
        "images with several masks": 1,
        "images in colour": 0,
        "masks with values between 0 and 255, cut at 127": 0,
        "masks of 0 and 1": 0,
        "masks that are empty": 0,
        "masks that mark all corners and over half of the picture": 0,
        "masks without image": 0,
        "other files": 0,
    }
    assert notes.counts == expected and list(notes.counts) == list(expected)
    assert [record.malignant for record in records.values()] == [False, False, True, True, None]
    assert [record.descriptors["class"] for record in records.values()] == [
        *["benign"] * 2,
        *["malignant"] * 2,
        "normal",
    ]
    assert all(record.group == case and record.grade is None for case, record in records.items())
    assert records["benign (10)"].source == "benign/benign (10).png"
    np.testing.assert_array_equal(records["benign (10)"].image, speckle(76))
    np.testing.assert_array_equal(records["benign (9)"].mask, (box() | box(12, 9) | box(30, 2)) > 0)
    np.testing.assert_array_equal(records["malignant (1)"].mask, box(3, 3) > 0)
    np.testing.assert_array_equal(records["malignant (2)"].mask, box(5, 5) > 0)
    assert records["normal (1)"].mask is None


def test_masks_that_overlap_are_united_and_not_added(root):
    add(root, "benign", 9, box(), box())
    os.remove(root / "benign" / "benign (9)_mask_2.png")
    np.testing.assert_array_equal(read(root)[0]["benign (9)"].mask, box() > 0)


def test_masks_that_are_soft_or_of_0_and_1_or_empty(root):
    soft = box()
    soft[9, 8:16], soft[16, 8:16] = 127, 128
    write(root, "benign/benign (10)_mask.png", soft)
    write(root, "malignant/malignant (1)_mask.png", box(3, 3) // 255)
    write(root, "malignant/malignant (2)_mask.png", np.zeros(SIZE, np.uint8))
    write(root, "benign/benign (9)_mask_1.png", np.zeros(SIZE, np.uint8))
    records, notes = read(root)
    assert notes.faults == []
    np.testing.assert_array_equal(records["benign (10)"].mask, soft > 127)
    np.testing.assert_array_equal(records["benign (9)"].mask, (box() | box(30, 2)) > 0)
    np.testing.assert_array_equal(records["malignant (1)"].mask, box(3, 3) > 0)
    assert records["malignant (2)"].mask is None and records["malignant (2)"].malignant is True
    why = "not one pixel is marked: it gives no outline"
    assert notes.dropped == [("benign/benign (9)_mask_1.png", why), ("malignant/malignant (2)_mask.png", why)]
    assert list(notes.counts.values())[-6:] == [1, 1, 2, 0, 0, 0] and notes.counts["masks"] == 7


def test_colour_becomes_luma_and_is_counted(root):
    picture = np.repeat(speckle(1)[..., None], 3, axis=-1)
    picture[2, 3] = (255, 255, 0)
    write(root, "benign/benign (9).png", picture, "RGB")
    records, notes = read(root)
    assert notes.counts["images in colour"] == 1
    image = records["benign (9)"].image
    assert image[2, 3] == round(255 * 0.299 + 255 * 0.587)
    assert (image != speckle(1)).sum() == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_masks_of_all_modes_are_the_same(root, mode):
    write(root, "malignant/malignant (1)_mask.png", box(3, 3), mode)
    np.testing.assert_array_equal(read(root)[0]["malignant (1)"].mask, box(3, 3) > 0)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_images_of_all_modes_are_the_same(root, mode):
    write(root, "malignant/malignant (1).png", speckle(5), mode)
    np.testing.assert_array_equal(read(root)[0]["malignant (1)"].image, speckle(5))


def test_the_folder_above_and_no_outer_folder_give_the_same(root):
    records, _ = read(root)
    above, _ = read(root.parent)
    plain = root.rename(root.parent / "renamed")
    inner, _ = read(plain)
    assert {case: record.digest for case, record in above.items()} == {c: r.digest for c, r in records.items()}
    assert {case: record.digest for case, record in inner.items()} == {c: r.digest for c, r in records.items()}


def test_a_wrong_folder_and_what_to_do(root, tmp_path):
    with pytest.raises(InputError, match=r"no such folder\. Give the folder of BUSI"):
        read(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"there is no benign, no malignant, no normal in it\. Unpack BUSI"):
        read(tmp_path / "other")
    with pytest.raises(InputError, match=f"It is in {re.escape(str(root))}: give that folder"):
        read(tmp_path)
    with pytest.raises(InputError, match=f"It is in {re.escape(str(root))}: give that folder"):
        read(root / "benign")
    (tmp_path / "other" / "benign").mkdir()
    with pytest.raises(InputError, match=r"there is no image of BUSI in it"):
        read(tmp_path / "other")
    (tmp_path / "other" / "malignant").write_bytes(b"")
    with pytest.raises(InputError, match=r"malignant: cannot be listed \(Not a directory\)"):
        read(tmp_path / "other")


def test_what_does_not_belong_is_left_out_and_listed(root):
    for name in ("benign (07).png", "benign.png", "normal (5).png", "Thumbs.db", "benign (12)_mask_0.png"):
        write(root, "normal/x.png", speckle(1))
        (root / "normal" / "x.png").rename(root / "benign" / name)
    write(root, "malignant/malignant (8)_mask_1.png", box())
    for file in (root / "normal").iterdir():
        file.unlink()
    (root / "normal").rmdir()
    (root / "malignant" / os.fsdecode(b"m\xff.png")).write_bytes(b"")
    records, notes = read(root)
    assert notes.faults == [] and len(records) == 4
    assert notes.counts["other files"] == 6 and notes.counts["masks without image"] == 1
    assert sorted(notes.dropped) == [
        ("benign/Thumbs.db", "BUSI has no file of this name"),
        ("benign/benign (07).png", "BUSI has no file of this name"),
        ("benign/benign (12)_mask_0.png", "BUSI has no file of this name"),
        ("benign/benign.png", "BUSI has no file of this name"),
        ("benign/normal (5).png", "BUSI has no file of this name"),
        ("malignant/m\\udcff.png", "BUSI has no file of this name"),
        ("malignant/malignant (8)_mask_1.png", "its image is not there"),
        ("normal", "the folder is not there"),
    ]


def test_all_faulty_pictures_are_named_at_once(root, tmp_path):
    for number in range(20, 32):
        add(root, "benign", number, box())
    folder = root / "benign"
    os.remove(folder / "benign (9)_mask_1.png")
    os.remove(folder / "benign (20)_mask.png")
    write(root, "benign/benign (21)_mask.png", box(size=(40, 50)), "1")
    write(root, "benign/benign (22)_mask.png", box() // 2)
    write(root, "benign/benign (23)_mask.png", box() // 255 * 2)
    (folder / "benign (24).png").write_bytes((folder / "benign (24).png").read_bytes()[:600])
    (folder / "benign (25).png").write_bytes(b"\0" * (pictures.LARGEST_FILE + 1))
    Image.new("L", (pictures.LARGEST_SIDE + 1, 2)).save(folder / "benign (26).png")
    Image.fromarray(speckle(27).astype(np.uint16)).save(folder / "benign (27).png")
    for name, make in {"(28)": os.mkfifo, "(29)": lambda path: os.symlink("/dev/zero", path), "(30)": os.mkdir}.items():
        os.remove(folder / f"benign {name}.png")
        make(folder / f"benign {name}.png")
    os.remove(folder / "benign (31)_mask.png")
    (folder / "benign (31)_mask.png").symlink_to(tmp_path / "nowhere")
    write(root, "normal/normal (1)_mask.png", box(), "L")
    write(root, "malignant/malignant (2)_mask.png", np.uint8([255, 0, 0]) * (box()[..., None] > 0), "RGB")
    records, notes = read(root)
    assert list(records) == ["benign (10)", "malignant (1)"]
    texts = [
        "benign/benign (9)_mask_1.png: file: is not there",
        "benign/benign (20)_mask.png: file: is not there",
        "benign/benign (21)_mask.png: size: 50 x 40, but the image is 30 x 40",
        "benign/benign (22)_mask.png: values: the largest is 127, so that all is lost",
        "benign/benign (23)_mask.png: values: the largest is 2, so that all is lost at the cut at 127 (a label map?)",
        "benign/benign (24).png: picture: not a whole PNG file",
        f"benign/benign (25).png: file: {pictures.LARGEST_FILE + 1} bytes",
        "benign/benign (26).png: size: 4097 x 2, a side has at most 4096",
        "benign/benign (27).png: colours: the picture's mode is I",
        "benign/benign (28).png: file: is not a regular file",
        "benign/benign (29).png: file: is not a regular file",
        "benign/benign (30).png: file: is not a regular file",
        "benign/benign (31)_mask.png: file: is a link that leads nowhere",
        "malignant/malignant (2)_mask.png: values: the largest is 76, so that all is lost",
        "normal/normal (1)_mask.png: outline: 48 pixels are marked, but the scan is in the folder normal",
    ]
    assert len(notes.faults) == len(texts)
    for fault, text in zip(notes.faults, texts):
        assert fault.startswith(text) and fault.endswith("; replace the file by the original.")
    assert not any(str(tmp_path) in fault for fault in notes.faults)
    with pytest.raises(InputError, match=r"(?s)15 faults.*benign \(9\)_mask_1.*normal \(1\)_mask"):
        builder.build(busi.CARD, lambda notes: busi.read(root, notes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_build_joins_equal_images_of_two_classes(root, tmp_path, capsys):
    write(root, "malignant/malignant (1).png", speckle(76), "L")  # the pixels of benign (10)
    before = {path: path.read_bytes() for path in root.rglob("*.png")}
    main(["build", "busi", "--source", str(root.parent), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "5  images  (the whole original has 780)" in printed
    assert "1  groups joined by equal images" in printed
    card, records = storage.open_records(tmp_path / "out", "busi")
    assert card == busi.CARD
    stored = {record.case: record for record in records}
    assert stored["malignant (1)"].group == stored["benign (10)"].group == "benign (10)"
    assert stored["malignant (1)"].malignant is True and stored["normal (1)"].malignant is None
    np.testing.assert_array_equal(stored["benign (9)"].mask, (box() | box(12, 9) | box(30, 2)) > 0)
    assert {path: path.read_bytes() for path in root.rglob("*.png")} == before


def test_the_card_adds_up():
    expected = busi.CARD.expected
    assert sum(expected[label] for label in busi.MALIGNANT) == expected["images"]
    assert set(expected) <= set(busi.COUNTED)
