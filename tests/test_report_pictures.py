"""Pictures: outlines sit on the masks, thumbnails are small and true, hostile captions are only text."""

import re
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from report_samples import HOSTILE, disc

from thyroid_jax.evaluate.report import (
    PREDICTED_COLOUR,
    REFERENCE_COLOUR,
    Picture,
    overlay,
    overlay_grid,
    png,
    thumbnail,
)
from thyroid_jax.evaluate.report.page import _asset
from thyroid_jax.evaluate.report.pictures import HEAVIEST, SIDE, hexadecimal, svg_path


def test_overlay_draws_the_boundary_and_nothing_else():
    image = np.full((48, 64), 100, np.uint8)
    reference, predicted = disc(20, 24, 8), disc(45, 24, 8)
    drawn = overlay(image, reference, predicted.astype(float))
    assert drawn.shape == (48, 64, 3) and drawn.dtype == np.uint8
    blue, orange = (drawn == REFERENCE_COLOUR).all(axis=-1), (drawn == PREDICTED_COLOUR).all(axis=-1)
    assert (blue <= reference).all() and (orange <= predicted).all()
    assert (drawn[~blue & ~orange] == 100).all()
    # A disc of radius 8 has a 4-connected boundary between 2 pi (r - 1) and 8 r pixels.
    assert 2 * np.pi * 7 < blue.sum() < 64 and blue.sum() == orange.sum()
    np.testing.assert_array_equal(overlay(image, None, None, scale=2), np.full((96, 128, 3), 100))
    for bad in ((image.astype(float), None, None), (image, reference[:-1], None)):
        with pytest.raises(ValueError, match="uint8"):
            overlay(*bad)


def test_overlay_grid_and_png_survive_hostile_captions():
    picture = Picture(HOSTILE + "甲状腺", np.full((48, 64), 90, np.uint8), disc(30, 24, 10), np.zeros((48, 64)))
    sheet = overlay_grid([picture] * 3, columns=2, width_px=600)
    assert sheet.dtype == np.uint8 and sheet.shape[1:] == (600, 3)
    near_blue = np.abs(sheet.astype(int) - REFERENCE_COLOUR).max(axis=-1) < 12
    assert near_blue.sum() > 100
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png(sheet)))), sheet)
    for bad in ([], None), ([picture], ["one", "two"]):
        with pytest.raises(ValueError, match="do not make a sheet"):
            overlay_grid(*bad)


# --- paths ------------------------------------------------------------------------------------------------------------


def curves(path):
    return [
        np.array([pair.split(",") for pair in part.removesuffix("Z").split()], float)
        for part in path.split("M")
        if part
    ]


def test_a_path_lies_on_the_mask():
    # The disc of radius 12 about column 30, row 24: its path in SVG pixels is centred half a pixel further.
    (points,) = curves(svg_path(disc(30, 24, 12)))
    assert np.hypot(*(points - [30.5, 24.5]).T) == pytest.approx(11.5, abs=0.8)
    # A rectangle of rows 2..4 and columns 3..8 is cut at its corners, and its straight sides have no more points.
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    (points,) = curves(svg_path(mask))
    assert len(points) == 8 and points.min(0).tolist() == [3, 2] and points.max(0).tolist() == [9, 5]


def test_paths_of_nothing_of_parts_and_of_holes():
    assert svg_path(None) == "" == svg_path(np.zeros((8, 8), bool))
    assert len(curves(svg_path(disc(15, 24, 8) | disc(45, 24, 8)))) == 2
    assert len(curves(svg_path(disc(30, 24, 12) & ~disc(30, 24, 5)))) == 2
    everything = curves(svg_path(np.ones((8, 8), bool)))
    assert everything[0].min() >= 0 and everything[0].max() <= 8
    single = np.zeros((8, 8), bool)
    single[3, 4] = True
    assert curves(svg_path(single))[0].mean(0) == pytest.approx([4.5, 3.5])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_path_filled_again_is_the_mask(seed):
    """Drawn eight times larger and filled by the even-odd rule: every pixel's centre is inside as the mask says."""
    rng = np.random.default_rng(seed)
    mask = np.asarray(Image.fromarray(rng.random((5, 6)) < 0.5).resize((24, 20)))
    canvas = np.zeros((160, 192), bool)
    for points in curves(svg_path(mask)):
        layer = Image.new("1", (192, 160))
        ImageDraw.Draw(layer).polygon([(8 * x, 8 * y) for x, y in points], fill=1)
        canvas ^= np.asarray(layer)
    np.testing.assert_array_equal(canvas[4::8, 4::8], mask)


# --- thumbnails -------------------------------------------------------------------------------------------------------


def test_a_thumbnail_is_the_image_at_most_as_large_as_allowed():
    rows, columns = np.mgrid[:700, :900]
    image = (128 + 60 * np.sin(rows / 90) * np.cos(columns / 70)).astype(np.uint8)
    found = thumbnail(Picture("x", image, rows < 200))
    small = Image.open(BytesIO(found.webp))
    assert small.format == "WEBP" and max(small.size) == SIDE and (found.width, found.height) == (900, 700)
    again = np.asarray(small.convert("L").resize((900, 700)), float)
    assert np.abs(again - image).mean() < 3
    assert curves(found.reference)[0].max(0).tolist() == [900, 200]  # in the frame of the image, not of the thumbnail
    assert found.predicted == "" and found.data_uri.startswith("data:image/webp;base64,UklGR")


def test_a_small_image_is_not_enlarged():
    found = thumbnail(Picture("x", np.zeros((1, 7), np.uint8)))
    assert Image.open(BytesIO(found.webp)).size == (7, 1)


def test_the_worst_of_images_stays_below_the_limit():
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200)).astype(np.uint8)
    assert len(thumbnail(Picture("x", noise)).webp) <= HEAVIEST


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        thumbnail(Picture("x", np.zeros((8, 8), np.uint8), np.zeros((8, 9), bool)))
    with pytest.raises(ValueError, match="uint8"):
        thumbnail(Picture("x", np.zeros((8, 8))))


def test_the_page_has_the_same_colours():
    style = _asset("page.css")
    assert re.search(r"--reference: (#\w+)", style)[1] == hexadecimal(REFERENCE_COLOUR)
    assert re.search(r"--predicted: (#\w+)", style)[1] == hexadecimal(PREDICTED_COLOUR)
