"""The tables of a comparison: plain data, and how they are written as Markdown, LaTeX and CSV.

:func:`thyroid_jax.evaluate.paired.compare` makes a :class:`Comparison`. Nothing is computed here.
"""

from __future__ import annotations

from pathlib import Path

from thyroid_jax.evaluate.cases import write_table
from thyroid_jax.evaluate.tabulate.content import LABELS, Comparison, Gap, Method, caption, label_of, p_value
from thyroid_jax.evaluate.tabulate.latex import escape_latex, latex
from thyroid_jax.evaluate.tabulate.markdown import PARTS, markdown
from thyroid_jax.evaluate.tabulate.rows import CSV_COLUMNS, csv_rows
from thyroid_jax.files import write_text

__all__ = [
    "CSV_COLUMNS",
    "LABELS",
    "PARTS",
    "Comparison",
    "Gap",
    "Method",
    "caption",
    "csv_rows",
    "escape_latex",
    "label_of",
    "latex",
    "markdown",
    "p_value",
    "write_tables",
]


def write_tables(folder: Path | str, found: Comparison) -> None:
    """Write ``table.md``, ``table.tex`` and ``table.csv`` into the folder, each in one step."""
    folder = Path(folder)
    write_text(folder / "table.md", markdown(found) + "\n")
    write_text(folder / "table.tex", latex(found))
    write_table(folder / "table.csv", CSV_COLUMNS, csv_rows(found))
