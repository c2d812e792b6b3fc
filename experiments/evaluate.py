"""Evaluate a run on held-out groups, or other people's results on a data set: a per-case table, measures, a page.

python -m experiments.evaluate --run-dir DIR [--part test] [--checkpoint best]
python -m experiments.evaluate --masks DIR --grades FILE --data.name NAME --data.dir DIR --out DIR
    [--part all|test|validation|train] [--split FILE]

The first form evaluates a run of this project and writes its page. The second one makes a per-case table of results
from elsewhere, such as nnU-Net's. Masks are called CASE.png, .tif or .nii.gz and have the size of the record's image;
they hold 0 and 1, or 0 and 255. ``--labels 1 2`` names other values that are nodule, ``--soft`` takes values from 0 to
255 as probabilities. The table (CSV or Excel) has columns ``case``, ``grade``, ``p_<grade>`` and ``p_malignant``.
Either may be left out. The records are the official test part, ``--part all`` of them, or a part of ``--split``, a
run's split.json. Every record without a prediction, every prediction without a record and every other fault is named.

OUT/cases.csv then is a method of ``python -m experiments.compare --runs NAME=OUT``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

import thyroid_jax
from thyroid_jax import command, extras
from thyroid_jax.data.record import Card
from thyroid_jax.data.storage import Records, open_records
from thyroid_jax.errors import InputError, exits_cleanly, raise_all
from thyroid_jax.evaluate import outside
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.files import check_writable, read_json, write_json

from .runtime import prepare


@dataclass(frozen=True)
class Built:
    """The data set of results from elsewhere."""

    name: str = ""
    """name of a built data set"""
    dir: Path = Path("data")
    """folder that it is built in"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate a run on held-out groups, or other people's results on a data set."""

    run_dir: Path | None = None
    """folder of a training run"""
    data_dir: Path | None = None
    """of a run: folder of the built data set, if it has moved since the training"""
    part: Literal["test", "validation", "train", "all"] = "test"
    """part of the run's own split; of results from elsewhere: that of --split, the official test part, or all"""
    checkpoint: Literal["best", "last"] = "best"
    """of a run: the best by its validation measure, or the last"""
    flip: bool = False
    """of a run: average the predictions over each image and its mirror image"""
    samples: int = 2000
    """bootstrap replicates"""
    calibrate: bool = True
    """of a run: with the test part and the best checkpoint, also fit the scaling of probabilities for predictions, on
    the validation part"""
    picture: Path | None = None
    """of a run: also write the report's outlines as one PNG, for a talk or a README"""
    masks: Path | None = None
    """results from elsewhere: folder of masks, named by case"""
    grades: Path | None = None
    """results from elsewhere: table with case, grade, p_<grade>, p_malignant"""
    data: Built = field(default_factory=Built)
    out: Path | None = None
    """results from elsewhere: folder for cases.csv"""
    split: Path | None = None
    """results from elsewhere: split.json of a run, whose --part is evaluated"""
    soft: bool = False
    """results from elsewhere: masks hold probabilities from 0 to 255"""
    labels: tuple[int, ...] = ()
    """results from elsewhere: values of the masks that are nodule"""
    hard_grades: bool = False
    """results from elsewhere: take a grade without probabilities as probability 1"""


def check(arguments: Arguments) -> None:
    """Raise :class:`InputError` for options that are missing, or that do nothing in the form that was chosen."""
    default = Arguments()
    changed = {name for name in vars(default) if getattr(arguments, name) != getattr(default, name)}
    if arguments.run_dir is not None:
        useless = changed & {"masks", "grades", "data", "out", "split", "soft", "labels", "hard_grades"}
        problem = "--part all is for results from elsewhere" if arguments.part == "all" else ""
    elif arguments.masks is None and arguments.grades is None:
        raise InputError("name --run-dir, or --masks and --grades of results from elsewhere.")
    else:
        useless = changed & {"data_dir", "checkpoint", "flip", "picture", "calibrate"}
        useless |= changed & {"soft", "labels"} if arguments.masks is None else set()
        useless |= changed & {"hard_grades"} if arguments.grades is None else set()
        problem = "" if arguments.data.name and arguments.out else "results from elsewhere need --data.name and --out"
        problem = "--soft and --labels are two ways to read masks" if arguments.soft and arguments.labels else problem
        problem = "--part all and --split name different records" if _is_all_of_a_split(arguments) else problem
    named = [f"--{name.replace('_', '-')} would do nothing here" for name in sorted(useless)]
    if named or problem:
        raise InputError("; ".join([*named, *([problem] if problem else [])]) + ".")


def _is_all_of_a_split(arguments: Arguments) -> bool:
    return arguments.part == "all" and arguments.split is not None


# --- results from elsewhere -------------------------------------------------------------------------------------------


def chosen_rows(arguments: Arguments, records: Records) -> list[int]:
    """Places of the records to evaluate, in their order."""
    if arguments.split is not None:
        asked = _cases_of_split(arguments.split, arguments.part)
        unknown = sorted(asked - {entry.case for entry in records.entries})
        if unknown:
            raise InputError(
                f"{arguments.split}: {len(unknown)} cases are not in {arguments.data.name}, the first is "
                f"{unknown[0]!r}; name the split of a run on this data set."
            )
        return [row for row, entry in enumerate(records.entries) if entry.case in asked]
    if arguments.part == "all":
        return list(range(len(records)))
    rows = [row for row, entry in enumerate(records.entries) if entry.official_test]
    if arguments.part != "test" or not rows:
        raise InputError(
            f"--part {arguments.part}: {arguments.data.name} has no such part of its own. Add --split with a run's "
            "split.json, or take --part all."
        )
    return rows


