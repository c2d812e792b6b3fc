"""Effect sizes of paired comparisons, which do not grow with the number of cases as test statistics do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.pairs import paired, standard_deviation
from thyroid_jax.evaluate.statistics.proportions import McNemar
from thyroid_jax.evaluate.statistics.resampling import NAN


@dataclass(frozen=True)
class PairedEffect:
    """Result of :func:`cohens_dz`: d_z with its bounds, Hedges' g, the groups; ``missing`` pairs held a NaN."""

    dz: float
    low: float
    high: float
    hedges_g: float
    level: float
    groups: int
    missing: int


def cohens_dz(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence | np.ndarray | None = None,
    level: float = 0.95,
) -> PairedEffect:
    """Cohen's d_z of paired values f[n]: the mean difference first - second in units of its standard deviation.

    With D_g the mean difference of group g (of pair g without ``clusters``), G groups:

        d_z = mean(D) / sd(D)        sd with G - 1
        g   = J d_z                  J = Gamma(f/2) / (sqrt(f/2) Gamma((f - 1)/2)),  f = G - 1

    g is without bias for normal D.

    ``low`` and ``high`` bound d_z: those delta with P[t_{G-1}(delta sqrt(G)) >= d_z sqrt(G)] = (1 - level)/2, and the
    same for <=, t the noncentral t distribution. This is exact for normal D. d_z is not the d of two independent
    samples: it grows as the models' values on a case become more alike.

    NaN for fewer than two groups or without spread; g is NaN for two groups, for which J does not exist.
    Pairs with a NaN on either side are left out and counted.

    Raises ValueError for lengths that differ or a level outside (0, 1).
    Sources: Cohen, *Statistical Power Analysis*, 1988, section 2.3.5; Hedges, Journal of Educational Statistics 6
    (1981) 107-128; interval: Steiger and Fouladi, in *What If There Were No Significance Tests?*, 1997.
    """
    from scipy.special import gammaln

    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    pairs = paired(first, second, clusters)
    means = pairs.group_means
    sd, groups, f = standard_deviation(means, pairs.scale), len(means), len(means) - 1
    if not sd > 0:
        return PairedEffect(NAN, NAN, NAN, NAN, level, groups, pairs.missing)
    dz = float(means.mean() / sd)
    tails = (1 + level) / 2, (1 - level) / 2
    low, high = (_noncentrality(dz * groups**0.5, f, tail) / groups**0.5 for tail in tails)
    correction = np.exp(gammaln(f / 2) - gammaln((f - 1) / 2)) / np.sqrt(f / 2) if f > 1 else NAN
    return PairedEffect(dz, low, high, float(correction * dz), level, groups, pairs.missing)


def _noncentrality(t: float, df: int, below: float) -> float:
    """The noncentrality for which Student's t lies below the value ``t`` with probability ``below``."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    reach = 10.0 + 10 * abs(t)  # P(below t) runs from nearly 1 to nearly 0 over this span
    # By the upper tail: the library's lower one is NaN in places.
    return float(brentq(lambda delta: nct.sf(t, df, delta) - (1 - below), t - reach, t + reach, xtol=1e-10))


@dataclass(frozen=True)
class RankBiserial:
    """Result of :func:`rank_biserial`: ``n`` differences were ranked, ``zeros`` were 0; ``missing`` pairs had a NaN."""

    r: float
    n: int
    zeros: int
    missing: int


def rank_biserial(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence | np.ndarray | None = None,
) -> RankBiserial:
    """Matched-pairs rank-biserial correlation of paired values f[n], the effect size of :func:`paired_wilcoxon`.

        r = (W+ - W-) / (W+ + W-),    W+ and W- the rank sums of positive and negative differences first - second

    In [-1, 1]; 1 if first is larger in every pair that differs. The differences ranked are those of
    :func:`paired_wilcoxon`: zeros left out, means of groups with ``clusters``. NaN when no pair differs.

    Raises ValueError when the lengths differ. Source: Kerby, Comprehensive Psychology 3 (2014) 11.IT.3.1.
    """
    from scipy.stats import rankdata

    pairs = paired(first, second, clusters)
    means = pairs.group_means
    ranked = means[means != 0]
    zeros = len(means) - len(ranked)
    if not len(ranked):
        return RankBiserial(NAN, 0, zeros, pairs.missing)
    rank = rankdata(np.abs(ranked))
    return RankBiserial(float(rank @ np.sign(ranked) / rank.sum()), len(ranked), zeros, pairs.missing)


@dataclass(frozen=True)
class OddsRatio:
    """Result of :func:`discordant_odds`: ``value`` with its bounds, from ``discordant`` pairs."""

    value: float
    low: float
    high: float
    level: float
    discordant: int


def discordant_odds(counts: McNemar, *, level: float = 0.95) -> OddsRatio:
    """Odds ratio b / c of the discordant pairs of :func:`mcnemar`, with its exact conditional interval.

    b cases only the first got right, c only the second. Given b + c, b is binomial with share b / (b + c); Clopper and
    Pearson's bounds p of this share give the bounds p / (1 - p). The interval contains 1 where McNemar's exact p
    exceeds 1 - ``level``. With c = 0 the ratio and its upper bound are infinite. NaN without a discordant pair.

    Raises ValueError for a level outside (0, 1). Source: Breslow and Day, *Statistical Methods in Cancer Research* 1,
    1980, section 5.2.
    """
    from scipy.stats import binomtest

    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    b, c = counts.first_only, counts.second_only
    if b + c == 0:
        return OddsRatio(NAN, NAN, NAN, level, 0)
    share = binomtest(b, b + c).proportion_ci(level, method="exact")
    low, high = (float(p / (1 - p)) if p < 1 else float("inf") for p in (share.low, share.high))
    return OddsRatio(b / c if c else float("inf"), low, high, level, b + c)
