"""The one record that every data set becomes, and the card that says what its labels mean.

A reader turns an original download into :class:`Record` values; :mod:`data_prep.builder` writes them;
``thyroid_jax.data.source`` reads them back. Nothing downstream knows which data set a record came from.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Record:
    """One ultrasound image with whatever labels it has. A label that is missing is None (or empty), never a made-up
    value.

    image         uint8[h w], one channel, cropped to the scan, burned-in overlays blanked
    mask          bool[h w], the reference outline of all nodules, or None
    reader_masks  bool[h w] each, when several readers outlined the image; () otherwise
    grade         index into ``Card.grades``, or None
    reader_grades the same from each reader; () when there are none
    malignant     proven or, where the card says so, presumed; None when unknown
    descriptors   written findings of the report, e.g. {"echogenicity": "hypoechogenicity"}; missing ones are left out
    spacing       millimetres per pixel (rows, columns); NaN when unknown
    """

    case: str
    group: str
    source: str
    image: np.ndarray
    mask: np.ndarray | None = None
    reader_masks: tuple[np.ndarray, ...] = ()
    grade: int | None = None
    reader_grades: tuple[int, ...] = ()
    malignant: bool | None = None
    descriptors: Mapping[str, str] = field(default_factory=dict)
    spacing: tuple[float, float] = (math.nan, math.nan)

    @property
    def content(self) -> str:
        """Hash of the pixels: records with the same value show the same image and must never be on two sides of a split."""
        head = f"{self.image.shape[0]}x{self.image.shape[1]}:".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.image).tobytes()).hexdigest()[:32]


@dataclass(frozen=True)
class Card:
    """What a data set is: printed by ``check``, stored beside the records, shown in reports.

    grades    ordered names of the grade classes, least suspicious first; () when the set has no grade
    grouping  what one group is (patient, case, ...); splits never cut through a group
    expected  counts of the whole original, e.g. {"images": 480}; a build says where it differs
    """

    name: str
    title: str
    source: str
    licence: str
    labels: str
    grouping: str
    grades: tuple[str, ...] = ()
    grade_system: str = ""
    faults: tuple[str, ...] = ()
    expected: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Notes:
    """What a reader has to tell besides its records.

    counts   running totals by name, in the order in which they are printed
    dropped  (what, why) of everything left out on purpose: a known fault of the data set
    faults   messages about files that cannot be used; any fault stops a build, after all of them have been found
    """

    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def problems_of(record: Record, card: Card) -> list[str]:
    """What makes a record unusable or suspicious, in words; [] when nothing does."""
    problems = []
    for what, mask in (
        ("mask", record.mask),
        *((f"mask of reader {i + 1}", one) for i, one in enumerate(record.reader_masks)),
    ):
        if mask is None:
            continue
        if mask.shape != record.image.shape:
            problems.append(f"{what} is {mask.shape}, image is {record.image.shape}")
        if what == "mask" and not mask.any():
            problems.append("mask is empty; a record without outline has None")
    for what, grade in (("grade", record.grade), *(("grade of a reader", one) for one in record.reader_grades)):
        if grade is not None and not 0 <= grade < len(card.grades):
            problems.append(f"{what} is {grade}, but there are {len(card.grades)} classes")
    if record.image.size and record.image.min() == record.image.max():
        problems.append("image is one grey value")
    if any(side <= 0 for side in record.spacing):
        problems.append(f"spacing is {record.spacing}")
    return problems
