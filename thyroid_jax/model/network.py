"""The model as pure functions of a parameter tree with the top-level keys ``encoder``, ``decoder`` and ``heads``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from thyroid_jax.errors import InputError
from thyroid_jax.masks import check_image
from thyroid_jax.model.config import ModelConfig, NetworkConfig
from thyroid_jax.model.decoder import Decoder
from thyroid_jax.model.encoders import ENCODERS
from thyroid_jax.model.heads import Classify, Embed, PredictRadiomics
from thyroid_jax.shapes import Array, Float, Key

Params = dict[str, Any]
LATENT = "latent"
"""name of the encoder's last level"""


class Latent(NamedTuple):
    """The shared representation: ``z f32[b y x c]`` and the encoder's other levels, the skips, finest first.

    ``nodule f32[b h w]`` is the outline that the model itself sees, as probabilities, over which the heads pool;
    ``measured f32[b m]`` is measured evidence (``Batch.measured``). Both are constants in every derivative, and None
    where the config does not need them.
    """

    z: Float[Array, "b y x c"]
    skips: tuple[Array, ...]
    nodule: Array | None = None
    measured: Array | None = None


class Embedding(NamedTuple):
    """The grading embedding: ``guided f32[b r]`` (steered by radiomics in training) and ``free f32[b embedding-r]``."""

    guided: Float[Array, "b r"]
    free: Float[Array, "b f"]


class Outputs(NamedTuple):
    """All outputs of the model for a batch.

    ``mask_logits f32[b h w]``, ``grade_logits f32[b k]``, ``malignant_logit f32[b]``, ``radiomics f32[b r]``.
    """

    mask_logits: Float[Array, "b h w"]
    grade_logits: Float[Array, "b k"]
    malignant_logit: Float[Array, "b"]
    radiomics: Float[Array, "b r"]
    latent: Latent
    embedding: Embedding


@partial(jax.jit, static_argnums=1)
def init(key: Key, config: ModelConfig) -> Params:
    """Fresh float32 parameters ``{"encoder", "decoder", "heads": {"embed", "classify", "malignant", "radiomics"}}``."""
    keys = jax.random.split(key, 6)
    side = 2**config.depth
    (z, skips), variables = _encoder(config).init_with_output(keys[0], jnp.zeros((1, side, side, 1)))
    embedding = jnp.zeros((1, config.embedding))
    measured = jnp.zeros((1, 2 * config.radiomics)) if config.evidence == "measured" else None
    heads = {
        "embed": Embed(config).init(keys[2], (*skips, z)[-config.pooled_levels :], jnp.zeros((1, side, side))),
        "classify": Classify(config, config.grades).init(keys[3], embedding, measured),
        "malignant": Classify(config, 1).init(keys[5], embedding, measured),
        "radiomics": PredictRadiomics(config).init(keys[4], embedding[:, : config.radiomics]),
    }
    return {
        "encoder": variables["params"],
        "decoder": _decoder(config).init(keys[1], z, skips)["params"],
        "heads": {name: head["params"] for name, head in heads.items()},
    }


def check_size(config: NetworkConfig, height: int, width: int) -> None:
    """Raise :class:`InputError` unless both sides are positive multiples of ``2 ** config.depth``."""
    if height % 2**config.depth or width % 2**config.depth or 0 in (height, width):
        raise InputError(
            f"the image is {height} x {width} pixels; with model.depth = {config.depth} both sides must be multiples "
            f"of {2**config.depth}: letterbox it to such a size, or choose a smaller depth."
        )


def level_names(config: NetworkConfig) -> tuple[str, ...]:
    """Names of the encoder's levels, finest first: ``stride2``, ``stride4``, ..., and ``latent`` for the last."""
    return (*(f"stride{stride}" for stride in _encoder(config).strides(config)), LATENT)


@lru_cache
def encoder_levels(config: ModelConfig) -> Mapping[str, int]:
    """Entry of ``params["encoder"]`` -> place in :func:`level_names` of the first level that depends on it."""
    module, side = _encoder(config), 2**config.depth
    init = lambda x, after: module.init_with_output(jax.random.key(0), x, after=after)
    (_, skips), variables = jax.eval_shape(
        partial(init, after=-1), jax.ShapeDtypeStruct((1, side, side, 1), jnp.float32)
    )
    levels = dict.fromkeys(variables["params"], 0)
    for place, skip in enumerate(skips):
        _, behind = jax.eval_shape(partial(init, after=place), skip)
        levels |= dict.fromkeys(behind["params"], place + 1)
    return MappingProxyType(levels)


def _trained(encoder: Params, config: ModelConfig) -> Params:
    """The encoder's parameters, without derivatives at its frozen levels."""
    if not config.frozen_levels:
        return encoder
    levels = encoder_levels(config)
    return {n: jax.lax.stop_gradient(p) if levels[n] < config.frozen_levels else p for n, p in encoder.items()}


def encode(params: Params, config: ModelConfig, image: Float[Array, "b h w 1"]) -> Latent:
    """Image in [0, 1] to the shared latent.

    Raises :class:`InputError` unless h and w are positive multiples of ``2 ** config.depth``, and ValueError for images
    of 8 bits, or with known values outside [0, 1] (:func:`thyroid_jax.masks.check_image`).
    """
    check_size(config, *image.shape[1:3])
    check_image(image)
    z, skips = _run(_encoder(config), _trained(params["encoder"], config), image)
    latent = Latent(_at_least_float32(z), skips)
    if config.pooling != "nodule":
        return latent
    constant, features = jax.lax.stop_gradient((params["decoder"], latent))
    return latent._replace(nodule=jax.nn.sigmoid(decode({"decoder": constant}, config, features)))


