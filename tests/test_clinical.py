"""The clinical target against a plain recomputation, its invariances and flags, whether it moves the way the words say,
and whether it survives a random view.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special, stats
from skimage import measure

from data_prep.phantom import dataset
from experiments import target_study
from thyroid_jax.data import pipeline
from thyroid_jax.data.augment import AugmentConfig
from thyroid_jax.fitting import measure_views
from thyroid_jax.radiomics import clinical, extract, windows

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


def targets(*cases, spacing=(1.0, 1.0), cut=0.5):
    """Names to values and flags of each case; the rest of the batch is filled with the first one."""
    rows = [*cases, *[cases[0]] * (ROWS - len(cases))]
    values, valid = clinical.target(
        np.stack([image for image, _ in rows]), np.stack([mask for _, mask in rows]), spacing=spacing, cut=cut
    )
    values, valid = np.asarray(values), np.asarray(valid)
    assert values.shape == valid.shape == (ROWS, len(clinical.TARGET))
    assert np.isfinite(values).all() and not values[~valid].any()
    return [
        (dict(zip(clinical.TARGET, v.tolist())), dict(zip(clinical.TARGET, ok.tolist())))
        for v, ok in zip(values[: len(cases)], valid)
    ]


def moments(mask, spacing):
    """Area and second moments of a region whose pixels are squares, of a soft mask m."""
    y, x = (grid * side for grid, side in zip(np.mgrid[: mask.shape[0], : mask.shape[1]], spacing))
    at = lambda values: (mask * values).sum() / mask.sum()
    dy, dx = y - at(y), x - at(x)
    covariance = np.array([[at(dy * dy), at(dy * dx)], [at(dy * dx), at(dx * dx)]])
    return mask.sum() * spacing[0] * spacing[1], covariance + np.diag(np.square(spacing)) / 12


def outlined(mask, spacing):
    """The first four values, part by part."""
    parts, count = ndimage.label(mask > 0, SQUARE)  # of the cases here, each has a nodule in it
    tall = round_ = ellipses = circles = whole = 0.0
    for part in range(1, count + 1):
        area, covariance = moments(np.where(parts == part, mask, 0.0), spacing)
        minor, major = np.linalg.eigvalsh(covariance)
        whole += area
        tall += area * np.log(covariance[0, 0] / covariance[1, 1]) / 2
        round_ += area * np.sqrt(minor / major)
        ellipses += 8 * np.sqrt(major) * special.ellipe(1 - minor / major)
        circles += 2 * np.sqrt(np.pi * area)
    blurred = ndimage.uniform_filter(np.pad(mask, 5), 3, mode="constant")
    dy, dx = np.gradient(blurred, *spacing)
    perimeter = np.hypot(dy, dx).sum() * spacing[0] * spacing[1]
    return tall / whole, round_ / whole, ellipses / perimeter, circles / perimeter


def recomputed(image, mask, spacing, cut=0.5):
    """The same values in double precision from scipy and numpy."""
    image, mask = image.astype(float), mask.astype(float)
    nodule = mask >= cut
    inside = ndimage.binary_erosion(
        ndimage.binary_dilation(image > 0, np.ones((5, 5))), np.ones((5, 5)), border_value=1
    )
    distance = ndimage.distance_transform_cdt(~nodule, metric="chessboard")
    around = (distance > 0) & (distance <= 10) & inside
    ring, values = image[around], image[nodule]
    tall, elongation, ellipse, circle = outlined(mask, spacing)

    whole = ndimage.correlate(np.ones(image.shape), SQUARE, mode="constant")
    smooth = ndimage.correlate(image, SQUARE, mode="constant") / whole
    soft = ndimage.uniform_filter(nodule.astype(float), 7, mode="nearest")
    band = (soft > 1e-9) & (soft < 1 - 1e-9)
    (gy, gx), (ny, nx) = np.gradient(smooth), np.gradient(soft)
    along = np.abs(gy * ny + gx * nx) / np.maximum(np.hypot(ny, nx), 1e-9)
    low, middle = np.percentile(smooth[around], [5, 50])
    anechoic = np.interp((low - smooth[nodule]) / ring.std(), [-0.5, 0.5], [0, 1])

    hat = ndimage.white_tophat(smooth, size=5, mode="nearest")
    foci = np.interp((hat[nodule] - hat[around].mean()) / hat[around].std(), [2, 4], [0, 1])
    rounded = np.asarray(windows.box_mean(image.astype(np.float32), 1)).astype(float)  # many lie on an edge of a bin
    share, edges = np.histogram(rounded[nodule], 32)
    share = share / nodule.sum()
    level = np.where(nodule, np.clip(np.digitize(rounded, edges), 1, 32), np.nan)
    apart = [
        level[1:] - level[:-1],
        level[:, 1:] - level[:, :-1],
        level[1:, 1:] - level[:-1, :-1],
        level[1:, :-1] - level[:-1, 1:],
    ]
    return {
        "log_height_to_width": tall,
        "elongation": elongation,
        "ellipse_to_perimeter": ellipse,
        "circle_to_perimeter": circle,
        "boundary_sharpness": along[band].mean() / ring.std(),
        "echogenicity": np.log(values.mean() / ring.mean()),
        "echogenicity_low": np.percentile(smooth[nodule], 10) / middle,
        "root_anechoic_share": np.sqrt(anechoic.mean()),
        "smoothed_entropy": -(share[share > 0] * np.log2(share[share > 0])).sum(),
        "log_smoothed_contrast": np.log1p(np.mean([np.nanmean(d**2) for d in apart])),
        "smoothed_idm": np.mean([np.nanmean(1 / (1 + d**2)) for d in apart]),
        "root_foci_share": np.sqrt(foci.mean()),
        "foci_strength": np.log1p(np.mean(hat[nodule] ** 4) ** 0.25 / hat[around].mean()),
    }


def two_readers():
    """The mean of an inner, lobed and an outer, smooth outline."""
    return (lobulated().astype(np.float32) + ellipse(28, 34)) / 2


def split_screen():
    """Two nodules side by side, one of them upright."""
    return ellipse(18, 14, (22, 17)) | ellipse(14, 20, (26, 45))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.08, 0.11)])
def test_every_value_is_what_its_words_say(spacing):
    cases = [case(0), case(11, lobulated()), case(12, ellipse(26, 18, (23, 31))), case(14, split_screen())]
    for (image, mask), (values, valid) in zip(cases, targets(*cases, spacing=spacing)):
        assert all(valid.values())
        expected = recomputed(image, mask, spacing)
        assert tuple(expected) == clinical.TARGET
        for name, value in expected.items():
            assert values[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name


@pytest.mark.parametrize("cut", [0.25, 0.75])
def test_a_soft_mask_is_measured_softly_and_cut_once(cut):
    image, soft = case(3)[0], two_readers()
    (values, valid) = targets((image, soft), cut=cut)[0]
    assert all(valid.values())
    for name, value in recomputed(image, soft, (1.0, 1.0), cut=cut).items():
        assert values[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name


def test_the_perimeter_of_two_readers_is_the_mean_of_theirs():
    """Their outlines lie inside each other, so the contours of the mean mask are their contours."""
    image, inner_mask, outer_mask = case(3)[0], lobulated(), ellipse(42, 50)
    masks = inner_mask, outer_mask, (inner_mask.astype(np.float32) + outer_mask) / 2
    inner, outer, both = (targets((image, mask))[0][0] for mask in masks)
    circles, areas = (lambda area: 2 * np.sqrt(np.pi * area)), [mask.sum() for mask in masks]
    perimeters = [circles(area) / of["circle_to_perimeter"] for area, of in zip(areas, (inner, outer, both))]
    assert perimeters[2] == pytest.approx((perimeters[0] + perimeters[1]) / 2, rel=1e-5)
    assert perimeters[0] != pytest.approx(perimeters[1], rel=0.03)


def test_the_perimeter_is_that_of_the_contours():
    """scikit-image's contours of the blurred mask, their lengths averaged over 40 levels."""
    for mask in (ellipse(28, 34), lobulated()):
        blurred = ndimage.uniform_filter(np.pad(mask, 3).astype(float), 3, mode="constant")
        levels = (np.arange(40) + 0.5) / 40
        lengths = [np.hypot(*np.diff(c, axis=0).T).sum() for t in levels for c in measure.find_contours(blurred, t)]
        values = targets((case(3)[0], mask))[0][0]
        expected = 2 * np.sqrt(np.pi * mask.sum()) / (sum(lengths) / 40)
        assert values["circle_to_perimeter"] == pytest.approx(expected, rel=0.02)


