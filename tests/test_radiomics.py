"""The script that compares the features with pyradiomics."""

import re
from pathlib import Path

import numpy as np
import pytest

from experiments import radiomics
from thyroid_jax.radiomics import FEATURES

DOCS = Path(__file__).parent.parent / "docs" / "radiomics.md"


@pytest.fixture
def few(monkeypatch):
    """Three features instead of 102, which take long to compile."""
    monkeypatch.setattr(radiomics, "FEATURES", ("shape2D_Perimeter", "firstorder_Mean", "firstorder_Skewness"))


def test_the_documents_table_of_features_is_the_codes(capsys):
    radiomics.main(["features"])
    printed = capsys.readouterr().out
    assert re.findall(r"^\| `(\w+)` \|", printed, re.MULTILINE) == list(FEATURES)
    assert printed.strip() in DOCS.read_text()


def test_random_cases_are_of_every_kind_and_always_the_same():
    cases, again = list(radiomics.random_cases(60)), list(radiomics.random_cases(60))
    assert {case.name.split()[0] for case in cases} == {"blob", "ring", "parts", "crumb", "noise", "border"}
    assert {case.name.split(", ")[1] for case in cases} == {"speckle", "two greys", "one grey"}
    assert all(case.mask.sum() >= 4 and np.array_equal(case.image, same.image) for case, same in zip(cases, again))
    assert len({case.spacing for case in cases}) == 3
    assert all(4 <= case.mask.sum() <= 50 for case in cases if case.name.startswith("crumb"))


def test_parity_counts_what_agrees_and_lists_what_does_not(few, monkeypatch, capsys):
    pytest.importorskip("radiomics", reason="the parity oracle, pyradiomics, builds on Python 3.11 only")
    monkeypatch.setattr(radiomics, "BINS", ({"bin_count": 32},))
    radiomics.main(["parity", "--random", "10"])
    printed = capsys.readouterr().out
    assert "10 random masks, 0 of no data set" in printed
    assert "bin_count 32: 29 values, 100.0000 % agree" in printed  # one image has one grey, and no skewness
    assert "- firstorder_Skewness: 1, undefined here only" in printed

    extract = radiomics.extract
    monkeypatch.setattr(
        radiomics, "extract", lambda *images, **settings: off(*map(np.array, extract(*images, **settings)))
    )
    radiomics.main(["parity", "--random", "10"])
    assert "- firstorder_Mean: 1; worst ring 1, speckle" in capsys.readouterr().out


def off(values, valid):
    """One value moved."""
    values[1, 1] *= 1.01
    return values, valid


def test_speed_needs_a_data_set(capsys):
    with pytest.raises(SystemExit):
        radiomics.main(["speed"])
    assert "--data.name" in capsys.readouterr().err
