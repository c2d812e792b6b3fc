"""SIGTERM and SIGINT ask a training to stop after the step in hand."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = {signal.SIGTERM: 75, signal.SIGINT: 130}
"""exit status of a script that such a signal has stopped: EX_TEMPFAIL ("try again later"), and 128 + 2 as in shells"""


class Asked:
    """Whether a signal has asked to stop; ``signal`` is that signal, or None."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Whether there was a signal."""
        return self.signal is not None


@contextmanager
def heeded() -> Iterator[Asked]:
    """Note the first SIGTERM or SIGINT inside the ``with`` block; the second has its default effect and ends at once.

    Afterwards the handlers are those of before. A signal that the process ignores stays ignored, as SIGINT does in
    background jobs of a shell. Outside the main thread no handler can be installed: nothing is ever asked there.
    """
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        asked.signal = signal.Signals(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        text = f"\n{asked.signal.name}: finishing the step and writing a checkpoint; a second signal ends at once\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())  # print is not reentrant

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in STATUS}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, note)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed by Python
