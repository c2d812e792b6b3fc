"""The folder of predictions: refused before any work where it cannot be used; nothing of a stranger's is removed."""

import errno
import io
import json
import tempfile

import numpy as np
import pytest
from PIL import Image

from thyroid_jax.errors import InputError
from thyroid_jax.runs import outputs


def test_a_usable_folder_is_not_touched(tmp_path):
    outputs.check(tmp_path / "new" / "deep", [tmp_path / "in"], overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_into_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"--out .*out: .*file cannot be written into \(Not a directory\)"):
        outputs.check(tmp_path / "file" / "out", [], overwrite=False)

    def read_only(dir):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(InputError, match=r"cannot be written into \(Read-only file system\). Choose a folder"):
        outputs.check(tmp_path / "out", [], overwrite=False)


def test_inputs_and_earlier_predictions_are_kept(tmp_path):
    (tmp_path / "in").mkdir()
    for out in (tmp_path / "in", tmp_path / "in" / "out"):
        with pytest.raises(InputError, match="lies inside the input"):
            outputs.check(out, [tmp_path / "in"], overwrite=True)
    (tmp_path / "out" / "masks" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "predictions.csv").write_text("")
    (tmp_path / "out" / "predictions.json").write_text("{}")
    with pytest.raises(InputError, match="Add --overwrite"):
        outputs.check(tmp_path / "out", [], overwrite=False)
    outputs.check(tmp_path / "out", [], overwrite=True)


def test_masks_of_a_killed_process_are_not_mixed_with_new_ones(tmp_path):
    (tmp_path / "masks" / "deep").mkdir(parents=True)
    outputs.check(tmp_path, [], overwrite=False)
    (tmp_path / "masks" / "deep" / "a.png").write_bytes(b"")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"a\.png: is of predictions that were stopped"):
            outputs.check(tmp_path, [], overwrite=overwrite)


def test_only_named_files_inside_the_folder_are_removed(tmp_path):
    out = tmp_path / "out"
    kept = [out / "masks" / "mine.png", tmp_path / "victim.png", out / "notes.txt"]
    gone = [out / "masks" / "a.png", out / "overlays" / "a.png", out / "segmentations" / "b.dcm", out / "index.html"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    about = {"masks": ["a", "../../victim", "gone-before"], "segmentations": ["b"]}
    (out / "predictions.json").write_text(json.dumps(about))
    (out / "predictions.csv").write_text("")
    outputs.remove_older(out)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*gone, out / "predictions.csv", out / "predictions.json"))


def test_a_table_of_something_else_is_not_taken_for_earlier_predictions(tmp_path):
    (tmp_path / "predictions.json").write_text("[]")
    with pytest.raises(InputError, match=r"predictions\.json: is not of earlier predictions"):
        outputs.remove_older(tmp_path)
    assert (tmp_path / "predictions.json").is_file()


def test_pictures_are_written_exactly():
    for shape in ((5, 7), (5, 7, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(outputs.png(image)))), image)
