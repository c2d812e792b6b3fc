"""The picture of a phantom: tissue, its echoes along the beam, envelopes, log compression."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.phantom.descriptors import COMPOSITIONS, FOCI, MARGINS, Descriptors, values_of
from data_prep.phantom.outline import (
    Contour,
    Scene,
    Size,
    between,
    depth_inside,
    grid,
    lobe_depth,
    outline,
    radius,
    sample_scene,
)
from thyroid_jax.shapes import Array, Float, Int, Key

DYNAMIC_RANGE_DB = 60.0
HEADROOM_DB = 30.0  # white lies this far above normal thyroid tissue, which is 0 dB throughout
NOISE_FLOOR_DB = -30.0
LOOKS = 2  # frequency compounding: independent envelopes that the scanner averages before it compresses them
FLUID_DB = -45.0
MUSCLE_DB = -10.0
ECHO_DB = {
    "anechoic": FLUID_DB,
    "hyperechoic": 7.0,
    "isoechoic": 0.0,
    "hypoechoic": -8.0,
    "very hypoechoic": -16.0,
    "unclear": 0.0,
}


class Tissue(NamedTuple):
    """What the beam meets at each pixel.

    Attributes:
        echo: strength of the scatterers in dB; normal thyroid tissue is 0.
        mirror: amplitude of coherent reflectors, linear; scatterers of normal tissue have 1.
        loss: attenuation in dB per pixel of depth beyond what the depth gain corrects; negative in fluid.
    """

    echo: Float[Array, "h w"]
    mirror: Float[Array, "h w"]
    loss: Float[Array, "h w"]


def render(
    key: Key, descriptors: Descriptors, size: Size = (96, 96)
) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """Image in [0, 1] and mask in {0, 1} of a nodule with these descriptors at a random place.

    ``size`` (h, w) is static under jit.
    """
    scene_key, image_key = jax.random.split(key)
    scene = sample_scene(scene_key, descriptors, size)
    return draw(image_key, descriptors, scene, size), outline(scene.contour, size)


def draw(key: Key, descriptors: Descriptors, scene: Scene, size: Size) -> Float[Array, "h w"]:
    """The B-mode picture of a scene, in [0, 1]: tissue, attenuated echoes, mean of envelopes, log compression."""
    keys = jax.random.split(key, 4 + LOOKS)
    knobs = jax.random.uniform(keys[0], (6,))
    # Without the barriers XLA computes a stage again for each of its uses, at several times the cost on a CPU.
    barrier = jax.lax.optimization_barrier
    tissue = barrier(_neck(keys[1], knobs[:3], scene, size))
    tissue = barrier(_add_nodule(keys[2], knobs[3], descriptors, scene, size, tissue))
    tissue = barrier(_add_foci(keys[3], descriptors, scene.contour, size, tissue))
    beam = blur_matrix(0.006 * min(size), size[1], energy=False)
    passed = -jnp.clip(jnp.cumsum(tissue.loss, axis=0), -9.0, 28.0) @ beam
    depth = (jnp.arange(size[0]) / size[0])[:, None]
    gain = between(knobs[4], -2.0, 2.0) + between(knobs[5], -9.0, 0.0) * depth + passed
    # No reflector is a perfect mirror: part of its echo is scattered, so it is speckled too.
    scattered = jnp.hypot(_amplitude(tissue.echo), 0.8 * tissue.mirror) * _amplitude(gain)
    scattered = barrier(scattered)
    looks = jax.vmap(lambda look: envelope(look, scattered, 0.4 * tissue.mirror * _amplitude(gain)))(keys[4:])
    return log_compress(jnp.mean(looks, axis=0))


def envelope(key: Key, amplitude: Float[Array, "h w"], mirror: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Envelope of the echoes, ``|PSF * (amplitude n) + mirror + noise|``.

    n is complex Gaussian noise with ``E|n|**2 = 1``, and the electronic noise has the level of the noise floor. The
    point spread function PSF is Gaussian and of unit energy, with standard deviations of 0.006 u along the beam and
    0.0105 u across. Where ``amplitude`` is constant and ``mirror`` is 0, the result is Rayleigh distributed with the
    mean square ``amplitude**2``.
    """
    size = amplitude.shape
    along, across = (
        blur_matrix(width * min(size), length, energy=True) for width, length in ((0.006, size[0]), (0.0105, size[1]))
    )
    scatterers, noise = jax.random.normal(key, (2, 2, *size)) / jnp.sqrt(2.0)  # each: real, imaginary
    echoes = along.T @ (scatterers * amplitude[None]) @ across + noise * _amplitude(NOISE_FLOOR_DB)
    return jnp.hypot(echoes[0] + mirror, echoes[1])


