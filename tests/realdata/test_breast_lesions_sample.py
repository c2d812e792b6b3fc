"""All 256 cases of BrEaST: the reader's counts against counts made by hand (regular expressions over the sheet's raw
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
        SOURCE is not None and IMAGES != [f"case{number:03d}.png" for number in range(1, 257)],
        reason="not the whole of BrEaST",
    ),
]

BY_HAND = {
    "cases": 256,
    "cases whose image is not there": 0,
    "images": 256,
    "images without row": 0,
    "images with outline": 252,
    "images without outline, kept for their labels": 4,
    "images with category": 256,
    "images without pixel size": 0,
    "benign": 154,
    "malignant": 98,
    "normal": 4,
    "confirmed by biopsy": 197,
    "confirmed by follow-up care": 55,
    "other outlines left out": 14,
}
CATEGORIES = {"1": 4, "2": 30, "3": 37, "4a": 44, "4b": 46, "4c": 49, "5": 46}
FINDINGS = {  # there is no lesion to describe in the four normal breasts
    "shape": {"irregular": 140, "oval": 97, "round": 15, None: 4},
    "echogenicity": {
        "hypoechoic": 148,
        "heterogeneous": 57,
        "anechoic": 15,
        "isoechoic": 12,
        "complex cystic/solid": 11,
        "hyperechoic": 9,
        None: 4,
    },
    "posterior_features": {"no": 159, "shadowing": 50, "enhancement": 36, "combined": 7, None: 4},
    "calcifications": {"no": 225, "in a mass": 23, "intraductal": 2, "indefinable": 2, None: 4},
    "halo": {"no": 197, "yes": 55, None: 4},
    "skin_thickening": {"no": 241, "yes": 15},
}
NORMAL = ["case045", "case061", "case209", "case213"]


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
        assert Counter(record.descriptors.get(finding) for record in sample[0]) == counts, finding
    assert Counter(record.descriptors.get("margins") for record in sample[0])["circumscribed"] == 115
    assert sum("tissue_composition" in record.descriptors for record in sample[0]) == 256 - 49


def test_labels_are_those_of_their_case(sample):
    """Rows looked up by hand: a shifted column or row would show here."""
    records = {record.case: record for record in sample[0]}
    looked_up = {
        "case001": ("2", False, 0.078125, "irregular"),
        "case002": ("4b", False, 0.06462036, "oval"),
        "case004": ("3", False, 0.078125, "round"),
        "case006": ("4b", False, 0.078125, "irregular"),
        "case008": ("5", True, 0.05902192, "irregular"),
        "case045": ("1", None, 0.07525084, None),
        "case255": ("4c", True, 0.06944444, "irregular"),
        "case256": ("4a", False, 0.078125, "oval"),
    }
    for case, (grade, malignant, millimetres, shape) in looked_up.items():
        record = records[case]
        assert (breast.GRADES[record.grade], record.malignant, record.descriptors.get("shape")) == (
            grade,
            malignant,
            shape,
        ), case
        assert record.spacing == pytest.approx((millimetres, millimetres)), case


def test_a_normal_breast_has_no_outline_and_no_verdict(sample):
    bare = [record for record in sample[0] if record.mask is None]
    assert [record.case for record in bare] == NORMAL
    assert all(record.malignant is None and breast.GRADES[record.grade] == "1" for record in bare)
    assert sum(record.malignant is None for record in sample[0]) == len(NORMAL)


def test_every_outline_lies_in_its_scan(sample):
    for record in sample[0]:
        height, width = record.image.shape
        assert 289 <= height <= 618 and 363 <= width <= 1024, record.case
        if record.mask is None:
            continue
        assert record.mask.shape == record.image.shape and 0.005 < record.mask.mean() < 0.47, record.case
        with Image.open(SOURCE / breast.FOLDER / f"{record.case}_tumor.png") as drawn:
            np.testing.assert_array_equal(record.mask, np.asarray(drawn)[..., 1] > 127, err_msg=record.case)
        assert record.image[record.mask].max() > 0, record.case


def test_a_lesion_is_millimetres_to_centimetres_wide(sample):
    for record in sample[0]:
        if record.mask is None:
            continue
        down, across = record.spacing
        rows, columns = np.nonzero(record.mask)
        assert 0.04 < down == across < 0.14, record.case
        assert 2 < np.ptp(rows) * down < 60 and 3 < np.ptp(columns) * across < 80, record.case
        assert 14 < record.image.shape[0] * down < 80, record.case


def test_every_case_is_one_group_of_one_image(sample):
    records, _ = sample
    assert len({record.group for record in records}) == len({record.content for record in records}) == len(records)
    assert all(record.case == record.group == record.source.removesuffix(".png") for record in records)


def test_nothing_shows_where_the_original_is_transparent(sample):
    seen = 0
    for record in sample[0]:
        with Image.open(SOURCE / breast.FOLDER / record.source) as picture:
            transparent = np.asarray(picture)[..., 3] == 0
        assert not record.image[transparent].any(), record.case
        assert record.mask is None or not record.mask[transparent].any(), record.case
        seen += bool(transparent.any())
    assert seen == sample[1].counts["images with transparent parts"] == 31
