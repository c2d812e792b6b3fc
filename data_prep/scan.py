"""Find the scan in a screenshot of an ultrasound machine, and take out what the machine drew over it.

Nothing here knows a data set. A screenshot is a dark page with one scan (or two side by side), and around it text, a
grey bar, depth ticks and small marks; some of these reach into the scan. They must not be learnt from: text may name
the diagnosis, and callipers point at the nodule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.feature import match_template

PAGE_LEVEL = 3  # grey value up to which a pixel counts as page: the page is 0 but for JPEG ringing, anechoic scan regions are noisier
SOLID = 41  # pixels: anything narrower than this is not a scan; the widest text column is some 30, a grey bar 16
GAP = 15  # pixels: widest dark gap between two views of one scan
EDGE_TRIM = (
    3  # pixels taken off each side of the scan: depth ticks and corner diamonds straddle its edge by up to three
)


class Box(NamedTuple):
    """A rectangle of pixels, ``image[top:bottom, left:right]``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The index that cuts the box out of an array [h w ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def around(box: Box, shape: tuple[int, int], margin: int) -> tuple[Box, Box]:
    """``box`` grown by ``margin`` pixels within an image of ``shape`` (h, w), and ``box`` again as seen from inside the
    grown one.
    """
    grown = Box(
        max(box.top - margin, 0),
        min(box.bottom + margin, shape[0]),
        max(box.left - margin, 0),
        min(box.right + margin, shape[1]),
    )
    inner = Box(box.top - grown.top, box.bottom - grown.top, box.left - grown.left, box.right - grown.left)
    return grown, inner


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luma of an RGB image uint8[h w 3] as uint8[h w] (ITU-R 601, rounded); a one-channel image comes back as it is."""
    if image.ndim == 2:
        return image
    return np.round(image[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def scan_box(grey: np.ndarray, *, trim: int = EDGE_TRIM) -> Box | None:
    """The box of the scan in a screenshot uint8[h w], less ``trim`` pixels a side; None when there is no scan in it.

    A pixel is lit where most of its neighbourhood is brighter than the page. Lit pieces narrower than ``SOLID``
    pixels, text columns, the grey bar and icons, are dropped; of the rest the largest is the scan. Two views side by
    side are one scan, even with a dark gap of a few pixels between them. Rows and columns that the scan covers by
    less than a tenth of its widest are left out.
    """
    lit = ndimage.uniform_filter((grey > PAGE_LEVEL).astype(np.float32), size=7, mode="constant") > 0.5
    solid = _closed(_opened(lit, (SOLID, SOLID)), (1, GAP))
    labels, count = ndimage.label(solid)
    if count == 0:
        return None
    piece = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    rows, columns = (_covered(piece.sum(axis)) for axis in (1, 0))
    box = Box(rows[0] + trim, rows[1] - trim, columns[0] + trim, columns[1] - trim)
    return box if box.bottom - box.top >= SOLID and box.right - box.left >= SOLID else None


def _opened(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return ndimage.maximum_filter(ndimage.minimum_filter(mask, size, mode="constant"), size, mode="constant")


def _closed(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return ndimage.minimum_filter(ndimage.maximum_filter(mask, size, mode="constant"), size, mode="nearest")


def _covered(extent: np.ndarray) -> tuple[int, int]:
    inside = np.flatnonzero(extent >= 0.1 * extent.max())
    return int(inside[0]), int(inside[-1]) + 1


def coloured_marks(image: np.ndarray, *, at_least: int = 30, reach: int = 3) -> np.ndarray:
    """Where an RGB screenshot uint8[h w 3] carries coloured marks, as bool[h w]; a grey image has none.

    A mark is a pixel whose channels differ by ``at_least``, grown by ``reach`` pixels because JPEG smears colour. An
    image that is coloured in more than a twentieth of its pixels (Doppler, a tinted grey map) is not marked but
    coloured: nothing is returned.
    """
    if image.ndim == 2:
        return np.zeros(image.shape, bool)
    red, green, blue = (image[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = spread >= at_least
    if not coloured.any() or coloured.mean() > 0.05:
        return np.zeros(coloured.shape, bool)
    return ndimage.binary_dilation(coloured, iterations=reach)


def white_glyphs(grey: np.ndarray, *, bright: int = 190, step: int = 90, widest: int = 5, reach: int = 2) -> np.ndarray:
    """Where letters, ticks and arrows are burned into a scan uint8[h w], as bool[h w].

    A drawn stroke is bright, at most ``widest`` pixels across and changes by ``step`` from one pixel to the next on
    *both* its left and right side. Tissue does not do that: the beam is several pixels wide, so even a point
    reflector is smeared sideways and fades over pixels. The whole glyph is what is bright and connected to such a
    stroke within its size.
    """
    value = grey.astype(np.int16)
    stroke = _sharp_strokes(value, bright, step, widest)
    if not stroke.any():
        return stroke
    thin = value - ndimage.grey_opening(value, size=(11, 11)) >= step // 2
    near = ndimage.binary_dilation(stroke, iterations=8) & thin & (value >= bright // 2)
    whole = ndimage.binary_propagation(stroke, mask=near | stroke, structure=np.ones((3, 3), bool))
    return ndimage.binary_dilation(whole, iterations=reach)


def _sharp_strokes(value: np.ndarray, bright: int, step: int, widest: int) -> np.ndarray:
    change = np.diff(value, axis=1, prepend=value[:, :1])
    rises, falls = change >= step, change <= -step
    stroke = np.zeros(value.shape, bool)
    for row, first in np.argwhere(rises):
        ends = np.flatnonzero(falls[row, first + 1 : first + 1 + widest])
        if ends.size and value[row, first : first + 1 + ends[0]].max() >= bright:
            stroke[row, first : first + 1 + ends[0]] = True
    return stroke


def drawn_marks(grey: np.ndarray, drawings: Sequence[np.ndarray], *, alike: float, reach: int = 2) -> np.ndarray:
    """Where one of the known ``drawings`` f32[a b] appears in a scan uint8[h w], as bool[h w]: callipers, letters,
    logos.

    ``alike`` is the least normalised cross-correlation, in (0, 1], which does not depend on the brightness of mark
    and tissue. The pixels that are marked are those where the drawing is not 0, grown by ``reach``.
    """
    found = np.zeros(grey.shape, bool)
    for drawing in drawings:
        if any(side < least for side, least in zip(grey.shape, drawing.shape)):
            continue
        inked = drawing != 0
        score = match_template(grey.astype(np.float32), drawing.astype(np.float32))
        for top, left in np.argwhere(score >= alike):
            found[top : top + inked.shape[0], left : left + inked.shape[1]] |= inked
    return ndimage.binary_dilation(found, iterations=reach) if found.any() else found


def dots(grey: np.ndarray, *, step: int) -> np.ndarray:
    """Where one pixel of a scan uint8[h w] exceeds all its eight neighbours by ``step``, as bool[h w]: the dots of a
    calliper's line.
    """
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    value = grey.astype(np.int16)
    return value - ndimage.maximum_filter(value, footprint=ring, mode="nearest") >= step


def fill(grey: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """The scan uint8[h w] with the ``blank`` bool[h w] pixels replaced by tissue-like ones; pixels outside ``blank``
    keep their value.

    The local mean is carried in from around the hole and the speckle is copied from beside it, so that neither a
    black patch nor a smooth one is left to betray where somebody measured.
    """
    if not blank.any():
        return grey
    known = (~blank).astype(np.float32)
    mean = _known_mean(grey.astype(np.float32), known)
    speckle = np.where(blank, 0.0, grey - mean)
    filled = grey.astype(np.float32)
    pieces, _ = ndimage.label(blank, structure=np.ones((3, 3), bool))
    for number, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
        hole = pieces[rows, columns] == number
        start = _clean_side(blank, rows, columns)
        texture = speckle[rows, start : start + hole.shape[1]]
        filled[rows, columns] = np.where(hole, mean[rows, columns] + texture, filled[rows, columns])
    return np.clip(np.round(filled), 0, 255).astype(np.uint8)


def _known_mean(value: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mean of the known pixels around each pixel, from the narrowest of a few neighbourhoods that holds enough of them."""
    mean = np.full(value.shape, (value * known).sum() / max(known.sum(), 1.0), np.float32)
    for size in (81, 27, 9):
        weight = ndimage.uniform_filter(known, size)
        local = ndimage.uniform_filter(value * known, size) / np.maximum(weight, 1e-6)
        mean = np.where(weight > 0.2, local, mean)
    return ndimage.uniform_filter(mean, 3)


def _clean_side(blank: np.ndarray, rows: slice, columns: slice) -> int:
    """First column of the patch beside ``columns``, as wide, that has the fewest blank pixels; the nearest of equals."""
    width = columns.stop - columns.start
    last = blank.shape[1] - width
    starts = [columns.start + side * (width + away) for away in (1, 4, 9, 16) for side in (-1, 1)]
    starts = [start for start in starts if 0 <= start <= last] or [columns.start]
    return min(starts, key=lambda start: int(blank[rows, start : start + width].sum()))
