"""What a user can say about a folder of images: the options of ``build folder``."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.cleaning import STEPS as CLEANING
from thyroid_jax.errors import InputError

NONE = "none"
MOST_VALUES = 1 << 16  # of the nodule
CLASSES = ("benign", "malignant", "normal")
ROLES = {  # what a column may hold -> the words of its option's help
    "image": "the image's file; without it no table is read",
    "group": "the patient",
    "grade": "the grade",
    "malignant": "benign or malignant",
    "spacing": "the size of a pixel",
    "split": "train or test",
}


@dataclass(frozen=True)
class Options:
    """The options of ``build folder``; every default means that the folder itself says it.

    columns        column of each of :data:`ROLES`; "none" where no column may be taken
    findings       columns that become descriptors; ("all",) takes all columns of text
    class_folders  folder name in small letters -> benign, malignant or normal
    mask_words     further words that say "mask" in the name of a file or folder, as "other" in x_other1.png
    mask_values    label values of the nodule; () takes every value but 0, and (0,) means that 0 is the nodule
    labels         names of what counts as nodule in COCO, Labelme and nnU-Net's dataset.json; () takes a single one
    sheet          sheet of an Excel table; "" takes the first
    spacing        mm per pixel (rows, columns) of all images; NaN leaves it unknown, whatever files say
    spacing_unit   "mm" or "cm", the unit of the table's sizes; "" takes mm, or what the column's name says
    missing        further cells of the table that mean "not known"
    ignore         patterns (``*.txt``, ``old/*``) of names or paths that are left out
    clean          steps of :data:`data_prep.cleaning.STEPS` that every picture is cleaned by
    """

    source: Path
    name: str
    title: str = ""
    citation: str = "not stated"
    licence: str = "not stated"
    table: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    grades: tuple[str, ...] = ()
    grade_system: str = ""
    grade_from_folder: bool = False
    group_from_folder: bool = False
    group_pattern: str = ""
    class_folders: Mapping[str, str] = field(default_factory=lambda: {name: name for name in CLASSES})
    mask_words: tuple[str, ...] = ()
    mask_values: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    sheet: str = ""
    spacing: tuple[float, float] | None = None
    spacing_unit: str = ""
    missing: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    clean: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser. ``--out``, ``--overwrite`` and ``--dry-run`` are the caller's."""
    add = parser.add_argument
    add("--name", required=True, metavar="NAME", help="name of the data set: small letters, digits and _")
    add("--source", type=Path, required=True, metavar="DIR", help="your folder; it is only read")
    add("--title", default="", metavar="TEXT", help="one line for reports (default: the name)")
    add("--citation", default="not stated", metavar="TEXT", help="where the images come from")
    add("--licence", default="not stated", metavar="TEXT", help="terms of use")
    add("--table", type=Path, metavar="FILE", help=".csv, .tsv or .xlsx with a row for each image")
    add("--sheet", default="", metavar="NAME", help="sheet of an Excel table (default: the first)")
    for role, what in ROLES.items():
        add(f"--{role}-column", metavar="COLUMN", help=f"column with {what} ('{NONE}': no column)")
    add("--findings", type=_names, default=(), metavar="COL,COL", help="columns kept as written findings, or 'all'")
    add("--missing", type=_names, default=(), metavar="TEXT,TEXT", help="further cells that mean 'not known'")
    add("--grades", type=_names, default=(), metavar="A,B,C", help="all grades, least suspicious first")
    add("--grade-system", default="", metavar="TEXT", help="name of the grading, as 'ACR TI-RADS'")
    add("--grade", choices=("folder",), help="'folder': the grade is the name of the image's folder")
    add("--group", choices=("folder",), help="'folder': the patient is the name of the image's folder")
    add(
        "--group-pattern",
        default="",
        metavar="REGEX",
        help="finds the patient in a file name, or in its path if there is a / in REGEX: one group in brackets",
    )
    add(
        "--class-folders",
        type=_class_folders,
        default=None,
        metavar="benign=NAME,malignant=NAME",
        help=f"folders of the classes (default: benign, malignant and normal); '{NONE}' if folders mean nothing",
    )
    add("--mask-words", type=_names, default=(), metavar="WORD,WORD", help="further words that say 'mask' in names")
    add("--mask-values", type=_values, default=(), metavar="V,V-W", help="values of the nodule; 0: masks are inverted")
    add(
        "--labels", type=_names, default=(), metavar="NAME,NAME", help="what counts as nodule in COCO, Labelme, nnU-Net"
    )
    add(
        "--spacing",
        type=_spacing,
        metavar="MM[,MM]",
        help=f"mm per pixel of all images: rows, columns ('{NONE}': unknown, whatever files say)",
    )
    add("--spacing-unit", choices=("mm", "cm"), default="", help="unit of the table's pixel sizes")
    add(
        "--clean",
        nargs="+",
        choices=tuple(CLEANING),
        default=(),
        help="clean screenshots: " + "; ".join(f"'{step}': {what}" for step, what in CLEANING.items()),
    )
    add("--ignore", action="append", default=[], metavar="PATTERN", help="leave out matching files; can be repeated")


def options_of(given: argparse.Namespace) -> Options:
    """The options that :func:`add_arguments` has parsed. Raises :class:`InputError` for two that exclude each other."""
    columns = {role: column for role in ROLES if (column := getattr(given, f"{role}_column")) is not None}
    if given.group_pattern and columns.get("group", NONE) != NONE:
        raise InputError("--group-pattern: cannot be given with --group-column. Choose one of them.")
    if given.group and (given.group_pattern or columns.get("group", NONE) != NONE):
        raise InputError("--group folder: cannot be given with --group-column or --group-pattern. Choose one of them.")
    if given.grade == "folder" and columns.get("grade", NONE) != NONE:
        raise InputError("--grade folder: cannot be given with --grade-column. Choose one of them.")
    _check_pattern(given.group_pattern)
    same = ("name", "source", "title", "citation", "licence", "table", "findings", "grades", "grade_system", "sheet")
    more = ("group_pattern", "mask_words", "mask_values", "labels", "spacing", "spacing_unit", "missing")
    folders = {} if given.class_folders is None else {"class_folders": given.class_folders}
    return Options(
        **{name: getattr(given, name) for name in (*same, *more)},
        **folders,
        columns=columns,
        grade_from_folder=given.grade == "folder",
        group_from_folder=given.group == "folder",
        ignore=tuple(given.ignore),
        clean=tuple(given.clean),
    )


def _check_pattern(pattern: str) -> None:
    if not pattern:
        return
    try:
        groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"--group-pattern: {pattern!r} is not a regular expression ({error}). Mend it.") from error
    if groups != 1:
        raise InputError(
            f"--group-pattern: {pattern!r} has {groups} groups in brackets, it must have one: the patient. "
            r"An example is '^(\d+)_'; brackets that are no group are written (?:...)."
        )
    if re.search(r"[+*}]\)+[+*{]", pattern):
        raise InputError(
            f"--group-pattern: {pattern!r} repeats what is repeated already, which can take for ever. Write it simpler."
        )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} must be names with commas between them")
    return names


def _values(text: str) -> tuple[int, ...]:
    number = lambda word: int(word.strip().replace("#", "0x"), 0)
    try:
        ends = [tuple(map(number, part.split("-"))) for part in text.split(",")]
        if any(len(end) > 2 or end[-1] < end[0] or end[-1] > 0xFFFFFF for end in ends):
            raise ValueError("not a range")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, ranges or colours (0xRRGGBB)") from error
    if sum(end[-1] - end[0] for end in ends) > MOST_VALUES:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {MOST_VALUES} values")
    values = tuple(value for end in ends for value in range(end[0], end[-1] + 1))
    if 0 in values and values != (0,):
        raise argparse.ArgumentTypeError("0 stands alone: it means that 0 is the nodule and every other value is not")
    return values


def _spacing(text: str) -> tuple[float, float]:
    if text == NONE:
        return math.nan, math.nan
    try:
        sides = [float(side) for side in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be one or two numbers, mm per pixel") from error
    if len(sides) > 2 or not all(math.isfinite(side) and 0 < side <= 10 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} must be one or two numbers above 0 and at most 10 mm")
    return sides[0], sides[-1]


def _class_folders(text: str) -> dict[str, str]:
    if text == NONE:
        return {}
    pairs = [pair.partition("=") for pair in text.split(",")]
    folders = {folder.strip().lower(): name.strip().lower() for name, _, folder in pairs}
    if not set(folders.values()) <= set(CLASSES) or not all(folders) or len(folders) != len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} must be like benign=NAME,malignant=NAME,normal=NAME")
    return folders
