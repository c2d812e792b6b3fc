"""Train one model on one data set; repeat the same command to continue after an interruption.

python -m experiments.train --data.name ddti --data.dir data --run-dir runs/ddti [--config SIZE [METHOD]]
    [--group.field value ...]

SIGTERM and SIGINT (Ctrl-C) finish the step in hand and write a checkpoint; the exit status is then 75 or 130. A second
signal ends the process at once. docs/training.md says what an interruption costs.

``--distributed auto`` or ``--distributed HOST:PORT`` trains one run by several processes, each started with the same
command; exit status 69 says that another of them has ended.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import thyroid_jax
from thyroid_jax import command, extras
from thyroid_jax.config import Config
from thyroid_jax.errors import exits_cleanly
from thyroid_jax.train import hosts, signals
from thyroid_jax.train.hosts import HostOptions
from thyroid_jax.train.options import ProcessOptions

from .configs import parse, settings_of
from .runtime import prepare


@dataclass(frozen=True, kw_only=True)
class Arguments(ProcessOptions, HostOptions, Config):
    """Train one model on one data set; repeat the same command to continue after an interruption.

    SIGTERM and Ctrl-C end it after the step in hand, with a checkpoint and exit status 75 or 130; a second one ends it
    at once.
    """

    distributed: Annotated[str, tyro.conf.arg(aliases=["--devices.distributed"])] = ""  # beside --devices.mode
    run_dir: Path
    """folder of the run: config, split, logs, checkpoints and report"""

    def __post_init__(self):
        ProcessOptions.__post_init__(self)
        HostOptions.__post_init__(self)  # those of Config are checked by settings_of


@hosts.leaves_at_once
@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    with signals.at_once():
        arguments = parse(Arguments, sys.argv[1:] if argv is None else argv, prog=command.spelled("train"))
        hosts.join(arguments)
        prepare()
        with hosts.together():
            thyroid_jax.runs.train(settings_of(arguments), arguments.run_dir, options=arguments)
    if hosts.first():
        print(f"done; now: {command.spelled('evaluate')} --run-dir {shlex.quote(str(arguments.run_dir))}")


if __name__ == "__main__":
    main()
