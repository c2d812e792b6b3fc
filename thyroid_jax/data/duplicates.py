"""Images that are there twice, as equal pixels or as nearly equal pictures, and the groups that they join.

No split may put the same picture on two sides, so groups that share one become one group. Equal pixels are found by
their hash (:func:`merge_groups`). Copies that were shifted, cropped, scaled, mirrored, compressed again, made brighter
or marked with callipers are found by :func:`near_pairs`, in two steps:

1. Each picture is cropped to its lit part and scaled to a thumbnail of 96 x 96 pixels, its signature. The texture of a
   thumbnail is what stays without the local mean and contrast. Two ultrasound pictures always share the slow change of
   brightness with depth; two different ones share almost no texture. Pairs whose coarse textures, at 24 x 24 pixels,
   correlate are candidates: one pair in some 200.
2. One thumbnail of a candidate is moved and scaled on each axis until it fits the other (Gauss-Newton steps at 24, 48
   and 96 pixels). The correlation of the textures at 96 pixels then decides.

What the correlation means was measured on 2058 pictures of BUSI, BUS-BRA, BrEaST and DDTI: copies of one picture had
0.95 and more, other frames of the same scan 0.59 to 0.83, two views of a patient up to 0.53, and pictures of different
patients at most 0.33. Missed are copies turned by 3 degrees or more, some turned by 2, and many that were cropped by
over 10 % of a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

AT_LEAST = 0.5  # correlation of a pair: see above
SIDE = 96  # pixels of a signature
DARK = 8  # grey values so far above the darkest one still count as black when the lit part of a picture is looked for
COARSE = 24  # pixels of the textures that choose the candidates
FIRST = 0.5  # their correlation
REGISTRATION = ((4, 6, 0.6), (2, 5, 0.4), (1, 3, -1.0))  # pixels per cell, steps, correlation needed to go on
FARTHEST = 0.2  # largest shift, and largest change of scale, in the registration: half the width is 1
BLOCK = 256  # images, or pairs, that are compared at once


class Pair(NamedTuple):
    """Images i < j that show the same picture. ``correlation`` is in [-1, 1]; ``mirrored``: left and right differ."""

    i: int
    j: int
    correlation: float
    mirrored: bool


def merge_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """The group of each record after groups that share a content have been merged.

    ``groups[i]`` and ``contents[i]`` belong to record i. Groups are also merged if they share contents through other
    groups only. A merged group takes the name of the member that comes first in ``groups``, so the result depends on
    nothing but the records and their order. Raises ``ValueError`` for unequal lengths.
    """
    if len(groups) != len(contents):
        raise ValueError(f"{len(groups)} groups but {len(contents)} contents")
    first: dict[str, int] = {}
    return _joined(groups, [(first.setdefault(content, i), i) for i, content in enumerate(contents)])


def merge_pairs(groups: Sequence[str], pairs: Sequence[Pair]) -> list[str]:
    """The group of each record after the groups of every pair have been merged; names as in :func:`merge_groups`."""
    return _joined(groups, [(pair.i, pair.j) for pair in pairs])


def _joined(groups: Sequence[str], links: Sequence[tuple[int, int]]) -> list[str]:
    """The groups after the groups of the two records of every link have been merged."""
    parent = {group: group for group in groups}
    rank = {group: order for order, group in enumerate(dict.fromkeys(groups))}
    for one, two in links:
        here, there = _root(parent, groups[one]), _root(parent, groups[two])
        first, other = sorted((here, there), key=rank.__getitem__)
        parent[other] = first
    return [_root(parent, group) for group in groups]


def _root(parent: dict[str, str], group: str) -> str:
    while parent[group] != group:
        parent[group] = parent[parent[group]]  # path halving keeps the trees flat
        group = parent[group]
    return group


def conflicts(pairs: Sequence[Pair], *labels: Sequence[object | None]) -> list[Pair]:
    """The pairs whose two images have different values of a label; None is unknown and differs from nothing.

    Each of ``labels`` is one label of all images, such as the grades.
    """

    def differ(one: object | None, two: object | None) -> bool:
        return one is not None and two is not None and one != two

    return [pair for pair in pairs if any(differ(values[pair.i], values[pair.j]) for values in labels)]


def signature(image: np.ndarray) -> np.ndarray:
    """The thumbnail uint8[96 96] of the lit part of ``image`` uint8[h w], by which its copies are found.

    Black rows and columns at the edges are cut off; a picture that is black everywhere stays as it is. Raises
    ``ValueError`` for anything that is not a grey picture with at least one pixel.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image is {image.dtype}{list(image.shape)}, not uint8[h w]")
    lit = image > int(image.min()) + DARK
    rows, columns = (np.flatnonzero(lit.mean(axis) > 0.01) for axis in (1, 0))
    if len(rows) and len(columns):
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray(np.ascontiguousarray(image)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(scaled)


def near_pairs(
    signatures: np.ndarray, *, at_least: float = AT_LEAST, groups: Sequence[object] | None = None
) -> list[Pair]:
    """All pairs i < j of nearly equal images, in ascending order.

    ``signatures`` uint8[n 96 96] are those of :func:`signature`. Pairs inside one of the ``groups`` are not looked
    for; a data set of clips needs them, because every two frames of a clip are nearly equal. Images without texture
    are in no pair. ``at_least`` below 0.4 misses pairs, because those of weaker texture are not examined. Memory is
    some 14 KiB an image and 100 MiB; time grows with the square of n (6 s of one processor for 2000 images), and
    more if all pictures share an anatomy, as phantoms do. Raises ``ValueError`` for another array or unequal lengths.
    """
    if groups is not None and len(groups) != len(signatures):
        raise ValueError(f"{len(groups)} groups but {len(signatures)} signatures")
    images = _prepared(signatures)
    return _pairs(images, images, range(len(signatures)) if groups is None else groups, at_least)


def near_pairs_between(one: np.ndarray, two: np.ndarray, *, at_least: float = AT_LEAST) -> list[Pair]:
    """All pairs of an image i of ``one`` and a nearly equal image j of ``two``, as :func:`near_pairs` finds them."""
    return _pairs(_prepared(one), _prepared(two), None, at_least)


class _Images(NamedTuple):
    """Signatures uint8[n 96 96], their textures float32[n 24 24], and coarse ones as vectors float32[n 576].

    The vectors have mean 0 and length 1; they are 0 where there is no texture.
    """

    signatures: np.ndarray
    textures: np.ndarray
    vectors: np.ndarray


def _prepared(signatures: np.ndarray) -> _Images:
    if signatures.dtype != np.uint8 or signatures.shape[1:] != (SIDE, SIDE):
        kind = f"{signatures.dtype}{list(signatures.shape)}"
        raise ValueError(f"signatures are {kind}, not uint8[n {SIDE} {SIDE}] of signature()")
    textures = np.empty((len(signatures), COARSE, COARSE), np.float32)
    vectors = np.empty((len(signatures), COARSE**2), np.float32)
    for start in range(0, len(signatures), BLOCK):
        block = slice(start, start + BLOCK)
        textures[block] = _texture(signatures[block], SIDE // COARSE)
        coarse = _texture(signatures[block], SIDE // COARSE, smooth=1).reshape(-1, COARSE**2)
        coarse -= coarse.mean(1, keepdims=True)
        vectors[block] = coarse / np.maximum(np.linalg.norm(coarse, axis=1, keepdims=True), 1e-6)
    return _Images(signatures, textures, vectors)


def _pairs(one: _Images, two: _Images, groups: Sequence[object] | None, at_least: float) -> list[Pair]:
    """Pairs of one[i] and two[j]. If there are ``groups``, both are the same images: only i < j of two groups.

    A pair that fits both as it is and mirrored is called mirrored only if it fits better so.
    """
    best: dict[tuple[int, int], Pair] = {}
    for i, j, mirrored in _candidates(one.vectors, two.vectors, groups):
        turn = slice(None, None, -1 if mirrored else 1)
        values = _fit(
            (one.signatures[i], one.textures[i]), (two.signatures[j][:, :, turn], two.textures[j][:, :, turn])
        )
        for pair in map(Pair, i.tolist(), j.tolist(), values.tolist(), [mirrored] * len(i)):
            if pair.correlation >= at_least and pair.correlation > best.get(pair[:2], _NO_PAIR).correlation:
                best[pair[:2]] = pair
    return sorted(best.values())


_NO_PAIR = Pair(-1, -1, -2.0, False)


def _candidates(
    rows: np.ndarray, columns: np.ndarray, groups: Sequence[object] | None
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Batches (i, j, mirrored) of pairs of vectors that correlate, before any registration."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups or ()))}
    group_of = np.array([numbers[group] for group in groups or ()])
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        first = 0 if groups is None else start  # column of the first j
        for mirrored in (False, True):
            turned = block.reshape(-1, COARSE, COARSE)[:, :, ::-1].reshape(block.shape) if mirrored else block
            alike = turned @ columns[first:].T >= FIRST
            if groups is not None:
                alike = np.triu(alike, 1) & (group_of[start : start + BLOCK, None] != group_of[first:])
            i, j = np.nonzero(alike)
            for batch in range(0, len(i), BLOCK):
                yield i[batch : batch + BLOCK] + start, j[batch : batch + BLOCK] + first, mirrored


def _texture(signatures: np.ndarray, cell: int, smooth: float = 0) -> np.ndarray:
    """The signatures without local mean and contrast, at 1 / ``cell`` of their size: float32[n 96/cell 96/cell].

    ``smooth`` is the standard deviation, in the resulting pixels, of a Gaussian that blurs the picture first.
    """
    from scipy.ndimage import gaussian_filter

    def blurred(pictures: np.ndarray, sigma: float = 3) -> np.ndarray:
        return gaussian_filter(pictures, (0, sigma, sigma), mode="nearest", truncate=3)

    shifts = [(y, x) for y in range(cell) for x in range(cell)]
    total = sum(signatures[:, y::cell, x::cell].astype(np.float32) for y, x in shifts)
    pictures = blurred(np.asarray(total / np.float32(cell**2)), smooth)
    detail = pictures - blurred(pictures)
    return detail / np.sqrt(blurred(detail**2) + 4)  # a contrast below 2 grey values is noise


_Pictures = tuple[np.ndarray, np.ndarray]  # signatures and their textures


def _fit(one: _Pictures, two: _Pictures) -> np.ndarray:
    """Correlations float[n] of the pairs one[k] and two[k], the same if the two are exchanged."""
    return np.maximum(_registered(*one, *two), _registered(*two, *one))


def _registered(fixed: np.ndarray, still: np.ndarray, moving: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation float[n] of each fixed signature with the moving one that was fitted to it, -1 if they are unlike.

    ``still`` and ``other`` are the textures of the fixed and the moving signatures.
    """
    live = np.arange(len(fixed))
    placing = np.zeros((len(fixed), 4), np.float32)
    for cell, steps, needed in REGISTRATION:
        if cell < SIDE // COARSE:
            still, other = _texture(fixed[live], cell), _texture(moving[live], cell)
        placing, values = _aligned(still, other, placing, steps)
        good = values >= needed
        live, placing, values = live[good], placing[good], values[good]
    result = np.full(len(fixed), -1.0)
    result[live] = values
    return result


def _aligned(still: np.ndarray, other: np.ndarray, placing: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares fit of ``other`` to ``still``, float32[n s s] each, and their correlation float[n] after it.

    ``placing`` float32[n 4] is the change of scale and the shift of the rows, then those of the columns.
    """
    n, side, _ = still.shape
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    down, across = (np.gradient(still, axis=axis) * ((side - 1) / 2) for axis in (1, 2))
    slopes = np.stack([down * grid[:, None], down, across * grid, across], 1).reshape(n, 4, side**2)
    normal = slopes @ slopes.swapaxes(1, 2)
    normal += np.eye(4, dtype=np.float32) * (1e-3 + 1e-3 * np.trace(normal, axis1=1, axis2=2))[:, None, None]
    inverse = np.linalg.inv(normal)
    for _ in range(steps):
        moved, inside = _moved(other, placing, grid)
        error = ((moved - still) * inside).reshape(n, side**2, 1)
        placing = np.clip(placing - (inverse @ (slopes @ error))[..., 0], -FARTHEST, FARTHEST)
    moved, inside = _moved(other, placing, grid)
    return placing, _correlation(still, moved, inside)


def _moved(pictures: np.ndarray, placing: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures scaled and shifted, by bilinear interpolation, and where they lie inside: bool[n s s]."""
    rows, columns = ((1 + placing[:, k, None]) * grid + placing[:, k + 1, None] for k in (0, 2))
    moved = _interpolated(_interpolated(pictures, rows).swapaxes(1, 2), columns).swapaxes(1, 2)
    return moved, (np.abs(rows) <= 1)[:, :, None] & (np.abs(columns) <= 1)[:, None, :]


def _interpolated(pictures: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of the pictures float32[n s s] at ``places`` float32[n s], where -1 is the first row and 1 the last one."""
    side = pictures.shape[1]
    at = np.clip((places + 1) * ((side - 1) / 2), 0, side - 1)
    above = np.minimum(at.astype(np.intp), side - 2)
    part = (at - above).astype(np.float32)[:, :, None]
    which = np.arange(len(pictures))[:, None]
    return pictures[which, above] * (1 - part) + pictures[which, above + 1] * part


def _correlation(one: np.ndarray, two: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Correlation float[n] of pictures float32[n s s] over the pixels ``inside``; 0 for a picture without texture."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    one, two = ((x - (x * inside).sum((1, 2), keepdims=True) / count) * inside for x in (one, two))
    lengths = np.sqrt((one**2).sum((1, 2)) * (two**2).sum((1, 2)))
    return (one * two).sum((1, 2)) / np.maximum(lengths, 1e-6)
