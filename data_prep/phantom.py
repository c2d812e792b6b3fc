r"""Thyroid ultrasound phantoms: ACR descriptors in; a B-mode picture, its exact outline, its grade and what readers made of it out.

Everything is a pure function of a key (and descriptors), so it can be jitted, vmapped and run where the model runs. The picture is made
in the order of the physics, with ``u = min(h, w)`` the unit of length, so that the look does not change with the size:

1. scatterers: complex Gaussian noise whose strength (dB) is painted tissue by tissue, then blurred by the point spread function of the
   probe. Its envelope is Rayleigh distributed, mean / standard deviation = sqrt(pi / (4 - pi)) = 1.91 (fully developed speckle; Wagner,
   Smith, Sandrik, Lopez, *Statistics of speckle in ultrasound B-scans*, IEEE Trans Sonics Ultrason 30 (1983) 156-163). Capsules, vessel
   walls and calcifications add a coherent echo: there the envelope is Rician.
2. attenuation summed along the beam: more light behind fluid, a shadow behind calcium; what the depth gain left uncorrected.
3. log compression to a stated dynamic range (60 dB).

The outline is a star-shaped curve, an ellipse times a short Fourier series: ``r(t) = e(t) (1 + sum_n a_n cos nt + b_n sin nt) + offset``
(the polar relative of the elliptical Fourier features of Kuhl and Giardina, Comput Graph Image Process 18 (1982) 236-258), so area and
membership are exact and a reader's bias or smoothing acts on a handful of numbers.

Simplified: a linear probe with parallel beams and a point spread function that does not change with depth; single scattering;
no refraction, so no edge shadows; anatomy is a stylised transverse section; the picture decides every descriptor, which no real one does.
Phantoms show that code works and how readers disagree. They say nothing about accuracy on patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.schema import Card, Notes, Record
from thyroid_jax import tirads
from thyroid_jax.errors import InputError
from thyroid_jax.shapes import Float, Int, Key

Size = tuple[int, int]

COMPOSITIONS = tuple(tirads.COMPOSITION)
ECHOGENICITIES = tuple(tirads.ECHOGENICITY)
SHAPES = tuple(tirads.SHAPE)
MARGINS = tuple(tirads.MARGIN)
FOCI = tuple(kind for kind in tirads.FOCI if kind != "none")  # "none" is the absence of the others

DEPTH_MM = 40.0  # nominal depth shown by every picture; with square pixels this fixes the spacing
DYNAMIC_RANGE_DB = 60.0
HEADROOM_DB = 30.0  # white lies this far above normal thyroid tissue, which is 0 dB throughout
NOISE_FLOOR_DB = -30.0
LOOKS = 2  # frequency compounding: independent envelopes that the scanner averages before it compresses them
FLUID_DB = -45.0
MUSCLE_DB = -10.0
ECHO_DB = {"anechoic": FLUID_DB, "hyperechoic": 7.0, "isoechoic": 0.0, "hypoechoic": -8.0, "very hypoechoic": -16.0, "unclear": 0.0}
LOBE_POWER = 2.8  # between an ellipse (2) and a box
ORDERS = np.arange(2, 13)  # of the Fourier series; order 1 would only move the curve


# -- descriptors ---------------------------------------------------------------------------------------------------------------------


class Descriptors(NamedTuple):
    """The five ACR axes as indices into :data:`COMPOSITIONS`, :data:`ECHOGENICITIES`, :data:`SHAPES`, :data:`MARGINS`.

    ``foci`` is int32[4], 1 where that kind of :data:`FOCI` is present; several may be.
    """

    composition: Int[""]
    echogenicity: Int[""]
    shape: Int[""]
    margin: Int[""]
    foci: Int[" 4"]


def points(descriptors: Descriptors) -> Int[""]:
    """Sum of the ACR points, from the tables of :mod:`thyroid_jax.tirads`; equals :func:`thyroid_jax.tirads.points` of the same words."""
    axes = zip((tirads.COMPOSITION, tirads.ECHOGENICITY, tirads.SHAPE, tirads.MARGIN), descriptors)
    total = sum(_values(table)[index] for table, index in axes)
    total = total + jnp.sum(_values({kind: tirads.FOCI[kind] for kind in FOCI}) * descriptors.foci)
    return jnp.where(descriptors.composition == COMPOSITIONS.index("spongiform"), 0, total)


def words(descriptors: Descriptors) -> dict[str, str]:
    """The written findings of one nodule (not traced), as a report has them; several kinds of foci are joined by ``", "``."""
    composition, echogenicity, shape, margin = (int(index) for index in descriptors[:4])
    present = [kind for kind, flag in zip(FOCI, np.asarray(descriptors.foci)) if flag]
    return {
        "composition": COMPOSITIONS[composition],
        "echogenicity": ECHOGENICITIES[echogenicity],
        "shape": SHAPES[shape],
        "margin": MARGINS[margin],
        "foci": ", ".join(present) or "none",
    }


def _combinations() -> Iterator[tuple[str, str, str, str, tuple[str, ...], float]]:
    """Every finding that a nodule can consistently have, with how common it is among its level (relative, made up to look plausible).

    Fluid is anechoic, wide and smooth; a spongiform nodule has no other finding; large comet tails need colloid; "unclear" says that
    the picture cannot be read, so nothing can be drawn for it.
    """
    for foci in ((), ("large comet-tail",)):
        yield "cystic", "anechoic", "wider than tall", "smooth", foci, 1.0
        yield "spongiform", "isoechoic", "wider than tall", "smooth", foci, 1.0 if not foci else 0.3
    common = {0: 1.0, 1: 0.35, 2: 0.06}
    for composition, kinds in (("mixed", FOCI), ("solid", tuple(kind for kind in FOCI if kind != "large comet-tail"))):
        for echogenicity in ("hyperechoic", "isoechoic", "hypoechoic", "very hypoechoic"):
            for shape in SHAPES:
                for margin in ("smooth", "ill-defined", "lobulated or irregular", "extrathyroidal extension"):
                    for count, share in common.items():
                        for foci in combinations(kinds, count):
                            yield composition, echogenicity, shape, margin, foci, share


@cache
def _table() -> tuple[Descriptors, np.ndarray, np.ndarray]:
    """The combinations as one stacked :class:`Descriptors`, their level and their share, as NumPy (importing must not start a device)."""
    rows = list(_combinations())
    axes = (COMPOSITIONS, ECHOGENICITIES, SHAPES, MARGINS)
    indices = [np.array([names.index(row[axis]) for row in rows], np.int32) for axis, names in enumerate(axes)]
    foci = np.array([[kind in row[4] for kind in FOCI] for row in rows], np.int32)
    sums = [tirads.points(*row[:5]) for row in rows]
    with jax.ensure_compile_time_eval():
        levels = np.asarray(tirads.level(jnp.array(sums)))
    return Descriptors(*indices, foci), levels, np.array([row[5] for row in rows], np.float32)


def sample_descriptors(key: Key) -> Descriptors:
    """Descriptors of one nodule whose level TR1..TR5 is uniform: the level first, then a combination of that level by its share."""
    table, levels, share = _table()
    level_key, row_key = jax.random.split(key)
    level = jnp.floor(len(tirads.LEVELS) * jax.random.uniform(level_key)).astype(int)
    row = jax.random.categorical(row_key, jnp.where(levels == level, jnp.log(share), -jnp.inf))
    return jax.tree.map(lambda column: jnp.asarray(column)[row], table)


# -- outline -------------------------------------------------------------------------------------------------------------------------


class Contour(NamedTuple):
    """A star-shaped curve in pixels, ``r(t) = e(t - tilt) (1 + sum_n cosine_n cos nt + sine_n sin nt) + offset``.

    ``e`` is the polar radius of the ellipse with half axes ``semi``. Angles run from +column to +row; ``centre`` and ``semi`` are
    (row, column), the centre of the first pixel being (0.5, 0.5); the orders n are :data:`ORDERS`.
    """

    centre: Float[" 2"]
    semi: Float[" 2"]
    tilt: Float[""]
    cosine: Float[" m"]
    sine: Float[" m"]
    offset: Float[""]


def radius(contour: Contour, angle: Float["*n"]) -> Float["*n"]:
    """Distance in pixels from the centre to the curve at each angle; the area is ``0.5 * integral of radius**2``."""
    turned = angle - contour.tilt
    ellipse = 1 / jnp.hypot(jnp.sin(turned) / contour.semi[0], jnp.cos(turned) / contour.semi[1])
    point = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
    coefficients = jax.lax.complex(contour.cosine, -contour.sine)
    series = jnp.zeros_like(point)
    for order in reversed(range(len(ORDERS))):  # Horner: Re sum c_n z**n, without a sine per order
        series = series * point + coefficients[order]
    return ellipse * (1 + jnp.real(series * point * point)) + contour.offset


def depth_inside(contour: Contour, size: Size) -> tuple[Float["h w"], Float["h w"]]:
    """Pixels from each pixel's centre outward to the curve along the ray (negative outside), and the angle of that ray."""
    rows, columns = _grid(size)
    down, right = rows - contour.centre[0], columns - contour.centre[1]
    angle = jnp.arctan2(down, right)
    return jax.lax.optimization_barrier((radius(contour, angle) - jnp.hypot(down, right), angle))


