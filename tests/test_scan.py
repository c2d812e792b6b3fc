"""The scan is found, what was drawn over it goes, and tissue stays."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from data_prep import scan


def tissue(h, w, seed=0):
    """Speckle whose grain is wider than high, as a linear probe's is."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(h, w)), (1.0, 2.0))
    return np.clip(80 + 25 * noise / noise.std(), 12, 150).astype(np.uint8)


def screenshot(top=20, bottom=300, left=90, right=470):
    page = np.zeros((360, 560), np.uint8)
    page[top:bottom, left:right] = tissue(bottom - top, right - left)
    page[180:290, 4:20] = np.linspace(255, 5, 110)[:, None]  # grey bar
    image = Image.fromarray(page)
    pen = ImageDraw.Draw(image)
    for i in range(7):
        pen.text((520, 10 + 12 * i), "P100", fill=255)
    pen.text((60, 330), "4 DER     TIRADS 5 (4C)", fill=255)
    for x in range(left, right, 60):
        pen.rectangle((x, top - 2, x + 1, top + 1), fill=255)
    return np.array(image)


@pytest.mark.parametrize("box", [(20, 300, 90, 470), (8, 310, 36, 527), (100, 300, 90, 380)])
def test_the_box_is_the_scan_without_text_bar_and_ticks(box):
    found = scan.scan_box(screenshot(*box), trim=3)
    np.testing.assert_allclose(found, np.add(box, [3, -3, 3, -3]), atol=1)


def test_two_views_with_a_dark_gap_are_one_scan():
    page = screenshot(8, 310, 36, 527)
    page[:, 278:286] = 0
    assert scan.scan_box(page)[2:] == pytest.approx((39, 524), abs=1)


@pytest.mark.parametrize("page", [np.zeros((360, 560), np.uint8), np.zeros((20, 20), np.uint8)])
def test_a_page_without_scan_has_no_box(page):
    assert scan.scan_box(page) is None


def test_around_stays_in_the_image_and_knows_the_inner_box():
    grown, inner = scan.around(scan.Box(2, 50, 3, 60), (52, 100), 8)
    assert grown == (0, 52, 0, 68)
    assert inner == (2, 50, 3, 60)


def test_coloured_marks_are_found_with_their_smear_but_a_coloured_image_is_left():
    image = np.repeat(tissue(100, 100)[..., None], 3, -1)
    assert not scan.coloured_marks(scan.colour_of(image)).any()
    marked = image.copy()
    marked[40:47, 50] = (60, 200, 200)
    found = scan.coloured_marks(scan.colour_of(marked))
    assert found[38:49, 49:52].all() and found.sum() < 150
    doppler = image.copy()
    doppler[20:60, 20:80] = (200, 20, 20)
    assert not scan.coloured_marks(scan.colour_of(doppler)).any()
    assert not scan.coloured_marks(scan.colour_of(image[..., 0])).any()


def test_letters_go_and_bright_foci_stay():
    image = Image.fromarray(tissue(120, 200))
    ImageDraw.Draw(image).text((20, 20), "ADENO", fill=255)
    grey = np.asarray(image).astype(float)
    inked = np.asarray(image) > 200
    focus = np.exp(-(((np.arange(120)[:, None] - 80) / 1.2) ** 2 + ((np.arange(200) - 120) / 2.2) ** 2) / 2)
    grey = np.clip(grey + 170 * focus, 0, 255).astype(np.uint8)
    found = scan.white_glyphs(grey)
    assert found[inked].mean() > 0.97
    assert not found[70:90, 100:140].any()
    filled = scan.fill(grey, found)
    assert filled[inked].max() < 190
    assert filled[80, 120] == grey[80, 120] > 220


def test_strokes_are_those_of_a_search_pixel_by_pixel():
    rng = np.random.default_rng(0)
    for widest in (1, 2, 5):
        value = rng.choice([0, 60, 130, 200, 255], (30, 40)).astype(np.int16)
        expected = np.zeros(value.shape, bool)
        for row in range(30):
            for first in range(1, 40):
                if value[row, first] - value[row, first - 1] >= 90:
                    ends = [x for x in range(first + 1, 40) if value[row, x - 1] - value[row, x] >= 90]
                    if ends and ends[0] - first <= widest and value[row, first : ends[0]].max() >= 190:
                        expected[row, first : ends[0]] = True
        assert expected.any()
        np.testing.assert_array_equal(scan._sharp_strokes(value, 190, 90, widest), expected)


@pytest.mark.parametrize("width", [3, 4, 6])
def test_a_bright_focus_of_three_pixels_and_more_is_no_letter(width):
    """The width is that at half of the height. Narrower ones may be taken for a stroke: docs/predict.md says so."""
    rng = np.random.default_rng(width)
    rows, columns = np.mgrid[:60, :80]
    for _ in range(40):
        row, column = 30 + rng.random(), 40 + rng.random()
        focus = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) * 4 * np.log(2) / width**2)
        grey = np.clip(90 + 8 * rng.normal(size=rows.shape) + 150 * focus, 0, 255).astype(np.uint8)
        assert grey.max() > 190 and not scan.white_glyphs(grey).any()


