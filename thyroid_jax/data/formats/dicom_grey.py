"""Decoded values of a DICOM file as the grey levels that its header asks for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.data.formats._shared import Convert
from thyroid_jax.data.formats.dicom_header import Layout
from thyroid_jax.data.formats.values import difference, luma
from thyroid_jax.errors import InputError

_BIG_ENDIAN = "1.2.840.10008.1.2.2"


class Conversion(NamedTuple):
    """What turns a decoded frame into grey [h w] of 0 to 255, and into the difference of its channels; and remarks.

    ``colour`` is None for a picture without colours.
    """

    grey: Convert
    colour: Convert | None
    remarks: list[str]


def converter(dataset: Any, layout: Layout, syntax: str) -> Conversion:
    """The conversion that a file's header asks for; one channel needs a table of its at most 65536 values only."""
    scaled = [layout.scaling] if layout.bits > 8 else []
    if layout.samples == 3:
        scale = 255 / layout.high
        return Conversion(
            lambda frame: luma(np.round(frame * scale)), lambda frame: difference(np.round(frame * scale)), scaled
        )
    colours = None
    if layout.colours == "PALETTE COLOR":
        palette = _palette(dataset, layout, syntax)
        table, remarks = luma(palette).astype(np.uint8), ["palette turned to luma"]
        colours = difference(palette).astype(np.uint8)
    else:
        table, remarks = _window(dataset, layout)
        remarks = remarks or scaled
        if layout.colours == "MONOCHROME1":
            table, remarks = 255 - table, [*remarks, "MONOCHROME1 inverted"]
    looked_up = lambda table: lambda frame: table[frame.astype(np.int32) - layout.low]
    return Conversion(looked_up(table), None if colours is None else looked_up(colours), remarks)


def _palette(dataset: Any, layout: Layout, syntax: str) -> np.ndarray:
    """Colours f[n 3] of 0 to 255 of all values that can be stored."""
    from pydicom.pixels import apply_color_lut

    if syntax == _BIG_ENDIAN:
        raise InputError("PhotometricInterpretation: a palette in a big endian file; export it as little endian")
    values, bits = _clipped(np.arange(layout.low, layout.high + 1), dataset.RedPaletteColorLookupTableDescriptor)
    colours = apply_color_lut(values, dataset)[..., :3]
    top = (1 << min(bits, 8 * colours.dtype.itemsize)) - 1  # files of 16 bits may hold tables of 8
    if colours.max() > top or (top > 255 and 0 < colours.max() < 256):
        raise InputError(f"LUTDescriptor: a palette of {bits} bits has values up to {colours.max()}; export it as grey")
    return np.round(colours * (255 / top))


def _window(dataset: Any, layout: Layout) -> tuple[np.ndarray, list[str]]:
    """Grey values of all values that can be stored, after rescaling and the first window or table of the file."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values, remarks = np.arange(layout.low, layout.high + 1), []
    low, high = float(layout.low), float(layout.high)
    if dataset.get("ModalityLUTSequence"):
        values, bits = _clipped(values, dataset.ModalityLUTSequence[0].LUTDescriptor)
        low, high = 0.0, (1 << bits) - 1.0
        remarks.append("modality table of the file applied")
    elif dataset.get("RescaleSlope") is not None and dataset.get("RescaleIntercept") is not None:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        if not (0 < slope < math.inf and math.isfinite(intercept)):
            raise InputError(f"RescaleSlope: {slope:g} with an intercept of {intercept:g}; a slope is above 0")
        low, high = low * slope + intercept, high * slope + intercept
    values = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence"):
        values, bits = _clipped(values, dataset.VOILUTSequence[0].LUTDescriptor)
        if "LUTData" not in dataset.VOILUTSequence[0]:
            raise InputError("VOILUTSequence: its table has no LUTData; export the picture again")
        low, high = 0.0, (1 << bits) - 1.0
        remarks.append("VOI table of the file applied")
    elif dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        remarks.append("first window of the file applied" if dataset["WindowCenter"].VM > 1 else "window applied")
    shown = (np.asarray(apply_voi_lut(values, dataset), np.float64) - low) / (high - low)
    if not np.isfinite(shown).all():
        raise InputError("WindowWidth: the window gives no finite grey values")
    return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8), remarks


def _clipped(values: np.ndarray, descriptor: Any) -> tuple[np.ndarray, int]:
    """Values within a DICOM table, and its bits: pydicom wraps those beyond it around."""
    entries, first, bits = (int(number) for number in descriptor)
    entries = entries or 1 << 16
    if not 8 <= bits <= 16 or entries > (1 << (8 if bits == 8 else 16)):
        raise InputError(f"LUTDescriptor: a table of {entries} entries of {bits} bits; export the picture as grey")
    return np.clip(np.round(values), first, first + entries - 1).astype(np.int64), bits
