"""Arrays of numpy: exact pixels, and nothing but InputError for a bad file."""

import numpy as np
import pytest
from format_files import CLEAR, CODES, FILM, GREY, LUMA, RGB, both_refused, expect, expect_labels, npy, refused, writer

put = pytest.fixture(writer, name="put")


def test_arrays_of_numpy(put):
    film = np.concatenate([FILM, FILM[:1]])
    for values, grey in ((GREY, GREY), (GREY[..., None], GREY), (film, film), (FILM[..., None], FILM)):
        path = put("a.npy", npy(values))
        expect(path, grey, *(["frames along the first axis"] if grey.ndim == 3 else []))
        expect_labels(path, grey)
    expect(put("f.npy", npy(np.asfortranarray(GREY))), GREY)
    path = put("c.npy", npy(RGB))
    expect(path, LUMA, "colour turned to luma")
    expect_labels(path, CODES)
    path = put("d.npy", npy(np.dstack([RGB, CLEAR])))
    expect(path, np.where(CLEAR, LUMA, 0), "colour turned to luma", "transparent parts are black")
    expect_labels(path, np.where(CLEAR, CODES, 0))
    expect(put("e.npy", npy(GREY / 255)), GREY, "fractions in [0, 1] scaled by 255")
    expect(put("g.npy", npy((GREY.astype(">u2") * 257).astype(">u2"))), GREY, "16 bits scaled to 8 by 1/257")
    path = put("b.npy", npy(GREY > 100))
    expect(path, (GREY > 100) * 255)
    expect_labels(path, GREY > 100)
    path = put("i.npy", npy(GREY.astype(np.int64) - 5))
    refused(path, "^values: int64 from -5 to 233, beyond 0 to 255")
    expect_labels(path, GREY.astype(int) - 5)


def test_three_frames_may_be_colours(put):
    path = put("a.npy", npy(FILM))
    refused(path, "^shape: three frames look like the colours of one picture; save it as PNG")
    expect_labels(path, FILM)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5, np.uint8), r"^shape: \[5\]; known are"),
        (np.zeros((5, 7, 2), np.uint8), r"^shape: \[5 7 2\]"),
        (np.zeros((2, 2, 5, 7, 3), np.uint8), r"^shape: \[2 2 5 7 3\]"),
        (np.zeros((0, 7), np.uint8), "^size: 1 frames of 7 x 0 pixels"),
        (np.zeros((5, 7), np.complex64), "^values: of type complex64"),
        (np.zeros((5, 7), "U3"), "^values: of type <U3"),
        (np.zeros((5, 7), [("a", "u1")]), "^values: of type"),
        (np.array([[{}]]), "^values: of type object"),
        (np.full((5, 7), 1 << 40), "^values: "),
        (np.full((5, 7), np.inf), "^values: "),
        (np.full((5, 7), 0x7FA00000, np.uint32).view(np.float32), "^values: "),  # a NaN that warns when it is used
    ],
)
def test_arrays_that_are_no_picture_are_refused(put, array, message):
    both_refused(put("a.npy", npy(array, allow_pickle=True)), message)


def test_an_array_that_is_cut_off_is_refused(put):
    both_refused(put("a.npy", npy(GREY)[:-1]), r"^file: too short for \[5 7\] values of 1 bytes; it was cut off$")
    both_refused(put("b.npy", b"\x93NUMPY\x01\x00\x76\x00{'descr': " + b"(" * 108), "^npy: not a whole file")
    both_refused(put("c.npy", b"PK\x03\x04" + bytes(90)), "^npy: not a whole file")
