"""What settings of the heads are worth on few images: the heads alone, on frozen features, on all folds at once.

python -m experiments.head_study --data.name breast_lesions --data.dir data [--variants default "head-decay-100"]
    [--part validation] [--seeds 0 1] [--steps 800] [--out runs/heads]

An encoder with its published weights sees every image once as it is, and in ``--views`` random views. Its last three
levels are averaged over a reference outline that is moved, stretched and bent, in place of the outline that a network
would predict. The network's own heads are then trained on these averages, with the losses, class weights and optimiser
of a run. Each fold is predicted by heads that saw neither it nor the validation fold. Minutes for what takes hours in
full training; it says nothing of what the grade does to the encoder.

Choose on ``--part validation``; ``--part test`` is for one comparison at the end. The pooled predictions are kept as
OUT/PART/VARIANT.csv, and ``python -m experiments.tables`` prints the tables again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from thyroid_jax import command, extras, model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data.augment import augment
from thyroid_jax.data.distort import distort
from thyroid_jax.data.pipeline import DataConfig
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.evaluate.paired import comparison
from thyroid_jax.fitting import class_weights
from thyroid_jax.model import Latent, evidence, pretrained
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Fitted, Recipe
from thyroid_jax.runs.folds import Folds, open_folds, scored_case
from thyroid_jax.train.objective import evaluate, total
from thyroid_jax.train.optimizer import averaged, optimizer

from .runtime import prepare

LEVELS = 3
CHUNK = 16
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "rate-1e-3": {"optimizer": {"learning_rate": 1e-3}},
    "rate-3e-4": {"optimizer": {"learning_rate": 3e-4}},
    "head-decay-10": {"optimizer": {"head_decay": 10.0}},
    "head-decay-30": {"optimizer": {"head_decay": 30.0}},
    "head-decay-100": {"optimizer": {"head_decay": 100.0}},
    "head-decay-300": {"optimizer": {"head_decay": 300.0}},
    "32-units": {"model": {"hidden": 32, "embedding": 32}},
    "one-level": {"model": {"pooled_levels": 1}},
    "averaged": {"optimizer": {"average": 100}},
    "ordinal": {"grading": {"kind": "corn"}},
    "unbalanced": {"grading": {"balance": 0.0}, "malignancy": {"balance": 0.0}},
    "guidance": {"guidance": {"weight": 0.1}},
    "guidance-0.3": {"guidance": {"weight": 0.3}},
    "guidance-1": {"guidance": {"weight": 1.0}},
    "measured": {"model": {"evidence": "measured"}},
}
"""name -> groups of settings that differ from the default"""


@dataclass(frozen=True)
class Arguments:
    """What settings of the heads are worth on few images: the heads alone, on frozen features, on all folds at once."""

    data: DataConfig = field(default_factory=DataConfig)
    variants: tuple[str, ...] = tuple(VARIANTS)
    """names in VARIANTS, joined by a plus sign to combine them; the others are compared to the first"""
    encoder: str = "efficientnet_lite0"
    """a published encoder"""
    weights: str = "package"
    """its weights: of the installed package, or a file"""
    views: int = 24
    """random views of every image to train on"""
    steps: int = 800
    """training steps"""
    batch_size: int = 16
    """views in a step"""
    seeds: tuple[int, ...] = (0, 1)
    """seeds; every fold is trained with each of them"""
    part: Literal["validation", "test"] = "validation"
    """part that is predicted"""
    out: Path | None = None
    """folder for the pooled predictions"""
    samples: int = 2000
    """bootstrap replicates"""


class Views(NamedTuple):
    """What the heads learn from, for every view; view 0 is plain.

    ``levels`` f32[v n c] are the averaged features of every level, finest first. ``target`` f32[v n r] with ``valid``
    bool[v n r] is the guidance target of the view's own outline; ``measured`` and ``defined``, alike, are the measured
    evidence: the same of the moved outline.
    """

    levels: tuple[np.ndarray, ...]
    target: np.ndarray
    valid: np.ndarray
    measured: np.ndarray
    defined: np.ndarray


def views_of(arguments: Arguments, image: np.ndarray, mask: np.ndarray, cut: float) -> Views:
    """The views of images u8[n h w 1] with outlines u8[n h w]."""
    config = replace_groups(
        Config(), model={"encoder": arguments.encoder}, train={"encoder_weights": arguments.weights}
    )
    shape = recipe_of(config).model
    file = None if arguments.weights == "package" else arguments.weights
    params = {"encoder": pretrained.load(arguments.encoder, file)[0]}

    @jax.jit
    def look(key: Any, plain: Any, image: Any, mask: Any) -> Any:
        seen, outline = augment(jax.random.fold_in(key, 0), image, mask, config.augment)
        seen, outline = jnp.where(plain, image, seen), jnp.where(plain, mask, outline)
        moved = distort(jax.random.fold_in(key, 1), outline, config.distort)
        latent = model.encode(params, shape, seen)
        levels = tuple(
            evidence.weighted_mean(x, evidence.nodule_weights(moved, x.shape[1:3]))
            for x in (*latent.skips, latent.z)[-LEVELS:]
        )
        of = lambda outline: clinical.target(seen[..., 0], outline, cut=cut)
        return levels, *of(outline), *of(moved >= cut)  # as `measure_evidence` cuts it

    views = []
    for view in range(arguments.views + 1):
        parts = []
        for start in range(0, len(image), CHUNK):
            rows = np.arange(start, start + CHUNK) % len(image)  # the last chunk begins again: one program for all
            key = jax.random.fold_in(jax.random.key(view), start)
            found = look(key, view == 0, image[rows] / np.float32(255), mask[rows] / np.float32(255))
            left = len(image) - start
            parts.append(jax.tree.map(lambda a, left=left: np.asarray(a)[:left], found))
        views.append(jax.tree.map(lambda *a: np.concatenate(a), *parts))
    return Views(*jax.tree.map(lambda *a: np.stack(a), *views))


def config_of(arguments: Arguments, variant: str) -> Config:
    """The settings of a variant: no outline is trained, and features come averaged already."""
    config = replace_groups(
        Config(),
        model={"encoder": arguments.encoder, "frozen_levels": 5, "pooled_levels": LEVELS},
        train={"encoder_weights": arguments.weights, "monitor": "malignant_auroc"},
    )
    for name in variant.split("+"):
        if name not in VARIANTS:
            raise InputError(f"--variants {name!r} does not exist; choose of {', '.join(VARIANTS)}.")
        config = replace_groups(config, **VARIANTS[name])
    return config


def recipe_for(config: Config, folds: Folds, views: Views, training: np.ndarray) -> Recipe:
    """The recipe for the training images bool[n]: grade, malignancy and guidance, as far as there are labels."""
    labels = jax.tree.map(lambda a: a[training], folds.batch)
    grades = labels.grade.shape[1]
    recipe = recipe_of(config, grades=grades)
    there = [t for t in recipe.tasks if t.name != "segmentation" and np.asarray(t.defined(labels)).any()]
    malignant = np.stack([1 - labels.malignant, labels.malignant], axis=1)[labels.malignant_valid]
    target, valid = views.target[1:, training], views.valid[1:, training]
    seen = target, np.broadcast_to(valid.all(-1, keepdims=True), valid.shape)  # a step uses whole rows only
    fitted = Fitted.neutral(grades, len(clinical.TARGET), len(config.consistency.features))._replace(
        class_weights=class_weights(labels.grade[labels.grade_valid], config.grading.balance),
        malignant_weights=class_weights(malignant, config.malignancy.balance),
        scaling=clinical.fit_scaling(*seen),
    )
    return recipe.replace(tasks=tuple(there), fitted=fitted)


def trained_answers(config: Config, folds: Folds, views: Views, arguments: Arguments) -> dict[str, np.ndarray]:
    """Task -> answers [cell n ...] for every image's plain view, cells being seeds x folds in this order."""
    names = np.unique(folds.fold)
    recipes, keys, shares = [], [], []
    for seed in arguments.seeds:
        for held in names:
            training = (folds.fold != held) & (folds.fold != validation_of(held, len(names)))
            recipes.append(recipe_for(config, folds, views, training))
            keys.append(jax.random.fold_in(jax.random.key(seed), held))
            shares.append(training / training.sum())
    stacked = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *recipes)
    labels = folds.batch._replace(image=None, mask=None)
    train_all = jax.jit(jax.vmap(partial(_train, views, labels, arguments)))
    return jax.device_get(train_all(stacked, jnp.stack(keys), jnp.asarray(shares, jnp.float32)))


