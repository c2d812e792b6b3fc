"""Train one model on one data set; run the same command again to go on after an interruption.

python -m experiments.train --data.name ddti --data.dir data --run-dir runs/ddti [--config SIZE [METHOD]]
    [--group.field value ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.configs import METHODS, SIZES, named
from experiments.runtime import prepare
from thyroid_jax import runs
from thyroid_jax.config import Config
from thyroid_jax.errors import InputError, exits_cleanly


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train one model on one data set; run the same command again to go on after an interruption."""

    run_dir: Path
    """folder of the run: config, split, logs, checkpoints and report"""


def parse(argv: Sequence[str]) -> tuple[Config, Path]:
    """Command line to config and run folder: the names after ``--config`` first, then every field that was given."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--config", nargs="+", default=[])
    chosen, rest = chooser.parse_known_args(argv)
    start = named(chosen.config)
    fields = {field.name: getattr(start, field.name) for field in dataclasses.fields(Config)}
    arguments = tyro.cli(
        Arguments,
        args=rest,
        prog="python -m experiments.train",
        description=f"{Arguments.__doc__} --config SIZE [METHOD] chooses where the fields start from; sizes: "
        f"{', '.join(SIZES)}; methods: {', '.join(METHODS)}.",
        default=Arguments(run_dir=tyro.MISSING, **fields),
    )
    config = Config(**{name: getattr(arguments, name) for name in fields})
    refuse_unasked_penalties(config, start, rest)
    return config, arguments.run_dir


def refuse_unasked_penalties(config: Config, start: Config, given: Sequence[str]) -> None:
    """Raise :class:`InputError` when a multitask method would silently keep the named method's penalty or guidance on.

    A baseline with RLAR in it is no baseline; who wants both says so.
    """
    if config.mtl.method == start.mtl.method:
        return
    for name in ("rlar", "guidance", "consistency", "cosreg"):
        weight = getattr(config, name).weight
        spoken_of = any(word.split("=")[0].replace("_", "-") == f"--{name}.weight" for word in given)
        if weight and not spoken_of:
            raise InputError(
                f"mtl.method {config.mtl.method} together with {name}.weight {weight:g}, which you did not ask for: "
                f"take --config {config.mtl.method} for the baseline alone, or say --{name}.weight {weight:g} (or 0)."
            )


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    config, run_dir = parse(sys.argv[1:] if argv is None else argv)
    runs.train(config, run_dir)
    print(f"done; now: python -m experiments.evaluate --run-dir {run_dir}")


if __name__ == "__main__":
    main()
