"""p-values adjusted for many tests: Holm for the family-wise error, Benjamini and Hochberg for false discoveries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thyroid_jax.evaluate.statistics.resampling import NAN


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values f[m], in the order given: those at most alpha are significant at family-wise
    error alpha.

    With p sorted upwards, adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), j counting from 1. No
    assumption about dependence is needed. A NaN (a test that could not be made) stays NaN and does not count in m.
    Empty in, empty out.

    >>> [float(value) for value in holm([0.01, 0.04, 0.03, 0.005]).round(3)]
    [0.03, 0.06, 0.06, 0.02]

    Raises ValueError for a p outside [0, 1]. Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = _checked(p)
    order = np.argsort(p, kind="stable")  # NaN sorts last
    order = order[: np.count_nonzero(~np.isnan(p))]
    adjusted = np.full(p.shape, NAN)
    steps = np.arange(len(order), 0, -1) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's step-up adjusted p-values f[m], in the order given.

    Calling those at most alpha significant, the expected share of false ones among them is at most alpha. With p sorted
    upwards, adjusted_(i) = min over j >= i of min(1, m p_(j) / j), j counting from 1. This holds for independent tests
    and for positively dependent ones, such as several measures of one comparison usually are. A NaN (a test that could
    not be made) stays NaN and does not count in m. Empty in, empty out.

    >>> [float(value) for value in benjamini_hochberg([0.01, 0.04, 0.03, 0.005]).round(3)]
    [0.02, 0.04, 0.04, 0.02]

    Use it to find candidates among many tests. For the claims of a paper use :func:`holm`.

    Raises ValueError for a p outside [0, 1]. Source: Benjamini and Hochberg, JRSS B 57 (1995) 289-300; computed by
    ``scipy.stats.false_discovery_control``.
    """
    from scipy.stats import false_discovery_control

    p = _checked(p)
    there = ~np.isnan(p)
    adjusted = np.full(p.shape, NAN)
    if there.any():
        adjusted[there] = false_discovery_control(p[there], method="bh")
    return adjusted


def _checked(p: Sequence[float] | np.ndarray) -> np.ndarray:
    p = np.asarray(p, float)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise ValueError("p must be a vector of values in [0, 1].")
    return p
