"""Measures by their names: those of one grade and of operating points against scikit-learn and the summaries."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as judge

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.measures import CALIBRATION, MEASURES, interval_over, is_measure, measure_named
from thyroid_jax.evaluate.paired import compare, difference
from thyroid_jax.evaluate.questions import FORMS
from thyroid_jax.evaluate.statistics import delong
from thyroid_jax.evaluate.summary import at_or_above_summary, per_grade_summary, summary

GRADES = ("1", "4a", "at_risk")  # a grade with the sign that separates the words of a name


def table(seed=0, n=60):
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    cases = []
    for i in range(n):
        grade, malignant = int(truth.integers(3)), bool(truth.integers(2))
        shares = np.round(rng.dirichlet(np.ones(3) + 2 * np.eye(3)[grade]), 2)
        shares[0] = 1 - shares[1:].sum()
        cases.append(
            Case(
                f"{i}", f"g{i // 2}", grade_truth=GRADES[grade], grade_predicted=GRADES[int(rng.integers(3))],
                probability=dict(zip(GRADES, map(float, shares))), malignant_truth=malignant,
                p_malignant=float(np.round(np.clip(0.3 * malignant + 0.7 * rng.uniform(), 0, 1), 1)),
            )
        )  # fmt: skip
    return cases


def value_of(name, cases):
    measure = measure_named(name, grades(cases) or GRADES)
    usable = [case for case in cases if measure.usable(case)]
    return float(measure.value(*measure.columns(usable, GRADES), weight=np.ones(len(usable))))


def answers(kind, grade, cases):
    """Score, call and truth of "this grade?" or "this grade or a higher one?", from the definition."""
    meant = GRADES[GRADES.index(grade) :] if kind == "at_or_above" else [grade]
    return (
        np.array([sum(case.probability[name] for name in meant) for case in cases]).round(9),
        np.array([case.grade_predicted in meant for case in cases]),
        np.array([case.grade_truth in meant for case in cases]),
    )


QUESTIONS = [*(("grade", grade) for grade in GRADES), *(("at_or_above", grade) for grade in GRADES[1:])]


@pytest.mark.parametrize("kind, grade", QUESTIONS)
def test_every_form_of_every_grade_is_scikit_learns(kind, grade):
    cases = table()
    score, called, truth = answers(kind, grade, cases)
    false, true, _ = judge.roc_curve(truth, score, drop_intermediate=False)
    expected = {
        "auroc": judge.roc_auc_score(truth, score),
        "auprc": judge.average_precision_score(truth, score),
        "accuracy": judge.accuracy_score(truth, called),
        "balanced_accuracy": judge.balanced_accuracy_score(truth, called),
        "sensitivity": judge.recall_score(truth, called),
        "specificity": judge.recall_score(~truth, ~called),
        "ppv": judge.precision_score(truth, called),
        "npv": judge.precision_score(~truth, ~called),
        "f1": judge.f1_score(truth, called),
        "sensitivity_at_specificity_90": np.interp(0.1, false, true),
        "specificity_at_sensitivity_90": 1 - np.interp(0.9, true, false),
    }
    assert set(expected) == set(FORMS)
    expected |= {"sensitivity_at_specificity_75": np.interp(0.25, false, true)}
    for form, value in expected.items():
        assert value_of(f"{kind}_{grade}_{form}", cases) == pytest.approx(value, abs=1e-9), form


def test_the_measures_of_a_grade_are_those_of_the_page():
    cases = table()
    names = {"sensitivity": "sensitivity", "specificity": "specificity", "precision": "ppv", "f1": "f1",
             "auroc": "auroc", "auprc": "auprc"}  # fmt: skip
    of_grades = {"grade": per_grade_summary(cases, samples=30), "at_or_above": at_or_above_summary(cases, samples=30)}
    for kind, found in of_grades.items():
        for grade, entries in found.items():
            for key, entry in entries.items():
                measure = measure_named(f"{kind}_{grade}_{names[key]}", GRADES)
                interval = interval_over(cases, measure, GRADES, samples=30)
                assert interval.value == pytest.approx(entry["value"]), (grade, key)
                if key != "precision":  # a ratio here, whose denominator is resampled; there a share of called cases
                    assert (interval.low, interval.high) == pytest.approx((entry["low"], entry["high"])), (grade, key)


def test_only_a_single_area_has_delongs_interval():
    cases = table()
    areas = [name for name in MEASURES if MEASURES[name].is_area]
    assert areas == ["malignant_auroc"] and measure_named("at_or_above_4a_auroc", GRADES).is_area
    found = interval_over(cases, measure_named("at_or_above_4a_auroc", GRADES), GRADES, samples=10)
    score, _, truth = answers("at_or_above", "4a", cases)
    expected = delong(truth, score, clusters=[case.group for case in cases])
    assert (found.low, found.high, found.samples) == (*expected.low, *expected.high, 0)
    assert interval_over(cases, MEASURES["malignant_auprc"], GRADES, samples=10).samples == 10


def test_names_are_read_whole():
    for name in (*MEASURES, "grade_1_f1", "at_or_above_at_risk_auroc", "malignant_sensitivity_at_specificity_5"):
        assert is_measure(name) and measure_named(name, GRADES)
    assert value_of("grade_at_risk_balanced_accuracy", table()) != value_of("grade_at_risk_accuracy", table())
    for name in ("grade_auroc", "at_or_above_4a", "at_or_above__auroc", "malignant_sensitivity_at_specificity_0",
                 "malignant_sensitivity_at_specificity_100", "grade_1_brier", "auroc", ""):  # fmt: skip
        assert not is_measure(name), name
        with pytest.raises(InputError, match=r"cannot be compared; choose of dice.*at_or_above_<grade>_<form>"):
            measure_named(name, GRADES)


@pytest.mark.parametrize("name, said", [
    ("grade_9_auroc", "'9' must be one of 1, 4a, at_risk"),
    ("at_or_above_1_auroc", "'1' must be one of 4a, at_risk"),  # every case is at or above the lowest
])  # fmt: skip
def test_a_grade_that_is_not_on_the_scale_is_named(name, said):
    with pytest.raises(InputError, match=said):
        measure_named(name, GRADES)
    with pytest.raises(InputError, match=said):
        compare({"a": table(1), "b": table(2)}, measures=(name,), samples=5)


def test_what_is_asked_for_stands_in_the_tables_with_its_difference():
    measures = ("at_or_above_4a_auroc", "grade_brier", "malignant_sensitivity_at_specificity_75", "grade_1_sensitivity")
    found = compare({"a": table(1), "b": table(2)}, measures=measures, samples=30)
    assert [gap.measure for gap in found.gaps] == list(measures) and all(gap.p == gap.p for gap in found.gaps)
    for name in measures:
        values = {method: value_of(name, table(seed)) for method, seed in (("a", 1), ("b", 2))}
        assert {method: found.summaries[method][name]["value"] for method in "ab"} == pytest.approx(values)
        (gap,) = (gap for gap in found.gaps if gap.measure == name)
        assert gap.value == pytest.approx(values["b"] - values["a"])
    assert found.summaries["a"]["grade_1_sensitivity"]["n"] == sum(case.grade_truth == "1" for case in table())
    assert set(compare({"a": table(1)}, samples=5).summaries["a"]) == set(summary(table(1), samples=5))


def test_tables_without_grades_lack_their_measures():
    bare = [replace(case, probability={}, grade_predicted="") for case in table()]
    found = compare({"a": bare, "b": bare}, measures=("grade_1_f1", "grade_rps", "malignant_brier"), samples=5)
    assert [gap.measure for gap in found.gaps] == ["malignant_brier"]
    assert "grade_1_f1" not in found.summaries["a"] and "grade_rps" not in found.summaries["a"]


def test_probabilities_that_cannot_be_scored_are_named():
    rounded = [replace(case, probability=dict(zip(GRADES, (0.3, 0.3, 0.395)))) for case in table()]
    assert compare({"a": rounded, "b": rounded}, measures=("macro_auroc",), samples=5).gaps
    with pytest.raises(InputError, match=r"case '0': the probabilities of its 3 grades have the sum 0.9950"):
        compare({"a": rounded, "b": rounded}, measures=("grade_brier",), samples=5)


EDGES = {
    "all of one truth": lambda case: replace(case, malignant_truth=True, grade_truth="4a"),
    "all scores tie": lambda case: replace(case, p_malignant=0.5, probability=dict.fromkeys(GRADES, 1 / 3)),
    "nothing is called": lambda case: replace(case, p_malignant=0.1, grade_predicted="1"),
    "one group": lambda case: replace(case, group="g"),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", [*MEASURES, "at_or_above_4a_ppv", "at_or_above_4a_auroc", "grade_4a_f1"])
def test_at_the_edges_a_measure_is_a_number_in_its_range_or_does_not_exist(edge, name):
    cases = [EDGES[edge](case) for case in table(n=12)]
    measure = measure_named(name, GRADES)
    usable = [case for case in cases if measure.usable(case)]
    found = interval_over(cases, measure, GRADES, samples=10)
    if usable and not np.isnan(found.value):
        assert -1 <= found.value <= 2
        assert np.isnan(found.low) if edge == "one group" else np.isnan(found.low) or found.low <= found.high
    else:
        assert np.isnan(found.low) and np.isnan(found.high)
    without = {"all of one truth": ("malignant_auroc", "malignant_specificity", "malignant_auprc", "quadratic_kappa"),
               "nothing is called": ("malignant_ppv", "at_or_above_4a_ppv")}.get(edge, ())  # fmt: skip
    if name in without and name != "quadratic_kappa":
        assert np.isnan(found.value)
    if edge == "all scores tie" and name in ("malignant_auroc", "at_or_above_4a_auroc"):
        assert found.value == 0.5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_exchanging_ranks_for_scores_changes_no_value(seed):
    cases = table(seed, n=10)
    for name in (*MEASURES, "at_or_above_4a_auprc"):
        measure = measure_named(name, GRADES)
        usable = [case for case in cases if measure.usable(case)]
        columns, weight = measure.columns(usable, GRADES), np.ones(len(usable))
        values = [measure.value(*chosen, weight=weight) for chosen in (columns, measure.exchanged(columns))]
        assert values[0] == pytest.approx(values[1], nan_ok=True), name


def test_lower_is_better_for_errors_alone():
    lower = {name for name, measure in MEASURES.items() if not measure.higher}
    assert lower == {"hd95_px", "hd95_mm", "assd_px", "assd_mm", "mean_absolute_grade_error", *CALIBRATION}
    assert np.isnan(difference(table(1), table(2), "hd95_mm", samples=5).value)


def guided(seed=0, n=40):
    rng = np.random.default_rng(seed)
    cases = []
    for i, (target, noise) in enumerate(rng.normal(size=(n, 2))):
        predicted = {"edge": target + 0.5 * noise, "flat": noise}
        cases.append(Case(f"{i}", f"g{i // 2}", guidance=predicted, target={"edge": target, "flat": 3.0}))
    return cases


def test_r2_of_a_guidance_value_is_scikit_learns_on_weighted_rows():
    cases, rng = guided(), np.random.default_rng(1)
    measure, weight = measure_named("guidance_r2_edge", ()), rng.integers(0, 4, (5, len(cases))).astype(float)
    target, predicted = measure.columns(cases, ())
    expected = [judge.r2_score(target, predicted, sample_weight=row) for row in weight]
    np.testing.assert_allclose(measure.value(target, predicted, weight=weight), expected, rtol=1e-12)
    shifted = measure.value(target + 1e4, predicted + 1e4, weight=weight)
    np.testing.assert_allclose(shifted, expected, rtol=1e-6)
    found = interval_over(cases, measure, (), samples=200)
    assert found.low < found.value < found.high < 1
    one = np.eye(len(cases))[:1]  # one row: its target does not vary, whatever the rounding of its mean
    assert np.isnan(measure.value(target, predicted, weight=one)).all()
    flat = measure_named("guidance_r2_flat", ())
    assert np.isnan(flat.value(*flat.columns(cases, ()), weight=weight)).all()


def test_guidance_values_that_are_missing_are_left_out_and_unknown_ones_are_named():
    assert is_measure("guidance_r2_edge") and not is_measure("guidance_r2_")
    cases, measure = guided(), measure_named("guidance_r2_edge", ())
    assert not measure.usable(Case("plain", "g"))
    assert not measure.usable(replace(cases[0], target={"edge": np.nan}))
    assert not measure.usable(replace(cases[0], target={}))
    with pytest.raises(InputError, match="guidance_r2_edges: the values of the table are edge, flat"):
        measure_named("guidance_r2_edges", ()).usable(cases[0])
    halved = [replace(case, guidance={name: value / 2 for name, value in case.guidance.items()}) for case in cases]
    found = compare(
        {"plain": [replace(case, guidance={}) for case in cases], "a": cases}, measures=["guidance_r2_edge"], samples=50
    )
    assert not found.gaps and "guidance_r2_edge" in found.summaries["a"]
    assert difference(cases, halved, "guidance_r2_edge", samples=50).value > 0
