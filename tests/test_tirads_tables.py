"""The printed tables, and the page in docs/ that holds them."""

import re
import runpy
from pathlib import Path

import pytest

from thyroid_jax import tirads

PAGE = (Path(__file__).parent.parent / "docs" / "tirads.md").read_text()


def test_the_command_prints_the_tables(capsys):
    runpy.run_module("thyroid_jax.tirads", run_name="__main__")
    assert capsys.readouterr().out == tirads.tables()


def test_the_page_ends_with_the_tables():
    assert PAGE.endswith(tirads.tables()), "run: python -m thyroid_jax.tirads, and replace the tables of docs/tirads.md"


def test_the_pages_example_prints_what_the_page_says(capsys):
    ((code, output),) = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out == output


def test_the_page_and_every_module_say_research_use():
    assert "**Research use, not advice about a patient.**" in PAGE
    assert tirads.RESEARCH_USE in tirads.__doc__
    for module in ("chart", "acr", "eu", "k", "c", "kwak", "assessment"):
        text = (Path(tirads.__file__).parent / f"{module}.py").read_text()
        assert tirads.RESEARCH_USE in text.split('"""')[1], module


def test_every_action_is_explained_on_the_page():
    before = PAGE[: PAGE.index("## The tables")]
    for action in tirads.ACTIONS:
        assert f"`{action}`" in before


@pytest.mark.parametrize("name", tirads.SYSTEMS)
def test_the_tables_hold_every_level_and_bound(name):
    system = tirads.SYSTEMS[name]
    section = tirads.tables().partition(f"(`{name}`)")[2].partition("\n### ")[0]
    for level in system.levels:
        (row,) = [line for line in section.splitlines() if line.startswith(f"| {level.name} |")]
        assert level.risk in row and level.meaning in row
        for rule in level.sizes:
            assert rule.action in row
            if rule.from_mm:
                assert f"{rule.action} {'≥' if rule.inclusive else '>'} {rule.from_mm:g} mm" in row
    assert system.source in section


def test_every_table_is_well_formed():
    blocks = re.findall(r"(?:^\|.*\n)+", tirads.tables(), re.MULTILINE)
    assert len(blocks) == len(tirads.SYSTEMS) + 2  # ACR and C-TIRADS have a table of points, too
    for block in blocks:
        assert block.splitlines()[1].startswith("|---|---|")
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_comparison_has_one_row_a_system_and_says_research_use():
    text = tirads.comparison(tirads.Nodule("solid", None, "wider than tall", "smooth", (), 12))
    for system in tirads.SYSTEMS.values():
        assert f"| {system.name} |" in text
    assert "| ACR TI-RADS 2017 | TR3 or TR4 | not determined | not determined |" in text
    assert text.endswith(tirads.RESEARCH_USE)
