"""BrEaST (Breast-Lesions-USG): 256 breast scans of 256 patients, with outlines, BI-RADS findings and proven labels.

One folder holds the pictures: ``caseNNN.png`` is a scan, ``caseNNN_tumor.png`` its outline, ``caseNNN_otherK.png``
another outline in it. The first sheet of the Excel table beside the folder has a row for each scan and names its
files. Table and pictures are untrusted input.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep import pictures
from data_prep.readers._folders import leave_out, names_in
from data_prep.reading import fault_of, in_order
from data_prep.tables import by_column, table_rows
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

FOLDER = "BrEaST-Lesions_USG-images_and_masks"
GRADES = ("1", "2", "3", "4a", "4b", "4c", "5")
MALIGNANT = {"benign": False, "malignant": True, "normal": None}
VERIFIED = ("confirmed by biopsy", "confirmed by follow-up care")
MISSING = ("not available", "not applicable")  # "no" is not missing: it is a finding, such as no halo
DESCRIBING = {  # column -> the descriptor's name in every data set
    "Tissue_composition": "tissue_composition",
    "Shape": "shape",
    "Margin": "margins",
    "Echogenicity": "echogenicity",
    "Posterior_features": "posterior_features",
    "Halo": "halo",
    "Calcifications": "calcifications",
    "Skin_thickening": "skin_thickening",
}
COLUMNS = (
    "CaseID",
    "Image_filename",
    "Mask_tumor_filename",
    "Mask_other_filename",
    "Pixel_size",
    *DESCRIBING,
    "BIRADS",
    "Verification",
    "Classification",
)
UNIQUE = ("CaseID", "Image_filename")
PIXEL_SIZES = (0.001, 0.1)  # centimetres; the set has 0.005 to 0.014, and a size outside the limits has another unit

LONGEST_FINDING = 160  # characters; the longest of the set has some 60
LARGEST_PNG = 8 << 20  # bytes; the pictures have some 300 KiB
LARGEST_SIDE = 4096  # pixels; the widest picture has some 1000
MODES = ("L", "RGB", "RGBA")  # PIL's names of the colour modes that are read; those of the set are RGBA

CARD = Card(
    name="breast_lesions",
    title="BrEaST: Breast-Lesions-USG",
    source="Pawłowska, Ćwierz-Pieńkowska, Domalik, Jaguś, Kasprzak, Matkowski, Fura, Nowicki, Żołek: Curated benchmark "
    "dataset for ultrasound based breast lesion analysis. Scientific Data 11 (2024) 148, "
    "doi:10.1038/s41597-024-02984-z. The Cancer Imaging Archive, doi:10.7937/9WKK-Q141.",
    licence="CC BY 4.0",
    labels="Outline: free-hand by a radiologist, of the one lesion that the labels speak of. Category: BI-RADS of that "
    "lesion as read from the scan; 1 is a normal breast. Malignant is the table's classification: malignant is proven "
    "by biopsy, benign by biopsy or by follow-up; a normal scan has neither outline nor verification, and its "
    "malignancy is unknown. Descriptors are the BI-RADS terms of the table in lower case, several joined by &; 'no' is "
    "a finding. Age, signs, symptoms, interpretation and diagnosis are left out: they are not seen in the image, or "
    "they are the answer.",
    access="open download",
    holds=("outlines", "grades", "malignancy"),
    grouping="case; one case is one patient with one image",
    grades=GRADES,
    grade_system="BI-RADS",
    faults=(
        "Pixel_size is in centimetres; BIRADS is a number (3) in some rows and a text (4a) in others.",
        "'not available' and 'not applicable' stand for a gap; such descriptors are left out.",
        "Other outlines (cysts, ducts, whole implants) may overlap the lesion's: they are counted and left out, so "
        "that tissue outside the mask is not all healthy.",
        "Many scans are tinted blue or yellow: the grey value is their luma. Tint and size seem to follow the machine, "
        "and the share of malignant lesions is not the same in each.",
        "Scans of a sector are transparent beside it, some (case112, case144, case216) with a white line hidden "
        "there: what is transparent becomes black.",
        "Masks are repeated in their own transparency, but for two half transparent pixels of case010, which belong to "
        "the outline.",
        "The outlines of case186 and case194 are ruptured implants, and the lowest quarter of case186 is black.",
        "Category and verification go together: what was biopsied is mostly 4a and up, what was followed up is 2 or 3.",
    ),
    expected={"cases": 256, "images": 256, "images with outline": 252, "benign": 154, "malignant": 98, "normal": 4},
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "cases",
    "cases whose image is not there",
    "images",
    "images without row",
    "images with outline",
    "images without outline, kept for their labels",
    "images with category",
    "images without pixel size",
    "images with transparent parts",
    *MALIGNANT,
    *VERIFIED,
    "other outlines left out",
)


@dataclass(frozen=True)
class Case:
    """The content of one row of the table.

    ``row`` is its number in the sheet, ``outlines`` and ``others`` name mask files, ``grade`` is an index into
    :data:`GRADES`, and ``spacing`` is in millimetres per pixel, NaN when it is missing.
    """

    row: int
    image: str
    outlines: tuple[str, ...]
    others: tuple[str, ...]
    grade: int | None
    classification: str
    verification: str
    descriptors: dict[str, str]
    spacing: float


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of BrEaST in the folder ``source``, row by row.

    Counts, omissions and faults go to ``notes``. A row or picture that cannot be used is named in ``notes.faults``,
    and reading goes on. A case whose image is not there is left out. Raises :class:`InputError` when ``source`` does
    not hold the pictures and one table, when the table cannot be trusted or lacks a column, or when none of its
    images is there.
    """
    table, folder = _places(Path(source))
    rows = _rows(table)
    counts = notes.counts
    counts.update(dict.fromkeys(COUNTED, 0) | {"cases": len(rows)})
    cases = []
    for case in _cases(rows, table.name, notes):
        if is_there(folder / case.image):
            cases.append(case)
        else:
            why = f"row {case.row} of the table names it, but it is not there"
            leave_out(case.image, why, "cases whose image is not there", notes)
    yield from in_order(partial(_record, folder, table.name), cases, notes)
    named = {texts["Image_filename"] for _, texts in rows}
    for name in names_in(folder):
        if re.fullmatch(r"case[0-9]+\.png", name) and name not in named:
            leave_out(name, "the table has no row for it", "images without row", notes)
    if not counts["images"] and not notes.faults:
        raise InputError(
            f"{folder}: none of the images that {table.name} names is in it. Unpack the pictures there, all of them."
        )


