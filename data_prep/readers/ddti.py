"""DDTI: 390 thyroid cases with reports, outlines and Kwak TI-RADS categories, as screenshots of one machine.

The folder is flat: ``N.xml`` is the report of case N, ``N_k.jpg`` are its images. Reports and images are untrusted
input: their size and kind are checked before they are parsed, and an XML file must not declare entities.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from data_prep import cleaning, pictures, scan
from data_prep.readers._folders import leave_out, names_in
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_xml

GRADES = ("2", "3", "4a", "4b", "4c", "5")
SUSPICIOUS_FROM = GRADES.index("4a")
SCREEN = (560, 360)  # width and height of every image of the set
LARGEST_XML = 1 << 20  # bytes; the longest report of the set has some 8 KiB
LARGEST_JPG = 8 << 20  # bytes; the images of the set have some 50 KiB
MOST_POINTS = 5000  # of all outlines of an image; those of the set have at most some 220
LONGEST_DESCRIPTOR = 80  # characters
LONGEST_REST = 200  # characters of a cut text behind its last whole point
MOST_SHAPES = 64  # of an image; those of the set have at most three
FARTHEST = 1e6  # pixels; a coordinate beyond is no coordinate
NO_REFERENCE = {"176_1.jpg": "it is cut short, and what is left of it leaves out a quarter of the nodule"}

CARD = Card(
    name="ddti",
    title="DDTI: Digital Database of Thyroid Images",
    source="Pedraza, Vargas, Narváez, Durán, Muñoz, Romero: An open access thyroid ultrasound image database. "
    "Proc. SPIE 9287 (2015), Universidad Nacional de Colombia.",
    licence="Open access for research; cite the paper. No explicit licence text comes with the files.",
    labels="Outlines: free-hand, by one or more experts; all outlines of an image are united. Category: TI-RADS after "
    "Kwak, one for the case, given to each of its images. Malignant is presumed from the category (2 and 3 no, 4a and "
    "up yes), never proven by biopsy here. Descriptors are those of the report, for the case.",
    access="open download",
    holds=("outlines", "grades", "malignancy"),
    grouping="case; cases that share an image are one group",
    grades=GRADES,
    grade_system="Kwak",
    faults=(
        "Eight outlines are cut near 2500 characters: the whole points are kept. What is left of 176_1's leaves out a "
        "quarter of the nodule: this image has no mask.",
        "Six marks are empty: these images have no mask. Eight shapes are arrows, in six images that also have an "
        "outline: they are left out.",
        "338_2 has points below the image, and its second outline lies in the text below the scan: what lies outside "
        "the scan is cut off.",
        "Some images are exact copies, also across cases, with different categories: their cases are one group.",
        "Several images carry the category, side or callipers as burned-in text: all is cropped away or filled in.",
        "The machine's orientation mark, a T, lies in most scans. A split screen has a second, hollow and faint one, "
        "beside the view that was not active. Both are filled in.",
        "Split-screen images show one nodule in two views: they stay one record, with an outline in each view.",
        "142_2 shows a probe in air; it has no outline.",
    ),
    expected={
        "cases": 390,
        "images": 480,
        "cases with category": 298,
        "images with outline": 473,
        "images with outline and category": 347,
        **{f"images with outline, category {grade}": count for grade, count in zip(GRADES, (42, 19, 96, 78, 67, 45))},
        "arrows dropped": 8,
        "marks empty": 6,
        "marks cut short, whole points kept": 8,
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
    "other files",
    "images whose outline leaves the scan by over 2 %",
    "images with callipers filled in",
    "images with other marks filled in",
    "outlines",
    "outlines clipped",
    "outlines outside the scan dropped",
    "outlines of fewer than three points dropped",
    "arrows dropped",
    "marks empty",
    "marks cut short, whole points kept",
)


def _drawing(*rows: str, **greys: int) -> np.ndarray:
    """A drawing uint8[a b]: a sign stands for a grey value, and '.' for tissue, which is 0."""
    values = {".": 0, **greys}
    return np.array([[values[sign] for sign in row] for row in rows], np.uint8)


# The machine's orientation mark, near the top of a view: a 'T' with light (L), middle and dark edges, of these values.
ORIENTATION = _drawing("LLLLLLLLL", "LMMMMMMMD", "LDDDMDDDD", *["...LMD..."] * 6, "...DDD...", L=235, M=191, D=130)
# The mark of the view that is not active has edges alone.
FAINT = _drawing("LLLLLLLLL", "L.......D", "LDDD.DDDD", *["...L.D..."] * 6, "...DDD...", L=109, D=66)
ORIENTATION_ROWS = 90  # rows of the screen, from its top, in which the orientation mark is found
ORIENTATION_NOISE, FAINT_NOISE = 20.0, 12.0  # grey values, at most; marks have 5 to 11, tissue 30 and 12 at least
LETTERS = (
    np.pad(_drawing("...A....", "..A.A...", "..A.A...", ".A...A..", ".AAAAA..", ".A...A..", "A.....A.", A=1), 1),
)
LONE_DOTS_STEP = 35  # grey values; where there are no callipers, a dot must stand out further
# Screens with coloured callipers have another layout. There the mark, light or dark and often faint, lies in this box.
COLOURED_ORIENTATION = scan.Box(19, 36, 279, 296)


@dataclass(frozen=True)
class Report:
    """The content of one XML file: category index or None, descriptors, and by image number the text of its marks."""

    path: Path
    grade: int | None
    descriptors: dict[str, str]
    marks: dict[int, list[str]]


@dataclass(frozen=True)
class Image:
    """One image file, its number in the case, and the report of its case."""

    path: Path
    case: int
    number: int
    report: Report


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of the DDTI folder ``source``, case by case.

    Counts, omissions and faults go to ``notes``. A file that cannot be used is named in ``notes.faults``, and reading
    goes on. Raises :class:`InputError` when ``source`` is not a DDTI folder or holds no outline at all.
    """
    paths, pictures_of = _listing(Path(source), notes)
    counts = notes.counts
    reports = {case: report for case, path in sorted(paths.items()) if (report := _report(path, case, notes))}
    counts["cases with category"] = sum(report.grade is not None for report in reports.values())
    images = []
    for case in sorted(pictures_of.keys() | reports.keys()):
        found = pictures_of.get(case, {})
        if case not in paths:
            for number in sorted(found):
                why = f"there is no {case}.xml: neither outline nor category"
                leave_out(f"{case}_{number}.jpg", why, "images without report", notes)
        elif case in reports:
            _note_missing_images(reports[case], case, found, notes)
            images += [Image(path, case, number, reports[case]) for number, path in sorted(found.items())]
    yield from in_order(_record, images, notes)
    if not counts["images with outline"] and not notes.faults:
        raise InputError(
            f"{source}: no image has a usable outline (<mark><svg>); is this the whole DDTI, with its own XML files?"
        )


