"""Proper scores of probabilities, lower is better: Brier score, negative log-likelihood, ranked probability score.

A proper score is best on average for the true probabilities, so it can compare models. It joins calibration with the
power to tell cases apart; :func:`murphy` separates the two. ``weight`` f[... n] says how often each case counts and
sets the leading axes of the result; truth and outcome may have leading axes too. Without a case, or where no case has
weight, a score is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.calibration.binning import (
    BinSums,
    bin_edges,
    bin_of,
    bin_sums,
    checked_forecast,
    checked_grades,
)
from thyroid_jax.evaluate.metrics import ratio


def binary_brier(forecast: np.ndarray, outcome: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Brier score of a forecast f[n] of an outcome bool[n]: mean (f - y)^2, in [0, 1].

    Half of :func:`brier` of the two-column probability. A forecast of 1/2 throughout has 1/4. Raises ValueError for a
    forecast that is NaN or outside [0, 1], or an outcome other than 0 and 1.
    Source: Brier, Monthly Weather Review 78 (1950) 1-3.
    """
    forecast, outcome, weight = checked_forecast(forecast, outcome, weight)
    return _mean_by_weight((forecast - outcome) ** 2, weight)


def brier(probability: np.ndarray, truth: np.ndarray, *, weight: np.ndarray | None = None) -> np.ndarray:
    """Brier score of k grades, from probability f[n k] and truth int[n]: mean over cases of the sum over grades

        sum_j (p_j - [truth = j])^2,  in [0, 2]

    as Brier defined it, without dividing by 2 or k. It does not know the grades' order. Raises ValueError for a NaN, a
    row that does not sum to 1, or a truth outside 0..k-1. Source: Brier, Monthly Weather Review 78 (1950) 1-3.
    """
    probability, truth, weight = checked_grades(probability, truth, weight)
    squares = (probability**2).sum(1) - 2 * _of_truth(probability, truth) + 1
    return _mean_by_weight(squares, weight)


def binary_nll(
    forecast: np.ndarray, outcome: np.ndarray, *, clip: float = 0.0, weight: np.ndarray | None = None
) -> np.ndarray:
    """Negative log-likelihood (log loss, in nats) of a forecast f[n] of an outcome bool[n]: :func:`nll` of two grades.

    Raises ValueError as :func:`binary_brier`, and for a clip outside [0, 1).
    """
    forecast, outcome, weight = checked_forecast(forecast, outcome, weight)
    return _mean_by_weight(_surprise(np.where(outcome == 1, forecast, 1 - forecast), clip), weight)


def nll(
    probability: np.ndarray, truth: np.ndarray, *, clip: float = 0.0, weight: np.ndarray | None = None
) -> np.ndarray:
    """Negative log-likelihood (log loss, in nats) of probability f[n k] against truth int[n]: mean -log p_truth, >= 0.

    A probability of 0 on a true grade makes it infinite: one such case decides. ``clip`` > 0 puts probabilities below
    it to this value; a score that was clipped must be reported with the clip. Predicting every grade with 1/k gives
    log k. Raises ValueError as :func:`brier`, and for a clip outside [0, 1).
    """
    probability, truth, weight = checked_grades(probability, truth, weight)
    return _mean_by_weight(_surprise(_of_truth(probability, truth), clip), weight)


def ranked_probability_score(
    probability: np.ndarray, truth: np.ndarray, *, weight: np.ndarray | None = None
) -> np.ndarray:
    """Ranked probability score of k ordered grades, from probability f[n k] and truth int[n]; mean over cases of

        1 / (k - 1)  sum over j < k of  (P(grade <= j) - [truth <= j])^2,  in [0, 1]

    It is the mean Brier score of the k - 1 questions "is the grade higher than j", so a near miss costs less than a far
    one. Grades count as equally spaced. With two grades it is :func:`binary_brier`. Scores of scales with different k
    are not comparable. Raises ValueError as :func:`brier`.
    Sources: Epstein, J. Applied Meteorology 8 (1969) 985-987; Murphy, J. Applied Meteorology 10 (1971) 155-156.
    """
    probability, truth, weight = checked_grades(probability, truth, weight)
    k = probability.shape[1]
    below = np.cumsum(probability, axis=1)[:, :-1]
    reached = truth[..., None] <= np.arange(k - 1)
    return _mean_by_weight(((below - reached) ** 2).mean(-1), weight)


