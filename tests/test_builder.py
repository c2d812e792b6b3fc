"""Builds are all or nothing, and nothing is put in place that does not come back as it was read."""

import dataclasses
import errno
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from toys import CARD, factory, toys

from data_prep import builder
from thyroid_jax.data import splits, storage
from thyroid_jax.data.record import Card, Record
from thyroid_jax.errors import InputError
from thyroid_jax.files import alone_in


def test_groups_with_equal_images_are_written_as_one(tmp_path):
    def twins(notes):
        first, *rest = toys(6)
        yield first
        yield from rest
        yield Record("twin", "9", "twin.png", first.image)

    survey = builder.build(CARD, twins, tmp_path)
    assert survey.notes.counts["groups joined by equal images"] == 1
    assert storage.open_records(tmp_path, "toy")[1][-1].group == "0"


def test_all_faults_are_listed_and_nothing_is_written(tmp_path):
    def faulty(notes):
        notes.faults.append("1.xml: tirads: unknown; mend it.")
        yield from toys(2)
        notes.faults.append("2.jpg: truncated; copy it again.")

    with pytest.raises(InputError, match=r"(?s)2 faults.*1\.xml.*2\.jpg"):
        builder.build(CARD, faulty, tmp_path / "new" / "out")
    assert os.listdir(tmp_path) == []


def test_records_that_cannot_be_right_are_faults_named_by_file(tmp_path):
    def wrong(notes):
        one, two, three, four = toys(4)
        yield dataclasses.replace(one, source="1.png", mask=np.ones((2, 3), bool))
        yield dataclasses.replace(two, source="2.png", grade=7)
        yield dataclasses.replace(three, source="3.png")
        yield dataclasses.replace(four, source="4.png", case=three.case)

    with pytest.raises(
        InputError, match=r"(?s)3 faults.*1\.png: mask is \(2, 3\).*2\.png: grade is 7.*gives it 2 times"
    ):
        builder.build(CARD, wrong, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_empty_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="no usable record"):
        builder.build(CARD, lambda notes: [], tmp_path / "out")
    assert os.listdir(tmp_path) == []


