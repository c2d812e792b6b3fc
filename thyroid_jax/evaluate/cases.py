"""The per-case table: one row per image, written as CSV. All measures and the report are computed from it.

The columns, in this order: ``case, group, part, dice, iou, hd95_px, hd95_mm, predicted_area_px, reference_area_px,
grade_truth, grade_predicted``, then ``p_<grade>`` for every grade in ascending order of risk, then ``malignant_truth,
p_malignant``. An empty cell is a value that does not exist.

Case, group, part and grades are arbitrary text, and a spreadsheet executes a cell that begins like a formula. Such text
is written with an apostrophe before it (:func:`escape`); reading removes the apostrophe. Numbers are not changed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import write_text

NAN = float("nan")
TEXTS = ("case", "group", "part")
FLOATS = ("dice", "iou", "hd95_px", "hd95_mm")
COUNTS = ("predicted_area_px", "reference_area_px")
GRADES = ("grade_truth", "grade_predicted")
MALIGNANCY = ("malignant_truth", "p_malignant")
PROBABILITY = "p_"  # prefix of a grade's column; the grades' order is the columns' order
OLD_PROBABILITY = "prob_"

ESCAPE = "'"
# A spreadsheet may take these for the beginning of a formula (the wide forms in East Asian locales), or strip them.
RISKY = (*"=+-@\uff1d\uff0b\uff0d\uff20\t\r\n", ESCAPE)


@dataclass(frozen=True)
class Case:
    """One image: its predictions, and their comparison with the reference.

    ``case``, ``group`` (the patient, or another unit that is not split) and ``part`` (train, validation, test, or the
    name of a fold) are any text. ``dice, iou, hd95_px, hd95_mm`` are NaN without a reference or a predicted mask; HD95
    also when one of the two masks is empty, and in mm when the pixel spacing is unknown. Areas are in pixels, None
    without such a mask. Grades are names, "" when unknown. ``probability`` maps every grade, in ascending order of
    risk, to its probability; it is empty when no grade is predicted. ``malignant_truth`` is None when unknown,
    ``p_malignant`` is NaN when it is not predicted.

    Raises ValueError for a grade named "malignant" (its column would be that of the probability of malignancy), a
    ``malignant_truth`` other than None, 0 and 1, or a ``p_malignant`` outside [0, 1].
    """

    case: str
    group: str
    part: str = ""
    dice: float = NAN
    iou: float = NAN
    hd95_px: float = NAN
    hd95_mm: float = NAN
    predicted_area_px: int | None = None
    reference_area_px: int | None = None
    grade_truth: str = ""
    grade_predicted: str = ""
    probability: Mapping[str, float] = field(default_factory=dict)
    malignant_truth: bool | None = None
    p_malignant: float = NAN

    def __post_init__(self):
        if any(PROBABILITY + name in MALIGNANCY for name in self.probability):
            raise ValueError(
                f"case {self.case!r}: a grade named 'malignant' would share the column p_malignant with the "
                "probability of malignancy. Give the grade another name."
            )
        if self.malignant_truth not in (None, 0, 1):
            raise ValueError(f"case {self.case!r}: malignant_truth is None, 0 or 1, not {self.malignant_truth!r}.")
        if not (np.isnan(self.p_malignant) or 0 <= self.p_malignant <= 1):
            raise ValueError(f"case {self.case!r}: p_malignant lies in [0, 1] or is NaN, not {self.p_malignant!r}.")


def grades(cases: Sequence[Case]) -> tuple[str, ...]:
    """Names of the grades in ascending order, () when no case has probabilities; ValueError when two cases disagree
    about them.
    """
    found = {tuple(case.probability) for case in cases if case.probability}
    if len(found) > 1:
        raise ValueError(f"the cases were graded on different scales: {sorted(found)}.")
    return found.pop() if found else ()


def columns(names: Sequence[str]) -> list[str]:
    """The table's header for grades of these names, in ascending order of risk."""
    return [*TEXTS, *FLOATS, *COUNTS, *GRADES, *(PROBABILITY + name for name in names), *MALIGNANCY]


def write_cases(path: Path | str, cases: Sequence[Case]) -> None:
    """Write the table as CSV (UTF-8, one header line) in one step: the :func:`columns`, one row per case.

    Floats are written so that reading gives the same bits, truth of malignancy as 0 or 1; NaN and None are empty cells.
    Without a case only the header is written. Raises ValueError for cases that were graded on different scales.
    """
    names = grades(cases)
    write_text(path, "".join(_line(row) for row in [columns(names), *(_row(case, names) for case in cases)]))


Cell = str | float | int | None


