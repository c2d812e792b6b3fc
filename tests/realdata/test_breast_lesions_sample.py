"""The even cases of BrEaST: the reader's counts against counts made by hand (regular expressions over the sheet's raw
XML).
"""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.readers import breast_lesions as breast
from thyroid_jax.data.record import Notes

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
NAME = "breast_lesions_usg"
SOURCE = next((Path(place) / NAME for place in PLACES if place and (Path(place) / NAME / breast.FOLDER).is_dir()), None)
IMAGES = sorted(path.name for path in (SOURCE / breast.FOLDER).glob("case???.png")) if SOURCE else []
pytestmark = [
    pytest.mark.skipif(SOURCE is None, reason=f"no BrEaST: set THYROID_JAX_DATA to the folder that holds {NAME}/"),
    pytest.mark.skipif(
        SOURCE is not None and IMAGES != [f"case{number:03d}.png" for number in range(2, 257, 2)],
        reason="another part of BrEaST than its even cases",
    ),
]

BY_HAND = {
    "cases": 128,
    "images": 128,
    "images with outline": 128,
    "images with category": 128,
    "images without pixel size": 0,
    "benign": 78,
    "malignant": 50,
    "normal": 0,
    "confirmed by biopsy": 96,
    "confirmed by follow-up care": 32,
    "other outlines left out": 10,
}
CATEGORIES = {"2": 18, "3": 21, "4a": 16, "4b": 27, "4c": 20, "5": 26}
FINDINGS = {
    "shape": {"irregular": 71, "oval": 48, "round": 9},
    "echogenicity": {
        "hypoechoic": 76,
        "heterogeneous": 26,
        "anechoic": 10,
        "hyperechoic": 6,
        "isoechoic": 6,
        "complex cystic/solid": 4,
    },
    "posterior_features": {"no": 74, "enhancement": 26, "shadowing": 24, "combined": 4},
    "calcifications": {"no": 112, "in a mass": 14, "intraductal": 1, "indefinable": 1},
    "halo": {"no": 100, "yes": 28},
    "skin_thickening": {"no": 124, "yes": 4},
}


@pytest.fixture(scope="module")
def sample():
    notes = Notes()
    return list(breast.read(SOURCE, notes)), notes


def test_counts_are_those_made_by_hand(sample):
    records, notes = sample
    assert {name: notes.counts[name] for name in BY_HAND} == BY_HAND
    assert notes.faults == [] and notes.dropped == []
    assert Counter(breast.GRADES[record.grade] for record in records) == CATEGORIES


def test_findings_are_those_made_by_hand(sample):
    for finding, counts in FINDINGS.items():
        assert Counter(record.descriptors[finding] for record in sample[0]) == counts, finding
    assert Counter(record.descriptors["margins"] for record in sample[0])["circumscribed"] == 55
    assert sum("tissue_composition" in record.descriptors for record in sample[0]) == 128 - 29


def test_labels_are_those_of_their_case(sample):
    """Rows looked up by hand: a shifted column or row would show here."""
    records = {record.case: record for record in sample[0]}
    looked_up = {
        "case002": ("4b", False, 0.06462036, "oval"),
        "case004": ("3", False, 0.078125, "round"),
        "case006": ("4b", False, 0.078125, "irregular"),
        "case008": ("5", True, 0.05902192, "irregular"),
        "case256": ("4a", False, 0.078125, "oval"),
    }
    for case, (grade, malignant, millimetres, shape) in looked_up.items():
        record = records[case]
        assert (breast.GRADES[record.grade], record.malignant, record.descriptors["shape"]) == (
            grade,
            malignant,
            shape,
        ), case
        assert record.spacing == pytest.approx((millimetres, millimetres)), case


def test_every_outline_lies_in_its_scan(sample):
    for record in sample[0]:
        height, width = record.image.shape
        assert 349 <= height <= 618 and 424 <= width <= 1024, record.case
        assert record.mask.shape == record.image.shape and 0.006 < record.mask.mean() < 0.47, record.case
        with Image.open(SOURCE / breast.FOLDER / f"{record.case}_tumor.png") as drawn:
            np.testing.assert_array_equal(record.mask, np.asarray(drawn)[..., 1] > 127, err_msg=record.case)
        assert record.image[record.mask].max() > 0, record.case


def test_a_lesion_is_millimetres_to_centimetres_wide(sample):
    for record in sample[0]:
        down, across = record.spacing
        rows, columns = np.nonzero(record.mask)
        assert 0.04 < down == across < 0.14, record.case
        assert 2 < np.ptp(rows) * down < 60 and 3 < np.ptp(columns) * across < 80, record.case
        assert 15 < record.image.shape[0] * down < 80, record.case


def test_every_case_is_one_group_of_one_image(sample):
    records, _ = sample
    assert len({record.group for record in records}) == len({record.content for record in records}) == len(records)
    assert all(record.case == record.group == record.source.removesuffix(".png") for record in records)


def test_nothing_shows_where_the_original_is_transparent(sample):
    seen = 0
    for record in sample[0]:
        with Image.open(SOURCE / breast.FOLDER / record.source) as picture:
            transparent = np.asarray(picture)[..., 3] == 0
        assert not record.image[transparent].any() and not record.mask[transparent].any(), record.case
        seen += bool(transparent.any())
    assert seen == sample[1].counts["images with transparent parts"] == 12
