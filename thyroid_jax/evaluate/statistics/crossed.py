"""Crossed bootstrap: groups of cases and training seeds are resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thyroid_jax.evaluate.statistics.bootstrap import Interval
from thyroid_jax.evaluate.statistics.resampling import (
    NAN,
    Grouped,
    Statistic,
    block_sizes,
    check_level_and_samples,
    counts_of,
    grouped,
    value_of,
    weighted_values,
)


def crossed_bootstrap(
    statistic: Statistic,
    clusters: Sequence | np.ndarray,
    seeds: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    weighted: bool = False,
) -> Interval:
    """Percentile interval of a statistic of cases that several seeds predicted: groups and seeds are resampled.

    A row is one case as one seed predicted it. One replicate draws the G groups with replacement and, independently,
    the S seeds. A row then counts (draws of its group) x (draws of its seed) times. Rows of one case are not
    independent, and neither are rows of one seed; this keeps both dependencies. The interval speaks about other cases
    *and* other seeds. :func:`cluster_bootstrap` of the same rows speaks about other cases, and about these seeds.

    For the mean of x_gs = mu + group_g + seed_s + residual_gs the replicates have, on average, the variance

        (1 - 1/G) (v_group / G + v_residual / GS) + (1 - 1/S) (v_seed / S + v_residual / GS)
            + (1 - 1/G) (1 - 1/S) v_residual / GS

    where the truth is v_group / G + v_seed / S + v_residual / GS. So the interval is

    - conservative where the residual dominates: with many groups and seeds it counts three times;
    - too short where seeds differ and are few: two seeds show half of v_seed, three show two thirds. And three seeds
      have 27 draws only, one in nine of them a single seed, so that the quantiles cannot have Student's long tails.

    With two or three seeds, use it to see whether the seeds matter at all: compare it with :func:`cluster_bootstrap`.
    It cannot support a claim about new seeds; for means, :func:`variance_components` gives an interval with Student's
    quantile, which is then wide. Seeds are taken as independent runs. Folds are not: their training parts overlap, so
    do not give folds as ``seeds``. Let each seed predict every case out of fold, and give the seed.

    Args:
        statistic, samples, level, seed, weighted: as in :func:`cluster_bootstrap`.
        clusters, seeds: n labels each. Every group needs at least one row of every seed.
        data: arrays whose first axis is n.

    There is no interval with fewer than two groups or two seeds, or where the statistic is NaN. NaN replicates are left
    out and counted. Raises ValueError for lengths that differ, a group without a row of some seed, and like
    :func:`cluster_bootstrap`.
    Sources: Owen, Annals of Applied Statistics 1 (2007) 386-411 (pigeonhole bootstrap); McCullagh, Bernoulli 6 (2000)
    285-301.
    """
    check_level_and_samples(level, samples)
    table, by_seed = grouped(clusters, data), grouped(seeds, data)
    _check_crossed(table, by_seed, clusters, seeds)
    groups, runs = table.groups, by_seed.groups
    value = value_of(statistic, table, weighted) if table.cases else NAN
    if np.isnan(value) or groups < 2 or runs < 2:
        return Interval(value, NAN, NAN, level, clusters=groups, seeds=runs)

    generator = np.random.default_rng(seed)
    values = []
    for size in block_sizes(samples, max(table.cases, groups, runs)):
        of_group = counts_of(generator.integers(groups, size=(size, groups)), groups)
        of_seed = counts_of(generator.integers(runs, size=(size, runs)), runs)
        counts = of_group[:, table.member] * of_seed[:, by_seed.member]
        values.append(_counted_values(statistic, table, counts, weighted))
    replicates = np.concatenate(values)
    defined = replicates[~np.isnan(replicates)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (NAN, NAN)
    return Interval(
        value,
        float(low),
        float(high),
        level,
        samples=samples,
        undefined=samples - len(defined),
        clusters=groups,
        standard_error=float(defined.std(ddof=1)) if len(defined) > 1 else NAN,
        seeds=runs,
    )


def _check_crossed(table: Grouped, by_seed: Grouped, clusters: Sequence | np.ndarray, seeds: Sequence | np.ndarray):
    occurs = np.zeros((table.groups, by_seed.groups), bool)
    occurs[table.member, by_seed.member] = True
    if not occurs.all():
        group, run = np.argwhere(~occurs)[0]
        group_name, seed_name = np.unique(np.asarray(clusters))[group], np.unique(np.asarray(seeds))[run]
        raise ValueError(
            f"group {group_name} has no row of seed {seed_name}. Every group needs every seed: "
            "leave the group out of all seeds, or the seed out of all groups."
        )


def _counted_values(statistic: Statistic, table: Grouped, counts: np.ndarray, weighted: bool) -> np.ndarray:
    """The statistic when each row occurs as often as ``counts`` int[s n] says: f[s]."""
    if weighted:
        return weighted_values(statistic, table.rows, counts.astype(float))
    index = (np.repeat(np.arange(table.cases), count) for count in counts)
    return np.array([float(statistic(*(column[chosen] for column in table.rows))) for chosen in index])
