"""The clinical target against a plain recomputation, its invariances, its flags, and whether it moves the way the words
say.
"""

import numpy as np
import pytest
from scipy import ndimage, special
from skimage import measure

from thyroid_jax.radiomics import clinical

ROWS, SIDES = 6, (48, 64)  # one shape, so one compilation, for nearly everything here
SQUARE = np.ones((3, 3))


def ellipse(height=20.0, width=26.0, centre=(24, 32)):
    y, x = np.ogrid[: SIDES[0], : SIDES[1]]
    return ((y - centre[0]) / (height / 2)) ** 2 + ((x - centre[1]) / (width / 2)) ** 2 <= 1


def lobulated():
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    angle = np.arctan2(y - 24, x - 32)
    return np.hypot(y - 24, x - 32) <= 11 + 2.5 * np.cos(7 * angle)


def scan(seed, border=4, grain=0.12):
    """Speckled tissue between two black borders, as a letterbox leaves them."""
    rng = np.random.default_rng(seed)
    image = np.clip(0.5 + grain * ndimage.gaussian_filter(rng.standard_normal(SIDES), 0.7) / 0.4, 0, 1)
    image[rng.random(SIDES) < 0.01] = 0  # black speckle
    image[:, :border] = image[:, SIDES[1] - border :] = 0
    return as_8_bit(image)


def as_8_bit(image):
    return (np.rint(255 * np.clip(image, 0, 1)) / 255).astype(np.float32)


def case(seed, mask=None):
    """A hypoechoic nodule with a cyst and three bright spots in it."""
    image, mask = scan(seed), ellipse() if mask is None else mask
    image = np.where(mask, 0.6 * image, image)
    image[24:29, 22:28] *= 0.05
    image[20, 34] = image[27, 38] = image[22:24, 40] = 0.95
    return as_8_bit(image), mask


def targets(*cases, spacing=(1.0, 1.0)):
    """Names to values and flags of each case; the rest of the batch is filled with the first one."""
    rows = [*cases, *[cases[0]] * (ROWS - len(cases))]
    values, valid = clinical.target(
        np.stack([image for image, _ in rows]), np.stack([mask for _, mask in rows]), spacing=spacing
    )
    values, valid = np.asarray(values), np.asarray(valid)
    assert values.shape == valid.shape == (ROWS, len(clinical.TARGET))
    assert np.isfinite(values).all() and not values[~valid].any()
    return [
        (dict(zip(clinical.TARGET, v.tolist())), dict(zip(clinical.TARGET, ok.tolist())))
        for v, ok in zip(values[: len(cases)], valid)
    ]


