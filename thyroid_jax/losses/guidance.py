"""The radiomics guidance of the embedding: a robust regression, used in training only."""

from __future__ import annotations

import optax

from thyroid_jax.losses.reduce import fill_both, keep
from thyroid_jax.shapes import Array, Bool, Float, Number


def guidance(
    prediction: Float[Array, "b r"],
    target: Float[Array, "b r"],
    *,
    beta: Number = 1.0,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """SmoothL1 between the predicted and the measured radiomics, mean over the r values, >= 0.

    d^2 / (2 beta) for |d| <= beta, |d| - beta/2 beyond, d = prediction - target in units of the fitted scaling, beta >
    0. Images whose flag in ``where`` is False give 0 with a zero gradient. Our choice of loss: the paper's is not
    known to us.
    """
    prediction, target = fill_both(prediction, target, where)
    return keep((optax.losses.huber_loss(prediction, target, delta=beta) / beta).mean(-1), where)
