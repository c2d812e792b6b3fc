"""TN5000: 5000 thyroid scans with boxes around the nodules and malignancy, in the form of Pascal VOC.

``JPEGImages/000001.jpg`` is a scan, ``Annotations/000001.xml`` its boxes: each object is called 0 (benign) or 1
(malignant). ``ImageSets/Main`` has the lists train.txt, val.txt, test.txt and trainval.txt, one number a line. A box is
no outline: the records have no mask. All files are untrusted input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from data_prep.readers import _folders, _thyroid
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there, read_bytes, read_xml

IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
PARTS = ("test", "train", "val")  # the test part first: copies of its images are left out of the others
SIDES = ("xmin", "ymin", "xmax", "ymax")
LARGEST_XML = 1 << 16  # bytes; an annotation has some 600
LARGEST_LIST = 1 << 18  # bytes; the longest list has some 32 KiB
MOST_OBJECTS = 64

CARD = Card(
    name="tn5000",
    title="TN5000: thyroid nodules, boxes only",
    source="Zhang et al.: TN5000: An ultrasound image dataset for thyroid nodule detection and classification. "
    "Scientific Data 12 (2025) 1437, doi:10.1038/s41597-025-05757-4.",
    licence="Published for research on figshare; the licence stands there. Cite the paper.",
    labels="There is no outline: a box is not one. The descriptor 'box' has the boxes as 'xmin ymin xmax ymax' in "
    "pixels as the annotation gives them, several with '; ' between them. Malignant: the name of the annotated nodule, "
    "1 for malignant and 0 for benign, which the publishers took from pathology; an image with several nodules is "
    "malignant if one of them is. The descriptor 'part' is the publishers' part. There is no TI-RADS category.",
    access="open download",
    holds=("boxes", "malignancy"),
    grouping="image, because patients are unknown; images that are exact copies are one group",
    faults=(
        "There are no outlines: only the grade of malignancy can be learned from this set, and no outline measured.",
        "Some images are exact copies of another under another number, also across the publishers' parts. A copy of a "
        "test image that is outside the test part is left out.",
        "The publishers divided images, not patients, and patients are unknown: images of one patient can be on two "
        "sides of a split, also of the publishers' parts.",
        "About seven of ten images are malignant.",
        "Boxes of an annotation that is for another size than the image's, or that has a box without area, are left "
        "out. An image whose annotation has no object is kept without malignancy.",
        "Nothing is cropped or filled in: callipers, text and scales are as they come. The size of a pixel is unknown.",
    ),
    expected={"images": 5000, "images of test": 1000, "images of train": 3500, "images of val": 500},
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "images",
    *(f"images of {part}" for part in PARTS),
    *_thyroid.MALIGNANCY.values(),
    "images with several boxes",
    "images with benign and malignant boxes",
    "images with a box that leaves the image",
    "images without object",
    "images whose boxes are left out",
    "images that are not there",
    "images in no list",
    "annotations without image",
    _thyroid.EXTRA,
    _thyroid.COPIES,
)


class Item(NamedTuple):
    """One image that is there: its stem and its part."""

    stem: str
    part: str


class Nodule(NamedTuple):
    """One object of an annotation: whether it is malignant, and the texts xmin, ymin, xmax, ymax of its box."""

    malignant: bool
    box: tuple[str, ...]


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of TN5000 in the folder ``source``; the test part comes first.

    Counts, omissions and faults go to ``notes``. A file that cannot be used is named in ``notes.faults``, and reading
    goes on. Raises :class:`InputError` when ``source`` is not TN5000's folder, when one of its folders cannot be read,
    when it has no lists of the parts, or when there is no image in it.
    """
    place = _folders.folder_of(Path(source), "TN5000", [IMAGES, ANNOTATIONS, LISTS], "TN5000_forReview")
    notes.counts.update(dict.fromkeys(COUNTED, 0))
    images = _thyroid.numbered(place, IMAGES, [".jpg"], notes)
    annotations = _thyroid.numbered(place, ANNOTATIONS, [".xml"], notes)
    items = list(_items(place, images, annotations, notes))
    record_of = lambda item, own: _record(place, item, own)
    names = lambda record: (f"images of {record.descriptors['part']}", _thyroid.MALIGNANCY[record.malignant])
    yield from _thyroid.counted(in_order(record_of, items, notes), notes, names)
    _thyroid.some_images(notes, place, "TN5000")


def _items(place: Path, images: dict[str, str], annotations: dict[str, str], notes: Notes) -> Iterator[Item]:
    """The images that are there and in a list; the others are noted."""
    part_of = _parts(place, notes)
    for stem in sorted(part_of, key=lambda stem: (PARTS.index(part_of[stem]), _thyroid.by_number(stem))):
        if stem in images:
            yield Item(stem, part_of[stem])
        else:
            notes.counts["images that are not there"] += 1
            notes.dropped.append((f"{IMAGES}/{stem}.jpg", f"{part_of[stem]}.txt names it: it is not there"))
    for stem in (stem for stem in images if stem not in part_of):
        notes.counts["images in no list"] += 1
        notes.dropped.append((images[stem], f"no list in {LISTS} names it: its part is unknown"))
    notes.counts["annotations without image"] = len(annotations.keys() - images.keys())