def test_an_ellipse_has_the_values_of_an_ellipse():
    values = targets((case(3)[0], ellipse(20, 32)))[0][0]
    assert values["log_height_to_width"] == pytest.approx(np.log(20 / 32), abs=0.02)
    assert values["elongation"] == pytest.approx(20 / 32, abs=0.01)
    assert values["ellipse_to_perimeter"] == pytest.approx(1, abs=0.015)
    perimeter = 2 * 32 * special.ellipe(1 - (20 / 32) ** 2)
    assert values["circle_to_perimeter"] == pytest.approx(np.pi * np.sqrt(20 * 32) / perimeter, abs=0.015)


def test_two_views_side_by_side_are_measured_one_by_one():
    """Not as one wide thing: the mean of both by area, and no ellipse around the two."""
    image = case(3)[0]
    left, right = ellipse(18, 14, (22, 17)), ellipse(14, 20, (26, 45))
    alone = [targets((image, mask))[0][0] for mask in (left, right)]
    both = targets((image, left | right))[0][0]
    share = left.sum() / (left.sum() + right.sum())
    for name in ("log_height_to_width", "elongation"):
        assert both[name] == pytest.approx(share * alone[0][name] + (1 - share) * alone[1][name], rel=1e-5)
    assert alone[0]["log_height_to_width"] > 0.2 > -0.3 > alone[1]["log_height_to_width"]
    assert both["ellipse_to_perimeter"] == pytest.approx(1, abs=0.02)


