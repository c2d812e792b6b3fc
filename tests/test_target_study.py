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


def noisy_views(noise, shift=0.0, views=3, n=400):
    """Values of n images and of their views: what is added has this standard deviation and mean."""
    rng = np.random.default_rng(3)
    r = len(clinical.TARGET)
    original = rng.normal(size=(n, r))
    return (original, np.ones((n, r), bool)), [
        (original + shift + noise * rng.normal(size=(n, r)), np.ones((n, r), bool)) for _ in range(views)
    ]


def test_stability_is_the_rank_correlation_with_the_views():
    """Of normal values with correlation c, Spearman's is 6 / pi arcsin(c / 2)."""
    groups = np.arange(400) // 2
    for noise in (0.0, 0.5, 2.0):
        found = target_study.stability(*noisy_views(noise), groups)
        expected = 6 / np.pi * np.arcsin(1 / np.sqrt(1 + noise**2) / 2)
        assert found.rank.shape == (3, len(clinical.TARGET))
        assert found.rank.mean() == pytest.approx(expected, abs=0.01)


def test_the_scaling_is_fitted_on_views_and_judged_on_other_groups():
    groups = np.arange(400) // 2
    found = target_study.stability(*noisy_views(0.3, shift=5.0), groups)
    assert np.abs(found.mean).max() < 0.3 and found.clipped.max() < 0.01  # a shift of all views is not seen
    (original, valid), views = noisy_views(0.3)
    moved = [(np.where((groups % 2 == 1)[:, None], 50 + v, v), ok) for v, ok in views]  # but one of the others is
    found = target_study.stability((original, valid), moved, groups)
    assert (found.mean > 2.9).all() and (found.clipped == 1).all()


def test_values_that_are_not_valid_both_times_do_not_count():
    (original, valid), views = noisy_views(0.0, views=1)
    (seen, ok), lost = views[0], np.arange(400) < 40
    found = target_study.stability(
        (original, valid), [(np.where(lost[:, None], -99, seen), ok & ~lost[:, None])], np.arange(400)
    )
    np.testing.assert_allclose(found.rank, 1)
    assert found.clipped.max() < 0.05


def drawn_ellipses():
    y, x = np.mgrid[:48, :48]
    mask = [255 * (np.hypot(y - 24, (x - 24) / width) < 12) for width in (1.0, 1.2, 1.4)]
    image = np.random.default_rng(5).integers(60, 200, (3, 48, 48))
    return image.astype(np.uint8), np.stack(mask).astype(np.uint8)


def test_an_augmentation_alone_touches_what_it_should(capsys):
    """Gain multiplies the image: no shape changes its value, let alone its rank."""
    image, mask = drawn_ellipses()
    target_study.alone_table(image, mask, 0.5, np.arange(3), views=1, kinds=("gain",))
    printed = capsys.readouterr().out
    assert printed.startswith("| value | gain |\n|---|---|\n")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|$", printed, re.MULTILINE))
    assert tuple(rows) == clinical.TARGET
    assert all(rows[name] == "1.00" for name in clinical.TARGET[:4])


def test_predictions_are_for_groups_that_were_not_fitted_on():
    """Noise that tells the groups apart, two images each: remembered groups would be predicted."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 2)
    label = np.repeat(np.arange(60) % 2, 2)
    x = np.repeat(rng.normal(size=(60, 40)), 2, axis=0)
    assert target_study.auroc(label, target_study.unseen(x, label, groups)) < 0.7


def command(data, *more):
    fields = f"--data.name drawn --data.dir {data} --data.height 24 --data.width 32 --samples 50 --views 1"
    target_study.main([*fields.split(), *more])


@pytest.mark.parametrize("reader, cut, small", [("reference", "0.5", 1), ("mean", "0.25", 0)])
def test_the_command_on_a_built_data_set(drawn_data, capsys, reader, cut, small):
    """One outline is too small for a target, unless the readers' larger one is measured."""
    command(drawn_data, "--data.reader", reader)
    printed = capsys.readouterr().out
    assert printed.startswith(f"29 outlines of 15 groups at 24 x 32, cut at {cut}; {small} without a target")
    assert printed.count("| `") == 2 * len(clinical.TARGET)
    (survived,) = re.findall(r"^\| `elongation` \| (\d\.\d\d) \|", printed, re.MULTILINE)
    assert float(survived) > 0.8
    assert f"| grade (n = {28 - small}) | malignant (n = {23 - small}) |" in printed
    for kind in ("malignant above 0.5", "grade above 1"):
        assert f"\n{kind}: " in printed


def test_what_cannot_be_studied_is_named(drawn_data, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        command(drawn_data / "nowhere")
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setattr(target_study, "labels", lambda records: {})
    with pytest.raises(SystemExit):
        command(drawn_data)
    assert "drawn: no record has a grade, a malignancy or a finding that varies" in capsys.readouterr().err


def test_what_does_not_vary_has_no_correlation():
    assert target_study.spearman(np.ones(3), np.arange(3)) == 0
    assert target_study.auroc(np.ones(3, int), np.arange(3)) == 0.5
