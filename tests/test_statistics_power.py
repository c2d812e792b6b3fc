"""Power of paired comparisons against statsmodels, simulation and its own inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thyroid_jax.evaluate.statistics import groups_for_power, paired_power, pilot, smallest_difference


@pytest.mark.parametrize(
    ("effect", "n", "alpha", "alternative", "expected"),
    [  # statsmodels 0.15.0: TTestPower().power(effect, n, alpha, alternative="two-sided" or "larger")
        (0.5, 20, 0.05, "two-sided", 0.5645044184390203),
        (0.5, 20, 0.025, "greater", 0.5644828966786231),
        (0.2, 100, 0.05, "two-sided", 0.508264806621038),
        (1.2, 5, 0.05, "two-sided", 0.5302212511402787),
        (-0.3, 40, 0.05, "two-sided", 0.45652211270613563),
        (-0.1, 30, 0.05, "greater", 0.0146283329768504),
        (0.05, 4000, 0.01, "two-sided", 0.7207720756482869),
    ],
)
def test_power_is_statsmodels(effect, n, alpha, alternative, expected):
    sd = 0.07  # effect = difference / sd
    assert paired_power(effect * sd, sd, n, alpha=alpha, alternative=alternative) == pytest.approx(expected, abs=1e-8)
    if alternative == "greater":  # the margin is added to the difference
        found = paired_power(effect * sd - 0.02, sd, n, alpha=alpha, alternative=alternative, margin=0.02)
        assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("effect", "power", "alpha", "alternative", "expected"),
    [  # statsmodels 0.15.0: TTestPower().solve_power(effect, power=power, ...), a number of groups with fractions
        (0.5, 0.8, 0.05, "two-sided", 33.36713118431779),
        (0.2, 0.9, 0.05, "two-sided", 264.6136854232749),
        (0.3, 0.8, 0.025, "greater", 89.14957763301358),
        (1.5, 0.9, 0.05, "two-sided", 6.869957983652255),
        (0.05, 0.8, 0.05, "greater", 2474.376227686098),
    ],
)
def test_number_of_groups_is_statsmodels_rounded_up(effect, power, alpha, alternative, expected):
    options = {"power": power, "alpha": alpha, "alternative": alternative}
    assert groups_for_power(effect, 1.0, **options) == np.ceil(expected)
    if alternative == "greater":
        assert groups_for_power(0.0, 1.0, margin=effect, **options) == np.ceil(expected)
    else:
        assert groups_for_power(-effect, 1.0, **options) == np.ceil(expected)


def test_smallest_difference_is_statsmodels():
    assert smallest_difference(2.0, 25) == pytest.approx(2 * 0.5840261396263716, rel=1e-6)
    options = {"power": 0.9, "alpha": 0.025, "alternative": "greater"}
    assert smallest_difference(1.0, 60, **options) == pytest.approx(0.4254638985046265, rel=1e-5)
    assert smallest_difference(1.0, 60, margin=0.5, **options) == pytest.approx(0.4254638985046265 - 0.5, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.05, 3), st.floats(0.1, 0.99), st.sampled_from([0.01, 0.05]), st.sampled_from(["two-sided", "greater"])
)
def test_the_three_agree_with_each_other(effect, power, alpha, alternative):
    options = {"alpha": alpha, "alternative": alternative}
    n = groups_for_power(effect, 1.0, power=power, **options)
    assert paired_power(effect, 1.0, n, **options) >= power
    assert n == 2 or paired_power(effect, 1.0, n - 1, **options) < power
    least = smallest_difference(1.0, n, power=power, **options)
    assert least <= effect + 1e-9 and paired_power(least, 1.0, n, **options) == pytest.approx(power, abs=1e-6)


def test_power_is_the_share_of_rejections():
    random = np.random.default_rng(0)
    values = random.normal(size=(20_000, 12)) * 0.1 + 0.05
    p = stats.ttest_1samp(values, 0, axis=1).pvalue
    assert paired_power(0.05, 0.1, 12) == pytest.approx(np.mean(p < 0.05), abs=0.011)
    p = stats.ttest_1samp(values, -0.03, axis=1, alternative="greater").pvalue
    found = paired_power(0.05, 0.1, 12, alpha=0.025, alternative="greater", margin=0.03)
    assert found == pytest.approx(np.mean(p < 0.025), abs=0.011)


def test_power_runs_from_alpha_to_1():
    assert paired_power(0, 1, 9, alpha=0.03) == pytest.approx(0.03)
    assert paired_power(-0.2, 1, 9, alpha=0.03, alternative="greater", margin=0.2) == pytest.approx(0.03)
    assert paired_power(100, 1, 9) == 1 and paired_power(-100, 1, 9, alternative="greater") == 0
    with pytest.raises(ValueError, match="standard errors"):
        paired_power(1e12, 1.0, 9)


def test_pilot():
    found = pilot([1.0, 3.0, 2.0, 5.0, 1.0], [0.0, 0.0, 1.0, np.nan, 2.0], clusters=["a", "a", "b", "b", "c"])
    sd = np.std([2, 1, -1], ddof=1)
    assert (found.groups, found.missing, found.difference, found.sd) == (3, 1, pytest.approx(2 / 3), pytest.approx(sd))
    assert found.sd_upper == pytest.approx(sd * np.sqrt(2 / stats.chi2.ppf(0.2, 2)))
    random = np.random.default_rng(0)
    uppers = [pilot(random.normal(size=10), np.zeros(10)).sd_upper for _ in range(1500)]
    assert np.mean(np.array(uppers) > 1) == pytest.approx(0.8, abs=0.035)
    assert np.isnan(pilot([1.0], [0.0]).sd) and np.isnan(pilot([], []).difference)
    assert pilot([0.8, 0.7, 0.5], [0.7, 0.6, 0.4]).sd == 0  # and not the rounding error
    with pytest.raises(ValueError, match="level"):
        pilot([1.0, 2.0], [0.0, 0.0], level=80)


def test_refusals():
    for difference, sd, groups in ((0.1, 0, 9), (0.1, -1, 9), (0.1, np.nan, 9), (np.inf, 1, 9), (0.1, 1, 1)):
        with pytest.raises(ValueError, match="sd positive"):
            paired_power(difference, sd, groups)
    for options in ({"alpha": 0}, {"alternative": "less"}):
        with pytest.raises(ValueError, match="alternative must be"):
            paired_power(0.1, 1, 9, **options)
    for options in ({"margin": 0.1}, {"margin": -0.1, "alternative": "greater"}):
        with pytest.raises(ValueError, match="margin"):
            paired_power(0.1, 1, 9, **options)
    for power in (0.05, 0.01, 1.0, np.nan):
        with pytest.raises(ValueError, match="power must lie"):
            groups_for_power(0.1, 1, power=power)
        with pytest.raises(ValueError, match="power must lie"):
            smallest_difference(1, 9, power=power)
    for difference, options in ((0.0, {}), (-0.1, {"alternative": "greater", "margin": 0.1})):
        with pytest.raises(ValueError, match="too small"):
            groups_for_power(difference, 1, **options)
