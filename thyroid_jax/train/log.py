"""The run's log: one JSON line per measurement, and the same as a CSV table. Both always match the checkpoint from
which a run resumes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thyroid_jax.errors import InputError, names_a_full_disk
from thyroid_jax.files import write_text

Row = dict[str, Any]

OF_THE_MACHINE = (
    "images_per_second",
    "seconds_data",
    "seconds_step",
    "seconds_checkpoint",
    "seconds_evaluation",
    "device_bytes",
    "device_bytes_peak",
)
"""values of a row that depend on the machine and its load; all others are the same in every repetition of a run"""


def without_machine(row: Row) -> Row:
    """The row without the values of :data:`OF_THE_MACHINE`."""
    return {name: value for name, value in row.items() if name not in OF_THE_MACHINE}


def read_log(path: Path) -> list[Row]:
    """Every complete line of a log; a last line cut off by a kill is left out. A missing file gives no rows."""
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}: line {number} is not JSON ({error}); restore the file or remove that line."
            ) from error
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            raise InputError(
                f"{path}: line {number} is not a measurement with a step; restore the file or remove that line."
            )
        rows.append(row)
    return rows


class RunLog:
    """``log.jsonl`` and ``metrics.csv`` in a run folder.

    Rows of steps later than ``after`` are removed: a resumed run measures them again.
    """

    def __init__(self, folder: Path, *, after: int):
        self._jsonl, self._csv = folder / "log.jsonl", folder / "metrics.csv"
        self.rows = [row for row in read_log(self._jsonl) if row["step"] <= after]
        self._copies: list[Callable[[Row], None]] = []
        write_text(self._jsonl, "".join(map(_line, self.rows)))
        write_text(self._csv, table(self.rows))

    def copy_to(self, receive: Callable[[Row], None]) -> None:
        """Call ``receive`` with each further row, after it was written."""
        self._copies.append(receive)

    def add(self, row: Row) -> None:
        """Append a measurement; a value that is not finite is logged as null.

        Where the line cannot be written, as on a full disk, nothing of it is left.
        """
        row = {name: _finite(value) for name, value in row.items()}
        with names_a_full_disk(self._jsonl):
            _append_whole(self._jsonl, _line(row))
        self.rows.append(row)
        write_text(self._csv, table(self.rows))
        for receive in self._copies:
            receive(row)


class UnwrittenLog:
    """The rows of a log that another process writes."""

    def __init__(self, rows: list[Row]):
        self.rows = rows

    def add(self, row: Row) -> None:
        """Keep a measurement, as :meth:`RunLog.add` does."""
        self.rows.append({name: _finite(value) for name, value in row.items()})


def table(rows: list[Row]) -> str:
    """Rows as CSV; columns in the order in which they first appear, empty where a row lacks one. Without a row the
    text is empty.

    Values that are lists, such as histograms, stay in the JSON lines.
    """
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, list)))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _append_whole(path: Path, line: str) -> None:
    size = path.stat().st_size
    try:
        with open(path, "a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.truncate(path, size)
        raise


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
