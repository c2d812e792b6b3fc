"""Tables of untrusted text: the rows of a CSV or Excel file, and rows as a mapping from column to text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes

LARGEST_CSV = 4 << 20  # bytes; the table of some thousand images has 200 KiB
MOST_ROWS = 1 << 16
LONGEST_HEADER = 1 << 16  # characters in which the delimiter is looked for

Row = tuple[int, Sequence[str]]


def table_rows(path: Path, faults: list[str], *, sheet: str = "", keep_breaks: bool = False) -> list[Row]:
    """(number, texts) of each row of a table that is not empty, the header first.

    A file called ``.xlsx`` is an Excel table, of which the first sheet is read, or the one called ``sheet``; any other
    is a CSV table, whose fields are separated by whichever of comma, semicolon and tab is most frequent in its header.
    Faults, errors and ``keep_breaks`` are those of :func:`csv_rows`.
    """
    if path.suffix.lower() != ".xlsx":
        if sheet:
            raise InputError(f"sheet {sheet}: a CSV table has no sheets; leave out --sheet")
        return csv_rows(path, faults, delimiter=None, keep_breaks=keep_breaks)
    from data_prep.excel import cell_text, first_sheet

    rows = [
        (number, [cell_text(value) for value in row]) for number, row in enumerate(first_sheet(path, sheet), start=1)
    ]
    filled: list[Row] = [(number, texts) for number, texts in rows if any(texts)]
    if not filled:
        raise InputError("rows: the table is empty")
    return filled


def csv_rows(path: Path, faults: list[str], *, delimiter: str | None = ",", keep_breaks: bool = False) -> list[Row]:
    """(number, texts) of each row of a CSV file that is not empty, the header first. Outer white space is removed.

    With ``delimiter`` None it is that of Excel's line "sep=;", or the most frequent one of the header outside quotes.
    Line breaks in the header become spaces. A row that has not as many fields as the header, or a line break in a field
    unless ``keep_breaks``, is left out and named in ``faults``. Raises :class:`InputError` for a file that is not
    regular, too large, neither UTF-8 nor UTF-16 with a mark, not CSV, or empty. Its message does not name the file: the
    caller knows it.
    """
    rows: list[Row] = []
    for number, texts in enumerate(_parsed(path, delimiter), start=1):
        texts = [text.strip() for text in texts]
        if not any(texts):
            continue
        if not rows:
            texts = [" ".join(text.split()) for text in texts]
        wide = len(rows[0][1]) if rows else len(texts)
        if len(texts) != wide:
            faults.append(f"{path.name}: row {number}: {len(texts)} fields, but the header has {wide}; mend the row.")
        elif not keep_breaks and any("\n" in text or "\r" in text for text in texts):
            faults.append(f"{path.name}: row {number}: a line break in a field; mend the row.")
        else:
            rows.append((number, texts))
    if not rows:
        raise InputError("rows: the table is empty")
    return rows


def _parsed(path: Path, delimiter: str | None) -> list[list[str]]:
    try:
        content = read_bytes(path, largest=LARGEST_CSV)
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        if delimiter is None:
            if named := re.match(r"sep=([,;\t])\r?\n", text, re.IGNORECASE):
                text = "\n" + text[named.end() :]  # an empty row in its place keeps the numbers of the others
            header = re.sub(r'"[^"]*"', "", text[:LONGEST_HEADER]).lstrip("\r\n ").partition("\n")[0]
            delimiter = named[1] if named else max(",;\t", key=header.count)
        parsed = list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise InputError(f"file: not a CSV table in UTF-8 ({error}); save it as CSV UTF-8") from error
    except csv.Error as error:
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
