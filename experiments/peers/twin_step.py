"""One training step of the PyTorch twin: AdamW, clipping and schedules as in ``thyroid_jax/train/optimizer.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from twin import Batch, Model, objective


@dataclass(frozen=True)
class Training:
    """Numbers of optimiser and penalty, with the meaning that they have in the project's config."""

    learning_rate: float
    final_share: float
    warmup: float
    weight_decay: float
    clip: float
    b1: float
    b2: float
    rlar_weight: float
    rlar_warmup: float
    rlar_ramp: float
    total_steps: int


def rate(training: Training, step: int) -> float:
    """The learning rate's share of its highest value: linear warm-up, then a cosine; 1 without schedules."""
    if not training.total_steps:
        return 1.0
    warmup = max(1, round(training.warmup * training.total_steps))
    if step < warmup:
        return step / warmup
    fallen = min((step - warmup) / (max(training.total_steps, warmup + 1) - warmup), 1.0)
    return training.final_share + (1 - training.final_share) * 0.5 * (1 + math.cos(math.pi * fallen))


def penalty_weight(training: Training, step: int) -> float:
    """The penalty's weight at a step: 0 before its warm-up is over, then a linear rise."""
    start, length = training.rlar_warmup * training.total_steps, training.rlar_ramp * training.total_steps
    risen = (step - start) / length if length else float(step >= start)
    return training.rlar_weight * min(max(risen, 0.0), 1.0)


def optimizer(model: Model, training: Training) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Fused AdamW, whose decay leaves out biases and scales, and its schedule by step."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(
        groups,
        lr=training.learning_rate,
        betas=(training.b1, training.b2),
        weight_decay=training.weight_decay,
        fused=True,
    )
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda step: rate(training, step))


class Trainer:
    """The state of a training: model, optimiser, schedule and number of the next step."""

    def __init__(self, model: Model, training: Training, *, compiled: bool = False, mode: str | None = None):
        """``compiled`` runs as much of the step through ``torch.compile`` (with its ``mode``) as can be.

        For plain training that is the objective, forward and backward. With RLAR it is the encoder alone: what follows
        the latent is differentiated twice, which compiled functions refuse.
        """
        self.model, self.training, self.step_number = model, training, 0
        self.adam, self.schedule = optimizer(model, training)
        compile_it = lambda f: torch.compile(f, dynamic=False, mode=mode) if compiled else f
        self.plain = compile_it(lambda batch: objective(model, batch)[0])
        self.encode = compile_it(model.encode)

    def step(self, batch: Batch) -> Tensor:
        """One update: objective, gradient, clipping, AdamW, schedule. The objective before the update, detached."""
        if self.training.rlar_weight:  # the penalty is computed also where the schedule's weight is still 0
            weight = penalty_weight(self.training, self.step_number)
            value, _, _ = objective(self.model, batch, weight, encode=self.encode)
        else:
            value = self.plain(batch)
        self.adam.zero_grad(set_to_none=True)
        value.backward()
        for p in self.model.radiomics.parameters():  # a head without a task decays too
            p.grad = torch.zeros_like(p)
        if self.training.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip)
        self.adam.step()
        self.schedule.step()
        self.step_number += 1
        return value.detach()