def broken_on_second_pass(error):
    calls = []

    def records(notes):
        calls.append(None)
        for i, record in enumerate(toys()):
            if len(calls) == 2 and i == 5:
                raise error
            yield record

    return records


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), RuntimeError("boom")]
)
def test_a_failure_while_writing_leaves_nothing_new_and_keeps_the_old(tmp_path, error):
    with pytest.raises(type(error)):
        builder.build(CARD, broken_on_second_pass(error), tmp_path / "deep" / "out")
    assert os.listdir(tmp_path) == []
    builder.build(CARD, lambda notes: toys(3), tmp_path)
    with pytest.raises(type(error)):
        builder.build(CARD, broken_on_second_pass(error), tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == ["toy"]
    assert len(storage.open_records(tmp_path, "toy")[1]) == 3


def test_a_full_disk_reported_by_array_record_becomes_an_oserror(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        builder.build(CARD, broken_on_second_pass(RuntimeError("write: No space left on device")), tmp_path / "out")
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []


def test_a_full_disk_under_the_writer_leaves_nothing(tmp_path, monkeypatch):
    from tensorflow_datasets.core import writer

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.Writer, "finalize", full)
    with pytest.raises(OSError):
        builder.build(CARD, factory, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_source_that_changes_is_noticed(tmp_path):
    calls = []

    def changing(notes):
        calls.append(None)
        return toys(9 if len(calls) == 1 else 7)

    with pytest.raises(InputError, match="7 of 9"):
        builder.build(CARD, changing, tmp_path / "out")


@pytest.mark.parametrize(
    "change", [{"malignant": True}, {"mask": np.eye(20, 30, dtype=bool)}, {"group": "8"}, {"case": "other"}]
)
def test_a_label_that_changes_between_the_two_passes_is_noticed(tmp_path, change):
    calls = []

    def changing(notes):
        calls.append(None)
        for record in toys():
            yield dataclasses.replace(record, **change) if record.case == "0_é" and len(calls) == 2 else record

    with pytest.raises(InputError, match=r"0\.png: the source changed"):
        builder.build(CARD, changing, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_what_does_not_come_back_is_thrown_away(tmp_path, monkeypatch):
    """A disk, or an encoder, that does not keep what it is given."""
    encode = storage.encode

    def forgetful(record):
        return encode(record) | {"malignant": storage.UNKNOWN}

    builder.build(CARD, lambda notes: toys(3), tmp_path)
    monkeypatch.setattr(storage, "encode", forgetful)
    with pytest.raises(InputError, match=r"(?s)what was written does not come back.*digest, malignant differ"):
        builder.build(CARD, factory, tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == ["toy"]
    assert len(storage.open_records(tmp_path, "toy")[1]) == 3


def test_groups_joined_by_equal_images_have_digests_of_their_own(tmp_path):
    def twins(notes):
        first, *rest = toys(6)
        yield from (first, *rest, Record("twin", "9", "twin.png", first.image))

    builder.build(CARD, twins, tmp_path)
    _, records = storage.open_records(tmp_path, "toy")
    assert records.entries[-1].group == records[-1].group == "0"
    assert records.entries[-1].digest == records[-1].digest != list(twins(None))[-1].digest
    assert records.entries[-1].content == records.entries[0].content


def official(notes):
    for record in toys():
        yield dataclasses.replace(record, official_test=record.group == "2")


def test_the_official_test_part_is_kept(tmp_path):
    builder.build(CARD, official, tmp_path)
    _, records = storage.open_records(tmp_path, "toy")
    assert [record.case for record in records if record.official_test] == ["4_é", "5_é"]
    assert [entry.case for entry in records.entries if entry.official_test] == ["4_é", "5_é"]


def test_copies_of_official_test_images_elsewhere_are_faults(tmp_path):
    def leaking(notes):
        *records, last = official(notes)
        yield from (*records, dataclasses.replace(last, image=records[4].image, mask=None, reader_masks=()))

    with pytest.raises(
        InputError, match=r"group '2': 4_é, 5_é of the official test part and 8_é outside it.*Leave out"
    ):
        builder.build(CARD, leaking, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_folds_of_the_same_records_stay_and_others_go(tmp_path):
    builder.build(CARD, factory, tmp_path)
    _, records = storage.open_records(tmp_path, "toy")
    folder = splits.folds_folder(tmp_path, "toy")
    cases = [[entry.case for entry in records.entries[start::3]] for start in range(3)]
    folds = splits.Folds("toy", records.digest, tuple(map(tuple, cases)), made_by={"by": "hand"})
    splits.write_folds(folder / "3-0.json", folds)
    splits.write_folds(folder / "4-0.json", dataclasses.replace(folds, data="of other records"))
    (folder / "5-0.json").write_text("{")
    builder.build(CARD, factory, tmp_path, overwrite=True)
    assert os.listdir(folder) == ["3-0.json"]
    assert splits.read_folds(folder / "3-0.json") == folds
    builder.build(CARD, lambda notes: toys(8), tmp_path, overwrite=True)
    assert not folder.exists()


def dealt(notes):
    """Group "1", two records, is the official test part; the publishers dealt the rest by number."""
    notes.folds["official-3"] = {f"{number}_é": number // 2 % 3 for number in (0, 1, 4, 5, 6, 7, 8)}
    notes.folds["official-2"] = {"0_é": 0, "1_é": 1}
    for record in toys():
        yield dataclasses.replace(record, official_test=record.group == "1")


def test_folds_of_the_publishers_are_written_beside_the_data(tmp_path):
    survey = builder.build(CARD, dealt, tmp_path)
    assert os.listdir(splits.folds_folder(tmp_path, "toy")) == ["official-3.json"]
    metadata = storage.read_metadata(tmp_path, "toy")
    file = splits.folds_folder(tmp_path, "toy") / "official-3.json"
    folds = splits.load_folds(file, "toy", metadata.digest, metadata.entries)
    assert folds.folds == (("0_é", "1_é", "6_é", "7_é"), ("8_é",), ("4_é", "5_é"))
    assert folds.test == ("2_é", "3_é") and folds.made_by == {"publisher": "Toys"}
    ((what, why),) = survey.notes.dropped
    assert what == "the folds official-2" and "in no fold: '4_é', '5_é'" in why and "fold 1: is empty" in why


def test_a_build_of_an_older_version_is_replaced(tmp_path):
    builder.build(CARD, lambda notes: toys(3), tmp_path)
    storage.folder_of(tmp_path, "toy").rename(tmp_path / "toy" / "1.0.0")
    with pytest.raises(InputError, match="already there"):
        builder.build(CARD, factory, tmp_path)
    builder.build(CARD, factory, tmp_path, overwrite=True)
    assert os.listdir(tmp_path / "toy") == [storage.VERSION]
    assert len(storage.open_records(tmp_path, "toy")[1]) == 9


def test_what_is_counted_and_left_out_is_kept_with_the_records(tmp_path):
    def dropping(notes):
        notes.dropped.append(("x.png", "a known fault"))
        yield from factory(notes)

    survey = builder.build(CARD, dropping, tmp_path)
    metadata = storage.read_metadata(tmp_path, "toy")
    assert metadata.dropped == (("x.png", "a known fault"),)
    assert metadata.counts == dict(survey.notes.counts) and metadata.counts["groups"] == 5
    plain = json.loads((storage.folder_of(tmp_path, "toy") / "metadata.json").read_text())
    assert plain == json.loads(json.dumps(storage.metadata_as_json(metadata)))


def test_an_existing_build_needs_overwrite(tmp_path):
    builder.build(CARD, lambda notes: toys(3), tmp_path)
    with pytest.raises(InputError, match=r"already there\. Add --overwrite"):
        builder.build(CARD, factory, tmp_path)
    builder.build(CARD, factory, tmp_path, overwrite=True)
    assert len(storage.open_records(tmp_path, "toy")[1]) == 9
    assert os.listdir(tmp_path) == ["toy"]


def test_what_a_killed_build_left_is_cleaned_and_an_old_build_is_put_back(tmp_path):
    builder.build(CARD, lambda notes: toys(3), tmp_path)
    left = tmp_path / ".building-abc"
    left.mkdir()
    (left / "half").write_text("half")
    (tmp_path / "toy").rename(left / "old-toy")
    other = Card("other", "Others", "", "", "", "case", ("a", "b", "c"))
    builder.build(other, factory, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["other", "toy"]
    assert len(storage.open_records(tmp_path, "toy")[1]) == 3


def test_two_builds_in_one_folder_do_not_mix(tmp_path):
    with alone_in(tmp_path):
        with pytest.raises(InputError, match="another process is writing"):
            builder.build(CARD, factory, tmp_path)
        assert os.listdir(tmp_path) == [".lock"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="is not a folder"):
        builder.build(CARD, factory, tmp_path / "out")


# --- nearly equal images ----------------------------------------------------------------------------------------------


def speckle(seed, shape=(120, 160)):
    """A picture with the texture of a scan."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return np.clip(110 + 220 * noise, 1, 255).astype(np.uint8)


def copies(*changes):
    """Five scans of five patients, then a copy of scan 0 without its outer rows, each changed."""
    records = [Record(f"c{i}", f"p{i}", f"{i}.png", speckle(i), grade=0) for i in range(5)]
    records.append(Record("copy", "p5", "copy.png", speckle(0)[3:-2, 2:-4].copy(), grade=0))
    return [replace(record, **change) for record, change in zip(records, changes or [{}] * 6)]


CARD_OF_COPIES = Card("scans", "Scans", "made", "none", "made", "patient", ("low", "high"))


def test_nearly_equal_images_are_one_group(tmp_path):
    survey = builder.build(CARD_OF_COPIES, lambda notes: iter(copies()), tmp_path)
    assert survey.groups == ("p0", "p1", "p2", "p3", "p4", "p0")
    assert survey.notes.counts["pairs of nearly equal images in different groups"] == 1
    assert survey.notes.counts["of these, with different labels"] == 0 and not survey.notes.remarks
    assert builder.examine(CARD_OF_COPIES, lambda notes: iter(copies()), near=False).groups[5] == "p5"


def test_nearly_equal_images_with_different_labels_are_reported(tmp_path):
    changes = [{}] * 5 + [{"grade": 1}]
    survey = builder.build(CARD_OF_COPIES, lambda notes: iter(copies(*changes)), tmp_path)
    assert survey.groups[5] == "p0" and survey.notes.counts["of these, with different labels"] == 1
    ((case, why),) = survey.notes.remarks
    assert case == "c0" and why.startswith("nearly equal to copy (correlation 0.") and why.endswith("labels differ")
    assert "to know: 1\n  c0: nearly equal to copy" in builder.summary(CARD_OF_COPIES, survey.notes)


def test_nearly_equal_images_across_the_official_test_part_stay_and_are_reported(tmp_path):
    changes = [{}] * 5 + [{"official_test": True}]
    survey = builder.build(CARD_OF_COPIES, lambda notes: iter(copies(*changes)), tmp_path)
    assert survey.groups[5] == "p5" and survey.notes.counts["of these, across the official test part"] == 1
    assert "only one of them is in the official test part" in survey.notes.remarks[0][1]


def test_a_long_build_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "LOG_EVERY", 0.0)
    builder.build(CARD_OF_COPIES, lambda notes: iter(copies()), tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert said[:6] == [f"scans: reading: {number} records" for number in range(1, 7)]
    assert "scans: writing: 6 of 6 records" in said and "scans: reading back: 6 of 6 records" in said


def test_a_build_asks_no_server_and_leaves_no_temporary_folder(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    builder.build(CARD_OF_COPIES, lambda notes: iter(copies()), tmp_path / "out")
    assert not list((tmp_path / "temporary").iterdir())


def test_equal_images_with_different_labels_are_reported(tmp_path):
    records = copies()[:5]
    records += [replace(records[1], case="again", group="q", grade=1), replace(records[2], case="same", group="q2")]
    survey = builder.build(CARD_OF_COPIES, lambda notes: iter(records), tmp_path)
    assert survey.notes.remarks == [("c1", "equal to again, but their labels differ")]
