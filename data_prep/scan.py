"""Find the scan in a screenshot of an ultrasound machine, and remove what the machine drew over it.

A screenshot is a dark page with one scan, or two side by side. Around it are text, a grey bar, depth ticks and small
marks, and some of these reach into the scan. A model must not learn from them: text may name the diagnosis, and
callipers point at the nodule. Nothing here depends on a data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Highest grey value of the page. The page is 0 except for JPEG ringing; anechoic regions of a scan are noisier.
PAGE_LEVEL = 3
SOLID = 41  # pixels: the least width of a scan; the widest text column has some 30, a grey bar 16
GAP = 15  # pixels: widest dark gap between two views of one scan
EDGE_TRIM = 3  # pixels cut off each side of the scan: depth ticks and corner diamonds reach that far over its edge


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
    """``box`` grown by ``margin`` pixels, and the place of ``box`` inside the grown box.

    The grown box stays within an image of ``shape`` (h, w).
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
    red, green, blue = (image[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return red.copy()
    return np.round(image[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def scan_box(grey: np.ndarray, *, trim: int = EDGE_TRIM) -> Box | None:
    """The box of the scan in a screenshot uint8[h w], less ``trim`` pixels a side; None when there is no scan in it.

    A pixel is lit where most of its neighbourhood is brighter than the page. Lit pieces narrower than ``SOLID``
    pixels are dropped: text columns, the grey bar, icons. The largest piece that is left is the scan. Two views side
    by side are one scan, even with a dark gap of a few pixels between them. Rows and columns at the edge are left out
    where the scan covers less than a tenth of what it covers at its widest.
    """
    from scipy import ndimage

    lit = ndimage.uniform_filter((grey > PAGE_LEVEL).astype(np.float32), size=7, mode="constant") > 0.5
    opened = _sliding(np.maximum, _sliding(np.minimum, lit, (SOLID, SOLID), beyond=0), (SOLID, SOLID), beyond=0)
    solid = _sliding(np.minimum, _sliding(np.maximum, opened, (1, GAP), beyond=0), (1, GAP), beyond=1)
    labels, count = ndimage.label(solid)
    if count == 0:
        return None
    piece = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    rows, columns = (_covered(piece.sum(axis)) for axis in (1, 0))
    box = Box(rows[0] + trim, rows[1] - trim, columns[0] + trim, columns[1] - trim)
    return box if box.bottom - box.top >= SOLID and box.right - box.left >= SOLID else None


def _sliding(choose: np.ufunc, value: np.ndarray, size: tuple[int, int], *, beyond: int) -> np.ndarray:
    """The least (``np.minimum``) or greatest value in the window ``size`` around each pixel of ``value`` [h w].

    Both sizes are odd. ``beyond`` is the value outside the image. The window is doubled until it is wide enough, so
    that a few passes over the image do.
    """
    for axis, length in enumerate(size):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (length // 2, length // 2)
        value = np.moveaxis(np.pad(value, pad, constant_values=value.dtype.type(beyond)), axis, 0)
        reached = 1
        while reached < length:
            step = min(reached, length - reached)
            value = choose(value[:-step], value[step:])
            reached += step
        value = np.moveaxis(value, 0, axis)
    return value


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """The pixels at most ``steps`` steps to a side, up or down away from those of ``mask`` bool[h w]."""
    for _ in range(steps):
        wider = mask.copy()
        wider[1:] |= mask[:-1]
        wider[:-1] |= mask[1:]
        wider[:, 1:] |= mask[:, :-1]
        wider[:, :-1] |= mask[:, 1:]
        mask = wider
    return mask


def _covered(extent: np.ndarray) -> tuple[int, int]:
    """The first place whose extent is at least a tenth of the largest, and the place after the last one."""
    inside = np.flatnonzero(extent >= 0.1 * extent.max())
    return int(inside[0]), int(inside[-1]) + 1


def colour_of(image: np.ndarray) -> np.ndarray:
    """Largest less smallest channel of each pixel of an RGB image uint8[h w 3], uint8[h w]; 0 for one channel."""
    if image.ndim == 2:
        return np.zeros_like(image)
    red, green, blue = (image[..., channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)


def coloured_marks(colour: np.ndarray, *, at_least: int = 30, reach: int = 3) -> np.ndarray:
    """Where a screenshot carries coloured marks, bool[h w], from :func:`colour_of` its pixels uint8[h w].

    A mark is a pixel whose channels differ by ``at_least``, grown by ``reach`` pixels because JPEG smears colour. When
    more than a twentieth of the pixels are coloured (Doppler, a tinted grey map), the image itself is coloured, and
    no pixel counts as a mark.
    """
    coloured = colour >= at_least
    if not coloured.any() or coloured.mean() > 0.05:
        return np.zeros(coloured.shape, bool)
    return _grown(coloured, reach)


def white_glyphs(grey: np.ndarray, *, bright: int = 190, step: int = 90, widest: int = 5, reach: int = 2) -> np.ndarray:
    """Where letters, ticks and arrows are burned into a scan uint8[h w], as bool[h w].

    A drawn stroke is bright, at most ``widest`` pixels across, and changes by ``step`` from one pixel to the next on
    *both* its left and right side. Tissue does not: the beam is several pixels wide, so even a point reflector fades
    over several pixels sideways. The whole glyph is all that is bright, near such a stroke and connected to it; it is
    grown by ``reach`` pixels.
    """
    from scipy import ndimage

    value = grey.astype(np.int16)
    stroke = _sharp_strokes(value, bright, step, widest)
    if not stroke.any():
        return stroke
    opened = _sliding(np.maximum, _sliding(np.minimum, grey, (11, 11), beyond=255), (11, 11), beyond=0)
    thin = grey - opened >= step // 2
    near = _grown(stroke, 8) & thin & (value >= bright // 2)
    whole = ndimage.binary_propagation(stroke, mask=near | stroke, structure=np.ones((3, 3), bool))
    return _grown(whole, reach)


def _sharp_strokes(value: np.ndarray, bright: int, step: int, widest: int) -> np.ndarray:
    change = np.diff(value, axis=1, prepend=value[:, :1])
    rises, falls = change >= step, change <= -step
    stroke = np.zeros(value.shape, bool)
    rows, firsts = np.nonzero(rises)
    brightest = np.zeros(len(rows), value.dtype)
    for width in range(1, widest + 1):  # what is left has not ended after fewer pixels
        inside = firsts + width < value.shape[1]
        rows, firsts, brightest = rows[inside], firsts[inside], brightest[inside]
        brightest = np.maximum(brightest, value[rows, firsts + width - 1])
        ends = falls[rows, firsts + width]
        found = ends & (brightest >= bright)
        for column in range(width):
            stroke[rows[found], firsts[found] + column] = True
        rows, firsts, brightest = rows[~ends], firsts[~ends], brightest[~ends]
    return stroke


def drawn_marks(grey: np.ndarray, drawings: Sequence[np.ndarray], *, alike: float, reach: int = 2) -> np.ndarray:
    """Where one of the known ``drawings`` f32[a b] (callipers, letters, logos) appears in a scan, as bool[h w].

    Args:
        grey: scan uint8[h w].
        drawings: the marks that are looked for; 0 where a drawing shows tissue.
        alike: least normalised cross-correlation, in (0, 1]. It does not depend on the brightness of mark and tissue.
        reach: pixels by which the drawing's pixels other than 0 are grown.
    """
    found = np.zeros(grey.shape, bool)
    for drawing in drawings:
        _mark(found, drawing, _correlation(grey, drawing) >= alike)
    return _grown(found, reach)


def stamps(grey: np.ndarray, drawings: Sequence[np.ndarray], *, noise: float, reach: int = 2) -> np.ndarray:
    """Where one of ``drawings`` uint8[a b] is drawn with these very grey values in a scan uint8[h w], as bool[h w].

    Unlike :func:`drawn_marks` this finds marks whose contrast with the tissue is low on one side or on all. ``noise``
    is the largest root-mean-square difference of the drawn pixels, those of a drawing that are not 0. These are found,
    grown by ``reach`` pixels.
    """
    found = np.zeros(grey.shape, bool)
    value = grey.astype(np.int32)
    for drawing in drawings:
        if not _fits(drawing, grey):
            continue
        inked = np.argwhere(drawing)
        total = np.zeros(np.subtract(grey.shape, drawing.shape) + 1, np.int32)
        for place in inked:
            total += (_shifted(value, place, drawing.shape) - int(drawing[tuple(place)])) ** 2
        _mark(found, drawing, total <= noise**2 * len(inked))
    return _grown(found, reach)


def _fits(drawing: np.ndarray, grey: np.ndarray) -> bool:
    return all(side <= most for side, most in zip(drawing.shape, grey.shape))


def _shifted(value: np.ndarray, place: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The pixel of ``value`` under the pixel ``place`` of a drawing of ``shape``, for each position of the drawing."""
    (top, left), (h, w) = place, np.subtract(value.shape, shape) + 1
    return value[top : top + h, left : left + w]


def _mark(found: np.ndarray, drawing: np.ndarray, positions: np.ndarray) -> None:
    """Set the drawn pixels of ``drawing`` in ``found`` at each of ``positions``, those of its top left corner."""
    inked = drawing != 0
    for top, left in np.argwhere(positions):
        found[top : top + inked.shape[0], left : left + inked.shape[1]] |= inked


def _correlation(grey: np.ndarray, drawing: np.ndarray) -> np.ndarray:
    """Normalised cross-correlation of a drawing [a b] with a scan uint8[h w] at each of its positions.

    It is 0 where the scan has one value, and has no positions when the drawing is larger than the scan.
    """
    if not _fits(drawing, grey):
        return np.zeros((0, 0))
    value, count = grey.astype(np.int32), drawing.size
    inked = np.argwhere(drawing)
    product = np.zeros(np.subtract(grey.shape, drawing.shape) + 1, np.float32)
    light = grey.astype(np.float32)
    for place in inked:
        product += np.float32(drawing[tuple(place)]) * _shifted(light, place, drawing.shape)
    total, squares = (_window_sums(power, drawing.shape) for power in (value, value * value))
    varying = np.maximum(squares - total * (total / count), 0)
    spread = np.sqrt(varying * float(((drawing - drawing.mean()) ** 2).sum()))
    covariance = product - total * float(drawing.mean())
    return np.divide(covariance, spread, out=np.zeros_like(spread), where=spread > 1e-3)


def _window_sums(value: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The sum of each window of ``size`` (a, b) that lies wholly in ``value`` i32[h w]."""
    for axis, length in enumerate(size):
        last = value.shape[axis] - length + 1
        total = np.zeros((last, value.shape[1]) if axis == 0 else (value.shape[0], last), value.dtype)
        for start in range(length):
            total += value[start : start + last] if axis == 0 else value[:, start : start + last]
        value = total
    return value


def dots(grey: np.ndarray, *, step: int) -> np.ndarray:
    """Where a pixel of a scan uint8[h w] exceeds all its eight neighbours by ``step``, as bool[h w].

    Such pixels are the dots of a calliper's line.
    """
    value = np.pad(grey.astype(np.int16), 1, mode="edge")
    shape = (3, 3)
    around = [_shifted(value, place, shape) for place in np.argwhere(np.ones(shape)) if tuple(place) != (1, 1)]
    return value[1:-1, 1:-1] - np.maximum.reduce(around) >= step


def fill(grey: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """The scan uint8[h w] with the pixels of ``blank`` bool[h w] replaced by values like those of the tissue around.

    The local mean comes from around the hole and the speckle from beside it. A black or smooth patch would show where
    somebody measured. Pixels outside ``blank`` keep their value.
    """
    from scipy import ndimage

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
    """Mean of the known pixels around each pixel, over the smallest of a few squares that holds enough of them."""
    from scipy import ndimage

    mean = np.full(value.shape, (value * known).sum() / max(known.sum(), 1.0), np.float32)
    for size in (81, 27, 9):
        weight = ndimage.uniform_filter(known, size)
        local = ndimage.uniform_filter(value * known, size) / np.maximum(weight, 1e-6)
        mean = np.where(weight > 0.2, local, mean)
    return ndimage.uniform_filter(mean, 3)


def _clean_side(blank: np.ndarray, rows: slice, columns: slice) -> int:
    """First column of an equally wide patch beside ``columns``: the nearest with the fewest blank pixels."""
    width = columns.stop - columns.start
    last = blank.shape[1] - width
    starts = [columns.start + side * (width + away) for away in (1, 4, 9, 16) for side in (-1, 1)]
    starts = [start for start in starts if 0 <= start <= last] or [columns.start]
    return min(starts, key=lambda start: int(blank[rows, start : start + width].sum()))
