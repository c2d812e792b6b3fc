"""Usual mistakes of a new user: each ends in one line that says what to do, or in a warning where the run goes on."""

import errno
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import CARD, toys

from data_prep import __main__ as data_prep_main
from data_prep import phantom
from experiments import evaluate, export, external, predict, train
from thyroid_jax import command
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data.pipeline import Examples
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.losses import segmentation
from thyroid_jax.predict import ABOUT_RUN
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Fitted
from thyroid_jax.runs.folder import check_settings
from thyroid_jax.runs.start import Data, describe
from thyroid_jax.settings import to_dict
from thyroid_jax.train.validation import out_of_patience


def one_line(capsys, main, words):
    """The message of a script that ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script, more", [
    (evaluate, []), (export, ["--out", "exported"]), (predict, ["--out", "predicted", "picture.png"]),
    (external, ["--data.name", "toy"]),
], ids=["evaluate", "export", "predict", "external"])  # fmt: skip
def test_what_needs_a_run_says_how_to_make_one(script, more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").touch()
    if script is external:  # its data set is looked for first
        monkeypatch.setattr(external, "open_records", lambda *_: None)
    line = one_line(capsys, script.main, ["--run-dir", "nowhere", *more])
    assert "nowhere/config.json: no such file" in line
    assert line.endswith(f"train one there first: {command.spelled('train')} --run-dir nowhere")
    assert {path.name for path in tmp_path.iterdir()} == {"picture.png"}


def of_length(folder, epochs, done):
    """A run folder of so many planned epochs, of which some are done."""
    config = replace_groups(Config(), train={"epochs": epochs})
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_dict(config) | {ABOUT_RUN: {}}))
    (folder / "log.jsonl").write_text(
        "".join(f'{{"split": "train", "step": {n + 1}, "epoch": {n + 1}}}\n' for n in range(done))
    )
    return config


@pytest.mark.parametrize("done, offer", [
    (10, "--train.epochs 10 --train.start-from {run_dir} --run-dir {run_dir}-longer"),
    (4, "To go on from epoch 4, give --train.epochs 10; for 20, a new --run-dir."),
    (0, "To go on from epoch 0, give --train.epochs 10; for 20, a new --run-dir."),
])  # fmt: skip
def test_a_longer_run_in_the_same_folder_says_how_to_go_on(tmp_path, done, offer):
    config = of_length(tmp_path / "run", 10, done)
    check_settings(tmp_path / "run" / "config.json", config)
    longer = replace_groups(config, train={"epochs": 20})
    with pytest.raises(InputError) as caught:
        check_settings(tmp_path / "run" / "config.json", longer)
    text = str(caught.value)
    assert "train.epochs differ: 10 then, 20 now" in text and "\n" not in text
    assert text.endswith(offer.format(run_dir=tmp_path / "run"))
    spaced = tmp_path / "my run"
    of_length(spaced, 10, 10)
    with pytest.raises(InputError) as caught:
        check_settings(spaced / "config.json", longer)
    assert str(caught.value).endswith(f"--train.start-from '{spaced}' --run-dir '{spaced}-longer'")  # can be pasted
    both = replace_groups(longer, rlar={"weight": 3.0})
    with pytest.raises(InputError, match=r"rlar\.weight, train\.epochs differ. Give the same settings"):
        check_settings(tmp_path / "run" / "config.json", both)


def described(images, batch_size, shares=(), steps=45, **groups):
    config = replace_groups(replace_groups(Config(), train={"batch_size": batch_size}), **groups)
    cases = tuple(map(str, range(images)))
    examples = Examples(batch=None, cases=cases, shares=shares)
    recipe = recipe_of(config, fitted=Fitted.neutral(5, len(clinical.TARGET), total_steps=steps))
    return describe(recipe, Data(None, examples, examples), config).splitlines()[2:]


def test_a_batch_larger_than_the_data_is_a_warning():
    (line,) = described(20, 64)
    assert line.startswith("warning: train.batch_size 64 is more than the 20 images of an epoch")
    assert "44 rows of its batch are padding" in line and "--train.batch-size" in line
    assert described(20, 20) == [] and described(20, 8) == []
    (weighted,) = described(40, 16, shares=((30, 0.1), (10, 1.0)))  # an epoch draws 3 + 10
    assert "13 images of an epoch" in weighted


def test_a_run_of_one_step_is_a_warning():
    assert described(8, 8, steps=1) == [
        "warning: the run has one step, and the learning rate of a run's first step is 0: nothing is learned."
    ]
    assert described(8, 8, steps=2) == []


HEADS = {"pooling": "nodule", "pooled_levels": 3, "evidence": "measured"}
OUTLINE = {"grading": {"weight": 0.0}, "malignancy": {"weight": 0.0}}


def test_settings_that_change_nothing_in_a_run_are_warnings():
    """A comparison of two methods that differ in these alone would find them equal, for no reason but this."""
    (line,) = described(8, 8, model=HEADS, **OUTLINE)
    assert line.startswith("warning: only the outline is trained")
    assert line.endswith("without effect are model.pooling, model.pooled_levels, model.evidence.")
    assert described(8, 8, model=HEADS) == described(8, 8, **OUTLINE) == []
    for steps, warmup, ramp, effect in (
        (45, 0.99, 0.0, False), (45, 0.97, 0.0, True), (45, 0.97, 0.1, True), (46, 0.978, 0.0, True),
        (11, 0.5, 0.5, True), (5, 0.8, 0.0, True), (5, 0.8, 0.1, False),
    ):  # fmt: skip
        lines = described(8, 8, steps=steps, rlar={"weight": 1.0, "warmup": warmup, "ramp": ramp})
        assert len(lines) == (not effect), (steps, warmup, ramp, lines)
        assert effect or f"rlar is without effect: of {steps} steps, none is behind rlar.warmup" in lines[0]


@pytest.mark.parametrize("epochs, every, patience, effect", [
    (10, 2, 3, True), (10, 2, 4, False), (10, 2, 9, False), (9, 2, 3, True), (9, 2, 4, False), (1, 5, 1, False),
])  # fmt: skip
def test_a_patience_that_can_end_no_run_is_a_warning(epochs, every, patience, effect):
    """The first evaluation and ``patience`` more must all come before the last epoch."""
    train = {"epochs": epochs, "evaluate_every": every, "patience": patience}
    assert len(described(8, 8, train=train)) == (not effect)
    scores = [1.0] + [0.0] * (patience if effect else -(-epochs // every) - 2)
    rows = [{"split": "validation", "score": score} for score in scores]
    assert out_of_patience(rows, patience) == effect


def test_a_run_folder_that_cannot_be_made(tmp_path, monkeypatch, capsys, train_arguments):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        line = one_line(capsys, train.main, train_arguments(folder))
        assert str(folder) in line and line.endswith((" is there.", "Name a folder."))
    assert (tmp_path / "file").read_text() == "in the way"
    line = one_line(capsys, train.main, train_arguments(tmp_path / ("x" * 300)))
    assert line.endswith("File name too long. Choose a shorter name.")


@pytest.mark.parametrize("number, advice", [
    (errno.EACCES, "may write to"), (errno.EPERM, "may write to"), (errno.EROFS, "may write to"),
    (errno.ENAMETOOLONG, "shorter name"),
])  # fmt: skip
def test_a_folder_without_permission_ends_in_advice(number, advice, capsys):
    def refuse(_):
        raise OSError(number, "refused", "runs/a")

    line = one_line(capsys, exits_cleanly(refuse), ["x"])
    assert line.startswith("error: runs/a: refused. ") and advice in line


# --- losses -----------------------------------------------------------------------------------------------------------

LOSSES = [segmentation.bce, segmentation.soft_dice]


@pytest.mark.parametrize("loss", LOSSES)
def test_an_8_bit_mask_is_refused_by_a_loss(loss):
    logits, mask = jnp.zeros((2, 4, 4)), jnp.zeros((2, 4, 4)).at[1, 2, 2].set(255.0)
    with pytest.raises(ValueError, match=r"values from 0 to 255; a mask is in \[0, 1\]. Divide an 8-bit mask by 255"):
        loss(logits, mask)
    with pytest.raises(ValueError, match="from -1 to 0"):
        loss(logits, jnp.zeros_like(logits).at[0, 0, 0].set(-1.0))
    with pytest.raises(ValueError, match="8-bit"):
        jax.grad(lambda x: loss(x, mask).sum())(logits)
    assert np.isfinite(loss(logits, mask / 255)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_that_does_not_count_may_hold_anything(loss):
    logits, mask = jnp.zeros((2, 4, 4)), jnp.zeros((2, 4, 4)).at[1].set(255.0)
    assert loss(logits, mask, where=jnp.array([True, False]))[1] == 0
    with pytest.raises(ValueError, match="8-bit"):
        loss(logits, mask, where=jnp.array([False, True]))


@pytest.mark.parametrize("loss", LOSSES)
def test_traced_masks_pass_and_nan_stays_visible(loss):
    logits, mask = jnp.zeros((2, 4, 4)), jnp.full((2, 4, 4), 255.0)
    assert jax.jit(loss)(logits, mask).shape == (2,)
    single = lambda x, m: loss(x[None], m[None])[0]
    assert jax.vmap(single)(logits, mask).shape == (2,)
    assert np.isnan(loss(logits, mask.at[:].set(jnp.nan))).all()
    assert loss(jnp.zeros((0, 4, 4)), jnp.zeros((0, 4, 4))).shape == (0,)


# --- data -------------------------------------------------------------------------------------------------------------


def built(tmp_path, monkeypatch, capsys, count):
    """What is printed at the end of a build of ``count`` pictures."""
    monkeypatch.setattr(phantom, "CARD", CARD)
    monkeypatch.setattr(phantom, "read", lambda options, notes: toys(options.count))
    data_prep_main.main(["build", "phantom", "--out", str(tmp_path / str(count)), "--count", str(count)])
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("too small")]


def test_a_set_too_small_to_split_is_said_at_build(tmp_path, monkeypatch, capsys):
    (few,) = built(tmp_path, monkeypatch, capsys, 4)
    assert "folds: 5, but there are only" in few
    assert built(tmp_path, monkeypatch, capsys, 24) == []


def test_the_folds_of_a_build_are_those_of_a_run():
    assert Config().data.folds == data_prep_main.FOLDS
