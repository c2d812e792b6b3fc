"""Records to batches: decode and letterbox once, then shuffle, pad and prefetch from a position that can be saved."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from thyroid_jax.batch import Batch, Label
from thyroid_jax.data.record import Record, is_name
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
    reader: str = "mean"
    """labels to train on where several readers gave theirs: `mean` of all, one `sample`d in every epoch, the number of
    one reader (from 0), or the `reference`; validation and test always use the reference"""
    share: float = 1.0
    """share of the training part's groups to train on, for a learning curve: `split_seed` draws them, and a smaller
    share is part of a larger one"""
    also: tuple[str, ...] = ()
    """more built data sets to train on, in the same folder: NAME, or NAME:WEIGHT for WEIGHT passes an epoch"""

    def __post_init__(self):
        check_within(self, "data", ("height", "width"), 1)
        check_within(self, "data", ("folds",), 3)  # one to test on, one to validate on, at least one to train on
        check_within(self, "data", ("fold",), 0, self.folds - 1)
        check_within(self, "data", ("split_seed",), 0, 2**32 - 1)
        check_within(self, "data", ("share",), 0.001, 1)
        if self.split and self.split_seed and self.share == 1:
            raise InputError(
                f"data.split_seed is {self.split_seed}, but the folds are those of data.split, and no share of the "
                "training part is drawn; leave out one of the two."
            )
        if self.reader not in READERS and not _is_number(self.reader):
            raise InputError(f"data.reader is {self.reader!r}; give {', '.join(READERS)}, or a reader's number from 0.")
        names = [self.name, *(name for name, _ in self.added)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"data.also names {twice[0]!r}, which is already trained on; name each data set once.")

    @property
    def added(self) -> tuple[tuple[str, float], ...]:
        """(name, weight) of each data set in ``also``; :class:`InputError` for any other form."""
        return tuple(_name_and_weight(text) for text in self.also)


READERS = ("mean", "sample", "reference")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _name_and_weight(text: str) -> tuple[str, float]:
    name, colon, weight = text.partition(":")
    try:
        number = float(weight) if colon else 1.0
    except ValueError:
        number = math.nan
    if not (is_name(name) and LEAST_WEIGHT <= number <= 1 / LEAST_WEIGHT):
        raise InputError(
            f"data.also: {text!r} must be the name of a built data set, or NAME:WEIGHT with a weight from "
            f"{LEAST_WEIGHT:g} to {1 / LEAST_WEIGHT:g}."
        )
    return name, number


LEAST_WEIGHT = 0.01


class ReaderLabels(NamedTuple):
    """Every reader's labels of n examples, r readers at most, from which a training step gets those of one reader.

    ``mask`` uint8[n r h w] and ``grade`` f32[n r k]; ``masks`` and ``grades`` int[n] are the numbers of readers who
    gave one. Where there are none, the reference counts as the one reader.
    """

    mask: np.ndarray
    grade: np.ndarray
    masks: np.ndarray
    grades: np.ndarray


class Examples(NamedTuple):
    """A part of a data set at network size, on the host, with the case of every row.

    ``batch`` has n rows; its images are uint8[n h w 1] and its masks uint8[n h w]. ``readers`` are the numbers of
    outlines over which its masks are averaged: 1 for a single outline. ``sampled`` holds the labels of every reader if
    each epoch samples one. ``shares`` are (rows, weight) of the data sets in it, one after the other; () for one set.
    """

    batch: Batch
    cases: tuple[str, ...]
    readers: frozenset[int] = frozenset({1})
    sampled: ReaderLabels | None = None
    shares: tuple[tuple[int, float], ...] = ()

    @property
    def per_epoch(self) -> int:
        """Examples that one epoch draws: each once, or of each data set the share that its weight says."""
        return sum(max(1, round(rows * weight)) for rows, weight in self.shares) or len(self.cases)

    @property
    def drawn(self) -> np.ndarray:
        """How often one epoch draws each row in the mean, f[n]: once, or as often as its data set's weight says."""
        shares = self.shares or ((len(self.cases), 1.0),)
        return np.concatenate([np.full(rows, weight) for rows, weight in shares])


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
    """uint8[h w] scaled into ``size`` with square pixels and zeros around it; antialiased when it shrinks.

    Columns are resized first and rounded, then rows: versions of Pillow differ in which they take first.
    """
    from PIL import Image

    place = letterbox_geometry(pixels.shape, size, spacing)
    wide = Image.fromarray(pixels).resize((place.width, pixels.shape[0]), Image.Resampling.BILINEAR)
    small = wide.resize((place.width, place.height), Image.Resampling.BILINEAR)
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
    reader: str = "reference",
    extra: Mapping[str, Callable[[Record], np.ndarray | None]] | None = None,
) -> Examples:
    """Decode and letterbox every record once, to square pixels.

    The guidance target is not measured here: ``radiomics`` is 0, and ``radiomics_valid`` says where there is an outline
    to measure (see :func:`with_target`). Host memory: 2 bytes a pixel.

    Args:
        records: of one part of a data set.
        grades: grade classes k.
        size: (height, width) of the network's input.
        reader: "reference" takes a record's reference outline and grade, also where no reader gave one. "mean" takes
            the mean of its readers' outlines and the distribution of their grades. A number takes those of one reader,
            counted from 0; the label is missing where a record has readers, but fewer. "sample" takes those of reader
            (row modulo readers), and keeps all readers' labels for :func:`take`.
        extra: labels of tasks that a user adds, by name: record -> array of one shape, None where it is missing.

    Raises :class:`InputError` when there is no record.
    """
    rows, sampled = [], []
    for place, record in enumerate(records):  # one record in memory at a time
        rows.append(_row(record, grades, size, reader, place, extra or {}))
        sampled += [_reader_labels(record, grades, size)] if reader == "sample" else []
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
    return Examples(batch, cases, frozenset(readers), _stacked(sampled, mask[0], grade[0]) if sampled else None)


