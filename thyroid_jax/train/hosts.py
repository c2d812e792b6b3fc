"""One training by several processes: how they find each other, what they agree on, and how they end.

Every process holds all examples and feeds its rows of each batch. Process 0 alone reads and writes the run folder; the
others get from it what they need. Whatever starts a computation over all devices must be decided alike in all
processes: a process that waits alone for a collective operation waits for ever. With one process every function here
gives back what it is given.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thyroid_jax.errors import InputError, Interrupted
from thyroid_jax.shapes import Array
from thyroid_jax.train.signals import STATUS

T = TypeVar("T")

LOST = 69
"""exit status of a process whose run has lost another process: EX_UNAVAILABLE"""


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """How this process trains a run together with others. No setting of the run: it may change at every resumption."""

    distributed: str = ""
    """train together with other processes: `auto` on SLURM, Open MPI, Kubernetes and TPU pods, or the HOST:PORT of
    process 0; empty for this process alone"""
    processes: int = 0
    """number of processes that train together; 0 where the cluster says it"""
    process: int = -1
    """number of this process, from 0; -1 where the cluster says it"""
    heartbeat_seconds: int = 100
    """a process that is silent for so long is taken for dead, and the others end"""

    def __post_init__(self):
        if not self.distributed and (self.processes, self.process, self.heartbeat_seconds) != (0, -1, 100):
            raise InputError(
                "processes, process and heartbeat_seconds need distributed: give --distributed auto, or HOST:PORT."
            )
        if self.processes < 0 or self.process < -1 or self.process >= self.processes > 0:
            raise InputError(
                f"process is {self.process} and processes {self.processes}; processes are numbered from 0 to "
                f"{max(self.processes, 1) - 1}."
            )
        if self.heartbeat_seconds < 1:
            raise InputError(f"heartbeat_seconds is {self.heartbeat_seconds}; it must be at least 1.")
        host, _, port = self.distributed.rpartition(":")
        if self.distributed not in ("", "auto") and not (host and port.isascii() and port.isdigit()):
            raise InputError(f"distributed is {self.distributed!r}; give auto, or the HOST:PORT of process 0.")


# --- beginning and end ------------------------------------------------------------------------------------------------


def join(options: HostOptions) -> None:
    """Meet the other processes, as the options say; nothing for one process. Call it before JAX's devices start.

    Raises :class:`InputError` where the cluster does not say who takes part. Where not all processes have come after
    :data:`MEETING` seconds, this one ends with a message and status 2: JAX would abort it with a trace of its own.
    """
    if not options.distributed:
        return
    missing = (
        f"--distributed {options.distributed}: after {MEETING:g} s not all processes of the run had come. Each needs "
        "the address of process 0, the same --processes, and a number of its own as --process."
    )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours: see thyroid_jax.train.signals
    try:
        with _ended_after(MEETING, missing):
            jax.distributed.initialize(
                None if options.distributed == "auto" else options.distributed,
                options.processes or None,
                None if options.process < 0 else options.process,
                heartbeat_timeout_seconds=options.heartbeat_seconds,
                initialization_timeout=int(MEETING) + 60,
            )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--distributed {options.distributed}: the processes do not find each other ({_first_line(error)}). Where "
            "no cluster says who takes part, give every process --distributed HOST:PORT of process 0, --processes with "
            "their number and --process with its own."
        ) from error


MEETING = 300.0
"""seconds in which all processes of a run must have come"""


@contextmanager
def _ended_after(seconds: float, message: str) -> Iterator[None]:
    """End the process with a message and status 2 where the ``with`` block takes longer; it cannot be interrupted."""

    def leave() -> None:
        print(f"error: {message}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def together() -> Iterator[None]:
    """Inside the ``with`` block, an operation that fails because another process is gone raises :class:`Interrupted`.

    Its status is :data:`LOST`. Other errors pass unchanged.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # a failed collective operation of gloo is a ValueError
        if not several() or isinstance(error, InputError) or not any(mark in str(error) for mark in _GONE):
            raise
        raise Interrupted(
            f"process {jax.process_index()}: another process of this run has ended or is not reached; its own message "
            "says why. The same command, with any number of processes, goes on from the last checkpoint "
            f"({_first_line(error)})",
            status=LOST,
        ) from error


_GONE = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination service", "heartbeat")
"""in the text of an error that another process has caused"""


