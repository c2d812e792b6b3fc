"""All of pyradiomics' two-dimensional features, measured on the device: 102 values an image, batched and compiled.

Names, definitions and grey levels are those of pyradiomics 3.0.1: ``force2D``, distance 1, symmetric co-occurrences,
mean over the directions. docs/radiomics.md says how close the values are and how fast.

An image passes through three steps: it is cropped and put on a raster (:mod:`thyroid_jax.radiomics.packing`); what
each feature class needs is counted, image by image; the features are formed from the counts, for all images at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import first_order, glcm, gldm, glrlm, glszm, levels, ngtdm, packing, raster, shape, sizes
from thyroid_jax.shapes import Array, Bool, Float, Int

CLASSES: dict[str, ModuleType] = {
    "shape2D": shape,
    "firstorder": first_order,
    "glcm": glcm,
    "glrlm": glrlm,
    "glszm": glszm,
    "gldm": gldm,
    "ngtdm": ngtdm,
}
"""pyradiomics' feature classes; each module's ``FEATURES`` maps names to the functions that compute them"""
FEATURES: tuple[str, ...] = tuple(name for module in CLASSES.values() for name in module.FEATURES)
_ZERO_BY_ZERO = ("firstorder_Kurtosis", "firstorder_Skewness", "glcm_Correlation", "glcm_Imc1", "glcm_MCC",
                 "ngtdm_Busyness", "ngtdm_Coarseness", "ngtdm_Contrast", "ngtdm_Strength")  # fmt: skip
"""0 / 0 where there is one grey level only (one grey value, for firstorder); the value is then pyradiomics' own"""
_FIRSTORDER_OF_LEVELS = ("firstorder_Entropy", "firstorder_Uniformity")
"""the two firstorder features of grey levels; the others are of grey values"""
_SMALLEST = 4  # pixels
_DEFAULT_BIN_COUNT = 32
_DEFAULT_HIGHEST_LEVEL = 64  # within jit, for a bin_width
_IMAGES_AT_ONCE = {"cpu": 4, "others": 64}
_MOST_LEVELS = 1024


