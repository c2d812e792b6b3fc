"""This project's process in the benchmark: it takes training steps as its parent says (``turns.py``).

python -m experiments.peers.jax_process SETTINGS.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.errors import InputError

from .. import runtime
from . import reference, turns, weights


class Prepared(NamedTuple):
    """The update of a state (parameters, optimiser's state, step), that state, the program, and its FLOPs by XLA."""

    update: Callable[..., tuple[Any, ...]]
    state: list[Any]
    compiled: Any
    flops: float | None


def prepare(settings: dict[str, Any]) -> Prepared:
    """Compile the update; weights and batch are put on the device."""
    bfloat16 = settings["dtype"] == "bfloat16"
    chosen = reference.recipe(settings["size"], settings["method"], bfloat16=bfloat16, total_steps=0)
    with np.load(settings["weights"]) as file:
        params = weights.from_torch(dict(file), reference.parameter_shapes(chosen), chosen.model.blocks)
    b, (h, w) = settings["batch"], settings["image"]
    batch = reference.as_batch(weights.random_batch(b, h, w, chosen.model.grades), chosen)
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    state = [params, jax.jit(reference.initial_optimizer)(params, chosen), jnp.int32(0)]
    lowered = jax.jit(reference.update, donate_argnums=(0, 1, 2)).lower(*state, batch, chosen)
    compiled = lowered.compile()
    counted = (lowered.cost_analysis() or {}).get("flops")  # the compiled program's lacks cuDNN's convolutions
    return Prepared(lambda *state: compiled(*state, batch, chosen), state, compiled, counted)


def facts(prepared: Prepared) -> dict[str, Any]:
    """Versions and device; peak memory in MiB of the process and of the step; FLOPs of a step as XLA counts them.

    ``step_mib`` is what the compiled step holds at its peak: arguments, results and intermediate values. ``pool_mib``
    is the highest use of the device's memory so far, the choice of algorithms included.
    """
    device, memory = jax.devices()[0], prepared.compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
    found = {"framework": f"jax {jax.__version__}", "device": device.device_kind, "process_mib": turns.peak_mib()}
    found["step_mib"] = (held - memory.alias_size_in_bytes) / 2**20
    found["xla_flops"] = prepared.flops
    statistics = device.memory_stats() or {}
    return found | {"pool_mib": statistics["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in statistics else None}


def main(path: str) -> None:
    """Run the script."""
    answer = turns.private_output()
    settings = json.loads(Path(path).read_text())
    if settings["dtype"] == "float32":  # else XLA takes TF32 where the device has it
        jax.config.update("jax_default_matmul_precision", "highest")
    made: list[Prepared] = []

    def fill() -> None:
        runtime.start_devices()
        if (kind := jax.devices()[0].platform) != settings["device"]:
            raise InputError(f"JAX computes on a {kind} here, and --device is {settings['device']}.")
        made.append(prepare(settings))

    def steps(number: int) -> float:
        update, state, _, _ = made[0]
        for _ in range(number):
            *state[:], value = update(*state)
        jax.block_until_ready(state)
        return float(value)

    print(json.dumps(turns.READY), file=answer, flush=True)
    commands = {"first": turns.first_step(fill, steps), "warm": turns.timed(steps), "go": turns.timed(steps)}
    turns.serve(commands | {"facts": lambda _: facts(made[0])}, sys.stdin, answer)


if __name__ == "__main__":
    main(sys.argv[1])
