"""Clean a screenshot of an ultrasound machine in named steps, and say what each step did to the picture.

What is found, and how, is in :mod:`data_prep.scan`. A reader that knows its machine looks for its marks itself and
fills them in with :func:`filled`; :func:`clean` is for pictures of any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_prep import scan
from thyroid_jax.errors import InputError

STEPS = {
    "scan": "cut to the scan, the largest lit part of a dark page",
    "colours": "fill in coloured marks on a grey picture",
    "callipers": "fill in crosses of 7 and 9 pixels and the dotted lines between them",
    "text": "fill in bright letters, ticks and arrows with sharp sides",
}
"""the steps of :func:`clean`, in the order in which they are done"""


def _cross(size: int) -> np.ndarray:
    return np.pad(np.maximum(np.eye(size), np.eye(size)[::-1]), 1)


CALLIPERS = (_cross(7), _cross(9))
CALLIPERS_ALIKE = 0.56  # least correlation
DOTS_STEP = 20  # grey values between a dot of a dotted line and the tissue around it
MARGIN = 8  # pixels beyond the scan in which a glyph that touches its edge is seen


class Cleaned(NamedTuple):
    """A cleaned picture uint8[h w], where it lies in the original, and what was done, for ``Record.cleaning``."""

    image: np.ndarray
    box: scan.Box
    steps: tuple[str, ...]


def clean(grey: np.ndarray, steps: Sequence[str], *, colour: np.ndarray | None = None) -> Cleaned:
    """Clean a picture uint8[h w] by some of :data:`STEPS`. A step that finds nothing changes nothing and is not named.

    ``colour`` is the largest less the smallest channel of each pixel, uint8[h w], None for a picture without colours.
    The result depends on the pixels alone, never on a label. Raises :class:`InputError` for an unknown step, or when
    the picture is to be cut and shows no scan.
    """
    if unknown := [step for step in steps if step not in STEPS]:
        raise InputError(f"cleaning: {unknown[0]!r} is no step; known are {', '.join(STEPS)}")
    box: scan.Box | None = scan.Box(0, grey.shape[0], 0, grey.shape[1])
    if "scan" in steps:
        box = scan.scan_box(grey)
    if box is None:
        raise InputError("cleaning: no ultrasound scan is found in the picture")
    crop = np.ascontiguousarray(grey[box.slices])
    marks: dict[str, np.ndarray] = {}
    if "colours" in steps and colour is not None:
        marks["coloured marks"] = scan.coloured_marks(colour)[box.slices]
    if "callipers" in steps:
        crosses = scan.drawn_marks(crop, CALLIPERS, alike=CALLIPERS_ALIKE)
        marks["callipers"] = crosses | (scan.dots(crop, step=DOTS_STEP) if crosses.any() else crosses)
    if "text" in steps:
        marks["text"] = glyphs_in(grey, box)
    image, done = filled(crop, marks)
    return Cleaned(image, box, (*cut_step(box, grey.shape), *done))


def glyphs_in(grey: np.ndarray, box: scan.Box) -> np.ndarray:
    """Where letters, ticks and arrows lie in the crop ``box`` of a picture uint8[h w], bool of the crop's size.

    They are looked for a few pixels beyond the box too: a mark at its very edge shows against the page.
    """
    grown, inner = scan.around(box, grey.shape, MARGIN)
    return scan.white_glyphs(grey[grown.slices])[inner.slices]


def cut_step(box: scan.Box, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The step that cuts a picture of ``shape`` (h, w) to ``box``; () when that is the whole of it."""
    if box == (0, shape[0], 0, shape[1]):
        return ()
    return (f"cut to the scan: rows {box.top}-{box.bottom - 1}, columns {box.left}-{box.right - 1}",)


def filled(crop: np.ndarray, marks: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The picture uint8[h w] with all marks bool[h w] filled in like the tissue around them, and a step for each kind.

    A pixel of several marks is counted for each.
    """
    steps = tuple(f"{name} filled in: {int(mask.sum())} pixels" for name, mask in marks.items() if mask.any())
    blank = np.logical_or.reduce([np.zeros(crop.shape, bool), *marks.values()])
    return (scan.fill(crop, blank) if steps else crop), steps
