"""Optional packages: the list is that of pyproject.toml, and a missing one is named with the command for it."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from thyroid_jax import extras
from thyroid_jax.errors import InputError

ROOT = Path(__file__).parent.parent


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_is_in_the_extra_that_is_said_to_install_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    held = {
        extra: {normal(re.match(r"[\w.-]+", text)[0]) for text in texts}
        for extra, texts in project["optional-dependencies"].items()
    }
    for module, (name, extra) in extras.PACKAGES.items():
        assert normal(name) in held[extra], module
        assert importlib.util.find_spec(module), module


def test_the_groups_are_of_known_modules():
    for group in (extras.RECORDS, extras.TRAINING, extras.STATISTICS, extras.PAGE):
        assert set(group) <= set(extras.PACKAGES)


def test_what_is_there_is_not_named():
    extras.require(*extras.PACKAGES)
    assert extras.missing(tuple(extras.PACKAGES)) == []


def test_every_missing_package_is_named_once_with_one_command(monkeypatch):
    for module in ("jinja2", "grain"):
        monkeypatch.setitem(sys.modules, module, None)
    assert extras.missing(("scipy", "jinja2", "grain", "jinja2")) == ["jinja2", "grain"]
    command = r"missing packages: jinja2, grain\. Install them with: pip install -e '\.\[data,report\]'"
    with pytest.raises(InputError, match=command):
        extras.require("scipy", "jinja2", "grain", "jinja2")
    extras.require("scipy")  # what is not asked for does not matter


def test_an_unknown_module_is_a_fault_of_the_caller(monkeypatch):
    monkeypatch.setitem(sys.modules, "no_such_module", None)
    with pytest.raises(KeyError):
        extras.require("no_such_module")


@pytest.mark.parametrize("script, hidden, extra", [
    ("train", "grain", "data"), ("evaluate", "jinja2", "report"), ("compare", "scipy", "report"),
    ("external", "tensorflow_datasets", "data"), ("predict", "scipy", "report"), ("tables", "scipy", "report"),
])  # fmt: skip
def test_scripts_name_what_is_missing_before_anything_else(tmp_path, monkeypatch, capsys, script, hidden, extra):
    module = importlib.import_module(f"experiments.{script}")
    monkeypatch.setitem(sys.modules, hidden, None)
    words = {
        "predict": [str(tmp_path / "x.png"), "--run-dir", "nowhere", "--out", str(tmp_path / "out")],
        "tables": [str(tmp_path), "method"],
    }
    with pytest.raises(SystemExit) as stop:
        module.main(words.get(script, ["--no-such-option"]))  # the others do not even look at the command line
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert extras.PACKAGES[hidden].name in printed.err and f"'.[{extra}]'" in printed.err and not printed.out
