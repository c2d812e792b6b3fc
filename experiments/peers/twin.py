"""The model, its losses and the angular penalty in PyTorch, equal to this project's within rounding.

The residual encoder, the decoder and the heads of the sizes ``small`` and ``base``, and the methods ``plain`` and
``rlar`` of ``experiments/configs.py``. The angular penalty is exact: ``torch.autograd.grad`` with ``create_graph``. Its
second-order pass starts at the latent, as in JAX. ``weights.py`` names the parameters, ``twin_step.py`` has the update.

This file imports PyTorch alone, so that it runs where JAX is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-12  # added to a latent gradient's length, as in thyroid_jax/losses/rlar.py


@dataclass(frozen=True)
class Shape:
    """The fields of ``thyroid_jax.model.ModelConfig`` that the twin knows, with the same meaning."""

    width: int
    max_width: int
    depth: int
    blocks: int
    full_resolution: bool
    groups: int
    embedding: int
    hidden: int
    grades: int
    radiomics: int

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of every level of the encoder, finest first; the last level holds the latent."""
        levels = self.depth + self.full_resolution
        return tuple(min(self.width * 2**level, self.max_width) for level in range(levels))


class Losses(NamedTuple):
    """Per-example losses of the three tasks, [b] each; 0 where a label is missing."""

    segmentation: Tensor
    grading: Tensor
    malignancy: Tensor


class Outputs(NamedTuple):
    """Mask logits [b h w], grade logits [b k], malignancy logit [b], radiomics [b r] and the latent z [b c y x]."""

    mask_logits: Tensor
    grade_logits: Tensor
    malignant_logit: Tensor
    radiomics: Tensor
    z: Tensor


Batch = dict[str, Tensor]
"""``image [b 1 h w]``, ``mask [b h w]``, ``grade [b k]``, ``malignant [b]`` and bool[b] ``mask_valid``, ..."""


# --- the model --------------------------------------------------------------------------------------------------------


