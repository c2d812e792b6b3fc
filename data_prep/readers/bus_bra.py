"""BUS-BRA: 1875 breast scans of 1064 patients, with outlines, BI-RADS categories and labels proven by biopsy.

``Images/bus_0001-l.png`` is a scan and ``Masks/mask_0001-l.png`` its outline. ``bus_data.csv`` has a row for each scan.
``5-fold-cv.csv`` and ``10-fold-cv.csv`` are the publishers' folds. Tables and pictures are untrusted input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep import pictures
from data_prep.readers._folders import leave_out, names_in
from data_prep.reading import fault_of, in_order
from data_prep.tables import by_column, csv_rows
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

IMAGES, MASKS, TABLE = "Images", "Masks", "bus_data.csv"
FOLDS = {"official-5": ("5-fold-cv.csv", 5), "official-10": ("10-fold-cv.csv", 10)}  # name -> file, number of folds
COLUMNS = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Width", "Height", "Side", "BBOX")
FOLD_COLUMNS = ("ID", "Pathology", "kFold")
GRADES = ("2", "3", "4", "5")
PATHOLOGIES = ("benign", "malignant")
SIDES = {"l": "left", "r": "right", "s": "single"}
WRONG_HEIGHT = ("bus_0856-l", "bus_0857-r", "bus_0912-l", "bus_0990-l")  # the table's height is not the image's

LARGEST_PNG = 4 << 20  # bytes; the pictures have at most some 200 KiB
LARGEST_SIDE = 2048  # pixels; the widest picture has some 600

CARD = Card(
    name="bus_bra",
    title="BUS-BRA: breast ultrasound, Brazil",
    source="Gómez-Flores, Gregorio-Calas, Coelho de Albuquerque Pereira: BUS-BRA: A breast ultrasound dataset for "
    "assessing computer-aided diagnosis systems. Medical Physics 51 (2024) 3110-3123. "
    "Zenodo, doi:10.5281/zenodo.8231412.",
    licence="Free to use, change and share with the notice in LICENSE.txt; papers must cite the article.",
    labels="Outline: drawn by hand by one senior ultrasonographer, of the lesion that the labels speak of. Category: "
    "BI-RADS 2 to 5 of that lesion, by the same reader, without 4a, 4b, 4c. Malignant is the pathology of the biopsy. "
    "Descriptors: histology (the biopsy's finding, which is the answer: never an input), device, and side, which half "
    "of a split screen the image is from (left, right, or single); it is not the side of the body.",
    access="open download",
    holds=("outlines", "grades", "malignancy"),
    grouping="patient; patients that share an image are one group",
    grades=GRADES,
    grade_system="BI-RADS",
    faults=(
        "Images are cut to the scan by the publishers, but what machines and operators drew over it is still there: "
        "callipers beside the lesion (in 24 of 30 images looked at), breast and quadrant as text (20), the lesion's "
        "size in mm (6), the patient's age (4), logo, depth scale, grey bar. Nothing is cropped or filled in here: "
        "a model can find a lesion by its callipers.",
        "The size of a pixel is not given.",
        "The table's height is wrong for bus_0856-l, bus_0857-r, bus_0912-l and bus_0990-l; the picture's is taken.",
        "The table's boxes have the first column and row counted from 1, and are one pixel less wide and high than the "
        "outline. They are compared with the outline, and not used.",
        "Two images of a patient mostly show one lesion in two views. Their BI-RADS may differ (case 856).",
        "In the publishers' folds a patient is in one fold. Their validation columns (valid_1, valid_2, ...) are not "
        "used: they part the images of one patient between training and validation.",
        "The category was given before the biopsy: some lesions of BI-RADS 2 and 3 are malignant.",
        "Machines look unlike each other and differ in their share of malignant lesions, from a third to a half.",
    ),
    expected={
        "images": 1875,
        "cases": 1064,
        "benign": 1268,
        "malignant": 607,
        "cases benign": 722,
        "cases malignant": 342,
        **{f"BI-RADS {grade}": count for grade, count in zip(GRADES, (562, 463, 693, 157))},
        "images whose height in the table is wrong": 4,
        "images whose outline does not fill its box in the table": 0,
    },
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "rows",
    "images that are not there",
    "images without row",
    "masks without row",
    "images",
    "cases",
    *PATHOLOGIES,
    *(f"cases {pathology}" for pathology in PATHOLOGIES),
    *(f"BI-RADS {grade}" for grade in GRADES),
    "images whose height in the table is wrong",
    "images whose outline does not fill its box in the table",
)


@dataclass(frozen=True)
class Row:
    """The content of one row of the table. ``box`` is (first column, first row, width, height) as the table has it."""

    number: int
    image: str
    patient: str
    grade: int
    pathology: str
    descriptors: Mapping[str, str]
    size: tuple[int, int]
    box: tuple[int, ...]

    @property
    def image_place(self) -> str:
        """The file of the image, from the folder of the data set."""
        return f"{IMAGES}/{self.image}.png"

    @property
    def mask_place(self) -> str:
        """The file of the outline, from the folder of the data set."""
        return f"{MASKS}/mask_{self.image.removeprefix('bus_')}.png"


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of BUS-BRA in the folder ``source``, row by row of its table.

    Counts, omissions, faults and the publishers' folds go to ``notes``. A row or picture that cannot be used is named
    in ``notes.faults``, and reading goes on. An image that is not there is left out. Raises :class:`InputError` when
    ``source`` is not BUS-BRA's folder, when the table cannot be read or lacks a column, or when no image is there.
    """
    source = Path(source)
    _check_places(source)
    texts = _table(source / TABLE, COLUMNS, notes.faults)
    rows = list(_rows(texts, notes))
    counts = notes.counts
    counts.update(dict.fromkeys(COUNTED, 0) | {"rows": len(texts)})
    _read_folds(source, texts, notes)
    present = []
    for row in rows:
        if is_there(source / row.image_place):
            present.append(row)
        else:
            why = f"row {row.number} of {TABLE} names it: it is not there"
            leave_out(row.image_place, why, "images that are not there", notes)
    pathology_of: dict[str, str] = {}
    for record in in_order(partial(_record, source), present, notes):
        pathology_of[record.group] = PATHOLOGIES[bool(record.malignant)]
        yield record
    counts["cases"] = len(pathology_of)
    counts.update(f"cases {pathology}" for pathology in pathology_of.values())
    _note_extra_files(source, {row["ID"] for _, row in texts}, notes)
    if not counts["images"] and not notes.faults:
        raise InputError(f"{source / IMAGES}: none of the images that {TABLE} names is in it. Unpack BUS-BRA there.")


