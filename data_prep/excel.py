"""The first sheet of an untrusted Excel table: sizes are checked before anything is unpacked, and entities refused."""

from __future__ import annotations

import io
import warnings
import zipfile
from itertools import islice
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from openpyxl import load_workbook

from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes

LARGEST_TABLE = 1 << 20  # bytes; a table of some hundred cases has 40 KiB
LARGEST_PART = 2 << 20  # bytes of a part of the table when unpacked; its sheet has some 300 KiB
MOST_PARTS = 64
LONGEST_REASON = 200  # characters of another library's message, which may repeat the file's bytes
MOST_ROWS = 4096
MOST_COLUMNS = 64


def first_sheet(table: Path) -> list[tuple[object, ...]]:
    """The values of the first sheet row by row, the header first. A formula is given as its text, "=...": no label.

    Raises :class:`InputError` for a table that is too large, damaged, empty, or declares entities. Its message says
    what is wrong, but not the file's name: the caller knows it.
    """
    return _values(_checked(table))


def cell_text(value: object) -> str:
    """A cell as text without superfluous white space: 3 and 3.0 are "3", and an empty cell is ""."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else " ".join(str(value).split())


def _checked(table: Path) -> io.BytesIO:
    """The table packed again from parts of known size without entities; openpyxl checks neither."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(table, largest=LARGEST_TABLE))) as parts:
            if len(parts.infolist()) > MOST_PARTS:
                raise InputError(f"file: {len(parts.infolist())} parts, a table has at most {MOST_PARTS}")
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


def _refuse_entities(name: str, content: bytes) -> None:
    try:
        fromstring(content, forbid_dtd=True)
    except ParseError:
        return  # not XML: openpyxl will say so if it is needed
    except DefusedXmlException as error:
        raise InputError(
            f"{name}: declares a document type or entities ({type(error).__name__}), which is refused"
        ) from error


def _values(table: io.BytesIO) -> list[tuple[object, ...]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on styles and extensions that are not read
            workbook = load_workbook(table, read_only=True, data_only=False)
            sheet = workbook.worksheets[0]
            sheet.reset_dimensions()  # the sheet may hold more rows than it declares
            rows = list(islice(sheet.iter_rows(max_col=MOST_COLUMNS, values_only=True), MOST_ROWS + 1))
            workbook.close()
    except Exception as error:  # openpyxl raises whatever its XML and number readers raise
        raise InputError(f"file: not a whole Excel table ({str(error)[:LONGEST_REASON]})") from error
    if len(rows) > MOST_ROWS:
        raise InputError(f"rows: the first sheet has more than {MOST_ROWS}")
    if not rows:
        raise InputError("rows: the first sheet is empty")
    return rows
