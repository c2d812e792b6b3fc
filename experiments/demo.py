"""The whole way in a few minutes on two CPU cores: phantoms, two disagreeing readers, one guided model with RLAR, its
measured quality.

python -m experiments.demo [--out runs/demo]

Renders thyroid phantoms whose outline and ACR TI-RADS level are known, trains on what two simulated readers drew and
graded, and evaluates on held-out phantoms against the known truth. Expect a Dice of about 0.9 and a
quadratic-weighted kappa of about 0.8.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from data_prep import builder, phantom
from experiments.configs import CONFIGS
from experiments.evaluate import Arguments as EvaluateArguments
from experiments.evaluate import evaluate, print_summary
from experiments.runtime import prepare
from experiments.train import open_run
from thyroid_jax.data import source
from thyroid_jax.data.storage import folder_of
from thyroid_jax.errors import exits_cleanly
from thyroid_jax.predict import load_run
from thyroid_jax.train.loop import fit


@dataclass(frozen=True)
class Arguments:
    """Phantoms, two disagreeing readers, one guided model with RLAR, its measured quality."""

    out: Path = Path("runs/demo")
    """folder for the phantoms and the run"""
    count: int = 640
    """phantom images"""
    seed: int = 0
    picture: Path | None = None
    """also write the page's outlines as one PNG"""


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script; what is already there from an earlier, interrupted call is used."""
    started = time.monotonic()
    prepare()
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.demo")
    data, run_dir = arguments.out / "data", arguments.out / "run"
    if not folder_of(data, "phantom").is_dir():
        print(f"rendering {arguments.count} phantoms")
        options = phantom.PhantomOptions(count=arguments.count, seed=arguments.seed)
        builder.build(phantom.CARD, partial(phantom.read, options), data)
    config = CONFIGS["demo"]()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str(data)))
    config, training, validation, facts = open_run(config, run_dir)
    print(
        f"training on two readers' outlines and grades of {len(training.cases)} images, {config.train.total_steps} steps"
    )
    fit(config, run_dir, training, validation, facts)
    parts = source.open_parts(config.data, run_dir / "split.json")
    summary, page = evaluate(
        load_run(run_dir), run_dir, parts, EvaluateArguments(run_dir=run_dir, picture=arguments.picture)
    )
    print(f"\n{len(parts.test)} held-out phantoms against the known truth:")
    print_summary(summary)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes; the page to look at: {page}")


if __name__ == "__main__":
    main()
