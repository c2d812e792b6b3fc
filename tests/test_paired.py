"""Paired differences: closed forms for three groups, scikit-learn's measures on resampled rows, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as judge

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.paired import MEASURES, difference, matched
from thyroid_jax.evaluate.statistics import cluster_bootstrap

GRADES = ("low", "middle", "high")


def outlined(dice, groups="aabcc"):
    return [Case(case=str(i), group=group, dice=value) for i, (group, value) in enumerate(zip(groups, dice))]


def table(seed, n=60):
    """A model's table: outlines, grades and malignancy, of two images of each of 30 groups. The truth is one."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    cases = []
    for i in range(n):
        grade, malignant = int(truth.integers(3)), bool(truth.integers(2))
        scores = rng.dirichlet(np.ones(3) + 2 * np.eye(3)[grade])
        cases.append(
            Case(
                case=f"case {i}",
                group=f"patient {i // 2}",
                dice=float(rng.uniform()),
                grade_truth=GRADES[grade],
                grade_predicted=GRADES[scores.argmax()],
                probability=dict(zip(GRADES, scores.tolist())),
                malignant_truth=malignant,
                p_malignant=float(np.clip(0.3 * malignant + 0.7 * rng.uniform(), 0, 1)),
            )
        )
    return cases


def measured(cases):
    """Every measure of some rows, by scikit-learn; NaN where a class is missing."""
    truth = np.array([GRADES.index(case.grade_truth) for case in cases])
    predicted = np.array([GRADES.index(case.grade_predicted) for case in cases])
    probability = np.array([list(case.probability.values()) for case in cases])
    malignant = [case.malignant_truth for case in cases]
    all_there = len(set(truth)) == 3 and len(set(malignant)) == 2
    areas = [judge.roc_auc_score(truth == k, probability[:, k]) for k in range(3)] if all_there else np.nan
    return {
        "dice": np.mean([case.dice for case in cases]),
        "quadratic_kappa": judge.cohen_kappa_score(truth, predicted, weights="quadratic", labels=[0, 1, 2]),
        "macro_auroc": np.mean(areas),
        "malignant_auroc": judge.roc_auc_score(malignant, [case.p_malignant for case in cases])
        if all_there
        else np.nan,
    }


def bounds(interval):
    return interval.value, interval.low, interval.high


def test_of_three_groups_the_interval_is_from_the_lowest_to_the_highest_mean_difference_of_a_group():
    """The expanded 95 % interval of three groups leaves out 7e-8 of the replicates on either side: none."""
    first, second = outlined([0.9, 0.7, 0.5, 0.8, 0.6]), outlined([0.6, 0.6, 0.7, 0.5, 0.7])
    found = difference(first, second, "dice")  # per case 0.3, 0.1 | -0.2 | 0.3, -0.1
    assert bounds(found) == pytest.approx((0.08, -0.2, 0.2))
    assert (found.clusters, found.undefined) == (3, 0)


def test_a_constant_difference_has_no_spread_however_the_values_vary():
    """Both tables are resampled alike."""
    values = np.array([0.1, 0.9, 0.3, 0.7])
    found = difference(outlined(values + 0.05, "abcd"), outlined(values, "abcd"), "dice")
    assert bounds(found) == pytest.approx((0.05, 0.05, 0.05))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_difference_is_scikit_learns_on_rows_resampled_by_group(measure):
    first, second = table(1), table(2)

    def gap(rows):
        one, two = ([cases[row] for row in rows] for cases in (first, second))
        return measured(one)[measure] - measured(two)[measure]

    groups = [case.group for case in first]
    expected = cluster_bootstrap(gap, groups, np.arange(len(first)), samples=100, seed=3, expanded=True)
    found = difference(first, second, measure, samples=100, seed=3)
    assert bounds(found) == pytest.approx(bounds(expected), abs=1e-9)
    assert found.low < found.value < found.high and found.clusters == 30


