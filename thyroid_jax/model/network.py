"""The model as pure functions of a parameter tree with the top-level keys ``encoder``, ``decoder`` and ``heads``."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.config import ModelConfig
from thyroid_jax.errors import InputError
from thyroid_jax.model.decoder import Decoder
from thyroid_jax.model.encoder import Encoder
from thyroid_jax.model.heads import Classify, Embed, PredictRadiomics
from thyroid_jax.shapes import Array, Float, Key

Params = dict[str, Any]


class Latent(NamedTuple):
    """The shared representation: ``z f32[b y x c]`` and the decoder's skips, finest first."""

    z: Float[Array, "b y x c"]
    skips: tuple[jax.Array, ...]


class Embedding(NamedTuple):
    """The grading embedding: ``guided f32[b r]`` (steered by radiomics in training) and ``free f32[b embedding-r]``."""

    guided: Float[Array, "b r"]
    free: Float[Array, "b f"]


class Outputs(NamedTuple):
    """Everything the model says about a batch: ``mask_logits f32[b h w]``, ``grade_logits f32[b k]``, ``radiomics f32[b
    r]``.
    """

    mask_logits: Float[Array, "b h w"]
    grade_logits: Float[Array, "b k"]
    radiomics: Float[Array, "b r"]
    latent: Latent
    embedding: Embedding


@partial(jax.jit, static_argnums=1)
def init(key: Key, config: ModelConfig) -> Params:
    """Fresh parameters, float32: ``{"encoder": ..., "decoder": ..., "heads": {"embed", "classify", "radiomics"}}``."""
    keys = jax.random.split(key, 5)
    side = 2**config.depth
    latent = Latent(*Encoder(config).init_with_output(keys[0], jnp.zeros((1, side, side, 1)))[0])
    embedding = jnp.zeros((1, config.embedding))
    return {
        "encoder": Encoder(config).init(keys[0], jnp.zeros((1, side, side, 1)))["params"],
        "decoder": Decoder(config).init(keys[1], *latent)["params"],
        "heads": {
            "embed": Embed(config).init(keys[2], latent.z)["params"],
            "classify": Classify(config).init(keys[3], embedding)["params"],
            "radiomics": PredictRadiomics(config).init(keys[4], embedding[:, : config.radiomics])["params"],
        },
    }


def check_size(config: ModelConfig, height: int, width: int) -> None:
    """Raise :class:`InputError` unless both sides are positive multiples of ``2 ** config.depth``."""
    if height % 2**config.depth or width % 2**config.depth or 0 in (height, width):
        raise InputError(
            f"the image is {height} x {width} pixels; with model.depth = {config.depth} both sides must be multiples of "
            f"{2**config.depth}: letterbox it to such a size, or choose a smaller depth."
        )


def encode(params: Params, config: ModelConfig, image: Float[Array, "b h w 1"]) -> Latent:
    """Image in [0, 1] to the shared latent. h and w must be positive multiples of ``2 ** config.depth``, else
    :class:`InputError`.
    """
    check_size(config, *image.shape[1:3])
    z, skips = Encoder(config).apply({"params": params["encoder"]}, image)
    return Latent(z.astype(jnp.promote_types(z.dtype, jnp.float32)), skips)


def decode(params: Params, config: ModelConfig, latent: Latent) -> Float[Array, "b h w"]:
    """Latent to mask logits, float32, at the resolution of the image."""
    return Decoder(config).apply({"params": params["decoder"]}, latent.z, latent.skips)


def embed(params: Params, config: ModelConfig, z: Float[Array, "b y x c"]) -> Embedding:
    """Latent to the grading embedding, split into its guided and its free part."""
    e = Embed(config).apply({"params": params["heads"]["embed"]}, z)
    return Embedding(e[:, : config.radiomics], e[:, config.radiomics :])


def classify(params: Params, config: ModelConfig, embedding: Embedding) -> Float[Array, "b k"]:
    """Embedding, both parts, to grade logits; what they mean is the grading loss's choice
    (``losses.grading.probabilities``).
    """
    return Classify(config).apply({"params": params["heads"]["classify"]}, jnp.concatenate(embedding, axis=-1))


def predict_radiomics(params: Params, config: ModelConfig, embedding: Embedding) -> Float[Array, "b r"]:
    """Guided part of the embedding to the robustly scaled radiomics target. Needed in training only."""
    return PredictRadiomics(config).apply({"params": params["heads"]["radiomics"]}, embedding.guided)


def apply(params: Params, config: ModelConfig, image: Float[Array, "b h w 1"]) -> Outputs:
    """All of it: image in [0, 1] to mask logits, grade logits and the predicted radiomics target."""
    latent = encode(params, config, image)
    embedding = embed(params, config, latent.z)
    return Outputs(
        decode(params, config, latent),
        classify(params, config, embedding),
        predict_radiomics(params, config, embedding),
        latent,
        embedding,
    )
