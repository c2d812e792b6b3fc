from collections import Counter

import numpy as np
import pytest

from thyroid_jax.data.splits import Meta, assign_folds, load_split, make_split
from thyroid_jax.errors import InputError
from thyroid_jax.files import write_json


def dataset(groups=60, seed=0):
    rng = np.random.default_rng(seed)
    metas, strata = [], []
    for g in range(groups):
        for k in range(rng.integers(1, 4)):
            metas.append(Meta(f"{g}_{k}", str(g), f"hash{g}{k}"))
            strata.append(g % 4 if g % 5 else None)
    return metas, strata


def folds_of(metas, strata, seed=0, folds=5):
    return assign_folds([m.group for m in metas], strata, folds=folds, seed=seed)


def test_groups_stay_whole_classes_are_spread_and_the_seed_decides():
    metas, strata = dataset()
    folds = folds_of(metas, strata)
    assert set(folds) == set(range(5))
    assert all(len({f for m, f in zip(metas, folds) if m.group == g}) == 1 for g in {m.group for m in metas})
    for stratum in set(strata):
        spread = Counter(f for s, f in zip(strata, folds) if s == stratum)
        assert len(spread) == 5
    assert folds == folds_of(metas, strata)
    assert folds != folds_of(metas, strata, seed=1)


def test_every_record_is_tested_once():
    metas, strata = dataset()
    folds = folds_of(metas, strata)
    tested = [case for fold in range(5) for case in make_split(metas, folds, fold, 0)["test"]]
    assert sorted(tested) == sorted(m.case for m in metas)
    split = make_split(metas, folds, 4, 0)
    assert split["validation"] == [m.case for m, f in zip(metas, folds) if f == 0]
    assert len(split["train"]) + len(split["validation"]) + len(split["test"]) == len(metas)


def test_a_class_with_too_few_groups_is_named():
    with pytest.raises(
        InputError, match=r"(?s)at least 3 groups.*Merge these.*class '5': 1 group\b.*class '6': 2 groups"
    ):
        assign_folds(list("abcdefgh"), ["2", "2", "2", "2", "2", "5", "6", "6"], folds=4, seed=0)


@pytest.mark.parametrize(("folds", "text"), [(2, "at least 3"), (9, "only 8 groups")])
def test_impossible_numbers_of_folds(folds, text):
    with pytest.raises(InputError, match=text):
        assign_folds(list("abcdefgh"), [None] * 8, folds=folds, seed=0)


def test_a_fold_that_is_not_there():
    metas, strata = dataset()
    with pytest.raises(InputError, match="fold: 5, but the folds are 0 to 4"):
        make_split(metas, folds_of(metas, strata), 5, 0)


def test_a_split_is_saved_and_comes_back(tmp_path):
    metas, strata = dataset()
    split = make_split(metas, folds_of(metas, strata), 0, 0)
    write_json(tmp_path / "split.json", split)
    assert load_split(tmp_path / "split.json", metas) == split


METAS = [
    Meta("1_1", "1", "x"),
    Meta("1_2", "1", "y"),
    Meta("2_1", "2", "x"),
    Meta("3_1", "3", "z"),
    Meta("4_1", "4", "w"),
]


@pytest.mark.parametrize(
    ("sides", "text"),
    [
        ((["1_1"], ["1_2"], ["3_1"]), "group '1' is in train and validation"),
        ((["1_1"], ["2_1"], ["3_1"]), "image with content 'x' is in train and validation"),
        ((["1_1"], ["9_9"], ["3_1"]), "validation: case '9_9' is not in the data set"),
        ((["3_1"], ["3_1"], ["4_1"]), "case '3_1' is in train and validation"),
        ((["3_1", "3_1"], ["2_1"], ["4_1"]), "listed more than once"),
        (([], ["2_1"], ["4_1"]), "train: not a list of cases, or empty"),
        (("3_1", ["2_1"], ["4_1"]), "train: not a list"),
    ],
)
def test_a_split_that_leaks_is_not_loaded(tmp_path, sides, text):
    split = dict(zip(("train", "validation", "test"), sides))
    write_json(tmp_path / "split.json", split)
    with pytest.raises(InputError, match=text):
        load_split(tmp_path / "split.json", METAS)


def test_a_split_file_that_is_none(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match="not a split"):
        load_split(tmp_path / "a.json", METAS)
    with pytest.raises(InputError, match="no such file"):
        load_split(tmp_path / "b.json", METAS)
