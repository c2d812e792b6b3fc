"""The readers of data sets, one module each. A new data set needs one new file in this folder and nothing else.

A module defines ``CARD``, whose name is the module's, and ``read(source, notes)``, which yields records from the
original download.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.data.record import Card, Notes, Record


class Reader(NamedTuple):
    """The card of a data set, and the function that yields its records from the folder of the original.

    The function never writes into that folder. Counts, omissions and faults go to the notes.
    """

    card: Card
    read: Callable[[Path, Notes], Iterator[Record]]


def names() -> tuple[str, ...]:
    """The data sets that have a reader, in alphabetical order; none is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def reader_of(name: str) -> Reader:
    """The reader of the data set ``name``. Raises ``TypeError`` if its module has no ``read`` or no such ``CARD``."""
    module = importlib.import_module(f"{__name__}.{name}")
    card, read = getattr(module, "CARD", None), getattr(module, "read", None)
    if not (isinstance(card, Card) and card.name == name and callable(read)):
        raise TypeError(f"{module.__file__}: must hold CARD, a Card whose name is {name!r}, and read(source, notes)")
    return Reader(card, read)
