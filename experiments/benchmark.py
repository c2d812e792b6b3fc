"""Time the training step, paired: plain multitask, RLAR, the multitask baselines, other XLA flags, in turn within one
run.

python -m experiments.benchmark [--only rlar] [--config small] [--batch-size 8] [--rounds 8] [--flags xla_this=1
xla_that=2]

Each variant runs in a process of its own, because XLA reads its flags once. The processes take turns, four steps at a
time, so a ratio of medians holds on a machine whose speed drifts; the absolute times are of this machine, at this
moment.
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
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from experiments.configs import CONFIGS
from experiments.runtime import CPU_FLAGS
from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.radiomics import clinical
from thyroid_jax.train.step import at_step, compiled_step, init_state

STEPS = 4  # in a row between two variants' turns: a penalty on every fourth step is met once


@dataclass(frozen=True)
class Arguments:
    """Time the training step, paired: plain multitask and RLAR, the multitask baselines, or other XLA flags."""

    config: str = "small"
    """one of the named configs"""
    only: Literal["rlar", "shape", "losses", "latent", "parameters", "flags"] = "rlar"
    """the group of variants that is compared to the plain step: RLAR, what is measured of shapes, multitask methods
    by what they weigh, or XLA's flags
    """
    batch_size: int = 8
    rounds: int = 8
    """turns of each variant, four timed steps a turn"""
    flags: tuple[str, ...] = ()
    """further XLA flags to time RLAR with, one at a time, without their leading dashes: xla_this=1 xla_that=2"""
    worker: str = ""
    """(used by the script itself)"""


class Variant(NamedTuple):
    """One row of the comparison: RLAR's fields, the multitask method's, the XLA flags, and the fields of guidance and
    consistency.
    """

    rlar: dict[str, Any]
    mtl: dict[str, Any]
    flags: tuple[str, ...] = CPU_FLAGS
    guidance: dict[str, Any] = {}  # noqa: RUF012 never written to
    consistency: dict[str, Any] = {}  # noqa: RUF012


def variants(arguments: Arguments) -> dict[str, Variant]:
    """Name -> variant; the first is the plain multitask step, to which the others are compared."""
    off, on = {"weight": 0.0}, {"weight": 1.0}
    rlar = {
        "RLAR": Variant(on, {}),
        "RLAR, forward mode": Variant(on | {"derivative": "forward"}, {}),
        "RLAR, full space": Variant(on | {"space": "full"}, {}),
        "RLAR, every 4th step": Variant(on | {"every": 4}, {}),
        "RLAR, outline held": Variant(on | {"hold": ("segmentation",)}, {}),
        "RLAR, three tasks": Variant(on | {"tasks": ("segmentation", "grading", "guidance")}, {}),
    }
    scaling = {name: (1.0,) * len(clinical.TARGET) for name in ("centre", "spread")}
    consistent = {"weight": 0.3, "warmup": 0.0}
    shape = {
        "target of the augmented view": Variant(off, {}, guidance=scaling),
        "shape consistency": Variant(off, {}, consistency=consistent),
        "shape consistency, head alone": Variant(off, {}, consistency=consistent | {"gradient": "head"}),
        "all, with RLAR": Variant(on, {}, guidance=scaling, consistency=consistent),
    }
    methods = [name for name in WEIGHERS if name != "equal"]
    losses = {name: Variant(off, {"method": name}) for name in SCALARIZERS if name != "equal"}
    latent = {f"{name}, latent": Variant(off, {"method": name}) for name in methods}
    parameters = {f"{name}, parameters": Variant(off, {"method": name, "at": "parameters"}) for name in methods}
    parameters |= {"CosReg": Variant(off, {"cosreg": 0.1})}
    flags = {"plain, XLA's defaults": Variant(off, {}, ()), "RLAR, XLA's defaults": Variant(on, {}, ())}
    flags |= {
        f"RLAR, flag {number}": Variant(on, {}, (f"--{flag}",)) for number, flag in enumerate(arguments.flags, start=1)
    }
    groups = {
        "rlar": rlar,
        "shape": shape,
        "losses": losses,
        "latent": latent,
        "parameters": parameters,
        "flags": flags,
    }
    return {"plain": Variant(off, {})} | groups[arguments.only]


def random_batch(config: Config, batch_size: int) -> Batch:
    """A batch of noise with every label present: timing does not depend on the values."""
    rng = np.random.default_rng(0)
    b, h, w = batch_size, config.data.height, config.data.width
    grade = np.eye(config.model.grades, dtype=np.float32)[np.arange(b) % config.model.grades]
    return Batch(
        rng.uniform(size=(b, h, w, 1)).astype(np.float32),
        (rng.uniform(size=(b, h, w)) > 0.5).astype(np.float32),
        grade,
        rng.normal(size=(b, len(clinical.TARGET))).astype(np.float32),
        *[np.ones(b, bool)] * 4,
    )


def work(arguments: Arguments) -> None:
    """Compile one variant, then time some steps for every line that comes in; a JSON line, seconds a step, answers each."""
    config, variant = CONFIGS[arguments.config](), variants(arguments)[arguments.worker]
    config = dataclasses.replace(
        config,
        rlar=dataclasses.replace(config.rlar, **variant.rlar),
        mtl=dataclasses.replace(config.mtl, **variant.mtl),
        guidance=dataclasses.replace(config.guidance, **variant.guidance),
        consistency=dataclasses.replace(config.consistency, **variant.consistency),
        model=dataclasses.replace(config.model, radiomics=len(clinical.TARGET)),
        train=dataclasses.replace(config.train, total_steps=1000),
    )
    state, batch = init_state(config), jax.device_put(random_batch(config, arguments.batch_size))
    started = time.perf_counter()
    kinds = [at_step(config, step) for step in range(STEPS)]
    compiled = {kind: compiled_step.lower(state, batch, kind).compile() for kind in dict.fromkeys(kinds)}
    seconds = time.perf_counter() - started
    gflop = sum(compiled[kind].cost_analysis()["flops"] for kind in kinds) / STEPS / 1e9
    mib = max(step.memory_analysis().temp_size_in_bytes for step in compiled.values()) / 2**20
    for step in compiled.values():
        state, _ = jax.block_until_ready(step(state, batch))
    print(json.dumps({"compile": seconds, "gflop": gflop, "mib": mib}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for kind in kinds:
            state, _ = compiled[kind](state, batch)
        jax.block_until_ready(state)
        print(json.dumps((time.perf_counter() - started) / STEPS), flush=True)


def start(name: str, arguments: Arguments) -> subprocess.Popen:
    """A worker process for one variant, with its own XLA flags and nothing compiled in advance."""
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *variants(arguments)[name].flags]).strip()
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }  # the processes share one accelerator
    command = [sys.executable, "-m", "experiments.benchmark", "--worker", name]
    command += ["--config", arguments.config, "--only", arguments.only, "--batch-size", str(arguments.batch_size)]
    command += ["--flags", *arguments.flags] if arguments.flags else []
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen, name: str) -> Any:
    """The worker's next line of JSON."""
    line = worker.stdout.readline()
    if not line:
        raise InputError(
            f"{name}: the process ended early; its message stands above. A flag may be unknown to this jaxlib."
        )
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
    print(
        f"{arguments.config}: {parameters:,} parameters, batch {arguments.batch_size} x {config.data.height} x {config.data.width}"
    )
    where = f"{len(jax.devices())} x {device.device_kind}, {os.cpu_count()} cores"
    print(
        f"jax {jax.__version__} on {where}, {arguments.rounds} rounds of {STEPS} steps; time, FLOPs, memory as ratios to the first row"
    )
    print("\n| step | median s | time | GFLOP | FLOPs | temporary MiB | memory | compile s |\n" + "|---" * 8 + "|")
    plain = next(iter(workers))
    for name, times in seconds.items():
        f, first = facts[name], facts[plain]
        time_ratio = statistics.median(own / reference for own, reference in zip(times, seconds[plain]))
        flops, memory = f["gflop"] / first["gflop"], f["mib"] / first["mib"]
        row = f"{statistics.median(times):.4f} | {time_ratio:.2f} | {f['gflop']:.1f} | {flops:.2f} | {f['mib']:.0f} | {memory:.2f}"
        print(f"| {name} | {row} | {f['compile']:.1f} |")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.benchmark")
    work(arguments) if arguments.worker else compare(arguments)


if __name__ == "__main__":
    main()
