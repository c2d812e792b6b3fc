"""The reader of Stanford's cine clips against small files of the original's layout, and HDF5 files of strangers."""

import csv
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_prep import builder, hdf5
from data_prep.readers import stanford_cine
from thyroid_jax.data import storage
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError

SIZE = (24, 20)
CLIPS = {"12_": 5, "7_": 4, "7_1": 3}  # annot_id -> frames
HEADER = (
    "annot_id,age,sex,location,size_x,size_y,size_z,ti-rads_composition,ti-rads_echogenicity,ti-rads_shape,"
    "ti-rads_margin,ti-rads_echogenicfoci,ti-rads_level,histopath_diagnosis"
).split(",")


def row(annot_id, **changed):
    usual = ("58", "Female", "right mid", "1.4", "1.1", "1.9", "2", "1", "0", "0", "0", "3", "0")
    return dict(zip(HEADER, (annot_id, *usual))) | changed


ROWS = [row("12_"), row("7_", **{"ti-rads_level": "5", "histopath_diagnosis": "1"}), row("7_1", location="")]


def write_table(source, rows):
    source.mkdir(exist_ok=True)
    with (source / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def parts(clips=CLIPS):
    """The four data sets of the original, as arrays."""
    names = [name for name, count in clips.items() for _ in range(count)]
    mask = np.zeros((len(names), *SIZE), np.uint8)
    mask[:, 5:12, 4:11] = 255
    mask[:, 0, 0] = np.arange(len(names)) % 2 * 255  # masks differ
    return {
        "image": np.random.default_rng(0).integers(0, 255, (len(names), *SIZE), np.uint8),
        "mask": mask,
        "annot_id": np.array([name.encode() for name in names]),
        "frame_num": np.array([number for count in clips.values() for number in range(count)]),
    }


def add(source, rows=ROWS, options=(), **changed):
    """Write both files; a part that is None is left out. ``options`` are those of the image and mask data sets."""
    write_table(source, rows)
    with h5py.File(source / "dataset.hdf5", "w") as file:
        for name, values in (parts() | changed).items():
            if values is not None:
                file.create_dataset(name, data=values, **(dict(options) if name in ("image", "mask") else {}))


def change(source, function):
    with h5py.File(source / "dataset.hdf5", "r+") as file:
        function(file)


def read(source):
    notes = Notes()
    return list(stanford_cine.read(source, notes)), notes


def only_fault(source):
    records, notes = read(source)
    assert records == [] and len(notes.faults) == 1, notes.faults
    assert str(source) not in notes.faults[0]
    return notes.faults[0]


@pytest.fixture
def source(tmp_path):
    return tmp_path / "stanford"


def test_labels_groups_and_counts(source):
    add(source)
    records, notes = read(source)
    assert [record.case for record in records] == [
        *(f"12_{number:04d}" for number in range(5)),
        *(f"7_{number:04d}" for number in range(4)),
        *(f"7_1_{number:04d}" for number in range(3)),
    ]
    assert [record.group for record in records] == ["12"] * 5 + ["7"] * 7
    assert [(record.grade, record.malignant) for record in records] == [(2, False)] * 5 + [(4, True)] * 4 + [
        (2, False)
    ] * 3
    findings = {"composition": "2", "echogenicity": "1", "shape": "0", "margins": "0", "echogenic_foci": "0"}
    assert records[0].descriptors == {"location": "right mid"} | findings and records[-1].descriptors == findings
    assert records[6].source == "dataset.hdf5: image[6]" and not records[6].official_test
    expected = {
        "rows": 3,
        "frames": 12,
        "frames without row": 0,
        "frames without outline": 0,
        "frames of one grey value": 0,
        "nodules without frame": 0,
        "nodules": 3,
        "patients": 2,
        "nodules benign": 2,
        "nodules malignant": 1,
        "nodules without diagnosis": 0,
        "nodules TR1": 0,
        "nodules TR2": 0,
        "nodules TR3": 2,
        "nodules TR4": 0,
        "nodules TR5": 1,
        "nodules without level": 0,
    }
    assert notes.counts == expected and list(notes.counts) == list(expected)
    assert notes.faults == [] and notes.dropped == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, *SIZE)},
        {"chunks": (5, 10, 7)},
        {"chunks": (5, 10, 7), "compression": "gzip", "shuffle": True},
        {"chunks": (4, *SIZE), "compression": "gzip"},
        {"chunks": (12, 5, 20), "compression": "lzf"},
    ],
)
@pytest.mark.parametrize("block", [3, 64])
def test_pixels_do_not_depend_on_how_they_are_stored(source, options, block, monkeypatch):
    monkeypatch.setattr(stanford_cine, "BLOCK", block)
    add(source, options=options)
    records, notes = read(source)
    assert notes.faults == [] and len(records) == 12
    stored = parts()
    np.testing.assert_array_equal([record.image for record in records], stored["image"])
    np.testing.assert_array_equal([record.mask for record in records], stored["mask"] == 255)
    assert all(record.image.base is None for record in records)  # a record does not keep its block


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (5, 10, 7, 1)},
        {"chunks": (5, 10, 7, 1), "compression": "gzip", "shuffle": True},
        {"chunks": (5, 10, 7, 2), "compression": "gzip", "maxshape": (12, *SIZE, None)},
        {"chunks": (12, 5, 20, 1), "compression": "lzf"},
    ],
)
def test_pictures_may_have_an_axis_of_one_channel(source, options):
    stored = parts()
    add(source, options=options, image=stored["image"][..., None], mask=stored["mask"][..., None])
    records, notes = read(source)
    assert notes.faults == []
    np.testing.assert_array_equal([record.image for record in records], stored["image"])
    np.testing.assert_array_equal([record.mask for record in records], stored["mask"] == 255)
    add(source, image=stored["image"][..., None])  # the mask without it
    np.testing.assert_array_equal([record.image for record in read(source)[0]], stored["image"])


