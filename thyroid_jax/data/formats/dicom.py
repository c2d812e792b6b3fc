"""DICOM files: their pixels, decoded frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.data.formats import limits
from thyroid_jax.data.formats._shared import Stored, faults_of, listed, package
from thyroid_jax.data.formats.dicom_grey import Conversion, converter
from thyroid_jax.data.formats.dicom_header import Layout, dataset_of, layout_of, spacing_of, transfer_syntax
from thyroid_jax.data.formats.values import COLOURED
from thyroid_jax.errors import InputError

MARK_END = 132  # bytes up to the end of the mark of a DICOM file
_RLE = "1.2.840.10008.1.2.5"
_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 203))
_JP2 = b"\0\0\0\x0cjP  "  # the first box before a JPEG 2000 stream


def is_marked(content: bytes) -> bool:
    """Whether a file, of which this is the start, has DICOM's mark at byte 128."""
    return content[128:MARK_END] == b"DICM"


def read(content: bytes, *, exact: bool) -> Stored:
    """Grey values as the file's rescaling and first window show them; ``exact`` gives the stored values instead."""
    pydicom = package("pydicom")
    if not is_marked(content):
        raise InputError("DICOM: no mark (DICM) after 128 bytes; export the picture again as a DICOM file")
    with faults_of("DICOM", private=True):
        syntax = transfer_syntax(content, pydicom)
        dataset = dataset_of(content, pydicom)
        layout = layout_of(dataset)
        decoder = _decoder(syntax)
        if decoder.UID.is_encapsulated:
            _check_compressed(dataset, layout, syntax)
        spacing, remarks = spacing_of(dataset)
        if "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset:
            remarks.append("windows and pixel sizes of functional groups are not used")
        if exact and layout.samples == 3 and layout.bits > 8:
            raise InputError(f"BitsStored: {layout.bits} for a mask of colours; save it with 8")
        convert = None if exact else converter(dataset, layout, syntax)
        more = [] if convert is None else convert.remarks
        frames, colour, smallest, largest = _decoded(dataset, layout, decoder, convert)
    if layout.samples == 3 and colour is not None:
        more.append(COLOURED)
    if layout.scaling in more:
        more += _about_contrast(layout, smallest, largest)
    return Stored(frames, spacing=spacing, remarks=(*remarks, *more), lossy=syntax in _LOSSY, colour=colour)


def _about_contrast(layout: Layout, smallest: int, largest: int) -> list[str]:
    """A remark about a picture without a window that stays dark; InputError for one that would be of one grey."""
    span = layout.high - layout.low
    if 0 < 255 * (largest - smallest) < span:
        raise InputError(
            f"values: from {smallest} to {largest} of {layout.bits} bits without a window, scaled to 8 bits the "
            "picture would be of one grey; export it with a window, or with 8 bits"
        )
    dark = largest < layout.low + span / 16
    return ["no value reaches a sixteenth of the range: the picture stays dark"] if dark else []


# Compression


