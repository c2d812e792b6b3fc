"""Grey values inside a mask. One image at a time; ``jax.vmap`` for a batch."""

from __future__ import annotations

import jax.numpy as jnp

from thyroid_jax.shapes import Bool, Float


def mean_and_deviation(image: Float["h w"], mask: Bool["h w"]) -> tuple[Float[""], Float[""]]:
    """Mean and population standard deviation of the masked grey values; (0, 0) for an empty mask."""
    n = jnp.maximum(mask.sum(), 1)
    mean = jnp.where(mask, image, 0.0).sum() / n
    return mean, jnp.sqrt(jnp.where(mask, (image - mean) ** 2, 0.0).sum() / n)


def percentiles(image: Float["h w"], mask: Bool["h w"], levels: tuple[float, ...]) -> Float["q"]:
    """Percentiles (0 to 100) of the masked grey values, linear between neighbours as in numpy; 0 for an empty mask."""
    ordered = jnp.sort(jnp.where(mask, image, jnp.inf).ravel())
    last = jnp.maximum(mask.sum() - 1, 0)
    position = jnp.asarray(levels, jnp.float32) / 100 * last
    low = jnp.floor(position).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    share = position - low
    values = ordered[low] * (1 - share) + jnp.where(share > 0, ordered[high], 0.0) * share
    return jnp.where(mask.any(), values, 0.0)


def entropy(image: Float["h w"], mask: Bool["h w"], *, bin_count: int) -> Float[""]:
    """firstorder_Entropy: - sum_i p_i log2(p_i + eps) over ``bin_count`` equal bins from the masked minimum to the maximum, in bits.

    A value on an edge belongs to the bin above it, the maximum to the last. 0 for one grey level or an empty mask; at most
    log2(bin_count). eps = 2.2e-16 as in pyradiomics. IBSI TLU2.
    """
    lowest = jnp.where(mask, image, jnp.inf).min()
    highest = jnp.where(mask, image, -jnp.inf).max()
    # 8-bit values often lie on an edge but for rounding: a thousandth of a bin still counts as on it.
    level = jnp.floor((image - lowest) / jnp.maximum(highest - lowest, 1e-12) * bin_count + 1e-3)
    level = jnp.clip(jnp.where(mask, level, 0), 0, bin_count - 1).astype(jnp.int32)
    counts = jnp.zeros(bin_count).at[level.ravel()].add(mask.ravel().astype(jnp.float32))
    p = counts / jnp.maximum(counts.sum(), 1.0)
    return jnp.where(mask.any(), -(p * jnp.log2(p + 2.2e-16)).sum(), 0.0)
