"""Intervals and tests against independent formulas, published examples and simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logit

from thyroid_jax.evaluate.statistics import cluster_bootstrap, delong, holm, mcnemar, paired_wilcoxon


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


def test_wilcoxon_against_every_sign_pattern():
    # Exact p by enumeration: under the null every difference is as likely negative as positive.
    first, second = np.array([0.81, 0.75, 0.92, 0.60, 0.88, 0.70]), np.array([0.80, 0.70, 0.80, 0.63, 0.80, 0.50])
    difference = first - second
    rank = stats.rankdata(np.abs(difference))
    sums = np.array([(rank * np.array(signs)).sum() for signs in product((0, 1), repeat=6)])
    seen = min(rank[difference > 0].sum(), rank[difference < 0].sum())
    result = paired_wilcoxon(first, second)
    assert result.p == pytest.approx(2 * np.mean(sums <= seen)) and result.statistic == seen
    assert result.median_difference == pytest.approx(np.median(difference)) and result.n == 6


def test_wilcoxon_counts_zeros_and_undefined():
    first, second = np.array([0.5, 0.5, 0.9, 0.8, np.nan, 0.7]), np.array([0.5, 0.4, 0.7, 0.5, 0.1, np.nan])
    result = paired_wilcoxon(first, second)
    assert (result.n, result.zeros, result.undefined) == (3, 1, 2)
    assert result.p == pytest.approx(
        stats.wilcoxon([0.1, 0.2, 0.3]).pvalue
    ) and result.median_difference == pytest.approx(0.15)
    same = paired_wilcoxon([0.5, 0.6], [0.5, 0.6])
    assert (same.p, same.n, same.zeros, same.median_difference) == (1.0, 0, 2, 0.0)
    nothing = paired_wilcoxon([np.nan], [0.2])
    assert np.isnan(nothing.median_difference) and nothing.p == 1.0
    with pytest.raises(ValueError, match="one length"):
        paired_wilcoxon([1.0, 2.0], [1.0])


def test_wilcoxon_by_group_averages_first():
    first, second = np.array([1.0, 3.0, 2.0, 5.0, 1.0]), np.array([0.0, 0.0, 1.0, np.nan, 2.0])
    result = paired_wilcoxon(first, second, clusters=["a", "a", "b", "b", "c"])
    expected = paired_wilcoxon([2.0, 1.0, -1.0], [0.0, 0.0, 0.0])
    assert result.n == 3 and result.undefined == 1 and result.p == expected.p and result.median_difference == 1.0


def brute_force_delong(truth, scores):
    """Areas and their covariance from the double loop over pairs."""
    x, y = scores[:, truth], scores[:, ~truth]
    psi = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    v10, v01 = psi.mean(axis=2), psi.mean(axis=1)
    s = np.zeros((len(scores),) * 2)
    for a, b in product(range(len(scores)), repeat=2):
        for v in (v10, v01):
            n = v.shape[1]
            s[a, b] += sum((v[a, i] - v[a].mean()) * (v[b, i] - v[b].mean()) for i in range(n)) / (n - 1) / n
    return psi.mean(axis=(1, 2)), s


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 15), st.integers(2, 15), st.booleans())
def test_delong_against_brute_force(seed, positives, negatives, ties):
    random = np.random.default_rng(seed)
    truth = random.permutation(np.arange(positives + negatives) < positives)
    scores = random.normal(size=(2, len(truth))) + 0.7 * truth + random.normal(size=len(truth))
    scores = np.round(scores) if ties else scores
    result = delong(truth, *scores)
    auc, s = brute_force_delong(truth, scores)
    np.testing.assert_allclose(result.auc, auc, atol=1e-12)
    np.testing.assert_allclose(result.covariance, s, atol=1e-12)
    variance = s[0, 0] + s[1, 1] - 2 * s[0, 1]
    if variance > 1e-9:
        z = (auc[0] - auc[1]) / np.sqrt(variance)
        assert result.z == pytest.approx(z) and result.p == pytest.approx(2 * stats.norm.sf(abs(z)))
    # The normal interval by its formula; the logit one is symmetric about logit(area), with the delta method's width.
    half = stats.norm.ppf(0.975) * np.sqrt(s[0, 0])
    if s[0, 0] > 1e-9:
        normal = delong(truth, *scores, interval="normal")
        assert normal.interval[0] == "normal" and result.interval[0] == "logit"
        assert normal.low[0] == pytest.approx(max(auc[0] - half, 0))
        assert normal.high[0] == pytest.approx(min(auc[0] + half, 1))
        bounds, middle = logit([result.low[0], result.high[0]]), logit(auc[0])
        assert bounds.mean() == pytest.approx(middle)
        assert (bounds[1] - bounds[0]) / 2 == pytest.approx(half / (auc[0] * (1 - auc[0])))
    else:
        assert result.interval[0] == "pairs"
    alone = delong(truth, scores[0])
    assert alone.auc[0] == pytest.approx(result.auc[0]) and alone.low[0] == pytest.approx(result.low[0])
    assert np.isnan(alone.p)
    swapped = delong(truth, scores[1], scores[0])
    assert swapped.difference == -result.difference and swapped.p == pytest.approx(result.p, nan_ok=True)


def test_delong_does_not_reject_too_often():
    random = np.random.default_rng(4)
    truth = np.arange(120) < 50
    p = [delong(truth, *(random.normal(size=(2, 120)) + truth + random.normal(size=120))).p for _ in range(600)]
    assert 0.025 <= np.mean(np.array(p) < 0.05) <= 0.08


def test_delong_worked_example():
    # Hanley and McNeil, Radiology 143 (1982), table I: 109 CT images rated 1 to 5. Stata's `roctab` prints for it
    # area 0.8932, standard error 0.0307, normal interval 0.83295 to 0.95339.
    from sklearn.metrics import roc_auc_score

    counts = [33, 6, 6, 11, 2, 3, 2, 2, 11, 33]
    truth, rating = np.repeat([0] * 5 + [1] * 5, counts), np.repeat([1, 2, 3, 4, 5] * 2, counts)
    normal = delong(truth, rating, interval="normal")
    assert round(normal.auc[0], 4) == 0.8932 and normal.auc[0] == pytest.approx(roc_auc_score(truth, rating))
    assert round(np.sqrt(normal.covariance[0, 0]), 4) == 0.0307
    assert (normal.low[0], normal.high[0]) == pytest.approx((0.83295, 0.95339), abs=5e-6)
    # By hand: logit 0.8932 = 2.1239, its standard error 0.030724 / (0.89317 * 0.10683) = 0.32200; +- 1.95996 of it.
    found = delong(truth, rating)
    assert found.interval == ("logit",)
    assert (found.low[0], found.high[0]) == pytest.approx((0.8164, 0.9402), abs=1e-4)


def test_delong_by_hand():
    # Positives 2 and 4, negatives 1, 2, 3. psi = [[1, .5, 0], [1, 1, 1]]: area 0.75, V10 = .5, 1; V01 = 1, .75, .5.
    found = delong([1, 1, 0, 0, 0], [2, 4, 1, 2, 3], interval="normal")
    assert found.auc == (0.75,) and found.covariance[0, 0] == pytest.approx(0.125 / 2 + 0.0625 / 3)


@pytest.mark.parametrize(("positives", "negatives"), [(20, 30), (40, 25)])
@pytest.mark.parametrize("shift", [0.8, 1.6, 2.6])  # areas 0.71, 0.87, 0.97
def test_coverage_of_the_logit_interval(positives, negatives, shift):
    random = np.random.default_rng(positives)
    area, truth = stats.norm.cdf(shift / np.sqrt(2)), np.arange(positives + negatives) < positives
    found = [delong(truth, random.normal(size=len(truth)) + shift * truth) for _ in range(400)]
    assert 0.93 <= np.mean([result.low[0] <= area <= result.high[0] for result in found]) <= 0.985


def test_coverage_of_the_normal_interval_is_too_low_near_one():
    random = np.random.default_rng(0)
    area, truth = stats.norm.cdf(2.6 / np.sqrt(2)), np.arange(50) < 20
    found = [delong(truth, random.normal(size=50) + 2.6 * truth, interval="normal") for _ in range(400)]
    assert np.mean([result.low[0] <= area <= result.high[0] for result in found]) < 0.90


@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (3, 10), (25, 8), (1, 4)])
@pytest.mark.parametrize("interval", ["logit", "normal"])
def test_perfect_areas_have_the_exact_interval_of_disjoint_pairs(positives, negatives, interval):
    truth = np.arange(positives + negatives) < positives
    score, pairs = np.where(truth, 1.0, 0.0) + np.arange(len(truth)) / 100, min(positives, negatives)
    perfect = delong(truth, score, interval=interval)
    assert perfect.interval == ("pairs",) and perfect.auc == (1.0,)
    assert perfect.low[0] == pytest.approx(0.025 ** (1 / pairs)) and perfect.high[0] == 1.0
    wrong = delong(truth, -score, level=0.9, interval=interval)
    assert wrong.interval == ("pairs",) and wrong.auc == (0.0,)
    assert wrong.low[0] == 0.0 and wrong.high[0] == pytest.approx(1 - 0.05 ** (1 / pairs))


def test_all_scores_tied():
    # Area 1/2 without variance. 6 pairs, 3 of them concordant: Clopper and Pearson's 0.118 to 0.882.
    found = delong(np.repeat([1, 0], [6, 9]), np.zeros(15))
    assert found.auc == (0.5,) and found.interval == ("pairs",)
    assert (found.low[0], found.high[0]) == pytest.approx((stats.beta.ppf(0.025, 3, 4), stats.beta.ppf(0.975, 4, 3)))
    assert (round(found.low[0], 3), round(found.high[0], 3)) == (0.118, 0.882)
    odd = delong(np.repeat([1, 0], [3, 4]), np.zeros(7))  # 3 pairs: 1 concordant for the lower bound, 2 for the upper
    assert (odd.low[0], odd.high[0]) == pytest.approx((stats.beta.ppf(0.025, 1, 3), stats.beta.ppf(0.975, 3, 1)))


def test_delong_at_the_edges():
    truth, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
    same = delong(truth, score, score)
    assert (same.difference, same.z, same.p) == (0.0, 0.0, 1.0) and same.auc == (1.0, 1.0)
    assert (same.difference_low, same.difference_high) == (0.0, 0.0) and same.interval == ("pairs", "pairs")
    # Two perfect scores that order the cases differently: equal here, and nothing says how equal elsewhere.
    both_perfect = delong(truth, score, np.array([0.2, 0.1, 0.8, 0.9]))
    assert (both_perfect.difference, both_perfect.p) == (0.0, 1.0) and np.isnan(both_perfect.difference_low)
    opposite = delong(truth, score, -score)
    assert opposite.difference == 1.0 and np.isnan(opposite.p) and opposite.interval == ("pairs", "pairs")
    nothing = delong([1, 1], [0.1, 0.2])
    assert np.isnan(nothing.auc[0]) and nothing.interval == ("none",) and np.isnan(nothing.low[0])
    single = delong([0, 1, 0], [0.1, 0.7, 0.9])
    assert single.auc[0] == 0.5 and np.isnan(single.low[0]) and single.interval == ("none",)
    for bad in (([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan])):
        with pytest.raises(ValueError, match="truth must be 0 or 1"):
            delong(*bad)
    with pytest.raises(ValueError, match="one length"):
        delong([0, 1, 1], [0.1, 0.2])
    for options in ({"interval": "exact"}, {"level": 1.0}):
        with pytest.raises(ValueError, match="interval must be logit or normal and level lie"):
            delong(truth, score, **options)


def test_the_smallest_variance_is_not_taken_for_rounding():
    # One discordant pair in 4 million: an area below 1, whose variance is of the size of (1 / PN)^2.
    truth = np.arange(4000) < 2000
    score = np.where(truth, 2.0, 0.0)
    score[0], score[-1] = 0.5, 1.0
    found = delong(truth, score)
    assert found.auc[0] == pytest.approx(1 - 1 / 2000**2, abs=1e-12) and found.interval == ("logit",)
    assert 0 < found.low[0] < found.auc[0] < found.high[0] <= 1


def test_mcnemar_textbook_examples():
    # Agresti, Categorical Data Analysis, 1990, p. 350: 150 and 86 changed their mind; without correction 17.3559.
    first, second = (
        np.repeat([True, True, False, False], [794, 150, 86, 570]),
        np.repeat([True, False, True, False], [794, 150, 86, 570]),
    )
    result = mcnemar(first, second)
    assert (result.first_only, result.second_only, result.n) == (150, 86, 1600)
    assert (np.sqrt(result.chi2 * 236) + 1) ** 2 / 236 == pytest.approx(17.3559, abs=1e-4)
    # The much quoted pair 6 and 16: corrected chi2 3.68 with p 0.055, exact p 0.052.
    result = mcnemar(np.repeat([True, False], [6, 16]), np.repeat([False, True], [6, 16]))
    assert (round(result.chi2, 2), round(result.p_chi2, 3), round(result.p, 3)) == (3.68, 0.055, 0.052)


def test_mcnemar_exact_is_the_binomial_tail():
    from math import comb

    first, second = np.repeat([True, False], [2, 9]), np.repeat([False, True], [2, 9])
    result = mcnemar(first, second)
    assert result.p == pytest.approx(2 * sum(comb(11, i) for i in range(3)) / 2**11)
    assert result.chi2 == pytest.approx(36 / 11) and result.p_chi2 == pytest.approx(stats.chi2.sf(36 / 11, 1))
    assert mcnemar(second, first).p == result.p
    alike = mcnemar([True, False], [True, False])
    assert (alike.p, alike.chi2, alike.p_chi2) == (1.0, 0.0, 1.0)
    balanced = mcnemar([True, False], [False, True])
    assert (balanced.p, balanced.chi2, balanced.p_chi2) == (1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="0 or 1 only"):
        mcnemar([0, 2], [0, 1])


def test_holm_worked_example_and_nan():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p, alpha):
    # Holm's own wording: go up the sorted list and stop at the first p above alpha / (m - i).
    rejected, order = np.zeros(len(p), bool), np.argsort(p, kind="stable")
    for i, index in enumerate(order):
        if p[index] * (len(p) - i) > alpha:
            break
        rejected[index] = True
    adjusted = holm(p)
    np.testing.assert_array_equal(adjusted <= alpha, rejected)
    assert (adjusted >= p).all() and (adjusted <= 1).all()
