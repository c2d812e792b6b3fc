"""Every module in the folder of readers is one data set, found without being listed anywhere."""

import sys

import pytest

from data_prep import readers
from thyroid_jax.data.record import Card


def test_every_reader_is_called_as_its_data_set():
    assert {"ddti", "breast_lesions", "bus_bra"} <= set(readers.names())
    for name in readers.names():
        reader = readers.reader_of(name)
        assert isinstance(reader.card, Card) and reader.card.name == name and callable(reader.read)


def test_a_new_file_is_a_new_reader(tmp_path, monkeypatch):
    known = readers.names()
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path)])
    text = "from thyroid_jax.data.record import Card\nCARD = Card({!r}, 'Mine', '', '', '', 'case')\n"
    (tmp_path / "mine.py").write_text(text.format("mine") + "def read(source, notes):\n    yield from ()\n")
    (tmp_path / "misnamed.py").write_text(text.format("other") + "def read(source, notes):\n    yield from ()\n")
    (tmp_path / "half.py").write_text(text.format("half"))
    (tmp_path / "_helper.py").write_text("")
    assert set(readers.names()) == {*known, "half", "mine", "misnamed"}
    try:
        assert readers.reader_of("mine").card.title == "Mine"
        for name in ("misnamed", "half"):
            with pytest.raises(TypeError, match=rf"{name}\.py: must hold CARD, a Card whose name is '{name}'"):
                readers.reader_of(name)
    finally:
        for name in ("mine", "misnamed", "half"):
            sys.modules.pop(f"data_prep.readers.{name}", None)
            vars(readers).pop(name, None)
