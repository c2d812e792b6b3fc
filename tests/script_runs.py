"""What tests of `experiments.predict` share: pictures, a run that outlines something, and what is written."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from experiments import predict as script
from thyroid_jax import predict

GRADES = ("low", "middle", "high")


def picture(shape, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < (min(shape) / 4) ** 2
    return np.clip(150 - 60 * inside + rng.normal(size=shape) * 8, 1, 255).astype(np.uint8)


def load(run_dir, **options):
    """A run, with an outline of about half of the pixels: a few steps of training leave it nearly empty."""
    trained = read_run(run_dir, **options)
    *_, last = sorted(name for name in trained.params["decoder"] if name.startswith("Conv"))
    trained.params["decoder"][last]["bias"] += 1.9
    return trained


read_run = predict.load


def run(out, *arguments):
    script.main([*map(str, arguments), "--out", str(out)])
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def about(out):
    return json.loads((out / "predictions.json").read_text())


def mask_of(out, name):
    with Image.open(out / "masks" / f"{name}.png") as mask:
        values = np.asarray(mask)
    assert set(np.unique(values)) <= {0, 255}
    return values > 0


def refused(capsys, out, *arguments):
    with pytest.raises(SystemExit) as stop:
        run(out, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err