class Murphy(NamedTuple):
    """Murphy's decomposition: ``brier = reliability - resolution + uncertainty + within_bins``, each f[...].

    ``reliability`` 0 or more, 0 is best; ``resolution`` 0 or more, more is better; ``uncertainty`` of the outcome, the
    same for every model; ``within_bins`` what bins leave out, 0 (or a rounding error) when every bin is one forecast.
    """

    brier: np.ndarray
    reliability: np.ndarray
    resolution: np.ndarray
    uncertainty: np.ndarray
    within_bins: np.ndarray


def murphy(
    forecast: np.ndarray,
    outcome: np.ndarray,
    *,
    bins: int | None = None,
    kind: str = "mass",
    weight: np.ndarray | None = None,
) -> Murphy:
    """Decomposition of :func:`binary_brier` over bins b of a forecast f[n], with y the share of all outcomes bool[n]:

        reliability = sum_b (n_b / n) (f_b - y_b)^2        resolution = sum_b (n_b / n) (y_b - y)^2
        uncertainty = y (1 - y)                            within_bins = brier - (rel - res + unc)

    f_b is the mean forecast and y_b the share of outcomes in bin b. With ``bins`` None a bin is one distinct forecast
    value, the sum is exact and within_bins 0. But where all forecasts differ, resolution equals uncertainty and
    reliability is the Brier score itself: this says nothing. Then give ``bins`` and ``kind``, as in
    :func:`~thyroid_jax.evaluate.calibration.reliability.ece`. Within bins, the variance of the forecasts less twice
    their covariance with the outcome is left out; here it is the fifth number. In small bins noise adds about
    y_b (1 - y_b) / n_b both to reliability and to resolution.

    Raises ValueError as :func:`binary_brier`.
    Sources: Murphy, J. Applied Meteorology 12 (1973) 595-600; within bins: Stephenson, Coelho and Jolliffe, Weather and
    Forecasting 23 (2008) 752-757.
    """
    forecast, outcome, weight = checked_forecast(forecast, outcome, weight)
    if bins is None:
        member = np.unique(forecast, return_inverse=True)[1].reshape(-1)
    else:
        member = bin_of(forecast, bin_edges(forecast, bins, kind))
    whole = binary_brier(forecast, outcome, weight=weight)
    reliability, resolution, uncertainty = _terms(bin_sums(forecast, outcome, member, weight))
    within = whole - (reliability - resolution + uncertainty)
    return Murphy(whole, reliability, resolution, uncertainty, within)


def murphy_of_grades(
    probability: np.ndarray,
    truth: np.ndarray,
    *,
    bins: int | None = None,
    kind: str = "mass",
    weight: np.ndarray | None = None,
) -> Murphy:
    """Decomposition of :func:`brier` of probability f[n k], truth int[n]: the sum over grades of each one's
    :func:`murphy`.

    Every grade's probability has its own bins. Raises ValueError as :func:`brier`.
    """
    probability, truth, weight = checked_grades(probability, truth, weight)
    parts = [
        murphy(probability[:, grade], truth == grade, bins=bins, kind=kind, weight=weight)
        for grade in range(probability.shape[1])
    ]
    return Murphy(*(np.sum(terms, axis=0) for terms in zip(*parts)))


def _terms(sums: BinSums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability, resolution and uncertainty f[...]."""
    whole = sums.mass.sum(-1)
    base = ratio(sums.outcome.sum(-1), whole)
    squared_gap = ratio((sums.forecast - sums.outcome) ** 2, sums.mass)  # n_b (f_b - y_b)^2
    squared_spread = ratio((sums.outcome - sums.mass * base[..., None]) ** 2, sums.mass)
    with_mass = [np.where(sums.mass > 0, terms, 0).sum(-1) for terms in (squared_gap, squared_spread)]
    return ratio(with_mass[0], whole), ratio(with_mass[1], whole), base * (1 - base)


def _of_truth(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The probability of the true grade, f[... n]."""
    return probability[np.arange(len(probability)), truth]


def _surprise(probability: np.ndarray, clip: float) -> np.ndarray:
    """-log max(p, clip); infinite for 0."""
    if not 0 <= clip < 1:
        raise ValueError(f"clip must lie in [0, 1), not {clip}.")
    with np.errstate(divide="ignore"):
        return 0 - np.log(np.maximum(probability, clip))  # 0 and not -0 for a probability of 1


def _mean_by_weight(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean over the last axis; an infinite value of weight 0 does not count."""
    counted = np.where(weight > 0, values, 0)
    return ratio((weight * counted).sum(-1), np.broadcast_to(weight, counted.shape).sum(-1))
