"""BUS-UCLM: 683 breast scans of 38 patients, with outlines whose colour says benign or malignant.

``images/ANFO_005.png`` is a scan of the patient ANFO and ``masks/ANFO_005.png`` its outlines: green is benign, red is
malignant. ``INFO.csv``, separated by semicolons, has a row for each scan. Table and pictures are untrusted input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data_prep import pictures
from data_prep.readers import _folders
from data_prep.readers._folders import ABSENT, EXTRA_IMAGE, EXTRA_MASK, Listed
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError

FOLDER, IMAGES, MASKS, TABLE = "BUS-UCLM", "images", "masks", "INFO.csv"
KINDS = ("Doppler", "Marks", "Combined")
COLUMNS = ("Image", "Label", *KINDS)
MALIGNANT = {"normal": None, "benign": False, "malignant": True}
FILE = re.compile(r"([A-Za-z]{2,8}_[0-9]{1,4})(?:\.png)?")
BLACK, GREEN, RED = (0, 0, 0), (0, 255, 0), (255, 0, 0)
OTHER_SIZE = ("HESN",)  # the patients whose masks have another size than the images
MOST_STRAY, MOST_STRAY_OF_ALL = 0.01, 0.001  # of the marked pixels, and of the picture, may have another colour

CARD = Card(
    name="bus_uclm",
    title="BUS-UCLM: breast ultrasound, Spain",
    source="Vallez, Bueno, Deniz, Rienda, Pastor: BUS-UCLM: Breast ultrasound lesion segmentation dataset. Scientific "
    "Data 12 (2025) 242, doi:10.1038/s41597-025-04562-3. Mendeley Data, doi:10.17632/7fvgj4jsp7.",
    licence="Creative Commons with attribution; whether commercial use is allowed, see the page of the download.",
    labels="Outline: by radiologists, of all lesions of the scan together. Malignant is the table's Label, checked "
    "against the colour of the outlines: a scan with a benign and a malignant lesion is malignant. A normal scan has "
    "neither outline nor malignancy. Descriptors: class (the table's Label, which is the answer: never an input), and "
    "doppler, marks and combined (yes or no): colour Doppler, drawn marks, and two views in one picture.",
    access="open download",
    holds=("outlines", "malignancy"),
    grouping="patient, the letters of the file's name; patients that share an image are one group",
    faults=(
        "An image has one Label, but a mask may hold lesions of both colours: they are counted.",
        "An image whose mask contradicts its Label (a normal scan with marked pixels, a lesion of the other colour "
        "only), is empty beside a lesion, marks all corners and over half of the picture, or has many pixels of other "
        "colours is kept with its Label and without outline.",
        "Colour Doppler and marks are not filled in, and combined images are not cut into their two views: leave them "
        "out by their descriptors where that matters. The grey value is the luma.",
        "The masks of patient HESN have another size than the images: these images are kept without outline.",
        "A patient has many images, also normal ones beside a lesion: there are 38 groups only.",
        "The publishers' own code tests on the patients ANFO, COPE, CRCI, ELCO and FLKA. The download does not say "
        "so, and they are not kept apart here.",
        "The size of a pixel is not given; the table's Resolution is not read.",
    ),
    expected={"rows": 683, "images": 683, "patients": 38, "normal": 419, "benign": 174, "malignant": 90},
)
BOTH, UNUSED = "images with lesions of both kinds", "masks of another size left out"
STRAY, TOO_STRAY = "masks with stray colours", "masks with too many stray colours left out"
CONFLICT = "masks that contradict the table left out"
COUNTED = (
    "rows",
    ABSENT,
    EXTRA_IMAGE,
    EXTRA_MASK,
    "images",
    "patients",
    *MALIGNANT,
    *(f"images with {kind.lower()}" for kind in KINDS),
    BOTH,
    STRAY,
    TOO_STRAY,
    CONFLICT,
    _folders.EMPTY,
    _folders.FULL,
    UNUSED,
)


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of BUS-UCLM in the folder ``source``, row by row of its table.

    A row or picture that cannot be used is named in ``notes.faults``, and reading goes on. An image that is not there
    is left out. Raises :class:`InputError` when ``source`` is not BUS-UCLM's folder, when the table cannot be read or
    lacks a column, or when no image is there.
    """
    root = _folders.folder_of(Path(source), "BUS-UCLM", (IMAGES, MASKS, TABLE), FOLDER)
    rows = _folders.rows_of(root / TABLE, COLUMNS, notes.faults)
    listed = list(_listed(rows, notes))
    counts = notes.counts
    counts.update(dict.fromkeys(COUNTED, 0) | {"rows": len(rows)})
    patients = set()
    there = list(_folders.present(listed, root / IMAGES, TABLE, notes))
    for record in in_order(partial(_record, root), there, notes):
        found = record.descriptors
        counts.update(("images", found["class"]))
        counts.update(f"images with {kind.lower()}" for kind in KINDS if found[kind.lower()] == "yes")
        patients.add(record.group)
        yield record
    counts["patients"] = len(patients)
    for folder, count in ((IMAGES, EXTRA_IMAGE), (MASKS, EXTRA_MASK)):
        _folders.note_extra_files(root / folder, {row.file for row in listed}, TABLE, count, notes)
    if not counts["images"] and not notes.faults:
        raise InputError(f"{root / IMAGES}: none of the images that {TABLE} names is in it. Unpack BUS-UCLM there.")


