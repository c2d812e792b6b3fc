"""Paired values of two models: their differences, and one difference for each group of cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.statistics.resampling import ROUNDING, group_numbers


class Pairs(NamedTuple):
    """Differences f[m] of the defined pairs, their groups int[m] counted from 0, and how many pairs held a NaN.

    ``scale`` is the largest finite absolute value among them: the unit of rounding errors.
    """

    difference: np.ndarray
    member: np.ndarray
    missing: int
    scale: float

    @property
    def group_means(self) -> np.ndarray:
        """Mean difference of each group; 0 where it is rounding error beside ``scale``."""
        if not len(self.difference):
            return self.difference
        means = np.bincount(self.member, weights=self.difference) / np.bincount(self.member)
        return np.where(np.abs(means) <= ROUNDING * self.scale, 0.0, means)


def paired(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    clusters: Sequence | np.ndarray | None = None,
) -> Pairs:
    """first - second of paired values f[n]; pairs with a NaN on either side are left out and counted.

    ``clusters`` are n labels; without them each pair is a group of its own, in the order given. Raises ValueError when
    the lengths differ or the label of a defined pair is NaN.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1 or (clusters is not None and len(clusters) != len(first)):
        raise ValueError(f"first {first.shape}, second {second.shape} and clusters must be vectors of one length.")
    difference = first - second
    defined = ~np.isnan(difference)
    kept = difference[defined]
    if clusters is None:
        member = np.arange(len(kept))
    else:
        member = group_numbers([label for label, known in zip(clusters, defined) if known])
    size = np.abs(np.concatenate([first[defined], second[defined]]))
    return Pairs(kept, member, int((~defined).sum()), float(size[np.isfinite(size)].max(initial=0)))


def standard_deviation(values: np.ndarray, scale: float) -> float:
    """Standard deviation (n - 1) of values; 0 where it is rounding error beside ``scale``, NaN for fewer than two."""
    if len(values) < 2:
        return float("nan")
    found = float(np.std(values, ddof=1))
    return found if found > ROUNDING * scale else 0.0
