"""Power and number of cases to compare two areas under ROC curves on the same cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from thyroid_jax.evaluate.statistics.areas import check_scores, placements
from thyroid_jax.evaluate.statistics.power import check_power, check_test, least_difference, least_number

AreaVariance = Callable[[float, float], float]
"""(positive cases, negative cases) -> variance of the difference of two areas."""


def pilot_area_variance(
    truth: Sequence | np.ndarray, first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray
) -> AreaVariance:
    """Variance of the difference of two areas at any number of cases, from a pilot's scores f[n].

        variance(P, N) = s10 / P + s01 / N,     s10 = var(V10_1 - V10_2),  s01 = var(V01_1 - V01_2)

    with V10 and V01 of :func:`delong`: at the pilot's own P and N it is DeLong's variance. Cases are taken as
    independent. With several images of a patient use :func:`normal_power` and the ``difference_error`` of
    :func:`delong` with ``clusters``, times sqrt(pilot groups / planned groups).

    Raises ValueError for what :func:`delong` refuses, fewer than two positive or negative cases, or scores between
    which nothing varies: such a pilot says nothing about the spread.
    Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837-845.
    """
    truth, scores = np.asarray(truth), np.stack([np.asarray(first, float), np.asarray(second, float)])
    check_scores(truth, scores)
    truth = truth.astype(bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < 2:
        raise ValueError(f"two positive and two negative cases are needed, not {positives} and {negatives}.")
    v10, v01, _ = placements(truth, scores)
    s10, s01 = (float(np.var(v[0] - v[1], ddof=1)) for v in (v10, v01))
    if max(s10, s01) < 1 / (4 * positives * negatives) ** 2:
        raise ValueError("the two scores order the pilot's cases alike: no spread to plan with.")
    return lambda P, N: s10 / P + s01 / N


def planned_area_variance(
    first_area: float, second_area: float, correlation: float, *, formula: str = "obuchowski"
) -> AreaVariance:
    """Variance of the difference of two areas from planning values, when there is no pilot.

        variance(P, N) = v(A_1) + v(A_2) - 2 r sqrt(v(A_1) v(A_2)),     r the ``correlation`` of the two areas

        "obuchowski":     v(A) = exp(-a^2/2) / (32 pi) [ (5 a^2 + 8) / P + (a^2 + 8) / N ],  a = sqrt(2) Phi^-1(A)
        "binormal":       v(A) = exp(-a^2/2) / (32 pi) (a^2 + 8) (1/P + 1/N)
        "hanley_mcneil":  v(A) = [ A (1 - A) + (P - 1)(Q1 - A^2) + (N - 1)(Q2 - A^2) ] / PN,
                          Q1 = A / (2 - A),  Q2 = 2 A^2 / (1 + A)

    "obuchowski" is the usual formula of planning. It leaves out the covariance of the binormal model's two parameters
    and is cautious: at A = 0.9, with as many positive as negative cases, 1.6 times the variance of normal scores.
    "binormal" has this covariance: the large-sample variance for normal scores of equal spread. "hanley_mcneil" is
    exact for the rank estimate of exponential scores. A small r is cautious. A pilot's :func:`delong` shows r:
    covariance[0, 1] / sqrt(product of the variances).

    Raises ValueError for areas outside (0, 1), a correlation outside [-1, 1), or an unknown formula.
    Sources: Obuchowski and McClish, Statistics in Medicine 16 (1997) 1529-1542; Hanley and McNeil, Radiology 143
    (1982) 29-36 and 148 (1983) 839-843.
    """
    if not (0 < first_area < 1 and 0 < second_area < 1 and -1 <= correlation < 1):
        raise ValueError(
            f"areas must lie in (0, 1) and the correlation in [-1, 1), not {first_area}, {second_area} and "
            f"{correlation}."
        )
    if formula not in _AREA_VARIANCES:
        raise ValueError(f"formula must be one of {', '.join(_AREA_VARIANCES)}, not {formula!r}.")
    of_area = _AREA_VARIANCES[formula]

    def variance(positives: float, negatives: float) -> float:
        first, second = (of_area(area, positives, negatives) for area in (first_area, second_area))
        return first + second - 2 * correlation * (first * second) ** 0.5

    return variance


def _obuchowski(area: float, positives: float, negatives: float) -> float:
    from scipy.stats import norm

    a2 = 2 * float(norm.ppf(area)) ** 2
    return float(np.exp(-a2 / 2) / (32 * np.pi) * ((5 * a2 + 8) / positives + (a2 + 8) / negatives))


def _binormal(area: float, positives: float, negatives: float) -> float:
    from scipy.stats import norm

    a2 = 2 * float(norm.ppf(area)) ** 2
    return float(np.exp(-a2 / 2) / (32 * np.pi) * (a2 + 8) * (1 / positives + 1 / negatives))


def _hanley_mcneil(area: float, positives: float, negatives: float) -> float:
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    within = (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return (area * (1 - area) + within) / (positives * negatives)


_AREA_VARIANCES = {"obuchowski": _obuchowski, "binormal": _binormal, "hanley_mcneil": _hanley_mcneil}


def normal_power(
    difference: float,
    standard_error: float,
    *,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> float:
    """Power of the normal test of a difference with a known standard error s.

        power = Phi(delta - z_{1 - alpha}),  delta = (difference + margin) / s          alternative="greater"
        power = Phi(delta - z_{1 - alpha/2}) + Phi(-delta - z_{1 - alpha/2})            alternative="two-sided"

    Non-inferiority with margin m: alternative="greater", margin=m, alpha=0.025.
    Raises ValueError for a standard error that is not positive, and like :func:`paired_power`.
    """
    from scipy.stats import norm

    check_test(alpha, alternative, margin)
    if not (np.isfinite(difference) and np.isfinite(standard_error) and standard_error > 0):
        raise ValueError(
            f"difference must be finite and the standard error positive and finite, not {difference} and "
            f"{standard_error}."
        )
    delta = (difference + margin) / standard_error
    if alternative == "greater":
        return float(norm.cdf(delta - norm.isf(alpha)))
    critical = norm.isf(alpha / 2)
    return float(norm.cdf(delta - critical) + norm.cdf(-delta - critical))


def area_power(
    difference: float,
    variance: AreaVariance,
    positives: int,
    negatives: int,
    *,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> float:
    """Power of DeLong's test of a true difference of two areas on so many positive and negative cases.

    :func:`normal_power` with the standard error sqrt(variance(positives, negatives)).
    Raises ValueError for fewer than two positive or negative cases, and like :func:`normal_power`.
    """
    if min(positives, negatives) < 2:
        raise ValueError(f"two positive and two negative cases are needed, not {positives} and {negatives}.")
    error = variance(positives, negatives) ** 0.5
    return normal_power(difference, error, alpha=alpha, alternative=alternative, margin=margin)


def cases_for_area_power(
    difference: float,
    variance: AreaVariance,
    positive_share: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> tuple[int, int]:
    """(positive, negative) cases of the smallest study in which :func:`area_power` is at least ``power``.

    Of n cases max(2, ceil(share n)) are positive and max(2, ceil((1 - share) n)) negative; n is the smallest that does.
    Raises ValueError for a share outside (0, 1), and like :func:`groups_for_power`.
    """
    check_power(power, alpha)
    if not 0 < positive_share < 1:
        raise ValueError(f"positive_share must lie in (0, 1), not {positive_share}.")

    def split(n: int) -> tuple[int, int]:
        return _least_whole(positive_share * n), _least_whole((1 - positive_share) * n)

    def power_at(n: int) -> float:
        return area_power(difference, variance, *split(n), alpha=alpha, alternative=alternative, margin=margin)

    return split(least_number(power_at, power, start=2))


def _least_whole(cases: float) -> int:
    """Whole cases, two at least; less a rounding error, so that a tenth of 30 is 3 and not 4."""
    return max(2, int(np.ceil(cases - 1e-9)))


def smallest_area_difference(
    variance: AreaVariance,
    positives: int,
    negatives: int,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> float:
    """The smallest true difference of two areas that so many cases detect with probability ``power``.

    Above 1 where no difference of areas is large enough. For non-inferiority as in :func:`smallest_difference`.
    Raises ValueError like :func:`area_power`, and for a power outside (alpha, 1).
    """
    check_power(power, alpha)
    return least_difference(
        lambda difference: area_power(
            difference, variance, positives, negatives, alpha=alpha, alternative=alternative, margin=margin
        ),
        power,
        margin,
        scale=variance(positives, negatives) ** 0.5,
    )
