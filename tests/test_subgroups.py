"""Subgroups: who is in which, measures against direct computation, the test against statsmodels, and readers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import auroc, confusion_matrix, quadratic_kappa
from thyroid_jax.evaluate.statistics import holm
from thyroid_jax.evaluate.subgroups import (
    between_readers,
    divided,
    equal_means_p,
    estimate,
    subgroups,
    wald,
    with_readers,
)

NAN = float("nan")
NAMES = ("a", "b", "c")


def table(n=60, seed=0, **fields):
    """Cases in pairs of one group, with outlines, grades and malignancy."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        p = rng.dirichlet(np.ones(3))
        cases.append(
            Case(
                case=f"c{i}",
                group=f"g{i // 2}",
                dice=float(rng.uniform(0.4, 1)),
                reference_area_px=100 + i,
                grade_truth=NAMES[i % 3],
                grade_predicted=NAMES[int(p.argmax())],
                probability=dict(zip(NAMES, p.tolist())),
                malignant_truth=bool(i % 4 == 0),
                p_malignant=float(rng.uniform()),
                **fields,
            )
        )
    return cases


def names_and_sizes(parts):
    return [(name, len(some)) for name, some in parts]


# --- who is in which subgroup -----------------------------------------------------------------------------------------


def test_every_characteristic_of_the_cases_and_no_other():
    assert list(divided(table())) == ["size of the reference, pixels", "true grade", "true malignancy"]
    found = divided(table())
    assert names_and_sizes(found["true grade"]) == [("a", 20), ("b", 20), ("c", 20)]
    assert names_and_sizes(found["true malignancy"]) == [("benign", 45), ("malignant", 15)]
    assert divided([]) == {} and divided([Case("x", "p")]) == {}
    one_grade = [dataclasses.replace(case, grade_truth="b", malignant_truth=True) for case in table()]
    assert list(divided(one_grade)) == ["size of the reference, pixels"]


@pytest.mark.parametrize("kind", [int, float, np.bool_, np.int64])
def test_malignancy_of_any_type_that_a_case_takes(kind):
    cases = [dataclasses.replace(case, malignant_truth=kind(case.malignant_truth)) for case in table()]
    assert names_and_sizes(divided(cases)["true malignancy"]) == [("benign", 45), ("malignant", 15)]


def test_thirds_of_the_size_by_hand():
    # Areas 1..30: the quantiles at 1/3 and 2/3 are 10 2/3 and 20 1/3, so 1..10, 11..20 and 21..30.
    cases = [Case(f"{i}", f"{i}", reference_area_px=i) for i in range(1, 31)]
    (parts,) = divided(cases).values()
    assert names_and_sizes(parts) == [("small (≤ 10.7)", 10), ("middle (10.7 to 20.3)", 10), ("large (> 20.3)", 10)]
    assert [case.reference_area_px for case in parts[1][1]] == list(range(11, 21))
    assert divided(cases[:29]) == {}
    # Of 1..31 the bounds are 11 and 21 themselves, and belong below.
    (parts,) = divided([*cases, Case("31", "31", reference_area_px=31)]).values()
    assert names_and_sizes(parts) == [("small (≤ 11)", 11), ("middle (11 to 21)", 10), ("large (> 21)", 10)]


def test_sizes_are_in_mm_where_all_outlined_cases_have_them():
    cases = [Case(f"{i}", "g", reference_area_px=i + 1, reference_area_mm2=100.0 - i) for i in range(30)]
    (parts,) = divided([*cases, Case("without outline", "g")]).values()
    assert list(divided(cases)) == ["size of the reference, mm²"]
    assert "29" in {case.case for case in parts[0][1]}  # the smallest in mm² is the largest in pixels
    unknown = dataclasses.replace(cases[0], reference_area_mm2=NAN)
    assert list(divided([unknown, *cases[1:]])) == ["size of the reference, pixels"]


def test_an_empty_reference_has_no_size_in_either_unit():
    cases = [
        Case(f"{i}", "g", reference_area_px=max(i - 9, 0), reference_area_mm2=max(i - 9, 0) / 4) for i in range(40)
    ]
    in_pixels = [dataclasses.replace(case, reference_area_mm2=NAN) for case in cases]
    for table_ in (cases, in_pixels):
        (parts,) = divided(table_).values()
        assert [len(some) for _, some in parts] == [10, 10, 10]


