"""Differentiable morphology: checked values, finite differences, symmetries, units, and what each feature tells apart.

Soft masks here are sigmoid(d / s), d the distance to the outline in pixels, positive inside, to first order.
"""

import doctest
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, spatial, special
from skimage import measure, morphology

from thyroid_jax.radiomics import shape, soft

ALL_FEATURES = tuple(soft.FEATURES)
COMPACT, TALL, MARGIN, ELLIPTIC, CONVEX, LONG = range(6)
features = jax.jit(
    lambda masks, spacing=(1.0, 1.0): soft.morphology(masks, spacing=spacing, features=ALL_FEATURES), static_argnums=1
)
perimeter = jax.jit(soft.perimeter, static_argnames="spacing")
area = jax.jit(soft.area, static_argnames="spacing")
moments = jax.jit(soft.moments, static_argnames="spacing")
softness = jax.jit(soft.edge_softness)
hull_area = jax.jit(soft.hull_area)


def values_of(mask, spacing=(1.0, 1.0)):
    return np.asarray(features(np.asarray(mask, np.float32)[None], spacing)[0])


def grid(sides, centre=(0.0, 0.0)):
    y, x = np.mgrid[: sides[0], : sides[1]]
    return y - (sides[0] - 1) / 2 - centre[0], x - (sides[1] - 1) / 2 - centre[1]


def edge(distance, s=0.7):
    return special.expit(distance / s).astype(np.float32)


