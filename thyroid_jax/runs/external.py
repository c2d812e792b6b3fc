"""Finished runs on another data set, without fine-tuning; images that it shares with the training are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from thyroid_jax.data import source
from thyroid_jax.data.overlap import Pictures, shared_images
from thyroid_jax.data.record import Card, RecordSequence
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.predict import Trained
from thyroid_jax.runs.ensemble import check_alike, predicted_case, predicted_together
from thyroid_jax.runs.evaluation import Finished


class Shared(NamedTuple):
    """An image of another data set that the run has seen: its case, the case of the run, and how far they are equal.

    ``kind`` is "equal" for the same pixels, "near" for a shifted, cropped, scaled or marked copy.
    """

    case: str
    seen: str
    kind: str
    correlation: float


def shared(seen: Pictures, others: Pictures) -> list[Shared]:
    """The images of ``others`` that are also in ``seen``, in the order of ``others``."""
    return [
        Shared(others.cases[pair.i], seen.cases[pair.j], pair.kind, pair.correlation)
        for pair in shared_images(others, seen)
    ]


def seen_by(finished: Finished) -> list[RecordSequence]:
    """What a run has learnt from or was chosen on: training and validation part, and the data sets added to them."""
    parts = finished.parts
    return [parts.train, parts.validation, *(records for records, _ in source.for_training(parts))]


def grade_columns(trained: Trained, card: Card, mapping: Mapping[str, str]) -> dict[str, str] | None:
    """The grade of ``card`` that each of the run's grades counts as; None where grades cannot be compared.

    Without a mapping that is so unless both have the same grade system and the same ordered grades. A mapping names a
    grade of ``card`` for each of the run's grades, several of which may become one. Raises :class:`InputError` for a
    mapping that leaves one out, names an unknown grade, or changes the order of the grades.
    """
    grades = list(trained.facts["grades"])
    if not mapping:
        same = (trained.facts["grade_system"], grades) == (card.grade_system, list(card.grades))
        return {grade: grade for grade in grades} if same and grades else None
    whole = {grade: mapping.get(grade, grade if grade in card.grades else "") for grade in grades}
    problems = [f"{name} is not a grade of the run ({' '.join(grades)})" for name in mapping if name not in grades]
    problems += [
        f"{grade} counts as {target!r}, which is not a grade of {card.name} ({' '.join(card.grades)})"
        for grade, target in whole.items()
        if target not in card.grades
    ]
    places = [card.grades.index(target) for target in whole.values()] if not problems else []
    if places != sorted(places):
        problems.append("the order of the grades would change")
    if problems:
        raise InputError(f"--grades: {'; '.join(problems)}. Name one grade of {card.name} for each grade of the run.")
    return whole


class MethodCases(NamedTuple):
    """The per-case tables of a method's runs on another data set: of each run, and of all runs together."""

    each: list[list[Case]]
    together: list[Case]


def external_cases(
    runs: Mapping[str, Trained],
    card: Card,
    records: RecordSequence,
    *,
    columns: Mapping[str, str] | None,
    flip: bool = False,
) -> MethodCases:
    """The per-case tables of another data set's records, for the runs of one method by label (their ``part``).

    ``columns`` as :func:`grade_columns` gives them. The probability of a grade of ``card`` is the sum over the runs'
    grades that count as it; one that no grade counts as has probability 0. Malignancy is compared as each of the two
    cards defines it. Together, outline and probabilities are means over the runs; they are empty for a single run.
    Raises :class:`InputError` unless all runs have the same tasks and grades.
    """
    check_alike(runs)
    each: list[list[Case]] = [[] for _ in runs]
    together: list[Case] = []
    for record, found in predicted_together(list(runs.values()), records, flip=flip):
        for cases, own, part in zip(each, found.each, runs):
            cases.append(predicted_case(record, card, own, columns, part))
        if len(runs) > 1:
            together.append(predicted_case(record, card, found.together, columns, "ensemble"))
    return MethodCases(each, together)
