"""Power of comparing areas against simulated variances, DeLong's test on simulated studies, and its own inverse."""

import numpy as np
import pytest
from scipy import stats

from thyroid_jax.evaluate.statistics import (
    area_power,
    cases_for_area_power,
    delong,
    normal_power,
    pilot_area_variance,
    planned_area_variance,
    smallest_area_difference,
)


def two_scores(random, positives, negatives, shifts=(1.5, 1.0), shared=0.6):
    """Truth and two binormal scores that share part of their noise."""
    truth = np.arange(positives + negatives) < positives
    common = random.normal(size=len(truth))
    own = random.normal(size=(2, len(truth)))
    scores = np.sqrt(shared) * common + np.sqrt(1 - shared) * own + np.array(shifts)[:, None] * truth
    return truth, *scores


def areas(scores_of_positives, scores_of_negatives):
    """Areas f[s] of s studies, f[s P] and f[s N], without ties."""
    count = (scores_of_positives[:, :, None] > scores_of_negatives[:, None, :]).mean((1, 2))
    return count


@pytest.mark.parametrize(("positives", "negatives"), [(20, 40), (50, 15)])
@pytest.mark.parametrize("area", [0.6, 0.8, 0.93])
def test_hanley_and_mcneil_is_exact_for_exponential_scores(area, positives, negatives):
    random = np.random.default_rng(0)
    rate = area / (1 - area)
    found = areas(random.exponential(size=(4000, positives)), random.exponential(size=(4000, negatives)) / rate)
    assert found.mean() == pytest.approx(area, abs=0.005)
    # With equal areas and no correlation, the variance of the difference is twice that of one area.
    variance = planned_area_variance(area, area, 0.0, formula="hanley_mcneil")(positives, negatives) / 2
    assert found.var() == pytest.approx(variance, rel=0.08)


@pytest.mark.parametrize("area", [0.6, 0.8, 0.9])
def test_binormal_formulas_for_normal_scores(area):
    random = np.random.default_rng(1)
    shift = np.sqrt(2) * stats.norm.ppf(area)
    found = areas(random.normal(size=(3000, 50)) + shift, random.normal(size=(3000, 90))).var()
    binormal = planned_area_variance(area, area, 0.0, formula="binormal")(50, 90) / 2
    assert found == pytest.approx(binormal, rel=0.08)
    # The usual formula is cautious: by nothing at 1/2, by 1.6 at 0.9 and equal numbers.
    assert planned_area_variance(area, area, 0.0)(50, 90) / 2 > binormal
    usual, exact = (planned_area_variance(0.9, 0.9, 0.0, formula=f)(70, 70) for f in ("obuchowski", "binormal"))
    assert usual / exact == pytest.approx(1.58, abs=0.01)


def test_obuchowskis_constants():
    # Obuchowski and McClish: V = 0.0099 exp(-a^2/2) (5 a^2 + 8 + (a^2 + 8)/R), a = 1.414 Phi^-1(A), R = N/P; V/P.
    a, ratio = 1.414 * stats.norm.ppf(0.85), 2.5
    expected = 0.0099 * np.exp(-(a**2) / 2) * (5 * a**2 + 8 + (a**2 + 8) / ratio) / 40
    assert planned_area_variance(0.85, 0.85, 0.0)(40, 100) / 2 == pytest.approx(expected, rel=0.01)


def test_correlation_and_different_areas():
    for formula in ("obuchowski", "binormal", "hanley_mcneil"):
        one, other = (planned_area_variance(a, a, 0.0, formula=formula)(30, 50) / 2 for a in (0.8, 0.7))
        found = planned_area_variance(0.8, 0.7, 0.4, formula=formula)(30, 50)
        assert found == pytest.approx(one + other - 0.8 * np.sqrt(one * other))


def test_pilot_variance_is_delongs_at_the_pilots_size_and_shrinks_with_cases():
    truth, first, second = two_scores(np.random.default_rng(0), 30, 50)
    variance = pilot_area_variance(truth, first, second)
    assert variance(30, 50) == pytest.approx(delong(truth, first, second).difference_error ** 2)
    assert variance(120, 200) == pytest.approx(variance(30, 50) / 4)
    # A pilot foretells the spread of studies of another size.
    large = pilot_area_variance(*two_scores(np.random.default_rng(1), 2000, 2000))
    random = np.random.default_rng(2)
    found = [delong(*two_scores(random, 40, 60)).difference for _ in range(800)]
    assert np.var(found) == pytest.approx(large(40, 60), rel=0.15)


