"""Agreement between readers, compared with worked examples of the papers, with scikit-learn, and with its limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from thyroid_jax.data.record import Record
from thyroid_jax.evaluate import agreement

# Fleiss's example with 14 raters, 10 subjects, 5 categories: kappa 0.210.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
# Shrout and Fleiss, table 2: six targets, four judges; their ICC(2,1) is 0.29.
SHROUT = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_worked_examples():
    assert agreement.fleiss_kappa(np.array(FLEISS)) == pytest.approx(0.210, abs=5e-4)
    assert agreement.icc(np.array(SHROUT)) == pytest.approx(0.29, abs=5e-3)


def test_shifted_readers_agree_less_in_absolute_numbers():
    values = np.arange(10.0)[:, None] * np.ones(3)
    assert agreement.icc(values) == pytest.approx(1)
    assert agreement.icc(values + np.array([0, 2, 4])) < 0.9
    assert math.isnan(agreement.icc(np.ones((4, 3)))) and math.isnan(agreement.icc(np.ones((1, 3))))
    with pytest.raises(ValueError, match="missing"):
        agreement.icc(np.array([[1.0, math.nan], [2, 3]]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=40))
def test_weighted_kappa_is_that_of_scikit_learn(pairs):
    first, second = zip(*pairs)
    if len({*first, *second}) < 2:
        assert math.isnan(agreement.weighted_kappa(first, second, 5))
        return
    expected = cohen_kappa_score(first, second, labels=range(5), weights="quadratic")
    assert agreement.weighted_kappa(first, second, 5) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(lambda grades: len(set(grades)) > 1))
def test_perfect_agreement_is_one_in_every_measure(grades):
    counts = np.eye(4, dtype=int)[grades] * 3
    assert agreement.fleiss_kappa(counts) == pytest.approx(1)
    assert agreement.weighted_kappa(grades, grades, 4) == pytest.approx(1)
    assert agreement.icc(np.array([grades, grades]).T) == pytest.approx(1)


def test_fleiss_of_two_readers_by_chance_is_near_zero_and_unequal_numbers_count_by_image():
    rng = np.random.default_rng(0)
    counts = np.array([np.bincount(rng.integers(0, 3, 2 + i % 3), minlength=3) for i in range(6000)])
    assert abs(agreement.fleiss_kappa(counts)) < 0.03
    alone = np.eye(3, dtype=int)
    assert agreement.fleiss_kappa(np.concatenate([counts, alone])) == agreement.fleiss_kappa(counts)
    assert math.isnan(agreement.fleiss_kappa(alone)) and math.isnan(agreement.fleiss_kappa(np.array([[2, 0], [3, 0]])))


def disc(radius):
    y, x = np.mgrid[:40, :40]
    return (y - 20) ** 2 + (x - 20) ** 2 < radius**2


def record(case, radii, grades):
    masks = tuple(disc(radius) for radius in radii)
    return Record(
        case, case, case, np.arange(1600, dtype=np.uint16).astype(np.uint8).reshape(40, 40), disc(9), masks, 0, grades
    )


def test_agreement_of_a_data_set():
    records = [
        record("a", (8, 10), (0, 0)),
        record("b", (5, 5), (2, 1)),
        record("c", (12, 12), (2, 2)),
        record("alone", (6,), (1,)),
        record("none", (), ()),
    ]
    found = agreement.agreement([agreement.reader_labels(each) for each in records], 3)
    small, large = disc(8).sum(), disc(10).sum()
    assert (found.outlines, found.grades) == (3, 3)
    assert found.dice == pytest.approx((2 * small / (small + large) + 1 + 1) / 3)
    areas = [[disc(r).sum() for r in pair] for pair in ((8, 10), (5, 5), (12, 12))]
    assert found.area_icc == pytest.approx(agreement.icc(np.array(areas)))
    assert found.kappa == pytest.approx(cohen_kappa_score([0, 2, 2], [0, 1, 2], weights="quadratic"))
    assert found.fleiss == pytest.approx(agreement.fleiss_kappa(np.array([[2, 0, 0], [0, 1, 1], [0, 0, 2]])))


def test_without_several_readers_nothing_is_claimed():
    found = agreement.agreement([agreement.reader_labels(record("a", (5,), (1,)))], 3)
    assert (found.outlines, found.grades) == (0, 0)
    assert all(math.isnan(value) for value in (found.dice, found.area_icc, found.kappa, found.fleiss))
    assert math.isnan(agreement.agreement([], 0).kappa)


@pytest.mark.parametrize("first", [[-1, 0, 1], [0.9, 0, 1], [0, 1, float("nan")], [0, 1, 3], [1]])
def test_grades_that_are_none_are_not_counted_as_others(first):
    with pytest.raises(ValueError, match=r"whole numbers in 0\.\.2"):
        agreement.weighted_kappa(first, [2, 0, 1], 3)


@pytest.mark.parametrize("counts", [[[2, math.nan], [0, 2]], [[3, -1], [0, 2]], [3, 0]])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="must be a table"):
        agreement.fleiss_kappa(np.array(counts))


@pytest.mark.parametrize(("shape", "value"), [((3, 3), 0.1), ((7, 3), 0.7), ((5, 6), 1e20), ((3, 2), 1e-20)])
def test_readers_who_always_give_one_number_have_no_icc(shape, value):
    assert math.isnan(agreement.icc(np.full(shape, value)))
