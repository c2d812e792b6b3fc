"""Built records, split by a folds file into parts that share no group and no image, and more to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from thyroid_jax.data import splits
from thyroid_jax.data.overlap import Pictures, pictures_of, shared_images
from thyroid_jax.data.record import Card, Entry, Record, RecordSequence, digest_of
from thyroid_jax.data.storage import Records, open_records
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import read_json

PARTS = splits.SIDES


class Subset(RecordSequence):
    """Some of a data set's records, read from disk as they are asked for, and then changed where that is asked for."""

    def __init__(self, records: RecordSequence, rows: Sequence[int], change: Callable[[Record], Record] | None = None):
        self._records, self._rows, self._change = records, tuple(rows), change

    @property
    def rows(self) -> tuple[int, ...]:
        """The records' rows in the data set."""
        return self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Subset: ...
    def __getitem__(self, index: int | slice) -> Record | Subset:
        """Record ``index`` of the subset, or a smaller subset for a slice."""
        if isinstance(index, slice):
            return Subset(self._records, self._rows[index], self._change)
        record = self._records[self._rows[index]]
        return record if self._change is None else self._change(record)


class Added(NamedTuple):
    """A data set that is trained on besides the one that is split: its card and records, all of them."""

    card: Card
    records: Records


@dataclass(frozen=True)
class Parts:
    """A data set's card and its three parts, the split that makes them, and the digests of data set and split.

    ``added`` are more data sets, which are only trained on. ``digest`` is that of all data sets together.
    """

    card: Card
    train: Subset
    validation: Subset
    test: Subset
    split: splits.Split
    digest: str
    split_digest: str
    added: tuple[Added, ...] = ()


def open_parts(
    data_dir: Path | str,
    name: str,
    *,
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    split_file: Path | str | None = None,
    share: float = 1.0,
    also: Sequence[str] = (),
) -> Parts:
    """Open the data set ``name`` built in ``data_dir`` and split it, holding out ``fold`` (:func:`splits.resolve`).

    ``share`` of the training part's groups are kept, drawn by ``seed``; the split names all of them. ``also`` names
    more data sets in ``data_dir``, which are not split.
    The folds are those of the folds file ``split_file``, which must hold ``folds`` of them; ``seed`` then does not
    matter to them. Without one they lie beside the data and are made at first use. No record is read. Raises
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
        for cases in (_share_of(split["train"], records.entries, share, seed), split["validation"], split["test"])
    )
    added = tuple(Added(*open_records(data_dir, other)) for other in also)
    digest = records.digest
    if added:  # the grade system decides whether the grades of an added set are used
        digest = digest_of([digest, *([other.records.digest, other.card.grade_system] for other in added)])
    return Parts(card, train, validation, test, split, digest, splits.digest(split), added)


def for_training(parts: Parts) -> list[tuple[RecordSequence, str]]:
    """Of each added data set: the records that may be trained on, and a remark on what is left out of it and why.

    Left out are its official test part, whole groups in which an image is equal or nearly equal to one in the
    validation or test part of ``parts``, and the grades, unless both cards have the same grade system and the same
    ordered grades. Every picture of these parts and of the added sets is read for that. Raises :class:`InputError` when
    nothing is left of a set.
    """
    held_out = [pictures_of(part) for part in (parts.validation, parts.test) if parts.added and len(part)]
    return [_for_training(added, parts, held_out) for added in parts.added]


def _for_training(added: Added, parts: Parts, held_out: Sequence[Pictures]) -> tuple[RecordSequence, str]:
    name, entries = added.card.name, added.records.entries
    testing = {entry.group for entry in entries if entry.official_test}
    usable = [row for row, entry in enumerate(entries) if entry.group not in testing]
    shared: set[str] = set()
    if usable:
        pictures = pictures_of(Subset(added.records, usable))
        pairs = [pair for part in held_out for pair in shared_images(pictures, part)]
        shared = {entries[usable[pair.i]].group for pair in pairs}
    rows = [row for row in usable if entries[row].group not in shared]
    same = (added.card.grade_system, added.card.grades) == (parts.card.grade_system, parts.card.grades)
    left_out = [f"{len(entries) - len(usable)} images of its official test part"] if testing else []
    if shared:
        left_out.append(f"{len(usable) - len(rows)} images of {len(shared)} groups that {parts.card.name} holds out")
    if added.card.grades and not same:
        left_out.append(f"its grades ({_grades(added.card)}), which are not those of {parts.card.name}")
    if not rows:
        raise InputError(f"data.also: no image of {name} may be trained on: {', '.join(left_out)}. Leave it out.")
    remark = f"also trained on: {name}, {len(rows)} images" + (f"; left out: {', '.join(left_out)}" if left_out else "")
    return Subset(added.records, rows, None if same else _without_grades), remark


def _grades(card: Card) -> str:
    return " ".join([card.grade_system, *card.grades]).strip()


def _without_grades(record: Record) -> Record:
    return replace(record, grade=None, reader_grades=())


def _share_of(cases: Sequence[str], entries: Sequence[Entry], share: float, seed: int) -> list[str]:
    """The cases of a share of their groups, one group at least. A smaller share is part of a larger one."""
    group_of = {entry.case: entry.group for entry in entries}
    groups = sorted({group_of[case] for case in cases})
    drawn = np.random.default_rng(seed).permutation(len(groups))[: max(1, round(share * len(groups)))]
    kept = {groups[place] for place in drawn}
    return [case for case in cases if group_of[case] in kept]


def check_split(path: Path | str, parts: Parts) -> None:
    """Check that the file ``path``, the ``split.json`` of a run, holds the split of ``parts``: every record once, and
    on the same side. Raises :class:`InputError` that says what differs.
    """
    raise_all(
        splits.differences(read_json(path), parts.split),
        f"{path}: not the split of {parts.card.name} that is asked for. Put back the file, the data set and the folds "
        "that the run was made with, or choose a new run folder:",
    )