def _check_places(source: Path) -> None:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder that holds BUS-BRA's {TABLE}, {IMAGES}, {MASKS}.")
    missing = [name for name in (IMAGES, MASKS) if not (source / name).is_dir()]
    missing += [TABLE] if not is_there(source / TABLE) else []
    if missing:
        inner = next((path.parent for path in sorted(source.glob(f"*/{TABLE}"))), None)
        hint = f"It is in {inner}: give that folder." if inner else "Unpack BUS-BRA and give the folder it makes."
        raise InputError(f"{source}: not BUS-BRA's folder, there is no {', no '.join(missing)} in it. {hint}")


def _table(path: Path, columns: Sequence[str], faults: list[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        return by_column(csv_rows(path, faults), columns)
    except InputError as error:
        raise InputError(f"{path}: {error}; replace the file by the original.") from error


def _is_text(text: str) -> bool:
    return 1 <= len(text) <= 80 and text.isprintable() and not text.startswith(("=", "+", "@"))


_MUST_BE: dict[str, tuple[str, Callable[[str], object]]] = {  # column -> (what it must be, whether a text is that)
    "ID": ("bus_NNNN-l, -r or -s", re.compile(r"bus_[0-9]{4}-[lrs]").fullmatch),
    "Case": ("a whole number from 1 to 9999", re.compile(r"[1-9][0-9]{0,3}").fullmatch),
    "Histology": ("a text of 1 to 80 printed characters", _is_text),
    "Pathology": (" or ".join(PATHOLOGIES), PATHOLOGIES.__contains__),
    "BIRADS": (f"one of {' '.join(GRADES)}", GRADES.__contains__),
    "Device": ("a text of 1 to 80 printed characters", _is_text),
    "Width": ("a whole number", re.compile(r"[1-9][0-9]{0,4}").fullmatch),
    "Height": ("a whole number", re.compile(r"[1-9][0-9]{0,4}").fullmatch),
    "Side": (" ".join(SIDES.values()), tuple(SIDES.values()).__contains__),
    "BBOX": ("four whole numbers, [a,b,c,d]", re.compile(r"\[ *[0-9]{1,5}(?: *, *[0-9]{1,5}){3} *\]").fullmatch),
}


def _rows(rows: Sequence[tuple[int, dict[str, str]]], notes: Notes) -> Iterator[Row]:
    """The rows that can be read and agree with the rows before them. The others are faults."""
    rows_of: dict[str, int] = {}
    pathologies: dict[str, tuple[str, int]] = {}
    for number, texts in rows:
        problems = [
            f"{column}: {texts[column][:40]!r} must be {must_be}"
            for column, (must_be, is_good) in _MUST_BE.items()
            if not is_good(texts[column])
        ]
        if not problems:
            image, case, pathology = texts["ID"], texts["Case"], texts["Pathology"]
            if int(case) != int(image[4:8]):
                problems.append(f"Case: {case}, but ID is {image}")
            if texts["Side"] != SIDES[image[-1]]:
                problems.append(f"Side: {texts['Side']}, but ID is {image}")
            if (first := rows_of.setdefault(image, number)) != number:
                problems.append(f"ID: {image} is already in row {first}")
            before, first = pathologies.setdefault(case, (pathology, number))
            if before != pathology:
                problems.append(f"Pathology: {pathology}, but case {case} is {before} in row {first}")
        notes.faults += [f"{TABLE}: row {number}, {problem}; correct it after the original." for problem in problems]
        if not problems:
            yield _row(number, texts)


def _row(number: int, texts: Mapping[str, str]) -> Row:
    return Row(
        number=number,
        image=texts["ID"],
        patient=texts["Case"],
        grade=GRADES.index(texts["BIRADS"]),
        pathology=texts["Pathology"],
        descriptors={name: texts[name.capitalize()] for name in ("histology", "device", "side")},
        size=(int(texts["Width"]), int(texts["Height"])),
        box=tuple(map(int, re.findall(r"[0-9]+", texts["BBOX"]))),
    )


def _record(source: Path, row: Row, notes: Notes) -> Record | None:
    """The record of one row, or None, and faults, when one of its pictures cannot be used."""
    image = mask = None
    with fault_of(row.image_place, notes):
        image = _picture(source / row.image_place, ("L",))
        notes.counts["images whose height in the table is wrong"] += _is_height_wrong(row, image.shape)
    with fault_of(row.mask_place, notes):
        if not is_there(source / row.mask_place):
            raise InputError("is not there, but its image is")
        drawn = _picture(source / row.mask_place, ("1", "L"))
        mask = pictures.outline(drawn, drawn.shape if image is None else image.shape)
        if not mask.any():
            raise InputError("outline: not one pixel is marked")
    if image is None or mask is None or notes.faults:
        return None
    notes.counts.update(("images", row.pathology, f"BI-RADS {GRADES[row.grade]}"))
    notes.counts["images whose outline does not fill its box in the table"] += not _fills(mask, row.box)
    return Record(
        case=row.image,
        group=row.patient,
        source=row.image_place,
        image=image,
        mask=mask,
        grade=row.grade,
        malignant=row.pathology == "malignant",
        descriptors=row.descriptors,
    )


def _is_height_wrong(row: Row, shape: tuple[int, ...]) -> bool:
    """Whether the table's height is wrong as it is known to be; any other size than the image's is an error."""
    height, width = shape
    if row.size == (width, height):
        return False
    if row.image in WRONG_HEIGHT and row.size[0] == width:
        return True
    (w, h), where = row.size, f"row {row.number} of {TABLE}, Width and Height"
    raise InputError(f"size: {width} x {height}, but {w} x {h} in {where}")


def _picture(path: Path, modes: Sequence[str]) -> np.ndarray:
    return pictures.pixels(path, "PNG", modes=modes, largest=LARGEST_PNG, widest=LARGEST_SIDE)


def _fills(outline: np.ndarray, box: Sequence[int]) -> bool:
    """Whether the outline bool[h w] fills the table's box, but for a pixel in which boxes are counted differently."""
    rows, columns = np.flatnonzero(outline.any(1)), np.flatnonzero(outline.any(0))
    found = columns[0] + 1, rows[0] + 1, columns[-1] - columns[0], rows[-1] - rows[0]
    return bool(np.abs(np.subtract(found, box)).max() <= 1)


def _note_extra_files(source: Path, known: set[str], notes: Notes) -> None:
    """Note pictures that no row of the table names."""
    for folder, prefix, count in ((IMAGES, "bus", "images without row"), (MASKS, "mask", "masks without row")):
        named = {f"{prefix}_{image.removeprefix('bus_')}.png" for image in known}
        for name in names_in(source / folder):
            if name.lower().endswith(".png") and name not in named:
                leave_out(f"{folder}/{name}", f"{TABLE} has no row for it", count, notes)


def _read_folds(source: Path, rows: Sequence[tuple[int, dict[str, str]]], notes: Notes) -> None:
    """Read the publishers' folds into ``notes``. A file that is not there is noted; what does not fit is a fault."""
    known = {texts["ID"]: texts for _, texts in rows}
    for name, (file, count) in FOLDS.items():
        if not is_there(source / file):
            notes.dropped.append((f"the folds {name}", f"{file} is not there"))
            continue
        faults: list[str] = []
        try:
            fold_of = _folds(_table(source / file, FOLD_COLUMNS, faults), file, count, known, faults)
        except InputError as error:
            notes.faults += [*faults, str(error).replace(str(source / file), file)]
            continue
        notes.faults += faults
        notes.folds[name] = fold_of


def _folds(
    rows: Sequence[tuple[int, dict[str, str]]],
    file: str,
    count: int,
    known: Mapping[str, Mapping[str, str]],
    faults: list[str],
) -> dict[str, int]:
    """The fold, from 0, of each image of a folds file."""
    fold_of: dict[str, int] = {}
    rows_of: dict[str, int] = {}
    of_patient: dict[str, tuple[str, int]] = {}
    for number, texts in rows:
        image, fold = texts["ID"], texts["kFold"]
        problems = []
        if (first := rows_of.setdefault(image, number)) != number:
            problems.append(f"ID: {image[:40]!r} is already in row {first}")
        if image not in known:
            problems.append(f"ID: {image[:40]!r} is not in {TABLE}")
        elif texts["Pathology"] != (pathology := known[image]["Pathology"]):
            problems.append(f"Pathology: {texts['Pathology'][:40]!r}, but {pathology[:40]!r} in {TABLE}")
        if not re.fullmatch(r"[1-9][0-9]?", fold) or int(fold) > count:
            problems.append(f"kFold: {fold[:40]!r} must be a whole number from 1 to {count}")
        elif not problems:
            fold_of[image] = int(fold) - 1
            before, first = of_patient.setdefault(known[image]["Case"], (fold, number))
            if before != fold:
                problems.append(f"kFold: {fold}, but an image of the same patient (row {first}) is in fold {before}")
        faults += [f"{file}: row {number}, {problem}; correct it after the original." for problem in problems]
    if missing := [image for image in known if image not in rows_of]:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        named = ", ".join(image[:40] for image in missing[:10])
        faults.append(f"{file}: ID: has no row for {named}{more}; replace the file by the original.")
    return fold_of
