"""SIGTERM and SIGINT ask a training to stop after the step in hand. Outside a training they end a script at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
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
        for other in handled:
            signal.signal(other, signal.SIG_DFL)
        _tell(f"\n{asked.signal.name}: finishing the step and writing a checkpoint; a second signal ends at once\n")

    with _handled_by(note) as handled:
        yield asked


@contextmanager
def at_once() -> Iterator[None]:
    """Inside the ``with`` block, but not within :func:`heeded`, SIGTERM and SIGINT end the process with a line.

    The exit status is that of :data:`STATUS`; whatever writes into a run folder bears such an end. Python's
    KeyboardInterrupt will not do: raised in a callback of JAX it is printed and dropped, and the process goes on.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        _tell(f"\n{name}: stopped; the same command goes on from the last checkpoint, or begins again\n")
        os._exit(STATUS[signal.Signals(number)])

    with _handled_by(leave):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[list[signal.Signals]]:
    """Handle the signals of :data:`STATUS` inside the ``with`` block, and yield those that are handled."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in STATUS}
        before = {number: earlier for number, earlier in before.items() if earlier is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield list(before)
    finally:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)  # None: not installed by Python


def _tell(text: str) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())  # print is not reentrant
