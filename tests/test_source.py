"""Parts of a built data set: disjoint by group, from folds that are made once, verified ever after."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from data_prep import builder
from thyroid_jax.data import source, splits, storage
from thyroid_jax.data.record import Card, Record, digest_of
from thyroid_jax.errors import InputError
from thyroid_jax.files import read_json, write_json

CARD = Card("toy", "Toys", "made here", "none", "made up", "patient", ("low", "high"), "Toy")


def toys(count=24, seed=0):
    """Two images a patient; grade by patient."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        image = rng.integers(0, 256, (12, 14), dtype=np.uint8)
        yield Record(f"case {i}", f"patient {i // 2}", f"{i}.png", image, mask=image > 128, grade=i // 2 % 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    builder.build(CARD, lambda notes: toys(), out)
    return out


@pytest.fixture
def built(whole, tmp_path):
    """A copy, so that each test makes its folds anew."""
    shutil.copytree(whole, tmp_path / "built")
    return tmp_path / "built"


def open_toys(built, **asked):
    return source.open_parts(built, "toy", **({"folds": 4} | asked))


def cases(part):
    return [record.case for record in part]


def changed(tmp_path, name, change):
    """Another build, every record changed."""
    builder.build(CARD, lambda notes: (replace(record, **change(record)) for record in toys()), tmp_path / name)
    return tmp_path / name


def test_a_share_of_the_training_part_is_whole_groups_and_part_of_a_larger_share(built):
    everything = open_toys(built, seed=3)
    shared = {share: open_toys(built, seed=3, share=share) for share in (0.001, 0.5, 0.67, 1.0)}
    kept = {share: set(cases(parts.train)) for share, parts in shared.items()}
    assert kept[0.001] < kept[0.5] < kept[0.67] < kept[1.0] == set(cases(everything.train))
    groups = {share: len({record.group for record in parts.train}) for share, parts in shared.items()}
    assert groups == {0.001: 1, 0.5: 3, 0.67: 4, 1.0: 6}
    assert all(len(kept[share]) == 2 * groups[share] for share in kept)  # each patient has two images
    for parts in shared.values():  # what is judged, and the split that a run keeps, stay the same
        assert cases(parts.validation) == cases(everything.validation) and cases(parts.test) == cases(everything.test)
        assert (parts.split, parts.split_digest) == (everything.split, everything.split_digest)
    other = open_toys(built, seed=4, share=0.5, split_file=next((built / "toy" / "folds").glob("*.json")))
    assert set(cases(other.train)) != kept[0.5]


def test_parts_share_no_group_and_hold_every_record(built):
    parts = open_toys(built)
    assert parts.card == CARD
    groups = [{record.group for record in part} for part in (parts.train, parts.validation, parts.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert sorted(cases(parts.train) + cases(parts.validation) + cases(parts.test)) == sorted(
        record.case for record in toys()
    )
    assert all({record.grade for record in part} == {0, 1} for part in (parts.train, parts.validation, parts.test))
    originals = {record.case: record for record in toys()}
    for record in parts.test:
        np.testing.assert_array_equal(record.image, originals[record.case].image)
        assert record.grade == originals[record.case].grade
    for side in source.PARTS:
        assert cases(getattr(parts, side)) == parts.split[side]


def test_folds_take_turns(built):
    parts = [open_toys(built, fold=fold) for fold in range(4)]
    tested = [case for part in parts for case in cases(part.test)]
    assert sorted(tested) == sorted(record.case for record in toys())
    assert all(cases(parts[fold].validation) == cases(parts[(fold + 1) % 4].test) for fold in range(4))
    assert len({part.split_digest for part in parts}) == 4 and len({part.digest for part in parts}) == 1
    assert os.listdir(splits.folds_folder(built, "toy")) == ["4-0.json"]


def test_opening_reads_no_record_and_makes_the_folds_once(built, monkeypatch):
    first = open_toys(built)
    assert first.split["file"] == "toy/folds/4-0.json"

    def refuse(*_, **__):
        raise AssertionError("not again")

    monkeypatch.setattr(storage, "decode", refuse)
    monkeypatch.setattr(splits, "assign_folds", refuse)
    again = open_toys(built)
    assert again.split == first.split and again.split_digest == first.split_digest


def test_the_folds_are_those_of_the_file_whatever_would_be_made_today(built):
    """A study goes on with the folds it was begun with."""
    path = splits.folds_folder(built, "toy") / "4-0.json"
    first = open_toys(built)
    folds = splits.read_folds(path)
    splits.write_folds(path, replace(folds, folds=folds.folds[::-1]))
    again = open_toys(built)
    assert cases(again.test) != cases(first.test) and sorted(cases(again.test)) == sorted(folds.folds[3])


def test_folds_of_the_users_own(built, tmp_path):
    file = tmp_path / "mine.json"
    _, records = storage.open_records(built, "toy")
    patients = [f"patient {number}" for number in range(12)]
    folds = tuple(
        tuple(entry.case for entry in records.entries if entry.group in patients[start:8:2]) for start in range(2)
    )
    test = tuple(entry.case for entry in records.entries if entry.group in patients[8:])
    splits.write_folds(file, splits.Folds("toy", records.digest, folds, test))
    parts = open_toys(built, folds=2, fold=1, split_file=file, seed=5)
    assert cases(parts.test) == list(test) and sorted(cases(parts.validation)) == sorted(folds[1])
    assert sorted(cases(parts.train)) == sorted(folds[0])
    assert (parts.split["file"], parts.split["folds"], parts.split["seed"]) == (str(file), 2, None)
    assert not splits.folds_folder(built, "toy").exists()
    with pytest.raises(InputError, match=r"mine\.json: holds 2 folds; ask for so many: --data\.folds"):
        open_toys(built, folds=4, split_file=file)
    with pytest.raises(InputError, match="no such file"):
        open_toys(built, split_file=tmp_path / "none.json")


def test_the_official_test_part_is_the_test_part(tmp_path):
    folder = changed(tmp_path, "official", lambda record: {"official_test": record.group < "patient 2"})
    parts = [open_toys(folder, fold=fold) for fold in range(4)]
    assert all(record.official_test for part in parts for record in part.test)
    assert not any(record.official_test for part in parts for record in (*part.train, *part.validation))
    assert len(parts[0].test) == 8 and len({part.split_digest for part in parts}) == 4


def test_folds_of_other_data_are_refused(built, tmp_path):
    open_toys(built)
    file = splits.folds_folder(built, "toy") / "4-0.json"
    builder.build(CARD, lambda notes: toys(20), tmp_path / "fewer")
    with pytest.raises(InputError, match=r"(?s)do not fit the data set.*data: .*not in the data set: 'case 2"):
        open_toys(tmp_path / "fewer", split_file=file)
    regrouped = changed(tmp_path, "regrouped", lambda record: {"group": f"patient {int(record.group[8:]) // 2}"})
    with pytest.raises(InputError, match=r"(?s)data: .*group 'patient \d' is in fold \d and fold \d"):
        open_toys(regrouped, split_file=file)
    relabelled = changed(tmp_path, "relabelled", lambda record: {"mask": ~record.mask})
    with pytest.raises(InputError, match=r"data: '[0-9a-f]{32}', but the data set's is"):
        open_toys(relabelled, split_file=file)


def test_the_seed_makes_the_folds(built):
    same, again, other = (cases(open_toys(built, seed=seed).test) for seed in (0, 0, 1))
    assert same == again != other


def test_a_subset_is_a_sequence(built):
    part = open_toys(built).train
    assert len(part) == len(cases(part)) == 12
    assert isinstance(part[2:5], source.Subset) and cases(part[2:5]) == cases(part)[2:5]
    assert part[-1].case == cases(part)[-1]
    with pytest.raises(IndexError):
        part[len(part)]


def test_a_data_set_that_was_never_built(tmp_path):
    with pytest.raises(InputError, match="has not been built there"):
        open_toys(tmp_path)
    assert os.listdir(tmp_path) == []


CHANGES = {
    "pixels": lambda record: {"image": 255 - record.image},
    "grades": lambda record: {"grade": 1 - record.grade},
    "masks": lambda record: {"mask": ~record.mask},
    "truth": lambda record: {"malignant": True},
    "readers": lambda record: {"reader_grades": (0, 1), "reader_masks": (record.mask, ~record.mask)},
    "readers' order": lambda record: {"reader_grades": (1, 0), "reader_masks": (~record.mask, record.mask)},
    "words": lambda record: {"descriptors": {"margins": "smooth"}},
    "spacing": lambda record: {"spacing": (0.1, 0.1)},
    "groups": lambda record: {"group": f"person {record.group}"},
}


def test_the_digest_tells_every_other_label_apart(whole, tmp_path):
    digests = [storage.read_metadata(whole, "toy").digest]
    for name, change in CHANGES.items():
        digests.append(storage.read_metadata(changed(tmp_path, name, change), "toy").digest)
    assert len(set(digests)) == 1 + len(CHANGES)
    assert storage.read_metadata(changed(tmp_path, "same", lambda record: {}), "toy").digest == digests[0]


def test_the_split_of_a_run_is_checked(built, tmp_path):
    parts, file = open_toys(built), tmp_path / "split.json"
    write_json(file, parts.split)
    source.check_split(file, parts)
    split = read_json(file)
    swapped = split | {"validation": split["test"], "test": split["validation"]}
    mine, theirs = split["train"][:2], split["test"][:2]  # both images of one patient each
    exchanged = split | {"train": [*theirs, *split["train"][2:]], "test": [*mine, *split["test"][2:]]}
    for edited, what in (
        (swapped, "in validation, but belongs in test"),
        (exchanged, f"in train, but belongs in test: '{theirs[0]}', '{theirs[1]}'"),
        (split | {"train": split["train"][2:]}, "in no part: "),
        (split | {"fold": 1}, "fold: 1, not 0"),
        ([split], "not a split"),
    ):
        write_json(file, edited)
        with pytest.raises(InputError, match=rf"(?s)split\.json: not the split of toy that is asked for.*{what}"):
            source.check_split(file, parts)
    write_json(file, split)
    with pytest.raises(InputError, match=r"(?s)belongs in .*fold: 0, not 2"):
        source.check_split(file, open_toys(built, fold=2))
    file.unlink()
    with pytest.raises(InputError, match="no such file"):
        source.check_split(file, parts)


def added_to(built, card, change=lambda record, row: {}):
    """A second data set beside the toys: 12 of them, which no split has, each changed."""
    records = [replace(record, case=f"new {row}") for row, record in enumerate(toys(12, seed=9))]
    records = [replace(record, **change(record, row)) for row, record in enumerate(records)]
    builder.build(card, lambda notes: iter(records), built)
    return source.open_parts(built, "toy", folds=4, also=[card.name])


def test_a_data_set_to_train_on_besides_keeps_its_grades_only_if_they_are_the_same(built):
    parts = added_to(built, replace(CARD, name="same"))
    ((records, remark),) = source.for_training(parts)
    assert [record.grade for record in records] == [i // 2 % 2 for i in range(12)]
    assert remark == "also trained on: same, 12 images"
    digests = {parts.digest}
    assert parts.digest != open_toys(built).digest and parts.split_digest == open_toys(built).split_digest
    renamed = replace(parts.added[0].card, grade_system="another")  # of the very same records
    builder.build(renamed, lambda notes: iter(parts.added[0].records), built, overwrite=True)
    assert source.open_parts(built, "toy", folds=4, also=["same"]).digest not in digests
    for number, other in enumerate(({"grade_system": "BI-RADS"}, {"grades": ("high", "low")})):
        parts = added_to(built, replace(CARD, name=f"other_{number}", **other))
        ((records, remark),) = source.for_training(parts)
        assert [record.grade for record in records[:3]] == [None] * 3 and records[0].mask is not None
        digests.add(parts.digest)
        assert "left out: its grades (" in remark and remark.endswith("), which are not those of toy")


def test_what_is_held_out_is_not_trained_on_under_another_name(built):
    """The added set has a copy of ten images of the toys, two in each group, and an official test part."""
    held = {record.content for part in (open_toys(built).validation, open_toys(built).test) for record in part}
    images = [record.image for record in toys()][:12]
    parts = added_to(
        built,
        replace(CARD, name="copies"),
        lambda record, row: {"image": images[row]} if row < 10 else {"official_test": True},
    )
    ((records, remark),) = source.for_training(parts)
    groups = {f"patient {i // 2}" for i, image in enumerate(images[:10]) if digest_of(image) in held}
    assert 0 < len(groups) < 5 and {record.group for record in records} == {f"patient {i}" for i in range(5)} - groups
    assert not {record.content for record in records} & held
    assert remark == (
        f"also trained on: copies, {10 - 2 * len(groups)} images; left out: 2 images of its official test part, "
        f"{2 * len(groups)} images of {len(groups)} groups that toy holds out"
    )
    parts = added_to(built, replace(CARD, name="tests"), lambda record, row: {"official_test": True})
    with pytest.raises(InputError, match=r"data\.also: no image of tests may be trained on"):
        source.for_training(parts)


def test_a_cropped_copy_of_a_held_out_image_is_not_trained_on(tmp_path):
    from test_builder import speckle

    records = [Record(f"c{i}", f"p{i}", "-", speckle(i), grade=i % 2) for i in range(12)]
    copies = [replace(record, image=record.image[3:-2, 2:-4].copy(), case=f"copy {record.case}") for record in records]
    copies += [replace(copy, image=speckle(100 + i), case=f"other view {i}") for i, copy in enumerate(copies)]
    builder.build(CARD, lambda notes: iter(records), tmp_path)
    builder.build(replace(CARD, name="copies"), lambda notes: iter(copies), tmp_path)
    parts = source.open_parts(tmp_path, "toy", folds=4, also=["copies"])
    ((kept, remark),) = source.for_training(parts)
    numbers = [int(case[1:]) for case in cases(parts.train)]
    assert {record.case for record in kept} == {name for i in numbers for name in (f"copy c{i}", f"other view {i}")}
    held_out = len(parts.validation) + len(parts.test)
    assert f"left out: {2 * held_out} images of {held_out} groups that toy holds out" in remark