def test_image_and_mask_may_be_stored_differently(source):
    stored = parts()
    add(source, image=None, mask=None)
    change(source, lambda file: file.create_dataset("image", data=stored["image"], chunks=(2, 8, 8), compression=9))
    change(source, lambda file: file.create_dataset("mask", data=stored["mask"] > 0, chunks=(5, 24, 3), compression=1))
    records, notes = read(source)
    assert notes.faults == []
    np.testing.assert_array_equal([record.image for record in records], stored["image"])
    np.testing.assert_array_equal([record.mask for record in records], stored["mask"] > 0)


def test_a_chunk_that_gzip_did_not_pack(source):
    stored = parts()
    add(source, options={"chunks": (12, *SIZE), "compression": "gzip"}, image=np.zeros((12, *SIZE), np.uint8))
    change(source, lambda file: file["image"].id.write_direct_chunk((0, 0, 0), stored["image"].tobytes(), 1))
    records, notes = read(source)
    assert notes.faults == []
    np.testing.assert_array_equal([record.image for record in records], stored["image"])


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("kind", ["texts", "bytes", "none"])
def test_other_forms_of_names_and_numbers(source, kind, column):
    shape = (12, 1) if column else (12,)
    usual = parts()
    numbers = [f"{number}_" for number in usual["frame_num"]]
    as_text = h5py.string_dtype() if kind == "texts" else "S6"
    number = None if kind == "none" else np.array(numbers, dtype=as_text).reshape(shape)
    names = usual["annot_id"].astype("U") if kind == "texts" else usual["annot_id"]
    add(source, annot_id=names.astype(as_text).reshape(shape), frame_num=number)
    records, notes = read(source)
    assert notes.faults == []
    assert [record.case for record in records] == [
        f"{name.decode().removesuffix('_')}_{place:04d}" for name, place in zip(usual["annot_id"], usual["frame_num"])
    ]


def test_what_is_left_out_is_listed(source):
    changed = parts(CLIPS | {"99_": 2})
    changed["mask"][[1, 2, 6]] = 0
    changed["image"][3] = 7
    add(source, [*ROWS, row("50_"), row("51_")], **changed)
    records, notes = read(source)
    assert [record.case for record in records[:4]] == ["12_0000", "12_0004", "7_0000", "7_0002"] and len(records) == 8
    assert notes.faults == []
    assert notes.dropped == [
        ("nodule 50_", "row 5 of metadata.csv names it, but dataset.hdf5 has no frame of it"),
        ("nodule 51_", "row 6 of metadata.csv names it, but dataset.hdf5 has no frame of it"),
        ("2 frames of 12_", "their mask is empty: the nodule is not in them"),
        ("1 frames of 12_", "they show nothing"),
        ("1 frames of 7_", "their mask is empty: the nodule is not in them"),
        ("2 frames of 99_", "metadata.csv has no row for them"),
    ]
    counts = ["frames", "frames without row", "frames without outline", "frames of one grey value"]
    assert [notes.counts[name] for name in [*counts, "nodules without frame", "nodules"]] == [14, 2, 3, 1, 2, 3]


