"""Records to batches: decode and letterbox once, then shuffle, pad and prefetch from a position that can be saved."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from thyroid_jax.batch import Batch, Label
from thyroid_jax.data.record import Record
from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import clinical
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array


@settings
class DataConfig:
    """The data set, the size of the network's input, and the split."""

    name: str = "ddti"
    """data set, as built by `python -m data_prep build`"""
    dir: str = "data"
    """folder that holds the built data set"""
    height: int = 128
    """rows of the network's input, pixels; records are letterboxed to it with their physical aspect ratio kept"""
    width: int = 192
    """columns of the network's input, pixels"""
    folds: int = 5
    """groups are divided into this many folds, stratified by grade"""
    fold: int = 0
    """the fold held out for the test, the next one is the validation fold; the validation fold of official splits"""
    split_seed: int = 0
    """seed of the folds"""
    split: str = ""
    """a file of folds to use instead of the one beside the data"""
    labels: Literal["readers", "reference"] = "readers"
    """train on the readers' outlines and grades where records have them, or on the reference"""

    def __post_init__(self):
        check_within(self, "data", ("height", "width"), 1)
        check_within(self, "data", ("folds",), 3)  # one to test on, one to validate on, at least one to train on
        check_within(self, "data", ("fold",), 0, self.folds - 1)
        check_within(self, "data", ("split_seed",), 0, 2**32 - 1)


class Examples(NamedTuple):
    """A part of a data set at network size, on the host, with the case of every row.

    ``batch`` has n rows; its images are uint8[n h w 1] and its masks uint8[n h w]. ``readers`` are the numbers of
    outlines over which its masks are averaged: 1 for a single outline.
    """

    batch: Batch
    cases: tuple[str, ...]
    readers: frozenset[int] = frozenset({1})


class Geometry(NamedTuple):
    """Where a letterboxed image lies: rows top .. top + height, columns left .. left + width of the network's input."""

    top: int
    left: int
    height: int
    width: int


def square_shape(shape: tuple[int, int], spacing: tuple[float, float]) -> tuple[float, float]:
    """Rows and columns that ``shape`` would have if its pixels were squares of the finer of their two sides.

    ``spacing`` = (row, column) size of a pixel. Where it is not known (NaN) pixels are taken as squares.
    """
    if not all(math.isfinite(side) and side > 0 for side in spacing):
        return shape
    finer = min(spacing)
    return shape[0] * spacing[0] / finer, shape[1] * spacing[1] / finer


