"""The parameters of another run as the start of a new one, with a schedule of its own, on the same data and split."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax

from thyroid_jax.config import Config
from thyroid_jax.data import source
from thyroid_jax.errors import InputError
from thyroid_jax.model import Params
from thyroid_jax.predict import fingerprint, layout, load, read_config
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Recipe

MAY_DIFFER = ("dtype", "remat", "frozen_levels", "pooled_trains")
"""settings of the network that its parameters do not depend on"""


class Start(NamedTuple):
    """Parameters to start from, their :func:`~thyroid_jax.predict.fingerprint`, and the SHA-256 of the published
    weights that their encoder once started from, or "".
    """

    params: Params
    digest: str
    encoder_weights: str


def start_of(config: Config, recipe: Recipe, parts: source.Parts) -> Start:
    """The parameters of the last checkpoint of the run ``config.train.start_from``, those that it predicts with.

    Raises :class:`InputError` unless that run has the same network, parameters of the same names and shapes, the same
    kind of grade where both train it, and the same data set and split, and no larger share of its training part, drawn
    by the same seed: otherwise it may have learnt from images that the new run holds out or leaves out.
    """
    run_dir = Path(config.train.start_from)
    theirs, was_made_from = read_config(run_dir / "config.json")
    where = f"train.start_from {run_dir}:"
    differing = [
        f"model.{field.name} ({getattr(theirs.model, field.name)} there, {getattr(config.model, field.name)} here)"
        for field in dataclasses.fields(config.model)
        if field.name not in MAY_DIFFER and getattr(theirs.model, field.name) != getattr(config.model, field.name)
    ]
    if differing:
        raise InputError(f"{where} the run has another network: {', '.join(differing)}. Give the same settings.")
    if (was_made_from.get("data"), was_made_from.get("split")) != (parts.digest, parts.split_digest):
        raise InputError(
            f"{where} the run was trained on other data or on another split. It may have learnt from images that are "
            "held out here; start from a run with the same data set and folds."
        )
    if theirs.data.share > config.data.share:
        raise InputError(
            f"{where} the run was trained with data.share {theirs.data.share:g}, and here it is {config.data.share:g}: "
            "its parameters know more images than this run may see. Start from a run with no larger share."
        )
    if config.data.share < 1 and theirs.data.split_seed != config.data.split_seed:
        raise InputError(
            f"{where} the run drew its share of the training part with data.split_seed {theirs.data.split_seed}, and "
            f"here it is {config.data.split_seed}: its parameters know images that this run may not see. Give the same "
            "seed."
        )
    source.check_split(run_dir / "split.json", parts)
    trained = load(run_dir, checkpoint="last")
    unequal = sorted(_shapes(trained.params).items() ^ _shapes(layout(recipe)).items())
    if unequal or trained.facts["target"] != list(clinical.TARGET):
        named = ", ".join(dict.fromkeys(name for name, _ in unequal)) or "the guidance target"
        raise InputError(
            f"{where} {named}: not in both runs, or of another shape. Switch on the same penalties, and use the same "
            "version."
        )
    kinds, tasks = (theirs.grading.kind, config.grading.kind), {task.name for task in recipe.tasks}
    if "grading" in tasks & {*trained.facts["tasks"]} and kinds[0] != kinds[1]:
        raise InputError(
            f"{where} grading.kind is {kinds[0]} there and {kinds[1]} here: the outputs of its grade head mean "
            "something else. Give the same kind."
        )
    return Start(trained.params, fingerprint(trained), trained.facts["encoder_weights"])


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
