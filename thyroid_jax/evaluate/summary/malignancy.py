"""Summary of the malignancy of a table: ranking, operating points, calls at one half, and the decision curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import (
    average_precision,
    balanced_accuracy,
    confusion_matrix,
    net_benefit,
    ratio,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from thyroid_jax.evaluate.summary.entry import Summary, area_interval, bootstrap, entry, of_calls, weighted_mean


class Judged(NamedTuple):
    """The n cases of a table with proven malignancy and a probability of it: f[n], bool[n], and the cases' groups."""

    probability: np.ndarray
    truth: np.ndarray
    groups: np.ndarray


def judged(cases: Sequence[Case]) -> Judged:
    """The cases that have both values, as arrays; ROC and precision-recall curves are drawn from them."""
    chosen = [case for case in cases if case.malignant_truth is not None and not np.isnan(case.p_malignant)]
    return Judged(
        probability=np.array([case.p_malignant for case in chosen], float),
        truth=np.array([case.malignant_truth for case in chosen], bool),
        groups=np.array([case.group for case in chosen]),
    )


def malignancy_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Measures of ``p_malignant`` against proven malignancy, with intervals by group.

    The AUROC has DeLong's interval (:func:`~thyroid_jax.evaluate.summary.entry.area_interval`), the others the cluster
    bootstrap's. A case is called malignant from a probability of 0.5. Returns ``{measure: entry}``, entries as in
    :func:`segmentation_summary`, with ``n`` the cases that the measure is about:

    over all cases with both values
        - ``malignant_auroc``: area under the ROC curve of the probability;
        - ``malignant_auprc``: area under its precision-recall curve (average precision); chance is the prevalence;
        - ``malignant_sensitivity_at_specificity_90``: sensitivity of the empirical ROC curve where specificity is
          0.90, between two thresholds by a straight line; ``malignant_specificity_at_sensitivity_90`` is the reverse;
        - ``malignant_accuracy``: share of right calls;
        - ``malignant_balanced_accuracy``: (sensitivity + specificity) / 2;
        - ``malignant_prevalence``: share of malignant cases;
    over a part of them
        - ``malignant_sensitivity``: share called malignant, over the malignant cases;
        - ``malignant_specificity``: share called benign, over the benign cases;
        - ``malignant_ppv``: share of malignant cases, over those called malignant;
        - ``malignant_npv``: share of benign cases, over those called benign.

    The predictive values and AUPRC hold for a population with this prevalence.

    {} when no case has both truth and probability. The areas, the two operating points and balanced accuracy need
    malignant and benign cases: without either the value is NaN, n = 0 and ``undefined`` the number of cases, and a
    replicate without either is left out and counted in ``replicates_undefined``. The AUROC has an interval
    only with two groups of either kind. A measure over a part resamples the groups that have such cases; without such a
    case the value is NaN and n = 0.
    """
    probability, truth, groups = judged(cases)
    if not len(truth):
        return {}
    called = probability >= 0.5

    def precision_area(probability, truth, weight):
        return average_precision(probability, truth, weight=weight)

    def sensitivity(probability, truth, weight):
        return sensitivity_at_specificity(probability, truth, 0.9, weight=weight)

    def specificity(probability, truth, weight):
        return specificity_at_sensitivity(probability, truth, 0.9, weight=weight)

    def balanced(called, truth, weight):
        confusion = confusion_matrix(called.astype(int), truth.astype(int), 2, weight=weight)
        return balanced_accuracy(confusion, over=np.array([True, True]))

    measures: dict[str, tuple[Any, ...]] = {
        "auprc": (precision_area, probability, truth),
        "sensitivity_at_specificity_90": (sensitivity, probability, truth),
        "specificity_at_sensitivity_90": (specificity, probability, truth),
        "accuracy": (weighted_mean, (called == truth).astype(float)),
        "balanced_accuracy": (balanced, called, truth),
        "prevalence": (weighted_mean, truth.astype(float)),
    }
    found = {"auroc": entry(area_interval(probability, truth, groups, level=level), len(truth))}
    found |= {
        name: entry(bootstrap(measured, groups, *data, samples=samples, level=level, seed=seed), len(truth))
        for name, (measured, *data) in measures.items()
    }
    found |= of_calls(called, truth, groups, samples=samples, level=level, seed=seed)
    return {f"malignant_{name}": one for name, one in found.items()}


class DecisionCurve(NamedTuple):
    """Net benefit over thresholds, f[m] each, in true positives per case; that of treating none is 0.

    ``low`` and ``high`` bound ``model`` threshold by threshold (a pointwise band, not one of the whole curve), by
    resampling ``groups`` groups; NaN with one group. ``n`` cases were judged.
    """

    threshold: np.ndarray
    model: np.ndarray
    low: np.ndarray
    high: np.ndarray
    treat_all: np.ndarray
    n: int
    groups: int


THRESHOLDS = np.arange(1, 50) / 50


def decision_curve(
    cases: Sequence[Case],
    threshold: Sequence[float] | np.ndarray = THRESHOLDS,
    *,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> DecisionCurve | None:
    """:func:`~thyroid_jax.evaluate.metrics.net_benefit` of treating from a malignancy probability of ``threshold`` on.

    The model is worth using at a threshold where its net benefit is above that of treating all and above 0, that of
    treating none. Over the cases with proven malignancy and a probability; None when there is none.

    Args:
        threshold: f[m] between 0 and 1; by default 0.02, 0.04 to 0.98.

    Raises ValueError for a threshold outside (0, 1).
    """
    probability, truth, groups = judged(cases)
    if not len(truth):
        return None
    threshold = np.asarray(threshold, float)
    # Net benefit is a mean over cases: sums by group are all that the replicates need.
    names, member = np.unique(groups, return_inverse=True)
    counts = np.bincount(member).astype(float)
    by_group = np.eye(len(names))[:, member]
    gain = net_benefit(probability, truth, threshold, weight=by_group) * counts[:, None]

    def mean_gain(gain: np.ndarray, counts: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return ratio(weight @ gain, weight @ counts)

    intervals = [bootstrap(mean_gain, names, at, counts, samples=samples, level=level, seed=seed) for at in gain.T]
    return DecisionCurve(
        threshold,
        model=np.array([interval.value for interval in intervals]),
        low=np.array([interval.low for interval in intervals]),
        high=np.array([interval.high for interval in intervals]),
        treat_all=net_benefit(np.ones(len(truth)), truth, threshold),
        n=len(truth),
        groups=len(names),
    )
