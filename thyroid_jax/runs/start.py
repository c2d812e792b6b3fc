"""Start a run, or resume the one in a folder."""

from __future__ import annotations

from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import checkpoints, extras
from thyroid_jax.config import PLACES, Config, recipe_of
from thyroid_jax.data import source
from thyroid_jax.data.pipeline import DataConfig, Examples, joined, load, with_target
from thyroid_jax.data.record import Card
from thyroid_jax.data.storage import read_metadata
from thyroid_jax.errors import InputError, Interrupted
from thyroid_jax.files import alone_in
from thyroid_jax.fitting import learn_from
from thyroid_jax.model import check_size, pretrained
from thyroid_jax.recipe import Recipe
from thyroid_jax.runs.folder import (
    Echo,
    check_claim,
    claim,
    facts_of,
    made_from,
    remove_evaluations,
    resume,
    was_stopped,
)
from thyroid_jax.runs.start_from import Start, start_of
from thyroid_jax.settings import flat, to_dict
from thyroid_jax.tasks import TASKS
from thyroid_jax.train import hosts, signals
from thyroid_jax.train.devices import SPREADS, check_divides
from thyroid_jax.train.loop import Progress, check_labels, fit
from thyroid_jax.train.objective import scheduled_weight
from thyroid_jax.train.options import DEFAULTS, ProcessOptions
from thyroid_jax.train.progress import say
from thyroid_jax.train.saving import resumed
from thyroid_jax.train.step import TrainState, init_state, unpacked

READ_BY_HEADS = ("pooling", "pooled_levels", "pooled_trains", "evidence")
"""settings of the network that the outline does not depend on"""


class Data(NamedTuple):
    """A run's data: the records of all parts, and the training and validation parts at network size.

    ``remarks`` say what was left out of the data sets that are trained on besides.
    """

    parts: source.Parts
    training: Examples
    validation: Examples
    remarks: tuple[str, ...] = ()


def open_parts(config: Config) -> source.Parts:
    """The data set that a config names, split as it says, and those that are trained on besides."""
    data = config.data
    split_file = Path(data.split) if data.split else None
    return source.open_parts(
        data.dir,
        data.name,
        folds=data.folds,
        fold=data.fold,
        seed=data.split_seed,
        split_file=split_file,
        share=data.share,
        also=[name for name, _ in data.added],
    )


def open_data(config: Config) -> Data:
    """Open and split the data set, and load its training and validation parts."""
    check_size(config.model, config.data.height, config.data.width)
    parts = open_parts(config)
    check_reader(config.data, parts)
    size, grades = (config.data.height, config.data.width), grade_count(parts.card)
    reader = config.data.reader
    sets = [load(parts.train, grades, size, reader=reader)]
    added = source.for_training(parts)
    sets += [load(records, grades, size, reader=reader) for records, _ in added]
    weights = [1.0, *(weight for _, weight in config.data.added)]
    training = joined(sets, weights) if added else sets[0]
    return Data(parts, training, load(parts.validation, grades, size), tuple(remark for _, remark in added))


def check_reader(data: DataConfig, parts: source.Parts) -> None:
    """Raise :class:`InputError` where a reader's own labels are asked for, and no training image has that reader's."""
    if data.reader in ("mean", "reference"):
        return
    own = read_metadata(data.dir, data.name).entries
    entries = [own[row] for row in parts.train.rows] + [one for added in parts.added for one in added.records.entries]
    most = max((entry.readers for entry in entries), default=0)
    if most <= (0 if data.reader == "sample" else int(data.reader)):
        raise InputError(
            f"data.reader is {data.reader!r}, but no training image has "
            + (f"the labels of more than {most} readers, counted from 0" if most else "labels of several readers")
            + "; choose another, or mean."
        )


def grade_count(card: Card) -> int:
    """Grade classes of the grading head: those of the data set, two at least."""
    return max(2, len(card.grades))


