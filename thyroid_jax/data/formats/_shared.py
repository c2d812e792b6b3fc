"""What the readers of all formats share: the values they return, the pixel size, and what becomes of library errors."""

from __future__ import annotations

import contextlib
import importlib
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.data.formats import limits
from thyroid_jax.errors import InputError

UNKNOWN = (math.nan, math.nan)
Convert = Callable[[np.ndarray], np.ndarray]


class Stored(NamedTuple):
    """Values of a file: [n h w] or [n h w 3] in display orientation, and how opaque each pixel is, in the same unit.

    ``palette`` is uint8[256 3] where the values are its indices; ``lossy`` says that compression has changed values;
    ``colour`` is uint8[n h w], how far the channels of 8 bits differ, where colours are already turned to grey.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    spacing: tuple[float, float] = UNKNOWN
    remarks: tuple[str, ...] = ()
    palette: np.ndarray | None = None
    lossy: bool = False
    colour: np.ndarray | None = None


class NoPicture(InputError):
    """A file that is whole and holds no picture, such as a report in DICOM."""


# Plain arrays, as npy and NIfTI hold them


def check_type(dtype: np.dtype) -> None:
    """Raise InputError for values that are neither truth values nor real numbers of at most 8 bytes."""
    if dtype.kind not in "buif" or not 1 <= dtype.itemsize <= 8:
        raise InputError(f"values: of type {str(dtype)[:40]}; save uint8, or fractions in [0, 1]")


def array(content: bytes, dtype: np.dtype, shape: Sequence[int], offset: int, order: Any) -> np.ndarray:
    """The array that starts at ``offset``, in the byte order of this machine; faults when the file is too short."""
    count = math.prod(shape)
    if offset + count * dtype.itemsize > len(content):
        raise InputError(f"file: too short for {listed(shape)} values of {dtype.itemsize} bytes; it was cut off")
    values = np.frombuffer(content, dtype, count, offset).reshape(shape, order=order)
    return values.astype(dtype.newbyteorder("="), copy=False)


def split_channels(values: np.ndarray, **more: Any) -> Stored:
    """Channels of [n h w c]: one, three, or three and alpha."""
    if values.shape[-1] == 1:
        return Stored(values[..., 0], **more)
    return Stored(values[..., :3], values[..., 3] if values.shape[-1] == 4 else None, **more)


# Sizes


def refuse_colours(frames: int) -> None:
    """Raise InputError for three frames of a plain array, which may be the red, green and blue of one picture."""
    if frames == 3:
        raise InputError("shape: three frames look like the colours of one picture; save it as PNG, a clip as TIFF")


def pixel_size(rows: float, columns: float) -> tuple[tuple[float, float], list[str]]:
    """Pixel size in mm, to the seven digits that files hold; and a remark when it cannot be true.

    Tools write 1 mm where they know none; no ultrasound image has pixels of exactly that size, and none has a side
    outside ``limits.PIXEL_SIDES``, which a wrong unit gives.
    """
    if not (0 < rows < math.inf and 0 < columns < math.inf):
        return UNKNOWN, []
    size = float(f"{rows:.7g}"), float(f"{columns:.7g}")
    least, most = limits.PIXEL_SIDES
    if size != (1.0, 1.0) and least <= min(size) and max(size) <= most:
        return size, []
    return UNKNOWN, [f"pixel size of {size[0]:g} x {size[1]:g} mm taken as unknown"]


def listed(shape: Sequence[int]) -> str:
    """The first eight sizes of a shape in brackets, for messages."""
    return f"[{' '.join(str(size) for size in shape[:8])}]"


# Libraries


def package(name: str) -> Any:
    """An installed package of the ``formats`` extra; raises InputError when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is missing; pip install 'thyroid-jax[formats]'") from error


@contextlib.contextmanager
def faults_of(noun: str, *, private: bool = False) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one InputError; ``private`` leaves out its words.

    The libraries raise errors of nearly every type on damaged files, so no shorter list would be complete.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        words = "" if private else "".join(c for c in str(error) if c.isprintable())[:150]
        words = "its content is another" if "BytesIO" in words else words
        detail = f"{type(error).__name__}{': ' if words else ''}{words}"
        raise InputError(f"{noun}: not a whole file, or not of this format ({detail})") from error


_SILENT = ("ignore", None, Warning, re.compile(r"(PIL|pydicom|nibabel)\b"), 0)
_lock = threading.Lock()
_readers = 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings that come from the three libraries while at least one thread reads.

    ``warnings.catch_warnings`` would put back the filters of another thread.
    """
    global _readers
    with _lock:
        _readers += 1
        if _SILENT not in warnings.filters:
            warnings.filters.insert(0, _SILENT)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                with contextlib.suppress(ValueError):
                    warnings.filters.remove(_SILENT)  # type: ignore[attr-defined]
