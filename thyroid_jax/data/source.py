"""Built records, split once and for all into parts that share no group and no image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thyroid_jax.config import DataConfig
from thyroid_jax.data import splits
from thyroid_jax.data.record import Card, Record
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError

PARTS = splits.SIDES


class Subset(Sequence[Record]):
    """Some of a data set's records, read from disk as they are asked for."""

    def __init__(self, records: Sequence[Record], rows: Sequence[int]):
        self._records, self._rows = records, tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        """Record ``index`` of the subset, or a smaller subset for a slice."""
        if isinstance(index, slice):
            return Subset(self._records, self._rows[index])
        return self._records[self._rows[index]]


@dataclass(frozen=True)
class Parts:
    """A data set's card and its three parts, the split that makes them, and a digest of all cases, groups and pixels."""

    card: Card
    train: Subset
    validation: Subset
    test: Subset
    split: dict[str, object]
    digest: str


def open_parts(config: DataConfig, split_file: Path) -> Parts:
    """Open the built data set and split it by ``split_file``; where there is none yet, make the split (the caller
    saves it).

    Groups are dealt into ``config.folds`` folds, stratified by grade; fold ``config.fold`` is the test part, the next
    one the validation part. A split is made once: a saved one that does not fit the data, or was made for another
    fold, raises :class:`InputError` rather than being made again.
    """
    card, records = open_records(config.dir, config.name)
    metas, grades = [], []
    for record in records:
        metas.append(splits.Meta(record.case, record.group, record.content))
        grades.append(None if record.grade is None else card.grades[record.grade])
    if split_file.is_file():
        split = splits.load_split(split_file, metas)
        _check_asked(split, config, split_file)
    else:
        folds = splits.assign_folds([meta.group for meta in metas], grades, folds=config.folds, seed=config.split_seed)
        split = splits.make_split(metas, folds, config.fold, config.split_seed)
    row = {meta.case: index for index, meta in enumerate(metas)}
    subsets = {side: Subset(records, [row[case] for case in split[side]]) for side in splits.SIDES}
    digest = hashlib.sha256(repr(sorted(zip(metas, map(str, grades)))).encode()).hexdigest()[:32]
    return Parts(card, **subsets, split=split, digest=digest)


def _check_asked(split: dict[str, object], config: DataConfig, split_file: Path) -> None:
    asked = {"fold": config.fold, "folds": config.folds, "seed": config.split_seed}
    if any(split.get(name, value) != value for name, value in asked.items()):
        made = {name: split.get(name) for name in asked}
        raise InputError(
            f"{split_file}: made for {made}, but {asked} is asked for; ask for the same, or choose a new run folder."
        )
