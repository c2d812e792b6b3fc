"""Print what the devices of a training step tell each other: the all-reduce operations of the compiled step.

python -m experiments.collectives [--devices 8 64] [--config tiny plain] [--modes jit pmap]

The step is compiled for simulated CPU devices, by a process for each number of them, and not run. Data parallel
training has to add up one number for each parameter, and a few for losses and metrics; the last column says how much
more it is.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import tyro

from thyroid_jax import command
from thyroid_jax.config import recipe_of
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.recipe import Recipe
from thyroid_jax.train import init_state
from thyroid_jax.train.devices import AXIS, SPREADS
from thyroid_jax.train.step import update

from .configs import named
from .timing.variants import random_batch


@dataclass(frozen=True)
class Arguments:
    """Print the all-reduce operations of the compiled training step."""

    devices: tuple[int, ...] = (8, 64)
    """numbers of simulated CPU devices; one example a device"""
    config: tuple[str, ...] = ("tiny",)
    """names of a config: SIZE [METHOD] [OPTION ...]"""
    modes: tuple[Literal["jit", "pmap"], ...] = ("jit", "pmap")
    """ways to spread the step"""
    worker: bool = False
    """(used by the script itself)"""


class Collective(NamedTuple):
    """One operation over the devices: its kind, and the number and bytes of the arrays that each device gives."""

    kind: str
    arrays: int
    size: int


BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "s32": 32, "u32": 32, "s64": 64, "u64": 64}
KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(program: str) -> list[Collective]:
    """The operations over devices in the text of a compiled program (XLA's HLO).

    KeyError for an array of a kind that is not in :data:`BITS`.
    """
    found = []
    for line in program.splitlines():
        operation = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
        if operation:
            arrays = re.findall(r"([a-z]+\d*)\[([\d,]*)\]", operation[1])
            sizes = [BITS[kind] // 8 * math.prod(int(n) for n in shape.split(",") if n) for kind, shape in arrays]
            found.append(Collective(operation[2], len(arrays), sum(sizes)))
    return found


def compiled_step(mode: str, recipe: Recipe, batch: Any) -> str:
    """The text of the compiled training step over all devices, spread by ``mode``; nothing is run."""
    state = jax.eval_shape(lambda: init_state(recipe, jax.random.key(0)))
    if mode == "jit":
        lowered = jax.jit(SPREADS[mode]().step).lower(state, batch, recipe)
    else:  # a leading axis runs over the devices
        number = jax.device_count()
        stacked = lambda leaf: jax.ShapeDtypeStruct((number, *leaf.shape), leaf.dtype)
        rows = jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), batch)
        step = jax.pmap(update, AXIS, in_axes=(0, 0, None))
        lowered = step.lower(jax.tree.map(stacked, state), rows, recipe.replace(axis=AXIS))
    return lowered.compile().as_text()


def parameter_bytes(recipe: Recipe) -> int:
    """Bytes of the parameters."""
    params = jax.eval_shape(lambda: init_state(recipe, jax.random.key(0))).params
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def rows_of(arguments: Arguments) -> list[str]:
    """One row of the table for each mode, for the devices of this process."""
    config = named(arguments.config)
    recipe = recipe_of(config)
    batch = random_batch((config.data.height, config.data.width), jax.device_count(), recipe.model.grades)
    parameters, rows = parameter_bytes(recipe), []
    for mode in arguments.modes:
        found = collectives(compiled_step(mode, recipe, batch))
        total = sum(operation.size for operation in found)
        kinds = ", ".join(f"{operation.kind} of {operation.size:,}" for operation in found)
        rows.append(
            f"| {jax.device_count()} | {mode} | {kinds} | {total:,} | {parameters:,} | {total / parameters:.3f} |"
        )
    return rows


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = tyro.cli(Arguments, args=words, prog=command.spelled("collectives"))
    if arguments.worker:
        print("\n".join(rows_of(arguments)))
        return
    print(f"{' '.join(arguments.config)}, jax {jax.__version__}, bytes that each device gives\n")
    print("| devices | mode | operations | bytes | parameters | ratio |\n|---|---|---|---|---|---|")
    for number in arguments.devices:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        again = [sys.executable, "-m", f"{command.scripts_package()}.collectives", *words, "--worker"]
        ended = subprocess.run(again, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode:
            raise InputError(
                f"the process for {number} devices ended with {ended.returncode}; its message stands above."
            )
        print(ended.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
