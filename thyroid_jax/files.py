"""Files are written beside their place and renamed: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thyroid_jax.errors import InputError, names_a_full_disk


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step, in a folder that is made where it is missing.

    On any failure, such as a full disk, the old file stays and no fragment is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with names_a_full_disk(path):
        _write_beside_and_rename(path, content)


def check_writable(folder: Path, name: str) -> None:
    """Raise :class:`InputError` that begins with ``name`` unless ``folder`` can be written into, or be made.

    A file is written there that the system removes at once, or where the folder would be made.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(
            f"{name}: {there} cannot be written into ({error.strerror}). Choose a folder that you may write to."
        ) from error


def remove_fragments(folder: Path) -> None:
    """Remove from ``folder`` the fragments of files that a killed process did not finish writing."""
    for fragment in folder.glob(f".*{_FRAGMENT}*"):
        fragment.unlink()


_FRAGMENT = ".writing-"


def _write_beside_and_rename(path: Path, content: bytes) -> None:
    if path.is_dir():  # the rename would name the fragment instead
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        # Of the name as much as leaves room for the rest, in characters of up to four bytes.
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}{_FRAGMENT}")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
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
    """Read a JSON file of at most ``largest`` bytes.

    A missing, larger or malformed file raises :class:`InputError`. NaN and infinity count as malformed, although
    Python's reader accepts them.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > largest:
        raise InputError(f"{path}: {path.stat().st_size} bytes, more than the {largest} that such a file may have.")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # bytes, syntax, a number or a nesting beyond Python's limits
        raise InputError(f"{path}: not valid JSON ({error}).") from error


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the ``with`` block; :class:`InputError` when another process holds it.

    The lock is that of the file ``.lock`` in the folder, which is removed with it. The system releases it when this
    process ends, even when it is killed; a file that is left then locks nothing.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"{folder}: another process is writing into this folder. Wait for it, or name another folder."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows removes it after the release
            (folder / LOCK).unlink(missing_ok=True)  # one who has opened it already sees that it is gone
        lock.release()


LOCK = ".lock"
