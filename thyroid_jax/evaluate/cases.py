"""The per-case table: one row an image, written as CSV, from which every number and the report are drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import write_text

NAN = float("nan")
FLOATS = ("dice", "iou", "hd95_px")
COUNTS = ("predicted_area_px", "reference_area_px")
COLUMNS = ("case", "group", *FLOATS, *COUNTS, "grade_truth", "grade_predicted")
PROBABILITY = "prob_"  # column prefix; the grades' order is the columns' order


@dataclass(frozen=True)
class Case:
    """One image: what was predicted and how it compares.

    ``case`` and ``group`` (patient, or whatever must not be split) are any text. ``dice, iou, hd95_px`` are NaN
    without a reference mask; ``hd95_px`` also when one of the two masks is empty. Areas are in pixels, None without
    such a mask. Grades are names, "" when unknown. ``probability`` maps every grade, in ascending order of risk, to
    its probability; empty when nothing grades.
    """

    case: str
    group: str
    dice: float = NAN
    iou: float = NAN
    hd95_px: float = NAN
    predicted_area_px: int | None = None
    reference_area_px: int | None = None
    grade_truth: str = ""
    grade_predicted: str = ""
    probability: Mapping[str, float] = field(default_factory=dict)


def grades(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of the grades in ascending order, () when no case has probabilities; ValueError when two cases disagree
    about them.
    """
    found = {tuple(case.probability) for case in cases if case.probability}
    if len(found) > 1:
        raise ValueError(f"the cases were graded on different scales: {sorted(found)}.")
    return found.pop() if found else ()


def write_cases(path: Path | str, cases: Sequence[Case]) -> None:
    """Write the table as CSV (UTF-8, one header line) in one step: :data:`COLUMNS`, then ``prob_<grade>`` for every
    grade.

    Floats are written so that reading gives the same bits; NaN and None are empty cells. No case writes the header
    alone.
    """
    names = grades(cases)
    rows: list[list[object]] = [[*COLUMNS, *(PROBABILITY + name for name in names)]]
    rows += [
        [*(getattr(case, column) for column in COLUMNS), *(case.probability.get(name) for name in names)]
        for case in cases
    ]
    write_text(path, "".join(_line(row) for row in rows))


def read_cases(path: Path | str) -> list[Case]:
    """Read what :func:`write_cases` wrote; columns that it does not know are ignored.

    Raises :class:`~thyroid_jax.errors.InputError` for a missing file, a missing column, or cells that are not
    numbers; all faulty cells are listed at once.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table in UTF-8 ({error}).") from error
    header = rows[0] if rows else []
    missing = [column for column in COLUMNS if column not in header]
    if missing or len(set(header)) < len(header):
        what = f"has no column {', '.join(missing)}" if missing else "has two columns of one name"
        raise InputError(f"{path}: {what}. Write the table again with `python -m experiments.evaluate`.")

    problems: list[str] = []
    cases = [
        _case(dict(zip(header, row)), f"row {line}", problems)
        for line, row in enumerate(rows[1:], 2)
        if _fits(row, header, line, problems)
    ]
    raise_all(problems[:20], f"{path}: {len(problems)} cells cannot be read:")
    return cases


def _fits(row: list[str], header: list[str], line: int, problems: list[str]) -> bool:
    if row and len(row) != len(header):
        problems.append(f"row {line}: {len(row)} cells where the header has {len(header)}")
    return len(row) == len(header)


def _case(row: dict[str, str], where: str, problems: list[str]) -> Case:
    def number(column: str, kind: type, otherwise):
        try:
            return kind(row[column]) if row[column] else otherwise
        except ValueError:
            problems.append(f"{where}, {column}: {row[column]!r} is not a number")
            return otherwise

    names = [column for column in row if column.startswith(PROBABILITY)]
    probability = {column.removeprefix(PROBABILITY): number(column, float, NAN) for column in names if row[column]}
    if probability and len(probability) < len(names):
        problems.append(f"{where}: {len(probability)} of {len(names)} probabilities are filled in; all or none must be")
    return Case(
        **{column: row[column] for column in ("case", "group", "grade_truth", "grade_predicted")},
        **{column: number(column, float, NAN) for column in FLOATS},
        **{column: number(column, int, None) for column in COUNTS},
        probability=probability,
    )


def _line(row: Sequence[object]) -> str:
    """One CSV line. The writer quotes a lone carriage return only when its own line end has one, hence the detour."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow([_cell(value) for value in row])
    return text.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: object) -> object:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else repr(float(value))
    return "" if value is None else value
