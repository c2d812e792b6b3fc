"""Summaries of a per-case table against scikit-learn, numpy and hand-computed values."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.statistics import cluster_bootstrap
from thyroid_jax.evaluate.summary import (
    area_summary,
    at_or_above_summary,
    grading_summary,
    malignancy_summary,
    measure,
    per_grade_summary,
    segmentation_summary,
    summary,
    table_confusion,
)


def square(top, left, side=20, size=40):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def table(seed=0, n=60):
    random = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        p = random.dirichlet(np.ones(3))
        reference = None if i % 7 == 0 else square(3, 3)
        predicted = np.zeros((40, 40), bool) if i % 10 == 1 else square(3, int(random.integers(3, 9)))
        truth = "" if i % 5 == 0 else "abc"[random.integers(3)]
        cases.append(
            measure(
                f"{i}",
                f"g{i // 3}",
                predicted=predicted,
                reference=reference,
                probability=dict(zip("abc", p)),
                grade_truth=truth,
            )
        )
    return cases


def test_summaries_count_and_average():
    cases = table()
    dice = np.array([case.dice for case in cases])
    hd95 = np.array([case.hd95_px for case in cases])
    found = segmentation_summary(cases, samples=500)
    assert found["dice"]["value"] == pytest.approx(np.nanmean(dice))
    assert found["dice"]["n"] == np.isfinite(dice).sum() and found["dice"]["undefined"] == 0
    assert found["hd95_px"]["value"] == pytest.approx(np.nanmean(hd95))
    assert found["hd95_px"]["n"] == np.isfinite(hd95).sum()
    assert found["hd95_px"]["n"] + found["hd95_px"]["undefined"] == found["dice"]["n"]
    assert found["hd95_px"]["undefined"] > 0 and "hd95_mm" not in found
    assert all(entry["replicates"] == 500 and entry["replicates_undefined"] == 0 for entry in found.values())
    graded = [case for case in cases if case.grade_truth]
    expected = metrics.grading(
        np.array([list(case.probability.values()) for case in graded]),
        np.array(["abc".index(case.grade_truth) for case in graded]),
    )
    found = grading_summary(cases, samples=500)
    assert set(found) == set(expected)
    for name, entry in found.items():
        assert entry["value"] == pytest.approx(expected[name]) and entry["low"] < entry["value"] < entry["high"]
        assert entry["n"] == len(graded) and entry["groups"] == len({case.group for case in graded})


def test_summary_intervals_equal_the_plain_bootstrap():
    graded = [case for case in table() if case.grade_truth]
    truth, predicted = ([getattr(case, kind) for case in graded] for kind in ("grade_truth", "grade_predicted"))
    plain = cluster_bootstrap(
        lambda t, p: sk.cohen_kappa_score(t, p, labels=["a", "b", "c"], weights="quadratic"),
        [case.group for case in graded],
        np.array(truth),
        np.array(predicted),
        samples=200,
        expanded=True,
    )
    fast = grading_summary(graded, samples=200)["quadratic_kappa"]
    assert (fast["low"], fast["high"]) == pytest.approx((plain.low, plain.high))


def test_hd95_in_mm_is_averaged_where_it_is_known():
    masks = [{"predicted": square(3, 3 + i), "reference": square(3, 3)} for i in range(4)]
    spacings = [(0.5, 0.5), (0.25, 0.25), (np.nan, np.nan), (np.nan, np.nan)]
    cases = [measure(f"{i}", f"{i}", spacing=spacing, **mask) for i, (mask, spacing) in enumerate(zip(masks, spacings))]
    found = segmentation_summary(cases, samples=50)
    assert found["hd95_px"]["value"] == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert found["hd95_mm"]["value"] == pytest.approx((0 + 0.25) / 2)
    assert (found["hd95_mm"]["n"], found["hd95_mm"]["undefined"]) == (2, 2)


def test_every_measure_of_the_outlines_is_averaged_under_its_own_name():
    masks = [(square(3, 3 + i, 20 + i), square(3, 3)) for i in range(5)]
    masks += [(np.zeros((40, 40), bool), square(3, 3))]
    cases = [measure(f"{i}", f"{i}", predicted=a, reference=b, spacing=(0.5, 0.5)) for i, (a, b) in enumerate(masks)]
    found = segmentation_summary(cases, samples=50)
    rows = [metrics.outline_measures(a, b, (0.5, 0.5)) for a, b in masks]
    assert set(rows[0]) < set(found)
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        assert found[name]["value"] == pytest.approx(np.nanmean(values)), name
        undefined = int(np.isnan(values).sum())
        assert (found[name]["n"], found[name]["undefined"]) == (6 - undefined, undefined), name
    assert found["precision"]["undefined"] == found["assd_mm"]["undefined"] == 1 and found["nsd_2px"]["undefined"] == 0


def test_a_table_of_the_older_layout_has_no_entry_for_what_it_lacks():
    old = [Case(f"{i}", f"{i}", "test", 0.8, 0.7, 3.0, predicted_area_px=9, reference_area_px=10) for i in range(3)]
    areas = {"area_bias_relative", "area_low_limit_relative", "area_high_limit_relative"}
    assert set(segmentation_summary(old, samples=20)) == {"dice", "iou", "hd95_px"} | areas
    both = segmentation_summary([*old, measure("x", "x", predicted=square(0, 0), reference=square(0, 1))], samples=20)
    assert (both["precision"]["n"], both["precision"]["undefined"]) == (1, 3)


def areas(rows):
    """Cases of (predicted, reference, spacing): areas in pixels and the area of a pixel in mm2."""
    return [
        Case(
            f"{i}",
            f"g{i // 2}",
            dice=0.5,
            predicted_area_px=predicted,
            reference_area_px=reference,
            predicted_area_mm2=predicted * pixel,
            reference_area_mm2=reference * pixel,
        )
        for i, (predicted, reference, pixel) in enumerate(rows)
    ]


def test_agreement_of_areas_by_hand_and_with_the_plain_bootstrap():
    nan = np.nan
    cases = areas([(90, 100, 0.5), (240, 200, 0.5), (0, 50, 2), (60, 60, nan), (30, 0, 1), (0, 0, 1), (77, 70, 0.5)])
    found = area_summary(cases, samples=150)
    relative = np.array([-0.1, 0.2, -1, 0, 0, 0.1])  # without the empty reference
    square_mm = np.array([-5, 20, -100, 30, 0, 3.5])  # without the unknown spacing
    for unit, difference, rows in (
        ("relative", relative, [0, 1, 2, 3, 5, 6]),
        ("mm2", square_mm, [0, 1, 2, 4, 5, 6]),
    ):
        groups = [cases[row].group for row in rows]
        measures = {
            "bias": np.mean,
            "low_limit": lambda d: np.mean(d) - 1.96 * np.std(d, ddof=1),
            "high_limit": lambda d: np.mean(d) + 1.96 * np.std(d, ddof=1),
        }
        for name, measured in measures.items():
            entry = found[f"area_{name}_{unit}"]
            plain = cluster_bootstrap(measured, groups, difference, samples=150, expanded=True)
            assert entry["value"] == pytest.approx(measured(difference)), (name, unit)
            assert (entry["low"], entry["high"]) == pytest.approx((plain.low, plain.high)), (name, unit)
            assert (entry["n"], entry["undefined"]) == (6, 1)
    assert len(found) == 6


def test_agreement_of_areas_at_the_edges():
    assert area_summary([]) == {} and area_summary([measure("x", "p", predicted=square(0, 0))]) == {}
    one = area_summary(areas([(90, 100, np.nan)]))
    assert set(one) == {"area_bias_relative", "area_low_limit_relative", "area_high_limit_relative"}
    assert one["area_bias_relative"]["value"] == pytest.approx(-0.1)
    limit = one["area_low_limit_relative"]
    assert np.isnan(limit["value"]) and (limit["n"], limit["undefined"]) == (0, 1)


def test_a_replicate_without_a_rare_grade_is_left_out_and_counted():
    # Ten groups of two, one of which alone holds grade c: a replicate misses it with probability (9/10)^10.
    cases = []
    for i in range(20):
        truth = "c" if i // 2 == 9 else "ab"[i % 2]
        probability = {"a": 0.2, "b": 0.3, "c": 0.5} if truth == "c" else {"a": 0.5, "b": 0.4, "c": 0.1}
        cases.append(measure(f"{i}", f"{i // 2}", probability=probability, grade_truth=truth))
    samples = 4000
    found = grading_summary(cases, samples=samples)
    for name in ("balanced_accuracy", "macro_f1", "macro_auroc"):
        assert found[name]["replicates_undefined"] / samples == pytest.approx(0.9**10, abs=0.03), name
    for name in ("accuracy", "quadratic_kappa"):
        assert found[name]["replicates_undefined"] == 0
    # Recalls are 1, 0 and 1 in every group: with the same three grades in every replicate the mean cannot move. Left
    # to average over what was drawn, a replicate without c would be (1 + 0) / 2.
    entry = found["balanced_accuracy"]
    assert entry["value"] == entry["low"] == entry["high"] == pytest.approx(2 / 3)


def test_each_grade_against_scikit_learn_and_the_plain_bootstrap():
    graded = [case for case in table() if case.grade_truth]
    truth, predicted = (
        np.array([getattr(case, kind) for case in graded]) for kind in ("grade_truth", "grade_predicted")
    )
    groups = [case.group for case in graded]
    found = per_grade_summary(graded, samples=40)
    assert list(found) == ["a", "b", "c"]
    for grade, entries in found.items():
        is_grade, called = truth == grade, predicted == grade
        score = np.array([case.probability[grade] for case in graded])
        expected = {
            "sensitivity": (sk.recall_score(is_grade, called), is_grade.sum()),
            "specificity": (sk.recall_score(~is_grade, ~called), (~is_grade).sum()),
            "precision": (sk.precision_score(is_grade, called), called.sum()),
            "f1": (sk.f1_score(is_grade, called), len(truth)),
            "auroc": (sk.roc_auc_score(is_grade, score), len(truth)),
            "auprc": (sk.average_precision_score(is_grade, score), len(truth)),
        }
        assert list(entries) == list(expected)
        for name, (value, n) in expected.items():
            assert entries[name]["value"] == pytest.approx(value), (grade, name)
            assert (entries[name]["n"], entries[name]["undefined"]) == (n, 0), (grade, name)
        for name, measured in (("f1", lambda t, c, s: sk.f1_score(t, c)), ("auprc", lambda t, c, s: ap(t, s))):
            plain = cluster_bootstrap(measured, groups, is_grade, called, score, samples=40, expanded=True)
            bounds = [entries[name][side] for side in ("low", "high")]
            assert bounds == pytest.approx([plain.low, plain.high]), (grade, name)


def ap(truth, score):
    return sk.average_precision_score(truth, score)


def test_at_or_above_against_scikit_learn():
    graded = [case for case in table() if case.grade_truth]
    found = at_or_above_summary(graded, samples=40)
    assert list(found) == ["b", "c"]
    for grade, names in (("b", "bc"), ("c", "c")):
        positive, called = (
            np.array([getattr(case, kind) in names for case in graded]) for kind in ("grade_truth", "grade_predicted")
        )
        score = [sum(case.probability[name] for name in names) for case in graded]
        expected = {
            "auroc": (sk.roc_auc_score(positive, score), len(graded)),
            "sensitivity": (sk.recall_score(positive, called), positive.sum()),
            "specificity": (sk.recall_score(~positive, ~called), (~positive).sum()),
        }
        assert list(found[grade]) == list(expected)
        for name, (value, n) in expected.items():
            entry = found[grade][name]
            assert entry["value"] == pytest.approx(value) and entry["n"] == n, (grade, name)
            assert entry["low"] < value < entry["high"]


def test_a_decision_rule_of_its_own_counts_in_the_calls_and_not_in_the_areas():
    usual = [case for case in table() if case.grade_truth]
    ruled = [replace(case, grade_predicted="c") for case in usual]
    for summarise in (per_grade_summary, at_or_above_summary):
        before, after = (summarise(cases, samples=20)["c"] for cases in (usual, ruled))
        assert (after["sensitivity"]["value"], after["specificity"]["value"]) == (1, 0)
        assert before["sensitivity"]["value"] < 1 and after["auroc"] == before["auroc"]
    before, after = (grading_summary(cases, samples=20) for cases in (usual, ruled))
    assert after["quadratic_kappa"]["value"] == 0 != before["quadratic_kappa"]["value"]
    assert after["macro_auprc"] == before["macro_auprc"]


def test_grades_that_never_occur():
    # All cases are of the lowest grade, which is given to two of the three.
    probabilities = [{"a": 0.9, "b": 0.1, "c": 0.0}, {"a": 0.6, "b": 0.4, "c": 0.0}, {"a": 0.2, "b": 0.7, "c": 0.1}]
    cases = [measure(f"{i}", f"{i}", probability=p, grade_truth="a") for i, p in enumerate(probabilities)]
    value_and_n = {
        grade: {name: (entry["value"], entry["n"]) for name, entry in entries.items()}
        for grade, entries in per_grade_summary(cases, samples=20).items()
    }
    nothing = (pytest.approx(np.nan, nan_ok=True), 0)
    assert value_and_n["a"] == {
        **{"sensitivity": (pytest.approx(2 / 3), 3), "specificity": nothing, "precision": (1, 2)},
        **{"f1": (pytest.approx(4 / 5), 3), "auroc": nothing, "auprc": nothing},
    }
    assert value_and_n["b"] == {
        **{"sensitivity": nothing, "specificity": (pytest.approx(2 / 3), 3), "precision": (0, 1)},
        **{"f1": nothing, "auroc": nothing, "auprc": nothing},
    }
    assert value_and_n["c"]["precision"] == nothing
    steps = at_or_above_summary(cases, samples=20)
    assert steps["b"]["auroc"]["undefined"] == 3 and steps["b"]["sensitivity"]["n"] == 0
    assert steps["c"]["specificity"]["value"] == 1
    for summarise in (per_grade_summary, at_or_above_summary):
        assert summarise([]) == {} and summarise([Case("x", "p")]) == {}


def test_summary_is_the_three_together():
    cases = [*table(), *(measure(f"m{i}", "m", p_malignant=i / 9, malignant_truth=i > 3) for i in range(9))]
    options = {"samples": 40, "level": 0.9, "seed": 3}
    parts = [part(cases, **options) for part in (segmentation_summary, grading_summary, malignancy_summary)]
    assert summary(cases, **options) == {name: entry for part in parts for name, entry in part.items()}
    assert [len(part) for part in parts] == [11, 9, 11]
    assert summary([]) == {}


def test_summaries_without_labels():
    unlabelled = [Case(case="x", group="p", predicted_area_px=4)]
    for cases in ([], unlabelled):
        assert segmentation_summary(cases) == {} and grading_summary(cases) == {}
    names, confusion = table_confusion(unlabelled)
    assert names == () and confusion.shape == (0, 0)
    all_undefined = [
        measure(f"{i}", f"{i}", predicted=np.zeros((3, 3), bool), reference=np.ones((3, 3), bool)) for i in range(3)
    ]
    found = segmentation_summary(all_undefined)
    assert found["dice"]["value"] == 0 and np.isnan(found["hd95_px"]["value"])
    assert found["hd95_px"]["n"] == 0 and found["hd95_px"]["undefined"] == 3
    same = [measure(f"{i}", f"{i}", probability={"a": 0.9, "b": 0.1}, grade_truth="a") for i in range(3)]
    found = grading_summary(same)
    assert found["accuracy"]["value"] == 1 and found["quadratic_kappa"]["undefined"] == 3
    with pytest.raises(ValueError, match="'q': grade 'z' is not one of a, b"):
        grading_summary([measure("q", "q", probability={"a": 0.9, "b": 0.1}, grade_truth="z")])


def test_importing_the_package_needs_no_optional_library():
    import subprocess
    import sys

    heavy = {"scipy", "sklearn", "matplotlib", "jinja2", "PIL"}
    check = (
        "import sys; from thyroid_jax.evaluate import statistics, metrics, cases, report, summary; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60)
    assert not heavy & set(done.stdout.split())
