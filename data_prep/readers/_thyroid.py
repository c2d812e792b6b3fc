"""What the readers of TN3K, TN5000, TNUI-2021, TNSCUI2020 and ThyroidXL share: numbered files, tables of 0 and 1,
outlines, and copies of test images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep import pictures
from data_prep.readers import _folders
from data_prep.reading import fault_of
from data_prep.tables import Row, csv_rows
from thyroid_jax.data.record import Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

MALIGNANT = {"0": False, "1": True}
MALIGNANCY = {False: "benign", True: "malignant", None: "images without malignancy"}  # names of counts
COPIES = "images left out as exact copies of a test image"
EXTRA = "files that do not belong here"
MODES = ("L", "LA", "P", "RGB", "RGBA")  # PIL's names of the colour modes that are read
_NUMBER = re.compile(r"([0-9]{1,8})(?:\.(?:png|jpg))?", re.ASCII | re.IGNORECASE)  # a name in a table


def numbered(place: Path, folder: str, suffixes: Sequence[str], notes: Notes) -> dict[str, str]:
    """{stem: "folder/name"} of the files in ``place / folder`` that are called by a number, in the order of numbers.

    Anything else is noted as left out. Two files of one stem are a fault. Raises :class:`InputError` when the folder
    cannot be read.
    """
    try:
        names = sorted(os.listdir(place / folder))
    except OSError as error:
        raise InputError(f"{place / folder}: cannot be read ({error.strerror}). Check the folder.") from error
    files: dict[str, str] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if not (re.fullmatch(r"[0-9]{1,8}", stem, re.ASCII) and suffix in suffixes):
            notes.counts[EXTRA] += 1
            notes.dropped.append((f"{folder}/{printed(name)}", f"its name is not a number and {' or '.join(suffixes)}"))
        elif stem in files:
            notes.faults.append(f"{folder}/{name}: is also there as {files[stem]}; keep the original of the two.")
        else:
            files[stem] = f"{folder}/{name}"
    return {stem: files[stem] for stem in sorted(files, key=by_number)}


def by_number(stem: str) -> tuple[int, str]:
    """The sorting key of a stem of digits."""
    return int(stem), stem


def printed(text: str) -> str:
    """A text of strangers, at most 80 characters, so that it can be printed and written as UTF-8."""
    return text[:80] if text.isprintable() else ascii(text[:80])[1:-1]


def labels_of(place: Path, table: str, notes: Notes) -> dict[str, str] | None:
    """{stem: "0", "1" or ""} of a table with a name and a label in each row; None when it cannot be used.

    A table that is not there is noted; one that cannot be read, or whose columns cannot be told, is a fault, and so is
    every row that cannot be read. The table may have a header or not, and other columns: the names are in the one that
    is called ID or holds names of pictures in most rows, or in the only other one; the labels in the one that is called
    label, labels or CATE, or holds 0 and 1 in most rows. A name may lack its suffix. An empty label is missing. A
    column ID beside another one of names is a fault: it may count the rows.
    """
    if not is_there(place / table):
        notes.dropped.append((f"the labels of {table}", "the table is not there"))
        return None
    labels: dict[str, str] = {}
    rows_of: dict[str, int] = {}
    with fault_of(table, notes):
        rows = csv_rows(place / table, notes.faults, delimiter=None)
        name_at, label_at = _columns(rows)
        head = rows[0][1]
        if not _NUMBER.fullmatch(head[name_at]) and head[label_at] not in MALIGNANT:
            rows = rows[1:]
        if not rows:
            raise InputError("rows: the table has a header but no image")
        for number, texts in rows:
            name, label = texts[name_at], texts[label_at]
            found = _NUMBER.fullmatch(name)
            problems = [] if found else [f"name: {name[:40]!r} must be a number, as 0001 or 0001 and the suffix"]
            if label not in ("", *MALIGNANT):
                problems.append(f"label: {label[:40]!r} must be 0 or 1")
            if found and (first := rows_of.setdefault(found[1], number)) != number:
                problems.append(f"name: {found[1]} is already in row {first}")
            notes.faults += [
                f"{table}: row {number}, {problem}; correct it after the original." for problem in problems
            ]
            if found and not problems:
                labels[found[1]] = label
        return labels
    return None


def _columns(rows: Sequence[Row]) -> tuple[int, int]:
    """The columns of names and of labels. Raises :class:`InputError` when there is not exactly one of each."""
    head, body = rows[0][1], rows[1:] or rows
    called = lambda words: [column for column, text in enumerate(head) if text.lower() in words]
    mostly = lambda fits: [
        column for column in range(len(head)) if 2 * sum(bool(fits(texts[column])) for _, texts in body) > len(body)
    ]
    labels = called(("label", "labels", "cate")) or mostly(MALIGNANT.__contains__)
    names = sorted({*called(("id",)), *mostly(lambda text: "." in text and _NUMBER.fullmatch(text))})
    if len(labels) == 1 and not names and len(head) == 2:
        names = [1 - labels[0]]
    if len(labels) != 1 or len(names) != 1:
        raise InputError(
            "columns: one must hold names of pictures (ID) and one 0 or 1 (label) in most rows, and no other"
        )
    return names[0], labels[0]


def matched(
    images: dict[str, str], masks: dict[str, str], labels: dict[str, str] | None, table: str, folder: str, notes: Notes
) -> None:
    """Note labels without image, images without row in their table, and masks without image."""
    for stem in sorted(set(labels or ()) - set(images), key=by_number):
        notes.counts["images that are not there"] += 1
        notes.dropped.append((f"{folder}/{stem}", f"{table} names it: it is not there"))
    for stem in images if labels is not None else ():
        if stem not in labels:
            notes.counts["images without row"] += 1
            notes.dropped.append((f"the label of {images[stem]}", f"{table} has no row for it"))
    for stem in masks:
        if stem not in images:
            notes.counts["masks without image"] += 1
            notes.dropped.append((masks[stem], "its image is not there"))


def image_of(source: Path, place: str, kind: str, notes: Notes) -> np.ndarray | None:
    """The grey values uint8[h w] of a picture; None, and a fault, when it cannot be used."""
    with fault_of(place, notes):
        return pictures.grey(pictures.pixels(source / place, kind, modes=MODES))
    return None


def outline_of(source: Path, place: str, kind: str, image: np.ndarray | None, notes: Notes) -> np.ndarray | None:
    """The outline bool[h w] in a mask of the size of ``image``; None, and a fault, when it cannot be used.

    A mask in which no pixel is marked, or that is probably inside out, also gives None: this is no fault, but is noted
    and counted. In a PNG mask the marked pixels are those of :func:`_folders.marked`, in a JPEG mask those above 127.
    When ``image`` is None, only whether the mask can be read is seen.
    """
    if not is_there(source / place):
        notes.faults.append(f"{place}: is not there, but its image is; copy it from the original.")
        return None
    with fault_of(place, notes):
        mask = pictures.pixels(source / place, kind, modes=("1", *MODES))
        if image is not None and kind == "PNG":
            return _folders.lesion(mask, image.shape, place, notes)
        if image is not None:
            outline = pictures.outline(mask, image.shape, above=_folders.CUT_AT)
            _folders.check_not_faint(pictures.grey(mask))
            return _folders.usable(outline, place, notes)
    return None


def counted(records: Iterable[Record], notes: Notes, names: Callable[[Record], Sequence[str]]) -> Iterator[Record]:
    """Yield the records, count each under "images" and ``names(record)``, and leave out copies of test images.

    The records of the official test part come first. A later record with the pixels of one of them is noted and left
    out, after it has been counted: no split may put equal images on two sides. Its patient, where patients are known,
    is named in the remarks: other images of this patient are kept, and the patient may be one of the test part.
    """
    test: dict[str, str] = {}
    for record in records:
        notes.counts.update(("images", *names(record)))
        content = record.content
        if record.official_test:
            test.setdefault(content, record.case)
        elif content in test:
            notes.counts[COPIES] += 1
            copied = f"of {test[content]} of the official test part"
            notes.dropped.append((record.source, f"an exact copy {copied}"))
            if record.group != record.case:
                why = f"has a copy {copied}; the patient's other images stay outside it"
                notes.remarks.append((f"patient {record.group}", why))
            continue
        yield record


def some_images(notes: Notes, source: Path, title: str) -> None:
    """Raise :class:`InputError` when no image was found, and no fault that would say why."""
    if not notes.counts["images"] and not notes.faults:
        odd = "".join(f" {place}: {why}." for place, why in notes.dropped[:1])
        raise InputError(f"{source}: there is no image of {title} in it. Unpack the pictures there.{odd}")
