"""Reduction of per-example values, done only here: to a sum and a count, which are divided once, at the very end.

Sums and counts can be added over batches, devices and hosts; the mean then does not depend on where labels are missing.
A mean of means does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from thyroid_jax.shapes import Array, Bool, Float


class Pair(NamedTuple):
    """A sum and the count that it runs over: add pairs up, then divide."""

    sum: Float[Array, "*n"]
    count: Float[Array, ""]  # type: ignore[assignment]  # a tuple has a method of this name


Metrics = dict[str, Pair]


def pair(values: Float[Array, "b"], where: Bool[Array, "b"]) -> Pair:
    """(sum, count) of per-example values over the examples whose flag is True."""
    return Pair(jnp.where(where, values, 0.0).sum(), where.sum().astype(values.dtype))


def whole(value: Float[Array, "*n"], axis: str | None = None) -> Pair:
    """One device's part of a value of the whole batch that is the same on every device of ``axis``.

    The parts add up to (value, 1): an epoch's sums count a step once, on however many devices it was taken.
    """
    return Pair(value / size(axis), jnp.ones((), value.dtype) / size(axis))


def share(value: Float[Array, "*n"], axis: str | None) -> Pair:
    """One device's part of a value of the whole batch: the parts of the devices of ``axis`` add up to it."""
    return Pair(value, jnp.ones((), value.dtype) / size(axis))


def size(axis: str | None) -> int:
    """Number of devices on the mapped axis ``axis``; 1 without one."""
    return 1 if axis is None else jax.lax.axis_size(axis)


def summed(tree: Any, axis: str | None) -> Any:
    """The sum of a tree over the mapped axis ``axis``; the tree itself where arrays are whole (``axis`` None)."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def summed_at_once(tree: Any, axis: str | None) -> Any:
    """:func:`summed`, as one vector: the devices exchange all arrays in one operation.

    The compiler joins sums of separate arrays only where no other sum of the program stands between them.
    """
    if axis is None:
        return tree
    vector, arrays_of = ravel_pytree(tree)
    return arrays_of(jax.lax.psum(vector, axis))


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
    """The array, at least float32, with ``value`` in every row whose flag is False: a loss and its gradient are finite
    there.
    """
    array = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    if where is None:
        return array
    return jnp.where(where.reshape(where.shape + (1,) * (array.ndim - 1)), array, value)


def fill_both(
    prediction: Array, target: Array, where: Array | None
) -> tuple[Float[Array, "b *rest"], Float[Array, "b *rest"]]:
    """:func:`fill` of a prediction and its target.

    Raises ValueError unless both have one shape and ``where`` a flag for each row: b predictions of shape [b 1] and b
    targets of shape [b] would otherwise be compared each with each, and the loss be wrong without a word.
    """
    if prediction.shape != target.shape or (where is not None and where.shape != prediction.shape[:1]):
        flags = None if where is None else where.shape
        raise ValueError(
            f"prediction {prediction.shape}, target {target.shape}, where {flags}: prediction and target must have one "
            "shape, and where its first side."
        )
    return fill(prediction, where), fill(target, where)
