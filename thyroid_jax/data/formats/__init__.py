"""One untrusted image or mask file of a usual format: PNG, JPEG, BMP, TIFF, DICOM, NIfTI or numpy's ``.npy``.

An image becomes grey pixels of 8 bits, a mask keeps its stored values. Row 0 is the top as a person sees it, in both.
Sizes are compared with :mod:`~thyroid_jax.data.formats.limits` before anything is decoded. DICOM and NIfTI need the
``formats`` extra.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thyroid_jax.data.formats import dicom, limits, nifti, numpy_files, pillow
from thyroid_jax.data.formats._shared import NoPicture as NoPicture
from thyroid_jax.data.formats._shared import Stored, quiet
from thyroid_jax.data.formats.values import to_grey, to_labels
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes, read_start

_KINDS = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"), "picture"),
    **dict.fromkeys((".dcm", ".dicom"), "dicom"),
    **dict.fromkeys((".nii", ".nii.gz"), "nifti"),
    ".npy": "numpy",
}
_READERS: dict[str, Callable[..., Stored]] = {
    "picture": pillow.read,
    "dicom": dicom.read,
    "nifti": nifti.read,
    "numpy": numpy_files.read,
}
SUFFIXES: tuple[str, ...] = tuple(_KINDS)
TURNED = pillow.TURNED
DARK = 32  # the brightest channel of a colour that stands for outside


class Picture(NamedTuple):
    """Grey pixels of a file, uint8[n h w] with n frames of at least 1; row 0 is the top as a person sees it.

    spacing  millimetres per pixel (rows, columns); NaN when unknown
    remarks  what was done to the stored values that a person should know, in words that do not depend on the pixels
    colour   largest less smallest channel of each pixel, uint8[n h w]; None where no pixel has a colour
    """

    frames: np.ndarray
    spacing: tuple[float, float]
    remarks: tuple[str, ...]
    colour: np.ndarray | None = None


class Labels(NamedTuple):
    """Label values of a mask file, int32[n h w] as :func:`read_labels` gives them, and what else may matter of it.

    lossy    True where the file's compression does not keep values, whatever the file is called
    colours  0xRRGGBB of each pixel, 0 where it is transparent, for values that are a palette's indices; else None
    """

    values: np.ndarray
    lossy: bool = False
    colours: np.ndarray | None = None


def kind_of(path: Path) -> str | None:
    """The kind of a file by its suffix: "picture", "dicom", "nifti", "numpy"; None when it is none of them.

    A file without a suffix, or with a number as suffix, is "dicom" if it has DICOM's mark at byte 128.
    """
    name = path.name.lower()
    for suffix, kind in _KINDS.items():
        if name.endswith(suffix):
            return kind
    return "dicom" if re.fullmatch(r"(\.\d+)?", path.suffix) and _has_dicom_mark(path) else None


def _has_dicom_mark(path: Path) -> bool:
    try:
        return dicom.is_marked(read_start(path, dicom.MARK_END))
    except InputError:
        return False


def read_picture(path: Path) -> Picture:
    """The grey pixels of an image file; several pages or frames become several frames.

    Colour becomes luma (ITU-R 601), transparent parts become black. Integers of 16 bits are scaled by 1/257, fractions
    in [0, 1] by 255, one bit becomes 0 and 255. A DICOM file is shown as its rescaling and its first window say. An
    orientation in EXIF is applied. An npy array is [h w], [n h w], [h w c] or [n h w c] with c of 1, 3 or 4; a last
    axis of 1, 3 or 4 is always taken as c; three frames are refused, because they may be colours. For the axes of NIfTI
    see :mod:`~thyroid_jax.data.formats.nifti`. Raises :class:`InputError`, which does not name the file, for any file
    that cannot be read, is over a limit, or holds values whose grey level is not certain.
    """
    with np.errstate(all="ignore"):
        stored = _read(path, exact=False)
        grey, colour, remarks = to_grey(stored)
    return Picture(grey, stored.spacing, (*stored.remarks, *remarks), colour)


def read_labels(path: Path) -> np.ndarray:
    """The label values int32[n h w] of a mask file, as stored, in the orientation of :func:`read_picture`.

    A palette gives its index, a colour 0xRRGGBB, one bit 0 and 1; wholly transparent pixels are 0. Neither window nor
    rescaling of a DICOM file is applied. In a TIFF whose zero is white, one to eight bits are given as displayed.
    Raises :class:`InputError` as :func:`read_picture` does, for values that are no whole numbers of 32 bits, and for
    different pixels that are all transparent or black, so that no label would be left.
    """
    return read_mask(path).values


def read_mask(path: Path) -> Labels:
    """The label values of a mask file as :func:`read_labels` gives them, with the colours of its palette.

    Raises :class:`InputError` as it does.
    """
    with np.errstate(all="ignore"):
        stored = _read(path, exact=True)
        values = to_labels(stored)
        if stored.alpha is not None and not values.any() and (_differs(stored.values) or _differs(stored.alpha)):
            raise InputError("values: all that is visible is black, the mask is in its transparency; save it as grey")
        colours = None if stored.palette is None else to_labels(stored._replace(values=stored.palette[stored.values]))
    return Labels(values, stored.lossy, colours)


def by_colour(mask: Labels) -> np.ndarray:
    """The values of a mask, or its colours where it has a palette in which black is another index than 0.

    Programs that save few colours number them as they like. Raises :class:`InputError` where index 0 has a colour that
    is not dark and no pixel is black.
    """
    if mask.colours is None:
        return mask.values
    first, used = np.unique(mask.colours[mask.values == 0]), np.unique(mask.colours)
    if first.size and not first.any():
        return mask.values
    if 0 in used:
        return mask.colours
    if brightest_channel(first).max(initial=0) <= DARK:
        return mask.values
    raise InputError(f"palette: index 0 is 0x{first[-1]:06X} and no pixel is black")


def brightest_channel(colours: np.ndarray) -> np.ndarray:
    """The largest channel, 0 to 255, of each colour 0xRRGGBB."""
    return np.max([colours >> 16 & 0xFF, colours >> 8 & 0xFF, colours & 0xFF], axis=0)


def _differs(values: np.ndarray) -> bool:
    return bool(values.min() != values.max())


def _read(path: Path, *, exact: bool) -> Stored:
    """Stored values of a file; ``exact`` keeps what labels need: palette indices, and values before any window."""
    kind = kind_of(path)
    if kind is None:
        raise InputError(f"file: of no kind that can be read; these are {' '.join(SUFFIXES)}")
    largest = limits.LARGEST_PICTURE if kind == "picture" else limits.LARGEST_ARRAY
    content = read_bytes(path, largest=largest)
    with quiet():
        return _READERS[kind](content, exact=exact)
