"""Test finished runs on other data sets, without fine-tuning: tables of cases, measures with intervals, differences.

python -m experiments.external --run-dir DIR [DIR ...] --data.name NAME [NAME ...] --data.dir DIR [--out DIR]
    [--part all|test] [--grades 4a=4 4b=4 4c=4] [--leave-out-shared] [--flip]
python -m experiments.external --runs METHOD=DIR [DIR ...] OTHER=DIR [DIR ...] --data.name NAME --out DIR

Every image of the other set is predicted by every run, and compared with its reference. Images that a run has trained
on, or was chosen on, are refused: the same pixels, and shifted, cropped, scaled or marked copies.
``--leave-out-shared`` tests without their whole groups. Grades are compared if both sets have the same system and the
same grades, or as ``--grades`` maps the run's grades to those of the other set. Malignancy is compared as each data
set's card defines it.

``--run-dir`` takes each run as a method of its own. ``--runs`` takes several runs, of folds and seeds, as one method:
its row holds the predictions of all of them, and a further row those of all runs together, with averaged outlines and
probabilities. Differences are to the first method.

Each run's table is RUN/report/external-NAME/cases.csv, with words for options that change it. ``--out`` keeps the
tables of the comparison: OUT/NAME/table.md, table.tex, table.csv, METHOD.csv and index.html.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import tyro

from thyroid_jax import command, extras, runs
from thyroid_jax.data.overlap import Pictures, pictures_of
from thyroid_jax.data.record import Card, RecordSequence
from thyroid_jax.data.source import Subset
from thyroid_jax.data.storage import Records, open_records
from thyroid_jax.errors import InputError, exits_cleanly, raise_all
from thyroid_jax.evaluate import tabulate
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.files import check_writable
from thyroid_jax.runs.table_options import TableOptions

from .runtime import prepare

if TYPE_CHECKING:
    from thyroid_jax.predict import Trained

MOST_NAMED = 20  # shared images that a message names


@dataclass(frozen=True)
class Other:
    """The data sets to test on."""

    name: tuple[str, ...]
    """names of built data sets"""
    dir: Path = Path("data")
    """folder that they are built in"""


@dataclass(frozen=True, kw_only=True)
class Arguments(TableOptions):
    """Test finished runs on other data sets, without fine-tuning."""

    run_dir: tuple[Path, ...] = ()
    """folders of finished runs, each a method; the others are compared to the first"""
    runs: tuple[str, ...] = ()
    """METHOD=DIR [DIR ...]: runs of folds and seeds that are one method"""
    data: Other
    out: Path | None = None
    """folder for the tables of the comparison"""
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


Methods = dict[str, dict[Path, "runs.Finished"]]
"""method -> its opened runs by folder"""


def mapping_of(texts: Sequence[str]) -> dict[str, str]:
    """``("4a=4",)`` as ``{"4a": "4"}``; raises :class:`InputError` for another form or a grade that is named twice."""
    pairs = [text.partition("=") for text in texts]
    names = [name for name, _, _ in pairs]
    if any(not (name and sign and target) for name, sign, target in pairs) or len(set(names)) < len(names):
        raise InputError(f"--grades {' '.join(texts)}: give RUN=OTHER once for each grade of the run, such as 4a=4.")
    return {name: target for name, _, target in pairs}


def open_methods(arguments: Arguments) -> Methods:
    """All runs that are tested, opened, by method."""
    names = [run_dir.name for run_dir in arguments.run_dir]
    folders = {name: [run_dir] for name, run_dir in zip(names, arguments.run_dir)}
    grouped = runs.results.parse_methods(arguments.runs)
    runs.results.check_folders(grouped, flip=arguments.flip)
    if len(set(names)) < len(names) or folders.keys() & grouped.keys():
        raise InputError("--run-dir: two methods have the same folder name, which names their column; rename one.")
    folders |= grouped
    if not folders:
        raise InputError("name the runs to test: --run-dir, or --runs METHOD=DIR.")
    opened = {
        name: {run_dir: runs.open_finished(run_dir, arguments.checkpoint, arguments.run_data_dir) for run_dir in own}
        for name, own in folders.items()
    }
    for own_runs in opened.values():
        runs.ensemble.check_alike({str(run_dir): finished.trained for run_dir, finished in own_runs.items()})
    for run_dir in (run_dir for own_runs in opened.values() for run_dir in own_runs):
        check_writable(run_dir, f"{run_dir}: is where the table of cases is written")
    if arguments.out is not None:
        check_writable(arguments.out, f"--out {arguments.out}")
    return opened


# --- images that were seen --------------------------------------------------------------------------------------------


def seen_pictures(methods: Methods) -> list[Pictures]:
    """What the runs have trained on or were chosen on; runs with the same data, split and share of it have it in
    common.
    """
    finished = {}
    for one in (one for own_runs in methods.values() for one in own_runs.values()):
        data = one.trained.config.data
        finished[one.parts.digest, one.parts.split_digest, data.share, data.split_seed] = one
    return [pictures_of(seen) for one in finished.values() for seen in runs.external.seen_by(one)]


class Tested(NamedTuple):
    """The records to test on, and a sentence that says which they are."""

    records: RecordSequence
    said: str


def unseen(arguments: Arguments, name: str, seen: Sequence[Pictures], records: Records) -> Tested:
    """The records of the data set ``name`` to test on, after a comparison with what the runs have ``seen``."""
    rows = [row for row, entry in enumerate(records.entries) if arguments.part == "all" or entry.official_test]
    if not rows:
        raise InputError(f"{name} has no official test part; leave out --part.")
    others = pictures_of(Subset(records, rows))
    matches = {match.case: match for pictures in seen for match in runs.external.shared(pictures, others)}
    group_of = {entry.case: entry.group for entry in records.entries}
    groups = {group_of[case] for case in matches}
    left = [row for row in rows if records.entries[row].group not in groups]
    if matches and not arguments.leave_out_shared:
        named = list(matches.values())[:MOST_NAMED]
        raise_all(
            [f"{match.case}: {match.kind} to {match.seen} (correlation {match.correlation:.2f})" for match in named],
            f"{name}: {len(matches)} of {len(rows)} images were seen in training; their groups hold "
            f"{len(rows) - len(left)}. Test on other images, or add --leave-out-shared:",
        )
    if not left:
        raise InputError(f"{name}: images of every group were seen in training; none is left to test.")
    part = "all images" if arguments.part == "all" else "official test part"
    said = f"{name}, {part}, without fine-tuning."
    if matches:
        out = f"left out: {len(rows) - len(left)} of {len(rows)} images, of groups with {len(matches)} that were seen"
        print(out)
        said += f" {out[0].upper()}{out[1:]}."
    return Tested(Subset(records, left), said)


# --- the tables -------------------------------------------------------------------------------------------------------


def table_of(run_dir: Path, name: str, arguments: Arguments) -> Path:
    """Where a run's table is written; what differs from the plain test is in the folder's name."""
    words = [
        "external",
        name,
        *(["test"] if arguments.part == "test" else []),
        *(["last"] if arguments.checkpoint == "last" else []),
        *(["mapped"] if arguments.grades else []),
        *(["unshared"] if arguments.leave_out_shared else []),
        *(["flip"] if arguments.flip else []),
    ]
    return run_dir / "report" / "-".join(words) / "cases.csv"


def compared_grades(
    method: str, own_runs: Mapping[Path, runs.Finished], card: Card, mapping: Mapping[str, str]
) -> tuple[dict[str, str] | None, str]:
    """The grade of ``card`` that each of the method's grades counts as, or None, and a sentence that says so."""
    trained = next(iter(own_runs.values())).trained
    columns = runs.external.grade_columns(trained, card, mapping)
    if columns is None and trained.facts["grades"] and card.grades:
        own = " ".join([trained.facts["grade_system"], *trained.facts["grades"]]).strip()
        theirs = " ".join([card.grade_system, *card.grades]).strip()
        print(f"{method}: grades are not compared; --grades says which of its grades counts as which.")
        return None, f"{method}: its grades ({own}) are not those of {card.name} ({theirs}): not compared."
    changed = [f"{grade} as {target}" for grade, target in (columns or {}).items() if mapping and grade != target]
    return columns, f"{method}: grades count as those of {card.name}: {', '.join(changed)}." if changed else ""


