"""A run folder as an object of the library: start a run or go on with it, open a finished one, evaluate it.

config.json  split.json  log.jsonl  metrics.csv  cases.csv  checkpoints/  report/index.html
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import thyroid_jax
from thyroid_jax import checkpoints
from thyroid_jax.config import Config, recipe_of
from thyroid_jax.data import source
from thyroid_jax.data.pipeline import Examples, load, reader_counts, with_target
from thyroid_jax.data.record import Card, Record
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.files import alone_in, remove_fragments, write_bytes, write_json
from thyroid_jax.fitting import learn_from
from thyroid_jax.model import check_size
from thyroid_jax.predict import ABOUT_RUN, Prediction, Trained, predict, read_config
from thyroid_jax.predict import load as load_trained
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Recipe
from thyroid_jax.settings import flat, to_dict
from thyroid_jax.train.devices import SPREADS, check_divides
from thyroid_jax.train.log import read_log
from thyroid_jax.train.loop import Progress, check_labels, fit
from thyroid_jax.train.step import TrainState, init_state

Say = Callable[[str], None]


class Data(NamedTuple):
    """A run's data: the records of all parts, and the training and validation parts at network size."""

    parts: source.Parts
    training: Examples
    validation: Examples


def open_parts(config: Config) -> source.Parts:
    """The data set that a config names, split as it says."""
    data = config.data
    split_file = Path(data.split) if data.split else None
    return source.open_parts(
        data.dir, data.name, folds=data.folds, fold=data.fold, seed=data.split_seed, split_file=split_file
    )


def open_data(config: Config) -> Data:
    """Open and split the data set, and load its training and validation parts."""
    check_size(config.model, config.data.height, config.data.width)
    parts = open_parts(config)
    size, grades = (config.data.height, config.data.width), grade_count(parts.card)
    training = load(parts.train, grades, size, labels=config.data.labels)
    return Data(parts, training, load(parts.validation, grades, size))


def grade_count(card: Card) -> int:
    """Grade classes of the grading head: those of the data set, two at least."""
    return max(2, len(card.grades))


def train(config: Config, run_dir: Path, *, say: Say = print) -> TrainState:
    """Start a run in ``run_dir``, or go on with the one that is there, to its last epoch; return the last state.

    A folder that holds a run of another configuration, data set or split, or that another process trains in, raises
    :class:`InputError`, and nothing in it is touched. What was fitted on the training part is kept in the checkpoints:
    a run that goes on uses it as it is, on whichever device.
    """
    spread = SPREADS[config.devices.mode]()
    check_divides(config.train.batch_size, spread.mesh.size)
    data = open_data(config)
    check_claim(run_dir, config, data.parts)
    tasks = labelled_tasks(recipe_of(config, grades=grade_count(data.parts.card)), data.training)
    check_labels(config.train, data.validation.batch, tasks)
    run_dir.mkdir(parents=True, exist_ok=True)
    with alone_in(run_dir):
        check_claim(run_dir, config, data.parts)
        claim(run_dir, config, data.parts)
        saved = resume(run_dir, tasks, say)
        if saved is None:
            readers = reader_counts(data.parts.train, config.data.labels)
            recipe = tasks.replace(fitted=learn_from(data.training, config, readers=readers))
            start = Progress(init_state(recipe, jax.random.key(config.train.seed)), None)
        else:
            recipe = tasks.replace(fitted=saved.arrays["fitted"])
            state = saved.arrays["rest"]._replace(params=saved.arrays["params"])
            start = Progress(state, saved.facts["position"])
            say(f"going on from step {saved.step}")
        say(describe(recipe, data, config))
        training, validation = guided(data, recipe, config)
        return fit(
            run_dir,
            recipe,
            config.train,
            start,
            training,
            validation,
            spread,
            facts=facts_of(data.parts, recipe),
            say=say,
        )


