"""The rules of all systems as Markdown tables: what ``python -m thyroid_jax.tirads`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from thyroid_jax.tirads import c, chart
from thyroid_jax.tirads.assessment import RESEARCH_USE, SYSTEMS, compare
from thyroid_jax.tirads.nodule import Nodule
from thyroid_jax.tirads.rules import System, sizes_in_words


def tables() -> str:
    """Markdown: for every system its source, its points where it has any, and its levels with risks and sizes."""
    return "\n\n".join([RESEARCH_USE, *(_section(name, system) for name, system in SYSTEMS.items())]) + "\n"


def comparison(nodule: Nodule) -> str:
    """Markdown: one row a system with level, published risk and management of a nodule, then the research-use line."""
    rows = [
        (
            result.system,
            " or ".join(result.possible),
            result.malignancy_risk or "not determined",
            result.management or "not determined",
        )
        for result in compare(nodule).values()
    ]
    return f"{_table(('system', 'level', 'risk, as published', 'management'), rows)}\n\n{RESEARCH_USE}"


def _section(name: str, system: System) -> str:
    levels = [(level.name, level.meaning, level.rule, level.risk, sizes_in_words(level)) for level in system.levels]
    parts = [
        f"### {system.name} (`{name}`)",
        *_points_table(name),
        _table(("level", "meaning", "findings", "risk of malignancy", "by largest diameter"), levels),
        f"Source: {system.source}.",
    ]
    return "\n\n".join(parts)


def _points_table(name: str) -> tuple[str, ...]:
    if name == "acr":
        axes = {
            "composition": chart.COMPOSITION,
            "echogenicity": chart.ECHOGENICITY,
            "shape": chart.SHAPE,
            "margin": chart.MARGIN,
            "echogenic foci, all that apply": chart.FOCI,
        }
        return (_table(("axis", "points"), ((axis, _names_and_points(values)) for axis, values in axes.items())),)
    if name == "c":
        features = {feature: 1 for feature in c.FEATURES} | {"comet-tail artifacts": -1}
        return (_table(("feature", "score"), ((feature, f"{value:+d}") for feature, value in features.items())),)
    return ()


def _names_and_points(values: Mapping[str, int]) -> str:
    return " · ".join(f"{name} {value}" for name, value in values.items())


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])
