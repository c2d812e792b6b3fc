"""The options of the scripts that compare methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thyroid_jax.evaluate.primary import PRIMARY


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What is compared, and how precisely."""

    samples: int = 2000
    """bootstrap replicates; tests have five times as many permutations"""
    measures: tuple[str, ...] = PRIMARY
    """measures that are compared; the tests of all of them are one family. Also of one grade, or an operating point:
    at_or_above_4a_auroc, grade_5_f1, malignant_sensitivity_at_specificity_95"""
    margin: tuple[str, ...] = ()
    """MEASURE=MARGIN of non-inferiority to the first method, such as dice=0.02"""
    page: Literal["auto", "yes", "no"] = "auto"
    """write index.html; "auto" writes it where jinja2, matplotlib and scipy are installed"""
