"""The table of a folder: which column holds what, and the labels of each image.

Columns are guessed by their names, and every guess is reported and can be overridden. A cell that cannot be understood
is a fault that names row and column.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from data_prep.folder.layout import PERSON, Layout, composed, natural, split_of
from data_prep.folder.options import NONE, Options
from data_prep.folder.rows import RowFinder
from data_prep.tables import by_column, table_rows
from thyroid_jax.errors import InputError

GUESSES = {  # role -> names of its column without spaces, _ and -, the likeliest first
    "image": "image imagefile imagefilename imagename imageid file filename name id case caseid",
    "group": "patient patientid patientno patientnumber subject subjectid subjectno caseid case",
    "malignant": "malignant malignancy malignancy01 benignmalignant pathology diagnosis classification class label",
    "grade": "grade tirads biradscategory tiradscategory tiradslevel biradslevel birads category acr acrtirads",
    "spacing": "spacing pixelsize pixelspacing mmperpixel spacingmm pixelsizemm pixelspacingmm spacingcm pixelsizecm "
    "pixelspacingcm",
    "spacing rows": "spacingrow spacingrows spacingy pixelspacingy pixelsizey",
    "spacing columns": "spacingcolumn spacingcolumns spacingx pixelspacingx pixelsizex",
    "split": "split part set subset fold",
}
READER_GRADE = re.compile(rf"(?:grade|tirads|birads|category|acr)(?:{PERSON}([0-9]{{1,3}}|[a-z])|r([0-9]{{1,3}}))")
LOOKS_LIKE = re.compile(r"tirads|birads|acr|grade|patient|subject|malignan|histolog|patholog|spacing|pixelsize|split")
MISSING = frozenset(("", "-", "?", "na", "n/a", "nan", "none", "null", "unknown", "not available", "not applicable"))
TRUTHS = {
    **dict.fromkeys(("1", "1.0", "malignant", "m", "yes", "true"), "malignant"),
    **dict.fromkeys(("0", "0.0", "benign", "b", "no", "false"), "benign"),
    "normal": "normal",
}
PLAUSIBLE = (0.02, 1.0)  # mm, of a pixel of ultrasound
LONGEST_CELL = 200  # characters


@dataclass(frozen=True)
class Labels:
    """What one row says about its image. Unknown is None, "" or ().

    grade and reader_grades are texts of the table; truth is benign, malignant or normal; spacing is mm per pixel (rows,
    columns)
    """

    row: int
    group: str = ""
    grade: str = ""
    reader_grades: tuple[str, ...] = ()
    truth: str = ""
    spacing: tuple[float, float] | None = None
    split: str = ""
    findings: Mapping[str, str] = field(default_factory=dict)


class Column(NamedTuple):
    """A column of the table that is used, and whether its name led to it."""

    name: str
    guessed: bool


@dataclass
class Table:
    """A table that has been understood. ``labels`` are by the path of the image, ``splits`` count the words of the
    split column.
    """

    file: str = ""
    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    readers: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Labels] = field(default_factory=dict)

    def place(self, labels: Labels, role: str) -> str:
        """Name of a cell for a message."""
        return f"{self.file}: row {labels.row}, {self.columns[role].name}"


Rows = Sequence[tuple[int, Mapping[str, str]]]


def table_of(options: Options, layout: Layout) -> Table:
    """The table of the folder, or an empty one when there is none. Faults, omissions and remarks go to ``layout``.

    Raises :class:`InputError` when the table cannot be read, a column is not there, or no row names an image.
    """
    path = _path(options, layout.tables)
    every = [*layout.tables, *layout.inner_tables]
    if others := [name for name in every if path is None or options.source / name != path]:
        layout.remarks.add("tables that are not read; --table FILE chooses one", *others)
    if path is None:
        asked = [f"--{role}-column" for role, name in options.columns.items() if name.lower() != NONE]
        if asked or options.findings:
            raise InputError(
                f"{(asked or ['--findings'])[0]}: there is no table in {options.source}. Give --table FILE."
            )
        return Table()
    try:
        rows = table_rows(path, layout.faults, sheet=options.sheet, keep_breaks=True)
        names = Counter(rows[0][1])
        columns = [name for name, times in names.items() if name and times == 1]
        twice = [name for name, times in names.items() if name and times > 1]
        if not all(name.isprintable() and len(name) <= LONGEST_CELL for name in columns):
            raise InputError("row 1: names of columns are printed characters, at most 200; mend them")
        found = by_column(rows, columns) if columns else []
        table = understood(path.name, columns, found, options, layout, twice)
        layout.faults += _merged_faults(path, rows[0][1], table, options)
    except InputError as error:
        said = _sheet_read(path, options)
        raise InputError(f"{path}: {error}{'; ' * bool(said)}{said}") from error
    if said := _sheet_read(path, options):
        layout.remarks.add(said, path.name)
    return table


def _merged_faults(path: Path, header: Sequence[str], table: Table, options: Options) -> list[str]:
    """Faults for merged cells of an Excel table: rows of images below the first read as if nothing was known."""
    if path.suffix.lower() != ".xlsx":
        return []
    from data_prep.excel import merged_cells

    used = {column.name for column in table.columns.values()} | {*table.readers, *table.findings}
    rows = sorted(labels.row for labels in table.labels.values())
    return [
        f"{table.file}: row {found[0]} to {found[-1]}, {header[column - 1]}: the cells are merged, only the first has "
        "the value; unmerge them and write it into each row."
        for found, columns in merged_cells(path, options.sheet)
        for column in columns[: len(header)]
        if column <= len(header) and header[column - 1] in used and bisect(rows, found[0]) < bisect(rows, found[-1])
    ]


def _sheet_read(path: Path, options: Options) -> str:
    """Which of several sheets of an Excel table was read, "" where there is only one."""
    if path.suffix.lower() != ".xlsx":
        return ""
    from data_prep.excel import sheet_names

    try:
        names = sheet_names(path)
    except InputError:
        return ""
    read = options.sheet or names[0]
    others = ", ".join(name[:40] for name in names if name != read)
    return f"the sheet {read[:40]} is read, others are {others[:200]}; --sheet NAME chooses" if others else ""


def _path(options: Options, tables: Sequence[str]) -> Path | None:
    if options.columns.get("image", "").lower() == NONE:
        return None
    if options.table is not None:
        inside = options.source / options.table
        return inside if not options.table.exists() and inside.exists() else options.table
    if len(tables) > 1:
        raise InputError(
            f"{options.source}: has {len(tables)} tables ({', '.join(tables[:5])}). Choose with --table FILE; "
            "without a table: --ignore '*.csv' or what they are called."
        )
    return options.source / tables[0] if tables else None


def understood(
    file: str, columns: Sequence[str], rows: Rows, options: Options, layout: Layout, twice: Sequence[str] = ()
) -> Table:
    """The table whose ``rows`` have these ``columns``; names that are there ``twice`` are not among them.

    Raises :class:`InputError`, which does not name the file.
    """
    _refuse_twice(twice, options)
    table = Table(file, len(rows))
    finder = RowFinder([pair.image for pair in layout.pairs])
    table.columns = _columns(columns, rows, options, finder)
    used = {column.name for column in table.columns.values()}
    table.readers = _reader_columns([name for name in columns if name not in used], options)
    rest = [name for name in columns if name not in used and name not in table.readers]
    layout.faults += [
        f"{file}: row 1: two columns are called {name}, which may be the {role}; rename one of them."
        for name in twice
        if (role := _unfilled(name, table, options))
    ]
    if options.findings == ("all",):
        table.findings = [name for name in rest if _is_text(text[name] for _, text in rows)]
    else:
        table.findings = [_named(name, columns, "--findings") for name in options.findings]
    table.unused = [name for name in rest if name not in table.findings] + [f"{name} (twice)" for name in twice]
    if likely := [name for name in table.unused if LOOKS_LIKE.search(_plain(name))]:
        layout.remarks.add("unused columns look like labels; options like --grade-column take them", *likely)
    matched = _matched(table, rows, finder, layout)
    table.labels = {path: _labels(table, number, text, options, layout) for path, (number, text) in matched.items()}
    table.splits = Counter(labels.split for labels in table.labels.values() if labels.split)
    if numbers := [word for word in table.splits if split_of(word) == ""]:
        layout.remarks.add("numbers of the split column mean nothing, least of all a test part", *sorted(numbers))
    _check_spacing(table, options, layout)
    rowless = [pair.image.path for pair in layout.pairs if pair.image.path not in table.labels]
    if rowless:
        layout.remarks.add("images without a row of the table", *rowless)
    return table


def _refuse_twice(twice: Sequence[str], options: Options) -> None:
    """Raise :class:`InputError` for a name that an option asks for and that two columns have."""
    asked = [(f"--{role}-column", name) for role, name in options.columns.items()]
    for option, name in [*asked, *(("--findings", name) for name in options.findings)]:
        if any(_plain(name) == _plain(other) for other in twice):
            raise InputError(f"{option} {name}: no such single column; two are called so. Rename one of them.")


def _unfilled(name: str, table: Table, options: Options) -> str:
    """The role that a column of this name would have, if no other column has it and the user has not refused it."""
    if READER_GRADE.fullmatch(_plain(name)) and "grade" not in _roles_off(options):
        return "grade of a reader"
    for role, words in GUESSES.items():
        if _plain(name) in words.split() and role not in table.columns and role.split()[0] not in _roles_off(options):
            return role
    return ""


def _reader_columns(columns: Sequence[str], options: Options) -> list[str]:
    """The columns with the grades of several readers, in the order of the readers."""
    if options.grade_from_folder or options.columns.get("grade", "").lower() == NONE:
        return []
    column_of: dict[str, str] = {}
    for name in columns:
        if match := READER_GRADE.fullmatch(_plain(name)):
            reader = match[1] or match[2]
            if (first := column_of.setdefault(reader, name)) != name:
                raise InputError(f"columns {first} and {name} are both grades of reader {reader}. Rename one of them.")
    return [column_of[reader] for reader in sorted(column_of, key=natural)]


def _columns(columns: Sequence[str], rows: Rows, options: Options, finder: RowFinder) -> dict[str, Column]:
    """The column of each role. What the user names is taken first, then what names suggest."""
    found = {
        role: Column(_named(name, columns, f"--{role}-column"), False)
        for role, name in options.columns.items()
        if name.lower() != NONE
    }
    off = _roles_off(options)
    for role, words in GUESSES.items():
        if role in found or role.split()[0] in off:
            continue
        taken = {column.name for column in found.values()}
        fitting = [name for word in words.split() for name in columns if _plain(name) == word and name not in taken]
        fitting = [name for name in fitting if not all(is_missing(text[name], options) for _, text in rows)]
        chosen = fitting[:1]
        if role == "image":
            hits = {name: finder.hits(text[name] for _, text in rows) for name in fitting}
            chosen = sorted((name for name in fitting if any(hits[name])), key=hits.__getitem__, reverse=True)[:1]
        if role == "malignant":
            clear = [name for name in fitting if _is_malignancy((text[name] for _, text in rows), options)]
            chosen = clear[:1] or chosen
        if chosen:
            found[role] = Column(chosen[0], True)
    if "spacing rows" in found and "spacing columns" in found:
        found.pop("spacing", None)
    elif half := found.keys() & {"spacing rows", "spacing columns"}:
        found.pop(half.pop())
    if "image" not in found:
        raise InputError(
            f"no column names the images. Columns: {', '.join(columns)[:400]}. Images are called {finder.examples()}. "
            "The first row must be the names of the columns. Give --image-column, or --ignore the table."
        )
    return found


def _roles_off(options: Options) -> list[str]:
    """The roles for which no column is guessed."""
    off = [role for role, name in options.columns.items() if name.lower() == NONE]
    off += ["group"] if options.group_pattern or options.group_from_folder else []
    off += ["grade"] if options.grade_from_folder else []
    return off + (["spacing"] if options.spacing else [])


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _named(name: str, columns: Sequence[str], option: str) -> str:
    fitting = [column for column in columns if column == name] or [
        column for column in columns if _plain(column) == _plain(name)
    ]
    if len(fitting) != 1:
        raise InputError(f"{option} {name}: no such single column. Columns: {', '.join(columns)[:400]}.")
    return fitting[0]


def is_missing(text: str, options: Options) -> bool:
    """Whether a cell says that something is not known."""
    return text.casefold() in MISSING or text in options.missing


def _is_malignancy(texts: Iterable[str], options: Options) -> bool:
    return all(is_missing(text, options) or text.casefold() in TRUTHS for text in texts)


def _is_text(texts: Iterable[str]) -> bool:
    return any(text and not re.fullmatch(r"[-+0-9.,eE]+", text) for text in texts)


def _matched(table: Table, rows: Rows, finder: RowFinder, layout: Layout) -> dict[str, tuple[int, Mapping[str, str]]]:
    """The row of each image. Rows without image are dropped; two rows of an image or an ambiguous one are faults."""
    found: dict[str, tuple[int, Mapping[str, str]]] = {}
    column = table.columns["image"].name
    for number, text in rows:
        images, cell = finder.find(text[column]), f"{table.file}: row {number}, {column}"
        if not images:
            layout.dropped.append((f"row {number} of {table.file}", f"there is no image {text[column][:80]!r}"))
        elif len(images) > 1:
            names = ", ".join(image.path for image in images[:3])
            layout.faults.append(f"{cell}: {text[column][:80]!r} may be {names}; write the folder before the name.")
        elif found.get(path := images[0].path, (0, None))[1] == text:
            layout.remarks.add("rows that repeat another one are not needed", f"row {number}")
        elif path in found:
            layout.faults.append(f"{cell}: {path} has row {found[path][0]} already; an image has one row.")
        else:
            found[path] = number, text
    if not found and not layout.faults:
        examples = ", ".join(repr(text[column][:40]) for _, text in rows[:3])
        raise InputError(
            f"no row names an image. {column} holds {examples}; images are called {finder.examples()}. "
            "Give another --image-column, or rename."
        )
    return found


def _labels(table: Table, number: int, text: Mapping[str, str], options: Options, layout: Layout) -> Labels:
    known = {role: "" if is_missing(text[name], options) else text[name] for role, (name, _) in table.columns.items()}
    readers = [text[name] for name in table.readers if not is_missing(text[name], options)]
    for name in (*(column.name for column in table.columns.values()), *table.readers, *table.findings):
        if len(text[name]) > LONGEST_CELL or not text[name].isprintable():
            cell = f"{table.file}: row {number}, {name}"
            layout.faults.append(f"{cell}: must be a text of at most {LONGEST_CELL} printed characters; mend it.")
            return Labels(number)
        if text[name].startswith("="):
            layout.faults.append(
                f"{table.file}: row {number}, {name}: {text[name][:40]!r} is a formula, which is not computed; save "
                "the table with values, as CSV."
            )
            return Labels(number)
    labels = Labels(
        row=number,
        group=composed(known.get("group", "")),
        grade=known.get("grade", ""),
        reader_grades=tuple(readers),
        split=known.get("split", "").casefold(),
        findings={name: text[name] for name in table.findings if not is_missing(text[name], options)},
    )
    spacing = None
    if split_of(labels.split) is None:
        layout.faults.append(
            f"{table.place(labels, 'split')}: {labels.split[:40]!r} must be a word for train, validation or test, or "
            "the number of a fold; mend it, or give --split-column none."
        )
    if told := known.get("malignant", ""):
        if told.casefold() not in TRUTHS:
            layout.faults.append(
                f"{table.place(labels, 'malignant')}: {told[:40]!r} must be benign or malignant, b or m, 0 or 1, no or "
                "yes, false or true, or normal; mend it, or choose with --malignant-column."
            )
    sides = [role for role in ("spacing", "spacing rows", "spacing columns") if role in table.columns]
    values = [_millimetres(table, labels, role, known[role], options, layout) for role in sides if known[role]]
    if sides and len(values) == len(sides) and None not in values:
        spacing = (values[0] or math.nan, values[-1] or math.nan)
    return replace(labels, truth=TRUTHS.get(known.get("malignant", "").casefold(), ""), spacing=spacing)


def _unit(table: Table, role: str, options: Options) -> float:
    """Millimetres in one unit of a column."""
    unit = options.spacing_unit or ("cm" if _plain(table.columns[role].name).endswith("cm") else "mm")
    return 10.0 if unit == "cm" else 1.0


def _millimetres(table: Table, labels: Labels, role: str, text: str, options: Options, layout: Layout) -> float | None:
    if re.fullmatch(r"[0-9]*,[0-9]+", text):  # a decimal comma
        text = text.replace(",", ".")
    try:
        side = float(text) * _unit(table, role, options)
    except ValueError:
        side = math.nan
    if math.isfinite(side) and 0 < side <= 10:
        return side
    layout.faults.append(
        f"{table.place(labels, role)}: {text[:40]!r} must be a number above 0, at most 10 mm; mend it."
    )
    return None


def _check_spacing(table: Table, options: Options, layout: Layout) -> None:
    """Pixel sizes that are not plausible: faults, or a remark where the user has given the unit."""
    low, high = PLAUSIBLE
    odd = [
        (labels.row, side)
        for labels in table.labels.values()
        for side in (labels.spacing or ())[:2]
        if not low <= side <= high
    ]
    if not odd:
        return
    name = next(column.name for role, column in table.columns.items() if role.startswith("spacing"))
    rows = sorted({row for row, _ in odd})
    if options.spacing_unit:
        layout.remarks.add(f"pixel sizes are not from {low} to {high} mm", *(f"row {row}" for row in rows))
        return
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    layout.faults.append(
        f"{table.file}: column {name}: a pixel of {odd[0][1]:.4g} mm is not plausible in ultrasound, where it has "
        f"{low} to {high} mm (row {', '.join(map(str, rows[:8]))}{more}); mend the table, give the unit with "
        "--spacing-unit cm or mm, or --spacing-column none."
    )
