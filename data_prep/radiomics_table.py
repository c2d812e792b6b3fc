"""A CSV table of radiomics, one row for each outlined image of a built data set, by JAX or by pyradiomics.

The data set is read twice from disk, one record at a time: first for the head of the table, then for the values. An
engine takes nodules (image and mask cropped to the outline) and yields the features of each, in any order.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep import radiomics_oracle
from thyroid_jax.data.record import Record, RecordSequence
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError
from thyroid_jax.files import write_text

COLUMNS = ("case", "group", "height", "width", "row_spacing", "column_spacing")
MOST_BINS = 256  # an 8-bit image has no more grey values
NARROWEST = 0.25  # bin width, in grey values
FEW, MANY = 8, 256  # texture features of fewer or more grey levels than this say little
BATCH = 64  # nodules that JAX measures in one call

Bins = Mapping[str, float]
Spacing = tuple[float, float]


class Outlined(NamedTuple):
    """What the first reading keeps of a record: its place, names and size, and the grey range inside its outline."""

    row: int
    case: str
    group: str
    height: int
    width: int
    spacing: Spacing
    lowest: int
    highest: int


class Nodule(NamedTuple):
    """Image and mask cropped to the box around the mask.

    ``number`` is the row of the table, and ``spacing`` is the (row, column) size of a pixel.
    """

    number: int
    image: np.ndarray
    mask: np.ndarray
    spacing: Spacing


class Found(NamedTuple):
    """Features of one nodule and whether each is defined: float[f], bool[f]."""

    number: int
    values: np.ndarray
    valid: np.ndarray


class Engine(NamedTuple):
    """A program that measures nodules.

    ``about()`` gives its name and version. ``extract(nodules, features, bins)`` yields :class:`Found` for every nodule,
    in any order.
    """

    about: Callable[[], str]
    extract: Callable[[Iterable[Nodule], Sequence[str], Bins], Iterator[Found]]


class Summary(NamedTuple):
    """Number of rows of a table, of rows with an undefined value, and a remark on the bins ("" if there is none)."""

    rows: int
    incomplete: int
    remark: str


def write_table(
    data_dir: Path | str,
    name: str,
    out: Path | str,
    *,
    engine: Engine,
    features: Sequence[str],
    bin_width: float | None = None,
    bin_count: int | None = None,
    overwrite: bool = False,
) -> Summary:
    """Write the features of every outlined image of the data set ``name`` in ``data_dir`` to the CSV file ``out``.

    The file is written completely or not at all. Lines ``# key: value`` say how it was made. Then comes the table with
    :data:`COLUMNS` and the features, in the order of the records. A cell is empty where a value is not defined. Grey
    values are 0 to 255, not scaled. Lengths are in millimetres if the spacing of every outlined image is known, else
    in pixels for all images.

    Raises :class:`InputError` for a missing or damaged data set, one without outlines, unusable bins, a missing engine,
    and an existing file without ``overwrite``.
    """
    out = Path(out)
    _check_free(out, overwrite)
    bins = chosen_bins(bin_width, bin_count)
    about = engine.about()
    _, records = open_records(data_dir, name)
    outlined = _outlined(_progress(records, f"{name}: reading", len(records)))
    if not outlined:
        raise InputError(f"{name}: no record has an outline, so there is nothing to measure. Choose another data set.")
    unit = "mm" if all(np.isfinite(entry.spacing).all() for entry in outlined) else "px"
    if unit == "px":
        outlined = [entry._replace(spacing=(1.0, 1.0)) for entry in outlined]
    found = engine.extract(_nodules(records, outlined), features, bins)
    found = sorted(_progress(found, f"{name}: radiomics", len(outlined)), key=lambda result: result.number)
    head = {
        "thyroid_jax": _version(),
        "engine": about,
        "data_set": name,
        "digest": records.digest,
        **bins,
        "unit": unit,
    }
    _check_free(out, overwrite)
    write_text(out, _head(head) + _csv(outlined, features, found))
    return Summary(len(outlined), sum(not result.valid.all() for result in found), _remark(outlined, bins))


def chosen_bins(bin_width: float | None, bin_count: int | None) -> Bins:
    """{"bin_width": w} or {"bin_count": n}; 32 bins if neither is given.

    Raises :class:`InputError` if both are given or one is out of range.
    """
    if bin_width is not None and bin_count is not None:
        raise InputError("bin width and bin count: give one of them.")
    if bin_width is not None:
        if not (math.isfinite(bin_width) and bin_width >= NARROWEST):
            raise InputError(
                f"bin width: {bin_width}, but it must be at least {NARROWEST}; grey values are whole numbers from 0 to "
                "255."
            )
        return {"bin_width": float(bin_width)}
    count = radiomics_oracle.BIN_COUNT if bin_count is None else bin_count
    if not 2 <= count <= MOST_BINS:
        raise InputError(
            f"bin count: {count}, but it must be 2 to {MOST_BINS}; grey values are whole numbers from 0 to 255."
        )
    return {"bin_count": count}


def _check_free(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise InputError(f"{out}: is a folder. Give --out the name of a file.")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is already there. Add --overwrite to replace it, or give another --out.")


def _outlined(records: Iterable[Record]) -> list[Outlined]:
    """The :class:`Outlined` of every record that has an outline."""
    outlined = []
    for row, record in enumerate(records):
        if record.mask is not None:
            grey = record.image[record.mask] if record.mask.any() else np.zeros(1, np.uint8)
            range_of_grey = int(grey.min()), int(grey.max())
            outlined.append(
                Outlined(row, record.case, record.group, *record.image.shape, record.spacing, *range_of_grey)
            )
    return outlined


def _nodules(records: RecordSequence, outlined: Sequence[Outlined]) -> Iterator[Nodule]:
    for number, entry in enumerate(outlined):
        record = records[entry.row]
        box = _box(record.mask)
        yield Nodule(number, record.image[box], record.mask[box], entry.spacing)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the mask, which is all that features need; everything if the mask is empty."""
    if not mask.any():
        return tuple(slice(side) for side in mask.shape)
    occupied = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return tuple(slice(places[0], places[-1] + 1) for places in occupied)


