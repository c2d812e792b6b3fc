"""Reference outlines made as wrong as predicted ones, on the device: moved, stretched, bent, made larger or smaller.

A head that was trained on values measured in perfect outlines fails on values measured in predicted ones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from thyroid_jax.masks import check_mask
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array, Bool, Float, Int, Key

_KNOTS = 4  # of the random bending, in each direction


@settings
class DistortConfig:
    """How wrong the outlines are on which the heads learn to read measured evidence; 0 switches a change off.

    Lengths are shares of the nodule's radius, that of a disc of equal area.
    """

    shift: float = 0.25
    """standard deviation of a move, in each direction"""
    stretch: float = 0.12
    """standard deviation of the logarithm of the zoom, in each direction"""
    bend: float = 0.12
    """standard deviation of a smooth random displacement"""

    def __post_init__(self):
        check_within(self, "distort", ("shift", "stretch", "bend"), 0, 1)


def distort(
    key: Key,
    mask: Float[Array, "b h w"] | Bool[Array, "b h w"] | Int[Array, "b h w"],
    config: DistortConfig,
    *,
    first: int | Int[Array, ""] = 0,
) -> Float[Array, "b h w"]:
    """Soft masks in [0, 1], each about its own centre of mass c: mask(c + (x - c - shift) / zoom - bending(x)).

    They are float32 at least. Example i depends only on ``key`` and on its place ``first + i`` in the whole batch. An
    empty mask stays empty.
    Raises ValueError for values outside [0, 1] (:func:`thyroid_jax.masks.check_mask`).
    """
    check_mask(mask, "mask")
    mask = jnp.asarray(mask)
    mask = mask.astype(jnp.promote_types(mask.dtype, jnp.float32))
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(first + jnp.arange(mask.shape[0]))
    return jax.vmap(lambda k, m: _distort_one(k, m, config))(keys, mask)


def _distort_one(key: Key, mask: Float[Array, "h w"], config: DistortConfig) -> Float[Array, "h w"]:
    of_shift, of_stretch, of_bend = jax.random.split(key, 3)
    h, w = mask.shape
    area = mask.sum()
    radius = jnp.sqrt(jnp.maximum(area, 1.0) / jnp.pi)
    places = jnp.stack(jnp.meshgrid(jnp.arange(h, dtype=mask.dtype), jnp.arange(w, dtype=mask.dtype), indexing="ij"))
    centre = (places * mask[None]).sum((1, 2), keepdims=True) / jnp.where(area > 0, area, 1.0)
    zoom = jnp.exp(config.stretch * jax.random.normal(of_stretch, (2, 1, 1)))
    shift = config.shift * radius * jax.random.normal(of_shift, (2, 1, 1))
    knots = jax.random.normal(of_bend, (2, _KNOTS, _KNOTS))
    # The knots span twice the nodule's width about its centre.
    at = (places - centre) / (4 * radius) * (_KNOTS - 1) + (_KNOTS - 1) / 2
    bent = jnp.stack([map_coordinates(knot, list(at), order=1, mode="nearest") for knot in knots])
    source = centre + (places - centre - shift) / zoom - config.bend * radius * bent
    return jnp.clip(map_coordinates(mask, list(source), order=1, mode="constant"), 0.0, 1.0)
