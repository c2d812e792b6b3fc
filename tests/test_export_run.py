"""The script in an exported folder: its letterbox is Pillow's in two passes, and other files are refused."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thyroid_jax.data import pipeline
from thyroid_jax.export import run, safetensors

SIDE = st.integers(1, 90)
SPACING = st.one_of(st.just(run.UNKNOWN), st.tuples(st.floats(0.02, 0.3), st.floats(0.02, 0.3)))


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@settings(max_examples=150, deadline=None)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), SPACING, st.integers(0, 99))
def test_the_letterbox_is_pillows_columns_first_to_the_bit(shape, size, spacing, seed):
    image = picture(shape, seed)
    place = pipeline.letterbox_geometry(shape, size, spacing)
    assert run.place_of(shape, size, spacing) == place
    wide = Image.fromarray(image).resize((place.width, shape[0]), Image.Resampling.BILINEAR)
    wanted = np.zeros(size, np.uint8)
    inside = np.s_[place.top : place.top + place.height, place.left : place.left + place.width]
    wanted[inside] = np.asarray(wide.resize((place.width, place.height), Image.Resampling.BILINEAR))
    found = run.letterbox(image, size, spacing)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(found, pipeline.letterbox(image, size, spacing))


@settings(max_examples=100, deadline=None)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), SPACING, st.integers(0, 99))
def test_the_way_back_is_that_of_the_package(shape, size, spacing, seed):
    values = np.random.default_rng(seed).random(size).astype(np.float32)
    found = run.undo_letterbox(values, shape, spacing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, pipeline.undo_letterbox(values, shape, spacing), atol=2e-7)


def test_weights_by_hand():
    np.testing.assert_array_equal(run.weights(5, 5), np.eye(5))
    np.testing.assert_array_equal(run.weights(1, 3), np.ones((3, 1)))
    np.testing.assert_allclose(run.weights(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    # Half as many: a triangle over four pixels, 1/4 3/4 3/4 1/4, cut off at the ends.
    np.testing.assert_allclose(run.weights(4, 2), [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]])


def test_parameters_are_read_and_other_types_refused():
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.float32(2.5).reshape(())}
    found = run.tensors(safetensors(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape and found[name].dtype == np.float32
    with pytest.raises(ValueError, match="d is of type F64"):
        run.tensors(safetensors({"d": np.zeros(2)}))


def test_a_file_that_is_not_the_one_of_the_facts_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"program")
    part = {"file": "x", "sha256": hashlib.sha256(b"program").hexdigest()}
    assert run.read_checked(tmp_path, part) == b"program"
    (tmp_path / "x").write_bytes(b"Program")
    with pytest.raises(ValueError, match="not the file that"):
        run.read_checked(tmp_path, part)


def counting_model(batch=None):
    """A model that answers with the sum of the image, and remembers the shapes that it saw."""
    seen = []

    def call(parameters, images):
        seen.append(images.shape)
        return {
            "malignancy": images.astype(np.float32).sum((1, 2, 3)),
            "segmentation": images[..., 0] / np.float32(255),
        }

    facts = {"input": {"height": 8, "width": 12}, "program": {"batch": batch}}
    return run.Model(call, {}, facts), seen


@pytest.mark.parametrize("batch, shapes", [(None, [2, 2, 2]), (4, [4, 4])])
def test_images_come_in_batches_of_one_size_and_out_in_their_order(batch, shapes):
    model, seen = counting_model(batch)
    images = [picture((8 + n, 12), n) for n in range(5)]
    found = list(run.predict(model, images, batch_size=2))
    assert [shape[0] for shape in seen] == shapes
    for image, answers in zip(images, found, strict=True):
        assert answers["malignancy"] == run.letterbox(image, (8, 12)).astype(float).sum()
        assert answers["segmentation"].shape == image.shape
    assert list(run.predict(model, [])) == []


def test_what_is_no_grey_picture_is_refused():
    model, _ = counting_model()
    for image in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"give uint8\[h w\]"):
            next(run.predict(model, [image]))
    with pytest.raises(ValueError, match="1 spacings for 2 images"):
        next(run.predict(model, [picture((4, 4))] * 2, spacings=[(0.1, 0.1)]))


@pytest.mark.parametrize("spacing", [(0.1, math.nan), (-0.1, 0.1), (0.0, 0.1), (math.inf, 0.1)])
def test_a_pixel_size_that_is_none_is_refused_and_not_taken_as_a_square(spacing):
    model, _ = counting_model()
    with pytest.raises(ValueError, match=r"spacing .* above 0, or"):
        next(run.predict(model, [picture((4, 4))], spacings=[spacing]))
    with pytest.raises(ValueError, match="above 0, or"):
        run.check_spacing((0.1,))
    run.check_spacing((0.1, 0.2))
    run.check_spacing(run.UNKNOWN)


def test_answers_that_are_not_finite_are_refused():
    model, _ = counting_model()
    broken = model._replace(call=lambda parameters, images: {"grading": np.full((len(images), 2), np.nan)})
    with pytest.raises(ValueError, match="not finite"):
        next(run.predict(broken, [picture((4, 4))]))
    with pytest.raises(ValueError, match="batch_size 0"):
        next(run.predict(model, [picture((4, 4))], batch_size=0))


def test_no_image_is_replaced_by_its_outline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "load", lambda: counting_model()[0]._replace(parameters={}))
    np.save(tmp_path / "scan.npy", picture((8, 12)))
    before = (tmp_path / "scan.npy").read_bytes()
    for arguments, said in (
        (["--out", str(tmp_path)], "folder of an image"),
        (["--out", str(tmp_path / "x" / "..")], "folder of an image"),
        (["--spacing", "-0.1", "0.1"], "above 0"),
    ):
        with pytest.raises(SystemExit) as stop:
            run.main([str(tmp_path / "scan.npy"), *arguments])
        assert stop.value.code == 2 and said in capsys.readouterr().err
    assert (tmp_path / "scan.npy").read_bytes() == before
    run.main([str(tmp_path / "scan.npy"), "--out", str(tmp_path / "outlines")])
    assert np.load(tmp_path / "outlines" / "scan.npy").shape == (8, 12)


@pytest.mark.parametrize("name, content, said", [
    ("gone.npy", None, "No such file"),
    ("scan.png", b"\x89PNG\r\n", r"scan\.png: no array of numbers in NumPy's \.npy format"),
    ("colours.npy", np.zeros((4, 4, 3), np.uint8), r"colours\.npy is uint8\[4, 4, 3\]; give uint8\[h w\]"),
    ("objects.npy", np.array([{}]), r"objects\.npy: no array of numbers"),
])  # fmt: skip
def test_the_script_names_a_file_that_is_no_picture(tmp_path, capsys, name, content, said):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(SystemExit) as stop:
        run.main([str(path)])
    assert stop.value.code == 2 and re.search(said, capsys.readouterr().err)


def test_answers_in_words():
    facts = {"grades": ["low", "high"], "guidance": ["echogenicity"]}
    found = {
        "grading": np.array([0.25, 0.75], np.float32),
        "malignancy": np.float32(0.5),
        "segmentation": np.array([[0.5, 0.4], [0.6, 0.0]], np.float32),
        "guidance": np.array([-1.5], np.float32),
    }
    assert json.loads(json.dumps(run.described(facts, found))) == {
        "grade": "high",
        "grades": {"low": 0.25, "high": 0.75},
        "malignancy": 0.5,
        "outline_area_px": 2,
        "guidance": {"echogenicity": -1.5},
    }
    assert run.described(facts, {}) == {}
