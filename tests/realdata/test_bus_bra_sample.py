"""599 cases of BUS-BRA: the reader's counts against counts made without it, from the tables and the raw pictures."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.readers import bus_bra
from thyroid_jax.data.record import Notes

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
NAME = "bus_bra"
SOURCE = next(
    (Path(place) / NAME for place in PLACES if place and (Path(place) / NAME / bus_bra.TABLE).is_file()), None
)
pytestmark = [
    pytest.mark.skipif(SOURCE is None, reason=f"no BUS-BRA: set THYROID_JAX_DATA to the folder that holds {NAME}/"),
    pytest.mark.skipif(
        SOURCE is not None and len((SOURCE / bus_bra.TABLE).read_bytes().splitlines()) != 1056,
        reason="another part of BUS-BRA than the 1055 images",
    ),
]

COUNTS = {
    "rows": 1055,
    "images that are not there": 0,
    "images without row": 0,
    "masks without row": 0,
    "images": 1055,
    "cases": 599,
    "benign": 703,
    "malignant": 352,
    "cases benign": 401,
    "cases malignant": 198,
    "BI-RADS 2": 310,
    "BI-RADS 3": 253,
    "BI-RADS 4": 395,
    "BI-RADS 5": 97,
    "images whose height in the table is wrong": 3,
    "images whose outline does not fill its box in the table": 0,
}
FOLD_SIZES = {"official-5": [217, 201, 220, 188, 229], "official-10": [109, 113, 102, 115, 111, 98, 105, 110, 88, 104]}


@pytest.fixture(scope="module")
def sample():
    notes = Notes()
    return {record.case: record for record in bus_bra.read(SOURCE, notes)}, notes


def test_counts_are_those_made_without_the_reader(sample):
    _, notes = sample
    assert notes.counts == COUNTS
    assert notes.faults == [] and notes.dropped == []


def test_labels_are_those_of_their_row(sample):
    """Rows looked up by hand: a shifted column or row would show here."""
    looked_up = {
        "bus_0001-l": ("4", True, "invasive ductal carcinoma", "left"),
        "bus_0002-l": ("4", False, "fibroadenoma", "left"),
        "bus_0856-l": ("4", True, None, "left"),
        "bus_0856-r": ("5", True, None, "right"),
    }
    for case, (grade, malignant, histology, side) in looked_up.items():
        record = sample[0][case]
        assert (bus_bra.GRADES[record.grade], record.malignant, record.descriptors["side"]) == (grade, malignant, side)
        assert histology is None or record.descriptors["histology"] == histology
    devices = Counter(record.descriptors["device"].split(" @")[0] for record in sample[0].values())
    assert devices == {"GE Logiq 7": 509, "GE Logiq 5": 452, "Toshiba Aplio 300": 80, "U-Systems": 14}


def test_pictures_are_those_of_the_files(sample):
    for record in list(sample[0].values())[::10]:
        with Image.open(SOURCE / record.source) as image:
            np.testing.assert_array_equal(record.image, np.asarray(image))
        name = record.source.replace("Images", "Masks").replace("bus_", "mask_")
        with Image.open(SOURCE / name) as mask:
            np.testing.assert_array_equal(record.mask, np.asarray(mask.convert("L")) == 255)
        assert 0.001 < record.mask.mean() < 0.8, record.case


def test_no_image_is_there_twice(sample):
    assert len({record.content for record in sample[0].values()}) == 1055


@pytest.mark.parametrize("name", FOLD_SIZES)
def test_official_folds_keep_a_patient_whole(sample, name):
    records, notes = sample
    fold_of = notes.folds[name]
    assert set(fold_of) == set(records)
    sizes = Counter(fold_of.values())
    assert [sizes[fold] for fold in sorted(sizes)] == FOLD_SIZES[name]
    folds_of: dict[str, set[int]] = defaultdict(set)
    for case, record in records.items():
        folds_of[record.group].add(fold_of[case])
    assert all(len(folds) == 1 for folds in folds_of.values())
