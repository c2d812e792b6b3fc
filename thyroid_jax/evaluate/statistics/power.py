"""Power and number of groups of a paired comparison, from the spread of the differences between groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.pairs import paired, standard_deviation
from thyroid_jax.evaluate.statistics.resampling import NAN

LARGEST_NUMBER = 10**9


@dataclass(frozen=True)
class Pilot:
    """Result of :func:`pilot`: mean and standard deviation of the groups' mean differences.

    ``sd_upper`` is the upper bound of the standard deviation with probability ``level``, exact for normal differences.
    ``missing`` pairs held a NaN.
    """

    difference: float
    sd: float
    sd_upper: float
    level: float
    groups: int
    missing: int


def pilot(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence | np.ndarray | None = None,
    level: float = 0.8,
) -> Pilot:
    """What a pilot study of paired values f[n] says for the planning of a larger one; difference = first - second.

        sd_upper = sd sqrt( (G - 1) / chi2_{1 - level, G - 1} )      G groups, chi2 the quantile of that distribution

    The sd of a few groups is often too small, and so is a study planned with it: plan with ``sd_upper``. Plan for a
    difference that would matter, not for the pilot's: a pilot that is followed up was often lucky.

    Pairs with a NaN on either side are left out and counted. NaN for fewer than two groups.
    Raises ValueError for lengths that differ or a level outside (0, 1).
    Source: Browne, Statistics in Medicine 14 (1995) 1933-1940.
    """
    from scipy.stats import chi2

    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    pairs = paired(first, second, clusters)
    means = pairs.group_means
    groups, sd = len(means), standard_deviation(means, pairs.scale)
    upper = float(sd * np.sqrt((groups - 1) / chi2.ppf(1 - level, groups - 1))) if groups > 1 else NAN
    return Pilot(float(means.mean()) if groups else NAN, sd, upper, level, groups, pairs.missing)


def paired_power(
    difference: float,
    sd: float,
    groups: int,
    *,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> float:
    """Power of the paired t-test when the groups' mean differences have mean ``difference`` and deviation ``sd``.

        delta = (difference + margin) sqrt(G) / sd,      T noncentral t with G - 1 degrees of freedom and delta
        power = P[T > t_{1 - alpha, G - 1}]                                      alternative="greater"
        power = P[T > t_{1 - alpha/2, G - 1}] + P[T < -t_{1 - alpha/2, G - 1}]   alternative="two-sided"

    Non-inferiority with margin m: alternative="greater", margin=m, alpha=0.025, and ``difference`` the true difference
    that is expected, often 0. The measure is such that higher is better; for one where lower is better give minus the
    difference. Exact for normal differences, approximate for the bootstrap and Wilcoxon's test.

    Raises ValueError for sd <= 0, fewer than two groups, an alpha outside (0, 1), an unknown alternative, or a margin
    that is negative or given for a two-sided test.
    Source: Chow, Shao and Wang, *Sample Size Calculations in Clinical Research*, 2008, section 3.1.
    """
    from scipy.stats import nct, t

    check_test(alpha, alternative, margin)
    if not (np.isfinite(difference) and np.isfinite(sd) and sd > 0) or groups < 2:
        raise ValueError(
            f"difference must be finite, sd positive and finite and groups at least 2, not {difference}, {sd} and "
            f"{groups}."
        )
    delta, df = (difference + margin) * groups**0.5 / sd, groups - 1
    if alternative == "greater":
        return _upper_tail(nct, t.isf(alpha, df), df, delta)
    critical = t.isf(alpha / 2, df)
    return min(1.0, _upper_tail(nct, critical, df, delta) + _upper_tail(nct, critical, df, -delta))


def _upper_tail(nct, critical: float, df: float, delta: float) -> float:
    """P[T > critical], in [0, 1]: the library's value can leave it by rounding."""
    found = float(nct.sf(critical, df, delta))
    if np.isnan(found):
        raise ValueError(f"no power can be computed for an effect of {delta:.3g} standard errors.")
    return min(max(found, 0.0), 1.0)


def groups_for_power(
    difference: float,
    sd: float,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> int:
    """The smallest number of groups for which :func:`paired_power` is at least ``power``.

    Raises ValueError like :func:`paired_power`, for a power outside (alpha, 1), and when no number up to 10^9 suffices,
    as for a difference of 0, or one below -margin.
    """
    check_power(power, alpha)
    return least_number(
        lambda groups: paired_power(difference, sd, groups, alpha=alpha, alternative=alternative, margin=margin),
        power,
        start=2,
    )


def smallest_difference(
    sd: float,
    groups: int,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
) -> float:
    """The smallest true difference that a study of so many groups detects with probability ``power``.

    For non-inferiority it is the true difference from which non-inferiority is shown with that probability, and can be
    negative. Raises ValueError like :func:`paired_power`, and for a power outside (alpha, 1).
    """
    check_power(power, alpha)
    return least_difference(
        lambda difference: paired_power(difference, sd, groups, alpha=alpha, alternative=alternative, margin=margin),
        power,
        margin,
        scale=sd / groups**0.5,
    )


def check_test(alpha: float, alternative: str, margin: float) -> None:
    """Raise ValueError for an alpha, alternative or margin that :func:`paired_power` does not know."""
    if alternative not in ("two-sided", "greater") or not 0 < alpha < 1:
        raise ValueError(
            f"alternative must be two-sided or greater and alpha lie in (0, 1), not {alternative!r} and {alpha}."
        )
    if not (np.isfinite(margin) and margin >= 0) or (margin and alternative == "two-sided"):
        raise ValueError(f"margin {margin} must be finite and not negative; a margin needs alternative='greater'.")


def check_power(power: float, alpha: float) -> None:
    """Raise ValueError unless alpha < power < 1: a test has power alpha without any difference."""
    if not alpha < power < 1:
        raise ValueError(f"power must lie between alpha {alpha} and 1, not {power}.")


def least_number(power_at: Callable[[int], float], power: float, *, start: int) -> int:
    """The smallest n from ``start`` whose power, a growing function of n, is at least ``power``: doubling, halving."""
    low, high = start - 1, start
    while power_at(high) < power:
        low, high = high, 2 * high
        if high > LARGEST_NUMBER:
            raise ValueError(f"no number up to {LARGEST_NUMBER:.0e} gives power {power}: the difference is too small.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= power else (middle, high)
    return high


def least_difference(power_at: Callable[[float], float], power: float, margin: float, *, scale: float) -> float:
    """The difference above -margin at which the power, a growing function of it, is ``power``."""
    from scipy.optimize import brentq

    step = scale
    while power_at(step - margin) < power:
        step *= 2
    return float(brentq(lambda difference: power_at(difference) - power, -margin, step - margin, xtol=1e-12 * step))
