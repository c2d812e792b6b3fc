"""Quality of one outline: a predicted mask beside a reference mask, both bool[h w]; and the nodule's contrast.

Overlap is counted in pixels. Distances are those between the centres of boundary pixels: pixels of the mask with a
4-neighbour outside it, where the image border counts as outside. Every boundary pixel counts once.

=======================  ==========================  ====================================  =============================
measure                  both masks empty            predicted alone empty                 reference alone empty
=======================  ==========================  ====================================  =============================
Dice, IoU                1                           0                                     0
precision                1                           NaN: nothing is predicted             0
recall                   1                           0                                     NaN: there is nothing to find
HD95, ASSD               0                           NaN: no distance                      NaN: no distance
surface Dice, BF score   1                           0                                     0
area difference          0                           -1                                    NaN: no area to compare with
=======================  ==========================  ====================================  =============================

NaN is "undefined": a summary leaves it out and counts it. A missing reference is not an empty one: no measure exists.
Without a pixel spacing there is no measure in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.metrics.arithmetic import NAN

PIXELS = (1.0, 1.0)  # the spacing that gives distances in pixels


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Dice overlap of two masks bool[h w]: 2 |A and B| / (|A| + |B|), in [0, 1].

    Both empty: 1. One empty: 0. Raises ValueError unless both are boolean (threshold probabilities first) and of one
    2-D shape.
    """
    predicted, reference = _masks(predicted, reference)
    total = np.count_nonzero(predicted) + np.count_nonzero(reference)
    return float(2 * np.count_nonzero(predicted & reference) / total) if total else 1.0


def iou(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Intersection over union (Jaccard) of two masks bool[h w]: |A and B| / |A or B|, in [0, 1].

    Both empty: 1. One empty: 0. Raises ValueError like :func:`dice`.
    """
    predicted, reference = _masks(predicted, reference)
    union = np.count_nonzero(predicted | reference)
    return float(np.count_nonzero(predicted & reference) / union) if union else 1.0


def precision(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Share of the predicted mask's pixels that lie in the reference: |A and B| / |A|, in [0, 1].

    Both empty: 1. Predicted alone empty: NaN. Raises ValueError like :func:`dice`.
    """
    predicted, reference = _masks(predicted, reference)
    area = np.count_nonzero(predicted)
    if not area:
        return NAN if reference.any() else 1.0
    return float(np.count_nonzero(predicted & reference) / area)


def recall(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Share of the reference's pixels that the predicted mask holds: |A and B| / |B|, in [0, 1].

    It is the sensitivity of the pixels. Both empty: 1. Reference alone empty: NaN. Raises ValueError like :func:`dice`.
    """
    return precision(reference, predicted)


def area_difference(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Signed relative difference of the areas of two masks bool[h w]: (|A| - |B|) / |B|, at least -1.

    Above 0 the predicted mask is too large. Both empty: 0. Reference alone empty: NaN. Raises ValueError like
    :func:`dice`. Source: Heimann et al., IEEE TMI 28 (2009) 1251-1265 (there in percent, and without a sign).
    """
    predicted, reference = _masks(predicted, reference)
    return area_difference_of(int(np.count_nonzero(predicted)), int(np.count_nonzero(reference)))


def area_difference_of(predicted: int, reference: int) -> float:
    """:func:`area_difference` of two areas in pixels."""
    if not reference:
        return NAN if predicted else 0.0
    return (predicted - reference) / reference


def area_mm2(mask: np.ndarray, spacing: tuple[float, float]) -> float:
    """Area of a mask bool[h w] in mm2, from the (row, column) pixel pitch in mm; NaN where the spacing holds a NaN.

    Raises ValueError for a mask that is not bool, or a spacing that is not positive.
    """
    if np.asarray(mask).dtype != bool:
        raise ValueError(f"the mask must be bool[h w], not {np.asarray(mask).dtype}.")
    if np.isnan(spacing).any():
        return NAN
    _check_spacing(spacing)
    return float(np.count_nonzero(mask) * spacing[0] * spacing[1])


class BoundaryDistances(NamedTuple):
    """Distance of each boundary pixel of one mask to the nearest boundary pixel of the other, in the spacing's unit.

    ``of_predicted`` f[p] and ``of_reference`` f[q], for p and q boundary pixels. An empty mask has no boundary: its
    array is empty, and the distances to it are infinite.
    """

    of_predicted: np.ndarray
    of_reference: np.ndarray


def boundary_distances(
    predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, float] = PIXELS
) -> BoundaryDistances:
    """The distances from which HD95, ASSD, surface Dice and boundary F score of two masks bool[h w] are computed.

    ``spacing`` is the (row, column) pixel pitch, e.g. in mm. Raises ValueError like :func:`dice`, and for a spacing
    that is not positive.
    """
    predicted, reference = _masks(predicted, reference)
    _check_spacing(spacing)
    of_predicted, of_reference = (np.argwhere(_boundary(mask)) * np.asarray(spacing) for mask in (predicted, reference))
    return BoundaryDistances(_nearest(of_predicted, of_reference), _nearest(of_reference, of_predicted))


def hd95_px(predicted: np.ndarray, reference: np.ndarray) -> float:
    """:func:`hd95` in pixels of the masks handed over (after any resizing, so not comparable between resolutions)."""
    return hd95(predicted, reference, PIXELS)


def hd95(predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, float]) -> float:
    """95 % Hausdorff distance of two masks bool[h w], in the unit of ``spacing`` = (row, column) pixel pitch, e.g. mm.

        HD95 = max( P95 over a in dA of min_b |a - b|,  P95 over b in dB of min_a |a - b| )

    It is the **larger of the two directed 95th percentiles** (as in MONAI; pooling both directions gives a smaller
    number when one side has a short outlying boundary). dA holds the centres of A's boundary pixels. Percentiles
    interpolate linearly and every boundary pixel counts once.

    Both empty: 0. One empty: NaN. Raises ValueError like :func:`boundary_distances`.
    Source: Huttenlocher et al., IEEE TPAMI 15 (1993) 850-863; conventions: Maier-Hein et al., Nature Methods 21
    (2024) 195-212.
    """
    return _hd95(boundary_distances(predicted, reference, spacing))


