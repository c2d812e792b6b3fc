"""What a user sets about the loop: the settings of a run, and the options of the process that trains it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from thyroid_jax.errors import InputError
from thyroid_jax.settings import check_within, settings
from thyroid_jax.tasks import MEASURES


@settings
class TrainConfig:
    """Length, batch and book-keeping of a run."""

    epochs: int = 100
    """passes over the training part"""
    batch_size: int = 8
    """images in a step, over all devices together"""
    accumulate: int = 1
    """parts of the batch that a device works on one after the other: less memory for the same update"""
    seed: int = 0
    """seed of parameters, order, views and every other random choice"""
    evaluate_every: int = 5
    """epochs between evaluations of the validation part"""
    checkpoint_every: int = 1
    """epochs between checkpoints"""
    diagnose_every: int = 0
    """steps between diagnoses of the tasks' gradients (`thyroid_jax/train/diagnose.py`), at the parameters that are
    trained and not at their average; 0 for none"""
    encoder_weights: str = ""
    """start of a published encoder: `package` for the weights of the installed package, or a file; else empty"""
    start_from: str = ""
    """run folder with the same network, data and split, whose last parameters are the start of all (encoder_weights is
    then not read); empty for a fresh start"""
    monitor: str = "dice"
    """validation measure whose highest value marks the best checkpoint; on small sets those of grades are noisy"""
    patience: int = 0
    """evaluations in a row without a new best `monitor` after which the training stops; 0 for all epochs"""

    def __post_init__(self):
        check_within(self, "train", ("epochs", "batch_size", "accumulate", "evaluate_every", "checkpoint_every"), 1)
        check_within(self, "train", ("diagnose_every", "patience"), 0)
        check_within(self, "train", ("seed",), 0, 2**32 - 1)
        if self.batch_size % self.accumulate:
            raise InputError(
                f"train.batch_size is {self.batch_size}; it must be a multiple of train.accumulate, {self.accumulate}."
            )
        if self.monitor not in MEASURES:
            raise InputError(f"train.monitor is {self.monitor!r}; choose one of {', '.join(MEASURES)}.")


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """How this process trains. These options are no settings of the run: they may change whenever it is resumed."""

    checkpoint_minutes: float = 10.0
    """also write a checkpoint within an epoch, this many minutes after the last one; 0 for none"""
    nonfinite: Literal["stop", "skip"] = "stop"
    """where a loss, gradient or parameter is not finite: stop, or leave out the update of that step (10 in a run at
    most)"""
    tensorboard: bool = False
    """also write the log's numbers for TensorBoard, into RUN_DIR/tensorboard"""
    profile: int = 0
    """trace this many steps, after the first two of this process, into RUN_DIR/profile, for Perfetto; 0 for none"""

    def __post_init__(self):
        for name in ("checkpoint_minutes", "profile"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 0.")
        if self.nonfinite not in ("stop", "skip"):
            raise InputError(f"nonfinite is {self.nonfinite!r}; choose stop or skip.")


DEFAULTS = ProcessOptions()
"""the options that nobody changed"""