def features_at(config: ModelConfig, latent: Latent, level: str) -> Float[Array, "b y x c"]:
    """The features of the level ``level`` of :func:`level_names`, at least float32."""
    return _at_least_float32((*latent.skips, latent.z)[_place(config, level)])


def encode_from(
    params: Params, config: ModelConfig, latent: Latent, level: str, features: Float[Array, "b y x c"]
) -> Latent:
    """The latent that results when the output of ``level`` is ``features``: later levels run again, finer ones stay.

    With the present features, :func:`features_at`, the result is ``latent`` again. A derivative with respect to
    ``features`` is one at that level, through everything after it: the rest of the encoder, the decoder and the heads.
    """
    place = _place(config, level)
    if level == LATENT:
        return latent._replace(z=features)
    features = features.astype(latent.skips[place].dtype)
    z, behind = _run(_encoder(config), _trained(params["encoder"], config), features, after=place)
    return latent._replace(z=_at_least_float32(z), skips=(*latent.skips[:place], features, *behind))


def decode(params: Params, config: ModelConfig, latent: Latent) -> Float[Array, "b h w"]:
    """Latent to mask logits, float32, at the resolution of the image."""
    return _run(_decoder(config), params["decoder"], latent.z, latent.skips)


def embed(params: Params, config: ModelConfig, latent: Latent) -> Embedding:
    """Latent to the grading embedding, split into its guided and its free part."""
    skips = latent.skips if config.pooled_trains == "all" else jax.lax.stop_gradient(latent.skips)
    levels = tuple(_at_least_float32(level) for level in (*skips, latent.z)[-config.pooled_levels :])
    e = _run(Embed(config), params["heads"]["embed"], levels, jax.lax.stop_gradient(latent.nodule))
    return Embedding(e[:, : config.radiomics], e[:, config.radiomics :])


def classify(
    params: Params, config: ModelConfig, embedding: Embedding, measured: Float[Array, "b m"] | None = None
) -> Float[Array, "b k"]:
    """Embedding, both parts, to grade logits. ``losses.grading.probabilities`` says what they mean.

    ``measured`` is the latent's measured evidence, needed with ``config.evidence`` measured and refused without
    (``ValueError``).
    """
    return _classify(params["heads"]["classify"], config, config.grades, embedding, measured)


def malignancy(
    params: Params, config: ModelConfig, embedding: Embedding, measured: Float[Array, "b m"] | None = None
) -> Float[Array, "b"]:
    """Embedding, both parts, to the logit of malignancy. ``measured`` as in :func:`classify`."""
    return _classify(params["heads"]["malignant"], config, 1, embedding, measured)[:, 0]


def predict_radiomics(params: Params, config: ModelConfig, embedding: Embedding) -> Float[Array, "b r"]:
    """Guided part of the embedding to the robustly scaled radiomics target. Needed in training only."""
    return _run(PredictRadiomics(config), params["heads"]["radiomics"], embedding.guided)


def apply(
    params: Params, config: ModelConfig, image: Float[Array, "b h w 1"], measured: Float[Array, "b m"] | None = None
) -> Outputs:
    """The whole model: image in [0, 1] to mask, grade and malignancy logits, and the predicted radiomics target.

    ``measured`` as in :func:`classify`.
    """
    latent = encode(params, config, image)._replace(measured=measured)
    embedding = embed(params, config, latent)
    return Outputs(
        mask_logits=decode(params, config, latent),
        grade_logits=classify(params, config, embedding, measured),
        malignant_logit=malignancy(params, config, embedding, measured),
        radiomics=predict_radiomics(params, config, embedding),
        latent=latent,
        embedding=embedding,
    )


def _classify(
    params: Params, config: ModelConfig, outputs: int, embedding: Embedding, measured: Array | None
) -> Float[Array, "b k"]:
    if (config.evidence == "measured") != (measured is not None):
        given = "none was given" if measured is None else "some was given"
        raise ValueError(f"model.evidence is {config.evidence!r}, but of measured evidence {given}.")
    return _run(Classify(config, outputs), params, jnp.concatenate(embedding, axis=-1), jax.lax.stop_gradient(measured))


def _encoder(config: NetworkConfig) -> Any:
    if config.encoder not in ENCODERS:
        raise InputError(f"model.encoder is {config.encoder!r}; choose one of {', '.join(ENCODERS)}.")
    return ENCODERS[config.encoder](config)


def _decoder(config: ModelConfig) -> Decoder:
    strides = _encoder(config).strides(config)
    return Decoder(config, stride=strides[0] if strides else 2**config.depth)


def _run(module: nn.Module, params: Params, *inputs: Any, **options: Any) -> Any:
    return module.apply({"params": params}, *inputs, **options)


def _place(config: ModelConfig, level: str) -> int:
    names = level_names(config)
    if level not in names:
        raise InputError(f"the encoder has no level {level!r}; choose one of {', '.join(names)}.")
    return names.index(level)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
