"""Write any reader's records as a TFDS data set of array_record files, all of it or nothing."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.duplicates import merge_groups
from thyroid_jax.data import storage
from thyroid_jax.data.record import Card, Notes, Record, problems_of
from thyroid_jax.errors import InputError, names_a_full_disk, raise_all
from thyroid_jax.files import alone_in

Factory = Callable[[Notes], Iterable[Record]]


@dataclass(frozen=True)
class Survey:
    """What the first pass over a data set found: its notes, and for each record its case and the group it goes to."""

    notes: Notes
    cases: tuple[str, ...]
    groups: tuple[str, ...]


def build(card: Card, records: Factory, out: Path | str, *, overwrite: bool = False) -> Survey:
    """Build the data set of ``card`` from ``records`` in ``out`` and return what was found.

    ``records`` is called twice, each time with fresh notes, and must give the same records both times: the first pass
    finds every faulty file and every duplicate, the second writes. The data set appears under ``out`` in one rename
    after it is complete; on any failure nothing new is left and an older build stays. Raises :class:`InputError` for
    faulty input, an existing build without ``overwrite``, or another build running in ``out``; ``OSError`` for a full
    disk.
    """
    out = Path(out)
    _check_free(card, out, overwrite)
    survey = examine(card, records)
    existed = [folder for folder in (out, *out.parents) if folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{out}: is not a folder. Give another one to build in.") from error
    with alone_in(out):
        _check_free(card, out, overwrite)
        _remove_leftovers(out)
        staging = Path(tempfile.mkdtemp(dir=out, prefix=_STAGING))
        try:
            _write(card, records, survey, staging)
            _swap(staging / card.name, out / card.name, staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            _remove_empty(out, keep=existed)
            raise
        shutil.rmtree(staging, ignore_errors=True)
    return survey


def examine(card: Card, records: Factory) -> Survey:
    """Read everything once without writing. Raises :class:`InputError` that lists every faulty file, or when there is no
    record at all.
    """
    notes = Notes()
    rows = []
    for record in _progress(records(notes), f"{card.name}: reading"):
        notes.faults += [f"{record.source}: {problem}" for problem in problems_of(record, card)]
        rows.append((record.case, record.group, record.content))
    times = Counter(case for case, *_ in rows)
    notes.faults += [
        f"case {case!r}: the reader gives it {count} times; a case is one image."
        for case, count in times.items()
        if count > 1
    ]
    problems = notes.faults
    raise_all(problems, f"{card.name}: {len(problems)} fault{'s' if len(problems) != 1 else ''}; nothing was written.")
    if not rows:
        raise InputError(f"{card.name}: there is no usable record in it; nothing was written.")
    cases, groups, contents = zip(*rows)
    merged = merge_groups(groups, contents)
    notes.counts["records"] = len(rows)
    notes.counts["groups"] = len(set(merged))
    notes.counts["groups joined by equal images"] = len(set(groups)) - len(set(merged))
    notes.counts["records that repeat an image"] = len(contents) - len(set(contents))
    return Survey(notes, cases, tuple(merged))


def summary(card: Card, notes: Notes) -> str:
    """Counts, where they differ from those of the whole original, and what was left out, as lines to print."""
    lines = [f"{card.title}"]
    lines += [f"  {count:>7}  {name}{_expected(card, name, count)}" for name, count in notes.counts.items()]
    lines += [f"  {0:>7}  {name}{_expected(card, name, 0)}" for name in card.expected if name not in notes.counts]
    if notes.dropped:
        lines += [f"left out: {len(notes.dropped)}", *(f"  {what}: {why}" for what, why in notes.dropped)]
    return "\n".join(lines)


def _expected(card: Card, name: str, count: int) -> str:
    whole = card.expected.get(name)
    return "" if whole is None or whole == count else f"  (the whole original has {whole})"


_STAGING = ".building-"


def _check_free(card: Card, out: Path, overwrite: bool) -> None:
    if (out / card.name).exists() and not overwrite:
        raise InputError(f"{out / card.name}: is already there. Add --overwrite to replace it, or give another --out.")


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed build left; if it was killed between the two renames of a swap, put its older build back
    first.
    """
    for left in out.glob(f"{_STAGING}*"):
        for old in left.glob(f"{_OLD}*"):
            place = out / old.name.removeprefix(_OLD)
            if not place.exists():
                old.rename(place)
        shutil.rmtree(left, ignore_errors=True)


_OLD = "old-"


def _swap(new: Path, place: Path, staging: Path) -> None:
    """Put ``new`` at ``place``; what was there goes to ``staging`` and comes back when the second rename fails."""
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

    metadata = {
        "card": storage.card_as_json(card),
        "counts": dict(survey.notes.counts),
        "dropped": [list(pair) for pair in survey.notes.dropped],
    }

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(storage.VERSION)
        name = card.name

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=storage.features(),
                description=card.title,
                citation=card.source,
                license=card.licence,
                metadata=tfds.core.MetadataDict(metadata),
                disable_shuffling=True,  # records keep the reader's order; shuffling is the pipeline's
            )

        def _split_generators(self, dl_manager):
            return {storage.SPLIT: self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(_examples(card, records, survey))

    tfds.disable_progress_bar()  # one bar of ours instead of three
    with contextlib.redirect_stdout(io.StringIO()), names_a_full_disk(staging):
        Builder(data_dir=str(staging), file_format="array_record").download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _examples(card: Card, records: Factory, survey: Survey) -> Iterator[dict[str, Any]]:
    written = 0
    for record in _progress(records(Notes()), f"{card.name}: writing", len(survey.cases)):
        if written >= len(survey.cases) or record.case != survey.cases[written]:
            raise InputError(f"{record.source}: the source changed while it was read. Run the build again.")
        yield storage.encode(replace(record, group=survey.groups[written]))
        written += 1
    if written != len(survey.cases):
        raise InputError(
            f"{card.name}: the source changed while it was read: {written} of {len(survey.cases)} records. Run the build again."
        )


def _progress(records: Iterable[Record], label: str, total: int | None = None) -> Iterator[Record]:
    yield from tqdm(records, desc=label, total=total, unit=" records", disable=not sys.stderr.isatty(), leave=False)
