"""Grades against scikit-learn and hand-computed values."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.metrics import confusion_matrix


def test_quadratic_kappa_by_hand():
    # 10 cases, 3 grades: observed cost 1 + 1 + 4 = 6, chance cost 13.8.
    confusion = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 2]])
    rows, columns = [4, 3, 3], [4, 3, 3]
    chance = sum((i - j) ** 2 * rows[i] * columns[j] for i in range(3) for j in range(3)) / 10
    assert chance == 13.8
    assert metrics.quadratic_kappa(confusion) == pytest.approx(1 - 6 / 13.8)
    assert metrics.quadratic_kappa(np.diag([2, 3, 4])) == 1
    assert metrics.quadratic_kappa(np.outer([2, 3, 5], [1, 4, 2])) == pytest.approx(0)
    assert metrics.quadratic_kappa([[0, 2], [2, 0]]) == -1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 40), st.booleans())
def test_grading_against_scikit_learn(seed, k, n, coarse):
    random = np.random.default_rng(seed)
    truth, probability = random.integers(k, size=n), random.dirichlet(np.ones(k), n)
    probability = np.round(probability, 1) if coarse else probability  # ties
    ours = metrics.grading(probability, truth)
    predicted = probability.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of absent grades
        kappas = {
            name: sk.cohen_kappa_score(truth, predicted, labels=range(k), weights=name.removesuffix("_kappa"))
            for name in ("linear_kappa", "quadratic_kappa")
        }
        expected = {
            "accuracy": sk.accuracy_score(truth, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "macro_f1": sk.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0),
            "weighted_f1": sk.f1_score(truth, predicted, average="weighted", zero_division=0),
            "mean_absolute_grade_error": sk.mean_absolute_error(truth, predicted),
        }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value), name
    if len(set(truth) | set(predicted)) > 1:
        for name, kappa in kappas.items():
            assert ours[name] == pytest.approx(kappa), name
    grades = np.unique(truth)
    for name, area in (("macro_auroc", sk.roc_auc_score), ("macro_auprc", sk.average_precision_score)):
        areas = [area(truth == grade, probability[:, grade]) for grade in grades] if len(grades) > 1 else []
        assert ours[name] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True), name
    assert set(ours) == {*expected, *kappas, "macro_auroc", "macro_auprc"}
    np.testing.assert_array_equal(
        confusion_matrix(predicted, truth, k), sk.confusion_matrix(truth, predicted, labels=range(k))
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_weight_is_repetition(seed):
    random = np.random.default_rng(seed)
    n, k = 15, 4
    truth, predicted, probability = (
        random.integers(k, size=n),
        random.integers(k, size=n),
        np.round(random.random((n, k)), 1),
    )
    over, weight = metrics.occurring(truth, k), random.integers(0, 4, size=(3, 2, n))
    confusion = confusion_matrix(predicted, truth, k, weight=weight)
    area = metrics.macro_auroc(probability, truth, over, weight=weight)
    assert confusion.shape == (3, 2, k, k) and area.shape == (3, 2)
    for at in np.ndindex(3, 2):
        rows = np.repeat(np.arange(n), weight[at])
        once = confusion_matrix(predicted[rows], truth[rows], k)
        np.testing.assert_array_equal(confusion[at], once)
        assert area[at] == pytest.approx(metrics.macro_auroc(probability[rows], truth[rows], over), nan_ok=True)
        for metric in (
            *(metrics.accuracy, metrics.quadratic_kappa, metrics.linear_kappa, metrics.weighted_f1),
            metrics.mean_absolute_grade_error,
        ):
            assert metric(confusion)[at] == pytest.approx(metric(once), nan_ok=True)
        for metric in (metrics.balanced_accuracy, metrics.macro_f1):
            assert metric(confusion, over)[at] == pytest.approx(metric(once, over), nan_ok=True)
        for metric in PER_GRADE:
            np.testing.assert_allclose(metric(confusion)[at], metric(once))


def test_averages_over_grades_are_nan_when_a_chosen_grade_has_no_case():
    # Grade 2 is predicted and never true, grade 3 is neither.
    confusion = np.array([[3, 1, 1, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    over = np.array([True, True, False, False])
    assert metrics.balanced_accuracy(confusion, over) == pytest.approx((3 / 5 + 1) / 2)
    assert metrics.macro_f1(confusion, over) == pytest.approx((6 / 8 + 8 / 9) / 2)
    for more in ([True, True, True, False], [True, True, False, True]):
        assert np.isnan(metrics.balanced_accuracy(confusion, np.array(more)))
        assert np.isnan(metrics.macro_f1(confusion, np.array(more)))
    assert np.isnan(metrics.balanced_accuracy(confusion, np.zeros(4, bool)))
    # A stack: only the matrix that lacks the second grade is NaN.
    stack = np.stack([confusion, confusion * np.array([1, 0, 1, 1])[:, None]])
    assert list(np.isnan(metrics.balanced_accuracy(stack, over))) == [False, True]
    assert list(np.isnan(metrics.macro_f1(stack, over))) == [False, True]
    # Without a choice, the grades with a true case anywhere in the stack are averaged over, in every matrix of it.
    for metric in (metrics.balanced_accuracy, metrics.macro_f1):
        np.testing.assert_array_equal(metric(stack), metric(stack, over))
        assert metric(stack[1]) == metric(stack[1], np.array([True, False, False, False]))
    # Accuracy and kappa average over cases: they are what they are without the second grade.
    assert metrics.accuracy(stack)[1] == pytest.approx(3 / 5)
    assert metrics.quadratic_kappa(stack)[1] == pytest.approx(0)
    probability, truth = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]]), np.array([0, 1, 1])
    weight = np.array([[1.0, 1, 1], [0, 1, 2]])
    over = metrics.occurring(truth, 3)
    area = metrics.macro_auroc(probability, truth, over, weight=weight)
    assert area[0] == 1 and np.isnan(area[1])
    for mean_area in (metrics.macro_auroc, metrics.macro_auprc):
        assert list(np.isnan(mean_area(probability, truth, over, weight=weight))) == [False, True]
        assert np.isnan(mean_area(probability, truth, np.array([True, True, True])))


def test_grading_at_the_edges():
    nothing = metrics.grading(np.zeros((0, 3)), np.zeros(0, int))
    assert all(np.isnan(value) for value in nothing.values())
    # One grade alone is graded without a fault, but nothing was told apart.
    one_grade = metrics.grading(np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([1, 1]))
    assert one_grade["accuracy"] == one_grade["macro_f1"] == 1
    assert one_grade["weighted_f1"] == 1 and one_grade["mean_absolute_grade_error"] == 0
    assert all(np.isnan(one_grade[name]) for name in ("macro_auroc", "macro_auprc", "quadratic_kappa", "linear_kappa"))
    tie = metrics.grading(np.array([[0.5, 0.5]]), np.array([0]))
    assert tie["accuracy"] == 1
    for truth, match in (([0, 2], "integers in 0..1"), ([0, -1], "integers in 0..1"), ([0], "one length")):
        with pytest.raises(ValueError, match=match):
            metrics.grading(np.ones((2, 2)) / 2, np.array(truth))
    with pytest.raises(ValueError, match="without NaN"):
        metrics.grading(np.array([[np.nan, 1.0]]), np.array([0]))


PER_GRADE = (metrics.grade_sensitivity, metrics.grade_specificity, metrics.grade_precision, metrics.grade_f1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 40))
def test_each_grade_against_scikit_learn(seed, k, n):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(k, size=n), random.integers(k, size=n)
    sensitivity, specificity, precision, f1 = (metric(confusion_matrix(predicted, truth, k)) for metric in PER_GRADE)
    expected = sk.precision_recall_fscore_support(truth, predicted, labels=range(k), zero_division=np.nan)
    np.testing.assert_allclose(precision, expected[0])
    np.testing.assert_allclose(sensitivity, expected[1])
    true = np.bincount(truth, minlength=k) > 0
    f1s = sk.f1_score(truth, predicted, labels=range(k), average=None, zero_division=0)
    np.testing.assert_allclose(f1, np.where(true, f1s, np.nan))
    for grade, ((tn, fp), _) in enumerate(sk.multilabel_confusion_matrix(truth, predicted, labels=range(k))):
        assert specificity[grade] == pytest.approx(tn / (tn + fp) if tn + fp else np.nan, nan_ok=True)


def test_each_grade_by_hand_and_at_the_edges():
    # Grade 1 is true of one case and never given, grade 2 is given once and never true, grade 3 is neither.
    confusion = np.array([[3, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    nan = np.nan
    expected = {
        metrics.grade_sensitivity: [3 / 4, 0, nan, nan],
        metrics.grade_specificity: [0, 1, 4 / 5, 1],
        metrics.grade_precision: [3 / 4, nan, 0, nan],
        metrics.grade_f1: [3 / 4, 0, nan, nan],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(metric(confusion), values)
        np.testing.assert_allclose(metric(np.zeros((2, 4, 4))), np.full((2, 4), nan))
    assert np.isnan(metrics.grade_specificity([[5, 1], [0, 0]])[0])  # all cases are of the first grade
    assert metrics.weighted_f1(confusion) == pytest.approx(4 / 5 * 3 / 4)
    assert metrics.mean_absolute_grade_error(confusion) == pytest.approx((2 + 1) / 5)
    for metric in (metrics.weighted_f1, metrics.mean_absolute_grade_error):
        assert np.isnan(metric(np.zeros((4, 4))))


def test_linear_kappa_by_hand():
    # As for the quadratic one: observed cost 1 + 1 + 2 = 4, chance cost 9.
    confusion = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 2]])
    chance = sum(abs(i - j) * (4, 3, 3)[i] * (4, 3, 3)[j] for i in range(3) for j in range(3)) / 10
    assert chance == 9
    assert metrics.linear_kappa(confusion) == pytest.approx(1 - 4 / 9)
    assert metrics.linear_kappa(np.diag([2, 3, 4])) == 1
    # With two grades all weights of a miss are equal.
    two = np.array([[5, 2], [1, 4]])
    assert metrics.linear_kappa(two) == pytest.approx(metrics.quadratic_kappa(two))


def test_at_or_above():
    probability = np.array([[0.1, 0.2, 0.7], [0.7, 0.1, 0.2], [0.7, 0.0, 0.3]])
    found = metrics.at_or_above(probability)
    np.testing.assert_allclose(found, [[1, 0.9, 0.7], [1, 0.3, 0.2], [1, 0.3, 0.3]])
    assert 0.1 + 0.2 > 0.3 and found[1, 1] == found[2, 1]  # equal sums tie, whatever their rounding
    assert metrics.at_or_above(np.zeros((0, 3))).shape == (0, 3)
