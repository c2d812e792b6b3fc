"""Cluster bootstrap against enumeration, scipy, closed forms and simulation."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thyroid_jax.evaluate.metrics import auroc
from thyroid_jax.evaluate.statistics import bootstrap_p, cluster_bootstrap, cluster_replicates, interval_of


def weighted_mean(values, weight):
    return weight @ values / weight.sum(axis=-1)


def test_bootstrap_is_the_exact_distribution_over_all_draws_of_groups():
    # Three groups have 27 equally likely draws: the replicates' quantiles follow from writing them all down.
    clusters, values = np.array(["a", "a", "b", "c", "c", "c"]), np.array([0.0, 1.0, 4.0, 2.0, 3.0, 9.0])
    by_group = [values[clusters == name] for name in "abc"]
    every = [np.concatenate([by_group[g] for g in draw]).mean() for draw in product(range(3), repeat=3)]
    interval = cluster_bootstrap(np.mean, clusters, values, samples=20000, level=0.5)
    assert interval.value == values.mean() and interval.clusters == 3
    for bound, share in ((interval.low, 0.25), (interval.high, 0.75)):
        assert (
            np.mean(np.array(every) < bound - 1e-9) <= share + 0.02
            and np.mean(np.array(every) <= bound + 1e-9) >= share - 0.02
        )


def test_weights_and_indices_draw_the_same_replicates():
    random = np.random.default_rng(3)
    clusters, values = random.integers(12, size=70), random.normal(size=70)
    slow = cluster_bootstrap(np.mean, clusters, values, samples=300, seed=5)
    fast = cluster_bootstrap(weighted_mean, clusters, values, samples=300, seed=5, weighted=True)
    assert fast.low == pytest.approx(slow.low, abs=1e-12) and fast.high == pytest.approx(slow.high, abs=1e-12)
    again = cluster_bootstrap(np.mean, clusters, values, samples=300, seed=5)
    other = cluster_bootstrap(np.mean, clusters, values, samples=300, seed=6)
    assert again == slow and other != slow


def test_singleton_groups_are_the_ordinary_bootstrap():
    values = np.random.default_rng(0).normal(size=200)
    ours = cluster_bootstrap(weighted_mean, np.arange(200), values, samples=4000, weighted=True)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_expanded_interval_of_a_mean_is_students():
    # Equal groups: the replicates of a mean are nearly normal with variance (G - 1)/G s^2/G, so that the expanded
    # interval is mean +- t_{G-1} s / sqrt(G).
    groups = 30
    values = stats.norm.ppf((np.arange(groups) + 0.5) / groups)
    found = cluster_bootstrap(weighted_mean, np.arange(groups), values, samples=40000, weighted=True, expanded=True)
    half = stats.t.ppf(0.975, groups - 1) * values.std(ddof=1) / np.sqrt(groups)
    assert (found.low, found.high) == pytest.approx((-half, half), abs=0.02 * half)
    plain = cluster_bootstrap(weighted_mean, np.arange(groups), values, samples=40000, weighted=True)
    normal = stats.norm.ppf(0.975) * values.std() / np.sqrt(groups)
    assert (plain.low, plain.high) == pytest.approx((-normal, normal), abs=0.02 * half)


def grouped_sample(random, groups):
    """Groups of 1 to 6 images that share an effect; the mean of the distribution is 0."""
    clusters = np.repeat(np.arange(groups), random.integers(1, 7, size=groups))
    return clusters, random.normal(size=groups)[clusters] + 0.3 * random.normal(size=len(clusters))


@pytest.mark.parametrize("groups", [12, 40])
def test_coverage_is_nominal_when_whole_groups_are_drawn(groups):
    random = np.random.default_rng(groups)
    trials, hits = 400, 0
    for trial in range(trials):
        found = cluster_bootstrap(
            weighted_mean, *grouped_sample(random, groups), samples=400, seed=trial, weighted=True, expanded=True
        )
        hits += found.low <= 0 <= found.high
    assert 0.93 <= hits / trials <= 0.97


def test_coverage_fails_when_groups_are_ignored():
    random = np.random.default_rng(1)
    trials, hits = 200, 0
    for trial in range(trials):
        clusters, values = grouped_sample(random, 40)
        found = cluster_bootstrap(
            weighted_mean, np.arange(len(clusters)), values, samples=400, seed=trial, weighted=True
        )
        hits += found.low <= 0 <= found.high
    assert hits / trials < 0.80


def test_undefined_replicates_are_dropped_and_counted():
    def spread_of_b(values, group):
        chosen = values[group == "b"]
        return chosen.mean() if len(chosen) else float("nan")

    group = np.array(["a", "b", "c"])
    interval = cluster_bootstrap(spread_of_b, group, np.array([1.0, 2.0, 3.0]), group, samples=3000)
    assert interval.low == interval.high == 2.0
    assert interval.undefined / interval.samples == pytest.approx((2 / 3) ** 3, abs=0.03)


def test_bootstrap_without_an_interval():
    one_group = cluster_bootstrap(np.mean, ["p", "p"], [0.5, 0.7])
    assert one_group.value == pytest.approx(0.6) and np.isnan(one_group.low) and one_group.samples == 0
    nothing = cluster_bootstrap(np.mean, [], [])
    assert np.isnan(nothing.value) and nothing.clusters == 0
    assert np.isnan(cluster_bootstrap(lambda x: float("nan"), ["p", "q"], [0, 1]).low)
    for bad in ({"level": 1.0}, {"samples": 0}):
        with pytest.raises(ValueError, match="level must lie"):
            cluster_bootstrap(np.mean, ["p", "q"], [0, 1], **bad)
    with pytest.raises(ValueError, match="one row a case"):
        cluster_bootstrap(np.mean, ["p", "q"], [0, 1, 2])
    with pytest.raises(ValueError, match="one row a case"):
        cluster_bootstrap(np.mean, ["p", "q"], 0.5)
    with pytest.raises(ValueError, match="2 group labels are NaN"):
        cluster_bootstrap(np.mean, [1.0, np.nan, 2.0, np.nan], [0, 1, 2, 3])


def scipys_bca(values, statistic, replicates, level):
    """scipy's BCa interval of the replicates handed over: none are drawn.

    scipy counts as ties what is equal to the last bit. So those that differ by rounding are made equal first.
    """
    value = statistic(values)
    replicates = np.where(np.isclose(replicates, value, rtol=1e-12), value, replicates)
    found = stats.bootstrap((values,), statistic, n_resamples=9, rng=0, method="percentile", vectorized=False)
    found.bootstrap_distribution = replicates
    options = {"n_resamples": 0, "method": "BCa", "vectorized": False, "confidence_level": level}
    interval = stats.bootstrap((values,), statistic, bootstrap_result=found, **options).confidence_interval
    return interval.low, interval.high


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("statistic", [np.mean, np.var, lambda x: np.mean(x) ** 2 / np.var(x)])
@pytest.mark.parametrize("ties", [False, True])
def test_bca_is_scipys_when_each_group_has_one_case(statistic, ties, level):
    values = np.random.default_rng(2).exponential(size=25)
    values = np.ceil(values) if ties else values
    replicates = cluster_replicates(statistic, np.arange(25), values, samples=999, jackknife=True)
    ours = interval_of(replicates, level=level, method="bca")
    assert (ours.low, ours.high) == pytest.approx(scipys_bca(values, statistic, replicates.values, level), rel=1e-9)
    plain = interval_of(replicates, level=level)
    upwards = 1 if statistic in (np.mean, np.var) else -1
    assert (ours.low - plain.low) * upwards > 0 and (ours.high - plain.high) * upwards > 0
    whole = cluster_bootstrap(statistic, np.arange(25), values, samples=999, level=level, method="bca")
    assert (whole.low, whole.high, whole.method) == (ours.low, ours.high, "bca")


def test_bca_counts_equal_replicates_half():
    # Of 0-1 data the replicates are counts: the share below the value is not the share at most the value.
    values = np.repeat([0.0, 1.0], [15, 5])
    replicates = cluster_replicates(np.mean, np.arange(20), values, samples=2000, jackknife=True)
    assert np.mean(replicates.values == 0.25) > 0.15
    ours = interval_of(replicates, method="bca")
    assert (ours.low, ours.high) == pytest.approx(scipys_bca(values, np.mean, replicates.values, 0.95))


def test_bca_of_groups_is_that_of_their_means():
    random = np.random.default_rng(5)
    values, clusters = random.gamma(0.5, size=(30, 4)), np.repeat(np.arange(30), 4)
    weighted = cluster_bootstrap(weighted_mean, clusters, values.ravel(), weighted=True, method="bca")
    indexed = cluster_bootstrap(np.mean, clusters, values.ravel(), method="bca")
    means = cluster_bootstrap(np.mean, np.arange(30), values.mean(1), method="bca")
    for other in (indexed, means):
        assert (weighted.low, weighted.high) == pytest.approx((other.low, other.high), rel=1e-9)


def test_bca_weights_and_indices_agree_for_a_statistic_of_uneven_groups():
    random = np.random.default_rng(1)
    clusters = random.permutation(np.repeat(np.arange(25), random.integers(1, 6, size=25)))
    positive = (clusters % 3 == 0) | (clusters == 4)
    score = random.normal(size=len(clusters)) + positive
    slow = cluster_bootstrap(lambda s, p: float(auroc(s, p)), clusters, score, positive, samples=200, method="bca")
    fast = cluster_bootstrap(auroc_of, clusters, score, positive, samples=200, method="bca", weighted=True)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)
    assert fast.standard_error == pytest.approx(slow.standard_error)


def auroc_of(score, positive, weight):
    return auroc(score, positive, weight=weight)


def test_bca_does_not_exist_where_a_group_cannot_be_spared():
    # Without the only group of a positive case there is no AUROC: 37 % of the replicates lack it too.
    clusters, positive, score = np.arange(12), np.arange(12) == 5, np.random.default_rng(0).normal(size=12)
    found = cluster_bootstrap(auroc_of, clusters, score, positive, weighted=True, method="bca")
    assert np.isnan([found.low, found.high]).all() and found.jackknife_undefined == 1
    assert found.undefined / found.samples == pytest.approx((11 / 12) ** 12, abs=0.05)
    percentile = cluster_bootstrap(auroc_of, clusters, score, positive, weighted=True)
    assert percentile.low < percentile.high and percentile.jackknife_undefined == 0
    replicates = cluster_replicates(auroc_of, clusters, score, positive, weighted=True, jackknife=True)
    assert np.isnan(bootstrap_p(replicates, 0.5, method="bca"))


def test_bca_does_not_exist_where_the_value_is_the_extreme_replicate():
    # The number of different values can only fall when values are drawn again, and does in nearly every draw.
    found = cluster_bootstrap(lambda x: float(len(np.unique(x))), np.arange(30), np.arange(30.0), method="bca")
    assert found.value == 30 and found.undefined == 0 and np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize("method", ["percentile", "expanded", "bca"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("constant", [1.0, 0.7, 1 / 3])
def test_without_spread_low_is_high_up_to_rounding(method, weighted, constant):
    # 0.7 added up in another order differs by rounding: this is no spread, and no bias either.
    statistic, values = (weighted_mean if weighted else np.mean), np.full(21, constant)
    found = cluster_bootstrap(statistic, np.arange(21) // 2, values, samples=200, method=method, weighted=weighted)
    assert (found.low, found.high) == pytest.approx((constant, constant), abs=1e-12)
    replicates = cluster_replicates(statistic, np.arange(21) // 2, values, weighted=weighted, jackknife=True)
    assert np.isnan(bootstrap_p(replicates, 0.0, method=method))


def test_the_ways_to_name_an_interval():
    values = np.random.default_rng(0).normal(size=12)
    named = cluster_bootstrap(np.mean, np.arange(12), values, samples=100, method="expanded")
    flag = cluster_bootstrap(np.mean, np.arange(12), values, samples=100, expanded=True)
    assert named == flag and named.method == "expanded"
    with pytest.raises(ValueError, match="cannot be combined"):
        cluster_bootstrap(np.mean, np.arange(12), values, expanded=True, method="bca")
    with pytest.raises(ValueError, match="method must be one of"):
        cluster_bootstrap(np.mean, np.arange(12), values, method="normal")
    with pytest.raises(ValueError, match="jackknife=True"):
        interval_of(cluster_replicates(np.mean, np.arange(12), values, samples=50), method="bca")
    with pytest.raises(ValueError, match="one value a row of weights"):
        cluster_bootstrap(lambda x, weight: x, np.arange(12), values, weighted=True)


def test_standard_error_of_a_mean():
    values = np.random.default_rng(3).normal(size=15)
    found = cluster_bootstrap(weighted_mean, np.arange(15), values, samples=40_000, weighted=True)
    assert found.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(15), rel=0.02)


def test_large_tables_are_computed_in_blocks():
    # 3,000 cases x 1,500 replicates exceed a block: the draws must be those of one block.
    random = np.random.default_rng(0)
    clusters, values = np.repeat(np.arange(1000), 3), random.normal(size=3000)
    found = cluster_replicates(weighted_mean, clusters, values, samples=1500, seed=4, weighted=True, jackknife=True)
    generator = np.random.default_rng(4)
    sums = values.reshape(1000, 3).sum(1)
    expected = np.array([sums[generator.integers(1000, size=1000)].sum() / 3000 for _ in range(1500)])
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    np.testing.assert_allclose(found.without_group, (sums.sum() - sums) / 2997, atol=1e-12)


# --- p-values ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["percentile", "expanded", "bca"]),
    st.sampled_from(["greater", "less"]),
    st.floats(0.01, 0.3),
    st.booleans(),
)
def test_p_is_below_alpha_exactly_when_the_bound_excludes_the_null(seed, method, alternative, alpha, ties):
    random = np.random.default_rng(seed)
    values = random.gamma(1.0, size=20) - random.uniform(0, 2)
    values = np.round(values) if ties else values
    replicates = cluster_replicates(np.mean, np.arange(20), values, samples=300, seed=seed, jackknife=True)
    p = bootstrap_p(replicates, 0.0, alternative=alternative, method=method)
    if np.isnan(p):
        return
    found = interval_of(replicates, level=1 - 2 * alpha, method=method)
    outside = found.low > 1e-12 if alternative == "greater" else found.high < -1e-12
    in_tail = np.mean(replicates.values <= 0 if alternative == "greater" else replicates.values >= 0) * 300
    if in_tail >= 2 and abs(p - alpha) > 1e-9:
        assert outside == (p < alpha)


def test_p_of_a_mean_is_students():
    # As for the interval: equal groups, nearly normal replicates.
    values = stats.norm.ppf((np.arange(30) + 0.5) / 30) + 0.3
    replicates = cluster_replicates(weighted_mean, np.arange(30), values, samples=40_000, weighted=True)
    for null in (-0.1, 0.0, 0.1, 0.5):
        expected = stats.ttest_1samp(values, null, alternative="greater").pvalue
        assert bootstrap_p(replicates, null) == pytest.approx(expected, abs=0.004)
        less = bootstrap_p(replicates, null, alternative="less")
        assert less == pytest.approx(1 - expected, abs=0.004)
    share = np.mean(replicates.values <= 0)
    assert bootstrap_p(replicates, 0.0, method="percentile") == pytest.approx(share, abs=1e-4)


def test_p_has_a_least_value():
    values = np.arange(1.0, 31.0)
    replicates = cluster_replicates(np.mean, np.arange(30), values, samples=99, jackknife=True)
    assert bootstrap_p(replicates, 0.0, method="percentile") == pytest.approx(0.01)
    assert bootstrap_p(replicates, 100.0, method="percentile") == pytest.approx(0.99)
    few = cluster_replicates(np.mean, [0, 1, 2], [1.0, 1.1, 1.2], samples=2000)
    # With three groups the bound is the smallest replicate, so the interval excludes 0; p does not claim it.
    assert interval_of(few, method="expanded").low > 0 and bootstrap_p(few, 0.0) > 0.025


def test_replicates_at_the_null_do_not_count_as_evidence():
    # All replicates are 0 or more; those of exactly 0 do not lie above 0, nor do those that differ by rounding.
    values = np.repeat([0.0, 1.0], [18, 2])
    replicates = cluster_replicates(np.mean, np.arange(20), values, samples=999)
    expected = np.mean(replicates.values <= 0)
    assert expected > 0.08 and bootstrap_p(replicates, 0.0, method="percentile") >= expected - 1 / 999
    near = replace(replicates, values=np.where(replicates.values == 0, 1e-17, replicates.values))
    assert bootstrap_p(near, 0.0, method="percentile") >= expected - 1 / 999


def test_p_does_not_exist_without_replicates():
    assert np.isnan(bootstrap_p(cluster_replicates(np.mean, ["a", "a"], [0.0, 1.0]), 0.5))
    assert np.isnan(bootstrap_p(cluster_replicates(np.mean, [], []), 0.5))
    with pytest.raises(ValueError, match="alternative must be"):
        bootstrap_p(cluster_replicates(np.mean, [0, 1], [0.0, 1.0]), alternative="two-sided")
