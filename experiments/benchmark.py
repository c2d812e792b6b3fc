"""Time the training step of several variants: plain multitask training, RLAR, the baselines, other XLA flags.

python -m experiments.benchmark [--only rlar] [--config small] [--batch-size 8] [--rounds 8]
python -m experiments.benchmark --only flags --flags xla_this=1 xla_that=2
python -m experiments.benchmark --only memory --rounds 0 [--config base] [--pixels 64 96]

Each variant runs in a process of its own, because XLA reads its flags once. The processes take turns of four steps.
Each turn gives one ratio to the first variant, and the table shows the median of these ratios. It is reliable even
where the speed of the machine changes. The absolute times hold for this machine at this moment only.
"""

from __future__ import annotations

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

from thyroid_jax import command, model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.radiomics import clinical
from thyroid_jax.train import init_state, train_step

from .configs import named
from .runtime import CPU_FLAGS, keep_memory

STEPS = 4  # timed steps in one turn of a variant
# For programs that never run: plain machine code. What is computed, and so the memory, is decided before.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class Arguments:
    """Time the training step of a group of variants against plain multitask training."""

    config: str = "small"
    """one of the named configs"""
    only: Literal["rlar", "shape", "evidence", "losses", "latent", "parameters", "flags", "memory"] = "rlar"
    """the group of variants to compare with the plain step. rlar: forms of RLAR; shape: guidance target and shape
    consistency; evidence: what the heads read, and published encoders; losses: multitask methods that weigh losses;
    latent, parameters: those that weigh gradients there; flags: XLA flags and memory; memory: precision, recomputing
    and batches in parts
    """
    batch_size: int = 8
    rounds: int = 8
    """turns of each variant, with four timed steps each; 0 to compile alone, for the memory"""
    pixels: tuple[int, int] | None = None
    """height and width of the images, in place of the config's"""
    flags: tuple[str, ...] = ()
    """further XLA flags to time RLAR with, one at a time, without their leading dashes: xla_this=1 xla_that=2"""
    worker: str = ""
    """(used by the script itself)"""


class Variant(NamedTuple):
    """One row of the comparison: changed fields of settings, XLA flags, and whether the process keeps freed memory."""

    changes: dict[str, dict[str, Any]]
    flags: tuple[str, ...] = CPU_FLAGS
    keeps: bool = True


