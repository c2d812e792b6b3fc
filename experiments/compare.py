"""Train methods on all folds and seeds, pool their predictions for held-out images, and compare them in pairs.

python -m experiments.compare --methods rlar_guidance plain --data.name ddti --data.dir data --out runs/compare-ddti
    [--config SIZE] [--folds 0 1 2 3 4] [--seeds 0] [--part test] [--group.field value ...]
    [--runs NAME=DIR [DIR ...]] [--ensemble] [--measures dice quadratic_kappa] [--margin dice=0.02]
    [--submit local|slurm --jobs 4 --job-gpus 1]
python -m experiments.compare --grid FILE.json
python -m experiments.compare --runs ours=runs/a runs/b theirs=results/nnunet --out runs/compared

**The grid.** A method may carry options of --config, joined by a plus sign: ``plain+lite0+nodule``. Each combination of
method, fold and seed has a run folder OUT/METHOD-foldF-seedS. The command can be stopped at any moment and repeated: it
reads finished runs and continues the others. SIGTERM and Ctrl-C leave a checkpoint of the run in hand. Several
processes may share OUT; each computes runs that no other is at. ``--submit`` starts such processes, as jobs of SLURM or
on this machine, waits for them and then makes the tables (docs/training.md). For each seed, every image is predicted
by the model that was not trained on its fold. ``--grid`` reads the same options from a file
(``thyroid_jax/runs/grid_file.py``), which may name several data sets; each then has a folder OUT/DATASET.

**Methods that are there.** ``--runs`` adds finished run folders of a method, or a folder with ``cases.csv``, as
``python -m experiments.evaluate --masks`` writes it of other people's results.

**Tables.** They pool the predictions. Differences are to the first method, on the same images and groups, with 95 %
intervals, permutation tests and p adjusted over the tests of a table. With several seeds their means are further rows,
of the probabilities alone; ``--ensemble`` predicts with the runs of several seeds together, outlines too. ``--part
validation`` compares the validation folds instead, for choices that must not use the test part; ``--flip`` averages
every prediction over the image and its mirror image.

OUT/PART (with ``--flip`` OUT/PART-flip) holds table.md, table.tex, table.csv, index.html, and METHOD.csv, the pooled
predictions of the last command. ``python -m experiments.tables OUT/PART METHOD ...`` prints the tables again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from thyroid_jax import command, extras, runs
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.runs.job_options import JobOptions
from thyroid_jax.runs.table_options import TableOptions
from thyroid_jax.train import signals

from .configs import OPTIONS, SIZES, chosen_names, parse, settings_of
from .runtime import prepare

if TYPE_CHECKING:
    from thyroid_jax.evaluate.cases import Case


def say(text: str) -> None:
    """Print a line at once, also where the output is a file."""
    print(text, flush=True)


@dataclass(frozen=True, kw_only=True)
class Arguments(TableOptions, JobOptions, Config):
    """Train methods on all folds and seeds, pool their predictions for held-out images, and compare them in pairs.

    --grid FILE reads the options from a JSON file; those of the command line come after it.
    """

    methods: tuple[str, ...] = ()
    """methods, as for --config, each with any options (METHOD+OPTION+...); the others are compared to the first"""
    runs: tuple[str, ...] = ()
    """NAME=DIR [DIR ...]: further methods, from finished runs or a folder with cases.csv"""
    out: Path
    """folder of the runs and tables"""
    folds: tuple[int, ...] = ()
    """folds to hold out, one in each run; all by default"""
    seeds: tuple[int, ...] = (0,)
    """seeds; each fold is trained with each of them"""
    part: Literal["test", "validation"] = "test"
    """part on which the methods are compared"""
    flip: bool = False
    """average the predictions over each image and its mirror image"""
    ensemble: bool = False
    """predict with the runs of several seeds together, so that outlines are averaged too"""


_NO_ENSEMBLE = "--ensemble: no image is held out by several runs of a method; give several --seeds."


class Study(NamedTuple):
    """A comparison on one data set: its arguments, the cells of its grid, and its folder."""

    arguments: Arguments
    cells: list[runs.grid.Cell]
    folder: Path


# --- what was asked for -----------------------------------------------------------------------------------------------


def studies(argv: Sequence[str]) -> list[Study]:
    """The comparison of each data set, from the words of the command line; nothing is computed."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--grid", type=Path)
    chosen, rest = chooser.parse_known_args(argv)
    grid = runs.grid_file.read_grid(chosen.grid) if chosen.grid else None
    size, _ = chosen_names(rest)
    if len(size) > 1 or not set(size) <= set(SIZES):
        raise InputError(f"--config {' '.join(size)}: name one size; the methods stand after --methods.")
    size = size or ([grid.size] if grid and grid.size else ["small"])
    if size[0] not in SIZES:
        raise InputError(f"{chosen.grid}: config {size[0]!r} is not a size; choose one of {', '.join(SIZES)}.")
    words = [*(grid.words if grid else []), *rest]
    several = grid.data_sets if grid and not any(word.startswith("--data.name") for word in rest) else ()
    if not several:
        return [_study(words, size[0], "")]
    found = [_study([*words, "--data.name", name], size[0], name) for name in several]
    if found[0].arguments.runs:
        raise InputError(f"{chosen.grid}: runs are of one data set; name one in data.name.")
    return found


