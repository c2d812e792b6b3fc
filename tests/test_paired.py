"""Paired differences: closed forms for three groups, scikit-learn's measures on resampled rows, tests against scipy's,
seeds, and what is refused.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as judge

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import paired
from thyroid_jax.evaluate.calibration import calibration_summary
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.measures import CALIBRATION, MEASURES
from thyroid_jax.evaluate.paired import compare, difference, matched, permutation_test, run_of
from thyroid_jax.evaluate.primary import PRIMARY
from thyroid_jax.evaluate.statistics import cluster_bootstrap, crossed_bootstrap, decide, holm
from thyroid_jax.evaluate.summary import summary

GRADES = ("low", "middle", "high")
OUTLINE = [name for name in MEASURES if hasattr(Case("", ""), name)]


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
                **{name: float(rng.uniform()) for name in OUTLINE},
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
    areas = [judge.roc_auc_score(truth == k, probability[:, k]) for k in range(3)] if len(set(truth)) == 3 else np.nan
    score = np.array([case.p_malignant for case in cases])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows without a class
        recalls = judge.recall_score(malignant, score >= 0.5, labels=[False, True], average=None, zero_division=np.nan)
        values = judge.precision_score(malignant, score >= 0.5, labels=[0, 1], average=None, zero_division=np.nan)
        rates = judge.roc_curve(malignant, score, drop_intermediate=False)[:2] if len(set(malignant)) == 2 else None
    areas_under_precision = [judge.average_precision_score(truth == k, probability[:, k]) for k in range(3)]
    cumulative, reached = probability.cumsum(1)[:, :2], truth[:, None] <= np.arange(2)
    return {
        **{name: np.mean([getattr(case, name) for case in cases]) for name in OUTLINE},
        "accuracy": judge.accuracy_score(truth, predicted),
        "balanced_accuracy": np.nan if len(set(truth)) < 3 else judge.balanced_accuracy_score(truth, predicted),
        "macro_f1": np.nan if len(set(truth)) < 3 else judge.f1_score(truth, predicted, average="macro"),
        "malignant_accuracy": judge.accuracy_score(malignant, score >= 0.5),
        "malignant_balanced_accuracy": np.mean(recalls),
        "malignant_specificity": recalls[0],
        "malignant_sensitivity": recalls[1],
        "quadratic_kappa": judge.cohen_kappa_score(truth, predicted, weights="quadratic", labels=[0, 1, 2]),
        "linear_kappa": judge.cohen_kappa_score(truth, predicted, weights="linear", labels=[0, 1, 2]),
        "weighted_f1": judge.f1_score(truth, predicted, average="weighted", zero_division=0),
        "mean_absolute_grade_error": judge.mean_absolute_error(truth, predicted),
        "macro_auprc": np.nan if len(set(truth)) < 3 else np.mean(areas_under_precision),
        "malignant_auprc": judge.average_precision_score(malignant, score),
        "malignant_ppv": values[1],
        "malignant_npv": values[0],
        "malignant_f1": judge.f1_score(malignant, score >= 0.5),
        "malignant_sensitivity_at_specificity_90": np.nan if rates is None else np.interp(0.1, *rates),
        "malignant_specificity_at_sensitivity_90": np.nan if rates is None else 1 - np.interp(0.9, *rates[::-1]),
        "grade_brier": np.mean(((probability - np.eye(3)[truth]) ** 2).sum(1)),
        "grade_rps": np.mean((cumulative - reached) ** 2),
        "grade_ece_width": gap_in_bins(probability.max(1), probability.argmax(1) == truth),
        "malignant_brier": judge.brier_score_loss(malignant, score),
        "malignant_ece_width": gap_in_bins(score, np.array(malignant)),
        "macro_auroc": np.mean(areas),
        "malignant_auroc": judge.roc_auc_score(malignant, score) if len(set(malignant)) == 2 else np.nan,
    }


def gap_in_bins(forecast, outcome):
    """ECE, bin by bin, in 15 bins of equal width."""
    member = np.clip(np.ceil(15 * forecast).astype(int) - 1, 0, 14)
    bins = [(forecast[member == b], outcome[member == b]) for b in set(member)]
    return sum(len(f) * abs(f.mean() - y.mean()) for f, y in bins) / len(forecast)


def is_right(case):
    return (case.p_malignant >= 0.5) == case.malignant_truth


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


# Sensitivity and specificity resample the groups with such a case alone; they have a test of their own.
ON_ALL_ROWS = [name for name in MEASURES if name not in ("malignant_sensitivity", "malignant_specificity")]


@pytest.fixture(scope="module")
def resampled():
    """Every measure's difference on 40 draws of groups, computed by scikit-learn: name -> f[40]."""
    first, second = table(1), table(2)
    drawn = []

    def record(rows):
        one, two = (measured([cases[row] for row in rows]) for cases in (first, second))
        drawn.append({name: one[name] - two[name] for name in ON_ALL_ROWS})
        return 0.0

    groups = [case.group for case in first]
    cluster_bootstrap(record, groups, np.arange(len(first)), samples=40, seed=3)
    return {name: np.array([values[name] for values in drawn[-40:]]) for name in ON_ALL_ROWS}


