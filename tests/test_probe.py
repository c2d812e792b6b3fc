"""The probe's pictures are of what they say: the plane's slopes are the directions' lengths; a diagnosed run can be
drawn.
"""

import json
import re
import shutil

import numpy as np
import pytest
from helpers import params_of
from PIL import Image

from experiments import probe, train
from thyroid_jax import runs
from thyroid_jax.data.pipeline import load, take
from thyroid_jax.errors import InputError
from thyroid_jax.losses import rlar
from thyroid_jax.train.diagnose import BINS, directions_of


@pytest.mark.parametrize("space", ["channel", "full"])
def test_slopes_at_the_latent_are_the_gradients(space, tiny_recipe, make_batch):
    """Along its own direction a loss climbs by |g| a unit, along the other's by the share that their cosine says."""
    recipe, batch = probe.two_tasks(tiny_recipe(rlar={"weight": 1.0})), make_batch(b=1)
    params = params_of(recipe)
    directions = directions_of(params, batch, recipe, space=space)
    found = probe.landscape(params, batch, recipe, space=space, reach=0.002, points=3)
    assert found.cosine == pytest.approx(float(rlar.cosines(directions.unit)[0, 0]), abs=1e-5)
    for task, name in enumerate(probe.COLOURS):
        loss, norm = found.losses[name], float(directions.norm[task, 0])
        assert loss.shape == (3, 3)
        assert loss[1, 1] == pytest.approx(float(directions.loss[task, 0]), rel=1e-5)
        slope_x = (loss[1, 2] - loss[1, 0]) / (2 * 0.002 * found.length)
        slope_y = (loss[2, 1] - loss[0, 1]) / (2 * 0.002 * found.length)
        along = (1.0, 0.0) if name == "segmentation" else (found.cosine, np.sqrt(1 - found.cosine**2))
        np.testing.assert_allclose([slope_x, slope_y], [norm * along[0], norm * along[1]], rtol=0.05, atol=0.02 * norm)


def test_two_tasks_are_left_without_a_penalty(tiny_recipe):
    recipe = probe.two_tasks(tiny_recipe(rlar={"weight": 1.0, "tasks": ("grading", "malignancy")}))
    assert [task.name for task in recipe.tasks] == ["segmentation", "grading"] == list(recipe.settings["rlar"].tasks)
    assert recipe.penalties == ()
    held = {"weight": 1.0, "tasks": ("grading", "malignancy"), "hold": ("malignancy",)}
    assert probe.two_tasks(tiny_recipe(rlar=held)).settings["rlar"].hold == ()


@pytest.fixture(scope="module")
def diagnosed(train_arguments, tmp_path_factory):
    """A run with what an ordinary one has not: a method with a random state beside RLAR, and diagnoses."""
    run_dir = tmp_path_factory.mktemp("runs") / "diagnosed"
    more = "--config tiny plain --rlar.weight 0.1 --mtl.method rlw --train.diagnose-every 2"
    train.main(train_arguments(run_dir, *more.split(), "--train.epochs", "2", "--train.batch-size", "8"))
    return run_dir


@pytest.fixture
def undiagnosed(diagnosed, tmp_path):
    """A copy of that run without the diagnoses."""
    run_dir = tmp_path / "run"
    shutil.copytree(diagnosed, run_dir, ignore=shutil.ignore_patterns("report"))
    lines = (diagnosed / "log.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "log.jsonl").write_text("".join(line for line in lines if '"diagnosis"' not in line))
    return run_dir


def test_diagnoses_are_logged_once_an_epoch(diagnosed):
    log = [json.loads(line) for line in (diagnosed / "log.jsonl").read_text().splitlines()]
    found = [row for row in log if row["split"] == "diagnosis"]
    assert [row["epoch"] for row in found] == [1, 2]
    for row in found:
        for place in ("stride2_channel", "latent_channel", "latent_full"):
            assert len(row[f"cosine_histogram_{place}"]) == BINS
            assert sum(row[f"cosine_histogram_{place}"]) == pytest.approx(1)
    trained = [row for row in log if row["split"] == "train"]
    weights = np.array(
        [[row[f"weight_{name}"] for name in ("segmentation", "grading", "malignancy")] for row in trained]
    )
    np.testing.assert_allclose(weights.sum(1), 3, rtol=1e-4)
    assert np.ptp(weights) > 0.01 and all("rlar" in row for row in trained)


def test_a_diagnosed_run_is_drawn_at_the_most_aligned_image(diagnosed, capsys):
    probe.main(["--run-dir", str(diagnosed), "--points", "5"])
    printed = capsys.readouterr().out
    for name in ("landscape.png", "angles.png"):
        picture = np.asarray(Image.open(diagnosed / "report" / name).convert("L"))
        assert min(picture.shape) > 300
        assert picture.std() > 10  # something is drawn
    trained, parts = runs.open_finished(diagnosed)
    labelled = [record for record in parts.test if record.mask is not None and record.grade is not None]
    loaded, recipe = load(labelled, 3, (24, 32)), probe.two_tasks(trained.recipe)
    unit = directions_of(trained.params, take(loaded, range(len(labelled)), len(labelled)), recipe).unit
    cosine = np.asarray(rlar.cosines(unit)[0])
    case, shown = re.search(r"^(\S+): cosine (\S+) between the directions in channel space", printed).groups()
    assert case == labelled[int(cosine.argmax())].case
    assert float(shown) == pytest.approx(cosine.max(), abs=0.006)


def test_a_run_without_diagnoses_has_its_landscape_alone(undiagnosed, capsys):
    case = json.loads((undiagnosed / "split.json").read_text())["test"][0]
    probe.main(["--run-dir", str(undiagnosed), "--points", "3", "--case", case, "--space", "full"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{case}: cosine ") and "in full space" in printed
    assert "train with --train.diagnose-every" in printed
    assert sorted(path.name for path in (undiagnosed / "report").iterdir()) == ["landscape.png"]


def test_what_cannot_be_drawn_is_named(diagnosed, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        probe.main(["--run-dir", str(diagnosed), "--case", "nobody"])
    assert "'nobody' is no image of the test part with outline and grade; those are " in capsys.readouterr().err
    finished = runs.open_finished(diagnosed)
    with pytest.raises(InputError, match="no image of the test part has both"):
        probe.choose(finished.trained, finished.trained.recipe, [], probe.Arguments(run_dir=diagnosed))
    recipe = finished.trained.recipe
    alone = recipe.replace(tasks=tuple(task for task in recipe.tasks if task.name != "grading"))
    without = finished._replace(trained=finished.trained._replace(recipe=alone))
    monkeypatch.setattr(runs, "open_finished", lambda *_: without)
    with pytest.raises(SystemExit):
        probe.main(["--run-dir", str(diagnosed)])
    assert "did not train both tasks" in capsys.readouterr().err