def _study(words: Sequence[str], size: str, data_set: str) -> Study:
    arguments = parse(Arguments, words, prog=command.spelled("compare"), names=[size, *_first_method(words)])
    if not (arguments.methods or arguments.runs):
        raise InputError("nothing to compare: name --methods, or --runs.")
    runs.results.check_options(arguments)
    for option, value, plural in (
        ("--data.fold", arguments.data.fold, "--folds"),
        ("--train.seed", arguments.train.seed, "--seeds"),
    ):
        if value:
            raise InputError(f"{option} {value}: {plural} says which ones are compared; give {plural} {value} instead.")
    for name, values in (("methods", arguments.methods), ("folds", arguments.folds), ("seeds", arguments.seeds)):
        if len(set(values)) < len(values):
            raise InputError(f"--{name} {' '.join(map(str, values))}: name each once.")
    there = set(runs.results.parse_methods(arguments.runs)) & set(arguments.methods)
    if there:
        raise InputError(f"--runs: {', '.join(sorted(there))} is also a method of the grid; give it another name.")
    folder = arguments.out / data_set
    return Study(arguments, _cells(arguments, words, size, folder), folder)


def _first_method(words: Sequence[str]) -> list[str]:
    """The names of the first method and its options: settings that suit no other encoder are to be read with them."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--methods", nargs="*", default=[])
    named, _ = chooser.parse_known_args(words)
    return named.methods[0].split("+") if named.methods else []


def _cells(arguments: Arguments, words: Sequence[str], size: str, folder: Path) -> list[runs.grid.Cell]:
    for method in arguments.methods:
        if set(method.split("+")) <= set(OPTIONS):
            raise InputError(f"--methods {method}: name a method before its options, such as plain+{method}.")
    configs = {
        method: settings_of(parse(Arguments, words, prog=command.spelled("compare"), names=[size, *method.split("+")]))
        for method in arguments.methods
    }
    cells = []
    for seed in arguments.seeds:
        for fold in arguments.folds or range(arguments.data.folds):
            for method in configs:
                config = replace_groups(configs[method], data={"fold": fold}, train={"seed": seed})
                label = runs.ensemble.run_label(config)
                cells.append(runs.grid.Cell(method, label, config, folder / f"{method}-{label}"))
    return cells


def check_ensemble(study: Study) -> None:
    """Raise :class:`InputError`, before anything is trained, where each image is held out by one run of a method."""
    if not study.arguments.ensemble or study.arguments.runs:
        return
    of_one_method = [cell.config for cell in study.cells if cell.method == study.cells[0].method]
    held_out = [frozenset(runs.open_parts(config).split[study.arguments.part]) for config in of_one_method]
    if len(set(held_out)) == len(held_out):
        raise InputError(_NO_ENSEMBLE)


# --- the comparison ---------------------------------------------------------------------------------------------------


def compare(study: Study) -> str:
    """Compute what is missing, write the tables and return them as Markdown."""
    arguments, part = study.arguments, study.arguments.part
    found: dict[str, list[Case]] = {cell.method: [] for cell in study.cells}
    if study.cells:
        cases = {
            cell.folder: [replace(case, part=cell.run) for case in own]
            for cell, own in runs.grid.run_cells(study.cells, part=part, flip=arguments.flip, echo=say)
        }
        for cell in study.cells:  # in the grid's order, whichever process computed it
            found[cell.method] += cases[cell.folder]
    folders = runs.results.parse_methods(arguments.runs)
    for name, own in folders.items():
        found[name] = runs.results.cases_of_folders(own, part=part, flip=arguments.flip)
    folder = study.folder / (f"{part}-flip" if arguments.flip else part)
    predicted = _predicted_together(study, folders, folder) if arguments.ensemble else {}
    notes = [f"{arguments.data.name}, {part} part" + (", averaged over mirror images." if arguments.flip else ".")]
    return runs.results.publish(
        folder, runs.results.with_ensembles(found, predicted), arguments, notes if study.cells else ()
    )


def _predicted_together(study: Study, folders: dict[str, list[Path]], folder: Path) -> dict[str, list[Case]]:
    """Method -> cases of its runs together, for methods of which several runs hold out the same images."""
    run_dirs: dict[str, list[Path]] = {}
    for cell in study.cells:
        run_dirs.setdefault(cell.method, []).append(cell.folder)
    part, flip = study.arguments.part, study.arguments.flip
    found: dict[str, list[Case]] = {}
    for method, own in (run_dirs | folders).items():
        if not all((run_dir / "config.json").is_file() for run_dir in own):
            continue  # results from elsewhere have no model to predict with
        sets = runs.results.of_equal_cases(own, part=part, flip=flip)
        if all(len(same) > 1 for same in sets):
            kept = [
                runs.results.kept_ensemble(folder / "ensembles", method, same, part=part, flip=flip) for same in sets
            ]
            found[method] = [case for cases in kept for case in cases]
    if not found:
        raise InputError(_NO_ENSEMBLE)
    return found


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    with signals.at_once():
        asked = studies(sys.argv[1:] if argv is None else argv)
        options = asked[0].arguments
        if options.submit == "no":
            prepare()
        for study in asked:
            runs.results.require(study.arguments)
            runs.results.check_folders(runs.results.parse_methods(study.arguments.runs), flip=study.arguments.flip)
            runs.grid.check_cells(study.cells)
            if study.cells:  # a data set that is missing is named before another is trained on
                runs.open_parts(study.cells[0].config)
            check_ensemble(study)
    if options.submit != "no":  # JAX starts afterwards, so that the jobs have the devices alone
        grids = [runs.jobs.Grid(study.cells, study.arguments.part, study.arguments.flip) for study in asked]
        runs.jobs.run_jobs(grids, options.out / runs.jobs.FOLDER, options, prepare, echo=say)
        prepare()
    with signals.at_once():
        for study in asked:
            if len(asked) > 1:
                print(f"\n{study.folder.name}", flush=True)
            print(compare(study), flush=True)


if __name__ == "__main__":
    main()
