"""The odd-numbered half of BUSI: the near-duplicates that were confirmed by eye, side by side."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thyroid_jax.data.duplicates import conflicts, merge_pairs, near_pairs, signature

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
NAME = "busi/Dataset_BUSI_with_GT"
SOURCE = next((Path(place) / NAME for place in PLACES if place and (Path(place) / NAME).is_dir()), None)
FILES = [] if SOURCE is None else sorted(path for path in SOURCE.glob("*/*.png") if "_mask" not in path.name)
pytestmark = [
    pytest.mark.skipif(SOURCE is None, reason="no BUSI: set THYROID_JAX_DATA to the folder that holds busi/"),
    pytest.mark.skipif(SOURCE is not None and len(FILES) != 391, reason="another part of BUSI than the 391 images"),
]

ACROSS = {
    ("benign (131)", "malignant (51)"),
    ("benign (269)", "normal (1)"),
    ("benign (333)", "malignant (77)"),
    ("benign (399)", "malignant (93)"),
    ("benign (433)", "malignant (145)"),
}
OTHER_FRAMES = {  # the same scan at another moment, or zoomed
    ("malignant (7)", "malignant (9)"),
    ("malignant (5)", "malignant (7)"),
    ("malignant (5)", "malignant (9)"),
    ("malignant (95)", "malignant (97)"),
    ("malignant (11)", "malignant (113)"),
}
FOUR_OF_ONE = ["benign (139)", "benign (157)", "benign (65)", "benign (99)"]


@pytest.fixture(scope="module")
def found():
    signatures = []
    for path in FILES:
        with Image.open(path) as image:
            signatures.append(signature(np.asarray(image.convert("L"))))
    cases = [path.stem for path in FILES]
    pairs = near_pairs(np.stack(signatures), groups=cases)
    return cases, merge_pairs(cases, pairs), pairs


def test_the_pairs_are_those_seen_by_eye(found):
    cases, _, pairs = found
    names = {(cases[pair.i], cases[pair.j]): pair for pair in pairs}
    assert len(pairs) == 56 and not any(pair.mirrored for pair in pairs)
    assert {names_ for names_, pair in names.items() if pair.correlation < 0.95} == OTHER_FRAMES
    assert min(pair.correlation for pair in pairs) > 0.55


def test_groups_stay_small(found):
    cases, groups, _ = found
    sizes = Counter(Counter(groups).values())
    assert max(sizes) == 4 and len(set(groups)) == 343
    assert {groups[cases.index(case)] for case in FOUR_OF_ONE} == {FOUR_OF_ONE[0]}


def test_pairs_across_the_classes_are_conflicts(found):
    cases, _, pairs = found
    labels = [case.split()[0] for case in cases]
    assert {(cases[pair.i], cases[pair.j]) for pair in conflicts(pairs, labels)} == ACROSS
