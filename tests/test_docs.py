"""The documents' Python examples run as they stand, and their links and commands lead somewhere."""

import importlib.util
import re
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import cards, phantom, readers
from thyroid_jax.config import MTLConfig
from thyroid_jax.data.storage import open_records

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_readmes_example_of_the_method_runs():
    names = {}
    exec(python_blocks(ROOT / "README.md")[0], names)
    assert names["penalty"].shape == (4,)
    assert names["directions"].unit.shape == (2, 4, 64)


def test_the_readmes_example_of_a_trained_run_runs(finished, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "ddti").symlink_to(finished)
    monkeypatch.chdir(tmp_path)
    names = {"image": np.random.default_rng(0).integers(0, 255, (40, 60), np.uint8)}
    exec(python_blocks(ROOT / "README.md")[1], names)
    found = names["found"]
    assert found.probability.shape == (40, 60)
    assert found.grades.sum() == pytest.approx(1, abs=1e-5)
    assert 0 < found.malignant < 1


def test_the_example_of_the_penalty_runs():
    (block,) = python_blocks(ROOT / "docs" / "rlar.md")
    names = {}
    exec(block, names)
    assert 0 < names["value"] < 1
    assert np.isfinite(names["gradient"]).all() and np.abs(names["gradient"]).max() > 0


def test_the_example_of_the_multitask_functions_runs(capsys):
    (block,) = python_blocks(ROOT / "docs" / "multitask.md")
    names = {}
    exec(block, names)
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in names["weigh"].WEIGHERS)
    assert names["weights"].shape == (2,)


def test_the_example_of_the_radiomics_runs(capsys):
    (block,) = python_blocks(ROOT / "docs" / "radiomics.md")
    names = {}
    exec(block, names)
    assert names["values"].shape == names["valid"].shape == (2, 102) and names["valid"].all()
    wide = names["values"][:, names["FEATURES"].index("shape2D_Elongation")]
    np.testing.assert_allclose(wide, [1, 0.5], atol=0.02)
    assert "glcm_Contrast" in capsys.readouterr().out


def test_the_table_of_multitask_methods_is_complete():
    text = (ROOT / "docs" / "multitask.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(
        typing.get_args(typing.get_type_hints(MTLConfig)["method"])
    )


def test_the_example_of_an_own_data_set_builds_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "my_folder"
    lines = ["name,patient,grade"]
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8)).save(folder / "images" / f"a{number}.png")
        inside = np.full((6, 8), 255 if number else 0, np.uint8)  # no nodule in the first
        Image.fromarray(np.pad(inside, ((7, 7), (11, 11)))).save(folder / "masks" / f"a{number}.png")
        lines.append(f"a{number}.png,p{number // 2},{['low', 'high', '', 'high'][number]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (block,) = python_blocks(ROOT / "docs" / "data.md")
    monkeypatch.chdir(tmp_path)
    exec(block, {"__name__": "example"})
    card, records = open_records(tmp_path / "data", "mine")
    assert card.grades == ("low", "high")
    assert [record.grade for record in records] == [0, 1, None, 1]
    assert [record.mask is None for record in records] == [True, False, False, False]
    assert [record.group for record in records] == ["p0", "p0", "p1", "p1"]


def test_the_page_of_every_data_set_is_that_of_its_card():
    known = [*(readers.reader_of(name).card for name in readers.names()), phantom.CARD]
    folder, table = ROOT / "docs" / "datasets", (ROOT / "docs" / "data.md").read_text()
    assert {path.stem for path in folder.glob("*.md")} == {card.name for card in known}
    outdated = [card.name for card in known if (folder / f"{card.name}.md").read_text() != cards.page(card)]
    assert not outdated, "run: python -m data_prep list --pages docs/datasets"
    for card in known:
        assert card.access and card.holds and f"[`{card.name}`](datasets/{card.name}.md)" in table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_commands_to_modules(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).is_file(), target
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        assert module == "pip" or importlib.util.find_spec(module), module
    for path in re.findall(r"`((?:thyroid_jax|data_prep|experiments)/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path
