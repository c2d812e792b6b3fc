"""Power by simulation: studies are made of a pilot's groups, drawn with replacement, and each is tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thyroid_jax.evaluate.statistics.claims import noninferiority
from thyroid_jax.evaluate.statistics.pairs import paired
from thyroid_jax.evaluate.statistics.power import check_test
from thyroid_jax.evaluate.statistics.resampling import NAN, Statistic, block_sizes, grouped


@dataclass(frozen=True)
class SimulatedPower:
    """Share of the simulated studies that succeed, with Wilson's 95 % interval for the number of ``trials``.

    ``undefined`` studies had no test; they count as not successful.
    """

    power: float
    low: float
    high: float
    trials: int
    undefined: int


def simulated_paired_power(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    groups: int,
    clusters: Sequence | np.ndarray | None = None,
    difference: float | None = None,
    alpha: float = 0.05,
    alternative: str = "two-sided",
    margin: float = 0.0,
    test: str = "t",
    trials: int = 2000,
    seed: int = 0,
) -> SimulatedPower:
    """Power of a paired test at ``groups`` groups whose mean differences are distributed as those of a pilot.

    Each trial draws ``groups`` of the pilot's mean differences with replacement and tests first - second > -margin
    ("greater") or first != second ("two-sided"). Unlike :func:`paired_power` it needs no normal distribution.

    Args:
        difference: the true mean difference to assume: the pilot's are shifted to it. Without it the pilot's own mean
            is taken for the truth, which exaggerates the power of a pilot that was lucky.
        test: "t", or "wilcoxon" by its normal approximation. Groups that are drawn twice are ties of Wilcoxon's test,
            which the study itself would hardly have.

    Pairs with a NaN on either side are left out. Raises ValueError for lengths that differ, a pilot or study of fewer
    than two groups, no trials, an unknown test, and like :func:`paired_power`.
    """
    check_test(alpha, alternative, margin)
    means = paired(first, second, clusters).group_means
    if min(len(means), groups) < 2 or trials < 1 or test not in _TESTS:
        raise ValueError(
            f"pilot and study need two groups, trials at least 1 and test one of {', '.join(_TESTS)}; not "
            f"{len(means)}, {groups}, {trials} and {test!r}."
        )
    if difference is not None:
        means = means - means.mean() + difference
    generator = np.random.default_rng(seed)
    p = np.concatenate(
        [
            _TESTS[test](means[generator.integers(len(means), size=(size, groups))] + margin, alternative)
            for size in block_sizes(trials, groups)
        ]
    )
    return _share(p < alpha, np.isnan(p))


def simulated_power(
    statistic: Statistic,
    clusters: Sequence | np.ndarray,
    *data: Sequence | np.ndarray,
    groups: int,
    margin: float | None = None,
    higher_is_better: bool = True,
    alpha: float = 0.025,
    trials: int = 300,
    samples: int = 400,
    seed: int = 0,
    weighted: bool = False,
) -> SimulatedPower:
    """Power to show superiority, or non-inferiority with a ``margin``, for any statistic of a pilot's cases.

    Each trial makes a study of ``groups`` of the pilot's groups, drawn with replacement, and hands it to
    :func:`noninferiority`. The pilot's own difference is taken for the truth: it exaggerates the power of a pilot that
    was lucky. The cost is trials x samples replicates of a study: use ``weighted``.

    Args:
        statistic: the difference new - reference, as in :func:`noninferiority`; likewise the other arguments.
        margin: without it, superiority is to be shown.

    Raises ValueError for fewer than two groups or no trials, and like :func:`noninferiority`.
    """
    table = grouped(clusters, data)
    if min(groups, table.groups) < 2 or trials < 1:
        raise ValueError(
            f"pilot and study need two groups and trials at least 1, not {table.groups}, {groups} and {trials}."
        )
    rows_of = [np.flatnonzero(table.member == group) for group in range(table.groups)]
    generator = np.random.default_rng(seed)
    p = []
    for trial in range(trials):
        drawn = generator.integers(table.groups, size=groups)
        rows = np.concatenate([rows_of[group] for group in drawn])
        again = np.repeat(np.arange(groups), [len(rows_of[group]) for group in drawn])
        found = noninferiority(
            statistic,
            again,
            *(column[rows] for column in table.rows),
            margin=1.0 if margin is None else margin,  # superiority does not depend on it
            higher_is_better=higher_is_better,
            alpha=alpha,
            samples=samples,
            seed=seed + trial,
            weighted=weighted,
        )
        p.append(found.p_superior if margin is None else found.p_noninferior)
    return _share(np.array(p) < alpha, np.isnan(p))


def _t_test(values: np.ndarray, alternative: str) -> np.ndarray:
    """p of each row of values f[s n]; NaN for a row without spread."""
    from scipy.stats import t

    n = values.shape[1]
    error = values.std(axis=1, ddof=1) / np.sqrt(n)
    some = error > 1e-12 * np.abs(values).max(axis=1)
    statistic = np.divide(values.mean(axis=1), error, out=np.full(len(values), NAN), where=some)
    return t.sf(statistic, n - 1) if alternative == "greater" else 2 * t.sf(np.abs(statistic), n - 1)


def _wilcoxon(values: np.ndarray, alternative: str) -> np.ndarray:
    """p of each row of values f[s n]; NaN for a row of zeros."""
    from scipy.stats import wilcoxon

    some = (values != 0).any(axis=1)
    p = np.full(len(values), NAN)
    if some.any():
        p[some] = wilcoxon(values[some], axis=1, alternative=alternative, method="asymptotic").pvalue
    return p


_TESTS = {"t": _t_test, "wilcoxon": _wilcoxon}


def _share(success: np.ndarray, undefined: np.ndarray) -> SimulatedPower:
    from scipy.stats import binomtest

    found = int(success.sum())
    bounds = binomtest(found, len(success)).proportion_ci(method="wilson")
    return SimulatedPower(
        found / len(success), float(bounds.low), float(bounds.high), len(success), int(undefined.sum())
    )