def test_large_numbers_are_written_in_full():
    cases = [Case(f"{i}", "g", reference_area_px=5000 + 1000 * i) for i in range(30)]
    (parts,) = divided(cases).values()
    assert [name for name, _ in parts] == ["small (≤ 14667)", "middle (14667 to 24333)", "large (> 24333)"]


def test_equal_values_stay_together():
    cases = [Case(f"{i}", "g", contrast_to_noise=0.0 if i < 28 else 1.0) for i in range(40)]
    found = divided(cases)["contrast to noise"]
    assert sorted(len(some) for _, some in found) == [12, 28]
    assert divided([Case(f"{i}", "g", contrast_to_noise=1.0) for i in range(40)]) == {}


def test_rare_values_are_pooled_and_missing_ones_named():
    devices = ["A"] * 15 + ["B"] * 10 + ["C"] * 9 + ["D"] * 1 + [""] * 5
    cases = [Case(f"{i}", "g", about={"device": device} if device else {}) for i, device in enumerate(devices)]
    assert names_and_sizes(divided(cases)["device"]) == [
        ("A", 15), ("B", 10), ("other (2 values)", 10), ("not stated", 5)
    ]  # fmt: skip
    assert names_and_sizes(divided(cases[:-6])["device"])[-1] == ("other (1 value)", 9)
    # Free text, different in every case, divides nothing; and a name that is also one of ours is kept apart.
    assert divided([Case(f"{i}", "g", about={"note": f"text {i}"}) for i in range(40)]) == {}
    clash = [dataclasses.replace(case, about={"true grade": "xy"[i % 2]}) for i, case in enumerate(table())]
    assert {"true grade", "true grade (stated)"} <= set(divided(clash))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["", "x", "y", "z"])), max_size=80))
def test_no_case_is_lost_or_counted_twice(rows):
    cases = [Case(f"{i}", "g", reference_area_px=area, about={"k": text}) for i, (area, text) in enumerate(rows)]
    for name, parts in divided(cases).items():
        inside = [case.case for _, some in parts for case in some]
        expected = [case.case for case in cases if name == "k" or case.reference_area_px]
        assert sorted(inside) == sorted(expected) and all(some for _, some in parts)


# --- measures ---------------------------------------------------------------------------------------------------------


def test_measures_are_those_of_the_subgroup_alone():
    cases = table()
    found = {one.name: one for one in subgroups(cases, samples=50)}
    for part in found["true malignancy"].subgroups:
        some = [case for case in cases if case.malignant_truth == (part.name == "malignant")]
        assert part.cases == len(some) and part.groups == len({case.group for case in some})
        assert part.estimates["dice"].value == pytest.approx(np.mean([case.dice for case in some]))
        truth, predicted = (
            [NAMES.index(getattr(case, f)) for case in some] for f in ("grade_truth", "grade_predicted")
        )
        expected = quadratic_kappa(confusion_matrix(np.array(predicted), np.array(truth), 3))
        assert part.estimates["quadratic_kappa"].value == pytest.approx(float(expected))
        assert np.isnan(part.estimates["malignant_auroc"].value)  # one class alone has no AUROC
        dice = part.estimates["dice"]
        assert dice.low < dice.value < dice.high and dice.cases == len(some)
    small = found["size of the reference, pixels"].subgroups[0]
    first = cases[:20]
    expected = auroc(np.array([c.p_malignant for c in first]), np.array([c.malignant_truth for c in first]))
    assert small.estimates["malignant_auroc"].value == pytest.approx(float(expected))


def test_kappa_of_one_true_grade_does_not_exist():
    """Its formula gives 0 there, whatever is predicted."""
    cases = [dataclasses.replace(case, grade_truth="b") for case in table()]
    assert float(quadratic_kappa(confusion_matrix(np.array([0, 2]), np.array([1, 1]), 3))) == 0
    found = estimate(cases, "quadratic_kappa", samples=20)
    assert np.isnan(found.value) and np.isnan(found.low) and found.cases == 60
    by_grade = next(one for one in subgroups(table(), samples=20) if one.name == "true grade")
    assert all(np.isnan(part.estimates["quadratic_kappa"].value) for part in by_grade.subgroups)


