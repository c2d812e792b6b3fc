"""A compact radiomics target along the axes of TI-RADS: what guides a part of the grading embedding in training.

Every value compares the nodule with itself or with the ring of tissue around it, because gain and depth gain differ
between machines; all but ``echogenicity_low`` stay as they are when the image is multiplied by a constant. No
published list exists: the choice is this project's. Callipers and text must be blanked first, or they pass for
echogenic foci.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.radiomics import first_order, glcm, levels, raster, shape, windows
from thyroid_jax.shapes import Array, Bool, Float

TARGET: tuple[str, ...] = (
    "height_to_width",  # shape: sqrt(Syy / Sxx), y the depth; above 1 is taller than wide
    "shape2D_Elongation",  # shape: sqrt(minor / major second moment), in [0, 1], 1 for a circle
    "ellipse_to_perimeter",  # margin: perimeter of the moment ellipse / perimeter; near 1 smooth, lower lobulated
    "shape2D_Sphericity",  # margin: 2 sqrt(pi area) / perimeter, in (0, 1]
    "boundary_sharpness",  # margin: mean |normal gradient| within 3 px of the outline / standard deviation of the ring
    "echogenicity",  # echogenicity: log(mean of the nodule / mean of the ring); below 0 is hypoechoic
    "echogenicity_low",  # echogenicity: 10th percentile of the nodule - median of the ring
    "anechoic_share",  # composition: share of the smoothed nodule below the ring's 5th percentile, in [0, 1]
    "firstorder_Entropy",  # composition: entropy of 32 grey bins, in bits
    "glcm_Contrast",  # texture: mean squared difference of neighbouring grey levels, of 32
    "glcm_Idm",  # texture: inverse difference moment of the same, in (0, 1]; 1 for one grey
    "foci_share",  # echogenic foci: share of the nodule whose white top-hat exceeds the ring's mean top-hat + 3 SD, in [0, 1]
    "foci_density",  # echogenic foci: number of spots that those form (a spot's hole takes one off), per 1000 pixels
)
_RING = 10  # pixels
_BAND = 3  # pixels either side of the outline
_BINS = 32  # grey levels of entropy and texture
_SMALLEST = 16  # pixels of nodule and of ring below which nothing is said


class Scaling(NamedTuple):
    """Robust z-score fitted on training examples: (value - centre) / spread, clipped to +-3."""

    centre: np.ndarray
    spread: np.ndarray

    def __call__(self, values: Float[Array, "b r"]) -> Float[Array, "b r"]:
        """Scale a target; the result lies in [-3, 3]."""
        return jnp.clip((values - self.centre[None, :]) / self.spread[None, :], -3.0, 3.0)


@partial(jax.jit, static_argnames="spacing")
def target(
    image: Float[Array, "b h w"], mask: Bool[Array, "b h w"], *, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[Float[Array, "b r"], Bool[Array, "b r"]]:
    """The values of :data:`TARGET`, unscaled, and whether each is defined.

    ``image`` in [0, 1] with exact zeros outside the scan (a letterbox border), ``mask`` the reference outline,
    ``spacing`` (row, column) size of a pixel. Everything is undefined for a nodule of fewer than 16 pixels or one
    that is a line; what compares with the ring (10 pixels of dilation minus the nodule, inside the scan) also where
    fewer than 16 ring pixels remain, or all of them are alike. Undefined values are 0. Not meant to be
    differentiated.
    """
    values, valid = raster.each(partial(_one, spacing=spacing), image, mask)
    valid = valid & jnp.isfinite(values)
    return jnp.where(valid, values, 0.0), valid


def fit_scaling(values: np.ndarray, valid: np.ndarray) -> Scaling:
    """Median and interquartile range of each column over its valid rows (f[n r], bool[n r]).

    Where half of the values are the same (no foci, mostly) the range is 0 and the standard deviation takes its place;
    a constant or unseen column gets spread 1.
    """
    centre, spread = np.zeros(values.shape[1]), np.ones(values.shape[1])
    for column in np.flatnonzero(valid.any(0)):
        seen = values[valid[:, column], column].astype(np.float64)
        low, centre[column], high = np.percentile(seen, [25, 50, 75])
        spread[column] = next((size for size in (high - low, seen.std()) if size > 1e-6), 1.0)
    return Scaling(centre.astype(np.float32), spread.astype(np.float32))


def _one(
    image: Float[Array, "h w"], mask: Bool[Array, "h w"], *, spacing: tuple[float, float]
) -> tuple[Float[Array, "r"], Bool[Array, "r"]]:
    scan = (
        windows.lowest(windows.highest(image, 2), 2) > 0
    )  # a closing: black speckle is inside, a letterbox border is not
    ring = windows.dilate(mask, _RING) & ~mask & scan
    line, row = raster.of(mask)
    perimeter, area = shape.outline(line, row, spacing=spacing)
    m = shape.moments(line, row, spacing=spacing)
    nodule_mean, _ = first_order.mean_and_deviation(image, mask)
    ring_mean, ring_deviation = first_order.mean_and_deviation(image, ring)
    (ring_low, ring_median), (nodule_low,) = first_order.percentiles(image, (ring, (5, 50)), (mask, (10,)))
    smooth = windows.box_mean(image, 1)
    hat = windows.white_top_hat(image, 2)
    hat_mean, hat_deviation = first_order.mean_and_deviation(hat, ring)
    foci = mask & (hat > hat_mean + 3 * hat_deviation)
    count = jnp.maximum(m.count, 1.0)
    tiny = 1e-6
    about_shape = [
        jnp.sqrt(m.rows / jnp.maximum(m.columns, tiny)),
        jnp.sqrt(m.minor / jnp.maximum(m.major, tiny)),
        shape.ellipse_perimeter(m.major, m.minor) / jnp.maximum(perimeter, tiny),
        2 * jnp.sqrt(jnp.pi * area) / jnp.maximum(perimeter, tiny),
    ]
    against_ring = [
        _normal_gradient(smooth, mask) / jnp.maximum(ring_deviation, tiny),
        jnp.log(jnp.maximum(nodule_mean, tiny) / jnp.maximum(ring_mean, tiny)),
        nodule_low - ring_median,
        (mask & (smooth < (1 - 1e-5) * ring_low)).sum() / count,  # equal is not below, however it was rounded
    ]
    foci_values = [foci.sum() / count, 1000 * shape.euler_number(*raster.of(foci)) / count]
    # A branch has a result of its own in memory; else the compiler finds the levels again for every reader.
    level = jax.lax.cond(
        mask.any(), lambda: levels.by_count(image, mask, _BINS), lambda: jnp.zeros(mask.shape, jnp.int32)
    )
    pairs = glcm.cooccurrence(glcm.pairs(*raster.of(level), _BINS), levels.histogram(level, _BINS) > 0)
    average = lambda values: jnp.where(pairs.where, values, 0).sum() / jnp.maximum(pairs.where.sum(), 1)
    texture = [
        first_order.entropy_of(first_order.shares(level, _BINS)),
        average(glcm.contrast(pairs)),
        average(glcm.inverse_difference_moment(pairs)),
    ]
    values = jnp.stack([*about_shape, *against_ring, *texture, *foci_values])
    large = (m.count >= _SMALLEST) & (m.minor > tiny * m.major)
    ringed = (ring.sum() >= _SMALLEST) & (ring_deviation > 1e-4 * ring_mean)
    needs_ring = jnp.array([False] * 4 + [True] * 4 + [False] * 3 + [True] * 2)
    return values, large & (ringed | ~needs_ring)


def _normal_gradient(image: Float[Array, "h w"], mask: Bool[Array, "h w"]) -> Float[Array, ""]:
    """Mean over the band around the outline of |d image / d normal|, the normal being the gradient of the blurred mask."""
    soft = windows.box_mean(mask.astype(jnp.float32), _BAND)
    band = (soft > 0) & (soft < 1)
    (gy, gx), (ny, nx) = jnp.gradient(image), jnp.gradient(soft)
    along = jnp.abs(gy * ny + gx * nx) / jnp.sqrt(ny**2 + nx**2 + 1e-12)
    return jnp.where(band, along, 0.0).sum() / jnp.maximum(band.sum(), 1)
