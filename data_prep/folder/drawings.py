"""Outlines drawn as polygons: COCO, Labelme and Pascal VOC files, all untrusted, and their pixels."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes, read_xml

LARGEST_JSON = 64 << 20  # bytes; Labelme keeps a copy of the picture in its file
LARGEST_XML = 4 << 20
LARGEST_NUMBER = 1e6  # pixels, of a coordinate
MOST_PIXELS = 1 << 26  # of a run-length mask
NO_NAME = "no name"  # of a Labelme shape
MOST_SHAPES = 1000  # outlines of one image
MOST_CROSSINGS = 1 << 24  # of a polygon's edges with the rows of its image


class Drawing(NamedTuple):
    """What is drawn on one image. Coordinates are (x, y) from the image's upper left corner; pixel 0 ends at 1.

    size      height and width of the image, None when the file does not say
    polygons  float[n 2] each; circles are (x, y, radius); runs are run lengths down the columns, outside first
    boxes     number of boxes that no outline goes with; others are the kinds of shapes that are no outline
    labels    names of what is outlined
    """

    size: tuple[int, int] | None = None
    polygons: tuple[np.ndarray, ...] = ()
    circles: tuple[tuple[float, float, float], ...] = ()
    runs: tuple[tuple[int, ...], ...] = ()
    boxes: int = 0
    others: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


def has_outline(drawing: Drawing) -> bool:
    """Whether something is outlined, or nothing is drawn at all: an empty outline. Boxes and lines alone are none."""
    return bool(drawing.polygons or drawing.circles or drawing.runs) or not (drawing.boxes or drawing.others)


def is_nnunet(document: Any) -> bool:
    """Whether a JSON document looks like nnU-Net's dataset.json: names of labels and of channels or modalities."""
    return isinstance(document, dict) and "labels" in document and bool({"channel_names", "modality"} & document.keys())


def nnunet_labels(document: Any) -> dict[str, tuple[int, ...]]:
    """The values of each label of nnU-Net's dataset.json but the background and what is ignored.

    Raises :class:`InputError`.
    """
    labels = _field(document, "labels")
    if not isinstance(labels, dict):
        raise InputError("labels: is not an object")
    found: dict[str, tuple[int, ...]] = {}
    for one, other in labels.items():
        name, values = (other, one) if isinstance(other, str) else (one, other)  # older files: value -> name
        try:
            numbers = tuple(int(value) for value in (values if isinstance(values, list) else [values]))
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"labels: {str(values)[:40]!r} is not a whole number") from error
        if name != "ignore" and any(numbers):
            found[_text(name)] = numbers
    return found