def train(config: Config, run_dir: Path, *, options: ProcessOptions = DEFAULTS, echo: Echo = say) -> TrainState:
    """Start a run in ``run_dir``, or resume the one that is there, up to its last epoch; return the last state.

    A folder that holds a run of another configuration, data set or split, or that another process trains in, raises
    :class:`InputError`, and nothing in it is touched. The values fitted on the training part are kept in the
    checkpoints: a resumed run uses them unchanged, on any device. Tables of cases and pages that were made before the
    last step are removed.

    In the main thread, SIGTERM and SIGINT end the training after the step in hand: a checkpoint is written, and
    :class:`~thyroid_jax.errors.Interrupted` says how to go on (:mod:`thyroid_jax.train.signals`).

    Several processes that have joined (:func:`thyroid_jax.train.hosts.join`) call it alike. The first one writes the
    run folder, says what there is to say, and gives the others its state; a signal to any of them stops all.
    """
    if options.tensorboard:
        extras.require("tensorboardX")
    spread = SPREADS[config.devices.mode]()
    check_divides(config.train.batch_size, spread.mesh.size, config.train.accumulate)
    data = open_data(config)
    hosts.check_same(settings_that_count(config, options) | made_from(data.parts))
    hosts.decided_by_first(lambda: check_claim(run_dir, config, data.parts))
    tasks = labelled_tasks(recipe_of(config, grades=grade_count(data.parts.card)), data.training)
    check_labels(config.train, data.validation.batch, tasks)
    begins = config.train.start_from and not checkpoints.steps(run_dir / "checkpoints" / "last")
    start_from = start_of(config, tasks, data.parts) if begins else None
    if hosts.first():
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # a place without folders, such as /proc
            raise InputError(f"{run_dir}: no folder can be made there; choose another --run-dir.") from error
    else:
        echo = silent
    with hosts.held_by_first(alone_in(run_dir)):
        hosts.decided_by_first(lambda: check_claim(run_dir, config, data.parts))
        hosts.decided_by_first(lambda: claim(run_dir, config, data.parts))
        if hosts.first() and was_stopped(run_dir, config.train):
            remove_evaluations(run_dir, echo)
        start, recipe, origin = begin(run_dir, config, tasks, data.training, start_from, echo)
        first_step = int(start.state.step)
        echo(describe(recipe, data, config))
        training, validation = guided(data, recipe, config)
        with signals.heeded() as asked:
            state = fit(
                run_dir,
                recipe,
                config.train,
                start,
                training,
                validation,
                spread,
                facts=facts_of(data.parts, recipe, config) | origin,
                options=options,
                stop=asked,
                echo=echo,
            )
        if hosts.first() and int(state.step) > first_step:  # made while the run was trained
            remove_evaluations(run_dir, echo)
        signal = hosts.most(asked.signal or 0)  # that of any process
        if signal:
            raise Interrupted(stopped_after(Signals(signal), run_dir, state), status=signals.STATUS[Signals(signal)])
        return state


def begin(
    run_dir: Path, config: Config, tasks: Recipe, training: Examples, start_from: Start | None, echo: Echo
) -> tuple[Progress, Recipe, dict[str, str]]:
    """Where a run begins, the recipe with its fitted values, and where its parameters are from; alike in all processes.

    It goes on from the newest checkpoint where there is one, with the values fitted then, and otherwise begins afresh.
    """
    saved = resume(run_dir, tasks, echo)
    if saved is None:
        recipe = tasks.replace(fitted=learn_from(training, config))
        state, weights = fresh_state(recipe, config, start_from)
        start, origin = Progress(state, None), "" if start_from is None else start_from.digest
    else:
        recipe = tasks.replace(fitted=jax.device_get(saved.arrays["fitted"]))
        start, weights = resumed(unpacked(saved.arrays), saved.facts), saved.facts["encoder_weights"]
        origin = saved.facts.get("start_from", "")  # checkpoints of earlier versions have none
        echo(f"going on from step {saved.step}")
    state, fitted = hosts.as_in_first((start.state, recipe.fitted))
    return (
        start._replace(state=state),
        recipe.replace(fitted=fitted),
        {"encoder_weights": weights, "start_from": origin},
    )


def silent(text: str) -> None:
    """Say nothing, in all processes but the first."""


def settings_that_count(config: Config, options: ProcessOptions) -> dict[str, Any]:
    """The settings and options in which the processes of one run must not differ."""
    settings = {name: value for name, value in flat(to_dict(config)) if name not in PLACES}
    return settings | {"nonfinite": options.nonfinite, "jax": jax.__version__}


def stopped_after(signal: Signals, run_dir: Path, state: TrainState) -> str:
    """One line that says where a run was stopped, and how to go on."""
    step = int(state.step)
    return f"{signal.name}: stopped after step {step}; the same command goes on from there ({run_dir})"


def fresh_state(recipe: Recipe, config: Config, start_from: Start | None = None) -> tuple[TrainState, str]:
    """A fresh state, and the SHA-256 of the published weights that its encoder started from, or "".

    Its parameters are those of ``start_from``, or fresh ones, with published weights in the encoder where the config
    asks for them.
    """
    state, weights = init_state(recipe, jax.random.key(config.train.seed)), config.train.encoder_weights
    if start_from is not None:
        params, digest = jax.tree.map(jnp.asarray, start_from.params), start_from.encoder_weights
    elif weights:
        encoder, digest = pretrained.load(config.model.encoder, None if weights == "package" else weights)
        params = state.params | {"encoder": jax.tree.map(jnp.asarray, encoder)}
    else:
        return state, ""
    average = jax.tree.map(jnp.copy, params) if state.average else ()
    return state._replace(params=params, average=average), digest


