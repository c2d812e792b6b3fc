"""What readers of folders of pictures share: where the folder is, what is in it, what a table lists, and masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep import pictures
from data_prep.reading import fault_of
from data_prep.tables import Row, by_column, table_rows
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

IMAGE_MODES = ("L", "LA", "P", "RGB", "RGBA")  # PIL's names of the colour modes that are read
MASK_MODES = ("1", *IMAGE_MODES)
ABSENT, EXTRA_IMAGE, EXTRA_MASK = "images that are not there", "images without row", "masks without row"
CUT_AT, NEAR_THE_CUT = 127, 64
CUT, ONES, EMPTY = f"masks with values between 0 and 255, cut at {CUT_AT}", "masks of 0 and 1", "masks that are empty"
FULL = "masks that mark all corners and over half of the picture"
MASK_COUNTS = (CUT, ONES, EMPTY, FULL)
MASK_RULE = (  # for the cards
    f"Values of a mask between 0 and 255 are cut at {CUT_AT}, and a mask of 0 and 1 is marked where it is 1; such "
    "masks are counted. An image whose mask is empty, or marks all corners and over half of the picture, is kept "
    "without outline."
)


@dataclass(frozen=True)
class Listed:
    """A row of a table that names an image: its number in the table, the file's name, its label and descriptors."""

    row: int
    file: str
    label: str
    descriptors: Mapping[str, str] = field(default_factory=dict)


def folder_of(
    source: Path, title: str, names: Sequence[str], outer: str, *, enough: Callable[[Iterable[bool]], bool] = all
) -> Path:
    """The folder that holds ``names``, all of them or ``any``: ``source``, or the folder ``outer`` in it.

    Raises :class:`InputError` that says what is missing, and where it is if it lies one or two levels deeper, or above.
    """

    def holds(folder: Path) -> bool:
        return enough(is_there(folder / name) for name in names)

    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder of {title}; it holds {', '.join(names)}.")
    for folder in (source, source / outer):
        if holds(folder):
            return folder
    deeper = [folder for depth in ("*/", "*/*/") for folder in sorted(source.glob(depth))]
    found = next(filter(holds, [*deeper, source.absolute().parent]), None)
    hint = f"It is in {found}: give that folder." if found else f"Unpack {title} and give the folder it makes."
    missing = ", no ".join(name for name in names if not is_there(source / name))
    raise InputError(f"{source}: not the folder of {title}, there is no {missing} in it. {hint}")


def names_in(folder: Path) -> list[str]:
    """The names of all files in a folder, sorted. Raises :class:`InputError` when it is not a folder to be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}); it must be a folder of pictures.") from error


def leave_out(place: str, why: str, count: str, notes: Notes) -> None:
    """Note and count a file that is left out. A name that is not Unicode is noted with escapes."""
    notes.counts[count] += 1
    notes.dropped.append((place.encode("utf-8", "backslashreplace").decode(), why))


def note_extra_files(folder: Path, known: Collection[str], table: str, count: str, notes: Notes) -> None:
    """Leave out every file of ``folder`` that the table does not name."""
    for name in names_in(folder):
        if name not in known:
            leave_out(f"{folder.name}/{name}", f"{table} has no row for it", count, notes)


def rows_of(path: Path, columns: Sequence[str], faults: list[str]) -> list[tuple[int, dict[str, str]]]:
    """(number, {column: text}) of each row of a table, whatever stands to the right of ``columns``.

    Capitals of the header do not count. Raises :class:`InputError` that names the file, as :func:`by_column` does.
    """
    try:
        (first, names), *below = table_rows(path, faults)
        header = [name.capitalize() for name in names]
        wide = 1 + max((header.index(column) for column in columns if column in header), default=len(header))
        rows: list[Row] = [(first, header[:wide]), *((number, texts[:wide]) for number, texts in below)]
        return by_column(rows, columns)
    except InputError as error:
        raise InputError(f"{path}: {error}; replace the file by the original.") from error


def row_faults(table: str, number: int, problems: Iterable[str]) -> list[str]:
    """Messages about a row that cannot be right."""
    return [f"{table}: row {number}, {problem}; correct it after the original." for problem in problems]


def present(listed: Iterable[Listed], folder: Path, table: str, notes: Notes) -> Iterator[Listed]:
    """The rows whose image is in ``folder``; the others are left out."""
    for row in listed:
        if is_there(folder / row.file):
            yield row
        else:
            why = f"row {row.row} of {table} names it: it is not there"
            leave_out(f"{folder.name}/{row.file}", why, ABSENT, notes)


def read_picture(root: Path, place: str, modes: Sequence[str], notes: Notes) -> np.ndarray | None:
    """The pixels of the PNG file ``place`` in ``root`` (:func:`data_prep.pictures.pixels`), or None and a fault."""
    with fault_of(place, notes):
        return pictures.pixels(root / place, "PNG", modes=modes)
    return None


def marked(picture: np.ndarray, shape: tuple[int, ...], place: str, notes: Notes) -> np.ndarray:
    """The marked pixels bool[h w] of the PNG mask ``place`` for an image of ``shape``; there may be none.

    Values between 0 and 255, as at soft edges, are cut at 127, and in a mask of 0 and 1 a pixel of 1 is marked: such
    masks are counted. A mask that loses many pixels at the cut, as a map of several labels does, is also named in the
    remarks. Raises :class:`InputError` for another size, and for a mask whose largest value is 2 to 127.
    """
    values = pictures.grey(picture)
    if values.max() == 1:
        found = pictures.outline(picture, shape, above=0)
        notes.counts[ONES] += 1
        return found
    found = pictures.outline(picture, shape, above=CUT_AT)
    check_not_faint(values)
    notes.counts[CUT] += bool(((values > 0) & (values < 255)).any())
    lost, kept = int(((values >= NEAR_THE_CUT) & ~found).sum()), int(found.sum())
    if 4 * lost > kept:
        why = f"{lost} pixels of values {NEAR_THE_CUT} to {CUT_AT} are not marked, beside {kept} that are: look at it"
        notes.remarks.append((place, why))
    return found


def check_not_faint(values: np.ndarray) -> None:
    """Raise :class:`InputError` for a mask of grey values u8[h w] that is not black but has none above 127."""
    if 0 < (largest := int(values.max())) <= CUT_AT:
        raise InputError(f"values: the largest is {largest}, so that all is lost at the cut at {CUT_AT} (a label map?)")


def lesion(picture: np.ndarray, shape: tuple[int, ...], place: str, notes: Notes) -> np.ndarray | None:
    """The outline bool[h w] of a mask (:func:`marked`); None, noted, when it cannot be that of a nodule."""
    return usable(marked(picture, shape, place, notes), place, notes)


def usable(outline: np.ndarray, place: str, notes: Notes) -> np.ndarray | None:
    """The outline, or None, noted and counted, when not one pixel is marked, or the mask is probably inside out."""
    if not outline.any():
        leave_out(place, "not one pixel is marked: it gives no outline", EMPTY, notes)
    elif pictures.fills_frame(outline):
        why = "all corners and over half of the picture are marked (inside out?): it gives no outline"
        leave_out(place, why, FULL, notes)
    else:
        return outline
    return None
