"""Export a trained run as a folder that runs without this package, with a model card.

python -m experiments.export --run-dir RUN --out DIR [--platforms cpu cuda tpu] [--checkpoint best] [--data-dir DIR]

Written to DIR: ``model.stablehlo`` (the prediction function), ``parameters.safetensors``, ``run.py`` (predicts images
of any size with jax, numpy and flatbuffers alone), ``model_card.md``, ``export.json``. docs/export.md says more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import thyroid_jax
from thyroid_jax import command, extras
from thyroid_jax.errors import InputError, exits_cleanly

from .runtime import prepare


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Export a trained run as a folder that runs without this package, with a model card."""

    run_dir: Path
    """folder of a training run"""
    out: Path
    """new folder for the export"""
    platforms: tuple[Literal["cpu", "cuda", "tpu", "rocm"], ...] = ("cpu", "cuda", "tpu")
    """platforms that the program is made for"""
    checkpoint: Literal["best", "last"] = "best"
    """the best by the run's validation measure, or the last"""
    data_dir: Path | None = None
    """folder of the built data set, if it has moved since the training; the model card names its facts"""
    samples: int = 2000
    """bootstrap replicates of the intervals in the model card"""
    overwrite: bool = False
    """replace an earlier export"""


def check(arguments: Arguments) -> None:
    """Raise :class:`InputError` for arguments that cannot be used."""
    if not arguments.platforms or len(set(arguments.platforms)) < len(arguments.platforms):
        raise InputError("--platforms: name at least one, and each once.")
    if arguments.samples < 1:
        raise InputError(f"--samples {arguments.samples}: it is at least 1.")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require("flatbuffers", *extras.STATISTICS)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("export"))
    check(arguments)
    prepare()
    facts = thyroid_jax.export.export_run(
        arguments.run_dir,
        arguments.out,
        platforms=arguments.platforms,
        checkpoint=arguments.checkpoint,
        data_dir=arguments.data_dir,
        overwrite=arguments.overwrite,
        samples=arguments.samples,
    )
    checked = facts["program"]["check"]
    if checked["platform"] is not None:
        print(f"run on {checked['platform']}: differs from the run by at most {checked['largest_difference']:.1e}")
    if facts["results"]["missing"]:
        print(f"no results in the model card: {facts['results']['missing']}")
    for path in sorted(arguments.out.iterdir()):
        print(f"{path.stat().st_size:>12,} bytes  {path.name}")
    print(f"exported: {arguments.out}")


if __name__ == "__main__":
    main()
