"""Forecasts in bins, sums over each bin, and the checks of what the calibration measures are given."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

KINDS = ("width", "mass")
"""kinds of bins: of equal width in [0, 1], or with equally many forecasts"""
BINS = 15
ROUNDING = 1e-6  # probabilities made in float32 may exceed 1 by so much
SUM_TOLERANCE = 1e-3  # and a row of them may miss the sum 1 by so much: they may have been written with few digits


def bin_edges(forecast: np.ndarray, bins: int = BINS, kind: str = "width") -> np.ndarray:
    """Edges f[bins + 1] of the bins of forecasts f[n] in [0, 1].

    ==========  ======================================================================================
    "width"     0, 1/bins, ..., 1, whatever the forecasts
    "mass"      the smallest forecast, then that of rank ceil(i n / bins) for i = 1, ..., bins
    ==========  ======================================================================================

    A bin holds its upper edge and not its lower one; the first bin holds both. So bins of equal mass differ by one case
    at most. But equal forecasts are never separated: ties make such bins unequal, or empty. Without a forecast the
    edges of equal mass are NaN. Bins of equal width are those of ``sklearn.calibration.calibration_curve``; its
    quantiles are interpolated, and rounding then decides to which side a forecast on an edge belongs.

    Raises ValueError for fewer than one bin or an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"bins are of equal {' or '.join(KINDS)}, not {kind!r}.")
    if int(bins) != bins or bins < 1:
        raise ValueError(f"the number of bins must be 1 or more, not {bins}.")
    bins, n = int(bins), len(forecast)
    if kind == "width":
        return np.linspace(0, 1, bins + 1)
    if not n:
        return np.full(bins + 1, np.nan)
    ranks = [1, *(-(-step * n // bins) for step in range(1, bins + 1))]
    return np.sort(forecast)[np.array(ranks) - 1]


def bin_of(forecast: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number int[...] of the bin that each forecast f[...] lies in."""
    return np.searchsorted(edges[1:-1], forecast)


class BinSums(NamedTuple):
    """Sums over the m bins that hold a case, in ascending order; ``bin`` int[m] is their number.

    ``mass`` f[... m] is the sum of the weights, ``forecast`` and ``outcome`` f[... m] are those of forecasts and
    outcomes by weight. A bin whose cases all have weight 0 has sums of 0.
    """

    bin: np.ndarray
    mass: np.ndarray
    forecast: np.ndarray
    outcome: np.ndarray


def bin_sums(forecast: np.ndarray, outcome: np.ndarray, member: np.ndarray, weight: np.ndarray) -> BinSums:
    """Sums of forecast f[n] and outcome [... n] over the bins int[n] of the cases, by weight f[... n]."""
    from scipy.sparse import csr_array

    bins, place = np.unique(member, return_inverse=True)
    cases = np.arange(len(member))
    indicator = csr_array((np.ones(len(member)), (place.reshape(-1), cases)), shape=(len(bins), len(member)))

    def summed(column: np.ndarray) -> np.ndarray:
        rows = column.reshape(math.prod(column.shape[:-1]), len(member))
        return (indicator @ rows.T).T.reshape(*column.shape[:-1], len(bins))

    return BinSums(bins, *(summed(column) for column in (weight, weight * forecast, weight * outcome)))


def checked_forecast(
    forecast: np.ndarray, outcome: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecast f[n], outcome f[... n] of 0 and 1, and weight f[... n], which is 1 where None is given.

    Raises ValueError for a forecast that is NaN or outside [0, 1], an outcome other than 0 and 1, a weight that is
    negative or not finite, or lengths that differ.
    """
    forecast, outcome = np.asarray(forecast, float), np.asarray(outcome)
    if forecast.ndim != 1 or outcome.shape[-1:] != forecast.shape:
        raise ValueError(f"forecast {forecast.shape} and outcome {outcome.shape} must be vectors of one length.")
    if not ((forecast >= 0) & (forecast <= 1 + ROUNDING)).all():
        raise ValueError("a forecast is NaN or outside [0, 1].")
    if not np.isin(outcome, (0, 1)).all():
        raise ValueError("outcomes must be 0 or 1.")
    return np.minimum(forecast, 1), outcome.astype(float), checked_weight(weight, len(forecast))


def checked_grades(
    probability: np.ndarray, truth: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability f[n k], truth int[... n], and weight f[... n], which is 1 where None is given.

    Raises ValueError for fewer than two grades, a probability that is NaN or outside [0, 1], a row that does not sum to
    1 (within 0.001), a truth outside 0..k-1, a weight that is negative or not finite, or lengths that differ.
    """
    probability, truth = np.asarray(probability, float), np.asarray(truth)
    if probability.ndim != 2 or probability.shape[1] < 2 or truth.shape[-1:] != probability.shape[:1]:
        raise ValueError(f"probability {probability.shape} must be f[n k] with k >= 2, truth {truth.shape} int[n].")
    if not ((probability >= 0) & (probability <= 1 + ROUNDING)).all():
        raise ValueError("a probability is NaN or outside [0, 1].")
    if not (np.abs(probability.sum(1) - 1) <= SUM_TOLERANCE).all():
        raise ValueError("the probabilities of a case do not sum to 1.")
    if truth.size and not (
        np.issubdtype(truth.dtype, np.integer) and 0 <= truth.min() and truth.max() < len(probability[0])
    ):
        raise ValueError(f"grades must be integers in 0..{probability.shape[1] - 1}.")
    return np.minimum(probability, 1), truth.astype(int), checked_weight(weight, len(probability))


def checked_weight(weight: np.ndarray | None, cases: int) -> np.ndarray:
    """Weight f[... n], 1 for None. Raises ValueError for a negative or infinite one, NaN, or another length."""
    weight = np.ones(cases) if weight is None else np.asarray(weight, float)
    if weight.shape[-1:] != (cases,) or not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(f"weight {weight.shape} must be f[... {cases}] of finite numbers that are 0 or more.")
    return weight
