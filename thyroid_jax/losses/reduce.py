"""The one place where per-example values become a number."""

from __future__ import annotations

import jax.numpy as jnp

from thyroid_jax.shapes import Array, Bool, Float


def masked_mean(values: Float[Array, "*n"], where: Bool[Array, "*n"] | None = None) -> Float[Array, ""]:
    """Mean of the values whose flag is True: sum(where * values) / max(sum(where), 1).

    No True flag at all gives 0 with a zero gradient. A NaN behind a False flag neither counts nor spoils the gradient.
    """
    if where is None:
        return jnp.mean(values)
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where), 1)


def keep(values: Float[Array, "b"], where: Bool[Array, "b"] | None) -> Float[Array, "b"]:
    """Values with 0 wherever the flag is False."""
    return values if where is None else jnp.where(where, values, 0.0)


def fill(array: Float[Array, "b *rest"], where: Bool[Array, "b"] | None, value: float = 0.0) -> Float[Array, "b *rest"]:
    """The array with ``value`` in every row whose flag is False: what a loss reads there is then finite, and so is its
    gradient.
    """
    if where is None:
        return array
    return jnp.where(where.reshape(where.shape + (1,) * (array.ndim - 1)), array, value)
