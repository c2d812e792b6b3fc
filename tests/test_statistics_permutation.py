"""Permutation tests against scipy, McNemar's exact test and simulation."""

import numpy as np
import pytest
from scipy import stats

from thyroid_jax.evaluate.metrics import auroc, confusion_matrix, quadratic_kappa
from thyroid_jax.evaluate.statistics import mcnemar, sign_flip_test, swap_test


def weighted_mean(values, weight):
    return weight @ values / weight.sum(axis=-1)


def auroc_of(score, positive, weight=None):
    return auroc(score, positive, weight=weight)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.5])
def test_sign_flips_are_scipys(alternative, shift):
    difference = np.random.default_rng(1).normal(size=9) + shift
    theirs = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=np.inf
    )
    ours = sign_flip_test(difference, np.zeros(9), alternative=alternative)
    assert ours.exact and ours.samples == 512 and ours.p == pytest.approx(theirs.pvalue)
    assert ours.value == pytest.approx(theirs.statistic)


def test_whole_groups_are_flipped():
    # The mean over cases of uneven groups: scipy flips the sums of the groups.
    random = np.random.default_rng(2)
    clusters = np.repeat(np.arange(8), [1, 2, 3, 4, 1, 2, 3, 6])
    first, second = random.normal(size=22) + 0.3, random.normal(size=22)
    sums = np.bincount(clusters, weights=first - second)
    theirs = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    order = random.permutation(22)
    ours = sign_flip_test(first[order], second[order], clusters=clusters[order])
    assert ours.p == pytest.approx(theirs.pvalue) and ours.clusters == 8
    assert ours.value == pytest.approx((first - second).mean())


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_swaps_are_scipys_for_a_statistic_that_is_no_mean(alternative):
    random = np.random.default_rng(3)
    positive = np.arange(9) < 4
    first, second = random.normal(size=9) + positive, random.normal(size=9) + 0.3 * positive
    theirs = stats.permutation_test(
        (first, second),
        lambda x, y: float(auroc(x, positive) - auroc(y, positive)),
        permutation_type="samples",
        alternative=alternative,
        vectorized=False,
        n_resamples=np.inf,
    )
    for weighted in (False, True):
        ours = swap_test(
            auroc_of, np.arange(9), (first, positive), (second, positive), alternative=alternative, weighted=weighted
        )
        assert ours.exact and ours.p == pytest.approx(theirs.pvalue) and ours.value == pytest.approx(theirs.statistic)


def test_swaps_of_groups_by_weights_and_by_indices():
    random = np.random.default_rng(0)
    clusters, truth = random.integers(30, size=80), random.integers(4, size=80)
    first, second = (np.clip(truth + random.integers(-1, 2, size=80), 0, 3) for _ in range(2))

    def kappa(predicted, truth, weight=None):
        return quadratic_kappa(confusion_matrix(predicted, truth, 4, weight=weight))

    arguments = clusters, (first, truth), (second, truth)
    slow = swap_test(kappa, *arguments, samples=400, seed=2)
    fast = swap_test(kappa, *arguments, samples=400, seed=2, weighted=True)
    assert fast.p == slow.p and not fast.exact and fast.value == pytest.approx(slow.value)
    mean = swap_test(weighted_mean, clusters, (first,), (second,), samples=400, seed=2, weighted=True)
    assert mean.p == sign_flip_test(first, second, clusters=clusters, samples=400, seed=2).p
    assert swap_test(kappa, clusters, (second, truth), (first, truth), samples=400, seed=2).p == slow.p


def test_drawn_permutations_approach_the_exact_value_and_count_the_observed_one():
    random = np.random.default_rng(5)
    first, second = random.normal(size=12) + 0.5, random.normal(size=12)
    exact = sign_flip_test(first, second)
    drawn = sign_flip_test(first, second, samples=4000)  # 2^12 = 4096 patterns are more
    assert exact.exact and not drawn.exact and drawn.samples == 4000
    assert drawn.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p / 4000))
    extreme = sign_flip_test(np.arange(1.0, 41.0), np.zeros(40), samples=999)
    assert extreme.p == 1 / 1000  # (1 + 0) / (1 + 999), never 0
    assert sign_flip_test(first, second, samples=4000, seed=1).p != drawn.p


