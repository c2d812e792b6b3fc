"""Train one model on one data set; run the same command again to go on after an interruption.

python -m experiments.train --data.name ddti --data.dir data --run-dir runs/ddti [--config NAME] [--group.field value
...]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.configs import CONFIGS
from experiments.runtime import prepare
from thyroid_jax.config import Config, ConsistencyConfig, from_dict, to_dict
from thyroid_jax.data import source
from thyroid_jax.data.pipeline import Examples, load, scale_radiomics, steps_per_epoch
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.files import read_json, remove_fragments, write_json
from thyroid_jax.model import check_size
from thyroid_jax.radiomics import clinical, soft
from thyroid_jax.train.devices import check_divides, data_mesh
from thyroid_jax.train.loop import fit
from thyroid_jax.train.objective import trained


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """Train one model on one data set; run the same command again to go on after an interruption."""

    run_dir: Path
    """folder of the run: config, split, logs, checkpoints and report"""


def parse(argv: Sequence[str]) -> tuple[Config, Path]:
    """Command line to config and run folder: the preset named by ``--config`` first, then every field that was given."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--config", choices=sorted(CONFIGS), default="small")
    chosen, rest = chooser.parse_known_args(argv)
    fields = {field.name: getattr(CONFIGS[chosen.config](), field.name) for field in dataclasses.fields(Config)}
    arguments = tyro.cli(
        Arguments,
        args=rest,
        prog="python -m experiments.train",
        description=f"{Arguments.__doc__} --config {{{','.join(sorted(CONFIGS))}}} chooses where the fields start from.",
        default=Arguments(run_dir=tyro.MISSING, **fields),
    )
    return Config(**{name: getattr(arguments, name) for name in fields}), arguments.run_dir


def open_run(config: Config, run_dir: Path) -> tuple[Config, Examples, Examples, dict[str, Any]]:
    """Load the data, fill in what the config takes from it, and claim ``run_dir``: (config, training, validation,
    facts).

    A run folder that already holds another configuration raises :class:`InputError` with the fields that differ.
    """
    check_size(config.model, config.data.height, config.data.width)
    check_divides(config.train.batch_size, data_mesh())
    parts = source.open_parts(config.data, run_dir / "split.json")
    size, grades = (config.data.height, config.data.width), max(2, len(parts.card.grades))
    training, validation = (
        load(parts.train, grades, size, labels=config.data.labels),
        load(parts.validation, grades, size),
    )
    check_monitor(config, validation)
    check_tasks(config, training)
    check_consistency(config, grades)
    every_value = training.batch.radiomics_valid[:, None].repeat(len(clinical.TARGET), axis=1)
    scaling = clinical.fit_scaling(training.batch.radiomics, every_value)
    training, validation = (scale_radiomics(part, scaling) for part in (training, validation))
    config = fill_in(config, training, grades, scaling)
    claim(run_dir, config, parts)
    facts = {
        "data": parts.card.name,
        "digest": parts.digest,
        "grades": list(parts.card.grades),
        "grade_system": parts.card.grade_system,
        "radiomics": {
            "names": list(clinical.TARGET),
            "centre": scaling.centre.tolist(),
            "spread": scaling.spread.tolist(),
        },
    }
    return config, training, validation, facts


def check_monitor(config: Config, validation: Examples) -> None:
    """Raise :class:`InputError` when the measure that chooses the best checkpoint is of a task not trained, or without a
    label.
    """
    name = config.train.monitor
    task = "segmentation" if name == "dice" else "grading"
    if not getattr(config, task).weight:
        raise InputError(
            f"train.monitor is {name!r}, but {task}.weight is 0; choose a measure of the task that is trained."
        )
    known = validation.batch.mask_valid if name == "dice" else validation.batch.grade_valid
    if not known.any():
        other = "quadratic_kappa" if name == "dice" else "dice"
        raise InputError(f"train.monitor is {name!r}, but no validation image has the label for it; choose {other!r}.")


def check_tasks(config: Config, training: Examples) -> None:
    """Raise :class:`InputError` when a multitask method is to weigh a task that no training image has a label for."""
    batch = training.batch
    known = {"segmentation": batch.mask_valid, "grading": batch.grade_valid, "guidance": batch.radiomics_valid}
    missing = [name for name in trained(config) if not known[name].any()]
    if missing and config.mtl.method != "equal":
        method, task = config.mtl.method, missing[0]
        raise InputError(
            f"mtl.method {method} weighs {task}, but no training image has its label; set {task}.weight 0."
        )


