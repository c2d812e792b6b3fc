"""The loss between a logit of malignancy and the malignancy label, proven or presumed; one value per image."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from thyroid_jax.losses.reduce import fill_both, keep
from thyroid_jax.shapes import Array, Bool, Float


def malignancy(
    logit: Float[Array, "b"],
    target: Float[Array, "b"],
    *,
    class_weights: Sequence[float] | Float[Array, "2"] | None = None,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """Binary cross-entropy w_1 y softplus(-x) + w_0 (1 - y) softplus(x), >= 0, in nats.

    ``logit`` x any real, ``target`` y in [0, 1], 1 for malignant. ``class_weights`` (w_0, w_1) >= 0 of benign and
    malignant, 1 by default; ValueError for another number of them. Images whose flag in ``where`` is False give 0 with
    a zero gradient.
    """
    logit, target = fill_both(logit, target, where)
    weights = jnp.asarray((1.0, 1.0) if class_weights is None else class_weights, jnp.result_type(logit))
    if weights.shape != (2,):
        raise ValueError(f"class weights of shape {weights.shape}: give two, of benign and malignant.")
    benign, malignant = weights
    return keep(malignant * target * jax.nn.softplus(-logit) + benign * (1 - target) * jax.nn.softplus(logit), where)
