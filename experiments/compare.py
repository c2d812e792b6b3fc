"""Train methods on all folds and seeds, pool their predictions for held-out images, and compare them in pairs.

python -m experiments.compare --methods rlar_guidance plain --data.name ddti --data.dir data --out runs/compare-ddti
    [--config SIZE] [--folds 0 1 2 3 4] [--seeds 0] [--part test] [--group.field value ...]

A method may carry options of --config, joined by a plus sign: ``--methods plain plain+lite0+nodule``. Each combination
of method, fold and seed has a run folder OUT/METHOD-foldF-seedS. The command can be stopped at any moment and repeated:
it reads finished runs and continues the others. For each seed, every image is predicted by the model that was not
trained on its fold. The tables pool these predictions. Differences are to the first method, on the same images and
groups. ``--part validation`` compares the validation folds instead, for choices that must not use the test part;
``--flip`` averages every prediction over the image and its mirror image.

The pooled predictions, of the folds and seeds of the last command, are kept as OUT/PART/METHOD.csv, with ``--flip`` as
OUT/PART-flip/METHOD.csv. From them, ``python -m experiments.tables OUT/PART METHOD ...`` prints the same tables.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from experiments.configs import OPTIONS, SIZES, chosen_names, parse, settings_of
from experiments.runtime import prepare
from thyroid_jax import runs
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.evaluate.paired import comparison


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train methods on all folds and seeds, pool their predictions for held-out images, and compare them in pairs."""

    methods: tuple[str, ...]
    """methods, as for --config, each with any options (METHOD+OPTION+...); the others are compared to the first"""
    out: Path
    """folder of the runs"""
    folds: tuple[int, ...] = ()
    """folds to hold out, one in each run; all by default"""
    seeds: tuple[int, ...] = (0,)
    """seeds; each fold is trained with each of them"""
    part: Literal["test", "validation"] = "test"
    """part on which the methods are compared"""
    flip: bool = False
    """average the predictions over each image and its mirror image"""
    samples: int = 2000
    """bootstrap replicates"""


def tables(arguments: Arguments, argv: Sequence[str], size: str) -> dict[str, list[Case]]:
    """Method -> its held-out predictions over all folds and seeds; ``part`` of a case names its fold and seed."""
    for method in arguments.methods:
        if set(method.split("+")) <= set(OPTIONS):
            raise InputError(f"--methods {method}: name a method before its options, such as plain+{method}.")
    configs = {
        method: settings_of(parse(Arguments, argv, prog=PROG, names=[size, *method.split("+")]))
        for method in arguments.methods
    }
    found: dict[str, list[Case]] = {method: [] for method in configs}
    for seed in arguments.seeds:
        for fold in arguments.folds or range(arguments.data.folds):
            for method in configs:
                config = replace_groups(configs[method], data={"fold": fold}, train={"seed": seed})
                folder = arguments.out / f"{method}-fold{fold}-seed{seed}"
                echo = lambda text, folder=folder: print(f"{folder.name}: {text}", flush=True)
                cases = runs.held_out_cases(config, folder, part=arguments.part, flip=arguments.flip, echo=echo)
                found[method] += [replace(case, part=f"fold{fold}-seed{seed}") for case in cases]
    return found


PROG = "python -m experiments.compare"


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    argv = sys.argv[1:] if argv is None else argv
    size, _ = chosen_names(argv)
    if len(size) > 1 or not set(size) <= set(SIZES):
        raise InputError(f"--config {' '.join(size)}: name one size; the methods stand after --methods.")
    arguments = parse(Arguments, argv, prog=PROG)
    found = tables(arguments, argv, size[0] if size else "small")
    folder = arguments.out / (f"{arguments.part}-flip" if arguments.flip else arguments.part)
    for method, cases in found.items():
        write_cases(folder / f"{method}.csv", cases)
    print(comparison(found, samples=arguments.samples))


if __name__ == "__main__":
    main()
