"""Tables of untrusted text: the rows of a CSV or Excel file, and rows as a mapping from column to text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes

LARGEST_CSV = 4 << 20  # bytes; the table of some thousand images has 200 KiB
MOST_ROWS = 1 << 16

Row = tuple[int, Sequence[str]]


def table_rows(path: Path, faults: list[str]) -> list[Row]:
    """(number, texts) of each row of a table that is not empty, the header first.

    A file called ``.xlsx`` is an Excel table, of which the first sheet is read; any other is a CSV table, whose fields
    are separated by whichever of comma, semicolon and tab is most frequent in its header. Faults and errors are those
    of :func:`csv_rows`.
    """
    if path.suffix.lower() != ".xlsx":
        return csv_rows(path, faults, delimiter=None)
    from data_prep.excel import cell_text, first_sheet

    rows = [(number, [cell_text(value) for value in row]) for number, row in enumerate(first_sheet(path), start=1)]
    filled: list[Row] = [(number, texts) for number, texts in rows if any(texts)]
    if not filled:
        raise InputError("rows: the table is empty")
    return filled


def csv_rows(path: Path, faults: list[str], *, delimiter: str | None = ",") -> list[Row]:
    """(number, texts) of each row of a CSV file that is not empty, the header first. Outer white space is removed.

    With ``delimiter`` None it is the most frequent one of the header. A row that has not as many fields as the header,
    or a line break in a field, is left out and named in ``faults``. Raises :class:`InputError` for a file that is not
    regular, too large, not UTF-8, not CSV, or empty. Its message does not name the file: the caller knows it.
    """
    rows: list[Row] = []
    for number, texts in enumerate(_parsed(path, delimiter), start=1):
        texts = [text.strip() for text in texts]
        if not any(texts):
            continue
        wide = len(rows[0][1]) if rows else len(texts)
        if len(texts) != wide:
            faults.append(f"{path.name}: row {number}: {len(texts)} fields, but the header has {wide}; mend the row.")
        elif any("\n" in text or "\r" in text for text in texts):
            faults.append(f"{path.name}: row {number}: a line break in a field; mend the row.")
        else:
            rows.append((number, texts))
    if not rows:
        raise InputError("rows: the table is empty")
    return rows


def _parsed(path: Path, delimiter: str | None) -> list[list[str]]:
    try:
        text = read_bytes(path, largest=LARGEST_CSV).decode("utf-8-sig")
        if delimiter is None:
            header = text.lstrip().partition("\n")[0]
            delimiter = max(",;\t", key=header.count)
        parsed = list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"file: not a CSV table in UTF-8 ({error})") from error
    if len(parsed) > MOST_ROWS:
        raise InputError(f"rows: {len(parsed)}, the table has at most {MOST_ROWS}")
    return parsed


def by_column(rows: Iterable[Row], columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(number, {column: text}) of each row below the header that is not empty in all of ``columns``.

    The first of ``rows`` is the header. Raises :class:`InputError` when a column is missing or is there twice, or when
    no row is left. Its message does not name the file.
    """
    (_, names), *below = rows
    if missing := [column for column in columns if column not in names]:
        raise InputError(f"row 1: the table has no column {', '.join(missing)}")
    if twice := [column for column in columns if list(names).count(column) > 1]:
        raise InputError(f"row 1: the table has two columns {', '.join(twice)}")
    places = {column: list(names).index(column) for column in columns}
    found = [(number, {column: texts[place] for column, place in places.items()}) for number, texts in below]
    found = [(number, texts) for number, texts in found if any(texts.values())]
    if not found:
        raise InputError("rows: the table has a header but no case")
    return found
