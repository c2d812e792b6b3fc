"""Time several small runs on one device: their steps stacked by vmap, against one step after the other.

python -m experiments.sweep_speed [--methods plain rlar] [--runs 1 2 4 8 16 32] [--batches own] [--seconds 600]
    [--out FILE.jsonl]

Both ways train k seeds in one process on synthetic batches that lie on the device: loading, validation and checkpoints
are not timed. *Stacked* is one program, ``vmap`` of the training step over the states; *in turn* is the usual step, for
one state after the other. The two take turns, so the ratio holds where the speed of the machine changes. Compilation is
not in it; it has a column.

``--batches own`` gives every seed its own batch, ``shared`` the same one. A row that does not fit into the memory ends
its method. A row for which ``--seconds`` leaves no time is left out, and said so. FILE.jsonl gets a line for each row.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from thyroid_jax import command
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.recipe import Recipe
from thyroid_jax.train import TrainState, init_state, train_step, update

from .configs import named
from .runtime import prepare
from .timing.variants import random_batch

ROUNDS = 5  # turns of each way in a row of the table, at most
TURN = 0.5  # seconds that a turn should last at least


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Time k small runs on one device, stacked by vmap against one after the other."""

    config: str = "small"
    """size of the network"""
    methods: tuple[str, ...] = ("plain", "rlar")
    """methods, as for --config"""
    runs: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """numbers of seeds that are trained together"""
    batches: Literal["own", "shared"] = "own"
    """every seed its own batch, or all the same"""
    height: int = 128
    width: int = 160
    batch_size: int = 16
    steps: int = 800
    """steps of a run, to tell steps as runs an hour: 80 epochs of 10 batches"""
    seconds: float = 600.0
    """time for everything; rows that no longer fit are left out"""
    out: Path | None = None
    """file to which a line of JSON is added for each row"""

    def __post_init__(self) -> None:
        for name in ("height", "width", "batch_size", "steps", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not self.runs or min(self.runs) < 1:
            raise InputError(f"runs is {self.runs}; name numbers of at least 1.")


@dataclass(frozen=True)
class Row:
    """Seconds in which all k runs do one step, by either way; None where that was not measured, and why."""

    method: str
    runs: int
    batches: str
    stacked: float | None = None
    in_turn: float | None = None
    ratio: float | None = None
    """median over the rounds of in_turn / stacked: above 1 stacked runs are faster"""
    compile: float | None = None
    mib: float | None = None
    """temporary memory of the stacked program"""
    missing: str = ""


def stacked_step(batches: str) -> Callable[[TrainState, Batch, Recipe], Any]:
    """The training step over states with a leading axis of seeds, compiled on its first call; the state is donated."""
    step = jax.vmap(update, in_axes=(0, 0 if batches == "own" else None, None))
    return jax.jit(step, donate_argnums=0)


def stack(trees: Sequence[Any]) -> Any:
    """Trees of one structure as one, with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def recipe_for(arguments: Arguments, method: str) -> Recipe:
    """The recipe of a method at the size asked for, its schedules as long as a run."""
    size = {"height": arguments.height, "width": arguments.width}
    config: Config = replace_groups(named([arguments.config, method]), data=size)
    recipe = recipe_of(config)
    return recipe.replace(fitted=recipe.fitted._replace(total_steps=np.array(arguments.steps, np.float32)))


def measure(arguments: Arguments, method: str, runs: int, until: float, expected: tuple[float, float]) -> Row:
    """One row. ``expected`` are seconds of compilation and of a single step, as the row before measured them."""
    row = Row(method, runs, arguments.batches)
    compilation, single = expected
    if time.perf_counter() + compilation + 4 * runs * single > until:  # two steps of each way at least
        return Row(**asdict(row) | {"missing": "no time left"})
    recipe = recipe_for(arguments, method)
    size = arguments.height, arguments.width
    made = (random_batch(size, arguments.batch_size, recipe.model.grades, seed) for seed in range(runs))
    batches = [jax.device_put(batch) for batch in made]
    if arguments.batches == "shared":
        batches = batches[:1] * runs
    states = [init_state(recipe, jax.random.key(seed)) for seed in range(runs)]
    together = stack(states)
    given = stack(batches) if arguments.batches == "own" else batches[0]
    started = time.perf_counter()
    step = stacked_step(arguments.batches).lower(together, given, recipe).compile()
    seconds = time.perf_counter() - started
    together, _ = jax.block_until_ready(step(together, given, recipe))
    states[0], _ = jax.block_until_ready(train_step(states[0], batches[0], recipe))  # compiled once for a method
    started = time.perf_counter()
    states[0], _ = jax.block_until_ready(train_step(states[0], batches[0], recipe))
    steps = max(1, math.ceil(TURN / (runs * (time.perf_counter() - started))))
    stacked, in_turn = [], []
    while len(stacked) < ROUNDS and (not stacked or time.perf_counter() + (in_turn[-1] + stacked[-1]) * steps < until):
        started = time.perf_counter()
        for _ in range(steps):
            for place in range(runs):
                states[place], _ = train_step(states[place], batches[place], recipe)
        jax.block_until_ready(states)
        in_turn.append((time.perf_counter() - started) / steps)
        started = time.perf_counter()
        for _ in range(steps):
            together, _ = step(together, given, recipe)
        jax.block_until_ready(together)
        stacked.append((time.perf_counter() - started) / steps)
    ratio = statistics.median(one / other for one, other in zip(in_turn, stacked))
    mib = step.memory_analysis().temp_size_in_bytes / 2**20
    return Row(
        method, runs, arguments.batches, statistics.median(stacked), statistics.median(in_turn), ratio, seconds, mib
    )


def rows(arguments: Arguments) -> Iterator[Row]:
    """All rows, method by method, as they are measured."""
    until = time.perf_counter() + arguments.seconds
    for method in arguments.methods:
        expected, full = (0.0, 0.0), False
        for runs in sorted(set(arguments.runs)):
            if full:
                yield Row(method, runs, arguments.batches, missing="does not fit into the memory")
                continue
            try:
                row = measure(arguments, method, runs, until, expected)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                row, full = Row(method, runs, arguments.batches, missing="does not fit into the memory"), True
            if row.stacked is not None and row.in_turn is not None and row.compile is not None:
                expected = (row.compile, row.in_turn / runs)
            yield row


def line_of(row: Row, steps: int) -> str:
    """A row of the table."""
    if row.stacked is None or row.in_turn is None:
        return f"| {row.method} | {row.runs} | {row.missing} |" + "  |" * 6
    an_hour = [3600 * row.runs / (seconds * steps) for seconds in (row.in_turn, row.stacked)]
    numbers = f"{row.in_turn:.4f} | {row.stacked:.4f} | {an_hour[0]:.1f} | {an_hour[1]:.1f} | {row.ratio:.2f}"
    return f"| {row.method} | {row.runs} | {numbers} | {row.compile:.1f} | {row.mib:.0f} |"


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    words = sys.argv[1:] if argv is None else argv
    arguments = tyro.cli(Arguments, args=words, prog=command.spelled("sweep_speed"))
    for method in arguments.methods:
        named([arguments.config, method])
    prepare()
    where = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    size = f"batch {arguments.batch_size} x {arguments.height} x {arguments.width}, {arguments.batches} batches"
    print(f"{arguments.config}, {size}; runs of {arguments.steps} steps; {where['device']}, jax {where['jax']}\n")
    print(
        "| method | runs | in turn, s a step of all | stacked, s | in turn, runs an hour | stacked, runs an hour",
        end="",
    )
    print(" | ratio | compile s | temporary MiB |\n" + "|---" * 9 + "|")
    settings = {name: value for name, value in asdict(arguments).items() if name not in ("out", "runs", "methods")}
    for row in rows(arguments):
        print(line_of(row, arguments.steps), flush=True)
        if arguments.out is not None:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(where | settings | asdict(row), allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
