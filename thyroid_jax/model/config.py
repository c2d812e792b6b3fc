"""Shape of the network: its settings, and the sizes of the heads, which follow from the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.settings import check_within

N = TypeVar("N", bound="NetworkConfig")
PUBLISHED = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "resnet18",
    "resnet34",
    "resnet50",
    "convnext_tiny",
)
"""encoders whose shape is that of their paper: the fields of :data:`FREE_SHAPE` are not for them"""
FREE_SHAPE = ("width", "depth", "full_resolution")


@dataclass(frozen=True)
class NetworkConfig:
    """Settings of the network. Input height and width must be multiples of ``2 ** depth``.

    The encoders of :data:`PUBLISHED` have the shape of their papers, with five halvings. For them ``width``, ``depth``
    and ``full_resolution`` must keep their defaults; ``max_width`` and ``blocks`` then concern the decoder alone.

    Presets: :meth:`preset` with ``tiny`` (tests), ``small`` (1 M parameters, for CPUs), ``base`` (21 M, for GPUs).
    """

    encoder: str = "residual"
    """one of `thyroid_jax.model.ENCODERS`"""
    frozen_levels: int = 0
    """levels of a published encoder, from the finest on, that keep their weights; 5 for all of them"""
    width: int = 16
    """channels of the first level; each further level doubles them"""
    max_width: int = 128
    """upper bound of the channels of any level; of a level of the decoder with a published encoder"""
    depth: int = 5
    """halvings from the input to the latent"""
    blocks: int = 1
    """residual blocks per level of the decoder, and of the residual encoder"""
    full_resolution: bool = False
    """keep a level at the input's own resolution; otherwise the first level works at half of it, four times cheaper"""
    groups: int = 8
    """groups of the GroupNorm, at most"""
    evidence: Literal["learned", "measured"] = "learned"
    """what grade and malignancy are read from: the embedding, or beside it the radiomics target of the outline"""
    pooling: Literal["mean", "nodule", "attention"] = "mean"
    """how the heads average features over space: over the image, over the outline that the model sees, or as learned"""
    pooled_levels: int = 1
    """the heads read the last levels of the encoder, this many, the latent included (or all where there are fewer)"""
    pooled_trains: Literal["latent", "all"] = "latent"
    """levels into which the heads' gradient goes: the latent alone, or every level that they read"""
    embedding: int = 128
    """length of the grading embedding [guided | free]"""
    hidden: int = 128
    """hidden units of the embedding's and the heads' MLPs"""
    dtype: Literal["float32", "bfloat16", "bfloat16_encoder"] = "float32"
    """precision of convolutions and activations, in training and at prediction; bfloat16_encoder: float32 behind the
    latent. Always float32: parameters, sums in norms, heads, losses, penalties, latent directions, the optimiser"""

    remat: Literal["none", "activations", "blocks"] = "none"
    """what a training step computes again instead of keeping it in memory: norms and activations, or whole blocks"""

    def __post_init__(self):
        check_within(self, "model", ("width", "max_width", "depth", "blocks", "groups", "hidden", "embedding"), 1)
        check_within(self, "model", ("pooled_levels",), 1)
        check_within(self, "model", ("frozen_levels",), 0, 5)
        if self.frozen_levels and self.encoder not in PUBLISHED:
            raise InputError(
                f"model.frozen_levels is {self.frozen_levels}, but the encoder {self.encoder} starts at random: "
                f"frozen, it would stay so. Set it to 0, or choose one of {', '.join(PUBLISHED)}."
            )
        if self.pooled_trains == "all" and self.pooled_levels == 1:
            raise InputError(
                "model.pooled_trains is all, but model.pooled_levels is 1: the heads read the latent alone, so nothing "
                "would change. Raise model.pooled_levels, or leave model.pooled_trains at latent."
            )
        if self.encoder in PUBLISHED:
            _refuse_a_free_shape(self)

    @property
    def reads_outline(self) -> bool:
        """Whether grade and malignancy depend on the model's own outline."""
        return self.pooling == "nodule" or self.evidence == "measured"

    @classmethod
    def preset(cls: type[N], name: str, **changes: Any) -> N:
        """The preset ``name`` with some fields changed."""
        if name not in PRESETS:
            raise InputError(f"model preset {name!r} does not exist; choose one of {', '.join(PRESETS)}.")
        return cls(**(PRESETS[name] | changes))


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """Shape of the whole network: :class:`NetworkConfig`, and the sizes of its heads, which follow from the data."""

    grades: int = 5
    """grade classes of the data set"""
    radiomics: int = 8
    """values of the guidance target, and length of the guided part of the embedding"""

    def __post_init__(self):
        super().__post_init__()
        check_within(self, "model", ("grades",), 1)
        if not 1 <= self.radiomics <= self.embedding:
            raise InputError(
                f"model.radiomics is {self.radiomics}; it must lie between 1 and model.embedding ({self.embedding})."
            )


def _refuse_a_free_shape(config: NetworkConfig) -> None:
    """Raise :class:`InputError` that lists every field of :data:`FREE_SHAPE` that is not at its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    changed = [name for name in FREE_SHAPE if getattr(config, name) != defaults[name]]
    raise_all(
        [f"model.{name} is {getattr(config, name)}; it must be {defaults[name]}" for name in changed],
        f"the encoder {config.encoder} has a shape of its own. Leave out the fields that shape another encoder:",
    )


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 4, "depth": 2, "groups": 2, "embedding": 16, "hidden": 16},
    "small": {},
    "base": {"width": 48, "max_width": 512, "depth": 4, "blocks": 2, "full_resolution": True},
}
