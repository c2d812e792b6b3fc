"""DeLong against the double loop over pairs, published examples and simulation."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logit

from thyroid_jax.evaluate.statistics import delong


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


# --- groups -----------------------------------------------------------------------------------------------------------


def obuchowskis_covariance(truth, scores, clusters):
    """Obuchowski's formula with loops, S10, S01 and S11 as in her paper, over the double loop's V10 and V01."""
    names = sorted(set(clusters))
    x, y = scores[:, truth], scores[:, ~truth]
    psi = (x[:, :, None] > y[:, None, :]) + 0.5 * (x[:, :, None] == y[:, None, :])
    v10, v01, area = psi.mean(axis=2), psi.mean(axis=1), psi.mean(axis=(1, 2))
    m, n = x.shape[1], y.shape[1]
    of_x, of_y = clusters[truth], clusters[~truth]
    i10, i01, i = len(set(of_x)), len(set(of_y)), len(names)
    s = np.zeros((len(scores),) * 2)
    for r, t in product(range(len(scores)), repeat=2):
        s10 = s01 = s11 = 0.0
        for name in names:
            own_x, own_y = of_x == name, of_y == name
            a = [v10[q, own_x].sum() - own_x.sum() * area[q] for q in (r, t)]
            b = [v01[q, own_y].sum() - own_y.sum() * area[q] for q in (r, t)]
            s10 += i10 / ((i10 - 1) * m) * a[0] * a[1]
            s01 += i01 / ((i01 - 1) * n) * b[0] * b[1]
            s11 += i / (i - 1) * (a[0] * b[1] + a[1] * b[0])
        s[r, t] = s10 / m + s01 / n + s11 / (m * n)
    return s


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 12), st.booleans())
def test_groups_against_obuchowskis_formula(seed, groups, ties):
    random = np.random.default_rng(seed)
    clusters = random.permutation(np.repeat(np.arange(groups), random.integers(2, 5, size=groups)))
    truth = random.random(len(clusters)) < 0.5  # most groups have both
    truth[[np.argmax(clusters == 0), np.argmax(clusters == 1)]] = True
    truth[[np.argmax(clusters == 2), np.argmax(clusters == 3)]] = False
    scores = random.normal(size=(2, len(truth))) + truth + random.normal(size=groups)[clusters]
    scores = np.round(scores) if ties else scores
    found = delong(truth, *scores, clusters=np.array([f"patient {g}" for g in clusters]))
    expected = obuchowskis_covariance(truth, scores, clusters)
    np.testing.assert_allclose(found.covariance, expected, atol=1e-12)
    assert found.auc == delong(truth, *scores).auc
    variance = expected[0, 0] + expected[1, 1] - 2 * expected[0, 1]
    if variance > 1e-9:
        assert found.difference_error == pytest.approx(np.sqrt(variance))
        assert found.z == pytest.approx(found.difference / np.sqrt(variance))


def test_one_case_a_group_has_delongs_variance_and_students_quantile():
    random = np.random.default_rng(0)
    truth = random.random(40) < 0.4
    scores = random.normal(size=(2, 40)) + truth
    alone, grouped = delong(truth, *scores), delong(truth, *scores, clusters=random.permutation(40))
    np.testing.assert_allclose(grouped.covariance, alone.covariance, rtol=1e-10)
    assert grouped.difference_error == pytest.approx(alone.difference_error) and alone.difference_df == np.inf
    # By hand, as in Welch's test: the two variances and their numbers of cases.
    v10, v01 = (psi_means(truth, scores, axis) for axis in (2, 1))
    for values10, values01, width, normal in (
        (v10[0], v01[0], logit(grouped.high[0]) - logit(grouped.auc[0]), logit(alone.high[0]) - logit(alone.auc[0])),
        (v10[0] - v10[1], v01[0] - v01[1], *(r.difference_high - r.difference for r in (grouped, alone))),
    ):
        s10, s01 = np.var(values10, ddof=1) / truth.sum(), np.var(values01, ddof=1) / (~truth).sum()
        df = (s10 + s01) ** 2 / (s10**2 / (truth.sum() - 1) + s01**2 / ((~truth).sum() - 1))
        assert width / normal == pytest.approx(stats.t.ppf(0.975, df) / stats.norm.ppf(0.975))
    assert grouped.difference_df == pytest.approx(df)
    assert grouped.p == pytest.approx(2 * stats.t.sf(abs(grouped.z), df))


def psi_means(truth, scores, axis):
    x, y = scores[:, truth, None], scores[:, None, ~truth]
    return ((x > y) + 0.5 * (x == y)).mean(axis=axis)


def test_copies_of_a_case_add_no_evidence():
    random = np.random.default_rng(0)
    truth, clusters = random.random(40) < 0.4, np.arange(40)
    for score in (random.normal(size=40) + truth, truth + 0.0, np.zeros(40)):
        once = delong(truth, score, clusters=clusters)
        five_times = delong(np.repeat(truth, 5), np.repeat(score, 5), clusters=np.repeat(clusters, 5))
        assert five_times.low == pytest.approx(once.low) and five_times.high == pytest.approx(once.high)
        assert five_times.interval == once.interval
    assert once.interval == ("pairs",) == delong(truth, score).interval and once.low == delong(truth, score).low


def grouped_scores(random, groups):
    """Malignant groups of 1 to 6 cases, whose scores share an effect; the area is Phi(1.5 / sqrt(2))."""
    clusters = np.repeat(np.arange(groups), random.integers(1, 7, size=groups))
    truth = (np.arange(groups) < 0.4 * groups)[clusters]
    noise = 0.9 * random.normal(size=groups)[clusters] + np.sqrt(0.19) * random.normal(size=len(clusters))
    return truth, 1.5 * truth + noise, clusters


def test_coverage_is_nominal_only_when_groups_are_named():
    random, area = np.random.default_rng(2), stats.norm.cdf(1.5 / np.sqrt(2))
    named, ignored = [], []
    for _ in range(300):
        truth, score, clusters = grouped_scores(random, 40)
        named.append(delong(truth, score, clusters=clusters))
        ignored.append(delong(truth, score))
    covers = [np.mean([r.low[0] <= area <= r.high[0] for r in found]) for found in (named, ignored)]
    assert 0.92 <= covers[0] <= 0.98 and covers[1] < 0.85


def test_groups_at_the_edges():
    # Six groups, two of them with both kinds, make three pairs of different groups.
    truth = np.array([1, 1, 0, 0, 1, 0, 1, 0])
    clusters = np.array(["a", "b", "c", "d", "e", "e", "f", "f"])
    perfect = delong(truth, truth.astype(float), clusters=clusters)
    assert perfect.interval == ("pairs",) and perfect.low[0] == pytest.approx(0.025 ** (1 / 3))
    one_positive_group = delong([1, 1, 0, 0], [0.1, 0.7, 0.3, 0.2], clusters=["a", "a", "b", "c"])
    assert one_positive_group.auc == (0.5,) and one_positive_group.interval == ("none",)
    assert np.isnan([one_positive_group.low[0], one_positive_group.high[0]]).all()
    two = delong([1, 1, 0, 0], [0.1, 0.7, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4], clusters=["a", "a", "b", "c"])
    assert two.difference == 0.5 and np.isnan([two.p, two.difference_low, two.difference_error]).all()
    one_group = delong([1, 0], [0.9, 0.1], clusters=["a", "a"])
    assert one_group.auc == (1.0,) and one_group.interval == ("none",) and np.isnan(one_group.low[0])
    same = delong(truth, truth + 0.0, truth * 2.0, clusters=clusters)
    assert (same.difference_low, same.difference_high, same.p) == (0, 0, 1)
    with pytest.raises(ValueError, match="clusters has 3 labels"):
        delong([0, 1], [0.1, 0.2], clusters=[1, 2, 3])
    with pytest.raises(ValueError, match="group labels are NaN"):
        delong([0, 1], [0.1, 0.2], clusters=[1, np.nan])
