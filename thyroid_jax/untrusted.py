"""Files of strangers: only regular files are read, of limited size, and XML without entities or document types."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from thyroid_jax.errors import InputError


def is_there(path: Path) -> bool:
    """Whether the name is there, also as a link that leads nowhere: reading such a file is a fault, not a gap."""
    return os.path.lexists(path)


def read_bytes(path: Path, *, largest: int) -> bytes:
    """The content of a regular file of at most ``largest`` bytes; a link to one is followed.

    A pipe, a device or a folder is refused without waiting for it. Raises :class:`InputError`, whose message does not
    name the file: the caller knows it.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise InputError(f"file: {size} bytes, such a file has at most {largest}")
        content = file.read(largest + 1)
    if len(content) > largest:
        raise InputError(f"file: grows while it is read, such a file has at most {largest} bytes")
    return content


def read_start(path: Path, count: int) -> bytes:
    """The first ``count`` bytes of a regular file of any size, fewer if it is shorter; a link to one is followed.

    Raises :class:`InputError` for what :func:`read_bytes` refuses, except for a large file.
    """
    with _opened(path) as file:
        return file.read(count)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened to be read; what goes wrong before it is closed is an :class:`InputError`."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise InputError("file: is a link that leads nowhere" if path.is_symlink() else "file: is not there") from error
    except (OSError, ValueError) as error:
        raise InputError(f"file: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InputError("file: is not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        raise InputError(f"file: cannot be read ({error.strerror or error})") from error
    finally:
        os.close(handle)


def read_xml(path: Path, *, largest: int) -> Element:
    """The root of an XML file of at most ``largest`` bytes that declares neither a document type nor entities.

    Needs the ``data`` extra (defusedxml). Raises :class:`InputError`, whose message does not name the file.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    content = read_bytes(path, largest=largest)
    try:
        return fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise InputError(
            f"XML: declares a document type or entities ({type(error).__name__}), which is refused"
        ) from error
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise InputError(f"XML: not well-formed ({error})") from error
