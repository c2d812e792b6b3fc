"""What a script does before it works: missing packages, JAX's devices, and the order in which faults are found."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import runtime
from thyroid_jax import extras
from thyroid_jax.errors import InputError

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if "def main(" in path.read_text())


def run(code, *words, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | environment,
    )  # fmt: skip


def test_a_kind_of_device_that_is_not_there_ends_in_one_line(tmp_path):
    code = "from experiments.export import main; main()"
    words = ["--run-dir", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    for platform in ("cuda", "nonsense"):
        done = run(code, *words, JAX_PLATFORMS=platform)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and "Traceback" not in done.stderr and not done.stdout
        assert last.startswith(f"error: JAX_PLATFORMS={platform}: JAX cannot start: ")
        assert "Set JAX_PLATFORMS=cpu" in last and 'pip install -U "jax[cuda12]"' in last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable. (set JAX_PLATFORMS='' to choose)")])
def test_the_message_says_what_jax_said_and_never_its_own_advice(error, monkeypatch):
    import jax

    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(InputError) as caught:
        runtime.start_devices()
    reason = "Unable" if error.args else "its kind of device is not found"
    assert str(caught.value).startswith(f"JAX cannot start: {reason}. Set JAX_PLATFORMS=cpu")


def test_no_script_and_no_command_needs_an_extra_to_be_imported():
    """With only what a plain install has: each module is imported, and none ends in a traceback.

    The library of checkpoints, which every install has and which is slow to import, waits until it is used.
    """
    code = "import sys, importlib\nfor name in sys.argv[1].split(','):\n    sys.modules[name] = None\n"
    code += "for name in sys.argv[2:]:\n    importlib.import_module(name)\n    print(name)\n"
    code += "print([name for name in sys.modules if name.startswith('orbax')])"
    modules = ["data_prep.__main__", *(f"experiments.{name}" for name in SCRIPTS)]
    optional = [name for name in extras.PACKAGES if name != "flatbuffers"]  # jax itself looks for that one
    done = run(code, ",".join(optional), *modules)
    assert done.stdout.splitlines() == [*modules, "[]"], done.stderr[-500:]


@pytest.mark.parametrize("words", [
    ["build", "phantom", "--out", "data"],
    ["check", "ddti", "--data", "data"],
    ["folds", "ddti", "--data", "data", "--out", "folds.json"],
    ["radiomics", "ddti", "--data", "data", "--out", "table.csv"],
], ids=lambda words: words[0])  # fmt: skip
def test_data_prep_names_what_is_missing_before_anything_else(words, monkeypatch, capsys, tmp_path):
    main = importlib.import_module("data_prep.__main__").main
    monkeypatch.chdir(tmp_path)
    for module in ("tensorflow_datasets", "skimage"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: missing packages: tensorflow-datasets, scikit-image. Install them with: pip install")
    assert "'.[data]'" in err and not out and not list(tmp_path.iterdir())


def test_the_list_of_data_sets_needs_no_extra(monkeypatch, capsys):
    for module in extras.BUILDING:
        monkeypatch.setitem(sys.modules, module, None)
    importlib.import_module("data_prep.__main__").main(["list"])
    assert "phantom" in capsys.readouterr().out


@pytest.mark.parametrize("script, hidden", [
    ("demo", "tensorflow_datasets"), ("export", "flatbuffers"), ("probe", "matplotlib"), ("shapes", "matplotlib"),
    ("coverage", "scipy"), ("target_study", "sklearn"), ("evidence_probe", "sklearn"), ("radiomics", "scipy"),
    ("rlar_study", "grain"), ("head_study", "sklearn"),
])  # fmt: skip
def test_further_scripts_name_what_is_missing_first(script, hidden, monkeypatch, capsys):
    main = importlib.import_module(f"experiments.{script}").main
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(SystemExit) as stop:
        main(["--no-such-option"])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert extras.PACKAGES[hidden].name in err and "pip install -e" in err and not out


def test_a_command_line_is_read_before_devices_are_started():
    """``--help`` and a mistyped option must not take a GPU's memory, nor wait for one."""
    for name in SCRIPTS:
        tree = ast.parse((ROOT / "experiments" / f"{name}.py").read_text())
        (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
        calls = [node for node in ast.walk(main) if isinstance(node, ast.Call)]
        lines = {ast.unparse(call.func): call.lineno for call in calls}
        if "prepare" in lines:
            read = [line for call, line in lines.items() if call in ("tyro.cli", "parse", "studies")]
            assert read and lines["prepare"] > min(read), name


def test_commands_without_settings_of_a_run_show_their_help_without_jax():
    """JAX is most of the time that a script takes to start."""
    names = ("evaluate", "export", "external", "predict", "tables")
    modules = ["data_prep.__main__", *(f"experiments.{name}" for name in names)]
    code = (
        f"import sys, {', '.join(modules)}; print([name for name in ('jax', 'flax', 'scipy') if name in sys.modules])"
    )
    done = run(code)
    assert done.stdout == "[]\n", done.stderr
