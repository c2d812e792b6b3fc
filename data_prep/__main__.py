"""Build, check, split and measure data sets.

::

    python -m data_prep list [--data DIR] [--pages DIR]
    python -m data_prep build NAME --source DIR --out DIR [--overwrite]
    python -m data_prep build phantom --out DIR [--count N] [--seed N] [--size H W] [--overwrite]
    python -m data_prep build folder --name NAME --source DIR --out DIR [--dry-run] [--overwrite] [more, see --help]
    python -m data_prep check NAME --data DIR [--sheet FILE [--source DIR]] [--against OTHER]
    python -m data_prep folds NAME --data DIR --out FILE [--folds N] [--seed N]
    python -m data_prep radiomics NAME --data DIR --out FILE.csv [--engine jax|pyradiomics]
                                       [--bin-count N | --bin-width W] [--overwrite]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from data_prep import readers
from data_prep.folder import options as folder_options
from thyroid_jax import command, extras
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError, exits_cleanly

FOLDS = 5
"""folds of a run that does not say how many"""


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. A mistake of the user prints one message, and the exit status is 2."""
    options = _parser().parse_args(arguments)
    if options.run is not _list:
        extras.require(*extras.BUILDING)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command.program(command.DATA), description="Build, check, split and measure data sets."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_list(commands.add_parser("list", help="print which data sets can be built"))
    _add_build(commands.add_parser("build", help="make a data set from an original download, or of phantoms"))
    _add_check(commands.add_parser("check", help="print what a built data set holds and whether it can be used"))
    _add_folds(commands.add_parser("folds", help="divide a built data set into folds and write these to a file"))
    _add_radiomics(commands.add_parser("radiomics", help="write a table of radiomics, one row for each outlined image"))
    return parser


def _add_list(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("--data", type=Path, metavar="DIR", help="say also which of them are built in this folder")
    listing.add_argument("--pages", type=Path, metavar="DIR", help="write a page on each data set into this folder")
    listing.set_defaults(run=_list)


def _add_build(build: argparse.ArgumentParser) -> None:
    names = build.add_subparsers(title="data sets", required=True, metavar="NAME")
    for name in readers.names():
        data_set = names.add_parser(name, help=f"from the original download of {name}")
        data_set.add_argument(
            "--source", type=Path, required=True, metavar="DIR", help="folder of the original; it is only read"
        )
        _add_out(data_set)
        data_set.set_defaults(run=partial(_build_from_folder, name))
    phantom = names.add_parser("phantom", help="rendered phantoms whose true labels are known")
    phantom.add_argument("--count", type=int, metavar="N", help="number of pictures")
    phantom.add_argument("--seed", type=_seed, metavar="N", help="the same seed gives the same pictures")
    phantom.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="height and width in pixels")
    _add_out(phantom)
    phantom.set_defaults(run=_build_phantoms)
    folder = names.add_parser("folder", help="your own folder of images, masks and a table")
    folder_options.add_arguments(folder)
    folder.add_argument("--out", type=Path, metavar="DIR", help="folder in which the data set NAME is built")
    folder.add_argument("--overwrite", action="store_true", help="replace a data set that is already there")
    folder.add_argument("--dry-run", action="store_true", help="print what is understood, and write nothing")
    folder.set_defaults(run=_build_own)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder in which the data set NAME is built"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is already there")


def _add_built(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the data set")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder given as --out to build")