def turned(y, x, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return c * y + s * x, c * x - s * y


def ellipse(y, x, a, b):
    """Semi-axis a along x, b along y."""
    rho = np.hypot(x / a, y / b)
    return (1 - rho) * rho / np.maximum(np.hypot(x / a**2, y / b**2), 1e-9)


def lobed(y, x, r, amplitude=0.08):
    return r * (1 + amplitude * np.cos(8 * np.arctan2(y, x))) - np.hypot(y, x)


def star(y, x, r):
    return r * (0.8 + 0.5 * np.abs(np.cos(3.5 * np.arctan2(y, x))) ** 12) - np.hypot(y, x)


def corner(y, x, r):
    box = lambda top, left, bottom, right: np.minimum(np.minimum(y - top, bottom - y), np.minimum(x - left, right - x))
    return np.maximum(box(-r, -r, r, -0.2 * r), box(0.2 * r, -r, r, r))


Y, X = grid((64, 64))
DISTANCES = {
    "disc": 14 - np.hypot(Y, X),
    "wide": ellipse(Y, X, 20, 10),
    "tall": ellipse(Y, X, 10, 20),
    "slanted": ellipse(*turned(Y, X, 45), 20, 10),
    "lobed": lobed(Y, X, 16),
    "star": star(Y, X, 16),
    "corner": corner(Y, X, 16),
    "crescent": np.minimum(16 - np.hypot(Y, X), np.hypot(Y, X - 11) - 12),
    "island": np.maximum(12 - np.hypot(Y - 5, X + 6), 4 - np.hypot(Y + 16, X - 16)),
    "ring": np.minimum(16 - np.hypot(Y, X), np.hypot(Y, X) - 8),
}
SOFT = {name: edge(distance) for name, distance in DISTANCES.items()}
HARD = {name: (distance > 0).astype(np.float32) for name, distance in DISTANCES.items()}


@cache
def table():
    return dict(zip(SOFT, np.asarray(features(np.stack(list(SOFT.values()))))))


# The method's checked values, on 256 x 256.


def test_the_perimeter_of_a_disc_soft_and_hard():
    y, x = grid((256, 256))
    distance = 50 - np.hypot(y, x)
    assert float(perimeter(edge(distance, 1.0))) == pytest.approx(314.16, abs=0.02)
    assert float(perimeter(edge(distance, 0.5))) == pytest.approx(314.16, rel=1.5e-3)
    assert float(perimeter(np.clip(distance + 0.5, 0, 1).astype(np.float32))) == pytest.approx(1.014 * 314.16, rel=1e-3)
    assert float(perimeter((distance > 0).astype(np.float32))) == pytest.approx(1.053 * 314.16, rel=1e-3)
    on_a_pixel = np.hypot(y - 0.5, x - 0.5) < 50  # of all positions the one with the shortest
    assert float(perimeter(on_a_pixel.astype(np.float32))) == pytest.approx(1.048 * 314.16, rel=1e-3)
    by_sides = sum(np.abs(np.gradient(edge(distance, 1.0), axis=axis)).sum() for axis in (0, 1))
    assert by_sides == pytest.approx(1.273 * 314.16, rel=1e-3)  # what |dx| + |dy| would say


@pytest.mark.parametrize(
    "name, compactness, ratio",
    [("ellipse 60 x 30", 0.844, 1.009), ("eight lobes of 0.08 on a disc of 50", 0.837, 0.923)],
)
def test_compactness_takes_an_ellipse_for_lobes_and_the_margin_does_not(name, compactness, ratio):
    y, x = grid((256, 256))
    mask = edge((1 - np.hypot(x / 60, y / 30)) * 30 if "ellipse" in name else lobed(y, x, 50), 1.0)
    p = float(perimeter(mask))
    m = moments(mask)
    assert 4 * np.pi * float(area(mask)) / p**2 == pytest.approx(compactness, abs=5e-4)
    assert float(shape.ellipse_perimeter(*soft.axes(m))) / p == pytest.approx(ratio, abs=6e-4)
    values = values_of(mask)
    assert values[COMPACT] == pytest.approx(1 - compactness, abs=5e-4)
    assert values[MARGIN] == pytest.approx(max(1 - ratio, 0), abs=6e-4)


@pytest.mark.parametrize("degrees, ratio", [(0, 0.5), (90, 2.0), (45, 1.0)])
def test_height_to_width_of_an_ellipse(degrees, ratio):
    y, x = grid((256, 256))
    mask = edge(ellipse(*turned(y, x, degrees), 60, 30), 0.5)
    m = moments(mask)
    # A soft edge makes it a little rounder.
    assert float(jnp.sqrt(m.rows / m.columns)) == pytest.approx(ratio, rel=1.5e-3)
    assert values_of(mask)[TALL] == pytest.approx(special.expit(10 * (ratio - 1)), abs=1e-3)


# Shapes: what each feature tells apart, and what it does not see.

APART = [
    (COMPACT, "disc", "wide", 0.12),
    (COMPACT, "disc", "lobed", 0.12),
    (COMPACT, "lobed", "star", 0.3),
    (COMPACT, "wide", "ring", 0.3),
    (TALL, "wide", "disc", 0.45),
    (TALL, "slanted", "tall", 0.45),
    (MARGIN, "wide", "lobed", 0.05),
    (MARGIN, "lobed", "star", 0.2),
    (MARGIN, "slanted", "corner", 0.08),
    (ELLIPTIC, "slanted", "lobed", 0.05),
    (ELLIPTIC, "lobed", "star", 0.1),
    (ELLIPTIC, "tall", "corner", 0.3),
    (ELLIPTIC, "disc", "crescent", 0.3),
    (ELLIPTIC, "disc", "island", 0.3),
    (ELLIPTIC, "disc", "ring", 0.3),
    (CONVEX, "wide", "lobed", 0.04),
    (CONVEX, "lobed", "crescent", 0.15),
    (CONVEX, "slanted", "island", 0.2),
    (LONG, "star", "slanted", 0.4),
    (LONG, "lobed", "wide", 0.4),
]
ALIKE = [
    (COMPACT, ("wide", "tall", "slanted"), 0.005),
    (TALL, ("disc", "lobed", "slanted", "ring"), 0.01),
    (MARGIN, ("disc", "wide", "tall", "slanted"), 0.005),
    (MARGIN, ("disc", "island"), 0.02),  # blind to islands: the ellipse grows faster than the perimeter
    (ELLIPTIC, ("disc", "wide", "tall", "slanted"), 0.02),
    (CONVEX, ("disc", "wide", "tall", "slanted"), 0.005),
    (LONG, ("disc", "lobed", "ring", "star"), 0.01),
]


@pytest.mark.parametrize(
    "feature, lower, higher, by", APART, ids=lambda value: ALL_FEATURES[value] if isinstance(value, int) else str(value)
)
def test_a_feature_separates(feature, lower, higher, by):
    assert table()[higher][feature] - table()[lower][feature] > by


@pytest.mark.parametrize(
    "feature, names, within", ALIKE, ids=lambda value: ALL_FEATURES[value] if isinstance(value, int) else str(value)
)
def test_a_feature_does_not_separate(feature, names, within):
    assert np.ptp([table()[name][feature] for name in names]) < within


def test_the_values_of_the_shapes():
    expected = {  # non-compactness, taller than wide, margin, non-ellipticity, non-convexity, elongation
        "disc": (0, 0.5, 0, 0.01, 0, 0),
        "wide": (0.15, 0.01, 0, 0.015, 0, 0.5),
        "tall": (0.15, 0.99, 0, 0.015, 0, 0.5),
        "slanted": (0.15, 0.5, 0, 0.015, 0, 0.5),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table()[name], values, atol=0.012, err_msg=name)


# Symmetries.


@pytest.mark.parametrize("name", SOFT)
def test_a_quarter_turn_a_mirror_and_a_shift_change_only_what_they_should(name):
    mask = SOFT[name]
    values, turn, mirror, shifted = (
        values_of(m) for m in (mask, np.rot90(mask), mask[:, ::-1], np.roll(mask, (-2, 1), (0, 1)))
    )
    rest = [COMPACT, MARGIN, ELLIPTIC, CONVEX, LONG]
    np.testing.assert_allclose(turn[rest], values[rest], atol=2e-3)  # the hull's 64 directions meet other points of it
    for same in (mirror, shifted):
        np.testing.assert_allclose(same, values, atol=2e-3)
    m = moments(mask)
    inverse = special.expit(10 * (np.sqrt(float(m.columns / m.rows)) - 1))
    assert turn[TALL] == pytest.approx(inverse, abs=1e-3)


@pytest.mark.parametrize(
    "draw", [lambda y, x: ellipse(y, x, 20, 12), lambda y, x: lobed(y, x, 18), lambda y, x: star(y, x, 16)]
)
def test_any_turn_and_any_shift_leave_the_shape(draw):
    rest = [COMPACT, MARGIN, ELLIPTIC, CONVEX, LONG]
    straight = values_of(edge(draw(Y, X), 1.0))
    for degrees, centre in [(30, (0.0, 0.0)), (0, (2.3, -3.6)), (77, (1.5, 0.2))]:
        other = values_of(edge(draw(*turned(*grid((64, 64), centre), degrees)), 1.0))
        np.testing.assert_allclose(other[rest], straight[rest], atol=0.02)


def test_a_mask_is_closed_at_the_border():
    half = SOFT["disc"][32:]  # cut through the middle
    closed = np.pad(half, ((32, 0), (0, 0)))
    np.testing.assert_allclose(float(perimeter(half)), float(perimeter(closed)), rtol=1e-6)
    np.testing.assert_allclose(
        values_of(half)[[COMPACT, MARGIN, CONVEX, LONG, TALL]],
        values_of(closed)[[COMPACT, MARGIN, CONVEX, LONG, TALL]],
        atol=1e-5,
    )
    full = np.ones((10, 16), np.float32)
    assert float(perimeter(full)) == pytest.approx(2 * (10 + 16), rel=0.05)
    assert float(hull_area(full)) == pytest.approx(160, rel=0.01)


# Units.


@pytest.mark.parametrize(
    "name, draw", [("ellipse", lambda y, x: ellipse(y, x, 40, 24)), ("lobed", lambda y, x: lobed(y, x, 36))]
)
@pytest.mark.parametrize("skip", [(2, 1), (1, 2), (2, 2)])
def test_spacing_undoes_coarser_pixels(name, draw, skip):
    fine = edge(draw(*turned(*grid((128, 128)), 30)), 2.5)
    coarse = fine[:: skip[0], :: skip[1]]
    spacing = (0.1 * skip[0], 0.1 * skip[1])
    np.testing.assert_allclose(values_of(coarse, spacing), values_of(fine), atol=0.015)
    np.testing.assert_allclose(area(coarse, spacing=spacing), area(fine, spacing=(0.1, 0.1)), rtol=1e-3)
    np.testing.assert_allclose(perimeter(coarse, spacing=spacing), perimeter(fine, spacing=(0.1, 0.1)), rtol=4e-3)
    m, reference = moments(coarse, spacing=spacing), moments(fine, spacing=(0.1, 0.1))
    np.testing.assert_allclose(m[1:], reference[1:], rtol=2e-3, atol=2e-3)
    if skip == (2, 1):  # taken for square, the pixels would make it another shape
        assert np.abs(values_of(coarse) - values_of(fine)).max() > 0.2


def test_the_unit_of_length_does_not_matter():
    for scale in (0.01, 30.0):
        np.testing.assert_allclose(
            values_of(SOFT["corner"], (scale * 0.4, scale * 0.7)), values_of(SOFT["corner"], (0.4, 0.7)), atol=1e-5
        )


# Parts.


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.4, 0.7)])
@pytest.mark.parametrize("name", HARD)
def test_moments_of_a_hard_mask(name, spacing):
    mask = HARD[name]
    points = np.argwhere(mask > 0.5) * np.array(spacing)
    covariance = np.cov(points.T, ddof=0) + np.diag(np.array(spacing) ** 2) / 12
    m = moments(mask, spacing=spacing)
    centre = points.mean(0) - 31.5 * np.array(spacing)
    np.testing.assert_allclose(m.mean, centre, atol=1e-4)
    np.testing.assert_allclose(m[1:], [covariance[0, 0], covariance[1, 1], covariance[0, 1]], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(soft.axes(m), np.linalg.eigvalsh(covariance)[::-1], rtol=1e-4)
    assert float(area(mask, spacing=spacing)) == pytest.approx(len(points) * spacing[0] * spacing[1], rel=1e-6)


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0, 3.0])
def test_the_softness_of_an_edge(s):
    mask = edge(18 - np.hypot(Y, X), s)
    assert float(softness(mask)) == pytest.approx(s, rel=0.03 if s >= 1 else 0.1)
    assert float(softness(0.01 + 0.99 * mask)) == pytest.approx(s, rel=0.15)  # a haze has little say
    assert float(softness(HARD["star"])) == 0


