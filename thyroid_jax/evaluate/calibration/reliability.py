"""Calibration errors from bins of forecasts, and the table behind a reliability diagram.

A yes/no event has a forecast f[n] in [0, 1] and an outcome bool[n]: proven malignancy, for example. Grades are brought
to this form in two ways. :func:`top_label` asks whether the most probable grade is right as often as its probability
says. :func:`classwise_ece` asks the same of every grade.

All errors accept ``weight`` f[... n], how often each case counts, and then have its leading axes. Bins of equal mass
are formed from the forecasts as given, each counted once, so that all replicates of a bootstrap share them. Outcomes
may have leading axes too. Without a case, or where no case has weight, an error is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.calibration.binning import (
    BINS,
    BinSums,
    bin_edges,
    bin_of,
    bin_sums,
    checked_forecast,
    checked_grades,
)
from thyroid_jax.evaluate.metrics import NAN, ratio
from thyroid_jax.evaluate.statistics import cluster_bootstrap
from thyroid_jax.evaluate.summary.entry import weighted_mean


def ece(
    forecast: np.ndarray,
    outcome: np.ndarray,
    *,
    bins: int = BINS,
    kind: str = "width",
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Expected calibration error of a forecast f[n] of an outcome bool[n], in [0, 1]; 0 is best.

        ECE = sum over bins b of  (n_b / n) |mean forecast in b - share of outcomes in b|

    with the bins of :func:`~thyroid_jax.evaluate.calibration.binning.bin_edges`. It depends on their number and kind:
    state both. Errors of opposite sign in one bin cancel, so coarse bins hide them. Fine bins measure noise: the ECE of
    right probabilities is about sqrt(2 / pi) times the mean over cases of sqrt(p (1 - p) / n_b), not 0.

    Raises ValueError for a forecast that is NaN or outside [0, 1], an outcome other than 0 and 1, or other lengths.
    Sources: Naeini et al., AAAI 2015; equal mass: Nixon et al., CVPR workshops 2019.
    """
    sums = _sums_by_bin(forecast, outcome, bins, kind, weight)
    return ratio(np.abs(sums.forecast - sums.outcome).sum(-1), sums.mass.sum(-1))


