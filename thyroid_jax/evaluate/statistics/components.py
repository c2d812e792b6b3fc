"""How much of a measured difference is due to the cases, to the training seeds, and to neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.resampling import NAN, ROUNDING


@dataclass(frozen=True)
class Components:
    """Result of :func:`variance_components`.

    ``group``, ``seed`` and ``residual`` are variances in the squared unit of the values; an estimate of ``group`` or
    ``seed`` can be negative. The shares are of the total, negative estimates set to 0; NaN where the total is 0.
    ``low`` to ``high`` is the interval of the mean ``value``, from ``standard_error`` and ``df`` degrees of freedom.
    """

    value: float
    group: float
    seed: float
    residual: float
    group_share: float
    seed_share: float
    residual_share: float
    standard_error: float
    df: float
    low: float
    high: float
    level: float
    groups: int
    seeds: int


def variance_components(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence | np.ndarray,
    seeds: Sequence | np.ndarray,
    *,
    level: float = 0.95,
) -> Components:
    """Variance of values f[n] between groups of cases, between seeds, and the rest; and the interval of their mean.

    ``values`` is usually the difference of two methods on a case, both trained with the same seed. First the rows of a
    group and seed are averaged to x_gs. Then, for the two-way random model without replication

        x_gs = mu + group_g + seed_s + residual_gs,      G groups, S seeds,

    with the mean squares MG = S sum_g (x_g. - x..)^2 / (G - 1), MS = G sum_s (x_.s - x..)^2 / (S - 1) and
    MR = sum_gs (x_gs - x_g. - x_.s + x..)^2 / ((G - 1)(S - 1)),

        v_residual = MR      v_group = (MG - MR) / S      v_seed = (MS - MR) / G
        standard error^2 = M / GS,  M = max(MG + MS - MR, MG, MS)
        df = M^2 / (MG^2/(G - 1) + MS^2/(S - 1) + MR^2/((G - 1)(S - 1))),  at least min(G, S) - 1
        interval = x.. +- t_{(1 + level)/2, df} standard error

    The interval speaks about new groups and new seeds. Where seeds differ, two of them leave about one degree of
    freedom: the interval is very wide, and still covers less often than ``level`` says (``experiments.coverage`` prints
    how often). The residual holds the interaction of group and seed and the noise of a group's cases. Groups count
    alike, whatever their number of cases.

    An estimate below 0 is kept in ``group`` or ``seed``; it says that the component is small beside its error. The
    maximum in M and the least df, both ours, keep the interval from shrinking then. When all values are equal the
    standard error is 0, df NaN and low = high.

    Raises ValueError for lengths that differ, a value that is not finite, fewer than two groups or seeds, a level
    outside (0, 1), or a group without a row of some seed.
    Sources: Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 4; degrees of freedom: Satterthwaite,
    Biometrics Bulletin 2 (1946) 110-114.
    """
    table = _cell_means(np.asarray(values, float), np.asarray(clusters), np.asarray(seeds))
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}.")
    groups, runs = table.shape
    of_groups, of_seeds, of_rest = _mean_squares(table)
    group, seed = (of_groups - of_rest) / runs, (of_seeds - of_rest) / groups
    parts = np.maximum([group, seed, of_rest], 0)
    shares = parts / parts.sum() if parts.sum() > 0 else np.full(3, NAN)
    error, df = _standard_error(of_groups, of_seeds, of_rest, groups, runs)
    mean = float(table.mean())
    margin = _student(level, df) * error if error > 0 else 0.0
    return Components(
        value=mean,
        group=group,
        seed=seed,
        residual=of_rest,
        group_share=float(shares[0]),
        seed_share=float(shares[1]),
        residual_share=float(shares[2]),
        standard_error=error,
        df=df,
        low=mean - margin,
        high=mean + margin,
        level=level,
        groups=groups,
        seeds=runs,
    )


def _cell_means(values: np.ndarray, clusters: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Means f[G S] of the rows of each group and seed."""
    if not values.shape == clusters.shape == seeds.shape or values.ndim != 1:
        raise ValueError(
            f"values {values.shape}, clusters {clusters.shape} and seeds {seeds.shape} must be vectors of one length."
        )
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite; leave the group out of all seeds.")
    names, member = np.unique(clusters, return_inverse=True)
    runs, run = np.unique(seeds, return_inverse=True)
    if min(len(names), len(runs)) < 2:
        raise ValueError(f"two groups and two seeds are needed at least, not {len(names)} and {len(runs)}.")
    cell = member.reshape(-1) * len(runs) + run.reshape(-1)
    count = np.bincount(cell, minlength=len(names) * len(runs))
    if not count.all():
        group, seed = divmod(int(np.argmin(count)), len(runs))
        raise ValueError(f"group {names[group]} has no row of seed {runs[seed]}; every group needs every seed.")
    return (np.bincount(cell, weights=values) / count).reshape(len(names), len(runs))


def _mean_squares(table: np.ndarray) -> tuple[float, float, float]:
    """MG, MS and MR; values that are 0 but for rounding are 0."""
    groups, seeds = table.shape
    mean, by_group, by_seed = table.mean(), table.mean(1), table.mean(0)
    found = (
        seeds * ((by_group - mean) ** 2).sum() / (groups - 1),
        groups * ((by_seed - mean) ** 2).sum() / (seeds - 1),
        ((table - by_group[:, None] - by_seed + mean) ** 2).sum() / ((groups - 1) * (seeds - 1)),
    )
    rounding = (ROUNDING * np.abs(table).max()) ** 2 * table.size
    of_groups, of_seeds, of_rest = (0.0 if square <= rounding else float(square) for square in found)
    return of_groups, of_seeds, of_rest


def _standard_error(of_groups: float, of_seeds: float, rest: float, groups: int, seeds: int) -> tuple[float, float]:
    """Standard error of the mean, and its degrees of freedom."""
    largest = max(of_groups + of_seeds - rest, of_groups, of_seeds)
    if largest == 0:
        return 0.0, NAN
    squares = of_groups**2 / (groups - 1) + of_seeds**2 / (seeds - 1) + rest**2 / ((groups - 1) * (seeds - 1))
    df = max(largest**2 / squares, min(groups, seeds) - 1.0)
    return float(np.sqrt(largest / (groups * seeds))), df


def _student(level: float, df: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, df))
