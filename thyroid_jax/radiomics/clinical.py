"""A compact radiomics target along the axes of TI-RADS. It guides a part of the grading embedding in training.

Every value compares the nodule with itself or with the ring of tissue around it, because gain and depth gain differ
between machines: no value changes when the image is multiplied by a constant. The target is measured on random views
of an image, so every value is measured in a way that such a view hardly changes: on soft outlines, on a smoothed
image, without extremes (``docs/radiomics.md`` has the figures). No published list exists: the choice is this
project's. Callipers and text must be blanked first, or they are measured as echogenic foci.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.masks import check_mask
from thyroid_jax.radiomics import first_order, glcm, islands, levels, raster, shape, soft, windows
from thyroid_jax.shapes import Array, Bool, Float, Int

# The first two are averages over the connected parts of the mask, by area. "Smoothed" is the mean of 3 x 3 pixels: the
# perimeter is that of the smoothed mask, the white top-hat (spots narrower than 5 pixels) that of the smoothed image.
# * A pixel at the limit counts half; its weight is linear within 1/2 SD of the ring (for foci 1 SD of its top-hat).
TARGET: tuple[str, ...] = (
    "log_height_to_width",  # shape: log sqrt(Syy / Sxx), y the depth; above 0 is taller than wide
    "elongation",  # shape: sqrt(minor / major second moment), in (0, 1], 1 for a circle
    "ellipse_to_perimeter",  # margin: perimeters of the parts' moment ellipses / perimeter; near 1 smooth, lower lobed
    "circle_to_perimeter",  # margin: perimeters of circles of the parts' areas / perimeter; near 1 for a circle
    "boundary_sharpness",  # margin: mean |normal gradient|, smoothed, within 3 px of the outline / SD of the ring
    "echogenicity",  # echogenicity: log(mean of the nodule / of the ring), >= log 1e-6; below 0 is hypoechoic
    "echogenicity_low",  # echogenicity: 10th percentile of the smoothed nodule / median of the smoothed ring; >= 0
    "root_anechoic_share",  # composition: sqrt of the share below the ring's 5th percentile, both smoothed *
    "smoothed_entropy",  # composition: entropy of 32 grey bins of the smoothed nodule, in bits
    "log_smoothed_contrast",  # texture: log(1 + mean squared difference of neighbouring grey levels, of 32), smoothed
    "smoothed_idm",  # texture: inverse difference moment of the same, in (0, 1]; 1 for one grey
    "root_foci_share",  # echogenic foci: sqrt of the share whose top-hat is above the ring's mean top-hat + 3 SD *
    "foci_strength",  # echogenic foci: log(1 + (mean of the nodule's top-hat^4)^1/4 / the ring's mean top-hat)
)
_NEEDS_IMAGE = np.array([name in TARGET[4:] for name in TARGET])
_NEEDS_RING = np.array([name in TARGET[4:8] + TARGET[11:] for name in TARGET])
_RING = 10  # pixels
_BAND = 3  # pixels either side of the outline
_BINS = 32  # grey levels of entropy and texture
_SMALLEST = 16  # pixels of nodule and of ring below which values are undefined
_THIN = 0.1  # pixel^2: second moment across below which a mask is a line; one pixel has 1 / 12, two have 1 / 3
_TINY = 1e-6


class Scaling(NamedTuple):
    """Robust z-score fitted on training examples: (value - centre) / spread, clipped to +-3."""

    centre: np.ndarray
    spread: np.ndarray

    def __call__(self, values: Float[Array, "b r"]) -> Float[Array, "b r"]:
        """Scale a target; the result lies in [-3, 3]."""
        return jnp.clip((values - self.centre[None, :]) / self.spread[None, :], -3.0, 3.0)


def mask_cut(readers: Collection[int]) -> float:
    """The value at which to cut the mean of several readers' outlines: on none of the plateaus j / R, for every number
    of readers R in ``readers``.

    It is 1/2 if every R is odd: this is the middle of a gap between plateaus. Otherwise 1/2 is a plateau itself, where
    interpolation and rounding would decide. Then it is the middle of the gap below, (p + 1/2) / 2 with p the highest
    plateau below 1/2: 1/4 for two readers (what one of them drew counts), 3/8 for four, 5/12 for two and three.
    """
    if not readers or min(readers) < 1:
        raise ValueError(f"readers {tuple(readers)}: give the numbers of readers that occur, each at least 1.")
    if all(count % 2 for count in readers):
        return 0.5
    return (max((count - 1) // 2 / count for count in readers) + 0.5) / 2


def target(
    image: Float[Array, "b h w"] | Int[Array, "b h w"],
    mask: Bool[Array, "b h w"] | Float[Array, "b h w"],
    *,
    cut: float | Float[Array, ""] = 0.5,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> tuple[Float[Array, "b r"], Bool[Array, "b r"]]:
    """The values of :data:`TARGET`, unscaled, and whether each is defined.

    ``image`` in [0, 1] with exact zeros outside the scan (a letterbox border); ``mask`` the reference outline, bool or
    soft in [0, 1] (after interpolation, or the mean of several readers); ``spacing`` (row, column) size of a pixel, of
    which only the ratio matters. Values are computed in float32 at least.
    The first four values are those of the soft mask: the perimeter is the mean length of its contours, that is, of its
    readers' outlines where they lie inside each other. The others look at the pixels with mask >= ``cut``, which may
    be traced; :func:`mask_cut` gives one that lies on no plateau. A bool mask does not need it. Cut a prediction first:
    a haze around it would lengthen its perimeter.

    Every value is undefined for a nodule of fewer than 16 pixels or one that is a line one pixel wide. A comparison
    with the ring (10 pixels of dilation minus the nodule, inside the scan) is also undefined where fewer than 16 ring
    pixels remain, or all of them are equal. A NaN or an infinity in the image leaves the first four values only, one in
    the mask leaves none. Undefined values are 0. The function is not meant to be differentiated.
    Raises ValueError for a mask outside [0, 1] (:func:`thyroid_jax.masks.check_mask`).
    """
    check_mask(mask, "mask")
    return _target(image, mask, cut=cut, spacing=spacing)


@partial(jax.jit, static_argnames="spacing")
def _target(
    image: Float[Array, "b h w"] | Int[Array, "b h w"],
    mask: Bool[Array, "b h w"] | Float[Array, "b h w"],
    *,
    cut: float | Float[Array, ""],
    spacing: tuple[float, float],
) -> tuple[Float[Array, "b r"], Bool[Array, "b r"]]:
    measure = partial(_of_image, cut=cut, spacing=soft.pixels_of_area_one(spacing))
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    values, valid = raster.map_images(measure, image, mask.astype(image.dtype))
    valid = valid & jnp.isfinite(values)
    return jnp.where(valid, values, 0.0), valid


def fit_scaling(values: np.ndarray, valid: np.ndarray) -> Scaling:
    """Centre and spread of each value over the examples where it is valid (f[... r], bool[... r]).

    Fit it on what the training step sees: some augmented views of every training example, f[views n r]. The spread is
    the interquartile range, or the distance of the 10th and the 90th percentile / 1.9 where that is wider (they are
    equal for a normal distribution): otherwise a peak of a value with two peaks, such as height / width, would be
    clipped. The centre is Huber's location: the clipped z-scores have mean 0. Where most values are the same (as
    without foci) the standard deviation is the spread; a constant or unseen value gets spread 1.
    """
    values, valid = (np.reshape(a, (-1, np.shape(a)[-1])) for a in (values, valid))
    centre, spread = np.zeros(values.shape[1]), np.ones(values.shape[1])
    for column in np.flatnonzero(valid.any(0)):
        seen = values[valid[:, column], column].astype(np.float64)
        lowest, low, middle, high, highest = np.percentile(seen, [10, 25, 50, 75, 90])
        sizes = (max(high - low, (highest - lowest) / 1.9), seen.std())
        spread[column] = next((size for size in sizes if size > 1e-6), 1.0)
        centre[column] = _huber_location(seen, middle, spread[column])
    return Scaling(centre.astype(np.float32), spread.astype(np.float32))


def _huber_location(seen: np.ndarray, centre: float, spread: float) -> float:
    """The centre c with mean clip((x - c) / spread, -3, 3) = 0, by iteration from a first guess. Source: Huber 1964."""
    for _ in range(50):
        centre += spread * np.clip((seen - centre) / spread, -3, 3).mean()
    return centre


def _of_image(
    image: Float[Array, "h w"],
    mask: Float[Array, "h w"],
    *,
    cut: float | Float[Array, ""],
    spacing: tuple[float, float],
) -> tuple[Float[Array, "r"], Bool[Array, "r"]]:
    nodule = mask >= cut
    # A closing: black speckle is inside the scan, a letterbox border is not.
    scan = windows.lowest(windows.highest(image, 2), 2) > 0
    ring = windows.dilate(nodule, _RING) & ~nodule & scan
    ring_mean, ring_deviation = first_order.mean_and_deviation(image, ring)
    smooth = windows.box_mean(image, 1)
    outline, across = _outline(mask, nodule, spacing)
    values = jnp.stack(
        [
            *outline,
            _normal_gradient(smooth, nodule) / jnp.maximum(ring_deviation, _TINY),
            *_echogenicity(image, smooth, nodule, ring, ring_mean, ring_deviation),
            *_texture(smooth, nodule),
            *_foci(smooth, nodule, ring),
        ]
    )
    large = (nodule.sum() >= _SMALLEST) & (across > _THIN)
    ringed = (ring.sum() >= _SMALLEST) & (ring_deviation > 1e-4 * ring_mean)
    known = jnp.isfinite(image).all()  # of a NaN the grey levels would make one grey, which has a texture
    return values, large & jnp.isfinite(mask).all() & (ringed | ~_NEEDS_RING) & (known | ~_NEEDS_IMAGE)


def _outline(
    mask: Float[Array, "h w"], nodule: Bool[Array, "h w"], spacing: tuple[float, float]
) -> tuple[list[Float[Array, ""]], Float[Array, ""]]:
    """The values of shape and of the outline's smoothness, and the mean second moment across the parts in pixel^2.

    The mask is smoothed before its perimeter is measured: the perimeter of a hard edge is 5 % too long, that of an
    interpolated edge less, and both are nearly equal after smoothing. More smoothing would remove spicules.
    """
    rows, columns = spacing
    label = islands.labels(nodule, mask > 0)
    mask = jnp.where(label > 0, mask, 0.0)

    def of_part(part: Bool[Array, "h w"]) -> Float[Array, "6"]:
        alone = jnp.where(part, mask, 0.0)
        pixels = soft.moments(alone)
        m = pixels._replace(
            rows=pixels.rows * rows**2, columns=pixels.columns * columns**2, cross=pixels.cross * rows * columns
        )
        area = soft.area(alone, spacing=spacing)
        major, minor = soft.axes(m)
        tall, round_, across = jnp.log(m.rows / m.columns) / 2, jnp.sqrt(minor / major), soft.axes(pixels)[1]
        perimeters = [shape.ellipse_perimeter(major, minor), 2 * jnp.sqrt(jnp.pi * area)]
        return jnp.stack([area, area * tall, area * round_, area * across, *perimeters])

    area, tall, round_, across, ellipses, circles = islands.total(label, of_part)
    area = jnp.maximum(area, _TINY)
    perimeter = jnp.maximum(soft.perimeter(windows.box_mean(jnp.pad(mask, 2), 1), spacing=spacing), _TINY)
    return [tall / area, round_ / area, ellipses / perimeter, circles / perimeter], across / area


def _normal_gradient(image: Float[Array, "h w"], mask: Bool[Array, "h w"]) -> Float[Array, ""]:
    """Mean of |d image / d normal| over the band around the outline; the normal is the gradient of the blurred mask."""
    blurred = windows.box_mean(mask.astype(jnp.float32), _BAND)
    band = (blurred > 0) & (blurred < 1)
    (gy, gx), (ny, nx) = jnp.gradient(image), jnp.gradient(blurred)
    along = jnp.abs(gy * ny + gx * nx) / jnp.sqrt(ny**2 + nx**2 + 1e-12)
    return jnp.where(band, along, 0.0).sum() / jnp.maximum(band.sum(), 1)


def _echogenicity(
    image: Float[Array, "h w"],
    smooth: Float[Array, "h w"],
    nodule: Bool[Array, "h w"],
    ring: Bool[Array, "h w"],
    ring_mean: Float[Array, ""],
    ring_deviation: Float[Array, ""],
) -> list[Float[Array, ""]]:
    mean, _ = first_order.mean_and_deviation(image, nodule)
    (ring_low, ring_median), (low,) = first_order.percentiles(smooth, (ring, (5, 50)), (nodule, (10,)))
    below = (ring_low - smooth) / jnp.maximum(ring_deviation, _TINY)
    return [
        jnp.log(jnp.maximum(mean / jnp.maximum(ring_mean, _TINY), _TINY)),
        low / jnp.maximum(ring_median, _TINY),
        jnp.sqrt(_mean(_above(below, 0.0, 0.5), nodule)),
    ]


def _texture(smooth: Float[Array, "h w"], nodule: Bool[Array, "h w"]) -> list[Float[Array, ""]]:
    # A branch stores its result in memory; without it the compiler computes the levels again for every use.
    level = jax.lax.cond(
        nodule.any(), lambda: levels.by_count(smooth, nodule, _BINS), lambda: jnp.zeros(nodule.shape, jnp.int32)
    )
    pairs = glcm.cooccurrence(glcm.pairs(*raster.to_line(level), _BINS), levels.histogram(level, _BINS) > 0)
    return [
        first_order.entropy_of(first_order.shares(level, _BINS)),
        jnp.log1p(_mean(glcm.contrast(pairs), pairs.where)),
        _mean(glcm.inverse_difference_moment(pairs), pairs.where),
    ]


def _foci(smooth: Float[Array, "h w"], nodule: Bool[Array, "h w"], ring: Bool[Array, "h w"]) -> list[Float[Array, ""]]:
    hat = windows.white_top_hat(smooth, 2)
    mean, deviation = first_order.mean_and_deviation(hat, ring)
    strength = _mean((hat / jnp.maximum(mean, _TINY)) ** 4, nodule) ** 0.25
    excess = (hat - mean) / jnp.maximum(deviation, _TINY)
    return [jnp.sqrt(_mean(_above(excess, 3.0, 1.0), nodule)), jnp.log1p(strength)]


def _above(x: Float[Array, "h w"], limit: float, width: float) -> Float[Array, "h w"]:
    """1 where x is above the limit, 0 below, and a line from 0 to 1 within ``width`` either side."""
    return jnp.clip((x - limit) / (2 * width) + 0.5, 0.0, 1.0)


def _mean(values: Float[Array, "*n"], where: Bool[Array, "*n"]) -> Float[Array, ""]:
    return jnp.where(where, values, 0).sum() / jnp.maximum(where.sum(), 1)
