"""A sheet of an untrusted Excel table: sizes are checked before anything is unpacked, and entities refused."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from openpyxl import load_workbook
from openpyxl.utils import range_boundaries
from openpyxl.worksheet.formula import ArrayFormula, DataTableFormula

from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes

LARGEST_TABLE = 8 << 20  # bytes; a table of some hundred cases has 40 KiB
LARGEST_PART = 32 << 20  # bytes of a part of the table when unpacked; the sheet of some hundred cases has 300 KiB
LARGEST_WHOLE = 64 << 20  # bytes of all parts
MOST_PARTS = 64
LONGEST_REASON = 200  # characters of another library's message, which may repeat the file's bytes
MOST_ROWS = 1 << 16
MOST_COLUMNS = 256


def first_sheet(table: Path, name: str = "") -> list[tuple[object, ...]]:
    """The values of the first sheet, or of the one called ``name``, row by row, the header first.

    A formula is given as its text, "=...": no label. Raises :class:`InputError` for a table that is too large, damaged,
    empty, has more than 256 columns or no such sheet, or declares entities. Its message says what is wrong, but not the
    file's name: the caller knows it.
    """
    return _values(_checked(table), name)


def sheet_names(table: Path) -> list[str]:
    """The names of the sheets, in their order. Raises :class:`InputError` as :func:`first_sheet` does."""
    with _workbook(_checked(table)) as workbook:
        return [sheet.title for sheet in workbook.worksheets]


def merged_cells(table: Path, name: str = "") -> list[tuple[range, range]]:
    """(rows, columns) of the merged cells of the first sheet, or of the one called ``name``, both counted from 1.

    Excel keeps a value in the first of them only: the others read as empty. Raises :class:`InputError` as
    :func:`first_sheet` does.
    """
    packed = _checked(table)
    with _workbook(packed) as workbook:
        sheet = workbook[name] if name else workbook.worksheets[0]
        with zipfile.ZipFile(packed) as parts:
            content = parts.read(sheet._worksheet_path)  # openpyxl says it only when it keeps all cells in memory
    areas = re.findall(rb"<(?:\w+:)?mergeCell\b[^>]*\bref=[\"']([A-Z]{1,3}\d{1,7}:[A-Z]{1,3}\d{1,7})", content)
    edges = sorted(range_boundaries(area.decode()) for area in areas)
    return [(range(top, bottom + 1), range(left, right + 1)) for left, top, right, bottom in edges]


def cell_text(value: object) -> str:
    """A cell as text without superfluous white space: 3 and 3.0 are "3", and an empty cell is "".

    A formula of a whole range, which openpyxl gives as an object, is a text that begins with = as other formulas do.
    """
    if isinstance(value, ArrayFormula | DataTableFormula):
        value = f"={str(getattr(value, 'text', None) or '').removeprefix('=')}"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else " ".join(str(value).split())


def _checked(table: Path) -> io.BytesIO:
    """The table packed again from parts of known size without entities; openpyxl checks neither."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(table, largest=LARGEST_TABLE))) as parts:
            if len(parts.infolist()) > MOST_PARTS:
                raise InputError(f"file: {len(parts.infolist())} parts, a table has at most {MOST_PARTS}")
            if (whole := sum(part.file_size for part in parts.infolist())) > LARGEST_WHOLE:
                raise InputError(f"file: {whole} bytes when unpacked, a table has at most {LARGEST_WHOLE}")
            held = {part.filename: _unpacked(parts, part) for part in parts.infolist()}
    except InputError:
        raise
    except Exception as error:  # a damaged archive ends in one of many exception types
        raise InputError(f"file: not a whole Excel table ({str(error)[:LONGEST_REASON]})") from error
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as parts:
        for name, content in held.items():
            parts.writestr(name, content)
    return packed


def _unpacked(parts: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    size, name = part.file_size, part.filename[:80]
    if size > LARGEST_PART:
        raise InputError(f"{name}: {size} bytes when unpacked, a part of the table has at most {LARGEST_PART}")
    with parts.open(part) as file:
        content = file.read(size + 1)  # the limit keeps zipfile from unpacking more than the part declares
    _refuse_entities(name, content)
    return content


class _Nothing:
    """What a parser builds when its file is only checked."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Ignore the start of an element."""

    def end(self, tag: str) -> None:
        """Ignore its end."""

    def data(self, text: str) -> None:
        """Ignore its text."""

    def close(self) -> None:
        """Give nothing."""


def _refuse_entities(name: str, content: bytes) -> None:
    parser = DefusedXMLParser(target=_Nothing(), forbid_dtd=True)
    try:
        parser.feed(content)
        parser.close()
    except ParseError:
        return  # not XML: openpyxl will say so if it is needed
    except DefusedXmlException as error:
        raise InputError(
            f"{name}: declares a document type or entities ({type(error).__name__}), which is refused"
        ) from error


@contextlib.contextmanager
def _workbook(table: io.BytesIO) -> Iterator[Any]:
    """The workbook; whatever openpyxl raises, also in the block, becomes an :class:`InputError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and extensions that are not read
            workbook = load_workbook(table, read_only=True, data_only=False)
            yield workbook
            workbook.close()
    except InputError:
        raise
    except Exception as error:  # openpyxl raises whatever its XML and number readers raise
        raise InputError(f"file: not a whole Excel table ({str(error)[:LONGEST_REASON]})") from error


def _values(table: io.BytesIO, name: str) -> list[tuple[object, ...]]:
    with _workbook(table) as workbook:
        titles = [sheet.title for sheet in workbook.worksheets]
        if name and name not in titles:
            raise InputError(f"sheet {name}: is not there; the table has {', '.join(titles)[:LONGEST_REASON]}")
        sheet = workbook.worksheets[titles.index(name) if name else 0]
        sheet.reset_dimensions()  # the sheet may hold more rows than it declares
        rows = list(islice(sheet.iter_rows(max_col=MOST_COLUMNS + 1, values_only=True), MOST_ROWS + 1))
    noun = f"sheet {name}" if name else "first sheet"
    if len(rows) > MOST_ROWS:
        raise InputError(f"rows: the {noun} has more than {MOST_ROWS}")
    if any(row[MOST_COLUMNS] is not None for row in rows if len(row) > MOST_COLUMNS):
        raise InputError(f"columns: the {noun} has more than {MOST_COLUMNS}; delete those that are not needed")
    if not rows:
        raise InputError(f"rows: the {noun} is empty")
    return [row[:MOST_COLUMNS] for row in rows]
