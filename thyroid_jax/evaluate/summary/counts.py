"""Tables of predictions that look at no image: what a model has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from thyroid_jax.evaluate.cases import Case, grades

NAN = float("nan")


class Counts(NamedTuple):
    """Numbers of labelled images of a part: of each grade, in ascending order of risk, and of each kind of malignancy.

    ``grades`` is {} and both numbers are 0 where such labels are not there.
    """

    grades: Mapping[str, int]
    benign: int = 0
    malignant: int = 0


def counts_of(cases: Sequence[Case], scale: Sequence[str] = ()) -> Counts:
    """The label counts of a table.

    ``scale`` names the grades in ascending order; by default those that the table has probabilities of. Without a scale
    no grade is counted: their order is not known. Raises ValueError for a true grade that is not on the scale.
    """
    scale = tuple(scale) or grades(cases)
    counts = dict.fromkeys(scale, 0)
    for case in cases if scale else ():
        if case.grade_truth and case.grade_truth not in counts:
            raise ValueError(f"case {case.case!r}: grade {case.grade_truth!r} is not one of {', '.join(scale)}.")
        if case.grade_truth:
            counts[case.grade_truth] += 1
    known = [bool(case.malignant_truth) for case in cases if case.malignant_truth is not None]
    return Counts(counts if any(counts.values()) else {}, known.count(False), known.count(True))


def baselines(cases: Sequence[Case], training: Counts | None = None) -> dict[str, list[Case]]:
    """Two tables of the same cases and the same truth, predicted from label counts alone.

    - ``majority``: every case gets the most frequent grade with probability 1 (on a tie the lower one), and a
      probability of malignancy of 1 or 0 (on a tie 1);
    - ``prior``: every case gets the shares of the grades as probabilities, the most frequent grade as its grade, and
      the share of malignant cases as probability of malignancy.

    ``training`` holds the counts of the TRAINING part. Without it the counts are those of ``cases`` itself: the two
    are then named ``majority_of_these_cases`` and ``prior_of_these_cases``, because they know what no prediction may
    know. Of labels that the counts do not have, nothing is predicted.

    Outlines are not predicted: their measures are NaN. What does not depend on the prediction stays (case, group, part,
    truth, reference area, contrast, target, readers' grades, about).

    Raises ValueError when the counts are of other grades than the cases' scale, or are negative.
    """
    suffix = "" if training is not None else "_of_these_cases"
    counts = counts_of(cases) if training is None else training
    scale = grades(cases)
    if scale and counts.grades and tuple(counts.grades) != scale:
        raise ValueError(f"counts of the grades {', '.join(counts.grades)}, but the cases' are {', '.join(scale)}.")
    if min([*counts.grades.values(), counts.benign, counts.malignant]) < 0:
        raise ValueError(f"counts are 0 or more, not {counts}.")
    share = shares(counts)
    most = max(share, key=share.__getitem__) if share else ""
    known = counts.benign + counts.malignant
    majority = {name: float(name == most) for name in share}
    malignant = (float(counts.malignant >= counts.benign), counts.malignant / known) if known else (NAN, NAN)
    return {
        f"majority{suffix}": [_predicted(case, majority, most, malignant[0]) for case in cases],
        f"prior{suffix}": [_predicted(case, share, most, malignant[1]) for case in cases],
    }


def shares(counts: Counts) -> dict[str, float]:
    """Share of each grade, summing to 1; {} without a graded image."""
    whole = sum(counts.grades.values())
    return {name: count / whole for name, count in counts.grades.items()} if whole else {}


def _predicted(case: Case, probability: Mapping[str, float], grade: str, p_malignant: float) -> Case:
    """The case with this prediction in the place of its own, and without an outline."""
    return Case(
        case=case.case,
        group=case.group,
        part=case.part,
        reference_area_px=case.reference_area_px,
        reference_area_mm2=case.reference_area_mm2,
        contrast_to_noise=case.contrast_to_noise,
        grade_truth=case.grade_truth,
        grade_predicted=grade,
        probability=dict(probability),
        malignant_truth=case.malignant_truth,
        p_malignant=p_malignant,
        target=case.target,
        reader_grades=case.reader_grades,
        about=case.about,
    )