def recomputed(image, mask, spacing):
    """The same values in double precision from scipy, scikit-image and numpy."""
    image = image.astype(float)
    inside = ndimage.binary_erosion(
        ndimage.binary_dilation(image > 0, np.ones((5, 5))), np.ones((5, 5)), border_value=1
    )
    distance = ndimage.distance_transform_cdt(~mask, metric="chessboard")
    ring, nodule = image[(distance > 0) & (distance <= 10) & inside], image[mask]

    covariance = np.cov((np.argwhere(mask) * spacing).T, ddof=0)
    minor, major = np.linalg.eigvalsh(covariance)
    contours = [c * spacing for c in measure.find_contours(np.pad(mask, 1).astype(float), 0.5, fully_connected="low")]
    perimeter = sum(np.hypot(*np.diff(c, axis=0).T).sum() for c in contours)
    area = abs(sum((c[:-1, 0] * c[1:, 1] - c[1:, 0] * c[:-1, 1]).sum() / 2 for c in contours))

    smooth = ndimage.uniform_filter(image, 3, mode="nearest")
    soft = ndimage.uniform_filter(mask.astype(float), 7, mode="nearest")
    band = (soft > 1e-9) & (soft < 1 - 1e-9)
    (gy, gx), (ny, nx) = np.gradient(smooth), np.gradient(soft)
    along = np.abs(gy * ny + gx * nx) / np.maximum(np.hypot(ny, nx), 1e-9)

    hat = ndimage.white_tophat(image, size=5, mode="nearest")
    around = hat[(distance > 0) & (distance <= 10) & inside]
    foci = mask & (hat > around.mean() + 3 * around.std())
    share, edges = np.histogram(nodule, 32)
    share = share / nodule.size
    level = np.where(mask, np.clip(np.digitize(image, edges), 1, 32), np.nan)
    apart = [
        level[1:] - level[:-1],
        level[:, 1:] - level[:, :-1],
        level[1:, 1:] - level[:-1, :-1],
        level[1:, :-1] - level[:-1, 1:],
    ]
    return {
        "height_to_width": np.sqrt(covariance[0, 0] / covariance[1, 1]),
        "shape2D_Elongation": np.sqrt(minor / major),
        "ellipse_to_perimeter": 8 * np.sqrt(major) * special.ellipe(1 - minor / major) / perimeter,
        "shape2D_Sphericity": 2 * np.sqrt(np.pi * area) / perimeter,
        "boundary_sharpness": along[band].mean() / ring.std(),
        "echogenicity": np.log(nodule.mean() / ring.mean()),
        "echogenicity_low": np.percentile(nodule, 10) - np.median(ring),
        "anechoic_share": (smooth[mask] < np.percentile(ring, 5) - 1e-6).mean(),
        "firstorder_Entropy": -(share[share > 0] * np.log2(share[share > 0])).sum(),
        "glcm_Contrast": np.mean([np.nanmean(d**2) for d in apart]),
        "glcm_Idm": np.mean([np.nanmean(1 / (1 + d**2)) for d in apart]),
        "foci_share": foci.sum() / mask.sum(),
        "foci_density": 1000 * ndimage.label(foci, SQUARE)[1] / mask.sum(),
    }


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.08, 0.11)])
def test_every_value_is_what_its_words_say(spacing):
    cases = [case(0), case(11, lobulated()), case(12, ellipse(26, 18, (23, 31))), case(13, ellipse(30, 40))]
    for (image, mask), (values, valid) in zip(cases, targets(*cases, spacing=spacing)):
        assert all(valid.values())
        expected = recomputed(image, mask, spacing)
        assert tuple(expected) == clinical.TARGET
        for name, value in expected.items():
            assert values[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name


def test_only_the_difference_follows_the_gain():
    image, mask = case(4)
    (values, _), (dimmed, _) = targets((image, mask), (image / 2, mask))
    for name in clinical.TARGET:
        factor = 0.5 if name == "echogenicity_low" else 1.0
        assert dimmed[name] == pytest.approx(factor * values[name], rel=1e-5), name


def test_a_mirrored_case_has_the_same_target():
    image, mask = case(5, lobulated())
    (values, _), (mirrored, _) = targets((image, mask), (image[:, ::-1], mask[:, ::-1]))
    assert mirrored == pytest.approx(values, rel=1e-4)


def test_a_case_does_not_see_its_batch():
    cases = [case(seed, lobulated() if seed % 2 else None) for seed in range(ROWS)]
    together, backwards = targets(*cases), targets(*cases[::-1])
    assert together == backwards[::-1]
    values, valid = clinical.target(cases[1][0][None], cases[1][1][None])
    np.testing.assert_allclose(values[0], list(together[1][0].values()), rtol=1e-5)
    assert valid.all()


def test_one_shape_is_compiled_once():
    targets(case(0))
    compiled = clinical.target._cache_size()
    targets(case(1, lobulated()), case(2))
    assert clinical.target._cache_size() == compiled


def test_what_cannot_be_measured_is_flagged_and_zero():
    image, nodule = case(6)
    nothing = np.zeros(SIDES, bool)
    tiny, just_enough, line = nothing.copy(), nothing.copy(), nothing.copy()
    tiny[20:23, 20:25] = True
    just_enough[20:24, 20:24] = True
    line[10:40, 30] = True
    for mask in (nothing, tiny, line):
        assert not any(targets((image, mask))[0][1].values())
    assert all(targets((image, just_enough))[0][1].values())

    unringed = {
        name: name in clinical.TARGET[:4] or name in ("firstorder_Entropy", "glcm_Contrast", "glcm_Idm")
        for name in clinical.TARGET
    }
    only_nodule, flat_ring, black_ring = (
        np.where(nodule, image, 0),
        np.where(nodule, image, 0.3),
        np.where(nodule, image, 1e-9),
    )
    whole = (image, np.ones(SIDES, bool))
    for one in (
        whole,
        (only_nodule, ndimage.binary_dilation(nodule, iterations=4)),
        (flat_ring, nodule),
        (black_ring, nodule),
    ):
        assert targets((one[0].astype(np.float32), one[1]))[0][1] == unringed
    assert not any(targets((np.zeros(SIDES, np.float32), nothing))[0][1].values())


def test_the_black_border_is_no_tissue():
    mask = ellipse(centre=(24, 20))  # 3 columns from a border of 4
    image = case(7, mask)[0]
    moved = image.copy()
    moved[:, :4] = moved[:, 4:5]  # tissue instead of border
    (with_border, valid), (without, _) = targets((image, mask), (moved, mask))
    assert all(valid.values())
    assert with_border == pytest.approx(recomputed(image, mask, (1.0, 1.0)), rel=2e-4, abs=1e-5)
    assert with_border["echogenicity_low"] == pytest.approx(without["echogenicity_low"], abs=0.02)
    assert with_border["echogenicity"] == pytest.approx(without["echogenicity"], abs=0.02)


def test_the_values_move_the_way_their_axes_say():
    image = scan(8)

    def of(inside, mask):
        return targets((np.where(mask, inside, image).astype(np.float32), mask))[0][0]

    plain, tall, wide = (of(image, mask) for mask in (ellipse(), ellipse(32, 16), ellipse(16, 32)))
    assert tall["height_to_width"] > 1.8 > 1 > 0.6 > wide["height_to_width"]
    assert tall["height_to_width"] * wide["height_to_width"] == pytest.approx(1, abs=0.05)
    assert of(image, ellipse(24, 24))["shape2D_Elongation"] == pytest.approx(1, abs=0.01)
    assert of(image, lobulated())["ellipse_to_perimeter"] < plain["ellipse_to_perimeter"] - 0.05
    assert of(image, lobulated())["shape2D_Sphericity"] < of(image, ellipse(24, 24))["shape2D_Sphericity"] - 0.05

    dark, bright, black = (of(factor * image, ellipse()) for factor in (0.5, 1.5, 0.02))
    assert dark["echogenicity"] == pytest.approx(plain["echogenicity"] + np.log(0.5), abs=1e-4)
    assert (
        dark["echogenicity"] < 0 < bright["echogenicity"] and dark["echogenicity_low"] < plain["echogenicity_low"] < 0
    )
    assert black["anechoic_share"] > 0.8 and plain["anechoic_share"] < 0.1
    assert dark["boundary_sharpness"] > 1.4 * plain["boundary_sharpness"]

    spotted = image.copy()
    spotted[18, 28] = spotted[18, 36] = spotted[29:31, 30:32] = 1.6  # the square of four is one spot
    with_foci, cells = of(spotted, ellipse()), ellipse().sum()
    assert with_foci["foci_share"] == pytest.approx(plain["foci_share"] + 6 / cells, abs=1e-6)
    assert with_foci["foci_density"] == pytest.approx(plain["foci_density"] + 3000 / cells, abs=1e-3)
    assert plain["firstorder_Entropy"] < np.log2(32) and of(np.full(SIDES, 0.4), ellipse())["firstorder_Entropy"] == 0


def test_scaling_is_a_clipped_robust_z_score():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((41, 5)) * [1, 20, 0, 3, 1] + [0, 5, 7, 1, 0]).astype(np.float32)
    values[6:, 4] = 0  # as a share of foci: mostly none
    valid = rng.random((41, 5)) > 0.3
    valid[:, 3] = False
    values[~valid] = np.nan  # must not be looked at
    scaling = clinical.fit_scaling(values, valid)
    for column in (0, 1):
        seen = values[valid[:, column], column]
        assert scaling.centre[column] == pytest.approx(np.median(seen))
        assert scaling.spread[column] == pytest.approx(np.subtract(*np.percentile(seen, [75, 25])))
    assert (scaling.centre[2], scaling.spread[2]) == (7, 1)  # constant
    assert (scaling.centre[3], scaling.spread[3]) == (0, 1)  # never seen
    assert (scaling.centre[4], scaling.spread[4]) == (0, pytest.approx(values[valid[:, 4], 4].std()))
    values = np.nan_to_num(values)
    values[0] = 1e9
    expected = np.clip((values - scaling.centre) / scaling.spread, -3, 3)
    np.testing.assert_allclose(scaling(values), expected, rtol=1e-6)
    assert np.abs(expected).max() == 3
