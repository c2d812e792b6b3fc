"""Files of NIfTI-1 and NIfTI-2, ``.nii`` and ``.nii.gz``.

NIfTI stores the axes (x, y, z). Here x runs across and y runs down, and the arrays are never flipped by the affine
matrix: this is how SimpleITK, and so nnU-Net, turns a flat picture into NIfTI and back. A file whose first axis is the
row, as ``nibabel.Nifti1Image(pixels, affine)`` makes it from pixels [h w], is therefore read with its rows and columns
exchanged; such a file does not say so. An image and its mask that were written alike always match.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.data.formats import limits
from thyroid_jax.data.formats._shared import (
    UNKNOWN,
    Stored,
    array,
    check_type,
    faults_of,
    listed,
    package,
    pixel_size,
    refuse_colours,
    split_channels,
)
from thyroid_jax.errors import InputError

_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}  # by the unit's code in a header: metres, millimetres, micrometres


class _Header(NamedTuple):
    """What a header says of its values; ``across`` and ``down`` are a pixel's sides in the unit of the code."""

    shape: list[int]
    dtype: np.dtype
    offset: float
    slope: float
    intercept: float
    across: float
    down: float
    unit: int


def read(content: bytes, *, exact: bool) -> Stored:
    """Values with slope and intercept applied; labels and grey levels are stored alike."""
    nibabel = package("nibabel")
    content = _unzipped(content) if content[:2] == b"\x1f\x8b" else content
    header = _header(content, nibabel)
    names = header.dtype.names
    across, down, frames, channels = _axes(header.shape, coloured=bool(names))
    limits.check_size(down, across, frames)
    if not exact and not names and header.shape[-1] == 3:
        refuse_colours(frames)
    values = array(content, header.dtype, header.shape, int(header.offset), "F")
    if names:
        values = np.stack([values[name] for name in names], axis=-1)
    if (header.slope, header.intercept) != (1, 0):
        values = values.astype(np.float64) * header.slope + header.intercept
    values = values.reshape(across, down, frames, len(names) if names else channels, order="F").transpose(2, 1, 0, 3)
    spacing, remarks = _spacing(header)
    return split_channels(values, spacing=spacing, remarks=("axes of NIfTI taken as across and down", *remarks))


def _unzipped(content: bytes) -> bytes:
    largest = limits.LARGEST_ARRAY
    with faults_of("gzip"), gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        plain = file.read(largest + 1)
    if len(plain) > largest:
        raise InputError(f"file: unpacks to more than {largest} bytes")
    return plain


def _header(content: bytes, nibabel: Any) -> _Header:
    kinds = {348: (nibabel.Nifti1Header, b"n+1\0", 344), 540: (nibabel.Nifti2Header, b"n+2\0", 4)}
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    size = next((size for size in kinds if size in sizes), 0)
    kind, mark, place = kinds.get(size, (None, b"", 0))
    if kind is None or content[place : place + 4] != mark:
        raise InputError("NIfTI: no header of one file (.nii) of NIfTI-1 or NIfTI-2")
    with faults_of("NIfTI"):
        fields = kind(content[:size], check=False)
        axes = int(fields["dim"][0])
        shape = [int(size) for size in fields["dim"][1 : axes + 1]]
        if not 2 <= axes <= 7 or min(shape) < 1:
            raise InputError(f"dim: {listed(fields['dim'].tolist())}; a picture has 2 or 3 axes")
        slope, intercept = fields.get_slope_inter()  # None where a file leaves them out
        header = _Header(
            shape=shape,
            dtype=fields.get_data_dtype(),
            offset=float(fields["vox_offset"]),
            slope=float(slope or 1),
            intercept=float(intercept or 0),
            across=float(fields["pixdim"][1]),
            down=float(fields["pixdim"][2]),
            unit=int(fields["xyzt_units"]) & 7,
        )
    if not (size + 4 <= header.offset <= len(content) and header.offset == int(header.offset)):
        raise InputError(f"vox_offset: {header.offset:g}, which is no place in the file")
    for name in header.dtype.names or (None,):
        check_type(header.dtype[name] if name else header.dtype)
    return header


def _axes(shape: Sequence[int], *, coloured: bool) -> tuple[int, int, int, int]:
    """Pixels across and down, frames, and the channels that are an axis of their own: one, or three or four.

    Channels are the fifth axis. ``coloured`` says that each value is a colour already.
    """
    vector = not coloured and len(shape) == 5 and shape[3] == 1 and shape[4] in (3, 4)
    across, down, *rest = shape[:3] if vector else shape
    frames = max([1, *rest])
    if math.prod(rest) != frames or (frames > 1 and 1 in (across, down)):
        raise InputError(f"dim: {listed(shape)}; known are x and y, and one axis of frames after them")
    return across, down, frames, shape[4] if vector else 1


def _spacing(header: _Header) -> tuple[tuple[float, float], list[str]]:
    """Pixel size (rows, columns) in mm; many tools leave out the unit and mean mm."""
    if header.unit not in (0, *_MILLIMETRES):
        return UNKNOWN, [f"pixel size left out: its unit has the unknown code {header.unit}"]
    scale = _MILLIMETRES.get(header.unit, 1.0)
    size, remarks = pixel_size(header.down * scale, header.across * scale)
    return size, ["pixel size has no unit, taken as mm"] if header.unit == 0 and not math.isnan(size[0]) else remarks