def test_texture_is_pyradiomics_of_the_smoothed_image():
    """So it is `extract`'s, which the parity tests compare with pyradiomics."""
    image, mask = case(7)
    whole = ndimage.correlate(np.ones(SIDES), SQUARE, mode="constant")
    smooth = (ndimage.correlate(image.astype(float), SQUARE, mode="constant") / whole).astype(np.float32)
    names = ("firstorder_Entropy", "glcm_Contrast", "glcm_Idm")
    expected = np.asarray(extract(smooth[None], mask[None], features=names, bin_count=32)[0])[0]
    values = targets((image, mask))[0][0]
    ours = values["smoothed_entropy"], np.expm1(values["log_smoothed_contrast"]), values["smoothed_idm"]
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_no_value_follows_the_gain():
    image, mask = case(4)
    (values, _), (dimmed, _) = targets((image, mask), (image / 2, mask))
    assert dimmed == pytest.approx(values, rel=1e-5)


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
    compiled = clinical._target._cache_size()
    targets(case(1, lobulated()), case(2))
    assert clinical._target._cache_size() == compiled


def test_all_at_once_is_one_after_the_other():
    """On a GPU the images of a batch are measured together."""
    image, mask = (np.stack(parts) for parts in zip(case(1, lobulated()), case(2), case(3, split_screen())))
    together = jax.jit(jax.vmap(functools.partial(clinical._of_image, cut=0.5, spacing=(1.0, 1.0))))
    values, valid = together(image, mask.astype(np.float32))
    for row, (alone, flags) in enumerate(targets(*zip(image, mask))):
        np.testing.assert_allclose(values[row], list(alone.values()), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(valid[row], list(flags.values()))


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

    unringed = {name: name in clinical.TARGET[:4] or "smoothed" in name for name in clinical.TARGET}
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
    assert tall["log_height_to_width"] > 0.6 > 0 > -0.6 > wide["log_height_to_width"]
    assert tall["log_height_to_width"] == pytest.approx(-wide["log_height_to_width"], abs=0.05)
    assert of(image, ellipse(24, 24))["elongation"] == pytest.approx(1, abs=0.01)
    assert of(image, lobulated())["ellipse_to_perimeter"] < plain["ellipse_to_perimeter"] - 0.05
    assert of(image, lobulated())["circle_to_perimeter"] < of(image, ellipse(24, 24))["circle_to_perimeter"] - 0.05

    dark, bright, black = (of(factor * image, ellipse()) for factor in (0.5, 1.5, 0.02))
    assert dark["echogenicity"] == pytest.approx(plain["echogenicity"] + np.log(0.5), abs=1e-4)
    assert dark["echogenicity"] < 0 < bright["echogenicity"]
    assert 0 < black["echogenicity_low"] < dark["echogenicity_low"] < plain["echogenicity_low"] < 1
    assert black["root_anechoic_share"] > 0.9 and plain["root_anechoic_share"] < 0.4
    assert dark["boundary_sharpness"] > 1.4 * plain["boundary_sharpness"]

    spotted = image.copy()
    spotted[18, 28] = spotted[18, 36] = spotted[29:31, 30:32] = 2.5
    with_foci = of(spotted, ellipse())
    grown = with_foci["root_foci_share"] ** 2 - plain["root_foci_share"] ** 2
    assert 6 <= grown * ellipse().sum() <= 9 + 9 + 16  # the spots' pixels, at most with those that smoothing adds
    assert with_foci["foci_strength"] > plain["foci_strength"] + 0.3
    assert plain["smoothed_entropy"] < np.log2(32) and of(np.full(SIDES, 0.4), ellipse())["echogenicity_low"] < 0.9


@pytest.mark.parametrize(
    "readers, cut",
    [({1}, 0.5), ({3}, 0.5), ({1, 3, 5, 7}, 0.5), ({2}, 0.25), ({1, 2}, 0.25), ({4}, 0.375), ([2, 3], 5 / 12)],
)
def test_the_cut_lies_in_the_middle_between_two_plateaus(readers, cut):
    assert clinical.mask_cut(readers) == pytest.approx(cut)
    plateaus = np.unique([j / count for count in readers for j in range(count + 1)])
    below, above = plateaus[plateaus < cut].max(), plateaus[plateaus > cut].min()
    assert cut - below == pytest.approx(above - cut)
    assert below < 0.5 <= above  # the gap that holds one half, or ends at it


def test_a_cut_needs_readers():
    for none in ((), {0, 1}):
        with pytest.raises(ValueError, match="at least 1"):
            clinical.mask_cut(none)


def test_scaling_is_a_clipped_robust_z_score():
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((41, 5)) * [1, 20, 0, 3, 1] + [0, 5, 7, 1, 0]).astype(np.float32)
    values[4:, 4] = 0  # as a share of foci: mostly none
    valid = rng.random((41, 5)) > 0.3
    valid[:, 3] = False
    values[~valid] = np.nan  # must not be looked at
    scaling = clinical.fit_scaling(values, valid)
    for column in (0, 1):
        seen = values[valid[:, column], column].astype(float)
        sizes = np.subtract(*np.percentile(seen, [75, 25])), np.subtract(*np.percentile(seen, [90, 10])) / 1.9
        assert scaling.spread[column] == pytest.approx(max(sizes))
    assert (scaling.centre[2], scaling.spread[2]) == (7, 1)  # constant
    assert (scaling.centre[3], scaling.spread[3]) == (0, 1)  # never seen
    assert scaling.spread[4] == pytest.approx(values[valid[:, 4], 4].std())
    values = np.nan_to_num(values)
    values[0] = 1e9
    expected = np.clip((values - scaling.centre) / scaling.spread, -3, 3)
    np.testing.assert_allclose(scaling(values), expected, rtol=1e-6)
    assert np.abs(expected).max() == 3


