"""Mutants are many, of many kinds and always the same; what a reader should not do is found, and DDTI's does not."""

import io
import json
import os
import time
import zipfile

import numpy as np
import pytest
import test_ddti as made
from openpyxl import Workbook

from data_prep import fuzz, readers
from data_prep.readers import ddti
from thyroid_jax.errors import InputError


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "ddti"
    for number in (1, 2, 13):
        made.add(folder, number)
    return folder


def rng(seed=0):
    return np.random.default_rng(seed)


def test_sixty_mutants_of_ddti_have_no_finding(source):
    report = fuzz.fuzz("ddti", source, count=60, images=1, seconds=20)
    assert report.findings == {}
    assert report.taken + report.refused == 60 and report.taken > 3 and report.refused > 20


def test_a_subset_is_what_belongs_to_a_picture_and_all_tables(source):
    (source / "notes.csv").write_text("ID,x\n1_1,a\n2_1,b\n13_1,c\n")
    (source / "empty.csv").write_text("")
    book = Workbook()
    for row in (("ID", "x"), ("1_1", 3), ("2_1", 4), ("13_1", 5)):
        book.worksheets[0].append(row)
    book.save(source / "table.xlsx")
    seen = set()
    for seed in range(8):
        files = fuzz.subset(source, 1, rng(seed))
        case = next(name for name in files if name.endswith(".xml")).removesuffix(".xml")
        assert set(files) == {f"{case}.xml", f"{case}_1.jpg", "notes.csv", "empty.csv", "table.xlsx"}
        assert files["empty.csv"] == b""
        assert files["notes.csv"].decode().splitlines()[0] == "ID,x"
        assert f"{case}_1," in files["notes.csv"].decode()
        seen.add(case)
    assert seen == {"1", "2", "13"}
    with pytest.raises(InputError, match="no picture"):
        fuzz.subset(source / "none", 1, rng())
    (source / "none").mkdir()
    (source / "none" / "data.hdf5").write_bytes(b"pictures")
    (source / "none" / "table.csv").write_text("ID\n7\n")
    assert fuzz.subset(source / "none", 1, rng()) == {"data.hdf5": b"pictures", "table.csv": b"ID\n7\n"}


def test_a_mutant_is_always_the_same_and_never_the_source(source):
    files = fuzz.subset(source, 2, rng())
    first, second = ([fuzz.mutant(files, rng([7, k])) for k in range(200)] for _ in range(2))
    assert first == second
    assert sum(mutant == files for mutant in first) < 10
    assert files == fuzz.subset(source, 2, rng())
    names = {name for mutant in first for name in mutant}
    kinds = {content for mutant in first for content in mutant.values() if content.decode("latin-1") in fuzz.SPECIAL}
    assert len(names) > 8 and len(kinds) == len(fuzz.SPECIAL)


def test_changes_of_a_structure_leave_the_rest_whole():
    text = json.dumps([made.shape(made.BOX)])
    xml = f"<case><number>1</number><mark><svg>{text}</svg></mark></case>".encode()
    svgs = [fuzz.renested(xml, rng(seed)) for seed in range(40)]
    assert all(new.startswith(b"<case><number>1</number><mark><svg>") for new in svgs)
    assert len(set(svgs)) > 25 and any(str(10**400).encode() in new for new in svgs)
    elements = [fuzz.restructured(b"<a><b>1</b><c>2</c></a>", rng(seed)) for seed in range(60)]
    assert any(b"<!ENTITY" in new for new in elements) and any(new.count(b"<b>") > 100 for new in elements)
    tables = [fuzz.retabled(b"ID,x\n1,2\n3,4\n", rng(seed)) for seed in range(40)]
    assert {len(new.splitlines()) for new in tables} >= {3, 4}
    assert any(b"\t" in new for new in tables)


@pytest.mark.parametrize("change", [fuzz.renested, fuzz.restructured, fuzz.retabled, fuzz.redrawn, fuzz.repacked])
@pytest.mark.parametrize("content", [b"\0\xff\0", b"x", b"<", b"PK\x03\x04", b"[1"])
def test_a_change_that_does_not_apply_is_none(change, content):
    assert change(content, rng()) is None


