"""Facts about a trained run for its model card: how it was trained, on what, and how good it is.

Every value is one of the run's; one that is not known is null, and ``missing`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax import command, runs
from thyroid_jax.config import PLACES, Config
from thyroid_jax.data.record import Card, Entry
from thyroid_jax.data.source import PARTS, Parts
from thyroid_jax.data.storage import read_metadata
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import calibration
from thyroid_jax.evaluate.cases import Case, read_cases
from thyroid_jax.evaluate.metrics import dice
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.files import read_json
from thyroid_jax.predict import Prediction, Trained, checkpoint_read, fingerprint, load
from thyroid_jax.runs import apply
from thyroid_jax.settings import flat, to_dict
from thyroid_jax.train.log import read_log
from thyroid_jax.train.validation import out_of_patience

COMPARED = 8
"""images whose row in the table of results is compared with what the exported checkpoint predicts"""
SAME = 1e-2
"""largest difference of probabilities and Dice at which a table counts as that of the checkpoint: above what another
kind of device changes, far below what an epoch of training does"""
UNREADABLE = "the data set was not at hand at the export, or is not the one of the training"


class Source(NamedTuple):
    """A trained run and its data set; where that is missing or changed, ``parts`` is None and ``missing`` says why."""

    trained: Trained
    parts: Parts | None
    data_dir: Path
    missing: str


def open_source(
    run_dir: Path, checkpoint: str, data_dir: Path | str | None, echo: Callable[[str], Any] = print
) -> Source:
    """Open a trained run, and its data set where it is there and unchanged.

    With ``data_dir`` a data set that is not raises :class:`InputError`; without, ``echo`` is called with the reason.
    """
    try:
        trained, parts = runs.open_finished(run_dir, checkpoint, data_dir)
        return Source(trained, parts, Path(trained.config.data.dir if data_dir is None else data_dir), "")
    except (InputError, ModuleNotFoundError) as error:
        if data_dir is not None:
            raise
        trained = load(run_dir, checkpoint=checkpoint, echo=echo)  # raises where the run itself is at fault
        echo(f"the model card will lack what only the data set knows: {error}")
        return Source(trained, None, Path(trained.config.data.dir), UNREADABLE)


def facts_of(run_dir: Path, source: Source, *, checkpoint: str, samples: int = 2000) -> dict[str, Any]:
    """JSON values about a run: ``training``, ``calibration``, ``data``, ``results``. What is not known is null."""
    return {
        "training": training_facts(run_dir, source.trained, checkpoint),
        "calibration": calibration_facts(run_dir, source.trained),
        "data": data_facts(run_dir, source),
        "results": result_facts(run_dir, source, checkpoint=checkpoint, samples=samples),
    }


# --- training ---------------------------------------------------------------------------------------------------------


def training_facts(run_dir: Path, trained: Trained, checkpoint: str) -> dict[str, Any]:
    """How the run was trained: its settings, where it ended, and which checkpoint this is."""
    log = read_log(run_dir / "log.jsonl")
    scores = [row.get("score") for row in log if row.get("split") == "validation" and row["step"] == trained.step]
    settings = {name: _plain(value) for name, value in flat(to_dict(trained.config)) if name not in PLACES}
    for name in ("train.encoder_weights", "train.start_from"):
        settings[name] = Path(settings[name]).name
    defaults = {name: _plain(value) for name, value in flat(to_dict(Config()))}
    return {
        "run": run_dir.resolve().name,
        "checkpoint": checkpoint_read(run_dir, checkpoint),
        "step": trained.step,
        "last_step": max((row["step"] for row in log), default=None),
        "total_steps": int(trained.recipe.fitted.total_steps),
        "out_of_patience": out_of_patience(log, trained.config.train.patience),
        "monitor": trained.config.train.monitor,
        "validation_score": scores[-1] if scores else None,
        "tasks": [task.name for task in trained.recipe.tasks],
        "penalties": [penalty.name for penalty in trained.recipe.penalties],
        "encoder_weights_sha256": trained.facts.get("encoder_weights"),
        "start_from_sha256": trained.facts.get("start_from", ""),
        "settings": settings,
        "differing": [name for name, value in settings.items() if value != defaults[name]],
    }


def calibration_facts(run_dir: Path, trained: Trained) -> dict[str, Any] | None:
    """The scaling of probabilities that the run folder keeps for these very parameters, or None."""
    found = apply.calibration_in(run_dir)
    fitted_for = None if found is None else read_json(run_dir / apply.CALIBRATION).get("parameters")
    return None if found is None or fitted_for != fingerprint(trained) else calibration.to_dict(found)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# --- data -------------------------------------------------------------------------------------------------------------


def data_facts(run_dir: Path, source: Source) -> dict[str, Any]:
    """The data set of a run: its card, and the groups, images and labels of every part.

    Of the training part those that are trained on, with ``data.share`` a share of it.
    """
    facts, parts, config = source.trained.facts, source.parts, source.trained.config.data
    cases = _split(run_dir)
    counts: dict[str, Any] = {part: {"images": None if cases is None else len(cases[part])} for part in PARTS}
    if config.share < 1:  # the split names the whole training part
        counts["train"] = {"images": None}
    also: list[dict[str, Any]] = [{"name": name, "weight": weight, "card": None} for name, weight in config.added]
    if parts is not None:
        entries = read_metadata(source.data_dir, parts.card.name).entries
        counts = {part: label_counts([entries[row] for row in getattr(parts, part).rows]) for part in PARTS}
        also = [
            about | {"card": _about_card(added.card), "counts": label_counts(added.records.entries)}
            for about, added in zip(also, parts.added, strict=True)
        ]
    return {
        "name": facts["data"],
        "digest": facts["digest"],
        "split_digest": facts["split"],
        "grade_system": facts["grade_system"],
        "card": None if parts is None else _about_card(parts.card),
        "also": also,
        "parts": counts,
        "missing": source.missing,
    }


def _split(run_dir: Path) -> dict[str, list[str]] | None:
    """The run's own ``split.json``, or None."""
    return read_json(run_dir / "split.json") if (run_dir / "split.json").is_file() else None