def variants(arguments: Arguments) -> dict[str, Variant]:
    """Name -> variant; the first is the plain multitask step, to which the others are compared."""
    on = {"weight": 1.0}
    penalty = lambda **fields: Variant({"rlar": on | fields})
    rlar = {
        "RLAR": penalty(),
        "RLAR, full space": penalty(space="full"),
        "RLAR, outline held": penalty(hold=("segmentation",)),
        "RLAR, three tasks": penalty(tasks=("segmentation", "grading", "guidance")),
        "RLAR at stride8": penalty(level="stride8"),
        "RLAR at stride2": penalty(level="stride2"),
    }
    augmented = {"view": "augmented"}
    consistent = {"weight": 0.3, "warmup": 0.0}
    shape = {
        "target of the augmented view": Variant({"guidance": augmented}),
        "shape consistency": Variant({"consistency": consistent}),
        "shape consistency, head alone": Variant({"consistency": consistent | {"gradient": "head"}}),
        "all, with RLAR": Variant({"rlar": on, "guidance": augmented, "consistency": consistent}),
    }
    with_method = lambda method, at="latent": Variant({"mtl": {"method": method, "at": at}})
    methods = [name for name in WEIGHERS if name != "equal"]
    losses = {name: with_method(name) for name in SCALARIZERS if name != "equal"}
    latent = {f"{name}, latent": with_method(name) for name in methods}
    parameters = {f"{name}, parameters": with_method(name, "parameters") for name in methods}
    parameters |= {"CosReg": Variant({"cosreg": {"weight": 0.1}})}
    flags = {
        "plain, XLA's defaults": Variant({}, ()),
        "plain, memory given back": Variant({}, keeps=False),
        "RLAR": penalty(),
        "RLAR, XLA's defaults": Variant({"rlar": on}, ()),
        "RLAR, memory given back": Variant({"rlar": on}, keeps=False),
    }
    flags |= {
        f"RLAR, flag {number}": Variant({"rlar": on}, (f"--{flag}",))
        for number, flag in enumerate(arguments.flags, start=1)
    }
    nodule = {"pooling": "nodule", "pooled_levels": 3}
    lite0 = lambda frozen, **fields: Variant(
        {"model": {"encoder": "efficientnet_lite0", "frozen_levels": frozen}, "train": {"encoder_weights": "package"}}
        | fields
    )
    evidence = {
        "pooled over the nodule": Variant({"model": nodule}),
        "measured evidence": Variant({"model": {"evidence": "measured"}}),
        "lite0": lite0(0),
        "lite0, two levels frozen": lite0(2),
        "lite0, three levels frozen": lite0(3),
        "lite0, frozen": lite0(5),
        "lite0, frozen, RLAR": lite0(5, rlar=on),
    }
    less = {
        "": ({}, {}),
        ", activations again": ({"remat": "activations"}, {}),
        ", blocks again": ({"remat": "blocks"}, {}),
        ", 4 parts": ({}, {"accumulate": 4}),
    }
    memory = {
        f"{dtype}, {method}{words}": Variant(
            {"model": {"dtype": dtype} | shape, "train": {"batch_size": arguments.batch_size} | parts} | penalties
        )
        for dtype in ("float32", "bfloat16", "bfloat16_encoder")
        for method, penalties in (("plain", {}), ("RLAR", {"rlar": on}))
        for words, (shape, parts) in less.items()
        if not (dtype == "bfloat16_encoder" and words)
    }
    if arguments.only == "memory":
        return memory
    groups = {
        "evidence": evidence,
        "rlar": rlar,
        "shape": shape,
        "losses": losses,
        "latent": latent,
        "parameters": parameters,
        "flags": flags,
    }
    return {"plain": Variant({})} | groups[arguments.only]


def configure(arguments: Arguments, variant: Variant) -> Config:
    """The config of one variant: plain training with guidance towards the batch's own target, and the changes."""
    plain = replace_groups(named([arguments.config, "plain"]), guidance={"weight": 0.1, "view": "original"})
    if arguments.pixels:
        plain = replace_groups(plain, data=dict(zip(("height", "width"), arguments.pixels)))
    return replace_groups(plain, **variant.changes)


def random_batch(config: Config, batch_size: int, grades: int) -> Batch:
    """A batch of noise images with every label present.

    The outline is an ellipse, because the time of the guidance target depends on the outline.
    """
    rng = np.random.default_rng(0)
    b, h, w = batch_size, config.data.height, config.data.width
    y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    ellipse = np.where((y / 0.5) ** 2 + (x / 0.6) ** 2 < 1, np.uint8(255), np.uint8(0))
    present = np.ones(b, bool)
    return Batch(
        image=rng.integers(0, 256, (b, h, w, 1), np.uint8),
        mask=np.broadcast_to(ellipse, (b, h, w)).copy(),
        grade=np.eye(grades, dtype=np.float32)[np.arange(b) % grades],
        malignant=(np.arange(b) % 2).astype(np.float32),
        radiomics=rng.normal(size=(b, len(clinical.TARGET))).astype(np.float32),
        mask_valid=present,
        grade_valid=present,
        malignant_valid=present,
        radiomics_valid=present,
        example_valid=present,
    )


