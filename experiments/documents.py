"""Write the tables of the documents again, from the kept predictions in ``results/``.

python -m experiments.documents [--check | --stale] [README.md docs/grades.md ...]

A table stands between two marks. The first holds the words of ``python -m experiments.tables``::

    <!-- tables: results/grades/breast_lesions plain plain+nodule --parts differences -->
    ...
    <!-- end of tables -->

``<!-- overview: results/overview.json -->`` asks for the table of the README: a list of ``{"data": ..., "config": ...,
"cases": FILE}``, one row each. Above a table stands a digest of its mark and of the files that it is made of.
``--check`` writes nothing and fails where a digest is not the present one. ``--stale`` makes only such tables again; it
does not see a change of the code that makes them.
"""

from __future__ import annotations

import functools
import glob
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from thyroid_jax import command
from thyroid_jax.data.record import digest_of
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import tabulate
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.evaluate.tabulate.content import value_text
from thyroid_jax.files import write_text
from thyroid_jax.runs import results

from . import tables

PLACES = ("README.md", "docs")
SAMPLES = 2000  # bootstrap replicates of the overview, as in the tables
BLOCK = re.compile(r"<!-- (tables|overview): (.+?) -->\n(.*?)<!-- end of \1 -->", re.DOTALL)
OVERVIEW = {"dice": "Dice", "malignant_auroc": "malignancy AUROC", "quadratic_kappa": "grade, quadratic kappa"}


@dataclass(frozen=True)
class Arguments:
    """Write the tables of the documents again, from the kept predictions."""

    documents: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Markdown files; README.md and those of docs/ by default"""
    check: bool = False
    """write nothing; fail where a table is not of the present files"""
    stale: bool = False
    """make only the tables again that are not of the present files"""


def documents_of(arguments: Arguments) -> list[Path]:
    """The Markdown files that were named, or all."""
    places = arguments.documents or [Path(place) for place in PLACES]
    return [file for place in places for file in (sorted(place.glob("*.md")) if place.is_dir() else [place])]


def filled(text: str, *, only_stale: bool = False) -> str:
    """A document's text with every table made again, or only those that are not of the present files."""
    return BLOCK.sub(lambda found: found[0] if only_stale and not _is_stale(found) else _block(*found.groups()), text)


def stale(text: str) -> list[str]:
    """The marks of a document above tables that are not of the present files."""
    return [found[2] for found in BLOCK.finditer(text) if _is_stale(found)]


def _is_stale(found: re.Match[str]) -> bool:
    kind, words, table = found.groups()
    return not table.startswith(_digest_line(kind, words))


def _block(kind: str, words: str, _: str) -> str:
    digest = _digest_line(kind, words)  # first, because it names a file that is missing
    return f"<!-- {kind}: {words} -->\n{digest}\n{MADE[kind](words)}\n\n<!-- end of {kind} -->"


def _digest_line(kind: str, words: str) -> str:
    files = FILES[kind](words)
    if missing := [str(file) for file in files if not file.is_file()]:
        raise InputError(f"<!-- {kind}: {words} -->: no file {', '.join(missing)}.")
    return f"<!-- of {digest_of([words, *(file.read_text('utf-8') for file in files)])[:16]} -->\n"


# --- tables of a comparison -------------------------------------------------------------------------------------------


def comparison_table(words: str) -> str:
    """What ``python -m experiments.tables`` prints for these words."""
    arguments = tables.parse(shlex.split(words))
    found = _compared(replace(arguments, parts=tabulate.PARTS, rows=()))
    return tabulate.markdown(found, parts=arguments.parts, rows=arguments.rows)


@functools.lru_cache(maxsize=8)
def _compared(arguments: tables.Arguments) -> tabulate.Comparison:
    return results.compared(tables.rows_of(arguments), arguments)


def files_of_comparison(words: str) -> list[Path]:
    """The tables of cases that a comparison reads: of its methods, and of the ensembles that were kept of them."""
    arguments = tables.parse(shlex.split(words))
    places = [tables.place_of(arguments.folder, method) for method in arguments.methods]
    tables_of = [place for _, place in places]
    if not arguments.averaged:
        return tables_of
    kept = [sorted(place.parent.glob(f"{glob.escape(name)}, * averaged.csv")) for name, place in places]
    return [*tables_of, *(file for files in kept for file in files)]


# --- the overview -----------------------------------------------------------------------------------------------------


def overview_table(words: str) -> str:
    """A row for each entry of the file: data set, method, images with an outline, and measures with intervals."""
    lines = ["| data set | `--config small` | images | " + " | ".join(OVERVIEW.values()) + " |"]
    lines.append("|---" * (3 + len(OVERVIEW)) + "|")
    for entry in _entries(Path(words)):
        cases = read_cases(Path(entry["cases"]))
        found = summary(cases, samples=SAMPLES)
        images = len({case.case for case in cases if not math.isnan(case.dice)})
        cells = [entry["data"], entry["config"], str(images), *(value_text(found.get(name)) for name in OVERVIEW)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def files_of_overview(words: str) -> list[Path]:
    """The overview's own file and the tables of cases that it names."""
    return [Path(words), *(Path(entry["cases"]) for entry in _entries(Path(words)))]


def _entries(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise InputError(f"<!-- overview: {file} -->: no such file.")
    entries = json.loads(file.read_text("utf-8"))
    for entry in entries:
        if set(entry) != {"data", "config", "cases"}:
            raise InputError(f"{file}: an entry has the keys data, config and cases, and no other: {entry}.")
    return entries


MADE: dict[str, Callable[[str], str]] = {"tables": comparison_table, "overview": overview_table}
FILES: dict[str, Callable[[str], list[Path]]] = {"tables": files_of_comparison, "overview": files_of_overview}


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("documents"))
    if arguments.check and arguments.stale:
        raise InputError("--check writes nothing, so --stale has no use beside it. Give one of them.")
    for document in documents_of(arguments):
        text = document.read_text("utf-8")
        if arguments.check:
            if old := stale(text):
                raise InputError(f"{document}: not of the present files: {'; '.join(old)}. Leave out --check.")
        elif (new := filled(text, only_stale=arguments.stale)) != text:
            write_text(document, new)
            print(f"written: {document}", flush=True)


if __name__ == "__main__":
    main()
