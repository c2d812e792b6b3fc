"""Stored values of any kind as grey pixels of 8 bits, or as labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from thyroid_jax.data.formats._shared import Stored
from thyroid_jax.errors import InputError

COLOURED = "colour turned to luma"
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601


def to_grey(stored: Stored) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Grey uint8[n h w] of stored values, their :func:`difference` of channels likewise, and remarks.

    The difference is None where no pixel has a colour. InputError for values whose grey level is not certain.
    """
    grey, remarks = _to_bytes(stored.values)
    colour = stored.colour
    if grey.ndim == 4:
        if is_coloured(grey):
            remarks.append(COLOURED)
            colour = _frame_by_frame(difference, grey)
        grey = _frame_by_frame(luma, grey)
    if stored.alpha is not None:
        opaque, _ = _to_bytes(stored.alpha)
        if (opaque < 255).any():
            remarks.append("transparent parts are black")
            grey = _frame_by_frame(lambda frame, part: np.round(frame * (part / 255)), grey, opaque)
    return np.ascontiguousarray(grey), colour, remarks


def is_coloured(values: np.ndarray) -> bool:
    """Whether the channels of [... 3] differ anywhere."""
    return any(bool((values[..., 0] != values[..., channel]).any()) for channel in (1, 2))


def difference(colours: np.ndarray) -> np.ndarray:
    """Largest less smallest channel [...] of colours [... 3]; 0 for grey."""
    return colours.max(-1) - colours.min(-1)


def luma(colours: np.ndarray) -> np.ndarray:
    """Luma [...] of colours [... 3] in the same range, as whole numbers of type float64."""
    return np.round(colours @ _LUMA)


def _frame_by_frame(convert: Callable[..., np.ndarray], *parts: np.ndarray) -> np.ndarray:
    """uint8[n h w] of ``convert`` of each frame: fractions of all frames at once would fill the memory."""
    out = np.empty(parts[0].shape[:3], np.uint8)
    for index, frames in enumerate(zip(*parts)):
        out[index] = convert(*frames)
    return out


def _to_bytes(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Values of any kind as uint8 of the same shape, by rules that do not depend on the picture; and remarks."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if values.dtype == np.uint8:
        return values, []
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255), []
    if kind == "f":
        return _from_fractions(values), ["fractions in [0, 1] scaled by 255"]
    if (kind, size) == ("u", 2):
        return _from_16_bits(values)
    if kind not in "ui":
        raise InputError(f"values: of type {values.dtype}; save the picture with 8 or 16 bits")
    low, high = values.min(), values.max()
    if not (0 <= low and high <= 255):
        raise InputError(
            f"values: {values.dtype} from {low} to {high}, beyond 0 to 255 its grey level is not certain; "
            "save the picture with 8 bits, or unsigned with 16"
        )
    return values.astype(np.uint8), [f"values of type {values.dtype.name} taken as 8 bits"]


def _from_fractions(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (0 <= low and high <= 1):  # also NaN
        raise InputError(
            f"values: fractions from {low:g} to {high:g}, only [0, 1] has a certain grey level; "
            "save the picture with 8 bits"
        )
    return np.round(values.astype(np.float64) * 255).astype(np.uint8)


def _from_16_bits(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    high = values.max()
    if 0 < high < 256:
        raise InputError(
            f"values: 16 bits, but none is above {high}, scaled to 8 bits the picture would be black; "
            "save it with 8 bits"
        )
    remarks = ["16 bits scaled to 8 by 1/257"]
    if high < 4096:
        remarks.append("no value reaches 4096: looks like 12 bits and stays dark")
    return ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)[values], remarks


def to_labels(stored: Stored) -> np.ndarray:
    """Labels int32[n h w] of stored values, a colour as 0xRRGGBB, transparent pixels 0.

    Raises InputError for fractions, for whole numbers of more than 32 bits, and for colours of more than 8.
    """
    values = stored.values
    if values.dtype.kind not in "buif":
        raise InputError(f"values: of type {values.dtype}; save the mask with whole numbers")
    if values.dtype.kind == "f":
        values = np.rint(stored.values)
        if not (np.isfinite(stored.values).all() and (np.abs(stored.values - values) <= 1e-6).all()):
            raise InputError("values: fractions; the values of a mask are whole numbers")
    top = np.iinfo(np.int32) if values.ndim == 3 else np.iinfo(np.uint8)
    if values.dtype.kind != "b" and not (top.min <= values.min() and values.max() <= top.max):
        raise InputError(f"values: from {values.min()} to {values.max()}, a mask has {top.min} to {top.max}")
    labels = values.astype(np.int32)
    if labels.ndim == 4:
        labels = (labels[..., 0] << 16) | (labels[..., 1] << 8) | labels[..., 2]
    return np.ascontiguousarray(labels if stored.alpha is None else np.where(stored.alpha == 0, np.int32(0), labels))
