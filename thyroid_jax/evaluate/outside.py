"""Other people's results as a per-case table: masks in a folder, and a table of grades and probabilities.

Predictions are found by the case's name. Every fault is collected, so that a user can mend all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thyroid_jax.data import formats
from thyroid_jax.data.record import Card, Entry, Record
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.summary import Answer, row_of

SUM_WITHIN = 0.01  # how far a row's probabilities may be from a sum of 1: they are often rounded


# --- masks ------------------------------------------------------------------------------------------------------------


class Masks(NamedTuple):
    """The mask files of a folder by name, their path in it without suffix, and the number of files that are none."""

    files: dict[str, Path]
    others: int


def find_masks(folder: Path, faults: list[str]) -> Masks:
    """All files of a folder that :mod:`thyroid_jax.data.formats` can read. Two files of one name are a fault.

    nnU-Net's ``CASE.nii.gz`` and ``CASE.png`` are found as any other. Files and folders that begin with a point are
    passed over. Raises :class:`InputError` where there is no such folder, or no mask in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.")
    files: dict[str, Path] = {}
    others = 0
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in place.parts):
            continue
        suffix = next((suffix for suffix in formats.SUFFIXES if path.name.lower().endswith(suffix)), None)
        if suffix is None:
            others += 1
            continue
        name = place.as_posix()[: -len(suffix)]
        if name in files:
            faults.append(f"{place}: {files[name].relative_to(folder)} has the same name; leave one of them.")
        files.setdefault(name, path)
    if not files:
        raise InputError(f"{folder}: no mask there; files that can be read are {' '.join(formats.SUFFIXES)}.")
    return Masks(files, others)


class Reading(NamedTuple):
    """How mask files are read.

    ``soft``: their values are probabilities, 255 is 1, and the outline holds those of at least 0.5. ``labels``: the
    values that are nodule; () where masks hold 0 and 1, or 0 and 255.
    """

    soft: bool = False
    labels: tuple[int, ...] = ()


PLAIN = Reading()


def read_values(path: Path, shape: tuple[int, int], reading: Reading = PLAIN) -> np.ndarray:
    """The values int32[h w] of a mask file; grey written as equal colours is grey.

    A palette gives its index. Where black is another index than 0 it gives the colours, unless ``reading`` has labels.

    Raises :class:`InputError`, which does not name the file, for several frames, another shape, a compression that
    changes values, or a palette that does not say what is outside.
    """
    found = formats.read_mask(path)
    if found.lossy:
        raise InputError("compressed with loss, which changes values; save it as PNG, TIFF or NIfTI")
    if len(found.values) != 1:
        raise InputError(f"{len(found.values)} frames; a mask has one")
    values = (found.values if reading.labels else _by_colour(found))[0]
    if values.shape != shape:
        turned = ", so its rows and columns may be exchanged" if values.shape == shape[::-1] else ""
        raise InputError(f"{_size(values.shape)} pixels (rows x columns), the image has {_size(shape)}{turned}")
    grey = values % 0x010101 == 0
    return values // 0x010101 if values.max(initial=0) > 0xFFFF and grey.all() else values


def _by_colour(mask: formats.Labels) -> np.ndarray:
    advice = "--labels says which values are nodule, by their index"
    try:
        values = formats.by_colour(mask)
    except InputError as error:
        raise InputError(f"{error}; {advice}") from error
    coloured = values[values % 0x010101 > 0]
    if values is mask.colours and coloured.size:
        raise InputError(f"palette: black is not index 0 and 0x{coloured[0]:06X} is no grey; {advice}")
    return values


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def outline_of(values: np.ndarray, reading: Reading) -> np.ndarray:
    """The outline bool[h w] of a mask's values; :class:`InputError` where they do not fit the ``reading``."""
    if reading.soft:
        if values.min(initial=0) < 0 or values.max(initial=0) > 255:
            raise InputError(f"values from {values.min()} to {values.max()}; probabilities are stored as 0 to 255")
        return values >= 128  # 128 / 255 is the first that is at least 0.5
    if reading.labels:
        return np.isin(values, reading.labels)
    there = np.unique(values).tolist()
    if not (set(there) <= {0, 1} or set(there) <= {0, 255}):
        listed = " ".join(map(str, there[:8])) + (" ..." if len(there) > 8 else "")
        raise InputError(
            f"values {listed}, but a mask has 0 and 1, or 0 and 255; --labels says which values are nodule, "
            "--soft that they are probabilities"
        )
    return values > 0


def check_reading(seen: set[int], reading: Reading, faults: list[str]) -> None:
    """Add a fault where the values of all masks together contradict the ``reading``."""
    if reading.soft and seen <= {0, 1}:
        faults.append("--soft: no mask has a value above 1, so these are outlines and no probabilities from 0 to 255.")
    faults += [f"--labels {label}: no mask has this value." for label in reading.labels if label not in seen]


# --- the table of grades and malignancy -------------------------------------------------------------------------------


class Judgement(NamedTuple):
    """A row of the table: the grade ("" where none is given), the probability of every grade, that of malignancy."""

    grade: str = ""
    probability: Mapping[str, float] = {}
    p_malignant: float = math.nan


