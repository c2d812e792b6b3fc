"""What the guidance target has to do with labels, on numbers whose relation is known."""

import dataclasses
import re

import numpy as np
import pytest

from experiments import target_study
from thyroid_jax.data.record import Record
from thyroid_jax.radiomics import clinical


def test_labels_are_ordered_by_suspicion_and_missing_ones_are_no_zeros():
    image = np.zeros((4, 4), np.uint8)
    record = Record(
        case="1",
        group="1",
        source="-",
        image=image,
        grade=2,
        descriptors={"echogenicity": "hypoechogenicity", "margins": "?"},
    )
    other = dataclasses.replace(
        record, grade=None, malignant=True, descriptors={"echogenicity": "hyperechogenicity", "margins": "spiculated"}
    )
    third = dataclasses.replace(other, grade=0, malignant=False, descriptors={})
    found = target_study.labels([record, other, third])
    np.testing.assert_array_equal(found["grade"], [2, np.nan, 0])
    np.testing.assert_array_equal(found["malignant"], [np.nan, 1, 0])
    np.testing.assert_array_equal(found["echogenicity"], [2, 0, np.nan])
    assert "margins" not in found  # one value alone
    assert all(name in clinical.TARGET for _, names in target_study.FINDINGS.values() for name in names)


@pytest.mark.parametrize(
    "finding, text, place",
    [
        ("margins", "circumscribed", 0),
        ("margins", "not circumscribed - indistinct", 1),
        ("margins", "not circumscribed - angular&indistinct", 2),
        ("margins", "not circumscribed - spiculated&microlobulated&indistinct", 2),
        ("margins", "well defined smooth", 0),
        ("echogenicity", "marked hypoechogenicity", 3),
        ("echogenicity", "heterogeneous", None),
        ("calcifications", "no", 0),
        ("calcifications", "", None),
    ],
)
def test_of_several_findings_the_worst_counts(finding, text, place):
    assert target_study.highest(text, target_study.FINDINGS[finding][0]) == place


def test_a_target_that_knows_the_label_is_found_out_and_one_that_does_not_is_not(capsys):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2)
    label = np.repeat(rng.integers(0, 4, 40), 2).astype(float)
    values = rng.normal(size=(80, len(clinical.TARGET)))
    values[:, 5] = label + 0.1 * values[:, 5]
    found = {"grade": np.where(np.arange(80) % 8 == 0, np.nan, label)}
    target_study.correlations(values, found, groups, 200)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", capsys.readouterr().out, re.MULTILINE))
    assert tuple(rows) == clinical.TARGET
    assert rows[clinical.TARGET[5]].startswith("**+0.9")
    assert sum(row.startswith("**") for row in rows.values()) <= 3
    target_study.regressions(values, found, groups, 200)
    printed = capsys.readouterr().out
    assert "of 70 images" in printed
    scores = {name: float(value) for name, value in re.findall(r"^- (.*): (\d\.\d+)", printed, re.MULTILINE)}
    assert scores["all values"] > 0.9 > 0.7 > scores[f"without {clinical.TARGET[5]}"]


def test_predictions_are_for_groups_that_were_not_fitted_on():
    """Noise that tells the groups apart, two images each: remembered groups would be predicted."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 2)
    label = np.repeat(np.arange(60) % 2, 2)
    x = np.repeat(rng.normal(size=(60, 40)), 2, axis=0)
    assert target_study.auroc(label, target_study.unseen(x, label, groups)) < 0.7


def test_the_command_on_a_built_data_set(drawn_data, capsys):
    arguments = [
        "--data.name",
        "drawn",
        "--data.dir",
        str(drawn_data),
        "--data.height",
        "24",
        "--data.width",
        "32",
        "--samples",
        "50",
    ]
    target_study.main(arguments)
    printed = capsys.readouterr().out
    assert printed.startswith("30 outlines of 15 groups at 24 x 32")
    assert printed.count("| `") == len(clinical.TARGET)
    assert target_study.spearman(np.ones(3), np.arange(3)) == 0
    assert target_study.auroc(np.ones(3, int), np.arange(3)) == 0.5
    with pytest.raises(SystemExit):
        target_study.main(["--data.name", "drawn", "--data.dir", str(drawn_data / "nowhere")])
