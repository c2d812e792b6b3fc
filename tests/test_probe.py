"""The probe's pictures are of what they say: the plane's slopes are the directions' lengths; a diagnosed run can be
drawn.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import probe
from thyroid_jax import model
from thyroid_jax.config import Config, GuidanceConfig, ModelConfig, RLARConfig
from thyroid_jax.errors import InputError
from thyroid_jax.predict import load_run
from thyroid_jax.train.diagnose import BINS

CONFIG = Config(model=ModelConfig.preset("tiny"), rlar=RLARConfig(weight=0.0), guidance=GuidanceConfig(weight=0.0))


@pytest.mark.parametrize("space", ["channel", "full"])
def test_slopes_at_the_latent_are_the_gradients(space, make_batch):
    """Along its own direction a loss climbs by |g| a unit, along the other's by the share that their cosine says."""
    params, batch = model.init(jax.random.key(0), CONFIG.model), make_batch(b=1)
    directions = probe.probe(params, batch, CONFIG, space)
    found = probe.landscape(params, batch, CONFIG, space=space, reach=0.002, points=3)
    for task, name in enumerate(probe.COLOURS):
        loss, norm = found.losses[name], float(directions.norm[task, 0])
        assert loss[1, 1] == pytest.approx(float(directions.loss[task, 0]), rel=1e-5)
        slope_x = (loss[1, 2] - loss[1, 0]) / (2 * 0.002 * found.length)
        slope_y = (loss[2, 1] - loss[0, 1]) / (2 * 0.002 * found.length)
        along = (1.0, 0.0) if name == "segmentation" else (found.cosine, np.sqrt(1 - found.cosine**2))
        np.testing.assert_allclose([slope_x, slope_y], [norm * along[0], norm * along[1]], rtol=0.05, atol=0.02 * norm)


@pytest.fixture(scope="module")
def diagnosed(train, tmp_path_factory):
    """A run with everything on that an ordinary one has not: a method with a random state, RLAR every second step,
    diagnoses.
    """
    run_dir = tmp_path_factory.mktemp("runs") / "diagnosed"
    result = train(run_dir, "--mtl.method", "rlw", "--rlar.every", "2", "--train.diagnose-every", "2")
    assert result.returncode == 0, result.stderr
    return run_dir


def test_diagnoses_are_logged_once_an_epoch(diagnosed):
    log = [json.loads(line) for line in (diagnosed / "log.jsonl").read_text().splitlines()]
    found = [row for row in log if row["split"] == "diagnosis"]
    assert [row["epoch"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert all(len(row["cosine_histogram_full"]) == BINS for row in found)
    trained = [row for row in log if row["split"] == "train"]
    weights = np.array([[row[f"weight_{name}"] for name in ("segmentation", "grading", "guidance")] for row in trained])
    np.testing.assert_allclose(weights.sum(1), 3, rtol=1e-4)
    assert all("rlar" in row for row in trained)


def test_a_diagnosed_run_is_drawn(diagnosed, capsys):
    probe.main(["--run-dir", str(diagnosed), "--points", "5"])
    printed = capsys.readouterr().out
    assert "cosine" in printed
    for name in ("landscape.png", "angles.png"):
        picture = np.asarray(Image.open(diagnosed / "report" / name).convert("L"))
        assert min(picture.shape) > 300
        assert picture.std() > 10  # something is drawn


def test_a_run_without_diagnoses_has_its_landscape_alone(finished, capsys):
    probe.main(["--run-dir", str(finished), "--points", "3", "--case", load_case(finished)])
    assert "train with --train.diagnose-every" in capsys.readouterr().out
    assert not (finished / "report" / "angles.png").exists()
    (finished / "report" / "landscape.png").unlink()
    (finished / "report").rmdir()


def load_case(run_dir):
    return json.loads((run_dir / "split.json").read_text())["test"][0]


def test_what_cannot_be_drawn_is_named(finished, monkeypatch):
    with pytest.raises(SystemExit):
        probe.main(["--run-dir", str(finished), "--case", "nobody"])
    run = load_run(finished)
    alone = dataclasses.replace(
        run.config, rlar=RLARConfig(weight=0.0), grading=dataclasses.replace(run.config.grading, weight=0.0)
    )
    monkeypatch.setattr(probe, "open_finished", lambda *_: (run._replace(config=alone), None))
    with pytest.raises(SystemExit):
        probe.main(["--run-dir", str(finished)])
    with pytest.raises(InputError, match="no image of the test part"):
        probe.choose(run, run.config, [], probe.Arguments(run_dir=finished))
