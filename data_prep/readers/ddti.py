"""DDTI: 390 thyroid cases with reports, outlines and Kwak TI-RADS categories, as screenshots of one machine.

The folder is flat: ``N.xml`` is the report of case N, ``N_k.jpg`` are its images. Reports and images are untrusted
input: their size and kind are checked before they are parsed, and an XML file must not declare entities.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from skimage.draw import polygon

from data_prep import pictures, scan
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError

GRADES = ("2", "3", "4a", "4b", "4c", "5")
SUSPICIOUS_FROM = GRADES.index("4a")
SCREEN = (560, 360)  # width and height of every image of the set
LARGEST_XML = 1 << 20  # bytes; the longest report of the set has some 8 KiB
LARGEST_JPG = 8 << 20  # bytes; the images of the set have some 50 KiB

CARD = Card(
    name="ddti",
    title="DDTI: Digital Database of Thyroid Images",
    source="Pedraza, Vargas, Narváez, Durán, Muñoz, Romero: An open access thyroid ultrasound image database. "
    "Proc. SPIE 9287 (2015), Universidad Nacional de Colombia.",
    licence="Open access for research; cite the paper. No explicit licence text comes with the files.",
    labels="Outlines: free-hand, by one or more experts; all outlines of an image are united. Category: TI-RADS after "
    "Kwak, one for the case, given to each of its images. Malignant is presumed from the category (2 and 3 no, 4a and "
    "up yes), never proven by biopsy here. Descriptors are those of the report, for the case.",
    grouping="case; cases that share an image are one group",
    grades=GRADES,
    grade_system="Kwak",
    faults=(
        "Eight outlines are cut near 2500 characters: the whole points are kept.",
        "Six marks are empty and eight hold only an arrow: these images have no mask.",
        "338_2 has points below the image: the outline is cut off at the edge of the scan.",
        "Some images are exact copies, also across cases, with different categories: their cases are one group.",
        "Several images carry the category, side or callipers as burned-in text: all is cropped away or filled in.",
        "Split-screen images show one nodule in two views: they stay one record, with an outline in each view.",
        "142_2 shows a probe in air; it has no outline.",
    ),
    expected={
        "cases": 390,
        "images": 480,
        "images with outline": 466,
        "images with outline and category": 341,
        **{f"images with outline, category {grade}": count for grade, count in zip(GRADES, (41, 19, 93, 77, 66, 45))},
    },
)

# Spelling in the reports -> uniform spelling. Other descriptors keep theirs; only superfluous white space is removed.
SPELLINGS = {
    "ill- defined": "ill defined",
    "ill-defined": "ill defined",
    "well-defined": "well defined",
    "microcalcification": "microcalcifications",
    "macrocalcification": "macrocalcifications",
    "non": "none",
}
DESCRIPTORS = ("composition", "echogenicity", "margins", "calcifications")

COUNTED = (  # in the order in which they are printed, also when they are 0
    "cases with category",
    "images with outline",
    "images with category",
    "images with outline and category",
    *(f"images with outline, category {grade}" for grade in GRADES),
    "images with two outlines",
    "images without outline, kept for their category",
    "images without mark",
    "images without report",
    "images whose outline leaves the scan by over 2 %",
    "images with callipers filled in",
    "images with other marks filled in",
    "outlines",
    "outlines clipped",
    "outlines of fewer than three points dropped",
    "arrows dropped",
    "marks empty",
    "marks cut short, whole points kept",
)


def _drawing(*rows: str) -> np.ndarray:
    """Rows of digits 1 (darkest) to 9 (brightest ink), and '.' where there is tissue, framed by one pixel of tissue."""
    return np.pad(np.array([[0.0 if c == "." else int(c) / 9 for c in row] for row in rows], np.float32), 1)


def _cross(size: int) -> np.ndarray:
    return np.pad(np.maximum(np.eye(size), np.eye(size)[::-1]), 1).astype(np.float32)


# The machine's orientation mark, near the top of a view: 'T' with bevelled edges.
ORIENTATION = (
    _drawing(
        "999888898",
        "877777775",
        "955575555",
        "...975...",
        "...975...",
        "...975...",
        "...975...",
        "...975...",
        "...975...",
        "...544...",
    ),
)
CALLIPERS = (_cross(7), _cross(9))
LETTERS = (_drawing("...9....", "..9.9...", "..9.9...", ".9...9..", ".99999..", ".9...9..", "9.....9."),)
ORIENTATION_ROWS = 44  # rows of the screen, from its top, in which the orientation mark is found
# Screens with coloured callipers have another layout. There the mark, light or dark and often faint, lies in this box.
COLOURED_ORIENTATION = scan.Box(19, 36, 279, 296)


@dataclass(frozen=True)
class Report:
    """The content of one XML file: category index or None, descriptors, and by image number the text of its marks."""

    grade: int | None
    descriptors: dict[str, str]
    marks: dict[int, list[str]]


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of the DDTI folder ``source``, case by case.

    Counts, omissions and faults go to ``notes``. A file that cannot be used is named in ``notes.faults``, and reading
    goes on. Raises :class:`InputError` when ``source`` is not a DDTI folder or holds no outline at all.
    """
    source = Path(source)
    reports, images = _listing(source)
    counts = notes.counts
    counts.update({"cases": len(reports), "images": sum(map(len, images.values()))} | dict.fromkeys(COUNTED, 0))
    for case in sorted(set(reports) | set(images)):
        report = _report(reports[case], notes) if case in reports else _no_report(case, images[case], notes)
        if report is None:
            continue
        counts["cases with category"] += report.grade is not None
        for missing in sorted(set(report.marks) - set(images[case])):
            notes.faults.append(
                f"{reports[case].name}: mark: image {missing} is marked, but {case}_{missing}.jpg is not there; "
                "copy it from the original."
            )
        for number, path in sorted(images[case].items()):
            record = _record(path, case, number, report, notes)
            if record is not None:
                yield record
    if not counts["images with outline"] and not notes.faults:
        raise InputError(
            f"{source}: no image has a usable outline (<mark><svg>); is this the whole DDTI, with its own XML files?"
        )


