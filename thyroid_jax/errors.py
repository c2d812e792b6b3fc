"""The one error a user causes: something they handed over cannot be used, and the message says what, where and what to do."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from functools import wraps


class InputError(ValueError):
    """A file, folder, table or setting that cannot be used.

    The text names the file (and field), says what is wrong and what to do about it. Scripts print it and exit with status 2;
    it is never raised for a fault of the library itself.
    """


def raise_all(problems: Sequence[str], heading: str) -> None:
    """Raise one :class:`InputError` that lists every problem, so that a user mends all of them at once; nothing when there is none."""
    if problems:
        raise InputError("\n  ".join([heading, *problems]))


def exits_cleanly(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a script's ``main``: an :class:`InputError` or a full disk prints one message and exits 2 instead of a traceback."""

    @wraps(main)
    def wrapped(*args, **kwargs) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            sys.exit(_say(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            advice = "Free some space or choose another folder, then run the same command again."
            sys.exit(_say(f"{error.filename or 'output'}: {error.strerror}. {advice}"))

    return wrapped


def _say(message: object) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
