"""Open a finished run, predict what it held out, and write the per-case table and the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thyroid_jax.config import Config
from thyroid_jax.data import pipeline, source
from thyroid_jax.data.pipeline import letterbox
from thyroid_jax.data.record import Record, RecordSequence
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import calibration, subgroups
from thyroid_jax.evaluate import summary as summaries
from thyroid_jax.evaluate.agreement import agreement, reader_labels
from thyroid_jax.evaluate.calibration import Calibration
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases
from thyroid_jax.files import write_bytes
from thyroid_jax.predict import Prediction, Trained, checkpoint_read, predict, read_config
from thyroid_jax.predict import load as load_trained
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs import page_facts
from thyroid_jax.runs.apply import CALIBRATION, unscaled, write_calibration
from thyroid_jax.runs.folder import Echo, check_claim, check_same_data, was_stopped
from thyroid_jax.runs.start import open_parts, train
from thyroid_jax.settings import flat, to_dict
from thyroid_jax.train.log import read_log


class Finished(NamedTuple):
    """A trained run and the data that it was trained on, with the same split."""

    trained: Trained
    parts: source.Parts


def open_finished(run_dir: Path | str, checkpoint: str = "best", data_dir: Path | str | None = None) -> Finished:
    """A trained run and its data; other data, or a changed split, raise :class:`InputError`.

    ``data_dir`` is the folder of the built data set, if it was moved since the run was trained.
    """
    run_dir = Path(run_dir)
    trained = load_trained(run_dir, checkpoint=checkpoint)
    config = trained.config
    if data_dir is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, dir=str(data_dir)))
    if not (run_dir / "split.json").is_file():
        raise InputError(f"{run_dir / 'split.json'}: no such file; it says what was held out. Restore it.")
    parts = open_parts(config)
    check_same_data(run_dir, parts, trained.facts["digest"], trained.facts["split"])
    _, was_made_from = read_config(run_dir / "config.json")
    check_same_data(run_dir, parts, was_made_from.get("data"), was_made_from.get("split"))
    return Finished(trained, parts)


def cases_of(trained: Trained, records: RecordSequence, *, part: str = "", flip: bool = False) -> list[Case]:
    """The per-case table of some records, at each record's own resolution, against its reference labels.

    ``flip`` as in :func:`thyroid_jax.predict.predict`.
    """
    return [case for _, _, case in evaluated(trained, records, part=part, flip=flip)]


def evaluated(
    trained: Trained, records: Sequence[Record], *, part: str, flip: bool
) -> Iterator[tuple[Record, Prediction, Case]]:
    """Each record, its prediction, and its row of the per-case table."""
    pairs = predicted(trained, records, flip=flip)
    while chunk := list(islice(pairs, trained.config.train.batch_size)):
        for (record, found), radiomics in zip(chunk, guidance_of(trained, chunk)):
            yield record, found, case_of(trained, record, found, radiomics, part)


def predicted(
    trained: Trained, records: Sequence[Record], *, batch_size: int = 8, flip: bool = False
) -> Iterator[tuple[Record, Prediction]]:
    """(record, prediction) pairs; records are read from disk batch by batch."""
    for start in range(0, len(records), batch_size):
        chunk = [records[place] for place in range(start, min(start + batch_size, len(records)))]
        spacings = [record.spacing for record in chunk]
        images = [record.image for record in chunk]
        found = predict(trained, images, spacings=spacings, batch_size=batch_size, flip=flip)
        yield from zip(chunk, found)


def case_of(
    trained: Trained, record: Record, found: Prediction, radiomics: Mapping[str, dict[str, float]], part: str = ""
) -> Case:
    """A record's row of the per-case table: what was predicted, beside the reference and what else the record says.

    ``radiomics`` is the record's entry of :func:`guidance_of`.
    """
    grades = trained.facts["grades"]
    answer = summaries.Answer(
        outline=None if found.probability is None else found.probability >= 0.5,
        probability=None if found.grades is None else dict(zip(grades, found.grades.tolist())),
        p_malignant=found.malignant,
        guidance=radiomics.get("guidance"),
        target=radiomics.get("target"),
    )
    return summaries.row_of(record, grades, answer, part)


def guidance_of(trained: Trained, chunk: Sequence[tuple[Record, Prediction]]) -> list[dict[str, dict[str, float]]]:
    """``guidance`` and ``target`` of each record by the names of the radiomics target; {} for a run without guidance.

    ``guidance`` is what the model predicts, in the target's own units. ``target`` is measured on the reference outline
    at the network's size, as for the training; a value that is undefined there is NaN, and without an outline there is
    none. A chunk of the run's batch size, or a smaller one, is measured by the training's program.
    """
    if "guidance" not in trained.facts["tasks"]:
        return [{} for _ in chunk]
    named = lambda values: dict(zip(clinical.TARGET, values.tolist()))
    rows = [{"guidance": named(unscaled(found, trained).answers["guidance"])} for _, found in chunk]
    size = (trained.config.data.height, trained.config.data.width)
    boxed = lambda pixels, record: letterbox(pixels, size, record.spacing)
    outlined = [
        (row, boxed(record.image, record), boxed(255 * np.uint8(record.mask), record))
        for row, (record, _) in zip(rows, chunk)
        if record.mask is not None
    ]
    if outlined:
        to_fill, image, mask = zip(*outlined)
        measured, valid = pipeline.measure(np.stack(image), np.stack(mask), chunk=trained.config.train.batch_size)
        for row, values in zip(to_fill, np.where(valid, measured, np.nan)):
            row["target"] = named(values)
    return rows


def table_of(run_dir: Path, part: str = "test", checkpoint: str = "best", flip: bool = False) -> Path:
    """Path of a part's per-case table: ``cases.csv`` of the run folder for the test part and the best checkpoint.

    Others lie in ``report/PART``, ``report/PART-last``, and with ``flip`` in ``report/PART-flip`` and so on.
    """
    if (part, checkpoint, flip) == ("test", "best", False):
        return run_dir / "cases.csv"
    words = [part, *(["last"] if checkpoint == "last" else []), *(["flip"] if flip else [])]
    return run_dir / "report" / "-".join(words) / "cases.csv"


def read_table(table: Path, held_out: Sequence[str]) -> list[Case]:
    """The cases of a run's table; :class:`InputError` unless they are those that it holds out, each of them once."""
    cases = read_cases(table)
    if sorted(case.case for case in cases) != sorted(held_out):
        raise InputError(
            f"{table}: its {len(cases)} rows are not the {len(held_out)} cases of that part of the run's split, each "
            "once. Remove the table, and the run is evaluated again."
        )
    return cases