def mask_of(drawing: Drawing, shape: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """The union of all that is outlined, bool[h w], and whether a part of it lies outside the image and was cut off.

    A pixel is inside when its centre is. Raises :class:`InputError` for another size than ``shape``, or a polygon that
    crosses the rows of the image too often.
    """
    height, width = shape
    if drawing.size is not None and drawing.size != shape:
        raise InputError(f"size: {drawing.size[1]} x {drawing.size[0]}, but the image is {width} x {height}")
    mask = np.zeros(shape, np.bool_)
    rows, columns = np.mgrid[:height, :width]
    cut = False
    for polygon in drawing.polygons:
        mask |= filled(polygon, shape)
        cut |= bool((polygon < -1).any() or (polygon > (width + 1, height + 1)).any())
    for x, y, radius in drawing.circles:
        mask |= (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
        cut |= min(x, y) - radius < -1 or x + radius > width + 1 or y + radius > height + 1
    for runs in drawing.runs:
        if sum(runs) != height * width:
            raise InputError(f"size: run lengths of {sum(runs)} pixels, but the image is {width} x {height}")
        mask |= np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    return mask, cut


def filled(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The pixels, bool[h w], whose centres an even-odd polygon float[n 2] of (x, y) encloses; pixel 0 is 0 to 1.

    Raises :class:`InputError` when its edges cross the rows of the image more than sixteen million times.
    """
    height, width = shape
    start, end = polygon, np.roll(polygon, -1, axis=0)
    top, bottom = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first = np.clip(np.ceil(top - 0.5), 0, height).astype(np.int64)  # rows whose centre an edge crosses
    count = np.maximum(np.clip(np.ceil(bottom - 0.5), 0, height).astype(np.int64) - first, 0)
    if count.sum() > MOST_CROSSINGS:
        raise InputError(f"polygon: crosses the rows of the image {count.sum()} times, more than {MOST_CROSSINGS}")
    edge = np.repeat(np.arange(len(polygon)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, end[edge].T
    x = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)  # an edge that crosses a row is not level
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (row, column), 1)
    return np.cumsum(turns, axis=1)[:, :width] % 2 == 1


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises :class:`InputError`, which does not name the file."""
    content = read_bytes(path, largest=LARGEST_JSON)
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"file: not whole JSON in UTF-8 ({str(error)[:120]})") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def is_coco(document: Any) -> bool:
    """Whether a JSON document looks like COCO: an object with images and annotations."""
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def coco(
    document: Any, faults: list[str], categories: Collection[int] = (), names: Collection[str] = ()
) -> dict[str, Drawing]:
    """The drawing of each image of a COCO document, by its file name; an image without annotation has an empty one.

    With ``categories`` only annotations of these ids are taken, with ``names`` those of categories so called. What
    cannot be read is named in ``faults``, as a place in the document and what is wrong with it.
    """
    found: dict[str, Drawing] = {}
    name_of: dict[int | str, str] = {}
    labels: dict[Any, str] = {}
    for number, category in enumerate(_list(document.get("categories", []), "categories", faults)):
        with _place(f"categories[{number}]", faults):
            labels[_id(_field(category, "id"))] = _text(_field(category, "name"))
    if missing := [name for name in names if name not in labels.values()]:
        faults.append(f"categories: none is called {', '.join(missing)}; there are {', '.join(labels.values())[:200]}")
    for number, image in enumerate(_list(document.get("images"), "images", faults)):
        with _place(f"images[{number}]", faults):
            name, key = _text(_field(image, "file_name")), _id(_field(image, "id"))
            if key in name_of or name in found:
                raise InputError(f"id {key!r} or file_name {name[:80]!r}: is there twice")
            size = _size(image.get("height"), image.get("width"))
            name_of[key], found[name] = name, Drawing(size)
    for number, annotation in enumerate(_list(document.get("annotations"), "annotations", faults)):
        with _place(f"annotations[{number}]", faults):
            key, category = _id(_field(annotation, "image_id")), annotation.get("category_id")
            if key not in name_of:
                raise InputError(f"image_id: there is no image {key!r}")
            if categories and category not in categories:
                continue
            label = labels.get(_id(category), shown(f"category {category}")) if category is not None else "no category"
            if names and label not in names:
                continue
            found[name_of[key]] = _with(found[name_of[key]], annotation, label)
    return found


class _place:
    """Turns an :class:`InputError` in its block into a fault of a place in a document."""

    def __init__(self, place: str, faults: list[str]) -> None:
        self._place, self._faults = place, faults

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, InputError):
            self._faults.append(f"{self._place}: {error}")
        return isinstance(error, InputError)


def _with(drawing: Drawing, annotation: dict[str, Any], label: str) -> Drawing:
    outline = annotation.get("segmentation")
    labels = drawing.labels if label in ("", *drawing.labels) else (*drawing.labels, label)
    if outline in (None, [], {}) or (isinstance(outline, list) and all(part == [] for part in outline)):
        return drawing._replace(boxes=drawing.boxes + 1)
    if len(drawing.polygons) + len(drawing.runs) >= MOST_SHAPES:
        raise InputError(f"segmentation: an image has at most {MOST_SHAPES} outlines")
    if isinstance(outline, dict):
        counts = outline.get("counts")
        if isinstance(counts, str):
            raise InputError("segmentation: compressed run lengths are not read; export polygons or uncompressed ones")
        height, width = (_whole(side, "segmentation.size") for side in _pair(outline.get("size"), "segmentation.size"))
        runs = tuple(_whole(count, "segmentation.counts") for count in _items(counts, "segmentation.counts"))
        if height * width > MOST_PIXELS or sum(runs) != height * width:
            raise InputError(f"segmentation.counts: {sum(runs)} pixels, but size is {height} x {width}")
        if drawing.size not in (None, (height, width)):
            raise InputError(f"segmentation.size: {width} x {height}, but the image has another size")
        return drawing._replace(size=(height, width), runs=(*drawing.runs, runs), labels=labels)
    polygons = [_flat(part) for part in _items(outline, "segmentation")]
    return drawing._replace(polygons=(*drawing.polygons, *polygons), labels=labels)


def labelme(document: Any, names: Collection[str] = ()) -> tuple[Drawing, str]:
    """The drawing of a Labelme document, and the image that it names; with ``names`` only of shapes so called.

    A rectangle is a box, which is no outline. Raises :class:`InputError`.
    """
    if not isinstance(document, dict) or "shapes" not in document:
        raise InputError("shapes: not there, this is not a Labelme file; leave it out with --ignore")
    polygons, circles, others, labels, boxes = [], [], [], [], 0
    shapes = _items(document["shapes"], "shapes")
    if len(shapes) > MOST_SHAPES:
        raise InputError(f"shapes: {len(shapes)}, an image has at most {MOST_SHAPES}")
    for number, shape in enumerate(shapes):
        what = f"shapes[{number}]"
        kind, points = _field(shape, "shape_type", "polygon"), _points(_field(shape, "points", []), f"{what}.points")
        label = _field(shape, "label", "")
        if names and label not in names:
            continue
        if kind == "polygon":
            polygons.append(_polygon(points, what))
        elif kind in ("rectangle", "circle") and len(points) != 2:
            raise InputError(f"{what}.points: {len(points)}, a {kind} has 2")
        elif kind == "rectangle":
            boxes += 1
            continue
        elif kind == "circle":
            (x, y), edge = points
            circles.append((float(x), float(y), math.hypot(edge[0] - x, edge[1] - y)))
        else:
            others.append(ascii(kind)[:40])
            continue
        labels.append(shown(label) if isinstance(label, str) and label else NO_NAME)
    size = _size(document.get("imageHeight"), document.get("imageWidth"))
    name = document.get("imagePath")
    drawing = Drawing(size, tuple(polygons), tuple(circles), (), boxes, tuple(others), _once(labels))
    return drawing, name if isinstance(name, str) else ""


def shown(label: str) -> str:
    """The name of a shape for messages, without characters that would disturb a terminal."""
    return ascii(label)[1:-1][:40]


def read_boxes(path: Path) -> int:
    """The number of boxes in a Pascal VOC file. Raises :class:`InputError`, which does not name the file."""
    root = read_xml(path, largest=LARGEST_XML)
    if root.tag != "annotation":
        raise InputError(
            f"XML: begins with <{str(root.tag)[:40]}>, Pascal VOC with <annotation>; --ignore leaves it out"
        )
    return sum(found.find("bndbox") is not None for found in root.iter("object"))


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in Counter(names) if name)


