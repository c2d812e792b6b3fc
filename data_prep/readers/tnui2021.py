"""TNUI-2021: 1381 thyroid scans with outlines of the nodules, in the publishers' parts train, val and test.

``thyroid_data/train/images/0010.png`` is a scan and ``thyroid_data/train/masks/0010.png`` its outline.
``thyroid_data/train_img_labels.csv`` has a row for each scan: ID and Labels. All files are untrusted input.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.readers import _folders, _thyroid
from data_prep.reading import in_order
from thyroid_jax.data.record import Card, Notes, Record

PARTS = ("test", "train", "val")  # the test part first: copies of its images are left out of the others

CARD = Card(
    name="tnui2021",
    title="TNUI-2021: thyroid nodules",
    source="TNUI-2021, a thyroid nodule ultrasound image data set. https://github.com/zxg3017/TNUI-2021-",
    licence="None is given: ask the publishers before any use beyond private study.",
    labels="Outline: of the nodules in the image. The tables of the download have a label 0 or 1 for each image and do "
    "not say what it means: it is kept as the descriptor 'label', and malignancy is unknown (None). The descriptor "
    "'part' is the publishers' part. There is no TI-RADS category.",
    access="open download",
    holds=("outlines",),
    grouping="image, because patients are unknown; images that are exact copies are one group",
    faults=(
        "The meaning of the labels is not said. 72 images have 0 and 1309 have 1, and the first digit of an image's "
        "name is its label. Ask the publishers before you take it for malignancy.",
        "Patients are unknown: images of one patient can be on two sides of a split, also of the publishers' parts.",
        "An image outside the test part that is an exact copy of a test image is left out.",
        _folders.MASK_RULE,
        "Nothing is cropped or filled in: callipers, text and scales are as they come. The size of a pixel is unknown.",
    ),
    expected={
        "images": 1381,
        "images of test": 139,
        "images of train": 966,
        "images of val": 276,
        "label 0": 72,
        "label 1": 1309,
    },
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "images",
    *(f"images of {part}" for part in PARTS),
    "label 0",
    "label 1",
    "images without label",
    "images that are not there",
    "images without row",
    "masks without image",
    *_folders.MASK_COUNTS,
    _thyroid.EXTRA,
    _thyroid.COPIES,
)


class Item(NamedTuple):
    """One image: its part, its stem, its label ("0", "1", or "" when it is missing) and its file."""

    part: str
    stem: str
    label: str
    image: str


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of TNUI-2021 in ``source``, ``thyroid_data`` or the folder above it; the test part comes first.

    Counts, omissions and faults go to ``notes``. A file that cannot be used is named in ``notes.faults``, and reading
    goes on. Raises :class:`InputError` when ``source`` is not TNUI-2021's folder, when one of its folders cannot be
    read, or when there is no image in it.
    """
    folders = [f"{part}/{what}" for part in PARTS for what in ("images", "masks")]
    place = _folders.folder_of(Path(source), "TNUI-2021", folders, "thyroid_data")
    notes.counts.update(dict.fromkeys(COUNTED, 0))
    items = [item for part in PARTS for item in _items(place, part, notes)]

    def record_of(item: Item, own: Notes) -> Record | None:
        image = _thyroid.image_of(place, item.image, "PNG", own)
        outline = _thyroid.outline_of(place, f"{item.part}/masks/{item.stem}.png", "PNG", image, own)
        if image is None or own.faults:
            return None
        return Record(
            case=f"{item.part}_{item.stem}",
            group=f"{item.part}_{item.stem}",
            source=item.image,
            image=image,
            mask=outline,
            descriptors={"part": item.part} | ({"label": item.label} if item.label else {}),
            official_test=item.part == "test",
        )

    yield from _thyroid.counted(in_order(record_of, items, notes), notes, _names)
    _thyroid.some_images(notes, place, "TNUI-2021")


def _names(record: Record) -> tuple[str, str]:
    """The counts of a record."""
    label = record.descriptors.get("label")
    return f"images of {record.descriptors['part']}", f"label {label}" if label else "images without label"


def _items(place: Path, part: str, notes: Notes) -> list[Item]:
    """The images of one part with their labels; what does not belong together is noted."""
    images, masks = (_thyroid.numbered(place, f"{part}/{what}", [".png"], notes) for what in ("images", "masks"))
    table = f"{part}_img_labels.csv"
    labels = _thyroid.labels_of(place, table, notes)
    _thyroid.matched(images, masks, labels, table, f"{part}/images", notes)
    return [Item(part, stem, (labels or {}).get(stem, ""), image) for stem, image in images.items()]
