"""One file of every usual format: kinds, limits, and nothing but InputError for a bad one."""

import gzip
import importlib
import os
import struct
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from format_files import FILM, GREY, both_refused, chunks, npy, picture_bytes, refused, writer
from medical_files import dicom, encoded, nibabel, nifti, region, rle
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from thyroid_jax.data.formats import SUFFIXES, kind_of, limits, read_labels, read_picture
from thyroid_jax.errors import InputError

put = pytest.fixture(writer, name="put")


def test_the_kind_is_told_by_the_suffix(put, tmp_path):
    assert SUFFIXES == tuple(".png .jpg .jpeg .bmp .tif .tiff .dcm .dicom .nii .nii.gz .npy".split())
    kinds = {"a.PNG": "picture", "a.b.jpeg": "picture", "A.DCM": "dicom", "a.nii.gz": "nifti", "a.NPY": "numpy"}
    for name, kind in kinds.items():
        assert kind_of(tmp_path / name) == kind
    for name in ("a.gz", "a.txt", "notes", "png"):
        assert kind_of(tmp_path / name) is None
    for name in ("IM0001", "1.2.840.99"):
        assert kind_of(put(name, bytes(128) + b"DICM")) == "dicom"
    assert kind_of(put("b.txt", bytes(128) + b"DICM")) is None
    assert kind_of(put("IM0002", bytes(128) + b"DIC")) is None
    refused(put("a.txt", b""), r"^file: of no kind that can be read; these are \.png \.jpg")