def letterbox_geometry(
    shape: tuple[int, int], size: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)
) -> Geometry:
    """The largest centred rectangle of an image's physical aspect ratio inside ``size`` (rows, columns).

    Rounded to pixels, at least 1 x 1. ``spacing`` as in :func:`square_shape`: a circle in the body stays a circle.
    """
    squares = square_shape(shape, spacing)
    scale = min(size[0] / squares[0], size[1] / squares[1])
    height, width = (max(1, min(limit, round(side * scale))) for side, limit in zip(squares, size))
    return Geometry((size[0] - height) // 2, (size[1] - width) // 2, height, width)


def letterbox(pixels: np.ndarray, size: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """uint8[h w] scaled into ``size`` with square pixels and zeros around it; antialiased when it shrinks."""
    from PIL import Image

    place = letterbox_geometry(pixels.shape, size, spacing)
    small = Image.fromarray(pixels).resize((place.width, place.height), Image.Resampling.BILINEAR)
    canvas = np.zeros(size, np.uint8)
    canvas[place.top : place.top + place.height, place.left : place.left + place.width] = np.asarray(small)
    return canvas


def undo_letterbox(values: np.ndarray, shape: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """f32[H W] at network size back to ``shape``, the record's own pixels: undoes :func:`letterbox`, bilinear."""
    from PIL import Image

    place = letterbox_geometry(shape, values.shape, spacing)
    inside = values[place.top : place.top + place.height, place.left : place.left + place.width]
    image = Image.fromarray(np.ascontiguousarray(inside, np.float32))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def load(
    records: Iterable[Record],
    grades: int,
    size: tuple[int, int],
    *,
    labels: str = "reference",
    extra: Mapping[str, Callable[[Record], np.ndarray | None]] | None = None,
) -> Examples:
    """Decode and letterbox every record once, to square pixels.

    The guidance target is not measured here: ``radiomics`` is 0, and ``radiomics_valid`` says where there is an outline
    to measure (see :func:`with_target`). Host memory: 2 bytes a pixel.

    Args:
        records: of one part of a data set.
        grades: grade classes k.
        size: (height, width) of the network's input.
        labels: "readers" takes the mean of a record's reader outlines and the distribution of its reader grades,
            where it has them; "reference" takes its reference outline and grade.
        extra: labels of tasks that a user adds, by name: record -> array of one shape, None where it is missing.

    Raises :class:`InputError` when there is no record.
    """
    rows = [_row(record, grades, size, labels, extra or {}) for record in records]  # one record in memory at a time
    if not rows:
        raise InputError("this part of the data set holds no record; choose other folds or build more cases.")
    cases, readers, image, masks, given_grades, proven, further = zip(*rows)
    mask, mask_valid = _with_flags(masks, np.zeros(size, np.uint8))
    grade, grade_valid = _with_flags(given_grades, np.zeros(grades, np.float32))
    malignant, malignant_valid = _with_flags(proven, np.zeros((), np.float32))
    batch = Batch(
        image=np.stack(image)[..., None],
        mask=mask,
        grade=grade,
        malignant=malignant,
        radiomics=np.zeros((len(rows), len(clinical.TARGET)), np.float32),
        mask_valid=mask_valid,
        grade_valid=grade_valid,
        malignant_valid=malignant_valid,
        radiomics_valid=mask_valid.copy(),
        example_valid=np.ones(len(rows), bool),
        extra=_extra_labels(further),
    )
    return Examples(batch, cases, frozenset(readers))


def _row(record: Record, grades: int, size: tuple[int, int], labels: str, extra: Mapping[str, Callable]) -> tuple:
    drawn = record.reader_masks if labels == "readers" else ()
    mask = _mask(record, drawn)
    return (
        record.case,
        len(drawn) or 1,
        letterbox(record.image, size, record.spacing),
        None if mask is None else letterbox(mask, size, record.spacing),
        _grade(record, grades, labels),
        None if record.malignant is None else np.array(record.malignant, np.float32),
        {name: read(record) for name, read in extra.items()},
    )


def _mask(record: Record, drawn: Sequence[np.ndarray]) -> np.ndarray | None:
    if drawn:
        return np.round(255 * np.mean(drawn, axis=0)).astype(np.uint8)
    return None if record.mask is None else record.mask.astype(np.uint8) * 255


def _grade(record: Record, grades: int, labels: str) -> np.ndarray | None:
    if labels == "readers" and record.reader_grades:
        return np.bincount(record.reader_grades, minlength=grades).astype(np.float32) / len(record.reader_grades)
    return None if record.grade is None else np.eye(grades, dtype=np.float32)[record.grade]


def _with_flags(values: Sequence[np.ndarray | None], missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values stacked, with ``missing`` in the place of None, and flags: True where there is a value."""
    return np.stack([missing if value is None else value for value in values]), np.array(
        [v is not None for v in values]
    )


def _extra_labels(rows: Sequence[dict[str, np.ndarray | None]]) -> dict[str, Label]:
    """Labels of the tasks that a user adds; a task without any label in these rows is left out."""
    labels = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        known = next((value for value in values if value is not None), None)
        if known is not None:
            labels[name] = Label(*_with_flags(values, np.zeros_like(known)))
    return labels


def measure(image: Array, mask: Array, *, cut: float = 0.5, chunk: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """The clinical target of images and masks, f32[n r], and whether each value is defined, bool[n r].

    ``image`` and ``mask`` [n h w], uint8 or float in [0, 1]; the values of the ring and the nodule cut a soft mask at
    ``cut``, the first four read it as it is.
    """
    values, valid = [], []
    for start in range(0, len(image), chunk):
        pad = ((0, max(0, start + chunk - len(image))), (0, 0), (0, 0))
        rows = [np.pad(_unit(a[start : start + chunk]), pad) for a in (image, mask)]
        found, defined = clinical.target(rows[0], rows[1], cut=np.array(cut, np.float32))
        values.append(np.asarray(found))
        valid.append(np.asarray(defined))
    return np.concatenate(values)[: len(image)], np.concatenate(valid)[: len(image)]


def with_target(examples: Examples, scaling: clinical.Scaling, *, cut: float = 0.5, chunk: int = 32) -> Examples:
    """The examples with the scaled guidance target of their unaugmented images; it is undefined for some outlines."""
    batch = examples.batch
    values, valid = measure(batch.image[..., 0], batch.mask, cut=cut, chunk=chunk)
    scaled = np.where(valid, np.asarray(scaling(values)), 0)
    return examples._replace(
        batch=batch._replace(radiomics=scaled, radiomics_valid=batch.radiomics_valid & valid.all(-1))
    )


def _unit(pixels: Array) -> np.ndarray:
    values = np.asarray(pixels, np.float32)
    return values / 255 if pixels.dtype == np.uint8 else values


def take(examples: Examples, rows: Sequence[int], size: int) -> Batch:
    """A batch of ``size`` rows: the chosen ones, then zeros with every flag False. Images and masks stay 8-bit."""

    def pick(values: np.ndarray) -> np.ndarray:
        chosen = values[np.asarray(rows)]
        return np.concatenate([chosen, np.zeros((size - len(rows), *values.shape[1:]), values.dtype)])

    return jax.tree.map(pick, examples.batch)


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches an epoch, the padded last one included."""
    return -(-count // batch_size)


class TrainingBatches:
    """Endless shuffled batches. Every epoch holds each example once; its last batch is padded. The order depends on
    ``seed`` only.

    ``state()`` is the position after the last batch handed out, as JSON-ready values; ``restore`` goes back to it.
    """

    def __init__(self, examples: Examples, batch_size: int, *, seed: int):
        import grain

        rows = grain.MapDataset.range(len(examples.cases)).seed(seed).shuffle()
        batches = rows.batch(
            batch_size, drop_remainder=False, batch_fn=lambda items: take(examples, items, batch_size)
        ).repeat()
        # No reading threads: the step runs beside this thread already, and a thread may outlive its run.
        self._iterator = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))

    def __iter__(self) -> TrainingBatches:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def state(self) -> dict[str, Any]:
        """Position after the last batch handed out."""
        return self._iterator.get_state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position from :meth:`state`."""
        self._iterator.set_state(state)


def prefetch(
    batches: TrainingBatches, put: Callable[[Batch], Batch], *, ahead: int = 2
) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Yield (batch on the device, position after it); ``put`` has already been called for ``ahead`` more batches."""
    queue: deque[tuple[Batch, dict[str, Any]]] = deque()
    while True:
        while len(queue) <= ahead:
            batch = next(batches)
            queue.append((put(batch), batches.state()))
        yield queue.popleft()


def evaluation_batches(examples: Examples, batch_size: int) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """(batch, its cases) in order, each example once, the last batch padded with ``example_valid=False``."""
    for start in range(0, len(examples.cases), batch_size):
        rows = range(start, min(start + batch_size, len(examples.cases)))
        yield take(examples, rows, batch_size), examples.cases[start : start + batch_size]