def held_out_cases(
    config: Config,
    run_dir: Path,
    *,
    part: str = "test",
    checkpoint: str = "best",
    flip: bool = False,
    echo: Echo = print,
) -> list[Case]:
    """The table of a run's held-out part, trained and evaluated first where it is not there yet.

    It computes one cell of a study: an interrupted run is resumed, and a table of a finished one is read. A folder that
    holds a run of another configuration, data set or split raises :class:`InputError`.
    """
    table = table_of(run_dir, part, checkpoint, flip)
    if table.is_file() and not was_stopped(run_dir, config.train):
        parts = open_parts(config)
        check_claim(run_dir, config, parts)
        return read_table(table, parts.split[part])  # type: ignore[literal-required]
    train(config, run_dir, echo=echo)
    trained, parts = open_finished(run_dir, checkpoint, config.data.dir)  # where they lie now
    cases = cases_of(trained, getattr(parts, part), part=part, flip=flip)
    write_cases(table, cases)
    return cases


def calibrate(run_dir: Path | str, finished: Finished) -> Calibration | None:
    """Fit the scaling of probabilities on the validation part, and keep it in the run folder for predictions.

    The run is that of the best checkpoint. Where nothing can be fitted (too few cases, one class alone), the result is
    None, and a scaling of earlier times is removed, so that predictions say that they are uncalibrated.
    """
    cases = cases_of(finished.trained, finished.parts.validation, part="validation")
    try:
        fitted = calibration.fit(cases)
    except InputError:
        (Path(run_dir) / CALIBRATION).unlink(missing_ok=True)
        return None
    write_calibration(Path(run_dir), finished.trained, fitted)
    return fitted


def calibration_note(fitted: Calibration | None) -> str:
    """What was fitted, in a line."""
    if fitted is None:
        return "probabilities stay uncalibrated: too few labels in the validation part"
    found = {"grades": fitted.grade, "malignancy": fitted.malignant}
    parts = [
        f"{name} temperature {scaling.temperature:.2f} from {scaling.cases} validation cases "
        f"(NLL {scaling.nll_before:.3f}, scaled {scaling.nll_after:.3f})"
        for name, scaling in found.items()
        if scaling is not None
    ]
    return "; ".join([*parts, *fitted.remarks])


class Evaluation(NamedTuple):
    """An evaluated part: its table, its measures with intervals, and the paths of table and page."""

    cases: list[Case]
    summary: summaries.Summary
    table: Path
    page: Path


