"""Every setting of a run, as frozen dataclasses: hashable (static under jit), written to ``config.json``, read back by
later commands.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from thyroid_jax.errors import InputError

TASKS = ("segmentation", "grading", "guidance")


def _within(
    group: Any, where: str, names: tuple[str, ...], lowest: float | int, highest: float | int = math.inf
) -> None:
    """Raise :class:`InputError` unless every named field of ``group`` is finite and lies between the bounds, both
    included.
    """
    for name in names:
        value = getattr(group, name)
        if not (lowest <= value <= highest and math.isfinite(value)):
            bounds = f"at least {lowest:g}" if highest == math.inf else f"between {lowest:g} and {highest:g}"
            raise InputError(f"{where}.{name} is {value}; it must be {bounds}.")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the network. Input height and width must be multiples of ``2 ** depth``.

    Presets: :meth:`preset` with ``tiny`` (tests), ``small`` (about 1 M parameters, for CPUs), ``base`` (about 21 M,
    for GPUs).
    """

    width: int = 16
    """channels of the first level; each further level doubles them"""
    max_width: int = 128
    """upper bound of the channels of any level"""
    depth: int = 5
    """halvings from the input to the latent"""
    blocks: int = 1
    """residual blocks per level"""
    full_resolution: bool = False
    """keep a level at the input's own resolution; otherwise the first level works at half of it, four times cheaper"""
    groups: int = 8
    """groups of the GroupNorm, at most"""
    embedding: int = 128
    """length of the grading embedding [guided | free]"""
    hidden: int = 128
    """hidden units of the embedding's and the classifier's MLP"""
    grades: int = 5
    """grade classes; set from the data"""
    radiomics: int = 8
    """values of the guidance target, and length of the guided part of the embedding; set from the data"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision of the convolutions; parameters, losses and latent directions are float32 always"""

    def __post_init__(self):
        _within(self, "model", ("width", "max_width", "depth", "blocks", "groups", "hidden", "grades"), 1)
        if not 1 <= self.radiomics <= self.embedding:
            raise InputError(
                f"model.radiomics is {self.radiomics}; it must lie between 1 and model.embedding ({self.embedding})."
            )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> ModelConfig:
        """The preset ``name`` with some fields changed."""
        if name not in PRESETS:
            raise InputError(f"model preset {name!r} does not exist; choose one of {', '.join(PRESETS)}.")
        return dataclasses.replace(PRESETS[name], **changes)


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(width=4, depth=2, groups=2, embedding=16, hidden=16),
    "small": ModelConfig(),
    "base": ModelConfig(width=48, max_width=512, depth=4, blocks=2, full_resolution=True),
}


@dataclass(frozen=True)
class DataConfig:
    """Which records, at which size, split how."""

    name: str = "ddti"
    """data set, as built by `python -m data_prep build`"""
    dir: str = "data"
    """folder that holds the built data set"""
    height: int = 128
    width: int = 192
    """network input; records are letterboxed to it with their aspect ratio kept"""
    folds: int = 5
    """groups are dealt into this many folds, stratified by grade"""
    fold: int = 0
    """the fold held out for the test; the next one is the validation fold"""
    split_seed: int = 0
    labels: Literal["readers", "reference"] = "readers"
    """train on the readers' outlines and grades where records have them, or on the reference"""

    def __post_init__(self):
        _within(self, "data", ("height", "width"), 1)
        _within(self, "data", ("folds",), 3)  # one to test on, one to validate on, at least one to train on
        _within(self, "data", ("fold",), 0, self.folds - 1)
        _within(self, "data", ("split_seed",), 0, 2**32 - 1)


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of each random change of a training view; 0 switches one off."""

    flip: float = 0.5
    """probability of a left-right mirror (never up-down: depth has a direction)"""
    rotate: float = 10.0
    """degrees, either way"""
    scale: float = 0.15
    """relative zoom, either way"""
    shift: float = 0.08
    """share of the height and width, either way"""
    gamma: float = 0.25
    """exponent exp(u), u uniform in +-gamma"""
    gain: float = 0.2
    """factor exp(u), u uniform in +-gain"""
    speckle: float = 0.08
    """standard deviation of multiplicative noise"""
    blur: float = 0.3
    """probability of a 3 x 3 binomial blur"""
    shadow: float = 0.15
    """probability of an acoustic shadow: a dark band from a random lateral position downwards"""

    def __post_init__(self):
        _within(self, "augment", ("flip", "blur", "shadow"), 0, 1)
        _within(self, "augment", ("rotate", "shift", "gamma", "gain", "speckle"), 0)
        _within(self, "augment", ("scale",), 0, 0.9)  # a zoom of 0 shows nothing


@dataclass(frozen=True)
class SegmentationConfig:
    """L_seg = bce * BCE + dice * soft Dice loss, per image."""

    weight: float = 1.0
    bce: float = 0.5
    dice: float = 0.5

    def __post_init__(self):
        _within(self, "segmentation", ("weight", "bce", "dice"), 0)


@dataclass(frozen=True)
class GradingConfig:
    """The grade's loss: cross-entropy, or the ordinal CORN."""

    weight: float = 1.0
    kind: Literal["cross_entropy", "corn"] = "cross_entropy"
    balance: float = 0.5
    """class weights are (frequency) ** -balance, mean 1 over the training examples; 0 for none"""
    class_weights: tuple[float, ...] = ()
    """filled in from the training part; () means all 1"""

    def __post_init__(self):
        _within(self, "grading", ("weight", "balance"), 0)