def write_table(path: Path | str, header: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
    """Write any table as CSV in one step; texts are escaped for spreadsheets, and None and NaN are empty cells."""

    def cell(value: Cell) -> str:
        return escape(value) if isinstance(value, str) else _cell(value)

    lines = [list(header), *([cell(row.get(name)) for name in header] for row in rows)]
    write_text(path, "".join(map(_line, lines)))


def read_cases(path: Path | str) -> list[Case]:
    """Read what :func:`write_cases` wrote; columns that it does not know are ignored.

    Every column ``p_<name>`` but ``p_malignant`` is a grade's. An apostrophe at the beginning of a text is removed.

    Raises :class:`~thyroid_jax.errors.InputError` for a missing file, a missing column, a table of the older layout
    (columns ``prob_<grade>``), or cells that cannot be read: their number, and the first 20 of them.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV table in UTF-8 ({error}).") from error
    header = rows[0] if rows else []
    fault = _header_fault(header)
    if fault:
        raise InputError(f"{path}: {fault}. Write the table again with `python -m experiments.evaluate`.")

    problems: list[str] = []
    cases = [
        _case(dict(zip(header, row)), f"row {line}", problems)
        for line, row in enumerate(rows[1:], 2)
        if _fits(row, header, line, problems)
    ]
    raise_all(problems[:20], f"{path}: {len(problems)} cells cannot be read:")
    return cases


def escape(text: str) -> str:
    """The text in a form that is safe in a spreadsheet: with an apostrophe before it where it begins like a formula, or
    with an apostrophe.

    >>> escape("=1+1"), escape("4a")
    ("'=1+1", '4a')
    """
    return ESCAPE + text if text.startswith(RISKY) or text.lstrip().startswith(RISKY) else text


def unescape(text: str) -> str:
    """The text before :func:`escape`."""
    return text.removeprefix(ESCAPE)


def _header_fault(header: list[str]) -> str:
    missing = [column for column in columns(()) if column not in header]
    if any(column.startswith(OLD_PROBABILITY) for column in header):
        return f"has columns {OLD_PROBABILITY}<grade>, the layout of an older version"
    if missing:
        return f"has no column {', '.join(missing)}"
    return "has two columns of one name" if len(set(header)) < len(header) else ""


def _fits(row: list[str], header: list[str], line: int, problems: list[str]) -> bool:
    if row and len(row) != len(header):
        problems.append(f"row {line}: {len(row)} cells where the header has {len(header)}")
    return len(row) == len(header)


# What a cell's number must be, in words, and a function that checks it. pandas writes 3 as 3.0 in a column with gaps.
_NUMBER = "a number", lambda value: True
_FINITE = "a finite number", np.isfinite
_COUNT = "a whole number", lambda value: value.is_integer() and value >= 0
_TRUTH = "0 or 1", lambda value: value in (0, 1)
_SHARE = "a number from 0 to 1", lambda value: 0 <= value <= 1


def _case(row: dict[str, str], where: str, problems: list[str]) -> Case:
    def number(column: str, kind: tuple[str, Callable[[float], bool]]) -> float | None:
        """The column's number; None for an empty cell, and for a faulty one, which is added to the problems."""
        expected, fits = kind
        value = _float(row[column])
        if not row[column] or (value is not None and fits(value)):
            return value
        problems.append(f"{where}, {column}: {row[column]!r} is not {expected}")
        return None

    names = [column for column in row if column.startswith(PROBABILITY) and column not in MALIGNANCY]
    probability = {column.removeprefix(PROBABILITY): number(column, _FINITE) for column in names if row[column]}
    if probability and len(probability) < len(names):
        problems.append(f"{where}: {len(probability)} of {len(names)} probabilities are filled in; all or none must be")
    counts = {column: number(column, _COUNT) for column in COUNTS}
    malignant = number("malignant_truth", _TRUTH)
    columns: dict[str, Any] = {
        **{column: unescape(row[column]) for column in (*TEXTS, *GRADES)},
        **{column: _or_nan(number(column, _NUMBER)) for column in FLOATS},
        **{column: None if count is None else int(count) for column, count in counts.items()},
    }
    return Case(
        **columns,
        probability={name: _or_nan(value) for name, value in probability.items()},
        malignant_truth=None if malignant is None else bool(malignant),
        p_malignant=_or_nan(number("p_malignant", _SHARE)),
    )


def _float(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _or_nan(value: float | None) -> float:
    return NAN if value is None else value


def _row(case: Case, names: Sequence[str]) -> list[str]:
    return [
        *(escape(getattr(case, column)) for column in TEXTS),
        *(_cell(getattr(case, column)) for column in (*FLOATS, *COUNTS)),
        *(escape(getattr(case, column)) for column in GRADES),
        *(_cell(case.probability.get(name)) for name in names),
        "" if case.malignant_truth is None else str(int(case.malignant_truth)),
        _cell(case.p_malignant),
    ]


def _cell(value: float | None) -> str:
    """A number's cell, empty for None and NaN."""
    if value is None or np.isnan(value):
        return ""
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(int(value))


def _line(row: Sequence[str]) -> str:
    """One CSV line.

    The csv writer quotes a cell that holds a character of its line terminator. So the terminator holds the carriage
    return, and the semicolon and tab at which some readers split cells; then it is replaced by a newline.
    """
    text, end = io.StringIO(newline=""), "\r\n;\t"
    csv.writer(text, lineterminator=end).writerow(row)
    return text.getvalue().removesuffix(end) + "\n"
