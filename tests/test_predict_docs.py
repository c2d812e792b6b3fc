"""The page on predictions names every column, check and option as they are in the program, and its example runs."""

import dataclasses
import re
from pathlib import Path

import numpy as np
from predicted_runs import fresh_run

from experiments import predict as script
from thyroid_jax import predict
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs import outputs, prediction_table, quality

TEXT = (Path(__file__).parent.parent / "docs" / "predict.md").read_text()


def rows_after(heading):
    """First cell -> second cell of the first table after a heading."""
    table = TEXT.split(f"# {heading}\n", 1)[1].split("\n|---", 1)[1].split("\n\n", 1)[0]
    return dict(tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()[1:])


def test_quality_checks_are_written_as_they_are():
    assert rows_after("Quality checks") == quality.CHECKS


def test_every_column_is_described(tiny_recipe):
    named = set(re.findall(r"`([\w<>]+)`", " ".join(rows_after("Columns"))))
    run = fresh_run(tiny_recipe(guidance={"weight": 0.1}))
    there = prediction_table.describe(run, 2, ood=True)
    shown = {re.sub(r"^guidance_.*", "guidance_<name>", re.sub(r"^p_\d$", "p_<grade>", name)) for name in there}
    assert named == shown


def test_every_guidance_value_stands_at_its_axis():
    axes = {name: axis for axis, names in rows_after("Guidance values").items() for name in re.findall(r"\w+", names)}
    assert set(axes) == set(clinical.TARGET)
    assert all(axes[name].endswith(axis) for name, (axis, _) in prediction_table.AXES.items())


def test_options_and_files_exist():
    fields = {field.name for field in dataclasses.fields(script.Arguments)}
    options = {option.replace("-", "_") for option in re.findall(r"--([a-z][a-z-]+)", TEXT)}
    assert {option.removeprefix("no_") for option in options} <= fields
    files = {outputs.TABLE, outputs.ABOUT, outputs.PAGE, f"{outputs.MASKS}/NAME.png", f"{outputs.OVERLAYS}/NAME.png"}
    assert {f"`{file}`" for file in files | {f"{outputs.SEGMENTATIONS}/NAME.dcm"}} == set(rows_after("What is written"))


def test_the_example_runs(tiny_recipe, monkeypatch):
    run = fresh_run(tiny_recipe())
    monkeypatch.setattr(predict, "load", lambda place: run if place == "runs/mine" else None)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {"images": [np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)], "spacings": [(0.1, 0.1)]}
    exec(block, names)
    assert names["found"].probability.shape == (40, 60) and names["found"].grades.shape == (5,)