@pytest.mark.parametrize("measure", ON_ALL_ROWS)
def test_a_difference_is_scikit_learns_on_rows_resampled_by_group(measure, resampled):
    first, second = table(1), table(2)
    found = difference(first, second, measure, samples=40, seed=3)
    tail = stats.norm.cdf(-stats.t.ppf(0.975, 29) * np.sqrt(30 / 29))
    low, high = np.quantile(resampled[measure], [tail, 1 - tail])
    value = measured(first)[measure] - measured(second)[measure]
    assert bounds(found) == pytest.approx((value, low, high), abs=1e-9)
    assert found.low < found.value < found.high and found.clusters == 30


@pytest.mark.parametrize("measure, malignant", [("malignant_sensitivity", True), ("malignant_specificity", False)])
def test_sensitivity_and_specificity_are_means_over_their_own_cases(measure, malignant):
    first, second = ([case for case in table(seed) if case.malignant_truth == malignant] for seed in (1, 2))
    right = [np.array([(case.p_malignant >= 0.5) == malignant for case in cases], float) for cases in (first, second)]
    groups = [case.group for case in first]
    mean = lambda values: float(values.mean())
    expected = cluster_bootstrap(mean, groups, right[0] - right[1], samples=50, expanded=True)
    assert bounds(difference(table(1), table(2), measure, samples=50)) == pytest.approx(bounds(expected), abs=1e-12)


def test_the_value_of_every_measure_is_that_of_the_summary():
    """So the difference is one of the values beside it; ranks in the place of scores change no measure."""
    cases = table(1)
    own = summary(cases, samples=2) | calibration_summary(cases, samples=2)
    own |= {"malignant_f1": {"value": measured(cases)["malignant_f1"]}}
    for name, measure in MEASURES.items():
        usable = [case for case in cases if measure.usable(case)]
        columns = measure.columns(usable, GRADES)
        value = measure.value(*columns, weight=np.ones((1, len(usable))))[0]
        assert value == pytest.approx(own[name]["value"], abs=1e-12), name
        exchanged = measure.value(*measure.exchanged(columns), weight=np.ones((1, len(usable))))[0]
        assert exchanged == pytest.approx(value, abs=1e-12), name
        lower = ("hd95_px", "hd95_mm", "assd_px", "assd_mm", "mean_absolute_grade_error", *CALIBRATION)
        assert measure.higher == (name not in lower)


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
    full = table(1)[:4]
    bare = [Case(case=case.case, group=case.group) for case in full]
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
        replace(case, grade_truth="", grade_predicted="low", probability={"low": 0.5, "high": 0.5}) for case in table(1)
    ]
    with pytest.raises(InputError, match="different grades, low, middle, high and low, high"):
        difference(table(0), others, "quadratic_kappa", samples=10)


# --- several seeds ----------------------------------------------------------------------------------------------------


def of_seeds(*tables, fold=0):
    return [replace(case, part=f"fold{fold}-seed{seed}") for seed, cases in enumerate(tables) for case in cases]


def test_fold_and_seed_are_read_from_the_part_and_from_nothing_else():
    assert run_of("fold3-seed12") == (3, 12)
    for part in ("", "test", "fold1", "fold1-seed", "fold-1-seed0", "xfold1-seed0", "fold1-seed0 ", "fold0-ensemble"):
        assert run_of(part) is None, part


