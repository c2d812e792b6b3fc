"""Calibration of the soft outline: is a pixel with probability p inside the reference in a share p of the cases?

The histograms of single images are arrays that are added: a part of any size is measured in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.calibration.binning import BINS, ROUNDING, BinSums, bin_edges, bin_of
from thyroid_jax.evaluate.calibration.reliability import Reliability, table_of
from thyroid_jax.evaluate.calibration.summaries import centred_interval
from thyroid_jax.evaluate.metrics import NAN, ratio
from thyroid_jax.evaluate.statistics import cluster_replicates, interval_of
from thyroid_jax.evaluate.summary.entry import Summary, entry


def pixel_counts(
    probability: np.ndarray, reference: np.ndarray, bins: int = BINS, *, band_px: float | None = None
) -> np.ndarray:
    """Histogram f64[4 bins] of one image's pixels, from probability f[h w] and reference bool[h w].

    For each of ``bins`` bins of equal width in [0, 1]: the number of pixels, how many of them lie inside the reference,
    the sum of their probabilities, and the sum of (probability - inside)^2. Histograms with equal bins are added with
    ``+``; as numbers they stay exact to 2^53 pixels.

    Most pixels of an image are background that is easily told, and make the error of all pixels small. ``band_px`` > 0
    counts only the pixels near the border of the reference: those whose centre is at most that many pixels away from
    the centre of a pixel of the other kind. 1 takes the row of pixels on either side of the border. The edge of the
    image is no border. So a reference that is empty or fills the image has no border, and counts no pixel.

    Raises ValueError for a probability that is NaN or outside [0, 1], a reference that is not boolean, other shapes, or
    a band below 1.
    """
    probability, reference = np.asarray(probability), np.asarray(reference)
    if probability.ndim != 2 or probability.shape != reference.shape or reference.dtype != bool:
        given = f"{list(probability.shape)} and {reference.dtype}{list(reference.shape)}"
        raise ValueError(f"probability and reference must be f[h w] and bool[h w] of one shape, not {given}.")
    if not ((probability >= 0) & (probability <= 1 + ROUNDING)).all():
        raise ValueError("a pixel's probability is NaN or outside [0, 1].")
    if band_px is not None and not 1 <= band_px < np.inf:
        raise ValueError(f"band_px must be 1 or more, not {band_px}.")
    counted = np.ones(reference.shape, bool) if band_px is None else _near_border(reference, band_px)
    forecast, inside = np.minimum(probability[counted].astype(float), 1), reference[counted].astype(float)
    member = bin_of(forecast, bin_edges(forecast, bins))
    columns = (np.ones(len(forecast)), inside, forecast, (forecast - inside) ** 2)
    return np.stack([np.bincount(member, weights=column, minlength=bins) for column in columns])


class PixelCalibration(NamedTuple):
    """Calibration of all counted ``pixels``: ``ece``, ``mce`` and ``brier`` in [0, 1], NaN without a pixel.

    The table's intervals are NaN: neighbouring pixels are not independent. :func:`pixel_summary` has intervals.
    """

    pixels: int
    ece: float
    mce: float
    brier: float
    table: Reliability


def pixel_calibration(counts: np.ndarray) -> PixelCalibration:
    """Calibration from a histogram f[4 bins] of :func:`pixel_counts`, usually the sum over images.

        ECE = sum over bins b of  (n_b / n) |mean probability in b - share inside the reference in b|

    Every pixel counts the same, so large images (and with a band, long borders) count more. ``mce`` is the largest gap
    of all bins that hold a pixel. Raises ValueError for an array of another shape, or counts that are negative or NaN.
    """
    counts = _checked_counts(counts, 2)
    mass, inside, forecast, squares = counts
    held = np.flatnonzero(mass > 0)
    sums = BinSums(held, mass[held], forecast[held], inside[held])
    gap = np.abs(ratio(sums.forecast - sums.outcome, sums.mass))
    return PixelCalibration(
        pixels=int(mass.sum()),
        ece=float(pixel_ece(counts)),
        mce=float(gap.max()) if len(held) else NAN,
        brier=float(ratio(squares.sum(), mass.sum())),
        table=table_of(np.linspace(0, 1, len(mass) + 1), sums, [(NAN, NAN, "none")] * len(held)),
    )


def pixel_ece(counts: np.ndarray) -> np.ndarray:
    """ECE f[...] of histograms f[... 4 bins]; NaN without a pixel."""
    return ratio(np.abs(counts[..., 2, :] - counts[..., 1, :]).sum(-1), counts[..., 0, :].sum(-1))


def pixel_summary(
    counts: np.ndarray,
    groups: Sequence | np.ndarray,
    *,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Summary:
    """``pixel_ece`` and ``pixel_brier`` over all pixels of n images, with cluster-bootstrap intervals by group.

    Args:
        counts: histograms f[n 4 bins] of the images.
        groups: n labels.

    Entries as in :data:`~thyroid_jax.evaluate.summary.Summary`; ``n`` counts images, ``undefined`` those without a
    counted pixel. {} without an image. The interval of the ECE is moved as in
    :func:`~thyroid_jax.evaluate.calibration.summaries.calibration_summary`. Raises ValueError as
    :func:`pixel_calibration`, or when the lengths differ.
    """
    counts, labels = _checked_counts(counts, 3), np.asarray(groups)
    if labels.shape != counts.shape[:1]:
        raise ValueError(f"counts {counts.shape} need one group an image, not {labels.shape}.")
    held = counts[:, 0].sum(-1) > 0
    result: Summary = {}
    for name, measured in (("pixel_ece", _weighted_ece), ("pixel_brier", _weighted_brier)) if len(counts) else ():
        replicates = cluster_replicates(measured, labels[held], counts[held], samples=samples, seed=seed, weighted=True)
        centred = name == "pixel_ece"
        found = (
            centred_interval(replicates, level) if centred else interval_of(replicates, level=level, method="expanded")
        )
        result[name] = entry(found, int(held.sum()), int((~held).sum()))
    return result


def _weighted_ece(counts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return pixel_ece(np.tensordot(weight, counts, axes=1))


def _weighted_brier(counts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    summed = np.tensordot(weight, counts, axes=1).sum(-1)
    return ratio(summed[..., 3], summed[..., 0])


def _checked_counts(counts: np.ndarray, axes: int) -> np.ndarray:
    counts = np.asarray(counts, float)
    if counts.ndim != axes or counts.shape[-2] != 4 or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"counts {counts.shape} must be histograms f[4 bins] of numbers that are 0 or more.")
    return counts


def _near_border(reference: np.ndarray, band_px: float) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    if reference.all() or not reference.any():
        return np.zeros(reference.shape, bool)
    return np.where(reference, distance_transform_edt(reference), distance_transform_edt(~reference)) <= band_px
