"""Records come back from disk exactly as they were written, or not at all; what a data folder says is not believed."""

import copy
import importlib
import json
import os
import pickle
import random
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from toys import CARD, factory, toys

from data_prep import builder
from thyroid_jax.data import storage
from thyroid_jax.data.record import Record, data_digest, entry_of
from thyroid_jax.errors import InputError


def assert_same(one, other):
    assert (one.case, one.group, one.source, one.grade, one.reader_grades) == (
        other.case,
        other.group,
        other.source,
        other.grade,
        other.reader_grades,
    )
    assert one.malignant is other.malignant and one.official_test is other.official_test
    assert dict(one.descriptors) == dict(other.descriptors)
    np.testing.assert_array_equal(one.spacing, other.spacing)
    np.testing.assert_array_equal(one.image, other.image)
    assert (one.mask is None) == (other.mask is None) and len(one.reader_masks) == len(other.reader_masks)
    for mask, expected in zip((*one.reader_masks, one.mask), (*other.reader_masks, other.mask), strict=True):
        if mask is not None:
            assert mask.dtype == expected.dtype == bool
            np.testing.assert_array_equal(mask, expected)
    assert one.digest == other.digest and one.content == other.content


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    builder.build(CARD, factory, out)
    return out


@pytest.fixture
def built(whole, tmp_path):
    """A copy that may be spoilt."""
    shutil.copytree(whole, tmp_path / "built")
    return tmp_path / "built"


def shard_of(data_dir, name="toy"):
    (shard,) = storage.folder_of(data_dir, name).glob("*.array_record*")
    return shard


def test_encode_decode_is_exact():
    for record in (*toys(), replace(next(toys(1)), official_test=True)):
        assert_same(storage.decode(storage.encode(record)), record)


def test_a_record_of_unequal_sizes_is_refused():
    record = next(toys(1))
    with pytest.raises(ValueError, match="mask is"):
        storage.encode(Record("a", "a", "a", record.image, np.ones((3, 3), bool)))
    with pytest.raises(ValueError, match="image is"):
        storage.encode(Record("a", "a", "a", record.image.astype(float)))


def test_a_build_comes_back_as_it_was_in_its_order_without_tensorflow(whole):
    card, records = storage.open_records(whole, "toy")
    assert card == CARD
    assert len(records) == 9
    for written, back in zip(toys(), records, strict=True):
        assert_same(back, written)
    assert records[-1].case == "8_é"
    assert [record.case for record in records[2:4]] == ["2_é", "3_é"]
    for outside in (9, -10):
        with pytest.raises(IndexError):
            records[outside]
    assert_same(copy.deepcopy(records)[3], records[3])
    assert_same(pickle.loads(pickle.dumps(records))[3], records[3])
    assert "tensorflow" not in sys.modules
    assert os.listdir(whole) == ["toy"]


def test_the_index_is_that_of_the_records_and_opening_reads_none(whole, monkeypatch):
    entries = tuple(entry_of(record, CARD) for record in toys())

    def refuse(*_):
        raise AssertionError("a record was decoded")

    monkeypatch.setattr(storage, "decode", refuse)
    _, records = storage.open_records(whole, "toy")
    assert records.entries == entries and records.digest == data_digest(CARD, entries)
    metadata = storage.read_metadata(whole, "toy")
    assert metadata.entries == entries and metadata.digest == records.digest and metadata.counts["seen"] == 9
    with pytest.raises(InputError, match="record 0, case '0_é', is damaged"):
        records[0]


def test_tfds_reads_the_folder_too(whole):
    """Its layout is TFDS's own: other tools need nothing of this package."""
    import tensorflow_datasets as tfds

    folder = storage.folder_of(whole, "toy")
    examples = tfds.builder_from_directory(str(folder)).as_data_source(split=storage.SPLIT)
    for record, example in zip(toys(), examples, strict=True):
        np.testing.assert_array_equal(example["image"][..., 0], record.image)
        assert (example["case"].decode(), example["has_mask"]) == (record.case, record.mask is not None)


def test_no_flipped_bit_brings_back_a_wrong_record(built):
    shard = shard_of(built)
    content, digests = shard.read_bytes(), [record.digest for record in toys()]
    padding = 9 * b"\0"
    places = [i for i in range(len(content)) if content[max(0, i - 4) : i + 5] != padding]
    rng, damaged = random.Random(0), 0
    for place in rng.sample(places, 150):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.randrange(8)
        shard.write_bytes(spoilt)
        try:
            _, records = storage.open_records(built, "toy")
        except InputError:
            damaged += 1
            continue
        for row, digest in enumerate(digests):
            try:
                assert records[row].digest == digest, place
            except InputError:
                damaged += 1
    assert damaged > 100  # the rest hit bits that nothing depends on