def labelled_tasks(recipe: Recipe, training: Examples) -> Recipe:
    """The recipe with the tasks that a training image has a label for.

    Raises :class:`InputError` when none is left, or when RLAR, the consistency or a multitask method needs one of the
    others.
    """
    has_label = {task.name: bool(np.asarray(task.defined(training.batch)).any()) for task in recipe.tasks}
    kept = tuple(task for task in recipe.tasks if has_label[task.name])
    without = [name for name, there in has_label.items() if not there]
    if not kept:
        raise InputError(f"no training image has a label of {' or '.join(without)}; there is nothing to learn.")
    penalties = {penalty.name for penalty in recipe.penalties}
    needed = {
        "rlar": [name for name in recipe.settings["rlar"].tasks if name in without],
        "consistency": [name for name in ("segmentation", "malignancy") if name in without],
        "cosreg": without if len(kept) < 2 else [],
    }
    for name in penalties & {name for name, lacking in needed.items() if lacking}:
        raise InputError(
            f"{name} needs {needed[name][0]}, but no training image has its label; set {name}.weight 0, "
            "or use a data set with that label."
        )
    if recipe.settings["mtl"].method != "equal" and len(kept) < 2:
        raise InputError(
            f"mtl.method {recipe.settings['mtl'].method} compares two tasks at least, but no training image has a "
            f"label of {' or '.join(without)}; set mtl.method equal."
        )
    return recipe.replace(tasks=kept)


def guided(data: Data, recipe: Recipe, config: Config) -> tuple[Examples, Examples]:
    """Training and validation part with the guidance target where something reads it."""
    if not any(task.name == "guidance" for task in recipe.tasks):
        return data.training, data.validation
    scaling, cut = recipe.fitted.scaling, float(recipe.fitted.mask_cut)
    original = config.guidance.view == "original"  # else every step measures its own views
    training = with_target(data.training, scaling, cut=cut) if original else data.training
    return training, with_target(data.validation, scaling)


def facts_of(parts: source.Parts, recipe: Recipe) -> dict[str, Any]:
    """What goes into every checkpoint about the data: names and digests, nothing that depends on a device."""
    return {
        "version": thyroid_jax.__version__,
        "data": parts.card.name,
        "digest": parts.digest,
        "split": parts.split_digest,
        "grades": list(parts.card.grades),
        "grade_system": parts.card.grade_system,
        "tasks": [task.name for task in recipe.tasks],
        "target": list(clinical.TARGET),
    }


def describe(recipe: Recipe, data: Data, config: Config) -> str:
    """What is trained on what, in two lines: images, steps, every term of the objective with its weight."""
    settings = recipe.settings
    off = [task for task in ("segmentation", "grading", "malignancy", "guidance") if getattr(config, task).weight]
    off = [name for name in off if name not in {task.name for task in recipe.tasks}]
    terms = [f"{settings[task.name].weight:g} {task.name}" for task in recipe.tasks]
    for penalty in recipe.penalties:
        kind = f" ({settings['rlar'].kind} at {settings['rlar'].level})" if penalty.name == "rlar" else ""
        terms.append(f"{settings[penalty.name].weight:g} {penalty.name}{kind}")
    method = settings["mtl"]
    weighed = "" if method.method == "equal" else f"; weighed by {method.method}"
    weighed += f" at the {method.at}" if method.compares_gradients else ""
    missing = f"; no label for {', '.join(off)}" if off else ""
    return (
        f"{len(data.training.cases)} training and {len(data.validation.cases)} validation images, "
        f"{int(recipe.fitted.total_steps)} steps\nminimises {' + '.join(terms)}{weighed}{missing}"
    )


def made_from(parts: source.Parts) -> dict[str, str]:
    """What stands beside the settings in ``config.json``: the version, and digests of data and split."""
    return {"version": thyroid_jax.__version__, "data": parts.digest, "split": parts.split_digest}


