"""All of pyradiomics' two-dimensional features, measured on the device: 102 values an image, batched and compiled.

The same names, the same definitions (``force2D``, distance 1, symmetric co-occurrences, mean over the directions) and
the same grey levels as pyradiomics 3.0.1. How close, and how fast: docs/radiomics.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
_FLAT = ("firstorder_Kurtosis", "firstorder_Skewness", "glcm_Correlation", "glcm_Imc1", "glcm_MCC",
         "ngtdm_Busyness", "ngtdm_Coarseness", "ngtdm_Contrast", "ngtdm_Strength")  # fmt: skip
"""0 / 0 where there is one grey level only (one grey value, for firstorder); the value is then the one that pyradiomics
puts in place
"""
_OF_LEVELS = ("firstorder_Entropy", "firstorder_Uniformity")
_SMALLEST = 4  # pixels
_TOGETHER = {"cpu": 4, "others": 64}  # images in one call
_MOST_LEVELS = 1024


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

    ``image`` holds grey values of any scale, >= 0; ``mask`` any region, in one piece or several, up to the border.
    ``bin_count`` equal bins from the masked minimum to the maximum (32 by default), or bins of ``bin_width`` grey
    values whose edges are its multiples. ``spacing`` is the (row, column) size of a pixel, of all images or of each,
    and the unit of lengths. Formula, range and IBSI code of every feature: docs/radiomics.md, and the docstrings of
    the functions in :data:`CLASSES`.

    Undefined, with value 0, are: every feature of a mask of fewer than 4 pixels, or all in one row or column; every
    feature of the grey values where one of them is NaN, infinite or negative; every feature of the grey levels where
    there are more than ``highest_level``; features of co-occurrences or runs where no two pixels lie side by side, or
    in line. Undefined, with the value that pyradiomics puts in their place, are nine ratios that are 0 / 0 where
    there is one grey level.

    Called with arrays, or with lists of images of any size, the mask may also hold 0 and 1 in any type; each image is
    cropped to its mask, and images of like size go to the device together, so that a data set of many image sizes is
    served by a few compiled programs; ``highest_level`` follows from the data. Called within ``jit`` nothing is
    cropped, and ``highest_level`` is 64 for a ``bin_width`` unless given. Values are float32, or float64 when x64 is
    enabled. Raises :class:`InputError` for shapes that do not match, a mask of other values than 0 and 1, both kinds
    of bins or none that is legal, and a ``bin_width`` that gives more than 1024 levels.
    """
    _check_settings(features, bin_width, bin_count, highest_level)
    bin_count = 32 if bin_count is None and bin_width is None else bin_count
    settings = {"features": tuple(features), "bin_width": bin_width, "bin_count": bin_count}
    if isinstance(image, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        if image.ndim != 3 or image.shape != mask.shape:
            raise InputError(f"image {image.shape} and mask {mask.shape} must have one shape (images, height, width).")
        sides = jnp.asarray(_spacings(spacing, len(image)), float)
        lines, row = jax.vmap(raster.of, out_axes=(0, None))(jnp.asarray(image, float))
        inside, _ = jax.vmap(raster.of, out_axes=(0, None))(jnp.asarray(mask, bool))
        b, h, w = image.shape
        count = bin_count or highest_level or 64
        return compiled(lines, inside, jnp.full(b, row), sides, count=count, columns=w, longest=max(h, w), **settings)
    images, masks = _images(image, mask)
    count = bin_count or highest_level or _levels_needed(images, masks, bin_width)
    return _packed(images, masks, _spacings(spacing, len(images)), count=count, **settings)


@partial(jax.jit, static_argnames=("features", "bin_width", "bin_count", "count", "columns", "longest"))
def compiled(
    image: Float[Array, "b n"],
    mask: Bool[Array, "b n"],
    row: Int[Array, "b"],
    spacing: Float[Array, "b 2"],
    *,
    features: tuple[str, ...],
    bin_width: float | None,
    bin_count: int | None,
    count: int,
    columns: int,
    longest: int,
) -> tuple[Float[Array, "b f"], Bool[Array, "b f"]]:
    """:func:`extract` of rasters without any look at the data: one program for a length.

    ``count`` is the highest grey level that may occur, ``columns`` and ``longest`` the widest and the longest side of
    an image.
    """
    chosen = tuple(name for name, module in CLASSES.items() if any(feature in module.FEATURES for feature in features))
    count_one = partial(
        _count, chosen=chosen, bin_width=bin_width, bin_count=bin_count, count=count, columns=columns, longest=longest
    )
    return jax.vmap(partial(_form, features=features))(raster.each(count_one, image, mask, row, spacing))


class Counted(NamedTuple):
    """What there is to count in one image: of each class of features what they are formed of, and what decides whether
    they are defined.
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
    chosen: tuple[str, ...],
    bin_width: float | None,
    bin_count: int | None,
    count: int,
    columns: int,
    longest: int,
) -> Counted:
    legal = jnp.where(mask, jnp.isfinite(image) & (image >= 0), True).all()
    image = jnp.where(mask & legal, image, 0)

    def to_levels() -> tuple[Int[Array, "n"], Bool[Array, ""]]:
        level = levels.by_count(image, mask, bin_count) if bin_count else levels.by_width(image, mask, bin_width)
        return jnp.clip(level, 0, count), level.max() <= count

    # A branch has a result of its own in memory; else the compiler finds the levels again for every reader.
    level, leveled = jax.lax.cond(legal, to_levels, lambda: (mask.astype(jnp.int32), jnp.array(False)))
    y, x = raster.positions(mask.shape[0], row)
    several = lambda place: jnp.where(mask, place, place.size).min() < jnp.where(mask, place, -1).max()
    count_class = {
        "shape2D": lambda: shape.form(mask, row, columns, spacing=(spacing[0], spacing[1])),
        "firstorder": lambda: first_order.greys(image, mask, level, count, pixel=spacing[0] * spacing[1]),
        "glcm": lambda: (glcm.pairs(level, row, count), levels.histogram(level, count) > 0),
        "glrlm": lambda: glrlm.runs(level, row, count, longest),
        "glszm": lambda: glszm.zones(level, row, count),
        "gldm": lambda: gldm.dependences(level, row, count),
        "ngtdm": lambda: ngtdm.differences(level, row, count),
    }
    return Counted(
        classes={name: count_class[name]() for name in chosen},
        legal=legal,
        leveled=leveled,
        large=(mask.sum() >= _SMALLEST) & several(y) & several(x),
        one_grey=jnp.where(mask, image, jnp.inf).min() >= image.max(),
        one_level=jnp.where(mask, level, count + 1).min() >= level.max(),
    )


def _form(counted: Counted, *, features: tuple[str, ...]) -> tuple[Float[Array, "f"], Bool[Array, "f"]]:
    """The features from what was counted."""
    values, valid = {}, {}
    for name, counts in counted.classes.items():
        formed, where = _formed(name, counts)
        for feature in (feature for feature in CLASSES[name].FEATURES if feature in features):
            of_greys = name == "firstorder" and feature not in _OF_LEVELS
            value = CLASSES[name].FEATURES[feature](formed)
            values[feature] = value if where is None else jnp.where(where, value, 0).sum() / jnp.maximum(where.sum(), 1)
            valid[feature] = True if name == "shape2D" else counted.legal if of_greys else counted.leveled
            valid[feature] = valid[feature] & (True if where is None else where.any())
    known = jnp.stack([counted.large & valid[feature] & jnp.isfinite(values[feature]) for feature in features])
    alike = {feature: counted.one_grey if feature.startswith("firstorder") else counted.one_level for feature in _FLAT}
    flat = jnp.stack([alike.get(feature, jnp.array(False)) for feature in features])
    return jnp.where(known, jnp.stack([values[feature] for feature in features]), 0), known & ~flat


def _formed(name: str, counts: Any) -> tuple[Any, Bool[Array, "a"] | None]:
    """What a class's functions take, and for classes that look in several directions, in which there is anything."""
    if name == "glcm":
        pairs = glcm.cooccurrence(*counts)
        return pairs, pairs.where
    if name == "glrlm":
        return sizes.table(counts[0]), counts[1]
    if name == "glszm":
        return sizes.table(*counts), None
    return (sizes.table(counts) if name == "gldm" else counts), None


def _packed(
    images: list[np.ndarray], masks: list[np.ndarray], spacings: np.ndarray, **settings: Any
) -> tuple[jax.Array, jax.Array]:
    """Measure images of like size together, on a CPU a few at a time on every core."""
    on_cpu = jax.default_backend() == "cpu"
    dtype, device, count = jnp.result_type(float), jax.config.jax_default_device, len(settings["features"])
    values, valid = np.zeros((len(masks), count), dtype), np.zeros((len(masks), count), bool)

    def measure(length: int, numbers: list[int], boxes: list[packing.Box]) -> None:
        cut = [[whole[number][box] for number, box in zip(numbers, boxes)] for whole in (images, masks)]
        rasters = packing.pack(*cut, spacings[numbers], together, length, dtype)
        columns, longest = packing.sides(length)
        with jax.enable_x64(dtype == jnp.float64), jax.default_device(device):  # a thread starts with neither
            found = compiled(*rasters, columns=columns, longest=longest, **settings)
            values[numbers], valid[numbers] = (np.asarray(part)[: len(numbers)] for part in found)

    together = 1 if len(masks) == 1 else _TOGETHER["cpu" if on_cpu else "others"]
    with ThreadPoolExecutor(os.cpu_count() if on_cpu else 2) as pool:
        for _ in pool.map(lambda part: measure(*part), packing.plan(masks, together)):
            pass  # an error of any is raised here
    return jnp.asarray(values), jnp.asarray(valid)


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


def _images(image: Any, mask: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images and their masks one by one, checked."""
    shapes = [whole.shape for whole in (image, mask) if hasattr(whole, "shape")]
    if any(len(shape) != 3 or shape != shapes[-1] for shape in shapes):
        raise InputError(
            f"image {shapes[0]} and mask {shapes[-1]} must have one shape (images, height, width), or be lists of images."
        )
    if len(image) != len(mask):
        raise InputError(f"{len(image)} images, but {len(mask)} masks; give one mask for each image.")
    whole = lambda batch: (
        np.asarray(batch) if hasattr(batch, "shape") else batch
    )  # from a device at once, not image by image
    images, masks = [np.asarray(one) for one in whole(image)], [np.asarray(one) for one in whole(mask)]
    for number, (one, where) in enumerate(zip(images, masks)):
        if one.ndim != 2 or one.shape != where.shape or not one.size:
            raise InputError(
                f"image {number}: {one.shape} and its mask {where.shape} must both have the shape (height, width)."
            )
        if where.dtype != bool and not np.isin(where, (0, 1)).all():
            raise InputError(
                f"mask {number} holds other values than 0 and 1; give the region as mask >= 0.5, for example."
            )
    return images, [where.astype(bool) for where in masks]


def _spacings(spacing: Any, count: int) -> np.ndarray:
    """[count 2]: the (row, column) size of a pixel of each image."""
    sides = np.asarray(spacing, float)
    if sides.shape not in ((2,), (count, 2)) or not (np.isfinite(sides) & (sides > 0)).all():
        raise InputError(
            f"spacing is {spacing}; it must be two sizes above 0, of a row and of a column, or two for each image."
        )
    return np.broadcast_to(sides, (count, 2))


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
    if bin_count is not None and not 2 <= bin_count <= _MOST_LEVELS:
        raise InputError(f"bin_count is {bin_count}; it must lie between 2 and {_MOST_LEVELS}.")
    if highest_level is not None and not 1 <= highest_level <= _MOST_LEVELS:
        raise InputError(f"highest_level is {highest_level}; it must lie between 1 and {_MOST_LEVELS}.")