@pytest.mark.parametrize("shape", ["normal", "two peaks", "long tail", "mostly zero"])
def test_scaled_values_have_mean_zero_whatever_their_distribution(shape):
    rng = np.random.default_rng(1)
    values = {
        "normal": rng.standard_normal(4000),
        "two peaks": np.where(rng.random(4000) < 0.18, 1.5, 0.7) + 0.1 * rng.standard_normal(4000),
        "long tail": rng.standard_exponential(4000) ** 2,
        "mostly zero": np.where(rng.random(4000) < 0.1, rng.random(4000), 0.0),
    }[shape][:, None]
    scaling = clinical.fit_scaling(values, np.ones_like(values, bool))
    z = np.asarray(scaling(values))
    assert z.mean() == pytest.approx(0, abs=1e-3)
    assert (np.abs(z) >= 3).mean() <= (0.11 if shape == "mostly zero" else 0.06)
    if shape == "normal":
        np.testing.assert_allclose([scaling.centre[0], scaling.spread[0]], [0, 2 * stats.norm.ppf(0.75)], atol=0.05)


def test_one_wild_value_hardly_moves_the_scaling():
    values = np.random.default_rng(2).standard_normal((400, 1))
    wild = np.concatenate([values, [[1e6]]])
    usual, moved = (clinical.fit_scaling(a, np.ones_like(a, bool)) for a in (values, wild))
    assert moved.centre == pytest.approx(usual.centre, abs=0.02) and moved.spread == pytest.approx(
        usual.spread, abs=0.02
    )


