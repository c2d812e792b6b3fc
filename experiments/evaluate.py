"""Evaluate a run on held-out groups: a per-case table, measures with intervals, and an HTML report.

python -m experiments.evaluate --run-dir DIR [--part test] [--checkpoint best]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.runtime import prepare
from thyroid_jax import runs
from thyroid_jax.errors import exits_cleanly


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate a run on held-out groups."""

    run_dir: Path
    """folder of a run made by `python -m experiments.train`"""
    data_dir: Path | None = None
    """folder of the built data set, if it has moved since the training"""
    part: Literal["test", "validation", "train"] = "test"
    """part of the run's own split"""
    checkpoint: Literal["best", "last"] = "best"
    """the best by the run's validation measure, or the last"""
    flip: bool = False
    """average the predictions over each image and its mirror image"""
    samples: int = 2000
    """bootstrap replicates"""
    picture: Path | None = None
    """also write the report's outlines as one PNG, for a talk or a README"""


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.evaluate")
    finished = runs.open_finished(arguments.run_dir, arguments.checkpoint, arguments.data_dir)
    found = runs.evaluate(
        arguments.run_dir,
        finished,
        part=arguments.part,
        checkpoint=arguments.checkpoint,
        flip=arguments.flip,
        samples=arguments.samples,
        picture=arguments.picture,
    )
    runs.print_summary(found.summary)
    print(f"page: {found.page}")


if __name__ == "__main__":
    main()
