"""The twin's process in the benchmark: it takes training steps as its parent says (``turns.py``).

PYTHON torch_process.py SETTINGS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import turns
from twin import Model, Shape
from twin_step import Trainer, Training
from weights import random_batch


def prepare(settings: dict[str, Any]) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """The trainer, with the given weights, and the batch, both on the device.

    ``layout`` is that of the images and kernels: ``channels_last`` or ``contiguous``.
    """
    tf32 = settings["dtype"] != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    device = "cuda" if settings["device"] == "gpu" else "cpu"
    layout = torch.channels_last if settings["layout"] == "channels_last" else torch.contiguous_format
    model = Model(Shape(**settings["shape"]), bfloat16=settings["dtype"] == "bfloat16")
    with np.load(settings["weights"]) as file:
        model.load_state_dict({name: torch.from_numpy(file[name]) for name in file}, strict=True)
    model = model.to(device, memory_format=layout)
    b, (h, w) = settings["batch"], settings["image"]
    arrays = random_batch(b, h, w, settings["shape"]["grades"])
    batch = {name: torch.from_numpy(a).to(device) for name, a in arrays.items()}
    batch["image"] = batch["image"].contiguous(memory_format=layout)
    trainer = Trainer(
        model, Training(**settings["training"]), compiled=settings["compiled"], mode=settings["compile_mode"]
    )
    return trainer, batch


def facts(settings: dict[str, Any]) -> dict[str, Any]:
    """Versions and device; peak memory in MiB: of the process, and on a GPU what tensors took since the warm-up."""
    found = {"framework": f"torch {torch.__version__}", "process_mib": turns.peak_mib()}
    if settings["device"] == "gpu":
        found |= {"device": torch.cuda.get_device_name(), "step_mib": torch.cuda.max_memory_allocated() / 2**20}
        found |= {"pool_mib": torch.cuda.max_memory_reserved() / 2**20}
    else:
        found |= {"device": f"{torch.get_num_threads()} CPU threads"}
    return found


def main(path: str) -> None:
    """Run the script."""
    answer = turns.private_output()
    settings = json.loads(Path(path).read_text())
    state: list[Any] = []

    def steps(number: int) -> float:
        trainer, batch = state
        for _ in range(number):
            value = trainer.step(batch)
        if settings["device"] == "gpu":
            torch.cuda.synchronize()
        return value.item()

    def fill() -> None:
        state[:] = prepare(settings)

    def warm(number: int) -> dict[str, float]:
        reply = turns.timed(steps)(number)
        if settings["device"] == "gpu":  # what the choice of algorithms needed is no part of a step
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            steps(1)
        return reply

    print(json.dumps(turns.READY), file=answer, flush=True)
    commands = {"first": turns.first_step(fill, steps), "warm": warm, "go": turns.timed(steps)}
    turns.serve(commands | {"facts": lambda _: facts(settings)}, sys.stdin, answer)


if __name__ == "__main__":
    main(sys.argv[1])
