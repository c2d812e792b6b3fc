"""From predictions to rows of the per-case table (:func:`measure`), and from a table to its measures with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.summary.counts import Counts, baselines, counts_of
from thyroid_jax.evaluate.summary.entry import Summary, interval_kind
from thyroid_jax.evaluate.summary.grades import (
    Graded,
    at_or_above_summary,
    graded,
    grading_summary,
    per_grade_summary,
    table_confusion,
)
from thyroid_jax.evaluate.summary.malignancy import (
    DecisionCurve,
    Judged,
    decision_curve,
    judged,
    malignancy_summary,
)
from thyroid_jax.evaluate.summary.outlines import area_summary, segmentation_summary
from thyroid_jax.evaluate.summary.row import Answer, measure, reference_of, row_of

__all__ = [
    "Answer",
    "Counts",
    "DecisionCurve",
    "Graded",
    "Judged",
    "Summary",
    "area_summary",
    "at_or_above_summary",
    "baselines",
    "counts_of",
    "decision_curve",
    "graded",
    "grading_summary",
    "interval_kind",
    "judged",
    "malignancy_summary",
    "measure",
    "per_grade_summary",
    "reference_of",
    "row_of",
    "segmentation_summary",
    "summary",
    "table_confusion",
]


def summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """All measures of a table: :func:`segmentation_summary`, :func:`grading_summary` and :func:`malignancy_summary`."""
    found: Summary = {}
    for summarise in (segmentation_summary, grading_summary, malignancy_summary):
        found |= summarise(cases, samples=samples, level=level, seed=seed)
    return found