def _decoder(syntax: str) -> Any:
    """pydicom's decoder of a transfer syntax, one that the installed packages make usable."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    uid = UID(syntax)
    try:
        decoder = get_decoder(uid)
    except NotImplementedError as error:  # raised by pydicom for a syntax that it does not know
        name = uid.name if uid.is_transfer_syntax else "an unknown one"
        raise InputError(f"compression: {name} is not read; export the picture uncompressed") from error
    if not decoder.is_available:
        needs = " or ".join(sorted(decoder.missing_dependencies))
        raise InputError(f"compression: {uid.name} needs another package ({needs}); or export it uncompressed")
    return decoder


def _check_compressed(dataset: Any, layout: Layout, syntax: str) -> None:
    """Refuse compressed frames that would take minutes or fill the memory.

    A frame that is longer than its pixels unpacks to far more than they are. pydicom walks the boxes before a JPEG 2000
    stream, and would do so without end at a box of no length.
    """
    from pydicom.encaps import generate_frames

    plain = layout.rows * layout.columns * layout.samples * layout.allocated // 8
    if syntax == _RLE and plain > limits.LARGEST_RLE_FRAME:
        raise InputError(f"compression: RLE frames of {plain} bytes; export the picture uncompressed")
    names = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    offsets = tuple(dataset.get(name) for name in names) if all(name in dataset for name in names) else None
    for frame in generate_frames(dataset.PixelData, number_of_frames=layout.frames, extended_offsets=offsets):
        if len(frame) > (1.02 if syntax == _RLE else 2) * plain + (1 << 16):
            raise InputError(f"compression: a frame of {len(frame)} bytes for {plain}; export it uncompressed")
        if frame.startswith(_JP2) and not _has_few_boxes(frame):
            raise InputError("compression: the header of a JPEG 2000 frame is damaged; export the picture again")


def _has_few_boxes(frame: bytes) -> bool:
    """Whether the boxes of a JP2 header lead to its stream of pixels in a few steps."""
    place = len(_JP2) + 4
    for _ in range(100):
        if frame[place + 4 : place + 8] == b"jp2c":
            return True
        place += int.from_bytes(frame[place : place + 4], "big")
    return False


# Frames


class _Decoded(NamedTuple):
    """Frames [n h w] or [n h w 3]; the difference of their channels, None if there is none; their extreme values."""

    frames: np.ndarray
    colour: np.ndarray | None
    smallest: int
    largest: int


def _decoded(dataset: Any, layout: Layout, decoder: Any, convert: Conversion | None) -> _Decoded:
    """All frames: grey uint8 after ``convert``; without it as stored, one channel as int32 and colours as uint8."""
    shape: tuple[int, ...] = (layout.frames, layout.rows, layout.columns)
    flat, kind = convert or layout.samples == 1, np.uint8 if convert or layout.samples == 3 else np.int32
    frames: np.ndarray = np.empty(shape if flat else (*shape, 3), kind)
    colour = np.zeros(shape, np.uint8) if convert and convert.colour else None
    number, smallest, largest = 0, layout.high, layout.low
    for number, (frame, colours) in enumerate(_decoded_by(decoder, dataset), start=1):
        if number > layout.frames:
            raise InputError(f"NumberOfFrames: {layout.frames}, but there are more frames")
        _check_frame(frame, colours, layout)
        smallest, largest = min(smallest, int(frame.min())), max(largest, int(frame.max()))
        frames[number - 1] = frame if convert is None else convert.grey(frame)
        if convert and convert.colour and colour is not None:
            colour[number - 1] = convert.colour(frame)
    if number != layout.frames:
        raise InputError(f"NumberOfFrames: {layout.frames}, but there are {number}")
    return _Decoded(frames, colour if colour is not None and colour.any() else None, smallest, largest)


def _check_frame(frame: np.ndarray, colours: Any, layout: Layout) -> None:
    if layout.samples == 3 and colours != "RGB":
        raise InputError(f"PhotometricInterpretation: {layout.colours} cannot be turned to RGB here")
    if frame.shape[:2] != (layout.rows, layout.columns):
        raise InputError(
            f"Rows: a frame is {listed(frame.shape)}, the header says {listed((layout.rows, layout.columns))}"
        )
    low, high = int(frame.min()), int(frame.max())
    if not layout.low <= low <= high <= layout.high:
        raise InputError(f"BitsStored: {layout.bits}, but the pixels have values from {low} to {high}")


def _decoded_by(decoder: Any, dataset: Any) -> Iterator[tuple[np.ndarray, Any]]:
    """Each frame and what pydicom made of its colours; it raises RuntimeError when no installed package decodes it."""
    try:
        for frame, found in decoder.iter_array(dataset, raw=False):
            yield frame, found["photometric_interpretation"]
    except RuntimeError as error:
        raise InputError(
            f"compression: {decoder.UID.name} of this kind cannot be decoded here, or the file is damaged; "
            "export the picture uncompressed, or install pylibjpeg and pylibjpeg-libjpeg"
        ) from error
