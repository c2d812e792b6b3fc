"""An exported run predicts what the run predicts, without this package, and its card tells of no other run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import export as script
from thyroid_jax import export, predict, runs
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.cases import write_cases
from thyroid_jax.export import folder, program, run
from thyroid_jax.model import weight_files
from thyroid_jax.runs import apply

pytest.importorskip("flatbuffers", reason="jax writes a program with it: the extra export")


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """The finished run with its table of results."""
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished, run_dir)
    trained, parts = runs.open_finished(run_dir)
    write_cases(run_dir / "cases.csv", runs.cases_of(trained, parts.test, part="test"))
    return run_dir


@pytest.fixture(scope="module")
def exported(evaluated, tmp_path_factory):
    """The export of the evaluated run."""
    out = tmp_path_factory.mktemp("exports") / "export"
    export.export_run(evaluated, out, samples=200)
    return out


@pytest.fixture
def copied(evaluated, tmp_path):
    """A copy of the evaluated run that a test may spoil."""
    return shutil.copytree(evaluated, tmp_path / "copied")


@pytest.fixture
def without_a_program(monkeypatch):
    """Export without lowering and running the program, which other tests look at."""
    lowered = partial(program.lower, platforms=("cpu",))
    monkeypatch.setattr(folder, "lower", lambda trained, platforms, echo: lowered(trained, echo=echo))
    monkeypatch.setattr(folder, "check", lambda *_: {"platform": None, "largest_difference": None, "accepted": None})


def facts_in(out):
    return json.loads((out / "export.json").read_text())


def network_images(trained, rows, seed=0):
    size = (trained.config.data.height, trained.config.data.width, 1)
    return np.random.default_rng(seed).integers(0, 256, (rows, *size), np.uint8)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_an_export_holds_its_files_and_their_hashes(exported, evaluated):
    assert sorted(path.name for path in exported.iterdir()) == sorted(folder.FILES)
    assert exported.stat().st_mode & 0o777 == 0o755
    told, trained = facts_in(exported), predict.load(evaluated)
    for part in ("program", "parameters"):
        content = (exported / told[part]["file"]).read_bytes()
        assert told[part]["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["program"]["platforms"] == ["cpu", "cuda", "tpu"] and told["program"]["batch"] is None
    assert told["program"]["check"]["platform"] == "cpu" and told["program"]["check"]["largest_difference"] <= 1e-5
    assert told["parameters"]["fingerprint"] == predict.fingerprint(trained)
    assert told["parameters"]["count"] == sum(leaf.size for leaf in jax.tree.leaves(trained.params))
    assert told["input"]["shape"] == ["b", 24, 32, 1] and told["grades"] == ["low", "middle", "high"]
    assert {name: about["shape"] for name, about in told["answers"].items()} == {
        "segmentation": ["b", 24, 32],
        "grading": ["b", 3],
        "malignancy": ["b"],
        "guidance": ["b", 13],
    }
    for file in folder.FILES:
        assert str(evaluated.parent).encode() not in (exported / file).read_bytes()
    assert "| dice | " in (exported / "model_card.md").read_text()
    assert (exported / "run.py").read_text().startswith('"""Run an exported model')


def test_the_parameters_are_the_runs_to_the_bit(exported, evaluated):
    tensors, digest = weight_files.read(exported / "parameters.safetensors")
    assert digest == facts_in(exported)["parameters"]["sha256"]
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(predict.load(evaluated).params))
    paths = {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}
    assert set(tensors) == set(paths) and {name.split("/")[0] for name in paths} == {"encoder", "decoder", "heads"}
    for name, leaf in paths.items():
        assert tensors[name].dtype == leaf.dtype and tensors[name].tobytes() == leaf.tobytes()


ALONE = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
class OnlyJaxAndNumpy:
    allowed = {"run", "jax", "jaxlib", "numpy", "flatbuffers", "ml_dtypes", "opt_einsum", "scipy"}
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        known = first in self.allowed | sys.stdlib_module_names or first.startswith("_sysconfigdata")
        return PathFinder.find_spec(name, path, target) if known else None
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyJaxAndNumpy()]
for package in ("thyroid_jax", "flax", "optax", "orbax", "PIL"):
    try:
        __import__(package)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{package} can be imported")
sys.path.insert(0, sys.argv[1])
import numpy as np
import run
given = np.load(sys.argv[2])
model = run.load()
found = {}
for rows in (1, 3):
    for name, values in model.call(model.parameters, given["images"][:rows]).items():
        found[f"{name} of {rows}"] = np.asarray(values)
for place, answers in enumerate(run.predict(model, [given["wide"], given["tall"]], spacings=[(0.1, 0.2), run.UNKNOWN])):
    found |= {f"{name} of image {place}": value for name, value in answers.items()}