def work(arguments: Arguments) -> None:
    """Compile one variant, then time :data:`STEPS` steps for every line on standard input.

    The first line printed is JSON with the compile time, the FLOPs and the memory. Each later line is the time of a
    step in seconds.
    """
    variant = variants(arguments)[arguments.worker]
    if variant.keeps:
        keep_memory()
    config = configure(arguments, variant)
    recipe = recipe_of(config)
    recipe = recipe.replace(fitted=recipe.fitted._replace(total_steps=np.array(1000, np.float32)))
    state = init_state(recipe, jax.random.key(0))
    batch = jax.device_put(random_batch(config, arguments.batch_size, recipe.model.grades))
    started = time.perf_counter()
    step = train_step.lower(state, batch, recipe).compile(compiler_options=None if arguments.rounds else QUICK)
    seconds = time.perf_counter() - started if arguments.rounds else None
    # A loop's body counts once, however often it runs: with a batch in parts the FLOPs are not known.
    gflop = step.cost_analysis()["flops"] / 1e9 if config.train.accumulate == 1 else None
    memory = step.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    mib, held = memory.temp_size_in_bytes / 2**20, held / 2**20
    if arguments.rounds:
        state, _ = jax.block_until_ready(step(state, batch, recipe))
    print(json.dumps({"compile": seconds, "gflop": gflop, "mib": mib, "held": held}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(STEPS):
            state, _ = step(state, batch, recipe)
        jax.block_until_ready(state)
        print(json.dumps((time.perf_counter() - started) / STEPS), flush=True)


def start(name: str, arguments: Arguments) -> subprocess.Popen:
    """A worker process for one variant, with its own XLA flags and without the scripts' compilation cache."""
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *variants(arguments)[name].flags]).strip()
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }  # the processes share one accelerator
    words = [sys.executable, "-m", f"{command.scripts_package()}.benchmark", "--worker", name]
    words += ["--config", arguments.config, "--only", arguments.only, "--batch-size", str(arguments.batch_size)]
    words += ["--rounds", str(arguments.rounds)]
    words += ["--pixels", *map(str, arguments.pixels)] if arguments.pixels else []
    words += ["--flags", *arguments.flags] if arguments.flags else []
    return subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen, name: str) -> Any:
    """The next line of JSON that the worker prints."""
    line = worker.stdout.readline()
    if not line:
        raise InputError(
            f"{name}: the process ended early; its message stands above. A flag may be unknown to this jaxlib."
        )
    return json.loads(line)


def end(worker: subprocess.Popen) -> None:
    """Let a worker end."""
    worker.stdin.close()
    worker.wait()


def compare(arguments: Arguments) -> None:
    """Start every variant, let them take turns, and print the medians and the median ratios to the first variant."""
    workers, facts = {}, {}
    for name in variants(arguments):  # one after the other, so that compile times do not disturb each other
        workers[name] = start(name, arguments)
        facts[name] = ask(workers[name], name)
        if not arguments.rounds:
            end(workers[name])
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            seconds[name].append(ask(worker, name))
    for worker in workers.values():
        end(worker)
    config = configure(arguments, Variant({}))
    shape = recipe_of(config).model
    parameters = model.parameter_count(jax.eval_shape(lambda: model.init(jax.random.key(0), shape)))
    device = jax.devices()[0]
    print(
        f"{arguments.config}: {parameters:,} parameters, "
        f"batch {arguments.batch_size} x {config.data.height} x {config.data.width}"
    )
    where = f"{len(jax.devices())} x {device.device_kind}, {os.cpu_count()} cores"
    print(
        f"jax {jax.__version__} on {where}, {arguments.rounds} rounds of {STEPS} steps; "
        "time, FLOPs, memory as ratios to the first row; "
        "peak: temporary memory, arguments and results, donated buffers once"
    )
    columns = (
        "step",
        "median s",
        "time",
        "GFLOP",
        "FLOPs",
        "temporary MiB",
        "memory",
        "peak MiB an image",
        "compile s",
    )
    print(f"\n| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|")
    plain = next(iter(workers))
    for name, times in seconds.items():
        f, first = facts[name], facts[plain]
        row = "- | -"
        if times:
            ratios = [own / reference for own, reference in zip(times, seconds[plain])]
            row = f"{statistics.median(times):.4f} | {statistics.median(ratios):.2f}"
        row += " | - | -" if f["gflop"] is None else f" | {f['gflop']:.1f} | {f['gflop'] / first['gflop']:.2f}"
        row += f" | {f['mib']:.0f} | {f['mib'] / first['mib']:.2f}"
        row += f" | {(f['mib'] + f['held']) / arguments.batch_size:.2f}"
        row += " | -" if f["compile"] is None else f" | {f['compile']:.1f}"
        print(f"| {name} | {row} |")


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("benchmark"))
    work(arguments) if arguments.worker else compare(arguments)


if __name__ == "__main__":
    main()