@pytest.mark.parametrize("file", ["metadata.json", "features.json", "dataset_info.json"])
def test_no_flipped_bit_beside_the_records_brings_back_another_index(built, file):
    path = storage.folder_of(built, "toy") / file
    content, rng, refused = path.read_bytes(), random.Random(1), 0
    sound = storage.read_metadata(built, "toy")
    for place in rng.sample(range(len(content)), min(120, len(content))):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        try:
            card, records = storage.open_records(built, "toy")
        except InputError:
            refused += 1
        else:  # a letter in a text that nothing is computed from
            assert records.entries == sound.entries and card.grades == CARD.grades
    assert refused > 60


LABELS = {
    "inverted masks": lambda record: {"mask": None if record.mask is None else ~record.mask},
    "swapped readers": lambda record: {"reader_grades": record.reader_grades[::-1]},
    "other truth": lambda record: {"malignant": None if record.malignant is None else not record.malignant},
    "other spacing": lambda record: {"spacing": record.spacing[::-1]},
    "other words": lambda record: {"descriptors": {"margins": "smooth"}},
}


@pytest.mark.parametrize("what", LABELS)
def test_records_of_another_build_are_refused(built, tmp_path, what):
    """Nothing in the file is damaged: only the digests in the index tell it from the right one."""
    builder.build(
        CARD, lambda notes: (replace(record, **LABELS[what](record)) for record in toys()), tmp_path / "other"
    )
    _, others = storage.open_records(tmp_path / "other", "toy")
    _, records = storage.open_records(built, "toy")
    assert others.digest != records.digest
    changed = [row for row, pair in enumerate(zip(others.entries, records.entries)) if pair[0] != pair[1]]
    assert changed
    shutil.copy(shard_of(tmp_path / "other"), shard_of(built))
    _, records = storage.open_records(built, "toy")
    for row in range(9):
        if row in changed:
            with pytest.raises(InputError, match=rf"record {row}, case '{row}_é', is damaged \(its .*digest.* differ"):
                records[row]
        else:
            assert records[row].case == f"{row}_é"


