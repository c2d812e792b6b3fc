"""Arrays of numpy in ``.npy`` files, without pickled objects."""

from __future__ import annotations

import io

import numpy as np

from thyroid_jax.data.formats._shared import (
    Stored,
    array,
    check_type,
    faults_of,
    listed,
    refuse_colours,
    split_channels,
)
from thyroid_jax.data.formats.limits import check_size
from thyroid_jax.errors import InputError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(content: bytes, *, exact: bool) -> Stored:
    """Values of [h w], [n h w], [h w c] or [n h w c], c of 1, 3 or 4; labels and grey levels are stored alike."""
    file = io.BytesIO(content)
    with faults_of("npy"):
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise InputError(f"npy: of version {version}; 1.0 and 2.0 are read")
        shape, by_columns, dtype = _HEADERS[version](file)
    check_type(dtype)
    channels = shape[-1] if len(shape) in (3, 4) and shape[-1] in (1, 3, 4) else 0
    plain = shape[:-1] if channels else shape
    if len(plain) not in (2, 3) or plain[-1] == 2:
        raise InputError(f"shape: {listed(shape)}; known are [h w], [n h w] and either with a last axis of 1, 3 or 4")
    frames, h, w = (1, *plain) if len(plain) == 2 else plain
    check_size(h, w, frames)
    if not exact and not channels:
        refuse_colours(frames)
    values = array(content, dtype, shape, file.tell(), "F" if by_columns else "C")
    remarks = ("frames along the first axis",) if frames > 1 else ()
    return split_channels(values.reshape(frames, h, w, channels or 1), remarks=remarks)
