"""The images of all folds of a data set at once, for studies that train small models on frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.data.pipeline import DataConfig, letterbox, load
from thyroid_jax.data.record import Record
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.summary import Answer, row_of
from thyroid_jax.runs.evaluation import open_finished, predicted
from thyroid_jax.runs.start import open_parts


class Folds(NamedTuple):
    """Every image of a data set that has an outline, n of them, fold after fold.

    ``batch`` holds them at network size, images and masks as uint8[n h w ...]; ``fold`` int[n] says which fold holds
    each, ``readers`` which numbers of readers occur, ``grades`` the names of the grades, ``digest`` is the data set's.
    """

    records: list[Record]
    batch: Batch
    fold: np.ndarray
    readers: tuple[int, ...]
    grades: tuple[str, ...]
    digest: str


def open_folds(data: DataConfig) -> Folds:
    """Load all folds of a data set, against the reference labels.

    Raises :class:`InputError` for a data set with an official test part, which is in no fold, for one without any
    outline, and where ``data`` names one fold, the readers' labels, a share of the training part or more data sets.
    """
    if data.fold or data.reader != DataConfig().reader or data.share < 1 or data.also:
        raise InputError(
            "every fold is predicted from all others, against the reference: leave out --data.fold, --data.reader, "
            "--data.share and --data.also."
        )
    parts = [open_parts(Config(data=replace(data, fold=fold))) for fold in range(data.folds)]
    names, size = tuple(parts[0].card.grades), (data.height, data.width)
    loaded = [load(part.test, max(2, len(names)), size) for part in parts]
    records = [record for part in parts for record in part.test]
    if len({record.case for record in records}) < len(records):
        raise InputError(
            f"{data.name} has an official test part, the same in every fold; give folds with --data.split."
        )
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[one.batch for one in loaded])
    there = np.asarray(batch.mask_valid)
    if not there.any():
        raise InputError(f"{data.name}: no image has an outline, and features are averaged over outlines.")
    return Folds(
        records=[record for record, ok in zip(records, there) if ok],
        batch=jax.tree.map(lambda a: np.asarray(a)[there], batch),
        fold=np.repeat(np.arange(len(parts)), [len(one.cases) for one in loaded])[there],
        readers=tuple(sorted({count for one in loaded for count in one.readers})),
        grades=names,
        digest=parts[0].digest,
    )


def held_out_outlines(run_dirs: Sequence[Path], folds: Folds, data_dir: str) -> np.ndarray:
    """Outline uint8[n h w] of every image of ``folds``, at their size, predicted by the run that holds it out.

    It is the probability, not cut, of the best checkpoint. Raises :class:`InputError` for a run of another data set,
    and unless every image is in the test part of one run and not of two.
    """
    rows = {record.case: row for row, record in enumerate(folds.records)}
    outlines = np.zeros_like(folds.batch.mask)
    size: tuple[int, int] = outlines.shape[1:]
    by_run: dict[str, Path] = {}
    for run_dir in run_dirs:
        trained, parts = open_finished(run_dir, data_dir=data_dir)
        if parts.digest != folds.digest:
            raise InputError(f"{run_dir}: the run was trained on another data set, or on more than one.")
        for record, found in predicted(trained, parts.test):
            if found.probability is None:
                raise InputError(f"{run_dir}: the run learned no outline.")
            if record.case in by_run:
                raise InputError(
                    f"{run_dir} and {by_run[record.case]} both hold out {record.case}: give one run for each fold."
                )
            by_run[record.case] = run_dir
            if record.case in rows:
                outline = np.round(255 * found.probability).astype(np.uint8)
                outlines[rows[record.case]] = letterbox(outline, size, record.spacing)
    missing = sorted(rows.keys() - by_run)
    if missing:
        raise InputError(
            f"{len(missing)} images, such as {missing[0]}, are held out by no run: give a run of each fold."
        )
    return outlines


def scored_case(folds: Folds, row: int, part: str, grades: Any, malignant: float | None) -> Case:
    """The row of image number ``row`` in the per-case table, without a predicted outline.

    ``grades`` f[k] are scores of its grades or None, ``malignant`` is a score of malignancy in [0, 1] or None.
    """
    probability = None if grades is None else dict(zip(folds.grades, grades.tolist()))
    return row_of(folds.records[row], folds.grades, Answer(probability=probability, p_malignant=malignant), part)