np.savez(sys.argv[3], **found)
"""


def test_it_runs_without_this_package_at_any_batch_size(exported, evaluated, tmp_path):
    trained = predict.load(evaluated)
    images = network_images(trained, 3)
    rng = np.random.default_rng(1)
    wide, tall = rng.integers(0, 256, (24, 90), np.uint8), rng.integers(0, 256, (50, 32), np.uint8)
    np.savez(tmp_path / "given.npz", images=images, wide=wide, tall=tall)
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", ALONE, str(exported), str(tmp_path / "given.npz"), str(tmp_path / "found.npz")]
    environment = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = np.load(tmp_path / "found.npz")
    scaling = trained.recipe.fitted.scaling
    for rows in (1, 3):
        wanted = jax.device_get(predict.forward(trained.params, trained.recipe, images[:rows]))
        assert {name for name in found if name.endswith(f" of {rows}")} == {f"{name} of {rows}" for name in wanted}
        for name in ("segmentation", "grading", "malignancy"):
            np.testing.assert_allclose(found[f"{name} of {rows}"], wanted[name], atol=1e-5)
        guidance = wanted["guidance"] * scaling.spread + scaling.centre
        np.testing.assert_allclose(found[f"guidance of {rows}"], guidance, atol=1e-5 * scaling.spread.max())
    together = predict.predict(trained, [wide, tall], spacings=[(0.1, 0.2), run.UNKNOWN])
    for place, one in enumerate(together):
        np.testing.assert_allclose(found[f"segmentation of image {place}"], one.probability, atol=1e-5)
        np.testing.assert_allclose(found[f"grading of image {place}"], one.grades, atol=1e-5)
        assert found[f"malignancy of image {place}"] == pytest.approx(one.malignant, abs=1e-5)
        unscaled = apply.unscaled(one, trained).answers["guidance"]
        np.testing.assert_allclose(found[f"guidance of image {place}"], unscaled, atol=1e-5 * scaling.spread.max())


def test_a_folder_that_exists_is_replaced_on_demand_and_only_if_it_is_an_export(
    exported, copied, tmp_path, without_a_program
):
    out = shutil.copytree(exported, tmp_path / "out")
    before = facts_in(out)
    with pytest.raises(InputError, match="already there"):
        export.export_run(copied, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not an export alone \(there is notes.txt\)"):
        export.export_run(copied, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine" and facts_in(out) == before
    (out / "notes.txt").unlink()
    export.export_run(copied, out, overwrite=True, samples=10)
    assert facts_in(out)["training"]["run"] == "copied" and before["training"]["run"] == "run"
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(InputError, match="not an export alone"):
        export.export_run(copied, tmp_path / "link", overwrite=True)
    with pytest.raises(InputError, match="not an export alone"):
        export.export_run(copied, copied, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "link", "out"]


@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_fails_leaves_what_was_there(
    there, exported, evaluated, tmp_path, monkeypatch, without_a_program
):
    out = tmp_path / "out"
    if there:
        shutil.copytree(exported, out)

    def fail(*_):
        raise RuntimeError("differs")

    monkeypatch.setattr(folder, "check", fail)
    with pytest.raises(RuntimeError, match="differs"):
        export.export_run(evaluated, out, overwrite=there, samples=10)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])
    assert not there or facts_in(out) == facts_in(exported)


def test_a_program_of_another_run_is_refused(exported, evaluated):
    trained = predict.load(evaluated)
    assert folder.check(exported, trained)["largest_difference"] <= 1e-5
    (first, *_), layout = jax.tree.flatten(trained.params)
    other = jax.tree.unflatten(layout, [first + 1e-3, *jax.tree.leaves(trained.params)[1:]])
    with pytest.raises(RuntimeError, match="differs by"):
        folder.check(exported, trained._replace(params=other))


def test_a_program_for_other_platforms_is_written_and_not_run(exported, evaluated, tmp_path):
    out, told = shutil.copytree(exported, tmp_path / "out"), []
    about = facts_in(out)
    about["program"]["platforms"] = ["tpu"]
    (out / "export.json").write_text(json.dumps(about))
    found = folder.check(out, predict.load(evaluated), told.append)
    assert found == {"platform": None, "largest_difference": None, "accepted": None}
    assert told == ["the program was not run: it is not for cpu, and no other device is here"]


def test_the_script(evaluated, tmp_path, capsys, without_a_program):
    arguments = ["--run-dir", str(evaluated), "--out", str(tmp_path / "out"), "--samples", "10"]
    script.main(arguments)
    assert f"exported: {tmp_path / 'out'}" in capsys.readouterr().out
    for more, said in (
        ([], "already there"),
        (["--samples", "0"], "--samples 0"),
        (["--platforms", "cpu", "cpu"], "once"),
    ):
        with pytest.raises(SystemExit) as stop:
            script.main([*arguments, *more])
        assert stop.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--run-dir", str(tmp_path), "--out", str(tmp_path / "none")])
    assert "no such file" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_missing_package_is_named(evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(folder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="flatbuffers"):
        export.export_run(evaluated, tmp_path / "out")


def test_the_grades_of_a_data_set_with_one_grade_cannot_be_exported(evaluated, tmp_path):
    trained = predict.load(evaluated)
    with pytest.raises(InputError, match="has 1 grade and the network 3 outputs"):
        folder._check_grades(trained._replace(facts=trained.facts | {"grades": ["only"]}), evaluated)


def test_the_example_of_the_document_runs(exported, monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(exported)
    monkeypatch.delitem(sys.modules, "run", raising=False)
    names = {}
    exec(block, names)
    assert names["run"].__file__ == str(exported / "run.py")
    assert names["outline"].shape == (300, 400) and set(names["found"]) == set(facts_in(exported)["answers"])
    monkeypatch.delitem(sys.modules, "run")
