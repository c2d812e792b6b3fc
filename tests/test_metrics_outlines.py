"""Outlines against closed forms, brute force over all pairs of boundary pixels, and values of another library."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from thyroid_jax.evaluate import metrics

MASKS = arrays(bool, (7, 9), elements=st.booleans())
EMPTY, FULL = np.zeros((4, 5), bool), np.ones((4, 5), bool)
NAN = float("nan")


def square(top, left, side=20, size=40):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def ellipse(row, column, height, width, shape=(60, 80)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((y - row) / height) ** 2 + ((x - column) / width) ** 2 <= 1


@pytest.mark.parametrize("shift", [0, 3, 5, 20])
def test_offset_squares(shift):
    side, a, b = 20, square(5, 0), square(5, shift)
    assert metrics.dice(a, b) == pytest.approx((side - shift) / side)
    assert metrics.iou(a, b) == pytest.approx((side - shift) / (side + shift))
    assert metrics.precision(a, b) == metrics.recall(a, b) == pytest.approx((side - shift) / side)
    assert metrics.area_difference(a, b) == 0
    # More than 5 % of a's boundary (its left side) lies exactly `shift` from b, and nothing farther.
    assert metrics.hd95_px(a, b) == shift
    assert metrics.hd95(a, b, (0.1, 0.25)) == pytest.approx(0.25 * shift)
    assert metrics.hd95(a.T, b.T, (0.1, 0.25)) == pytest.approx(0.1 * shift)


def test_a_line_beside_a_line_by_hand():
    # Two columns of 10 and 4 pixels, 3 apart. From the short one all distances are 3. From the long one 4 are 3, and
    # 6 stand 1 to 6 rows below the short one's end.
    a, b = np.zeros((12, 8), bool), np.zeros((12, 8), bool)
    a[1:11, 2], b[1:5, 5] = True, True
    beyond = np.sqrt(9 + np.arange(1, 7) ** 2)
    assert metrics.assd(a, b) == pytest.approx((4 * 3 + beyond.sum() + 4 * 3) / 14)
    assert metrics.nsd(a, b, 3) == pytest.approx((4 + 4) / 14)
    assert metrics.nsd(a, b, 2.9) == 0 and metrics.nsd(a, b, 10) == 1
    share = 4 / 10  # of a within 3; of b all are
    assert metrics.boundary_f(a, b, 3) == pytest.approx(2 * share / (share + 1))
    assert metrics.boundary_f(a, b, 2.9) == 0
    # Twice as far across as down: the columns are 6 apart.
    assert metrics.nsd(a, b, 5.9, (1, 2)) == 0 and metrics.nsd(a, b, 6, (1, 2)) == pytest.approx(8 / 14)


def test_hd95_is_the_larger_direction_and_forgives_a_twentieth():
    a = square(10, 10)
    spot = a.copy()
    spot[0, 0] = True
    # The far pixel is 1 of 77 boundary pixels: beyond the 95th percentile.
    assert metrics.hd95_px(spot, a) == 0.0
    spot[:4, :4] = True  # 12 of 88 boundary pixels
    assert metrics.hd95_px(spot, a) > 9
    assert metrics.hd95_px(a, spot) == metrics.hd95_px(spot, a)


def brute_force(a, b, spacing, tolerance):
    """HD95, ASSD, surface Dice and BF score from the distances of all pairs of boundary pixels."""

    def boundary(mask):
        framed = np.pad(mask, 1)
        inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        return np.argwhere(mask & ~inner) * spacing

    distance = cdist(boundary(a), boundary(b))
    of_a, of_b = distance.min(axis=1), distance.min(axis=0)
    pooled = np.r_[of_a, of_b]
    near_a, near_b = np.mean(of_a <= tolerance + 1e-6), np.mean(of_b <= tolerance + 1e-6)
    return {
        "hd95": max(np.percentile(of_a, 95), np.percentile(of_b, 95)),
        "assd": pooled.sum() / len(pooled),
        "nsd": np.count_nonzero(pooled <= tolerance + 1e-6) / len(pooled),
        "boundary_f": 2 / (1 / near_a + 1 / near_b) if near_a and near_b else 0,
    }


@settings(max_examples=150, deadline=None)
@given(MASKS, MASKS, st.sampled_from([(1.0, 1.0), (0.3, 0.7)]), st.sampled_from([0, 0.3, 1, 1.4, 2]))
def test_boundary_measures_against_brute_force(a, b, spacing, tolerance):
    if a.any() and b.any():
        found = {
            "hd95": metrics.hd95(a, b, spacing),
            "assd": metrics.assd(a, b, spacing),
            "nsd": metrics.nsd(a, b, tolerance, spacing),
            "boundary_f": metrics.boundary_f(a, b, tolerance, spacing),
        }
        assert found == pytest.approx(brute_force(a, b, spacing, tolerance), abs=1e-9)


NOTCHED = ellipse(30, 40, 20, 25) & ~ellipse(30, 62, 6, 14)


@pytest.mark.parametrize(
    "a, b, assd_px, assd_mm, precision, recall, area",  # medpy 0.5.2, mm at a spacing of (0.5, 0.2)
    [
        (ellipse(30, 40, 15, 20), ellipse(32, 43, 15, 20), 2.105727, 0.655686, 0.870588, 0.870588, 0),
        (ellipse(30, 40, 12, 30), ellipse(30, 40, 15, 20), 3.328967, 1.021332, 0.721677, 0.865241, 0.19893),
        (NOTCHED, ellipse(30, 40, 20, 25), 1.116581, 0.280522, 1, 0.89737, -0.10263),
        (ellipse(5, 8, 15, 20), ellipse(8, 8, 15, 20), 0.955251, 0.343563, 0.986275, 0.855442, -0.132653),
        (ellipse(15, 15, 8, 8), ellipse(40, 60, 10, 12), 42.730046, 12.087992, 0, 0, -0.47185),
    ],
    ids=["shifted", "wider", "notched", "at the border", "apart"],
)
def test_values_of_another_library(a, b, assd_px, assd_mm, precision, recall, area):
    assert metrics.assd(a, b) == pytest.approx(assd_px, abs=1e-6)
    assert metrics.assd(a, b, (0.5, 0.2)) == pytest.approx(assd_mm, abs=1e-6)
    assert metrics.precision(a, b) == pytest.approx(precision, abs=1e-6)
    assert metrics.recall(a, b) == pytest.approx(recall, abs=1e-6)
    assert metrics.area_difference(a, b) == pytest.approx(area, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(MASKS, MASKS)
def test_properties(a, b):
    dice, iou = metrics.dice(a, b), metrics.iou(a, b)
    assert dice == metrics.dice(b, a) and 0 <= iou <= dice <= 1
    assert dice == pytest.approx(2 * iou / (1 + iou))
    if a.any() and b.any():
        p, r = metrics.precision(a, b), metrics.recall(a, b)
        assert dice == pytest.approx(2 * p * r / (p + r) if p + r else 0)
        assert metrics.area_difference(a, b) == pytest.approx(a.sum() / b.sum() - 1)
        for symmetric in (metrics.assd, metrics.hd95_px, lambda a, b: metrics.boundary_f(a, b, 1)):
            assert symmetric(a, b) == pytest.approx(symmetric(b, a))
        # Surface Dice is the mean of the two shares by boundary length: it lies between them, as the BF score does.
        near = [np.mean(side <= 1) for side in metrics.boundary_distances(a, b)]
        for measure in (metrics.nsd, metrics.boundary_f):
            assert min(near) - 1e-12 <= measure(a, b, 1) <= max(near) + 1e-12
    for measure, best in EQUAL_MASKS.items():
        assert measure(a, a) == best


EQUAL_MASKS = {
    metrics.dice: 1,
    metrics.iou: 1,
    metrics.precision: 1,
    metrics.recall: 1,
    metrics.hd95_px: 0,
    metrics.assd: 0,
    metrics.area_difference: 0,
    lambda a, b: metrics.nsd(a, b, 0): 1,
    lambda a, b: metrics.boundary_f(a, b, 0): 1,
}

# Measure -> its values with both empty, the predicted mask alone empty, the reference alone empty.
AT_THE_EDGES = {
    "dice": (1, 0, 0),
    "iou": (1, 0, 0),
    "precision": (1, NAN, 0),
    "recall": (1, 0, NAN),
    "hd95_px": (0, NAN, NAN),
    "assd_px": (0, NAN, NAN),
    "nsd_2px": (1, 0, 0),
    "boundary_f_2px": (1, 0, 0),
    "hd95_mm": (0, NAN, NAN),
    "assd_mm": (0, NAN, NAN),
    "nsd_1mm": (1, 0, 0),
}


@pytest.mark.parametrize("masks, at", [((EMPTY, EMPTY), 0), ((EMPTY, FULL), 1), ((FULL, EMPTY), 2)])
def test_empty_masks(masks, at):
    found = metrics.outline_measures(*masks, (0.1, 0.1))
    assert found == pytest.approx({name: values[at] for name, values in AT_THE_EDGES.items()}, nan_ok=True)
    assert metrics.area_difference(*masks) == pytest.approx((0, -1, NAN)[at], nan_ok=True)


def test_all_measures_at_once_are_the_single_ones():
    a, b, spacing = ellipse(30, 40, 15, 20), ellipse(33, 44, 12, 21), (0.25, 0.4)
    found = metrics.outline_measures(a, b, spacing)
    assert found == {
        "dice": metrics.dice(a, b),
        "iou": metrics.iou(a, b),
        "precision": metrics.precision(a, b),
        "recall": metrics.recall(a, b),
        "hd95_px": metrics.hd95_px(a, b),
        "assd_px": metrics.assd(a, b),
        "nsd_2px": metrics.nsd(a, b, 2),
        "boundary_f_2px": metrics.boundary_f(a, b, 2),
        "hd95_mm": metrics.hd95(a, b, spacing),
        "assd_mm": metrics.assd(a, b, spacing),
        "nsd_1mm": metrics.nsd(a, b, 1, spacing),
    }
    assert len(set(found.values())) == len(found)  # no two keys hold the same measure
    in_mm = {name for name in found if name.endswith("mm")}
    for unknown in ((NAN, NAN), (0.5, NAN)):
        without = metrics.outline_measures(a, b, unknown)
        assert {name for name, value in without.items() if np.isnan(value)} == in_mm
        assert all(without[name] == found[name] for name in found if name not in in_mm)


@pytest.mark.parametrize("start", range(20))
def test_a_distance_equal_to_the_tolerance_is_within_it(start):
    # Ten pixels of 0.1 mm are 1 mm, wherever they lie: 2.3 - 1.3 is more than 1 in floating point.
    a, b = np.zeros((1, 40), bool), np.zeros((1, 40), bool)
    a[0, start], b[0, start + 10] = True, True
    assert metrics.nsd(a, b, 1, (0.1, 0.1)) == metrics.boundary_f(a, b, 1, (0.1, 0.1)) == 1
    b[0] = np.arange(40) == start + 11
    assert metrics.nsd(a, b, 1, (0.1, 0.1)) == metrics.boundary_f(a, b, 1, (0.1, 0.1)) == 0


@pytest.mark.parametrize(
    "measure",
    [
        *(metrics.dice, metrics.iou, metrics.precision, metrics.recall, metrics.area_difference),
        *(metrics.hd95_px, metrics.assd, metrics.outline_measures),
        lambda a, b: metrics.nsd(a, b, 1),
        lambda a, b: metrics.boundary_f(a, b, 1),
    ],
)
def test_ill_masks_are_refused(measure):
    for bad in (np.zeros((5, 4), bool), np.zeros((4, 5)), np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), bool)):
        with pytest.raises(ValueError, match=r"bool\[h w\]"):
            measure(bad, EMPTY)
        with pytest.raises(ValueError, match=r"bool\[h w\]"):
            measure(EMPTY, bad)


def test_ill_spacings_and_tolerances_are_refused():
    for spacing in ((1.0, 0.0), (-1.0, 1.0), (np.inf, 1.0)):
        for measure in (metrics.hd95, metrics.assd, metrics.outline_measures):
            with pytest.raises(ValueError, match="spacing"):
                measure(EMPTY, EMPTY, spacing)
        with pytest.raises(ValueError, match="spacing"):
            metrics.area_mm2(FULL, spacing)
    with pytest.raises(ValueError, match="spacing"):
        metrics.hd95(FULL, FULL, (NAN, 1.0))
    for measure in (metrics.nsd, metrics.boundary_f):
        for tolerance in (-1, NAN):
            with pytest.raises(ValueError, match="tolerance"):
                measure(FULL, FULL, tolerance)


def test_areas():
    assert metrics.area_mm2(FULL, (0.5, 0.2)) == pytest.approx(20 * 0.1) and metrics.area_mm2(EMPTY, (0.5, 0.2)) == 0
    assert np.isnan(metrics.area_mm2(FULL, (0.5, NAN)))
    assert metrics.area_difference(square(0, 0, 20), square(0, 0, 10)) == 3
    assert metrics.area_difference(square(0, 0, 10), square(0, 0, 20)) == -0.75


def test_dice_with_readers():
    a, b = square(0, 0), square(0, 5)
    assert metrics.dice_with_readers(a, [b, None, a]) == pytest.approx((0.75, NAN, 1), nan_ok=True)
    assert metrics.dice_with_readers(None, [b, None]) == pytest.approx((NAN, NAN), nan_ok=True)
    assert metrics.dice_with_readers(a, []) == ()


def test_contrast_to_noise_of_a_drawn_nodule():
    # Equivalent diameter of a 40 x 40 square: 45.1 px, so the ring is 4.5 px wide. Brightness falls with the distance,
    # so that a ring of another width has another mean.
    mask, image = square(30, 40, 40, 120), np.full((120, 120), 60, np.uint8)
    to_mask = cdist(np.argwhere(~mask), np.argwhere(mask)).min(axis=1)
    image[~mask] = (200 - 10 * to_mask).clip(0)
    around = image[~mask][to_mask <= 0.1 * 2 * np.sqrt(1600 / np.pi)].astype(float)
    expected = (around.mean() - 60) / around.std()
    assert metrics.contrast_to_noise(image, mask) == pytest.approx(expected) and expected > 1
    # What lies farther away does not count, nor does a texture inside with the same mean.
    far = image.copy()
    far[:25], far[mask] = 7, np.tile(np.array([50, 70], np.uint8), 800)
    assert metrics.contrast_to_noise(far, mask) == pytest.approx(expected)


def test_contrast_to_noise_by_hand():
    # A nodule of 60 in stripes of 100 and 140: the mean of the ring is 120, its standard deviation 20.
    mask, image = square(30, 40, 40, 120), np.zeros((120, 120), np.uint8)
    image[::2], image[1::2] = 100, 140
    for value, contrast in ((60, 3), (180, -3), (120, 0)):
        image[mask] = value
        assert metrics.contrast_to_noise(image, mask) == pytest.approx(contrast)


@settings(max_examples=60, deadline=None)
@given(MASKS, arrays(np.uint8, (7, 9), elements=st.integers(0, 255)))
def test_contrast_to_noise_against_brute_force(mask, image):
    found = metrics.contrast_to_noise(image, mask)
    if not mask.any() or mask.all():
        assert np.isnan(found)
        return
    near = cdist(np.argwhere(~mask), np.argwhere(mask)).min(axis=1) <= max(2, 0.2 * np.sqrt(mask.sum() / np.pi))
    around = image[~mask][near].astype(float)
    expected = (around.mean() - image[mask].mean()) / around.std() if np.ptp(around) else NAN
    assert found == pytest.approx(expected, nan_ok=True)


def test_contrast_at_the_edges():
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    spot = np.zeros((4, 5), bool)
    spot[1, 1] = True
    for mask, picture in ((EMPTY, image), (FULL, image), (spot, np.where(spot, 9, 0).astype(np.uint8))):
        assert np.isnan(metrics.contrast_to_noise(picture, mask))
    for bad, mask in ((image.astype(float), spot), (image, spot.astype(float)), (image[1:], spot), (image[None], spot)):
        with pytest.raises(ValueError, match=r"uint8\[h w\]"):
            metrics.contrast_to_noise(bad, mask)


def test_nothing_is_near_an_empty_mask_whatever_the_tolerance():
    for tolerance in (0, 2.0, np.inf):
        for a, b in ((EMPTY, FULL), (FULL, EMPTY)):
            assert metrics.nsd(a, b, tolerance) == metrics.boundary_f(a, b, tolerance) == 0
        assert metrics.nsd(EMPTY, EMPTY, tolerance) == metrics.nsd(FULL, FULL, tolerance) == 1