def log_compress(envelope: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """``clip(1 + (20 log10(envelope) - headroom) / dynamic range, 0, 1)``: an envelope of 1 (0 dB) becomes 0.5."""
    decibel = 20 * jnp.log10(jnp.maximum(envelope, 1e-6))
    return jnp.clip(1 + (decibel - HEADROOM_DB) / DYNAMIC_RANGE_DB, 0, 1)


def _neck(key: Key, place: Float[Array, " 3"], scene: Scene, size: Size) -> Tissue:
    """The neck without a nodule: skin, fat, strap muscle, lobe, prevertebral muscle, carotid and trachea.

    The lobe lies in its capsule, the carotid on one side of it and the trachea on the other. ``place`` in [0, 1)
    shifts the carotid down and outward, and the trachea outward.
    """
    unit = float(min(size))
    wave, fibres, gland, fatty, patches = _fields(
        key, size, (0.3, 0.16), (0.009, 0.09), (0.03, 0.04), (0.007, 0.05), (0.05, 0.08)
    )
    rows, columns = grid(size)
    bend = 0.012 * unit * wave
    depth = (rows + bend) / size[0]
    patchy = jax.nn.sigmoid(1.2 * patches + 0.6)  # reflectors are visible in places only
    muscle = MUSCLE_DB + 11 * jax.nn.relu(fibres - 0.5) - 1.5 * jax.nn.relu(-fibres)
    fat = -6.0 + 7 * jax.nn.relu(fatty)
    echo = jnp.where(depth < 0.025, 9.0, jnp.where(depth < 0.085, fat, muscle))
    echo = echo - 10 * jax.nn.sigmoid((depth - 0.94) / 0.02)

    inside, facing = lobe_depth(scene, size)
    inside = inside + bend * 0.7
    echo = _mix(echo, gland, jax.nn.sigmoid(inside / (0.007 * unit)))
    mirror = patchy * (
        4.5 * facing**2 * _bump(inside / (0.008 * unit)) + 3.5 * _bump((depth - 0.085) * size[0] / (0.006 * unit))
    )

    place = between(place, -1.0, 1.0)
    carotid = (
        jnp.hypot(
            rows - (0.62 + 0.05 * place[0]) * size[0], columns - (0.5 + (0.44 + 0.03 * place[1]) * scene.side) * size[1]
        )
        / unit
    )
    echo = _mix(echo, FLUID_DB, jax.nn.sigmoid((0.075 - carotid) / 0.006))
    mirror = mirror * (carotid > 0.09) + 3.0 * patchy * _bump((carotid - 0.085) / 0.008)
    trachea = jnp.hypot(rows - 0.68 * size[0], columns - (0.5 - (0.62 + 0.03 * place[2]) * scene.side) * size[1]) / unit
    air = jax.nn.sigmoid((0.24 - trachea) / 0.008)
    echo = _mix(echo, -20.0 + 7 * fibres, air)
    mirror = mirror * (1 - air) + 6.0 * patchy * _bump((trachea - 0.245) / 0.009) * (rows < 0.66 * size[0])
    return Tissue(echo, mirror, jnp.zeros(size))


def _add_nodule(
    key: Key, turn: Float[Array, ""], descriptors: Descriptors, scene: Scene, size: Size, tissue: Tissue
) -> Tissue:
    """Paint the nodule over the neck: fluid and solid parts, echogenicity, and the edge.

    ``turn`` in [0, 1) is the direction of its fluid, as a share of a full turn.
    """
    unit = float(min(size))
    grains, *smooth = jax.lax.optimization_barrier(jax.random.normal(key, (4, *size)))
    widths = (0.02, 0.02), (0.022, 0.026), (0.06, 0.07)
    frayed, texture, clouds = (_blur(noise, size, width) for noise, width in zip(smooth, widths))
    inside, angle = depth_inside(scene.contour, size)
    has_margin, composition = (lambda name: descriptors.margin == MARGINS.index(name)), descriptors.composition
    vague = has_margin("ill-defined")
    ragged = inside + jnp.where(vague, 0.022, 0.0) * unit * frayed
    member = jax.nn.sigmoid(ragged / (unit * jnp.where(vague, 0.020, 0.005)))
    fluid = _fluid((grains, clouds), turn, composition, inside, scene.contour, size)

    level = values_of(ECHO_DB)[descriptors.echogenicity]
    solid = level + 2.0 * texture
    # A thin dark halo lies on a smooth edge, so that an isoechoic nodule can be seen. Other edges have a fainter one.
    halo = jnp.where(vague, 6.0, jnp.where(has_margin("smooth"), 12.0, 9.0))
    rim = _bump((inside - 0.012 * unit) / (unit * jnp.where(vague, 0.035, 0.016)))
    echo = _mix(tissue.echo, _mix(solid, FLUID_DB, fluid), member) - halo * rim * (1 - fluid)
    wall = 3.5 * _bump(inside / (0.009 * unit)) * jnp.sin(angle) ** 2 * (composition == COMPOSITIONS.index("cystic"))
    loss = tissue.loss - 20.0 / size[0] * fluid * member
    return Tissue(echo, tissue.mirror * (1 - member) + wall, loss)


def _fluid(
    noise: tuple[Float[Array, "h w"], Float[Array, "h w"]],
    turn: Float[Array, ""],
    composition: Int[Array, ""],
    inside: Float[Array, "h w"],
    contour: Contour,
    size: Size,
) -> Float[Array, "h w"]:
    """Share of fluid at each pixel, in [0, 1].

    Cystic: all fluid. Spongiform: tiny pores, drawn from the white noise in ``noise``. Mixed: pockets on the side of
    ``turn``, drawn from the smooth noise in ``noise``. Solid: none.
    """
    unit = float(min(size))
    grains, clouds = noise
    # The same noise finely blurred minus coarsely blurred has no large blobs. Its pores have one size and fill about
    # half of the nodule.
    fine, coarse = (_blur(grains, size, (0.012 * scale, 0.014 * scale)) for scale in (1.0, 2.0))
    pores = (
        0.45
        * jax.nn.sigmoid((fine - 0.8 * coarse + 0.1) / 0.12)
        * jax.nn.sigmoid((inside - 0.015 * unit) / (0.004 * unit))
    )
    side = 2 * jnp.pi * turn
    rows, columns = grid(size)
    down, right = rows - contour.centre[0], columns - contour.centre[1]
    ramp = (jnp.sin(side) * down + jnp.cos(side) * right) / contour.semi.mean()
    pocket = jax.nn.sigmoid((1.1 * ramp + 0.5 * clouds) / 0.06)
    pocket = pocket * jax.nn.sigmoid((inside - 0.02 * unit) / (0.004 * unit))
    flag = dict(zip(COMPOSITIONS, jax.nn.one_hot(composition, len(COMPOSITIONS))))
    return flag["cystic"] + flag["spongiform"] * pores + flag["mixed"] * pocket


def _add_foci(key: Key, descriptors: Descriptors, contour: Contour, size: Size, tissue: Tissue) -> Tissue:
    """Add the kinds of echogenic foci whose flag is set; macrocalcification and rim also darken what lies behind."""
    unit = float(min(size))
    shares = jax.random.uniform(key, (20, 2))
    present = dict(zip(FOCI, descriptors.foci.astype(jnp.float32)))
    tails = present["large comet-tail"] * _comet_tails(shares[:2], contour, size)
    stone = present["macrocalcification"] * _stone(shares[2:7], contour, size)
    shell = present["peripheral"] * _shell(shares[7, 0], contour, size)
    # Punctate foci lie in solid tissue only.
    dots = (
        present["punctate"]
        * _dots(shares[8:], contour, size)
        * (tissue.echo > 0.5 * (FLUID_DB + ECHO_DB["very hypoechoic"]))
    )
    mirror = tissue.mirror + 16.0 * dots + 15.0 * tails + 20.0 * jnp.minimum(stone, 1) + 13.0 * shell
    return Tissue(tissue.echo, mirror, tissue.loss + (260.0 * stone + 280.0 * shell) / unit)


def _dots(shares: Float[Array, "p 2"], contour: Contour, size: Size) -> Float[Array, "h w"]:
    """Punctate foci: points at the limit of resolution."""
    return _spots(_places(shares, contour, 0.75), 0.0078 * min(size), 0.0078 * min(size), size)


def _comet_tails(shares: Float[Array, "p 2"], contour: Contour, size: Size) -> Float[Array, "h w"]:
    """Bright points, each with a fading ladder of reverberations below it."""
    unit = float(min(size))
    rows, columns = grid(size)

    def tail(place: Float[Array, " 2"]) -> Float[Array, "h w"]:
        below = (rows - place[0]) / unit
        ladder = 0.6 + 0.4 * jnp.cos(2 * jnp.pi * below / 0.026)
        fading = jnp.exp(-jnp.maximum(below, 0) / 0.035) * jax.nn.sigmoid(below / 0.003)
        taper = 0.012 * jnp.exp(-jnp.maximum(below, 0) / 0.12)
        return ladder * fading * _bump((columns - place[1]) / (taper * unit))

    return jax.vmap(tail)(_places(shares, contour, 0.45)).sum(0)


def _stone(shares: Float[Array, "p 2"], contour: Contour, size: Size) -> Float[Array, "h w"]:
    """A coarse clump in the upper half, so that its shadow lies partly on the nodule.

    The first of ``shares`` places the clump, the others its grains.
    """
    unit = float(min(size))
    upper = contour._replace(centre=contour.centre - contour.semi * np.array([0.25, 0.0]))
    grains = _places(shares[:1], upper, 0.4) + unit * between(shares[1:], -1.0, 1.0) * np.array([[0.022, 0.052]])
    return _spots(grains, 0.019 * unit, 0.024 * unit, size)


def _shell(turn: Float[Array, ""], contour: Contour, size: Size) -> Float[Array, "h w"]:
    """A bright rim along the inside of the curve, broken in a few places; ``turn`` in [0, 1) moves them around."""
    unit = float(min(size))
    inside, angle = depth_inside(contour, size)
    first = 2 * jnp.pi * turn
    unbroken = jax.nn.sigmoid((jnp.cos(angle - first) + 0.75) / 0.06) * jax.nn.sigmoid(
        (jnp.cos(3 * angle + first) + 0.9) / 0.08
    )
    return _bump((inside - 0.008 * unit) / (0.010 * unit)) * unbroken


def _spots(places: Float[Array, "p 2"], tall: float, wide: float, size: Size) -> Float[Array, "h w"]:
    """Sum of Gaussian spots of height 1: each is a row factor times a column factor, so one matrix product."""
    rows = _bump((jnp.arange(size[0])[None] + 0.5 - places[:, :1]) / tall)
    columns = _bump((jnp.arange(size[1])[None] + 0.5 - places[:, 1:]) / wide)
    return rows.T @ columns


def _places(shares: Float[Array, "p 2"], contour: Contour, reach: float) -> Float[Array, "p 2"]:
    """Points (row, column) inside the curve shrunk to ``reach`` about its centre.

    They are uniform over its area when ``shares`` are uniform in [0, 1).
    """
    angle = 2 * jnp.pi * shares[:, 0]
    distance = reach * radius(contour, angle) * jnp.sqrt(shares[:, 1])
    return contour.centre[None] + distance[:, None] * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=1)


