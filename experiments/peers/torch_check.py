"""The twin's part of ``check.py``: read parameters and a batch, write outputs, losses, penalty, gradients, changes.

PYTHON torch_check.py GIVEN.npz FOUND.npz
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from twin import Model, Shape, defined, mean_over, objective
from twin_step import Trainer, Training, penalty_weight


def quantities(model: Model, batch: dict[str, torch.Tensor], training: Training) -> dict[str, torch.Tensor]:
    """Outputs, mean losses, the penalty (where it is on) and the gradient of the objective, all by name."""
    outputs = model(batch["image"])
    weight = penalty_weight(training, training.total_steps) if training.rlar_weight else None
    value, losses, penalty = objective(model, batch, weight)
    value.backward()
    found = {f"output {name}": value for name, value in outputs._asdict().items()}
    for task, label in (("segmentation", "mask"), ("grading", "grade"), ("malignancy", "malignant")):
        found[f"loss {task}"] = mean_over(getattr(losses, task), defined(batch, label))
    if weight is not None:
        found["penalty rlar"] = penalty
    for name, p in model.named_parameters():
        found[f"gradient {name}"] = torch.zeros_like(p) if p.grad is None else p.grad
    return found


def main(given: str, written: str) -> None:
    """Run the script."""
    with np.load(given) as file:
        settings = json.loads(str(file["settings"]))
        arrays = {name: torch.from_numpy(file[name]) for name in file if name != "settings"}
    dtype = getattr(torch, settings["dtype"])
    arrays = {name: a.to(dtype) if a.is_floating_point() else a for name, a in arrays.items()}
    part = lambda kind: {name.split()[1]: a for name, a in arrays.items() if name.split()[0] == kind}
    training = Training(**settings["training"])
    model = Model(Shape(**settings["shape"])).to(dtype, memory_format=torch.channels_last)
    model.load_state_dict(part("state"), strict=True)
    batch = part("batch")
    found = {name: value.detach().clone() for name, value in quantities(model, batch, training).items()}
    trainer = Trainer(model, training)
    for _ in range(settings["steps"]):
        trainer.step(batch)
    before = part("state")
    found |= {f"change {name}": p.detach() - before[name] for name, p in model.named_parameters()}
    np.savez(written, **{name: value.numpy() for name, value in found.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