@pytest.mark.parametrize("s", [0.01, 0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("axes", [(18, 18), (22, 14), (10, 10)])
def test_an_ellipse_is_its_own_moment_ellipse_however_soft(axes, s):
    y, x = turned(*grid((64, 64), (0.3, -0.2)), 25)
    fine = np.hypot(x / axes[0], y / axes[1]) < 1
    blurred = ndimage.gaussian_filter(fine.astype(float), s)
    for mask in (edge(ellipse(y, x, *axes), s), blurred):
        assert values_of(mask)[ELLIPTIC] < 0.5 / min(axes) + 0.01 * s + (0.07 if s > 1 and min(axes) == 10 else 0)


def test_the_moment_ellipse_has_the_moments_it_is_given():
    for s in (0.0, 0.5, 1.0):
        given = soft.Moments(jnp.array([1.0, -2.0]), jnp.float32(40), jnp.float32(60), jnp.float32(15))
        drawn = moments(soft.moment_ellipse(given, jnp.float32(s), (64, 64)))
        np.testing.assert_allclose(drawn.mean, given.mean, atol=1e-2)
        np.testing.assert_allclose(drawn[1:], given[1:], rtol=0.05)


@pytest.mark.parametrize("name", DISTANCES)
def test_the_hull_is_that_of_the_contour_and_near_that_of_the_pixels(name):
    for mask in (SOFT[name], HARD[name]):
        contour = np.concatenate(measure.find_contours(np.pad(mask, 1), 0.5))
        area_of_hull = spatial.ConvexHull(contour).volume  # "volume" is the area in the plane
        assert float(hull_area(mask)) == pytest.approx(area_of_hull, rel=5e-3)
    pixels = morphology.convex_hull_image(HARD[name] > 0.5)
    assert float(hull_area(HARD[name])) == pytest.approx(pixels.sum(), rel=0.02)
    assert values_of(HARD[name])[CONVEX] == pytest.approx(1 - HARD[name].sum() / pixels.sum(), abs=0.02)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_hardening_mask_becomes_the_hard_one(name):
    chosen = np.where(np.abs(DISTANCES[name]) < 1e-3, 1e-3, DISTANCES[name])  # no pixel on the outline itself
    hard = values_of(chosen > 0)
    np.testing.assert_allclose(values_of(edge(chosen, 1e-5)), hard, atol=1e-5)
    gaps = [np.abs(values_of(edge(chosen, s)) - hard).max() for s in (0.3, 0.1, 0.01)]
    assert gaps[0] >= gaps[1] >= gaps[2] and gaps[2] < 0.01


# Derivatives.


SIDES = (20, 24)


def random_masks(seed=0, sides=SIDES):
    rng = np.random.default_rng(seed)
    y, x = grid(sides, (0.4, -0.7))
    ripple = 0.05 * rng.uniform(size=sides)  # nowhere quite flat: there the perimeter bends within a millionth
    field = ndimage.gaussian_filter(rng.standard_normal(sides), 2.0)
    noise = 0.3 * ndimage.gaussian_filter(rng.standard_normal(sides), 1.0)
    masks = {
        "blobs": special.expit(4 * field / field.std()),
        "noise": rng.uniform(size=sides),
        "rough tall": special.expit(ellipse(y, x, 3.6, 4.4) + 8 * noise),
        "rough slanted": special.expit((ellipse(*turned(y, x, 30), 8, 4) + 4 * noise) / 0.6),
        "star at the border": special.expit(star(y - 6, x + 5, 7) / 0.8),
        "faint": 0.2 * special.expit(star(y, x, 5)),
    }
    return {name: 0.95 * mask + ripple for name, mask in masks.items()}


def nasty(sides=SIDES):
    empty = np.zeros(sides)
    with_one = lambda *index: np.array(
        [np.ravel_multi_index(index, sides) == i for i in range(empty.size)], float
    ).reshape(sides)
    y, x = grid(sides)
    return {
        "empty": empty,
        "full": empty + 1,
        "half": empty + 0.5,
        "a rounding above half": empty + 0.5 + 1e-7,
        "haze": empty + 1e-4,
        "denormal": empty + 1e-40,
        "one pixel": with_one(7, 9),
        "one pixel in the corner": with_one(0, 0),
        "half a pixel": 0.5 * with_one(7, 9),
        "two pixels apart": with_one(0, 0) + with_one(19, 23),
        "one row": (y == 0.5) * 1.0,
        "one column": (x == 0.5) * 1.0,
        "a diagonal": np.eye(*sides),
        "chequered": np.indices(sides).sum(0) % 2.0,
        "saturated disc": (np.hypot(y, x) < 7) * 1.0,
        "all but a pixel": 1 - with_one(7, 9),
        "two columns of the border": (np.abs(x) > 11) * 1.0,
    }


@cache
def values_and_slopes(dtype):
    """Features and their Jacobians of the random and of the nasty masks, by name."""
    masks = random_masks() | nasty()
    jacobian = jax.jacrev(lambda m: soft.morphology(m[None], features=ALL_FEATURES)[0])
    stacked = jnp.asarray(np.stack(list(masks.values())), dtype)
    return dict(zip(masks, zip(*jax.device_get((features(stacked), jax.jit(jax.vmap(jacobian))(stacked))))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nasty_masks_have_finite_values_and_gradients(dtype):
    with jax.enable_x64(dtype == np.float64):
        found = values_and_slopes(dtype)
    for name, (values, slopes) in found.items():
        assert values.dtype == slopes.dtype == dtype
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all(), name
        assert np.isfinite(slopes).all(), name


def test_gradients_against_finite_differences(x64):
    rng, step = np.random.default_rng(1), 1e-7
    pixels = SIDES[0] * SIDES[1]
    ways = np.concatenate(
        [np.eye(pixels)[rng.choice(pixels, 10, replace=False)], rng.standard_normal((6, pixels)) / 10]
    )
    ways = ways.reshape(-1, *SIDES)
    slopes = {name: values_and_slopes(np.float64)[name][1] for name in random_masks()}
    for (name, mask), slope in zip(random_masks().items(), slopes.values()):
        ahead, back = (np.asarray(features(jnp.asarray(mask + sign * step * ways))) for sign in (1, -1))
        found = np.tensordot(ways, slope, ([1, 2], [1, 2]))
        np.testing.assert_allclose(found, (ahead - back) / (2 * step), rtol=1e-5, atol=1e-7, err_msg=name)
    seen = np.stack([np.abs(slope).max((1, 2)) > 1e-4 for slope in slopes.values()])
    assert (seen.sum(0) >= 2).all()  # every feature has a gradient on several


def test_an_empty_mask_has_the_shape_of_one_pixel():
    values = {name: of_it for name, (of_it, _) in values_and_slopes(np.float32).items()}
    np.testing.assert_allclose(values["empty"], [0, 0.5, 0, 1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(values["one pixel"], [0, 0.5, 0, 0, 0, 0], atol=0.07)
    assert values["one row"][TALL] < 1e-4 and values["one column"][TALL] == 1
    assert values["one row"][LONG] == pytest.approx(1 - 1 / 24, abs=1e-3)


def test_a_long_thin_diagonal_is_exact_enough_in_single_precision():
    """Its determinant is a small difference of large products."""
    line = np.eye(512)
    single, double = [], []
    for dtype, values in ((jnp.float32, single), (jnp.float64, double)):
        with jax.enable_x64(True):
            mask = jnp.asarray(line, dtype)
            values += [float(jax.jit(feature)(mask)) for feature in (soft.non_ellipticity, soft.elongation)]
    np.testing.assert_allclose(single, double, atol=0.01)


# How it is called.


def test_batch_is_loop_and_jit_is_eager():
    masks = np.stack([SOFT["disc"], HARD["star"], SOFT["island"]])
    batch = features(masks)
    chex.assert_trees_all_close(np.stack([values_of(mask) for mask in masks]), batch, atol=1e-5)
    chex.assert_trees_all_close(soft.morphology(masks[1:2]), batch[1:2, :4], atol=1e-5)


def test_the_columns_are_the_names_in_their_order():
    mask = SOFT["corner"][None]
    assert soft.MORPHOLOGY == ALL_FEATURES[:4]
    np.testing.assert_allclose(jax.jit(soft.morphology)(mask)[0], values_of(mask[0])[:4], atol=1e-5)
    chosen = jax.jit(lambda m: soft.morphology(m, features=("elongation", "non_compactness")))(mask)
    np.testing.assert_allclose(chosen[0], values_of(mask[0])[[LONG, COMPACT]], atol=1e-5)


@pytest.mark.parametrize("names", [("roundness",), ()])
def test_unknown_features_are_refused(names):
    with pytest.raises(ValueError, match="choose from non_compactness"):
        soft.morphology(SOFT["disc"][None], features=names)


def test_half_precision_is_computed_in_single():
    mask = jnp.asarray(SOFT["corner"], jnp.bfloat16)[None]
    values = features(mask)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values[0], values_of(mask[0].astype(jnp.float32)), atol=1e-6)


def test_the_example_in_the_docstring():
    assert doctest.testmod(soft).failed == 0


@pytest.mark.parametrize("name", ["area", "perimeter", "edge_softness", "moments", "hull_area", *soft.FEATURES])
def test_a_large_mask_of_half_precision_is_measured_as_the_same_mask_in_float32(name):
    """Its area is above float16's largest number, and bfloat16 tells neither its pixels nor its columns apart."""
    rows, columns = np.mgrid[:300, :400]
    mask = jnp.asarray(np.hypot(rows - 150, (columns - 200) / 1.2) < 148, jnp.float32)
    measure = getattr(soft, name)
    for half in (jnp.bfloat16, jnp.float16):
        for found, expected in zip(jax.tree.leaves(measure(mask.astype(half))), jax.tree.leaves(measure(mask))):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["area", "perimeter", "edge_softness", "moments", "hull_area", *soft.FEATURES])
def test_a_mask_of_numpy_in_double_precision_is_measured_as_in_single(name):
    """Without x64 it is made single; a warning would be an error here."""
    measure = getattr(soft, name)
    double, single = (measure(SOFT["corner"].astype(dtype)) for dtype in (np.float64, np.float32))
    for found, expected in zip(jax.tree.leaves(double), jax.tree.leaves(single)):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