def _cases_of_split(path: Path, part: str) -> set[str]:
    split = read_json(path)
    cases = split.get(part) if isinstance(split, dict) else None
    if not isinstance(cases, list) or not cases or not all(isinstance(case, str) for case in cases):
        raise InputError(f"{path}: holds no cases of the {part} part; name the split.json of a run.")
    return set(cases)


def judgements(arguments: Arguments, card: Card, faults: list[str]) -> dict[str, outside.Judgement]:
    """Case -> what the table says of it."""
    from data_prep.tables import table_rows

    if arguments.grades is None:
        return {}
    own: list[str] = []
    try:
        (_, header), *rows = table_rows(arguments.grades, own)
    except InputError as error:
        raise InputError(f"{arguments.grades}: {error}") from error
    columns = [name for name in header if name]  # an Excel sheet may have many empty columns
    named = [(number, {name: text for name, text in zip(header, texts) if name}) for number, texts in rows]
    found = outside.read_judgements(named, columns, card.grades, own, hard=arguments.hard_grades)
    start = f"{arguments.grades.name}: "  # a fault of the file's rows begins with it already
    faults += [start + fault.removeprefix(start) for fault in own]
    ignored = [name for name in columns if name not in ("case", "grade") and not name.startswith("p_")]
    if ignored:
        print(f"columns of {arguments.grades.name} that are not read: {', '.join(ignored)}")
    return found


def outside_cases(arguments: Arguments) -> tuple[list[Case], str]:
    """The per-case table of results from elsewhere, and the digest of their data set; all faults are raised at once."""
    faults: list[str] = []
    card, records = open_records(arguments.data.dir, arguments.data.name)
    rows = chosen_rows(arguments, records)
    found = outside.find_masks(arguments.masks, faults) if arguments.masks else None
    if found is not None and found.others:
        print(f"files in {arguments.masks} that are no masks: {found.others}")
    judged = judgements(arguments, card, faults)
    faults += outside.name_faults(
        [records.entries[row] for row in rows],
        [entry.case for entry in records.entries],
        None if found is None else found.files,
        None if arguments.grades is None else judged,
    )
    reading, seen = outside.Reading(arguments.soft, arguments.labels), set[int]()
    cases = []
    for row in rows:
        record, outline = records[row], None
        path = None if found is None else found.files.get(record.case)
        if path is not None:
            try:
                values = outside.read_values(path, record.image.shape, reading)
                seen |= set(np.unique(values).tolist())
                outline = outside.outline_of(values, reading)
            except InputError as error:
                faults.append(f"{path.name}: {error}.")
        if not faults:
            cases.append(
                outside.case_of(record, card, outline, judged.get(record.case, outside.Judgement()), arguments.part)
            )
    if found is not None:
        outside.check_reading(seen, reading, faults)
    raise_all(faults, f"{len(faults)} faults; nothing was written:")
    return cases, records.digest


def evaluate_outside(arguments: Arguments, out: Path) -> None:
    """Write the table of results from elsewhere, and print its measures."""
    if (out / "config.json").exists():
        raise InputError(
            f"--out {out}: is the folder of a run, whose own table would be replaced; name another folder."
        )
    check_writable(out, f"--out {out}")
    cases, digest = outside_cases(arguments)
    measured = summary(cases, samples=arguments.samples)
    if not measured:
        raise InputError(f"nothing to measure: {arguments.data.name} has no reference for what is predicted.")
    write_cases(out / "cases.csv", cases)
    write_json(
        out / "about.json",
        {
            "version": thyroid_jax.__version__,
            "data": arguments.data.name,
            "digest": digest,
            "part": arguments.part,
            **{
                name: None if (path := getattr(arguments, name)) is None else str(path)
                for name in ("masks", "grades", "split")
            },
            "soft": arguments.soft,
            "labels": list(arguments.labels),
            "hard_grades": arguments.hard_grades,
        },
    )
    other = sum(bool(case.probability) and case.grade_predicted != _most_probable(case) for case in cases)
    if other:
        print(f"in {other} rows the grade is not the most probable one; it is kept")
    thyroid_jax.runs.print_summary(measured)
    print(f"table: {out / 'cases.csv'}")


def _most_probable(case: Case) -> str:
    return max(case.probability, key=case.probability.__getitem__)


# --- runs -------------------------------------------------------------------------------------------------------------


def evaluate_run(arguments: Arguments, run_dir: Path) -> None:
    """Evaluate a run, write its table and page, and print its measures."""
    finished = thyroid_jax.runs.open_finished(run_dir, arguments.checkpoint, arguments.data_dir)
    check_writable(run_dir, f"--run-dir {run_dir}")
    found = thyroid_jax.runs.evaluate(
        run_dir,
        finished,
        part=arguments.part,
        checkpoint=arguments.checkpoint,
        flip=arguments.flip,
        samples=arguments.samples,
        picture=arguments.picture,
    )
    thyroid_jax.runs.print_summary(found.summary)
    if arguments.calibrate and (arguments.part, arguments.checkpoint, arguments.flip) == ("test", "best", False):
        print(f"calibration: {thyroid_jax.runs.calibration_note(thyroid_jax.runs.calibrate(run_dir, finished))}")
    print(f"page: {found.page}")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.RECORDS, *extras.PAGE)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("evaluate"))
    check(arguments)
    prepare()
    if arguments.run_dir is not None:
        evaluate_run(arguments, arguments.run_dir)
    elif arguments.out is not None:
        evaluate_outside(arguments, arguments.out)


if __name__ == "__main__":
    main()
