"""The pages for those who extend and install the library.

docs/extend.md: its code runs from top to bottom, and each new part takes part in training, building or the model. The
lists of docs/install.md, CONTRIBUTING.md and CITATION.cff are those of the project.
"""

import contextlib
import dataclasses
import importlib.util
import io
import re
import sys
import tomllib
import types
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image

from data_prep import readers
from data_prep.__main__ import main as data_prep
from experiments import configs
from thyroid_jax import model
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError
from thyroid_jax.losses import segmentation
from thyroid_jax.train import init_state, objective, train_step
from thyroid_jax.train.step import in_unit_range

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extend.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
READER = next(block for block in BLOCKS if block.startswith('"""'))


@pytest.fixture(scope="module")
def page():
    """The names that the page's code defines, without the reader, which is a file; ``printed`` is what it prints."""
    names, printed = {"__name__": "extend"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in BLOCKS:
            if block is not READER:
                exec(compile(block, "docs/extend.md", "exec"), names)
    yield types.SimpleNamespace(**names, printed=printed.getvalue())
    model.ENCODERS.pop("strided")


def test_the_page_prints_a_line_for_each_part_that_it_tries(page):
    loss, penalty, encoder = page.printed.splitlines()
    assert re.fullmatch(r"mean Tversky loss of 3 images with an outline: 0\.\d{3}", loss)
    assert re.fullmatch(r"mean total variation of 4 images: 0\.\d{4}", penalty)
    assert encoder == "('stride2', 'stride4', 'latent') (4, 16, 24) (4, 5)"


# --- a loss -----------------------------------------------------------------------------------------------------------


def test_the_loss_is_its_formula_and_soft_dice_where_both_faults_cost_the_same(page):
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=(3, 5, 7)).astype(np.float32), rng.random((3, 5, 7)).round().astype(np.float32)
    found = page.tversky(logits, mask, alpha=0.2, beta=0.9, smooth=2.0)
    for row in range(3):
        hit = extra = missed = 0.0
        for x, m in zip(logits[row].ravel().tolist(), mask[row].ravel().tolist()):
            p = 1 / (1 + np.exp(-x))
            hit, extra, missed = hit + p * m, extra + p * (1 - m), missed + (1 - p) * m
        assert float(found[row]) == pytest.approx(1 - (hit + 2) / (hit + 0.2 * extra + 0.9 * missed + 2), rel=1e-5)
    even = page.tversky(logits, mask, alpha=0.5, beta=0.5, smooth=1.0)
    np.testing.assert_allclose(even, segmentation.soft_dice(logits, mask, smooth=2.0), rtol=1e-5)


def test_a_missed_pixel_costs_more_than_an_extra_one(page):
    mask = np.zeros((1, 4, 4), np.float32)
    mask[:, :2] = 1
    places = np.arange(16).reshape(1, 4, 4)  # the first 8 are the nodule
    fewer, more = (np.where(places < count, 20.0, -20.0) for count in (6, 10))
    assert float(page.tversky(fewer, mask)[0]) > float(page.tversky(more, mask)[0]) > 0.01


def test_a_row_without_label_has_no_loss_and_no_gradient_whatever_it_holds(page):
    logits, mask = jnp.array([[[np.nan]], [[1.0]]]), jnp.array([[[np.nan]], [[1.0]]])
    where = jnp.array([False, True])
    value, slope = jax.value_and_grad(lambda x: page.tversky(x, mask, where=where).sum())(logits)
    assert np.isfinite(value) and slope[0, 0, 0] == 0 and slope[1, 0, 0] < 0


def test_the_objective_and_its_gradient_are_those_of_the_new_loss(page):
    """Computed by hand from the model alone; the last image has no outline and does not count."""
    batch, recipe = in_unit_range(jax.tree.map(jnp.asarray, page.batch)), page.uneven
    params = init_state(recipe, jax.random.key(1)).params

    @partial(jax.jit, static_argnums=0)
    def by_hand(loss, params):
        logits = model.decode(params, recipe.model, model.encode(params, recipe.model, batch.image[:3]))
        return loss(logits, batch.mask[:3]).mean()

    of_objective = jax.jit(jax.value_and_grad(lambda params: objective(params, batch, recipe), has_aux=True))
    (value, metrics), gradient = of_objective(params)
    expected, slope = jax.value_and_grad(partial(by_hand, page.tversky))(params)
    assert float(value) == pytest.approx(float(expected), rel=1e-5) and float(metrics["loss_segmentation"].count) == 3
    assert float(expected) != pytest.approx(float(by_hand(segmentation.soft_dice, params)), rel=1e-2)
    for part in ("encoder", "decoder"):
        chex.assert_trees_all_close(gradient[part], slope[part], rtol=1e-3, atol=1e-6)