def evaluate(
    run_dir: Path | str,
    finished: Finished,
    *,
    part: str = "test",
    checkpoint: str = "best",
    flip: bool = False,
    samples: int = 2000,
    picture: Path | None = None,
) -> Evaluation:
    """Predict one part, and write its table of cases and its report.

    Those of the test part by the best checkpoint are the run folder's own ``cases.csv`` and ``report/index.html``;
    others lie in a folder of their own (:func:`table_of`). ``flip`` averages over mirror images. ``picture`` also
    writes the worst, median and best outlines as one PNG. One batch of images is in memory at a time.
    """
    from thyroid_jax.evaluate import report

    run_dir, (trained, parts) = Path(run_dir), finished
    table = table_of(run_dir, part, checkpoint, flip)
    page = run_dir / "report" if table.parent == run_dir else table.parent
    records = getattr(parts, part)
    cases, thumbnails, labels, outlines = [], [], [], []
    for record, found, case in evaluated(trained, records, part=part, flip=flip):
        outline = None if found.probability is None else found.probability >= 0.5
        cases.append(case)
        thumbnails.append(report.thumbnail(report.Picture(record.case, record.image, record.mask, outline)))
        labels.append(reader_labels(record))
        outlines.append(None if picture is None or outline is None else np.packbits(outline))
    if picture is not None:
        write_sheet(picture, records, cases, outlines)
    summary = summaries.summary(cases, samples=samples)
    write_cases(table, cases)
    between = agreement(labels, len(parts.card.grades))
    few = min(samples, 1000)
    about = {side: page_facts.labels_of(getattr(parts, side)) for side in source.PARTS}
    counts = {side: page_facts.part_counts(labels) for side, labels in about.items()}
    contents = report.Report(
        title=f"{parts.card.title}: {part} part",
        facts=page_facts.facts_of(trained, parts, counts, part, checkpoint_read(run_dir, checkpoint), flip),
        config=dict(flat(to_dict(trained.config))),
        provenance=page_facts.provenance(trained, samples, few),
        summary=summary,
        per_grade=summaries.per_grade_summary(cases, samples=few),
        at_or_above=summaries.at_or_above_summary(cases, samples=few),
        decision=summaries.decision_curve(cases, samples=few),
        training=page_facts.training_counts(about["train"], parts.card.grades),
        calibration=calibration.calibration_summary(cases, samples=few),
        calibration_by_chance=calibration.calibration_by_chance(cases, samples=few),
        counts=counts,
        cases=cases,
        log=read_log(run_dir / "log.jsonl"),
        pictures=thumbnails,
        subgroups=subgroups.subgroups(cases, samples=few),
        readers=subgroups.with_readers(cases, samples=few),
        between_readers=subgroups.between_readers(cases, samples=few),
        readers_dice=(between.dice, between.outlines) if between.outlines else None,
        notes=page_facts.notes(parts.card, between),
    )
    return Evaluation(cases, summary, table, report.write_report(page, contents))


def write_sheet(
    path: Path, records: RecordSequence, cases: Sequence[Case], outlines: Sequence[np.ndarray | None]
) -> None:
    """Write the worst, median and best outlines as one PNG; nothing where no case has a Dice.

    ``outlines`` are the predicted masks of all records, in bits; the chosen records alone are read again.
    """
    from thyroid_jax.evaluate import report

    shown = {case.case for group in report.best_median_worst(cases).values() for case in group}
    pictures, captions = [], []
    for place, (case, bits) in enumerate(zip(cases, outlines)):
        if case.case in shown and bits is not None:
            record = records[place]
            mask = np.unpackbits(bits, count=record.image.size).reshape(record.image.shape).astype(bool)
            pictures.append(report.Picture(record.case, record.image, record.mask, mask))
            captions.append(report_caption(case))
    if pictures:
        write_bytes(path, report.png(report.overlay_grid(pictures, captions)))


def report_caption(case: Case) -> str:
    """A case in two short lines."""
    grades = f"{case.grade_truth or 'no grade'}, predicted {case.grade_predicted}" if case.grade_predicted else ""
    return f"{case.case}: Dice {case.dice:.2f}\n{grades}"


def print_summary(summary: summaries.Summary, echo: Echo = print) -> None:
    """The measures as a short table; the last column counts bootstrap replicates that could not be measured.

    A line below it names the measures whose interval is DeLong's.
    """
    counted = {"n": "images", "undefined": "undefined", "groups": "groups", "replicates_undefined": "left out"}
    width = max([28, *map(len, summary)])
    heads = "".join(f"{head:>11}" for head in counted.values())
    echo(f"{'measure':<{width}}{'value':>8}   {'95 % interval':<19}{heads}")
    for name, entry in summary.items():
        interval = "none" if np.isnan(entry["low"]) else f"{entry['low']:.3f} to {entry['high']:.3f}"
        counts = "".join(f"{entry[key]:>11.0f}" for key in counted)
        echo(f"{name:<{width}}{entry['value']:>8.3f}   {interval:<19}{counts}")
    areas = [name for name, entry in summary.items() if summaries.interval_kind(entry) == "delong"]
    if areas:
        echo(f"intervals: bootstrap over groups; of {', '.join(areas)} DeLong's, over groups")
