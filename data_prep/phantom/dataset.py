"""Phantoms, each a picture with its labels, and the data set made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.phantom.descriptors import Descriptors, points, sample_descriptors, words
from data_prep.phantom.outline import Size, outline, sample_scene
from data_prep.phantom.readers import READERS, Reader, read_grade, read_outline
from data_prep.phantom.rendering import draw
from thyroid_jax import tirads
from thyroid_jax.compiling import QUICK
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.shapes import Array, Float, Int, Key

DEPTH_MM = 40.0  # nominal depth shown by every picture; with square pixels this fixes the spacing


class Phantom(NamedTuple):
    """A picture and its labels; n readers. ``level`` and ``reader_grades`` are indices into ``tirads.LEVELS``.

    ``image`` lies in [0, 1], ``mask`` and ``reader_masks`` in {0, 1}.
    """

    image: Float[Array, "*v h w"]
    mask: Float[Array, "*v h w"]
    reader_masks: Float[Array, "*v n h w"]
    level: Int[Array, "*v"]
    reader_grades: Int[Array, "*v n"]
    points: Int[Array, "*v"]
    descriptors: Descriptors


def phantom(key: Key, size: Size = (96, 96), view: int | Int[Array, ""] = 0, readers: Reader = READERS) -> Phantom:
    """One phantom: the picture number ``view`` of the nodule that ``key`` stands for.

    Readers outline each view separately. They grade the nodule only once, so their grades are the same on all its
    views.
    """
    keys = jax.random.split(key, 5)
    readers = jax.tree.map(jnp.asarray, readers)
    count = readers.bias.shape[0]
    descriptors = sample_descriptors(keys[0])
    scene = sample_scene(keys[1], descriptors, size, view)
    total = points(descriptors)
    level = tirads.level(total)
    outline_keys = jax.random.split(jax.random.fold_in(keys[2], view), count)
    return Phantom(
        image=draw(jax.random.fold_in(keys[3], view), descriptors, scene, size),
        mask=outline(scene.contour, size),
        reader_masks=jax.vmap(lambda k, reader: read_outline(k, reader, scene.contour, size))(outline_keys, readers),
        level=level,
        reader_grades=jax.vmap(lambda k, reader: read_grade(k, reader, level))(
            jax.random.split(keys[4], count), readers
        ),
        points=total,
        descriptors=descriptors,
    )


def several_views(key: Key, size: Size = (96, 96), views: int = 3, readers: Reader = READERS) -> Phantom:
    """The first ``views`` pictures of one patient's nodule; every field has a leading axis v."""
    return jax.vmap(lambda view: phantom(key, size, view, readers))(jnp.arange(views))


CHUNK = 32  # phantoms rendered at once: enough to keep the cores busy, with little memory
MOST_VIEWS = 3

CARD = Card(
    name="phantom",
    title="Thyroid ultrasound phantoms with ACR TI-RADS descriptors and two simulated readers",
    source="rendered by data_prep.phantom; nothing is downloaded",
    licence="that of this package",
    labels=(
        "Exact outline, ACR points and level by construction. Reader 1 draws outward and smooth and over-grades, "
        f"reader 2 draws inward and under-grades. Spacing is nominal ({DEPTH_MM:g} mm over the height). No diagnosis. "
        "Made images: not evidence about patients."
    ),
    grouping=f"patient: 1 to {MOST_VIEWS} views of one nodule",
    grades=tirads.LEVELS,
    grade_system="ACR",
    access="made here",
    holds=("outlines", "grades", "several readers"),
)


@dataclass(frozen=True)
class PhantomOptions:
    """How many pictures of which size (h, w).

    The same seed gives the same pictures, and a smaller count gives the first of them.
    """

    count: int = 600
    seed: int = 0
    size: Size = (96, 96)


def read(options: PhantomOptions, notes: Notes) -> Iterator[Record]:
    """Yield ``options.count`` rendered records, patient by patient ("p0007") and view by view ("p0007_1").

    Counts go to ``notes``. Options that cannot be rendered raise :class:`InputError` at the call, before the first
    record is asked for.
    """
    _check(options)
    return _stream(options, notes)


def _check(options: PhantomOptions) -> None:
    if options.count < 1:
        raise InputError(f"count: {options.count} phantoms asked for; give a number of at least 1")
    if not 0 <= options.seed < 2**31:
        raise InputError(f"seed: {options.seed} is not in 0 .. 2**31 - 1; choose one that is")
    low, high = min(options.size), max(options.size)
    if low < 48 or high > 1024 or high > 2 * low:
        raise InputError(
            f"size: {options.size[0]} x {options.size[1]} cannot be rendered; "
            "height and width must be 48 .. 1024, one at most twice the other"
        )


def _stream(options: PhantomOptions, notes: Notes) -> Iterator[Record]:
    key = jax.random.key(options.seed)
    patients, views = _schedule(key, options.count)
    for start in range(0, options.count, CHUNK):
        # The last chunk is padded, so that all chunks share one compiled program.
        rows = np.minimum(np.arange(start, start + CHUNK), options.count - 1)
        chunk = jax.tree.map(np.asarray, _render_chunk(key, patients[rows], views[rows], options.size))
        for place in range(min(CHUNK, options.count - start)):
            patient, view = int(patients[rows[place]]), int(views[rows[place]])
            record = _record(jax.tree.map(lambda leaf, i=place: leaf[i], chunk), patient, view, options)
            notes.counts["images"] += 1
            notes.counts["groups"] += int(view == 0)
            notes.counts[f"grade {CARD.grades[record.grade]}"] += 1
            yield record


def _schedule(key: Key, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Patient and view of each picture: patients in turn, each with 1 to MOST_VIEWS views; the last may have fewer."""
    draw_views = jax.vmap(lambda patient: jax.random.randint(jax.random.fold_in(key, patient), (), 1, MOST_VIEWS + 1))
    views = np.asarray(draw_views(jnp.arange(count)))
    patients = np.repeat(np.arange(count), views)[:count]
    first = np.concatenate([[0], np.cumsum(views)[:-1]])
    return patients, np.arange(count) - first[patients]


@partial(jax.jit, static_argnames="size", compiler_options=QUICK)
def _render_chunk(key: Key, patients: Int[Array, " b"], views: Int[Array, " b"], size: Size) -> Phantom:
    return jax.vmap(lambda patient, view: phantom(jax.random.fold_in(key, patient), size, view))(patients, views)


def _record(rendered: Phantom, patient: int, view: int, options: PhantomOptions) -> Record:
    pixel = DEPTH_MM / options.size[0]
    return Record(
        case=f"p{patient:04d}_{view + 1}",
        group=f"p{patient:04d}",
        source=CARD.name,
        image=np.round(255 * rendered.image).astype(np.uint8),
        mask=rendered.mask > 0.5,
        reader_masks=tuple(mask > 0.5 for mask in rendered.reader_masks),
        grade=int(rendered.level),
        reader_grades=tuple(int(grade) for grade in rendered.reader_grades),
        descriptors=words(rendered.descriptors),
        spacing=(pixel, pixel),
    )