def _listing(source: Path, notes: Notes) -> tuple[dict[int, Path], dict[int, dict[int, Path]]]:
    """Reports by case, and images by case and number. Two files of one number are a fault."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder that holds DDTI's N.xml and N_k.jpg files.")
    reports: dict[int, Path] = {}
    images: dict[int, dict[int, Path]] = defaultdict(dict)
    others = []
    for name in names_in(source):
        if match := re.fullmatch(r"([0-9]{1,6})\.xml", name, re.IGNORECASE):
            place, key, what = reports, int(match[1]), f"the report of case {int(match[1])}"
        elif match := re.fullmatch(r"([0-9]{1,6})_([0-9]{1,4})\.jpe?g", name, re.IGNORECASE):
            place, key = images[int(match[1])], int(match[2])
            what = f"image {key} of case {int(match[1])}"
        else:
            others.append(name)
            continue
        if (first := place.setdefault(key, source / name)).name != name:
            notes.faults.append(f"{name}: is {what}, and so is {first.name}; keep the file of the original alone.")
    if not reports:
        inner = next((path.parent for path in sorted(source.glob("*/*.xml"))), None)
        hint = f"There are some in {inner}: give that folder."
        if inner is None:
            hint = "Unpack DDTI and give the folder that holds N.xml and N_k.jpg."
        raise InputError(f"{source}: not a DDTI folder, there is no N.xml in it. {hint}")
    notes.counts.update({"cases": len(reports), "images": sum(map(len, images.values()))} | dict.fromkeys(COUNTED, 0))
    for name in others:
        leave_out(name, "is called neither N.xml nor N_k.jpg", "other files", notes)
    return reports, images


def _note_missing_images(report: Report, case: int, found: Mapping[int, Path], notes: Notes) -> None:
    notes.faults += [
        f"{report.path.name}: mark: image {number} is marked, but {case}_{number}.jpg is not there; "
        "copy it from the original."
        for number in sorted(report.marks.keys() - found.keys())
    ]


def _report(path: Path, case: int, notes: Notes) -> Report | None:
    """The report in ``path``; None, and a fault, when it cannot be trusted or understood."""
    with fault_of(path.name, notes):
        root = read_xml(path, largest=LARGEST_XML)
        number = _text(root, "number")
        if not re.fullmatch(r"[0-9]{1,6}", number) or int(number) != case:
            raise InputError(f"number: {number[:20]!r}, but this is the report of case {case}")
        return Report(path, _grade(root), _descriptors(root), _marks(root))
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
    for name, value in found.items():
        if len(value) > LONGEST_DESCRIPTOR or not value.isprintable():
            raise InputError(f"{name}: {value[:20]!r}... is not a text of up to {LONGEST_DESCRIPTOR} characters")
    return {name: SPELLINGS.get(value, value) for name, value in found.items() if value}


def _marks(root: Element) -> dict[int, list[str]]:
    marks: dict[int, list[str]] = defaultdict(list)
    for mark in root.iter("mark"):
        number = _text(mark, "image")
        if not re.fullmatch(r"[0-9]{1,4}", number):
            raise InputError(f"mark/image: {number[:20]!r} is not an image number")
        marks[int(number)].append(_text(mark, "svg"))
    return dict(marks)


def _record(image: Image, notes: Notes) -> Record | None:
    """The record of one image. None when the image has no label (it is dropped) or cannot be used (a fault)."""
    path, report, counts = image.path, image.report, notes.counts
    with fault_of(path.name, notes):
        screen = _screenshot(path)
        grey = scan.to_grey(screen)
        box = scan.scan_box(grey)
        if box is None:
            raise InputError("image: no ultrasound scan is found in it")
        counts["images without mark"] += image.number not in report.marks
        mask = _mask(image, box, notes)
        if mask is None and report.grade is None:
            notes.dropped.append((path.name, "neither a usable outline nor a category"))
            return None
        counts["images without outline, kept for their category"] += mask is None
        counts["images with outline"] += mask is not None
        counts["images with category"] += report.grade is not None
        if mask is not None and report.grade is not None:
            counts["images with outline and category"] += 1
            counts[f"images with outline, category {GRADES[report.grade]}"] += 1
        cleaned, steps = _without_overlays(screen, grey, box, notes)
        return Record(
            case=f"{image.case}_{image.number}",
            group=str(image.case),
            source=path.name,
            image=cleaned,
            mask=mask,
            grade=report.grade,
            malignant=None if report.grade is None else report.grade >= SUSPICIOUS_FROM,
            descriptors=report.descriptors,
            cleaning=steps,
        )
    return None


def _screenshot(path: Path) -> np.ndarray:
    """The image as uint8[360 560 3]; its kind and size are checked before anything is decoded."""
    with pictures.opened(path, "JPEG", largest=LARGEST_JPG, noun="image") as image:
        if image.size != SCREEN:
            raise InputError(
                f"size: {image.width} x {image.height}, but outlines are drawn on {SCREEN[0]} x {SCREEN[1]}"
            )
        return np.asarray(image.convert("RGB"))


def _mask(image: Image, box: scan.Box, notes: Notes) -> np.ndarray | None:
    """All outlines of an image as one mask bool[h w] of the crop ``box``, or None when there is none.

    The box depends on the pixels alone, and an outline is cut off where it leaves the scan: beyond the scan there is
    text but no tissue. A box that depended on the label could not be found in a new image.
    """
    mask, outlines, name = np.zeros(SCREEN[::-1], bool), 0, image.path.name
    for points in _outlines(image, notes):
        inside = enclosed(points, mask.shape)
        if inside[box.slices].any():
            mask |= inside
            outlines += 1
        else:
            leave_out(f"an outline of {name}", "it lies outside the scan", "outlines outside the scan dropped", notes)
    if not outlines:
        return None
    if name in NO_REFERENCE:
        notes.dropped.append((f"the outline of {name}", NO_REFERENCE[name]))
        return None
    cropped = mask[box.slices]
    notes.counts["outlines"] += outlines
    notes.counts["images with two outlines"] += outlines == 2
    notes.counts["images whose outline leaves the scan by over 2 %"] += bool(cropped.sum() < 0.98 * mask.sum())
    return np.ascontiguousarray(cropped)


def enclosed(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels, bool[h w], inside or on a closed outline of ``points`` (x, y) f64[n 2].

    Pixel (0, 0) is a point at the origin, and pixels outside ``shape`` (h, w) are left out. A pixel is inside when a
    ray from it to the right, or one to the left, crosses the outline an odd number of times; a corner is inside too.
    """
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, axis=0).T
    low, high, rows = np.minimum(y, next_y), np.maximum(y, next_y), np.arange(shape[0])[:, None]
    inside = np.zeros(shape, bool)
    for to_the_right in (True, False):
        row, edge = np.nonzero((low <= rows) & (rows < high) if to_the_right else (low < rows) & (rows <= high))
        crossing = x[edge] + (row - y[edge]) * (next_x - x)[edge] / (next_y - y)[edge]
        crossing = np.round(crossing, 9)  # a crossing at a pixel is exactly there
        column = np.ceil(crossing) if to_the_right else np.floor(crossing) + 1  # the first one behind the crossing
        change = np.zeros((shape[0], shape[1] + 1), np.int32)
        np.add.at(change, (row, np.clip(column, 0, shape[1]).astype(int)), 1)
        before = change.cumsum(1, dtype=np.int32)  # crossings to the left of a pixel
        inside |= ((before[:, -1:] - before if to_the_right else before)[:, :-1] % 2).astype(bool)
    for column, row in points[(points == np.round(points)).all(1)].astype(int):
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            inside[row, column] = True
    return inside