@dataclass(frozen=True)
class GuidanceConfig:
    """Radiomics guidance of the embedding during training."""

    weight: float = 0.1
    beta: float = 1.0
    """where SmoothL1 turns from quadratic to linear, in robust standard deviations"""
    view: Literal["augmented", "original"] = "augmented"
    """what the target is measured on: every augmented view, on the device, or once the original"""
    centre: tuple[float, ...] = ()
    """of the target's robust scaling, filled in from the training part; () takes the batch's target as it is"""
    spread: tuple[float, ...] = ()

    def __post_init__(self):
        _within(self, "guidance", ("weight",), 0)
        _within(self, "guidance", ("beta",), 1e-6)
        if len(self.centre) != len(self.spread):
            raise InputError(
                f"guidance.centre has {len(self.centre)} values and guidance.spread {len(self.spread)}; leave both empty."
            )


@dataclass(frozen=True)
class ConsistencyConfig:
    """Agreement of the predicted malignancy with a prior formed of the soft mask's shape. docs/radiomics.md says what it
    does.
    """

    weight: float = 0.0
    """of mean (p - phi)^2; 0 for no consistency"""
    first_malignant: int = -1
    """p is the probability of this grade and those above it; -1 is the highest grade alone, malignant where grades are
    benign, malignant
    """
    gradient: Literal["both", "head", "mask"] = "both"
    """who moves: the head and the mask; the head alone, as if phi were a label; the mask (and the prior's weights) alone
    """
    features: tuple[str, ...] = ("non_compactness", "taller_than_wide", "margin_irregularity", "non_ellipticity")
    """of `thyroid_jax.radiomics.soft.FEATURES`"""
    centre: tuple[float, ...] = ()
    """the features' means, filled in from the training part's outlines"""
    min_pixels: float = 50.0
    """masks of no more pixels than this above one half have no shape to speak of and are left out"""
    warmup: float = 0.1
    """share of all steps before it sets in, so that the outline comes first"""
    ramp: float = 0.1
    """the weight then rises linearly over this share of all steps"""

    def __post_init__(self):
        _within(self, "consistency", ("weight", "min_pixels"), 0)
        _within(self, "consistency", ("warmup", "ramp"), 0, 1)
        if len(self.centre) not in (0, len(self.features)) or not self.features:
            raise InputError(
                f"consistency.centre has {len(self.centre)} values for {len(self.features)} features; leave it empty."
            )


@dataclass(frozen=True)
class RLARConfig:
    """Representation-level adversarial regularisation. docs/rlar.md says how the defaults were chosen."""

    weight: float = 0.1
    """of the penalty, or with `scale relative` the share that its gradient has in the tasks' at the latent; 0 for no
    RLAR
    """
    scale: Literal["fixed", "relative"] = "fixed"
    """relative: rescaled every step so that |the penalty's gradient| = weight |the tasks' gradient| at z, whatever is
    left to penalise; decoder and heads get the same factor. Forms the gradient in forward mode.
    """
    kind: Literal["hinge", "square", "abs"] = "hinge"
    margin: float = 0.0
    space: Literal["channel", "full"] = "channel"
    tasks: tuple[str, ...] = ("segmentation", "grading")
    """whose directions are compared; add "guidance" for the three-task variant"""
    hold: tuple[str, ...] = ()
    """tasks whose directions are constants (stop-gradient): only the others turn; cheaper, and not exact any more"""
    every: int = 1
    """the penalty on every n-th step only, weighted n times; cheaper, and not exact any more"""
    derivative: Literal["reverse", "forward"] = "reverse"
    """how the exact second-order gradient is formed: reverse over reverse, or forward over reverse; the same numbers.
    A relative scale and methods that need each task's gradient take forward
    """
    reliability: float = 0.0
    """tau of the weight min(1, min_t |g_t| / tau); 0 switches it off"""
    ramp: float = 0.1
    """the weight rises linearly over this share of all steps"""

    def __post_init__(self):
        if not 2 <= len(set(self.tasks)) == len(self.tasks) or not set(self.tasks) <= set(TASKS):
            raise InputError(f"rlar.tasks is {self.tasks}; name at least two of {', '.join(TASKS)}, each once.")
        if not set(self.hold) < set(self.tasks):
            raise InputError(
                f"rlar.hold is {self.hold}; name tasks of rlar.tasks, but not all of them: one at least must turn."
            )
        if self.kind == "square" and self.margin:
            raise InputError(
                f"rlar.margin is {self.margin:g}, but rlar.kind square has no margin; choose abs or hinge, or rlar.margin 0."
            )
        _within(self, "rlar", ("weight", "reliability"), 0)
        _within(self, "rlar", ("margin",), -1, 1)
        _within(self, "rlar", ("ramp",), 0, 1)
        _within(self, "rlar", ("every",), 1)


