"""Cases 1-300 of DDTI: the reader's counts against counts made by hand (regular expressions over the raw files)."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_prep import cleaning, scan
from data_prep.readers import ddti
from thyroid_jax.data.duplicates import merge_groups
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
    "images with outline": 354,
    "images with outline and category": 235,
    "images with outline, category 2": 18,
    "images with outline, category 3": 4,
    "images with outline, category 4a": 77,
    "images with outline, category 4b": 64,
    "images with outline, category 4c": 40,
    "images with outline, category 5": 32,
    "outlines": 530,
    "outlines clipped": 0,
    "outlines outside the scan dropped": 0,
    "arrows dropped": 0,
    "marks empty": 5,
    "marks cut short, whole points kept": 8,
    "images without mark": 0,
    "images without report": 0,
    "other files": 0,
}


@pytest.fixture(scope="module")
def sample():
    notes = Notes()
    return list(ddti.read(SOURCE, notes)), notes


def test_counts_are_those_made_by_hand(sample):
    _, notes = sample
    assert {name: notes.counts[name] for name in BY_HAND} == BY_HAND
    assert notes.faults == []
    assert [what for what, _ in notes.dropped] == [
        "62_3.jpg",
        "120_1.jpg",
        "the outline of 176_1.jpg",
        "213_2.jpg",
        "230_2.jpg",
    ]


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


def test_the_salvaged_outlines_are_those_of_eight_images(sample):
    """Seven of them keep their mask; their categories are in the counts of the card."""
    records = {record.case: record for record in sample[0]}
    grades = {
        case: records[case].grade and ddti.GRADES[records[case].grade]
        for case in ("127_1", "165_1", "166_1", "176_1", "197_1", "203_1", "205_1", "54_1")
    }
    assert [case for case in grades if records[case].mask is None] == ["176_1"]
    assert records["127_1"].grade == ddti.GRADES.index("2") and records["165_1"].grade is None
    assert {case: grade for case, grade in grades.items() if case not in ("127_1", "165_1")} == {
        "166_1": "4a",
        "176_1": "4b",
        "197_1": "4a",
        "203_1": "4b",
        "205_1": "4a",
        "54_1": "4c",
    }


def test_nothing_drawn_is_left(sample):
    """No orientation mark, bright or faint, near the top and no calliper cross anywhere in any crop."""
    left = []
    for record in sample[0]:
        crosses = scan.drawn_marks(record.image, cleaning.CALLIPERS, alike=0.7).any()
        top = record.image[:40]
        bright = scan.stamps(top, [ddti.ORIENTATION], noise=28).any()
        faint = scan.stamps(top, [ddti.FAINT], noise=11).any()
        if crosses or bright or faint:
            left.append(record.case)
    assert left == []


def test_marks_lie_where_the_machine_draws_them(sample):
    """A bright one at one of three places, and in split screens a faint one at the other of two of these."""
    places: Counter[tuple[int, ...]] = Counter()
    for record in sample[0]:
        page = scan.to_grey(ddti._screenshot(SOURCE / record.source))[17:31]
        lefts = [
            int(np.flatnonzero(found.any(0))[0])
            for drawing, noise in ((ddti.ORIENTATION, ddti.ORIENTATION_NOISE), (ddti.FAINT, ddti.FAINT_NOISE))
            if (found := scan.stamps(page, [drawing], noise=noise, reach=0)).any()
        ]
        places[tuple(lefts)] += 1
    assert {place for place in places if len(place) == 2} == {(494, 248), (248, 494)}
    assert places[494, 248] + places[248, 494] > 140 and places[440,] > 170