def _places(source: Path) -> tuple[Path, Path]:
    """The table, and the folder of the pictures."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder that holds BrEaST's table (.xlsx) and {FOLDER}.")
    folder = source / FOLDER
    if not folder.is_dir():
        inner = next((path.parent for path in sorted(source.glob(f"*/{FOLDER}"))), None)
        hint = f"Unpack BrEaST's pictures there and put its table (.xlsx) beside {FOLDER}."
        if inner is not None:
            hint = f"It is in {inner}: give that folder, with the table (.xlsx) in it."
        elif next(source.glob("case*.png"), None) is not None:
            hint = f"These are the pictures themselves: name their folder {FOLDER} and give the folder above it."
        raise InputError(f"{source}: not BrEaST's folder, there is no {FOLDER} in it. {hint}")
    tables = sorted(path for path in source.glob("*.xlsx") if not path.name.startswith("~$"))
    if len(tables) != 1:
        found = " ".join(path.name for path in tables) or "none"
        raise InputError(
            f"{source}: must hold one table (.xlsx), found {found}. Put BrEaST's clinical data there, "
            "and no other table."
        )
    return tables[0], folder


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """(number, {column: text}) of each row of the first sheet that is not empty; a missing value is ''."""
    try:
        found = by_column(table_rows(table, []), COLUMNS)
    except InputError as error:
        raise InputError(f"{table}: {error}; replace the file by the original.") from error
    return [
        (number, {column: "" if text.lower() in MISSING else text for column, text in texts.items()})
        for number, texts in found
    ]


def _cases(rows: Sequence[tuple[int, dict[str, str]]], table: str, notes: Notes) -> Iterator[Case]:
    """The rows that can be read and do not repeat an earlier row; the others are faults."""
    first: dict[tuple[str, str], int] = {}
    for number, texts in rows:
        try:
            for column in UNIQUE:
                earlier = first.setdefault((column, texts[column]), number)
                if earlier != number:
                    raise InputError(f"{column}: {texts[column][:40]!r} is already in row {earlier}")
            case = _case(number, texts)
        except InputError as error:
            notes.faults.append(f"{table}: row {number}, {error}; correct the row after the original.")
        else:
            yield case


def _case(number: int, texts: dict[str, str]) -> Case:
    if not re.fullmatch(r"[0-9]{1,6}", texts["CaseID"]):
        raise InputError(f"CaseID: {texts['CaseID'][:40]!r} is not a whole number")
    images, outlines, others = (
        _names(texts, column) for column in ("Image_filename", "Mask_tumor_filename", "Mask_other_filename")
    )
    if len(images) != 1:
        raise InputError(f"Image_filename: names {len(images)} images, must name one")
    classification = _known_word(texts, "Classification", tuple(MALIGNANT))
    if not classification:
        raise InputError(f"Classification: is empty, known are {' '.join(MALIGNANT)}")
    if classification == "normal" and outlines:
        raise InputError("Mask_tumor_filename: names an outline, but Classification is normal")
    for column in (*DESCRIBING, "Verification"):
        if not _is_finding(texts[column]):
            raise InputError(f"{column}: {texts[column][:40]!r} is not a text of at most {LONGEST_FINDING} characters")
    grade = _known_word(texts, "BIRADS", GRADES)
    return Case(
        row=number,
        image=images[0],
        outlines=outlines,
        others=others,
        grade=GRADES.index(grade) if grade else None,
        classification=classification,
        verification=texts["Verification"].lower(),
        descriptors={name: texts[column].lower() for column, name in DESCRIBING.items() if texts[column]},
        spacing=_millimetres(texts["Pixel_size"]),
    )


def _is_finding(text: str) -> bool:
    return len(text) <= LONGEST_FINDING and text.isprintable() and not text.startswith(("=", "+", "@"))


def _names(texts: dict[str, str], column: str) -> tuple[str, ...]:
    """The file names in a cell, joined there by '&'; never a path."""
    names = tuple(name.strip() for name in texts[column].split("&")) if texts[column] else ()
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}\.png", name):
            raise InputError(f"{column}: {name[:40]!r} is not the name of a PNG file")
    return names


def _known_word(texts: dict[str, str], column: str, known: tuple[str, ...]) -> str:
    """The cell in lower case, one of ``known`` or ''; another value raises :class:`InputError`."""
    value = texts[column].lower()
    if value and value not in known:
        raise InputError(f"{column}: unknown value {value[:40]!r}, known are {' '.join(known)}")
    return value


def _millimetres(centimetres: str) -> float:
    """Millimetres per pixel, NaN when there is no value."""
    if not centimetres:
        return math.nan
    try:
        size = float(centimetres)
    except ValueError as error:
        raise InputError(f"Pixel_size: {centimetres[:40]!r} is not a number") from error
    least, most = PIXEL_SIZES
    if not least <= size <= most:
        raise InputError(f"Pixel_size: {centimetres[:40]} is not a pixel's size in centimetres, {least} to {most}")
    return 10 * size


def _record(folder: Path, table: str, case: Case, notes: Notes) -> Record | None:
    """The record of one case, or None, and a fault, when one of its pictures cannot be used."""
    missing = [name for name in case.outlines if not is_there(folder / name)]
    notes.faults += [
        f"{table}: row {case.row}, Mask_tumor_filename: {name} is not there; copy it from the original to {FOLDER}."
        for name in missing
    ]
    image = None
    with fault_of(case.image, notes):
        image = _picture(folder / case.image)
    masks = []
    for name in case.outlines:
        if image is not None and name not in missing:
            with fault_of(name, notes):
                masks.append(_mask(folder / name, image.shape))
    if image is None or len(masks) < len(case.outlines):
        return None
    record = Record(
        case=Path(case.image).stem,
        group=Path(case.image).stem,
        source=case.image,
        image=pictures.grey(image),
        mask=np.logical_or.reduce(masks) if masks else None,
        grade=case.grade,
        malignant=MALIGNANT[case.classification],
        descriptors=case.descriptors,
        spacing=(case.spacing, case.spacing),
    )
    _count(case, record, notes.counts)
    notes.counts["images with transparent parts"] += image.shape[-1] == 4 and bool((image[..., 3] < 255).any())
    return record


def _count(case: Case, record: Record, counts: Counter[str]) -> None:
    counts["images"] += 1
    counts["images with outline"] += record.mask is not None
    counts["images without outline, kept for their labels"] += record.mask is None
    counts["images with category"] += record.grade is not None
    counts["images without pixel size"] += math.isnan(case.spacing)
    counts["other outlines left out"] += len(case.others)
    counts[case.classification] += 1
    if case.verification in VERIFIED:
        counts[case.verification] += 1


def _picture(path: Path) -> np.ndarray:
    return pictures.pixels(path, "PNG", modes=MODES, largest=LARGEST_PNG, widest=LARGEST_SIDE)


def _mask(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An outline as bool[h w]: the white pixels that are not fully transparent."""
    picture = _picture(path)
    alpha = picture[..., 3] if picture.shape[-1] == 4 and picture.ndim == 3 else None
    mask = pictures.outline(picture[..., :3] if picture.ndim == 3 else picture, shape)
    if alpha is not None:
        mask &= alpha > 0
    if not mask.any():
        raise InputError("outline: not one pixel is marked")
    return mask
