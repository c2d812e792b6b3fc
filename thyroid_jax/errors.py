"""The one error that a user causes: an input cannot be used. Its message says what is wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import NoReturn


class InputError(ValueError):
    """A file, folder, table or setting that cannot be used.

    The text names the file (and field), says what is wrong and what to do about it. Scripts print it and exit with
    status 2; it is never raised for a fault of the library itself.
    """


def raise_all(problems: Sequence[str], heading: str) -> None:
    """Raise one :class:`InputError` that lists every problem under the heading; do nothing when there is none.

    A user can then mend all of them at once.
    """
    if problems:
        raise InputError("\n  ".join([heading, *problems]))


@contextlib.contextmanager
def names_a_full_disk(place: Path | str) -> Iterator[None]:
    """Turn any error that a full disk causes in the ``with`` block into one OSError that names ``place``.

    Libraries raise RuntimeError, ValueError or an OSError without a file name. Other errors pass unchanged.
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
    errno.EPERM: "Choose a folder that you may write to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EEXIST: "Choose another name, or move away what is there.",
    errno.ENOTDIR: "Name a folder.",
    errno.EISDIR: "Name a file.",
}


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a script's ``main``: a fault of the user's prints one message to stderr and exits with status 2.

    Such faults are :class:`InputError`, a full disk, and an output path that cannot be written. Every other error is a
    fault of the program and keeps its traceback.
    """

    @wraps(main)
    def wrapped(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
            sys.stdout.flush()
        except InputError as error:
            _exit_with_message(error)
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            if error.errno not in _ADVICE:
                raise
            _exit_with_message(f"{error.filename or 'output'}: {error.strerror}. {_ADVICE[error.errno]}")

    return wrapped


def _exit_with_message(message: object) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
