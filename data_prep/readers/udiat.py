"""UDIAT (Dataset B): 163 breast scans with outlines, each with one lesion, benign or malignant.

``original/000001.png`` is a scan and ``GT/000001.png`` its outline; the numbers have gaps. The first sheet of
``DatasetB.xlsx`` has a row for each scan. Table and pictures are untrusted input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from data_prep import pictures
from data_prep.readers import _folders
from data_prep.readers._folders import ABSENT, EXTRA_IMAGE, EXTRA_MASK, Listed
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError

IMAGES, MASKS, TABLE = "original", "GT", "DatasetB.xlsx"
COLUMNS = ("Image", "Type", "Diagnosis")
CLASSES = ("benign", "malignant")
NUMBER = re.compile(r"0*([1-9][0-9]{0,5})(?:\.png)?")

CARD = Card(
    name="udiat",
    title="UDIAT: breast ultrasound Dataset B, Spain",
    source="Yap, Pons, Martí, Ganau, Sentís, Zwiggelaar, Davison, Martí: Automated breast ultrasound lesions detection "
    "using convolutional neural networks. IEEE Journal of Biomedical and Health Informatics 22 (2018) 1218-1226, "
    "doi:10.1109/JBHI.2017.2731873.",
    licence="By agreement with the authors, for research; it may not be passed on.",
    labels="Outline: drawn by a radiologist, of the one lesion. Malignant is the table's word. Descriptor: diagnosis, "
    "the kind of lesion as the table writes it, which is the answer: never an input.",
    access="by agreement with the authors",
    holds=("outlines", "malignancy"),
    grouping="case; the publishers say that the images are of different women",
    faults=(
        "The numbers of the images have gaps, and the table has them without leading zeros.",
        "A legend may stand beside or below the rows of the table; it is not read.",
        "Benign or Malignant is read from whichever of the columns Type and Diagnosis holds it.",
        "Publications disagree whether 109 or 110 images are benign: count what was built.",
        _folders.MASK_RULE,
        "The size of a pixel is not given. Nothing is cropped or filled in.",
    ),
    expected={"rows": 163, "images": 163, ABSENT: 0, EXTRA_IMAGE: 0, EXTRA_MASK: 0},
)
COUNTED = ("rows", ABSENT, EXTRA_IMAGE, EXTRA_MASK, "images", *CLASSES, *_folders.MASK_COUNTS)


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of UDIAT in the folder ``source``, row by row of its table.

    A row or picture that cannot be used is named in ``notes.faults``, and reading goes on. An image that is not there
    is left out. Raises :class:`InputError` when ``source`` is not UDIAT's folder, when the table cannot be read, lacks
    a column or says nowhere what is malignant, or when no image is there.
    """
    root = _folders.folder_of(Path(source), "UDIAT (Dataset B)", (IMAGES, MASKS, TABLE), "Dataset_B")
    listed = _listed(_folders.rows_of(root / TABLE, COLUMNS, notes.faults), root, notes)
    counts = notes.counts
    counts.update(dict.fromkeys(COUNTED, 0) | {"rows": len(listed)})
    there = list(_folders.present(listed, root / IMAGES, TABLE, notes))
    for record in in_order(partial(_record, root), there, notes):
        counts.update(("images", CLASSES[bool(record.malignant)]))
        yield record
    for folder, count in ((IMAGES, EXTRA_IMAGE), (MASKS, EXTRA_MASK)):
        _folders.note_extra_files(root / folder, {row.file for row in listed}, TABLE, count, notes)
    if not counts["images"] and not notes.faults:
        raise InputError(f"{root / IMAGES}: none of the images that {TABLE} names is in it. Unpack UDIAT there.")


def _listed(rows: Sequence[tuple[int, dict[str, str]]], root: Path, notes: Notes) -> list[Listed]:
    """The rows that can be read and do not repeat an earlier row; the others are faults. A legend below is noted."""
    hits = {column: sum(texts[column].lower() in CLASSES for _, texts in rows) for column in COLUMNS[1:]}
    told, other = sorted(hits, key=hits.__getitem__, reverse=True)
    if not hits[told]:
        raise InputError(
            f"{root / TABLE}: neither Type nor Diagnosis says Benign or Malignant; replace the file by the original."
        )
    last = max((number for number, texts in rows if NUMBER.fullmatch(texts["Image"])), default=0)
    listed: list[Listed] = []
    first_of: dict[str, int] = {}
    for number, texts in rows:
        label, more = texts[told].lower(), texts[other]
        found = NUMBER.fullmatch(texts["Image"])
        if not found and number > last and label not in CLASSES:
            notes.dropped.append((f"{TABLE}: row {number}", "below the last image: taken for the legend"))
            continue
        file = f"{int(found[1]):06}.png" if found else ""
        problems = [] if found else [f"Image: {texts['Image'][:40]!r} must be a whole number from 1 to 999999"]
        if label not in CLASSES:
            problems.append(f"{told}: {texts[told][:40]!r} must be Benign or Malignant")
        if more.lower() in CLASSES and more.lower() != label:
            problems.append(f"{other}: {more}, but {told} is {texts[told][:40]!r}")
        if len(more) > 80 or not more.isprintable():
            problems.append(f"{other}: {more[:40]!r} must be a text of at most 80 printed characters")
        if found and (first := first_of.setdefault(file, number)) != number:
            problems.append(f"Image: {int(found[1])} is already in row {first}")
        notes.faults += _folders.row_faults(TABLE, number, problems)
        if not problems:
            descriptors = {"diagnosis": more} if more and more.lower() not in CLASSES else {}
            listed.append(Listed(number, file, label, descriptors))
    return listed


def _record(root: Path, row: Listed, notes: Notes) -> Record | None:
    """The record of one row, or None, and faults, when one of its pictures cannot be used."""
    places = f"{IMAGES}/{row.file}", f"{MASKS}/{row.file}"
    scan = _folders.read_picture(root, places[0], _folders.IMAGE_MODES, notes)
    mask = _folders.read_picture(root, places[1], _folders.MASK_MODES, notes)
    if scan is None or mask is None:
        return None
    with fault_of(places[1], notes):
        case = row.file.removesuffix(".png")
        return Record(
            case=case,
            group=case,
            source=places[0],
            image=pictures.grey(scan),
            mask=_folders.lesion(mask, scan.shape, places[1], notes),
            malignant=row.label == "malignant",
            descriptors=row.descriptors,
        )
    return None
