"""Rule-based risk systems of thyroid nodules: from ultrasound findings to a level, its risk, and FNA by size.

Research use, not advice about a patient.

    Nodule                  findings in the words of the ACR lexicon; None where not reported
    assess(nodule, system)  an Assessment in "acr", "eu", "k" (2021), "k2016", "c" or "kwak"
    compare(nodule)         the assessments of all systems
    points, level           ACR TI-RADS as plain functions; level works on arrays, traced or not

The rules and their sources stand in one file a system: acr.py (with chart.py), eu.py, k.py, c.py, kwak.py.
``python -m thyroid_jax.tirads`` prints all tables.
"""

from thyroid_jax.tirads.assessment import RESEARCH_USE, SYSTEMS, Assessment, assess, compare
from thyroid_jax.tirads.chart import COMPOSITION, ECHOGENICITY, FOCI, LEVELS, MARGIN, SHAPE, level, points
from thyroid_jax.tirads.nodule import Nodule
from thyroid_jax.tirads.rules import ACTIONS
from thyroid_jax.tirads.tables import comparison, tables

__all__ = [
    "ACTIONS",
    "COMPOSITION",
    "ECHOGENICITY",
    "FOCI",
    "LEVELS",
    "MARGIN",
    "RESEARCH_USE",
    "SHAPE",
    "SYSTEMS",
    "Assessment",
    "Nodule",
    "assess",
    "compare",
    "comparison",
    "level",
    "points",
    "tables",
]
