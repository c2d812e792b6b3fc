"""Permutation tests of paired models on cases that come in groups: whole groups change sign, or change models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.pairs import paired
from thyroid_jax.evaluate.statistics.resampling import (
    NAN,
    ROUNDING,
    Grouped,
    Statistic,
    block_sizes,
    grouped,
    value_of,
    weighted_values,
)

ALTERNATIVES = ("two-sided", "greater", "less")


@dataclass(frozen=True)
class Permutation:
    """Result of :func:`sign_flip_test` and :func:`swap_test`.

    ``value`` is the difference first - second. ``samples`` is the number of permutations, all 2^clusters of them where
    ``exact``. ``undefined`` of them had no value. ``missing`` pairs held a NaN and were left out.
    """

    value: float
    p: float
    samples: int
    exact: bool
    clusters: int
    undefined: int = 0
    missing: int = 0


def sign_flip_test(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence | np.ndarray | None = None,
    alternative: str = "two-sided",
    samples: int = 10_000,
    seed: int = 0,
) -> Permutation:
    """Permutation test of the mean paired difference of values f[n], where the signs of whole groups are flipped.

        T = (1/n) sum_g s_g D_g,      D_g = sum of first - second over the cases of group g,      s_g = -1 or +1

    ``value`` is T with all s_g = +1: the mean over cases, so that a group of many cases counts more. Under the null
    hypothesis the two models are exchangeable on each group, and all 2^G signs are equally likely.

        p = (number of sign patterns with T at least as extreme) / 2^G            where 2^G <= samples: exact
        p = (1 + number of drawn patterns at least as extreme) / (1 + samples)    else

    "As extreme" is |T| >= |value| for "two-sided", T >= value for "greater" (first is larger), T <= value for "less".
    The least p of an exact two-sided test is 2 / 2^G: with five groups no result is significant at 0.05.

    Of 0-1 values (right or wrong) this is McNemar's test for grouped cases. Pairs with a NaN on either side are left
    out and counted; without a pair the value and p are NaN. Without ``clusters`` each pair is a group.

    Raises ValueError for lengths that differ, an unknown alternative or no samples.
    Sources: Fisher, *The Design of Experiments*, 1935, section 21; the 1 + : Phipson and Smyth, Statistical
    Applications in Genetics and Molecular Biology 9 (2010) 39.
    """
    _check(alternative, samples)
    pairs = paired(first, second, clusters)
    n = len(pairs.difference)
    if n == 0:
        return Permutation(NAN, NAN, 0, False, 0, missing=pairs.missing)
    sums = np.bincount(pairs.member, weights=pairs.difference)
    groups = len(sums)
    exact, count = _number_of_patterns(groups, samples)
    values = [(sums.sum() - 2 * flip @ sums) / n for flip in _flips(groups, count, exact, seed, groups)]
    value, near = float(sums.sum() / n), ROUNDING * pairs.scale
    p = _p(np.concatenate(values), value, alternative, exact, near)
    return Permutation(value, p, count, exact, groups, missing=pairs.missing)


def swap_test(
    statistic: Statistic,
    clusters: Sequence | np.ndarray,
    first: Sequence[Sequence | np.ndarray],
    second: Sequence[Sequence | np.ndarray],
    *,
    alternative: str = "two-sided",
    samples: int = 10_000,
    seed: int = 0,
    weighted: bool = False,
) -> Permutation:
    """Permutation test of any statistic of two models, statistic(first) - statistic(second), on the same n cases.

    A permutation exchanges the two models' rows on about half of the groups, all rows of a group together. The p-value
    is that of :func:`sign_flip_test`, exact where 2^G <= samples. For a mean the two tests are the same.

    >>> right = [[1, 1, 1, 1, 1, 0]], [[0, 0, 0, 0, 0, 0]]
    >>> swap_test(np.mean, ["a", "b", "c", "d", "e", "e"], *right).p
    0.0625

    Args:
        statistic: of the columns of one model, ``statistic(*columns) -> float``; with ``weighted=True`` as in
            :func:`cluster_bootstrap`, ``statistic(*columns, weight=f[s n]) -> f[s]``.
        clusters: n labels.
        first, second: for each model the columns that the statistic takes, each with n rows. What both share, such as
            the truth, stands in both.

    The models must be exchangeable under the null hypothesis. Scores on different scales are not, although their AUROC
    may be equal: replace each model's scores by their ranks (``scipy.stats.rankdata``) first.

    A permutation without a value (NaN) is counted in ``undefined`` and taken as extreme, so that p is never too small.
    Without a case, or where the value is NaN, p is NaN.

    Raises ValueError for lengths that differ, columns that the models do not share, an unknown alternative or no
    samples. Sources: as for :func:`sign_flip_test`; ranks: Bandos, Rockette and Gur, Statistics in Medicine 24 (2005)
    2873-2893.
    """
    _check(alternative, samples)
    if len(first) != len(second):
        raise ValueError(f"first has {len(first)} columns and second {len(second)}; both need those of the statistic.")
    ours, theirs = grouped(clusters, first), grouped(clusters, second)
    if ours.cases == 0:
        return Permutation(NAN, NAN, 0, False, 0)
    of_ours, of_theirs = value_of(statistic, ours, weighted), value_of(statistic, theirs, weighted)
    value = of_ours - of_theirs
    if np.isnan(value):
        return Permutation(NAN, NAN, 0, False, ours.groups)
    exact, count = _number_of_patterns(ours.groups, samples)
    differences = _weighted_differences if weighted else _indexed_differences
    flips = _flips(ours.groups, count, exact, seed, 2 * ours.cases)
    values = np.concatenate([differences(statistic, ours, theirs, flip[:, ours.member]) for flip in flips])
    near = ROUNDING * max(abs(of_ours), abs(of_theirs))
    p = _p(values, value, alternative, exact, near)
    return Permutation(value, p, count, exact, ours.groups, undefined=int(np.isnan(values).sum()))


def _check(alternative: str, samples: int) -> None:
    if alternative not in ALTERNATIVES or samples < 1:
        raise ValueError(
            f"alternative must be one of {', '.join(ALTERNATIVES)} and samples at least 1, "
            f"not {alternative!r} and {samples}."
        )


def _number_of_patterns(groups: int, samples: int) -> tuple[bool, int]:
    """Whether all patterns are enumerated, and how many are computed."""
    exact = groups < 63 and 2**groups <= samples
    return exact, 2**groups if exact else samples


def _flips(groups: int, count: int, exact: bool, seed: int, weights: int) -> Iterator[np.ndarray]:
    """Blocks of patterns bool[s groups], True where a group changes: all of them, or drawn."""
    generator, start = np.random.default_rng(seed), 0
    for size in block_sizes(count, weights):
        if exact:
            number = np.arange(start, start + size)[:, None]
            yield (number >> np.arange(groups)) & 1 == 1
        else:
            yield generator.integers(2, size=(size, groups)) == 1
        start += size


def _weighted_differences(statistic: Statistic, ours: Grouped, theirs: Grouped, flip: np.ndarray) -> np.ndarray:
    """f[s], from the rows of both models one after the other: each model has the rows of weight 1."""
    both = [np.concatenate(columns) for columns in zip(ours.rows, theirs.rows)]
    weight = np.concatenate([~flip, flip], axis=1).astype(float)
    return weighted_values(statistic, both, weight) - weighted_values(statistic, both, 1 - weight)


def _indexed_differences(statistic: Statistic, ours: Grouped, theirs: Grouped, flip: np.ndarray) -> np.ndarray:
    """f[s], from the exchanged rows."""
    found = []
    for changed in flip:
        pair = [
            [_chosen(changed, b, a) for a, b in zip(left.rows, right.rows)]
            for left, right in ((ours, theirs), (theirs, ours))
        ]
        found.append(float(statistic(*pair[0])) - float(statistic(*pair[1])))
    return np.array(found)


def _chosen(changed: np.ndarray, there: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Rows of ``there`` where changed, else of ``here``."""
    return np.where(changed.reshape(-1, *[1] * (here.ndim - 1)), there, here)


def _p(values: np.ndarray, value: float, alternative: str, exact: bool, near: float) -> float:
    """Share of the permutations that are at least as extreme; those within rounding error and NaN are."""
    if alternative == "two-sided":
        less_extreme = np.abs(values) < abs(value) - near
    else:
        less_extreme = values < value - near if alternative == "greater" else values > value + near
    count = int(len(values) - np.count_nonzero(less_extreme))
    return count / len(values) if exact else (1 + count) / (1 + len(values))