def _listed(rows: Sequence[tuple[int, dict[str, str]]], notes: Notes) -> Iterator[Listed]:
    """The rows that can be read and do not repeat an earlier row; the others are faults."""
    first_of: dict[str, int] = {}
    for number, texts in rows:
        label, found = texts["Label"].lower(), FILE.fullmatch(texts["Image"])
        problems = [] if found else [f"Image: {texts['Image'][:40]!r} must be a name such as ANFO_005.png"]
        if label not in MALIGNANT:
            problems.append(f"Label: {texts['Label'][:40]!r} must be Normal, Benign or Malignant")
        kinds = {kind: texts[kind].lower() for kind in KINDS}
        problems += [
            f"{kind}: {texts[kind][:40]!r} must be Yes or No" for kind in KINDS if kinds[kind] not in ("yes", "no")
        ]
        if found and (first := first_of.setdefault(found[1], number)) != number:
            problems.append(f"Image: {found[1]} is already in row {first}")
        notes.faults += _folders.row_faults(TABLE, number, problems)
        if found and not problems:
            descriptors = {"class": label} | {kind.lower(): text for kind, text in kinds.items()}
            yield Listed(number, f"{found[1]}.png", label, descriptors)


def _record(root: Path, row: Listed, notes: Notes) -> Record | None:
    """The record of one row, or None, and faults, when one of its pictures cannot be used."""
    places = f"{IMAGES}/{row.file}", f"{MASKS}/{row.file}"
    case, patient = row.file.removesuffix(".png"), row.file.partition("_")[0].upper()
    scan = _folders.read_picture(root, places[0], _folders.IMAGE_MODES, notes)
    coloured = _folders.read_picture(root, places[1], ("P", "RGB", "RGBA"), notes)
    if scan is None or coloured is None:
        return None
    with fault_of(places[1], notes):
        mask, any_malignant = _lesions(coloured, row, places[1], notes)
        if scan.shape[:2] != coloured.shape[:2]:
            (h, w), (height, width) = coloured.shape[:2], scan.shape[:2]
            size = f"size: {w} x {h}, but the image is {width} x {height}"
            if patient not in OTHER_SIZE:
                raise InputError(size)
            if mask is not None:
                _folders.leave_out(places[1], f"{size}; the image is kept without outline", UNUSED, notes)
            mask = None
        return Record(
            case=case,
            group=patient,
            source=places[0],
            image=pictures.grey(scan),
            mask=mask,
            malignant=True if any_malignant else MALIGNANT[row.label],
            descriptors=row.descriptors,
        )
    return None


def _lesions(picture: np.ndarray, row: Listed, place: str, notes: Notes) -> tuple[np.ndarray | None, bool]:
    """The outline bool[h w] of all lesions in a mask u8[h w c], and whether one of them is malignant.

    A few pixels of another colour, as at the edge of a scaled mask, are not marked, and the mask is counted. A mask
    that cannot be used gives (None, False), and is noted; the mask of a normal scan gives the same.
    """
    seen = picture[..., :3] * (picture[..., 3:] > 0 if picture.shape[-1] == 4 else True)  # transparent is black
    black, benign, malignant = ((seen == colour).all(axis=-1) for colour in (BLACK, GREEN, RED))
    outline = benign | malignant
    marked, stray = int(outline.sum()), int((~(black | outline)).sum())
    if unusable := _unusable(row, marked, stray, outline.size, bool(benign.any()), bool(malignant.any())):
        why, count = unusable
        _folders.leave_out(place, f"{why}; the image is kept without outline", count, notes)
        return None, False
    notes.counts[STRAY] += stray > 0
    if row.label == "normal":
        return None, False
    red = bool(malignant.sum() > MOST_STRAY * marked)  # fewer are stray pixels of a green lesion
    notes.counts[BOTH] += red and bool(benign.any())
    return _folders.usable(outline, place, notes), red


def _unusable(
    row: Listed, marked: int, stray: int, pixels: int, benign: bool, malignant: bool
) -> tuple[str, str] | None:
    """Why a mask of ``pixels`` cannot be used, and the count of such masks; None when it can, or is empty."""
    named = f"but {TABLE} has Label {row.label.capitalize()} in row {row.row}"
    if stray > max(MOST_STRAY * marked, MOST_STRAY_OF_ALL * pixels):
        return f"{stray} pixels are neither black, green nor red, beside {marked} green or red ones", TOO_STRAY
    if row.label == "normal" and marked:
        return f"{marked} pixels are marked, {named}", CONFLICT
    if row.label == "benign" and malignant and not benign:
        return f"all lesions are red, {named}", CONFLICT
    if row.label == "malignant" and benign and not malignant:
        return f"all lesions are green, {named}", CONFLICT
    return None