class Planned(NamedTuple):
    """A data set to test on: its card and records, and for each method what :func:`compared_grades` says."""

    card: Card
    tested: Tested
    columns: dict[str, tuple[dict[str, str] | None, str]]


def planned(arguments: Arguments, name: str, methods: Methods, seen: Sequence[Pictures]) -> Planned:
    """What is tested on the data set ``name``. Whatever it is refused for is said here, before a set is predicted."""
    card, records = open_records(arguments.data.dir, name)
    mapping = mapping_of(arguments.grades)
    columns = {method: compared_grades(method, own, card, mapping) for method, own in methods.items()}
    return Planned(card, unseen(arguments, name, seen, records), columns)


def tables_on(arguments: Arguments, plan: Planned, methods: Methods) -> str:
    """Test all methods on one data set, write the tables, and return those of the comparison as Markdown."""
    card, tested, columns = plan
    found: dict[str, list[Case]] = {}
    together: dict[str, list[Case]] = {}
    for method, own_runs in methods.items():
        labels = _labels({run_dir: one.trained for run_dir, one in own_runs.items()})
        trained = {label: own_runs[run_dir].trained for run_dir, label in labels.items()}
        cases = runs.external.external_cases(
            trained, card, tested.records, columns=columns[method][0], flip=arguments.flip
        )
        for run_dir, own in zip(own_runs, cases.each):
            table = table_of(run_dir, card.name, arguments)
            write_cases(table, [replace(case, part="external") for case in own])
            print(f"table: {table}")
        found[method] = [case for own in cases.each for case in own]
        together |= {method: cases.together} if cases.together else {}
    notes = [tested.said, *(said for _, said in columns.values() if said)]
    rows = runs.results.with_ensembles(found, together)
    if arguments.out is None:
        return tabulate.markdown(runs.results.compared(rows, arguments, notes))
    return runs.results.publish(arguments.out / card.name, rows, arguments, notes)


def _labels(trained: Mapping[Path, Trained]) -> dict[Path, str]:
    """A label for each run of a method: its fold and seed, or its folder where two runs have the same."""
    labels = {run_dir: runs.ensemble.run_label(run.config) for run_dir, run in trained.items()}
    return labels if len(set(labels.values())) == len(labels) else {run_dir: str(run_dir) for run_dir in labels}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.RECORDS, *extras.STATISTICS)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("external"))
    runs.results.require(arguments)
    runs.results.check_options(arguments)
    prepare()
    names = arguments.data.name
    if len(set(names)) < len(names):
        raise InputError(f"--data.name {' '.join(names)}: name each data set once.")
    mapping_of(arguments.grades)
    for name in names:
        open_records(arguments.data.dir, name)  # one that is missing is named before another is predicted
    methods = open_methods(arguments)
    seen = seen_pictures(methods)
    for plan in [planned(arguments, name, methods, seen) for name in names]:
        print(tables_on(arguments, plan, methods), flush=True)


if __name__ == "__main__":
    main()
