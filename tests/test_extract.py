"""The 102 features together: against pyradiomics, what is undefined, what must not matter, and what is refused.

All images are 31 x 31, which take lines of 1024 places, so that two programs (32 bins; bins of 25) serve nearly
everything here. What is no matter of a single feature is tested on ``CHOSEN``, one or two of each class.
"""

import inspect
from functools import cache, partial

import jax
import numpy as np
import pytest
from scipy import ndimage

from thyroid_jax.errors import InputError
from thyroid_jax.radiomics import FEATURES, extract, packing, raster
from thyroid_jax.radiomics.extract import CLASSES, Settings, compiled

SIDE = 31
COUNT, WIDTH = {"bin_count": 32}, {"bin_width": 25.0}
BINS = {"32 bins": COUNT, "bins of 25": WIDTH}
SPACINGS = ((1.0, 1.0), (0.4, 0.7), (2.0, 0.5))
RATIOS = {  # 0 / 0 where there is one grey level (for firstorder, one grey value), and what pyradiomics says there
    "firstorder_Kurtosis": 0,
    "firstorder_Skewness": 0,
    "glcm_Correlation": 1,
    "glcm_Imc1": 0,
    "glcm_MCC": 1,
    "ngtdm_Busyness": 0,
    "ngtdm_Coarseness": 1e6,
    "ngtdm_Contrast": 0,
    "ngtdm_Strength": 0,
}
OF_LEVELS = [name for name in FEATURES if not name.startswith(("shape2D", "firstorder"))] + [
    "firstorder_Entropy",
    "firstorder_Uniformity",
]
CHOSEN = (
    "ngtdm_Contrast",
    "shape2D_Perimeter",
    "glcm_Imc1",
    "firstorder_Median",
    "glszm_ZoneEntropy",
    "glrlm_RunVariance",
    "glcm_Id",
)
TURNS = {
    "transposed": lambda x: x.swapaxes(1, 2),
    "turned": lambda x: np.rot90(x, axes=(1, 2)),
    "mirrored": lambda x: x[:, :, ::-1],
}
BY_LENGTH = {  # the power of the unit of length with which a feature grows
    "shape2D_Perimeter": 1,
    "shape2D_MaximumDiameter": 1,
    "shape2D_MajorAxisLength": 1,
    "shape2D_MinorAxisLength": 1,
    "shape2D_PerimeterSurfaceRatio": -1,
    "shape2D_MeshSurface": 2,
    "shape2D_PixelSurface": 2,
    "firstorder_TotalEnergy": 2,
}


