"""Outline, parts and moments of masks against pyradiomics, scikit-image, numpy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special

from thyroid_jax.radiomics import raster, shape

SIDES = (24, 31)
SPACINGS = [(1.0, 1.0), (0.4, 0.7), (2.0, 0.5)]
outline = jax.jit(lambda mask, spacing=(1.0, 1.0): shape.outline(*raster.to_line(mask), spacing=spacing))
moments = jax.jit(lambda mask, spacing=(1.0, 1.0): shape.moments(*raster.to_line(mask), spacing=spacing))
diameter = jax.jit(lambda mask, spacing: shape.diameter(*raster.to_line(mask), mask.shape[1], spacing=spacing))


@jax.jit
def features(mask, spacing):
    form = shape.form(*raster.to_line(mask), mask.shape[1], spacing=spacing)
    return {name: feature(form) for name, feature in shape.FEATURES.items()}


def empty():
    return np.zeros(SIDES, bool)


def box(top, left, height, width):
    mask = empty()
    mask[top : top + height, left : left + width] = True
    return mask


def blob(seed, threshold=0.0, sigma=2.0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SIDES), sigma) > threshold


def ring():
    y, x = np.ogrid[: SIDES[0], : SIDES[1]]
    distance = (y - 12) ** 2 + ((x - 15) * 0.8) ** 2
    return (distance < 80) & (distance > 20)


MASKS = {
    "blob": blob(0),
    "blob of many parts": blob(1, 0.1, 1.0),
    "noise with every kind of cell": np.random.default_rng(2).random(SIDES) > 0.5,
    "ring": ring(),
    "two parts": box(2, 3, 5, 4) | box(14, 20, 7, 9),
    "touching two borders": box(0, 0, 9, 12),
    "the whole image": ~empty(),
    "all but one pixel": ~box(5, 6, 1, 1),
    "diagonal neighbours": box(4, 4, 1, 1) | box(5, 5, 1, 1) | box(6, 4, 1, 1),
    "single pixel": box(7, 9, 1, 1),
    "line": box(7, 3, 1, 20),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", MASKS)
def test_outline_and_elongation_are_those_of_pyradiomics(name, spacing):
    radiomics = pytest.importorskip("radiomics")
    import SimpleITK as sitk
    from radiomics import shape2D

    radiomics.setVerbosity(60)
    mask = MASKS[name]
    label = sitk.GetImageFromArray(mask[None].astype(np.uint8))
    label.SetSpacing((spacing[1], spacing[0], 1.0))
    oracle = shape2D.RadiomicsShape2D(label, label, force2D=True)
    perimeter, area = outline(mask, spacing=spacing)
    np.testing.assert_allclose(perimeter, oracle.getPerimeterFeatureValue(), rtol=1e-5)
    np.testing.assert_allclose(area, oracle.getMeshSurfaceFeatureValue(), rtol=1e-5)
    np.testing.assert_allclose(2 * np.sqrt(np.pi * area) / perimeter, oracle.getSphericityFeatureValue(), rtol=1e-5)
    if mask.sum() > 1:
        _, _, _, major, minor = moments(mask, spacing=spacing)
        np.testing.assert_allclose(np.sqrt(minor / major), oracle.getElongationFeatureValue(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("height, width", [(2, 2), (5, 9), (11, 3)])
def test_a_rectangle_loses_its_four_corners(height, width, spacing):
    (rows, columns), mask = spacing, box(4, 6, height, width)
    perimeter, area = outline(mask, spacing=spacing)
    straight = 2 * (height - 1) * rows + 2 * (width - 1) * columns
    np.testing.assert_allclose(perimeter, straight + 2 * np.hypot(rows, columns), rtol=1e-6)
    np.testing.assert_allclose(area, (height * width - 0.5) * rows * columns, rtol=1e-6)
    m = moments(mask, spacing=spacing)
    yy, xx = (height**2 - 1) / 12 * rows**2, (width**2 - 1) / 12 * columns**2
    np.testing.assert_allclose(m, [height * width, yy, xx, max(yy, xx), min(yy, xx)], rtol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", MASKS)
def test_moments_are_the_covariance_of_the_pixel_centres(name, spacing):
    points = np.argwhere(MASKS[name]) * np.array(spacing)
    covariance = np.cov(points.T, ddof=0) if len(points) > 1 else np.zeros((2, 2))
    minor, major = np.linalg.eigvalsh(covariance)
    m = moments(MASKS[name], spacing=spacing)
    assert m.count == len(points)
    np.testing.assert_allclose(m[1:], [covariance[0, 0], covariance[1, 1], major, minor], rtol=1e-5, atol=1e-4)
    assert m.major >= m.minor >= 0


def test_moments_turn_with_the_mask():
    mask = blob(3)
    m, turned = moments(mask), moments(mask.T)
    np.testing.assert_allclose(
        [m.rows, m.columns, m.major, m.minor], [turned.columns, turned.rows, turned.major, turned.minor], rtol=1e-5
    )


def test_an_empty_mask_has_no_outline_and_no_moments():
    assert [float(value) for value in outline(empty())] == [0.0, 0.0]
    assert [float(value) for value in moments(empty())] == [0.0] * 5


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0, 4.0, 20.0])
def test_the_perimeter_of_an_ellipse(ratio):
    a, b = 3.0 * ratio, 3.0
    exact = 4 * a * special.ellipe(1 - (b / a) ** 2)
    approximate = shape.ellipse_perimeter(jnp.float32(a**2 / 4), jnp.float32(b**2 / 4))  # semi-axes are 2 sqrt(moment)
    np.testing.assert_allclose(approximate, exact, rtol=1e-6 if ratio <= 4 else 2e-4)


def test_the_perimeter_of_a_line_and_of_a_point():
    line = shape.ellipse_perimeter(jnp.float32(25.0), jnp.float32(0.0))
    np.testing.assert_allclose(line, 4 * 10.0, rtol=4.1e-4)
    assert shape.ellipse_perimeter(jnp.float32(0.0), jnp.float32(0.0)) == 0


def outline_points(mask, spacing):
    """Middles of all pixel edges with the mask on one side only: where the outline crosses them."""
    m = np.pad(mask, 1)
    along, down = np.add(np.argwhere(m[:, 1:] != m[:, :-1]), (0, 0.5)), np.add(np.argwhere(m[1:] != m[:-1]), (0.5, 0))
    return np.concatenate([along, down]) * spacing


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", MASKS)
def test_the_diameter_is_the_largest_distance_of_any_two_points_of_the_outline(name, spacing):
    points = outline_points(MASKS[name], spacing)
    farthest = np.hypot(*(points[:, None] - points[None, :]).transpose(2, 0, 1)).max()
    np.testing.assert_allclose(diameter(MASKS[name], spacing), farthest, rtol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "name", [name for name, mask in MASKS.items() if mask.any(0).sum() > 1 and mask.any(1).sum() > 1]
)
def test_features_are_those_of_pyradiomics(name, spacing):
    pytest.importorskip("radiomics")
    from data_prep import radiomics_oracle

    expected, valid = radiomics_oracle.extract(
        np.zeros(SIDES), MASKS[name], features=tuple(shape.FEATURES), spacing=spacing
    )
    assert valid.all()
    found = features(MASKS[name], spacing)
    for feature, value in zip(shape.FEATURES, expected):
        np.testing.assert_allclose(found[feature], value, rtol=2e-5, atol=1e-6, err_msg=feature)


def test_a_rectangle_by_hand():
    found = {name: float(value) for name, value in features(box(3, 5, 7, 9), (2.0, 0.5)).items()}
    perimeter, area = 2 * 6 * 2 + 2 * 8 * 0.5 + 2 * np.hypot(2, 0.5), 62.5
    tall, wide = 4 * np.sqrt(48 / 12 * 4), 4 * np.sqrt(80 / 12 / 4)
    expected = {
        "Perimeter": perimeter,
        "MeshSurface": area,
        "PixelSurface": 63,
        "PerimeterSurfaceRatio": perimeter / area,
    }
    expected |= {"Sphericity": 2 * np.sqrt(np.pi * area) / perimeter, "MaximumDiameter": np.hypot(7 * 2, 8 * 0.5)}
    expected |= {"MajorAxisLength": tall, "MinorAxisLength": wide, "Elongation": wide / tall}
    assert found == pytest.approx({f"shape2D_{name}": value for name, value in expected.items()}, rel=1e-6)


def test_an_empty_mask_has_no_size():
    assert not any(float(value) for value in features(empty(), (1.0, 1.0)).values())
    assert diameter(empty(), (1.0, 1.0)) == 0


def test_shape_is_measured_in_double_precision_where_that_is_on(x64):
    for name in ("blob of many parts", "diagonal neighbours", "the whole image"):
        points = np.argwhere(MASKS[name]) * [0.4, 0.7]
        minor, major = np.linalg.eigvalsh(np.cov(points.T, ddof=0))
        found = features(MASKS[name], (0.4, 0.7))
        np.testing.assert_allclose(found["shape2D_MajorAxisLength"], 4 * np.sqrt(major), rtol=1e-12)
        np.testing.assert_allclose(found["shape2D_MinorAxisLength"], 4 * np.sqrt(minor), rtol=1e-12, atol=1e-7)
