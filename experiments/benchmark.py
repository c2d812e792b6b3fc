"""Time the training step, paired: plain multitask, with RLAR, and with other XLA flags, in turn within one run.

python -m experiments.benchmark [--config small] [--batch-size 8] [--rounds 10]

Each variant runs in a process of its own, because XLA reads its flags once. The processes take turns, one step at a time, so a ratio of
medians holds on a machine whose speed drifts; the absolute times are of this machine, at this moment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import tyro

from experiments.configs import CONFIGS
from experiments.runtime import CPU_FLAGS, prepare
from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.errors import exits_cleanly
from thyroid_jax.train.step import init_state, train_step


@dataclass(frozen=True)
class Arguments:
    """Time the training step, paired: plain multitask, with RLAR, and with other XLA flags."""

    config: str = "small"
    """one of the named configs"""
    batch_size: int = 8
    rounds: int = 10
    """timed steps of each variant"""
    worker: str = ""
    """(used by the script itself)"""


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"rlar": 0.0, "flags": None},
    "plain, XLA's own flags": {"rlar": 0.0, "flags": ""},
    "RLAR": {"rlar": 1.0, "flags": None},
    "RLAR, XLA's own flags": {"rlar": 1.0, "flags": ""},
}


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
        rlar=dataclasses.replace(config.rlar, weight=VARIANTS[arguments.worker]["rlar"]),
        train=dataclasses.replace(config.train, total_steps=1000),
    )
    state, batch = init_state(config), jax.device_put(random_batch(config, arguments.batch_size))
    started = time.perf_counter()
    compiled = train_step.lower(state, batch, config).compile()
    seconds = time.perf_counter() - started
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    state, metrics = jax.block_until_ready(compiled(state, batch))
    facts = {"compile_s": seconds, "gflop": cost["flops"] / 1e9, "temporary_mib": memory.temp_size_in_bytes / 2**20}
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled(state, batch))
        print(json.dumps(time.perf_counter() - started), flush=True)


def start(name: str, arguments: Arguments) -> subprocess.Popen:
    """A worker process for one variant, with its own XLA flags."""
    environment = dict(os.environ)
    flags = VARIANTS[name]["flags"]
    environment["XLA_FLAGS"] = environment.get("XLA_FLAGS", "") if flags is None else flags or "--xla_cpu_enable_fast_math=false"
    environment["THYROID_JAX_FLAGS"] = "" if flags is not None else "own"
    command = [sys.executable, "-m", "experiments.benchmark", "--worker", name]
    command += ["--config", arguments.config, "--batch-size", str(arguments.batch_size)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