def test_power_is_the_share_of_delongs_rejections():
    variance = pilot_area_variance(*two_scores(np.random.default_rng(1), 3000, 3000))
    difference = stats.norm.cdf(1.5 / np.sqrt(2)) - stats.norm.cdf(1.0 / np.sqrt(2))
    random = np.random.default_rng(5)
    p = np.array([delong(*two_scores(random, 60, 90)).p for _ in range(600)])
    assert area_power(difference, variance, 60, 90) == pytest.approx(np.mean(p < 0.05), abs=0.06)


def test_normal_power():
    # delta = 1.96 + 0.8416: power 0.8. Two-sided, the other tail adds next to nothing.
    delta = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert normal_power(delta * 0.02, 0.02) == pytest.approx(0.8, abs=1e-6)
    assert normal_power(-delta * 0.02, 0.02) == pytest.approx(0.8, abs=1e-6)
    assert normal_power(0.0, 0.02, alpha=0.1) == pytest.approx(0.1)
    options = {"alpha": 0.025, "alternative": "greater"}
    assert normal_power(delta * 0.02 - 0.03, 0.02, margin=0.03, **options) == pytest.approx(0.8)
    assert normal_power(-0.03, 0.02, margin=0.03, **options) == pytest.approx(0.025)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="standard error positive"):
            normal_power(0.1, bad)
    with pytest.raises(ValueError, match="margin needs"):
        normal_power(0.1, 0.1, margin=0.1)


@pytest.mark.parametrize(
    "options",
    [{}, {"power": 0.9, "alpha": 0.025, "alternative": "greater", "margin": 0.05}],
    ids=["two-sided", "margin"],
)
@pytest.mark.parametrize("share", [0.1, 0.37, 0.5])
def test_number_of_cases_is_the_smallest(share, options):
    variance = planned_area_variance(0.85, 0.8, 0.5)
    positives, negatives = cases_for_area_power(0.05, variance, share, **options)
    power = options.get("power", 0.8)
    test = {key: value for key, value in options.items() if key != "power"}
    assert area_power(0.05, variance, positives, negatives, **test) >= power
    assert positives / (positives + negatives) == pytest.approx(share, abs=1 / (positives + negatives))
    n = positives + negatives - 3
    assert area_power(0.05, variance, int(np.floor(share * n)), int(np.floor((1 - share) * n)), **test) < power
    least = smallest_area_difference(variance, positives, negatives, **options)
    assert least <= 0.05 and area_power(least, variance, positives, negatives, **test) == pytest.approx(power)


def test_refusals():
    variance = planned_area_variance(0.85, 0.8, 0.5)
    with pytest.raises(ValueError, match="two positive"):
        area_power(0.1, variance, 1, 20)
    with pytest.raises(ValueError, match="positive_share"):
        cases_for_area_power(0.1, variance, 1.0)
    with pytest.raises(ValueError, match="too small"):
        cases_for_area_power(0.0, variance, 0.5)
    with pytest.raises(ValueError, match="power must lie"):
        smallest_area_difference(variance, 20, 20, power=0.05)
    for arguments in ((1.0, 0.8, 0.5), (0.9, 0.0, 0.5), (0.9, 0.8, 1.0)):
        with pytest.raises(ValueError, match="areas must lie"):
            planned_area_variance(*arguments)
    with pytest.raises(ValueError, match="formula must be"):
        planned_area_variance(0.9, 0.8, 0.5, formula="delong")
    truth, score = np.arange(9) < 4, np.arange(9.0)
    with pytest.raises(ValueError, match="alike"):
        pilot_area_variance(truth, score, 2 * score)
    with pytest.raises(ValueError, match="two positive"):
        pilot_area_variance(np.arange(9) < 1, score, -score)
    with pytest.raises(ValueError, match="no score may be NaN"):
        pilot_area_variance(truth, score, np.full(9, np.nan))
