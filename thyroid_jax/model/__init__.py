"""Encoder, decoder and heads as pure functions of one parameter tree."""

from thyroid_jax.config import PRESETS, ModelConfig
from thyroid_jax.model.layers import parameter_count
from thyroid_jax.model.network import (
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
    init,
    predict_radiomics,
)

__all__ = [
    "PRESETS",
    "Embedding",
    "Latent",
    "ModelConfig",
    "Outputs",
    "Params",
    "apply",
    "check_size",
    "classify",
    "decode",
    "embed",
    "encode",
    "init",
    "parameter_count",
    "predict_radiomics",
]
