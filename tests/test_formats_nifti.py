"""NIfTI: exact pixels, the right way up, pixel sizes in mm, and nothing but InputError for a bad file."""

import gzip
import math
import struct

import numpy as np
import pytest
from format_files import CODES, FILM, GREY, LUMA, RGB, both_refused, expect, expect_labels, refused, writer
from medical_files import AXES, UNKNOWN, nibabel, nifti

from thyroid_jax.data.formats import limits, read_picture

put = pytest.fixture(writer, name="put")


def test_nifti_as_simpleitk_and_nnunet_write_it(put):
    for array in (GREY.T, GREY.T[..., None], GREY.T[..., None, None]):
        path = put("a.nii.gz", gzip.compress(nifti(array, (0.08, 0.05, 999, 1)[: array.ndim])))
        expect(path, GREY, AXES, spacing=(0.05, 0.08))
        expect_labels(path, GREY)
    film = np.concatenate([FILM, FILM[:1]])
    expect(put("b.nii", nifti(film.transpose(2, 1, 0))), film, AXES, UNKNOWN)
    expect(put("c.nii", nifti(film.transpose(2, 1, 0)[:, :, None])), film, AXES, UNKNOWN)
    expect(put("d.nii", nifti(GREY.T, cls=nibabel.Nifti2Image)), GREY, AXES, UNKNOWN)
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.uint16)
    swapped = nibabel.Nifti1Image(GREY.T.astype(np.uint16) * 257, np.eye(4), header)
    assert swapped.to_bytes()[:4] == bytes([0, 0, 1, 92])
    path = put("e.nii", swapped.to_bytes())
    expect(path, GREY, AXES, UNKNOWN, "16 bits scaled to 8 by 1/257")
    expect_labels(path, GREY.astype(int) * 257)


def test_three_frames_may_be_colours(put):
    path = put("a.nii", nifti(FILM.transpose(2, 1, 0)))
    refused(path, "^shape: three frames look like the colours of one picture; save it as PNG")
    expect_labels(path, FILM)
    refused(put("b.nii", nifti(FILM.transpose(2, 1, 0)[:, :, None])), "^shape: three frames look like")


def test_rows_first_arrays_of_nibabel_are_read_with_their_axes_exchanged(put):
    expect(put("a.nii", nibabel.Nifti1Image(GREY, np.eye(4)).to_bytes()), GREY.T, AXES, UNKNOWN)


def test_the_pixel_size_of_nifti_is_in_mm(put):
    for unit, factor in (("meter", 1000), ("mm", 1), ("micron", 0.001)):
        path = put("a.nii", nifti(GREY.T, (0.08 / factor, 0.05 / factor), unit))
        np.testing.assert_allclose(read_picture(path).spacing, (0.05, 0.08), rtol=1e-5)
        assert read_picture(path).remarks == (AXES,)
    path = put("a.nii", nifti(GREY.T, (0.08, 0.05), "unknown"))
    expect(path, GREY, AXES, "pixel size has no unit, taken as mm", spacing=(0.05, 0.08))
    content = bytearray(nifti(GREY.T, (0.08, 0.05)))
    content[123] = 7
    expect(put("b.nii", bytes(content)), GREY, AXES, "pixel size left out: its unit has the unknown code 7")
    for size in (0.0, -1.0, math.nan, math.inf):
        content[123], content[80:84] = 2, struct.pack("<f", size)
        expect(put("b.nii", bytes(content)), GREY, AXES)


def test_colours_in_nifti(put):
    packed = np.ascontiguousarray(RGB.transpose(1, 0, 2)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    path = put("a.nii", nifti(packed))
    expect(path, LUMA, AXES, UNKNOWN, "colour turned to luma")
    expect_labels(path, CODES)
    path = put("v.nii", nifti(RGB.transpose(1, 0, 2)[:, :, None, None], intent_code=1007))
    expect(path, LUMA, AXES, UNKNOWN, "colour turned to luma")
    expect_labels(path, CODES)
    path = put("f.nii", nifti(np.stack([packed, packed, packed], axis=-1)[:, :, None, None]))  # three frames of colours
    expect(path, np.stack([LUMA] * 3), AXES, UNKNOWN, "colour turned to luma")
    expect_labels(path, np.stack([CODES] * 3))


def test_values_of_nifti(put):
    path = put("a.nii", nifti(GREY.T.astype(np.int16)))
    expect(path, GREY, AXES, UNKNOWN, "values of type int16 taken as 8 bits")
    path = put("b.nii", nifti((GREY.T / 255).astype(np.float32)))
    expect(path, GREY, AXES, UNKNOWN, "fractions in [0, 1] scaled by 255")
    path = put("c.nii", nifti(GREY.T.astype(np.float64)))
    refused(path, r"^values: fractions from 0 to 238")
    expect_labels(path, GREY)
    scaled = nifti(GREY.T)
    scaled = scaled[:112] + struct.pack("<ff", 1 / 255, 0) + scaled[120:]
    expect(put("d.nii", scaled), GREY, AXES, UNKNOWN, "fractions in [0, 1] scaled by 255")
    scaled = scaled[:112] + struct.pack("<ff", 2, 3) + scaled[120:]
    expect_labels(put("e.nii", scaled), GREY.astype(int) * 2 + 3)


def test_nifti_that_cannot_be_read_is_refused(put):
    whole = nifti(GREY.T)
    for name, content, message in (
        ("a.nii", bytes(400), "^NIfTI: no header of one file"),
        ("b.nii", whole[:344] + b"ni1\0" + whole[348:], "^NIfTI: no header of one file"),
        ("c.nii", whole[:-1], r"^file: too short for \[7 5\]"),
        ("d.nii", whole[:108] + struct.pack("<f", math.nan) + whole[112:], "^vox_offset: nan, which is no place"),
        ("d2.nii", whole[:108] + struct.pack("<f", 0) + whole[112:], "^vox_offset: 0, which is no place"),
        ("e.nii", whole[:70] + struct.pack("<h", 1) + whole[72:], "^(NIfTI|values)"),
        ("f.nii", whole[:40] + struct.pack("<h", 1) + whole[42:], "^dim: .*; a picture has 2 or 3 axes$"),
        ("g.nii", nifti(np.zeros((7, 5, 2, 2), np.uint8)), r"^dim: \[7 5 2 2\]; known are x and y"),
        ("h.nii", nifti(np.zeros((1, 7, 5), np.uint8)), r"^dim: \[1 7 5\]; known are x and y"),
        ("i.nii", nifti(np.zeros((7, 5), np.complex64)), "^values: of type complex64"),
        ("j.nii.gz", gzip.compress(whole)[:-20], "^gzip: not a whole file"),
        ("k.nii.gz", b"\x1f\x8b junk", "^gzip: not a whole file"),
    ):
        both_refused(put(name, content), message)


def test_a_gzip_bomb_is_not_unpacked(put, monkeypatch):
    monkeypatch.setattr(limits, "LARGEST_ARRAY", 1 << 20)
    path = put("a.nii.gz", gzip.compress(nifti(GREY.T) + bytes(2 << 20)))
    both_refused(path, "^file: unpacks to more than 1048576 bytes$")