def test_only_regular_files_of_limited_size_are_opened(put, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.dcm").mkdir()
    (tmp_path / "lost.nii").symlink_to(tmp_path / "nowhere")
    (tmp_path / "device.npy").symlink_to("/dev/zero")
    assert kind_of(tmp_path / "pipe") is None
    for name in ("pipe.png", "folder.dcm", "device.npy"):
        both_refused(tmp_path / name, "^file: is not a regular file$")
    both_refused(tmp_path / "lost.nii", "^file: is a link that leads nowhere$")
    both_refused(tmp_path / "absent.png", "^file: is not there$")
    monkeypatch.setattr(limits, "LARGEST_PICTURE", 20)
    both_refused(put("a.png", Image.fromarray(GREY)), "^file: .* such a file has at most 20$")


def test_the_limits_of_size_hold_before_decoding(put, monkeypatch):
    files = [
        put("a.png", Image.fromarray(GREY)),
        put("a.tif", Image.fromarray(GREY)),
        put("a.npy", npy(GREY)),
        put("a.nii", nifti(GREY.T)),
        put("a.dcm", dicom(GREY)),
    ]
    monkeypatch.setattr(limits, "LARGEST_SIDE", 6)
    for path in files:
        both_refused(path, "^size: 7 x 5, a side has at most 6 pixels$")
    monkeypatch.setattr(limits, "LARGEST_SIDE", 7)
    monkeypatch.setattr(limits, "MOST_PIXELS", 34)
    for path in files:
        both_refused(path, "^size: 35 pixels in all frames, a file has at most 34$")
    monkeypatch.setattr(limits, "MOST_PIXELS", 1000)
    monkeypatch.setattr(limits, "MOST_FRAMES", 2)
    for path in (
        put("b.tif", Image.fromarray(FILM[0]), save_all=True, append_images=[Image.fromarray(f) for f in FILM[1:]]),
        put("b.npy", npy(FILM)),
        put("b.nii", nifti(FILM.transpose(2, 1, 0))),
        put("b.dcm", dicom(FILM, NumberOfFrames=3)),
    ):
        both_refused(path, "^frames: 3, a file has at most 2$")


def test_sizes_that_no_memory_holds_are_refused_by_their_header(put):
    both_refused(put("a.png", chunks(60_000, 60_000, 8, 0, [])), "^picture: .*Decompression")
    for name, content in {
        "a.npy": npy(GREY).replace(b"(5, 7)", b"(2147483648, 2147483648)")[:-20],
        "a.nii": nifti(GREY.T)[:42] + struct.pack("<hh", 32767, 32767) + nifti(GREY.T)[46:],
        "a.dcm": dicom(GREY, Rows=65535, Columns=65535),
    }.items():
        both_refused(put(name, content), "^(size|file|npy)")


def test_a_missing_package_is_named(put, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    for name, package in (("a.dcm", "pydicom"), ("a.nii", "nibabel")):
        both_refused(put(name, bytes(400)), rf"^{package} is missing; pip install 'thyroid-jax\[formats\]'$")


def test_warnings_of_the_libraries_are_silent_in_many_threads(put):
    padded = dicom(GREY.tobytes() + bytes(3))  # pydicom warns of the padding
    path = put("a.dcm", padded)
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("always")
        found = list(pool.map(read_picture, [path] * 40))
    assert not caught and warnings.filters == before
    assert all((picture.frames == GREY).all() for picture in found)


def samples():
    """A small file of every format and coding, by suffix and name."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 10), np.uint8)
    picture = Image.fromarray(noise)
    exif = Image.Exif()
    exif[274] = 6
    table = Dataset()
    table.LUTDescriptor = [100, 40, 8]
    table.add_new(0x00283006, "OW", np.arange(155, 255, dtype="<u2").tobytes())
    size = {"Rows": 12, "Columns": 10}
    regions = {"SequenceOfUltrasoundRegions": [region(0.01, 0.01, (0, 0, 2, 2))], "PixelSpacing": [0.1, 0.2]}
    ramp = np.arange(256, dtype="u1").tobytes()
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        palette |= {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 8], f"{name}PaletteColorLookupTableData": ramp}
    indexed = picture.convert("P")
    yield ".png", "grey", picture_bytes(picture, "PNG", exif=exif)
    yield ".png", "palette", picture_bytes(indexed, "PNG", transparency=bytes(9))
    yield ".jpg", "jpeg", picture_bytes(picture.convert("RGB"), "JPEG", exif=exif)
    yield ".bmp", "bmp", picture_bytes(indexed, "BMP")
    yield ".tif", "pages", picture_bytes(picture, "TIFF", save_all=True, append_images=[picture], exif=exif)
    yield ".tif", "lzw", picture_bytes(picture.convert("RGB"), "TIFF", compression="tiff_lzw")
    yield ".tif", "deflate", picture_bytes(picture, "TIFF", compression="tiff_adobe_deflate")
    yield ".npy", "npy", npy(noise)
    yield ".nii", "nifti", nifti(noise)
    yield ".nii.gz", "gzip", gzip.compress(nifti(noise.astype(np.float32) / 255))
    yield ".nii", "nifti2", nifti(noise, cls=nibabel.Nifti2Image)
    yield ".dcm", "explicit", dicom(noise, WindowCenter=[100, 9], WindowWidth=[50, 9], **size, **regions)
    yield ".dcm", "implicit", dicom(noise, ImplicitVRLittleEndian, VOILUTSequence=[table], **size)
    yield ".dcm", "palette", dicom(noise, **size, **palette)
    yield ".dcm", "colour", dicom(np.dstack([noise] * 3), PhotometricInterpretation="YBR_FULL", **size)
    yield ".dcm", "rle", encoded(RLELossless, [rle(noise)] * 2, NumberOfFrames=2, **size)
    yield ".dcm", "jpeg", encoded(JPEGBaseline8Bit, [picture_bytes(picture, "JPEG")], **size)
    yield (
        ".dcm",
        "jpeg2000",
        encoded(JPEG2000Lossless, [picture_bytes(picture, "JPEG2000", irreversible=False)], **size),
    )


def mutants(content, count, seed=0):
    """Damaged copies: changed, extreme, swapped, repeated, inserted or missing bytes, mostly in the header."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 6))):
            end = len(damaged) if rng.random() < 0.5 else min(len(damaged), 600)
            at = int(rng.integers(0, max(end, 1)))
            match int(rng.integers(0, 6)):
                case 0:
                    damaged[at : at + 1] = bytes([int(rng.integers(0, 256))])
                case 1:
                    damaged[at : at + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f"][
                        int(rng.integers(0, 3))
                    ]
                case 2:
                    del damaged[at : at + int(rng.integers(1, 40))]
                case 3:
                    damaged[at:at] = rng.bytes(int(rng.integers(1, 20)))
                case 4:
                    del damaged[at:]
                case 5:
                    damaged[at:at] = damaged[at : at + int(rng.integers(1, 200))]
        yield bytes(damaged)


@pytest.mark.parametrize(
    ("suffix", "name", "content"), list(samples()), ids=lambda value: value if type(value) is str else ""
)
def test_damaged_files_raise_nothing_but_input_errors(put, suffix, name, content):
    assert read_picture(put(f"whole{suffix}", content)).frames.shape[1:] in ((12, 10), (10, 12))
    outcomes = {"read": 0, "refused": 0}
    for damaged in mutants(content, 30):
        path = put(f"a{suffix}", damaged)
        began = time.monotonic()
        for read in (read_picture, read_labels):
            try:
                read(path)
                outcomes["read"] += 1
            except InputError as error:
                assert 0 < len(str(error)) < 400 and str(error).isprintable()
                outcomes["refused"] += 1
        assert time.monotonic() - began < 5
    assert outcomes["refused"] > 0