def outline(contour: Contour, size: Size) -> Float["h w"]:
    """The filled curve: 1 where a pixel's centre lies on or inside it, else 0."""
    return (depth_inside(contour, size)[0] >= 0).astype(jnp.float32)


# -- scene: where things are -----------------------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """One view of one nodule: its contour, and the thyroid lobe (a superellipse, pixels, row and column) that holds it.

    ``side`` is +1 with the carotid on the right of the picture and the trachea on the left, -1 the other way round.
    """

    contour: Contour
    lobe_centre: Float[" 2"]
    lobe_semi: Float[" 2"]
    side: Float[""]


def sample_scene(key: Key, descriptors: Descriptors, size: Size, view: int | Int[""] = 0) -> Scene:
    """Place a nodule with these descriptors: half height over half width 0.5-0.75 or 1.35-1.65, radius 0.14-0.21 u before the view.

    The key is the patient's: each ``view`` cuts the same nodule again, a little larger or smaller, turned, shifted and reshaped.
    With extrathyroidal extension the nodule breaks through the front of the capsule by about a quarter of its height; otherwise it
    stays inside the lobe.
    """
    # Few random calls on purpose: each one costs about as much to compile as a stage of the picture.
    nodule_key, nodule_wave, view_key, view_wave = jax.random.split(key, 4)
    fixed = jax.random.uniform(nodule_key, (6,))
    moving = jax.random.uniform(jax.random.fold_in(view_key, view), (4,))
    unit = float(min(size))
    lobe_centre = jnp.array([0.55 * size[0], 0.5 * size[1]])
    lobe_semi = jnp.array([0.33 * size[0], 0.42 * size[1]]) * _between(fixed[:2], 0.95, 1.05)

    tall = descriptors.shape == SHAPES.index("taller than wide")
    aspect = jnp.where(tall, _between(fixed[2], 1.35, 1.65), _between(fixed[2], 0.5, 0.75))
    mean_radius = unit * _between(fixed[3], 0.145, 0.205) * _between(moving[0], 0.94, 1.04)
    semi = mean_radius * jnp.stack([jnp.sqrt(aspect), 1 / jnp.sqrt(aspect)])
    tilt = _between(fixed[4], -0.12, 0.12) + _between(moving[1], -0.08, 0.08)
    waves = _harmonics(nodule_wave, descriptors), _harmonics(jax.random.fold_in(view_wave, view), descriptors)
    cosine, sine = np.sqrt(0.8) * waves[0] + np.sqrt(0.2) * waves[1]

    reach = 1.12 * semi + 0.015 * unit
    shift = _between(moving[2:], -1.0, 1.0) * jnp.maximum(lobe_semi - reach, 0) * 0.75
    centre = lobe_centre + shift
    capsule = lobe_centre[0] - lobe_semi[0] * (1 - (jnp.abs(shift[1]) / lobe_semi[1]) ** LOBE_POWER) ** (1 / LOBE_POWER)
    breaking = jnp.maximum(capsule + 0.42 * semi[0], reach[0])
    crosses = descriptors.margin == MARGINS.index("extrathyroidal extension")
    centre = jnp.stack([jnp.where(crosses, breaking, centre[0]), centre[1]])
    side = jnp.where(fixed[5] < 0.5, 1.0, -1.0)
    return Scene(Contour(centre, semi, tilt, cosine, sine, jnp.zeros(())), lobe_centre, lobe_semi, side)


def _harmonics(key: Key, descriptors: Descriptors) -> Float["2 m"]:
    """Fourier coefficients whose series has root mean square 0.03 (orders 2-4), plus 0.085 (orders 5-10) on a lobulated margin."""
    slow = np.where(ORDERS <= 4, 1.0, 0.0)
    fast = np.where((ORDERS >= 5) & (ORDERS <= 10), 1.0, 0.0)
    lobulated = descriptors.margin == MARGINS.index("lobulated or irregular")
    extended = descriptors.margin == MARGINS.index("extrathyroidal extension")
    strength = jnp.where(lobulated, 0.085, jnp.where(extended, 0.03, 0.0))
    noise = jax.random.normal(key, (2, len(ORDERS)))
    return sum(amount * _unit_power(noise * band[None, :]) for amount, band in ((0.03, slow), (strength, fast)))


def _unit_power(coefficients: Float["2 m"]) -> Float["2 m"]:
    return coefficients * jnp.sqrt(2 / jnp.sum(coefficients**2))


# -- picture -------------------------------------------------------------------------------------------------------------------------


class Tissue(NamedTuple):
    """What the beam meets: ``echo`` of the scatterers (dB re normal thyroid), ``mirror`` amplitude of coherent reflectors (same unit,
    linear), ``loss`` in dB per pixel of depth beyond what the depth gain makes up for (negative in fluid).
    """

    echo: Float["h w"]
    mirror: Float["h w"]
    loss: Float["h w"]


def render(key: Key, descriptors: Descriptors, size: Size = (96, 96)) -> tuple[Float["h w"], Float["h w"]]:
    """Image in [0, 1] and mask in {0, 1} of a nodule with these descriptors at a random place; ``size`` (h, w) is static."""
    scene_key, image_key = jax.random.split(key)
    scene = sample_scene(scene_key, descriptors, size)
    return draw(image_key, descriptors, scene, size), outline(scene.contour, size)


def draw(key: Key, descriptors: Descriptors, scene: Scene, size: Size) -> Float["h w"]:
    """The B-mode picture of a scene, in [0, 1]: tissue -> attenuated echoes -> envelopes, compounded -> log compression."""
    keys = jax.random.split(key, 4 + LOOKS)
    knobs = jax.random.uniform(keys[0], (6,))
    # The barriers keep XLA from computing a stage again inside each of its uses, which costs several times the whole picture on a CPU.
    settle = jax.lax.optimization_barrier
    tissue = settle(_neck(keys[1], knobs[:3], scene, size))
    tissue = settle(_add_nodule(keys[2], knobs[3], descriptors, scene, size, tissue))
    tissue = settle(_add_foci(keys[3], descriptors, scene.contour, size, tissue))
    beam = _filter(0.006 * min(size), size[1], energy=False)
    passed = -jnp.clip(jnp.cumsum(tissue.loss, axis=0), -9.0, 28.0) @ beam
    depth = (jnp.arange(size[0]) / size[0])[:, None]
    gain = _between(knobs[4], -2.0, 2.0) + _between(knobs[5], -9.0, 0.0) * depth + passed
    # No reflector is a perfect mirror: part of its echo is scattered, so it is speckled too.
    scattered = jnp.hypot(_amplitude(tissue.echo), 0.8 * tissue.mirror) * _amplitude(gain)
    scattered = settle(scattered)
    looks = jax.vmap(lambda look: envelope(look, scattered, 0.4 * tissue.mirror * _amplitude(gain)))(keys[4:])
    return log_compress(jnp.mean(looks, axis=0))


def envelope(key: Key, amplitude: Float["h w"], mirror: Float["h w"]) -> Float["h w"]:
    """``|PSF * (amplitude n) + mirror + noise|`` with complex Gaussian n, ``E|n|**2 = 1``, and electronic noise at the noise floor.

    The point spread function is Gaussian, standard deviation 0.006 u along the beam and 0.0105 u across, of unit energy. Where
    ``amplitude`` is constant and ``mirror`` 0 the result is Rayleigh, with mean square ``amplitude**2``.
    """
    size = amplitude.shape
    along, across = (_filter(width * min(size), length, energy=True) for width, length in ((0.006, size[0]), (0.0105, size[1])))
    scatterers, noise = jax.random.normal(key, (2, 2, *size)) / jnp.sqrt(2.0)  # each: real, imaginary
    echoes = along.T @ (scatterers * amplitude[None]) @ across + noise * _amplitude(NOISE_FLOOR_DB)
    return jnp.hypot(echoes[0] + mirror, echoes[1])


def log_compress(envelope: Float["*n"]) -> Float["*n"]:
    """``clip(1 + (20 log10(envelope) - headroom) / dynamic range, 0, 1)``: an envelope of 1 (0 dB) becomes 0.5."""
    decibel = 20 * jnp.log10(jnp.maximum(envelope, 1e-6))
    return jnp.clip(1 + (decibel - HEADROOM_DB) / DYNAMIC_RANGE_DB, 0, 1)


def _neck(key: Key, place: Float[" 3"], scene: Scene, size: Size) -> Tissue:
    """Skin, fat, strap muscle, thyroid lobe in its capsule, prevertebral muscle; carotid on one side and trachea on the other.

    ``place`` in [0, 1) shifts the carotid down and outward and the trachea outward.
    """
    unit = float(min(size))
    wave, fibres, gland, fatty, patches = _fields(key, size, (0.3, 0.16), (0.009, 0.09), (0.03, 0.04), (0.007, 0.05), (0.05, 0.08))
    rows, columns = _grid(size)
    bend = 0.012 * unit * wave
    depth = (rows + bend) / size[0]
    patchy = jax.nn.sigmoid(1.2 * patches + 0.6)  # reflectors are seen in places only
    muscle = MUSCLE_DB + 11 * jax.nn.relu(fibres - 0.5) - 1.5 * jax.nn.relu(-fibres)
    fat = -6.0 + 7 * jax.nn.relu(fatty)
    echo = jnp.where(depth < 0.025, 9.0, jnp.where(depth < 0.085, fat, muscle))
    echo = echo - 10 * jax.nn.sigmoid((depth - 0.94) / 0.02)

    inside, facing = _lobe_depth(scene, size)
    inside = inside + bend * 0.7
    echo = _mix(echo, gland, jax.nn.sigmoid(inside / (0.007 * unit)))
    mirror = patchy * (4.5 * facing**2 * _bump(inside / (0.008 * unit)) + 3.5 * _bump((depth - 0.085) * size[0] / (0.006 * unit)))

    place = _between(place, -1.0, 1.0)
    carotid = jnp.hypot(rows - (0.62 + 0.05 * place[0]) * size[0], columns - (0.5 + (0.44 + 0.03 * place[1]) * scene.side) * size[1]) / unit
    echo = _mix(echo, FLUID_DB, jax.nn.sigmoid((0.075 - carotid) / 0.006))
    mirror = mirror * (carotid > 0.09) + 3.0 * patchy * _bump((carotid - 0.085) / 0.008)
    trachea = jnp.hypot(rows - 0.68 * size[0], columns - (0.5 - (0.62 + 0.03 * place[2]) * scene.side) * size[1]) / unit
    air = jax.nn.sigmoid((0.24 - trachea) / 0.008)
    echo = _mix(echo, -20.0 + 7 * fibres, air)
    mirror = mirror * (1 - air) + 6.0 * patchy * _bump((trachea - 0.245) / 0.009) * (rows < 0.66 * size[0])
    return Tissue(echo, mirror, jnp.zeros(size))


def _add_nodule(key: Key, turn: Float[""], descriptors: Descriptors, scene: Scene, size: Size, tissue: Tissue) -> Tissue:
    """Paint the nodule over the neck: fluid and solid parts, echogenicity, and the edge; ``turn`` in [0, 1) is the side of its fluid."""
    unit = float(min(size))
    grains, *smooth = jax.lax.optimization_barrier(jax.random.normal(key, (4, *size)))
    widths = (0.02, 0.02), (0.022, 0.026), (0.06, 0.07)
    frayed, texture, clouds = (_blur(noise, size, width) for noise, width in zip(smooth, widths))
    inside, angle = depth_inside(scene.contour, size)
    margin, composition = (lambda name: descriptors.margin == MARGINS.index(name)), descriptors.composition
    vague = margin("ill-defined")
    ragged = inside + jnp.where(vague, 0.022, 0.0) * unit * frayed
    member = jax.nn.sigmoid(ragged / (unit * jnp.where(vague, 0.020, 0.005)))
    fluid = _fluid((grains, clouds), turn, composition, inside, scene.contour, size)

    level = _values(ECHO_DB)[descriptors.echogenicity]
    solid = level + 2.0 * texture
    # A thin dark halo lies on a smooth edge, so that an isoechoic nodule can be seen; other edges show by a fainter one.
    halo = jnp.where(vague, 6.0, jnp.where(margin("smooth"), 12.0, 9.0))
    rim = _bump((inside - 0.012 * unit) / (unit * jnp.where(vague, 0.035, 0.016)))
    echo = _mix(tissue.echo, _mix(solid, FLUID_DB, fluid), member) - halo * rim * (1 - fluid)
    wall = 3.5 * _bump(inside / (0.009 * unit)) * jnp.sin(angle) ** 2 * (composition == COMPOSITIONS.index("cystic"))
    loss = tissue.loss - 20.0 / size[0] * fluid * member
    return Tissue(echo, tissue.mirror * (1 - member) + wall, loss)


def _fluid(
    noise: tuple[Float["h w"], Float["h w"]], turn: Float[""], composition: Int[""], inside: Float["h w"], contour: Contour, size: Size
) -> Float["h w"]:
    """Share of fluid at each pixel in [0, 1]: all (cystic), tiny pores (spongiform), pockets on one side (mixed), none (solid).

    ``noise`` is white noise, for the pores, and smooth noise, for the pockets; ``turn`` in [0, 1) is the side of the pockets.
    """
    unit = float(min(size))
    grains, clouds = noise
    # The same noise finely blurred minus coarsely blurred has no large blobs: pores of one size, about half of the nodule.
    fine, coarse = (_blur(grains, size, (0.012 * scale, 0.014 * scale)) for scale in (1.0, 2.0))
    pores = 0.45 * jax.nn.sigmoid((fine - 0.8 * coarse + 0.1) / 0.12) * jax.nn.sigmoid((inside - 0.015 * unit) / (0.004 * unit))
    side = 2 * jnp.pi * turn
    rows, columns = _grid(size)
    down, right = rows - contour.centre[0], columns - contour.centre[1]
    ramp = (jnp.sin(side) * down + jnp.cos(side) * right) / contour.semi.mean()
    pocket = jax.nn.sigmoid((1.1 * ramp + 0.5 * clouds) / 0.06)
    pocket = pocket * jax.nn.sigmoid((inside - 0.02 * unit) / (0.004 * unit))
    is_ = dict(zip(COMPOSITIONS, jax.nn.one_hot(composition, len(COMPOSITIONS))))
    return is_["cystic"] + is_["spongiform"] * pores + is_["mixed"] * pocket


def _add_foci(key: Key, descriptors: Descriptors, contour: Contour, size: Size, tissue: Tissue) -> Tissue:
    """Echogenic foci, each kind when its flag is set; macrocalcification and rim also take light from what lies behind them."""
    unit = float(min(size))
    shares = jax.random.uniform(key, (20, 2))
    present = dict(zip(FOCI, descriptors.foci.astype(jnp.float32)))
    tails = present["large comet-tail"] * _comet_tails(shares[:2], contour, size)
    stone = present["macrocalcification"] * _stone(shares[2:7], contour, size)
    shell = present["peripheral"] * _shell(shares[7, 0], contour, size)
    # Punctate foci lie in solid tissue only.
    dots = present["punctate"] * _dots(shares[8:], contour, size) * (tissue.echo > 0.5 * (FLUID_DB + ECHO_DB["very hypoechoic"]))
    mirror = tissue.mirror + 16.0 * dots + 15.0 * tails + 20.0 * jnp.minimum(stone, 1) + 13.0 * shell
    return Tissue(tissue.echo, mirror, tissue.loss + (260.0 * stone + 280.0 * shell) / unit)


def _dots(shares: Float["p 2"], contour: Contour, size: Size) -> Float["h w"]:
    """Points at the limit of resolution."""
    return _spots(_places(shares, contour, 0.75), 0.0078 * min(size), 0.0078 * min(size), size)


def _comet_tails(shares: Float["p 2"], contour: Contour, size: Size) -> Float["h w"]:
    """Bright points, each with a fading ladder of reverberations below it."""
    unit = float(min(size))
    rows, columns = _grid(size)

    def tail(place: Float[" 2"]) -> Float["h w"]:
        below = (rows - place[0]) / unit
        ladder = 0.6 + 0.4 * jnp.cos(2 * jnp.pi * below / 0.026)
        fading = jnp.exp(-jnp.maximum(below, 0) / 0.035) * jax.nn.sigmoid(below / 0.003)
        taper = 0.012 * jnp.exp(-jnp.maximum(below, 0) / 0.12)
        return ladder * fading * _bump((columns - place[1]) / (taper * unit))

    return jax.vmap(tail)(_places(shares, contour, 0.45)).sum(0)


def _stone(shares: Float["p 2"], contour: Contour, size: Size) -> Float["h w"]:
    """A coarse clump in the upper half, its shadow partly on the nodule: the first share places it, the others its grains."""
    unit = float(min(size))
    upper = contour._replace(centre=contour.centre - contour.semi * np.array([0.25, 0.0]))
    grains = _places(shares[:1], upper, 0.4) + unit * _between(shares[1:], -1.0, 1.0) * np.array([[0.022, 0.052]])
    return _spots(grains, 0.019 * unit, 0.024 * unit, size)


def _shell(turn: Float[""], contour: Contour, size: Size) -> Float["h w"]:
    """A bright rim along the inside of the curve, broken in a few places that ``turn`` in [0, 1) moves around."""
    unit = float(min(size))
    inside, angle = depth_inside(contour, size)
    first = 2 * jnp.pi * turn
    unbroken = jax.nn.sigmoid((jnp.cos(angle - first) + 0.75) / 0.06) * jax.nn.sigmoid((jnp.cos(3 * angle + first) + 0.9) / 0.08)
    return _bump((inside - 0.008 * unit) / (0.010 * unit)) * unbroken


def _spots(places: Float["p 2"], tall: float, wide: float, size: Size) -> Float["h w"]:
    """Sum of Gaussian spots of height 1; a product of a row and a column factor, so one small matrix product."""
    rows = _bump((jnp.arange(size[0])[None] + 0.5 - places[:, :1]) / tall)
    columns = _bump((jnp.arange(size[1])[None] + 0.5 - places[:, 1:]) / wide)
    return rows.T @ columns


def _places(shares: Float["p 2"], contour: Contour, reach: float) -> Float["p 2"]:
    """Points (row, column), uniform over the curve shrunk to ``reach`` about its centre when ``shares`` are uniform in [0, 1)."""
    angle = 2 * jnp.pi * shares[:, 0]
    distance = reach * radius(contour, angle) * jnp.sqrt(shares[:, 1])
    return contour.centre[None] + distance[:, None] * jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=1)


def _lobe_depth(scene: Scene, size: Size) -> tuple[Float["h w"], Float["h w"]]:
    """About the distance in pixels inward from the capsule (negative outside), and how squarely the capsule faces the beam, in [0, 1]."""
    rows, columns = _grid(size)
    down = jnp.abs(rows - scene.lobe_centre[0]) / scene.lobe_semi[0]
    right = jnp.abs(columns - scene.lobe_centre[1]) / scene.lobe_semi[1]
    level = (down**LOBE_POWER + right**LOBE_POWER) ** (1 / LOBE_POWER)
    normal = jnp.stack([down, right]) ** (LOBE_POWER - 1) / scene.lobe_semi[:, None, None]
    return (1 - level) * scene.lobe_semi.min(), normal[0] / jnp.maximum(jnp.hypot(normal[0], normal[1]), 1e-9)


# -- readers -------------------------------------------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """How a simulated reader draws and grades.

    bias       drawn outside (+) or inside (-) the true edge, as a share of u
    bandwidth  orders of the contour well above it are smoothed away: amplitude times ``exp(-(n / bandwidth)**2 / 2)``
    jitter     root mean square of the unsteady hand, as a share of the radius, in orders 2-5
    habit      row = true level, column = given level, entry = probability; rows sum to 1
    """

    bias: Float["*n"]
    bandwidth: Float["*n"]
    jitter: Float["*n"]
    habit: Float["*n k k"]


def grading_habit(raise_by_one: float, lower_by_one: float, k: int = len(tirads.LEVELS)) -> np.ndarray:
    """k x k confusion of a reader who moves a level up or down by one that often, and keeps it where the scale ends."""
    kept = 1 - raise_by_one - lower_by_one
    habit = kept * np.eye(k) + raise_by_one * np.eye(k, k=1) + lower_by_one * np.eye(k, k=-1)
    habit[0, 0] += lower_by_one
    habit[-1, -1] += raise_by_one
    return habit.astype(np.float32)


# The first draws outward and smooth and over-grades; the second draws inward, follows every lobule and under-grades.
READERS = Reader(
    bias=np.array([0.015, -0.012], np.float32),
    bandwidth=np.array([4.0, 20.0], np.float32),
    jitter=np.array([0.02, 0.02], np.float32),
    habit=np.stack([grading_habit(0.25, 0.03), grading_habit(0.03, 0.25)]),
)


def read_contour(key: Key, reader: Reader, contour: Contour, size: Size) -> Contour:
    """The curve that one reader draws for the true one: smoothed, jittered, moved in or out along the rays."""
    keep = jnp.exp(-0.5 * (ORDERS / reader.bandwidth) ** 2)
    hand = reader.jitter * _unit_power(jax.random.normal(key, (2, len(ORDERS))) * np.where(ORDERS <= 5, 1.0, 0.0)[None, :])
    return contour._replace(
        cosine=contour.cosine * keep + hand[0], sine=contour.sine * keep + hand[1], offset=contour.offset + reader.bias * min(size)
    )


def read_outline(key: Key, reader: Reader, contour: Contour, size: Size) -> Float["h w"]:
    """The mask that one reader draws, in {0, 1}."""
    return outline(read_contour(key, reader, contour, size), size)


def read_grade(key: Key, reader: Reader, level: Int[""]) -> Int[""]:
    """The level that one reader gives to a nodule of this true level, drawn from the reader's habit."""
    habit = jnp.asarray(reader.habit)
    return jax.random.choice(key, habit.shape[-1], p=habit[level])