def _row(
    record: Record, grades: int, size: tuple[int, int], reader: str, place: int, extra: Mapping[str, Callable]
) -> tuple:
    drawn = _chosen(record.reader_masks, record.mask, reader, place)
    given = _chosen(record.reader_grades, record.grade, reader, place)
    return (
        record.case,
        len(drawn) or 1,
        letterbox(record.image, size, record.spacing),
        letterbox(_mean_mask(drawn), size, record.spacing) if drawn else None,
        _distribution(given, grades) if given else None,
        None if record.malignant is None else np.array(record.malignant, np.float32),
        {name: read(record) for name, read in extra.items()},
    )


T = TypeVar("T")


def _chosen(given: Sequence[T], reference: T | None, reader: str, place: int) -> Sequence[T]:
    """The labels to average: the chosen readers', or the reference where no reader gave one; [] where it is missing."""
    if reader == "reference" or not given:
        return [] if reference is None else [reference]
    if reader == "mean":
        return given
    number = place % len(given) if reader == "sample" else int(reader)
    return given[number : number + 1]


def _mean_mask(drawn: Sequence[np.ndarray]) -> np.ndarray:
    return np.round(255 * np.mean(drawn, axis=0)).astype(np.uint8)


def _distribution(given: Sequence[int], grades: int) -> np.ndarray:
    return np.bincount(given, minlength=grades).astype(np.float32) / len(given)


