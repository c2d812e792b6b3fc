"""Parts of a built data set: disjoint by group, split once, verified ever after."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep import builder
from thyroid_jax.config import DataConfig
from thyroid_jax.data import source
from thyroid_jax.data.record import Card, Record
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
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    builder.build(CARD, lambda notes: toys(), out)
    return out


@pytest.fixture
def config(built):
    return DataConfig(name="toy", dir=str(built), folds=4)


def cases(part):
    return [record.case for record in part]


def open_and_save(config, file):
    """What a first training run does."""
    parts = source.open_parts(config, file)
    assert not file.exists()
    write_json(file, parts.split)
    return parts


def test_parts_share_no_group_and_hold_every_record(config, tmp_path):
    parts = source.open_parts(config, tmp_path / "split.json")
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


def test_folds_take_turns(config, tmp_path):
    parts = [source.open_parts(replace(config, fold=fold), tmp_path / f"{fold}.json") for fold in range(4)]
    tested = [case for part in parts for case in cases(part.test)]
    assert sorted(tested) == sorted(record.case for record in toys())
    assert all(cases(parts[fold].validation) == cases(parts[(fold + 1) % 4].test) for fold in range(4))


def test_a_saved_split_is_used_again_not_made_again(config, tmp_path):
    file = tmp_path / "split.json"
    first = open_and_save(config, file)
    split = read_json(file)
    assert (split["fold"], split["folds"], split["seed"]) == (0, 4, 0)
    moved = split["train"][0], split["train"][1]  # both images of one patient
    edited = split | {"train": split["train"][2:], "test": [*split["test"], *moved]}
    write_json(file, edited)
    again = source.open_parts(config, file)
    assert cases(again.test) == [*cases(first.test), *moved] and read_json(file) == edited


@pytest.mark.parametrize("change", [{"fold": 1}, {"folds": 3}, {"split_seed": 7}])
def test_a_split_made_for_other_folds_is_refused(config, tmp_path, change):
    open_and_save(config, tmp_path / "split.json")
    with pytest.raises(InputError, match=r"split\.json: made for .*'fold': 0, 'folds': 4, 'seed': 0.* new run folder"):
        source.open_parts(replace(config, **change), tmp_path / "split.json")


def test_a_split_without_fold_numbers_is_taken_as_it_is(config, tmp_path):
    file = tmp_path / "split.json"
    open_and_save(config, file)
    by_hand = {side: read_json(file)[side] for side in source.PARTS}
    write_json(file, by_hand)
    assert cases(source.open_parts(replace(config, fold=2), file).test) == by_hand["test"]


def test_data_that_no_longer_fit_the_split_are_refused(config, tmp_path):
    file = tmp_path / "split.json"
    open_and_save(config, file)
    builder.build(CARD, lambda notes: toys(20), tmp_path / "fewer")
    with pytest.raises(InputError, match=r"(?s)does not fit the data set.*case 2\d' is not in the data set"):
        source.open_parts(replace(config, dir=str(tmp_path / "fewer")), file)

    def regrouped(notes):
        for record in toys():
            yield replace(record, group="all one patient")

    builder.build(CARD, regrouped, tmp_path / "regrouped")
    with pytest.raises(InputError, match="group 'all one patient' is in"):
        source.open_parts(replace(config, dir=str(tmp_path / "regrouped")), file)


def test_the_seed_makes_the_split(config, tmp_path):
    same, again, other = (
        cases(source.open_parts(replace(config, split_seed=seed), tmp_path / f"{i}.json").test)
        for i, seed in enumerate((0, 0, 1))
    )
    assert same == again != other


def test_a_subset_is_a_sequence(config, tmp_path):
    part = source.open_parts(config, tmp_path / "split.json").train
    assert len(part) == len(cases(part)) == 12
    assert isinstance(part[2:5], source.Subset) and cases(part[2:5]) == cases(part)[2:5]
    assert part[-1].case == cases(part)[-1]
    with pytest.raises(IndexError):
        part[len(part)]


def test_a_data_set_that_was_never_built(config, tmp_path):
    with pytest.raises(InputError, match="has not been built there"):
        source.open_parts(replace(config, dir=str(tmp_path)), tmp_path / "split.json")
    assert not (tmp_path / "split.json").exists()


def test_the_digest_tells_other_pixels_grades_and_groups_apart(config, tmp_path):
    digests = [source.open_parts(config, tmp_path / "split.json").digest]
    for name, change in (("pixels", lambda r: {"image": 255 - r.image}), ("grades", lambda r: {"grade": 1 - r.grade})):
        builder.build(
            CARD, lambda notes, change=change: (replace(record, **change(record)) for record in toys()), tmp_path / name
        )
        digests.append(source.open_parts(replace(config, dir=str(tmp_path / name)), tmp_path / "split.json").digest)
    builder.build(CARD, lambda notes: toys(), tmp_path / "same")
    assert len(set(digests)) == 3
    assert source.open_parts(replace(config, dir=str(tmp_path / "same")), tmp_path / "split.json").digest == digests[0]