# -- whole phantoms --------------------------------------------------------------------------------------------------------------------


class Phantom(NamedTuple):
    """A picture and all that is known about it; n readers. ``level`` and ``reader_grades`` index ``tirads.LEVELS``."""

    image: Float["*v h w"]
    mask: Float["*v h w"]
    reader_masks: Float["*v n h w"]
    level: Int["*v"]
    reader_grades: Int["*v n"]
    points: Int["*v"]
    descriptors: Descriptors


def phantom(key: Key, size: Size = (96, 96), view: int | Int[""] = 0, readers: Reader = READERS) -> Phantom:
    """One phantom of the patient whose key this is: same key, same nodule; each ``view`` is another picture of it.

    Readers outline every view anew but grade the nodule, so their grades are the same on all its views.
    """
    keys = jax.random.split(key, 5)
    readers = jax.tree.map(jnp.asarray, readers)
    count = readers.bias.shape[0]
    descriptors = sample_descriptors(keys[0])
    scene = sample_scene(keys[1], descriptors, size, view)
    total = points(descriptors)
    level = tirads.level(total)
    hands = jax.random.split(jax.random.fold_in(keys[2], view), count)
    return Phantom(
        image=draw(jax.random.fold_in(keys[3], view), descriptors, scene, size),
        mask=outline(scene.contour, size),
        reader_masks=jax.vmap(lambda hand, reader: read_outline(hand, reader, scene.contour, size))(hands, readers),
        level=level,
        reader_grades=jax.vmap(lambda eye, reader: read_grade(eye, reader, level))(jax.random.split(keys[4], count), readers),
        points=total,
        descriptors=descriptors,
    )