def test_of_right_and_wrong_it_is_mcnemars_exact_test():
    random = np.random.default_rng(6)
    for _ in range(5):
        first, second = random.integers(2, size=(2, 12))
        assert sign_flip_test(first, second).p == pytest.approx(mcnemar(first, second).p)


def test_differences_that_tie_but_for_rounding_are_as_extreme():
    # 0.1 + 0.2 - 0.3 is not 0 in floating point: patterns of equal value must not be told apart.
    first = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    exact = sign_flip_test(np.round(first * 10), np.zeros(6))
    assert sign_flip_test(first, np.zeros(6)).p == exact.p
    assert sign_flip_test(first + 0.7, np.full(6, 0.7)).p == exact.p
    for seed in range(5):
        random = np.random.default_rng(seed)
        first, second = random.integers(-6, 9, size=7), random.integers(-3, 5, size=7)
        whole, tenths = (
            [swap_test(f, np.arange(7), (first / unit,), (second / unit,), weighted=w).p for f, w in STATISTICS]
            for unit in (1, 10)
        )
        assert tenths == whole


STATISTICS = ((weighted_mean, True), (np.mean, False))


def rejections(random, by_group):
    """Share of p < 0.05 under the null hypothesis, of groups of 1 to 6 images that share an effect."""
    count = 0
    for trial in range(300):
        clusters = np.repeat(np.arange(25), random.integers(1, 7, size=25))
        first = random.normal(size=25)[clusters] + 0.3 * random.normal(size=len(clusters))
        labels = clusters if by_group else None
        count += sign_flip_test(first, np.zeros(len(first)), clusters=labels, samples=199, seed=trial).p < 0.05
    return count / 300


def test_error_rate_is_nominal_only_when_whole_groups_are_flipped():
    assert 0.02 <= rejections(np.random.default_rng(0), by_group=True) <= 0.085
    assert rejections(np.random.default_rng(0), by_group=False) > 0.2


def test_permutations_without_a_value_are_extreme():
    # Defined only while the first model keeps its row of group "a": half of the patterns.
    def statistic(values, marks):
        return float(values.mean()) if marks[0] == 1 else float("nan") if marks[0] == 2 else 0.0

    first = (np.array([5.0, 1.0, 1.0, 1.0]), np.array([1, 0, 0, 0]))
    second = (np.zeros(4), np.array([3, 0, 0, 0]))
    # The largest of the 16 patterns, with its mirror image, is the observed one.
    assert swap_test(statistic, list("abcd"), first, second).p == pytest.approx(2 / 16)

    def sometimes(values, marks):
        return float("nan") if values[1] == 0 and marks[0] == 1 else statistic(values, marks)

    found = swap_test(sometimes, list("abcd"), first, second)
    assert found.undefined == 8 and found.p == pytest.approx((2 + 8) / 16)


def test_edges():
    nothing = sign_flip_test([np.nan, 1.0], [0.0, np.nan])
    assert np.isnan([nothing.value, nothing.p]).all() and nothing.missing == 2
    some = sign_flip_test([1.0, np.nan, 2.0], [0.0, 1.0, 0.0], clusters=["a", "a", "b"])
    assert some.missing == 1 and some.clusters == 2 and some.value == 1.5 and some.p == 0.5
    one = sign_flip_test([1.0, 3.0], [0.0, 0.0], clusters=["a", "a"])
    assert (one.p, one.clusters, one.samples) == (1.0, 1, 2)
    assert sign_flip_test([1.0, 2.0], [1.0, 2.0]).p == 1.0
    assert np.isnan(swap_test(np.mean, [], ([],), ([],)).p)
    assert np.isnan(swap_test(lambda x: float("nan"), [0, 1], ([1, 2],), ([1, 2],)).p)
    with pytest.raises(ValueError, match="one length"):
        sign_flip_test([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="alternative must be"):
        sign_flip_test([1.0], [1.0], alternative="bigger")
    with pytest.raises(ValueError, match="samples at least 1"):
        swap_test(np.mean, [0], ([1],), ([1],), samples=0)
    with pytest.raises(ValueError, match="columns"):
        swap_test(np.mean, [0], ([1], [2]), ([1],))
    with pytest.raises(ValueError, match="one row a case"):
        swap_test(np.mean, [0, 1], ([1, 2],), ([1],))