def disc(centre, radius):
    y, x = np.ogrid[:SIDE, :SIDE]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def blob(seed, share, sigma=2.0):
    """The highest ``share`` of a smooth random field: one part or several."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((SIDE, SIDE)), sigma)
    return field > np.quantile(field, 1 - share)


def grown(seed, pixels):
    """One part of so many pixels, grown at random from the middle."""
    rng, mask = np.random.default_rng(seed), np.zeros((SIDE, SIDE), bool)
    mask[16, 16] = True
    while mask.sum() < pixels:
        rim = np.argwhere(ndimage.binary_dilation(mask, np.ones((3, 3))) & ~mask)
        mask[tuple(rng.choice(rim))] = True
    return mask


def at(*places):
    mask = np.zeros((SIDE, SIDE), bool)
    for place in places:
        mask[place] = True
    return mask


def speckle(seed, spread=40, sigma=0.7, middle=120):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((SIDE, SIDE)), sigma)
    return np.clip(np.rint(middle + spread * noise / noise.std()), 0, 255).astype(np.uint8)


def drawn_cases():
    """Name to (image, mask): 8-bit images and every kind of region."""
    cases = {
        f"blob {n}": (speckle(n, (10, 30, 60)[n % 3], (0.3, 1, 2)[n % 3]), blob(n, 0.1 + 0.08 * (n % 8)))
        for n in range(16)
    }
    cases |= {
        f"ring {n}": (speckle(30 + n), disc((15, 16), 9 + n) & ~disc((15 + n % 2, 16), 3 + 2 * (n % 3)))
        for n in range(6)
    }
    cases |= {f"parts {n}": (speckle(40 + n, 50), blob(40 + n, 0.1 + 0.1 * n, 0.6)) for n in range(6)}
    cases |= {
        f"{n} pixels": (speckle(50 + n, 50, 0.3), grown(n, n)) for n in (4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 35, 50)
    }
    cases |= {
        f"two greys {n}": (np.where(blob(60 + n, 0.5, 1.0), 90, 200).astype(np.uint8), blob(70 + n, 0.3))
        for n in range(4)
    }
    cases |= {f"all {grey}": (np.full((SIDE, SIDE), grey, np.uint8), blob(80, 0.3)) for grey in (0, 100, 255)}
    cases |= {
        f"greys {n} to {n + 9}": (speckle(90 + n, 2.5, 0.5, n + 4).clip(n, n + 9), disc((14, 17), 8)) for n in (51, 120)
    }
    cases |= {
        "the whole image": (speckle(1), ~at()),
        "along three borders": (
            speckle(2),
            at((slice(0, 31), slice(0, 7)), (slice(0, 5), slice(0, 31)), (slice(27, 31), slice(0, 31))),
        ),
        "a corner": (speckle(3), disc((0, 30), 12)),
        "all but a hole": (speckle(4), ~disc((20, 10), 6)),
        "isolated pixels": (speckle(5), at((2, 3), (9, 12), (20, 5), (28, 30), (14, 22))),
        "isolated pixels in line": (speckle(6), at((2, 2), (2, 9), (2, 30), (25, 9))),
        "a blob and isolated pixels": (speckle(7), disc((20, 20), 5) | at((1, 1), (3, 6), (8, 2))),
        "pairs on a diagonal": (speckle(8), at((4, 4), (5, 5), (11, 20), (12, 21))),
        "a diagonal line": (speckle(9), np.eye(SIDE, dtype=bool)),
        "an L": (speckle(10), at((slice(3, 28), 5), (27, slice(5, 20)))),
        "two rows": (speckle(11), at((slice(10, 12), slice(4, 27)))),
        "a checkerboard region": (speckle(12), np.indices((SIDE, SIDE)).sum(0) % 2 == 0),
        "stripes": (np.tile(np.arange(0, 8 * SIDE, 8, dtype=np.uint8), (SIDE, 1)), disc((16, 16), 12)),
        "black and white": (np.where(np.indices((SIDE, SIDE)).sum(0) % 2, 255, 0).astype(np.uint8), disc((16, 16), 12)),
    }
    return cases


CASES = drawn_cases()
SPACING = {name: SPACINGS[number % 3] for number, name in enumerate(CASES)}
# Signs cancel in third moments: rounding is relative to what they would be without, not to what is left.
CANCELLING = {
    "firstorder_Skewness": lambda values: 5e-6,  # of a ratio of order 1
    "glcm_ClusterShade": lambda values: 1e-7 * values["glcm_ClusterProminence"] ** 0.75,  # E |s|^3 <= (E s^4)^(3/4)
}


def batch(*names):
    return tuple(np.stack([CASES[name][part] for name in names]) for part in (0, 1))


def numbers(*names):
    image, mask = batch(*names)
    return image.astype(np.float32), mask


@cache
def found(bins):
    """Name of a case to its values and flags, all cases of a spacing in one call."""
    answers = {}
    for spacing in SPACINGS:
        names = [name for name in CASES if SPACING[name] == spacing]
        answers |= dict(zip(names, zip(*map(np.asarray, extract(*numbers(*names), spacing=spacing, **BINS[bins])))))
    return answers


@cache
def expected(bins, name):
    pytest.importorskip("radiomics", reason="the parity oracle, pyradiomics, builds on Python 3.11 only")
    from data_prep import radiomics_oracle

    return radiomics_oracle.extract(*CASES[name], features=FEATURES, spacing=SPACING[name], **BINS[bins])


def named(values):
    return dict(zip(FEATURES, np.asarray(values).tolist()))


def one_level(bins, name):
    greys = CASES[name][0][CASES[name][1]].astype(int)
    return np.ptp(greys) == 0 if bins == "32 bins" else np.ptp(greys // 25) == 0


def undefined_by_choice(bins, name):
    """What pyradiomics gives a value and :func:`extract` calls undefined."""
    grey = np.ptp(CASES[name][0][CASES[name][1]].astype(int)) == 0
    return {ratio for ratio in RATIOS if (grey if ratio.startswith("firstorder") else one_level(bins, name))}


def check_parity(bins, name, values, valid, relative, absolute, cancelling):
    oracle, defined = expected(bins, name)
    assert {FEATURES[k] for k in np.flatnonzero(defined != valid)} == undefined_by_choice(bins, name)
    assert not (valid & ~defined).any()
    values, oracle = named(values), named(oracle)
    for feature, there in zip(FEATURES, defined):
        allowed = absolute + (CANCELLING[feature](oracle) if feature in cancelling else 0)
        assert not there or values[feature] == pytest.approx(oracle[feature], rel=relative, abs=allowed), feature


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bins", BINS)
def test_values_and_flags_are_those_of_pyradiomics(bins, name):
    values, valid = found(bins)[name]
    check_parity(bins, name, values, valid, 1e-4, 1e-6, CANCELLING)


def test_there_are_102_names_of_pyradiomics():
    classes = pytest.importorskip("radiomics").getFeatureClasses()
    assert len(FEATURES) == len(set(FEATURES)) == 102
    for kind, module in CLASSES.items():
        enabled = {f"{kind}_{name}" for name, deprecated in classes[kind].getFeatureNames().items() if not deprecated}
        assert set(module.FEATURES) == enabled
    assert set(classes) - set(CLASSES) == {"shape"}  # of volumes


def test_every_feature_has_a_parity_case_in_which_it_is_valid():
    for bins in BINS:
        assert np.all(np.any([valid for _, valid in found(bins).values()], axis=0))
    assert len(CASES) >= 60


def test_the_order_of_a_batch_does_not_matter():
    names = list(CASES)[:12]
    for bins in BINS.values():
        (values, valid), (back, back_valid) = extract(*numbers(*names), **bins), extract(*numbers(*names[::-1]), **bins)
        np.testing.assert_array_equal(back, values[::-1])
        np.testing.assert_array_equal(back_valid, valid[::-1])


def test_one_image_alone_is_measured_as_in_a_batch():
    names = ["blob 3", "ring 2"]
    values, valid = extract(*numbers(*names), features=CHOSEN)
    alone, alone_valid = extract(*numbers(names[0]), features=CHOSEN)
    np.testing.assert_allclose(alone[0], values[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(alone_valid[0], valid[0])


def test_an_empty_batch_has_empty_answers():
    values, valid = extract(np.zeros((0, 8, 8), np.float32), np.zeros((0, 8, 8), bool), **WIDTH)
    assert values.shape == valid.shape == (0, 102)


@pytest.mark.parametrize(
    "corner, sides", [((0, 0), (31, 31)), ((0, 0), (40, 71)), ((9, 39), (40, 70)), ((5, 20), (90, 52))]
)
def test_it_does_not_matter_where_in_an_image_the_mask_lies_nor_what_is_around(corner, sides):
    names = ["blob 5", "a corner", "isolated pixels", "the whole image"]
    image, mask = numbers(*names)
    inside = (slice(None), slice(corner[0], corner[0] + SIDE), slice(corner[1], corner[1] + SIDE))
    wide_mask = np.zeros((len(names), *sides), bool)
    wide_mask[inside] = mask
    wide = np.random.default_rng(0).uniform(0, 255, wide_mask.shape).astype(np.float32)
    wide[inside] = np.where(mask, image, wide[inside])
    for bins in BINS.values():
        (values, valid), (moved, moved_valid) = extract(image, mask, **bins), extract(wide, wide_mask, **bins)
        np.testing.assert_array_equal(moved, values)
        np.testing.assert_array_equal(moved_valid, valid)


def test_images_of_many_sizes_are_served_by_one_program():
    image, mask = numbers("blob 4", "ring 1")
    extract(image, mask)
    programs = compiled._cache_size()
    for rows, columns in ((0, 1), (7, 0), (20, 45), (3, 130)):
        extract(*(np.pad(part, ((0, 0), (rows, columns), (columns, rows))) for part in (image, mask)))
    extract(*numbers(*list(CASES)[:19]), spacing=(0.3, 0.2))
    assert compiled._cache_size() == programs


def test_a_few_features_are_columns_of_all():
    names = list(CASES)[::5]
    (values, valid), (few, few_valid) = extract(*numbers(*names)), extract(*numbers(*names), features=CHOSEN)
    columns = [FEATURES.index(name) for name in CHOSEN]
    np.testing.assert_allclose(few, np.asarray(values)[:, columns], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(few_valid, np.asarray(valid)[:, columns])


def test_inside_jit_it_says_the_same_uncropped():
    names = ["blob 5", "all 100", "isolated pixels", "4 pixels"]
    image, mask = (np.pad(part, ((0, 0), (3, 5), (0, 9))) for part in numbers(*names))
    measure = partial(extract, features=CHOSEN)
    (values, valid), (traced, traced_valid) = measure(image, mask), jax.jit(measure)(image, mask)
    np.testing.assert_array_equal(traced_valid, valid)
    np.testing.assert_allclose(traced, values, rtol=1e-4, atol=1e-5)


def test_whole_bins_added_to_the_greys_leave_their_texture():
    image, mask = numbers("blob 2", "ring 3", "parts 4", "12 pixels")
    image = image.clip(0, 180)
    values, more = (dict(zip(FEATURES, np.asarray(extract(grey, mask, **WIDTH)[0]).T)) for grey in (image, image + 75))
    for name in OF_LEVELS:
        np.testing.assert_array_equal(more[name], values[name], err_msg=name)
    np.testing.assert_allclose(more["firstorder_Mean"], values["firstorder_Mean"] + 75, rtol=1e-6)
    np.testing.assert_allclose(more["firstorder_Variance"], values["firstorder_Variance"], rtol=1e-4)


def test_gain_and_offset_leave_a_count_of_bins_its_texture():
    image, mask = numbers("blob 2", "ring 3", "parts 4", "12 pixels")
    values = dict(zip(FEATURES, np.asarray(extract(image, mask)[0]).T))
    for changed in (4 * image, image / 256, 3 * image + 7):
        again = dict(zip(FEATURES, np.asarray(extract(changed, mask)[0]).T))
        for name in OF_LEVELS:
            np.testing.assert_array_equal(again[name], values[name], err_msg=name)


def test_lengths_and_areas_follow_the_spacing():
    arguments = numbers("blob 2", "ring 3", "parts 4", "12 pixels")
    small, large = (
        dict(zip(FEATURES, np.asarray(extract(*arguments, spacing=spacing)[0]).T))
        for spacing in ((0.5, 0.8), (1.5, 2.4))
    )
    for name in FEATURES:
        expected = 3.0 ** BY_LENGTH.get(name, 0) * small[name]
        np.testing.assert_allclose(large[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(small["shape2D_PixelSurface"], 0.4 * arguments[1].sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(small["firstorder_TotalEnergy"], 0.4 * small["firstorder_Energy"], rtol=1e-6)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("how", TURNS)
def test_turned_images_have_the_same_features(how, bins):
    image, mask = numbers("blob 2", "ring 3", "parts 4", "12 pixels", "a blob and isolated pixels", "an L")
    turn = TURNS[how]
    spacing = (0.4, 0.7)
    values, valid = extract(image, mask, spacing=spacing, **BINS[bins])
    turned, turned_valid = extract(
        turn(image), turn(mask), spacing=spacing if how == "mirrored" else spacing[::-1], **BINS[bins]
    )
    np.testing.assert_array_equal(turned_valid, valid)
    for name, straight, other in zip(FEATURES, np.asarray(values).T, np.asarray(turned).T):
        np.testing.assert_allclose(other, straight, rtol=2e-5, atol=1e-4 if name in CANCELLING else 1e-5, err_msg=name)


def test_double_precision_is_that_of_pyradiomics(x64):
    names = ["blob 0", "blob 7", "ring 4", "parts 2", "10 pixels", "two greys 1", "all 100", "isolated pixels in line"]
    image, mask = batch(*names)
    for spacing in SPACINGS:
        values, valid = map(np.asarray, extract(image.astype(np.float64), mask, spacing=spacing, **COUNT))
        assert values.dtype == np.float64
        for name, found_values, defined in zip(names, values, valid):
            if SPACING[name] == spacing:
                check_parity("32 bins", name, found_values, defined, 1e-9, 1e-9, ())


@pytest.mark.parametrize("name", [f"all {grey}" for grey in (0, 100, 255)])
@pytest.mark.parametrize("bins", BINS)
def test_one_grey_level_leaves_nine_ratios_undefined_with_pyradiomics_values(bins, name):
    values, valid = (named(part) for part in found(bins)[name])
    assert {feature for feature in FEATURES if not valid[feature]} == set(RATIOS)
    assert {feature: values[feature] for feature in RATIOS} == RATIOS
    level = 17 if bins == "32 bins" else 1
    assert values["glcm_JointAverage"] == level and values["gldm_HighGrayLevelEmphasis"] == pytest.approx(level**2)


def test_one_grey_level_of_many_greys_has_moments():
    values, valid = (named(part) for part in found("bins of 25")["greys 51 to 60"])
    assert {feature for feature in FEATURES if not valid[feature]} == {
        ratio for ratio in RATIOS if not ratio.startswith("firstorder")
    }
    assert values["firstorder_Kurtosis"] > 1 and values["firstorder_Entropy"] == 0


def test_fewer_than_four_pixels_say_nothing_where_pyradiomics_still_does():
    pytest.importorskip("radiomics")
    from data_prep import radiomics_oracle

    image, two, three = speckle(0), at((3, 4), (4, 5)), at((3, 4), (4, 4), (3, 5))
    for mask in (two, three):
        assert radiomics_oracle.extract(image, mask, features=FEATURES)[1].sum() > 90
    assert not np.any(extract(np.stack([image, image]).astype(np.float32), np.stack([two, three]))[1])


def test_fewer_than_four_pixels_or_a_straight_line_say_nothing():
    image = speckle(0)
    refused = [at(), at((3, 4)), at((3, 4), (4, 4)), at((3, 4), (4, 5)), at((3, 4), (4, 4), (3, 5))]
    refused += [at((5, slice(2, 30))), at((slice(2, 30), 5)), at((5, 2), (5, 9), (5, 12), (5, 30))]
    for bins in BINS.values():
        values, valid = extract(np.stack([image] * len(refused)).astype(np.float32), np.stack(refused), **bins)
        assert not np.any(valid) and not np.any(values)
    square = at((slice(3, 5), slice(4, 6)))
    assert np.all(extract(np.stack([image] * 2).astype(np.float32), np.stack([square] * 2))[1])


@pytest.mark.parametrize("bins", BINS)
def test_pixels_without_neighbours_have_no_pairs_and_no_runs(bins):
    values, valid = (named(part) for part in found(bins)["isolated pixels"])
    assert {name for name in FEATURES if not valid[name]} >= {
        name for name in FEATURES if name.startswith(("glcm_", "glrlm_"))
    }
    assert all(values[name] == 0 for name in FEATURES if name.startswith(("glcm_", "glrlm_")))
    assert all(valid[name] for name in FEATURES if name.startswith(("gldm_", "glszm_", "shape2D_")))
    in_line = named(found(bins)["isolated pixels in line"][1])  # runs of one along a row, but no pair side by side
    assert in_line["glrlm_RunPercentage"] and not in_line["glcm_Contrast"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, -1.0])
def test_a_grey_value_that_is_none_leaves_the_shape(wrong):
    names = ["blob 3", "ring 2"]
    image, mask = numbers(*names)
    place = tuple(np.argwhere(mask[0])[7])
    for bins in BINS.values():
        values, valid = map(np.asarray, extract(image, mask, **bins))
        spoilt = image.copy()
        spoilt[0][place] = wrong
        found_values, found_valid = map(np.asarray, extract(spoilt, mask, **bins))
        shape = np.array([name.startswith("shape2D") for name in FEATURES])
        np.testing.assert_array_equal(found_valid[0], shape)
        np.testing.assert_array_equal(found_values[0], np.where(shape, values[0], 0))
        np.testing.assert_array_equal(found_values[1], values[1])
        outside = np.where(mask, image, wrong)
        for part, other in zip(extract(outside, mask, **bins), (values, valid)):
            np.testing.assert_array_equal(part, other)


def test_images_and_masks_of_any_type_are_taken():
    image, mask = batch("blob 3", "ring 2")
    values, valid = extract(image.astype(np.float32), mask)
    for kind in (np.uint8, np.int32, np.float32, np.float64):
        for part, whole in zip(extract(image, mask.astype(kind)), (values, valid)):
            np.testing.assert_array_equal(part, whole)
        np.testing.assert_array_equal(
            extract(image.astype(kind), mask, **WIDTH)[0], extract(image.astype(np.float32), mask, **WIDTH)[0]
        )
    for soft in (mask.astype(np.float32) * 0.5, mask * 255, np.where(mask, np.nan, 0)):
        with pytest.raises(InputError, match="other values than 0 and 1"):
            extract(image, soft)


def test_bins_are_32_by_default():
    arguments = numbers("blob 3", "ring 2")
    np.testing.assert_array_equal(extract(*arguments)[0], extract(*arguments, **COUNT)[0])


def test_more_levels_than_are_possible_are_refused_at_once_and_flagged_inside_jit():
    image, mask = numbers("blob 2", "ring 3", "greys 120 to 129")
    with pytest.raises(
        InputError, match=r"bin_width 0.01 gives \d{4,} grey levels, and 1024 are possible; choose a wider one"
    ):
        extract(image, mask, bin_width=0.01)
    features = ("shape2D_Perimeter", "firstorder_Mean", "firstorder_Entropy", "ngtdm_Contrast")
    of_levels = np.array([name in OF_LEVELS for name in features])
    measure = lambda image, mask, highest: extract(image, mask, features=features, bin_width=5.0, highest_level=highest)
    values, valid = map(np.asarray, measure(image, mask, None))
    few, few_valid = map(np.asarray, jax.jit(measure, static_argnums=2)(image, mask, 4))
    assert valid.all()
    # The ten greys of the last image are at most three levels.
    np.testing.assert_array_equal(few_valid, [~of_levels, ~of_levels, np.ones(4, bool)])
    np.testing.assert_allclose(few, np.where(few_valid, values, 0), rtol=1e-5)
    enough, enough_valid = jax.jit(measure, static_argnums=2)(image, mask, None)  # 64
    np.testing.assert_allclose(enough, values, rtol=1e-5)
    assert np.all(enough_valid)


def test_lists_of_images_of_any_size_with_their_own_pixels_give_the_same():
    names = ["blob 3", "a corner", "two rows", "ring 2", "20 pixels"]
    images, masks = zip(*(CASES[name] for name in names))
    cuts = [(slice(2 * n, None), slice(None, SIDE - n)) for n in range(5)]  # five sizes
    images = [image[cut].astype((float, np.uint8)[n % 2]) for n, (image, cut) in enumerate(zip(images, cuts))]
    masks, spacings = [mask[cut] for mask, cut in zip(masks, cuts)], [SPACINGS[n % 3] for n in range(5)]
    together = extract(images, masks, spacing=spacings, features=CHOSEN)
    for n, (image, mask, spacing) in enumerate(zip(images, masks, spacings)):
        for part, alone in zip(together, extract(image[None], mask[None], spacing=spacing, features=CHOSEN)):
            np.testing.assert_allclose(part[n], alone[0], rtol=1e-6)


def test_images_on_rasters_of_two_lengths_are_measured_in_one_call():
    features = ("shape2D_PixelSurface", "firstorder_Mean")  # doubled pixels of half the size change neither
    image, mask = numbers("blob 3", "ring 2")
    double = lambda part: np.kron(part, np.ones((1, 2, 2), part.dtype))
    spacings = [(1.0, 1.0)] * 2 + [(0.5, 0.5)] * 2
    values, valid = extract([*image, *double(image)], [*mask, *double(mask)], features=features, spacing=spacings)
    assert np.all(valid)
    np.testing.assert_allclose(values[2:], values[:2], rtol=1e-6)
    np.testing.assert_array_equal(values[:2], extract(image, mask, features=features)[0])


def test_all_images_at_once_as_on_an_accelerator_give_the_same(monkeypatch):
    image, mask = numbers("blob 3", "a diagonal line", "all 100", "isolated pixels in line")
    inputs = packing.pack(list(image), list(mask), np.ones((4, 2)), 4, 1024, np.dtype(np.float32))
    fixed = {"settings": Settings(CHOSEN, None, 32), "sides": packing.sides(1024)}
    one_by_one = compiled(*inputs, **fixed)
    monkeypatch.setattr(raster, "map_images", lambda measure, *images: jax.vmap(measure)(*images))
    at_once = jax.jit(partial(compiled.__wrapped__, **fixed))(*inputs)
    np.testing.assert_allclose(at_once[0], one_by_one[0], rtol=1e-6)
    np.testing.assert_array_equal(at_once[1], one_by_one[1])


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"image": np.zeros((2, 31, 30), np.float32)},
            r"image \(2, 31, 30\) and mask \(2, 31, 31\) must have one shape",
        ),
        (
            {"image": np.zeros((9, 9), np.float32), "mask": np.zeros((9, 9), bool)},
            r"must have one shape \(images, height, width\)",
        ),
        (
            {"image": [np.zeros((9, 9))], "mask": [np.zeros((9, 8), bool)]},
            r"image 0: \(9, 9\) and its mask \(9, 8\) must both have",
        ),
        ({"image": [np.zeros((9, 9))] * 2, "mask": [np.zeros((9, 9))]}, "2 images, but 1 masks"),
        ({"spacing": [(1.0, 1.0)] * 3}, "or two for each image"),
        (
            {"features": ("glcm_Contrast", "glcm_Nothing")},
            "'glcm_Nothing' is no feature; thyroid_jax.radiomics.FEATURES lists them",
        ),
        ({"features": ()}, "no features were named"),
        ({"bin_width": 25.0, "bin_count": 32}, "both given; choose one"),
        ({"bin_width": 0.0}, "bin_width is 0.0; it must be above 0"),
        ({"bin_width": -5.0}, "bin_width is -5.0"),
        ({"bin_width": float("nan")}, "bin_width is nan"),
        ({"bin_width": float("inf")}, "bin_width is inf"),
        ({"bin_count": 1}, "bin_count is 1; it must lie between 2 and 1024"),
        ({"bin_count": 1025}, "bin_count is 1025"),
        ({"bin_count": 8, "highest_level": 64}, "highest_level is given without bin_width"),
        ({"highest_level": 64}, "would change nothing"),
        ({"bin_count": 8.5}, "bin_count is 8.5; it must .* be whole"),
        ({"spacing": (0.0, 1.0)}, r"spacing is \(0.0, 1.0\); it must be two sizes above 0, of a row and of a column"),
        ({"spacing": (1.0, float("nan"))}, r"spacing is \(1.0, nan\)"),
        ({"spacing": (1.0, -2.0)}, r"spacing is \(1.0, -2.0\)"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(changed, message):
    image, mask = numbers("blob 3", "ring 2")
    arguments = {"image": image, "mask": mask} | changed
    with pytest.raises(InputError, match=message):
        # without the tests' type checker, as users call it
        inspect.unwrap(extract)(arguments.pop("image"), arguments.pop("mask"), **arguments)
