"""Test finished runs on another data set, without fine-tuning: tables of cases, measures with intervals, differences.

python -m experiments.external --run-dir DIR [DIR ...] --data.name NAME --data.dir DIR
    [--part all|test] [--grades 4a=4 4b=4 4c=4] [--leave-out-shared] [--flip]

Every image of the other set is predicted by every run, and compared with its reference. Images that a run has trained
on, or was chosen on, are refused: the same pixels, and shifted, cropped, scaled or marked copies.
``--leave-out-shared`` tests without their whole groups. Grades are compared if both sets have the same system and the
same grades, or as ``--grades`` maps the run's grades to those of the other set. Malignancy is compared as each data
set's card defines it.

Each run's table is RUN/report/external-NAME/cases.csv, with words for options that change it. With several runs,
differences are to the first.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.runtime import prepare
from thyroid_jax import runs
from thyroid_jax.data.overlap import pictures_of
from thyroid_jax.data.record import RecordSequence
from thyroid_jax.data.source import Subset
from thyroid_jax.data.storage import Records, open_records
from thyroid_jax.errors import InputError, exits_cleanly, raise_all
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.evaluate.paired import comparison
from thyroid_jax.runs import external

MOST_NAMED = 20  # shared images that a message names


@dataclass(frozen=True)
class Other:
    """The data set to test on."""

    name: str
    """name of a built data set"""
    dir: Path = Path("data")
    """folder that it is built in"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Test finished runs on another data set, without fine-tuning."""

    run_dir: tuple[Path, ...]
    """folders of finished runs; the others are compared to the first"""
    data: Other
    run_data_dir: Path | None = None
    """folder of the data that the runs were trained on, if it has moved since"""
    part: Literal["all", "test"] = "all"
    """all images, or the official test part"""
    checkpoint: Literal["best", "last"] = "best"
    """the best by the run's validation measure, or the last"""
    grades: tuple[str, ...] = ()
    """RUN=OTHER, which grade of the other set a grade of the run counts as; grades with the same name need none"""
    leave_out_shared: bool = False
    """leave out the groups of images that a run has seen, instead of refusing the data set"""
    flip: bool = False
    """average the predictions over each image and its mirror image"""
    samples: int = 2000
    """bootstrap replicates"""


def mapping_of(texts: Sequence[str]) -> dict[str, str]:
    """``("4a=4",)`` as ``{"4a": "4"}``; raises :class:`InputError` for another form or a grade that is named twice."""
    pairs = [text.partition("=") for text in texts]
    names = [name for name, _, _ in pairs]
    if any(not (name and sign and target) for name, sign, target in pairs) or len(set(names)) < len(names):
        raise InputError(f"--grades {' '.join(texts)}: give RUN=OTHER once for each grade of the run, such as 4a=4.")
    return {name: target for name, _, target in pairs}


def unseen(arguments: Arguments, finished: Mapping[str, runs.Finished], records: Records) -> RecordSequence:
    """The records to test on, after a comparison with what the runs have seen."""
    rows = [row for row, entry in enumerate(records.entries) if arguments.part == "all" or entry.official_test]
    if not rows:
        raise InputError(f"{arguments.data.name} has no official test part; leave out --part.")
    chosen = Subset(records, rows)
    others = pictures_of(chosen)
    known: dict[str, list[external.Shared]] = {}
    for trained, parts in finished.values():
        digest = parts.digest + parts.split_digest
        if digest not in known:
            sets = external.seen_by(runs.Finished(trained, parts))
            known[digest] = [match for seen in sets for match in external.shared(pictures_of(seen), others)]
    matches = {match.case: match for found in known.values() for match in found}
    group_of = {entry.case: entry.group for entry in records.entries}
    groups = {group_of[case] for case in matches}
    left = [row for row in rows if records.entries[row].group not in groups]
    if matches and not arguments.leave_out_shared:
        named = list(matches.values())[:MOST_NAMED]
        raise_all(
            [f"{match.case}: {match.kind} to {match.seen} (correlation {match.correlation:.2f})" for match in named],
            f"{arguments.data.name}: {len(matches)} of {len(rows)} images were seen in training; their groups hold "
            f"{len(rows) - len(left)}. Test on other images, or add --leave-out-shared:",
        )
    if not left:
        raise InputError(f"{arguments.data.name}: images of every group were seen in training; none is left to test.")
    if matches:
        print(f"left out: {len(rows) - len(left)} of {len(rows)} images, of groups with {len(matches)} that were seen")
    return Subset(records, left)


def table_of(run_dir: Path, arguments: Arguments) -> Path:
    """Where a run's table is written; what differs from the plain test is in the folder's name."""
    words = [
        "external",
        arguments.data.name,
        *(["test"] if arguments.part == "test" else []),
        *(["last"] if arguments.checkpoint == "last" else []),
        *(["mapped"] if arguments.grades else []),
        *(["unshared"] if arguments.leave_out_shared else []),
        *(["flip"] if arguments.flip else []),
    ]
    return run_dir / "report" / "-".join(words) / "cases.csv"


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.external")
    names = [run_dir.name for run_dir in arguments.run_dir]
    if len(set(names)) < len(names):
        raise InputError("--run-dir: two runs have the same folder name, which names their column; rename one.")
    mapping = mapping_of(arguments.grades)
    card, records = open_records(arguments.data.dir, arguments.data.name)
    finished = {
        run_dir.name: runs.open_finished(run_dir, arguments.checkpoint, arguments.run_data_dir)
        for run_dir in arguments.run_dir
    }
    columns = {name: external.grade_columns(trained, card, mapping) for name, (trained, _) in finished.items()}
    tested = unseen(arguments, finished, records)
    tables: dict[str, list[Case]] = {}
    for run_dir in arguments.run_dir:
        trained = finished[run_dir.name].trained
        if columns[run_dir.name] is None and trained.facts["grades"] and card.grades:
            own = " ".join([trained.facts["grade_system"], *trained.facts["grades"]]).strip()
            theirs = " ".join([card.grade_system, *card.grades]).strip()
            print(f"{run_dir.name}: its grades ({own}) are not those of {card.name} ({theirs}): not compared.")
            print("--grades says which of its grades counts as which.")
        cases = external.external_cases(trained, card, tested, columns=columns[run_dir.name], flip=arguments.flip)
        table = table_of(run_dir, arguments)
        write_cases(table, cases)
        print(f"table: {table}")
        tables[run_dir.name] = cases
    print(comparison(tables, samples=arguments.samples))


if __name__ == "__main__":
    main()
