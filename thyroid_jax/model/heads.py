"""Latent to grade, malignancy and radiomics: the split embedding and the heads that read it."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from thyroid_jax.model.config import ModelConfig
from thyroid_jax.model.evidence import Pool
from thyroid_jax.shapes import Array, Float


class Embed(nn.Module):
    """e = MLP(pooled evidence) in R^embedding, with GELU.

    The evidence are the last levels of the encoder, the latent last, each pooled to a vector (``Pool``).
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, levels: tuple[Array, ...], nodule: Float[Array, "b h w"] | None) -> Float[Array, "b e"]:
        pool = lambda place: Pool(self.config.pooling, name=f"pool_{len(levels) - 1 - place}")
        pooled = [pool(place)(features, nodule) for place, features in enumerate(levels)]
        hidden = nn.gelu(nn.Dense(self.config.hidden)(jnp.concatenate(pooled, axis=-1)))
        return nn.Dense(self.config.embedding)(hidden)


class Classify(nn.Module):
    """Logits f32[b outputs] from the whole embedding, and from measured evidence where there is some: an MLP with GELU.

    The gradient of a linear binary head in the embedding would have a constant direction up to its sign, and the
    angular penalty could not turn it.
    """

    config: ModelConfig
    outputs: int

    @nn.compact
    def __call__(
        self, embedding: Float[Array, "b e"], measured: Float[Array, "b m"] | None = None
    ) -> Float[Array, "b k"]:
        read = nn.gelu(embedding)
        read = read if measured is None else jnp.concatenate([read, measured], axis=-1)
        return nn.Dense(self.outputs)(nn.gelu(nn.Dense(self.config.hidden)(read)))


class PredictRadiomics(nn.Module):
    """W e_guided + b: the guided part predicts the radiomics target linearly."""

    config: ModelConfig

    @nn.compact
    def __call__(self, guided: Float[Array, "b r"]) -> Float[Array, "b r"]:
        return nn.Dense(self.config.radiomics)(guided)
