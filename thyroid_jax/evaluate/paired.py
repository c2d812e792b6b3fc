"""Paired differences between two models on the same cases, with intervals that resample whole groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.statistics import Interval, cluster_bootstrap


class _Measure(NamedTuple):
    """``usable`` case -> whether it counts; ``columns`` cases -> arrays [n ...]; ``value`` (arrays, weight) -> f[s]."""

    usable: Callable[[Case], bool]
    columns: Callable[[Sequence[Case], Sequence[str]], tuple[np.ndarray, ...]]
    value: Callable[..., np.ndarray]


def _graded(case: Case) -> bool:
    return bool(case.grade_truth and case.grade_predicted and case.probability)


def _grades(cases: Sequence[Case], names: Sequence[str]) -> tuple[np.ndarray, ...]:
    place = {name: index for index, name in enumerate(names)}
    truth = np.array([place[case.grade_truth] for case in cases], int)
    predicted = np.array([place[case.grade_predicted] for case in cases], int)
    probability = np.array([[case.probability[name] for name in names] for case in cases], float)
    return truth, predicted, probability.reshape(len(cases), len(names))


def _kappa(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.quadratic_kappa(metrics.confusion_matrix(predicted, truth, probability.shape[1], weight=weight))


def _macro_auroc(truth: np.ndarray, predicted: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    over = metrics.occurring(truth, probability.shape[1])
    return metrics.macro_auroc(probability, truth, over, weight=weight)


MEASURES: dict[str, _Measure] = {
    "dice": _Measure(
        usable=lambda case: not np.isnan(case.dice),
        columns=lambda cases, names: (np.array([case.dice for case in cases]),),
        value=lambda dice, weight: weight @ dice / weight.sum(-1),
    ),
    "quadratic_kappa": _Measure(_graded, _grades, _kappa),
    "macro_auroc": _Measure(_graded, _grades, _macro_auroc),
    "malignant_auroc": _Measure(
        usable=lambda case: case.malignant_truth is not None and not np.isnan(case.p_malignant),
        columns=lambda cases, names: (
            np.array([case.p_malignant for case in cases]),
            np.array([bool(case.malignant_truth) for case in cases]),
        ),
        value=lambda score, malignant, weight: metrics.auroc(score, malignant, weight=weight),
    ),
}


def difference(
    first: Sequence[Case], second: Sequence[Case], measure: str, *, samples: int = 2000, seed: int = 0
) -> Interval:
    """Measure of the first table minus that of the second, with a 95 % interval; both tables are resampled alike.

    Rows are paired by their case; rows of a case that occurs several times (several seeds) are paired in order. Rows
    that only one table has raise :class:`InputError`, and so do tables of different grades. ``measure`` is a name of
    :data:`MEASURES`. NaN where no pair has the measure.
    """
    chosen = MEASURES[measure]
    pairs = [(a, b) for a, b in matched(first, second) if chosen.usable(a) and chosen.usable(b)]
    names, others = grades(list(first)), grades(list(second))
    if names and others and names != others:
        raise InputError(f"the two tables have different grades, {', '.join(names)} and {', '.join(others)}.")
    names = names or others
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    columns = [*chosen.columns(ours, names), *chosen.columns(theirs, names)]
    half = len(columns) // 2

    def gap(*data: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return chosen.value(*data[:half], weight=weight) - chosen.value(*data[half:], weight=weight)

    groups = [case.group for case in ours]
    return cluster_bootstrap(gap, groups, *columns, samples=samples, seed=seed, weighted=True, expanded=True)


def comparison(found: Mapping[str, Sequence[Case]], *, samples: int = 2000) -> str:
    """Two Markdown tables: every measure of each method with its 95 % interval, and the differences to the first one.

    ``found`` maps a method to its cases. A cell is empty where a method does not have the measure. Methods that do not
    have the same cases raise :class:`InputError`, and so does an empty ``found``.
    """
    if not found:
        raise InputError("nothing to compare: name a method.")
    first, *others = found
    summaries = {method: metrics.summary(cases, samples=samples) for method, cases in found.items()}
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary))
    lines = _head("measure", "predictions", "groups", *found)
    for name in names:
        entries = [summaries[method].get(name) for method in found]
        counts = [_span(key, entries) for key in ("n", "groups")]
        cells = ["" if e is None else f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" for e in entries]
        lines.append(_row(name, *counts, *cells))
    if others:
        lines += ["", *_head(f"difference to {first}", *others)]
    for name in MEASURES if others else ():
        gaps = [difference(found[method], found[first], name, samples=samples) for method in others]
        cells = ["" if np.isnan(g.value) else f"{g.value:+.3f} ({g.low:+.3f} to {g.high:+.3f})" for g in gaps]
        if any(cells):
            lines.append(_row(name, *cells))
    return "\n".join(lines)


def _span(key: str, entries: Sequence[dict[str, float] | None]) -> str:
    """The number, or lowest and highest where the methods differ: HD95 is undefined for an empty outline."""
    counts = sorted({round(entry[key]) for entry in entries if entry is not None})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _head(*names: str) -> list[str]:
    return [_row(*names), "|---" * len(names) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def matched(first: Sequence[Case], second: Sequence[Case]) -> list[tuple[Case, Case]]:
    """Pairs of rows of two tables with the same case, in the first table's order."""
    there = {key: case for key, case in zip(_keys(second), second)}
    keys = _keys(first)
    lacking = sorted(set(keys) ^ set(there))
    if lacking:
        raise InputError(
            f"the two tables are not of the same cases: {len(lacking)} rows are in one alone, the first is "
            f"{lacking[0][0]!r}; compare runs of the same folds and seeds."
        )
    return [(case, there[key]) for key, case in zip(keys, first)]


def _keys(cases: Sequence[Case]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    keys = []
    for case in cases:
        keys.append((case.case, seen[case.case]))
        seen[case.case] += 1
    return keys
