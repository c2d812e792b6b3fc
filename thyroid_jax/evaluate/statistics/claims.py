"""Non-inferiority with a stated margin, superiority, and both claims of one paper together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.areas import delong, upper_tail
from thyroid_jax.evaluate.statistics.bootstrap import bootstrap_p, cluster_replicates, interval_of
from thyroid_jax.evaluate.statistics.resampling import NAN, Statistic


@dataclass(frozen=True)
class NonInferiority:
    """Result of :func:`noninferiority` and :func:`noninferiority_areas`.

    ``difference`` is new - reference, in the measure's own unit, with the interval ``low`` to ``high`` of level
    1 - 2 alpha. Each p is one-sided, and small where the data show

    ================  =================================================================
    p_superior        new is better than reference
    p_noninferior     new is better than reference, or worse by less than ``margin``
    p_worse           new is worse than reference
    p_inferior        new is worse than reference by more than ``margin``
    ================  =================================================================

    ``decision`` is "superior", "non-inferior", "inferior" or "not shown" (see :func:`decide`). ``worse`` says that
    p_worse < alpha: this can be so beside "non-inferior", and is to be reported with it. ``samples, undefined,
    clusters`` are the bootstrap's, 0 where there was none.
    """

    difference: float
    low: float
    high: float
    margin: float
    alpha: float
    higher_is_better: bool
    p_superior: float
    p_noninferior: float
    p_worse: float
    p_inferior: float
    decision: str
    worse: bool
    method: str
    samples: int = 0
    undefined: int = 0
    clusters: int = 0

    @property
    def statement(self) -> str:
        """The result in one sentence, with margin, direction and error rate."""
        better = "higher" if self.higher_is_better else "lower"
        return (
            f"{self.decision}: difference {self.difference:+.4g} ({1 - 2 * self.alpha:.3g} interval {self.low:+.4g} to "
            f"{self.high:+.4g}, {self.method}), {better} is better, margin {self.margin:g}, one-sided alpha "
            f"{self.alpha:g}" + ("; significantly worse than the reference." if self.worse else ".")
        )


def noninferiority(
    statistic: Statistic,
    clusters: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    margin: float,
    higher_is_better: bool = True,
    alpha: float = 0.025,
    samples: int = 2000,
    seed: int = 0,
    weighted: bool = False,
    method: str = "expanded",
) -> NonInferiority:
    """Is a new model at most ``margin`` worse than a reference? By the cluster bootstrap of their paired difference.

    >>> new, old = [0.81, 0.80, 0.83, 0.79, 0.85, 0.74], [0.80, 0.81, 0.80, 0.80, 0.86, 0.72]
    >>> found = noninferiority(lambda n, o: (n - o).mean(), ["a", "b", "c", "d", "e", "f"], new, old, margin=0.05)
    >>> found.decision, found.margin
    ('non-inferior', 0.05)

    Args:
        statistic: the difference new - reference of the measure, as in :func:`cluster_bootstrap`.
        clusters, data, samples, seed, weighted: as in :func:`cluster_bootstrap`.
        margin: the largest loss that is still acceptable, in the measure's unit; positive. It is a clinical choice, to
            be made and written down before the results are seen.
        higher_is_better: False for a measure such as HD95.
        alpha: one-sided level; the interval has level 1 - 2 alpha.
        method: "expanded", "percentile" or "bca".

    The p-values are those of :func:`bootstrap_p`, and each decision is p < alpha: the same as the interval's bound
    beyond the limit, except where the tail holds less than one replicate. Then the bound is the extreme replicate, p
    keeps to its least value, and the claim is not shown: "expanded" shows nothing with fewer than five groups and the
    usual numbers. Without an interval, or when all replicates are equal (the
    data show no spread), every p is NaN and the decision is "not shown".

    Raises ValueError for a margin that is not positive and finite, an alpha outside (0, 0.5), and like
    :func:`cluster_bootstrap`.
    Sources: Piaggio et al., JAMA 308 (2012) 2594-2604 (CONSORT); Rothmann, Wiens and Chan, *Design and Analysis of
    Non-Inferiority Trials*, 2011.
    """
    _check(margin, alpha)
    replicates = cluster_replicates(
        statistic, clusters, *data, samples=samples, seed=seed, weighted=weighted, jackknife=method == "bca"
    )
    interval = interval_of(replicates, level=1 - 2 * alpha, method=method)

    def p_above(limit: float, sign: float) -> float:
        """p-value that sign * difference lies above ``limit``."""
        alternative = "greater" if sign > 0 else "less"
        return bootstrap_p(replicates, sign * limit, alternative=alternative, method=method)

    bounds = interval.value, interval.low, interval.high
    counts = {"samples": interval.samples, "undefined": interval.undefined, "clusters": interval.clusters}
    return _result(bounds, p_above, margin, alpha, higher_is_better, method, **counts)


def noninferiority_areas(
    truth: Sequence | np.ndarray,
    new: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray,
    *,
    margin: float,
    alpha: float = 0.025,
    clusters: Sequence | np.ndarray | None = None,
) -> NonInferiority:
    """:func:`noninferiority` of the area under the ROC curve, by DeLong's standard error s of the difference d.

        interval = d +- u_{1 - alpha} s, clipped to [-1, 1]
        p_superior = 1 - Phi(d / s)      p_noninferior = 1 - Phi((d + margin) / s)
        p_worse = Phi(d / s)             p_inferior = Phi((d + margin) / s)

    u is the quantile of the normal distribution Phi; with ``clusters`` both are Student's (see :func:`delong`).

    Args:
        truth: bool or 0/1 [n]. new, reference: scores f[n], higher = more positive.
        clusters: n labels of groups; without them all cases are independent.

    Where s is 0 or does
    not exist, every p is NaN and the decision "not shown". Raises ValueError like :func:`noninferiority` and
    :func:`~thyroid_jax.evaluate.statistics.delong`.
    """
    _check(margin, alpha)
    found = delong(truth, new, reference, level=1 - 2 * alpha, clusters=clusters)
    error = found.difference_error

    def p_above(limit: float, sign: float) -> float:
        return upper_tail((sign * found.difference - limit) / error, found.difference_df) if error > 0 else NAN

    bounds = found.difference, found.difference_low, found.difference_high
    return _result(bounds, p_above, margin, alpha, True, "delong")


def decide(low: float, high: float, *, margin: float, higher_is_better: bool = True) -> str:
    """Decision from the interval ``low`` to ``high`` of new - reference, whatever its origin.

    With [L, U] the interval of the benefit (the difference; minus the difference if lower is better):

    - "superior"      L > 0
    - "non-inferior"  -margin < L <= 0, also where U < 0: significantly worse, by less than the margin
    - "inferior"      U < -margin
    - "not shown"     anything else, and where a bound is NaN

    An interval of level 1 - 2 alpha gives one-sided tests of level alpha. Superiority may be read after
    non-inferiority without adjustment, because the two are nested.

    Raises ValueError for a margin that is not positive and finite, or low above high.
    Sources: Piaggio et al., JAMA 308 (2012) 2594-2604, figure 1; nested claims: Morikawa and Yoshida, Journal of
    Biopharmaceutical Statistics 5 (1995) 297-306.
    """
    _check_margin(margin)
    if low > high:
        raise ValueError(f"low {low} lies above high {high}.")
    least, most = (low, high) if higher_is_better else (-high, -low)
    return _decision(least > 0, least > -margin, most < -margin)


@dataclass(frozen=True)
class BothClaims:
    """Result of :func:`superior_and_noninferior`: whether both claims are shown, with p of the pair."""

    shown: bool
    p: float
    alpha: float
    superior: NonInferiority
    noninferior: NonInferiority

    @property
    def statement(self) -> str:
        """Both decisions in words, with the error rate that they have together."""
        alpha, margin = f"{self.alpha:g}", f"{self.noninferior.margin:g}"
        return (
            f"Superiority on the first measure: {self._shown(self.superior.p_superior)}. Non-inferiority on the second "
            f"measure, margin {margin}: {self._shown(self.noninferior.p_noninferior)}. Both together: "
            f"{self._shown(self.p)}. Each test is one-sided at {alpha}. The claim is made only if both succeed, so the "
            f"probability of making it when at least one half is false is at most {alpha}, without adjustment "
            "(intersection-union test). One half alone is not a claim of this test."
        )

    def _shown(self, p: float) -> str:
        return f"{'shown' if p < self.alpha else 'not shown'}, p = {p:.3g}"


def superior_and_noninferior(superior: NonInferiority, noninferior: NonInferiority) -> BothClaims:
    """The joint claim "superior on one measure and non-inferior on another", as an intersection-union test.

        p = max(p_superior of the first, p_noninferior of the second);    shown where p < alpha

    The null hypothesis is that at least one half is false. Each half is tested at the full alpha: to reject wrongly,
    the test of a false half must reject, which happens with probability alpha at most, however the two measures
    depend on each other. Fix measures, margin and alpha before the results are seen. To claim either half alone if the
    other fails, adjust: :func:`holm` on the two p-values.

    NaN p-values give p = NaN and shown = False. Raises ValueError when the two results have different alpha.
    Source: Berger, Technometrics 24 (1982) 295-300.
    """
    if superior.alpha != noninferior.alpha:
        raise ValueError(f"both results need one alpha, not {superior.alpha} and {noninferior.alpha}.")
    p = float(np.max([superior.p_superior, noninferior.p_noninferior]))
    return BothClaims(p < superior.alpha, p, superior.alpha, superior, noninferior)


def _check(margin: float, alpha: float) -> None:
    _check_margin(margin)
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie in (0, 0.5), not {alpha}.")


def _check_margin(margin: float) -> None:
    if not (np.isfinite(margin) and margin > 0):
        raise ValueError(
            f"margin must be positive and finite, not {margin}. It is the largest loss that is acceptable; choose it "
            "before you see the results."
        )


def _result(
    bounds: tuple[float, float, float],
    p_above: Callable[[float, float], float],
    margin: float,
    alpha: float,
    higher_is_better: bool,
    method: str,
    **counts: int,
) -> NonInferiority:
    """The decision from ``p_above(limit, sign)``, the p-value that sign * difference exceeds the limit."""
    better = 1.0 if higher_is_better else -1.0
    p_superior, p_noninferior = p_above(0.0, better), p_above(-margin, better)
    p_worse, p_inferior = p_above(0.0, -better), p_above(margin, -better)
    decision = _decision(p_superior < alpha, p_noninferior < alpha, p_inferior < alpha)
    return NonInferiority(
        *bounds,
        margin=float(margin),
        alpha=alpha,
        higher_is_better=higher_is_better,
        p_superior=p_superior,
        p_noninferior=p_noninferior,
        p_worse=p_worse,
        p_inferior=p_inferior,
        decision=decision,
        worse=p_worse < alpha,
        method=method,
        **counts,
    )


def _decision(superior: bool, noninferior: bool, inferior: bool) -> str:
    if superior:
        return "superior"
    if noninferior:
        return "non-inferior"
    return "inferior" if inferior else "not shown"
