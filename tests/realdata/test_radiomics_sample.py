"""The features on real breast lesions, BrEaST and BUS-BRA, against pyradiomics: every value of twelve of each."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data_prep import radiomics_oracle
from thyroid_jax.radiomics import FEATURES, extract

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
FOLDERS = ("breast_lesions_usg", "bus_bra")
ROOT = next(
    (Path(place) for place in PLACES if place and all((Path(place) / folder).is_dir() for folder in FOLDERS)), None
)
SETS = {
    "breast": (
        "breast_lesions_usg/BrEaST-Lesions_USG-images_and_masks/*_tumor.png",
        lambda mask: mask.name.replace("_tumor", ""),
        ".",
    ),
    "bus_bra": ("bus_bra/Masks/mask_*.png", lambda mask: mask.name.replace("mask_", "bus_"), "../Images"),
}
SPACING, SIDE, COUNT = (
    (0.07, 0.09),
    128,
    12,
)  # not square, so that rows and columns cannot be confused; one compiled program

pytest.importorskip("radiomics", reason="the parity oracle, pyradiomics, builds on Python 3.11 only")


def lesions(name):
    """(image, mask) of the first lesions that fit into the square, cut to their boxes."""
    masks, of, folder = SETS[name]
    for path in sorted(ROOT.glob(masks)):
        mask = np.asarray(Image.open(path).convert("L")) > 127
        box = ndimage.find_objects(mask.astype(int))[0]
        if max(mask[box].shape) <= SIDE:
            yield np.asarray(Image.open(path.parent / folder / of(path)).convert("L"))[box], mask[box]


@pytest.mark.skipif(ROOT is None, reason="no BrEaST and BUS-BRA: set THYROID_JAX_DATA to the folder that holds both")
@pytest.mark.parametrize("name", SETS)
def test_every_value_is_pyradiomics(name):
    cases = [case for case, _ in zip(lesions(name), range(COUNT))]
    assert len(cases) == COUNT
    image, mask = np.zeros((COUNT, SIDE, SIDE), np.float32), np.zeros((COUNT, SIDE, SIDE), bool)
    for row, (picture, outline) in enumerate(cases):
        h, w = outline.shape
        image[row, :h, :w], mask[row, :h, :w] = picture, outline
    values, valid = extract(image, mask, bin_count=32, spacing=SPACING)
    for row, (picture, outline) in enumerate(cases):
        expected, known = radiomics_oracle.extract(
            picture.astype(float), outline, features=FEATURES, bin_count=32, spacing=SPACING
        )
        assert valid[row].all() and known.all()
        for feature, ours, theirs in zip(FEATURES, np.asarray(values[row]), expected):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6), (row, feature)
