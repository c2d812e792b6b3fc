"""Print the tables of a comparison again, from its pooled predictions.

python -m experiments.tables results/grades/breast_lesions plain plain+lite0+nodule [--samples 2000]
    [--measures dice quadratic_kappa] [--margin dice=0.02] [--parts values differences] [--rows dice] [--out DIR]

The folder holds METHOD.csv of every method, as ``python -m experiments.compare`` writes them. ``NAME=PATH`` takes a
method from elsewhere: a folder with cases.csv, or such a table. Differences are to the first method. ``--out`` also
writes table.md, table.tex, table.csv and index.html.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from thyroid_jax import command, runs
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import ensembles, tabulate
from thyroid_jax.evaluate.cases import Case, read_cases
from thyroid_jax.runs.table_options import TableOptions


@dataclass(frozen=True, kw_only=True)
class Arguments(TableOptions):
    """Print the tables of a comparison again, from its pooled predictions."""

    folder: tyro.conf.Positional[Path]
    """holds METHOD.csv of every method"""
    methods: Annotated[tuple[str, ...], tyro.conf.Positional]
    """the methods, or NAME=PATH; the others are compared to the first"""
    out: Path | None = None
    """folder to write the tables into"""
    parts: tuple[str, ...] = tabulate.PARTS
    """what is printed: values, differences, p, margins, caption"""
    rows: tuple[str, ...] = ()
    """measures in the printed table of values; the usual ones by default"""
    averaged: bool = True
    """a column for the averaged probabilities of a method's seeds"""


def place_of(folder: Path, method: str) -> tuple[str, Path]:
    """Name and table of ``METHOD`` in the folder, or of ``NAME=PATH``."""
    name, sign, place = method.partition("=")
    if not sign or (folder / f"{method}.csv").is_file():
        return method, folder / f"{method}.csv"
    runs.results.check_name(name, "NAME=PATH")
    path = Path(place)
    return name, path / "cases.csv" if path.is_dir() else path


def kept_ensembles(tables: Mapping[str, Path], found: Mapping[str, Sequence[Case]]) -> dict[str, list[Case]]:
    """Ensembles whose outlines were averaged, by method, from what was kept of them beside the method's own table."""
    beside = {method: tables[method].with_name(f"{ensembles.name_of(method, found[method])}.csv") for method in found}
    kept = {method: read_cases(place) for method, place in beside.items() if place.is_file()}
    return {method: cases for method, cases in kept.items() if any(case.dice == case.dice for case in cases)}


def rows_of(arguments: Arguments) -> runs.results.Rows:
    """The methods' cases, and their ensembles where they are asked for."""
    places = dict(place_of(arguments.folder, method) for method in arguments.methods)
    if len(places) < len(arguments.methods):
        raise InputError(f"{' '.join(arguments.methods)}: name each method once.")
    found = {name: read_cases(place) for name, place in places.items()}
    if arguments.averaged:
        return runs.results.with_ensembles(found, kept_ensembles(places, found))
    first, *others = found
    return runs.results.Rows(found, dict.fromkeys(others, first), [])


def parse(argv: Sequence[str]) -> Arguments:
    """The arguments of a command line, checked."""
    arguments = tyro.cli(Arguments, args=argv, prog=command.spelled("tables"))
    runs.results.require(arguments)
    runs.results.check_options(arguments)
    if unknown := [part for part in arguments.parts if part not in tabulate.PARTS]:
        raise InputError(f"--parts {' '.join(unknown)}: choose of {', '.join(tabulate.PARTS)}.")
    return arguments


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    rows = rows_of(arguments)
    if arguments.out is None:
        print(tabulate.markdown(runs.results.compared(rows, arguments), parts=arguments.parts, rows=arguments.rows))
        if "caption" not in arguments.parts and rows.notes:  # what is not compared must not be missing without a word
            print("\n".join(rows.notes), file=sys.stderr)
    else:
        print(runs.results.publish(arguments.out, rows, arguments))


if __name__ == "__main__":
    main()