def check_claim(run_dir: Path, config: Config, parts: source.Parts) -> None:
    """Raise :class:`InputError` when the folder holds a run of another configuration, data set or split.

    Where the data lie, and how the batch is spread, is not part of a configuration: ``data.dir``, ``data.split`` and
    ``devices`` may differ.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        return
    found, was_made_from = read_config(path)
    before = dict(flat(to_dict(found)))
    free = ("data.dir", "data.split", "devices.")
    differing = [
        name for name, value in flat(to_dict(config)) if not name.startswith(free) and value != before.get(name)
    ]
    if differing:
        raise InputError(
            f"{path}: the run was started with another configuration; {', '.join(differing)} differ. "
            "Give the same settings to go on with it, or name a new --run-dir."
        )
    check_same_data(run_dir, parts, was_made_from.get("data"), was_made_from.get("split"))


def check_same_data(run_dir: Path, parts: source.Parts, digest: Any, split_digest: Any) -> None:
    """Raise :class:`InputError` unless data, split, and the run's own ``split.json`` are those of the run's start."""
    if parts.digest != digest:
        raise InputError(
            f"{run_dir}: the data set {parts.card.name!r} is not the one that the run was trained on; build it as it "
            "was, or train on the new one in a new run folder."
        )
    if parts.split_digest != split_digest:
        raise InputError(
            f"{run_dir}: the data set is split otherwise than when the run was started (the file of folds changed); "
            "restore that file, or start a new run folder."
        )
    if (run_dir / "split.json").is_file():
        source.check_split(run_dir / "split.json", parts)


def claim(run_dir: Path, config: Config, parts: source.Parts) -> None:
    """Write ``config.json`` and ``split.json`` of a new run. The caller holds the folder's lock."""
    for folder in (run_dir, run_dir / "checkpoints" / "last", run_dir / "checkpoints" / "best"):
        if folder.is_dir():
            remove_fragments(folder)
            checkpoints.remove_fragments(folder)
    if not (run_dir / "split.json").is_file():
        write_json(run_dir / "split.json", parts.split)
    if not (run_dir / "config.json").is_file():
        write_json(run_dir / "config.json", to_dict(config) | {ABOUT_RUN: made_from(parts)})


def resume(run_dir: Path, recipe: Recipe, say: Say) -> checkpoints.Saved | None:
    """The newest whole checkpoint of a run, or None. Damaged newer ones are set aside, so that they are not lost."""
    state = jax.eval_shape(lambda: init_state(recipe, jax.random.key(0)))
    like = {"params": state.params, "rest": state._replace(params=()), "fitted": recipe.fitted}
    folder = run_dir / "checkpoints" / "last"
    saved = checkpoints.newest(folder, lambda facts: like, say=say)
    if saved is not None:
        checkpoints.set_aside(folder, after=saved.step)
    return saved


class Finished(NamedTuple):
    """A trained run and the very data that it was trained on, split as it was."""

    trained: Trained
    parts: source.Parts


def open_finished(run_dir: Path | str, checkpoint: str = "best", data_dir: Path | str | None = None) -> Finished:
    """A trained run and its data; other data, or a changed split, raise :class:`InputError`.

    ``data_dir`` is the folder of the built data set where it is no longer the one that the run was trained from.
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


def cases_of(trained: Trained, records: Sequence[Record], *, part: str = "") -> list[Case]:
    """The per-case table of some records, at each record's own resolution, against its reference labels."""
    return [case_of(trained, record, found, part) for record, found in predicted(trained, records)]


def predicted(
    trained: Trained, records: Sequence[Record], *, batch_size: int = 8
) -> Iterator[tuple[Record, Prediction]]:
    """(record, prediction) pairs; records are read from disk batch by batch."""
    for start in range(0, len(records), batch_size):
        chunk = [records[place] for place in range(start, min(start + batch_size, len(records)))]
        spacings = [record.spacing for record in chunk]
        found = predict(trained, [record.image for record in chunk], spacings=spacings, batch_size=batch_size)
        yield from zip(chunk, found)


def case_of(trained: Trained, record: Record, found: Prediction, part: str = "") -> Case:
    """A record's row of the per-case table: what was predicted, beside its reference outline, grade and malignancy."""
    grades = trained.facts["grades"]
    return metrics.measure(
        record.case,
        record.group,
        part=part,
        predicted=None if found.probability is None else found.probability >= 0.5,
        reference=record.mask,
        spacing=record.spacing,
        probability=None if found.grades is None else dict(zip(grades, found.grades.tolist())),
        grade_truth="" if record.grade is None else grades[record.grade],
        p_malignant=found.malignant,
        malignant_truth=record.malignant,
    )


