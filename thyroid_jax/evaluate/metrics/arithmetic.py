"""A quotient that is NaN where it does not exist."""

from __future__ import annotations

import numpy as np

NAN = float("nan")


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """numerator / denominator, broadcast; NaN (and no warning) where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, NAN), where=denominator != 0)