def assd(predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, float] = PIXELS) -> float:
    """Average symmetric surface distance of two masks bool[h w], in the unit of ``spacing``.

        ASSD = ( sum over a in dA of min_b |a - b|  +  sum over b in dB of min_a |a - b| ) / (|dA| + |dB|)

    The mean over the boundary pixels of **both masks, pooled**, so that the longer boundary weighs more. (The mean of
    the two directed means is another number, under the same name in some libraries.)

    Both empty: 0. One empty: NaN. Raises ValueError like :func:`boundary_distances`.
    Source: Heimann et al., IEEE TMI 28 (2009) 1251-1265.
    """
    return _assd(boundary_distances(predicted, reference, spacing))


def nsd(predicted: np.ndarray, reference: np.ndarray, tolerance: float, spacing: tuple[float, float] = PIXELS) -> float:
    """Normalised surface Dice of two masks bool[h w] at a tolerance in the unit of ``spacing``, in [0, 1].

        NSD = ( |{a in dA: min_b |a - b| <= t}| + |{b in dB: min_a |a - b| <= t}| ) / (|dA| + |dB|)

    The share of both boundaries that is as near to the other as ``tolerance`` t allows. Boundary pixels are counted, as
    in MONAI; libraries that weigh them by the length of the boundary give slightly other values. Choose t as the
    distance between two good readers.

    Both empty: 1. One empty: 0. Raises ValueError like :func:`boundary_distances`, and for a negative tolerance.
    Source: Nikolov et al., JMIR 23 (2021) e26151.
    """
    return _nsd(boundary_distances(predicted, reference, spacing), tolerance)


def boundary_f(
    predicted: np.ndarray, reference: np.ndarray, tolerance: float, spacing: tuple[float, float] = PIXELS
) -> float:
    """Boundary F score of two masks bool[h w] at a tolerance in the unit of ``spacing``, in [0, 1].

        P = |{a in dA: min_b |a - b| <= t}| / |dA|    R = |{b in dB: min_a |a - b| <= t}| / |dB|    BF = 2PR / (P + R)

    It differs from :func:`nsd` by giving both boundaries the same weight, whatever their length. The distance is exact
    Euclidean: no pixel is matched to one pixel only.

    Both empty: 1. One empty, or no boundary pixel within ``tolerance``: 0. Raises ValueError like :func:`nsd`.
    Source: Csurka et al., BMVC 2013, "What is a good evaluation measure for semantic segmentation?"
    """
    return _boundary_f(boundary_distances(predicted, reference, spacing), tolerance)


def outline_measures(
    predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, float] = (NAN, NAN)
) -> dict[str, float]:
    """All measures of two masks bool[h w] by the names of the per-case table; boundary distances are computed once.

    Keys: ``dice, iou, precision, recall, hd95_px, hd95_mm, assd_px, assd_mm, nsd_2px, nsd_1mm, boundary_f_2px``.
    Tolerances stand in the names: 2 pixels of these masks, 1 mm. ``spacing`` is the pixel pitch in mm; with a NaN in it
    the measures in mm are NaN. Raises ValueError like :func:`boundary_distances`.
    """
    in_px = boundary_distances(predicted, reference)
    measures = {
        "dice": dice(predicted, reference),
        "iou": iou(predicted, reference),
        "precision": precision(predicted, reference),
        "recall": recall(predicted, reference),
        "hd95_px": _hd95(in_px),
        "assd_px": _assd(in_px),
        "nsd_2px": _nsd(in_px, 2),
        "boundary_f_2px": _boundary_f(in_px, 2),
    }
    if np.isnan(spacing).any():
        return measures | dict.fromkeys(("hd95_mm", "assd_mm", "nsd_1mm"), NAN)
    in_mm = boundary_distances(predicted, reference, spacing)
    return measures | {"hd95_mm": _hd95(in_mm), "assd_mm": _assd(in_mm), "nsd_1mm": _nsd(in_mm, 1)}


