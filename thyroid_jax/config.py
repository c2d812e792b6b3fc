"""Every setting of a run, as the user chose it. It is written to ``config.json`` and read back by later commands.

A group of settings is defined beside what it sets: tasks in :mod:`thyroid_jax.tasks`, penalties in
:mod:`thyroid_jax.penalties`, and so on. What follows from the data is not a setting: see
:class:`thyroid_jax.recipe.Fitted`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from thyroid_jax.data.augment import AugmentConfig
from thyroid_jax.data.distort import DistortConfig
from thyroid_jax.data.pipeline import DataConfig
from thyroid_jax.errors import InputError
from thyroid_jax.model import PUBLISHED, ModelConfig, NetworkConfig, level_names
from thyroid_jax.mtl.config import MTLConfig
from thyroid_jax.penalties import PENALTIES, PenaltySettings
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Fitted, Recipe, Task
from thyroid_jax.tasks import MEASURES, TASKS, TaskSettings
from thyroid_jax.train.devices import DevicesConfig
from thyroid_jax.train.loop import TrainConfig
from thyroid_jax.train.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Config(TaskSettings, PenaltySettings):
    """All settings of one training run.

    The defaults are plain multitask training: guidance and every penalty are off. The named methods of the
    papers are presets (``experiments/configs.py``).
    """

    model: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    distort: DistortConfig = field(default_factory=DistortConfig)
    mtl: MTLConfig = field(default_factory=MTLConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    devices: DevicesConfig = field(default_factory=DevicesConfig)

    def __post_init__(self):
        on = [task.name for task in TASKS if getattr(self, task.name).weight]
        self._check_tasks(on)
        self._check_rlar(on)
        self._check_outline()
        self._check_encoder()
        self._check_parts()

    def _check_tasks(self, on: Sequence[str]) -> None:
        """There are as many trained tasks as methods, penalties and the monitored measure need; ``on`` are theirs."""
        if not on:
            raise InputError(f"the weights of {', '.join(task.name for task in TASKS)} are all 0; nothing to learn.")
        if (self.cosreg.weight or self.mtl.method != "equal") and len(on) < 2:
            raise InputError(
                "mtl and cosreg compare two tasks at least, and only one has a weight above 0; "
                "set mtl.method equal and cosreg.weight 0."
            )
        if self.consistency.weight and not (self.segmentation.weight and self.malignancy.weight):
            raise InputError(
                "consistency compares the outline with the malignancy: "
                "segmentation.weight and malignancy.weight must be above 0."
            )
        if MEASURES[self.train.monitor] not in on:
            raise InputError(
                f"train.monitor is {self.train.monitor!r}, but {MEASURES[self.train.monitor]}.weight is 0; "
                "choose a measure of a task that is trained."
            )

    def _check_rlar(self, on: Sequence[str]) -> None:
        """RLAR names tasks that are trained, and a level that the encoder has."""
        unknown = [name for name in self.rlar.tasks if name not in [task.name for task in TASKS]]
        if unknown:
            raise InputError(f"rlar.tasks names {unknown[0]!r}; choose of {', '.join(task.name for task in TASKS)}.")
        untrained = [name for name in self.rlar.tasks if name not in on]
        if self.rlar.weight and untrained:
            raise InputError(
                f"rlar.tasks names {', '.join(untrained)}, whose weight is 0: an untrained task has no direction worth "
                "turning from. Set rlar.weight 0, or name trained tasks."
            )
        levels = level_names(self.model)
        if self.rlar.weight and self.rlar.level not in levels:
            raise InputError(
                f"rlar.level: the encoder has no level {self.rlar.level!r}; choose one of {', '.join(levels)}."
            )

    def _check_outline(self) -> None:
        """What reads an outline finds one."""
        if self.model.reads_outline and not self.segmentation.weight:
            raise InputError(
                "model.pooling nodule and model.evidence measured read the model's own outline, but "
                "segmentation.weight is 0: nothing would teach the outline. Set it above 0, or model.pooling mean and "
                "model.evidence learned."
            )
        if self.distort != DistortConfig() and self.model.evidence != "measured":
            raise InputError(
                "distort changes the outlines on which the heads learn to read measured evidence, and there is none. "
                "Set model.evidence measured, or leave distort out."
            )
        if self.guidance.weight and self.guidance.view == "original" and self.data.reader == "sample":
            raise InputError(
                "guidance.view original measures one outline of each image before the training, but data.reader sample "
                "draws a new one in every epoch. Set guidance.view augmented, or another data.reader."
            )

    def _check_encoder(self) -> None:
        """Published weights, their rates and frozen levels belong to an encoder that has them."""
        frozen = self.model.frozen_levels >= len(level_names(self.model))
        if frozen and (self.cosreg.weight or self.mtl.compares_gradients):
            raise InputError(
                "all levels of the encoder are frozen: cosreg and methods that weigh gradients have nothing to change "
                "there. Set model.frozen_levels lower, or mtl.method equal and cosreg.weight 0."
            )
        if self.model.encoder in PUBLISHED and not self.train.encoder_weights:
            raise InputError(
                f"the encoder {self.model.encoder} is not meant to start at random: set train.encoder_weights package, "
                "or to a file of its published weights."
            )
        if self.train.encoder_weights and self.model.encoder not in PUBLISHED:
            raise InputError(
                f"train.encoder_weights is set, but the encoder {self.model.encoder} has no published weights; "
                f"choose one of {', '.join(PUBLISHED)}."
            )
        slower = self.optimizer.encoder_rate != 1 or self.optimizer.level_decay != 1
        if slower and self.model.encoder not in PUBLISHED:
            raise InputError(
                "optimizer.encoder_rate and optimizer.level_decay slow a published encoder; the encoder "
                f"{self.model.encoder} starts at random. Leave both at 1, or choose one of {', '.join(PUBLISHED)}."
            )

    def _check_parts(self) -> None:
        """A batch in parts needs losses that add up over them."""
        whole = [penalty.name for penalty in PENALTIES if getattr(self, penalty.name).weight and not penalty.adds_up]
        if self.train.accumulate > 1 and (whole or self.mtl.method != "equal"):
            other, instead = f"mtl.method is {self.mtl.method}", "mtl.method equal"
            if whole:
                other, instead = f"{whole[0]}.weight is above 0", f"{whole[0]}.weight 0"
            raise InputError(
                f"train.accumulate is {self.train.accumulate}, but {other}: it needs losses or gradients of the whole "
                f"batch before the gradient of any part. Set train.accumulate 1, or {instead}. For less memory, "
                "model.remat works with every method."
            )


PLACES = ("data.dir", "data.split")
"""settings that say where files lie on a machine"""
NOT_IN_THE_STEP = ("model", "data", "train", "devices")
"""groups of settings that are not in ``Recipe.settings``; the network's shape is in ``Recipe.model``"""


