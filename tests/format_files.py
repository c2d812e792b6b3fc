"""What the tests of file formats share: small pixels, files of them, and what is expected of a reader."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from thyroid_jax.data.formats import read_labels, read_picture
from thyroid_jax.errors import InputError

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7  # no turn or flip of it equals it
RGB = np.stack([GREY, 255 - GREY, GREY // 3], axis=-1)
LUMA = np.round(RGB @ [0.299, 0.587, 0.114]).astype(np.uint8)
CODES = (RGB.astype(np.int32) * [65536, 256, 1]).sum(-1)
CLEAR = np.where(GREY > 100, 0, 255).astype(np.uint8)
FILM = np.stack([GREY, 255 - GREY, GREY // 2])


def writer(tmp_path):
    """Writes bytes, or a PIL picture with PIL's options, as a file of the given name."""

    def write(name, content, **options):
        if isinstance(content, Image.Image):
            content.save(tmp_path / name, **options)
        else:
            (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def expect(path, grey, *remarks, spacing=(math.nan, math.nan)):
    found = read_picture(path)
    assert found.frames.dtype == np.uint8 and found.frames.flags.c_contiguous
    np.testing.assert_array_equal(found.frames, grey if np.ndim(grey) == 3 else np.asarray(grey)[None])
    assert found.remarks == remarks
    np.testing.assert_array_equal(found.spacing, spacing)


def expect_labels(path, labels):
    found = read_labels(path)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels if np.ndim(labels) == 3 else np.asarray(labels)[None])


def refused(path, message, read=read_picture):
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert path.name not in str(caught.value) and str(path) not in str(caught.value)


def both_refused(path, message):
    refused(path, message)
    refused(path, message, read_labels)


def picture_bytes(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunks(w, h, depth, colour, rows, clear=None):
    """A PNG of any header and rows, also of kinds that PIL does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    named = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + named + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()
