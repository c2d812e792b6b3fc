"""Train one model on one data set; repeat the same command to continue after an interruption.

python -m experiments.train --data.name ddti --data.dir data --run-dir runs/ddti [--config SIZE [METHOD]]
    [--group.field value ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.configs import parse, settings_of
from experiments.runtime import prepare
from thyroid_jax import extras, runs
from thyroid_jax.config import Config
from thyroid_jax.errors import exits_cleanly


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train one model on one data set; repeat the same command to continue after an interruption."""

    run_dir: Path
    """folder of the run: config, split, logs, checkpoints and report"""


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    prepare()
    arguments = parse(Arguments, sys.argv[1:] if argv is None else argv, prog="python -m experiments.train")
    runs.train(settings_of(arguments), arguments.run_dir)
    print(f"done; now: python -m experiments.evaluate --run-dir {arguments.run_dir}")


if __name__ == "__main__":
    main()