def recipe_of(
    config: Config,
    *,
    grades: int = 5,
    radiomics: int = len(clinical.TARGET),
    fitted: Fitted | None = None,
    tasks: Sequence[Task] | None = None,
) -> Recipe:
    """The recipe of a config: its trained tasks, its penalties, its settings, and what was fitted.

    Args:
        config: the settings.
        grades: grade classes of the data set.
        radiomics: values of the guidance target.
        fitted: what was fitted on the training part; by default neutral values, with constant schedules.
        tasks: the tasks to choose from; all by default. Those whose weight is not 0 are trained.
    """
    chosen = [task for task in (TASKS if tasks is None else tasks) if getattr(config, task.name).weight]
    groups = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in NOT_IN_THE_STEP}
    shapes = len(config.consistency.features)
    return Recipe(
        model=ModelConfig(**dataclasses.asdict(config.model) | {"grades": grades, "radiomics": radiomics}),
        tasks=tuple(chosen),
        penalties=tuple(penalty for penalty in PENALTIES if getattr(config, penalty.name).weight),
        settings=groups,
        fitted=Fitted.neutral(grades, radiomics, shapes) if fitted is None else fitted,
        accumulate=config.train.accumulate,
    )


def may_not_differ(name: str) -> bool:
    """Whether a setting ``group.field`` stays as it is when a run is resumed: all but where the data lie, and how a
    batch is spread over devices.
    """
    return name not in PLACES and not name.startswith("devices.")


def replace_groups(config: Config, **changes: dict[str, Any]) -> Config:
    """The config with some fields of some groups changed: ``replace_groups(config, rlar={"weight": 1.0})``."""
    groups = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in changes.items()}
    return dataclasses.replace(config, **groups)