def test_names_without_nodule_are_noted(source):
    add(source, ROWS[:2], **parts({"12_": 2, "7_": 2}))
    _, notes = read(source)
    assert notes.dropped == [("the patients of the nodules", "annot_id names only nodules: each is taken as a patient")]
    assert notes.counts["patients"] == 2


def test_missing_labels_are_unknown_and_words_are_read(source):
    level, diagnosis = "ti-rads_level", "histopath_diagnosis"
    rows = [
        row("12_", **{level: "", diagnosis: "nan"}),
        row("7_", **{level: "TR4", diagnosis: "Malignant", "ti-rads_shape": "NaN"}),
        row("7_1_", **{level: "2.0", diagnosis: "0.0"}),
    ]
    add(source, rows)
    records, notes = read(source)
    assert notes.faults == []
    found = {record.case[:-5]: (record.grade, record.malignant) for record in records}
    assert found == {"12": (None, None), "7": (3, True), "7_1": (1, False)}
    assert notes.counts["nodules without level"] == notes.counts["nodules without diagnosis"] == 1
    assert "shape" not in records[5].descriptors and records[0].descriptors["shape"] == "0"


def test_all_faults_are_named_at_once(source):
    rows = [
        row("12_", **{"ti-rads_level": "6"}),
        row("7_", histopath_diagnosis="2"),
        row("7_1", location="\x07"),
        row("7_1"),
        row("7_1_"),
        row("../7"),
    ]
    changed = parts()
    changed["mask"][9, 3, 3] = 128
    changed["mask"][10] = 255 - changed["mask"][10]
    changed["frame_num"][11] = 1
    add(source, rows, **changed)
    records, notes = read(source)
    assert [record.case for record in records] == ["7_1_0001"]
    texts = [
        "metadata.csv: row 2: ti-rads_level: '6' must be 1 to 5, or empty",
        "metadata.csv: row 3: histopath_diagnosis: '2' must be 0, 1, benign or malignant, or empty",
        "metadata.csv: row 4: location: '\\x07' must be a text",
        "metadata.csv: row 6: annot_id: 7_1_ is already in row 5",
        "metadata.csv: row 7: annot_id: '../7' must be a patient's number and _",
        "dataset.hdf5: frame_num: clip 7_1_ has frame 1 twice",
        "dataset.hdf5: mask[9]: values: 1 pixels are neither 0 nor 255",
        "dataset.hdf5: mask[10]: values: all corners and over half of the frame are marked",
    ]
    assert len(notes.faults) == len(texts)
    for text, fault in zip(texts, notes.faults):
        assert fault.startswith(text), (text, fault)
    with pytest.raises(InputError, match=r"(?s)8 faults.*row 2: ti-rads_level.*mask\[9\]"):
        builder.build(stanford_cine.CARD, lambda notes: stanford_cine.read(source, notes), source / "out")


def test_a_wrong_folder_and_what_to_do(source):
    with pytest.raises(InputError, match="no such folder"):
        read(source)
    source.mkdir()
    with pytest.raises(InputError, match=r"there is no dataset\.hdf5, no metadata\.csv in it. Put both"):
        read(source)
    add(source)
    with pytest.raises(InputError, match=f"It is in {re.escape(str(source))}: give that folder"):
        read(source.parent)
    for content, text in ((b"", "the table is empty"), (b"annot_id\n1_\n", "no column location"), (b"\xff", "UTF-8")):
        (source / "metadata.csv").write_bytes(content)
        with pytest.raises(InputError, match=rf"metadata\.csv: .*{text}.*; replace the file"):
            read(source)


def test_a_build_comes_back_and_writes_nothing_into_the_source(source, tmp_path):
    changed = parts()
    changed["image"][5] = changed["image"][0]  # patients 12 and 7 share a frame
    add(source, **changed)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    for path in source.iterdir():
        path.chmod(0o400)
    build = lambda notes: stanford_cine.read(source, notes)
    survey = builder.build(stanford_cine.CARD, build, tmp_path / "out")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()} == before
    _, records = storage.open_records(tmp_path / "out", "stanford_cine")
    assert len(records) == 12 and {record.group for record in records} == {"12"}
    assert survey.notes.counts["groups joined by equal images"] == 1
    np.testing.assert_array_equal(records[8].image, changed["image"][8])
    np.testing.assert_array_equal(records[8].mask, changed["mask"][8] > 0)
    assert (records[8].grade, records[8].malignant, records[8].case) == (4, True, "7_0003")
    assert "12  frames  (the whole original has 17412)" in builder.summary(stanford_cine.CARD, survey.notes)


