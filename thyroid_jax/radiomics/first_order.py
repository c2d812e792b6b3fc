"""Grey values inside a mask, wherever they lie. One image at a time; ``jax.vmap`` for a batch.

x_1 ... x_N are the masked grey values, mu their mean; p_i is the share of grey level i, of the n levels of
:mod:`thyroid_jax.radiomics.levels`. Units are those of the grey values. Definitions and names as in pyradiomics 3.0.1, codes of the IBSI
reference manual.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thyroid_jax.shapes import Bool, Float, Int


class Greys(NamedTuple):
    """The masked values: sums over them, percentiles 10, 25, 50, 75 and 90, and the shares of the grey levels."""

    image: Float["h w"]
    mask: Bool["h w"]
    count: Float[""]
    mean: Float[""]
    lowest: Float[""]
    highest: Float[""]
    percentiles: Float["5"]
    p: Float["n"]
    pixel: Float[""]


def greys(image: Float["h w"], mask: Bool["h w"], level: Int["h w"], count: int, *, pixel: float | Float[""] = 1.0) -> Greys:
    """Gather what the features need; ``level`` runs from 1 to ``count`` inside the mask, ``pixel`` is the area of a pixel."""
    mean, _ = mean_and_deviation(image, mask)
    lowest, highest = jnp.where(mask, image, jnp.inf).min(), jnp.where(mask, image, -jnp.inf).max()
    return Greys(
        image=image,
        mask=mask,
        count=jnp.maximum(mask.sum(), 1).astype(image.dtype),
        mean=mean,
        lowest=jnp.where(mask.any(), lowest, 0),
        highest=jnp.where(mask.any(), highest, 0),
        percentiles=percentiles(image, mask, (10, 25, 50, 75, 90)),
        p=shares(level, count),
        pixel=jnp.asarray(pixel, image.dtype),
    )


def mean_and_deviation(image: Float["h w"], mask: Bool["h w"]) -> tuple[Float[""], Float[""]]:
    """Mean and population standard deviation of the masked grey values; (0, 0) for an empty mask."""
    average = lambda values: jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)
    mean = average(image)
    mean = mean + average(image - mean)  # what a long float32 sum lost
    return mean, jnp.sqrt(average((image - mean) ** 2))


def percentiles(image: Float["h w"], mask: Bool["h w"], ranks: tuple[int, ...]) -> Float["q"]:
    """Percentiles (0 to 100) of the masked grey values, linear between neighbours as in numpy; 0 for an empty mask."""
    ordered = _ordered(jnp.where(mask, image, jnp.inf).ravel())
    last = jnp.maximum(mask.sum() - 1, 0)
    hundredths = jnp.asarray(ranks) * last
    low = hundredths // 100
    high = jnp.minimum(low + 1, last)
    share = (hundredths % 100) / jnp.asarray(100, image.dtype)
    values = ordered[low] + jnp.where(share > 0, share * (ordered[high] - ordered[low]), 0)
    return jnp.where(mask.any(), values, 0.0)


def _ordered(values: Float["n"]) -> Float["n"]:
    """The values in ascending order, sorted as the integers that their bits spell: faster than comparing floats on a CPU."""
    whole = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    flipped = lambda bits: bits ^ ((bits >> (jnp.iinfo(whole).bits - 1)) & jnp.iinfo(whole).max)  # negative numbers count backwards
    bits = jax.lax.sort(flipped(jax.lax.bitcast_convert_type(values, whole)), is_stable=False)
    return jax.lax.bitcast_convert_type(flipped(bits), values.dtype)


def shares(level: Int["h w"], count: int) -> Float["n"]:
    """Share of every level 1 to ``count`` among the masked pixels, those of level 1 and more; zeros for an empty mask."""
    counts = jnp.zeros(count + 1, float).at[level.ravel()].add(1)[1:]
    return counts / jnp.maximum(counts.sum(), 1)


def entropy_of(p: Float["n"]) -> Float[""]:
    """- sum_i p_i log2 p_i in bits, with 0 log2 0 = 0: 0 for one level or none, at most log2 n."""
    return -(p * jnp.log2(jnp.where(p > 0, p, 1))).sum()


def _average(g: Greys, values: Float["h w"]) -> Float[""]:
    return jnp.where(g.mask, values, 0).sum() / g.count


def _moment(g: Greys, power: int) -> Float[""]:
    return _average(g, (g.image - g.mean) ** power)


def energy(g: Greys) -> Float[""]:
    """sum_k x_k^2, >= 0. IBSI N8CA."""
    return jnp.where(g.mask, g.image**2, 0).sum()


def total_energy(g: Greys) -> Float[""]:
    """Area of a pixel times sum_k x_k^2, >= 0."""
    return g.pixel * energy(g)


def entropy(g: Greys) -> Float[""]:
    """- sum_i p_i log2 p_i, in bits, in [0, log2 n]. IBSI TLU2."""
    return entropy_of(g.p)


def minimum(g: Greys) -> Float[""]:
    """min_k x_k. IBSI 1GSF."""
    return g.lowest


def percentile_10(g: Greys) -> Float[""]:
    """10th percentile of x, linear between neighbours. IBSI QG58."""
    return g.percentiles[0]


def percentile_90(g: Greys) -> Float[""]:
    """90th percentile of x, linear between neighbours. IBSI 8DWT."""
    return g.percentiles[4]


def maximum(g: Greys) -> Float[""]:
    """max_k x_k. IBSI 84IY."""
    return g.highest


def mean(g: Greys) -> Float[""]:
    """mu = 1/N sum_k x_k. IBSI Q4LE."""
    return g.mean


def median(g: Greys) -> Float[""]:
    """50th percentile of x. IBSI Y12H."""
    return g.percentiles[2]


def interquartile_range(g: Greys) -> Float[""]:
    """75th less 25th percentile of x, >= 0. IBSI SALO."""
    return g.percentiles[3] - g.percentiles[1]


def value_range(g: Greys) -> Float[""]:
    """max_k x_k - min_k x_k, >= 0. IBSI 2OJQ."""
    return g.highest - g.lowest


def mean_absolute_deviation(g: Greys) -> Float[""]:
    """1/N sum_k |x_k - mu|, >= 0. IBSI 4FUA."""
    return _average(g, jnp.abs(g.image - g.mean))


def robust_mean_absolute_deviation(g: Greys) -> Float[""]:
    """Mean absolute deviation, from their own mean, of the values between the 10th and the 90th percentile, >= 0. IBSI 1128."""
    kept = g.mask & (g.image >= g.percentiles[0]) & (g.image <= g.percentiles[4])
    centre, _ = mean_and_deviation(g.image, kept)
    return jnp.where(kept, jnp.abs(g.image - centre), 0).sum() / jnp.maximum(kept.sum(), 1)


def root_mean_squared(g: Greys) -> Float[""]:
    """sqrt(1/N sum_k x_k^2), >= 0. IBSI 5ZWQ."""
    return jnp.sqrt(_average(g, g.image**2))


def skewness(g: Greys) -> Float[""]:
    """m_3 / m_2^1.5, m_q = 1/N sum_k (x_k - mu)^q. 0, undefined, for one grey value. IBSI KE2M."""
    third = _moment(g, 3) - 3 * _moment(g, 1) * _moment(g, 2)  # the first moment is what the mean was rounded by
    return jnp.where(g.highest > g.lowest, third / jnp.where(g.highest > g.lowest, _moment(g, 2), 1) ** 1.5, 0)


def kurtosis(g: Greys) -> Float[""]:
    """m_4 / m_2^2, m_q = 1/N sum_k (x_k - mu)^q, >= 1, 3 for a normal distribution. 0, undefined, for one grey value. IBSI IPH6 + 3."""
    return jnp.where(g.highest > g.lowest, _moment(g, 4) / jnp.where(g.highest > g.lowest, _moment(g, 2), 1) ** 2, 0)


def variance(g: Greys) -> Float[""]:
    """m_2 = 1/N sum_k (x_k - mu)^2, >= 0. IBSI ECT3."""
    return _moment(g, 2)


def uniformity(g: Greys) -> Float[""]:
    """sum_i p_i^2, in [1/n, 1]. IBSI BJ5W."""
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
