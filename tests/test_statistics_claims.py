"""Non-inferiority and superiority: decisions against their definitions, p-values against intervals and formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thyroid_jax.evaluate.statistics import (
    cluster_bootstrap,
    decide,
    delong,
    noninferiority,
    noninferiority_areas,
    superior_and_noninferior,
)


def gap(new, reference, weight):
    return weight @ (new - reference) / weight.sum(axis=-1)


def test_decisions_are_those_of_consorts_figure():
    # Piaggio et al. 2012, figure 1, margin 1; the letters are those of the figure.
    for letter, low, high, expected in (
        ("A", 0.2, 1.5, "superior"),
        ("B", -0.3, 1.2, "non-inferior"),
        ("C", -0.8, 0.7, "non-inferior"),
        ("D", -0.9, -0.1, "non-inferior"),  # significantly worse, and yet by less than the margin
        ("E", -1.5, 2.0, "not shown"),
        ("F", -1.4, 0.3, "not shown"),
        ("G", -1.6, -0.4, "not shown"),
        ("H", -3.0, -1.1, "inferior"),
    ):
        assert decide(low, high, margin=1) == expected, letter
        assert decide(-high, -low, margin=1, higher_is_better=False) == expected, letter
    for low, high, expected in ((0, 1, "non-inferior"), (-1, 1, "not shown"), (-2, -1, "not shown")):
        assert decide(low, high, margin=1) == expected  # a bound on the limit does not pass it
    assert decide(np.nan, np.nan, margin=1) == "not shown"
    with pytest.raises(ValueError, match="lies above"):
        decide(1, 0, margin=1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["expanded", "percentile", "bca"]),
    st.booleans(),
    st.floats(0.02, 0.2),
    st.floats(0.1, 2.0),
)
def test_the_decision_is_that_of_the_interval(seed, method, higher_is_better, alpha, margin):
    random = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(15), 2)
    new, reference = random.normal(size=30) + random.normal(0, 1), random.normal(size=30)
    options = {"samples": 400, "weighted": True, "method": method}
    found = noninferiority(
        gap, clusters, new, reference, margin=margin, alpha=alpha, higher_is_better=higher_is_better, **options
    )
    interval = cluster_bootstrap(gap, clusters, new, reference, level=1 - 2 * alpha, **options)
    assert (found.difference, found.low, found.high) == (interval.value, interval.low, interval.high)
    ps = found.p_superior, found.p_noninferior, found.p_worse, found.p_inferior
    if all(abs(p - alpha) > 1e-9 for p in ps):
        assert found.decision == decide(found.low, found.high, margin=margin, higher_is_better=higher_is_better)
        assert found.worse == (found.high < 0 if higher_is_better else found.low > 0)
    assert found.p_noninferior <= found.p_superior and found.p_worse <= found.p_inferior
    mirrored = noninferiority(
        gap, clusters, reference, new, margin=margin, alpha=alpha, higher_is_better=not higher_is_better, **options
    )
    assert mirrored.decision == found.decision and mirrored.p_noninferior == pytest.approx(found.p_noninferior)
    assert (found.margin, found.clusters, found.samples, found.undefined) == (margin, 15, 400, 0)


def test_p_of_a_mean_is_students_shifted_by_the_margin():
    difference = stats.norm.ppf((np.arange(40) + 0.5) / 40) - 0.1
    found = noninferiority(
        gap, np.arange(40), difference, np.zeros(40), margin=0.5, samples=40_000, weighted=True, alpha=0.05
    )
    for p, limit, side in (
        (found.p_superior, 0, "greater"),
        (found.p_noninferior, -0.5, "greater"),
        (found.p_worse, 0, "less"),
        (found.p_inferior, -0.5, "less"),
    ):
        assert p == pytest.approx(stats.ttest_1samp(difference, limit, alternative=side).pvalue, abs=0.003)


def test_areas_by_delongs_standard_error():
    random = np.random.default_rng(0)
    truth = np.arange(80) < 30
    new, reference = (random.normal(size=80) + truth for _ in range(2))
    found = noninferiority_areas(truth, new, reference, margin=0.1)
    expected = delong(truth, new, reference)
    assert (found.low, found.high) == pytest.approx((expected.difference_low, expected.difference_high))
    assert 2 * min(found.p_superior, found.p_worse) == pytest.approx(expected.p)
    covariance = expected.covariance
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert expected.difference_error == pytest.approx(error)
    assert found.p_noninferior == pytest.approx(stats.norm.sf((found.difference + 0.1) / error))
    assert found.p_noninferior + found.p_inferior == pytest.approx(1)
    assert found.decision == decide(found.low, found.high, margin=0.1)
    clusters = np.arange(80) // 2
    grouped = noninferiority_areas(truth, new, reference, margin=0.1, clusters=clusters)
    of_groups = delong(truth, new, reference, clusters=clusters)
    assert (grouped.low, grouped.high) == (of_groups.difference_low, of_groups.difference_high)
    assert grouped.p_noninferior != found.p_noninferior
    by_bootstrap = noninferiority(
        lambda n, r, t: delong(t, n, r).difference, np.arange(80), new, reference, truth, margin=0.1, samples=300
    )
    assert by_bootstrap.p_noninferior == pytest.approx(found.p_noninferior, abs=0.08)


def test_data_without_spread_show_nothing():
    # Twelve cases, right in both models: an interval of 0 to 0, which 12 cases cannot vouch for.
    right = np.ones(12)
    found = noninferiority(gap, np.arange(12), right, right, margin=0.02, weighted=True)
    assert (found.low, found.high, found.decision, found.worse) == (0, 0, "not shown", False)
    assert np.isnan([found.p_superior, found.p_noninferior, found.p_worse, found.p_inferior]).all()
    truth, score = np.arange(12) < 5, np.arange(12.0)
    assert noninferiority_areas(truth, score, score, margin=0.02).decision == "not shown"
    assert noninferiority(gap, ["a"] * 12, right, 0 * right, margin=1, weighted=True).decision == "not shown"
    undefined = noninferiority(lambda x: float("nan"), np.arange(12), right, margin=1)
    assert undefined.decision == "not shown" and np.isnan(undefined.difference)


def test_few_groups_show_nothing():
    difference = np.array([0.10, 0.11, 0.12])
    found = noninferiority(gap, np.arange(3), difference, np.zeros(3), margin=0.05, weighted=True)
    assert found.low > 0 and found.decision == "not shown" and found.p_noninferior > 0.025


def test_replicates_without_a_value_are_counted():
    truth, clusters = np.arange(10) < 1, np.arange(10)
    new = np.random.default_rng(0).normal(size=10)
    found = noninferiority(
        lambda n, r, t: delong(t, n, r).difference, clusters, new, -new, truth, margin=0.1, samples=200
    )
    assert 40 <= found.undefined <= 100


def claims(random, groups, first, second):
    """Results on two measures, of which the mean differences are ``first`` and ``second``."""
    noise = random.normal(size=(2, groups)) + random.normal(size=groups)  # the two measures depend on each other
    options = {"samples": 300, "weighted": True, "seed": int(random.integers(1 << 30)), "alpha": 0.1}
    superior = noninferiority(gap, np.arange(groups), noise[0] + first, np.zeros(groups), margin=1.0, **options)
    second = noninferiority(gap, np.arange(groups), noise[1] + second, np.zeros(groups), margin=1.0, **options)
    return superior_and_noninferior(superior, second)


@pytest.mark.parametrize(("first", "second"), [(0.0, 3.0), (3.0, -1.0), (0.0, -1.0)])
def test_both_claims_are_rarely_made_when_one_is_false(first, second):
    # At the border of one null hypothesis, the other half true beyond doubt: alpha. At both borders: less.
    random = np.random.default_rng(1)
    rate = np.mean([claims(random, 40, first, second).shown for _ in range(200)])
    assert rate <= 0.1 + 2.6 * np.sqrt(0.09 / 200)
    assert rate >= 0.05 or (first, second) == (0.0, -1.0)


def test_both_claims():
    random = np.random.default_rng(0)
    both = claims(random, 40, 3.0, 0.0)
    assert both.shown and both.p == max(both.superior.p_superior, both.noninferior.p_noninferior) < 0.1
    assert "margin 1" in both.statement and "0.1" in both.statement and "intersection-union" in both.statement
    one = claims(random, 40, 3.0, -3.0)
    assert not one.shown and one.p == one.noninferior.p_noninferior
    assert "Superiority on the first measure: shown" in one.statement and "Both together: not shown" in one.statement
    nothing = noninferiority(gap, ["a", "a"], np.ones(2), np.ones(2), margin=1, alpha=0.1, weighted=True)
    lacking = superior_and_noninferior(both.superior, nothing)
    assert not lacking.shown and np.isnan(lacking.p)
    other = noninferiority(gap, [0, 1], np.ones(2), np.ones(2), margin=1, weighted=True)
    with pytest.raises(ValueError, match="one alpha"):
        superior_and_noninferior(both.superior, other)


def test_the_statement_names_margin_direction_and_error_rate():
    difference = np.random.default_rng(0).normal(size=60) * 0.1 + 0.05
    found = noninferiority(
        gap, np.arange(60), difference, np.zeros(60), margin=0.1, higher_is_better=False, weighted=True
    )
    assert (found.decision, found.worse) == ("non-inferior", True)
    for part in ("non-inferior: ", "margin 0.1", "lower is better", "alpha 0.025", "0.95 interval", "significantly"):
        assert part in found.statement


@pytest.mark.parametrize("margin", [0, -0.1, float("nan"), float("inf")])
def test_a_margin_must_be_stated(margin):
    for call in (
        lambda: noninferiority(gap, [0, 1], [1, 2], [1, 2], margin=margin),
        lambda: noninferiority_areas([0, 1], [0.1, 0.2], [0.1, 0.2], margin=margin),
        lambda: decide(0, 1, margin=margin),
    ):
        with pytest.raises(ValueError, match="margin must be positive"):
            call()
    with pytest.raises(ValueError, match="alpha must lie"):
        noninferiority(gap, [0, 1], [1, 2], [1, 2], margin=1, alpha=0.5)