def _list(value: Any, what: str, faults: list[str]) -> list[Any]:
    if not isinstance(value, list):
        faults.append(f"{what}: is not a list")
        return []
    return value


def _items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{what}: is not a list")
    return value


def _pair(value: Any, what: str) -> list[Any]:
    if len(pair := _items(value, what)) != 2:
        raise InputError(f"{what}: has {len(pair)} items, not 2")
    return pair


_NOTHING = object()


def _field(value: Any, name: str, default: Any = _NOTHING) -> Any:
    if not isinstance(value, dict):
        raise InputError("is not an object")
    found = value.get(name, default)
    if found is _NOTHING:
        raise InputError(f"{name}: is not there")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InputError(f"{str(value)[:40]!r} is not a text of printed characters")
    return value


def _id(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{str(value)[:40]!r} is not an id, which is a whole number or a text")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_PIXELS:
        raise InputError(f"{what}: {str(value)[:40]!r} is not a whole number of pixels")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_NUMBER:
        raise InputError(f"{what}: {str(value)[:40]!r} is not a coordinate")
    return float(value)


def _size(height: Any, width: Any) -> tuple[int, int] | None:
    if height is None or width is None:
        return None
    return _whole(height, "height"), _whole(width, "width")


def _flat(part: Any) -> np.ndarray:
    numbers = [_number(value, "segmentation") for value in _items(part, "segmentation")]
    if len(numbers) % 2:
        raise InputError(f"segmentation: {len(numbers)} numbers, coordinates come in pairs")
    return _polygon(list(zip(numbers[::2], numbers[1::2])), "segmentation")


def _points(value: Any, what: str) -> list[tuple[float, float]]:
    return [(_number(x, what), _number(y, what)) for x, y in (_pair(point, what) for point in _items(value, what))]


def _polygon(points: Sequence[tuple[float, float]], what: str) -> np.ndarray:
    if len(points) < 3:
        raise InputError(f"{what}: {len(points)} points, a polygon has at least 3")
    return np.array(points, np.float64)
