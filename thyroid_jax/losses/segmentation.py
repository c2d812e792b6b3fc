"""Losses between mask logits and a mask, one value per image.

Targets may be soft, as when several readers drew the outline. ``where`` (bool[b]) marks the images that have a mask;
the others give 0 with a zero gradient, whatever their rows hold.

A target outside [0, 1], such as an 8-bit mask of 0 and 255, raises ValueError
(:func:`thyroid_jax.masks.check_mask`).
"""

from __future__ import annotations

import jax

from thyroid_jax.losses.reduce import fill_both, keep
from thyroid_jax.masks import check_mask
from thyroid_jax.shapes import Array, Bool, Float


def bce(
    logits: Float[Array, "b h w"], target: Float[Array, "b h w"], *, where: Bool[Array, "b"] | None = None
) -> Float[Array, "b"]:
    """Binary cross-entropy, mean over the pixels: mean_p [softplus(x_p) - m_p x_p], >= 0, in nats.

    ``logits`` x any real, ``target`` m in [0, 1]. A soft target's least value is its entropy, not 0. It takes one
    softplus per pixel; two log-sigmoids give the same numbers and cost more.
    """
    logits, target = fill_both(logits, target, where)
    check_mask(target, "target")
    return keep((jax.nn.softplus(logits) - target * logits).mean((1, 2)), where)


def soft_dice(
    logits: Float[Array, "b h w"],
    target: Float[Array, "b h w"],
    *,
    smooth: float = 1.0,
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """Soft Dice loss 1 - (2 sum p m + smooth) / (sum p + sum m + smooth) with p = sigmoid(logits), in [0, 1).

    Empty masks: with ``smooth`` > 0 an empty target and an empty prediction agree, loss 0; an empty target and a
    prediction of A pixels lose A / (A + smooth). ``smooth`` is an area in pixels. Milletari et al., arXiv 1606.04797,
    with sums instead of squares in the denominator; a soft target equal to the prediction does not give exactly 0.
    """
    logits, target = fill_both(logits, target, where)
    check_mask(target, "target")
    probability = jax.nn.sigmoid(logits)
    overlap = (probability * target).sum((1, 2))
    total = probability.sum((1, 2)) + target.sum((1, 2))
    return keep(1.0 - (2.0 * overlap + smooth) / (total + smooth), where)
