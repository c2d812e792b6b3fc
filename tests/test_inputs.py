"""The files to predict: none is left out without a word, and none is taken for another."""

import os
from pathlib import Path

import pytest

from thyroid_jax.errors import InputError
from thyroid_jax.runs import inputs
from thyroid_jax.untrusted import read_bytes


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_names_are_paths_without_suffix_and_with_it_where_two_are_equal(tmp_path):
    names = ["b/x.png", "a.PNG", "a.tif", "scan.nii.gz", "notes.txt", ".hidden.png", "__MACOSX/x.png", "b/.h/y.png"]
    touch(*(tmp_path / name for name in names))
    found = inputs.find([tmp_path])
    assert found.failed == {}
    assert {name: str(path.relative_to(tmp_path)) for name, path in found.files.items()} == {
        "a.PNG": "a.PNG",
        "a.tif": "a.tif",
        "b/x": "b/x.png",
        "scan": "scan.nii.gz",
    }
    assert list(inputs.find([tmp_path / "b", tmp_path / "a.tif"]).files) == ["x", "a"]


def test_a_dicom_file_without_suffix_is_found_by_its_mark(tmp_path):
    (tmp_path / "1.2.840.113").write_bytes(bytes(128) + b"DICM")
    touch(tmp_path / "1.2.840.114")
    assert list(inputs.find([tmp_path]).files) == ["1.2.840.113"]


def test_what_only_looks_like_a_picture_is_listed_so_that_reading_it_says_why(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")  # no suffix: it is not opened either
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    found = inputs.find([tmp_path, tmp_path / "lost.png"][:1])
    assert list(found.files) == ["lost", "pipe", "round"]
    for path in found.files.values():
        with pytest.raises(InputError):
            read_bytes(path, largest=10)
    assert list(inputs.find([tmp_path / "lost.png"]).files) == ["lost"]


def test_pictures_of_a_kind_that_is_not_read_are_named(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.WEBP", tmp_path / "clip.mp4", tmp_path / "notes.txt")
    found = inputs.find([tmp_path])
    assert list(found.files) == ["a"]
    assert {os.path.basename(path): reason for path, reason in found.failed.items()} == {
        "b.WEBP": "name: .WEBP is not read; save it as PNG or TIFF",
        "clip.mp4": "name: .mp4 is not read; save it as PNG or TIFF",
    }


def test_a_folder_that_is_a_link_or_cannot_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "in" / "x.png", tmp_path / "other" / "y.png", tmp_path / "in" / "closed" / "z.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    scandir = os.scandir

    def without_permission(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_permission)
    found = inputs.find([tmp_path / "in"])
    assert list(found.files) == ["x"]
    assert found.failed == {
        str(tmp_path / "in" / "closed"): "folder: cannot be read (Permission denied)",
        str(tmp_path / "in" / "link"): "folder: is a link; name the folder itself as an input",
        str(tmp_path / "in" / "loop"): "folder: is a link; name the folder itself as an input",
    }
    assert list(inputs.find([tmp_path / "in" / "link"]).files) == ["y"]


def test_names_of_other_encodings_and_great_length(tmp_path):
    touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")), tmp_path / ("a" * 250 + ".png"))
    found = inputs.find([tmp_path])
    assert list(found.files) == ["\udcff"] and inputs.printable(found.files["\udcff"]).endswith("/\\xff.png")
    (reason,) = found.failed.values()
    assert reason.startswith("name: of more than 200 bytes")


def test_what_cannot_be_predicted_at_all(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        inputs.find([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"^no picture is named: give files"):
        inputs.find([])
    with pytest.raises(InputError, match=r"no picture there; known are \.png"):
        inputs.find([tmp_path])
    touch(tmp_path / "a" / "x.png", tmp_path / "b" / "x.png")
    with pytest.raises(InputError, match=r"x\.png: two inputs hold"):
        inputs.find([tmp_path / "a", tmp_path / "b"])


def test_a_picture_whose_mask_would_be_a_folder_of_other_pictures(tmp_path):
    touch(tmp_path / "x.npy", tmp_path / "x.png" / "y.npy")
    with pytest.raises(InputError, match=r"x\.npy: its mask would be x\.png, which is a folder of other pictures"):
        inputs.find([tmp_path])
    touch(tmp_path / "x" / "y.npy")
    assert list(inputs.find([tmp_path / "x", tmp_path / "x.npy"]).files) == ["y", "x"]


def test_frames_have_numbers_unless_another_file_has_that_name():
    assert inputs.frame_names("clip", 1, {"clip": Path("clip.tif")}) == ["clip"]
    assert inputs.frame_names("clip", 2, {}) == ["clip#0001", "clip#0002"]
    with pytest.raises(InputError, match="clip#0002 is also another file"):
        inputs.frame_names("clip", 2, {"clip#0002": Path("clip#0002.png")})
