"""Encoder, decoder and heads as pure functions of one parameter tree."""

from thyroid_jax.model.config import PRESETS, PUBLISHED, ModelConfig, NetworkConfig
from thyroid_jax.model.encoders import ENCODERS
from thyroid_jax.model.layers import parameter_count
from thyroid_jax.model.network import (
    LATENT,
    Embedding,
    Latent,
    Outputs,
    Params,
    apply,
    check_size,
    classify,
    decode,
    embed,
    encode,
    encode_from,
    encoder_levels,
    features_at,
    init,
    level_names,
    malignancy,
    predict_radiomics,
)

__all__ = [
    "ENCODERS",
    "LATENT",
    "PRESETS",
    "PUBLISHED",
    "Embedding",
    "Latent",
    "ModelConfig",
    "NetworkConfig",
    "Outputs",
    "Params",
    "apply",
    "check_size",
    "classify",
    "decode",
    "embed",
    "encode",
    "encode_from",
    "encoder_levels",
    "features_at",
    "init",
    "level_names",
    "malignancy",
    "parameter_count",
    "predict_radiomics",
]
