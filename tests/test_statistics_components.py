"""Variance components against statsmodels, closed forms and simulation."""

import numpy as np
import pytest
from scipy import stats

from thyroid_jax.evaluate.statistics import variance_components

# Eight groups (rows) by four seeds.
TABLE = np.array(
    [
        [0.013, -0.02, 0.029, 0.048],
        [-0.015, 0.009, -0.012, 0.003],
        [-0.059, -0.013, -0.022, 0.022],
        [-0.03, -0.043, -0.09, -0.034],
        [-0.014, -0.012, -0.039, -0.01],
        [-0.069, -0.066, 0.012, -0.047],
        [0.012, 0.037, 0.015, 0.027],
        [0.08, 0.077, 0.06, 0.096],
    ]
)


def components_of(table, **options):
    groups, seeds = np.indices(table.shape)
    return variance_components(table.ravel(), groups.ravel(), seeds.ravel(), **options)


def test_against_statsmodels():
    # statsmodels 0.15.0, MixedLM by REML with crossed components: vcomp, scale, the intercept and its standard error.
    found = components_of(TABLE)
    assert (found.group, found.seed, found.residual) == pytest.approx((1.55106e-3, 3.4508e-5, 5.64068e-4), rel=1e-4)
    assert (found.value, found.standard_error) == pytest.approx((-0.001719, 0.014837), abs=5e-7)
    assert found.group_share + found.seed_share + found.residual_share == pytest.approx(1)
    assert found.group_share == pytest.approx(1.55106e-3 / (1.55106e-3 + 3.4508e-5 + 5.64068e-4), rel=1e-4)
    # Satterthwaite's degrees of freedom by hand, from the mean squares that statsmodels' anova_lm prints.
    mg, ms, mr = 0.006768, 0.000840, 0.000564
    df = (mg + ms - mr) ** 2 / (mg**2 / 7 + ms**2 / 3 + mr**2 / 21)
    assert found.df == pytest.approx(df, rel=2e-3)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, found.df) * found.standard_error)
    assert (found.groups, found.seeds, found.level) == (8, 4, 0.95)


def test_order_and_names_do_not_matter_and_rows_of_a_cell_are_averaged():
    random = np.random.default_rng(0)
    groups, seeds = (index.ravel() for index in np.indices(TABLE.shape))
    offset = random.normal(size=TABLE.size)
    rows = np.concatenate([TABLE.ravel() + offset, TABLE.ravel() - offset])
    order = random.permutation(2 * TABLE.size)
    names = np.array([f"patient {g}" for g in np.tile(groups, 2)])
    found = variance_components(rows[order], names[order], np.tile(seeds, 2)[order])
    expected = components_of(TABLE)
    assert (found.group, found.seed, found.residual, found.low) == pytest.approx(
        (expected.group, expected.seed, expected.residual, expected.low)
    )


def test_estimates_are_right_on_average():
    random = np.random.default_rng(1)
    found = []
    for _ in range(2000):
        table = random.normal(size=(10, 1)) + 0.5 * random.normal(size=(1, 4)) + 0.7 * random.normal(size=(10, 4))
        result = components_of(table)
        found.append([result.group, result.seed, result.residual])
    np.testing.assert_allclose(np.mean(found, axis=0), [1, 0.25, 0.49], rtol=0.05)


def test_seeds_that_agree_give_students_interval_of_the_groups():
    values = np.random.default_rng(4).normal(size=9)
    found = components_of(np.repeat(values[:, None], 3, axis=1))
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.seed, found.residual, found.group_share, found.df) == (0, 0, 1, 8)
    turned = components_of(np.repeat(values[None], 3, axis=0))
    assert (turned.low, turned.high) == pytest.approx((expected.low, expected.high))
    assert (turned.seed_share, turned.df) == (1, 8)


def test_negative_estimates_are_kept_and_do_not_shrink_the_interval():
    # Rows and columns with equal means: both mean squares are 0, and the residual is all there is.
    table = np.array([[1.0, -1.0], [-1.0, 1.0]])
    found = components_of(table)
    assert found.group < 0 and found.seed < 0 and (found.group_share, found.residual_share) == (0, 1)
    # One negative: the standard error is that of the groups alone, never less.
    table = np.array([[2.0, 0.0], [5.0, 7.0], [1.0, -1.0], [3.0, 5.0]])
    found = components_of(table)
    assert found.seed < 0 < found.group
    assert found.standard_error >= table.mean(1).std(ddof=1) / 2 - 1e-12 and found.df >= 1


def test_pure_noise_leaves_the_least_degrees_of_freedom():
    # Satterthwaite's formula of three like mean squares: 1 / (1/2 + 1/2 + 1/4) = 0.8, taken as min(G, S) - 1 = 2.
    random = np.random.default_rng(0)
    found = [components_of(random.normal(size=(3, 3))) for _ in range(50)]
    assert min(result.df for result in found) == 2


@pytest.mark.parametrize(("seeds", "least", "most"), [(3, 0.92, 0.99), (5, 0.93, 0.985)])
def test_coverage(seeds, least, most):
    random, hits = np.random.default_rng(seeds), 0
    for _ in range(600):
        table = random.normal(size=(25, 1)) + 0.3 * random.normal(size=(1, seeds)) + random.normal(size=(25, seeds))
        found = components_of(table)
        hits += found.low <= 0 <= found.high
    assert least <= hits / 600 <= most


def test_without_spread():
    found = components_of(np.full((3, 2), 0.7))
    assert (found.standard_error, found.low, found.high) == (0, found.value, found.value)
    assert np.isnan([found.df, found.group_share]).all()


def test_refusals():
    with pytest.raises(ValueError, match="group 1 has no row of seed 5"):
        variance_components([1.0, 2.0, 3.0], [0, 0, 1], [4, 5, 4])
    with pytest.raises(ValueError, match="two groups and two seeds"):
        variance_components([1.0, 2.0], [0, 1], [0, 0])
    with pytest.raises(ValueError, match="not finite"):
        variance_components([1.0, np.nan], [0, 1], [0, 0])
    with pytest.raises(ValueError, match="one length"):
        variance_components([1.0, 2.0], [0, 1], [0])
    with pytest.raises(ValueError, match="level"):
        components_of(TABLE, level=95)