def leaves_at_once(main: Callable[..., None]) -> Callable[..., None]:
    """Wrap a script's ``main``: after a fault, a process of several ends without waiting for the others.

    JAX waits at the exit until all processes are there, while these wait for the one that has failed. Process 0 leaves
    last: with it goes the service that the others need for their own end. After success and after a signal that all
    have heeded, JAX's wait is right.
    """

    @wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except BaseException as error:
            status = error.code if isinstance(error, SystemExit) else 1
            if not jax.distributed.is_initialized() or status in (None, 0, *STATUS.values()):
                raise
            if not isinstance(error, SystemExit):
                traceback.print_exc()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            if first():
                time.sleep(_GRACE)
            os._exit(status if isinstance(status, int) else 1)

    return wrapped


_GRACE = 2.0  # seconds


# --- what is common ---------------------------------------------------------------------------------------------------


def several() -> bool:
    """Whether other processes take part."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is process 0, which writes."""
    return jax.process_index() == 0


def decided_by_first(decide: Callable[[], T]) -> T:
    """What ``decide`` returns in process 0 (JSON values), in every process; it is not called in the others.

    Where it raises :class:`InputError`, every process raises it.
    """
    if not several():
        return decide()
    answer: dict[str, Any] = {}
    if first():
        try:
            answer = {"value": decide()}
        except InputError as error:
            answer = {"error": str(error)}
    answer = json.loads(_told(json.dumps(answer).encode()))
    if "error" in answer:
        raise InputError(answer["error"])
    return answer["value"]


@contextmanager
def held_by_first(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Hold a lock of process 0 inside the ``with`` block; where it is not free, every process raises its error."""
    with ExitStack() as stack:
        decided_by_first(lambda: stack.enter_context(lock))
        yield


def as_in_first(tree: T) -> T:
    """The arrays of process 0 in every process, on the host; ``tree`` has the same shapes in all."""
    if not several():
        return tree
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    numbers = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)
    told = _broadcast(jax.device_get(numbers))
    return jax.tree.map(lambda leaf, new: jax.random.wrap_key_data(new) if is_key(leaf) else new, tree, told)


def most(value: int) -> int:
    """The largest of the processes' values."""
    if not several():
        return value
    from jax.experimental.multihost_utils import process_allgather

    return int(process_allgather(np.int32(value)).max())


def check_same(facts: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` in every process unless all have the same facts (JSON values) as process 0."""
    if not several():
        return
    theirs = decided_by_first(lambda: dict(facts))
    mine = json.loads(json.dumps(dict(facts)))
    differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if most(len(differing)):
        found = f"{', '.join(differing)} differ" if differing else "another process differs, and its message says where"
        raise InputError(
            f"process {jax.process_index()}: all processes of a run need the same command and data as process 0; "
            f"{found}."
        )


class Agreement:
    """Whether any process asks for something, decided at the same step in all of them.

    ``mesh`` are the devices of all processes. Each method is called by all processes in the same order.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._asked: Array | None = None

    def now(self, mine: bool) -> bool:
        """Whether any process asks at this moment; every process waits for the answer."""
        self._asked = None
        return bool(self._any(mine)) if several() else mine

    def later(self, mine: Callable[[], bool]) -> bool:
        """Whether any process asked in the call before this one; the devices need not wait for the hosts.

        With one process the answer is of this call. :meth:`now` forgets what was asked.
        """
        if not several():
            return mine()
        before, self._asked = self._asked, self._any(mine())
        return before is not None and bool(before)

    def _any(self, mine: bool) -> Array:
        local = np.full(len(self._mesh.local_devices), mine)
        rows = NamedSharding(self._mesh, PartitionSpec(*self._mesh.axis_names))
        return _largest(self._mesh)(jax.make_array_from_process_local_data(rows, local))


def _largest(mesh: Mesh) -> Callable[[Array], Array]:
    return _LARGEST.setdefault(
        mesh, jax.jit(partial(jnp.max, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))
    )


_LARGEST: dict[Mesh, Callable[[Array], Array]] = {}


def _told(content: bytes) -> bytes:
    """The bytes of process 0 in every process."""
    size = int(_broadcast(np.int32(len(content))))
    mine = np.frombuffer(content, np.uint8) if first() else np.zeros(size, np.uint8)
    return np.asarray(_broadcast(mine)).tobytes()


def _broadcast(tree: T) -> T:
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return broadcast_one_to_all(tree)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200].rstrip(".")
