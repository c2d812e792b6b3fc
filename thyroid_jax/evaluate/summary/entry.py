"""Measures of a table with their intervals: the entries of a summary."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from thyroid_jax.evaluate.metrics import auroc, ratio
from thyroid_jax.evaluate.statistics import Interval, cluster_bootstrap, delong

Summary = dict[str, dict[str, float]]
"""``{measure: entry}``; an entry is ``{value, low, high, n, undefined, groups, replicates, replicates_undefined}``.

``n`` cases of ``groups`` groups have a value, ``undefined`` more could have had one. ``replicates`` were drawn for the
interval from ``low`` to ``high``, of which ``replicates_undefined`` had no value and were left out. The area under a
single ROC curve has DeLong's interval and no replicates: :func:`interval_kind` says which one an entry has.
"""

bootstrap = partial(cluster_bootstrap, weighted=True, expanded=True)


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean f[...] of values f[n] by case weights f[... n]; NaN where no case has weight."""
    return ratio(weight @ values, weight.sum(axis=-1))


def of_calls(
    called: np.ndarray, truth: np.ndarray, groups: np.ndarray, *, samples: int, level: float, seed: int
) -> Summary:
    """Shares of right calls bool[n] about a yes/no truth bool[n], with cluster-bootstrap intervals by group.

    ``sensitivity`` is the share over the true cases, ``specificity`` over the others, ``ppv`` (positive predictive
    value, precision) over the cases called positive and ``npv`` over those called negative. Each resamples the groups
    that have such cases; without one the value is NaN and n = 0.
    """
    right = (called == truth).astype(float)
    chosen = {"sensitivity": truth, "specificity": ~truth, "ppv": called, "npv": ~called}
    result: Summary = {}
    for name, rows in chosen.items():
        interval = bootstrap(weighted_mean, groups[rows], right[rows], samples=samples, level=level, seed=seed)
        result[name] = entry(interval, int(rows.sum()))
    return result


def area_interval(score: np.ndarray, positive: np.ndarray, groups: np.ndarray, *, level: float) -> Interval:
    """Area under the ROC curve of a score f[n] for positive bool[n], with DeLong's interval by group.

    It is the logit interval of :func:`~thyroid_jax.evaluate.statistics.delong` with ``clusters``, which needs two
    groups with a positive and two with a negative case. ``samples`` of the result is 0: nothing is resampled. The
    bootstrap's interval of a single area is too short (``experiments.coverage``).

    The value is NaN without a positive or without a negative case, and there is then no interval. A perfect area, or a
    score that is equal everywhere, has the exact interval of independent pairs.
    """
    found = delong(positive, score, clusters=groups, level=level)
    value = float(auroc(score, positive))
    return Interval(value, found.low[0], found.high[0], level, clusters=len(np.unique(groups)), method="delong")


def interval_kind(entry: Mapping[str, float]) -> str:
    """The interval of an entry: "bootstrap", "delong", or "" where it has none.

    >>> interval_kind({"low": 0.7, "high": 0.9, "replicates": 0})
    'delong'
    """
    if np.isnan(entry["low"]):
        return ""
    return "bootstrap" if entry["replicates"] else "delong"


def entry(interval: Interval, n: int, undefined: int = 0) -> dict[str, float]:
    """Entry of a summary: ``n`` cases have a value, ``undefined`` have none. If the measure is NaN, no case has one."""
    lost = n if np.isnan(interval.value) else 0
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": n - lost,
        "undefined": undefined + lost,
        "groups": interval.clusters,
        "replicates": interval.samples,
        "replicates_undefined": interval.undefined,
    }
