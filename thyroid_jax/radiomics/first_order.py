"""Grey values inside a mask, wherever they lie. One image at a time; ``jax.vmap`` for a batch.

x_1 ... x_N are the masked grey values, mu their mean and m_q = (1/N) sum_k (x_k - mu)^q their central moments.
y_1 ... y_M are those between the 10th and the 90th percentile, both included, and nu their mean. p_i is the share of
grey level i, of the n levels of :mod:`thyroid_jax.radiomics.levels`, and a the area of a pixel.

Units are those of the grey values. Definitions and names are those of pyradiomics 3.0.1, codes those of the IBSI
reference manual.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.radiomics.levels import histogram
from thyroid_jax.shapes import Array, Bool, Float, Int


class Greys(NamedTuple):
    """What the features need of the masked grey values.

    Attributes:
        count: their number N, at least 1.
        mean, lowest, highest: mu, minimum and maximum; 0 for an empty mask.
        percentiles: the 10th, 25th, 50th, 75th and 90th.
        energy: sum of squares.
        deviation: mean of |x - mu|.
        robust_deviation: mean of |y - nu| over the values between the 10th and the 90th percentile.
        moments: those of the order 1 to 4 about mu. The first is the rounding error of mu.
        p: shares of the grey levels.
        pixel: area of a pixel.
    """

    count: Float[Array, ""]  # type: ignore[assignment]  # a tuple has a method of this name
    mean: Float[Array, ""]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]
    percentiles: Float[Array, "5"]
    energy: Float[Array, ""]
    deviation: Float[Array, ""]
    robust_deviation: Float[Array, ""]
    moments: Float[Array, "4"]
    p: Float[Array, "l"]
    pixel: Float[Array, ""]


def greys(
    image: Float[Array, "*n"],
    mask: Bool[Array, "*n"],
    level: Int[Array, "*n"],
    count: int,
    *,
    pixel: float | Float[Array, ""] = 1.0,
) -> Greys:
    """Gather what the features need of an image.

    Args:
        image: grey values.
        mask: the region; it may be empty.
        level: grey levels, from 1 to ``count`` inside the mask and 0 outside.
        count: the number n of grey levels.
        pixel: area of a pixel.
    """
    number = jnp.maximum(mask.sum(), 1).astype(image.dtype)
    average = lambda values: jnp.where(mask, values, 0).sum() / number
    mean, _ = mean_and_deviation(image, mask)
    lowest, highest = jnp.where(mask, image, jnp.inf).min(), jnp.where(mask, image, -jnp.inf).max()
    (ranked,) = percentiles(image, (mask, (10, 25, 50, 75, 90)))
    kept = mask & (image >= ranked[0]) & (image <= ranked[4])
    centre, _ = mean_and_deviation(image, kept)
    return Greys(
        count=number,
        mean=mean,
        lowest=jnp.where(mask.any(), lowest, 0),
        highest=jnp.where(mask.any(), highest, 0),
        percentiles=ranked,
        energy=jnp.where(mask, image**2, 0).sum(),
        deviation=average(jnp.abs(image - mean)),
        robust_deviation=jnp.where(kept, jnp.abs(image - centre), 0).sum() / jnp.maximum(kept.sum(), 1),
        moments=jnp.stack([average((image - mean) ** power) for power in range(1, 5)]),
        p=shares(level, count),
        pixel=jnp.asarray(pixel, image.dtype),
    )


def mean_and_deviation(image: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and population standard deviation of the masked grey values; (0, 0) for an empty mask."""
    average = lambda values: jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
    mean = average(image)
    mean = mean + average(image - mean)  # corrects the rounding of a long float32 sum
    return mean, jnp.sqrt(average((image - mean) ** 2))


