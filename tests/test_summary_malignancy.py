"""Malignancy of a table against scikit-learn, hand-computed values and the plain bootstrap."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.statistics import cluster_bootstrap
from thyroid_jax.evaluate.summary import decision_curve, interval_kind, judged, malignancy_summary, measure
from thyroid_jax.evaluate.summary.entry import area_interval

KEYS = {"value", "low", "high", "n", "undefined", "groups", "replicates", "replicates_undefined"}
NEEDS_BOTH_KINDS = (
    *("malignant_auroc", "malignant_auprc", "malignant_balanced_accuracy"),
    *("malignant_sensitivity_at_specificity_90", "malignant_specificity_at_sensitivity_90"),
)


def drawn(seed=0, n=80):
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    probability = np.round(np.clip(0.3 + 0.3 * truth + 0.2 * random.normal(size=n), 0, 1), 2)
    return (
        truth,
        probability,
        [measure(f"{i}", f"g{i // 2}", p_malignant=probability[i], malignant_truth=truth[i]) for i in range(n)],
    )


def test_malignancy_against_scikit_learn():
    truth, probability, cases = drawn()
    ignored = [
        measure("no truth", "g", p_malignant=0.9),
        measure("no probability", "h", malignant_truth=True),
        Case("neither", "i"),
    ]
    found = malignancy_summary([*cases, *ignored], samples=300)
    called = probability >= 0.5
    expected = {
        "malignant_auroc": sk.roc_auc_score(truth, probability),
        "malignant_auprc": sk.average_precision_score(truth, probability),
        "malignant_sensitivity_at_specificity_90": metrics.sensitivity_at_specificity(probability, truth, 0.9),
        "malignant_specificity_at_sensitivity_90": metrics.specificity_at_sensitivity(probability, truth, 0.9),
        "malignant_accuracy": sk.accuracy_score(truth, called),
        "malignant_balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "malignant_prevalence": truth.mean(),
        "malignant_sensitivity": sk.recall_score(truth, called),
        "malignant_specificity": sk.recall_score(truth, called, pos_label=0),
        "malignant_ppv": sk.precision_score(truth, called),
        "malignant_npv": sk.precision_score(truth, called, pos_label=0),
    }
    assert list(found) == list(expected)
    counts = {"malignant_sensitivity": truth.sum(), "malignant_specificity": (~truth).sum()}
    counts |= {"malignant_ppv": called.sum(), "malignant_npv": (~called).sum()}
    for name, value in expected.items():
        entry = found[name]
        assert entry["value"] == pytest.approx(value) and entry["low"] < value < entry["high"]
        assert (entry["n"], entry["undefined"]) == (counts.get(name, len(cases)), 0)
        assert set(entry) == KEYS
    assert found["malignant_auroc"]["groups"] == 40


def test_half_is_called_malignant():
    cases = [
        measure("a", "a", p_malignant=0.5, malignant_truth=True),
        measure("b", "b", p_malignant=0.49, malignant_truth=0),
    ]
    assert malignancy_summary(cases, samples=20)["malignant_accuracy"]["value"] == 1


def test_malignancy_of_one_kind_and_of_none():
    benign = [measure(f"{i}", f"{i}", p_malignant=0.1 * i, malignant_truth=False) for i in range(8)]
    found = malignancy_summary(benign, samples=50)
    for name in NEEDS_BOTH_KINDS:
        assert np.isnan(found[name]["value"]) and (found[name]["n"], found[name]["undefined"]) == (0, 8)
    assert np.isnan(found["malignant_sensitivity"]["value"]) and found["malignant_sensitivity"]["n"] == 0
    assert found["malignant_specificity"]["value"] == found["malignant_accuracy"]["value"] == 5 / 8
    # One malignant group of nine: a replicate misses it with probability (8/9)^9.
    found = malignancy_summary([*benign, measure("m", "m", p_malignant=0.9, malignant_truth=True)], samples=4000)
    for name in set(NEEDS_BOTH_KINDS) - {"malignant_auroc"}:
        assert found[name]["replicates_undefined"] / 4000 == pytest.approx((8 / 9) ** 9, abs=0.03)
    # The area is perfect, and one independent pair of a malignant and a benign case says hardly anything about it.
    area = found["malignant_auroc"]
    assert (area["value"], area["replicates"]) == (1, 0) and (area["low"], area["high"]) == pytest.approx((0.025, 1))
    other = malignancy_summary([*benign, measure("m", "m", p_malignant=0.35, malignant_truth=True)], samples=10)
    assert other["malignant_auroc"]["value"] == 0.5 and np.isnan(other["malignant_auroc"]["low"])
    assert found["malignant_sensitivity"]["groups"] == 1 and np.isnan(found["malignant_sensitivity"]["low"])
    for cases in ([], [measure("x", "p", p_malignant=0.3)]):
        assert malignancy_summary(cases) == {}


def test_malignancy_intervals_equal_the_plain_bootstrap():
    truth, probability, cases = drawn()
    groups = [case.group for case in cases]
    found = malignancy_summary(cases, samples=150)
    for name, measured in {
        "malignant_auprc": lambda score, truth: sk.average_precision_score(truth, score),
        "malignant_sensitivity_at_specificity_90": lambda score, truth: metrics.sensitivity_at_specificity(
            score, truth, 0.9
        ),
    }.items():
        plain = cluster_bootstrap(measured, groups, probability, truth, samples=150, expanded=True)
        assert [found[name][key] for key in ("low", "high")] == pytest.approx([plain.low, plain.high]), name


def test_predictive_values_without_a_call():
    # Nothing reaches 0.5: there is no case to be right about, and every call of benign is counted.
    cases = [measure(f"{i}", f"{i}", p_malignant=0.1, malignant_truth=i < 2) for i in range(8)]
    found = malignancy_summary(cases, samples=50)
    assert np.isnan(found["malignant_ppv"]["value"]) and found["malignant_ppv"]["n"] == 0
    assert found["malignant_npv"]["value"] == 6 / 8 and found["malignant_npv"]["n"] == 8
    assert found["malignant_prevalence"]["value"] == found["malignant_auprc"]["value"] == 2 / 8
    assert found["malignant_auroc"]["value"] == 0.5


def test_judged_are_the_cases_with_both_values():
    _, _, cases = drawn(n=4)
    table = judged([*cases, measure("x", "g", p_malignant=0.3), Case("y", "h")])
    assert list(table.probability) == [case.p_malignant for case in cases] and table.truth.dtype == bool
    assert list(table.truth) == [case.malignant_truth for case in cases] and list(table.groups) == [
        "g0",
        "g0",
        "g1",
        "g1",
    ]
    assert all(len(column) == 0 for column in judged([]))


def test_decision_curve_is_the_net_benefit_with_the_plain_bootstraps_band():
    truth, probability, cases = drawn()
    cases = [*cases, measure("alone", "alone", p_malignant=0.4, malignant_truth=True)]  # groups of two sizes
    truth, probability = np.r_[truth, True], np.r_[probability, 0.4]
    threshold = np.array([0.3, 0.5])
    curve = decision_curve(cases, threshold, samples=150)
    np.testing.assert_allclose(curve.model, metrics.net_benefit(probability, truth, threshold))
    prevalence = truth.mean()
    np.testing.assert_allclose(curve.treat_all, prevalence - (1 - prevalence) * np.array([3 / 7, 1]))
    for place, at in enumerate(threshold):

        def benefit(score, truth, at=at):
            called = score >= at
            return np.mean(called & truth) - np.mean(called & ~truth) * at / (1 - at)

        plain = cluster_bootstrap(
            benefit, [case.group for case in cases], probability, truth, samples=150, expanded=True
        )
        assert (curve.low[place], curve.high[place]) == pytest.approx((plain.low, plain.high))
    assert (curve.n, curve.groups) == (81, 41)


def test_decision_curve_at_the_edges():
    assert decision_curve([]) is None and decision_curve([measure("x", "p", p_malignant=0.3)]) is None
    alone = decision_curve([measure("x", "p", p_malignant=0.3, malignant_truth=True)])
    assert np.isnan(alone.low).all() and np.isnan(alone.high).all() and len(alone.threshold) == 49
    # A probability of 0.3 is called from the threshold 0.3 on down.
    assert list(alone.model) == [1.0] * 15 + [0.0] * 34 and alone.threshold[14] == 0.3
    with pytest.raises(ValueError, match="thresholds"):
        decision_curve([measure("x", "p", p_malignant=0.3, malignant_truth=True)], [0.5, 1.0])


def test_the_interval_of_the_area_is_delongs_by_group_and_says_so():
    """Against the covariance of Obuchowski, written out pair by pair, and Student's quantile."""
    truth, score, cases = drawn()
    groups = np.array([case.group for case in cases])
    found = malignancy_summary(cases, samples=50, level=0.9)
    x, y = score[truth], score[~truth]
    psi = (x[:, None] > y) + (x[:, None] == y) / 2
    area, p, n = psi.mean(), len(x), len(y)
    names = np.unique(groups)
    a = np.array([(psi.mean(1) - area)[groups[truth] == g].sum() / p for g in names])
    b = np.array([(psi.mean(0) - area)[groups[~truth] == g].sum() / n for g in names])
    g10, g01, g = len(set(groups[truth])), len(set(groups[~truth])), len(names)
    s10, s01 = g10 / (g10 - 1) * (a**2).sum(), g01 / (g01 - 1) * (b**2).sum()
    variance = s10 + s01 + 2 * g / (g - 1) * (a * b).sum()
    df = (s10 + s01) ** 2 / (s10**2 / (g10 - 1) + s01**2 / (g01 - 1))
    width = stats.t.ppf(0.95, df) * np.sqrt(variance) / (area * (1 - area))
    bounds = special.expit(special.logit(area) + np.array([-width, width]))
    entry = found["malignant_auroc"]
    assert entry["value"] == pytest.approx(area) and [entry["low"], entry["high"]] == pytest.approx(bounds)
    kinds = {name: interval_kind(one) for name, one in found.items()}
    assert kinds.pop("malignant_auroc") == "delong" and set(kinds.values()) == {"bootstrap"}
    alone = malignancy_summary([replace(case, group="one patient") for case in cases], samples=50)
    assert {interval_kind(one) for one in alone.values()} == {""}  # nobody can say how patients differ