def test_a_hostile_class_in_the_features_is_refused_and_not_imported(built, tmp_path, monkeypatch):
    flag = tmp_path / "imported"
    (tmp_path / "hostile_module.py").write_text(f"open({str(flag)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = storage.folder_of(built, "toy") / "features.json"
    sound = json.loads(path.read_text())
    for place in (sound, sound["featuresDict"]["features"]["case"]):
        usual, place["pythonClassName"] = place["pythonClassName"], "hostile_module.Text"
        path.write_text(json.dumps(sound))
        with pytest.raises(InputError, match="not the features of this version's records"):
            storage.open_records(built, "toy")
        assert not flag.exists() and "hostile_module" not in sys.modules
        place["pythonClassName"] = usual
    path.write_text(json.dumps(sound | {"pythonClassName": "hostile_module.Text"}))
    import tensorflow_datasets as tfds

    with pytest.raises(Exception, match="hostile_module"):  # TFDS itself falls for it: the trap works
        tfds.builder_from_directory(str(path.parent))
    assert flag.exists()


def edit(data_dir, file, change):
    path = storage.folder_of(data_dir, "toy") / file
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def info(**changes):
    return lambda folder: edit(folder, "dataset_info.json", lambda values: values.update(changes))


def split(**changes):
    return lambda folder: edit(folder, "dataset_info.json", lambda values: values["splits"][0].update(changes))


def index(change):
    return lambda folder: edit(folder, "metadata.json", change)


def another_shard(folder):
    shard = shard_of(folder)
    shutil.copy(shard, shard.with_name(shard.name.replace("00000-of", "00001-of")))


def fewer_records(folder):
    builder.build(CARD, lambda notes: toys(8), folder / "fewer")
    shutil.copy(shard_of(folder / "fewer"), shard_of(folder))
    shutil.rmtree(folder / "fewer")


def cut_short(folder):
    shard = shard_of(folder)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def replaced_by(make):
    def spoil(folder):
        shard = shard_of(folder)
        shard.unlink()
        make(shard)

    return spoil


def large(file):
    def spoil(folder):
        with (storage.folder_of(folder, "toy") / file).open("ab") as opened:
            opened.truncate(1 << 29)

    return spoil


def a_pipe(file):
    def spoil(folder):
        path = storage.folder_of(folder, "toy") / file
        path.unlink()
        os.mkfifo(path)

    return spoil


DISAGREEMENTS = [
    (info(name="other"), "name is 'other', not 'toy'"),
    (info(version="1.0.0"), "version is '1.0.0', not '3.0.0'"),
    (info(fileFormat="tfrecord"), "fileFormat is 'tfrecord'"),
    (info(splits=[]), "not one split 'records'"),
    (info(splits=None), "not one split 'records'"),
    (split(name="train"), "not one split 'records'"),
    (split(filepathTemplate="/etc/{SPLIT}"), "not one split 'records'"),
    (split(shardLengths=["8"]), "shardLengths: 8 records, but 9 in the index"),
    (split(shardLengths=["4", "5"]), "00000-of-00002: is missing"),
    (split(shardLengths=[9]), "shardLengths: not a list of numbers"),
    (split(shardLengths=["9", "0"]), "shardLengths: not a list of numbers"),
    (split(shardLengths=[]), "shardLengths: not a list of numbers"),
    (index(lambda values: values["index"].pop()), "the index is not the one that was written"),
    (index(lambda values: values["index"].reverse()), "is damaged"),
    (index(lambda values: values["index"][0].update(group="1")), "the index is not the one that was written"),
    (index(lambda values: values["index"][0].update(grade="mid")), "the index is not the one that was written"),
    (index(lambda values: values["index"][0].update(grade="none")), "grades that are not in the card"),
    (index(lambda values: values["index"][0].update(readers=True)), "wrong fields: readers"),
    (index(lambda values: values["index"][0].update(malignant=1)), "wrong fields: malignant"),
    (index(lambda values: values["index"][0].pop("spaced")), "not the card and index"),
    (index(lambda values: values["index"][0].update(more=1)), "wrong fields"),
    (index(lambda values: values["index"].append(values["index"][0])), "10 entries of 9 cases"),
    (index(lambda values: values.update(digest="0" * 32)), "the index is not the one that was written"),
    (index(lambda values: values["card"].update(grades=["mid", "low", "high"])), "not the one that was written"),
    (index(lambda values: values["card"].update(name="other")), "of the data set 'other'"),
    (index(lambda values: values["card"].update(grades=["low", "mid", "malignant"])), "'malignant' is not a grade"),
    (index(lambda values: values["card"].pop("title")), "fields .'title'. of the card"),
    (index(lambda values: values.pop("index")), "not the card and index"),
    (index(lambda values: values.update(index={"0": 1})), "not the card and index"),
    (another_shard, "00001-of-00001: does not belong to it"),
    (fewer_records, "holds 8 records, dataset_info.json says 9"),
    (cut_short, "cannot be read|is damaged"),
    (replaced_by(lambda shard: None), "is missing"),
    (replaced_by(os.mkfifo), "is not a regular file"),
    (replaced_by(lambda shard: shard.symlink_to("/dev/zero")), "is not a regular file"),
    (replaced_by(lambda shard: shard.mkdir()), "is not a regular file"),
    (replaced_by(lambda shard: shard.write_bytes(b"")), "cannot be read"),
    *((large(file), "more than the") for file in ("features.json", "dataset_info.json", "metadata.json")),
    *((a_pipe(file), "no such file") for file in ("features.json", "dataset_info.json", "metadata.json")),
]


@pytest.mark.parametrize(("spoil", "problem"), DISAGREEMENTS)
def test_files_that_do_not_agree_are_refused(built, spoil, problem):
    spoil(built)
    with pytest.raises(InputError, match=problem):
        list(storage.open_records(built, "toy")[1])


def in_two_shards(data_dir, first):
    """Deal the records of a built set to two files, ``first`` of them to the first."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    shard = shard_of(data_dir)
    reader = ArrayRecordReader(str(shard))
    examples = reader.read(range(9))
    reader.close()
    shard.unlink()
    for number, part in enumerate((examples[:first], examples[first:])):
        writer = ArrayRecordWriter(str(shard).replace("00000-of-00001", f"0000{number}-of-00002"), "group_size:1")
        for example in part:
            writer.write(example)
        writer.close()
    split(shardLengths=[str(first), str(9 - first)])(data_dir)


def test_several_shards(built):
    in_two_shards(built, 4)
    for written, back in zip(toys(), storage.open_records(built, "toy")[1], strict=True):
        assert_same(back, written)
    split(shardLengths=["5", "4"])(built)
    with pytest.raises(InputError, match=r"(?s)00000-of-00002: holds 4 records, dataset_info.json says 5.*00001-of"):
        storage.open_records(built, "toy")


def test_what_is_not_there_is_named(built, tmp_path):
    with pytest.raises(InputError, match=r"'toy' has not been built there.*python -m data_prep build toy --out"):
        storage.open_records(tmp_path, "toy")
    with pytest.raises(InputError, match="--out '/my data'"):
        storage.open_records("/my data", "toy")
    with pytest.raises(InputError, match="cannot be the name of a data set"):
        storage.open_records(built, "../built/toy")


def test_a_set_of_an_older_version_is_to_be_built_again(built):
    storage.folder_of(built, "toy").rename(built / "toy" / "1.0.0")
    with pytest.raises(
        InputError, match=r"built in format 1\.0\.0 .* reads format 3\.0\.0.*Build it again.*--overwrite"
    ):
        storage.open_records(built, "toy")


def test_the_features_are_those_that_tfds_writes(whole):
    path = storage.folder_of(whole, "toy") / "features.json"
    assert json.loads(path.read_text()) == storage.features_as_json()
    for feature in storage.features_as_json()["featuresDict"]["features"].values():
        module, _, name = feature["pythonClassName"].rpartition(".")
        assert module.startswith("tensorflow_datasets.") and hasattr(importlib.import_module(module), name)
