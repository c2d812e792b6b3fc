"""Run folders: start or resume a run, open a finished run, evaluate it.

config.json  split.json  log.jsonl  metrics.csv  cases.csv  checkpoints/  report/index.html
"""

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
    "calibrate",
    "calibration_note",
    "cases_of",
    "evaluate",
    "held_out_cases",
    "open_data",
    "open_finished",
    "open_parts",
    "predicted",
    "print_summary",
    "table_of",
    "train",
]
