"""Which pixels of a mask file are the nodule. What is not plain is a fault or a remark, never a silent guess."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from thyroid_jax.errors import InputError

MOST_LABELS = 32  # a label map of small whole numbers has smaller ones
MOST_COLOURS = 8
ASK = "say with --mask-values which are the nodule"


def nodule(labels: np.ndarray, *, lossy: bool, chosen: Collection[int] = ()) -> tuple[np.ndarray, str]:
    """The nodule's pixels, bool[n h w], of label values int[n h w], and a remark on how they were found, "" if plainly.

    ``chosen`` are the values of the nodule. By default every value but 0 is: a mask of 0 and one other value is plain.
    A ``lossy`` file (JPEG) is cut in the middle, at 127, as are grey edges between 0 and 255. Colours are 0xRRGGBB.
    Raises :class:`InputError` when the values do not say what the nodule is.
    """
    stored, labels = labels, _grey_as_one_channel(labels)
    if lossy:
        if chosen:
            raise InputError("values: JPEG does not keep them, so --mask-values cannot be used; save the mask as PNG")
        return _brightest(labels) > 127, "JPEG masks are cut at 127"
    values = _values(labels)
    marked = [value for value in values if value]
    if labels.min(initial=0) < 0:
        raise InputError(f"values: {_named(marked)}, a label is not negative; save the mask again")
    if chosen:
        mask = np.isin(labels, list(chosen)) | np.isin(stored, list(chosen))
        others = [value for value in _values(labels[~mask]) if value]
        return mask, f"masks have values outside --mask-values: {_named(others)}" if others else ""
    if marked and values[0] != 0:
        raise InputError(f"values: {_named(marked)} and no 0, so nothing is outside; {ASK}")
    if len(marked) < 2:
        return labels > 0, ""
    if marked[-1] < MOST_LABELS:
        return labels > 0, f"masks have several labels, all of which count as nodule: {_named(marked)}"
    if marked[-1] == 255:
        if _has_areas(labels) or ((labels > 0) & (labels < 255)).sum() > (labels == 255).sum():
            raise InputError(f"values: {_named(marked)} are not just grey edges between 0 and 255; {ASK}")
        return labels > 127, "masks with grey edges are cut at 127"
    if marked[-1] > 0xFFFF and len(marked) <= MOST_COLOURS:
        return labels > 0, f"masks have several colours, all of which count as nodule: {_named(marked)}"
    raise InputError(f"values: {_named(marked)}, neither labels below {MOST_LABELS} nor grey edges; {ASK}")


def looks_like_a_mask(frame: np.ndarray) -> bool:
    """Whether an image uint8[h w] holds black and white only, but for traces of compression."""
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


def _brightest(labels: np.ndarray) -> np.ndarray:
    return np.max([labels >> 16 & 0xFF, labels >> 8 & 0xFF, labels & 0xFF], axis=0)


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
