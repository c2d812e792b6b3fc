"""Folds are made once; whatever is read holds every record once, and no group and no image on two sides."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from thyroid_jax.data import splits
from thyroid_jax.data.record import Entry
from thyroid_jax.data.splits import Folds, assign_folds, load_folds, make_folds, read_folds, resolve, write_folds
from thyroid_jax.errors import InputError
from thyroid_jax.files import read_json, write_json

DATA = "digest of the data"


def entry(case, group="", content="", **labels):
    return Entry(case, group or case, content or f"pixels of {case}", f"all of {case}", **labels)


def dataset(groups=60, seed=0, official=False):
    """One to three images a group; every fifth group without a grade; every sixth in the official test part."""
    rng = np.random.default_rng(seed)
    return [
        entry(
            f"{g}_{k}",
            str(g),
            grade=f"grade {g % 4}" if g % 5 else None,
            malignant=bool(g % 2),
            official_test=official and g % 6 == 0,
        )
        for g in range(groups)
        for k in range(rng.integers(1, 4))
    ]


def assigned(entries, seed=0, folds=5):
    return assign_folds([one.group for one in entries], [one.grade for one in entries], folds=folds, seed=seed)


def cases_of(entries):
    return [one.case for one in entries]


def test_groups_stay_whole_classes_are_spread_and_the_seed_decides():
    entries = dataset()
    folds = assigned(entries)
    assert set(folds) == set(range(5))
    assert all(len({f for e, f in zip(entries, folds) if e.group == g}) == 1 for g in {e.group for e in entries})
    for grade in {one.grade for one in entries}:
        spread = Counter(f for e, f in zip(entries, folds) if e.grade == grade)
        assert len(spread) == 5
    assert folds == assigned(entries)
    assert folds != assigned(entries, seed=1)


def test_a_class_with_too_few_groups_is_named():
    with pytest.raises(
        InputError, match=r"(?s)at least 3 groups.*Merge these.*class '5': 1 group\b.*class '6': 2 groups"
    ):
        assign_folds(list("abcdefgh"), ["2", "2", "2", "2", "2", "5", "6", "6"], folds=4, seed=0)


@pytest.mark.parametrize(("folds", "text"), [(2, "training|train, validation and test need at least 3"), (9, "only 8")])
def test_impossible_numbers_of_folds(folds, text):
    with pytest.raises(InputError, match=text):
        assign_folds(list("abcdefgh"), [None] * 8, folds=folds, seed=0)


def test_more_folds_than_the_largest_class_has_records():
    with pytest.raises(InputError, match="folds: 5, but no class has more than 4 records"):
        assign_folds(list("abcdefgh"), [1, 2] * 4, folds=5, seed=0)
    assert sorted(assign_folds(list("abcdefgh"), [1, 2] * 4, folds=4, seed=0)) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_every_record_is_tested_once():
    entries = dataset()
    folds = make_folds("toy", DATA, entries, folds=5, seed=0)
    resolved = [resolve(folds, fold, entries, "f") for fold in range(5)]
    tested = [case for split in resolved for case in split["test"]]
    assert sorted(tested) == sorted(cases_of(entries))
    for fold, split in enumerate(resolved):
        assert split["validation"] == resolved[(fold + 1) % 5]["test"]
        assert sorted(split["train"] + split["validation"] + split["test"]) == sorted(cases_of(entries))
        assert (split["fold"], split["folds"], split["seed"], split["file"]) == (fold, 5, 0, "f")
        place = {case: row for row, case in enumerate(cases_of(entries))}
        assert all([place[c] for c in split[side]] == sorted(place[c] for c in split[side]) for side in splits.SIDES)


def test_an_official_test_part_stays_as_it_is():
    entries = dataset(official=True)
    folds = make_folds("toy", DATA, entries, folds=4, seed=3)
    official = [one.case for one in entries if one.official_test]
    assert list(folds.test) == official and len(official) > 10
    resolved = [resolve(folds, fold, entries, "f") for fold in range(4)]
    assert all(split["test"] == official for split in resolved)
    validated = [case for split in resolved for case in split["validation"]]
    assert sorted(validated + official) == sorted(cases_of(entries))
    assert all(set(split["train"]) == set(validated) - set(split["validation"]) for split in resolved)
    groups = {one.case: one.group for one in entries}
    assert len({frozenset(groups[case] for case in cases) for cases in folds.folds}) == 4


def test_two_folds_are_enough_beside_an_official_test_part():
    entries = dataset(official=True)
    folds = make_folds("toy", DATA, entries, folds=2, seed=0)
    split = resolve(folds, 1, entries, "f")
    assert sorted(split["train"]) == sorted(folds.folds[0]) and sorted(split["validation"]) == sorted(folds.folds[1])
    with pytest.raises(InputError, match="train and validation need at least 2"):
        make_folds("toy", DATA, entries, folds=1, seed=0)


def spread(folds, entries, value_of):
    """How unevenly a class is spread: the largest difference of its counts between two folds."""
    counts = [Counter(value_of(one) for one in entries if one.case in cases) for cases in folds.folds]
    return max(max(c[v] for c in counts) - min(c[v] for c in counts) for v in {value_of(one) for one in entries})


def test_strata_are_grades_else_malignancy_else_nothing():
    singles = [entry(str(i), grade="ab"[i % 2], malignant=i < 20) for i in range(40)]
    by_grade = make_folds("toy", DATA, singles, folds=4, seed=0)
    assert spread(by_grade, singles, lambda one: one.grade) == 0
    no_grade = [one._replace(grade=None) for one in singles]
    by_truth = make_folds("toy", DATA, no_grade, folds=4, seed=0)
    assert spread(by_truth, no_grade, lambda one: one.malignant) == 0
    plain = [one._replace(malignant=None) for one in no_grade]
    assert [len(cases) for cases in make_folds("toy", DATA, plain, folds=4, seed=0).folds] == [10] * 4


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_is_not_there(fold):
    entries = dataset()
    with pytest.raises(InputError, match=f"fold: {fold}, but the folds are 0 to 4"):
        resolve(make_folds("toy", DATA, entries, folds=5, seed=0), fold, entries, "f")


def test_folds_are_written_and_come_back(tmp_path):
    entries = dataset(official=True)
    folds = make_folds("toy", DATA, entries, folds=5, seed=2)
    write_folds(tmp_path / "folds.json", folds)
    assert load_folds(tmp_path / "folds.json", "toy", DATA, entries) == folds
    values = read_json(tmp_path / "folds.json")
    assert (values["schema"], values["name"], values["data"], values["seed"]) == (1, "toy", DATA, 2)
    assert set(values["made_by"]) == {"thyroid_jax", "scikit-learn", "numpy"}


ENTRIES = [
    entry("1_1", "1", "x"),
    entry("1_2", "1", "y"),
    entry("2_1", "2", "x"),
    entry("3_1", "3", "z"),
    entry("4_1", "4", "w"),
    entry("5_1", "5", "v"),
]
GOOD = Folds("toy", DATA, (("1_1", "1_2", "2_1"), ("3_1", "4_1"), ("5_1",)))


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"folds": (("1_1", "2_1"), ("3_1", "1_2", "4_1"), ("5_1",))}, ["group '1' is in fold 0 and fold 1"]),
        ({"folds": (("1_1", "1_2"), ("2_1", "3_1", "4_1"), ("5_1",))}, ["image with content 'x' is in fold 0 and"]),
        ({"folds": (*GOOD.folds[:2], ("5_1", "9_9"))}, ["not in the data set: '9_9'"]),
        ({"folds": (GOOD.folds[0], ("3_1",), ("5_1",))}, ["in no fold: '4_1'"]),
        ({"folds": (*GOOD.folds[:2], ("5_1", "3_1"))}, ["listed more than once: '3_1'", "group '3' is in fold 1 and"]),
        ({"folds": (*GOOD.folds[:2], ("5_1", "5_1"))}, ["listed more than once: '5_1'"]),
        ({"folds": (*GOOD.folds, ())}, ["fold 3: is empty"]),
        ({"folds": (GOOD.folds[0], ("3_1", "4_1", "5_1"))}, ["folds: 2, at least 3 are needed"]),
        ({"test": ("5_1",)}, ["listed more than once: '5_1'", "group '5' is in fold 2 and test"]),
        ({"folds": GOOD.folds[:1], "test": ("3_1", "4_1", "5_1")}, ["folds: 1, at least 2 are needed"]),
        ({"data": "0"}, [f"data: '0', but the data set's is '{DATA}'"]),
        ({"name": "other"}, ["name: 'other', but the data set's is 'toy'"]),
        (
            {"data": "0", "folds": (("1_1", "9_9"), ("1_2", "3_1"), ("2_1", "3_1"))},
            [
                "data: '0'",
                "not in the data set: '9_9'",
                "in no fold: '4_1', '5_1'",
                "'3_1'",
                "group '1'",
                "content 'x'",
            ],
        ),
    ],
)
def test_folds_that_do_not_hold_are_refused_with_everything_that_is_wrong(tmp_path, changes, problems):
    path = tmp_path / "folds.json"
    write_folds(path, GOOD)
    assert load_folds(path, "toy", DATA, ENTRIES) == GOOD
    write_folds(path, replace(GOOD, **changes))
    with pytest.raises(InputError, match="these folds do not fit the data set") as caught:
        load_folds(path, "toy", DATA, ENTRIES)
    assert all(problem in str(caught.value) for problem in problems), caught.value


def test_a_test_part_of_ones_own(tmp_path):
    mine = replace(GOOD, folds=(("1_1", "1_2", "2_1"), ("3_1", "4_1")), test=("5_1",))
    write_folds(tmp_path / "folds.json", mine)
    assert load_folds(tmp_path / "folds.json", "toy", DATA, ENTRIES) == mine


def test_the_official_test_part_cannot_be_exchanged(tmp_path):
    official = [one._replace(official_test=one.case in ("5_1", "4_1")) for one in ENTRIES]
    good = replace(GOOD, folds=(("1_1", "1_2", "2_1"), ("3_1",)), test=("4_1", "5_1"))
    write_folds(tmp_path / "folds.json", good)
    assert load_folds(tmp_path / "folds.json", "toy", DATA, official) == good
    write_folds(tmp_path / "folds.json", replace(good, folds=(good.folds[0], ("4_1",)), test=("3_1", "5_1")))
    with pytest.raises(
        InputError, match=r"(?s)not in test, but in the official test part: '4_1'.*in test, but not.*'3_1'"
    ):
        load_folds(tmp_path / "folds.json", "toy", DATA, official)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"schema": 2}, "schema: must be 1"),
        ({"schema": True}, "schema: must be 1"),
        ({"name": 3}, "name: must be"),
        ({"folds": {"0": ["1_1"]}}, "folds: must be a list of lists of cases"),
        ({"folds": [["1_1"], "1_2"]}, "folds: must be a list of lists of cases"),
        ({"folds": [["1_1"], [2]]}, "folds: must be a list of lists of cases"),
        ({"test": None}, "test: must be a list of cases"),
        ({"seed": "0"}, "seed: must be a whole number"),
        ({"made_by": ["me"]}, "made_by: must be an object of texts"),
        ({"tests": []}, "tests: unknown field"),
    ],
)
def test_a_folds_file_of_another_form(tmp_path, changes, problem):
    path = tmp_path / "folds.json"
    write_folds(path, GOOD)
    write_json(path, read_json(path) | changes)
    with pytest.raises(InputError, match=problem):
        read_folds(path)


def test_a_folds_file_that_is_none(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    with pytest.raises(InputError, match="not a folds file: expected an object"):
        read_folds(path)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"(?s)schema: is missing.*name: is missing.*folds: is missing.*test: is mi"):
        read_folds(path)
    with pytest.raises(InputError, match="no such file"):
        read_folds(tmp_path / "b.json")


def test_what_made_the_folds_may_be_left_out(tmp_path):
    values = {"schema": 1, "name": "toy", "data": DATA, "folds": [list(cases) for cases in GOOD.folds], "test": []}
    write_json(tmp_path / "folds.json", values)
    assert load_folds(tmp_path / "folds.json", "toy", DATA, ENTRIES) == GOOD


def test_long_lists_are_cut_in_messages(tmp_path):
    write_folds(tmp_path / "folds.json", GOOD)
    with pytest.raises(InputError) as caught:
        load_folds(tmp_path / "folds.json", "toy", DATA, dataset())
    missing = [case for case in cases_of(dataset()) if case not in sum(GOOD.folds, ())]
    assert f"in no fold: {', '.join(map(repr, missing[:10]))} and {len(missing) - 10} more" in str(caught.value)


def beside(folder, entries, **changes):
    return splits.folds_beside(folder, "toy", DATA, entries, **({"folds": 5, "seed": 0} | changes))


def test_folds_beside_the_data_are_made_at_first_use_and_never_again(tmp_path, monkeypatch):
    entries = dataset()
    made, path = beside(tmp_path, entries)
    assert path == tmp_path / "toy" / "folds" / "5-0.json" and made == read_folds(path)
    before = path.read_bytes()

    def another_library(groups, strata, *, folds, seed, sides=3):
        return [int(group) % folds for group in groups]

    monkeypatch.setattr(splits, "assign_folds", another_library)
    assert beside(tmp_path, entries)[0] == made and path.read_bytes() == before
    other, its_path = beside(tmp_path, entries, folds=4, seed=9)
    assert its_path.name == "4-9.json" and len(other.folds) == 4 and other.seed == 9


def test_folds_that_are_not_what_their_file_name_says(tmp_path):
    entries = dataset()
    _, path = beside(tmp_path, entries)
    path.rename(path.with_name("4-0.json"))
    with pytest.raises(InputError, match=r"4-0\.json: holds 5 folds of seed 0"):
        beside(tmp_path, entries, folds=4)


def test_two_processes_that_make_the_same_folds_write_the_same_file(tmp_path):
    """Whoever comes second replaces the file by an equal one: what either has read stays true."""
    entries = dataset()
    first, path = beside(tmp_path, entries)
    before = path.read_bytes()
    path.unlink()
    second, _ = beside(tmp_path, entries)
    assert first == second and path.read_bytes() == before


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(splits, "write_json", refuse)
    with pytest.raises(InputError) as caught:
        beside(tmp_path, dataset(), folds=4, seed=1)
    command = f"python -m data_prep folds toy --data {tmp_path} --out FILE --folds 4 --seed 1"
    assert command in str(caught.value) and "--data.split FILE" in str(caught.value)


def test_a_full_disk_is_not_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(splits, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        beside(tmp_path, dataset())


def test_the_digest_of_a_split_is_that_of_its_three_parts():
    entries = dataset()
    folds = make_folds("toy", DATA, entries, folds=5, seed=0)
    split = resolve(folds, 0, entries, "f")
    whole = splits.digest(split)
    assert whole == splits.digest({**split, "file": "g", "seed": 4, "train": split["train"][::-1]})
    swapped = {**split, "validation": split["test"], "test": split["validation"]}
    moved = {**split, "train": split["train"][1:], "test": [*split["test"], split["train"][0]]}
    others = [splits.digest(resolve(folds, fold, entries, "f")) for fold in range(1, 5)]
    digests = [whole, splits.digest(swapped), splits.digest(moved), *others]
    assert len(set(digests)) == len(digests)


def spoilt(split, **changes):
    return json.loads(json.dumps(split)) | changes


def test_what_differs_between_a_saved_split_and_the_one_asked_for():
    entries = dataset()
    split = resolve(make_folds("toy", DATA, entries, folds=5, seed=0), 0, entries, "f")
    train, validation, test = (list(split[side]) for side in splits.SIDES)
    assert splits.differences(spoilt(split), split) == []
    assert splits.differences(spoilt(split, file="elsewhere/5-0.json", train=train[::-1]), split) == []
    for saved, expected in (
        (spoilt(split, validation=test, test=validation), ["in validation, but belongs in test: ", "in test, but be"]),
        (spoilt(split, train=[test[0], *train[1:]], test=[train[0], *test[1:]]), ["in train, but belongs in test: "]),
        (spoilt(split, train=train[1:]), [f"in no part: '{train[0]}'"]),
        (spoilt(split, test=[*test, train[0]]), [f"listed more than once: '{train[0]}'", "in test, but belongs in tr"]),
        (spoilt(split, test=[*test, "9_9"]), ["not in the data set: '9_9'"]),
        (spoilt(split, fold=1), ["fold: 1, not 0"]),
        (spoilt(split, fold=False), ["fold: False, not 0"]),
        (spoilt(split, folds=4), ["folds: 4, not 5"]),
        (spoilt(split, seed=None), ["seed: None, not 0"]),
        (spoilt(split, test="all"), ["test: not a list of cases"]),
        (spoilt(split, more=1), ["more: unknown field"]),
        ({side: split[side] for side in splits.SIDES}, ["fold: is missing", "seed: is missing"]),
        (None, ["not a split"]),
    ):
        found = splits.differences(saved, split)
        assert found and all(any(line.startswith(text) for line in found) for text in expected), found
