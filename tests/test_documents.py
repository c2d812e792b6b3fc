"""The tables of the documents are those of the kept predictions."""

import json
import math
from pathlib import Path

import pytest

from experiments import documents, tables
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import Case, write_cases

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the predictions of two methods, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    for method, dice in (("plain", 0.6), ("other", 0.7)):
        cases = [Case(case=str(n), group=str(n), part="test", dice=dice + n / 100, iou=0.5) for n in range(8)]
        write_cases(tmp_path / "kept" / f"{method}.csv", cases)
    return tmp_path


MARK = "<!-- tables: kept plain other --samples 50 --measures dice --parts differences -->\n"
TEXT = f"Before.\n\n{MARK}old\n<!-- end of tables -->\n\nAfter.\n"


@pytest.mark.skipif(not (ROOT / "results").is_dir(), reason="the predictions behind the tables are in a checkout only")
def test_every_table_in_the_documents_is_of_the_present_files(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = {file: documents.BLOCK.findall(file.read_text()) for file in documents.documents_of(documents.Arguments())}
    assert sum(map(len, found.values())) >= 10
    documents.main(["--check"])


def test_a_block_is_replaced_and_the_rest_is_kept(folder, capsys):
    new = documents.filled(TEXT)
    tables.main(["kept", "plain", "other", "--samples", "50", "--measures", "dice", "--parts", "differences"])
    assert capsys.readouterr().out.strip() in new
    assert "+0.100" in new and "old" not in new
    assert new.startswith(f"Before.\n\n{MARK}") and new.endswith("<!-- end of tables -->\n\nAfter.\n")
    assert documents.filled(new) == new


def test_a_changed_file_or_mark_makes_a_table_stale(folder):
    new = documents.filled(TEXT)
    assert documents.stale(TEXT) and not documents.stale(new)
    assert documents.stale(new.replace("--samples 50", "--samples 51"))
    table = folder / "kept" / "other.csv"
    table.write_text(table.read_text().replace("0.71", "0.72", 1))
    assert documents.stale(new) == [MARK.removeprefix("<!-- tables: ").removesuffix(" -->\n")]


def test_only_stale_tables_are_made_again(folder, monkeypatch):
    monkeypatch.setitem(documents.MADE, "tables", lambda words: f"made of {words}")
    assert documents.filled(TEXT, only_stale=True) == documents.filled(TEXT)
    first = documents.filled(TEXT)
    second = TEXT.replace("plain other", "other plain")
    monkeypatch.setitem(documents.MADE, "tables", lambda words: "made again")
    assert documents.filled(first + second, only_stale=True) == first + documents.filled(second)


def test_a_table_of_a_missing_file_is_an_error_that_names_it(folder, capsys):
    document = folder / "page.md"
    document.write_text(documents.filled(TEXT))
    (folder / "kept" / "other.csv").unlink()
    for option in ([], ["--check"], ["--stale"]):
        with pytest.raises(SystemExit):
            documents.main([*option, str(document)])
        assert capsys.readouterr().err.strip().endswith("no file kept/other.csv.")
    document.write_text("<!-- overview: none.json -->\n<!-- end of overview -->\n")
    with pytest.raises(SystemExit):
        documents.main(["--check", str(document)])
    assert "overview: none.json -->: no such file" in capsys.readouterr().err


def test_a_changed_ensemble_makes_a_table_stale(folder):
    """Kept ensembles, whose outlines were averaged, are a column of the table of values."""
    seeds = [f"fold0-seed{seed}" for seed in range(2)]
    for method, dice in (("plain", 0.6), ("other", 0.7)):
        cases = [Case(case=str(n), group=str(n), part=seed, dice=dice, iou=0.5) for seed in seeds for n in range(8)]
        write_cases(folder / "kept" / f"{method}.csv", cases)
        together = [Case(case=str(n), group=str(n), part="fold0-ensemble", dice=dice + 0.04, iou=0.5) for n in range(8)]
        write_cases(folder / "kept" / f"{method}, seeds averaged.csv", together)
    new = documents.filled(TEXT.replace("50", "60").replace(" --parts differences", ""))
    assert "0.740" in new and not documents.stale(new)
    table = folder / "kept" / "other, seeds averaged.csv"
    table.write_text(table.read_text().replace("0.74", "0.84"))
    assert documents.stale(new)
    moved = folder / "moved.csv"  # a table from elsewhere under the same name has no ensemble in this folder
    moved.write_text((folder / "kept" / "other.csv").read_text().replace(",0.7,", ",0.5,"))
    words = f"kept plain other={moved} --samples 60 --measures dice"
    rows = tables.rows_of(tables.parse(words.split())).found
    assert {case.dice for case in rows["plain, seeds averaged"]} == {0.64}
    assert all(math.isnan(case.dice) for case in rows["other, seeds averaged"])
    assert folder / "kept" / "other, seeds averaged.csv" not in documents.files_of_comparison(words)


def test_check_names_the_document_and_writes_nothing(folder, capsys):
    document = folder / "page.md"
    document.write_text(TEXT)
    with pytest.raises(SystemExit):
        documents.main(["--check", str(document)])
    assert "page.md: not of the present files: kept plain other" in capsys.readouterr().err
    assert document.read_text() == TEXT
    documents.main([str(document)])
    documents.main(["--check", str(document)])


def test_the_overview_has_a_row_for_each_entry(folder):
    entry = {"data": "Drawn", "config": "`plain`", "cases": "kept/plain.csv"}
    (folder / "overview.json").write_text(json.dumps([entry]))
    new = documents.filled("<!-- overview: overview.json -->\n<!-- end of overview -->\n")
    assert "| Drawn | `plain` | 8 | 0.635 (" in new


def test_an_entry_with_other_keys_is_refused(folder):
    (folder / "overview.json").write_text(json.dumps([{"data": "Drawn", "table": "kept/plain.csv"}]))
    with pytest.raises(InputError, match=r"overview\.json: an entry has the keys data, config and cases"):
        documents.overview_table("overview.json")


def test_parts_that_are_not_there_are_refused(folder):
    with pytest.raises(InputError, match="--parts values2: choose of values, differences"):
        tables.parse(["kept", "plain", "--parts", "values2"])
