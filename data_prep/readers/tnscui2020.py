"""TNSCUI2020: 3644 thyroid scans of a challenge's training part, with outlines of the nodules and malignancy.

``image/1.PNG`` is a scan, ``mask/1.PNG`` its outline, and ``train.csv`` (ID, CATE) has a row for each scan. DDTI was
also published in this form, with invented categories: they are never read. All files are untrusted input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from data_prep import pictures
from data_prep.readers import _folders, _thyroid
from data_prep.reading import in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

TABLE, FORGED = "train.csv", "category.csv"
SUFFIXES = (".PNG", ".png")
DDTI_IMAGES, DDTI_SCREEN = 637, (560, 360)  # the number of images in the DDTI copy; width and height of DDTI's images

CARD = Card(
    name="tnscui2020",
    title="TNSCUI2020: thyroid nodules, training part of the TN-SCUI 2020 challenge",
    source="Zhou, Jia, Ni, Noble, Huang, Tan, Van: Thyroid Nodule Segmentation and Classification in Ultrasound "
    "Images. MICCAI challenge (2020), Zenodo, doi:10.5281/zenodo.3715942.",
    licence="On request from the organisers of the challenge, for research; it must not be passed on.",
    labels="Outline: of the nodules in the image. Malignant: the category (CATE) of the image in train.csv, 1 for "
    "malignant and 0 for benign, unknown (None) without this table. How it was proven is not said with the files. "
    "There is no TI-RADS category.",
    access="open download",
    holds=("outlines", "malignancy"),
    grouping="image, because patients are unknown; images that are exact copies are one group",
    faults=(
        "A copy of DDTI goes round in the form of this set, with invented categories (category.csv). It is taken for "
        "that copy when there is a category.csv, when there are 637 images, or when every image is 560 x 360. Its "
        "outlines can be used, its categories are never read: malignancy is unknown (None). DDTI's own reader has the "
        "true reports.",
        "Never train on this copy of DDTI and test on DDTI: they hold the same images.",
        "The images of the challenge's test part have no published labels: they are not part of this set.",
        _folders.MASK_RULE,
        "Nothing is cropped or filled in: callipers, text and scales are as they come. The size of a pixel is unknown.",
    ),
    expected={"images": 3644, "benign": 1641, "malignant": 2003},
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "images",
    *_thyroid.MALIGNANCY.values(),
    "images that are not there",
    "images without row",
    "masks without image",
    *_folders.MASK_COUNTS,
    _thyroid.EXTRA,
)


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of TNSCUI2020 in the folder ``source``, in the order of their numbers.

    Counts, omissions and faults go to ``notes``. A file that cannot be used is named in ``notes.faults``, and reading
    goes on. Raises :class:`InputError` when ``source`` is not TNSCUI2020's folder, when one of its folders cannot be
    read, or when there is no image in it.
    """
    place = _folders.folder_of(Path(source), "TNSCUI2020", ["image", "mask"], "TNSCUI2020_train")
    notes.counts.update(dict.fromkeys(COUNTED, 0))
    images, masks = (_thyroid.numbered(place, what, SUFFIXES, notes) for what in ("image", "mask"))
    sign = _sign_of_ddti(place, images.values())
    labels = None
    if sign:
        notes.dropped.append(("all categories", f"this is the copy of DDTI with invented categories: {sign}"))
    else:
        labels = _thyroid.labels_of(place, TABLE, notes)
    _thyroid.matched(images, masks, labels, TABLE, "image", notes)

    def record_of(stem: str, own: Notes) -> Record | None:
        image = _thyroid.image_of(place, images[stem], "PNG", own)
        outline = _thyroid.outline_of(place, masks.get(stem, f"mask/{stem}.PNG"), "PNG", image, own)
        if image is None or own.faults:
            return None
        malignant = _thyroid.MALIGNANT.get((labels or {}).get(stem, ""))
        return Record(case=stem, group=stem, source=images[stem], image=image, mask=outline, malignant=malignant)

    names = lambda record: (_thyroid.MALIGNANCY[record.malignant],)
    yield from _thyroid.counted(in_order(record_of, images, notes), notes, names)
    _thyroid.some_images(notes, place, "TNSCUI2020")


def _sign_of_ddti(place: Path, images: Collection[str]) -> str:
    """What shows that this is the copy of DDTI; "" when nothing does."""
    if is_there(place / FORGED):
        return f"there is a {FORGED}"
    if len(images) == DDTI_IMAGES:
        return f"it has {DDTI_IMAGES} images"
    width, height = DDTI_SCREEN
    return f"every image is {width} x {height}" if _all_are_screens(place, images) else ""


def _all_are_screens(place: Path, images: Collection[str]) -> bool:
    """Whether all images that can be opened, and at least one, have the size of DDTI's screenshots."""
    found = False
    for image in images:
        with contextlib.suppress(InputError), pictures.opened(place / image, "PNG") as picture:
            if picture.size != DDTI_SCREEN:
                return False
            found = True
    return found