@dataclass(frozen=True)
class Settings:
    """What is measured and on which grey levels. Fixed at compilation: equal settings share a program.

    Attributes:
        features: names of :data:`FEATURES`, in the order of the columns.
        bin_width: width of a bin in grey values; None for ``highest_level`` equal bins.
        highest_level: the highest grey level that may occur.
    """

    features: tuple[str, ...]
    bin_width: float | None
    highest_level: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the feature classes that hold any of the features."""
        return tuple(name for name, module in CLASSES.items() if not module.FEATURES.keys().isdisjoint(self.features))


def extract(
    image: Float[Array, "b h w"] | Int[Array, "b h w"] | Sequence[Any],
    mask: Bool[Array, "b h w"] | Float[Array, "b h w"] | Int[Array, "b h w"] | Sequence[Any],
    *,
    features: tuple[str, ...] = FEATURES,
    bin_width: float | None = None,
    bin_count: int | None = None,
    spacing: tuple[float, float] | Sequence[tuple[float, float]] = (1.0, 1.0),
    highest_level: int | None = None,
) -> tuple[Float[Array, "b f"], Bool[Array, "b f"]]:
    """The named features of every image inside its mask, and whether each is defined.

    Args:
        image: grey values of any scale, at least 0: an array, or a list of images of any size.
        mask: any region, in one or several parts, which may touch the border; bool, or 0 and 1 in any type.
        features: names of :data:`FEATURES`; the columns come in this order.
        bin_width: width of a bin in grey values; the edges are its multiples.
        bin_count: number of equal bins from the masked minimum to the maximum; 32 when neither kind of bins is given.
        spacing: (row, column) size of a pixel, for all images or for each; the unit of lengths.
        highest_level: the highest grey level that may occur with ``bin_width``. By default it follows from the data,
            and is 64 within ``jit``.

    Returns:
        values f[b f] and valid bool[b f]; float32, or float64 when x64 is enabled.

    Undefined, with value 0, are

    - every feature of a mask of fewer than 4 pixels, or of one whose pixels all lie in one row or column;
    - every feature but those of shape, where a masked grey value is NaN, infinite or negative;
    - every feature of grey levels, where one is above ``highest_level``;
    - co-occurrence features where no two pixels touch, and run length features where no two lie in line.

    Nine ratios are 0 / 0 where there is one grey level only. They are then undefined too, but have the value that
    pyradiomics gives them.

    Outside ``jit`` each image is cropped to its mask, and images of similar size go to the device together: a few
    compiled programs then serve a data set of many image sizes. Within ``jit`` nothing is cropped, and the
    mask's values are not checked.

    Raises :class:`InputError` for shapes that do not match, a mask of other values than 0 and 1, both kinds of bins,
    bins that are not possible, and a ``bin_width`` that gives more than 1024 levels.

    Formula, range and IBSI code of every feature: docs/radiomics.md, and the functions in :data:`CLASSES`.
    """
    _check_settings(features, bin_width, bin_count, highest_level)
    settings_with = partial(Settings, tuple(features), bin_width)
    if bin_width is None:
        highest_level = bin_count or _DEFAULT_BIN_COUNT
    if isinstance(image, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        highest_level = highest_level or _DEFAULT_HIGHEST_LEVEL
        return _extract_traced(image, mask, spacing, settings_with(highest_level))
    images, masks = _checked_images(image, mask)
    if highest_level is None:
        highest_level = _levels_needed(images, masks, bin_width)  # type: ignore[arg-type]  # there is one here
    return _extract_packed(images, masks, _checked_spacings(spacing, len(images)), settings_with(highest_level))


def _extract_traced(
    image: Any, mask: Any, spacing: Any, settings: Settings
) -> tuple[Float[Array, "b f"], Bool[Array, "b f"]]:
    """Measure whole images within jit, where their values are not known."""
    if image.ndim != 3 or image.shape != mask.shape:
        raise InputError(f"image {image.shape} and mask {mask.shape} must have one shape (images, height, width).")
    to_lines = jax.vmap(raster.to_line, out_axes=(0, None))
    b, h, w = image.shape
    pixels = jnp.asarray(_checked_spacings(spacing, b), float)
    lines, row = to_lines(jnp.asarray(image, float))
    inside, _ = to_lines(jnp.asarray(mask, bool))
    return compiled(lines, inside, jnp.full(b, row), pixels, settings=settings, sides=(w, max(h, w)))


def _extract_packed(
    images: list[np.ndarray], masks: list[np.ndarray], spacings: np.ndarray, settings: Settings
) -> tuple[Array, Array]:
    """Measure images of similar size together; on a CPU a few at a time on every core."""
    on_cpu = jax.default_backend() == "cpu"
    at_once = 1 if len(masks) == 1 else _IMAGES_AT_ONCE["cpu" if on_cpu else "others"]
    dtype, device = jnp.result_type(float), jax.config.jax_default_device  # type: ignore[attr-defined]
    values = np.zeros((len(masks), len(settings.features)), dtype)
    valid = np.zeros(values.shape, bool)

    def measure(part: packing.Part) -> None:
        cut_images, cut_masks = (
            [whole[number][box] for number, box in zip(part.numbers, part.boxes)] for whole in (images, masks)
        )
        rasters = packing.pack(cut_images, cut_masks, spacings[part.numbers], at_once, part.length, dtype)
        with jax.enable_x64(dtype == jnp.float64), jax.default_device(device):  # a new thread has neither setting
            found = compiled(*rasters, settings=settings, sides=packing.sides(part.length))
            values[part.numbers], valid[part.numbers] = (np.asarray(rows)[: len(part.numbers)] for rows in found)

    with ThreadPoolExecutor(os.cpu_count() if on_cpu else 2) as pool:
        for _ in pool.map(measure, packing.plan(masks, at_once)):
            pass  # an error in any thread is raised here
    return jnp.asarray(values), jnp.asarray(valid)


@partial(jax.jit, static_argnames=("settings", "sides"))
def compiled(
    image: Float[Array, "b n"],
    mask: Bool[Array, "b n"],
    row: Int[Array, "b"],
    spacing: Float[Array, "b 2"],
    *,
    settings: Settings,
    sides: tuple[int, int],
) -> tuple[Float[Array, "b f"], Bool[Array, "b f"]]:
    """:func:`extract` of rasters, without any check of the data: one program for a length, settings and sides.

    ``row`` is the number of places from a pixel to the one below, ``sides`` the most columns and the longest side
    that an image of the batch has.
    """
    counts = raster.map_images(partial(_count, settings=settings, sides=sides), image, mask, row, spacing)
    return jax.vmap(partial(_form, features=settings.features))(counts)


class Region(NamedTuple):
    """One image on a raster: its grey values, its mask, its grey levels (0 outside the mask), and its geometry."""

    image: Float[Array, "n"]
    mask: Bool[Array, "n"]
    level: Int[Array, "n"]
    row: Int[Array, ""]
    spacing: Float[Array, "2"]


class Counted(NamedTuple):
    """What is counted in one image, and what decides whether its features are defined.

    Attributes:
        classes: name of a feature class -> the counts from which its features are computed.
        legal: all grey values in the mask are finite and at least 0.
        leveled: legal, and no grey level is above the highest.
        large: the mask has enough pixels, in several rows and columns.
        one_grey: the mask holds one grey value only.
        one_level: the mask holds one grey level only.
    """

    classes: dict[str, Any]
    legal: Bool[Array, ""]
    leveled: Bool[Array, ""]
    large: Bool[Array, ""]
    one_grey: Bool[Array, ""]
    one_level: Bool[Array, ""]


def _count(
    image: Float[Array, "n"],
    mask: Bool[Array, "n"],
    row: Int[Array, ""],
    spacing: Float[Array, "2"],
    *,
    settings: Settings,
    sides: tuple[int, int],
) -> Counted:
    highest = settings.highest_level
    legal = jnp.where(mask, jnp.isfinite(image) & (image >= 0), True).all()
    image = jnp.where(mask & legal, image, 0)

    def to_levels() -> tuple[Int[Array, "n"], Bool[Array, ""]]:
        if settings.bin_width is None:
            level = levels.by_count(image, mask, settings.highest_level)
        else:
            level = levels.by_width(image, mask, settings.bin_width)
        return jnp.clip(level, 0, highest), level.max() <= highest

    # A branch stores its result in memory; without it the compiler computes the levels again for every use.
    level, leveled = jax.lax.cond(legal, to_levels, lambda: (mask.astype(jnp.int32), jnp.array(False)))
    region = Region(image, mask, level, row, spacing)
    y, x = raster.positions(mask.shape[0], row)
    return Counted(
        classes={name: _count_class(name, region, highest, sides) for name in settings.classes},
        legal=legal,
        leveled=leveled,
        large=(mask.sum() >= _SMALLEST) & _has_several(y, mask) & _has_several(x, mask),
        one_grey=jnp.where(mask, image, jnp.inf).min() >= image.max(),
        one_level=jnp.where(mask, level, highest + 1).min() >= level.max(),
    )


def _count_class(name: str, region: Region, highest: int, sides: tuple[int, int]) -> Any:
    """The counts from which a class's features are computed, before any step that is cheaper for all images at once."""
    image, mask, level, row, (rows, columns) = region
    match name:
        case "shape2D":
            return shape.form(mask, row, sides[0], spacing=(rows, columns))
        case "firstorder":
            return first_order.greys(image, mask, level, highest, pixel=rows * columns)
        case "glcm":
            return glcm.pairs(level, row, highest), levels.histogram(level, highest) > 0
        case "glrlm":
            return glrlm.runs(level, row, highest, sides[1])
        case "glszm":
            return glszm.zones(level, row, highest)
        case "gldm":
            return gldm.dependences(level, row, highest)
        case "ngtdm":
            return ngtdm.differences(level, row, highest)
    raise ValueError(f"{name!r} is no feature class.")


