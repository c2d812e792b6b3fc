"""Files are written beside their place and renamed: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from thyroid_jax.errors import InputError


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step; on any failure (a full disk, say) the old file stays and no fragment is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    """:func:`write_bytes` for text, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """:func:`write_bytes` for a JSON value, indented. NaN and infinity are refused: JSON has neither."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str, *, largest: int = 64 << 20) -> Any:
    """Read a JSON file of at most ``largest`` bytes; a missing, oversized or malformed one raises :class:`InputError`.

    NaN and infinity, which Python's reader would let through, count as malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > largest:
        raise InputError(f"{path}: {path.stat().st_size} bytes, more than the {largest} that such a file may have.")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:  # wrong bytes, wrong syntax, a number or a nesting beyond Python's limits
        raise InputError(f"{path}: not valid JSON ({error}).") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")