class Evaluation(NamedTuple):
    """An evaluated part: its table, its measures with intervals, and where table and page lie."""

    cases: list[Case]
    summary: metrics.Summary
    table: Path
    page: Path


def evaluate(
    run_dir: Path | str,
    finished: Finished,
    *,
    part: str = "test",
    checkpoint: str = "best",
    samples: int = 2000,
    picture: Path | None = None,
) -> Evaluation:
    """Predict one part, and write its table of cases and its report.

    The test part's are the run folder's own ``cases.csv`` and ``report/index.html``; another part's lie in
    ``report/PART``. ``picture`` also writes the page's outlines as one PNG.
    """
    from thyroid_jax.evaluate import report

    run_dir, (trained, parts) = Path(run_dir), finished
    table = run_dir / "cases.csv" if part == "test" else run_dir / "report" / part / "cases.csv"
    page = run_dir / "report" if part == "test" else table.parent
    records = getattr(parts, part)
    cases = cases_of(trained, records, part=part)
    shown = {case.case for group in report.best_median_worst(cases).values() for case in group}
    chosen = [record for record in records if record.case in shown]  # predicted again: not every image fits the memory
    pictures = [
        report.Picture(record.case, record.image, record.mask, found.probability >= 0.5)
        for record, found in predicted(trained, chosen)
        if found.probability is not None
    ]
    if picture is not None and pictures:
        captions = [report_caption(case) for case in cases if case.case in shown]
        write_bytes(picture, report.png(report.overlay_grid(pictures, captions)))
    summary = metrics.summary(cases, samples=samples)
    write_cases(table, cases)
    contents = report.Report(
        title=f"{parts.card.title}: {part} part",
        subtitle=f"{checkpoint} checkpoint, step {trained.step}",
        config=dict(flat(to_dict(trained.config))),
        summary=summary,
        counts={side: part_counts(getattr(parts, side)) for side in source.PARTS},
        cases=cases,
        log=read_log(run_dir / "log.jsonl"),
        pictures=pictures,
        notes=(*label_notes(parts.card), *NOTES),
    )
    return Evaluation(cases, summary, table, report.write_report(page, contents))


NOTES = (
    "Outlines are compared at the pixels of the prepared image (cropped to the scan), not at the network's input size. "
    "HD95 is undefined where one of the two outlines is empty.",
    "Intervals resample whole groups (patients or cases), 95 % expanded percentile bootstrap. They do not cover another split or "
    "another seed.",
    "The reference is what the data set calls so. A research tool: nothing here is advice about a patient.",
)


def report_caption(case: Case) -> str:
    """A case in two short lines."""
    grades = f"{case.grade_truth or 'no grade'}, predicted {case.grade_predicted}" if case.grade_predicted else ""
    return f"{case.case}: Dice {case.dice:.2f}\n{grades}"


def part_counts(records: Sequence[Record]) -> dict[str, int]:
    """Groups, images and labels of a part."""
    groups, counts = set(), {"with outline": 0, "with grade": 0, "with malignancy": 0}
    for record in records:
        groups.add(record.group)
        counts["with outline"] += record.mask is not None
        counts["with grade"] += record.grade is not None
        counts["with malignancy"] += record.malignant is not None
    return {"groups": len(groups), "images": len(records), **counts}


def label_notes(card: Card) -> list[str]:
    """What the data set's labels mean."""
    family = f" Grades are of the {card.grade_system} family and are not interchangeable with other systems'."
    return [card.labels + (family if card.grade_system else "")]


def print_summary(summary: metrics.Summary, say: Say = print) -> None:
    """The measures as a short table; the last column counts bootstrap replicates that could not be measured."""
    say(f"{'measure':<28}{'value':>8}   {'95 % interval':<19}{'images':>7}{'undefined':>11}{'groups':>8}{'left out':>10}")
    for name, entry in summary.items():
        interval = f"{entry['low']:.3f} to {entry['high']:.3f}"
        counts = f"{entry['n']:>7.0f}{entry['undefined']:>11.0f}{entry['groups']:>8.0f}{entry['replicates_undefined']:>10.0f}"
        say(f"{name:<28}{entry['value']:>8.3f}   {interval:<19}{counts}")