def validation_of(fold: int, folds: int) -> int:
    """The validation fold beside a held-out fold, as in ``thyroid_jax.data.splits``."""
    return (fold + 1) % folds


def _train(views: Views, labels: Batch, arguments: Arguments, recipe: Recipe, key: Any, share: Any) -> dict[str, Any]:
    """Train heads on random views of the images that have a share; answers for the plain view of all images."""
    settings = recipe.settings["optimizer"]
    transform = optimizer(settings, float(arguments.steps))
    params = {"heads": model.init(key, recipe.model)["heads"]}

    def latent_of(view: Any, rows: Any) -> tuple[Latent, Any, Any]:
        *skips, z = (jnp.asarray(level)[view, rows][:, None, None, :] for level in views.levels)
        scaled = lambda values: recipe.fitted.scaling(jnp.asarray(values)[view, rows])
        measured, defined = scaled(views.measured), jnp.asarray(views.defined)[view, rows]
        measured = jnp.concatenate([jnp.where(defined, measured, 0.0), defined.astype(measured.dtype)], axis=-1)
        wanted = recipe.model.evidence == "measured"
        latent = Latent(z, tuple(skips), measured=measured if wanted else None)
        return latent, scaled(views.target), jnp.asarray(views.valid)[view, rows].all(-1)

    def update(state: Any, step: Any) -> tuple[Any, None]:
        params, opt_state, average = state
        of_rows, of_views = jax.random.split(jax.random.fold_in(key, step))
        rows = jax.random.choice(of_rows, share.shape[0], (arguments.batch_size,), p=share)
        view = jax.random.randint(of_views, (arguments.batch_size,), 1, arguments.views + 1)
        latent, target, valid = latent_of(view, rows)
        batch = jax.tree.map(lambda a: jnp.asarray(a)[rows], labels)._replace(radiomics=target, radiomics_valid=valid)
        loss = lambda params: total(evaluate(params, latent, batch, recipe), recipe, step)
        change, opt_state = transform.update(jax.grad(loss)(params), opt_state, params)
        params = optax.apply_updates(params, change)
        average = averaged(settings, average, params, step) if settings.average else ()
        return (params, opt_state, average), None

    start = params, transform.init(params), params if settings.average else ()
    (params, _, average), _ = jax.lax.scan(update, start, jnp.arange(arguments.steps))
    everyone = jnp.arange(share.shape[0])
    latent, _, _ = latent_of(jnp.zeros_like(everyone), everyone)
    return {
        task.name: task.answer(task.head(average or params, recipe.model, latent), recipe.settings[task.name])
        for task in recipe.tasks
    }