@pytest.mark.parametrize("measure", MEASURES)
def test_the_other_way_round_it_changes_sign_and_of_one_table_it_is_zero(measure):
    first, second = table(1), table(2)
    found, reverse = (difference(*pair, measure, samples=200) for pair in ((first, second), (second, first)))
    assert bounds(reverse) == pytest.approx((-found.value, -found.high, -found.low), abs=1e-9)
    assert bounds(difference(first, first, measure, samples=50)) == (0, 0, 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_order_of_the_rows_does_not_matter(measure):
    first, second = table(1), table(2)
    shuffled = [second[row] for row in np.random.default_rng(0).permutation(len(second))]
    found = difference(first, shuffled, measure, samples=100)
    assert bounds(found) == pytest.approx(bounds(difference(first, second, measure, samples=100)), abs=1e-12)
    assert [(a.case, b.case) for a, b in matched(first, shuffled)] == [(case.case, case.case) for case in first]


def test_tables_of_other_cases_are_refused():
    first, second = outlined([0.1] * 5), outlined([0.2] * 5)
    with pytest.raises(InputError, match="2 rows are in one alone, the first is '0'; compare runs of the same folds"):
        difference(first[1:], second[:4], "dice")
    with pytest.raises(InputError, match="1 rows are in one alone, the first is '3'"):
        difference(first + first[3:4], second, "dice")  # one model has two seeds of that case, the other one
    with pytest.raises(InputError, match="5 rows"):
        difference([], second, "dice")


def test_a_case_of_several_seeds_is_paired_in_order():
    seeds = lambda *dice: [Case(case="x", group="a", dice=value) for value in dice]
    first, second = seeds(0.1, 0.5, 0.9), seeds(0.2, 0.4, 0.6)
    assert [(a.dice, b.dice) for a, b in matched(first, second)] == [(0.1, 0.2), (0.5, 0.4), (0.9, 0.6)]
    other = [Case(case="y", group="b", dice=0.3)]
    mixed = matched(first + other, [second[0], *other, *second[1:]])
    assert [(a.dice, b.dice) for a, b in mixed] == [(0.1, 0.2), (0.5, 0.4), (0.9, 0.6), (0.3, 0.3)]
    assert difference(first + other, second + other, "dice").value == pytest.approx((1.5 - 1.2) / 4)


def test_rows_that_lack_the_measure_in_one_table_count_in_neither():
    first, second = outlined([0.9, 0.5, np.nan, 0.5, 0.6]), outlined([0.6, np.nan, 0.7, 0.4, 0.4])
    found = difference(first, second, "dice")  # left are 0.3 | 0.1, 0.2
    assert bounds(found) == pytest.approx((0.2, 0.15, 0.3))
    assert found.clusters == 2
    full, part = table(1), [replace(case, p_malignant=np.nan, grade_truth="") for case in table(2)[:20]] + table(2)[20:]
    for measure in ("malignant_auroc", "quadratic_kappa"):
        expected = measured(full[20:])[measure] - measured(part[20:])[measure]
        assert difference(full, part, measure, samples=20).value == pytest.approx(expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_without_any_row_that_has_the_measure_the_difference_is_undefined(measure):
    bare = [Case(case=str(i), group=str(i)) for i in range(4)]
    full = [replace(case, case=str(i)) for i, case in enumerate(table(1)[:4])]
    for first, second in ((bare, bare), (full, bare), (bare, full), ([], [])):
        assert np.isnan(bounds(difference(first, second, measure))).all()


def test_replicates_without_a_class_are_left_out_and_counted():
    """Two groups, one malignant each way: half of the draws hold one group alone."""
    of = lambda scores: [
        Case(case=str(i), group="ab"[i], malignant_truth=bool(i), p_malignant=score) for i, score in enumerate(scores)
    ]
    found = difference(of([0.2, 0.8]), of([0.8, 0.2]), "malignant_auroc", samples=400)
    assert bounds(found) == (1, 1, 1)
    assert 150 < found.undefined < 250


def test_one_group_alone_has_no_interval():
    found = difference(outlined([0.4, 0.5], "aa"), outlined([0.1, 0.4], "aa"), "dice")
    assert found.value == pytest.approx(0.2) and np.isnan([found.low, found.high]).all()


def test_tables_of_other_grades_are_refused():
    others = [
        replace(case, grade_truth="low", grade_predicted="low", probability={"low": 0.5, "high": 0.5})
        for case in table(1)
    ]
    with pytest.raises(InputError, match="different grades, low, middle, high and low, high"):
        difference(table(0), others, "quadratic_kappa", samples=10)
