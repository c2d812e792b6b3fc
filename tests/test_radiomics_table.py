"""Tables of radiomics: every outlined record once and in order, exactly as an engine found it, or no table at all."""

import csv
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from data_prep import builder, radiomics_oracle, radiomics_table
from data_prep.__main__ import main
from data_prep.radiomics_table import COLUMNS, ENGINES, Engine, Found, chosen_bins, write_table
from thyroid_jax import radiomics
from thyroid_jax.data.record import Card, Record
from thyroid_jax.data.source import open_parts
from thyroid_jax.errors import InputError

CARD = Card("toy", "Toys", "made here", "none", "made up", "case", ("low", "high"))
SOME = ("shape2D_Perimeter", "firstorder_Mean", "glcm_Contrast")


def toys():
    """Ten images of many sizes; every third has no outline, the sixth a single pixel."""
    rng = np.random.default_rng(0)
    for i in range(10):
        h, w = 30 + 11 * i, 90 - 4 * i
        mask = np.zeros((h, w), bool)
        mask[3 : 9 + 10 * i, 5 : 30 + 5 * i] = True
        if i == 5:
            mask = np.eye(h, w, dtype=bool) & (np.arange(w) == 7)
        image = rng.integers(0, 256, (h, w), dtype=np.uint8)
        yield Record(f'{i}, "é"', str(i // 2), f"{i}.png", image, mask=None if i % 3 == 0 else mask, grade=i % 2)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    builder.build(CARD, lambda notes: toys(), out)
    return out


def fake(nodules, features, bins):
    """Values that tell which nodule they are of, handed over backwards; the first feature of odd ones is undefined."""
    for nodule in reversed(list(nodules)):
        values = np.arange(len(features)) + nodule.image[nodule.mask].mean(dtype=np.float32)
        yield Found(
            nodule.number, values.astype(np.float32), np.array([nodule.number % 2 == 0] + [True] * (len(features) - 1))
        )


FAKE = Engine(lambda: "fake 1.0", fake)


def read(file):
    """Head and rows."""
    lines = file.read_text().splitlines()
    head = [line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("# ")]
    return dict(head), list(csv.DictReader(lines[len(head) :]))


def test_every_outlined_record_has_its_row_in_order(built, tmp_path):
    summary = write_table(built, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME)
    _, rows = read(tmp_path / "t.csv")
    outlined = [record for record in toys() if record.mask is not None]
    assert summary == (6, 3, "") and list(rows[0]) == [*COLUMNS, *SOME]
    for number, (row, record) in enumerate(zip(rows, outlined, strict=True)):
        assert (row["case"], row["group"]) == (record.case, record.group)
        assert (int(row["height"]), int(row["width"])) == record.image.shape
        mean = record.image[record.mask].mean(dtype=np.float32)
        assert np.float32(row["firstorder_Mean"]) == 1 + mean and np.float32(row["glcm_Contrast"]) == 2 + mean
        assert row["shape2D_Perimeter"] == ("" if number % 2 else str(mean))


def test_the_head_says_how_it_was_made(drawn_data, tmp_path):
    write_table(drawn_data, "drawn", tmp_path / "t.csv", engine=FAKE, features=SOME, bin_width=16)
    head, _ = read(tmp_path / "t.csv")
    digest = open_parts(drawn_data, "drawn").digest  # the one that a run notes
    expected = {"engine": "fake 1.0", "data_set": "drawn", "digest": digest, "bin_width": "16.0", "unit": "mm"}
    assert head == {"thyroid_jax": "0.1.0", **expected}


@pytest.mark.parametrize("known", [True, False])
def test_lengths_are_in_millimetres_when_every_spacing_is_known(tmp_path, known):
    def spaced(notes):
        for number, record in enumerate(toys()):
            yield replace(
                record, spacing=(0.1, 0.2 + number) if known or number < 7 or record.mask is None else (np.nan, np.nan)
            )

    builder.build(CARD, spaced, tmp_path)
    write_table(tmp_path, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME)
    head, rows = read(tmp_path / "t.csv")
    assert head["unit"] == ("mm" if known else "px")
    assert rows[2]["row_spacing"] == ("0.1" if known else "1.0") and rows[2]["column_spacing"] == (
        "4.2" if known else "1.0"
    )


def test_pyradiomics_sees_the_whole_record(built, tmp_path):
    pytest.importorskip("radiomics")
    summary = write_table(built, "toy", tmp_path / "t.csv", engine=ENGINES["pyradiomics"], features=SOME, bin_width=10)
    head, rows = read(tmp_path / "t.csv")
    assert head["engine"] == "pyradiomics 3.0.1" and summary.incomplete == 1
    for row, record in zip(rows, (record for record in toys() if record.mask is not None), strict=True):
        values, valid = radiomics_oracle.extract(record.image, record.mask, features=SOME, bin_width=10)
        assert [row[name] for name in SOME] == [str(value) if defined else "" for value, defined in zip(values, valid)]


def test_jax_gets_the_nodules_in_batches(built, tmp_path, monkeypatch):
    pytest.importorskip("radiomics")
    batches = []

    def extract(images, masks, *, features, spacing, **bins):
        batches.append(len(images))
        each = [
            radiomics_oracle.extract(*one, features=features, spacing=side, **bins)
            for *one, side in zip(images, masks, spacing)
        ]
        return np.stack([values for values, _ in each]), np.stack([valid for _, valid in each])

    monkeypatch.setattr(radiomics, "extract", extract, raising=False)
    monkeypatch.setattr(radiomics_table, "BATCH", 4)
    for engine in ("jax", "pyradiomics"):
        write_table(built, "toy", tmp_path / engine, engine=ENGINES[engine], features=SOME)
    assert read(tmp_path / "jax")[1] == read(tmp_path / "pyradiomics")[1]
    assert batches == [4, 2]


@pytest.mark.parametrize("bins", [["--bin-width", "10"], []])
def test_both_engines_agree_from_the_command_line(drawn_data, tmp_path, capsys, bins):
    pytest.importorskip("radiomics")
    tables = []
    for engine in ("jax", "pyradiomics"):
        file = tmp_path / f"{engine}.csv"
        main(["radiomics", "drawn", "--data", str(drawn_data), "--out", str(file), "--engine", engine, *bins])
        assert capsys.readouterr().out.startswith("29 images")
        head, rows = read(file)
        assert head["engine"].startswith(engine) and list(rows[0]) == [*COLUMNS, *radiomics.FEATURES]
        tables.append([[row[name] for name in radiomics.FEATURES] for row in rows])
    fast, judge = (np.array([[float(cell or "nan") for cell in row] for row in table]) for table in tables)
    assert fast.shape == (29, 102)
    np.testing.assert_allclose(fast, judge, rtol=1e-4, atol=1e-6)


def test_a_file_that_is_there_stays_unless_it_may_go(built, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("mine")
    with pytest.raises(InputError, match=r"t\.csv: is already there\. Add --overwrite"):
        write_table(built, "toy", file, engine=FAKE, features=SOME)
    with pytest.raises(InputError, match="is a folder"):
        write_table(built, "toy", tmp_path, engine=FAKE, features=SOME, overwrite=True)
    broken = FAKE._replace(extract=lambda nodules, features, bins: (1 // 0 for _ in nodules))
    with pytest.raises(ZeroDivisionError):
        write_table(built, "toy", file, engine=broken, features=SOME, overwrite=True)
    assert file.read_text() == "mine"
    write_table(built, "toy", file, engine=FAKE, features=SOME, overwrite=True)
    assert len(read(file)[1]) == 6 and os.listdir(tmp_path) == ["t.csv"]


def test_a_data_set_that_is_missing_or_has_no_outline(tmp_path):
    with pytest.raises(InputError, match="'toy' has not been built there"):
        write_table(tmp_path, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME)
    builder.build(CARD, lambda notes: (replace(record, mask=None) for record in toys()), tmp_path / "built")
    with pytest.raises(InputError, match="no record has an outline"):
        write_table(tmp_path / "built", "toy", tmp_path / "t.csv", engine=FAKE, features=SOME)
    assert os.listdir(tmp_path) == ["built"]


@pytest.mark.parametrize(
    "width, count, what",
    [
        *((width, None, "bin width") for width in (0, -5, 1e-3, float("nan"), float("inf"))),
        *((None, count, "bin count") for count in (-1, 0, 1, 257)),
        (25, 32, "one of them"),
    ],
)
def test_bins_that_cannot_be_used(built, tmp_path, width, count, what):
    with pytest.raises(InputError, match=what):
        write_table(built, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME, bin_width=width, bin_count=count)
    assert os.listdir(tmp_path) == []


def test_bins_that_can():
    assert chosen_bins(None, None) == {"bin_count": 32}
    assert chosen_bins(None, 256) == {"bin_count": 256}
    assert chosen_bins(0.25, None) == {"bin_width": 0.25}


@pytest.mark.parametrize("width, few, many", [(25, 1, 0), (50, 6, 0), (0.5, 1, 5), (10, 1, 0)])
def test_a_poor_bin_width_is_remarked_on_once(built, tmp_path, width, few, many):
    summary = write_table(built, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME, bin_width=width)
    assert (
        f"{few} of 6 images have under 8 grey levels, {many} over 256" in summary.remark and "\n" not in summary.remark
    )


def test_a_terminal_shows_the_progress(built, tmp_path, capsys, monkeypatch):
    write_table(built, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    write_table(built, "toy", tmp_path / "t.csv", engine=FAKE, features=SOME, overwrite=True)
    shown = capsys.readouterr().err
    assert "toy: reading" in shown and "/10" in shown
    assert "toy: radiomics" in shown and "/6" in shown


def test_a_missing_pyradiomics_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "radiomics", None)
    with pytest.raises(InputError, match=r"Python 3\.11.*engine jax"):
        write_table(tmp_path, "none", tmp_path / "t.csv", engine=ENGINES["pyradiomics"], features=SOME)


def test_what_the_command_line_refuses(drawn_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(radiomics, "FEATURES", SOME, raising=False)
    monkeypatch.setitem(ENGINES, "jax", FAKE)
    asked = ["radiomics", "drawn", "--data", str(drawn_data), "--out", str(tmp_path / "t.csv")]
    main([*asked, "--bin-width", "60"])
    shown = capsys.readouterr()
    assert shown.out == f"29 images, 14 of them with values that are not defined: {tmp_path / 't.csv'}\n"
    assert shown.err.startswith("bin width 60: 29 of 29 images have under 8 grey levels, 0 over 256")
    for more, text in (
        ([], "already there"),
        (["--overwrite", "--bin-count", "0"], "bin count: 0"),
        (["--bin-count", "8", "--bin-width", "3"], "not allowed with"),
        (["--engine", "matlab"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as caught:
            main([*asked, *more])
        assert caught.value.code == 2 and text in capsys.readouterr().err
