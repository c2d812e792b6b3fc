"""Crossed bootstrap against enumeration and the closed form of its variance."""

from itertools import product

import numpy as np
import pytest

from thyroid_jax.evaluate.metrics import auroc
from thyroid_jax.evaluate.statistics import cluster_bootstrap, crossed_bootstrap


def weighted_mean(values, weight):
    return weight @ values / weight.sum(axis=-1)


def rows_of(table):
    """Groups, seeds and values of a table f[G S], in random order."""
    groups, seeds = np.indices(table.shape)
    order = np.random.default_rng(9).permutation(table.size)
    return groups.ravel()[order], seeds.ravel()[order], table.ravel()[order]


def test_the_replicates_are_all_draws_of_groups_and_seeds():
    # 2 groups and 2 seeds: 16 draws of equal probability, written down.
    table = np.array([[1.0, 2.0], [5.0, 9.0]])
    every = [table[np.ix_(g, s)].mean() for g in product((0, 1), repeat=2) for s in product((0, 1), repeat=2)]
    found = crossed_bootstrap(weighted_mean, *rows_of(table), samples=40_000, level=0.5, weighted=True)
    for bound, share in ((found.low, 0.25), (found.high, 0.75)):
        assert np.mean(np.array(every) < bound - 1e-9) <= share + 0.01
        assert np.mean(np.array(every) <= bound + 1e-9) >= share - 0.01
    assert found.standard_error == pytest.approx(np.std(every), rel=0.02)
    assert (found.clusters, found.seeds, found.value) == (2, 2, table.mean())


@pytest.mark.parametrize(("groups", "seeds"), [(30, 3), (8, 6)])
@pytest.mark.parametrize("spread", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0.5, 0.7)])
def test_variance_of_the_replicates_is_the_closed_form(groups, seeds, spread):
    # u and v multinomial, u v - 1 = (u - 1) + (v - 1) + (u - 1)(v - 1), three uncorrelated parts.
    random = np.random.default_rng(groups)
    of_group, of_seed, rest = (scale * random.normal(size=size) for scale, size in zip(spread, (groups, seeds, 1)))
    table = of_group[:, None] + of_seed + spread[2] * random.normal(size=(groups, seeds)) + 0 * rest
    by_group, by_seed = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    residual = table - by_group - by_seed + table.mean()
    expected = by_group.var() / groups + by_seed.var() / seeds + (residual**2).mean() / table.size
    found = crossed_bootstrap(weighted_mean, *rows_of(table), samples=40_000, weighted=True)
    assert found.standard_error**2 == pytest.approx(expected, rel=0.04)


def test_expected_variance_is_what_the_docstring_says():
    # Mean over tables of the closed form of the test above, for known components.
    random, (groups, seeds) = np.random.default_rng(0), (12, 3)
    v_group, v_seed, v_rest = 1.0, 0.5, 2.0
    shapes = ((20_000, groups, 1), (20_000, 1, seeds), (20_000, groups, seeds))
    table = sum(np.sqrt(v) * random.normal(size=shape) for v, shape in zip((v_group, v_seed, v_rest), shapes))
    by_group, by_seed, mean = table.mean(2), table.mean(1), table.mean((1, 2))
    residual = table - by_group[:, :, None] - by_seed[:, None] + mean[:, None, None]
    found = by_group.var(1) / groups + by_seed.var(1) / seeds + (residual**2).mean((1, 2)) / (groups * seeds)
    rest, few_groups, few_seeds = v_rest / (groups * seeds), 1 - 1 / groups, 1 - 1 / seeds
    expected = few_groups * (v_group / groups + rest) + few_seeds * (v_seed / seeds + rest)
    assert found.mean() == pytest.approx(expected + few_groups * few_seeds * rest, rel=0.02)
    assert mean.var() == pytest.approx(v_group / groups + v_seed / seeds + rest, rel=0.03)


def test_weights_and_indices_draw_the_same_replicates():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 6)
    seeds, values = np.tile([0, 1, 2], 20), random.normal(size=60)
    slow = crossed_bootstrap(np.mean, groups, seeds, values, samples=200, seed=3)
    fast = crossed_bootstrap(weighted_mean, groups, seeds, values, samples=200, seed=3, weighted=True)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), abs=1e-12)
    other = crossed_bootstrap(np.mean, groups, seeds, values, samples=200, seed=4)
    assert other.low != slow.low


def test_seeds_that_agree_add_nothing_and_seeds_that_differ_widen():
    random = np.random.default_rng(2)
    table = random.normal(size=(40, 1)) + np.zeros((1, 5))
    groups, seeds, values = rows_of(table)
    options = {"samples": 20_000, "weighted": True}
    alone = cluster_bootstrap(weighted_mean, groups, values, **options)
    same = crossed_bootstrap(weighted_mean, groups, seeds, values, **options)
    assert (same.low, same.high) == pytest.approx((alone.low, alone.high), abs=0.02)
    shifted = values + np.linspace(-2, 2, 5)[seeds]
    pooled = cluster_bootstrap(weighted_mean, groups, shifted, **options)
    crossed = crossed_bootstrap(weighted_mean, groups, seeds, shifted, **options)
    # Pooled rows speak about these seeds: their spread does not show.
    assert pooled.high - pooled.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert crossed.high - crossed.low > 2 * (pooled.high - pooled.low)


def test_replicates_without_a_class_are_counted():
    groups, seeds = np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
    positive, score = groups == 3, np.arange(16) * 7 % 16
    statistic = lambda score, positive, weight: auroc(score, positive, weight=weight)
    found = crossed_bootstrap(statistic, groups, seeds, score, positive, samples=3000, weighted=True)
    # Lacking are the draws without group 3, and those of nothing else.
    expected = (7 / 8) ** 8 + (1 / 8) ** 8
    assert found.undefined / found.samples == pytest.approx(expected, abs=0.03) and found.low < found.high


def test_no_interval_and_refusals():
    one_seed = crossed_bootstrap(np.mean, [0, 1], [0, 0], [1.0, 2.0])
    assert one_seed.value == 1.5 and np.isnan(one_seed.low) and (one_seed.clusters, one_seed.seeds) == (2, 1)
    one_group = crossed_bootstrap(np.mean, [0, 0], [0, 1], [1.0, 2.0])
    assert np.isnan(one_group.low) and one_group.samples == 0
    assert np.isnan(crossed_bootstrap(np.mean, [], [], []).value)
    assert np.isnan(crossed_bootstrap(lambda x: float("nan"), [0, 0, 1, 1], [0, 1, 0, 1], np.arange(4)).low)
    with pytest.raises(ValueError, match="group b has no row of seed 7"):
        crossed_bootstrap(np.mean, ["a", "a", "b"], [0, 7, 0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="one row a case"):
        crossed_bootstrap(np.mean, ["a", "a", "b"], [0, 7], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="level must lie"):
        crossed_bootstrap(np.mean, [0, 1], [0, 1], [1.0, 2.0], level=95)
