"""Several runs predict together: probabilities and outlines are averaged, then compared with the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from thyroid_jax.config import Config
from thyroid_jax.data.record import Card, Record, RecordSequence
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.paired import run_of
from thyroid_jax.evaluate.summary import Answer, row_of
from thyroid_jax.predict import Prediction, Trained
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs.apply import Applied, apply
from thyroid_jax.runs.evaluation import open_finished

ALIKE = ("tasks", "grade_system", "grades")


def run_label(config: Config) -> str:
    """Fold and seed of a run, as ``fold0-seed0``."""
    return f"fold{config.data.fold}-seed{config.train.seed}"


def ensemble_label(runs: Sequence[str]) -> str:
    """The part of an ensemble's cases: "fold0-ensemble" where all runs are of one fold, else "ensemble"."""
    known = [run_of(run) for run in runs]
    folds = {run[0] for run in known if run is not None}
    return f"fold{folds.pop()}-ensemble" if len(folds) == 1 and None not in known else "ensemble"


def check_alike(runs: Mapping[str, Trained]) -> None:
    """Raise :class:`InputError` unless all runs, by name, have the same tasks and grades: others are not averaged."""
    (first, facts), *others = ((name, run.facts) for name, run in runs.items())
    for name, its in others:
        for fact in ALIKE:
            if its[fact] != facts[fact]:
                raise InputError(
                    f"{name}: its {fact} ({its[fact]}) are not those of {first} ({facts[fact]}), so that they are no "
                    "runs of one method."
                )


def predicted_together(
    runs: Sequence[Trained], records: RecordSequence, *, batch_size: int = 8, flip: bool = False
) -> Iterator[tuple[Record, Applied]]:
    """(record, prediction of all runs together and of each) pairs; records are read from disk batch by batch."""
    for start in range(0, len(records), batch_size):
        chunk = [records[place] for place in range(start, min(start + batch_size, len(records)))]
        images, spacings = [record.image for record in chunk], [record.spacing for record in chunk]
        yield from zip(chunk, apply(runs, images, spacings, batch_size=batch_size, flip=flip), strict=True)


def ensemble_cases(
    run_dirs: Sequence[Path], *, part: str = "test", checkpoint: str = "best", flip: bool = False
) -> list[Case]:
    """The per-case table of several runs together on the part that all of them hold out.

    Outline, grades and malignancy are means of the runs' probabilities; the outline holds pixels of at least 0.5.
    Raises :class:`InputError` for runs with other tasks, grades, data or cases in the part, and as
    :func:`~thyroid_jax.runs.open_finished` does.
    """
    opened = [open_finished(run_dir, checkpoint) for run_dir in run_dirs]
    trained = [finished.trained for finished in opened]
    check_alike(dict(zip(map(str, run_dirs), trained)))
    held_out = [finished.parts.split[part] for finished in opened]  # type: ignore[literal-required]
    for run_dir, finished, cases in zip(run_dirs, opened, held_out):
        if finished.parts.digest != opened[0].parts.digest or sorted(cases) != sorted(held_out[0]):
            raise InputError(f"{run_dir}: holds out other images than {run_dirs[0]} ({part} part).")
    label = ensemble_label([run_label(run.config) for run in trained])
    card, records = opened[0].parts.card, getattr(opened[0].parts, part)
    names = trained[0].facts["grades"]
    return [
        predicted_case(record, card, found.together, dict(zip(names, names)), label)
        for record, found in predicted_together(trained, records, flip=flip)
    ]


def predicted_case(record: Record, card: Card, found: Prediction, columns: Mapping[str, str] | None, part: str) -> Case:
    """A record's row, for a prediction with :func:`~thyroid_jax.runs.apply.unscaled` guidance values.

    ``columns``: the run's grades, in their order -> the grade of ``card`` that each counts as. The probability of a
    grade of ``card`` is the sum over those that count as it. None: no grade is predicted, because grades of the two
    cannot be compared; the true grade and the readers' stay, for subgroups.
    """
    probability: dict[str, float] | None = None
    if columns is not None and found.grades is not None:
        probability = dict.fromkeys(card.grades, 0.0)
        for share, target in zip(found.grades.tolist(), columns.values(), strict=True):
            probability[target] += share
    answer = Answer(
        outline=None if found.probability is None else found.probability >= 0.5,
        probability=probability,
        p_malignant=found.malignant,
        guidance=dict(zip(clinical.TARGET, found.answers["guidance"].tolist())) if "guidance" in found.answers else {},
    )
    return row_of(record, card.grades, answer, part)
