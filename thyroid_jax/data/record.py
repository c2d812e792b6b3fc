"""The record format of all data sets, the index entry of a record, and the card that describes a data set and its
labels.

A reader turns an original download into :class:`Record` values; :mod:`data_prep.builder` writes them;
``thyroid_jax.data.source`` reads them back. Nothing downstream knows which data set a record came from.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from thyroid_jax.errors import raise_all

DIGEST = 32  # hexadecimal digits of SHA-256 that are kept, 128 bits


@dataclass(frozen=True)
class Record:
    """One ultrasound image and its labels. A missing label is None (or empty), never a made-up value.

    case          name of this image, unique in the data set
    group         what must stay on one side of a split: a patient, or a case
    source        file of the original
    image         uint8[h w], one channel, cropped to the scan, burned-in overlays blanked
    mask          bool[h w], the reference outline of all nodules, or None
    reader_masks  bool[h w] each, when several readers outlined the image; () otherwise
    grade         index into ``Card.grades``, or None
    reader_grades the same from each reader; () when there are none
    malignant     proven or, where the card says so, presumed; None when unknown
    descriptors   written findings of the report, e.g. {"echogenicity": "hypoechogenicity"}; missing ones are left out
    spacing       millimetres per pixel (rows, columns); NaN when unknown
    official_test True where the publishers of the data set keep the image for testing; this part is never split again
    cleaning      what was done to the picture, step by step, e.g. ("cut to the scan, rows 20-330, columns 60-500",
                  "callipers filled in, 212 pixels"); () where it is as it was published
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
    official_test: bool = False
    cleaning: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """Hash of the pixels: records with the same value show the same image and must never be on two sides of a
        split.
        """
        return digest_of(self.image)

    @property
    def digest(self) -> str:
        """Hash of all values and pixels in the record; it does not depend on their encoding in a file.

        It changes with any field, and is the same on every machine and with every version of the libraries.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return digest_of(values | {"spacing": [float(side) for side in self.spacing]})


if TYPE_CHECKING:
    RecordSequence = Sequence[Record]
else:
    RecordSequence = Sequence  # a run-time type checker would read a record from disk to check its type


class Entry(NamedTuple):
    """A record's entry in the index of its data set; with it, the record need not be read.

    content    hash of the pixels, digest hash of everything in the record
    grade      name of the grade, None when unknown
    readers    number of readers who outlined or graded the image
    spaced     True when the size of a pixel is known
    """

    case: str
    group: str
    content: str
    digest: str
    grade: str | None = None
    malignant: bool | None = None
    has_mask: bool = False
    readers: int = 0
    spaced: bool = False
    official_test: bool = False


@dataclass(frozen=True)
class Card:
    """Description of a data set: it is printed by ``check``, stored beside the records, and shown in reports.

    name      small letters, digits and _, a letter first
    grades    ordered names of the grade classes, least suspicious first; () when the set has no grade
    grouping  what one group is (patient, case, ...); splits never cut through a group
    expected  counts of the complete original, e.g. {"images": 480}; a build reports differences
    access    how to get the original: "open download", "on request", ...
    holds     kinds of labels that it has: "outlines", "boxes", "grades", "malignancy", "several readers"

    Raises :class:`InputError` that lists every field that cannot be used. The name of a grade becomes a column of
    tables and a word of reports: it is plain text, begins with a letter or a digit, is not repeated (capitals do not
    count) and is not "malignant", which is a column of its own.
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
    access: str = ""
    holds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        raise_all(_card_problems(self), f"card of the data set {self.name!r}: cannot be used, mend these fields:")


@dataclass
class Notes:
    """What a reader reports besides its records.

    counts   running totals by name, in the order in which they are printed
    dropped  (what, why) of everything left out on purpose: a known fault of the data set
    remarks  (what, why) of everything that is kept, but should be known
    faults   messages about files that cannot be used; any fault stops a build, after all of them have been found
    folds    folds that the publishers made: by name, such as "official-5", the fold, from 0, of every case
    """

    counts: Counter[str] = field(default_factory=Counter)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    folds: dict[str, Mapping[str, int]] = field(default_factory=dict)


def entry_of(record: Record, card: Card) -> Entry:
    """The index entry of ``record``, whose grade is one of ``card``."""
    return Entry(
        case=record.case,
        group=record.group,
        content=record.content,
        digest=record.digest,
        grade=None if record.grade is None else card.grades[record.grade],
        malignant=None if record.malignant is None else bool(record.malignant),
        has_mask=record.mask is not None,
        readers=max(len(record.reader_masks), len(record.reader_grades)),
        spaced=not any(math.isnan(side) for side in record.spacing),
        official_test=bool(record.official_test),
    )


def data_digest(card: Card, entries: Sequence[Entry]) -> str:
    """Hash of a data set: of its grade names and its index entries, which hold the digests of the records. The order of
    the entries does not matter.
    """
    return digest_of([card.grades, *sorted(entries, key=lambda entry: entry.case)])