# --- a penalty --------------------------------------------------------------------------------------------------------


def test_the_penalty_is_a_mean_over_the_images_of_the_batch_times_its_weight(page):
    batch, recipe = in_unit_range(jax.tree.map(jnp.asarray, page.batch)), page.smooth
    batch = batch._replace(example_valid=jnp.array([True, True, True, False]))  # the last row pads the batch
    params = init_state(page.uneven, jax.random.key(1)).params
    compiled = jax.jit(objective)
    value, metrics = compiled(params, batch, recipe)
    logits = model.decode(params, recipe.model, model.encode(params, recipe.model, batch.image))
    shown = 1 / (1 + np.exp(-np.asarray(logits[:3], np.float64)))
    variation = [(np.abs(np.diff(p, axis=0)).sum() + np.abs(np.diff(p, axis=1)).sum()) / p.size for p in shown]
    total, count = metrics["smoothness"]
    assert float(count) == 3 and float(total) == pytest.approx(sum(variation), rel=1e-4)
    assert float(metrics["mask_share"].sum) == pytest.approx(shown.mean((1, 2)).sum(), rel=1e-4)
    of_weight = lambda weight: float(compiled(params, batch, recipe.with_settings("smoothness", weight=weight))[0])
    alone = of_weight(0.0)
    assert float(value) - alone == pytest.approx(0.5 * np.mean(variation), rel=1e-3)
    assert of_weight(1.5) - alone == pytest.approx(1.5 * np.mean(variation), rel=1e-3)
    assert compiled._cache_size() == 1  # the weight is a number that is traced


def test_training_with_the_penalty_gives_smoother_masks(page):
    def trained(weight):
        recipe, state = (
            page.smooth.with_settings("smoothness", weight=weight),
            init_state(page.uneven, jax.random.key(2)),
        )
        for _ in range(30):
            state, metrics = train_step(state, page.batch, recipe)
        return float(metrics["smoothness"].sum / metrics["smoothness"].count)

    assert trained(20.0) < 0.5 * trained(0.0)


def test_illegal_numbers_of_the_group_are_refused(page):
    with pytest.raises(InputError, match=r"smoothness\.weight is -1"):
        page.SmoothnessConfig(weight=-1.0)


def test_in_the_library_the_two_lines_of_the_page_make_it_an_option_and_a_term(page, tmp_path, monkeypatch):
    """A copy of penalties.py with the page's code and lines, and config.py on top of it, as a user would edit them."""
    entry, group = (line.strip() for line in re.findall(r"^    (?:Penalty\(|smoothness: ).*$", PAGE, re.MULTILINE))
    block = next(block for block in BLOCKS if "class SmoothnessConfig" in block)
    code = block[block.index("@settings") : block.index("smooth = ")]
    text = (ROOT / "thyroid_jax" / "penalties.py").read_text()
    text = text.replace(
        "@dataclass(frozen=True)\nclass PenaltySettings", code + "@dataclass(frozen=True)\nclass PenaltySettings"
    )
    last = "    cosreg: CosRegConfig = field(default_factory=CosRegConfig)\n"
    text = text.replace(last, f"{last}    {group}\n")
    last = 'Penalty("cosreg", parameter_alignment),\n'
    text = text.replace(last, f"{last}    {entry}\n")
    monkeypatch.setitem(
        sys.modules, "thyroid_jax.penalties", module_of(tmp_path / "edited_penalties.py", text, monkeypatch)
    )
    text = (ROOT / "thyroid_jax" / "config.py").read_text()
    edited = module_of(tmp_path / "edited_config.py", text, monkeypatch)

    monkeypatch.setattr(configs, "Config", edited.Config)
    monkeypatch.setattr(configs, "replace_groups", edited.replace_groups)
    words = [
        "--config",
        "tiny",
        "plain",
        "--smoothness.weight",
        "0.5",
        "--smoothness.ramp",
        "0.2",
        "--train.accumulate",
        "2",
    ]
    config = configs.parse(edited.Config, words, prog="train")
    assert (config.smoothness.weight, config.smoothness.ramp, config.rlar.weight) == (0.5, 0.2, 0.0)
    recipe = edited.recipe_of(config)
    assert [penalty.name for penalty in recipe.penalties] == ["smoothness"]
    assert not edited.recipe_of(dataclasses.replace(config, smoothness=page.SmoothnessConfig())).penalties
    params = jax.eval_shape(partial(model.init, config=recipe.model), jax.random.key(0))
    _, metrics = jax.eval_shape(objective, params, in_unit_range(jax.tree.map(jnp.asarray, page.batch)), recipe)
    assert {"smoothness", "mask_share", "loss_segmentation"} <= set(metrics)


