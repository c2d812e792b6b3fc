"""Train one model on one data set; repeat the same command to continue after an interruption.

python -m experiments.train --data.name ddti --data.dir data --run-dir runs/ddti [--config SIZE [METHOD]]
    [--group.field value ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import thyroid_jax
from thyroid_jax import command, extras
from thyroid_jax.config import Config
from thyroid_jax.errors import exits_cleanly

from .configs import parse, settings_of
from .runtime import prepare


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train one model on one data set; repeat the same command to continue after an interruption."""

    run_dir: Path
    """folder of the run: config, split, logs, checkpoints and report"""


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    arguments = parse(Arguments, sys.argv[1:] if argv is None else argv, prog=command.spelled("train"))
    prepare()
    thyroid_jax.runs.train(settings_of(arguments), arguments.run_dir)
    print(f"done; now: {command.spelled('evaluate')} --run-dir {arguments.run_dir}")


if __name__ == "__main__":
    main()
