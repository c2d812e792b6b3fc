"""The process that times one variant: it compiles, then takes a turn for every line on standard input."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, recipe_of
from thyroid_jax.data.pipeline import Examples, TrainingBatches, prefetch
from thyroid_jax.train import init_state, train_step

from ..runtime import keep_memory
from .variants import Variant, random_batch

STEPS = 4  # timed steps in one turn of a variant
BATCHES = 64  # batches in one turn of the pipeline alone: an epoch, whose start takes longest
EPOCH = 64  # batches in an epoch of the pipeline
# For programs that never run: plain machine code. What is computed, and so the memory, is decided before.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def work(variant: Variant, config: Config, batch_size: int, *, timed: bool) -> None:
    """Print facts of the variant, then for every line on standard input what a turn took; JSON, a line each.

    Facts: seconds of compilation, FLOPs of a step, temporary memory and arguments in MiB. A turn: seconds a step, of
    them seconds of waiting for data, and CPU seconds of the process, all a step (a batch for the pipeline alone).
    Without ``timed`` the step is compiled for its facts alone.
    """
    if variant.keeps:
        keep_memory()
    if variant.batches == "alone":
        time_pipeline(config, batch_size)
    else:
        time_step(variant, config, batch_size, timed=timed)


def time_step(variant: Variant, config: Config, batch_size: int, *, timed: bool) -> None:
    """:func:`work` for a training step."""
    recipe = recipe_of(config)
    recipe = recipe.replace(fitted=recipe.fitted._replace(total_steps=np.array(1000, np.float32)))
    state = init_state(recipe, jax.random.key(0))
    size, grades = (config.data.height, config.data.width), recipe.model.grades
    batch = jax.device_put(random_batch(size, batch_size, grades))
    stream = pipeline(size, batch_size, grades) if variant.batches == "pipeline" else None
    started = time.perf_counter()
    step = train_step.lower(state, batch, recipe).compile(compiler_options=None if timed else QUICK)
    seconds = time.perf_counter() - started if timed else None
    # A loop's body counts once, however often it runs: with a batch in parts the FLOPs are not known.
    gflop = step.cost_analysis()["flops"] / 1e9 if config.train.accumulate == 1 else None
    memory = step.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    tell({"compile": seconds, "gflop": gflop, "mib": memory.temp_size_in_bytes / 2**20, "held": held / 2**20})
    if timed:
        batch = batch if stream is None else next(stream)  # its first batch takes longer
        state, _ = jax.block_until_ready(step(state, batch, recipe))
    for _ in sys.stdin:
        started, busy, waited = time.perf_counter(), time.process_time(), 0.0
        for _ in range(STEPS):
            if stream is not None:
                asked = time.perf_counter()
                batch = next(stream)
                waited += time.perf_counter() - asked
            state, _ = step(state, batch, recipe)
        jax.block_until_ready(state)
        tell_turn(started, busy, STEPS, waited=waited)


def time_pipeline(config: Config, batch_size: int) -> None:
    """:func:`work` for the input pipeline alone, the copies to the device included."""
    stream = pipeline((config.data.height, config.data.width), batch_size, recipe_of(config).model.grades)
    jax.block_until_ready(next(stream))
    tell({"compile": None, "gflop": None, "mib": None, "held": None})
    for _ in sys.stdin:
        started, busy = time.perf_counter(), time.process_time()
        for _ in range(BATCHES):
            jax.block_until_ready(next(stream))
        tell_turn(started, busy, BATCHES)


def pipeline(size: tuple[int, int], batch_size: int, grades: int) -> Iterator[Batch]:
    """Endless shuffled batches of random images, made and put on the device as in training."""
    examples = EPOCH * batch_size
    made = Examples(random_batch(size, examples, grades), tuple(map(str, range(examples))))
    for batch, _ in prefetch(TrainingBatches(made, batch_size, seed=0), jax.device_put):
        yield batch


def tell_turn(started: float, busy: float, count: int, *, waited: float = 0.0) -> None:
    """Print what a turn of ``count`` steps or batches took, since these readings of the two clocks."""
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    tell({"seconds": seconds / count, "cpu": cpu / count, "waited": waited / count})


def tell(values: dict[str, Any]) -> None:
    """Print a line of JSON at once."""
    print(json.dumps(values), flush=True)