def _has_several(place: Int[Array, "n"], mask: Bool[Array, "n"]) -> Bool[Array, ""]:
    """Whether the pixels of the mask lie in more than one row (or column); ``place`` is a pixel's row (or column)."""
    return jnp.where(mask, place, place.size).min() < jnp.where(mask, place, -1).max()


def _form(counted: Counted, *, features: tuple[str, ...]) -> tuple[Float[Array, "f"], Bool[Array, "f"]]:
    """The features and whether each is defined, from what was counted in one image."""
    values, valid = {}, {}
    for name, counts in counted.classes.items():
        argument, directions = _form_class(name, counts)
        for feature, compute in CLASSES[name].FEATURES.items():
            if feature not in features:
                continue
            values[feature] = compute(argument)
            valid[feature] = _needs(feature, counted)
            if directions is not None:
                values[feature] = jnp.where(directions, values[feature], 0).sum() / jnp.maximum(directions.sum(), 1)
                valid[feature] &= directions.any()
    stacked = jnp.stack([values[feature] for feature in features])
    known = counted.large & jnp.stack([valid[feature] for feature in features]) & jnp.isfinite(stacked)
    one_value = {
        name: counted.one_grey if name.startswith("firstorder") else counted.one_level for name in _ZERO_BY_ZERO
    }
    zero_by_zero = jnp.stack([one_value.get(feature, jnp.array(False)) for feature in features])
    return jnp.where(known, stacked, 0), known & ~zero_by_zero


