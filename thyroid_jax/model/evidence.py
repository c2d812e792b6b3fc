"""What the heads read: levels of the encoder, averaged over the nodule that the model itself sees, or over the image.

A grade belongs to the nodule and not to the image. The weights of the average are the model's own outline, squared, as
a constant: the grade does not train the outline through them.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from thyroid_jax.shapes import Array, Float

EVERYWHERE = 1e-3
"""added to every position's weight: an outline that is empty gives the mean over the image"""


def grid_mean(values: Float[Array, "b h w"], shape: tuple[int, ...]) -> Float[Array, "b y x"]:
    """Mean of the pixels in each cell of a grid of ``shape`` = (y, x); h and w are multiples of y and x."""
    b, h, w = values.shape
    y, x = shape
    return values.reshape(b, y, h // y, x, w // x).mean((2, 4))


def nodule_weights(nodule: Float[Array, "b h w"], shape: tuple[int, ...]) -> Float[Array, "b y x"]:
    """Weights of the positions of a grid, sum 1: (p^2 + 0.001) / sum, with p the grid's mean of the probability.

    The square leaves a haze of small probabilities out. Without a nodule, all weights are equal.
    """
    weights = grid_mean(nodule, shape) ** 2 + EVERYWHERE
    return weights / weights.sum((1, 2), keepdims=True)


def weighted_mean(features: Float[Array, "b y x c"], weights: Float[Array, "b y x"]) -> Float[Array, "b c"]:
    """sum over positions of weight * feature, for weights with sum 1."""
    return jnp.einsum("byxc,byx->bc", features, weights)


def attention_weights(score: Float[Array, "b y x"]) -> Float[Array, "b y x"]:
    """Softmax over the positions."""
    return jax.nn.softmax(score.reshape(score.shape[0], -1)).reshape(score.shape)


class Pool(nn.Module):
    """One level's features f32[b y x c] to a vector f32[b c], averaged as ``pooling`` says, then normalised.

    ``mean`` over all positions; ``nodule`` with :func:`nodule_weights`; ``attention`` with a softmax over positions of
    a learned linear score (it starts as the mean).
    """

    pooling: Literal["nodule", "mean", "attention"]

    @nn.compact
    def __call__(self, features: Float[Array, "b y x c"], nodule: Float[Array, "b h w"] | None) -> Float[Array, "b c"]:
        if self.pooling == "mean":
            pooled = features.mean((1, 2))
        elif self.pooling == "nodule":
            if nodule is None:
                raise ValueError("pooling over the nodule needs the outline that the model sees (Latent.nodule).")
            pooled = weighted_mean(features, nodule_weights(nodule, features.shape[1:3]))
        else:
            score = nn.Dense(1, kernel_init=nn.initializers.zeros, use_bias=False, name="score")(features)[..., 0]
            pooled = weighted_mean(features, attention_weights(score))
        return nn.LayerNorm(name="norm")(pooled)
