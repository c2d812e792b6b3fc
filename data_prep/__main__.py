"""Build, check and measure data sets.

python -m data_prep build ddti --source DIR --out DIR [--overwrite] python -m data_prep build phantom --out DIR
[--count N] [--seed N] [--size H W] [--overwrite] python -m data_prep check NAME --data DIR [--sheet FILE] python -m
data_prep radiomics NAME --data DIR --out FILE.csv [--engine jax|pyradiomics] [--bin-count N | --bin-width W]
[--overwrite]
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from thyroid_jax.errors import exits_cleanly

# Data sets that are downloaded -> module with CARD and read(source folder, notes). Modules are imported when they
# are used.
READERS = {"ddti": "data_prep.readers.ddti", "breast": "data_prep.readers.breast_lesions"}


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake prints one message and exits with status 2."""
    options = _parser().parse_args(arguments)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description="Build, check and measure data sets.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="turn an original download, or phantoms, into a data set")
    names = build.add_subparsers(title="data sets", required=True, metavar="NAME")
    for name in READERS:
        one = names.add_parser(name, help=f"from the original download of {name}")
        one.add_argument(
            "--source", type=Path, required=True, metavar="DIR", help="folder of the original; it is only read"
        )
        _add_out(one)
        one.set_defaults(run=partial(_build_from_folder, name))
    phantom = names.add_parser("phantom", help="rendered pictures whose truth is known")
    phantom.add_argument("--count", type=int, metavar="N", help="number of pictures")
    phantom.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same pictures")
    phantom.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="height and width in pixels")
    _add_out(phantom)
    phantom.set_defaults(run=_build_phantoms)

    check = commands.add_parser("check", help="print what a built data set holds and whether it can be used")
    check.add_argument("name", metavar="NAME", help="name of the data set")
    check.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder given as --out to build")
    check.add_argument("--sheet", type=Path, metavar="FILE", help="write a PNG of random records with their contours")
    check.add_argument("--seed", type=int, default=0, metavar="N", help="which random records (default 0)")
    check.set_defaults(run=_check)

    radiomics = commands.add_parser("radiomics", help="write a table of radiomics, one row an outlined image")
    radiomics.add_argument("name", metavar="NAME", help="name of the data set")
    radiomics.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder given as --out to build")
    radiomics.add_argument("--out", type=Path, required=True, metavar="FILE", help="the CSV file to write")
    radiomics.add_argument("--engine", choices=("jax", "pyradiomics"), default="jax", help="who computes (default jax)")
    bins = radiomics.add_mutually_exclusive_group()
    bins.add_argument(
        "--bin-count", type=int, metavar="N", help="grey levels between a nodule's darkest and brightest (default 32)"
    )
    bins.add_argument("--bin-width", type=float, metavar="W", help="grey values in a level, instead")
    radiomics.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
    radiomics.set_defaults(run=_radiomics)
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder in which the data set NAME is made"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is already there")


def _build_from_folder(name: str, options: argparse.Namespace) -> None:
    reader = importlib.import_module(READERS[name])
    _refuse_inside(options.source, options.out)
    _build(reader, options.source, options)


def _build_phantoms(options: argparse.Namespace) -> None:
    from data_prep import phantom

    given = {name: getattr(options, name) for name in ("count", "seed") if getattr(options, name) is not None}
    if options.size is not None:
        given["size"] = tuple(options.size)
    _build(phantom, phantom.PhantomOptions(**given), options)


def _build(reader, source, options: argparse.Namespace) -> None:
    from data_prep import builder

    survey = builder.build(reader.CARD, partial(reader.read, source), options.out, overwrite=options.overwrite)
    print(builder.summary(reader.CARD, survey.notes))
    print(f"built: {options.out / reader.CARD.name}")


def _refuse_inside(source: Path, out: Path) -> None:
    from thyroid_jax.errors import InputError

    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies inside the source {source}, which is never written into. Give another --out.")


def _check(options: argparse.Namespace) -> None:
    from data_prep.check import check

    print(check(options.data, options.name, sheet=options.sheet, seed=options.seed))


def _radiomics(options: argparse.Namespace) -> None:
    from data_prep.radiomics_table import ENGINES, write_table
    from thyroid_jax.radiomics import FEATURES

    bins = {"bin_width": options.bin_width, "bin_count": options.bin_count}
    engine = ENGINES[options.engine]
    summary = write_table(
        options.data, options.name, options.out, engine=engine, features=FEATURES, **bins, overwrite=options.overwrite
    )
    if summary.remark:
        print(summary.remark, file=sys.stderr)
    print(f"{summary.rows} images, {summary.incomplete} of them with values that are not defined: {options.out}")


if __name__ == "__main__":
    main()