def _outlines(image: Image, notes: Notes) -> list[np.ndarray]:
    """The closed outlines of one image as points (x, y) f64[n 2], n >= 3.

    Arrows and outlines of fewer points are dropped and counted. A mark that cannot be understood is a fault.
    """
    shapes: list[tuple[str, np.ndarray]] = []
    with fault_of(f"{image.report.path.name}: svg of image {image.path.name}", notes):
        for text in image.report.marks.get(image.number, []):
            shapes += _shapes(text, notes)
            if len(shapes) > MOST_SHAPES or sum(len(points) for _, points in shapes) > MOST_POINTS:
                raise InputError(f"an image has at most {MOST_SHAPES} shapes and {MOST_POINTS} points")
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


def _shapes(text: str, notes: Notes) -> list[tuple[str, np.ndarray]]:
    """The shapes of a mark's JSON text. Where the text is cut off, the points that are whole are taken."""
    if not text:
        notes.counts["marks empty"] += 1
        return []
    try:
        shapes = _parsed(text)
    except json.JSONDecodeError:
        shapes = _parsed_to_the_last_point(text)
        notes.counts["marks cut short, whole points kept"] += 1
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise InputError("not a list of shapes with points")
    return [("arrow" if shape.get("regionType") == "arrow" else "", _points(shape.get("points"))) for shape in shapes]


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        raise InputError(f"not a list of shapes with points ({error})") from error


