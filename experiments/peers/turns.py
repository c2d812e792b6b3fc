"""Two processes that take turns: lines over pipes, a number in, JSON out.

The parent writes ``WORD NUMBER``, such as ``go 10``. The child does that and answers with one line of JSON, or with
``{"error": ...}`` where it failed; it stays alive either way. A child reads from standard input until it is closed.
This file needs the standard library alone: both sides import it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

LONGEST = 1e6
"""seconds: a longer wait overflows the clock of some systems"""
READY = "ready"
"""first line of a child, when its imports are done"""


def serve(commands: Mapping[str, Callable[[int], Any]], lines: Iterable[str], answer: TextIO) -> None:
    """The child's loop: answer every line until there is none.

    ``commands`` maps a word to a function from the line's number to what JSON can hold. An unknown word, a bad number
    and any exception give ``{"error": "TYPE: first line of the message"}``; the traceback goes to standard error.
    """
    for line in lines:
        try:
            word, number = line.split()
            reply = commands[word](int(number))
        except Exception as error:  # whatever a framework raises: the others go on
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"}
        print(json.dumps(reply), file=answer, flush=True)


def private_output() -> TextIO:
    """A handle of standard output for :func:`serve`; what a library prints goes to standard error from now on."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answer


class Child(NamedTuple):
    """A started child: its name, process, and the lines that it printed (None at the end)."""

    name: str
    process: subprocess.Popen
    printed: queue.Queue


def start(name: str, words: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start a child; its standard error is the parent's."""
    process = subprocess.Popen(
        list(words),
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own: what it starts can be ended with it
    )
    printed: queue.Queue = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            printed.put(line)
        printed.put(None)

    threading.Thread(target=read, daemon=True).start()
    return Child(name, process, printed)


def answered(child: Child, seconds: float) -> Any:
    """The child's next answer; ``{"error": ...}`` where it ended, or took more than ``seconds``."""
    try:
        line = child.printed.get(timeout=min(max(seconds, 0.1), LONGEST))
    except queue.Empty:
        return {"error": "no answer in time"}
    if line is None:
        return {"error": f"the process ended, status {child.process.wait()}; its message stands above"}
    try:
        return json.loads(line)
    except ValueError:
        return {"error": f"not an answer: {line[:200]!r}"}


def tell(child: Child, word: str, number: int) -> None:
    """Write one line to the child. Where the child has ended, :func:`answered` says so."""
    with contextlib.suppress(BrokenPipeError):
        child.process.stdin.write(f"{word} {number}\n")
        child.process.stdin.flush()


def ask(child: Child, word: str, number: int, seconds: float) -> Any:
    """Write one line to the child and wait for its answer at most ``seconds``."""
    tell(child, word, number)
    return answered(child, seconds)


def stop(child: Child, seconds: float = 10.0) -> None:
    """Close the child's input and wait for its end; kill it and its own children where that takes too long."""
    with contextlib.suppress(BrokenPipeError):
        child.process.stdin.close()
    try:
        child.process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()


def failed(reply: Any) -> str:
    """The error in a reply, or ''."""
    return reply.get("error", "") if isinstance(reply, dict) else ""


def timed(steps: Callable[[int], float]) -> Callable[[int], dict[str, float]]:
    """A command that takes steps: ``steps(n)`` takes n, waits for the device, and returns the last objective.

    ``cpu_seconds`` is the time of all its threads on the CPU.
    """

    def go(number: int) -> dict[str, float]:
        started, busy = time.perf_counter(), time.process_time()
        objective = steps(number)
        cpu = time.process_time() - busy
        return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu, "objective": objective}

    return go


def first_step(prepare: Callable[[], None], steps: Callable[[int], float]) -> Callable[[int], dict[str, float]]:
    """The first command: prepare and take one step. ``seconds`` is the time of both, compilation included."""

    def first(_: int) -> dict[str, float]:
        started = time.perf_counter()
        prepare()
        objective = steps(1)
        return {"seconds": time.perf_counter() - started, "objective": objective}

    return first


def peak_mib() -> float:
    """Highest resident memory of this process so far, in MiB; on Linux, where ru_maxrss is in KiB."""
    import resource

    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
