"""Train methods on all folds and seeds, pool their predictions for held-out images, and compare them in pairs.

python -m experiments.compare --methods rlar_guidance plain --data.name ddti --data.dir data --out runs/compare-ddti
    [--config SIZE] [--folds 0 1 2 3 4] [--seeds 0] [--part test] [--group.field value ...]

Each combination of method, fold and seed has a run folder OUT/METHOD-foldF-seedS. The command can be stopped at any
moment and repeated: it reads finished runs and continues the others. For each seed, every image is predicted by the
model that was not trained on its fold. The tables pool these predictions. Differences are to the first method, on the
same images and groups. ``--part validation`` compares the validation folds instead, for choices that must not use the
test part.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.configs import SIZES, chosen_names, parse, settings_of
from experiments.runtime import prepare
from thyroid_jax import runs
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import metrics, paired
from thyroid_jax.evaluate.cases import Case


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train methods on all folds and seeds, pool their predictions for held-out images, and compare them in pairs."""

    methods: tuple[str, ...]
    """names of methods, as for --config; each of the others is compared to the first"""
    out: Path
    """folder of the runs"""
    folds: tuple[int, ...] = ()
    """folds to hold out, one in each run; all by default"""
    seeds: tuple[int, ...] = (0,)
    """seeds; each fold is trained with each of them"""
    part: Literal["test", "validation"] = "test"
    """part on which the methods are compared"""
    samples: int = 2000
    """bootstrap replicates"""


def tables(arguments: Arguments, argv: Sequence[str], size: str) -> dict[str, list[Case]]:
    """Method -> its held-out predictions over all folds and seeds."""
    configs = {
        method: settings_of(parse(Arguments, argv, prog=PROG, names=[size, method])) for method in arguments.methods
    }
    found: dict[str, list[Case]] = {method: [] for method in configs}
    for seed in arguments.seeds:
        for fold in arguments.folds or range(arguments.data.folds):
            for method in configs:
                config = replace_groups(configs[method], data={"fold": fold}, train={"seed": seed})
                folder = arguments.out / f"{method}-fold{fold}-seed{seed}"
                echo = lambda text, folder=folder: print(f"{folder.name}: {text}", flush=True)
                found[method] += runs.held_out_cases(config, folder, part=arguments.part, echo=echo)
    return found


def print_table(found: dict[str, list[Case]], samples: int) -> None:
    """Print two Markdown tables: every measure with its interval, and the paired differences to the first method.

    A cell is empty where a method does not have the measure.
    """
    first, *others = found
    summaries = {method: metrics.summary(cases, samples=samples) for method, cases in found.items()}
    names = list(dict.fromkeys(name for summary in summaries.values() for name in summary))
    print("| measure | predictions | groups | " + " | ".join(found) + " |\n" + "|---" * (3 + len(found)) + "|")
    for name in names:
        entries = {method: summary.get(name) for method, summary in summaries.items()}
        known = next(entry for entry in entries.values() if entry is not None)
        cells = ["" if e is None else f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" for e in entries.values()]
        print(f"| {name} | {known['n']:.0f} | {known['groups']:.0f} | " + " | ".join(cells) + " |")
    if others:
        print(f"\n| difference to {first} | " + " | ".join(others) + " |\n" + "|---" * (1 + len(others)) + "|")
    for name in paired.MEASURES if others else ():
        gaps = [paired.difference(found[method], found[first], name, samples=samples) for method in others]
        known = [not math.isnan(gap.value) for gap in gaps]
        cells = [f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})" if ok else "" for gap, ok in zip(gaps, known)]
        if any(known):
            print(f"| {name} | " + " | ".join(cells) + " |")


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
    print_table(found, arguments.samples)


if __name__ == "__main__":
    main()