def check_consistency(config: Config, grades: int) -> None:
    """Raise :class:`InputError` when the grades that count as malignant are none, or all, or when a shape feature does
    not exist.
    """
    if not config.consistency.weight:
        return
    first, unknown = (
        config.consistency.first_malignant,
        [name for name in config.consistency.features if name not in soft.FEATURES],
    )
    if first == 0 or not -grades < first < grades:
        raise InputError(
            f"consistency.first_malignant is {first}; of {grades} grades choose 1 to {grades - 1}, or -1 for the highest."
        )
    if unknown:
        raise InputError(f"consistency.features names {unknown[0]!r}; choose of {', '.join(soft.FEATURES)}.")


def fill_in(config: Config, training: Examples, grades: int, scaling: clinical.Scaling) -> Config:
    """The config with what follows from the training part: head sizes, class weights, the target's scaling, shape means,
    total steps.
    """
    steps = config.train.epochs * steps_per_epoch(len(training.cases), config.train.batch_size)
    weights = class_weights(training.batch.grade[training.batch.grade_valid], config.grading.balance)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, grades=grades, radiomics=len(clinical.TARGET)),
        grading=dataclasses.replace(config.grading, class_weights=weights),
        guidance=dataclasses.replace(config.guidance, centre=_rounded(scaling.centre), spread=_rounded(scaling.spread)),
        consistency=dataclasses.replace(config.consistency, centre=shape_means(training, config.consistency)),
        train=dataclasses.replace(config.train, total_steps=steps),
    )


def class_weights(grade: np.ndarray, balance: float) -> tuple[float, ...]:
    """Weights frequency ** -balance of grades f[n k], scaled so that the examples' mean weight is 1; () for balance 0 or
    no grade.
    """
    counts = grade.sum(0)
    if balance == 0 or not len(grade):
        return ()
    raw = np.where(counts > 0, np.maximum(counts, 1e-9) ** -balance, 0.0)
    return _rounded(raw * counts.sum() / (raw * counts).sum())


def shape_means(training: Examples, settings: ConsistencyConfig) -> tuple[float, ...]:
    """Mean of the shape features over the training outlines that are large enough; () without the consistency, or
    without outlines.
    """
    masks = training.batch.mask[training.batch.mask_valid]
    masks = masks[(masks >= 128).sum((1, 2)) > settings.min_pixels]
    if not settings.weight or not len(masks):
        return ()
    measure = jax.jit(partial(soft.morphology, features=settings.features))
    return _rounded(np.mean([np.asarray(measure(mask[None].astype(np.float32) / 255))[0] for mask in masks], axis=0))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.7g}") for value in values)


def claim(run_dir: Path, config: Config, parts: source.Parts) -> None:
    """Write ``config.json`` and ``split.json``, or make sure that those already there are these very ones.

    Where the data lie is not part of a configuration: ``data.dir`` may differ.
    """
    path = run_dir / "config.json"
    if path.is_file():
        found = dict(_flat(to_dict(from_dict(Config, read_json(path), where=str(path)))))
        differing = [name for name, value in _flat(to_dict(config)) if name != "data.dir" and value != found[name]]
        if differing:
            raise InputError(
                f"{path}: the run was started with another configuration; {', '.join(differing)} differ. "
                "Give the same settings to go on with it, or name a new --run-dir."
            )
    run_dir.mkdir(parents=True, exist_ok=True)
    remove_fragments(run_dir)
    write_json(run_dir / "split.json", parts.split)
    write_json(path, to_dict(config))


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return pairs


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    config, run_dir = parse(sys.argv[1:] if argv is None else argv)
    config, training, validation, facts = open_run(config, run_dir)
    print(
        f"{len(training.cases)} training and {len(validation.cases)} validation images, {config.train.total_steps} steps"
    )
    fit(config, run_dir, training, validation, facts)
    print(f"done; now: python -m experiments.evaluate --run-dir {run_dir}")


if __name__ == "__main__":
    main()
