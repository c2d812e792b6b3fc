"""All of pyradiomics' two-dimensional features, measured on the device: 102 values an image, batched and compiled.

The same names, the same definitions (``force2D``, distance 1, symmetric co-occurrences, mean over the directions) and the same grey
levels as pyradiomics 3.0.1. How close, and how fast: docs/radiomics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import first_order, glcm, gldm, glrlm, glszm, levels, ngtdm, shape
from thyroid_jax.shapes import Bool, Float, Int

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
"""0 / 0 where there is one grey level only (one grey value, for firstorder); the value is then the one that pyradiomics puts in place"""
_OF_LEVELS = ("firstorder_Entropy", "firstorder_Uniformity")
_SMALLEST = 4  # pixels
_CHUNK = {"cpu": 8}  # images at a time; on a CPU few, so that they stay in its cache; 64 elsewhere
_MOST_LEVELS = 1024


def extract(
    image: Float["b h w"] | Int["b h w"],
    mask: Bool["b h w"] | Float["b h w"] | Int["b h w"],
    *,
    features: tuple[str, ...] = FEATURES,
    bin_width: float | None = None,
    bin_count: int | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
    highest_level: int | None = None,
) -> tuple[Float["b f"], Bool["b f"]]:
    """The named features of every image inside its mask, and whether each is defined.

    ``image`` holds grey values of any scale, >= 0; ``mask`` any region, in one piece or several, up to the border. ``bin_count`` equal
    bins from the masked minimum to the maximum (32 by default), or bins of ``bin_width`` grey values whose edges are its multiples.
    ``spacing`` is the (row, column) size of a pixel and the unit of lengths. Formula, range and IBSI code of every feature:
    docs/radiomics.md, and the docstrings of the functions in :data:`CLASSES`.

    Undefined, with value 0, are: every feature of a mask of fewer than 4 pixels, or all in one row or column; every feature of the grey
    values where one of them is NaN, infinite or negative; every feature of the grey levels where there are more than ``highest_level``;
    features of co-occurrences or runs where no two pixels lie side by side, or in line. Undefined, with the value that pyradiomics puts
    in their place, are nine ratios that are 0 / 0 where there is one grey level.

    Called with arrays, the mask may also hold 0 and 1 in any type; each image is cropped to its mask, and images of like size go to the
    device together, so that a data set of many image sizes is served by a few compiled programs; ``highest_level`` follows from the
    data. Called within ``jit`` nothing is cropped, and ``highest_level`` is 64 for a ``bin_width`` unless given. Values are float32, or
    float64 when x64 is enabled. Raises :class:`InputError` for shapes that do not match, a mask of other values than 0 and 1, both kinds
    of bins or none that is legal, and a ``bin_width`` that gives more than 1024 levels.
    """
    _check(image, mask, features, bin_width, bin_count, spacing, highest_level)
    bin_count = 32 if bin_count is None and bin_width is None else bin_count
    settings = {"features": tuple(features), "bin_width": bin_width, "bin_count": bin_count}
    sides = jnp.asarray(spacing, float)
    if isinstance(image, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        return compiled(jnp.asarray(image, float), jnp.asarray(mask, bool), sides, count=bin_count or highest_level or 64, **settings)
    image, mask = np.asarray(image), np.asarray(mask).astype(bool)
    count = bin_count or highest_level or _levels_needed(image, mask, bin_width)
    return _cropped(partial(compiled, spacing=sides, count=count, **settings), image, mask, len(features))


@partial(jax.jit, static_argnames=("features", "bin_width", "bin_count", "count"))
def compiled(image: Float["b h w"], mask: Bool["b h w"], spacing: Float["2"], **settings: Any) -> tuple[Float["b f"], Bool["b f"]]:
    """:func:`extract` without any look at the data: one program for a shape. ``count`` is the highest grey level that may occur."""
    return jax.vmap(lambda image, mask: _one(image, mask, spacing, **settings))(image, mask)


def _one(
    image: Float["h w"],
    mask: Bool["h w"],
    spacing: Float["2"],
    *,
    features: tuple[str, ...],
    bin_width: float | None,
    bin_count: int | None,
    count: int,
) -> tuple[Float["f"], Bool["f"]]:
    legal = jnp.where(mask, jnp.isfinite(image) & (image >= 0), True).all()
    image = jnp.where(mask & legal, image, 0)
    level = levels.by_count(image, mask, bin_count) if bin_count else levels.by_width(image, mask, bin_width)
    leveled = legal & (level.max() <= count)
    level = jnp.clip(level, 0, count)
    large = (mask.sum() >= _SMALLEST) & (mask.any(0).sum() > 1) & (mask.any(1).sum() > 1)
    one_level = jnp.where(mask, level, count + 1).min() >= level.max()
    one_grey = jnp.where(mask, image, jnp.inf).min() >= image.max()

    values, valid = {}, {}
    for name, module in CLASSES.items():
        wanted = [feature for feature in module.FEATURES if feature in features]
        if not wanted:
            continue
        measured, where, defined = _measure(name, image, mask, level, count, spacing)
        for feature in wanted:
            grey = True if name == "shape2D" else legal if name == "firstorder" and feature not in _OF_LEVELS else leveled
            value = module.FEATURES[feature](measured)
            values[feature] = value if where is None else jnp.where(where, value, 0).sum() / jnp.maximum(where.sum(), 1)
            valid[feature] = grey & defined
    known = jnp.stack([large & valid[feature] & jnp.isfinite(values[feature]) for feature in features])
    alike = {feature: one_grey if feature.startswith("firstorder") else one_level for feature in _FLAT}
    flat = jnp.stack([alike.get(feature, jnp.array(False)) for feature in features])
    return jnp.where(known, jnp.stack([values[feature] for feature in features]), 0), known & ~flat


def _measure(name: str, image: jax.Array, mask: jax.Array, level: jax.Array, count: int, spacing: Float["2"]) -> tuple:
    """What a class's features are formed of; for classes that look in several directions, in which there is anything; whether in any."""
    if name == "shape2D":
        return shape.form(mask, spacing=(spacing[0], spacing[1])), None, True
    if name == "firstorder":
        return first_order.greys(image, mask, level, count, pixel=spacing[0] * spacing[1]), None, True
    if name == "glcm":
        pairs = glcm.cooccurrence(level, count)
        return pairs, pairs.where, pairs.where.any()
    if name == "glrlm":
        table, where = glrlm.runs(level, count)
        return table, where, where.any()
    return {"glszm": glszm.zones, "gldm": gldm.dependences, "ngtdm": ngtdm.differences}[name](level, count), None, True