def _parts(place: Path, notes: Notes) -> dict[str, str]:
    """{stem: part} of the publishers' lists. A number in two parts, or another trainval.txt, is a fault."""
    part_of: dict[str, str] = {}
    for part in PARTS:
        for stem in sorted(_listed(place, part, notes)):
            if part_of.setdefault(stem, part) != part:
                notes.faults.append(
                    f"{LISTS}/{part}.txt: {stem} is also in {part_of[stem]}.txt; replace the files by the original."
                )
    if is_there(place / LISTS / "trainval.txt"):
        both = {stem for stem, part in part_of.items() if part != "test"}
        other = both ^ _listed(place, "trainval", notes)
        if other:
            notes.faults.append(
                f"{LISTS}/trainval.txt: is not train.txt and val.txt together, {len(other)} numbers differ, such as "
                f"{min(other)}; replace the files by the original."
            )
    return part_of


def _listed(place: Path, part: str, notes: Notes) -> set[str]:
    """The numbers in a list; lines that are no number are faults."""
    name = f"{LISTS}/{part}.txt"
    found: set[str] = set()
    if not is_there(place / name):
        notes.faults.append(f"{name}: is not there, without it the parts are unknown; copy it from the original.")
        return found
    with fault_of(name, notes):
        try:
            lines = read_bytes(place / name, largest=LARGEST_LIST).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"file: not a text in UTF-8 ({error})") from error
        for number, line in enumerate(map(str.strip, lines), start=1):
            if re.fullmatch(r"[0-9]{1,8}", line, re.ASCII):
                found.add(line)
            elif line:
                notes.faults.append(
                    f"{name}: line {number}: {line[:40]!r} must be a number; correct it after the original."
                )
    return found


def _record(place: Path, item: Item, notes: Notes) -> Record | None:
    """The record of one image, or None, and faults, when its files cannot be used."""
    image = _thyroid.image_of(place, f"{IMAGES}/{item.stem}.jpg", "JPEG", notes)
    name = f"{ANNOTATIONS}/{item.stem}.xml"
    if not is_there(place / name):
        notes.faults.append(f"{name}: is not there, but its image is; copy it from the original.")
        return None
    nodules: list[Nodule] = []
    problem = ""
    with fault_of(name, notes):
        root = read_xml(place / name, largest=LARGEST_XML)
        nodules = _nodules(root)
        problem = _problem(root, nodules, image.shape) if image is not None else ""
    if image is None or notes.faults:
        return None
    if not nodules:
        _folders.leave_out(f"the label of {item.stem}", f"{name} has no object", "images without object", notes)
    elif problem:
        _folders.leave_out(f"the boxes of {item.stem}", f"{name}: {problem}", "images whose boxes are left out", notes)
    boxes = [] if problem else [nodule.box for nodule in nodules]
    notes.counts["images with several boxes"] += len(nodules) > 1
    notes.counts["images with benign and malignant boxes"] += len({nodule.malignant for nodule in nodules}) > 1
    notes.counts["images with a box that leaves the image"] += any(_leaves(box, image.shape) for box in boxes)
    return Record(
        case=item.stem,
        group=item.stem,
        source=f"{IMAGES}/{item.stem}.jpg",
        image=image,
        malignant=any(nodule.malignant for nodule in nodules) if nodules else None,
        descriptors={"part": item.part} | ({"box": "; ".join(map(" ".join, boxes))} if boxes else {}),
        official_test=item.part == "test",
    )


def _nodules(root: Element) -> list[Nodule]:
    """The objects of an annotation. Raises :class:`InputError` when there are too many, or one cannot be read."""
    found = root.findall("object")
    if root.tag != "annotation":
        raise InputError(f"XML: its root is {root.tag[:40]!r}, not 'annotation'")
    if len(found) > MOST_OBJECTS:
        raise InputError(f"object: there are {len(found)}, an annotation has at most {MOST_OBJECTS}")
    return [_nodule(number, element) for number, element in enumerate(found, start=1)]


def _nodule(number: int, element: Element) -> Nodule:
    name = (element.findtext("name") or "").strip()
    if name not in _thyroid.MALIGNANT:
        raise InputError(f"object {number}, name: {name[:40]!r} must be 0 or 1")
    texts = tuple((element.findtext(f"bndbox/{side}") or "").strip() for side in SIDES)
    for side, text in zip(SIDES, texts, strict=True):
        if not re.fullmatch(r"-?[0-9]{1,5}(\.[0-9]{1,6})?", text, re.ASCII):
            raise InputError(f"object {number}, {side}: {text[:40]!r} must be a number of pixels")
    return Nodule(_thyroid.MALIGNANT[name], texts)


def _leaves(box: tuple[str, ...], shape: tuple[int, ...]) -> bool:
    left, top, right, bottom = map(float, box)
    return left < 0 or top < 0 or right > shape[1] or bottom > shape[0]


def _problem(root: Element, nodules: Sequence[Nodule], shape: tuple[int, ...]) -> str:
    """Why the boxes of an annotation cannot be those of an image of ``shape``; "" when they can.

    The size is another (an annotation may give no size, or 0), or a box has no area.
    """
    for side, length in zip(("height", "width"), shape, strict=True):
        text = (root.findtext(f"size/{side}") or "0").strip()
        if text not in ("0", str(length)):
            return f"size, {side}: {text[:40]!r}, but the image has {length}"
    for number, nodule in enumerate(nodules, start=1):
        left, top, right, bottom = map(float, nodule.box)
        if not (left < right and top < bottom):
            return f"object {number}, bndbox: {' '.join(nodule.box)} has no area"
    return ""
