"""Limits of agreement (Bland and Altman) of a number that was measured twice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.metrics.arithmetic import NAN, ratio


class LimitsOfAgreement(NamedTuple):
    """Mean difference ``bias``, and the limits ``low`` and ``high`` of the difference of a single case; each f[...]."""

    bias: np.ndarray
    low: np.ndarray
    high: np.ndarray


def limits_of_agreement(difference: np.ndarray, *, weight: np.ndarray | None = None) -> LimitsOfAgreement:
    """Bland and Altman's bias and 95 % limits of agreement of differences d f[n], in their unit.

        bias = mean d        low, high = bias -+ 1.96 s        s^2 = sum (d - bias)^2 / (n - 1)

    95 % of the cases differ by a value between the limits, if differences are normal and do not grow with the size.
    Every case counts alike: with several images of a patient, s holds the spread within and between patients.

    ``weight`` f[... n] counts each case that often and sets the leading axes of the result. The bias is NaN without a
    case, the limits with fewer than two. Raises ValueError for a difference that is NaN.
    Source: Bland and Altman, The Lancet 327 (1986) 307-310.
    """
    difference = np.asarray(difference, float)
    if difference.ndim != 1 or np.isnan(difference).any():
        raise ValueError(f"differences must be a vector without NaN, not of shape {difference.shape}.")
    weight = np.ones(len(difference)) if weight is None else np.asarray(weight, float)
    count = weight.sum(axis=-1)
    bias = ratio(weight @ difference, count)
    # Around the mean of all differences, which keeps the sums small; it cancels in the variance.
    centred = difference - (difference.mean() if len(difference) else 0.0)
    squares = weight @ centred**2 - ratio((weight @ centred) ** 2, count)
    deviation = np.sqrt(np.where(count > 1, ratio(np.maximum(squares, 0), count - 1), NAN))
    return LimitsOfAgreement(bias, bias - 1.96 * deviation, bias + 1.96 * deviation)
