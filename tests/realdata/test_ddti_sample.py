"""Cases 1-300 of DDTI: the reader's counts against counts made by hand (regular expressions over the raw files)."""

import os
from pathlib import Path

import pytest

from data_prep.duplicates import merge_groups
from data_prep.readers import ddti
from thyroid_jax.data.record import Notes

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
SOURCE = next((Path(place) / "ddti" for place in PLACES if place and (Path(place) / "ddti" / "1.xml").is_file()), None)
pytestmark = [
    pytest.mark.skipif(SOURCE is None, reason="no DDTI: set THYROID_JAX_DATA to the folder that holds ddti/"),
    pytest.mark.skipif(
        SOURCE is not None and not (SOURCE / "300.xml").is_file(), reason="another part of DDTI than cases 1-300"
    ),
]

BY_HAND = {
    "cases": 297,
    "images": 360,
    "cases with category": 213,
    "images with outline": 355,
    "images with outline and category": 236,
    "images with outline, category 2": 18,
    "images with outline, category 3": 4,
    "images with outline, category 4a": 77,
    "images with outline, category 4b": 65,
    "images with outline, category 4c": 40,
    "images with outline, category 5": 32,
    "outlines": 532,
    "outlines clipped": 0,
    "arrows dropped": 0,
    "marks empty": 5,
    "marks cut short, whole points kept": 8,
    "images without mark": 0,
    "images without report": 0,
}


@pytest.fixture(scope="module")
def sample():
    notes = Notes()
    return list(ddti.read(SOURCE, notes)), notes


def test_counts_are_those_made_by_hand(sample):
    _, notes = sample
    assert {name: notes.counts[name] for name in BY_HAND} == BY_HAND
    assert notes.faults == []
    assert [what for what, _ in notes.dropped] == ["62_3.jpg", "120_1.jpg", "213_2.jpg", "230_2.jpg"]


def test_every_crop_is_a_scan_with_its_outline(sample):
    for record in sample[0]:
        height, width = record.image.shape
        assert 190 <= height <= 325 and 225 <= width <= 525, record.case
        if record.mask is not None:
            assert record.mask.shape == record.image.shape and 0.004 < record.mask.mean() < 0.8, record.case
        assert record.image.max() > 100, record.case


def test_copies_are_found_within_and_across_cases(sample):
    records, _ = sample
    merged = dict(
        zip((r.case for r in records), merge_groups([r.group for r in records], [r.content for r in records]))
    )
    assert merged["150_1"] == merged["233_1"] == merged["233_2"] == "150"
    assert len(set(merged.values())) == 294 + 1


def test_nothing_drawn_is_left(sample):
    """No orientation mark near the top and no calliper cross anywhere in any crop."""
    left = []
    for record in sample[0]:
        crosses = ddti.scan.drawn_marks(record.image, ddti.CALLIPERS, alike=0.7).any()
        letters = ddti.scan.drawn_marks(record.image[:40], ddti.ORIENTATION, alike=0.7).any()
        if crosses or letters:
            left.append(record.case)
    assert left == []
