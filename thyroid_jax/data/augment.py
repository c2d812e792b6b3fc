"""Random views of a training batch, on the device, inside the jitted step: image and mask move together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from thyroid_jax.masks import check_mask
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array, Bool, Float, Int, Key, Number


@settings
class AugmentConfig:
    """Strength of each random change of a training view; 0 switches one off."""

    flip: float = 0.5
    """probability of a left-right mirror (never up-down: depth has a direction)"""
    rotate: float = 10.0
    """degrees, either way"""
    scale: float = 0.15
    """relative zoom, either way"""
    shift: float = 0.08
    """share of the height and width, either way"""
    gamma: float = 0.25
    """exponent exp(u), u uniform in +-gamma"""
    gain: float = 0.2
    """factor exp(u), u uniform in +-gain"""
    speckle: float = 0.08
    """standard deviation of multiplicative noise"""
    blur: float = 0.3
    """probability of a 3 x 3 binomial blur"""
    shadow: float = 0.15
    """probability of an acoustic shadow: a dark band at a random lateral position, from a random depth downwards"""

    def __post_init__(self):
        check_within(self, "augment", ("flip", "blur", "shadow"), 0, 1)
        check_within(self, "augment", ("rotate", "shift", "gamma", "gain", "speckle"), 0)
        check_within(self, "augment", ("scale",), 0, 0.9)  # a zoom of 0 shows nothing


def augment(
    key: Key,
    image: Float[Array, "b h w 1"],
    mask: Float[Array, "b h w"] | Bool[Array, "b h w"] | Int[Array, "b h w"],
    config: AugmentConfig,
    *,
    first: int | Int[Array, ""] = 0,
) -> tuple[Float[Array, "b h w 1"], Float[Array, "b h w"]]:
    """A random view of every example: mirror, affine motion, then gain, gamma, speckle, blur and shadow on the image.

    Both stay in [0, 1], in float32 at least; pixels from outside the image are 0. Example i's view depends only on
    ``key`` and on its place ``first + i`` in the whole batch. So a run gives the same views however its batches are
    spread over devices.
    Raises ValueError for a mask outside [0, 1] (:func:`thyroid_jax.masks.check_mask`).
    """
    check_mask(mask, "mask")
    return _views(key, image, mask, config, first)


@jax.jit  # traced once for the views on which the target is fitted and for those of a step
def _views(
    key: Key,
    image: Float[Array, "b h w 1"],
    mask: Float[Array, "b h w"] | Bool[Array, "b h w"] | Int[Array, "b h w"],
    config: AugmentConfig,
    first: int | Int[Array, ""],
) -> tuple[Float[Array, "b h w 1"], Float[Array, "b h w"]]:
    # Interpolation in integers would round, and that of bool masks make every touched pixel True.
    image, mask = (a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in (image, mask))
    keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(first + jnp.arange(image.shape[0]))
    image, mask = jax.vmap(lambda k, x, m: _view(k, x[..., 0], m, config))(keys, image, mask)
    return image[..., None], mask


def _view(
    key: Key, image: Float[Array, "h w"], mask: Float[Array, "h w"], config: AugmentConfig
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    move, *keys = jax.random.split(key, 6)
    h, w = image.shape
    y, x = source_coordinates(move, (h, w), config)
    image, mask = (map_coordinates(a, [y, x], order=1, mode="constant") for a in (image, mask))
    image = intensity(keys[0], image, gain=config.gain, gamma=config.gamma)
    image = image * (1 + config.speckle * jax.random.normal(keys[1], image.shape))
    image = jnp.where(jax.random.bernoulli(keys[2], config.blur), blur(image), image)
    image = jnp.where(jax.random.bernoulli(keys[3], config.shadow), shadow(keys[4], image), image)
    return jnp.clip(image, 0.0, 1.0), jnp.clip(mask, 0.0, 1.0)


def source_coordinates(
    key: Key, shape: tuple[int, int], config: AugmentConfig
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Where each pixel of the view comes from: (row, column) in the original, for a random mirror, rotation, zoom and
    shift.
    """
    h, w = shape
    kf, kr, ks, kt = jax.random.split(key, 4)
    mirror = jnp.where(jax.random.bernoulli(kf, config.flip), -1.0, 1.0)
    angle = jnp.deg2rad(config.rotate) * jax.random.uniform(kr, minval=-1.0)
    zoom = 1 + config.scale * jax.random.uniform(ks, minval=-1.0)
    shift = config.shift * jax.random.uniform(kt, (2,), minval=-1.0) * jnp.array([h, w])
    dy, dx = jnp.meshgrid(jnp.arange(h) - (h - 1) / 2, jnp.arange(w) - (w - 1) / 2, indexing="ij")
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    return cos * dy - sin * dx + (h - 1) / 2 - shift[0], mirror * (sin * dy + cos * dx - shift[1]) + (w - 1) / 2


def intensity(key: Key, image: Float[Array, "h w"], *, gain: Number, gamma: Number) -> Float[Array, "h w"]:
    """exp(u) * image ** exp(v), u and v uniform in +-gain and +-gamma, clipped to [0, 1]."""
    u, v = jax.random.uniform(key, (2,), minval=-1.0) * jnp.array([gain, gamma])
    return jnp.clip(jnp.exp(u) * jnp.maximum(image, 1e-6) ** jnp.exp(v) * (image > 0), 0.0, 1.0)


def blur(image: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """3 x 3 binomial smoothing (1 2 1) x (1 2 1) / 16, borders repeated."""
    p = jnp.pad(image, 1, mode="edge")
    p = (p[:-2] + 2 * p[1:-1] + p[2:]) / 4
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]) / 4


def shadow(key: Key, image: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """An acoustic shadow: a soft-edged lateral band, darkened by 30 to 80 % from a random depth downwards."""
    h, w = image.shape
    centre, width, depth, strength = jax.random.uniform(
        key, (4,), minval=jnp.array([0.0, 0.05, 0.1, 0.3]), maxval=jnp.array([1.0, 0.15, 0.7, 0.8])
    )
    lateral = jnp.exp(-0.5 * ((jnp.arange(w) / w - centre) / width) ** 4)
    below = jax.nn.sigmoid((jnp.arange(h) / h - depth) / 0.03)
    return image * (1 - strength * below[:, None] * lateral[None, :])
