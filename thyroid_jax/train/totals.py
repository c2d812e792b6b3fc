"""Sums and counts of an epoch's steps. They can be kept in a checkpoint, so that an epoch's row is of all its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.losses import consistency
from thyroid_jax.losses.reduce import Metrics, Pair

Averages = dict[str, Any]


class Totals(NamedTuple):
    """What the first ``steps`` steps of an epoch add up to.

    Args:
        steps: number of steps.
        metrics: sum and count, float64, of each metric of the steps.
        diagnosis: sum and count, float64, of each metric of the diagnoses.
        left_out: steps whose update was left out because it was not finite, counted from 1 over the whole run.
    """

    steps: int
    metrics: Metrics
    diagnosis: Metrics
    left_out: tuple[int, ...]


NO_STEPS = Totals(0, {}, {}, ())
"""the totals at an epoch's start"""


def add_up(seen: Iterable[Metrics], before: Metrics | None = None) -> Metrics:
    """Sum of (sum, count) pairs over steps or batches, each metric over those that have it; float64.

    The pairs are added one after the other to those of ``before``: sums that are interrupted and continued are bit for
    bit those that are not.
    """
    found = dict(before or {})
    for metrics in seen:
        for name, value in metrics.items():
            terms = [np.asarray(term, np.float64) for term in value]
            so_far = found.get(name)
            with np.errstate(invalid="ignore"):  # infinities of both signs sum to NaN, which the log shows
                found[name] = Pair(*(terms if so_far is None else [a + b for a, b in zip(so_far, terms)]))
    return found


def totals_to_json(totals: Totals) -> dict[str, Any]:
    """Totals as JSON values from which :func:`totals_from_json` restores every bit."""
    return {
        "steps": totals.steps,
        "metrics": {name: list(map(_number_to_json, value)) for name, value in totals.metrics.items()},
        "diagnosis": {name: list(map(_number_to_json, value)) for name, value in totals.diagnosis.items()},
        "left_out": list(totals.left_out),
    }


def totals_from_json(values: Mapping[str, Any]) -> Totals:
    """Undo :func:`totals_to_json`."""
    pairs = lambda stored: {name: Pair(*map(_number_from_json, value)) for name, value in stored.items()}
    return Totals(values["steps"], pairs(values["metrics"]), pairs(values["diagnosis"]), tuple(values["left_out"]))


def _number_to_json(value: Any) -> Any:
    """A float, or a list of them; those that are not finite as text, because JSON has none."""
    if np.ndim(value):
        return [_number_to_json(item) for item in value]
    return float(value) if np.isfinite(value) else str(float(value))


def _number_from_json(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64)  # reads "nan" and "inf" too


def averages(metrics: Metrics) -> Averages:
    """sum / count of every metric; NaN for a count of 0. Histograms become lists, left out for a count of 0."""
    found: Averages = {}
    for name, (total, count) in sorted(metrics.items()):
        if np.ndim(total) == 0:
            found[name] = ratio(total, count)
        elif count:
            found[name] = (np.asarray(total) / count).tolist()
    return found


def with_prior_agreement(row: Averages) -> Averages:
    """The averages with the shape prior's products turned into its correlation with the malignancy and its deviation.

    Where the deviation goes to 0 the prior is constant: it may agree with the head, but carries no information.
    """
    products = row.pop("prior_products", None)
    if products is None:
        return row
    correlation, deviation = consistency.agreement(np.asarray(products, np.float32))
    return row | {"prior_correlation": float(correlation), "prior_deviation": float(deviation)}


def ratio(total: Any, count: Any) -> float:
    """total / count, NaN for a count of 0."""
    return float(total / count) if count else math.nan