def cases_of(found: dict[str, np.ndarray], folds: Folds, arguments: Arguments) -> list[Case]:
    """Every image once a seed, predicted by the heads for which it was in the asked part."""
    names, cases = np.unique(folds.fold), []
    for place, seed in enumerate(arguments.seeds):
        for cell, held in enumerate(names):
            asked = held if arguments.part == "test" else validation_of(held, len(names))
            answers = {name: values[place * len(names) + cell] for name, values in found.items()}
            for row in np.flatnonzero(folds.fold == asked).tolist():
                grades = answers["grading"][row] if "grading" in answers else None
                malignant = float(answers["malignancy"][row]) if "malignancy" in answers else None
                cases.append(scored_case(folds, row, f"fold{held}-seed{seed}", grades, malignant))
    return cases


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    argv = sys.argv[1:] if argv is None else argv
    arguments = tyro.cli(Arguments, args=argv, prog=command.spelled("head_study"))
    prepare()
    configs = {variant: config_of(arguments, variant) for variant in arguments.variants}
    folds = open_folds(arguments.data)
    views = views_of(arguments, folds.batch.image, folds.batch.mask, clinical.mask_cut(folds.readers))
    found = {}
    for variant, config in configs.items():
        found[variant] = cases_of(trained_answers(config, folds, views, arguments), folds, arguments)
        if arguments.out:
            write_cases(arguments.out / arguments.part / f"{variant}.csv", found[variant])
        print(f"{variant} done", file=sys.stderr, flush=True)
    print(comparison(found, samples=arguments.samples))


if __name__ == "__main__":
    main()