def convolution(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size of the image."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


class Norm(nn.GroupNorm):
    """GroupNorm with as many groups as divide the channels, at most ``groups``. It computes in the input's type.

    Autocast alone would return float32, and the layers after it would read twice as many bytes.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__(max(g for g in range(1, groups + 1) if channels % g == 0), channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised features, of the shape and type of ``x``."""
        with torch.autocast(x.device.type, enabled=False):
            return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class ResidualBlock(nn.Module):
    """x -> shortcut(x) + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = Norm(inputs, groups), convolution(inputs, outputs, 3)
        self.norm2, self.conv2 = Norm(outputs, groups), convolution(outputs, outputs, 3)
        self.shortcut = nn.Identity() if inputs == outputs else convolution(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features [b c y x] to features [b d y x]."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + self.shortcut(x)


class Encoder(nn.Module):
    """Image [b 1 h w] in [0, 1] to the latent and the skips, finest first."""

    def __init__(self, shape: Shape):
        super().__init__()
        channels = shape.channels
        self.full_resolution, self.blocks_per_level = shape.full_resolution, shape.blocks
        self.stem = convolution(1 if shape.full_resolution else 4, channels[0], 3, bias=True)
        inputs = [channels[0], *channels[:-1]]
        self.blocks = nn.ModuleList(
            ResidualBlock(inputs[level] if block == 0 else channels[level], channels[level], shape.groups)
            for level in range(len(channels))
            for block in range(shape.blocks)
        )
        self.norm = Norm(channels[-1], shape.groups)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The latent [b c y x] and the other levels' features."""
        x = (image - 0.25) / 0.25
        x = self.stem(x if self.full_resolution else F.pixel_unshuffle(x, 2))
        levels = []
        for number, block in enumerate(self.blocks):
            if number and number % self.blocks_per_level == 0:
                levels.append(x)
                x = F.avg_pool2d(x, 2)
            x = block(x)
        return F.silu(self.norm(x)), levels


class DecoderLevel(nn.Module):
    """Upsample the coarser level, add a convolution of the skip, refine the sum."""

    def __init__(self, inputs: int, skip: int, outputs: int, shape: Shape):
        super().__init__()
        self.reduce = convolution(inputs, outputs, 1)
        self.skip_norm, self.skip = Norm(skip, shape.groups), convolution(skip, outputs, 3)
        self.norms = nn.ModuleList(Norm(outputs, shape.groups) for _ in range(shape.blocks))
        self.convs = nn.ModuleList(convolution(outputs, outputs, 3) for _ in range(shape.blocks))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Coarser features [b c y x] and the skip [b d 2y 2x] to features [b e 2y 2x]."""
        x = F.interpolate(self.reduce(x), scale_factor=2, mode="nearest") + self.skip(F.silu(self.skip_norm(skip)))
        for norm, conv in zip(self.norms, self.convs):
            x = x + conv(F.silu(norm(x)))
        return x


class Decoder(nn.Module):
    """Latent and skips to mask logits [b h w]."""

    def __init__(self, shape: Shape):
        super().__init__()
        channels = shape.channels
        skips = channels[-2::-1]
        outputs = [min(c, shape.max_width) for c in skips]
        inputs = [channels[-1], *outputs[:-1]]
        self.stride = 1 if shape.full_resolution else 2
        self.levels = nn.ModuleList(DecoderLevel(*sizes, shape) for sizes in zip(inputs, skips, outputs))
        self.norm = Norm(outputs[-1], shape.groups)
        self.logits = nn.Conv2d(outputs[-1], self.stride**2, 1)

    def forward(self, z: Tensor, skips: list[Tensor], autocast: Callable[[], torch.autocast]) -> Tensor:
        """Mask logits in float32: the last convolution is outside of ``autocast``."""
        with autocast():
            x = z
            for level, skip in zip(self.levels, reversed(skips)):
                x = level(x, skip)
            x = F.silu(self.norm(x))
        x = self.logits(x.to(self.logits.weight.dtype))
        return (x if self.stride == 1 else F.pixel_shuffle(x, 2))[:, 0]


class Embed(nn.Module):
    """Mean of the latent over space, LayerNorm, and an MLP with GELU."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = nn.LayerNorm(shape.channels[-1], eps=1e-6)
        self.hidden, self.out = nn.Linear(shape.channels[-1], shape.hidden), nn.Linear(shape.hidden, shape.embedding)

    def forward(self, z: Tensor) -> Tensor:
        """Latent [b c y x] to the embedding [b e]."""
        return self.out(F.gelu(self.hidden(self.norm(z.mean((2, 3)))), approximate="tanh"))


class Classify(nn.Module):
    """Embedding [b e] to logits [b k]: an MLP with GELU."""

    def __init__(self, shape: Shape, outputs: int):
        super().__init__()
        self.hidden, self.out = nn.Linear(shape.embedding, shape.hidden), nn.Linear(shape.hidden, outputs)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits [b k]."""
        read = F.gelu(embedding, approximate="tanh")
        return self.out(F.gelu(self.hidden(read), approximate="tanh"))


class Model(nn.Module):
    """Encoder, decoder and heads. With ``bfloat16`` the convolutions but the last run under autocast."""

    def __init__(self, shape: Shape, *, bfloat16: bool = False):
        super().__init__()
        self.shape, self.bfloat16 = shape, bfloat16
        self.encoder, self.decoder, self.embed = Encoder(shape), Decoder(shape), Embed(shape)
        self.grade, self.malignant = Classify(shape, shape.grades), Classify(shape, 1)
        self.radiomics = nn.Linear(shape.radiomics, shape.radiomics)

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 on the device of the parameters; without effect in float32."""
        return torch.autocast(self.radiomics.weight.device.type, torch.bfloat16, enabled=self.bfloat16)

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The latent, at least float32, and the skips."""
        with self.autocast():
            z, skips = self.encoder(image)
        return z.to(self.radiomics.weight.dtype), skips

    def decode(self, z: Tensor, skips: list[Tensor]) -> Tensor:
        """Mask logits [b h w]."""
        return self.decoder(z, skips, self.autocast)

    def forward(self, image: Tensor) -> Outputs:
        """All outputs for a batch of images."""
        z, skips = self.encode(image)
        embedding = self.embed(z)
        return Outputs(
            mask_logits=self.decode(z, skips),
            grade_logits=self.grade(embedding),
            malignant_logit=self.malignant(embedding)[:, 0],
            radiomics=self.radiomics(embedding[:, : self.shape.radiomics]),
            z=z,
        )


# --- losses and penalty -----------------------------------------------------------------------------------------------


def defined(batch: Batch, task: str) -> Tensor:
    """bool[b]: the examples that have the label ``mask``, ``grade`` or ``malignant`` and do not pad the batch."""
    return batch[f"{task}_valid"] & batch["example_valid"]


def outline_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """0.5 BCE + 0.5 soft Dice loss with 1 pixel of smoothing, [b]."""
    bce = F.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean((1, 2))
    probability = logits.sigmoid()
    overlap, total = (probability * mask).sum((1, 2)), probability.sum((1, 2)) + mask.sum((1, 2))
    return 0.5 * bce + 0.5 * (1 - (2 * overlap + 1) / (total + 1))


def task_losses(model: Model, z: Tensor, skips: list[Tensor], batch: Batch) -> Losses:
    """Every task's per-example losses, from the latent on. All class weights are 1."""
    embedding = model.embed(z)
    outline = outline_loss(model.decode(z, skips), batch["mask"])
    grade = F.cross_entropy(model.grade(embedding), batch["grade"], reduction="none")
    malignant = F.binary_cross_entropy_with_logits(
        model.malignant(embedding)[:, 0], batch["malignant"], reduction="none"
    )
    keep = lambda values, task: torch.where(defined(batch, task), values, 0.0)
    return Losses(keep(outline, "mask"), keep(grade, "grade"), keep(malignant, "malignant"))


def angular_penalty(losses: tuple[Tensor, ...], z: Tensor) -> Tensor:
    """max(0, cosine)^2 between the tasks' directions in the latent's channels, mean over the pairs of tasks, [b].

    A direction is d (sum of the losses) / d z, summed over space, divided by its length.
    """
    units = []
    for values in losses:
        (gradient,) = torch.autograd.grad(values.sum(), z, create_graph=True)
        g = gradient.sum((2, 3))
        units.append(g / torch.sqrt((g**2).sum(-1, keepdim=True) + TINY**2))
    cosines = torch.stack([(a * b).sum(-1) for a, b in combinations(units, 2)])
    return (F.relu(cosines) ** 2).mean(0)


def mean_over(values: Tensor, where: Tensor) -> Tensor:
    """Mean of the values whose flag is True; 0 where there is none."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)


def objective(
    model: Model, batch: Batch, rlar_weight: float | None = None, *, encode: Callable | None = None
) -> tuple[Tensor, Losses, Tensor]:
    """The number to minimise, the tasks' per-example losses, and the mean penalty.

    With ``rlar_weight`` None there is no second-order pass, and the penalty is 0. ``encode`` replaces
    ``model.encode``, as its compiled form does.
    """
    z, skips = (encode or model.encode)(batch["image"])
    losses = task_losses(model, z, skips, batch)
    tasks = ("mask", "grade", "malignant")
    value = sum(mean_over(values, defined(batch, task)) for values, task in zip(losses, tasks))
    if rlar_weight is None:
        return value, losses, torch.zeros_like(value)
    both = defined(batch, "mask") & defined(batch, "grade")
    penalty = mean_over(angular_penalty((losses.segmentation, losses.grading), z), both)
    return value + rlar_weight * penalty, losses, penalty
