"""Write the records of any reader as a TFDS data set of array_record files, completely or not at all."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from thyroid_jax.data import splits, storage
from thyroid_jax.data.duplicates import Pair, conflicts, merge_groups, merge_pairs, near_pairs, signature
from thyroid_jax.data.record import Card, Entry, Notes, Record, data_digest, entry_of, problems_of
from thyroid_jax.errors import InputError, names_a_full_disk, raise_all
from thyroid_jax.files import alone_in, write_bytes

LOG_EVERY = 10.0  # seconds between two lines about the progress

Item = TypeVar("Item")
Factory = Callable[[Notes], Iterable[Record]]


@dataclass(frozen=True)
class Survey:
    """What the first pass over a data set found.

    ``notes`` are the reader's. Each record has an entry in ``entries``, with the group that the reader gives, and its
    final group in ``groups``. ``folds`` are the publishers' folds by name, still without the digest of the data set.
    """

    notes: Notes
    entries: tuple[Entry, ...]
    groups: tuple[str, ...]
    folds: Mapping[str, splits.Folds] = field(default_factory=dict)


def build(card: Card, records: Factory, out: Path | str, *, overwrite: bool = False, near: bool = True) -> Survey:
    """Build the data set of ``card`` from ``records`` in ``out`` and return what was found.

    ``records`` is called twice, each time with fresh notes, and must give the same records both times. The first pass
    finds every faulty file and every duplicate, with ``near`` also nearly equal images; the second writes. Then
    everything written is read back and compared, and one rename moves the data set to ``out``. On any failure no new
    file is left, and an older build stays. Folds files of an older build are kept if its records are the same. Folds of
    the publishers are written beside the data.

    Raises :class:`InputError` for faulty input, an existing build without ``overwrite``, or another build running in
    ``out``; ``OSError`` for a full disk.
    """
    out = Path(out)
    _check_free(card, out, overwrite)
    survey = examine(card, records, near=near)
    existed = [folder for folder in (out, *out.parents) if folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out}: is not a folder. Give another one to build in.") from error
    try:
        with alone_in(out):
            _check_free(card, out, overwrite)
            _remove_leftovers(out)
            staging = Path(tempfile.mkdtemp(dir=out, prefix=_STAGING))
            try:
                _write(card, records, survey, staging)
                _read_back(card, staging)
                _keep_folds(card, out, staging)
                _write_official_folds(card, survey, staging)
                _swap(staging / card.name, out / card.name, staging)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except BaseException:
        _remove_empty(out, keep=existed)  # when the lock's file is gone
        raise
    return survey


def examine(card: Card, records: Factory, *, near: bool = True) -> Survey:
    """Read everything once without writing. Groups that share an image, equal or with ``near`` nearly so, are joined.

    Raises :class:`InputError` that lists every faulty file, or if there is no record at all.
    """
    notes = Notes()
    entries: list[Entry] = []
    signatures: list[np.ndarray] = []
    times: Counter[str] = Counter()
    for record in _progress(records(notes), f"{card.name}: reading"):
        problems = problems_of(record, card)
        notes.faults += [f"{record.source}: {problem}" for problem in problems]
        times[record.case] += 1
        if not problems:
            entries.append(entry_of(record, card))
            signatures += [signature(record.image)] if near else []
    notes.faults += [
        f"case {case!r}: the reader gives it {count} times; a case is one image."
        for case, count in times.items()
        if count > 1
    ]
    groups, contents = [entry.group for entry in entries], [entry.content for entry in entries]
    notes.remarks += _equal_but_different(entries)
    merged = merge_groups(groups, contents)
    notes.faults += _official_test_faults(entries, merged)
    if signatures and not notes.faults:
        merged = merge_pairs(merged, _near_pairs(entries, merged, np.stack(signatures), notes))
    faults = notes.faults
    raise_all(faults, f"{card.name}: {len(faults)} fault{'s' if len(faults) != 1 else ''}; nothing was written.")
    if not entries:
        raise InputError(f"{card.name}: there is no usable record in it; nothing was written.")
    notes.counts["records"] = len(entries)
    notes.counts["groups"] = len(set(merged))
    notes.counts["groups joined by equal images"] = len(set(groups)) - len(set(merge_groups(groups, contents)))
    notes.counts["records that repeat an image"] = len(contents) - len(set(contents))
    return Survey(notes, tuple(entries), tuple(merged), _official_folds(card, notes, entries, merged))


def _equal_but_different(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """(case, why) of every record that repeats the pixels of an earlier one with another malignancy or grade."""
    first: dict[str, Entry] = {}
    remarks = []
    for entry in entries:
        other = first.setdefault(entry.content, entry)
        if conflicts([Pair(0, 1, 1.0, False)], [other.malignant, entry.malignant], [other.grade, entry.grade]):
            remarks.append((other.case, f"equal to {entry.case}, but their labels differ"))
    return remarks


def _near_pairs(entries: Sequence[Entry], groups: Sequence[str], signatures: np.ndarray, notes: Notes) -> list[Pair]:
    """The pairs of nearly equal images whose groups are to be joined.

    A pair on two sides of an official test part is reported and not joined: the parts are the publishers'. So is a pair
    with different labels, which is joined.
    """
    pairs = near_pairs(signatures, groups=groups)
    differing = set(conflicts(pairs, [entry.malignant for entry in entries], [entry.grade for entry in entries]))
    joined = []
    for pair in pairs:
        one, other = entries[pair.i], entries[pair.j]
        across = one.official_test != other.official_test
        joined += [] if across else [pair]
        why = f"nearly equal to {other.case} (correlation {pair.correlation:.2f})"
        if across:
            notes.remarks.append((one.case, f"{why}, and only one of them is in the official test part"))
        if pair in differing:
            notes.remarks.append((one.case, f"{why}, but their labels differ"))
    notes.counts["pairs of nearly equal images in different groups"] = len(pairs)
    notes.counts["of these, across the official test part"] = len(pairs) - len(joined)
    notes.counts["of these, with different labels"] = len(differing)
    return joined


def _official_folds(
    card: Card, notes: Notes, entries: Sequence[Entry], groups: Sequence[str]
) -> dict[str, splits.Folds]:
    """The publishers' folds, of the records that are there.

    A group that equal images have joined across folds goes as a whole to the fold of its first record; the records
    that leave their fold are counted, and named in ``made_by``. Folds that cannot be used even so, because one of them
    is empty in a part of the data set, are left out, which is noted.
    """
    found = {}
    final = [entry._replace(group=group) for entry, group in zip(entries, groups, strict=True)]
    test = tuple(entry.case for entry in final if entry.official_test)
    for name, fold_of in notes.folds.items():
        parts: list[list[str]] = [[] for _ in range(1 + max(fold_of.values(), default=-1))]
        fold_of_group: dict[str, int] = {}
        moved = []
        for entry in final:
            if entry.official_test or entry.case not in fold_of:
                continue
            fold = fold_of_group.setdefault(entry.group, fold_of[entry.case])
            parts[fold].append(entry.case)
            if fold != fold_of[entry.case]:
                moved.append(f"{entry.case} from {fold_of[entry.case]} to {fold}")
        made_by = {"publisher": card.title} | ({"moved, for an equal image": ", ".join(moved)} if moved else {})
        folds = splits.Folds(card.name, "", tuple(map(tuple, parts)), test, made_by=made_by)
        notes.counts[f"records moved to another fold of {name} for an equal image"] = len(moved)
        if problems := splits.problems_of_folds(folds, final):
            notes.dropped.append((f"the folds {name}", "; ".join(problems)))
        else:
            found[name] = folds
    return found


def _official_test_faults(entries: Sequence[Entry], groups: Sequence[str]) -> list[str]:
    """Messages about groups, merged by equal images, that are both in the official test part and outside it."""
    cases: dict[str, dict[bool, list[str]]] = defaultdict(lambda: {True: [], False: []})
    for entry, group in zip(entries, groups, strict=True):
        cases[group][entry.official_test].append(entry.case)
    return [
        f"group {group!r}: {_named(sides[True])} of the official test part and {_named(sides[False])} outside it are "
        "one group, or the same image. Leave out those outside it (in your own folder: --ignore)."
        for group, sides in cases.items()
        if sides[True] and sides[False]
    ]


def _named(cases: Sequence[str], most: int = 5) -> str:
    more = f" and {len(cases) - most} more" if len(cases) > most else ""
    return ", ".join(cases[:most]) + more


def summary(card: Card, notes: Notes) -> str:
    """Lines to print: the counts, those of the whole original where they differ, and what was left out."""
    lines = [f"{card.title}"]
    lines += [f"  {count:>7}  {name}{_expected(card, name, count)}" for name, count in notes.counts.items()]
    lines += [f"  {0:>7}  {name}{_expected(card, name, 0)}" for name in card.expected if name not in notes.counts]
    if notes.remarks:
        lines += [f"to know: {len(notes.remarks)}", *(f"  {what}: {why}" for what, why in notes.remarks)]
    if notes.dropped:
        lines += [f"left out: {len(notes.dropped)}", *(f"  {what}: {why}" for what, why in notes.dropped)]
    return "\n".join(lines)


def why_not_split(card: Card, survey: Survey, *, folds: int = 5) -> str:
    """Why a run could not divide the records into ``folds``, in one line; "" where it can."""
    entries = [entry._replace(group=group) for entry, group in zip(survey.entries, survey.groups, strict=True)]
    try:
        splits.make_folds(card.name, "", entries, folds=folds, seed=0)
    except InputError as error:
        return " ".join(str(error).split())
    return ""


def _expected(card: Card, name: str, count: int) -> str:
    whole = card.expected.get(name)
    return "" if whole is None or whole == count else f"  (the whole original has {whole})"


_STAGING = ".building-"


def _check_free(card: Card, out: Path, overwrite: bool) -> None:
    if (out / card.name).exists() and not overwrite:
        raise InputError(f"{out / card.name}: is already there. Add --overwrite to replace it, or give another --out.")


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed build left.

    If the build was killed between the two renames of a swap, the older build is put back first.
    """
    for left in out.glob(f"{_STAGING}*"):
        for old in left.glob(f"{_OLD}*"):
            place = out / old.name.removeprefix(_OLD)
            if not place.exists():
                old.rename(place)
        shutil.rmtree(left, ignore_errors=True)