def label_counts(entries: Sequence[Entry]) -> dict[str, int]:
    """Groups and images of a part, and images with each kind of label."""
    return {
        "groups": len({entry.group for entry in entries}),
        "images": len(entries),
        "outlines": sum(entry.has_mask for entry in entries),
        "grades": sum(entry.grade is not None for entry in entries),
        "malignant": sum(entry.malignant is True for entry in entries),
        "benign": sum(entry.malignant is False for entry in entries),
    }


def _about_card(card: Card) -> dict[str, Any]:
    names = ("title", "source", "licence", "access", "labels", "grouping", "grade_system")
    return {name: getattr(card, name) for name in names} | {"grades": list(card.grades), "faults": list(card.faults)}


# --- results ----------------------------------------------------------------------------------------------------------


def result_facts(run_dir: Path, source: Source, *, checkpoint: str, samples: int = 2000) -> dict[str, Any]:
    """Measures of the test part from the run's own table, with intervals, where that is the checkpoint's.

    The table may be older than the checkpoint: its cases are compared with the run's split, and some of its rows with
    what the checkpoint predicts. One that differs is not used; where no image can be read, that is said.
    """
    table = runs.table_of(run_dir, "test", checkpoint)
    empty = {"part": "test", "images": 0, "compared": 0, "largest_difference": None, "measures": {}}
    if not table.is_file():
        return empty | {
            "missing": f"the run has no {table.relative_to(run_dir)}; make it with {command.spelled('evaluate')}"
        }
    cases, split = read_cases(table), _split(run_dir)
    if split is not None and sorted(case.case for case in cases) != sorted(split["test"]):
        return empty | {"missing": f"{table.name} is not of the run's test part; evaluate the run again"}
    compared, largest = table_difference(source, cases)
    if compared and not largest <= SAME:
        reason = f"{table.name} is of another checkpoint (its rows differ by {largest:.2g}); evaluate the run again"
        return empty | {"missing": reason}
    measures = {name: _finite(entry) for name, entry in summary(cases, samples=samples).items()}
    found = {"images": len(cases), "compared": compared, "measures": measures, "missing": ""}
    return empty | found | {"largest_difference": largest if compared else None}


def table_difference(source: Source, cases: Sequence[Case]) -> tuple[int, float]:
    """Images compared, and the largest difference of a table's probabilities and Dice to the checkpoint's predictions.

    Up to :data:`COMPARED` rows, spread evenly over the table. A value that only one side has is a difference of 1.
    """
    if source.parts is None or not cases:
        return 0, math.nan
    places = np.unique(np.linspace(0, len(cases) - 1, COMPARED).astype(int))
    rows = {cases[place].case: cases[place] for place in places}
    test = source.parts.test
    records = [test[place] for place, case in enumerate(source.parts.split["test"]) if case in rows]
    differences = [
        difference(rows[record.case], found, record.mask, source.trained.facts["grades"])
        for record, found in runs.predicted(source.trained, records)
    ]
    return len(differences), max(differences, default=math.nan)


def difference(case: Case, found: Prediction, reference: np.ndarray | None, grades: Sequence[str]) -> float:
    """Largest difference of a row's probabilities and Dice to a prediction."""
    nan = math.nan
    shares = dict(zip(grades, [] if found.grades is None else found.grades.tolist()))
    pairs = [(case.p_malignant, nan if found.malignant is None else found.malignant)]
    pairs += [(case.probability.get(name, nan), shares.get(name, nan)) for name in {*case.probability, *shares}]
    if found.probability is None or reference is None:
        pairs.append((case.dice, nan))
    else:
        pairs.append((case.dice, dice(found.probability >= 0.5, reference)))
    return max(_distance(one, other) for one, other in pairs)


def _distance(one: float, other: float) -> float:
    if math.isnan(one) or math.isnan(other):
        return 0.0 if math.isnan(one) and math.isnan(other) else 1.0
    return abs(one - other)


def _finite(entry: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in entry.items()}