def module_of(path, text, monkeypatch):
    """The module of a file with this text, known by its name for the length of a test."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, made)
    spec.loader.exec_module(made)
    return made


# --- a data set -------------------------------------------------------------------------------------------------------


@pytest.fixture
def clinic(tmp_path, monkeypatch):
    """The reader as a file among the readers, and a small download: clinic(diagnoses) -> the download's folder."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "clinic.py").write_text(READER)
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path / "code")])
    source, rng = tmp_path / "download", np.random.default_rng(0)

    def made(diagnoses):
        for number, patient in enumerate(diagnoses):
            (source / patient / "masks").mkdir(parents=True)
            for name in ("left", "right")[: 1 + number % 2]:
                Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8)).save(source / patient / f"{name}.png")
                if name == "left":
                    inside = np.pad(np.full((6, 8), 255, np.uint8), ((7, 7), (11, 11)))
                    Image.fromarray(inside).save(source / patient / "masks" / f"{name}.png")
        lines = [f"{patient},{diagnosis}" for patient, diagnosis in diagnoses.items()]
        (source / "diagnoses.csv").write_text("\n".join(["patient,diagnosis", *lines]))
        return source

    yield made
    sys.modules.pop("data_prep.readers.clinic", None)
    vars(readers).pop("clinic", None)


def built(source, out):
    data_prep(["build", "clinic", "--source", str(source), "--out", str(out)])


def test_the_reader_builds_a_data_set_that_is_opened_with_its_labels(clinic, tmp_path, capsys):
    built(clinic({"p1": "benign", "p2": "malignant", "p3": "", "p4": "benign"}), tmp_path / "data")
    assert "clinic" in readers.names() and "built: " in capsys.readouterr().out
    card, records = open_records(tmp_path / "data", "clinic")
    assert card.grouping == "patient" and card.grades == ()
    found = {
        record.case: (record.group, record.malignant, record.mask is not None, record.source) for record in records
    }
    assert found == {
        "p1_left": ("p1", False, True, "p1/left.png"),
        "p2_left": ("p2", True, True, "p2/left.png"),
        "p2_right": ("p2", True, False, "p2/right.png"),
        "p3_left": ("p3", None, True, "p3/left.png"),
        "p4_left": ("p4", False, True, "p4/left.png"),
        "p4_right": ("p4", False, False, "p4/right.png"),
    }
    assert records[0].mask.sum() == 48 and records[0].image.shape == (20, 30)
    data_prep(["check", "clinic", "--data", str(tmp_path / "data")])
    assert "Our clinic" in capsys.readouterr().out