def _seed(text: str) -> int:
    """A seed that numpy and scikit-learn take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text}: it is a whole number from 0 to {2**32 - 1}")
    return int(text)


def _add_check(check: argparse.ArgumentParser) -> None:
    _add_built(check)
    check.add_argument("--against", metavar="NAME", help="another data set in DIR that must not share an image with it")
    check.add_argument("--sheet", type=Path, metavar="FILE", help="write a PNG of random records with their contours")
    check.add_argument("--source", type=Path, metavar="DIR", help="show originals of this folder on the sheet as well")
    check.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the choice of records (default 0)")
    check.set_defaults(run=_check)


def _add_folds(folds: argparse.ArgumentParser) -> None:
    _add_built(folds)
    folds.add_argument("--out", type=Path, required=True, metavar="FILE", help="the JSON file to write")
    folds.add_argument("--folds", type=int, default=FOLDS, metavar="N", help=f"number of folds (default {FOLDS})")
    folds.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the folds (default 0)")
    folds.set_defaults(run=_folds)


def _add_radiomics(radiomics: argparse.ArgumentParser) -> None:
    _add_built(radiomics)
    radiomics.add_argument("--out", type=Path, required=True, metavar="FILE", help="the CSV file to write")
    radiomics.add_argument("--engine", choices=("jax", "pyradiomics"), default="jax", help="library (default jax)")
    bins = radiomics.add_mutually_exclusive_group()
    bins.add_argument(
        "--bin-count", type=int, metavar="N", help="grey levels between a nodule's darkest and brightest (default 32)"
    )
    bins.add_argument("--bin-width", type=float, metavar="W", help="bin width in grey values, instead of --bin-count")
    radiomics.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
    radiomics.set_defaults(run=_radiomics)


def _list(options: argparse.Namespace) -> None:
    from data_prep import cards, phantom

    known = [*(readers.reader_of(name).card for name in readers.names()), phantom.CARD]
    print("\n".join(cards.listed(known, options.data)))
    if options.pages is not None:
        cards.write_pages(known, options.pages)


def _build_from_folder(name: str, options: argparse.Namespace) -> None:
    _refuse_inside(options.source, options.out)
    reader = readers.reader_of(name)
    _build(reader.card, partial(reader.read, options.source), options)


def _build_phantoms(options: argparse.Namespace) -> None:
    from data_prep import phantom

    given = {name: getattr(options, name) for name in ("count", "seed") if getattr(options, name) is not None}
    if options.size is not None:
        given["size"] = tuple(options.size)
    _build(phantom.CARD, partial(phantom.read, phantom.PhantomOptions(**given)), options, near=False)


def _build_own(options: argparse.Namespace) -> None:
    from data_prep.folder import report

    if options.out is None and not options.dry_run:
        raise InputError("--out: is not given. Name the folder to build in, or look first with --dry-run.")
    if options.out is not None:
        _refuse_inside(options.source, options.out)
    own = folder_options.options_of(options)
    report.run(own, None if options.dry_run else options.out, overwrite=options.overwrite)


def _build(
    card: Card, records: Callable[[Notes], Iterable[Record]], options: argparse.Namespace, *, near: bool = True
) -> None:
    from data_prep import builder
    from thyroid_jax.data.splits import folds_folder

    survey = builder.build(card, records, options.out, overwrite=options.overwrite, near=near)
    print(builder.summary(card, survey.notes))
    print(f"built: {options.out / card.name}")
    if reason := builder.why_not_split(card, survey, folds=FOLDS):
        print(f"too small to train on: {reason}")
    for name in survey.folds:
        print(f"the publishers' folds, for --data.split: {folds_folder(options.out, card.name) / f'{name}.json'}")


def _refuse_inside(source: Path, out: Path) -> None:
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies inside the source {source}, which is never written into. Give another --out.")


def _check(options: argparse.Namespace) -> None:
    from data_prep.check import against, check

    if options.source is not None and options.sheet is None:
        raise InputError("--source: is for --sheet, which is not given. Add --sheet FILE, or leave out --source.")
    if options.against is not None:
        if options.sheet is not None:
            raise InputError("--against and --sheet: are two checks. Run one after the other.")
        print(against(options.data, options.name, options.against))
        return
    print(check(options.data, options.name, sheet=options.sheet, source=options.source, seed=options.seed))


def _folds(options: argparse.Namespace) -> None:
    from thyroid_jax.data import splits
    from thyroid_jax.data.storage import read_metadata

    if options.out.exists():
        raise InputError(f"{options.out}: is already there. Folds are made once: give another --out.")
    metadata = read_metadata(options.data, options.name)
    made = splits.make_folds(options.name, metadata.digest, metadata.entries, folds=options.folds, seed=options.seed)
    splits.write_folds(options.out, made)
    print(f"{len(made.folds)} folds of {' '.join(str(len(cases)) for cases in made.folds)} records: {options.out}")
    if made.test:
        print(f"{len(made.test)} records are the official test part")


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
