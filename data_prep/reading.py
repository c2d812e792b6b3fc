"""What all readers share: records are made by several threads and come in order, and faults name their file."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

Item = TypeVar("Item")
Made = TypeVar("Made")
REPLACE = "replace the file by the original"


def in_order(
    make: Callable[[Item, Notes], Made | None], items: Iterable[Item], notes: Notes, *, threads: int = 0
) -> Iterator[Made]:
    """What ``make`` makes of each item, a record as a rule, by several threads, in the order of the items.

    ``make`` gets an item and notes of its own, which are added to ``notes`` in the order of the items: the result is
    the same as that of one thread. It gives None for an item that has no record, and must not change anything that
    other calls read. ``threads`` is by default the number of processors, at most 8. At most twice as many results are
    held as there are threads.
    """
    threads = threads or min(8, os.cpu_count() or 1)
    waiting: deque[Future[tuple[Made | None, Notes]]] = deque()
    remaining = iter(items)

    def with_notes(item: Item) -> tuple[Made | None, Notes]:
        own = Notes()
        return make(item, own), own

    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting.extend(pool.submit(with_notes, item) for item in islice(remaining, 2 * threads))
            while waiting:
                made, own = waiting.popleft().result()
                waiting.extend(pool.submit(with_notes, item) for item in islice(remaining, 1))
                add(own, notes)
                if made is not None:
                    yield made
        finally:
            pool.shutdown(cancel_futures=True)


def add(found: Notes, notes: Notes) -> None:
    """Add the notes ``found`` to ``notes``."""
    notes.counts.update(found.counts)
    notes.dropped += found.dropped
    notes.remarks += found.remarks
    notes.faults += found.faults
    notes.folds |= found.folds


@contextlib.contextmanager
def fault_of(place: str, notes: Notes, advice: str = REPLACE) -> Iterator[None]:
    """Turn an :class:`InputError` in the ``with`` block into a fault of the file ``place``: "place: error; advice."."""
    try:
        yield
    except InputError as error:
        notes.faults.append(f"{place}: {error}; {advice}.")