def _progress(items: Iterable, label: str, total: int | None = None) -> Iterator:
    yield from tqdm(items, desc=label, total=total, unit=" images", disable=not sys.stderr.isatty(), leave=False)


def _by_pyradiomics(nodules: Iterable[Nodule], features: Sequence[str], bins: Bins) -> Iterator[Found]:
    for nodule in nodules:
        found = radiomics_oracle.extract(nodule.image, nodule.mask, features=features, spacing=nodule.spacing, **bins)
        yield Found(nodule.number, *found)


def _by_jax(nodules: Iterable[Nodule], features: Sequence[str], bins: Bins) -> Iterator[Found]:
    """Measure :data:`BATCH` nodules at a time."""
    from thyroid_jax.radiomics import extract

    rest = iter(nodules)
    while batch := list(islice(rest, BATCH)):
        numbers, images, masks, spacing = zip(*batch)
        values, valid = extract(images, masks, features=tuple(features), spacing=spacing, **bins)
        yield from map(Found, numbers, np.asarray(values), np.asarray(valid))


def _about_jax() -> str:
    import jax

    return f"jax {jax.__version__}"


ENGINES = {
    "jax": Engine(_about_jax, _by_jax),
    "pyradiomics": Engine(lambda: f"pyradiomics {radiomics_oracle.version()}", _by_pyradiomics),
}


def _version() -> str:
    import thyroid_jax

    return thyroid_jax.__version__


def _head(facts: Mapping[str, object]) -> str:
    return "".join(f"# {key}: {value}\n" for key, value in facts.items())


def _csv(outlined: Sequence[Outlined], features: Sequence[str], found: Sequence[Found]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *features])
    for entry, (_, values, valid) in zip(outlined, found, strict=True):
        cells = [
            str(value) if defined else "" for value, defined in zip(values, valid)
        ]  # the shortest text that reads as the same number
        writer.writerow([entry.case, entry.group, entry.height, entry.width, *entry.spacing, *cells])
    return text.getvalue()


def _remark(outlined: Sequence[Outlined], bins: Bins) -> str:
    """One line if a bin width is a poor choice for some images: how many, and what to do; else ""."""
    if "bin_width" not in bins:
        return ""
    width = bins["bin_width"]
    levels = np.array([entry.highest // width - entry.lowest // width + 1 for entry in outlined])
    few, many = int((levels < FEW).sum()), int((levels > MANY).sum())
    if not few and not many:
        return ""
    return (
        f"bin width {width:g}: {few} of {len(levels)} images have under {FEW} grey levels, {many} over {MANY}; "
        "their texture says little. Choose another bin width, or a bin count."
    )