def _parsed_to_the_last_point(text: str) -> object:
    """A text that is cut off behind its last whole point, completed there. Damage before that point is an error."""
    whole = re.finditer(r'\{ ?"x" ?: ?[^{}",]{1,40}, ?"y" ?: ?[^{}",]{1,40}\}', text)
    end = max((match.end() for match in whole), default=0)
    if not end or len(text) - end > LONGEST_REST:
        raise InputError(f"not a list of shapes with points: no point can be read from {text[:30]!r}")
    try:
        return _parsed(text[:end] + "]}]")
    except json.JSONDecodeError as error:
        raise InputError(f"not a list of shapes with points ({error})") from error


def _points(points: object) -> np.ndarray:
    """Points (x, y) f64[n 2] of a list of {"x": number, "y": number}."""
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise InputError("not a list of shapes with points")
    pairs = [(point.get("x"), point.get("y")) for point in points[: MOST_POINTS + 1]]
    for value in (value for pair in pairs for value in pair):
        if type(value) not in (int, float) or not abs(value) <= FARTHEST:
            raise InputError("a coordinate is not a usable number")
    return np.array(pairs, np.float64).reshape(-1, 2)


def _without_overlays(
    screen: np.ndarray, grey: np.ndarray, box: scan.Box, notes: Notes
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The crop uint8[h w] of the screenshot, what the machine drew over the scan filled in, and the steps of that."""
    colour = scan.coloured_marks(scan.colour_of(screen))
    if colour.any():
        colour[COLOURED_ORIENTATION.slices] = True
    colour = colour[box.slices]
    crop = np.ascontiguousarray(grey[box.slices])
    crosses = scan.drawn_marks(crop, cleaning.CALLIPERS, alike=cleaning.CALLIPERS_ALIKE)
    measured = bool(crosses.any() or colour.any())
    marks = {
        "coloured marks": colour,
        "callipers": crosses,
        "orientation marks": _orientation_marks(grey)[box.slices],
        "bright letters and ticks": cleaning.glyphs_in(grey, box),
        "dots": scan.dots(crop, step=cleaning.DOTS_STEP if measured else LONE_DOTS_STEP),
    }
    if measured:
        marks["letters beside callipers"] = scan.drawn_marks(crop, LETTERS, alike=0.6)
    notes.counts["images with callipers filled in"] += measured
    others = np.logical_or.reduce(list(marks.values())) & ~crosses & ~colour
    notes.counts["images with other marks filled in"] += bool(others.any())
    image, steps = cleaning.filled(crop, marks)
    return image, (*cleaning.cut_step(box, grey.shape), *steps)


def _orientation_marks(grey: np.ndarray) -> np.ndarray:
    """Where the orientation marks lie in a screenshot uint8[h w], bool[h w]: the bright one and a faint one beside it.

    They are looked for on the whole width of the page, since the edge of the scan may cut a mark.
    """
    found = np.zeros(grey.shape, bool)
    found[:ORIENTATION_ROWS] = scan.stamps(grey[:ORIENTATION_ROWS], [ORIENTATION], noise=ORIENTATION_NOISE)
    if found.any():
        lit = np.flatnonzero(found.any(1))
        level = slice(lit[0], lit[-1] + 1)
        found[level] |= scan.stamps(grey[level], [FAINT], noise=FAINT_NOISE)
    return found