def _reader_labels(
    record: Record, grades: int, size: tuple[int, int]
) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Each reader's outline at network size, and each reader's grade; those of the reference where there are none."""
    drawn = record.reader_masks or _chosen((), record.mask, "reference", 0)
    given = record.reader_grades or _chosen((), record.grade, "reference", 0)
    return (
        [letterbox(_mean_mask([mask]), size, record.spacing) for mask in drawn],
        [_distribution([grade], grades) for grade in given],
    )


def _stacked(rows: Sequence[tuple[Sequence, Sequence]], mask: np.ndarray, grade: np.ndarray) -> ReaderLabels:
    """All readers' labels, filled up with zeros; ``mask`` and ``grade`` have the shape and kind of one label."""

    def stack(labels: Sequence[Sequence[np.ndarray]], like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = np.array([len(row) for row in labels])
        whole = np.zeros((len(labels), max(1, counts.max()), *like.shape), like.dtype)
        for place, row in enumerate(labels):
            whole[place, : len(row)] = row if len(row) else 0
        return whole, counts

    masks, grades = zip(*rows)
    (all_masks, mask_counts), (all_grades, grade_counts) = stack(masks, mask), stack(grades, grade)
    return ReaderLabels(all_masks, all_grades, mask_counts, grade_counts)


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


def take(examples: Examples, rows: Sequence[int], size: int, draws: Sequence[int] = ()) -> Batch:
    """A batch of ``size`` rows: the chosen ones, then zeros with every flag False. Images and masks stay 8-bit.

    ``draws``, a random number for each row, choose the reader of each if the examples hold every reader's labels. A
    reader's outline and grade go together where a record has as many outlines as grades.
    """

    def pick(values: np.ndarray) -> np.ndarray:
        chosen = values[np.asarray(rows, int)]  # there may be none
        return np.concatenate([chosen, np.zeros((size - len(rows), *values.shape[1:]), values.dtype)])

    batch = jax.tree.map(pick, examples.batch)
    if examples.sampled is not None and len(draws):
        everyone, chosen = examples.sampled, np.asarray(rows, int)
        for name, labels, counts in (
            ("mask", everyone.mask, everyone.masks),
            ("grade", everyone.grade, everyone.grades),
        ):
            reader = np.asarray(draws) % np.maximum(counts[chosen], 1)
            getattr(batch, name)[: len(chosen)] = labels[chosen, reader]
    return batch


def joined(parts: Sequence[Examples], weights: Sequence[float]) -> Examples:
    """Training examples of several data sets as one; an epoch holds about ``weights[i]`` passes over those of set i.

    The sets are mixed in this ratio all along, so that an epoch may hold an example more or less of one.
    """
    shares = tuple((len(part.cases), float(weight)) for part, weight in zip(parts, weights, strict=True))
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[part.batch for part in parts])
    kept = [part.sampled for part in parts if part.sampled is not None]
    sampled = None
    if kept:
        most = max(max(labels.mask.shape[1], labels.grade.shape[1]) for labels in kept)
        sampled = ReaderLabels(
            *(np.concatenate([_wider(labels[field], most) for labels in kept]) for field in range(2)),
            *(np.concatenate([labels[field] for labels in kept]) for field in (2, 3)),
        )
    cases = tuple(case for part in parts for case in part.cases)
    return Examples(batch, cases, frozenset().union(*(part.readers for part in parts)), sampled, shares)


def _wider(labels: np.ndarray, readers: int) -> np.ndarray:
    return np.pad(labels, [(0, 0), (0, readers - labels.shape[1]), *[(0, 0)] * (labels.ndim - 2)])


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches an epoch, the padded last one included."""
    return -(-count // batch_size)


class TrainingBatches:
    """Endless shuffled batches. Every epoch holds each example once; its last batch is padded. The order depends on
    ``seed`` only.

    Of several data sets, each is shuffled and repeated by itself, and they are mixed in the ratio of weight times size;
    no batch is padded.

    ``part`` (place, number) hands out the place-th of ``number`` equal parts of each batch's rows, for one of several
    processes; ``batch_size`` is a multiple of ``number``. Order, position and a reader's draw do not depend on it.

    ``state()`` is the position after the last batch handed out, as JSON-ready values; ``restore`` goes back to it.
    """

    def __init__(self, examples: Examples, batch_size: int, *, seed: int, part: tuple[int, int] = (0, 1)):
        import grain

        place, number = part
        size = batch_size // number
        rows_of_part = slice(place * size, (place + 1) * size)

        def shuffled(first: int, count: int, order: int) -> grain.MapDataset:
            return grain.MapDataset.range(first, first + count).seed(order).shuffle()

        def batch_of(items: Sequence) -> Batch:
            picked, draws = zip(*items) if examples.sampled is not None else (list(items), ())
            return take(examples, picked[rows_of_part], size, draws[rows_of_part])

        counts = [count for count, _ in examples.shares]
        firsts = np.cumsum([0, *counts[:-1]]).tolist()
        if counts:
            sets = [
                shuffled(first, count, seed + place).repeat()
                for place, (first, count) in enumerate(zip(firsts, counts))
            ]
            rows = grain.MapDataset.mix(sets, weights=[count * weight for count, weight in examples.shares])
        else:
            rows = shuffled(0, len(examples.cases), seed)
        if examples.sampled is not None:
            rows = rows.seed(seed).random_map(lambda row, rng: (int(row), int(rng.integers(1 << 31))))
        batches = rows.batch(batch_size, drop_remainder=False, batch_fn=batch_of)
        batches = batches if counts else batches.repeat()
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
