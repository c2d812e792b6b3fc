"""The one error a user causes: something they handed over cannot be used, and the message says what, where and what to
do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path


class InputError(ValueError):
    """A file, folder, table or setting that cannot be used.

    The text names the file (and field), says what is wrong and what to do about it. Scripts print it and exit with
    status 2; it is never raised for a fault of the library itself.
    """


def raise_all(problems: Sequence[str], heading: str) -> None:
    """Raise one :class:`InputError` that lists every problem, so that a user mends all of them at once; nothing when
    there is none.
    """
    if problems:
        raise InputError("\n  ".join([heading, *problems]))


@contextlib.contextmanager
def names_a_full_disk(place: Path | str) -> Iterator[None]:
    """Turn what libraries make of a full disk (RuntimeError, ValueError, an OSError without a file) into one OSError
    naming ``place``.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        full = (
            any(sign in str(error) for sign in ("No space left", "RESOURCE_EXHAUSTED"))
            or getattr(error, "errno", 0) == errno.ENOSPC
        )
        if not full or getattr(error, "filename", None):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error


_ADVICE = {
    errno.ENOSPC: "Free some space or choose another folder, then run the same command again.",
    errno.EDQUOT: "Free some space or choose another folder, then run the same command again.",
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EROFS: "Choose a folder that you may write to.",
    errno.EEXIST: "Choose another name, or move away what is there.",
    errno.ENOTDIR: "Name a folder.",
    errno.EISDIR: "Name a file.",
}


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a script's ``main``: an :class:`InputError`, a full disk or an unusable path prints one message and exits 2,
    no traceback.
    """

    @wraps(main)
    def wrapped(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            sys.exit(_say(error))
        except OSError as error:
            if error.errno not in _ADVICE:
                raise
            sys.exit(_say(f"{error.filename or 'output'}: {error.strerror}. {_ADVICE[error.errno]}"))

    return wrapped


def _say(message: object) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