def _amplitude(decibel: float | Float[Array, "*n"]) -> Float[Array, "*n"]:
    return jnp.power(10.0, jnp.asarray(decibel) / 20)


def _bump(distance: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return jnp.exp(-0.5 * distance**2)


def _mix(
    outer: Float[Array, "h w"], inner: float | Float[Array, "h w"], share: Float[Array, "h w"]
) -> Float[Array, "h w"]:
    return outer + (inner - outer) * share


def blur_matrix(deviation: float, length: int, energy: bool) -> np.ndarray:
    """Gaussian blur along one axis as a matrix [length length], for ``values @ matrix``.

    The weights of each output have the sum 1, or with ``energy`` the sum of squares 1. White noise of variance 1 then
    becomes correlated noise of variance 1, up to the border.
    """
    place = np.arange(length)
    matrix = np.exp(-0.5 * ((place[:, None] - place[None, :]) / max(deviation, 0.2)) ** 2)
    weight = np.sqrt(np.sum(matrix**2, axis=0)) if energy else np.sum(matrix, axis=0)
    return (matrix / weight[None, :]).astype(np.float32)


def _fields(key: Key, size: Size, *widths: tuple[float, float]) -> list[Float[Array, "h w"]]:
    """Independent Gaussian fields of mean 0 and variance 1, each blurred by its (row, column) width in units of u."""
    noise = jax.lax.optimization_barrier(jax.random.normal(key, (len(widths), *size)))
    return [_blur(field, size, width) for field, width in zip(noise, widths)]


def _blur(noise: Float[Array, "h w"], size: Size, width: tuple[float, float]) -> Float[Array, "h w"]:
    along, across = (blur_matrix(share * min(size), length, energy=True) for share, length in zip(width, size))
    return along.T @ noise @ across
