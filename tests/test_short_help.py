"""The short help has what most runs need, a line each, with the defaults of the chosen names; the long one the rest."""

import dataclasses
import inspect

import pytest

from experiments import train
from experiments.configs import named
from thyroid_jax.config import Config
from thyroid_jax.short_help import COMMON, comments, taken


def printed(capsys, *words):
    with pytest.raises(SystemExit) as end:
        train.main(words)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_common_options_have_a_line_each_with_the_chosen_defaults(capsys, monkeypatch):
    comments.cache_clear()
    read, source = [], inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda kind: read.append(kind) or source(kind))
    text = printed(capsys, "--config", "base", "plain", "--help")
    assert len(text.splitlines()) < 120
    assert len(read) < 2 * len(set(read))  # reading a class for each of its options would take half a second
    chosen = named(["base", "plain"])
    for group, names in COMMON.items():
        settings = getattr(chosen, group)
        for name in names:
            option = f"--{group}.{name}".replace("_", "-")
            (line,) = [line for line in text.splitlines() if line.strip().startswith((option + " ", option + ","))]
            value = getattr(settings, name)
            value = " ".join(value) if isinstance(value, tuple) else str(value)
            assert line.endswith(f"(default: {value or 'none'})")
    assert "--rlar.weight FLOAT" in text and "(default: 0.0)" in text.split("--rlar.weight")[1].splitlines()[0]
    (line,) = [line for line in text.splitlines() if line.strip().startswith("--run-dir PATH")]
    assert line.endswith("checkpoints and report (required)")


def test_the_long_help_has_every_field(capsys):
    text = printed(capsys, "--help-all")
    for group in dataclasses.fields(Config):
        for field in dataclasses.fields(getattr(Config(), group.name)):
            assert f"--{group.name}.{field.name}".replace("_", "-") in text


def test_every_option_says_something():
    for group in dataclasses.fields(Config):
        kind = type(getattr(Config(), group.name))
        assert not {field.name for field in dataclasses.fields(kind)} - {
            name for name, text in comments(kind).items() if text
        }


def test_what_an_option_takes():
    from pathlib import Path
    from typing import Literal

    assert taken(Path | None) == "PATH" and taken(tuple[int, ...]) == "INT ..."
    assert taken(Literal["a", "b"]) == "{a,b}" and taken(Literal["a", "b", "c", "d", "e"]) == "NAME"
