"""BUSI: 780 breast scans in three folders, benign, malignant and normal, with outlines.

``benign/benign (1).png`` is a scan and ``benign (1)_mask.png`` its outline; ``_mask_1.png`` and ``_mask_2.png`` hold
further lesions of the same scan. There is no table. The pictures are untrusted input.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep import pictures
from data_prep.readers import _folders
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

FOLDER = "Dataset_BUSI_with_GT"
MALIGNANT = {"benign": False, "malignant": True, "normal": None}  # the folders
FILE = re.compile(
    r"(?P<image>[a-z]+ \((?P<number>[1-9][0-9]{0,3})\))(?P<mask>_mask(?:_(?P<further>[1-9][0-9]?))?)?\.png"
)

CARD = Card(
    name="busi",
    title="BUSI: breast ultrasound images, Egypt",
    source="Al-Dhabyani, Gomaa, Khaled, Fahmy: Dataset of breast ultrasound images. Data in Brief 28 (2020) 104863, "
    "doi:10.1016/j.dib.2019.104863.",
    licence="The article is CC BY 4.0; the download holds no terms of its own.",
    labels="Outline: drawn by hand and reviewed by radiologists; several outlines of a scan are united. Malignant is "
    "the folder's name; how it was verified is not said. A scan of a normal breast has neither outline nor "
    "malignancy. Descriptor: class (benign, malignant, normal), which is the answer: never an input.",
    access="open download",
    holds=("outlines", "malignancy"),
    grouping="case; the patients of the images are not known, and cases that share an image are one group",
    faults=(
        "780 images come from 600 patients, but no file says which: images of one patient can be on two sides of a "
        "split.",
        "benign (433) and malignant (145) are the same pixels with conflicting labels. Both are kept, in one group.",
        "Some 77 further pairs are nearly equal: one picture shifted, cropped or scaled (malignant (95) and (97); "
        "benign (255) and (277)). Their groups are joined. These pairs cross the classes in the half that was looked "
        "at: benign (131) / malignant (51), benign (269) / normal (1), benign (333) / malignant (77), benign (399) / "
        "malignant (93); outside it, benign (42) / malignant (51) and benign (437) / normal (34) are reported.",
        "Images are cut to the scan by the publishers, but what was drawn over it is still there. In 30 images looked "
        "at: the rest of a logo in a corner (24), callipers on the lesion with their number and dotted line (6), "
        "breast and quadrant as text (5), a written finding (1), black beside a sector (2). Nothing is cropped or "
        "filled in: a model can find a lesion by its callipers.",
        "Some images are in colour (10 of 391 looked at): colour Doppler with its yellow box and text "
        "(benign (255), (261), (277), (323)), a box, or coloured letters at the edge. The grey value is the luma.",
        "Masks have one bit, one channel, three, or three and transparency. Those of normal scans are black.",
        _folders.MASK_RULE,
        "17 images have two or three masks; the callipers of malignant (53) measure the smaller lesion.",
        "The size of a pixel is not given.",
    ),
    expected={
        "images": 780,
        "benign": 437,
        "malignant": 210,
        "normal": 133,
        "masks": 798,
        "images with several masks": 17,
    },
)
OTHER, ALONE, COLOUR = "other files", "masks without image", "images in colour"
COUNTED = (
    *CARD.expected,
    COLOUR,
    *_folders.MASK_COUNTS,
    ALONE,
    OTHER,
)  # in the order in which they are printed, also when they are 0


@dataclass(frozen=True)
class Case:
    """A scan of the folder ``label``, and the names of its masks."""

    label: str
    name: str
    masks: tuple[str, ...]


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of BUSI in the folder ``source`` (Dataset_BUSI_with_GT, or the folder that holds it or the
    three folders), class by class in the order of the numbers.

    A picture that cannot be used, and a mask that is missing, is named in ``notes.faults``, and reading goes on. A
    class whose folder is not there, a mask without image, and any other file is left out and noted. Raises
    :class:`InputError` when ``source`` is not BUSI's folder, or when no image is there.
    """
    root = _folders.folder_of(Path(source), "BUSI", tuple(MALIGNANT), FOLDER, enough=any)
    counts = notes.counts
    counts.update(dict.fromkeys(COUNTED, 0))
    for record in in_order(partial(_record, root), _cases(root, notes), notes):
        counts.update(("images", record.descriptors["class"]))
        yield record
    if not counts["images"] and not notes.faults:
        raise InputError(f"{root}: there is no image of BUSI in it, such as benign/benign (1).png. Unpack BUSI there.")


def _cases(root: Path, notes: Notes) -> list[Case]:
    cases = []
    for label in MALIGNANT:
        if is_there(root / label):
            cases += _cases_of(label, root / label, notes)
        else:
            notes.dropped.append((label, "the folder is not there"))
    return cases


def _cases_of(label: str, folder: Path, notes: Notes) -> list[Case]:
    """The scans of one folder. A scan has ``_mask.png``, and each ``_mask_N.png`` up to the last one that is there."""
    images: dict[str, int] = {}
    masks: dict[str, dict[int, str]] = defaultdict(dict)
    for name in _folders.names_in(folder):
        found = FILE.fullmatch(name)
        if not found or not name.startswith(f"{label} "):
            _folders.leave_out(f"{label}/{name}", "BUSI has no file of this name", OTHER, notes)
        elif found["mask"]:
            masks[found["image"]][int(found["further"] or 0)] = name
        else:
            images[found["image"]] = int(found["number"])
    for image in sorted(masks.keys() - images.keys()):
        for name in masks[image].values():
            _folders.leave_out(f"{label}/{name}", "its image is not there", ALONE, notes)
    return [
        Case(
            label,
            image,
            (f"{image}_mask.png", *(f"{image}_mask_{k}.png" for k in range(1, 1 + max(masks[image], default=0)))),
        )
        for image in sorted(images, key=images.__getitem__)
    ]


def _record(root: Path, case: Case, notes: Notes) -> Record | None:
    """The record of one scan, or None, and faults, when one of its pictures cannot be used."""
    place = f"{case.label}/{case.name}.png"
    scan = _folders.read_picture(root, place, _folders.IMAGE_MODES, notes)
    masks = {
        name: _folders.read_picture(root, f"{case.label}/{name}", _folders.MASK_MODES, notes) for name in case.masks
    }
    outlines = []
    for name, mask in masks.items():
        if scan is None or mask is None:
            continue
        drawing = f"{case.label}/{name}"
        with fault_of(drawing, notes):
            if case.label != "normal":
                outlines.append(_folders.lesion(mask, scan.shape, drawing, notes))
            elif marked := int(_folders.marked(mask, scan.shape, drawing, notes).sum()):
                raise InputError(f"outline: {marked} pixels are marked, but the scan is in the folder normal")
    if scan is None or notes.faults:
        return None
    drawn = [outline for outline in outlines if outline is not None]
    notes.counts["masks"] += len(masks)
    notes.counts["images with several masks"] += len(masks) > 1
    notes.counts[COLOUR] += _is_coloured(scan)
    return Record(
        case=case.name,
        group=case.name,
        source=place,
        image=pictures.grey(scan),
        mask=np.logical_or.reduce(drawn) if drawn else None,
        malignant=MALIGNANT[case.label],
        descriptors={"class": case.label},
    )


def _is_coloured(picture: np.ndarray) -> bool:
    """Whether red, green and blue differ anywhere in a picture u8[h w] or u8[h w c]."""
    if picture.ndim == 2 or picture.shape[-1] < 3:
        return False
    red, green, blue = (picture[..., channel] for channel in range(3))
    return bool((red != green).any() or (green != blue).any())