def test_all_faults_of_the_download_are_named_at_once_and_nothing_is_written(clinic, tmp_path, capsys):
    source = clinic({"p1": "benign", "p2": "suspicious", "p3": "malignant"})
    (source / "p1" / "left.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(source / "p3" / "masks" / "left.png")
    with pytest.raises(SystemExit) as stop:
        built(source, tmp_path / "data")
    assert stop.value.code == 2 and not (tmp_path / "data" / "clinic").exists()
    said = capsys.readouterr().err
    assert "p1/left.png: picture: not a whole PNG file" in said
    assert "p2/left.png: diagnosis: 'suspicious' is not one of benign, malignant" in said
    assert "p2/right.png: diagnosis: 'suspicious'" in said
    assert "p3/left.png: mask is empty" in said


# --- an encoder -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["half resolution first", "full resolution first"])
def strided(request, page):
    """A small encoder of the page's kind: (params, config)."""
    config = model.ModelConfig(encoder="strided", width=2, depth=2, groups=2, full_resolution=request.param)
    encoder = jax.jit(page.Strided(config).init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"]
    return {"encoder": encoder}, config


def test_the_levels_have_the_strides_that_the_encoder_names_and_agree_with_the_tail(strided, page):
    params, config = strided
    image = in_unit_range(jax.tree.map(jnp.asarray, page.batch)).image
    latent = jax.jit(model.encode, static_argnums=1)(params, config, image)
    names = model.level_names(config)
    assert names == (("stride1",) if config.full_resolution else ()) + ("stride2", "latent")
    strides = [int(name.removeprefix("stride")) for name in names[:-1]] + [4]
    levels = (*latent.skips, latent.z)
    assert [level.shape[1:3] for level in levels] == [(16 // stride, 24 // stride) for stride in strides]
    assert [level.shape[3] for level in levels] == [2 * 2**place for place in range(len(levels))]
    for name in names[:-1]:
        features = model.features_at(config, latent, name)
        again = jax.jit(model.encode_from, static_argnums=(1, 3))(params, config, latent, name, features)
        chex.assert_trees_all_close(again, latent, rtol=1e-4, atol=1e-5)
        moved = jax.jit(model.encode_from, static_argnums=(1, 3))(params, config, latent, name, 2 * features + 1)
        assert float(jnp.abs(moved.z - latent.z).max()) > 1e-3
    assert set(model.encoder_levels(config).values()) == set(range(len(names)))


def test_every_parameter_of_the_encoder_has_a_gradient(strided, page):
    params, config = strided
    image = in_unit_range(jax.tree.map(jnp.asarray, page.batch)).image

    @jax.jit
    @jax.grad
    def gradient(params):
        latent = model.encode(params, config, image)
        return sum((level**2).mean() for level in (*latent.skips, latent.z))

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert bool(jnp.isfinite(leaf).all()) and float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_the_tasks_have_adversarial_directions_at_the_first_level_of_the_encoder(page):
    recipe = recipe_of(replace_groups(Config(), rlar={"weight": 0.1, "kind": "square", "level": "stride2"}))
    recipe = recipe.replace(model=page.config, tasks=recipe.tasks[:2])
    batch = in_unit_range(jax.tree.map(jnp.asarray, page.batch))
    _, metrics = jax.jit(objective)(page.params, batch, recipe)
    assert float(metrics["rlar"].count) == 3 and 0 < float(metrics["rlar"].sum) <= 3
    assert float(metrics["latent_gradient_segmentation"].sum) > 0


def test_an_example_does_not_see_the_others(strided, page):
    params, config = strided
    image = in_unit_range(jax.tree.map(jnp.asarray, page.batch)).image
    encode = jax.jit(model.encode, static_argnums=1)
    whole, other = (encode(params, config, seen) for seen in (image, image.at[1:].set(1 - image[1:])))
    first = lambda latent: jax.tree.map(lambda leaf: leaf[0], latent)
    chex.assert_trees_all_close(first(whole), first(other), rtol=1e-5, atol=1e-6)


# --- installation, citation, contributions ----------------------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALL = (ROOT / "docs" / "install.md").read_text()


def test_the_command_that_checks_the_installation_names_what_is_missing(monkeypatch, capsys):
    (code,) = re.findall(r'^python -c "\n(.*?)"$', INSTALL, re.MULTILINE | re.DOTALL)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    exec(code, {})
    printed = capsys.readouterr().out
    assert printed.startswith(f"{PROJECT['version']} {jax.__version__} [") and "missing: ['nibabel']" in printed


def test_the_page_on_installation_lists_every_extra_target_and_python():
    extras = re.findall(r"^\| `(\w+)` \|", INSTALL, re.MULTILINE)
    assert sorted(extras) == sorted(PROJECT["optional-dependencies"])
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert sorted(re.findall(r"^\| `make ([\w-]+)` \|", INSTALL, re.MULTILINE)) == sorted(targets)
    named = [words.rsplit(" ", 1)[1] for words in PROJECT["classifiers"] if "Python :: 3." in words]
    assert f"Python {', '.join(named[:-1])} or {named[-1]} on Linux" in INSTALL
    assert f"thyroid_jax-{PROJECT['version']}-py3-none-any.whl" in INSTALL


def test_the_citation_is_of_this_version_and_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["type"], citation["title"]) == ("1.2.0", "software", "thyroid_jax")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    readme = " ".join((ROOT / "README.md").read_text().split())
    for reference in citation["references"]:
        number = reference["url"].removeprefix("https://arxiv.org/abs/")
        assert reference["identifiers"][0]["value"] == f"arXiv:{number}" and f"arXiv {number}" in readme
        assert reference["title"] in readme
    assert len(citation["references"]) == 2


def test_the_paths_that_contributors_are_sent_to_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page):
        assert (ROOT / target).is_file(), target
    for target in re.findall(r"`((?:thyroid_jax|experiments|docs|tests)/[\w/.]*|\.ci/run)`", page):
        assert (ROOT / target).exists(), target
