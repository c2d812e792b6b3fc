"""Effect sizes by hand, against the tests that they belong to, and by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thyroid_jax.evaluate.statistics import cohens_dz, discordant_odds, mcnemar, paired_wilcoxon, rank_biserial
from thyroid_jax.evaluate.statistics.proportions import McNemar


def test_dz_by_hand():
    # Differences 1 2 3 4 5: mean 3, deviation sqrt(2.5). J with f = 4: Gamma(2) / (sqrt(2) Gamma(1.5)) = 0.797885.
    found = cohens_dz([2, 4, 6, 8, 10], [1, 2, 3, 4, 5])
    assert found.dz == pytest.approx(3 / np.sqrt(2.5)) and found.groups == 5
    assert found.hedges_g == pytest.approx(0.797885 * found.dz, rel=1e-6)
    # The bounds put the observed t into the tails of the noncentral distribution.
    t = found.dz * np.sqrt(5)
    assert stats.nct.sf(t, 4, found.low * np.sqrt(5)) == pytest.approx(0.025)
    assert stats.nct.cdf(t, 4, found.high * np.sqrt(5)) == pytest.approx(0.025)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 60), st.floats(-3, 3), st.sampled_from([0.9, 0.95]))
def test_the_interval_of_dz_contains_0_exactly_when_students_test_does_not_reject(seed, n, shift, level):
    difference = np.random.default_rng(seed).normal(size=n) + shift
    found = cohens_dz(difference, np.zeros(n), level=level)
    p = stats.ttest_1samp(difference, 0).pvalue
    if abs(p - (1 - level)) > 1e-6:
        assert (found.low <= 0 <= found.high) == (p > 1 - level)
    assert found.low < found.dz < found.high
    if n > 8:  # the usual approximation of J
        assert found.hedges_g == pytest.approx(found.dz * (1 - 3 / (4 * (n - 1) - 1)), rel=1e-3)


def test_g_is_unbiased_and_the_interval_covers():
    random, found = np.random.default_rng(0), []
    for _ in range(300):
        result = cohens_dz(random.normal(size=8) + 0.6, np.zeros(8))
        found.append((result.dz, result.hedges_g, result.low <= 0.6 <= result.high))
    dz, g, covered = np.mean(found, axis=0)
    assert abs(g - 0.6) < 0.06 < dz - 0.6 + 0.06 and dz > g
    assert 0.915 <= covered <= 0.98


def test_dz_of_groups_and_missing_pairs():
    found = cohens_dz([1.0, 3.0, 2.0, 5.0, 1.0], [0.0, 0.0, 1.0, np.nan, 2.0], clusters=["a", "a", "b", "b", "c"])
    assert found.groups == 3 and found.missing == 1
    assert found.dz == pytest.approx(np.mean([2, 1, -1]) / np.std([2, 1, -1], ddof=1))


def test_dz_without_spread_is_undefined():
    # 0.1 more everywhere: the deviation is 1e-17 by rounding, and d_z not 10^16.
    first = np.array([0.8, 0.7, 0.5, 0.3])
    for second in (first - 0.1, first):
        found = cohens_dz(first, second)
        assert np.isnan([found.dz, found.low, found.high, found.hedges_g]).all() and found.groups == 4
    assert np.isnan(cohens_dz([1.0], [0.0]).dz) and np.isnan(cohens_dz([], []).dz)
    two = cohens_dz([1.0, 2.0], [0.0, 0.0])
    assert np.isnan(two.hedges_g) and np.isfinite([two.dz, two.low, two.high]).all()
    with pytest.raises(ValueError, match="level"):
        cohens_dz([1.0, 2.0], [0.0, 0.0], level=95)


def test_rank_biserial_by_hand_and_from_scipys_rank_sum():
    # Differences 1 2 -3 4: ranks 1 2 3 4, W+ = 7, W- = 3.
    assert rank_biserial([1, 2, -3, 4], [0, 0, 0, 0]).r == pytest.approx(0.4)
    random = np.random.default_rng(0)
    difference = np.round(random.normal(size=30) + 0.3, 1)
    positive = stats.wilcoxon(difference[difference != 0], alternative="greater").statistic
    found = rank_biserial(difference, np.zeros(30))
    n = np.count_nonzero(difference)
    assert found.r == pytest.approx(2 * positive / (n * (n + 1) / 2) - 1)
    assert (found.n, found.zeros) == (n, 30 - n)
    assert rank_biserial(np.zeros(30), difference).r == pytest.approx(-found.r)


def test_rank_biserial_ranks_what_wilcoxon_ranks():
    first, second = [1.0, 3.0, 2.0, 5.0, 1.0, 4.0], [0.0, 0.0, 1.0, np.nan, 2.0, 4.0]
    clusters = ["a", "a", "b", "b", "c", "d"]
    found, test = rank_biserial(first, second, clusters=clusters), paired_wilcoxon(first, second, clusters=clusters)
    assert (found.n, found.zeros, found.missing) == (test.n, test.zeros, test.undefined) == (3, 1, 1)
    assert found.r == pytest.approx((3 + 1.5 - 1.5) / 6)  # means 2, 1, -1
    assert rank_biserial([2.0, 3.0], [1.0, 1.0]).r == 1 and rank_biserial([0.0], [1.0]).r == -1
    same = rank_biserial([1.0, 2.0], [1.0, 2.0])
    assert np.isnan(same.r) and (same.n, same.zeros) == (0, 2)
    assert np.isnan(rank_biserial([np.nan], [1.0]).r)


def counts(b, c):
    return mcnemar(np.repeat([1, 0], [b, c]), np.repeat([0, 1], [b, c]))


def test_odds_of_discordant_pairs():
    found = discordant_odds(counts(16, 6))
    assert found.value == pytest.approx(16 / 6) and found.discordant == 22
    low, high = stats.beta.ppf(0.025, 16, 7), stats.beta.ppf(0.975, 17, 6)
    assert (found.low, found.high) == pytest.approx((low / (1 - low), high / (1 - high)))
    turned = discordant_odds(counts(6, 16))
    assert (turned.low, turned.high) == pytest.approx((1 / found.high, 1 / found.low))


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_interval_of_the_odds_contains_1_exactly_when_mcnemars_test_does_not_reject(b, c):
    found, test = discordant_odds(counts(b, c)), counts(b, c)
    if b + c and abs(test.p - 0.05) > 1e-9:
        assert (found.low <= 1 <= found.high) == (test.p > 0.05)


def test_odds_at_the_edges():
    none = discordant_odds(McNemar(0, 0, 9, 1.0, 0.0, 1.0))
    assert np.isnan([none.value, none.low, none.high]).all() and none.discordant == 0
    all_first = discordant_odds(counts(5, 0))
    assert all_first.value == all_first.high == np.inf
    assert all_first.low == pytest.approx(0.025**0.2 / (1 - 0.025**0.2))
    all_second = discordant_odds(counts(0, 5))
    assert (all_second.value, all_second.low) == (0, 0) and np.isfinite(all_second.high)
    with pytest.raises(ValueError, match="level"):
        discordant_odds(counts(1, 1), level=0)