def test_replicates_of_one_true_grade_are_left_out_of_the_interval():
    # Two groups, each of one grade, predicted perfectly: a replicate with one of them alone says nothing, not 0.
    cases = [
        Case(
            f"{i}",
            "pq"[i // 5],
            grade_truth="ab"[i // 5],
            grade_predicted="ab"[i // 5],
            probability={"a": 0.5, "b": 0.5},
        )
        for i in range(10)
    ]
    found = estimate(cases, "quadratic_kappa", samples=200)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_measures_that_no_case_has_are_not_shown():
    outlines = [Case(f"{i}", f"{i}", dice=0.5 + i / 100, reference_area_px=i + 1) for i in range(40)]
    (size,) = subgroups(outlines, samples=20)
    assert list(size.subgroups[0].estimates) == ["dice"]
    grades_only = [dataclasses.replace(case, dice=NAN) for case in table()]
    for one in subgroups(grades_only, samples=20):
        assert "dice" not in one.subgroups[0].estimates and np.isnan(one.p) and np.isnan(one.p_adjusted)
    assert subgroups([]) == ()
    nothing = estimate([], "dice")
    assert np.isnan(nothing.value) and nothing.cases == 0 and nothing.groups == 0


def test_p_is_adjusted_over_the_characteristics():
    found = subgroups(table(), samples=20)
    raw = [one.p for one in found]
    np.testing.assert_allclose([one.p_adjusted for one in found], holm(raw))
    assert all(one.p_adjusted >= one.p for one in found) and len(raw) == 3


# --- the test of equal means ------------------------------------------------------------------------------------------

CLUSTER = [
    22, 15, 16, 21, 13, 18, 20, 5, 1, 7, 6, 20, 21, 0, 11, 19, 3, 19, 2, 11, 19, 7, 8, 6, 17, 6, 23, 10, 11, 12,
    13, 13, 12, 23, 19, 19, 16, 14, 8, 23, 11, 5, 20, 3, 20, 14, 2, 1, 10, 0, 3, 12, 23, 11, 19, 22, 19, 15, 10, 12,
]  # fmt: skip
SUBGROUP = [
    0, 1, 1, 0, 2, 0, 0, 0, 2, 2, 2, 0, 2, 1, 1, 0, 1, 2, 1, 0, 1, 0, 2, 2, 0, 1, 2, 2, 2, 1,
    0, 2, 1, 0, 0, 1, 2, 1, 1, 2, 2, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 2, 1, 1, 1, 2, 1, 1,
]  # fmt: skip
VALUE = [
    0.664, 0.866, 0.763, 0.657, 0.732, 0.721, 0.885, 0.641, 0.854, 0.873, 0.833, 0.852, 0.786, 0.618, 0.832,
    0.591, 0.661, 0.76, 0.659, 0.773, 0.837, 0.748, 0.883, 0.791, 0.692, 0.722, 0.825, 0.756, 0.891, 0.499,
    0.65, 0.755, 0.498, 0.748, 0.632, 0.774, 0.879, 0.745, 0.835, 0.829, 0.765, 0.635, 0.92, 0.656, 0.895,
    0.603, 0.742, 0.728, 0.709, 0.639, 0.636, 0.563, 0.857, 0.861, 0.711, 0.712, 0.676, 0.981, 0.643, 0.548,
]  # fmt: skip


def statistic(value, subgroup, cluster):
    """The statistic of the values as they are, and its p by F(K - 1, G - 1)."""
    from scipy.stats import f

    cluster = np.unique(cluster, return_inverse=True)[1]
    sums, counts = np.zeros((2, cluster.max() + 1, subgroup.max() + 1))
    for x, k, g in zip(value - value.mean(), subgroup, cluster):
        sums[g, k], counts[g, k] = sums[g, k] + x, counts[g, k] + 1
    (found,) = wald(np.ones((1, len(sums))), sums, counts)
    return found, f.sf(found, len(counts.T) - 1, len(sums) - 1)


def test_the_statistic_is_that_of_statsmodels():
    """Golden values: OLS on the subgroups, cov_type="cluster", use_t=True, F test of equal means (statsmodels 0.14)."""
    value, subgroup, cluster = np.array(VALUE), np.array(SUBGROUP), np.array(CLUSTER)
    assert statistic(value, subgroup, cluster)[1] == pytest.approx(0.002240465499270468, rel=1e-9)
    two = subgroup < 2
    assert statistic(value[two], subgroup[two], cluster[two])[1] == pytest.approx(0.6818662936025449, rel=1e-9)


def test_p_is_the_share_of_replicates_that_reach_the_statistic():
    """Ten clusters of one case: all 1024 signs, by the regression of the signed values themselves."""
    from itertools import product

    value, subgroup = np.array([0.1, 0.4, 0.3, 0.6, 0.5, 0.9, 0.7, 0.45, 0.35, 1.0]), np.repeat([0, 1], 5)
    centred, names = value - value.mean(), np.arange(10)
    reached, found = 0, statistic(value, subgroup, names)[0]
    for signs in product([-1.0, 1.0], repeat=10):
        reached += statistic(signs * centred, subgroup, names)[0] >= found * (1 - 1e-9)
    assert equal_means_p(value, subgroup, names) == pytest.approx(reached / 1024, abs=0.01)
    assert 0.01 < reached / 1024 < 0.2


def test_names_and_cases_without_a_value_do_not_matter():
    value, subgroup, cluster = np.array(VALUE), np.array(SUBGROUP), np.array(CLUSTER)
    p = equal_means_p(value, subgroup, cluster)
    assert 0.001 < p < 0.02
    assert equal_means_p(np.r_[value, NAN], np.r_[np.array([4, 7, 9])[subgroup], 5], np.r_[cluster, 99]) == p
    # In another order the clusters meet other signs.
    order = np.random.default_rng(0).permutation(60)
    renamed = np.array([9, 4, 7])[subgroup]
    other = equal_means_p(value[order], renamed[order], [*map(str, cluster[order])])
    assert other == pytest.approx(p, abs=0.006)


def test_without_clusters_of_several_cases_it_is_about_welch():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, 80), rng.normal(0.4, 2, 60)
    ours = equal_means_p(np.r_[x, y], np.r_[np.zeros(80, int), np.ones(60, int)], np.arange(140))
    assert ours == pytest.approx(ttest_ind(x, y, equal_var=False).pvalue, abs=0.03)


def level(draw, tables=600):
    """The share of tables without any difference that have p < 0.05; its standard error is 0.009."""
    rng = np.random.default_rng(3)
    return np.mean([equal_means_p(*draw(rng)) < 0.05 for _ in range(tables)])


def cases_of(rng, clusters, skewed):
    cluster = np.repeat(np.arange(clusters), rng.integers(1, 6, clusters))
    value = rng.normal(size=clusters)[cluster] + rng.normal(size=len(cluster))
    return (-np.exp(0.7 * value) if skewed else value), cluster


@pytest.mark.parametrize("subgroups, each", [(2, 5), (5, 8), (5, 24)])
@pytest.mark.parametrize("skewed", [False, True])
def test_level_where_the_clusters_lie_in_the_subgroups(monkeypatch, subgroups, each, skewed):
    monkeypatch.setattr("thyroid_jax.evaluate.subgroups.REPLICATES", 199)

    def draw(rng):
        value, cluster = cases_of(rng, subgroups * each, skewed)
        return value, cluster % subgroups, cluster

    assert 0.01 < level(draw) < 0.085


def test_level_where_the_clusters_reach_over_subgroups(monkeypatch):
    monkeypatch.setattr("thyroid_jax.evaluate.subgroups.REPLICATES", 199)

    def draw(rng):
        value, cluster = cases_of(rng, 40, skewed=False)
        return value, rng.integers(0, 3, len(cluster)), cluster

    assert 0.02 < level(draw) < 0.085


def test_the_same_five_clusters_in_both_subgroups_give_no_small_p():
    """Of their 32 signs each has an opposite with the same statistic: p is 1 / 16 at least."""
    cluster = np.tile(np.arange(5), 2)
    subgroup = np.repeat([0, 1], 5)
    value = 3.0 * subgroup + np.random.default_rng(0).normal(0, 0.1, 10) + cluster
    assert equal_means_p(value, subgroup, cluster) == pytest.approx(1 / 16, abs=0.015)


def test_a_difference_is_found():
    rng = np.random.default_rng(5)
    value, cluster = cases_of(rng, 60, skewed=False)
    assert equal_means_p(value + 1.5 * (cluster % 3 == 0), cluster % 3, cluster) < 0.005


@pytest.mark.parametrize("why, value, subgroup, clusters", [
    ("one subgroup", np.arange(10.0), np.zeros(10, int), np.arange(10)),
    ("four clusters in one of two", np.arange(10.0), [0] * 6 + [1] * 4, np.arange(10)),
    ("five cases of one cluster", np.arange(11.0), [0] * 6 + [1] * 5, [*range(6), *[9] * 5]),
    ("no spread at all", np.full(20, 0.7), [0] * 10 + [1] * 10, np.arange(20)),
    ("no spread in either", np.repeat([0.3, 0.8], 10), [0] * 10 + [1] * 10, np.arange(20)),
    ("no value", np.full(20, NAN), [0] * 10 + [1] * 10, np.arange(20)),
])  # fmt: skip
def test_no_p_where_it_would_be_made_up(why, value, subgroup, clusters):
    assert np.isnan(equal_means_p(value, np.array(subgroup), clusters)), why


def test_small_subgroups_do_not_enter_the_test():
    value, subgroup, cluster = np.array(VALUE), np.array(SUBGROUP), [str(c) for c in CLUSTER]
    extreme = equal_means_p(np.r_[value, [9.0] * 4], np.r_[subgroup, [3] * 4], [*cluster, "u", "v", "w", "x"])
    assert extreme == pytest.approx(equal_means_p(value, subgroup, cluster), rel=1e-12)


# --- readers ----------------------------------------------------------------------------------------------------------


def test_the_model_beside_each_reader():
    cases = table(12)
    cases = [
        dataclasses.replace(
            case,
            reader_dice=(0.5 + i / 100, NAN if i < 4 else 0.9),
            reader_grades=(NAMES[i % 3], "" if i < 6 else case.grade_predicted),
        )
        for i, case in enumerate(cases)
    ]
    first, second = with_readers(cases, samples=50)
    assert (first.reader, second.reader) == (1, 2)
    assert first.dice.value == pytest.approx(0.555) and first.dice.cases == 12
    assert second.dice.value == pytest.approx(0.9) and second.dice.cases == 8
    assert second.kappa.value == pytest.approx(1) and second.kappa.cases == 6
    truth, predicted = (np.array([NAMES.index(name) for name in some]) for some in (
        [case.reader_grades[0] for case in cases], [case.grade_predicted for case in cases]
    ))  # fmt: skip
    assert first.kappa.value == pytest.approx(float(quadratic_kappa(confusion_matrix(predicted, truth, 3))))
    (pair,) = between_readers(cases, samples=50)
    both = [case for case in cases if case.reader_grades[1]]
    a, b = (np.array([NAMES.index(case.reader_grades[place]) for case in both]) for place in (0, 1))
    assert (pair.first, pair.second, pair.kappa.cases) == (1, 2, 6)
    assert pair.kappa.value == pytest.approx(float(quadratic_kappa(confusion_matrix(b, a, 3))))


def test_cases_without_readers_and_with_unknown_grades():
    assert with_readers(table(4)) == () and between_readers(table(4)) == () and with_readers([]) == ()
    one = [dataclasses.replace(case, reader_dice=(0.5,)) for case in table(4)]
    (row,) = with_readers(one, samples=20)
    assert row.dice.value == 0.5 and np.isnan(row.kappa.value) and row.kappa.cases == 0
    strange = [dataclasses.replace(case, reader_grades=("?", "a")) for case in table(4)]
    for function in (with_readers, between_readers):
        with pytest.raises(ValueError, match="a reader's grade '\\?' is not one of a, b, c"):
            function(strange)
