"""TN3K: 3493 thyroid scans with outlines of the nodules; in some copies also malignancy and the publishers' folds.

``trainval-image/0000.jpg`` is a scan and ``trainval-mask/0000.jpg`` its outline; ``test-image`` and ``test-mask`` are
the test part, and its numbers begin again at 0000. ``label4trainval.csv`` and ``label4test.csv`` have rows of a name
and a label without a header. ``tn3k-trainval-fold0.json`` to ``4`` hold {"train": [...], "val": [...]}, indices into
the list of the files of ``trainval-image`` in the order of their numbers. All files are untrusted input.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.readers import _folders, _thyroid
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there, read_bytes

PARTS = ("test", "trainval")  # the test part first: copies of its images are left out of the other
FOLDS = tuple(f"tn3k-trainval-fold{number}.json" for number in range(5))
LARGEST_JSON = 1 << 20  # bytes; 2879 indices have some 17 KiB

CARD = Card(
    name="tn3k",
    title="TN3K: thyroid nodules",
    source="Gong, Chen, Chen, Li, Li, Chen: Thyroid region prior guided attention for ultrasound segmentation of "
    "thyroid nodules. Computers in Biology and Medicine 155 (2023) 106389, doi:10.1016/j.compbiomed.2022.106389.",
    licence="Published for research; cite the paper. No licence text comes with the files.",
    labels="Outline: of all nodules in the image. Malignant: the publishers' label of the image, 1 for malignant and 0 "
    "for benign, unknown (None) where the copy has no table of labels. How it was proven is not said with the files. "
    "There is no TI-RADS category.",
    access="open download",
    holds=("outlines", "malignancy"),
    grouping="image, because patients are unknown; images that are exact copies are one group",
    faults=(
        "Patients are unknown. The set has 3493 images of 2421 patients, so that images of one patient can be on two "
        "sides of a split, also of the publishers' test part and folds.",
        "Numbers of files begin again at 0000 in the test part: the case names carry the part.",
        "Masks are JPEG files: a pixel belongs to the outline where its value is 128 or more. An image whose mask "
        "is black, or marks all corners and over half of the picture, is kept without outline.",
        "An image outside the test part that is an exact copy of a test image is left out.",
        "Some copies have images and masks only. Then malignancy is unknown and there are no folds of the publishers.",
        "The publishers' folds are indices into the complete list of files. They are left out when this list is not "
        "known, or when they are no partition.",
        "Nothing is cropped or filled in: callipers, text and scales are as they come. The size of a pixel is unknown.",
    ),
    expected={"images": 3493, "images of the test part": 614, "images outside the test part": 2879},
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "images",
    "images of the test part",
    "images outside the test part",
    *_thyroid.MALIGNANCY.values(),
    "images that are not there",
    "images without row",
    "masks without image",
    _folders.EMPTY,
    _folders.FULL,
    _thyroid.EXTRA,
    _thyroid.COPIES,
)


class Item(NamedTuple):
    """One image: its case, the places of image and mask in the folder, and its label (True, False, or None)."""

    case: str
    image: str
    mask: str
    malignant: bool | None
    official_test: bool


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of TN3K in ``source``, the folder ``tn3k`` or the one above it; the test part comes first.

    Counts, omissions, faults and the publishers' folds go to ``notes``. A file that cannot be used is named in
    ``notes.faults``, and reading goes on. Raises :class:`InputError` when ``source`` is not TN3K's folder, when one of
    its folders cannot be read, or when there is no image in it.
    """
    folders = [f"{part}-{what}" for part in PARTS for what in ("image", "mask")]
    place = _folders.folder_of(Path(source), "TN3K", folders, "tn3k")
    notes.counts.update(dict.fromkeys(COUNTED, 0))
    items: list[Item] = []
    for part in PARTS:
        found, listed = _items(place, part, notes)
        items += found
    _read_folds(place, listed, notes)  # of the last part, which is trainval

    def record_of(item: Item, own: Notes) -> Record | None:
        image = _thyroid.image_of(place, item.image, "JPEG", own)
        outline = _thyroid.outline_of(place, item.mask, "JPEG", image, own)
        if image is None or own.faults:
            return None
        return Record(
            case=item.case,
            group=item.case,
            source=item.image,
            image=image,
            mask=outline,
            malignant=item.malignant,
            official_test=item.official_test,
        )

    yield from _thyroid.counted(in_order(record_of, items, notes), notes, _names)
    _thyroid.some_images(notes, place, "TN3K")


def _names(record: Record) -> tuple[str, str]:
    """The counts of a record."""
    part = "images of the test part" if record.official_test else "images outside the test part"
    return part, _thyroid.MALIGNANCY[record.malignant]


def _items(place: Path, part: str, notes: Notes) -> tuple[list[Item], Collection[str]]:
    """The images of one part, and the numbers of all images that its files or its table name."""
    images, masks = (_thyroid.numbered(place, f"{part}-{what}", [".jpg"], notes) for what in ("image", "mask"))
    table = f"label4{part}.csv"
    labels = _thyroid.labels_of(place, table, notes)
    _thyroid.matched(images, masks, labels, table, f"{part}-image", notes)
    labels = labels or {}
    items = [
        Item(
            case=f"{part}_{stem}",
            image=image,
            mask=f"{part}-mask/{stem}.jpg",
            malignant=_thyroid.MALIGNANT.get(labels.get(stem, "")),
            official_test=part == "test",
        )
        for stem, image in images.items()
    ]
    return items, {*images, *labels}


def _read_folds(place: Path, stems: Collection[str], notes: Notes) -> None:
    """Read the publishers' folds of the images ``stems``, the complete list, into ``notes``, or note why not."""
    missing = [name for name in FOLDS if not is_there(place / name)]
    if missing:
        notes.dropped.append(("the folds official-5", f"{', '.join(missing)}: not there"))
        return
    parts: list[tuple[Sequence[int], Sequence[int]]] = []
    for name in FOLDS:
        with fault_of(name, notes):
            parts.append(_indices(place / name))
    if len(parts) < len(FOLDS):
        return
    problem = _problem(parts, len(stems))
    if problem:
        notes.dropped.append(("the folds official-5", problem))
        return
    listed = sorted(stems, key=_thyroid.by_number)
    notes.folds["official-5"] = {
        f"trainval_{listed[index]}": fold for fold, (_, val) in enumerate(parts) for index in val
    }


def _indices(path: Path) -> tuple[list[int], list[int]]:
    """The indices "train" and "val" of a file. Raises :class:`InputError` for another content."""
    content = read_bytes(path, largest=LARGEST_JSON)
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"file: not JSON ({type(error).__name__})") from error
    return _whole_numbers(found, "train"), _whole_numbers(found, "val")


def _whole_numbers(found: Any, name: str) -> list[int]:
    indices = found.get(name) if isinstance(found, dict) else None
    if not (isinstance(indices, list) and all(type(index) is int for index in indices)):
        raise InputError('content: must be {"train": [...], "val": [...]} with whole numbers')
    return indices


def _problem(parts: Sequence[tuple[Sequence[int], Sequence[int]]], count: int) -> str:
    """Why the folds are not a partition of ``count`` images; "" when they are."""
    everything = list(range(count))
    for name, (train, val) in zip(FOLDS, parts, strict=True):
        if len(train) + len(val) != count:
            return f"{name} has indices of {len(train) + len(val)} images, but {count} are known here"
        if sorted([*train, *val]) != everything:
            return f"{name}: train and val do not hold every image once"
    if sorted(index for _, val in parts for index in val) != everything:
        return "not every image is in one val list: they are no partition"
    return ""
