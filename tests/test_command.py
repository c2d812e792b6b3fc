"""The console command: its list of sub-commands, what it hands on, and how messages spell a command."""

import argparse
import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from data_prep import __main__ as data_prep_main
from thyroid_jax import __version__, command, extras

ROOT = Path(__file__).parent.parent
SCRIPTS = {name for name, known in command.COMMANDS.items() if known.package == command.SCRIPTS}


def help_lines(parser):
    """Sub-command -> its line of help."""
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {choice.dest: choice.help for choice in commands._choices_actions}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=["alone", "--help", "-h"])
def test_alone_and_with_help_it_lists_every_sub_command_in_a_line(words, capsys):
    command.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: thyroid-jax COMMAND ..."
    for name, known in command.COMMANDS.items():
        assert [line.split(maxsplit=1)[1] for line in lines if line.split()[:1] == [name]] == [known.line]
    assert max(map(len, lines)) < 100


def test_the_list_does_not_import_jax_and_starts_quickly():
    """Only the standard library and two small modules: a listing must not wait for JAX."""
    code = "import sys; from thyroid_jax.command import main; main([]); print(len(sys.modules), 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    modules, jax = done.stdout.splitlines()[-1].split()
    assert jax == "False" and int(modules) < 150


def test_the_lines_of_data_prep_are_its_own():
    ours = {name: known.line for name, known in command.COMMANDS.items() if known.package == command.DATA}
    assert ours == help_lines(data_prep_main._parser())


def test_every_sub_command_is_a_script_with_a_main():
    for name in SCRIPTS:
        tree = ast.parse((ROOT / "experiments" / f"{name}.py").read_text())
        assert "main" in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], name


def test_the_words_are_handed_on(monkeypatch):
    seen = []
    for module in ("experiments.train", "data_prep.__main__"):
        monkeypatch.setattr(
            importlib.import_module(module), "main", lambda words, m=module: seen.append((m, list(words)))
        )
    command.main(["train", "--run-dir", "a b"])
    command.main(["build", "phantom", "--out", "d"])
    assert seen == [
        ("experiments.train", ["--run-dir", "a b"]),
        ("data_prep.__main__", ["build", "phantom", "--out", "d"]),
    ]


@pytest.mark.parametrize("name, near", [("trian", "did you mean train?"), ("buld", "did you mean build?"), ("xyz", "")])
def test_an_unknown_sub_command_is_named_with_the_nearest(name, near, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([name])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"error: {name}: no such command") and near in err
    assert "thyroid-jax --help" in err and len(err.splitlines()) == 1


def test_version(capsys):
    command.main(["--version"])
    assert capsys.readouterr().out == f"thyroid-jax {__version__}\n"


# --- how a command is spelled -----------------------------------------------------------------------------------------


def test_a_checkout_spells_modules_and_the_console_command_itself(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["experiments/train.py"])
    assert command.spelled("train") == "python -m experiments.train"
    assert command.spelled("build") == "python -m data_prep build"
    assert command.spelled("head_study") == "python -m experiments.head_study"
    monkeypatch.setattr(sys, "argv", ["/env/bin/thyroid-jax", "train"])
    assert command.spelled("train") == "thyroid-jax train" and command.spelled("build") == "thyroid-jax build"
    assert command.spelled("head_study") == "python -m experiments.head_study"
    assert command.program(command.DATA) == "thyroid-jax"
    monkeypatch.setattr(sys, "argv", [])
    assert command.spelled("evaluate") == "python -m experiments.evaluate"


def test_a_wheel_spells_the_console_command(monkeypatch, tmp_path):
    """A wheel has the scripts inside the package; there is no module ``experiments`` to name."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    for module in (command, extras):
        monkeypatch.setattr(module, "__file__", str(tmp_path / "module.py"))
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert command.spelled("train") == "thyroid-jax train" and command.spelled("build") == "thyroid-jax build"
    assert command.spelled("head_study") == "python -m thyroid_jax.experiments.head_study"
    assert extras.install_command("data,report") == "pip install 'thyroid-jax[data,report]'"


@pytest.mark.parametrize("name", ["train", "evaluate", "external", "predict", "export", "tables", "build"])
def test_the_help_of_a_sub_command_names_the_program_that_was_called(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/env/bin/thyroid-jax", name, "--help"])
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: thyroid-jax {name} ")


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_has_a_console_command_and_no_package_called_experiments():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"][command.PROGRAM].partition(":")
    assert getattr(importlib.import_module(module), function) is command.main
    build = project["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"]["sources"] == {"experiments": "thyroid_jax/experiments"}
    assert build["wheel"]["only-include"] == ["thyroid_jax", "data_prep", "experiments"]
    assert "/results" in build["sdist"]["exclude"]


def test_no_script_names_its_package_in_an_import():
    """In a wheel the package has another name: scripts import their siblings relatively."""
    for path in (ROOT / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.split(".")[0] == "experiments"], path


def test_the_library_and_data_prep_import_no_script():
    """They would not find it in a wheel."""
    for package in ("thyroid_jax", "data_prep"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    assert (node.module or "").split(".")[0] != "experiments", path