def test_the_card_adds_up():
    expected = stanford_cine.CARD.expected
    assert expected["nodules benign"] + expected["nodules malignant"] == expected["nodules"]
    assert set(expected) <= set(stanford_cine.COUNTED)


# HDF5 files of strangers.


def virtual(file):
    layout = h5py.VirtualLayout(shape=(12, *SIZE), dtype=np.uint8)
    for number in range(12):
        layout[number] = h5py.VirtualSource("/etc/passwd", "x", shape=SIZE)
    file.create_virtual_dataset("image", layout)


def external(file):
    file.create_dataset("image", (12, *SIZE), np.uint8, external=[("/etc/passwd", 0, 12 * SIZE[0] * SIZE[1])])


def without_a_chunk(file):
    values = file.create_dataset("image", (12, *SIZE), np.uint8, chunks=(4, *SIZE))
    values[:8] = parts()["image"][:8]


def bomb(file):
    import zlib

    values = file.create_dataset("image", (12, *SIZE), np.uint8, chunks=(12, *SIZE), compression="gzip")
    values.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(4 << 20), 9))


def texts_bomb(file):
    import zlib

    values = file.create_dataset("annot_id", (12,), "S64", chunks=(4096,), maxshape=(None,), compression="gzip")
    values.id.write_direct_chunk((0,), zlib.compress(bytes(140 << 20), 9))


