"""Evaluate a run on held-out groups: a per-case table, measures with intervals, and a page to look at.

python -m experiments.evaluate --run-dir DIR [--part test] [--checkpoint best]
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.runtime import prepare
from thyroid_jax.config import to_dict
from thyroid_jax.data import source
from thyroid_jax.data.record import Card, Record
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.evaluate.report import Picture, Report, best_median_worst, overlay_grid, png, write_report
from thyroid_jax.files import write_bytes
from thyroid_jax.predict import Prediction, Run, load_run, predict
from thyroid_jax.train.log import read_log

NOTES = (
    "Outlines are compared at the pixels of the prepared image (cropped to the scan), not at the network's input size; HD95 is in those "
    "pixels and is undefined where one of the two outlines is empty.",
    "Intervals resample whole groups (patients or cases), 95 % percentile bootstrap. They do not cover another split or another seed.",
    "The reference is what the data set calls so. A research tool: nothing here is advice about a patient.",
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evaluate a run on held-out groups."""

    run_dir: Path
    """folder of a run made by `python -m experiments.train`"""
    data_dir: Path | None = None
    """folder of the built data set, where it is no longer the one that the run was trained from"""
    part: Literal["test", "validation", "train"] = "test"
    """which part of the run's own split"""
    checkpoint: Literal["best", "last"] = "best"
    samples: int = 2000
    """bootstrap replicates"""
    picture: Path | None = None
    """also write the page's outlines as one PNG, for a talk or a README"""


def open_finished(run_dir: Path, checkpoint: str = "best", data_dir: Path | None = None) -> tuple[Run, source.Parts]:
    """A trained run and the very data it was trained on, split as it was; other data raise :class:`InputError`."""
    run, split_file = load_run(run_dir, checkpoint=checkpoint), run_dir / "split.json"
    if not split_file.is_file():
        raise InputError(f"{split_file}: no such file; the run's own split is needed to know what was held out.")
    data = run.config.data if data_dir is None else dataclasses.replace(run.config.data, dir=str(data_dir))
    parts = source.open_parts(data, split_file)
    if parts.digest != run.facts["digest"]:
        raise InputError(
            f"{data.dir}: the data set {data.name!r} is not the one that the run was trained on; build it as it was."
        )
    return run, parts


def case_of(record: Record, prediction: Prediction, grades: Sequence[str]) -> Case:
    """A record's row of the per-case table, at the record's own resolution, against its reference outline and grade."""
    return metrics.measure(
        record.case,
        record.group,
        predicted=prediction.probability >= 0.5,
        reference=record.mask,
        probability=dict(zip(grades, prediction.grades.tolist())),
        grade_truth="" if record.grade is None else grades[record.grade],
    )


def evaluate(run: Run, run_dir: Path, parts: source.Parts, arguments: Arguments) -> tuple[metrics.Summary, Path]:
    """Predict one part, write its ``cases.csv`` and report, return (measure -> value with interval, path of the page).

    The test part's are the run folder's own ``cases.csv`` and ``report/index.html``; another part's lie in
    ``report/PART``.
    """
    folder, page = (
        (run_dir, run_dir / "report") if arguments.part == "test" else (run_dir / "report" / arguments.part,) * 2
    )
    records = getattr(parts, arguments.part)
    cases = [
        case_of(record, prediction, parts.card.grades)
        for record, prediction in zip(records, predict(run, _Images(records)))
    ]
    shown = {case.case for group in best_median_worst(cases).values() for case in group}
    chosen = [
        record for record in records if record.case in shown
    ]  # predicted again: keeping every image would not scale
    pictures = [
        Picture(record.case, record.image, record.mask, prediction.probability >= 0.5)
        for record, prediction in zip(chosen, predict(run, [record.image for record in chosen]))
    ]
    if arguments.picture is not None and pictures:
        write_bytes(
            arguments.picture, png(overlay_grid(pictures, [_caption(case) for case in cases if case.case in shown]))
        )
    summary = metrics.segmentation_summary(cases, samples=arguments.samples) | metrics.grading_summary(
        cases, samples=arguments.samples
    )
    write_cases(folder / "cases.csv", cases)
    report = Report(
        title=f"{parts.card.title}: {arguments.part} part",
        subtitle=f"{arguments.checkpoint} checkpoint, step {run.step}",
        config=_settings(to_dict(run.config)),
        summary=summary,
        counts={side: _counts(getattr(parts, side)) for side in source.PARTS},
        cases=cases,
        log=read_log(run_dir / "log.jsonl"),
        pictures=pictures,
        notes=(*_label_notes(parts.card), *NOTES),
    )
    return summary, write_report(page, report)


def _caption(case: Case) -> str:
    grades = f"{case.grade_truth or 'no grade'}, predicted {case.grade_predicted}" if case.grade_predicted else ""
    return f"{case.case}: Dice {case.dice:.2f}\n{grades}"


class _Images(Sequence):
    """The images of some records, read as they are asked for."""

    def __init__(self, records: Sequence[Record]):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index):
        chosen = self._records[index]
        return [record.image for record in chosen] if isinstance(index, slice) else chosen.image


def print_summary(summary: metrics.Summary) -> None:
    """The measures as a short table."""
    print(f"{'measure':<20}{'value':>8}   {'95 % interval':<19}{'images':>7}{'undefined':>11}{'groups':>8}")
    for name, entry in summary.items():
        interval = f"{entry['low']:.3f} to {entry['high']:.3f}"
        print(
            f"{name:<20}{entry['value']:>8.3f}   {interval:<19}{entry['n']:>7.0f}{entry['undefined']:>11.0f}{entry['groups']:>8.0f}"
        )


def _settings(values: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for name, value in values.items():
        flat |= _settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _counts(records: Sequence[Record]) -> dict[str, int]:
    groups, masks, grades = set(), 0, 0
    for record in records:
        groups.add(record.group)
        masks += record.mask is not None
        grades += record.grade is not None
    return {"groups": len(groups), "images": len(records), "with outline": masks, "with grade": grades}


def _label_notes(card: Card) -> list[str]:
    system = (
        f" Grades are of the {card.grade_system} family and are not interchangeable with other systems'."
        if card.grade_system
        else ""
    )
    return [f"{card.labels}{system}"]


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.evaluate")
    run, parts = open_finished(arguments.run_dir, arguments.checkpoint, arguments.data_dir)
    summary, page = evaluate(run, arguments.run_dir, parts, arguments)
    print_summary(summary)
    print(f"page: {page}")


if __name__ == "__main__":
    main()
