"""Records round-trip through a TFDS data set exactly, and builds are all or nothing."""

import copy
import dataclasses
import errno
import fcntl
import os
import sys

import numpy as np
import pytest

from data_prep import builder
from data_prep.__main__ import main
from data_prep.check import check
from thyroid_jax.data import storage
from thyroid_jax.data.record import Card, Record
from thyroid_jax.errors import InputError

CARD = Card(
    "toy", "Toys", "made here", "none", "made up", "case", ("low", "mid", "high"), "Toy", ("a fault",), {"records": 9}
)


def toys(n=9, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        h, w = 20 + i, 30 - i
        masks = [rng.random((h, w)) > 0.5 for _ in range(4)]
        yield Record(
            case=f"{i}_é",
            group=str(i // 2),
            source=f"{i}.png",
            image=rng.integers(0, 256, (h, w), dtype=np.uint8),
            mask=masks[0] if i % 3 else None,
            reader_masks=tuple(masks[: i % 4]),
            grade=i % 3 if i % 4 else None,
            reader_grades=tuple(range(i % 3)),
            malignant=(None, True, False)[i % 3],
            descriptors={"margins": "ill–defined"} if i % 2 else {},
            spacing=(0.1, 1 / 3) if i % 2 else (float("nan"), float("nan")),
        )


def factory(notes):
    for record in toys():
        notes.counts["seen"] += 1
        yield record


def assert_same(a, b, group=True):
    assert (a.case, a.source, a.grade, a.reader_grades, a.malignant, dict(a.descriptors)) == (
        b.case,
        b.source,
        b.grade,
        b.reader_grades,
        b.malignant,
        dict(b.descriptors),
    )
    assert not group or a.group == b.group
    assert type(a.malignant) is type(b.malignant)
    np.testing.assert_array_equal(a.spacing, b.spacing)
    np.testing.assert_array_equal(a.image, b.image)
    assert (a.mask is None) == (b.mask is None) and len(a.reader_masks) == len(b.reader_masks)
    for one, other in zip(
        (*a.reader_masks, *([a.mask] if a.mask is not None else [])),
        (*b.reader_masks, *([b.mask] if b.mask is not None else [])),
    ):
        assert one.dtype == other.dtype == bool
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    builder.build(CARD, factory, out)
    return out


def test_encode_decode_is_exact():
    for record in toys():
        assert_same(storage.decode(storage.encode(record)), record)


def test_a_record_of_unequal_sizes_is_refused():
    record = next(iter(toys(1)))
    with pytest.raises(ValueError, match="mask is"):
        storage.encode(Record("a", "a", "a", record.image, np.ones((3, 3), bool)))
    with pytest.raises(ValueError, match="image is"):
        storage.encode(Record("a", "a", "a", record.image.astype(float)))


def test_a_build_comes_back_as_it_was_in_its_order_without_tensorflow(built):
    card, records = storage.open_records(built, "toy")
    assert card == CARD
    assert len(records) == 9
    for written, back in zip(toys(), records):
        assert_same(back, written)
    assert records[-1].case == "8_é"
    assert [r.case for r in records[2:4]] == ["2_é", "3_é"]
    with pytest.raises(IndexError):
        records[9]
    assert_same(copy.deepcopy(records)[3], records[3])
    assert "tensorflow" not in sys.modules
    assert os.listdir(built) == ["toy"]


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
    handle = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing"):
            builder.build(CARD, factory, tmp_path)
    finally:
        os.close(handle)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="is not a folder"):
        builder.build(CARD, factory, tmp_path / "out")


def test_missing_and_damaged_builds_are_named(tmp_path):
    with pytest.raises(InputError, match="has not been built there"):
        storage.open_records(tmp_path, "toy")
    builder.build(CARD, factory, tmp_path)
    folder = storage.folder_of(tmp_path, "toy")
    shard = next(folder.glob("*.array_record*"))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        _, records = storage.open_records(tmp_path, "toy")
        list(records)
    shard.unlink()
    with pytest.raises(InputError, match="damaged"):
        storage.open_records(tmp_path, "toy")
    shard.write_bytes(content)
    (folder / "metadata.json").write_text('{"card": {"name": "toy"}}')
    with pytest.raises(InputError, match="no readable card"):
        storage.open_records(tmp_path, "toy")
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        storage.open_records(tmp_path, "toy")


def test_check_describes_and_draws(built, tmp_path):
    from PIL import Image

    text = check(built, "toy", sheet=tmp_path / "sheet.png", sheet_records=7)
    assert "records        9" in text and "groups         5" in text and "a fault" in text
    assert "records: 9" not in text
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (6 * 240, 2 * 194)


def test_check_lists_everything_that_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "problems_of", lambda record, card: [])  # as if built before builds looked at this

    def wrong(notes):
        image = next(iter(toys(1))).image
        yield Record("a", "1", "a", image, mask=np.zeros_like(image, bool))
        yield Record("b", "2", "b", image, grade=7, spacing=(0.0, 1.0))

    builder.build(CARD, wrong, tmp_path)
    with pytest.raises(InputError, match=r"(?s)a: mask is empty.*b: grade is 7.*b: spacing is"):
        check(tmp_path, "toy")


def test_the_command_line(tmp_path, capsys):
    for arguments, text in (
        (["check", "ddti", "--data", str(tmp_path)], "has not been built"),
        (["build", "ddti", "--source", str(tmp_path / "none"), "--out", str(tmp_path / "out")], "no such folder"),
        (["build", "ddti", "--source", str(tmp_path), "--out", str(tmp_path / "out")], "never written into"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert text in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_phantom_options_reach_the_renderer(tmp_path, monkeypatch, capsys):
    from data_prep import phantom

    asked = []
    monkeypatch.setattr(phantom, "CARD", CARD)
    monkeypatch.setattr(phantom, "read", lambda options, notes: asked.append(options) or toys(options.count))
    main(["build", "phantom", "--out", str(tmp_path), "--count", "4", "--size", "48", "64"])
    assert set(asked) == {phantom.PhantomOptions(count=4, size=(48, 64))}
    assert "records" in capsys.readouterr().out
    assert len(storage.open_records(tmp_path, "toy")[1]) == 4