def test_plain_tissue_has_no_glyphs():
    assert not scan.white_glyphs(tissue(300, 400, seed=3)).any()


def test_a_faint_cross_is_found_by_its_shape():
    cross = np.pad(np.maximum(np.eye(9), np.eye(9)[::-1]), 1).astype(np.float32)
    grey = tissue(100, 150, seed=1)
    clean = scan.drawn_marks(grey, [cross], alike=0.56)
    grey[40:49, 60:69][cross[1:-1, 1:-1] > 0] = 175
    found = scan.drawn_marks(grey, [cross], alike=0.56)
    assert not clean.any()
    assert found[40, 60] and found[48, 60] and found[44, 64] and found.sum() < 200
    assert not scan.drawn_marks(grey[:5], [cross], alike=0.56).any()


def test_dots_are_single_pixels():
    grey = np.full((20, 20), 80, np.uint8)
    grey[5, 5] = 140
    grey[10:12, 10] = 140
    assert np.argwhere(scan.dots(grey, step=20)).tolist() == [[5, 5]]


def test_fill_leaves_the_rest_alone_and_looks_like_tissue():
    grey = tissue(100, 150, seed=2)
    blank = np.zeros(grey.shape, bool)
    blank[40:50, 60:75] = True
    marked = np.where(blank, 255, grey).astype(np.uint8)
    filled = scan.fill(marked, blank)
    np.testing.assert_array_equal(filled[~blank], grey[~blank])
    assert abs(filled[blank].mean() - grey[~blank].mean()) < 20
    assert filled[blank].std() > 0.4 * grey[~blank].std()
    np.testing.assert_array_equal(scan.fill(grey, np.zeros_like(blank)), grey)


def test_fill_survives_a_hole_as_large_as_the_image():
    assert scan.fill(tissue(40, 40), np.ones((40, 40), bool)).shape == (40, 40)


def test_a_stamp_is_found_by_its_grey_values_alone():
    """Where the tissue is as bright as the stamp, and nowhere else."""
    grey = tissue(100, 150, seed=4)
    grey[30:60, 50:90] = np.clip(grey[30:60, 50:90].astype(int) + 100, 0, 255)
    ring = np.full((7, 7), 180, np.uint8)
    ring[1:6, 1:6] = 130
    ring[2:5, 2:5] = 0
    clean = scan.stamps(grey, [ring], noise=10)
    grey[40:47, 60:67][ring > 0] = ring[ring > 0]
    found = scan.stamps(grey, [ring], noise=10, reach=0)
    assert not clean.any()
    np.testing.assert_array_equal(np.argwhere(found), np.add(np.argwhere(ring), (40, 60)))
    np.testing.assert_array_equal(
        scan.stamps(grey, [ring], noise=10, reach=2), ndimage.binary_dilation(found, iterations=2)
    )
    assert not scan.stamps(grey[:5], [ring], noise=10).any()


def test_a_stamp_survives_the_noise_that_is_allowed():
    page = np.full((20, 20), 90, np.uint8)
    mark = np.full((3, 3), 200, np.uint8)
    page[5:8, 5:8] = 209
    assert scan.stamps(page, [mark], noise=9.0, reach=0).sum() == 9
    assert not scan.stamps(page, [mark], noise=8.9).any()


def test_marks_correlate_as_in_scikit_image():
    feature = pytest.importorskip("skimage.feature")
    grey = tissue(60, 90, seed=5)
    grey[:20, :30] = 7
    drawing = np.random.default_rng(0).choice([0.0, 0.0, 0.5, 1.0], (5, 8))
    expected = feature.match_template(grey.astype(np.float64), drawing)
    np.testing.assert_allclose(scan._correlation(grey, drawing), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 15), (11, 11), (41, 41), (3, 1), (1, 1)])
def test_sliding_windows_are_those_of_scipy(size):
    grey = tissue(50, 60, seed=6)
    for choose, filtered, beyond in (
        (np.minimum, ndimage.minimum_filter, 0),
        (np.minimum, ndimage.minimum_filter, 255),
        (np.maximum, ndimage.maximum_filter, 0),
    ):
        expected = filtered(grey, size, mode="constant", cval=beyond)
        np.testing.assert_array_equal(scan._sliding(choose, grey, size, beyond=beyond), expected)


def test_dots_at_the_edge_and_growth_are_those_of_scipy():
    grey = tissue(40, 50, seed=7)
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    above = grey.astype(int) - ndimage.maximum_filter(grey.astype(int), footprint=ring, mode="nearest")
    np.testing.assert_array_equal(scan.dots(grey, step=3), above >= 3)
    mask = np.random.default_rng(0).random((30, 40)) > 0.98
    np.testing.assert_array_equal(scan._grown(mask, 4), ndimage.binary_dilation(mask, iterations=4))
    np.testing.assert_array_equal(scan._grown(mask, 0), mask)


def test_luma_is_the_same_with_and_without_colour():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    page = np.repeat(grey[..., None], 3, -1)
    np.testing.assert_array_equal(scan.to_grey(page), grey)
    page[0, 0] = (255, 0, 0)
    np.testing.assert_array_equal(scan.to_grey(page).ravel()[1:], grey.ravel()[1:])
    assert scan.to_grey(page)[0, 0] == 76
