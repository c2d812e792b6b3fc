"""Random views of a training batch, on the device, inside the jitted step: image and mask move together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from thyroid_jax.config import AugmentConfig
from thyroid_jax.shapes import Array, Float, Key


def augment(
    key: Key, image: Float[Array, "b h w 1"], mask: Float[Array, "b h w"], config: AugmentConfig
) -> tuple[Float[Array, "b h w 1"], Float[Array, "b h w"]]:
    """A random view of every example: mirror, affine motion, then gain, gamma, speckle, blur and shadow on the image
    alone.

    Both stay in [0, 1]; what comes in from outside the image is 0. Example i's view depends on ``key`` and i only.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(image.shape[0]))
    image, mask = jax.vmap(lambda k, x, m: _view(k, x[..., 0], m, config))(keys, image, mask)
    return image[..., None], mask


def _view(
    key: Key, image: Float[Array, "h w"], mask: Float[Array, "h w"], config: AugmentConfig
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    move, *keys = jax.random.split(key, 6)
    y, x = source_coordinates(move, image.shape, config)
    image, mask = (map_coordinates(a, [y, x], order=1, mode="constant") for a in (image, mask))
    if config.gain or config.gamma:
        image = intensity(keys[0], image, gain=config.gain, gamma=config.gamma)
    if config.speckle:
        image = image * (1 + config.speckle * jax.random.normal(keys[1], image.shape))
    if config.blur:
        image = jnp.where(jax.random.bernoulli(keys[2], config.blur), blur(image), image)
    if config.shadow:
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


def intensity(key: Key, image: Float[Array, "h w"], *, gain: float, gamma: float) -> Float[Array, "h w"]:
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