def test_rows_of_several_seeds_are_paired_by_their_part_in_any_order():
    first, second = of_seeds(table(1)[:4], table(2)[:4]), of_seeds(table(3)[:4], table(4)[:4])
    shuffled = [second[row] for row in np.random.default_rng(1).permutation(8)]
    assert [(a.case, a.part) for a, _ in matched(first, shuffled)] == [
        (b.case, b.part) for _, b in matched(first, shuffled)
    ]
    other_seeds = [replace(case, part=case.part.replace("seed", "seed1")) for case in second]
    assert [b.case for _, b in matched(first, other_seeds)] == [case.case for case in first]


def test_with_several_seeds_the_interval_resamples_groups_and_seeds():
    """Against the crossed bootstrap of the differences themselves, and wider than that over groups alone."""
    first, second = of_seeds(table(1), table(2), table(3)), of_seeds(table(4), table(5), table(6))
    found = difference(first, second, "dice", samples=300)
    gaps = np.array([a.dice - b.dice for a, b in zip(first, second)])
    groups, seeds = [case.group for case in first], np.repeat([0, 1, 2], len(table(1)))
    expected = crossed_bootstrap(np.mean, groups, seeds, gaps, samples=300)
    assert bounds(found) == pytest.approx(bounds(expected), abs=1e-12) and found.seeds == 3
    without_names = [[replace(case, part="test") for case in cases] for cases in (first, second)]
    by_group = difference(*without_names, "dice", samples=300)
    assert by_group.seeds == 0 and found.value == pytest.approx(by_group.value)
    assert found.high - found.low > by_group.high - by_group.low


def test_seeds_are_resampled_only_where_both_tables_name_the_same_and_every_group_has_all():
    first, second = of_seeds(table(1), table(2)), of_seeds(table(3), table(4))
    assert difference(first, second, "dice", samples=20).seeds == 2
    one_undefined = [replace(second[0], hd95_px=np.nan), replace(second[1], hd95_px=np.nan), *second[2:]]
    assert difference(first, one_undefined, "dice", samples=20).seeds == 2
    assert difference(first, one_undefined, "hd95_px", samples=20).seeds == 0  # the first group lacks seed 0
    others = [replace(case, part=case.part.replace("seed1", "seed7")) for case in second]
    assert difference(first, others, "dice", samples=20).seeds == 0
    folds = [replace(case, part=case.part.replace("fold0-seed1", "fold1-seed0")) for case in first]
    same_folds = [replace(case, part=case.part.replace("fold0-seed1", "fold1-seed0")) for case in second]
    assert (
        difference(folds, same_folds, "dice", samples=20).seeds == 0
    )  # folds are no seeds: their training parts overlap


def test_tables_of_other_numbers_of_seeds_are_refused_in_these_words():
    with pytest.raises(InputError, match="hold each case 2 and 1 times; compare runs of equally many folds and seeds"):
        matched(of_seeds(table(1), table(2)), table(3))


@pytest.mark.parametrize("change, said", [
    ({"group": "another"}, "group 'patient 0' and 'another'"),
    ({"grade_truth": "unheard"}, "grade_truth "),
    ({"malignant_truth": None}, ""),
    ({"grade_truth": ""}, ""),
    ({"reference_area_px": 7}, "reference_area_px 9 and 7"),
    ({"reference_area_px": None}, ""),
])  # fmt: skip
def test_tables_with_another_reference_are_refused(change, said):
    first = [replace(case, reference_area_px=9) for case in table(1)[:4]]
    second = [replace(first[0], **change), *first[1:]]
    if not said:
        assert len(matched(first, second)) == 4
        return
    with pytest.raises(InputError, match="1 cases differ in their reference, the first is 'case 0'") as refused:
        matched(first, second)
    assert said in str(refused.value)
    opposite = [replace(first[0], malignant_truth=not first[0].malignant_truth), *first[1:]]
    with pytest.raises(InputError, match="malignant_truth"):
        matched(first, opposite)


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["dice", "malignant_accuracy"])
def test_the_p_of_a_mean_is_that_of_scipys_exact_test_of_the_groups_sums(measure):
    first, second = table(1)[:20], table(2)[:20]
    value = {"dice": lambda case: case.dice, "malignant_accuracy": is_right}[measure]
    columns = [np.array([value(case) for case in cases], float) for cases in (first, second)]
    gaps = (columns[0] - columns[1]).reshape(10, 2).sum(1)  # two images a patient
    statistic = lambda values, axis: values.sum(axis=axis)
    expected = stats.permutation_test((gaps,), statistic, permutation_type="samples", n_resamples=np.inf)
    found = permutation_test(first, second, measure, samples=1024)
    assert found.exact and found.p == pytest.approx(expected.pvalue, abs=1e-12)


