"""The study's book-keeping: shares of the penalty as weighted, differences on the same fold, folders of one kind of run."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import rlar_study as study
from thyroid_jax import model
from thyroid_jax.config import Config, DataConfig, GuidanceConfig, ModelConfig, RLARConfig
from thyroid_jax.errors import InputError


def row(variant, fold, dice):
    values = {key: 0.1 for _, key in study.COLUMNS} | {"quadratic_kappa": 0.2, "macro_auroc": 0.6}
    lists = {
        "layer_cosine": [0.1, -0.1],
        "layer_cosine_size": [0.3, 0.2],
        "case_cosine": [0.4, 0.0],
        "case_grade_loss": [1.0, 2.0],
    }
    quarters = {key: [0.1, 0.2, 0.3, 0.4] for key in ("quarter_cosine", "quarter_cosine_size", "quarter_unit_share")}
    return {"variant": variant, "fold": fold, "dice": dice, "case_dice": [0.5, 0.9]} | values | lists | quarters


ROWS = [row("plain", 0, 0.60), row("plain", 1, 0.70), row("hinge 1", 0, 0.62), row("hinge 1", 1, 0.71)]


def test_the_penaltys_share_is_the_one_it_was_trained_with(tmp_path):
    entries = [
        {"split": "diagnosis", "step": n, "penalty_share_channel": 0.01 * n, "penalty_share_full": 0.5}
        for n in range(1, 8)
    ]
    entries.append({"split": "diagnosis", "step": 8, "penalty_share_channel": None})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert study.penalty_share(tmp_path, RLARConfig(weight=10.0)) == pytest.approx(
        10 * 0.05
    )  # mean of the last five, 0.03 to 0.07
    assert study.penalty_share(tmp_path, RLARConfig(weight=2.0, space="full")) == pytest.approx(1.0)
    assert study.penalty_share(tmp_path, RLARConfig(weight=0.25, scale="relative")) == 0.25


def test_differences_are_to_plain_training_on_the_same_fold(capsys):
    study.print_table(ROWS)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("| hinge 1")]
    assert "0.665 (+0.015, +0.010 to +0.020)" in line
    assert "encoder level 0: mean s +0.100, mean |s| 0.300" in printed
    assert "s above 0.3: 50.0 % of 4 images" in printed


def test_the_picture_is_drawn():
    picture = np.asarray(Image.open(io.BytesIO(study.draw(ROWS))).convert("L"))
    assert min(picture.shape) > 100 and picture.std() > 5


def test_runs_made_otherwise_are_not_mixed_in(tmp_path):
    arguments = study.Arguments(out=tmp_path, data=DataConfig(name="drawn", height=16, width=16), epochs=2)
    study.claim(arguments)
    study.claim(arguments)
    with pytest.raises(InputError, match=r"study\.json.*choose another --out"):
        study.claim(study.Arguments(out=tmp_path, data=DataConfig(name="drawn", height=16, width=16), epochs=3))


def test_every_variant_is_a_config_and_another_name_is_refused(tmp_path, capsys):
    arguments = study.Arguments(out=tmp_path)
    configs = [study.configure(name, 2, arguments) for name in study.variants()]
    assert len(set(configs)) == len(configs)
    assert {(config.data.fold, config.train.seed) for config in configs} == {(2, 2)}
    assert configs[0].rlar.weight == 0
    with pytest.raises(SystemExit):
        study.main(["--out", str(tmp_path), "--only", "hinge 7"])
    assert "'hinge 7' is no variant" in capsys.readouterr().err


def test_a_levels_cosine_is_that_of_finite_differences(make_batch, x64):
    """An offset at a level's second normalisation, pushed by hand."""
    config = Config(model=ModelConfig.preset("tiny"), rlar=RLARConfig(weight=0.0), guidance=GuidanceConfig(weight=0.0))
    params = jax.tree.map(lambda p: p.astype("float64"), model.init(jax.random.key(0), config.model))
    batch = jax.tree.map(lambda a: a.astype("float64") if a.dtype == np.float32 else a, make_batch(b=1))
    found = study._layer_cosines(params, batch, config)

    @jax.jit
    def losses(offset):
        block = params["encoder"]["ResidualBlock_1"]
        normal = block["Normalize_1"]
        block = block | {"Normalize_1": normal | {"bias": normal["bias"] + offset}}
        changed = params | {"encoder": params["encoder"] | {"ResidualBlock_1": block}}
        z, skips = model.encode(changed, config.model, batch.image)
        tasks = study.task_losses(changed, skips, batch, config)
        return [tasks[name](z)[0] for name in ("segmentation", "grading")]

    size = params["encoder"]["ResidualBlock_1"]["Normalize_1"]["bias"].size
    steps = 1e-5 * np.eye(size)
    slopes = np.array([(np.array(losses(step)) - np.array(losses(-step))) / 2e-5 for step in steps]).T
    expected = slopes[0] @ slopes[1] / np.linalg.norm(slopes[0]) / np.linalg.norm(slopes[1])
    assert float(found[1, 0]) == pytest.approx(expected, rel=1e-4)
