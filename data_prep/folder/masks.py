"""Which pixels of a mask file are the nodule. What is not plain is a fault or a remark, never a silent guess."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.pictures import fills_frame
from thyroid_jax.data.formats import Labels, brightest_channel, by_colour
from thyroid_jax.errors import InputError

MOST_LABELS = 32  # a label map of small whole numbers has smaller ones
MOST_COLOURS = 8
FEW_VALUES = 8  # grey values of what is no picture
DIMMEST_WHITE = 200  # the largest value of a JPEG mask that can be cut at 127
WHITE = (1, 255, 0xFFFF, 0xFFFFFF)
ASK = "say with --mask-values which are the nodule"


class Nodule(NamedTuple):
    """The nodule's pixels bool[n h w]; a remark on how they were found, "" if plainly; and the values that they have.

    ``values`` is empty where they mean nothing: a file that was cut at 127, or values that the user has chosen.
    """

    pixels: np.ndarray
    remark: str = ""
    values: tuple[int, ...] = ()


def nodule(stored: Labels, *, chosen: Collection[int] = ()) -> Nodule:
    """The nodule's pixels in a mask file.

    ``chosen`` are the values of the nodule, colours are 0xRRGGBB. By default every value but 0 is; {0} means that the
    masks are inverted, and every other value is outside. A lossy file (JPEG) is cut in the middle, at 127, as are grey
    edges between 0 and 255. A palette whose index 0 is not black is read by its colours. Raises :class:`InputError`
    when the values do not say what the nodule is, when nearly all of a frame, corners included, would be nodule, or
    when what is marked is a line around an area.
    """
    inverted = set(chosen) == {0}
    labels = _grey_as_one_channel(stored.values if chosen and not inverted else _by_colour(stored))
    if stored.lossy:
        found = _cut(labels, bool(chosen) and not inverted)
    elif chosen and not inverted:
        return _chosen(labels, stored.values, chosen)
    else:
        found = _not_zero(labels, inverted)
    pixels = ~found.pixels if inverted else found.pixels
    if _fills(pixels):
        outside = "any value but 0" if not inverted else "0"
        raise InputError(
            f"values: the nodule, {outside}, would mark all corners and over half of the frame; if the values are "
            f"exchanged, {'leave out --mask-values 0' if inverted else 'give --mask-values 0'}; if it is right, name "
            "the nodule's values with --mask-values"
        )
    if _is_a_line(pixels):
        raise InputError(
            "values: what is marked encloses more pixels than it has, as a drawn line does; fill it in; if it is "
            "right, name the nodule's values with --mask-values"
        )
    return found._replace(pixels=pixels)


def _cut(labels: np.ndarray, is_chosen: bool) -> Nodule:
    if is_chosen:
        raise InputError("values: JPEG does not keep them, so --mask-values cannot be used; save the mask as PNG")
    brightness = brightest_channel(labels)
    if 0 < (brightest := int(brightness.max(initial=0))) < DIMMEST_WHITE:
        raise InputError(f"values: none is above {brightest}, too dark to cut a JPEG at 127; save the mask as PNG")
    return Nodule(brightness > 127, "JPEG masks are cut at 127")


def _chosen(labels: np.ndarray, stored: np.ndarray, chosen: Collection[int]) -> Nodule:
    mask = np.isin(labels, list(chosen)) | np.isin(stored, list(chosen))
    others = [value for value in _values(labels[~mask]) if value]
    remarks = {
        f"masks have values outside --mask-values: {_named(others)}": bool(others),
        "masks mark all corners and over half of the frame": _fills(mask),
        "masks enclose more pixels than they mark, as drawn lines do": _is_a_line(mask),
    }
    return Nodule(mask, next((remark for remark, holds in remarks.items() if holds), ""))


def _not_zero(labels: np.ndarray, inverted: bool) -> Nodule:
    values = _values(labels)
    marked = [value for value in values if value]
    if labels.min(initial=0) < 0:
        raise InputError(f"values: {_named(marked)}, a label is not negative; save the mask again")
    if marked and values[0] != 0 and not (inverted and len(marked) == 1):
        raise InputError(f"values: {_named(marked)} and no 0, so nothing is outside; {ASK}")
    if len(marked) < 2 or marked[-1] < MOST_LABELS:
        return Nodule(labels > 0, values=tuple(marked))
    if marked[-1] == 255:
        if _has_areas(labels) or ((labels > 0) & (labels < 255)).sum() > (labels == 255).sum():
            raise InputError(f"values: {_named(marked)} are not just grey edges between 0 and 255; {ASK}")
        return Nodule(labels > 127, "masks with grey edges are cut at 127")
    if marked[-1] > 0xFFFF and len(marked) <= MOST_COLOURS:
        return Nodule(labels > 0, values=tuple(marked))
    raise InputError(f"values: {_named(marked)}, neither labels below {MOST_LABELS} nor grey edges; {ASK}")


def _by_colour(stored: Labels) -> np.ndarray:
    try:
        return by_colour(stored)
    except InputError as error:
        raise InputError(f"{error}; {ASK}, by their index") from error


def _fills(mask: np.ndarray) -> bool:
    """Whether a frame of bool[n h w] has all four corners and over half of its pixels marked."""
    return any(map(fills_frame, mask))


def _is_a_line(mask: np.ndarray) -> bool:
    """Whether in a frame of bool[n h w] the holes of what is marked are together larger than what is marked."""
    from scipy.ndimage import label

    for frame in mask:
        parts, _ = label(~np.pad(frame, 1))  # the part of the upper left corner is outside
        sizes = np.bincount(parts.ravel(), minlength=2)[1:]
        if sizes.sum() - sizes[parts[0, 0] - 1] > frame.sum() > 0:
            return True
    return False


def several(places: Mapping[int, str]) -> str:
    """A fault about the values that the masks of a data set have, each with a file that has it; "" for a single one.

    White is one value, however many bits it has: 1, 255, 65535 and 0xFFFFFF.
    """
    if len({1 if value in WHITE else value for value in places}) < 2:
        return ""
    found = ", ".join(f"{_named([value])} ({places[value]})" for value in sorted(places)[:6])
    more = f" and {len(places) - 6} more" if len(places) > 6 else ""
    example = ",".join(_named([value]) for value in sorted(places)[:6])
    return f"masks: have several values, {found}{more}; say which are the nodule, as with --mask-values {example}."


def looks_like_a_mask(frame: np.ndarray) -> bool:
    """Whether an image uint8[h w] has few grey values, holds black and white only but for traces of compression, or
    has one value in over half of what is not background, as a mask with grey edges.
    """
    counts = np.sort(np.bincount(frame.ravel(), minlength=256))[::-1]
    if (counts > 0).sum() <= FEW_VALUES or counts[1] > counts[1:].sum() / 2:
        return True
    dark, bright = frame <= 16, frame >= 239
    return bool(dark.any() and bright.any() and (dark | bright).mean() > 0.999)


def united(masks: Sequence[np.ndarray]) -> np.ndarray:
    """The pixels that any of the masks, bool of one shape each, has marked."""
    return masks[0] if len(masks) == 1 else np.any(np.stack(masks), axis=0)


def majority(masks: Collection[np.ndarray]) -> np.ndarray:
    """The pixels that more than half of the readers' masks, bool[n h w] each, have marked; a tie counts as outside."""
    return np.sum(np.stack(list(masks)), axis=0) * 2 > len(masks)


