"""Masks against closed forms and brute force; grades against scikit-learn and hand-computed values."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import (
    confusion_matrix,
    grading_summary,
    malignancy_summary,
    measure,
    segmentation_summary,
)

MASKS = arrays(bool, (7, 9), elements=st.booleans())


def square(top, left, side=20, size=40):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize("shift", [0, 3, 5, 20])
def test_offset_squares(shift):
    side, a, b = 20, square(5, 0), square(5, shift)
    assert metrics.dice(a, b) == pytest.approx((side - shift) / side)
    assert metrics.iou(a, b) == pytest.approx((side - shift) / (side + shift))
    # More than 5 % of a's boundary (its left side) lies exactly `shift` from b, and nothing farther.
    assert metrics.hd95_px(a, b) == shift
    assert metrics.hd95(a, b, (0.1, 0.25)) == pytest.approx(0.25 * shift)
    assert metrics.hd95(a.T, b.T, (0.1, 0.25)) == pytest.approx(0.1 * shift)


def test_hd95_is_the_larger_direction_and_forgives_a_twentieth():
    a = square(10, 10)
    spot = a.copy()
    spot[0, 0] = True
    # The far pixel is 1 of 77 boundary pixels: beyond the 95th percentile.
    assert metrics.hd95_px(spot, a) == 0.0
    spot[:4, :4] = True  # 12 of 88 boundary pixels
    assert metrics.hd95_px(spot, a) > 9
    assert metrics.hd95_px(a, spot) == metrics.hd95_px(spot, a)


def brute_force_hd95(a, b, spacing):
    def boundary(mask):
        framed = np.pad(mask, 1)
        inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        return np.argwhere(mask & ~inner) * spacing

    distance = cdist(boundary(a), boundary(b))
    return max(np.percentile(distance.min(axis=1), 95), np.percentile(distance.min(axis=0), 95))


@settings(max_examples=100, deadline=None)
@given(MASKS, MASKS, st.sampled_from([(1.0, 1.0), (0.3, 0.7)]))
def test_hd95_against_brute_force(a, b, spacing):
    if a.any() and b.any():
        assert metrics.hd95(a, b, spacing) == pytest.approx(brute_force_hd95(a, b, spacing), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(MASKS, MASKS)
def test_overlap_properties(a, b):
    dice, iou = metrics.dice(a, b), metrics.iou(a, b)
    assert dice == metrics.dice(b, a) and 0 <= iou <= dice <= 1
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert metrics.dice(a, a) == 1 and metrics.hd95_px(a, a) == 0


def test_empty_masks():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    assert (metrics.dice(empty, empty), metrics.iou(empty, empty), metrics.hd95_px(empty, empty)) == (1, 1, 0)
    for a, b in ((empty, full), (full, empty)):
        assert (metrics.dice(a, b), metrics.iou(a, b)) == (0, 0) and np.isnan(metrics.hd95_px(a, b))


@pytest.mark.parametrize("metric", [metrics.dice, metrics.iou, metrics.hd95_px])
def test_ill_masks_are_refused(metric):
    good = np.zeros((4, 5), bool)
    for bad in (np.zeros((5, 4), bool), np.zeros((4, 5)), np.zeros((4, 5), np.uint8)):
        with pytest.raises(ValueError, match=r"bool\[h w\]"):
            metric(bad, good)
    with pytest.raises(ValueError, match="spacing"):
        metrics.hd95(good, good, (1.0, 0.0))


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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 40), st.booleans())
def test_grading_against_scikit_learn(seed, k, n, coarse):
    from sklearn import metrics as sk

    random = np.random.default_rng(seed)
    truth, probability = random.integers(k, size=n), random.dirichlet(np.ones(k), n)
    probability = np.round(probability, 1) if coarse else probability  # ties
    ours = metrics.grading(probability, truth)
    predicted = probability.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of absent grades
        kappa = sk.cohen_kappa_score(truth, predicted, labels=range(k), weights="quadratic")
        expected = {
            "accuracy": sk.accuracy_score(truth, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
            "macro_f1": sk.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0),
        }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value), name
    if len(set(truth) | set(predicted)) > 1:
        assert ours["quadratic_kappa"] == pytest.approx(kappa)
    grades = np.unique(truth)
    areas = [sk.roc_auc_score(truth == grade, probability[:, grade]) for grade in grades] if len(grades) > 1 else []
    assert ours["macro_auroc"] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)
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
        for metric in (metrics.accuracy, metrics.quadratic_kappa):
            assert metric(confusion)[at] == pytest.approx(metric(once), nan_ok=True)
        for metric in (metrics.balanced_accuracy, metrics.macro_f1):
            assert metric(confusion, over)[at] == pytest.approx(metric(once, over), nan_ok=True)


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
    assert np.isnan(metrics.macro_auroc(probability, truth, np.array([True, True, True])))


def test_grading_at_the_edges():
    nothing = metrics.grading(np.zeros((0, 3)), np.zeros(0, int))
    assert all(np.isnan(value) for value in nothing.values())
    one_grade = metrics.grading(np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([1, 1]))
    assert one_grade["accuracy"] == one_grade["macro_f1"] == 1
    assert np.isnan(one_grade["macro_auroc"]) and np.isnan(one_grade["quadratic_kappa"])
    tie = metrics.grading(np.array([[0.5, 0.5]]), np.array([0]))
    assert tie["accuracy"] == 1
    for truth, match in (([0, 2], "integers in 0..1"), ([0, -1], "integers in 0..1"), ([0], "one length")):
        with pytest.raises(ValueError, match=match):
            metrics.grading(np.ones((2, 2)) / 2, np.array(truth))
    with pytest.raises(ValueError, match="without NaN"):
        metrics.grading(np.array([[np.nan, 1.0]]), np.array([0]))


def test_measure():
    a, b = square(0, 0), square(0, 5)
    case = measure(
        "x", "p", predicted=a, reference=b, probability={"low": 0.4, "mid": 0.4, "high": 0.2}, grade_truth="high"
    )
    assert case.dice == 0.75 and case.hd95_px == 5 and case.predicted_area_px == case.reference_area_px == 400
    assert (case.grade_truth, case.grade_predicted) == ("high", "low") and np.isnan(case.hd95_mm)
    bare = measure("x", "p", predicted=a, spacing=(0.1, 0.1))
    assert np.isnan(bare.dice) and np.isnan(bare.hd95_mm) and bare.reference_area_px is None
    assert bare.grade_predicted == "" and bare.probability == {} and bare.part == ""
    assert bare.malignant_truth is None and np.isnan(bare.p_malignant)
    full = measure("x", "p", part="fold 3", p_malignant=0.25, malignant_truth=True)
    assert (full.part, full.p_malignant, full.malignant_truth) == ("fold 3", 0.25, True)
    with pytest.raises(ValueError, match="every grade needs a probability"):
        measure("x", "p", probability={"low": 0.5, "high": float("nan")})


def test_hd95_in_mm_of_a_known_and_of_an_unknown_spacing():
    # Rows lie 0.5 mm apart, columns 0.125 mm: a shift of 4 rows is 2 mm, one of 4 columns half a mm.
    spacing = (0.5, 0.125)
    down = measure("x", "p", predicted=square(4, 0), reference=square(0, 0), spacing=spacing)
    across = measure("x", "p", predicted=square(0, 4), reference=square(0, 0), spacing=spacing)
    assert (down.hd95_px, down.hd95_mm) == (4, 2.0) and (across.hd95_px, across.hd95_mm) == (4, 0.5)
    # A single pixel 3 rows and 8 columns away: sqrt((3 * 0.5)^2 + (8 * 0.125)^2) = sqrt(3.25).
    apart = measure("x", "p", predicted=square(5, 9, 1), reference=square(2, 1, 1), spacing=spacing)
    assert apart.hd95_px == pytest.approx(np.sqrt(73)) and apart.hd95_mm == pytest.approx(np.sqrt(3.25))
    for unknown in ((np.nan, np.nan), (0.5, np.nan)):
        assert np.isnan(measure("x", "p", predicted=square(4, 0), reference=square(0, 0), spacing=unknown).hd95_mm)
    empty = np.zeros((40, 40), bool)
    assert measure("x", "p", predicted=empty, reference=empty, spacing=spacing).hd95_mm == 0
    assert np.isnan(measure("x", "p", predicted=empty, reference=square(0, 0), spacing=spacing).hd95_mm)
    with pytest.raises(ValueError, match="spacing"):
        measure("x", "p", predicted=empty, reference=empty, spacing=(0.5, 0.0))


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
    summary = segmentation_summary(cases, samples=500)
    assert summary["dice"]["value"] == pytest.approx(np.nanmean(dice))
    assert summary["dice"]["n"] == np.isfinite(dice).sum() and summary["dice"]["undefined"] == 0
    assert summary["hd95_px"]["value"] == pytest.approx(np.nanmean(hd95))
    assert summary["hd95_px"]["n"] == np.isfinite(hd95).sum()
    assert summary["hd95_px"]["n"] + summary["hd95_px"]["undefined"] == summary["dice"]["n"]
    assert summary["hd95_px"]["undefined"] > 0 and "hd95_mm" not in summary
    assert all(entry["replicates"] == 500 and entry["replicates_undefined"] == 0 for entry in summary.values())
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
    from sklearn.metrics import cohen_kappa_score

    from thyroid_jax.evaluate.statistics import cluster_bootstrap

    graded = [case for case in table() if case.grade_truth]
    truth, predicted = ([getattr(case, kind) for case in graded] for kind in ("grade_truth", "grade_predicted"))
    plain = cluster_bootstrap(
        lambda t, p: cohen_kappa_score(t, p, labels=["a", "b", "c"], weights="quadratic"),
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
    summary = segmentation_summary(cases, samples=50)
    assert summary["hd95_px"]["value"] == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert summary["hd95_mm"]["value"] == pytest.approx((0 + 0.25) / 2)
    assert (summary["hd95_mm"]["n"], summary["hd95_mm"]["undefined"]) == (2, 2)


def test_a_replicate_without_a_rare_grade_is_left_out_and_counted():
    # Ten groups of two, one of which alone holds grade c: a replicate misses it with probability (9/10)^10.
    cases = []
    for i in range(20):
        truth = "c" if i // 2 == 9 else "ab"[i % 2]
        probability = {"a": 0.2, "b": 0.3, "c": 0.5} if truth == "c" else {"a": 0.5, "b": 0.4, "c": 0.1}
        cases.append(measure(f"{i}", f"{i // 2}", probability=probability, grade_truth=truth))
    samples = 4000
    summary = grading_summary(cases, samples=samples)
    for name in ("balanced_accuracy", "macro_f1", "macro_auroc"):
        assert summary[name]["replicates_undefined"] / samples == pytest.approx(0.9**10, abs=0.03), name
    for name in ("accuracy", "quadratic_kappa"):
        assert summary[name]["replicates_undefined"] == 0
    # Recalls are 1, 0 and 1 in every group: with the same three grades in every replicate the mean cannot move. Left
    # to average over what was drawn, a replicate without c would be (1 + 0) / 2.
    entry = summary["balanced_accuracy"]
    assert entry["value"] == entry["low"] == entry["high"] == pytest.approx(2 / 3)


def judged(seed=0, n=80):
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    probability = np.round(np.clip(0.3 + 0.3 * truth + 0.2 * random.normal(size=n), 0, 1), 2)
    return (
        truth,
        probability,
        [measure(f"{i}", f"g{i // 2}", p_malignant=probability[i], malignant_truth=truth[i]) for i in range(n)],
    )


def test_malignancy_against_scikit_learn():
    from sklearn import metrics as sk

    truth, probability, cases = judged()
    ignored = [
        measure("no truth", "g", p_malignant=0.9),
        measure("no probability", "h", malignant_truth=True),
        Case("neither", "i"),
    ]
    summary = malignancy_summary([*cases, *ignored], samples=300)
    called = probability >= 0.5
    expected = {
        "malignant_auroc": sk.roc_auc_score(truth, probability),
        "malignant_accuracy": sk.accuracy_score(truth, called),
        "malignant_balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "malignant_sensitivity": sk.recall_score(truth, called),
        "malignant_specificity": sk.recall_score(truth, called, pos_label=0),
    }
    assert list(summary) == list(expected)
    counts = {"malignant_sensitivity": truth.sum(), "malignant_specificity": (~truth).sum()}
    for name, value in expected.items():
        entry = summary[name]
        assert entry["value"] == pytest.approx(value) and entry["low"] < value < entry["high"]
        assert (entry["n"], entry["undefined"]) == (counts.get(name, len(cases)), 0)
        assert set(entry) == set(grading_summary(table(), samples=10)["accuracy"])
    assert summary["malignant_auroc"]["groups"] == 40


def test_half_is_called_malignant():
    cases = [
        measure("a", "a", p_malignant=0.5, malignant_truth=True),
        measure("b", "b", p_malignant=0.49, malignant_truth=0),
    ]
    assert malignancy_summary(cases, samples=20)["malignant_accuracy"]["value"] == 1


def test_malignancy_of_one_kind_and_of_none():
    benign = [measure(f"{i}", f"{i}", p_malignant=0.1 * i, malignant_truth=False) for i in range(8)]
    summary = malignancy_summary(benign, samples=50)
    for name in ("malignant_auroc", "malignant_balanced_accuracy"):
        assert np.isnan(summary[name]["value"]) and (summary[name]["n"], summary[name]["undefined"]) == (0, 8)
    assert np.isnan(summary["malignant_sensitivity"]["value"]) and summary["malignant_sensitivity"]["n"] == 0
    assert summary["malignant_specificity"]["value"] == summary["malignant_accuracy"]["value"] == 5 / 8
    # One malignant group of nine: a replicate misses it with probability (8/9)^9.
    summary = malignancy_summary([*benign, measure("m", "m", p_malignant=0.9, malignant_truth=True)], samples=4000)
    for name in ("malignant_auroc", "malignant_balanced_accuracy"):
        assert summary[name]["replicates_undefined"] / 4000 == pytest.approx((8 / 9) ** 9, abs=0.03)
    assert summary["malignant_sensitivity"]["groups"] == 1 and np.isnan(summary["malignant_sensitivity"]["low"])
    for cases in ([], [measure("x", "p", p_malignant=0.3)], table()):
        assert malignancy_summary(cases) == {}


def test_summary_is_the_three_together():
    _, _, cases = judged()
    cases = [*cases, *table()]
    whole = metrics.summary(cases, samples=40, level=0.9, seed=3)
    parts = [
        part(cases, samples=40, level=0.9, seed=3)
        for part in (segmentation_summary, grading_summary, malignancy_summary)
    ]
    assert whole == {name: entry for part in parts for name, entry in part.items()} and len(whole) == 13
    assert metrics.summary([]) == {}


def test_summaries_without_labels():
    unlabelled = [Case(case="x", group="p", predicted_area_px=4)]
    for cases in ([], unlabelled):
        assert segmentation_summary(cases) == {} and grading_summary(cases) == {}
    names, confusion = metrics.table_confusion(unlabelled)
    assert names == () and confusion.shape == (0, 0)
    all_undefined = [
        measure(f"{i}", f"{i}", predicted=np.zeros((3, 3), bool), reference=np.ones((3, 3), bool)) for i in range(3)
    ]
    summary = segmentation_summary(all_undefined)
    assert summary["dice"]["value"] == 0 and np.isnan(summary["hd95_px"]["value"])
    assert summary["hd95_px"]["n"] == 0 and summary["hd95_px"]["undefined"] == 3
    same = [measure(f"{i}", f"{i}", probability={"a": 0.9, "b": 0.1}, grade_truth="a") for i in range(3)]
    summary = grading_summary(same)
    assert summary["accuracy"]["value"] == 1 and summary["quadratic_kappa"]["undefined"] == 3
    with pytest.raises(ValueError, match="'q': grade 'z' is not one of a, b"):
        grading_summary([measure("q", "q", probability={"a": 0.9, "b": 0.1}, grade_truth="z")])


def test_importing_the_package_needs_no_optional_library():
    import subprocess
    import sys

    heavy = {"scipy", "sklearn", "matplotlib", "jinja2", "PIL"}
    check = "import sys; from thyroid_jax.evaluate import statistics, metrics, cases, report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60)
    assert not heavy & set(done.stdout.split())