def several_views(key: Key, size: Size = (96, 96), views: int = 3, readers: Reader = READERS) -> Phantom:
    """The first ``views`` pictures of one patient's nodule; every field has a leading axis v."""
    return jax.vmap(lambda view: phantom(key, size, view, readers))(jnp.arange(views))


# -- data set ------------------------------------------------------------------------------------------------------------------------

CHUNK = 32  # phantoms rendered at once: enough to keep the cores busy, small enough to stream
MOST_VIEWS = 3

CARD = Card(
    name="phantom",
    title="Thyroid ultrasound phantoms with ACR TI-RADS descriptors and two simulated readers",
    source="rendered by data_prep.phantom; nothing is downloaded",
    licence="that of this package",
    labels=(
        "Exact outline, ACR points and level by construction. Reader 1 draws outward and smooth and over-grades, reader 2 draws inward "
        f"and under-grades. Spacing is nominal ({DEPTH_MM:g} mm over the height). No diagnosis. Made images: not evidence about patients."
    ),
    grouping=f"patient: 1 to {MOST_VIEWS} views of one nodule",
    grades=tirads.LEVELS,
    grade_system="ACR",
)


@dataclass(frozen=True)
class PhantomOptions:
    """How many pictures of which size (h, w); the same seed gives the same pictures, and a smaller count gives the first of them."""

    count: int = 600
    seed: int = 0
    size: Size = (96, 96)