def contrast_to_noise(image: np.ndarray, mask: np.ndarray) -> float:
    """Contrast of a nodule to its surroundings, in standard deviations of these: image uint8[h w], mask bool[h w].

        CNR = (mean of the ring - mean of the nodule) / standard deviation of the ring

    The ring holds the pixels outside the mask whose distance to it is at most a tenth of the nodule's equivalent
    diameter, and at least 2 pixels: w = max(2, 0.1 * 2 sqrt(|mask| / pi)). Above 0 the nodule is darker than the ring
    (hypoechoic). The standard deviation divides by the number of pixels. The ring ends at the image border. Pixels
    beyond the scan's sector are not told from dark tissue.

    NaN where the mask or the ring is empty, or all pixels of the ring have one value. Raises ValueError for an image
    that is not uint8, or a mask that is not bool of its shape.
    Source: the measure of Patterson and Foster, Ultrasonic Imaging 5 (1983) 195-213, who pool the variances of nodule
    and surroundings; here the ring's alone is the noise, so that a heterogeneous nodule does not lose contrast.
    """
    from scipy.ndimage import distance_transform_edt

    image, mask = np.asarray(image), np.asarray(mask)
    if image.dtype != np.uint8 or mask.dtype != bool or image.ndim != 2 or image.shape != mask.shape:
        given = f"{image.dtype}{list(image.shape)} and {mask.dtype}{list(mask.shape)}"
        raise ValueError(f"contrast needs an image uint8[h w] and a mask bool[h w] of its shape, not {given}.")
    if not mask.any():
        return NAN
    width = max(2.0, 0.1 * 2 * np.sqrt(np.count_nonzero(mask) / np.pi))
    box = _box_around(mask, int(np.ceil(width)))
    distance = distance_transform_edt(~mask[box])
    ring = image[box][(distance > 0) & (distance <= width)].astype(float)
    if not ring.size or ring.min() == ring.max():
        return NAN
    return float((ring.mean() - image[mask].mean()) / ring.std())


def dice_with_readers(predicted: np.ndarray | None, readers: Sequence[np.ndarray | None]) -> tuple[float, ...]:
    """:func:`dice` of a mask with each reader's; NaN where there is no mask, or where a reader drew none (None)."""
    return tuple(NAN if predicted is None or mask is None else dice(predicted, mask) for mask in readers)


def _hd95(distances: BoundaryDistances) -> float:
    sizes = [len(side) for side in distances]
    if not all(sizes):
        return NAN if any(sizes) else 0.0
    return float(max(np.percentile(side, 95) for side in distances))


def _assd(distances: BoundaryDistances) -> float:
    sizes = [len(side) for side in distances]
    if not all(sizes):
        return NAN if any(sizes) else 0.0
    return float(np.concatenate(distances).mean())


def _nsd(distances: BoundaryDistances, tolerance: float) -> float:
    near = _within(np.concatenate(distances), tolerance)
    return float(near.mean()) if near.size else 1.0


def _boundary_f(distances: BoundaryDistances, tolerance: float) -> float:
    near = [_within(side, tolerance) for side in distances]
    if not all(side.size for side in near):
        return 0.0 if any(side.size for side in near) else 1.0
    shares = [float(side.mean()) for side in near]
    return 2 * shares[0] * shares[1] / sum(shares) if any(shares) else 0.0


def _within(distance: np.ndarray, tolerance: float) -> np.ndarray:
    """bool[n]; a distance that exceeds the tolerance by rounding alone (10 pixels of 0.1 mm) is within it."""
    if not tolerance >= 0:
        raise ValueError(f"the tolerance must be 0 or more, not {tolerance}.")
    return np.isfinite(distance) & (distance <= tolerance * (1 + 1e-9))  # nothing is near an empty mask


def _masks(predicted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, reference = np.asarray(predicted), np.asarray(reference)
    if predicted.dtype != bool or reference.dtype != bool or predicted.shape != reference.shape or predicted.ndim != 2:
        given = f"{predicted.dtype}{list(predicted.shape)} and {reference.dtype}{list(reference.shape)}"
        raise ValueError(f"masks must be bool[h w] of one shape, not {given}.")
    return predicted, reference


def _check_spacing(spacing: tuple[float, float]) -> None:
    if len(spacing) != 2 or not all(np.isfinite(pitch) and pitch > 0 for pitch in spacing):
        raise ValueError(f"spacing must be two positive numbers, not {spacing}.")


def _boundary(mask: np.ndarray) -> np.ndarray:
    """The pixels of bool[h w] with a 4-neighbour outside the mask or outside the image."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inner


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance f[n] of each of the points f[n 2] to the nearest of the others; infinite when there are none."""
    from scipy.spatial import KDTree

    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return np.asarray(KDTree(others).query(points)[0])


def _box_around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The part of the image within ``margin`` rows and columns of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=other)) for other in (1, 0))
    around = lambda places: slice(max(places[0] - margin, 0), places[-1] + margin + 1)
    return around(rows), around(columns)