def labelled_tasks(recipe: Recipe, training: Examples) -> Recipe:
    """The recipe with only those tasks for which a training image has a label.

    Raises :class:`InputError` when none is left, or when RLAR, the consistency, CosReg or a multitask method needs one
    of the others.
    """
    has_label = {task.name: bool(np.asarray(task.defined(training.batch)).any()) for task in recipe.tasks}
    kept = tuple(task for task in recipe.tasks if has_label[task.name])
    without = [name for name, there in has_label.items() if not there]
    if not kept:
        raise InputError(f"no training image has a label of {' or '.join(without)}; there is nothing to learn.")
    if recipe.model.reads_outline and "segmentation" in without:
        raise InputError(
            "no training image has an outline, and nothing would teach the one that the heads read; set model.pooling "
            "mean and model.evidence learned."
        )
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
    """Training and validation part, with the guidance target where it is needed."""
    if not any(task.name == "guidance" for task in recipe.tasks):
        return data.training, data.validation
    scaling, cut, chunk = recipe.fitted.scaling, float(recipe.fitted.mask_cut), config.train.batch_size
    original = config.guidance.view == "original"  # else every step measures its own views
    training = with_target(data.training, scaling, cut=cut, chunk=chunk) if original else data.training
    return training, with_target(data.validation, scaling, chunk=chunk)


def describe(recipe: Recipe, data: Data, config: Config) -> str:
    """The run in two lines: numbers of images and steps, and every term of the objective with its weight.

    Further lines are remarks on the data, and warnings: of a batch larger than the training part, and of settings that
    change nothing in this run.
    """
    settings = recipe.settings
    trained = {task.name for task in recipe.tasks}
    off = [task.name for task in TASKS if getattr(config, task.name).weight and task.name not in trained]
    terms = [f"{settings[task.name].weight:g} {task.name}" for task in recipe.tasks]
    for penalty in recipe.penalties:
        kind = f" ({settings['rlar'].kind} at {settings['rlar'].level})" if penalty.name == "rlar" else ""
        terms.append(f"{settings[penalty.name].weight:g} {penalty.name}{kind}")
    method = settings["mtl"]
    weighed = "" if method.method == "equal" else f"; weighed by {method.method}"
    weighed += f" at the {method.at}" if method.compares_gradients else ""
    missing = f"; no label for {', '.join(off)}" if off else ""
    warnings = [*_of_the_batch(data, config), *_of_the_length(recipe), *_without_effect(recipe, config)]
    return (
        f"{len(data.training.cases)} training and {len(data.validation.cases)} validation images, "
        f"{int(recipe.fitted.total_steps)} steps\nminimises {' + '.join(terms)}{weighed}{missing}"
        + "".join(f"\n{remark}" for remark in [*data.remarks, *warnings])
    )


def _of_the_length(recipe: Recipe) -> list[str]:
    if recipe.fitted.total_steps != 1:
        return []
    return ["warning: the run has one step, and the learning rate of a run's first step is 0: nothing is learned."]


def _of_the_batch(data: Data, config: Config) -> list[str]:
    images, size = data.training.per_epoch, config.train.batch_size
    if size <= images:
        return []
    return [
        f"warning: train.batch_size {size} is more than the {images} images of an epoch: each epoch is one step, and "
        f"{size - images} rows of its batch are padding. Take a smaller --train.batch-size for more steps."
    ]


def _without_effect(recipe: Recipe, config: Config) -> list[str]:
    """Settings that named configs may combine, or that depend on the length of the run, and change nothing here."""
    found, default, steps = [], Config(), int(recipe.fitted.total_steps)
    of_heads = [name for name in READ_BY_HEADS if getattr(config.model, name) != getattr(default.model, name)]
    if of_heads and [task.name for task in recipe.tasks] == ["segmentation"]:
        named = ", ".join(f"model.{name}" for name in of_heads)
        found.append(f"warning: only the outline is trained, and no head is read: without effect are {named}.")
    for penalty in recipe.penalties:
        chosen = recipe.settings[penalty.name]
        if steps and not scheduled_weight(chosen, steps - 1, float(steps)):
            name = f"{penalty.name}.warmup {chosen.warmup:g}"
            found.append(f"warning: {penalty.name} is without effect: of {steps} steps, none is behind {name}.")
    evaluations = -(-config.train.epochs // config.train.evaluate_every)
    if config.train.patience > max(0, evaluations - 2):
        found.append(
            f"warning: train.patience {config.train.patience} is without effect: the run has {evaluations} evaluations."
        )
    return found