def read(options: PhantomOptions, notes: Notes) -> Iterator[Record]:
    """Render ``options.count`` pictures, streaming, patient by patient ("p0007"), view by view ("p0007_1"); counts go to ``notes``.

    Raises :class:`InputError` at once, before the first picture, when the options make no sense.
    """
    _check(options)
    return _stream(options, notes)


def _check(options: PhantomOptions) -> None:
    if options.count < 1:
        raise InputError(f"count: {options.count} phantoms asked for; give a number of at least 1")
    if not 0 <= options.seed < 2**31:
        raise InputError(f"seed: {options.seed} is not in 0 .. 2**31 - 1; choose one that is")
    low, high = min(options.size), max(options.size)
    if low < 48 or high > 1024 or high > 2 * low:
        raise InputError(
            f"size: {options.size[0]} x {options.size[1]} cannot be rendered; "
            "height and width must be 48 .. 1024, one at most twice the other"
        )


def _stream(options: PhantomOptions, notes: Notes) -> Iterator[Record]:
    key = jax.random.key(options.seed)
    patients, views = _schedule(key, options.count)
    for start in range(0, options.count, CHUNK):
        # The last chunk is filled up, so that there is one compilation for all.
        rows = np.minimum(np.arange(start, start + CHUNK), options.count - 1)
        chunk = jax.tree.map(np.asarray, _render_chunk(key, patients[rows], views[rows], options.size))
        for place in range(min(CHUNK, options.count - start)):
            patient, view = int(patients[rows[place]]), int(views[rows[place]])
            record = _record(jax.tree.map(lambda leaf, i=place: leaf[i], chunk), patient, view, options)
            notes.counts["images"] += 1
            notes.counts["groups"] += int(view == 0)
            notes.counts[f"grade {CARD.grades[record.grade]}"] += 1
            yield record