def test_views_are_fitted_together():
    values = np.random.default_rng(3).standard_normal((3, 20, 2))
    valid = np.random.default_rng(4).random((3, 20, 2)) > 0.2
    stacked, rows = (
        clinical.fit_scaling(values, valid),
        clinical.fit_scaling(values.reshape(60, 2), valid.reshape(60, 2)),
    )
    np.testing.assert_array_equal(stacked, rows)


@functools.cache
def phantoms():
    """192 pictures of 96 x 96, one a patient, and the mean of their two readers' outlines; not those on which the
    measures were chosen.
    """
    key, none = jax.random.key(7), np.zeros(32, int)
    parts = [dataset._render_chunk(key, np.arange(start, start + 32), none, (96, 96)) for start in range(0, 192, 32)]
    image, readers = (np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "reader_masks"))
    return np.round(255 * image).astype(np.uint8), np.round(255 * readers.mean(1)).astype(np.uint8)


def survival(image, mask, cut):
    """Ranks, means and clipped shares of two random views, the scaling fitted on every second picture."""
    views = [measure_views(image, mask, AugmentConfig(), cut=cut, seed=view) for view in range(2)]
    return target_study.stability(pipeline.measure(image, mask, cut=cut), views, np.arange(len(image)))


def test_every_value_survives_a_random_view():
    found = survival(*phantoms(), clinical.mask_cut({2}))
    bound = np.where(["smoothed" in name for name in clinical.TARGET], 0.6, 0.8)
    assert (found.rank.mean(0) >= bound).all(), dict(zip(clinical.TARGET, found.rank.mean(0)))
    assert (np.abs(found.mean) < 0.3).all(), dict(zip(clinical.TARGET, found.mean))
    assert (found.clipped < 0.08).all(), dict(zip(clinical.TARGET, found.clipped))


def test_a_mask_cut_before_it_is_measured_does_not_survive(monkeypatch):
    """Two readers' masks have a plateau at one half; cut there, outlines are noise. The bounds above notice it."""
    target = clinical.target
    monkeypatch.setattr(clinical, "target", lambda image, mask, cut: target(image, np.asarray(mask) >= 0.5))
    rank = dict(zip(clinical.TARGET, survival(*phantoms(), 0.5).rank.mean(0)))
    assert rank["ellipse_to_perimeter"] < 0.7 and rank["elongation"] > 0.95


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, jnp.bfloat16, jnp.float16])
def test_an_image_of_any_type_is_measured_as_the_same_image_in_float32(dtype):
    """Sums of 8-bit values would overflow, and the soft mask would be rounded to whole numbers."""
    image, mask = case(3)[0] * 255, two_readers()
    image = np.asarray(jnp.asarray(np.rint(image)[None], dtype))
    found = clinical.target(jnp.asarray(image), mask[None])
    for part, expected in zip(found, clinical.target(image.astype(np.float32), mask[None])):
        np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-6)
    assert found[0].dtype == np.float32 and found[1].all()


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e3])
def test_the_unit_of_the_spacing_does_not_matter(size):
    """Pixels in metres, for example."""
    image, mask = case(2)
    values, valid = targets((image, mask), spacing=(size, 1.3 * size))[0]
    expected, _ = targets((image, mask), spacing=(1.0, 1.3))[0]
    assert all(valid.values())
    assert values == pytest.approx(expected, rel=1e-5)


def test_a_black_cyst_does_not_follow_the_gain():
    mask = ellipse()
    image = np.where(mask, 0, scan(4)).astype(np.float32)
    (values, valid), (dimmed, _) = targets((image, mask), (image / 2, mask))
    assert all(valid.values()) and values["echogenicity"] == pytest.approx(np.log(1e-6))
    assert dimmed == pytest.approx(values, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_grey_value_that_is_none_leaves_the_outline_alone(wrong):
    image, mask = case(6)
    expected, _ = targets((image, mask))[0]
    for place in ((24, 32), (24, 48), (2, 2)):  # in the nodule, in the ring, far away
        spoilt = image.copy()
        spoilt[place] = wrong
        (values, valid), (beside, whole) = targets((spoilt, mask), (image, mask))
        assert valid == {name: name in clinical.TARGET[:4] for name in clinical.TARGET}
        assert values == {name: expected[name] if valid[name] else 0 for name in expected}
        assert beside == expected and all(whole.values())


def test_a_mask_with_a_nan_says_nothing():
    image, mask = case(6)
    spoilt = mask.astype(np.float32)
    spoilt[24, 32] = np.nan
    assert not any(targets((image, spoilt))[0][1].values())
