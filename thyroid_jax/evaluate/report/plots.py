"""Drawings of the probabilities: ROC and precision-recall curves of malignancy, reliability, and paired values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.calibration import Reliability, grade_reliability, malignancy_reliability
from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.report.drawing import FIRST, LINE, SECOND, inline_svg
from thyroid_jax.evaluate.summary.malignancy import DecisionCurve, judged

SQUARE = (3.4, 3.0)
BINS = 10
SAMPLES = 500


class Plot(NamedTuple):
    """A drawing, which is safe markup, with a heading and a caption; no text of the data is in any of them."""

    heading: str
    svg: str
    caption: str


def malignancy_plots(cases: Sequence[Case]) -> list[Plot]:
    """ROC and precision-recall curve of the probability of malignancy, and its reliability.

    [] unless both malignant and benign cases are among those with a known truth and a probability.
    """
    probability, truth, _ = judged(cases)
    if not truth.any() or truth.all():
        return []
    reliability = malignancy_reliability(cases, bins=BINS, samples=SAMPLES)
    return [
        _roc(probability, truth),
        _precision_recall(probability, truth),
        _reliability(reliability, "Reliability of P(malignant)", "share malignant"),
    ]


def grade_plots(cases: Sequence[Case]) -> list[Plot]:
    """Reliability of the most probable grade's probability.

    [] without a case that has a true and a predicted grade, and for fewer than two grades.
    """
    if len(grades(cases)) < 2:
        return []
    reliability = grade_reliability(cases, bins=BINS, samples=SAMPLES)
    heading = "Reliability of the grade's probability"
    return [_reliability(reliability, heading, "share graded right")] if len(reliability.size) else []


def decision_plots(curve: DecisionCurve | None) -> list[Plot]:
    """Net benefit of the model over thresholds, with its band; of treating all, and none. [] without a curve."""
    if curve is None:
        return []
    best = float(np.nanmax([*curve.model, *curve.high, *curve.treat_all, 0.1]))

    def draw(axis) -> None:
        axis.axhline(0, color=LINE, linewidth=1)
        axis.plot(curve.threshold, curve.treat_all, color=SECOND, linewidth=1.4, linestyle="--")
        axis.fill_between(curve.threshold, curve.low, curve.high, color=FIRST, alpha=0.2, linewidth=0)
        axis.plot(curve.threshold, curve.model, color=FIRST, linewidth=1.8)
        axis.set_xlim(0, 1)
        axis.set_ylim(-0.3 * best, 1.1 * best)
        axis.set_xlabel("threshold probability")
        axis.set_ylabel("net benefit")

    caption = (
        f"Net benefit of a biopsy from a probability of malignancy on, in true positives per case; {curve.n} cases of "
        f"{curve.groups} group{'s' * (curve.groups != 1)}. Full line: the model, with its pointwise 95 % band. Dashed: "
        "all have a biopsy. Grey: none has. It needs calibrated probabilities."
    )
    return [Plot("Decision curve", inline_svg(draw, salt="decision", inches=SQUARE), caption)]


def scatter(first: Sequence[float], other: Sequence[float], *, salt: str) -> str:
    """Drawing of two models' values in [0, 1] of the same cases, with the diagonal; pairs with NaN are left out."""

    def draw(axis) -> None:
        _unit_square(axis)
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        axis.plot(first, other, linestyle="", marker="o", markersize=3.2, color=FIRST, alpha=0.55, markeredgewidth=0)

    return inline_svg(draw, salt=salt, inches=SQUARE)


def _roc(probability: np.ndarray, truth: np.ndarray) -> Plot:
    curve = metrics.roc_curve(probability, truth)
    called = probability >= 0.5
    at = (float(called[~truth].mean()), float(called[truth].mean()))

    def draw(axis) -> None:
        _unit_square(axis)
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        axis.plot(curve.false_positive_rate, curve.true_positive_rate, color=FIRST, linewidth=1.8)
        axis.plot(*at, marker="o", color=SECOND, markersize=7, markeredgewidth=0)
        axis.set_xlabel("1 − specificity")
        axis.set_ylabel("sensitivity")

    area = float(metrics.auroc(probability, truth))
    caption = (
        f"Area {area:.3f}; the grey line is chance. Dot: calls at a probability of 0.5, sensitivity {at[1]:.2f} and "
        f"specificity {1 - at[0]:.2f}. {truth.sum()} malignant, {(~truth).sum()} benign."
    )
    return Plot("ROC curve", inline_svg(draw, salt="roc", inches=SQUARE), caption)


def _precision_recall(probability: np.ndarray, truth: np.ndarray) -> Plot:
    curve = metrics.precision_recall_curve(probability, truth)
    recall, precision = np.r_[0, curve.recall], np.r_[curve.precision[:1], curve.precision]

    def draw(axis) -> None:
        _unit_square(axis)
        axis.axhline(truth.mean(), color=LINE, linewidth=1)
        axis.step(recall, precision, where="pre", color=FIRST, linewidth=1.8)
        axis.set_xlabel("recall (sensitivity)")
        axis.set_ylabel("precision")

    area = float(metrics.average_precision(probability, truth))
    caption = f"Average precision {area:.3f}; the grey line is the share of malignant cases, {truth.mean():.2f}."
    return Plot("Precision and recall", inline_svg(draw, salt="precision recall", inches=SQUARE), caption)


def _reliability(found: Reliability, heading: str, what: str) -> Plot:
    def draw(axis) -> None:
        _unit_square(axis)
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        axis.vlines(found.forecast, found.low, found.high, color=FIRST, linewidth=1, alpha=0.6)
        axis.plot(found.forecast, found.observed, color=FIRST, linewidth=1.4)
        sizes = 12 + 150 * found.size / found.size.sum()
        axis.scatter(found.forecast, found.observed, s=sizes, color=FIRST, linewidths=0)
        axis.set_xlabel("mean probability of the bin")
        axis.set_ylabel(what)

    caption = (
        f"{BINS} bins of equal width, {found.size.min()} to {found.size.max()} of {found.size.sum()} cases each; a "
        "dot's area is their number, the line through it the 95 % interval. Right probabilities lie on the grey line."
    )
    return Plot(heading, inline_svg(draw, salt=heading, inches=SQUARE), caption)


def _unit_square(axis) -> None:
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axis.set_aspect("equal")
    axis.grid(color=LINE, linewidth=0.4)