def _schedule(key: Key, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Patient and view of each picture: patients in turn, each with 1 to MOST_VIEWS views (the last one may be cut short)."""
    draw_views = jax.vmap(lambda patient: jax.random.randint(jax.random.fold_in(key, patient), (), 1, MOST_VIEWS + 1))
    each = np.asarray(draw_views(jnp.arange(count)))
    patients = np.repeat(np.arange(count), each)[:count]
    first = np.concatenate([[0], np.cumsum(each)[:-1]])
    return patients, np.arange(count) - first[patients]


@partial(jax.jit, static_argnames="size")
def _render_chunk(key: Key, patients: Int[" b"], views: Int[" b"], size: Size) -> Phantom:
    return jax.vmap(lambda patient, view: phantom(jax.random.fold_in(key, patient), size, view))(patients, views)


def _record(one: Phantom, patient: int, view: int, options: PhantomOptions) -> Record:
    pixel = DEPTH_MM / options.size[0]
    return Record(
        case=f"p{patient:04d}_{view + 1}",
        group=f"p{patient:04d}",
        source=CARD.name,
        image=np.round(255 * one.image).astype(np.uint8),
        mask=one.mask > 0.5,
        reader_masks=tuple(mask > 0.5 for mask in one.reader_masks),
        grade=int(one.level),
        reader_grades=tuple(int(grade) for grade in one.reader_grades),
        descriptors=words(one.descriptors),
        spacing=(pixel, pixel),
    )


# -- small tools ---------------------------------------------------------------------------------------------------------------------


def _values(table: Mapping[str, int | float]) -> jax.Array:
    return jnp.array(list(table.values()))


def _between(share: Float["*n"], low: float, high: float) -> Float["*n"]:
    return low + (high - low) * share


def _amplitude(decibel: float | Float["*n"]) -> Float["*n"]:
    return jnp.power(10.0, jnp.asarray(decibel) / 20)


def _bump(distance: Float["*n"]) -> Float["*n"]:
    return jnp.exp(-0.5 * distance**2)


def _mix(outer: Float["h w"], inner: float | Float["h w"], share: Float["h w"]) -> Float["h w"]:
    return outer + (inner - outer) * share


def _grid(size: Size) -> tuple[Float["h w"], Float["h w"]]:
    """Row and column of every pixel's centre, the first being 0.5."""
    rows, columns = jnp.meshgrid(jnp.arange(size[0]) + 0.5, jnp.arange(size[1]) + 0.5, indexing="ij")
    return rows, columns


def _filter(deviation: float, length: int, energy: bool) -> np.ndarray:
    """Gaussian blur along one axis as a length x length matrix, for ``values @ matrix``; each output has unit weight sum or unit energy.

    Unit energy turns white noise of variance 1 into correlated noise of variance 1, up to the border.
    """
    place = np.arange(length)
    matrix = np.exp(-0.5 * ((place[:, None] - place[None, :]) / max(deviation, 0.2)) ** 2)
    weight = np.sqrt(np.sum(matrix**2, axis=0)) if energy else np.sum(matrix, axis=0)
    return (matrix / weight[None, :]).astype(np.float32)


def _fields(key: Key, size: Size, *widths: tuple[float, float]) -> list[Float["h w"]]:
    """Independent Gaussian fields of mean 0 and variance 1, each blurred by its (rows, columns) width, as shares of u."""
    noise = jax.lax.optimization_barrier(jax.random.normal(key, (len(widths), *size)))
    return [_blur(field, size, width) for field, width in zip(noise, widths)]


def _blur(noise: Float["h w"], size: Size, width: tuple[float, float]) -> Float["h w"]:
    along, across = (_filter(share * min(size), length, energy=True) for share, length in zip(width, size))
    return along.T @ noise @ across
