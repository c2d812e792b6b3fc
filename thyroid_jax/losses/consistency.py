"""Consistency between the malignancy head and the shape of the soft mask.

A prior phi estimates malignancy from the outline alone, from the features of
:func:`thyroid_jax.radiomics.soft.morphology`; the loss asks the head's probability p to agree with it. A constant phi
can satisfy this loss too, so log :func:`agreement`. Paper: arXiv 2511.15968. Its abstract states a learned
combination of four features and a squared difference; the rest is our choice.

>>> features = jnp.array([[0.2, 0.1, 0.0, 0.1], [0.6, 1.0, 0.3, 0.4]])
>>> prior = malignancy_prior(init_prior(centre=features.mean(0)), features)
>>> [round(value, 3) for value in consistency(jnp.array([0.3, 0.5]), prior).tolist()]
[0.0, 0.049]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.losses.reduce import fill_both, keep, masked_mean
from thyroid_jax.masks import check_mask
from thyroid_jax.shapes import Array, Bool, Float, Number

_CONSTANT = 1e-6  # variance below which a probability counts as constant: float32 cannot tell a much smaller one from 0


class Agreement(NamedTuple):
    """Pearson correlation of the prior with the label, in [-1, 1], and the prior's standard deviation, in [0, 1/2]."""

    correlation: Float[Array, ""]
    deviation: Float[Array, ""]


def init_prior(count: int = 4, centre: Sequence[float] | Float[Array, "n"] | None = None) -> dict[str, Array]:
    """Parameters of :func:`malignancy_prior` for ``count`` features: {"weight": f[n], "bias": f[], "centre": f[n]}.

    Every softplus(weight) starts at 1, the stored weight at log(e - 1) = 0.54; bias 0. ``centre`` is the features'
    mean over the training examples, 0 when it is not given; the bias can make up for that.
    """
    if centre is not None and len(centre) != count:
        raise ValueError(f"centre of {len(centre)} values for {count} features.")
    weight = jnp.full(count, jnp.log(jnp.expm1(1.0)), float)
    return {
        "weight": weight,
        "bias": jnp.zeros(()),
        "centre": jnp.zeros(count) if centre is None else jnp.array(centre, weight.dtype),  # a copy: states are donated
    }


def malignancy_prior(params: Mapping[str, Float[Array, "..."]], features: Float[Array, "b n"]) -> Float[Array, "b"]:
    """phi = sigmoid(bias + sum_k softplus(weight_k) (f_k - centre_k)), in [0, 1]: it grows with every feature,
    whatever is learned.

    ``features`` finite, as morphology's are. No gradient goes to ``centre``; leave it and the weights out of weight
    decay, which would draw softplus(weight) to log 2.
    """
    slopes, centre = jax.nn.softplus(params["weight"]), jax.lax.stop_gradient(params["centre"])
    return jax.nn.sigmoid(params["bias"] + (slopes[None, :] * (features - centre[None, :])).sum(-1))


def consistency(
    probability: Float[Array, "b"],
    prior: Float[Array, "b"],
    *,
    gradient: Literal["both", "head", "mask"] = "both",
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    """(p - phi)^2, in [0, 1], between the head's malignancy p and the prior phi of :func:`malignancy_prior`.

    ``gradient`` says what receives a gradient: "head" is p alone, as if phi were a label; "mask" is phi alone, that is
    the outline and the prior's parameters; or "both". Images whose flag in ``where`` is False give 0 with a zero
    gradient: padding, and images whose mask is too small (:func:`large_enough`).
    """
    if gradient not in ("both", "head", "mask"):
        raise ValueError(f'gradient {gradient!r}: choose "both", "head" or "mask".')
    p, phi = fill_both(probability, prior, where)
    if gradient == "head":
        phi = jax.lax.stop_gradient(phi)
    if gradient == "mask":
        p = jax.lax.stop_gradient(p)
    return keep((p - phi) ** 2, where)


def large_enough(probability: Float[Array, "b h w"], *, pixels: Number = 50.0) -> Bool[Array, "b"]:
    """Whether more than ``pixels`` pixels of the soft mask exceed 1/2; a smaller mask has no meaningful shape.

    It has no gradient. The limit is in pixels, not a share of the image, because perimeter and moments need a minimum
    number of them; 50 is a disc of radius 4. Pixels above 1/2 are counted and probabilities are not summed: a haze of
    0.01 over 256 x 256 pixels sums to 655.

    Raises ValueError for values outside [0, 1] (:func:`thyroid_jax.masks.check_mask`).
    """
    check_mask(probability)
    return (probability > 0.5).sum((1, 2)) > pixels


def correlation(
    prior: Float[Array, "b"], label: Float[Array, "b"], *, where: Bool[Array, "b"] | None = None
) -> Float[Array, ""]:
    """Pearson correlation of phi with the label y over the images whose flag is True; 0 if either is constant: see
    :func:`agreement`.
    """
    each = products(*fill_both(prior, label, where))
    return agreement(jnp.stack([masked_mean(column, where) for column in each.T])).correlation


def products(prior: Float[Array, "b"], label: Float[Array, "b"]) -> Float[Array, "b 5"]:
    """phi, y, phi^2, y^2, phi y with 1/2 subtracted from phi and y: :func:`agreement` needs only their means.

    Sums of these rows may be added over batches and devices.
    """
    p, y = prior - 0.5, label - 0.5
    return jnp.stack([p, y, p**2, y**2, p * y], axis=-1)


def agreement(means: Float[Array, "5"]) -> Agreement:
    """Correlation of phi with the label, and phi's standard deviation, from the means of :func:`products` over the
    images.

    corr = (E[py] - E[p] E[y]) / sqrt(var p var y). 0 where phi or the label is constant (standard deviation under
    0.001), as with fewer than two images; NaN where phi or a label is NaN. It has no gradient. Watch the deviation:
    where it goes to 0 the prior is constant and useless, whatever its correlation.
    """
    p, y, pp, yy, py = jax.lax.stop_gradient(means)
    var_p, var_y = jnp.maximum(pp - p**2, 0.0), jnp.maximum(yy - y**2, 0.0)
    varies = ~((var_p <= _CONSTANT) | (var_y <= _CONSTANT))  # so NaN is no constant
    root = jnp.sqrt(jnp.where(varies, var_p * var_y, 1.0))
    return Agreement(jnp.where(varies, jnp.clip((py - p * y) / root, -1, 1), 0.0), jnp.sqrt(var_p))
