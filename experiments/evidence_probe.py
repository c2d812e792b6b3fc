"""How much of grade and malignancy a linear model reads from frozen features and from the radiomics target.

python -m experiments.evidence_probe --data.name breast_lesions --data.dir data [--encoder efficientnet_lite0]
    [--weights package] [--runs runs/all/plain-fold*-seed0] [--out results/grades/breast_lesions/probe]

The encoder has its published weights and sees each image once, without augmentation. The evidence of the rows:

- ``image``: the last three levels, averaged over the image;
- ``outline``: averaged over the reference outline, with the weights of ``--model.pooling nodule``;
- ``moved``: averaged over a reference outline that is moved, stretched and bent (``thyroid_jax/data/distort.py``);
- ``target`` and ``moved_target``: the radiomics target alone, of the reference outline and of the moved one;
- ``outline+target`` and ``moved+target``: both;
- ``predicted``, ``predicted_target`` and ``predicted+target``: the same over the outlines that the runs of ``--runs``
  predict, each image's by the run that holds it out.

A ridge regression on the one-hot labels, its strength chosen by leave-one-out within the training images, predicts each
fold of the data set from all other folds. The tables pool these predictions. They say what a linear model reads from
these features; other heads, and features that are trained too, may give more. A probability here is a score: its order
counts, not its value. With ``--runs`` a last table says of each value of the target what is left of it on predicted
outlines.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from thyroid_jax import command, extras, model
from thyroid_jax.data.distort import DistortConfig, distort
from thyroid_jax.data.pipeline import DataConfig
from thyroid_jax.errors import exits_cleanly
from thyroid_jax.evaluate.cases import Case, write_cases
from thyroid_jax.evaluate.paired import comparison
from thyroid_jax.model import ModelConfig, evidence, pretrained
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs.folds import Folds, held_out_outlines, open_folds, scored_case

from .runtime import prepare

KINDS = {
    "image": ["image"],
    "outline": ["outline"],
    "moved": ["moved"],
    "target": ["target"],
    "moved_target": ["moved_target"],
    "outline+target": ["outline", "target"],
    "moved+target": ["moved", "moved_target"],
    "predicted": ["predicted"],
    "predicted_target": ["predicted_target"],
    "predicted+target": ["predicted", "predicted_target"],
}
LEVELS = 3
CHUNK = 16
STRENGTHS = tuple(10.0**power for power in range(0, 7))


@dataclass(frozen=True)
class Arguments:
    """How much of grade and malignancy a linear model reads from frozen features and from the radiomics target."""

    data: DataConfig = field(default_factory=DataConfig)
    encoder: str = "efficientnet_lite0"
    """a published encoder"""
    weights: str = "package"
    """its weights: of the installed package, or a file"""
    runs: tuple[Path, ...] = ()
    """finished runs, one for each fold: measure on their outlines of the images that they hold out, too"""
    out: Path | None = None
    """folder for the per-case tables"""
    samples: int = 2000
    """bootstrap replicates"""


def evidence_of(
    arguments: Arguments, image: np.ndarray, mask: np.ndarray, cut: float, outlines: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Kind of evidence -> f32[n d] for images u8[n h w 1] and masks u8[n h w], cut at ``cut`` for the target.

    ``outlines`` u8[n h w] are predicted, and cut at one half; without them their kinds are left out.
    """
    config = ModelConfig(encoder=arguments.encoder)
    file = None if arguments.weights == "package" else arguments.weights
    encoder, _ = pretrained.load(arguments.encoder, file)
    measure = jax.jit(partial(_measured, {"encoder": encoder}, config, cut))
    parts = []
    for start in range(0, len(image), CHUNK):
        rows = np.arange(start, start + CHUNK) % len(image)  # the last chunk begins again: one program for all
        key = jax.random.fold_in(jax.random.key(0), start)
        seen = None if outlines is None else outlines[rows] / np.float32(255)
        found = jax.device_get(measure(key, image[rows] / np.float32(255), mask[rows] / np.float32(255), seen))
        parts.append({name: values[: len(image) - start] for name, values in found.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kinds = {kind: parts for kind, parts in KINDS.items() if set(parts) <= set(found)}
    return {kind: np.concatenate([found[part] for part in parts], axis=1) for kind, parts in kinds.items()}


def _measured(
    params: Any, config: ModelConfig, cut: float, key: Any, image: Any, mask: Any, outlines: Any
) -> dict[str, Any]:
    latent = model.encode(params, config, image)
    moved = distort(key, mask, DistortConfig())
    levels = (*latent.skips, latent.z)[-LEVELS:]
    over = lambda weights: jnp.concatenate([evidence.weighted_mean(x, weights(x.shape[1:3])) for x in levels], axis=-1)
    found = {
        "image": jnp.concatenate([x.mean((1, 2)) for x in levels], axis=-1),
        "outline": over(partial(evidence.nodule_weights, mask)),
        "moved": over(partial(evidence.nodule_weights, moved)),
        "target": _target(image, mask >= cut),
        "moved_target": _target(image, moved >= cut),
    }
    if outlines is not None:
        found["predicted"] = over(partial(evidence.nodule_weights, outlines))
        found["predicted_target"] = _target(image, outlines >= 0.5)
    return found


def _target(image: Any, outline: Any) -> Any:
    values, valid = clinical.target(image[..., 0], outline)
    return jnp.where(valid, values, jnp.nan)


def predicted(features: np.ndarray, labels: np.ndarray, known: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Scores f[n k] of every example, by the ridge regression that was not fitted on its fold.

    ``labels`` f[n k] are one-hot, ``known`` says where; 0 for all where none is. A missing feature is the mean of the
    training images.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = np.zeros(labels.shape)
    for held in np.unique(fold) if known.any() else ():
        fitted, asked = known & (fold != held), fold == held
        centre = np.nanmean(features[fitted], axis=0)
        filled = np.where(np.isnan(features), centre, features)
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=STRENGTHS))
        scores[asked] = ridge.fit(filled[fitted], labels[fitted]).predict(filled[asked])
    return scores


def tables(folds: Folds, features_of: dict[str, np.ndarray]) -> dict[str, list[Case]]:
    """Kind of evidence -> the held-out predictions of all images that have an outline."""
    batch = folds.batch
    malignant = np.eye(2)[batch.malignant.astype(int)]
    cases: dict[str, list[Case]] = {}
    for kind, features in features_of.items():
        graded = predicted(features, batch.grade, batch.grade_valid, folds.fold)
        proven = predicted(features, malignant, batch.malignant_valid, folds.fold)
        likely = 1 / (1 + np.exp(-4 * (proven[:, 1] - 0.5)))
        cases[kind] = [
            scored_case(folds, row, f"fold{fold}", graded[row], float(likely[row]))
            for row, fold in enumerate(folds.fold)
        ]
    return cases


def values_alone(
    target: np.ndarray, predicted_target: np.ndarray, malignant: np.ndarray, known: np.ndarray
) -> list[tuple[str, float, float, float]]:
    """What is left of each value of the target f[n r] on predicted outlines.

    For each value its name, Spearman's rank correlation of both outlines' values, and the malignancy AUROC of the value
    alone on either: below one half, low values are the malignant ones. Over the images where both are defined; an
    AUROC is over those of known malignancy, NaN where all of them are alike. A correlation with a constant is NaN.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    rows = []
    for name, given, found in zip(clinical.TARGET, target.T, predicted_target.T, strict=True):
        both = np.isfinite(given) & np.isfinite(found)
        labelled = both & known
        two = len(np.unique(malignant[labelled])) == 2
        areas = [roc_auc_score(malignant[labelled], values[labelled]) if two else np.nan for values in (given, found)]
        vary = all(len(np.unique(values[both])) > 1 for values in (given, found))
        rank = float(spearmanr(given[both], found[both]).statistic) if vary else np.nan
        rows.append((name, rank, *areas))
    return rows


def table_of_values(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """:func:`values_alone` as a Markdown table."""
    lines = ["| value | rank correlation | AUROC, reference | AUROC, predicted |", "|---|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |" for name, *numbers in rows]
    return "\n".join(lines)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    argv = sys.argv[1:] if argv is None else argv
    arguments = tyro.cli(Arguments, args=argv, prog=command.spelled("evidence_probe"))
    prepare()
    folds = open_folds(arguments.data)
    outlines = held_out_outlines(arguments.runs, folds, arguments.data.dir) if arguments.runs else None
    batch, cut = folds.batch, clinical.mask_cut(folds.readers)
    features = evidence_of(arguments, batch.image, batch.mask, cut, outlines)
    found = tables(folds, features)
    for kind, cases in found.items() if arguments.out else ():
        write_cases(arguments.out / f"{kind}.csv", cases)
    print(comparison(found, samples=arguments.samples))
    if outlines is not None:
        rows = values_alone(
            features["target"], features["predicted_target"], batch.malignant > 0.5, batch.malignant_valid
        )
        print(f"\n{table_of_values(rows)}")


if __name__ == "__main__":
    main()
