"""The report of a run as one HTML page, and what it is made of: ``page`` the page, ``comparison`` the one of several
methods, ``pictures`` overlays and thumbnails, ``curves`` and ``plots`` the drawings, ``tables`` and ``case_table`` the
tables, ``remarks`` what a reader must not miss, ``baselines`` what each measure is worth without a model.

Importing it needs numpy only; jinja2, matplotlib, scipy and Pillow are imported by the functions that use them.
"""

from thyroid_jax.evaluate.report.case_table import best_median_worst
from thyroid_jax.evaluate.report.comparison import render_comparison
from thyroid_jax.evaluate.report.curves import Panel, training_curves
from thyroid_jax.evaluate.report.page import BUDGET, Report, render, write_report
from thyroid_jax.evaluate.report.pictures import (
    PREDICTED_COLOUR,
    REFERENCE_COLOUR,
    Picture,
    Thumbnail,
    overlay,
    overlay_grid,
    png,
    thumbnail,
)

__all__ = [
    "BUDGET",
    "PREDICTED_COLOUR",
    "REFERENCE_COLOUR",
    "Panel",
    "Picture",
    "Report",
    "Thumbnail",
    "best_median_worst",
    "overlay",
    "overlay_grid",
    "png",
    "render",
    "render_comparison",
    "thumbnail",
    "training_curves",
    "write_report",
]