def packed_twice(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((12,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    h5py.h5d.create(file.id, b"annot_id", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((12,)), plist)


def packed_by_another(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((12, *SIZE))
    plist.set_fletcher32()
    space = h5py.h5s.create_simple((12, *SIZE))
    h5py.h5d.create(file.id, b"image", h5py.h5t.NATIVE_UINT8, space, plist)


def put(name, *arguments, **options):
    return lambda file: file.create_dataset(name, *arguments, **options)


def link(name, value):
    return lambda file: file.__setitem__(name, value)


@pytest.mark.parametrize(
    "name, make, text",
    [
        ("image", virtual, "image: its values are in other files"),
        ("image", external, "image: its values are in other files"),
        ("image", link("image", h5py.ExternalLink("/etc/passwd", "/x")), "image: is a link"),
        ("annot_id", link("annot_id", h5py.ExternalLink("other.hdf5", "/x")), "annot_id: is a link"),
        ("frame_num", link("frame_num", h5py.ExternalLink("other.hdf5", "/x")), "frame_num: is a link"),
        ("frame_num", link("frame_num", h5py.SoftLink("/nothing")), "frame_num: is a link"),
        ("mask", lambda file: file.create_group("mask"), "mask: is not a data set"),
        ("mask", lambda file: None, "mask: is not in it"),
        ("image", without_a_chunk, "image: 2 chunks are there, not 3"),
        ("image", put("image", (12, *SIZE), np.uint8), "image: its values are not all in the file"),
        ("image", packed_by_another, r"image: packed by filters \[3\]"),
        ("image", put("image", data=np.zeros((12, *SIZE))), "image: of type float64"),
        ("image", put("image", data=np.zeros((12, *SIZE, 3), np.uint8)), "image: size 12 x 24 x 20 x 3"),
        ("image", put("image", data=np.zeros((12, *SIZE, 1, 1), np.uint8)), "image: size 12 x 24 x 20 x 1 x 1"),
        ("image", put("image", data=np.zeros((11, *SIZE), np.uint8)), "mask: size .12, 24, 20., but image is .11"),
        ("mask", put("mask", data=np.zeros((12, 24, 21), np.uint8)), "mask: size .12, 24, 21., but image is .12"),
        ("image", put("image", data=h5py.Empty(np.uint8)), "image: size 0"),
        ("image", put("image", (12, 5000, 20), np.uint8, fillvalue=1), "image: its values are not all"),
        ("image", put("image", (1 << 40, *SIZE), np.uint8, chunks=(1, *SIZE)), "image: size 1099511627776 x"),
        (
            "image",
            put("image", (12, 1 << 20, 1 << 20), np.uint8, chunks=(12, 1 << 14, 1 << 14)),
            "image: chunks of 3221",
        ),
        ("annot_id", put("annot_id", data=np.array([b"12_"] * 11)), "annot_id: size 11, but there are 12 pictures"),
        ("annot_id", texts_bomb, "annot_id: a packed chunk of 142[0-9]{3} bytes, at most 130055"),
        ("annot_id", packed_twice, "annot_id: is packed twice, by gzip gzip"),
        ("annot_id", put("annot_id", data=np.array([b"/etc"] * 12)), "annot_id: '/etc' must be a patient's number"),
        ("annot_id", put("annot_id", data=np.array([b"\xff_"] * 12)), "content: HDF5 cannot read it"),
        ("annot_id", put("annot_id", data=np.zeros(12)), "annot_id: of type float64"),
        ("annot_id", put("annot_id", data=np.array([b"1" * 65] * 12)), "annot_id: of type .S65"),
        ("annot_id", put("annot_id", data=["1" * 65] * 12), "annot_id: a value is no text of at most 64 bytes"),
        ("frame_num", put("frame_num", data=np.arange(12) - 1), "frame_num: '-1' must be a whole number"),
        ("frame_num", put("frame_num", data=np.full(12, 10**6)), "frame_num: '1000000' must be a whole number"),
    ],
)
def test_data_sets_that_are_refused(source, name, make, text):
    add(source, **{name: None})
    change(source, make)
    fault = only_fault(source)
    assert re.match(rf"dataset\.hdf5: {text}", fault) and fault.endswith("; replace the file by the original."), fault


def test_a_chunk_that_unpacks_to_more_than_it_says(source):
    add(source, image=None)
    change(source, bomb)
    assert only_fault(source) == (
        "dataset.hdf5: frames 0 to 11: the chunk at (0, 0, 0): does not unpack to 5760 bytes; "
        "replace the file by the original."
    )


def test_a_block_that_cannot_be_read_is_one_fault_and_the_others_are_read(source):
    add(source, options={"chunks": (4, *SIZE), "compression": "gzip"})
    change(source, lambda file: file["image"].id.write_direct_chunk((4, 0, 0), b"no gzip"))
    records, notes = read(source)
    assert len(records) == 8 and len(notes.faults) == 1
    assert notes.faults[0].startswith("dataset.hdf5: frames 4 to 7: content: HDF5 cannot read it (Error -3")


def test_files_that_are_not_hdf5(source):
    add(source)
    file = source / "dataset.hdf5"
    whole = file.read_bytes()
    for content in (b"", b"\x89HDF\r\n\x1a\n", os.urandom(4096), whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(content)
        assert only_fault(source).startswith("dataset.hdf5: content: HDF5 cannot read it")
    file.unlink()
    os.mkfifo(file)
    assert only_fault(source) == "dataset.hdf5: file: is not a regular file; replace the file by the original."
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "is not a regular file" in only_fault(source)
    file.unlink()
    file.symlink_to(source / "nothing")
    assert "No such file" in only_fault(source)
    file.unlink()
    file.mkdir()
    assert "is not a regular file" in only_fault(source)


@pytest.mark.parametrize("options", [{}, {"chunks": (12, 6, 7), "compression": "gzip"}, {"chunks": (7, 6, 7)}])
def test_at_most_a_block_is_read_at_once(monkeypatch, source, options):
    """Where frames are large, a block has fewer of them, also fewer than a chunk."""
    add(source, options=options)
    asked = []
    whole = hdf5.Pictures.read
    monkeypatch.setattr(hdf5.Pictures, "read", lambda self, *place: asked.append(place) or whole(self, *place))
    monkeypatch.setattr(hdf5, "LARGEST_CHUNK", 5 * SIZE[0] * SIZE[1])
    records, notes = read(source)
    assert notes.faults == []
    np.testing.assert_array_equal([record.image for record in records], parts()["image"])
    assert asked[::2] == [(0, 5), (5, 10), (10, 12)]


FUZZ = """
import sys
from pathlib import Path
from data_prep.readers import stanford_cine
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print(folder.name, len(list(stanford_cine.read(folder, Notes()))), flush=True)
    except InputError:
        print(folder.name, flush=True)
"""


def test_changed_bytes_end_in_a_fault(source, tmp_path):
    """In a process of its own, because libhdf5 may crash."""
    add(
        source,
        options={"chunks": (4, 12, 20), "compression": "gzip"},
        annot_id=parts()["annot_id"].astype("U").tolist(),
    )
    whole, table = ((source / name).read_bytes() for name in ("dataset.hdf5", "metadata.csv"))
    chance = random.Random(0)
    for number in range(40):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 9)):
            content[chance.randrange(len(whole))] = chance.choice((0, 255, chance.randrange(256)))
        folder = tmp_path / "fuzz" / f"{number:03d}"
        folder.mkdir(parents=True)
        (folder / "dataset.hdf5").write_bytes(
            content[: chance.choice((len(whole), len(whole), chance.randrange(9999)))]
        )
        (folder / "metadata.csv").write_bytes(table)
    root = Path(stanford_cine.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path / "fuzz")], cwd=root, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 40, done.stderr[-2000:]
