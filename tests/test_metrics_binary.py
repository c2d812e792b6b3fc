"""Scores for a yes/no truth against scikit-learn, hand-computed values and slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from thyroid_jax.evaluate import metrics

NAN = float("nan")

# Ten cases, two ties: positive and negative cases at each score, from the highest on.
#   0.9: 2+   0.8: 1+ 1-   0.6: 1-   0.5: 1+ 2-   0.2: 2-
SCORE = np.array([0.9, 0.9, 0.8, 0.8, 0.6, 0.5, 0.5, 0.5, 0.2, 0.2])
POSITIVE = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0], bool)

MEASURES = {
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "sensitivity": lambda *given, **weight: metrics.sensitivity_at_specificity(*given, 0.9, **weight),
    "specificity": lambda *given, **weight: metrics.specificity_at_sensitivity(*given, 0.9, **weight),
}


def drawn(seed, n, coarse):
    random = np.random.default_rng(seed)
    score, positive = random.random(n), random.random(n) < 0.4
    return (np.round(score, 1) if coarse else score), positive, random


def test_by_hand():
    # 24 pairs: the positives score above 12, 5 + 1/2, and 2 + 2/2 of the negatives.
    assert metrics.auroc(SCORE, POSITIVE) == pytest.approx((12 + 5.5 + 3) / 24)
    assert metrics.average_precision(SCORE, POSITIVE) == pytest.approx((2 * 1 + 1 * 3 / 4 + 1 * 4 / 8) / 4)
    curve = metrics.roc_curve(SCORE, POSITIVE)
    assert list(curve.threshold) == [np.inf, 0.9, 0.8, 0.6, 0.5, 0.2]
    np.testing.assert_allclose(curve.false_positive_rate, np.array([0, 0, 1, 2, 4, 6]) / 6)
    np.testing.assert_allclose(curve.true_positive_rate, np.array([0, 2, 3, 3, 4, 4]) / 4)
    curve = metrics.precision_recall_curve(SCORE, POSITIVE)
    assert list(curve.threshold) == [0.9, 0.8, 0.6, 0.5, 0.2]
    np.testing.assert_allclose(curve.recall, [0.5, 0.75, 0.75, 1, 1])
    np.testing.assert_allclose(curve.precision, [1, 3 / 4, 3 / 5, 4 / 8, 4 / 10])


@pytest.mark.parametrize(
    "specificity, sensitivity",
    # Corners (specificity, sensitivity): (1, 0.5) above (1, 0), (5/6, 0.75), (4/6, 0.75), (2/6, 1), (0, 1).
    [(1, 0.5), (5 / 6, 0.75), (4 / 6, 0.75), (0.75, 0.75), (0.9, 0.5 + 0.25 * 0.6), (0.5, 0.875), (2 / 6, 1), (0, 1)],
)
def test_sensitivity_at_a_specificity_by_hand(specificity, sensitivity):
    assert metrics.sensitivity_at_specificity(SCORE, POSITIVE, specificity) == pytest.approx(sensitivity)


@pytest.mark.parametrize(
    "sensitivity, specificity",
    [
        (1, 2 / 6),
        (0.75, 5 / 6),
        (0.875, 0.5),
        (0.9, 4 / 6 - 0.6 * 2 / 6),
        (0.6, 1 - 0.4 / 6),
        (0.5, 1),
        (0.2, 1),
        (0, 1),
    ],
)
def test_specificity_at_a_sensitivity_by_hand(sensitivity, specificity):
    assert metrics.specificity_at_sensitivity(SCORE, POSITIVE, sensitivity) == pytest.approx(specificity)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40), st.booleans(), st.booleans())
def test_against_scikit_learn(seed, n, coarse, with_weight):
    score, positive, random = drawn(seed, n, coarse)
    if not positive.any() or positive.all():
        return
    weight = random.random(n) + 0.1 if with_weight else np.ones(n)
    area, precision_area = (measure(score, positive, weight=weight) for measure in list(MEASURES.values())[:2])
    assert area == pytest.approx(sk.roc_auc_score(positive, score, sample_weight=weight))
    assert precision_area == pytest.approx(sk.average_precision_score(positive, score, sample_weight=weight))

    roc = metrics.roc_curve(score, positive, weight=weight)
    expected = sk.roc_curve(positive, score, sample_weight=weight, drop_intermediate=False)
    for found, theirs in zip((roc.false_positive_rate, roc.true_positive_rate, roc.threshold), expected):
        np.testing.assert_allclose(found, theirs)
    assert np.trapezoid(roc.true_positive_rate, roc.false_positive_rate) == pytest.approx(area)

    found = metrics.precision_recall_curve(score, positive, weight=weight)
    precision, recall, threshold = sk.precision_recall_curve(positive, score, sample_weight=weight)
    np.testing.assert_allclose(found.threshold[::-1], threshold)
    np.testing.assert_allclose(found.precision[::-1], precision[:-1])
    np.testing.assert_allclose(found.recall[::-1], recall[:-1], atol=1e-12)
    assert (np.diff(found.recall, prepend=0) * found.precision).sum() == pytest.approx(precision_area)


def highest_by_random_thresholds(curve, specificity):
    """The best sensitivity of one threshold, or of two neighbours of which one is drawn, that keeps the specificity."""
    x, y = curve.false_positive_rate, curve.true_positive_rate
    allowed = 1 - specificity
    best = max(y[x <= allowed + 1e-12])
    for i in range(len(x) - 1):
        if x[i] <= allowed < x[i + 1]:
            best = max(best, y[i] + (y[i + 1] - y[i]) * (allowed - x[i]) / (x[i + 1] - x[i]))
    return best


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40), st.booleans(), st.sampled_from([0, 0.1, 0.5, 0.7, 0.9, 0.95, 1]))
def test_operating_points_against_a_loop(seed, n, coarse, level):
    score, positive, _ = drawn(seed, n, coarse)
    if not positive.any() or positive.all():
        return
    expected = highest_by_random_thresholds(metrics.roc_curve(score, positive), level)
    assert metrics.sensitivity_at_specificity(score, positive, level) == pytest.approx(expected)
    # With the two kinds exchanged and the score reversed, one is the other.
    assert metrics.specificity_at_sensitivity(-score, ~positive, level) == pytest.approx(expected)


@pytest.mark.parametrize("n", [10, 30, 70, 110])
def test_a_point_that_rounding_misses(n):
    # A tenth of the negatives score above all positives, the others below: the curve goes up at 0.1, and 1 - 0.9 < 0.1.
    few = n // 10
    score = np.r_[np.full(few, 0.9), np.full(n - few, 0.2), np.full(4, 0.8)]
    positive = np.arange(n + 4) >= n
    assert metrics.sensitivity_at_specificity(score, positive, 0.9) == 1
    assert metrics.specificity_at_sensitivity(-score, ~positive, 0.9) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_weight_is_repetition(seed, coarse):
    score, positive, random = drawn(seed, 15, coarse)
    weight = random.integers(0, 3, size=(3, 2, 15))
    for name, measure in MEASURES.items():
        found = measure(score, positive, weight=weight)
        assert found.shape == (3, 2)
        for at in np.ndindex(3, 2):
            rows = np.repeat(np.arange(15), weight[at])
            expected = measure(score[rows], positive[rows])
            assert found[at] == pytest.approx(expected, nan_ok=True), name
    roc, precision_recall = (
        curve(score, positive, weight=weight) for curve in (metrics.roc_curve, metrics.precision_recall_curve)
    )
    assert roc.true_positive_rate.shape == (3, 2, len(roc.threshold))
    assert precision_recall.precision.shape == (3, 2, len(precision_recall.threshold))


@pytest.mark.parametrize(
    "score, positive, expected",
    [
        ([0.2, 0.7], [False, False], dict.fromkeys(MEASURES, NAN)),
        ([0.2, 0.7], [True, True], dict.fromkeys(MEASURES, NAN)),
        ([], [], dict.fromkeys(MEASURES, NAN)),
        # All tie: the chance line, and the share of positives.
        ([0.5] * 4, [1, 0, 0, 0], {"auroc": 0.5, "average_precision": 0.25, "sensitivity": 0.1, "specificity": 0.1}),
        ([0.9, 0.8, 0.2], [1, 1, 0], dict.fromkeys(MEASURES, 1)),
        ([0.1, 0.2, 0.8], [1, 1, 0], {"auroc": 0, "average_precision": 7 / 12, "sensitivity": 0, "specificity": 0}),
    ],
    ids=["no positive", "no negative", "empty", "all tie", "perfect", "perfectly wrong"],
)
def test_at_the_edges(score, positive, expected):
    score, positive = np.array(score, float), np.array(positive, bool)
    for name, measure in MEASURES.items():
        assert measure(score, positive) == pytest.approx(expected[name], nan_ok=True), name
        assert measure(score, positive, weight=np.zeros((2, len(score)))) == pytest.approx([NAN, NAN], nan_ok=True)


def test_a_replicate_without_a_kind_is_nan():
    weight = np.array([np.ones(10), POSITIVE, ~POSITIVE], float)
    for measure in MEASURES.values():
        assert list(np.isnan(measure(SCORE, POSITIVE, weight=weight))) == [False, True, True]


def test_curves_of_one_kind_and_of_none():
    benign = metrics.roc_curve(SCORE[:2], np.array([False, False]))
    assert np.isnan(benign.true_positive_rate).all() and list(benign.false_positive_rate) == [0, 1]
    found = metrics.precision_recall_curve(SCORE[:2], np.array([False, False]))
    assert np.isnan(found.recall).all() and list(found.precision) == [0]
    nothing = np.zeros(0), np.zeros(0, bool)
    assert len(metrics.precision_recall_curve(*nothing).recall) == 0
    assert list(metrics.roc_curve(*nothing).threshold) == [np.inf]


def test_net_benefit_by_hand():
    # At 0.5: 4 true and 4 false positives of 10; at 0.8: 3 and 1; at 0.95 nobody is treated.
    found = metrics.net_benefit(SCORE, POSITIVE, np.array([0.5, 0.8, 0.95]))
    np.testing.assert_allclose(found, [0.4 - 0.4, 0.3 - 0.1 * 4, 0], atol=1e-15)
    treat_all = metrics.net_benefit(np.ones(10), POSITIVE, np.array([0.25]))
    np.testing.assert_allclose(treat_all, 0.4 - 0.6 / 3)
    # A perfect score is worth the prevalence at every threshold.
    np.testing.assert_allclose(metrics.net_benefit(POSITIVE, POSITIVE, np.arange(1, 100) / 100), 0.4)


def test_net_benefit_weight_is_repetition():
    random = np.random.default_rng(0)
    weight, threshold = random.integers(0, 3, size=(4, 10)), np.array([0.1, 0.5, 0.6])
    found = metrics.net_benefit(SCORE, POSITIVE, threshold, weight=weight)
    for row, value in zip(weight, found):
        rows = np.repeat(np.arange(10), row)
        np.testing.assert_allclose(value, metrics.net_benefit(SCORE[rows], POSITIVE[rows], threshold))
    assert np.isnan(metrics.net_benefit(SCORE, POSITIVE, threshold, weight=np.zeros(10))).all()
    assert np.isnan(metrics.net_benefit(SCORE[:0], POSITIVE[:0], threshold)).all()


def test_ill_input_is_refused():
    curves = (metrics.roc_curve, metrics.precision_recall_curve, lambda *a: metrics.net_benefit(*a, np.array([0.5])))
    for measure in (*MEASURES.values(), *curves):
        for score, positive in (([NAN, 1], [0, 1]), ([0.5], [0, 1]), ([[0.5, 1]], [[0, 1]])):
            with pytest.raises(ValueError, match="vectors of one length without NaN"):
                measure(np.array(score), np.array(positive, bool))
    for measure in (metrics.sensitivity_at_specificity, metrics.specificity_at_sensitivity):
        for level in (-0.1, 1.1, 90, NAN):
            with pytest.raises(ValueError, match="must lie in"):
                measure(SCORE, POSITIVE, level)
    for threshold in ([0.0], [1.0], [NAN], 0.5):
        with pytest.raises(ValueError, match="thresholds"):
            metrics.net_benefit(SCORE, POSITIVE, np.array(threshold))