def digest_of(value: Any) -> str:
    """Hash of None, truth values, numbers, text, arrays of bytes or truth values, and lists and mappings of these.

    Different values give different bytes to the hash, because each value comes with its kind and its length. A list and
    a tuple of the same items are equal, a mapping's order does not matter, and all NaN are equal. Raises ``TypeError``
    for anything else.
    """
    whole = hashlib.sha256()
    for piece in _pieces(value):
        whole.update(piece)
    return whole.hexdigest()[:DIGEST]


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield bytes from which ``value`` could be read back: kind, length where it varies, content."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        yield b"-"
    elif isinstance(value, bool):
        yield b"T" if value else b"F"
    elif isinstance(value, int):
        yield b"i%d;" % value
    elif isinstance(value, float):
        yield b"f" + struct.pack(">d", math.nan if math.isnan(value) else value)
    elif isinstance(value, str):
        text = value.encode()
        yield b"s%d;" % len(text) + text
    elif isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.bool_):
        yield f"a{value.dtype.name} {' '.join(map(str, value.shape))};".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        yield b"m%d;" % len(value)
        for key in sorted(value):
            yield from _pieces(key)
            yield from _pieces(value[key])
    elif isinstance(value, list | tuple):
        yield b"l%d;" % len(value)
        for item in value:
            yield from _pieces(item)
    else:
        kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"no digest of a value of kind {kind}")


def problems_of(record: Record, card: Card) -> list[str]:
    """Messages that say why a record is unusable or suspicious; [] when it is neither."""
    problems = _text_problems(record)
    image = record.image
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        problems.append(f"image is {image.dtype}{list(image.shape)}, not uint8[h w]")
    elif image.min() == image.max():
        problems.append("image is one grey value")
    for what, mask in (
        ("mask", record.mask),
        *((f"mask of reader {number}", mask) for number, mask in enumerate(record.reader_masks, start=1)),
    ):
        if mask is None:
            continue
        if mask.shape != image.shape:
            problems.append(f"{what} is {mask.shape}, image is {image.shape}")
        if mask.dtype != np.bool_:
            problems.append(f"{what} is of {mask.dtype}, not of truth values")
        if what == "mask" and not mask.any():
            problems.append("mask is empty; a record without outline has None")
    for what, grade in (("grade", record.grade), *(("grade of a reader", grade) for grade in record.reader_grades)):
        if grade is not None and not 0 <= grade < len(card.grades):
            problems.append(f"{what} is {grade}, but there are {len(card.grades)} classes")
    if any(side <= 0 or math.isinf(side) for side in record.spacing):
        problems.append(f"spacing is {record.spacing}")
    return problems


def _text_problems(record: Record) -> list[str]:
    problems = [f"{name} is empty" for name in ("case", "group") if not getattr(record, name)]
    texts = [("case", record.case), ("group", record.group), ("source", record.source)]
    texts += [("a step of the cleaning", step) for step in record.cleaning]
    for name, value in record.descriptors.items():
        texts += [("name of a descriptor", name), (f"descriptor {name!r}", value)]
    for name, text in texts:
        if not isinstance(text, str):
            problems.append(f"{name} is {text!r}, not a text")
        elif not _is_unicode(text):
            problems.append(f"{name} is {text!r}, which cannot be written as UTF-8")
    return problems


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not valid UTF-8
        return False
    return True


def _card_problems(card: Card) -> list[str]:
    texts = ("name", "title", "source", "licence", "labels", "grouping", "grade_system", "access")
    problems = [
        f"{name}: {getattr(card, name)!r} is not a text" for name in texts if not isinstance(getattr(card, name), str)
    ]
    if not is_name(card.name):
        problems.append(f"name: {card.name!r} must be small letters, digits and _, a letter first, at most 64")
    for name in ("grades", "faults", "holds"):
        values = getattr(card, name)
        if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
            problems.append(f"{name}: {values!r} is not a tuple of texts")
        elif name == "grades":
            problems += _grade_problems(values)
    counts = card.expected
    if not isinstance(counts, Mapping) or not all(
        isinstance(name, str) and type(count) is int for name, count in counts.items()
    ):
        problems.append(f"expected: {counts!r} does not map names to whole numbers")
    return problems


def is_name(name: Any) -> bool:
    """Whether ``name`` is a valid name of a data set, and so of its folder."""
    return isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) is not None


def _grade_problems(grades: tuple[str, ...]) -> list[str]:
    problems = [
        f"grades: {grade!r} is not plain text: 1 to 40 printed characters, a letter or digit first, no space last"
        for grade in grades
        if not (1 <= len(grade) <= 40 and grade.isprintable() and grade[0].isalnum() and grade == grade.strip())
    ]
    times = Counter(grade.casefold() for grade in grades)
    problems += [f"grades: {grade!r} is named {count} times" for grade, count in times.items() if count > 1]
    if "malignant" in times:
        problems.append("grades: 'malignant' is not a grade; it is a label of its own, Record.malignant")
    if "unknown" in times:  # reports count records without a grade under this name
        problems.append("grades: 'unknown' is not a grade; a record without one has the grade None")
    return problems
