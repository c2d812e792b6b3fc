"""The per-case table: one row per image, written as CSV. All measures and the report are computed from it.

The columns, in this order: ``case, group, part, dice, iou, hd95_px, hd95_mm, predicted_area_px, reference_area_px,
grade_truth, grade_predicted``, then ``p_<grade>`` for every grade in ascending order of risk, then ``malignant_truth,
p_malignant``. An empty cell is a value that does not exist. After them stand those that any case has:

- ``precision, recall, assd_px, assd_mm, nsd_2px, nsd_1mm, boundary_f_2px``, more measures of the outline,
- ``predicted_area_mm2, reference_area_mm2, contrast_to_noise``, the outline's size and the nodule's contrast,
- ``guidance_<name>`` and ``target_<name>``, radiomics values that the model predicts, and measured on the reference,
- ``reader<i>_dice`` and ``reader<i>_grade``, each reader beside the model,
- ``about_<name>``, findings, device, and what else divides the cases into subgroups.

Case, group, part, grades and ``about`` are arbitrary text, and a spreadsheet executes a cell that begins like a
formula. Such text is written with an apostrophe before it (:func:`escape`); reading removes the apostrophe. Numbers are
not changed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thyroid_jax import command
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import write_text

NAN = float("nan")
TEXTS = ("case", "group", "part")
FLOATS = ("dice", "iou", "hd95_px", "hd95_mm")
COUNTS = ("predicted_area_px", "reference_area_px")
GRADES = ("grade_truth", "grade_predicted")
MALIGNANCY = ("malignant_truth", "p_malignant")
MEASURED = (
    *("precision", "recall", "assd_px", "assd_mm", "nsd_2px", "nsd_1mm", "boundary_f_2px"),
    *("predicted_area_mm2", "reference_area_mm2", "contrast_to_noise"),
)
PROBABILITY = "p_"  # prefix of a grade's column; the grades' order is the columns' order
OLD_PROBABILITY = "prob_"
GUIDANCE, TARGET, ABOUT = "guidance_", "target_", "about_"
READER_DICE, READER_GRADE = "reader{}_dice", "reader{}_grade"
_READER = re.compile(r"reader(0|[1-9]\d{0,2})_(?:dice|grade)")

ESCAPE = "'"
# A spreadsheet may take these for the beginning of a formula (the wide forms in East Asian locales), or strip them.
RISKY = (*"=+-@\uff1d\uff0b\uff0d\uff20\t\r\n", ESCAPE)


Cell = str | float | int | None


@dataclass(frozen=True)
class Case:
    """One image: its predictions, and their comparison with the reference.

    ``case``, ``group`` (the patient, or another unit that is not split) and ``part`` (train, validation, test, or the
    name of a fold) are any text. ``dice, iou, hd95_px, hd95_mm`` are NaN without a reference or a predicted mask; HD95
    also when one of the two masks is empty, and in mm when the pixel spacing is unknown. The other measures of the
    outline are those of :mod:`thyroid_jax.evaluate.metrics`, NaN likewise. Areas in pixels are None without such a
    mask. Grades are names, "" when unknown. ``probability`` maps every grade, in ascending order of risk, to its
    probability; it is empty when no grade is predicted. ``malignant_truth`` is None when unknown, ``p_malignant`` is
    NaN when it is not predicted.

    ``guidance`` and ``target`` map names of radiomics values to what the model predicts and what was measured on the
    reference. ``reader_dice`` is the predicted outline's Dice with each reader's (NaN where a reader drew none),
    ``reader_grades`` the grade that each reader gave ("" where none); missing values at their end are not written.
    ``about`` holds findings and other facts by name.

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
    precision: float = NAN
    recall: float = NAN
    assd_px: float = NAN
    assd_mm: float = NAN
    nsd_2px: float = NAN
    nsd_1mm: float = NAN
    boundary_f_2px: float = NAN
    predicted_area_mm2: float = NAN
    reference_area_mm2: float = NAN
    contrast_to_noise: float = NAN
    guidance: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    reader_dice: tuple[float, ...] = ()
    reader_grades: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)

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


def columns(names: Sequence[str], cases: Sequence[Case] = ()) -> list[str]:
    """The table's header for grades of these names, in ascending order of risk, and for what these cases have."""
    readers = max((max(len(case.reader_dice), len(case.reader_grades)) for case in cases), default=0)
    return [
        *(*TEXTS, *FLOATS, *COUNTS, *GRADES, *(PROBABILITY + name for name in names), *MALIGNANCY),
        *(name for name in MEASURED if any(not np.isnan(getattr(case, name)) for case in cases)),
        *(prefix + name for prefix in (GUIDANCE, TARGET) for name in _keys(cases, prefix)),
        *(column.format(i) for column in (READER_DICE, READER_GRADE) for i in range(readers)),
        *(ABOUT + name for name in _keys(cases, ABOUT)),
    ]