def read_judgements(
    rows: Sequence[tuple[int, Mapping[str, str]]],
    columns: Sequence[str],
    grades: Sequence[str],
    faults: list[str],
    *,
    hard: bool = False,
) -> dict[str, Judgement]:
    """Case -> its judgement, from rows (number, {column: text}) with columns ``case, grade, p_<grade>, p_malignant``.

    ``grades`` are those of the data set, in ascending order of risk. Without ``grade`` it is the most probable one, the
    lower on a tie. A row may be empty in all columns of the grade, or in ``p_malignant``. ``hard`` takes a grade
    without probabilities as probability 1; without it that is a fault, because measures of the grade need
    probabilities. Other columns are ignored, except those that begin with ``p_``. Every fault is added to ``faults``.
    """
    shares = [f"p_{grade}" for grade in grades]
    faults += _column_faults(columns, shares, hard)
    found: dict[str, Judgement] = {}
    for number, row in rows:
        case = row.get("case", "")
        if not case or case in found:
            faults.append(f"row {number}: {f'case {case!r} is there twice' if case else 'no case'}.")
            continue
        own: list[str] = []
        found[case] = _judgement(row, shares, grades, own, hard)
        faults += [f"row {number}, case {case!r}: {fault}" for fault in own]
    return found


def _column_faults(columns: Sequence[str], shares: Sequence[str], hard: bool) -> list[str]:
    faults = [f"column {name!r} is there twice." for name in dict.fromkeys(columns) if list(columns).count(name) > 1]
    if "case" not in columns:
        faults.append("there is no column 'case'.")
    unknown = [name for name in columns if name.startswith("p_") and name not in (*shares, "p_malignant")]
    faults += [f"column {name!r}: no such grade; known are {', '.join([*shares, 'p_malignant'])}." for name in unknown]
    missing = [name for name in shares if name not in columns]
    if missing and len(missing) < len(shares):
        faults.append(f"no column {', '.join(missing)}: every grade of the data set needs its probability.")
    without = bool(shares) and len(missing) == len(shares)
    if hard and not ("grade" in columns and without):
        faults.append("--hard-grades is for a table with a column 'grade' and without probabilities; leave it out.")
    if "grade" in columns and without and not hard:
        faults.append(
            f"column 'grade' without {', '.join(shares)}: measures of the grade need probabilities. --hard-grades "
            "takes each grade as probability 1."
        )
    if not ({"grade", "p_malignant", *shares} & set(columns)):
        faults.append(f"no column of {', '.join(['grade', *shares, 'p_malignant'])}: there is nothing to evaluate.")
    return faults


def _judgement(
    row: Mapping[str, str], shares: Sequence[str], grades: Sequence[str], faults: list[str], hard: bool
) -> Judgement:
    grade = row.get("grade", "")
    if grade and grade not in grades:
        faults.append(f"grade {grade!r} is not one of {', '.join(grades) or 'none: the data set has no grades'}.")
        return Judgement()
    values = {name: _share(row[name], name, faults) for name in (*shares, "p_malignant") if row.get(name)}
    probability = {name.removeprefix("p_"): value for name, value in values.items() if name in shares}
    if probability and len(probability) < len(shares):
        faults.append(f"{len(probability)} of {len(shares)} grades have a probability; all or none must have one.")
        probability = {}
    total = sum(probability.values())
    if probability and abs(total - 1) > SUM_WITHIN:  # False where a value is no number, which is named already
        faults.append(f"the probabilities of the grades have the sum {total:g}, not 1.")
    if grade and not probability and hard:
        probability = {name: float(name == grade) for name in grades}
    elif grade and not probability and set(shares) <= set(row):
        faults.append("a grade without probabilities.")
    return Judgement(grade, probability, values.get("p_malignant", math.nan))


def _share(text: str, name: str, faults: list[str]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        faults.append(f"{name} is {text!r}, not a number from 0 to 1.")
        return math.nan
    return value


# --- rows of the per-case table ---------------------------------------------------------------------------------------


def name_faults(
    chosen: Sequence[Entry], known: Iterable[str], masks: Iterable[str] | None, judged: Iterable[str] | None
) -> list[str]:
    """Every chosen record without its prediction, and every prediction of no record of the data set.

    ``chosen`` are the records to evaluate, ``known`` the cases of the whole data set; ``masks`` and ``judged`` the
    names of what is predicted, None where nothing was given. A record without an outline needs no mask, one without
    grade and malignancy no row.
    """
    known = set(known)
    faults = []
    for kind, given, needs in (
        ("mask", masks, lambda entry: entry.has_mask),
        ("row", judged, lambda entry: entry.grade is not None or entry.malignant is not None),
    ):
        names = set(given or ())
        if given is not None:
            faults += [
                f"{entry.case}: no {kind} of this case." for entry in chosen if needs(entry) and entry.case not in names
            ]
            faults += [f"{name}: a {kind}, but the data set has no such case." for name in sorted(names - known)]
    return faults


def case_of(record: Record, card: Card, outline: np.ndarray | None, judged: Judgement, part: str) -> Case:
    """A record's row: ``outline`` bool[h w] or None, and the judgement, beside the reference (:func:`row_of`)."""
    answer = Answer(outline, judged.probability, judged.grade, judged.p_malignant)
    return row_of(record, card.grades, answer, part)
