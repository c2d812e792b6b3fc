"""The files of a run folder and checks that they belong to a run: settings, digests of data and split, checkpoints."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import thyroid_jax
from thyroid_jax import checkpoints
from thyroid_jax.config import Config, may_not_differ
from thyroid_jax.data import source
from thyroid_jax.errors import InputError
from thyroid_jax.files import remove_fragments, write_json
from thyroid_jax.predict import ABOUT_RUN, check_own, digest_in_facts, read_config, settings_digest
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Recipe
from thyroid_jax.settings import flat, to_dict
from thyroid_jax.train import hosts
from thyroid_jax.train.log import Row, read_log
from thyroid_jax.train.options import TrainConfig
from thyroid_jax.train.step import init_state
from thyroid_jax.train.validation import out_of_patience

Echo = Callable[[str], None]


def facts_of(parts: source.Parts, recipe: Recipe, config: Config) -> dict[str, Any]:
    """Facts about data and settings for every checkpoint: names and digests, nothing that depends on a device."""
    return {
        "version": thyroid_jax.__version__,
        "data": parts.card.name,
        "digest": parts.digest,
        "split": parts.split_digest,
        "settings": digest_in_facts(config),
        "grades": list(parts.card.grades),
        "grade_system": parts.card.grade_system,
        "tasks": [task.name for task in recipe.tasks],
        "target": list(clinical.TARGET),
    }


def made_from(parts: source.Parts) -> dict[str, str]:
    """What a run is made from, beside its settings: the version, and digests of data and split."""
    return {"version": thyroid_jax.__version__, "data": parts.digest, "split": parts.split_digest}


def check_claim(run_dir: Path, config: Config, parts: source.Parts) -> None:
    """Raise :class:`InputError` when the folder holds a run of another configuration, data set or split."""
    path = run_dir / "config.json"
    if path.is_file():
        was_made_from = check_settings(path, config)
        check_same_data(run_dir, parts, was_made_from.get("data"), was_made_from.get("split"))


def check_settings(path: Path, config: Config) -> dict[str, Any]:
    """Raise :class:`InputError` when a run's ``config.json`` holds other settings; return what the run was made from.

    Where the data lie, and how the batch is spread, may differ: ``data.dir``, ``data.split`` and ``devices``.
    """
    found, was_made_from = read_config(path)
    differing = differing_settings(found, config)
    if differing == ["train.epochs"]:
        raise InputError(f"{path}: {_other_length(path.parent, found.train, config.train.epochs)}")
    if differing:
        raise InputError(
            f"{path}: the run was started with another configuration; {', '.join(differing)} differ. "
            "Give the same settings to go on with it, or name a new --run-dir."
        )
    return was_made_from


def differing_settings(first: Config, second: Config) -> list[str]:
    """Names of the settings in which two configs differ, but for those that say where data lie and how a batch is
    spread: ``data.dir``, ``data.split`` and ``devices``.
    """
    before = dict(flat(to_dict(first)))
    return [name for name, value in flat(to_dict(second)) if may_not_differ(name) and value != before[name]]


def _other_length(run_dir: Path, train: TrainConfig, asked: int) -> str:
    """What to do when a run is to be longer or shorter than it was planned."""
    rows, planned = read_log(run_dir / "log.jsonl"), train.epochs
    done = epochs_done(rows)
    if done >= planned or out_of_patience(rows, train.patience):
        offer = f"The run is finished; to train {asked} epochs, give the same command a new --run-dir."
        if asked > planned:
            here, longer = shlex.quote(str(run_dir)), shlex.quote(f"{run_dir}-longer")
            offer += (
                " To go on from its parameters with a schedule of its own, give the same command with "
                f"--train.epochs {asked - done} --train.start-from {here} --run-dir {longer}"
            )
    else:
        offer = f"To go on from epoch {done}, give --train.epochs {planned}; for {asked}, a new --run-dir."
    return (
        f"the run was started with another configuration; train.epochs differ: {planned} then, {asked} now. Its "
        f"learning rate follows a schedule of {planned} epochs, which cannot be stretched. {offer}"
    )


def epochs_done(rows: Sequence[Row]) -> int:
    """The last epoch of a log, 0 without one."""
    return max((row["epoch"] for row in rows if row.get("split") == "train"), default=0)


def was_stopped(run_dir: Path, train: TrainConfig) -> bool:
    """Whether a run was stopped before its last epoch, and not by ``train.patience``: a table of its cases is then that
    of an early checkpoint. By its log; False where it has none.
    """
    log, newest = run_dir / "log.jsonl", checkpoints.steps(run_dir / "checkpoints" / "last")
    if not log.is_file():
        return False
    rows = [row for row in read_log(log) if not newest or row["step"] <= max(newest)]
    return epochs_done(rows) < train.epochs and not out_of_patience(rows, train.patience)


def remove_evaluations(run_dir: Path, echo: Echo) -> None:
    """Remove a run's tables of cases and their pages, which are of an earlier checkpoint, so that they are not taken
    for later ones.
    """
    report = run_dir / "report"
    for file in (
        run_dir / "cases.csv",
        report / "index.html",
        *sorted(report.glob("*/cases.csv")),
        *sorted(report.glob("*/index.html")),
    ):
        if file.is_file():
            file.unlink()
            echo(f"removed {file.relative_to(run_dir)}, which is of an earlier checkpoint; evaluate the run again")


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
    """Write ``config.json`` and ``split.json`` where they are missing, and remove what a killed run left half-written.

    The caller holds the folder's lock.
    """
    for folder in (run_dir, run_dir / "checkpoints" / "last", run_dir / "checkpoints" / "best"):
        if folder.is_dir():
            remove_fragments(folder)
            checkpoints.remove_fragments(folder)
    if not (run_dir / "split.json").is_file():
        write_json(run_dir / "split.json", parts.split)
    if not (run_dir / "config.json").is_file():
        settings = to_dict(config)
        about = made_from(parts) | {"settings": settings_digest(settings)}
        write_json(run_dir / "config.json", settings | {ABOUT_RUN: about})


def resume(run_dir: Path, recipe: Recipe, echo: Echo) -> checkpoints.Saved | None:
    """The newest whole checkpoint of a run, or None. Damaged newer ones are set aside, so that they are not lost.

    Raises :class:`InputError` for another run's checkpoint. Of several processes the first one reads it; in the others
    its arrays are zeros.
    """
    folder, read = run_dir / "checkpoints" / "last", []

    def layout() -> dict[str, Any]:
        return jax.eval_shape(lambda: init_state(recipe, jax.random.key(0))).packed() | {"fitted": recipe.fitted}

    def like(facts: dict[str, Any]) -> dict[str, Any]:
        check_own(folder, facts, *read_config(run_dir / "config.json"))
        return layout()

    def about_newest() -> dict[str, Any] | None:
        saved = checkpoints.newest(folder, like, echo=echo)
        if saved is None:
            return None
        checkpoints.set_aside(folder, after=saved.step)
        read.append(saved)
        return {"facts": saved.facts, "step": saved.step}

    about = hosts.decided_by_first(about_newest)
    if about is None or read:
        return read[0] if read else None
    return checkpoints.Saved(jax.tree.map(_zeros, layout()), **about)


def _zeros(like: Any) -> Any:
    key = jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)
    return jax.random.key(0) if key else np.zeros(like.shape, like.dtype)
