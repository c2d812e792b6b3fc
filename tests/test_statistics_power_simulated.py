"""Simulated power against the closed form where it holds, and where it does not."""

import numpy as np
import pytest
from scipy import stats

from thyroid_jax.evaluate.metrics import auroc
from thyroid_jax.evaluate.statistics import area_power, paired_power, pilot_area_variance, simulated_power
from thyroid_jax.evaluate.statistics import simulated_paired_power as by_pairs

NORMAL = stats.norm.ppf((np.arange(200) + 0.5) / 200)
NORMAL = NORMAL / NORMAL.std()
ZERO = np.zeros(200)


def gap(new, reference, weight):
    return weight @ (new - reference) / weight.sum(axis=-1)


@pytest.mark.parametrize(("difference", "groups"), [(0.0, 20), (0.5, 20), (-0.5, 40)])
def test_normal_pilot_gives_the_closed_form(difference, groups):
    found = by_pairs(NORMAL, ZERO, groups=groups, difference=difference, trials=4000)
    assert found.power == pytest.approx(paired_power(difference, 1.0, groups), abs=0.025)
    assert found.low < found.power < found.high and found.undefined == 0 and found.trials == 4000
    options = {"alternative": "greater", "alpha": 0.025, "margin": 0.6}
    shown = by_pairs(NORMAL, ZERO, groups=groups, difference=difference, trials=4000, **options)
    assert shown.power == pytest.approx(paired_power(difference, 1.0, groups, **options), abs=0.025)


def test_the_pilots_own_difference_and_its_groups():
    shifted = by_pairs(NORMAL + 0.4, ZERO, groups=30, trials=500)
    assert shifted == by_pairs(NORMAL, ZERO, groups=30, difference=0.4, trials=500)
    assert shifted == by_pairs(
        NORMAL - 1.3, ZERO, groups=30, difference=0.4, trials=500
    )  # the pilot's mean is replaced
    twice = np.repeat(NORMAL, 2) + 0.4 + np.tile([-1.0, 1.0], 200)
    grouped = by_pairs(twice, np.zeros(400), clusters=np.repeat(np.arange(200), 2), groups=30, trials=500)
    assert grouped.power == pytest.approx(shifted.power, abs=1e-9)
    missing = by_pairs([*(NORMAL + 0.4), np.nan], [*ZERO, 0.0], groups=30, trials=500)
    assert missing == shifted


def test_wilcoxon_is_nearly_as_powerful_for_normal_and_more_for_heavy_tails():
    t, wilcoxon = (by_pairs(NORMAL, ZERO, groups=40, difference=0.4, test=test).power for test in ("t", "wilcoxon"))
    assert wilcoxon == pytest.approx(t, abs=0.05)
    heavy = stats.t.ppf((np.arange(200) + 0.5) / 200, 1.5)
    t, wilcoxon = (by_pairs(heavy, ZERO, groups=40, difference=1.0, test=test).power for test in ("t", "wilcoxon"))
    assert wilcoxon > t + 0.1
    one_sided = by_pairs(heavy, ZERO, groups=40, difference=0.0, margin=1.0, alternative="greater", test="wilcoxon")
    assert one_sided.power > wilcoxon


def test_studies_without_a_test_are_no_success():
    rare = np.where(np.arange(50) == 0, 1.0, 0.0)  # most studies of five groups hold zeros only
    for test in ("t", "wilcoxon"):
        found = by_pairs(rare, np.zeros(50), groups=5, test=test, trials=1000)
        assert found.undefined / 1000 == pytest.approx(0.98**5, abs=0.03) and found.power < 0.05


def test_any_statistic_agrees_with_the_closed_form_of_a_mean():
    new = NORMAL[:, None] + 0.45 + np.array([-1.0, 1.0])
    clusters = np.repeat(np.arange(200), 2)
    options = {"groups": 30, "trials": 200, "samples": 300, "weighted": True}
    found = simulated_power(gap, clusters, new.ravel(), np.zeros(400), **options)
    expected = paired_power(0.45, 1.0, 30, alpha=0.025, alternative="greater")
    assert found.power == pytest.approx(expected, abs=0.1) and found.trials == 200
    lower = simulated_power(gap, clusters, np.zeros(400), new.ravel(), higher_is_better=False, **options)
    assert lower.power == found.power
    margin = simulated_power(gap, clusters, new.ravel() - 0.45, np.zeros(400), margin=0.45, **options)
    assert margin.power == pytest.approx(found.power, abs=0.02)


def test_areas_agree_with_delongs_variance():
    random = np.random.default_rng(0)
    truth = np.arange(150) < 60
    first, second = (random.normal(size=150) + shift * truth for shift in (2.0, 1.0))

    def area_gap(first, second, truth, weight):
        return auroc(first, truth, weight=weight) - auroc(second, truth, weight=weight)

    found = simulated_power(
        area_gap, np.arange(150), first, second, truth, groups=80, trials=150, samples=200, weighted=True
    )
    gap_of_pilot = float(auroc(first, truth) - auroc(second, truth))
    variance = pilot_area_variance(truth, first, second)
    expected = area_power(gap_of_pilot, variance, 32, 48, alpha=0.025, alternative="greater")
    assert found.power == pytest.approx(expected, abs=0.12)


def test_refusals():
    with pytest.raises(ValueError, match="two groups"):
        by_pairs([1.0], [0.0], groups=5)
    with pytest.raises(ValueError, match="two groups"):
        by_pairs(NORMAL, ZERO, groups=1)
    with pytest.raises(ValueError, match="test one of t, wilcoxon"):
        by_pairs(NORMAL, ZERO, groups=5, test="sign")
    with pytest.raises(ValueError, match="margin needs"):
        by_pairs(NORMAL, ZERO, groups=5, margin=0.1)
    with pytest.raises(ValueError, match="two groups and trials"):
        simulated_power(gap, [0, 0], [1.0, 2.0], [0.0, 0.0], groups=5, weighted=True)
    with pytest.raises(ValueError, match="margin must be positive"):
        simulated_power(gap, [0, 1], [1.0, 2.0], [0.0, 0.0], groups=5, margin=-0.1, weighted=True)