@pytest.mark.parametrize("why, truth, score, groups, value, bounds", [
    ("all tie", [1, 1, 0, 0], [0.5] * 4, "abcd", 0.5, "pairs"),
    ("perfect", [1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], "abcd", 1.0, (0.025**0.5, 1.0)),
    ("perfectly wrong", [0, 0, 1, 1], [0.9, 0.8, 0.2, 0.1], "abcd", 0.0, (0.0, 1 - 0.025**0.5)),
    ("one malignant group", [1, 1, 0, 0], [0.9, 0.1, 0.5, 0.2], "aabc", 0.5, None),
    ("one group", [1, 0, 1, 0], [0.9, 0.1, 0.5, 0.6], "aaaa", 0.75, None),
    ("one class", [1, 1], [0.9, 0.1], "ab", np.nan, None),
    ("no case", [], [], "", np.nan, None),
])  # fmt: skip
def test_the_area_and_its_interval_at_the_edges(why, truth, score, groups, value, bounds):
    found = area_interval(np.array(score, float), np.array(truth, bool), np.array(list(groups)), level=0.95)
    assert found.value == pytest.approx(value, nan_ok=True) and found.clusters == len(set(groups))
    if bounds is None:
        assert np.isnan(found.low) and np.isnan(found.high)
    elif bounds == "pairs":  # one of two independent pairs: Clopper and Pearson
        exact = stats.binomtest(1, 2).proportion_ci(0.95, method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    else:
        assert (found.low, found.high) == pytest.approx(bounds)
