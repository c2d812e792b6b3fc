"""Records to batches: decode and letterbox once, then shuffle, pad and prefetch with a position that a checkpoint can
hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.batch import Batch
from thyroid_jax.data.record import Record
from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import clinical


class Examples(NamedTuple):
    """A part of a data set at network size, on the host: a :class:`Batch` of n rows with 8-bit images and masks, and
    their cases.
    """

    batch: Batch
    cases: tuple[str, ...]


class Geometry(NamedTuple):
    """Where a letterboxed image lies: rows top .. top + height, columns left .. left + width of the network's input."""

    top: int
    left: int
    height: int
    width: int


def letterbox_geometry(shape: tuple[int, int], size: tuple[int, int]) -> Geometry:
    """The largest centred rectangle of ``shape``'s aspect ratio inside ``size`` (rows, columns), rounded to pixels, at
    least 1 x 1.
    """
    scale = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (max(1, min(limit, round(side * scale))) for side, limit in zip(shape, size))
    return Geometry((size[0] - height) // 2, (size[1] - width) // 2, height, width)


def letterbox(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8[h w] scaled into ``size`` with its aspect ratio kept and zeros around it; antialiased when it shrinks."""
    from PIL import Image

    place = letterbox_geometry(pixels.shape, size)
    small = Image.fromarray(pixels).resize((place.width, place.height), Image.Resampling.BILINEAR)
    canvas = np.zeros(size, np.uint8)
    canvas[place.top : place.top + place.height, place.left : place.left + place.width] = np.asarray(small)
    return canvas


def undo_letterbox(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """f32[H W] at network size back to ``shape``, the record's own pixels: the inverse of :func:`letterbox`, bilinear."""
    from PIL import Image

    place = letterbox_geometry(shape, values.shape)
    inside = values[place.top : place.top + place.height, place.left : place.left + place.width]
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(inside, np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR)
    )


def load(records: Sequence[Record], grades: int, size: tuple[int, int], *, labels: str = "reference") -> Examples:
    """Decode and letterbox every record once; the guidance target is measured here, unscaled (see
    :func:`scale_radiomics`).

    ``labels="readers"`` takes, where a record has them, the mean of its readers' outlines and the distribution of
    their grades, and measures the target on the pixels that at least half of them drew; ``"reference"`` its reference
    outline and grade. ``size`` is (height, width). Host memory: 2 bytes a pixel.
    """
    rows = [_row(record, grades, size, labels) for record in records]  # one record in memory at a time
    if not rows:
        raise InputError("this part of the data set holds no record; choose other folds or build more cases.")
    cases, image, mask, mask_valid, grade, grade_valid = zip(*rows)
    image, mask, mask_valid = np.stack(image), np.stack(mask), np.array(mask_valid)
    radiomics, radiomics_valid = measure(image, mask)
    batch = Batch(
        image=image,
        mask=mask,
        grade=np.stack(grade),
        radiomics=radiomics,
        mask_valid=mask_valid,
        grade_valid=np.array(grade_valid),
        radiomics_valid=radiomics_valid,  # False without a mask: there is nothing to measure
        example_valid=np.ones(len(rows), bool),
    )
    return Examples(batch, cases)


def _row(record: Record, grades: int, size: tuple[int, int], labels: str) -> tuple:
    mask, grade = _mask(record, labels), _grade(record, grades, labels)
    return (
        record.case,
        letterbox(record.image, size),
        np.zeros(size, np.uint8) if mask is None else letterbox(mask, size),
        mask is not None,
        np.zeros(grades, np.float32) if grade is None else grade,
        grade is not None,
    )


def _mask(record: Record, labels: str) -> np.ndarray | None:
    if labels == "readers" and record.reader_masks:
        return np.round(255 * np.mean(record.reader_masks, axis=0)).astype(np.uint8)
    return None if record.mask is None else record.mask.astype(np.uint8) * 255


def _grade(record: Record, grades: int, labels: str) -> np.ndarray | None:
    if labels == "readers" and record.reader_grades:
        return np.bincount(record.reader_grades, minlength=grades).astype(np.float32) / len(record.reader_grades)
    return None if record.grade is None else np.eye(grades, dtype=np.float32)[record.grade]


def measure(image: np.ndarray, mask: np.ndarray, *, chunk: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """The clinical target of uint8[n h w] images and masks: (f32[n r], bool[n]), True where every value of a row is
    defined.
    """
    values, valid = [], []
    for start in range(0, len(image), chunk):
        rows = [
            np.pad(a[start : start + chunk], ((0, max(0, start + chunk - len(a))), (0, 0), (0, 0)))
            for a in (image, mask)
        ]
        v, ok = clinical.target(rows[0].astype(np.float32) / 255, rows[1] >= 128)
        values.append(np.asarray(v))
        valid.append(np.asarray(ok).all(-1))
    return np.concatenate(values)[: len(image)], np.concatenate(valid)[: len(image)]


def scale_radiomics(examples: Examples, scaling: clinical.Scaling) -> Examples:
    """The same examples with the guidance target scaled; fit ``scaling`` on the training part only."""
    return examples._replace(batch=examples.batch._replace(radiomics=np.asarray(scaling(examples.batch.radiomics))))


def to_device_ranges(batch: Batch) -> Batch:
    """8-bit images and masks to float32 in [0, 1], the image with its channel axis: the form that the model takes."""
    return batch._replace(
        image=batch.image[..., None].astype(np.float32) / 255,
        mask=batch.mask.astype(np.float32) / 255,
    )


def take(examples: Examples, rows: Sequence[int], size: int) -> Batch:
    """A batch of ``size`` rows: the chosen ones, then zeros with every flag False."""

    def pick(values: np.ndarray) -> np.ndarray:
        chosen = values[np.asarray(rows)]
        return np.concatenate([chosen, np.zeros((size - len(rows), *values.shape[1:]), values.dtype)])

    return to_device_ranges(Batch(*(pick(values) for values in examples.batch)))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches an epoch, the padded last one included."""
    return -(-count // batch_size)


class TrainingBatches:
    """Endless shuffled batches; every epoch holds each example once, its last batch padded. Order depends on ``seed``
    alone.

    ``state()`` is the position after the last batch handed out, as JSON-ready values; ``restore`` goes back to it.
    """

    def __init__(self, examples: Examples, batch_size: int, *, seed: int):
        import grain

        rows = grain.MapDataset.range(len(examples.cases)).seed(seed).shuffle()
        batches = rows.batch(
            batch_size, drop_remainder=False, batch_fn=lambda items: take(examples, items, batch_size)
        ).repeat()
        # Threads, not processes: a forked worker deadlocks with JAX.
        self._iterator = iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

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
    """(batch on the device, position after it) pairs, with ``ahead`` further batches already on their way through
    ``put``.
    """
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