@dataclass(frozen=True)
class MTLConfig:
    """How the tasks' losses or gradients are weighed against each other. docs/multitask.md compares the methods."""

    method: Literal[
        "equal",
        "uncertainty",
        "dwa",
        "rlw",
        "gls",
        "imtl_l",
        "gradnorm",
        "famo",
        "mgda",
        "pcgrad",
        "cagrad",
        "imtl_g",
        "aligned_mtl",
        "upgrad",
        "dualproj",
        "nash_mtl",
    ] = "equal"
    """equal: the losses as weighted by their groups; up to famo weights of losses, from mgda on weights of gradients"""
    at: Literal["latent", "parameters"] = "latent"
    """what methods that weigh gradients compare: those at the encoder's outputs, or those of its parameters"""
    cosreg: float = 0.0
    """weight of CosReg, the squared cosine between the tasks' gradients in the encoder's parameters; 0 switches it off
    """

    def __post_init__(self):
        _within(self, "mtl", ("cosreg",), 0)


@dataclass(frozen=True)
class OptimizerConfig:
    """Gradient clipping, AdamW and a warm-up-cosine schedule by step."""

    learning_rate: float = 3e-3
    final_share: float = 0.01
    """the schedule's last value as a share of its highest"""
    warmup: float = 0.05
    """share of all steps"""
    weight_decay: float = 1e-2
    clip: float = 1.0
    """global gradient norm; 0 switches clipping off"""
    b1: float = 0.9
    b2: float = 0.99

    def __post_init__(self):
        _within(self, "optimizer", ("learning_rate", "weight_decay", "clip"), 0)
        _within(self, "optimizer", ("final_share", "warmup"), 0, 1)
        _within(self, "optimizer", ("b1", "b2"), 0, 0.999999)


@dataclass(frozen=True)
class TrainConfig:
    """Length, batch and book-keeping of a run."""

    epochs: int = 100
    batch_size: int = 8
    seed: int = 0
    evaluate_every: int = 5
    """epochs between evaluations of the validation part"""
    checkpoint_every: int = 1
    """epochs between checkpoints"""
    diagnose_every: int = 0
    """steps between diagnoses of the tasks' gradients (`thyroid_jax/train/diagnose.py`); 0 for none"""
    monitor: Literal["dice", "accuracy", "balanced_accuracy", "quadratic_kappa"] = "dice"
    """validation measure whose highest value marks the best checkpoint; on small sets the grade's measures are too noisy
    to choose by
    """
    total_steps: int = 0
    """the schedules' length, filled in from the data; 0, for steps called by hand, keeps rate and penalty constant"""

    def __post_init__(self):
        _within(self, "train", ("epochs", "batch_size", "evaluate_every", "checkpoint_every"), 1)
        _within(self, "train", ("total_steps", "diagnose_every"), 0)
        _within(self, "train", ("seed",), 0, 2**32 - 1)


@dataclass(frozen=True)
class Config:
    """Everything one training run depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
    grading: GradingConfig = field(default_factory=GradingConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    rlar: RLARConfig = field(default_factory=RLARConfig)
    mtl: MTLConfig = field(default_factory=MTLConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        weights = {name: getattr(self, name).weight for name in TASKS}
        if not any(weights.values()):
            raise InputError(f"the weights of {', '.join(TASKS)} are all 0; there is nothing to learn.")
        if (self.mtl.cosreg or self.mtl.method != "equal") and sum(weight > 0 for weight in weights.values()) < 2:
            raise InputError(
                "mtl compares two tasks at least, and only one has a weight above 0; set mtl.method equal and mtl.cosreg 0."
            )
        if self.consistency.weight and not (weights["segmentation"] and weights["grading"]):
            raise InputError(
                "consistency compares the outline with the grade: segmentation.weight and grading.weight must be above 0."
            )
        untrained = [name for name in self.rlar.tasks if not weights[name]]
        if self.rlar.weight and untrained:
            raise InputError(
                f"rlar.tasks names {', '.join(untrained)}, whose weight is 0: an untrained task has no direction worth turning from. "
                "Set rlar.weight 0, or name trained tasks."
            )


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: Any, *, where: str = "config") -> Any:
    """Read a config back from :func:`to_dict`'s values. Unknown, missing, mistyped or illegal ones raise
    :class:`InputError`.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a group of fields, found {values!r}.")
    hints = typing.get_type_hints(cls)
    unknown, missing = sorted(set(values) - set(hints)), sorted(set(hints) - set(values))
    if unknown or missing:
        raise InputError(
            f"{where}: unknown fields {unknown}, missing fields {missing}. The run was made by another version of thyroid_jax; "
            "use that version, or start a new run folder."
        )
    return cls(**{name: _read(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where=where)
    origin = typing.get_origin(kind)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_read(typing.get_args(kind)[0], item, where) for item in value)
    if origin is Literal and value in typing.get_args(kind):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise InputError(f"{where}: {value!r} is not a value of type {getattr(kind, '__name__', kind)}.")