def _form_class(name: str, counts: Any) -> tuple[Any, Bool[Array, "a"] | None]:
    """The argument of a class's functions, and in which directions it holds anything (None: it has no directions)."""
    match name:
        case "glcm":
            pairs = glcm.cooccurrence(*counts)
            return pairs, pairs.where
        case "glrlm":
            runs, directions = counts
            return sizes.table(runs), directions
        case "glszm":
            return sizes.table(*counts), None
        case "gldm":
            return sizes.table(counts), None
    return counts, None


def _needs(feature: str, counted: Counted) -> Bool[Array, ""]:
    """Whether the grey values or levels are such that this feature can be defined."""
    if feature.startswith("shape2D"):
        return jnp.array(True)
    of_greys = feature.startswith("firstorder") and feature not in _FIRSTORDER_OF_LEVELS
    return counted.legal if of_greys else counted.leveled


def _levels_needed(images: list[np.ndarray], masks: list[np.ndarray], bin_width: float) -> int:
    """The most levels that an image has, rounded up to 16, 32, 64, ... so that few programs are compiled."""
    most = 2
    for image, mask in zip(images, masks):
        known = image[mask & np.isfinite(image) & (image >= 0)]
        most = max(most, 2 + int(np.ptp(known) / bin_width)) if known.size else most
    if most > _MOST_LEVELS:
        raise InputError(
            f"bin_width {bin_width:g} gives {most} grey levels, and {_MOST_LEVELS} are possible; choose a wider one."
        )
    return max(16, 1 << (most - 1).bit_length())


def _checked_images(image: Any, mask: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images and their masks one by one, or :class:`InputError`."""
    shapes = [whole.shape for whole in (image, mask) if hasattr(whole, "shape")]
    if any(len(shape) != 3 or shape != shapes[-1] for shape in shapes):
        raise InputError(
            f"image {shapes[0]} and mask {shapes[-1]} must have one shape (images, height, width), "
            "or be lists of images."
        )
    if len(image) != len(mask):
        raise InputError(f"{len(image)} images, but {len(mask)} masks; give one mask for each image.")
    images, masks = _on_host(image), _on_host(mask)
    for number, (grey, inside) in enumerate(zip(images, masks)):
        if grey.ndim != 2 or grey.shape != inside.shape or not grey.size:
            raise InputError(
                f"image {number}: {grey.shape} and its mask {inside.shape} must both have the shape (height, width)."
            )
        if inside.dtype != bool and not np.isin(inside, (0, 1)).all():
            raise InputError(
                f"mask {number} holds other values than 0 and 1; give the region as mask >= 0.5, for example."
            )
    return images, [inside.astype(bool) for inside in masks]


def _on_host(batch: Any) -> list[np.ndarray]:
    """The images of a batch as numpy arrays; an array on a device is copied at once, not image by image."""
    return [np.asarray(image) for image in (np.asarray(batch) if hasattr(batch, "shape") else batch)]


def _checked_spacings(spacing: Any, count: int) -> Float[np.ndarray, "b 2"]:
    """The (row, column) size of a pixel of each of ``count`` images, or :class:`InputError`."""
    sizes_of_pixels = np.asarray(spacing, float)
    known_shape = sizes_of_pixels.shape in ((2,), (count, 2))
    if not known_shape or not (np.isfinite(sizes_of_pixels) & (sizes_of_pixels > 0)).all():
        raise InputError(
            f"spacing is {spacing}; it must be two sizes above 0, of a row and of a column, or two for each image."
        )
    return np.broadcast_to(sizes_of_pixels, (count, 2))


def _check_settings(features: tuple[str, ...], bin_width: Any, bin_count: Any, highest_level: Any) -> None:
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not features:
        raise InputError(
            f"{unknown[0]!r} is no feature; thyroid_jax.radiomics.FEATURES lists them."
            if unknown
            else "no features were named."
        )
    if bin_width is not None and bin_count is not None:
        raise InputError("bin_width and bin_count are both given; choose one.")
    if bin_width is not None and not (bin_width > 0 and np.isfinite(bin_width)):
        raise InputError(f"bin_width is {bin_width}; it must be above 0.")
    if bin_count is not None and not (2 <= bin_count <= _MOST_LEVELS and bin_count == int(bin_count)):
        raise InputError(f"bin_count is {bin_count}; it must lie between 2 and {_MOST_LEVELS}, and be whole.")
    if highest_level is not None and bin_width is None:
        raise InputError("highest_level is given without bin_width; with a number of bins it would change nothing.")
    if highest_level is not None and not 1 <= highest_level <= _MOST_LEVELS:
        raise InputError(f"highest_level is {highest_level}; it must lie between 1 and {_MOST_LEVELS}.")