_OLD = "old-"


def _swap(new: Path, place: Path, staging: Path) -> None:
    """Move ``new`` to ``place``. An older build goes to ``staging``, and comes back if the second rename fails."""
    old = staging / f"{_OLD}{place.name}"
    if place.exists():
        place.rename(old)
    try:
        new.rename(place)
    except BaseException:
        if old.exists():
            old.rename(place)
        raise


def _remove_empty(out: Path, keep: list[Path]) -> None:
    for folder in (out, *out.parents):
        if folder in keep or any(folder.iterdir()):
            return
        folder.rmdir()


def _write(card: Card, records: Factory, survey: Survey, staging: Path) -> None:
    import tensorflow_datasets as tfds

    class Description(tfds.core.DatasetInfo):
        def initialize_from_bucket(self):
            """TFDS would ask its server about this data set, and leave an empty folder among the temporary files."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(storage.VERSION)
        name = card.name

        def _info(self):
            return Description(
                builder=self,
                features=storage.features(),
                description=card.title,
                citation=card.source,
                license=card.licence,
                metadata=tfds.core.MetadataDict(),
                disable_shuffling=True,  # records keep the reader's order; shuffling is the pipeline's
            )

        def _split_generators(self, dl_manager):
            return {storage.SPLIT: self._generate_examples()}

        def _generate_examples(self):
            entries = []
            for number, record in enumerate(_records_to_write(card, records, survey)):
                entries.append(entry_of(record, card))
                yield number, storage.encode(record)
            self.info.metadata.update(_metadata(card, survey.notes, entries))  # TFDS writes it after the last record

    tfds.disable_progress_bar()  # one bar of ours instead of three
    with contextlib.redirect_stdout(io.StringIO()), names_a_full_disk(staging):
        Builder(data_dir=str(staging), file_format=storage.FORMAT).download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _metadata(card: Card, notes: Notes, entries: Sequence[Entry]) -> dict[str, Any]:
    digest = data_digest(card, entries)
    counts, dropped = dict(notes.counts), tuple(notes.dropped)
    return storage.metadata_as_json(storage.Metadata(card, tuple(entries), digest, counts, dropped))


def _records_to_write(card: Card, records: Factory, survey: Survey) -> Iterator[Record]:
    """The records of the second pass with their final groups. Each must be equal to that of the first pass."""
    written, total = 0, len(survey.entries)
    for record in _progress(records(Notes()), f"{card.name}: writing", total):
        if written >= total or entry_of(record, card) != survey.entries[written]:
            raise InputError(f"{record.source}: the source changed while it was read. Run the build again.")
        yield replace(record, group=survey.groups[written])
        written += 1
    if written != total:
        raise InputError(
            f"{card.name}: the source changed while it was read: {written} of {total} records. Run the build again."
        )


def _read_back(card: Card, staging: Path) -> None:
    """Read every written record, which compares it with its entry in the index."""
    try:
        _, records = storage.open_records(staging, card.name)
        for _ in _progress(records, f"{card.name}: reading back", len(records)):
            pass
    except InputError as error:
        raise InputError(
            f"{card.name}: what was written does not come back, so it was thrown away ({error}) Is the disk sound?"
        ) from error


def _keep_folds(card: Card, out: Path, staging: Path) -> None:
    """Copy the folds files of the older build if they were made for the same records: folds are made once."""
    digest = storage.read_metadata(staging, card.name).digest
    for file in sorted(splits.folds_folder(out, card.name).glob("*.json")):
        with contextlib.suppress(InputError):  # a damaged file is not kept
            if splits.read_folds(file).data == digest:
                write_bytes(staging / file.relative_to(out), file.read_bytes())


def _write_official_folds(card: Card, survey: Survey, staging: Path) -> None:
    digest = storage.read_metadata(staging, card.name).digest
    for name, folds in survey.folds.items():
        splits.write_folds(splits.folds_folder(staging, card.name) / f"{name}.json", replace(folds, data=digest))


def _progress(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """The items, counted on stderr: by a bar on a terminal, else by a line every :data:`LOG_EVERY` seconds."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, unit=" records", leave=False)
        return
    said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - said >= LOG_EVERY:
            said = time.monotonic()
            print(f"{label}: {number}{f' of {total}' if total else ''} records", file=sys.stderr, flush=True)