def _values(labels: np.ndarray) -> list[int]:
    """The values that are there, in ascending order; counting is faster than sorting where they are small."""
    small = labels.size and labels.min() >= 0 and labels.max() < 1 << 16
    return (np.flatnonzero(np.bincount(labels.ravel())) if small else np.unique(labels)).tolist()


def _grey_as_one_channel(labels: np.ndarray) -> np.ndarray:
    """Colours 0xVVVVVV of a grey picture as the grey values 0xVV."""
    grey = labels & 0xFF
    return grey if labels.size and labels.max() > 0xFFFF and np.array_equal(labels, grey * 0x010101) else labels


def _has_areas(labels: np.ndarray) -> bool:
    """Whether a block of 3 x 3 pixels has one value between 0 and 255: an area, not an edge."""
    _, height, width = labels.shape
    middle = (labels > 0) & (labels < 255)
    if min(height, width) < 3 or not middle.any():
        return False
    shifted = lambda i, j: labels[:, i : height - 2 + i, j : width - 2 + j]
    same = np.all([shifted(i, j) == shifted(1, 1) for i in range(3) for j in range(3)], axis=0)
    return bool((same & middle[:, 1:-1, 1:-1]).any())


def _named(values: list[int]) -> str:
    texts = [f"0x{value:06X}" if value > 0xFFFF else str(value) for value in values[:6]]
    return " ".join(texts) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