def test_the_p_of_an_auroc_is_that_of_exchanged_ranks():
    """Every exchange of 6 groups, with scikit-learn's area; a change of one model's scale changes nothing."""
    first, second = table(1)[:12], table(2)[:12]
    ranks = [stats.rankdata([case.p_malignant for case in cases]) for cases in (first, second)]
    malignant = [case.malignant_truth for case in first]
    gaps = []
    for pattern in range(64):
        flip = np.repeat([(pattern >> group) & 1 == 1 for group in range(6)], 2)
        one, two = np.where(flip, ranks[1], ranks[0]), np.where(flip, ranks[0], ranks[1])
        gaps.append(judge.roc_auc_score(malignant, one) - judge.roc_auc_score(malignant, two))
    expected = np.mean(np.abs(gaps) >= abs(gaps[0]) - 1e-12)
    assert permutation_test(first, second, "malignant_auroc", samples=64).p == pytest.approx(expected)
    rescaled = [replace(case, p_malignant=case.p_malignant**5 / 2) for case in first]
    assert permutation_test(rescaled, second, "malignant_auroc", samples=64).p == pytest.approx(expected)


def test_p_is_1_for_equal_tables_and_nan_without_a_pair():
    assert permutation_test(table(1), table(1), "quadratic_kappa", samples=50).p == 1
    bare = [Case(case=case.case, group=case.group) for case in table(1)]
    assert np.isnan(permutation_test(bare, bare, "dice").p)


def test_under_the_null_hypothesis_p_is_uniform():
    """Two models of one quality, on two seeds each: 5 % of the tests have p below 0.05, within three deviations."""
    rng, low = np.random.default_rng(0), 0
    for _ in range(200):
        base = rng.normal(size=(12, 1))  # what a patient has in common
        dice = 1 / (1 + np.exp(-base - rng.normal(size=(2, 12, 2))))
        rows = [
            [
                Case(case=f"{g}", group=str(g), part=f"fold0-seed{s}", dice=float(model[g, s]))
                for g in range(12)
                for s in range(2)
            ]
            for model in dice
        ]
        low += permutation_test(*rows, "dice", samples=400).p < 0.05
    assert 1 <= low <= 10 + 3 * np.sqrt(200 * 0.05 * 0.95)


# --- several methods --------------------------------------------------------------------------------------------------


def test_a_comparison_holds_what_the_single_functions_say():
    found = {"a": table(1), "b": table(2), "c": table(3)}
    compared = compare(found, samples=40, margins={"dice": 0.05}, notes=["Note."])
    assert [method.name for method in compared.methods] == ["a", "b", "c"]
    assert compared.summaries["b"] == summary(table(2), samples=40)
    assert [(gap.method, gap.measure) for gap in compared.gaps] == [(name, m) for name in "bc" for m in PRIMARY]
    for gap in compared.gaps:
        interval = difference(found[gap.method], found["a"], gap.measure, samples=40)
        tested = permutation_test(found[gap.method], found["a"], gap.measure, samples=200)
        assert (gap.value, gap.low, gap.high, gap.p) == (*bounds(interval), tested.p)
        assert (gap.pairs, gap.left_out, gap.groups, gap.against) == (60, 0, 30, "a")
        expected = decide(gap.low, gap.high, margin=0.05) if gap.measure == "dice" else ""
        assert gap.decision == expected and np.isnan(gap.margin) == (gap.measure != "dice")
    np.testing.assert_array_equal([gap.adjusted for gap in compared.gaps], holm([gap.p for gap in compared.gaps]))
    assert compared.families == {"a": 8} and compared.notes == ("Note.",) and compared.permutations == 200


