"""Run folders: start or resume a run, open a finished run, evaluate it.

config.json  split.json  log.jsonl  metrics.csv  cases.csv  checkpoints/  report/index.html

A name is imported when it is first used: scripts read their options before they need JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thyroid_jax.runs import (
        apply,
        ensemble,
        external,
        grid,
        grid_file,
        jobs,
        ood,
        prediction_table,
        quality,
        results,
    )
    from thyroid_jax.runs.evaluation import (
        Evaluation,
        Finished,
        calibrate,
        calibration_note,
        cases_of,
        evaluate,
        held_out_cases,
        open_finished,
        predicted,
        print_summary,
        table_of,
    )
    from thyroid_jax.runs.start import Data, open_data, open_parts, train

__all__ = [
    "Data",
    "Evaluation",
    "Finished",
    "apply",
    "calibrate",
    "calibration_note",
    "cases_of",
    "ensemble",
    "evaluate",
    "external",
    "grid",
    "grid_file",
    "held_out_cases",
    "jobs",
    "ood",
    "open_data",
    "open_finished",
    "open_parts",
    "predicted",
    "prediction_table",
    "print_summary",
    "quality",
    "results",
    "table_of",
    "train",
]

_MODULES = (
    "apply",
    "ensemble",
    "external",
    "grid",
    "grid_file",
    "jobs",
    "ood",
    "prediction_table",
    "quality",
    "results",
)
_STARTS = ("Data", "open_data", "open_parts", "train")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"thyroid_jax.runs.{name}")
    if name in __all__:
        return getattr(
            importlib.import_module(f"thyroid_jax.runs.{'start' if name in _STARTS else 'evaluation'}"), name
        )
    raise AttributeError(f"module 'thyroid_jax.runs' has no attribute {name!r}")