def test_pictures_and_archives_are_still_those(source):
    picture = (source / "1_1.jpg").read_bytes()
    sizes = set()
    drawn = [fuzz.redrawn(picture, rng(seed)) for seed in range(30)]  # None: the format has not that colour mode
    for content in filter(None, drawn):
        with fuzz.Image.open(io.BytesIO(content)) as image:
            sizes.add(image.size)
    assert {(560, 360), (1, 1), (5000, 1)} <= sizes
    Workbook().save(packed := io.BytesIO())
    for seed in range(20):
        with zipfile.ZipFile(io.BytesIO(fuzz.repacked(packed.getvalue(), rng(seed)))) as parts:
            assert "xl/workbook.xml" in parts.namelist()


def test_what_is_written_is_of_its_kind(tmp_path):
    files = {kind.replace(" ", "_"): kind.encode() for kind in fuzz.SPECIAL} | {"a/b.png": b"1"}
    fuzz.write(files, tmp_path)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "folder").is_dir()
    assert os.readlink(tmp_path / "link_to_a_device") == "/dev/zero"
    assert (tmp_path / "dangling_link").is_symlink() and not (tmp_path / "dangling_link").exists()
    assert (tmp_path / "a/b.png").read_bytes() == b"1"


def with_reader(read, name, folder):
    """The outcome of a reader that is not one of the package."""
    fuzz.readers.reader_of = lambda name: readers.Reader(ddti.CARD, read)
    return fuzz.attempt(name, folder)


def refuses(source, notes):
    raise InputError("a.xml: is none.")


def talks(source, notes):
    notes.faults.append("x" * 5000)
    return iter(())


def breaks(source, notes):
    yield {}["key"]


def sleeps(source, notes):
    time.sleep(60)
    return iter(())


def eats(source, notes):
    return iter([bytearray(4 << 30)])


def dies(source, notes):
    os._exit(3)


@pytest.mark.parametrize(
    "read, what", [(refuses, "refused"), (talks, "a message of over 4000"), (breaks, "KeyError in test_fuzz.py breaks")]
)
def test_outcomes_of_a_reader(tmp_path, monkeypatch, read, what):
    monkeypatch.setattr(fuzz.readers, "reader_of", lambda name: readers.Reader(ddti.CARD, read))
    assert fuzz.attempt("ddti", tmp_path)[0].startswith(what)


def attempt_sleeping(name, folder):
    return with_reader(sleeps, name, folder)


def attempt_eating(name, folder):
    return with_reader(eats, name, folder)


def attempt_dying(name, folder):
    return with_reader(dies, name, folder)


@pytest.mark.parametrize(
    "attempt, what",
    [
        (attempt_sleeping, "a run of over 2 s"),
        (attempt_eating, "MemoryError in test_fuzz.py eats"),
        (attempt_dying, "a process that died"),
    ],
)
def test_a_reader_that_hangs_eats_memory_or_dies_is_found(source, attempt, what):
    report = fuzz.fuzz("ddti", source, count=1, images=1, seconds=2, attempt=attempt)
    assert list(report.findings) == [what]
    assert report.lines()[0] == "0 mutants taken, 0 refused, 1 findings" and "mutant 0" in report.lines()[1]


def test_the_command_prints_a_report_and_writes_a_mutant(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "fuzz", lambda *given, **named: fuzz.Report(taken=named["count"]))
    with pytest.raises(SystemExit) as status:
        fuzz.main(["ddti", "--source", str(source), "--count", "3"])
    assert status.value.code == 0 and capsys.readouterr().out == "3 mutants taken, 0 refused, 0 findings\n"
    out = tmp_path / "mutant"
    given = ["ddti", "--source", str(source), "--images", "1", "--write", "5", "--out", str(out)]
    fuzz.main(given)
    assert {path.name for path in out.iterdir()}
    with pytest.raises(SystemExit) as status:
        fuzz.main(given)
    assert status.value.code == 2 and "must be a new folder" in capsys.readouterr().err