def test_each_method_that_others_are_compared_to_has_a_family_of_tests():
    found = {"a": table(1), "b": table(2), "x": table(3), "y": table(4)}
    compared = compare(found, against={"b": "a", "y": "x"}, measures=("dice", "accuracy"), samples=10)
    assert compared.families == {"a": 2, "x": 2}
    for against in "ax":
        own = [gap for gap in compared.gaps if gap.against == against]
        np.testing.assert_array_equal([gap.adjusted for gap in own], holm([gap.p for gap in own]))


def test_pairs_without_the_measure_are_counted_and_a_measure_without_any_pair_is_left_out():
    lacking = [replace(case, hd95_px=np.nan, p_malignant=np.nan) for case in table(2)[:7]]
    lacking += [replace(case, p_malignant=np.nan) for case in table(2)[7:]]
    compared = compare({"a": table(1), "b": lacking}, measures=("hd95_px", "malignant_auroc"), samples=10)
    (gap,) = compared.gaps
    assert (gap.measure, gap.pairs, gap.left_out, gap.groups) == ("hd95_px", 53, 7, 27)


def test_of_several_seeds_the_decision_is_that_of_the_interval_over_seeds():
    """A difference that one of two seeds has: over groups it is certain, over groups and seeds it is not."""
    steady = table(1)
    better = [[replace(case, dice=min(1.0, case.dice + gain)) for case in steady] for gain in (0.05, 0.0)]
    compared = compare(
        {"a": of_seeds(steady, steady), "b": of_seeds(*better)}, measures=("dice",), margins={"dice": 0.01}, samples=200
    )
    (gap,) = compared.gaps
    assert gap.resampled == "groups and seeds" and gap.low == 0 < gap.value and gap.p < 0.01
    assert gap.decision == "non-inferior" and np.isnan(gap.margin_p) and not gap.worse
    pooled = [[replace(case, part="") for case in cases] for cases in (of_seeds(steady, steady), of_seeds(*better))]
    compared = compare({"a": pooled[0], "b": pooled[1]}, measures=("dice",), margins={"dice": 0.01}, samples=200)
    assert compared.gaps[0].decision == "superior" and compared.gaps[0].margin_p < 0.025


def test_a_lower_distance_is_better():
    first = table(1)
    shorter = [replace(case, hd95_px=case.hd95_px / 2) for case in first]
    compared = compare({"a": first, "b": shorter}, measures=("hd95_px",), margins={"hd95_px": 0.1}, samples=100)
    assert compared.gaps[0].value < 0 and compared.gaps[0].decision == "superior"
    compared = compare({"b": shorter, "a": first}, measures=("hd95_px",), margins={"hd95_px": 5.0}, samples=100)
    assert compared.gaps[0].value > 0 and compared.gaps[0].decision == "non-inferior" and compared.gaps[0].worse


@pytest.mark.parametrize("options, said", [
    ({"measures": ("dicey",)}, "measure 'dicey' cannot be compared; choose of dice, iou"),
    ({"measures": ()}, "name one at least"),
    ({"measures": ("dice", "dice")}, "each once"),
    ({"margins": {"iou": 0.1}}, "margin of 'iou': it is not among the compared measures"),
    ({"margins": {"dice": 0.0}}, "it is the largest loss that is acceptable, above 0"),
    ({"margins": {"dice": np.inf}}, "margin of 'dice' is inf"),
])  # fmt: skip
def test_what_cannot_be_compared_is_named(options, said):
    with pytest.raises(InputError, match=said):
        compare({"a": table(1), "b": table(2)}, **options)
    with pytest.raises(InputError, match="name a method"):
        compare({})


def test_the_counts_of_a_method_are_of_images_groups_folds_and_seeds():
    cases = of_seeds(table(1), table(2)) + of_seeds([Case("other", "g")], [Case("other", "g")], fold=3)
    (method,) = compare({"a": cases}, samples=5).methods
    assert method == paired.Method("a", 122, 61, 31, (0, 3), (0, 1))
    (unnamed,) = compare({"a": table(1)}, samples=5).methods
    assert (unnamed.folds, unnamed.seeds) == ((), ())
