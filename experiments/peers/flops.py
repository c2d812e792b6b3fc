"""Floating-point operations of the model, counted from its settings: convolutions and matrix products.

A multiplication and an addition are two operations. A convolution is counted as if every position had all its
neighbours, as is usual; at borders XLA counts less. Normalisation, activations and losses are left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from thyroid_jax.errors import InputError
from thyroid_jax.model.config import ModelConfig

TRAINING = 3
"""a training step takes the forward pass, and twice as much for the gradients by inputs and by parameters"""


class Product(NamedTuple):
    """A convolution or matrix product: ``positions`` of the output, ``kernel`` positions, channels in and out."""

    name: str
    positions: int
    kernel: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """2 positions kernel inputs outputs."""
        return 2 * self.positions * self.kernel * self.inputs * self.outputs


def products(config: ModelConfig, height: int, width: int) -> list[Product]:
    """Every convolution and matrix product of one image's forward pass, with the default heads.

    Raises :class:`InputError` for another encoder than the residual one, and for other evidence or pooling.
    """
    if (config.encoder, config.evidence, config.pooling, config.pooled_levels) != ("residual", "learned", "mean", 1):
        raise InputError("only the residual encoder with learned evidence and mean pooling of the latent is counted.")
    channels = [
        min(config.width * 2**level, config.max_width) for level in range(config.depth + config.full_resolution)
    ]
    first = 0 if config.full_resolution else 1
    pixels = [(height * width) // 4 ** (level + first) for level in range(len(channels))]
    return _encoder(config, channels, pixels) + _decoder(config, channels, pixels, 4**first) + _heads(config, channels)


def _encoder(config: ModelConfig, channels: list[int], pixels: list[int]) -> list[Product]:
    found = [Product("stem", pixels[0], 9, 1 if config.full_resolution else 4, channels[0])]
    c = channels[0]
    for level, (outputs, positions) in enumerate(zip(channels, pixels)):
        for block in range(config.blocks):
            name = f"encoder level {level} block {block}"
            found += [Product(name, positions, 9, c, outputs), Product(name, positions, 9, outputs, outputs)]
            found += [] if c == outputs else [Product(f"{name} shortcut", positions, 1, c, outputs)]
            c = outputs
    return found


def _decoder(config: ModelConfig, channels: list[int], pixels: list[int], square: int) -> list[Product]:
    """The reduction is computed before the image grows: at the coarser level's positions."""
    found, c = [], channels[-1]
    for level in reversed(range(len(channels) - 1)):
        name, outputs = f"decoder level {level}", min(channels[level], config.max_width)
        found.append(Product(f"{name} reduce", pixels[level + 1], 1, c, outputs))
        found.append(Product(f"{name} skip", pixels[level], 9, channels[level], outputs))
        found += [Product(f"{name} block", pixels[level], 9, outputs, outputs)] * config.blocks
        c = outputs
    return [*found, Product("logits", pixels[0], 1, c, square)]


def _heads(config: ModelConfig, channels: list[int]) -> list[Product]:
    """Embedding, grade and malignancy. The radiomics head has no task in the methods that are compared."""
    found = [
        Product("embed", 1, 1, channels[-1], config.hidden),
        Product("embed", 1, 1, config.hidden, config.embedding),
    ]
    for outputs in (config.grades, 1):
        found += [Product("classify", 1, 1, config.embedding, config.hidden)]
        found += [Product("classify", 1, 1, config.hidden, outputs)]
    return found


def of_plain_step(config: ModelConfig, batch: int, height: int, width: int) -> int:
    """Model FLOPs of one plain training step: 3 x the forward pass of the batch."""
    return TRAINING * batch * sum(product.flops for product in products(config, height, width))


def utilisation(flops: float, seconds: float, peak_tflops: float) -> float:
    """Share of the device's peak that the model's FLOPs are: flops / seconds / (peak_tflops 1e12), in [0, 1] if right.

    NaN where the peak is not known (not above 0) or no time was measured.
    """
    return flops / seconds / (peak_tflops * 1e12) if peak_tflops > 0 and seconds > 0 else math.nan
