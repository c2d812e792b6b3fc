"""Latent to grade, malignancy and radiomics: the split embedding and the heads that read it."""

from __future__ import annotations

import flax.linen as nn

from thyroid_jax.model.config import ModelConfig
from thyroid_jax.shapes import Array, Float


class Embed(nn.Module):
    """e = MLP(mean of z over space) in R^embedding, with GELU."""

    config: ModelConfig

    @nn.compact
    def __call__(self, z: Float[Array, "b y x c"]) -> Float[Array, "b e"]:
        pooled = nn.LayerNorm()(z.mean((1, 2)))
        return nn.Dense(self.config.embedding)(nn.gelu(nn.Dense(self.config.hidden)(pooled)))


class Classify(nn.Module):
    """Logits f32[b outputs] from the whole embedding: an MLP with GELU.

    The gradient of a linear binary head in the embedding would have a constant direction up to its sign, and the
    angular penalty could not turn it.
    """

    config: ModelConfig
    outputs: int

    @nn.compact
    def __call__(self, embedding: Float[Array, "b e"]) -> Float[Array, "b k"]:
        return nn.Dense(self.outputs)(nn.gelu(nn.Dense(self.config.hidden)(nn.gelu(embedding))))


class PredictRadiomics(nn.Module):
    """W e_guided + b: the guided part predicts the radiomics target linearly."""

    config: ModelConfig

    @nn.compact
    def __call__(self, guided: Float[Array, "b r"]) -> Float[Array, "b r"]:
        return nn.Dense(self.config.radiomics)(guided)
