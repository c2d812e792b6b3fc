"""The 391 odd-numbered images of BUSI: the reader's counts against counts made without it, and the raw pictures."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.readers import busi
from thyroid_jax.data.record import Notes

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
NAME = "busi"
SOURCE = next(
    (Path(place) / NAME / busi.FOLDER for place in PLACES if place and (Path(place) / NAME / busi.FOLDER).is_dir()),
    None,
)
pytestmark = [
    pytest.mark.skipif(SOURCE is None, reason=f"no BUSI: set THYROID_JAX_DATA to the folder that holds {NAME}/"),
    pytest.mark.skipif(
        SOURCE is not None and len(list(SOURCE.glob("*/*.png"))) != 792, reason="another part of BUSI than 391 images"
    ),
]

COUNTS = {
    "images": 391,
    "benign": 219,
    "malignant": 105,
    "normal": 67,
    "masks": 401,
    "images with several masks": 9,
    "images in colour": 10,
    "masks without image": 0,
    "other files": 0,
}


@pytest.fixture(scope="module")
def sample():
    notes = Notes()
    return {record.case: record for record in busi.read(SOURCE, notes)}, notes


def test_counts_are_those_made_without_the_reader(sample):
    _, notes = sample
    assert {name: count for name, count in notes.counts.items() if count or name in COUNTS} == COUNTS
    assert notes.faults == [] and notes.dropped == []


def test_pictures_are_those_of_the_files(sample):
    for record in list(sample[0].values())[::10]:
        with Image.open(SOURCE / record.source) as image:
            luma = np.asarray(image.convert("RGB")) @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(record.image, luma, atol=0.51)
        files = sorted((SOURCE / record.source).parent.glob(f"{record.case}_mask*.png"))
        marked = sum((np.asarray(Image.open(file).convert("L"), float) for file in files), np.zeros(luma.shape))
        if record.mask is None:
            assert record.descriptors["class"] == "normal" and not marked.any()
        else:
            np.testing.assert_array_equal(record.mask, marked > 0)
            assert 0.001 < record.mask.mean() < 0.8, record.case


def test_the_scan_with_three_masks_has_three_lesions(sample):
    files = [f"benign (195)_mask{further}.png" for further in ("", "_1", "_2")]
    areas = [int(np.asarray(Image.open(SOURCE / "benign" / file)).sum()) for file in files]
    mask = sample[0]["benign (195)"].mask
    assert max(areas) < mask.sum() <= sum(areas)


def test_one_pair_of_equal_images_has_two_labels(sample):
    """The whole original has the same pair, and no other exact one is known."""
    first, second = sample[0]["benign (433)"], sample[0]["malignant (145)"]
    assert first.content == second.content and (first.malignant, second.malignant) == (False, True)
    assert len({record.content for record in sample[0].values()}) == 390
