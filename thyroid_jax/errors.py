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


class Interrupted(KeyboardInterrupt):
    """A signal has asked to stop, and the work has stopped where it can be continued.

    The text says how to continue. ``status`` is the exit status of a script that is stopped so. It is no ``Exception``,
    so that what handles faults does not take it for one.
    """

    def __init__(self, text: str, *, status: int):
        super().__init__(text)
        self.status = status


def raise_all(problems: Sequence[str], heading: str) -> None:
    """Raise one :class:`InputError` that lists every problem under the heading; do nothing when there is none.

    A user can then mend all of them at once.
    """
    if problems:
        raise InputError("\n  ".join([heading, *problems]))


FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""numbers of the errors of a full disk, a used-up quota, and a file larger than the process may write"""


@contextlib.contextmanager
def names_a_full_disk(place: Path | str) -> Iterator[None]:
    """Turn any error that a full disk causes in the ``with`` block into one OSError that names ``place``.

    A used-up quota and the largest size of a file count as a full disk. Libraries raise RuntimeError, ValueError or an
    OSError without a file name. Other errors pass unchanged.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        number = full_disk_in(error)
        if number is None or getattr(error, "filename", None):
            raise
        raise OSError(number, os.strerror(number), str(place)) from error


def full_disk_in(error: BaseException) -> int | None:
    """The number of the error of a full disk, or None for an error of another kind."""
    for number in FULL_DISK:
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return number
    return errno.ENOSPC if "RESOURCE_EXHAUSTED" in str(error) else None


_ADVICE = {
    errno.ENOSPC: "Free some space or choose another folder, then run the same command again.",
    errno.EDQUOT: "Free some space or choose another folder, then run the same command again.",
    errno.EFBIG: "Raise the limit of the size of a file or choose another folder, then run the same command again.",
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

    Such faults are :class:`InputError`, a full disk, and an output path that cannot be written. :class:`Interrupted`
    prints its text and exits with its own status. Every other error is a fault of the program and keeps its traceback.
    """

    @wraps(main)
    def wrapped(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
            sys.stdout.flush()
        except InputError as error:
            _exit_with_message(error)
        except Interrupted as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(stopped.status)
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
