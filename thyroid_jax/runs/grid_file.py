"""A comparison's arguments from a JSON file, strictly checked.

The fields are the options of ``python -m experiments.compare`` without dashes, and ``config`` for the size. Settings of
a group may stand together. ``data.name`` may be several data sets, and ``runs`` and ``margin`` objects. The options of
jobs, such as ``--submit``, stand on the command line alone, because they change no result:

    {
     "methods": ["plain", "plain+lite0+nodule"],
     "config": "small",
     "data.name": ["breast_lesions", "busi"],
     "data.dir": "data",
     "seeds": [0, 1],
     "train": {"epochs": 80, "batch_size": 16},
     "margin": {"dice": 0.02},
     "out": "runs/breast"
    }
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thyroid_jax.config import Config
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import read_json
from thyroid_jax.settings import flat, from_dict, to_dict

TEXT, NUMBER, FLAG, TEXTS, NUMBERS = "a text", "a whole number", "true or false", "a list of texts", "whole numbers"
KINDS = {
    **{"config": TEXT, "out": TEXT, "part": TEXT, "samples": NUMBER, "flip": FLAG, "ensemble": FLAG, "page": TEXT},
    **{"methods": TEXTS, "runs": TEXTS, "measures": TEXTS, "margin": TEXTS, "folds": NUMBERS, "seeds": NUMBERS},
}
"""own fields of the comparison -> the kind of their value; all others are settings of a run"""


class GridFile(NamedTuple):
    """What a file says: words of the command line, the size or "", and the data sets if it names a list of them."""

    words: list[str]
    size: str
    data_sets: tuple[str, ...]


def read_grid(path: Path) -> GridFile:
    """Read a grid file. All unknown fields and wrong values are named at once, by :class:`InputError`."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: not an object with the fields of a comparison.")
    problems = [f"{name}: is there twice" for name in _named_twice(path)]
    pairs = list(flat({name: value for name, value in values.items() if name not in ("runs", "margin")}))
    fields = dict(pairs)
    problems += [f"{name}: is there twice" for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    fields |= {name: _as_texts(name, values[name], problems) for name in ("runs", "margin") if name in values}
    settings = dict(flat(to_dict(Config())))
    known = [*KINDS, *settings]
    for name in [name for name in fields if name not in known]:
        near = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name}: unknown field" + (f"; did you mean {near[0]}?" if near else ""))
    for name, kind in KINDS.items():
        if name in fields and not _is_of(kind, fields[name]):
            problems.append(f"{name}: {fields[name]!r} is not {kind}")
    names = fields.get("data.name", ())
    several = _is_of(TEXTS, names)
    if several and (not names or len(set(names)) < len(names)):
        problems.append("data.name: name each data set once")
    own = {name: value for name, value in fields.items() if name in settings and not (name == "data.name" and several)}
    problems += _setting_problems(own)
    raise_all(problems, f"{path}: cannot be used, mend these fields:")
    words = [
        word for name in (*KINDS, *own) if name in fields and name != "config" for word in _words(name, fields[name])
    ]
    return GridFile(words, fields.get("config", ""), tuple(names) if several else ())


def _named_twice(path: Path) -> list[str]:
    twice: list[str] = []

    def count(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(pairs)

    json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=count)
    return twice


def _as_texts(name: str, value: Any, problems: list[str]) -> Any:
    """``{"a": ["one", "two"]}`` and ``{"dice": 0.02}`` as the command line has them: a=one two, dice=0.02."""
    if not isinstance(value, dict):
        return value
    texts: list[str] = []
    for key, entry in value.items():
        entries = entry if name == "runs" and isinstance(entry, list) else [entry]
        expected, said = (str, "a folder, or a list of folders") if name == "runs" else (int | float, "a number")
        if not entries or not all(isinstance(each, expected) and not isinstance(each, bool) for each in entries):
            problems.append(f"{name}.{key}: {entry!r} is not {said}")
            continue
        texts += [f"{key}={entries[0]}", *map(str, entries[1:])]
    return texts


def _is_of(kind: str, value: Any) -> bool:
    if kind == FLAG:
        return isinstance(value, bool)
    if kind in (TEXTS, NUMBERS):
        one = TEXT if kind == TEXTS else NUMBER
        return isinstance(value, list) and all(_is_of(one, entry) for entry in value)
    return isinstance(value, str) if kind == TEXT else type(value) is int


def _setting_problems(own: dict[str, Any]) -> list[str]:
    """What is wrong with the types of settings, by the checks of a run's ``config.json``."""
    problems = []
    for name, value in own.items():
        group, _, field = name.partition(".")
        values = to_dict(Config())
        values[group][field] = value
        try:
            from_dict(type(getattr(Config(), group)), values[group], where=group)
        except InputError as error:
            problems.append(str(error).rstrip("."))
    return problems


def _words(name: str, value: Any) -> list[str]:
    """The option and its value as words of a command line."""
    group, point, field = name.rpartition(".")
    if isinstance(value, bool):
        return [f"--{group}{point}{'' if value else 'no-'}{field}".replace("_", "-")]
    return [f"--{name}".replace("_", "-"), *map(str, value if isinstance(value, list) else [value])]