def percentiles(
    image: Float[Array, "*n"], *parts: tuple[Bool[Array, "*n"], tuple[int, ...]]
) -> tuple[Float[Array, "q"], ...]:
    """Percentiles of the grey values in each of several masks, linear between neighbours as in numpy.

    Each part is (mask, percents), with whole percents from 0 to 100; the masks do not overlap. One array is returned
    for each part. Percentiles of an empty mask are 0.
    """
    member, ranks, shares = jnp.full(image.size, len(parts)), [], []
    for number, (mask, percents) in enumerate(parts):
        member = jnp.where(mask.ravel(), number, member)
        last = jnp.maximum(mask.sum() - 1, 0)
        low, hundredths = jnp.divmod(jnp.asarray(percents) * last, 100)
        ranks += [low, jnp.minimum(low + 1, last)]
        shares.append(hundredths / jnp.asarray(100, image.dtype))
    sizes = [rank.size for rank in ranks]
    group = jnp.asarray(np.repeat(np.arange(len(ranks)) // 2, sizes))
    values = jnp.split(_nth(image.ravel(), member, jnp.concatenate(ranks), group), np.cumsum(sizes)[:-1])
    between = [
        low + jnp.where(share > 0, share * (high - low), 0)
        for low, high, share in zip(values[::2], values[1::2], shares)
    ]
    return tuple(jnp.where(mask.any(), value, 0.0) for (mask, _), value in zip(parts, between))


def _nth(
    values: Float[Array, "n"], member: Int[Array, "n"], ranks: Int[Array, "q"], group: Int[Array, "q"]
) -> Float[Array, "q"]:
    """The values of the given ranks in ascending order, counted from 0, each among the members of its group.

    A radix search over the bytes of the values, which is faster than sorting: count the next byte in each group, find
    the byte in which each rank lies, and keep the values with that byte as the rank's new group. A group has the
    number of the first rank that looks into it; a value in no group has the number of ranks.
    """
    number, bits = ranks.shape[0], 8 * values.dtype.itemsize
    keys = _ascending(jnp.asarray(values))
    first_rank = jnp.full(number + 1, number).at[group].min(jnp.arange(number))
    member, group = first_rank[member], first_rank[group]
    found = jnp.zeros(number, keys.dtype)
    for shift in range(bits - 8, -8, -8):
        slot = member * 256 + ((keys >> shift) & 255).astype(jnp.int32)
        counts = jnp.zeros((number + 1) * 256, jnp.int32).at[slot].add(1).reshape(-1, 256)
        below = jnp.cumsum(counts[group], axis=1)
        byte = (below <= ranks[:, None]).sum(1)
        ranks = ranks - jnp.where(byte > 0, jnp.take_along_axis(below, jnp.maximum(byte - 1, 0)[:, None], 1)[:, 0], 0)
        found = (found << 8) | byte.astype(keys.dtype)
        first = ((group[:, None] == group[None, :]) & (byte[:, None] == byte[None, :])).argmax(1)
        member = jnp.full((number + 1) * 256, number).at[group * 256 + byte].set(first)[slot]
        group = first
    return _ascending(found, back=values.dtype)


def _ascending(numbers: Array, back: jnp.dtype | None = None) -> Array:
    """Floats to unsigned integers of the same order, by their bits; with ``back`` the other way, to that type."""
    signed = jnp.int64 if numbers.dtype.itemsize == 8 else jnp.int32
    unsigned = jnp.uint64 if numbers.dtype.itemsize == 8 else jnp.uint32
    top = unsigned(1) << (8 * numbers.dtype.itemsize - 1)
    # Negative numbers count backwards.
    flipped = lambda bits: bits ^ ((bits >> (jnp.iinfo(signed).bits - 1)) & jnp.iinfo(signed).max)
    if back is None:
        return jax.lax.bitcast_convert_type(flipped(jax.lax.bitcast_convert_type(numbers, signed)), unsigned) ^ top
    return jax.lax.bitcast_convert_type(flipped(jax.lax.bitcast_convert_type(numbers ^ top, signed)), back)


def shares(level: Int[Array, "*n"], count: int) -> Float[Array, "l"]:
    """Share of every level 1 to ``count`` among the pixels of level 1 and more; zeros for an empty mask."""
    counts = histogram(level, count)
    return counts / jnp.maximum(counts.sum(), 1)


def entropy_of(p: Float[Array, "n"]) -> Float[Array, ""]:
    """- sum_i p_i log2 p_i, in bits, in [0, log2 n]. 0 for one level or none: 0 log2 0 = 0."""
    return -(p * jnp.log2(jnp.where(p > 0, p, 1))).sum()


def energy(g: Greys) -> Float[Array, ""]:
    """sum_k x_k^2, >= 0. IBSI N8CA."""
    return g.energy


def total_energy(g: Greys) -> Float[Array, ""]:
    """a sum_k x_k^2, >= 0. No IBSI code."""
    return g.pixel * g.energy


def entropy(g: Greys) -> Float[Array, ""]:
    """- sum_i p_i log2 p_i, in bits, in [0, log2 n]. IBSI TLU2."""
    return entropy_of(g.p)


def minimum(g: Greys) -> Float[Array, ""]:
    """min_k x_k, any sign. IBSI 1GSF."""
    return g.lowest


def percentile_10(g: Greys) -> Float[Array, ""]:
    """percentile(x, 10), linear between neighbours, in [min_k x_k, max_k x_k]. IBSI QG58."""
    return g.percentiles[0]


def percentile_90(g: Greys) -> Float[Array, ""]:
    """percentile(x, 90), linear between neighbours, in [min_k x_k, max_k x_k]. IBSI 8DWT."""
    return g.percentiles[4]


def maximum(g: Greys) -> Float[Array, ""]:
    """max_k x_k, any sign. IBSI 84IY."""
    return g.highest


def mean(g: Greys) -> Float[Array, ""]:
    """(1/N) sum_k x_k, in [min_k x_k, max_k x_k]. IBSI Q4LE."""
    return g.mean


def median(g: Greys) -> Float[Array, ""]:
    """percentile(x, 50), linear between neighbours, in [min_k x_k, max_k x_k]. IBSI Y12H."""
    return g.percentiles[2]


def interquartile_range(g: Greys) -> Float[Array, ""]:
    """percentile(x, 75) - percentile(x, 25), >= 0. IBSI SALO."""
    return g.percentiles[3] - g.percentiles[1]


def value_range(g: Greys) -> Float[Array, ""]:
    """max_k x_k - min_k x_k, >= 0. IBSI 2OJQ."""
    return g.highest - g.lowest


def mean_absolute_deviation(g: Greys) -> Float[Array, ""]:
    """(1/N) sum_k |x_k - mu|, >= 0. IBSI 4FUA."""
    return g.deviation


def robust_mean_absolute_deviation(g: Greys) -> Float[Array, ""]:
    """(1/M) sum_k |y_k - nu|, y the values between the 10th and the 90th percentile, >= 0. IBSI 1128."""
    return g.robust_deviation


def root_mean_squared(g: Greys) -> Float[Array, ""]:
    """sqrt((1/N) sum_k x_k^2), >= 0. IBSI 5ZWQ."""
    return jnp.sqrt(g.energy / g.count)


def skewness(g: Greys) -> Float[Array, ""]:
    """m_3 / m_2^1.5, any sign. 0, undefined, for one grey value. IBSI KE2M."""
    first, second, third, _ = g.moments
    return jnp.where(
        g.highest > g.lowest, (third - 3 * first * second) / jnp.where(g.highest > g.lowest, second, 1) ** 1.5, 0
    )


def kurtosis(g: Greys) -> Float[Array, ""]:
    """m_4 / m_2^2, >= 1. 3 for a normal distribution; 0, undefined, for one grey value. IBSI IPH6 + 3."""
    _, second, _, fourth = g.moments
    return jnp.where(g.highest > g.lowest, fourth / jnp.where(g.highest > g.lowest, second, 1) ** 2, 0)


def variance(g: Greys) -> Float[Array, ""]:
    """(1/N) sum_k (x_k - mu)^2, >= 0. IBSI ECT3."""
    return g.moments[1]


def uniformity(g: Greys) -> Float[Array, ""]:
    """sum_i p_i^2, in [1 / n, 1]. IBSI BJ5W."""
    return (g.p**2).sum()


FEATURES = {
    "firstorder_10Percentile": percentile_10,
    "firstorder_90Percentile": percentile_90,
    "firstorder_Energy": energy,
    "firstorder_Entropy": entropy,
    "firstorder_InterquartileRange": interquartile_range,
    "firstorder_Kurtosis": kurtosis,
    "firstorder_Maximum": maximum,
    "firstorder_MeanAbsoluteDeviation": mean_absolute_deviation,
    "firstorder_Mean": mean,
    "firstorder_Median": median,
    "firstorder_Minimum": minimum,
    "firstorder_Range": value_range,
    "firstorder_RobustMeanAbsoluteDeviation": robust_mean_absolute_deviation,
    "firstorder_RootMeanSquared": root_mean_squared,
    "firstorder_Skewness": skewness,
    "firstorder_TotalEnergy": total_energy,
    "firstorder_Uniformity": uniformity,
    "firstorder_Variance": variance,
}