def _cropped(measure: Callable, image: np.ndarray, mask: np.ndarray, width: int) -> tuple[jax.Array, jax.Array]:
    """Measure every image on the smallest square of a few sizes that holds its mask, images of one size of square together."""
    rows, columns = mask.any(2), mask.any(1)
    cuts = [(_extent(rows[number]), _extent(columns[number])) for number in range(len(mask))]
    boxes: dict[int, list[int]] = {}
    for number, cut in enumerate(cuts):
        longest = max(part.stop - part.start for part in cut)
        boxes.setdefault(max(32, 1 << (longest - 1).bit_length()), []).append(number)
    chunk, found = 1 if len(mask) == 1 else _CHUNK.get(jax.default_backend(), 64), []
    for side, numbers in boxes.items():
        for chosen in (numbers[start : start + chunk] for start in range(0, len(numbers), chunk)):
            parts = np.zeros((chunk, side, side), jnp.result_type(float)), np.zeros((chunk, side, side), bool)
            for place, number in enumerate(chosen):
                for part, whole in zip(parts, (image, mask)):
                    piece = whole[number][cuts[number]]
                    part[place, : piece.shape[0], : piece.shape[1]] = piece
            found.append((chosen, measure(*parts)))  # not waited for: the device may work on several
    values, valid = np.zeros((len(mask), width), jnp.result_type(float)), np.zeros((len(mask), width), bool)
    for chosen, parts in found:
        values[chosen], valid[chosen] = (np.asarray(part)[: len(chosen)] for part in parts)
    return jnp.asarray(values), jnp.asarray(valid)


def _extent(line: np.ndarray) -> slice:
    """From the first True to the last; one place where there is none."""
    return slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) if line.any() else slice(0, 1)


def _levels_needed(image: np.ndarray, mask: np.ndarray, bin_width: float) -> int:
    """The most levels that an image has, rounded up to 16, 32, 64, ... so that few programs are compiled."""
    known = mask & np.isfinite(image) & (image >= 0)
    highest = np.where(known, image, 0).max((1, 2), initial=0)
    lowest = np.minimum(np.where(known, image, np.inf).min((1, 2), initial=np.inf), highest)
    most = 2 + int(np.max((highest - lowest) / bin_width, initial=0))
    if most > _MOST_LEVELS:
        raise InputError(f"bin_width {bin_width:g} gives {most} grey levels, and {_MOST_LEVELS} are possible; choose a wider one.")
    return max(16, 1 << (most - 1).bit_length())


def _check(image: Any, mask: Any, features: tuple[str, ...], bin_width: Any, bin_count: Any, spacing: Any, highest_level: Any) -> None:
    if np.ndim(image) != 3 or np.shape(image) != np.shape(mask):
        raise InputError(f"image {np.shape(image)} and mask {np.shape(mask)} must both have the shape (images, height, width).")
    if not isinstance(mask, jax.core.Tracer) and np.asarray(mask).dtype != bool and not np.isin(np.asarray(mask), (0, 1)).all():
        raise InputError("mask holds other values than 0 and 1; give the region as mask >= 0.5, for example.")
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not features:
        raise InputError(
            f"{unknown[0]!r} is no feature; thyroid_jax.radiomics.FEATURES lists them." if unknown else "no features were named."
        )
    if bin_width is not None and bin_count is not None:
        raise InputError("bin_width and bin_count are both given; choose one.")
    if bin_width is not None and not (bin_width > 0 and np.isfinite(bin_width)):
        raise InputError(f"bin_width is {bin_width}; it must be above 0.")
    if bin_count is not None and not 2 <= bin_count <= _MOST_LEVELS:
        raise InputError(f"bin_count is {bin_count}; it must lie between 2 and {_MOST_LEVELS}.")
    if highest_level is not None and not 1 <= highest_level <= _MOST_LEVELS:
        raise InputError(f"highest_level is {highest_level}; it must lie between 1 and {_MOST_LEVELS}.")
    if np.shape(spacing) != (2,) or not all(side > 0 and np.isfinite(side) for side in spacing):
        raise InputError(f"spacing is {spacing}; it must be two sizes above 0, of a row and of a column.")
