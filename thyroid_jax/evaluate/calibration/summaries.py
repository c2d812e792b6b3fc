"""Calibration of a per-case table: all measures with intervals, what chance alone gives, and the reliability tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from thyroid_jax.evaluate.calibration.binning import BINS, KINDS, checked_forecast, checked_grades
from thyroid_jax.evaluate.calibration.reliability import (
    Reliability,
    classwise_ece,
    ece,
    mce,
    reliability_table,
    top_label,
)
from thyroid_jax.evaluate.calibration.scores import binary_brier, binary_nll, brier, nll, ranked_probability_score
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import NAN
from thyroid_jax.evaluate.statistics import Interval, Replicates, cluster_replicates, interval_of
from thyroid_jax.evaluate.summary.entry import Summary, entry
from thyroid_jax.evaluate.summary.grades import graded
from thyroid_jax.evaluate.summary.malignancy import judged

Measures = dict[str, Callable[..., np.ndarray]]
"""name -> (probability, truth, weight=None) -> f[...]"""


def calibration_summary(
    cases: Sequence[Case], *, bins: int = BINS, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> Summary:
    """Calibration of the grades and of ``p_malignant``, with cluster-bootstrap intervals by group; lower is better.

    Returns ``{measure: entry}``, entries as in :data:`~thyroid_jax.evaluate.summary.Summary`:

    - ``grade_ece_width``, ``grade_ece_mass``: ECE of the most probable grade, bins of equal width, of equal mass;
    - ``grade_classwise_ece_width``, ``grade_classwise_ece_mass``: mean ECE of every grade's probability;
    - ``grade_mce_width``, ``grade_mce_mass``: largest gap of a bin, of the most probable grade;
    - ``grade_brier`` (0 to 2), ``grade_nll`` (nats), ``grade_rps`` (0 to 1): proper scores;
    - ``malignant_ece_width``, ``malignant_ece_mass``, ``malignant_mce_width``, ``malignant_mce_mass``: gaps between the
      probability of malignancy and the share of malignant cases;
    - ``malignant_brier`` (0 to 1), ``malignant_nll`` (nats).

    Grades: over the cases with a true and a predicted grade. The most probable grade counts as predicted, the lower one
    on a tie, whatever ``grade_predicted`` says: its probability is what is judged. Malignancy: over the cases with
    both values. Measures of which there is no case are left out.

    ECE and MCE of a finite table lie above those of the model, by the noise in the bins, and every replicate adds noise
    once more. So the interval of these is the expanded percentile interval moved by one amount, so that the median of
    the replicates lies at the value, and cut to [0, 1]. It says how the measured error would vary in other tables of
    this size. It is no interval of the error of the model itself: read the value beside :func:`calibration_by_chance`.

    A probability of 0 on a true label makes ``grade_nll`` or ``malignant_nll`` infinite; it then has no interval (NaN
    bounds, no replicates).

    Raises ValueError when a grade is not on the cases' scale, or when probabilities do not sum to 1.
    """
    result: Summary = {}
    for measures, probability, truth, groups in _parts_of(cases, bins):
        for name, measured in measures.items():
            found = _interval(name, measured, probability, truth, groups, samples=samples, level=level, seed=seed)
            result[name] = entry(found, len(truth))
    return result


def calibration_by_chance(
    cases: Sequence[Case], *, bins: int = BINS, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> Summary:
    """What :func:`calibration_summary` would show for these cases if every probability were right.

    The true labels are drawn anew from the predicted probabilities, ``samples`` times. ``value`` is the mean of the
    measure over the draws, ``low`` and ``high`` their (1 - level)/2 and (1 + level)/2 quantiles; the other fields of an
    entry are as there. An ECE inside these limits gives no reason to doubt the probabilities; an ECE above them
    does. A Brier score, NLL or RPS above them means that the probabilities are too extreme; below them, not enough.

    Labels are drawn independently. Where images of a patient resemble each other, the limits are too narrow.

    Raises ValueError as :func:`calibration_summary`, and for a level outside (0, 1) or no samples.
    Source: Bröcker and Smith, Weather and Forecasting 22 (2007) 651-661 (consistency resampling).
    """
    if not 0 < level < 1 or samples < 1:
        raise ValueError(f"level must lie in (0, 1) and samples be at least 1, not {level} and {samples}.")
    result: Summary = {}
    for measures, probability, truth, groups in _parts_of(cases, bins):
        draws = list(_drawn_truth(probability, samples, seed))
        for name, measured in measures.items():
            values = np.concatenate([measured(probability, drawn) for drawn in draws])
            low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
            found = Interval(float(values.mean()), float(low), float(high), level, samples, 0, len(np.unique(groups)))
            result[name] = entry(found, len(truth))
    return result


def grade_reliability(
    cases: Sequence[Case],
    *,
    bins: int = BINS,
    kind: str = "width",
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Reliability:
    """Reliability table of the most probable grade: its probability, and how often it is the true one.

    Of the cases with a true and a predicted grade. The intervals are bootstrapped by group, or Wilson's where every
    case is a group of its own. Raises ValueError as :func:`calibration_summary`.
    """
    found = graded(cases)
    if not len(found.truth):
        return reliability_table(np.empty(0), np.empty(0, bool), bins=bins, kind=kind, level=level)
    forecast, right = top_label(found.probability, found.truth)
    return _table(forecast, right, found.groups, bins=bins, kind=kind, samples=samples, level=level, seed=seed)


def malignancy_reliability(
    cases: Sequence[Case],
    *,
    bins: int = BINS,
    kind: str = "width",
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Reliability:
    """Reliability table of ``p_malignant``, of the cases with proven malignancy; intervals as in
    :func:`grade_reliability`.
    """
    forecast, truth, groups = judged(cases)
    return _table(forecast, truth, groups, bins=bins, kind=kind, samples=samples, level=level, seed=seed)


def centred_interval(replicates: Replicates, level: float) -> Interval:
    """Expanded percentile interval, moved so that the median of the replicates lies at the value, cut to [0, 1]."""
    if not len(replicates.defined):
        return interval_of(replicates, level=level, method="expanded")
    moved = replicates.values + replicates.value - np.median(replicates.defined)
    found = interval_of(replace(replicates, values=moved), level=level, method="expanded")
    return replace(found, low=float(np.clip(found.low, 0, 1)), high=float(np.clip(found.high, 0, 1)))


def _table(forecast, outcome, groups, **options) -> Reliability:
    alone = len(np.unique(groups)) == len(groups)
    return reliability_table(forecast, outcome, groups=None if alone else groups, **options)


Part = tuple[Measures, np.ndarray, np.ndarray, np.ndarray]


def _parts_of(cases: Sequence[Case], bins: int) -> Iterator[Part]:
    """Measures, probability, truth and groups of the grades, and of malignancy; each only where a case has them."""
    of_grades, of_malignancy = graded(cases), judged(cases)
    if len(of_grades.truth):
        probability, truth, _ = checked_grades(of_grades.probability, of_grades.truth, None)
        yield _grade_measures(bins), probability, truth, of_grades.groups
    if len(of_malignancy.truth):
        forecast, outcome, _ = checked_forecast(of_malignancy.probability, of_malignancy.truth, None)
        yield _malignancy_measures(bins), forecast, outcome, of_malignancy.groups


def _grade_measures(bins: int) -> Measures:
    def of_top_label(error, kind, probability, truth, weight=None):
        return error(*top_label(probability, truth), bins=bins, kind=kind, weight=weight)

    return {
        **{f"grade_ece_{kind}": partial(of_top_label, ece, kind) for kind in KINDS},
        **{f"grade_classwise_ece_{kind}": partial(classwise_ece, bins=bins, kind=kind) for kind in KINDS},
        **{f"grade_mce_{kind}": partial(of_top_label, mce, kind) for kind in KINDS},
        "grade_brier": brier,
        "grade_nll": nll,
        "grade_rps": ranked_probability_score,
    }


def _malignancy_measures(bins: int) -> Measures:
    return {
        **{f"malignant_ece_{kind}": partial(ece, bins=bins, kind=kind) for kind in KINDS},
        **{f"malignant_mce_{kind}": partial(mce, bins=bins, kind=kind) for kind in KINDS},
        "malignant_brier": binary_brier,
        "malignant_nll": binary_nll,
    }


def _interval(name: str, measured, probability, truth, groups, *, samples: int, level: float, seed: int) -> Interval:
    value = float(measured(probability, truth))
    if np.isinf(value):
        return Interval(value, NAN, NAN, level, clusters=len(np.unique(groups)))
    replicates = cluster_replicates(measured, groups, probability, truth, samples=samples, seed=seed, weighted=True)
    binned = "_ece_" in name or "_mce_" in name
    return centred_interval(replicates, level) if binned else interval_of(replicates, level=level, method="expanded")


def _drawn_truth(probability: np.ndarray, samples: int, seed: int, largest: int = 500_000) -> Iterator[np.ndarray]:
    """True labels int[s n] drawn from probability f[n k], or outcomes from a forecast f[n], in blocks of limited size.

    ``samples`` rows in all.
    """
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(probability, axis=-1) if probability.ndim == 2 else 1 - probability[:, None]
    if probability.ndim == 2:
        cumulative = (cumulative / cumulative[:, -1:])[:, :-1]
    rows = max(1, largest // cumulative.size)
    for start in range(0, samples, rows):
        uniform = rng.random((min(rows, samples - start), len(probability), 1))
        yield (uniform >= cumulative).sum(-1)
