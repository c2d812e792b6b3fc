"""The folder command against the readers of two data sets: the same records from names and columns alone."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.folder.options import Options
from data_prep.folder.planning import plan_of
from data_prep.folder.read import records
from data_prep.readers import reader_of
from thyroid_jax.data.record import Notes

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
SETS = {  # reader -> folder of its sample, what a user says, images
    "bus_bra": ("bus_bra", {"table": Path("bus_data.csv")}, 1055),
    "breast_lesions": ("breast_lesions_usg", {"spacing_unit": "cm", "ignore": ("*_other*",)}, 256),
}


@pytest.mark.parametrize("name", SETS)
def test_records_are_those_of_the_reader(name):
    folder, options, images = SETS[name]
    source = next((Path(place) / folder for place in PLACES if place and (Path(place) / folder).is_dir()), None)
    if source is None:
        # Original images are not part of the project; who has them runs this test.
        pytest.skip(f"no sample: set THYROID_JAX_DATA to the folder that holds {folder}/")
    notes = Notes()
    planned = plan_of(Options(source=source, name="mine", **options))
    ours = {Path(record.source).stem: record for record in records(planned, notes)}
    theirs = {Path(record.source).stem: record for record in reader_of(name).read(source, Notes())}
    assert notes.faults == [] and ours.keys() == theirs.keys() and len(ours) == images
    assert planned.card.grades == reader_of(name).card.grades
    for stem, record in theirs.items():
        found = ours[stem]
        np.testing.assert_array_equal(found.image, record.image)
        np.testing.assert_array_equal(found.mask, record.mask)
        assert (found.grade, found.malignant) == (record.grade, record.malignant), stem
        assert found.spacing == pytest.approx(record.spacing, nan_ok=True)


def test_busi_as_a_stranger_would():
    places = [Path(place) / "busi" / "Dataset_BUSI_with_GT" for place in PLACES if place]
    source = next((place for place in places if place.is_dir()), None)
    if source is None:
        # As above: the images are not part of the project.
        pytest.skip("no BUSI: set THYROID_JAX_DATA to the folder that holds busi/")
    notes = Notes()
    found = list(records(plan_of(Options(source=source, name="mine")), notes))
    assert notes.faults == []
    of_class = lambda name: [record for record in found if record.case.startswith(f"{name}/")]
    assert {record.malignant for record in of_class("benign")} == {False}
    assert {record.malignant for record in of_class("malignant")} == {True}
    assert {(record.malignant, record.mask) for record in of_class("normal")} == {(None, None)}
    masks = len(list(source.glob("*/*_mask*.png")))
    several = len({path.name.partition("_mask")[0] for path in source.glob("*/*_mask_[0-9].png")})
    assert notes.counts["images with several masks, united"] == several and masks > len(found)
    assert all(record.mask is not None for record in found if record.malignant is not None)
