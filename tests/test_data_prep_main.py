"""The commands of data_prep: what they print, what they write, and how they end when they cannot."""

import os

import pytest
from toys import CARD, factory, toys

from data_prep import builder, readers
from data_prep.__main__ import main
from thyroid_jax.data import splits, storage


def refused(arguments, capsys):
    """The message of a command that ends with status 2."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_what_a_user_gets_wrong(tmp_path, capsys):
    assert "has not been built" in refused(["check", "ddti", "--data", tmp_path], capsys)
    missing = ["build", "ddti", "--source", tmp_path / "none", "--out", tmp_path / "out"]
    assert "no such folder" in refused(missing, capsys)
    inside = ["build", "ddti", "--source", tmp_path, "--out", tmp_path / "out"]
    assert "never written into" in refused(inside, capsys)
    assert "invalid choice: 'breast'" in refused(["build", "breast", "--out", tmp_path], capsys)
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


def test_the_list_has_a_line_for_every_data_set(capsys):
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[0].strip() for line in lines] == [*readers.names(), "phantom"]
    for line, name in zip(lines, readers.names()):
        card = readers.reader_of(name).card
        assert card.title in line and card.grouping in line and card.licence in line
        assert f"grades: {' '.join([card.grade_system, *card.grades]).strip() or 'none'} |" in line
        assert "built" not in line


def test_the_list_says_what_is_built_and_writes_a_page_for_each(tmp_path, capsys, monkeypatch):
    from data_prep import phantom

    monkeypatch.setattr(phantom, "CARD", CARD)
    builder.build(CARD, factory, tmp_path)
    main(["list", "--data", str(tmp_path), "--pages", str(tmp_path / "pages")])
    built = {line.split(" ")[0]: line.rpartition("built: ")[2] for line in capsys.readouterr().out.splitlines()}
    assert built == dict.fromkeys(readers.names(), "no") | {"toy": "yes"}
    assert {path.stem for path in (tmp_path / "pages").iterdir()} == set(built)
    page = (tmp_path / "pages" / "toy.md").read_text()
    assert page.startswith("# Toys\n") and "- a fault" in page and "- **Grades.** Toy low mid high" in page
    assert "\nrecords       9  ########################################\n" in page


def test_folds_are_written_once_into_a_file(tmp_path, capsys):
    builder.build(CARD, lambda notes: toys(24), tmp_path)
    file = tmp_path / "mine.json"
    arguments = ["folds", "toy", "--data", str(tmp_path), "--out", str(file), "--folds", "3", "--seed", "7"]
    main(arguments)
    sizes = " ".join(str(len(cases)) for cases in splits.read_folds(file).folds)
    assert capsys.readouterr().out == f"3 folds of {sizes} records: {file}\n"
    metadata = storage.read_metadata(tmp_path, "toy")
    folds = splits.load_folds(file, "toy", metadata.digest, metadata.entries)
    assert len(folds.folds) == 3 and folds.seed == 7 and folds.test == ()
    assert folds == splits.make_folds("toy", metadata.digest, metadata.entries, folds=3, seed=7)
    assert not splits.folds_folder(tmp_path, "toy").exists()
    before = file.read_bytes()
    assert "already there. Folds are made once" in refused(arguments, capsys)
    assert file.read_bytes() == before


def test_folds_that_cannot_be_made(tmp_path, capsys):
    builder.build(CARD, factory, tmp_path)
    arguments = ["folds", "toy", "--data", tmp_path, "--out", tmp_path / "mine.json"]
    assert "only 5 groups" in refused([*arguments, "--folds", "6"], capsys)
    assert "at least 3" in refused([*arguments, "--folds", "2"], capsys)
    assert os.listdir(tmp_path) == ["toy"]


def test_seeds_and_options_that_cannot_be_used_are_named(tmp_path, capsys):
    builder.build(CARD, factory, tmp_path, near=False)
    built = ["toy", "--data", tmp_path]
    for seed in ("-1", str(2**32), "1.5"):
        said = refused(["folds", *built, "--out", tmp_path / "f.json", "--seed", seed], capsys)
        assert f"--seed: {seed}: it is a whole number from 0" in said
    assert "Add --sheet FILE" in refused(["check", *built, "--source", tmp_path], capsys)
    sheet = ["--sheet", tmp_path / "s.png"]
    assert "are two checks" in refused(["check", *built, "--against", "other", *sheet], capsys)
    assert not (tmp_path / "f.json").exists() and not (tmp_path / "s.png").exists()