def mce(
    forecast: np.ndarray,
    outcome: np.ndarray,
    *,
    bins: int = BINS,
    kind: str = "width",
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Maximum calibration error: the largest gap of all bins that hold a case, in [0, 1]; otherwise as :func:`ece`.

        MCE = max over bins b of  |mean forecast in b - share of outcomes in b|

    A bin counts the same with one case as with a hundred. With bins of equal width it is often the gap of one case.
    """
    sums = _sums_by_bin(forecast, outcome, bins, kind, weight)
    gap = np.where(sums.mass > 0, ratio(np.abs(sums.forecast - sums.outcome), sums.mass), 0)
    return np.where(sums.mass.sum(-1) > 0, gap.max(-1, initial=0), NAN)


def debiased_squared_error(forecast: np.ndarray, outcome: np.ndarray, *, bins: int = BINS, kind: str = "mass") -> float:
    """Squared calibration error without the bias of finite bins; negative where chance alone would give more.

        sum over bins b of  (n_b / n) [ (f_b - y_b)^2 - y_b (1 - y_b) / (n_b - 1) ]

    with f_b the mean forecast and y_b the share of outcomes in bin b. The second term is the expected noise of the
    first, exactly so where all cases of a bin have the same probability; otherwise it is slightly more. NaN without a
    case, or when a bin holds a single case, whose noise is unknown. Bins and errors raised as in :func:`ece`.
    Sources: Kumar, Liang and Ma, NeurIPS 2019 (section 5); Ferro and Fricker, QJRMS 138 (2012) 1954-1960.
    """
    sums = _sums_by_bin(forecast, outcome, bins, kind, None)
    if not len(sums.bin) or (sums.mass < 2).any():
        return NAN
    observed = sums.outcome / sums.mass
    terms = (sums.forecast / sums.mass - observed) ** 2 - observed * (1 - observed) / (sums.mass - 1)
    return float((sums.mass * terms).sum() / sums.mass.sum())


def top_label(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The forecast and the outcome of being right: the largest probability f[n], and whether its grade is the true one.

    Of probability f[n k] and truth int[... n]. On a tie the lower grade counts as predicted. ``ece(*top_label(p, y))``
    is the ECE of Guo et al., ICML 2017. Raises ValueError for a NaN, a row that does not sum to 1 or a truth outside
    0..k-1.
    """
    probability, truth, _ = checked_grades(probability, truth, None)
    return probability.max(1), truth == probability.argmax(1)


def classwise_ece(
    probability: np.ndarray,
    truth: np.ndarray,
    *,
    bins: int = BINS,
    kind: str = "width",
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Mean over all k grades of the :func:`ece` of "the case is of this grade", from probability f[n k], truth int[n].

    A grade without a true case counts too: its forecasts should be near 0. Rare grades bring small errors into the
    mean. Raises ValueError as :func:`top_label`. Source: Kull et al., NeurIPS 2019.
    """
    probability, truth, weight = checked_grades(probability, truth, weight)
    errors = [
        ece(probability[:, grade], truth == grade, bins=bins, kind=kind, weight=weight)
        for grade in range(probability.shape[1])
    ]
    return np.mean(errors, axis=0)


class Reliability(NamedTuple):
    """Reliability table: the m bins that hold a case, in ascending order.

    ``low_edge`` and ``high_edge`` of the bin, ``size`` the number of its cases (or pixels), mean ``forecast``,
    ``observed`` share of outcomes, and the interval of that share from ``low`` to ``high``: each [m]. ``interval``
    names each bin's interval: "wilson", "bootstrap", "wilson of groups", or "none" (NaN).
    """

    low_edge: np.ndarray
    high_edge: np.ndarray
    size: np.ndarray
    forecast: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    interval: tuple[str, ...]


def reliability_table(
    forecast: np.ndarray,
    outcome: np.ndarray,
    *,
    bins: int = BINS,
    kind: str = "width",
    groups: Sequence | np.ndarray | None = None,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Reliability:
    """Mean forecast and observed share of outcomes in each bin, with an interval of the share.

    Without ``groups`` (n labels) it is Wilson's interval, which takes the cases as independent. With groups it is the
    expanded cluster bootstrap of the groups that have a case in the bin. Where all outcomes of a bin are of one kind,
    replicates show no spread; the interval is then Wilson's of as many cases as there are groups. A bin of one group
    with both kinds of outcome has none (NaN).

    Raises ValueError as :func:`ece`, and for a level outside (0, 1).
    Source: Wilson, JASA 22 (1927) 209-212.
    """
    forecast, outcome, weight = checked_forecast(forecast, outcome, None)
    if outcome.ndim != 1 or not 0 < level < 1:
        raise ValueError(f"outcome {outcome.shape} must be a vector, and level {level} lie in (0, 1).")
    edges = bin_edges(forecast, bins, kind)
    member = bin_of(forecast, edges)
    sums = bin_sums(forecast, outcome, member, weight)
    limits: list[Limits]
    if groups is None:
        limits = [_wilson(hits, cases, level, "wilson") for hits, cases in zip(sums.outcome, sums.mass)]
    else:
        labels = np.asarray(groups)
        chosen = [member == number for number in sums.bin]
        limits = [_limits_of_groups(outcome[rows], labels[rows], samples, level, seed) for rows in chosen]
    return table_of(edges, sums, limits)


Limits = tuple[float, float, str]
"""low, high and the name of an interval"""


def table_of(edges: np.ndarray, sums: BinSums, limits: Sequence[Limits]) -> Reliability:
    """The table of bins with these edges f[bins + 1], from their sums and the m intervals of the observed shares."""
    return Reliability(
        low_edge=edges[sums.bin],
        high_edge=edges[sums.bin + 1],
        size=sums.mass.astype(int),
        forecast=ratio(sums.forecast, sums.mass),
        observed=ratio(sums.outcome, sums.mass),
        low=np.array([low for low, _, _ in limits], float),
        high=np.array([high for _, high, _ in limits], float),
        interval=tuple(name for _, _, name in limits),
    )


def _sums_by_bin(forecast, outcome, bins: int, kind: str, weight: np.ndarray | None) -> BinSums:
    forecast, outcome, weight = checked_forecast(forecast, outcome, weight)
    return bin_sums(forecast, outcome, bin_of(forecast, bin_edges(forecast, bins, kind)), weight)


def _wilson(hits: float, cases: float, level: float, name: str) -> Limits:
    from scipy.stats import binomtest

    interval = binomtest(int(hits), int(cases)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high), name


def _limits_of_groups(outcome: np.ndarray, groups: np.ndarray, samples: int, level: float, seed: int) -> Limits:
    if (outcome == outcome[0]).all():
        count = len(np.unique(groups))
        return _wilson(count * outcome[0], count, level, "wilson of groups")
    interval = cluster_bootstrap(
        weighted_mean, groups, outcome, samples=samples, level=level, seed=seed, weighted=True, expanded=True
    )
    return interval.low, interval.high, "bootstrap" if interval.samples else "none"