def _keys(cases: Sequence[Case], prefix: str) -> list[str]:
    """The names that any of the cases has, in order of appearance."""
    return list(dict.fromkeys(name for case in cases for name in getattr(case, prefix.removesuffix("_"))))


def write_cases(path: Path | str, cases: Sequence[Case]) -> None:
    """Write the table as CSV (UTF-8, one header line) in one step: the :func:`columns`, one row per case.

    Floats are written so that reading gives the same bits, truth of malignancy as 0 or 1; NaN and None are empty cells.
    Without a case only the header is written. Raises ValueError for cases that were graded on different scales.
    """
    header = columns(grades(cases), cases)
    rows = ([_text(_value(case, column)) for column in header] for case in cases)
    write_text(path, "".join(map(_line, [header, *rows])))


def write_table(path: Path | str, header: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
    """Write any table as CSV in one step; texts are escaped for spreadsheets, and None and NaN are empty cells."""

    lines = [list(header), *([_text(row.get(name)) for name in header] for row in rows)]
    write_text(path, "".join(map(_line, lines)))


def read_cases(path: Path | str) -> list[Case]:
    """Read what :func:`write_cases` wrote; columns that it does not know are ignored.

    Every column ``p_<name>`` but ``p_malignant`` is a grade's. An apostrophe at the beginning of a text is removed.

    Raises :class:`~thyroid_jax.errors.InputError` for a missing file, a missing column, a table of the older layout
    (columns ``prob_<grade>``), or cells that cannot be read, such as a Dice in percent: their number, and the first 20
    of them.
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
        raise InputError(f"{path}: {fault}. Write the table again with `{command.spelled('evaluate')}`.")

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
    missing = [column for column in (*TEXTS, *FLOATS, *COUNTS, *GRADES, *MALIGNANCY) if column not in header]
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
_OVERLAP = "a number from 0 to 1", lambda value: not (value < 0 or value > 1)  # NaN passes, as an empty cell does
_SIZE = "a finite number of 0 or more", lambda value: not (value < 0 or value == np.inf)
_KINDS = {"contrast_to_noise": _NUMBER} | dict.fromkeys(
    ("dice", "iou", "precision", "recall", "nsd_2px", "nsd_1mm", "boundary_f_2px"), _OVERLAP
)
"""kind of a measure; those that are not named are distances and areas"""


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
    floats = [column for column in (*FLOATS, *MEASURED) if column in row]
    values: dict[str, Any] = {
        **{column: unescape(row[column]) for column in (*TEXTS, *GRADES)},
        **{column: _or_nan(number(column, _KINDS.get(column, _SIZE))) for column in floats},
        **{column: None if count is None else int(count) for column, count in counts.items()},
        **{
            prefix.removesuffix("_"): {
                column.removeprefix(prefix): _or_nan(number(column, _NUMBER))
                for column in row
                if column.startswith(prefix) and row[column]
            }
            for prefix in (GUIDANCE, TARGET)
        },
    }
    named = [match for column in row if (match := _READER.fullmatch(column))]
    readers = range(max((int(match[1]) + 1 for match in named), default=0))
    return Case(
        **values,
        probability={name: _or_nan(value) for name, value in probability.items()},
        malignant_truth=None if malignant is None else bool(malignant),
        p_malignant=_or_nan(number("p_malignant", _SHARE)),
        reader_dice=_without_end(
            [_or_nan(number(name, _OVERLAP)) if (name := READER_DICE.format(i)) in row else NAN for i in readers]
        ),
        reader_grades=_without_end([unescape(row.get(READER_GRADE.format(i), "")) for i in readers]),
        about={
            column.removeprefix(ABOUT): unescape(row[column])
            for column in row
            if column.startswith(ABOUT) and row[column]
        },
    )


def _without_end(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values up to the last one that exists."""
    there = [place for place, value in enumerate(values, start=1) if value != "" and value == value]
    return tuple(values[: max(there, default=0)])


def _float(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _or_nan(value: float | None) -> float:
    return NAN if value is None else value


def _value(case: Case, column: str) -> Cell:
    """The case's value in a column of :func:`columns`; None where it has none."""
    if column == "malignant_truth":
        return None if case.malignant_truth is None else int(case.malignant_truth)
    if column in _FIELDS:
        return getattr(case, column)
    if column.startswith("reader"):
        number, _, kind = column.removeprefix("reader").partition("_")
        values = case.reader_dice if kind == "dice" else case.reader_grades
        return values[int(number)] if int(number) < len(values) else None
    prefix, _, name = column.partition("_")
    return getattr(case, "probability" if prefix == "p" else prefix).get(name)


_FIELDS = (*TEXTS, *FLOATS, *COUNTS, *GRADES, *MALIGNANCY, *MEASURED)


def _text(value: Cell) -> str:
    """A value's cell: text safe in a spreadsheet, a number in full precision, empty for None and NaN."""
    if isinstance(value, str):
        return escape(value)
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
