"""Ensembles from tables: the probabilities that several runs give one image, averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.paired import other_reference, run_of

KEPT = (
    *("case", "group", "grade_truth", "malignant_truth", "reference_area_px", "reference_area_mm2"),
    *("contrast_to_noise", "target", "reader_grades", "about"),
)
"""fields that describe the image and its reference, and not a prediction"""


def averaged(cases: Sequence[Case]) -> list[Case]:
    """One row for each case of a table in which several runs predict it: the mean of their probabilities.

        p_ensemble(grade) = mean over runs of p_run(grade)        p_ensemble(malignant) likewise

    The predicted grade is the most probable one, the lower on a tie. Guidance values are averaged too. What would need
    the masks is left empty: every measure of the outline, its area, and the Dice with readers. ``part`` becomes
    "fold0-ensemble" for runs of one fold, else "ensemble".

    A case keeps a probability only if all of its rows have it. Raises :class:`InputError` for rows of one case that
    differ in group, reference or grades, and for cases that not equally many runs predict: their mean over more runs
    is another estimate.
    """
    rows: dict[str, list[Case]] = {}
    for case in cases:
        rows.setdefault(case.case, []).append(case)
    counts = {name: len(same) for name, same in rows.items()}
    if len(set(counts.values())) > 1:
        most, fewest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        raise InputError(
            f"not equally many runs predict each case: {counts[most]} predict {most!r}, {counts[fewest]} predict "
            f"{fewest!r}; average runs of all folds and seeds."
        )
    return [_mean_of(same) for same in rows.values()]


def _mean_of(same: Sequence[Case]) -> Case:
    first = same[0]
    for case in same[1:]:
        if fault := other_reference(first, case):
            raise InputError(f"case {first.case!r}: its rows differ in their reference, {fault}.")
        if case.probability and first.probability and list(case.probability) != list(first.probability):
            raise InputError(f"case {first.case!r}: its rows were graded on different scales.")
    runs = [run_of(case.part) for case in same]
    folds = {run[0] for run in runs if run is not None}
    one_fold = len(folds) == 1 and None not in runs
    probability = _means([case.probability for case in same])
    return replace(
        Case(**{name: _known([getattr(case, name) for case in same]) for name in KEPT}),
        part=f"fold{folds.pop()}-ensemble" if one_fold else "ensemble",
        probability=probability,
        grade_predicted=max(probability, key=probability.__getitem__) if probability else "",
        p_malignant=float(np.mean([case.p_malignant for case in same])),
        guidance=_means([case.guidance for case in same]),
    )


def _known(values: Sequence[Any]) -> Any:
    """The first value that is known; the rows agree about those that are."""
    return next((value for value in values if value not in (None, "", (), {}) and value == value), values[0])


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each entry that all have; {} where one has none."""
    shared = [name for name in values[0] if all(name in other for other in values)]
    return {name: float(np.mean([other[name] for other in values])) for name in shared}


def name_of(method: str, cases: Sequence[Case]) -> str:
    """How the averaged rows of a method are called: after what its rows of one case differ in."""
    runs = [run for case in cases if (run := run_of(case.part)) is not None]
    folds_of: dict[str, set[int]] = {}
    for case in cases:
        if run := run_of(case.part):
            folds_of.setdefault(case.case, set()).add(run[0])
    several = {
        "folds": any(len(folds) > 1 for folds in folds_of.values()),
        "seeds": len({seed for _, seed in runs}) > 1,
    }
    words = [word for word, there in several.items() if there] if len(runs) == len(cases) else []
    return f"{method}, {' and '.join(words) or 'runs'} averaged"


def runs_per_case(cases: Sequence[Case]) -> set[int]:
    """The numbers of runs that predict a case: {1}, or {2} for two seeds; several numbers where runs are missing."""
    return set(Counter(case.case for case in cases).values())
