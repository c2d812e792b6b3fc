"""Built records, split by a folds file into parts that share no group and no image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from thyroid_jax.data import splits
from thyroid_jax.data.record import Card, Record, RecordSequence
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import read_json

PARTS = splits.SIDES


class Subset(RecordSequence):
    """Some of a data set's records, read from disk as they are asked for."""

    def __init__(self, records: RecordSequence, rows: Sequence[int]):
        self._records, self._rows = records, tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Subset: ...
    def __getitem__(self, index: int | slice) -> Record | Subset:
        """Record ``index`` of the subset, or a smaller subset for a slice."""
        if isinstance(index, slice):
            return Subset(self._records, self._rows[index])
        return self._records[self._rows[index]]


@dataclass(frozen=True)
class Parts:
    """A data set's card and its three parts, the split that makes them, and the digests of data set and split."""

    card: Card
    train: Subset
    validation: Subset
    test: Subset
    split: splits.Split
    digest: str
    split_digest: str


def open_parts(
    data_dir: Path | str,
    name: str,
    *,
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    split_file: Path | str | None = None,
) -> Parts:
    """Open the data set ``name`` built in ``data_dir`` and split it, holding out ``fold`` (:func:`splits.resolve`).

    The folds are those of the folds file ``split_file``, which must hold ``folds`` of them; ``seed`` then does not
    matter. Without one they lie beside the data and are made at first use. No record is read. Raises
    :class:`InputError` for a data set that is missing or damaged, and for folds that do not fit it.
    """
    card, records = open_records(data_dir, name)
    if split_file is None:
        found, path = splits.folds_beside(data_dir, name, records.digest, records.entries, folds=folds, seed=seed)
        file = path.relative_to(data_dir).as_posix()
    else:
        found, file = splits.load_folds(split_file, name, records.digest, records.entries), str(split_file)
        if len(found.folds) != folds:
            raise InputError(f"{split_file}: holds {len(found.folds)} folds; ask for so many: --data.folds.")
    split = splits.resolve(found, fold, records.entries, file)
    row_of = {entry.case: row for row, entry in enumerate(records.entries)}
    train, validation, test = (
        Subset(records, [row_of[case] for case in cases])
        for cases in (split["train"], split["validation"], split["test"])
    )
    return Parts(card, train, validation, test, split, records.digest, splits.digest(split))


def check_split(path: Path | str, parts: Parts) -> None:
    """Check that the file ``path``, the ``split.json`` of a run, holds the split of ``parts``: every record once, and
    on the same side. Raises :class:`InputError` that says what differs.
    """
    raise_all(
        splits.differences(read_json(path), parts.split),
        f"{path}: not the split of {parts.card.name} that is asked for. Put back the file, the data set and the folds "
        "that the run was made with, or choose a new run folder:",
    )