def _listing(source: Path) -> tuple[dict[int, Path], dict[int, dict[int, Path]]]:
    """Reports by case, and images by case and number."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder that holds DDTI's N.xml and N_k.jpg files.")
    reports: dict[int, Path] = {}
    images: dict[int, dict[int, Path]] = defaultdict(dict)
    for path in sorted(source.iterdir()):
        if match := re.fullmatch(r"(\d{1,6})\.xml", path.name, re.IGNORECASE):
            reports[int(match[1])] = path
        elif match := re.fullmatch(r"(\d{1,6})_(\d{1,4})\.jpe?g", path.name, re.IGNORECASE):
            images[int(match[1])][int(match[2])] = path
    if not reports:
        inner = next((path.parent for path in sorted(source.glob("*/*.xml"))), None)
        hint = (
            f" There are some in {inner}: give that folder."
            if inner
            else " Unpack DDTI and give the folder that holds N.xml and N_k.jpg."
        )
        raise InputError(f"{source}: not a DDTI folder, there is no N.xml in it.{hint}")
    return reports, images


def _no_report(case: int, images: dict[int, Path], notes: Notes) -> None:
    for number in sorted(images):
        notes.counts["images without report"] += 1
        notes.dropped.append((f"{case}_{number}.jpg", f"there is no {case}.xml: neither outline nor category"))


def _report(path: Path, notes: Notes) -> Report | None:
    """The report in ``path``; None, and a fault, when it cannot be trusted or understood."""
    try:
        size = path.stat().st_size
        if size > LARGEST_XML:
            raise InputError(f"file: {size} bytes, a report has at most {LARGEST_XML}")
        root = fromstring(path.read_bytes(), forbid_dtd=True)
        return Report(_grade(root), _descriptors(root), _marks(root))
    except DefusedXmlException as error:
        problem = f"XML: declares a document type or entities ({type(error).__name__}), which is refused"
    except (ParseError, ValueError, RecursionError, LookupError) as error:
        problem = str(error) if isinstance(error, InputError) else f"XML: not well-formed ({error})"
    except OSError as error:
        problem = f"file: cannot be read ({error.strerror})"
    notes.faults.append(f"{path.name}: {problem}; replace the file by the original.")
    return None


def _text(element: Element, name: str) -> str:
    return " ".join((element.findtext(name) or "").split())


def _grade(root: Element) -> int | None:
    name = _text(root, "tirads").lower()
    if name and name not in GRADES:
        raise InputError(f"tirads: unknown category {name[:20]!r}, known are {' '.join(GRADES)}")
    return GRADES.index(name) if name else None


def _descriptors(root: Element) -> dict[str, str]:
    found = {name: _text(root, name).lower() for name in DESCRIPTORS}
    return {name: SPELLINGS.get(value, value) for name, value in found.items() if value}


def _marks(root: Element) -> dict[int, list[str]]:
    marks: dict[int, list[str]] = defaultdict(list)
    for mark in root.iter("mark"):
        number = _text(mark, "image")
        if not re.fullmatch(r"[0-9]{1,4}", number):
            raise InputError(f"mark/image: {number[:20]!r} is not an image number")
        marks[int(number)].append(_text(mark, "svg"))
    return dict(marks)


def _record(path: Path, case: int, number: int, report: Report, notes: Notes) -> Record | None:
    """The record of one image. None when the image has no label (it is dropped) or cannot be used (a fault)."""
    try:
        screen = _screenshot(path)
        grey = scan.to_grey(screen)
        box = scan.scan_box(grey)
        if box is None:
            raise InputError("image: no ultrasound scan is found in it")
    except InputError as error:
        notes.faults.append(f"{path.name}: {error}; replace the file by the original.")
        return None
    if number not in report.marks:
        notes.counts["images without mark"] += 1
    mask = _mask(path, report.marks.get(number, []), box, notes)
    if mask is None and report.grade is None:
        notes.dropped.append((path.name, "neither a usable outline nor a category"))
        return None
    notes.counts["images without outline, kept for their category"] += mask is None
    notes.counts["images with outline"] += mask is not None
    if report.grade is not None:
        notes.counts["images with category"] += 1
    if mask is not None and report.grade is not None:
        notes.counts["images with outline and category"] += 1
        notes.counts[f"images with outline, category {GRADES[report.grade]}"] += 1
    return Record(
        case=f"{case}_{number}",
        group=str(case),
        source=path.name,
        image=_without_overlays(screen, grey, box, notes),
        mask=mask,
        grade=report.grade,
        malignant=None if report.grade is None else report.grade >= SUSPICIOUS_FROM,
        descriptors=report.descriptors,
    )


def _screenshot(path: Path) -> np.ndarray:
    """The image as uint8[360 560 3]; its kind and size are checked before anything is decoded."""
    with pictures.opened(path, "JPEG", largest=LARGEST_JPG, noun="image") as image:
        if image.size != SCREEN:
            raise InputError(
                f"size: {image.width} x {image.height}, but outlines are drawn on {SCREEN[0]} x {SCREEN[1]}"
            )
        return np.asarray(image.convert("RGB"))


def _mask(path: Path, marks: Sequence[str], box: scan.Box, notes: Notes) -> np.ndarray | None:
    """All outlines of an image as one mask bool[h w] of the crop ``box``, or None when there is none.

    The box depends on the pixels alone, and an outline is cut off where it leaves the scan: beyond the scan there is
    text but no tissue. A box that depended on the label could not be found in a new image.
    """
    mask = np.zeros(SCREEN[::-1], bool)
    outlines = 0
    for text in marks:
        for points in _outlines(text, path, notes):
            rows, columns = polygon(points[:, 1], points[:, 0], mask.shape)
            mask[rows, columns] = True
            outlines += rows.size > 0
    cropped = mask[box.slices]
    if not cropped.any():
        if mask.any():
            notes.dropped.append((f"the outline of {path.name}", "it lies outside the scan"))
        return None
    notes.counts["outlines"] += outlines
    notes.counts["images with two outlines"] += outlines == 2
    notes.counts["images whose outline leaves the scan by over 2 %"] += bool(cropped.sum() < 0.98 * mask.sum())
    return np.ascontiguousarray(cropped)


def _outlines(text: str, path: Path, notes: Notes) -> list[np.ndarray]:
    """The closed outlines of one mark as points (x, y) f64[n 2], n >= 3.

    Arrows and outlines of fewer points are dropped and counted.
    """
    try:
        shapes = _shapes(text, path, notes)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        xml = f"{path.stem.split('_')[0]}.xml"
        notes.faults.append(
            f"{xml}: svg of image {path.name}: not a list of shapes with points ({error}); "
            "replace the file by the original."
        )
        return []
    kept = []
    for kind, points in shapes:
        if kind == "arrow":
            notes.counts["arrows dropped"] += 1
        elif len(points) < 3:
            notes.counts["outlines of fewer than three points dropped"] += 1
        else:
            notes.counts["outlines clipped"] += bool((points < 0).any() or (points > SCREEN).any())
            kept.append(points)
    return kept


def _shapes(text: str, path: Path, notes: Notes) -> list[tuple[str, np.ndarray]]:
    if not text:
        notes.counts["marks empty"] += 1
        return []
    try:
        shapes = json.loads(text)
    except json.JSONDecodeError:
        notes.counts["marks cut short, whole points kept"] += 1
        return _salvaged(text)
    return [
        (str(shape.get("regionType")), _points([(point["x"], point["y"]) for point in shape["points"]]))
        for shape in shapes
    ]


def _salvaged(text: str) -> list[tuple[str, np.ndarray]]:
    """The shapes in a JSON text that is cut off somewhere, with every point that is whole."""
    number = r"(-?\d{1,9}(?:\.\d{1,9})?)"
    pairs = [
        re.findall(rf'\{{\s*"x"\s*:\s*{number}\s*,\s*"y"\s*:\s*{number}\s*\}}', part)
        for part in text.split('"points"')[1:]
    ]
    if not any(pairs):
        raise ValueError(f"no point can be read from {text[:30]!r}")
    arrows = ['"arrow"' in part for part in text.split('"points"')[1:]]
    return [("arrow" if arrow else "freehand", _points(pair)) for arrow, pair in zip(arrows, pairs)]


def _points(pairs: Sequence[tuple[object, object]]) -> np.ndarray:
    points = np.array([[float(x), float(y)] for x, y in pairs], np.float64).reshape(-1, 2)
    if not all(map(math.isfinite, points.ravel())) or np.abs(points).max(initial=0.0) > 1e6:
        raise ValueError("a coordinate is not a usable number")
    return points


def _without_overlays(screen: np.ndarray, grey: np.ndarray, box: scan.Box, notes: Notes) -> np.ndarray:
    """The crop uint8[h w] of the screenshot with everything the machine drew over the scan filled in."""
    colour = scan.coloured_marks(screen)
    if colour.any():
        colour[COLOURED_ORIENTATION.slices] = True
    colour = colour[box.slices]
    crop = np.ascontiguousarray(grey[box.slices])
    top = np.zeros(crop.shape, bool)
    rows = max(ORIENTATION_ROWS - box.top, 0)
    top[:rows] = scan.drawn_marks(crop[:rows], ORIENTATION, alike=0.66)
    crosses = scan.drawn_marks(crop, CALLIPERS, alike=0.56)
    measured = bool(crosses.any() or colour.any())
    grown, inner = scan.around(box, grey.shape, 8)  # a mark at the very edge shows against the page beyond
    blank = colour | top | crosses | scan.white_glyphs(grey[grown.slices])[inner.slices]
    if measured:
        blank |= scan.drawn_marks(crop, LETTERS, alike=0.6) | scan.dots(crop, step=20)
    else:
        blank |= scan.dots(crop, step=35)
    notes.counts["images with callipers filled in"] += measured
    notes.counts["images with other marks filled in"] += bool((blank & ~crosses & ~colour).any())
    return scan.fill(crop, blank)
