"""Time the training step, paired: plain multitask, with RLAR, and with other XLA flags, in turn within one run.

python -m experiments.benchmark [--config small] [--batch-size 8] [--rounds 10] [--flags xla_this=1 xla_that=2]

Each variant runs in a process of its own, because XLA reads its flags once. The processes take turns, one step at a time, so a ratio of
medians holds on a machine whose speed drifts; the absolute times are of this machine, at this moment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from experiments.configs import CONFIGS
from experiments.runtime import CPU_FLAGS
from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.train.step import init_state, train_step


@dataclass(frozen=True)
class Arguments:
    """Time the training step, paired: plain multitask, with RLAR, and with other XLA flags."""

    config: str = "small"
    """one of the named configs"""
    batch_size: int = 8
    rounds: int = 10
    """timed steps of each variant"""
    flags: tuple[str, ...] = ()
    """further XLA flags to time RLAR with, one at a time, without their leading dashes: xla_this=1 xla_that=2"""
    worker: str = ""
    """(used by the script itself)"""


class Variant(NamedTuple):
    """One column of the comparison: the penalty's weight (0 is the plain multitask step) and the XLA flags."""

    rlar: float
    flags: tuple[str, ...]


def variants(arguments: Arguments) -> dict[str, Variant]:
    """Name -> variant: ours, XLA's defaults, and RLAR with each flag that was asked for."""
    chosen = {
        "plain": Variant(0.0, CPU_FLAGS),
        "RLAR": Variant(1.0, CPU_FLAGS),
        "plain, XLA's defaults": Variant(0.0, ()),
        "RLAR, XLA's defaults": Variant(1.0, ()),
    }
    return chosen | {f"RLAR, flag {number}": Variant(1.0, (f"--{flag}",)) for number, flag in enumerate(arguments.flags, start=1)}


def random_batch(config: Config, batch_size: int) -> Batch:
    """A batch of noise with every label present: timing does not depend on the values."""
    rng = np.random.default_rng(0)
    b, h, w = batch_size, config.data.height, config.data.width
    grade = np.eye(config.model.grades, dtype=np.float32)[np.arange(b) % config.model.grades]
    return Batch(
        rng.uniform(size=(b, h, w, 1)).astype(np.float32),
        (rng.uniform(size=(b, h, w)) > 0.5).astype(np.float32),
        grade,
        rng.normal(size=(b, config.model.radiomics)).astype(np.float32),
        *[np.ones(b, bool)] * 4,
    )


def work(arguments: Arguments) -> None:
    """Compile one variant, then time one step for every line that comes in; a JSON line answers each."""
    config = CONFIGS[arguments.config]()
    config = dataclasses.replace(
        config,
        rlar=dataclasses.replace(config.rlar, weight=variants(arguments)[arguments.worker].rlar),
        train=dataclasses.replace(config.train, total_steps=1000),
    )
    state, batch = init_state(config), jax.device_put(random_batch(config, arguments.batch_size))
    started = time.perf_counter()
    compiled = train_step.lower(state, batch, config).compile()
    seconds = time.perf_counter() - started
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    state, _ = jax.block_until_ready(compiled(state, batch))
    print(json.dumps({"compile": seconds, "gflop": cost["flops"] / 1e9, "mib": memory.temp_size_in_bytes / 2**20}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        print(json.dumps(time.perf_counter() - started), flush=True)


def start(name: str, arguments: Arguments) -> subprocess.Popen:
    """A worker process for one variant, with its own XLA flags and nothing compiled in advance."""
    environment = os.environ | {"XLA_FLAGS": " ".join(variants(arguments)[name].flags)}
    command = [sys.executable, "-m", "experiments.benchmark", "--worker", name]
    command += ["--config", arguments.config, "--batch-size", str(arguments.batch_size)]
    command += ["--flags", *arguments.flags] if arguments.flags else []
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen, name: str) -> Any:
    """The worker's next line of JSON."""
    line = worker.stdout.readline()
    if not line:
        raise InputError(f"{name}: the process ended early; its message stands above. A flag may be unknown to this jaxlib.")
    return json.loads(line)


def compare(arguments: Arguments) -> None:
    """Start every variant, let them take turns, print medians and their ratio to the first."""
    workers, facts = {}, {}
    for name in variants(arguments):  # one after the other, so that compile times do not disturb each other
        workers[name] = start(name, arguments)
        facts[name] = ask(workers[name], name)
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            seconds[name].append(ask(worker, name))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    config = CONFIGS[arguments.config]()
    parameters = model.parameter_count(jax.eval_shape(lambda: model.init(jax.random.key(0), config.model)))
    device = jax.devices()[0]
    print(f"{arguments.config}: {parameters:,} parameters, batch {arguments.batch_size} x {config.data.height} x {config.data.width}")
    print(f"jax {jax.__version__} on {len(jax.devices())} x {device.device_kind}, {os.cpu_count()} cores, {arguments.rounds} rounds")
    print(f"{'step':<26}{'median s':>10}{'ratio':>8}{'lowest':>10}{'images/s':>10}{'GFLOP':>9}{'temp MiB':>10}{'compile s':>11}")
    first = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median, f = statistics.median(times), facts[name]
        row = f"{median:>10.4f}{median / first:>8.2f}{min(times):>10.4f}{arguments.batch_size / median:>10.1f}"
        print(f"{name:<26}{row}{f['gflop']:>9.1f}{f['mib']:>10.0f}{f['compile']:>11.1f}")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.benchmark")
    work(arguments) if arguments.worker else compare(arguments)


if __name__ == "__main__":
    main()
