"""How stable each value of the guidance target is under random training views, and how it relates to the labels.

python -m experiments.target_study --data.name ddti --data.dir data
python -m experiments.target_study --data.name phantom --data.dir data --data.reader mean --data.height 96 \\
    --data.width 96 --alone

The script prints

- for each value, Spearman's rank correlation between an image and its augmented views, and the mean and the clipped
  share of the views' z-scores. The scaling is fitted on the views of every second group and applied to those of the
  others;
- with ``--alone``, the rank correlation under each augmentation alone;
- the rank correlation of each value with grade, malignancy and written findings, with 95 % intervals that resample
  whole groups;
- the AUROC of a logistic regression on the target alone, with predictions for groups that it was not fitted on.

The last two use the letterboxed images without augmentation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro

from thyroid_jax import command, extras
from thyroid_jax.data.augment import AugmentConfig
from thyroid_jax.data.pipeline import load, measure
from thyroid_jax.data.record import Record
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate.statistics import cluster_bootstrap
from thyroid_jax.fitting import measure_views
from thyroid_jax.radiomics import clinical

from .runtime import prepare

# Finding -> its written terms in order, and the target values that should show it. The order is from least to most
# suspicious; for echogenicity it is from bright to dark. Where a text has several terms, the highest counts.
FINDINGS: dict[str, tuple[Mapping[str, int], tuple[str, ...]]] = {
    "echogenicity": (
        {"hyperechogenicity": 0, "isoechogenicity": 1, "hypoechogenicity": 2, "marked hypoechogenicity": 3}
        | {"hyperechoic": 0, "isoechoic": 1, "hypoechoic": 2, "anechoic": 3},
        ("echogenicity", "echogenicity_low"),
    ),
    "composition": (
        {"cystic": 0, "predominantly cystic": 1, "spongiform": 1, "predominantly solid": 2, "solid": 3, "dense": 3},
        ("root_anechoic_share", "smoothed_entropy"),
    ),
    "shape": (
        {"oval": 0, "round": 0, "irregular": 1},
        ("ellipse_to_perimeter", "circle_to_perimeter", "elongation"),
    ),
    "margins": (
        {
            "well defined smooth": 0,
            "well defined": 0,
            "ill defined": 1,
            "macrolobulated": 2,
            "microlobulated": 2,
            "spiculated": 2,
        }
        | {"circumscribed": 0, "indistinct": 1, "angular": 2},
        ("ellipse_to_perimeter", "circle_to_perimeter", "boundary_sharpness"),
    ),
    "calcifications": (
        {"none": 0, "macrocalcifications": 1, "microcalcifications": 2}
        | {"no": 0, "intraductal": 1, "in a mass": 1, "indefinable": 1},
        ("root_foci_share", "foci_strength"),
    ),
}


@dataclass(frozen=True)
class Data:
    """A built data set."""

    name: str
    dir: Path = Path("data")
    height: int = 128
    width: int = 192
    reader: Literal["reference", "mean"] = "reference"
    """the reference outline, or the mean of all readers' outlines where there are several"""


@dataclass(frozen=True)
class Arguments:
    """How stable each value of the guidance target is under random training views, and how it relates to labels."""

    data: Data
    views: int = 4
    """augmented views of every image"""
    alone: bool = False
    """also measure each augmentation alone"""
    samples: int = 1000
    """bootstrap replicates"""


_DEFAULT_AUGMENTATION = AugmentConfig()


class Stability(NamedTuple):
    """Stability of the target: rank correlations f[views r], mean z-score f[r], clipped share f[r] of random views."""

    rank: np.ndarray
    mean: np.ndarray
    clipped: np.ndarray


def stability(
    original: tuple[np.ndarray, np.ndarray], views: Sequence[tuple[np.ndarray, np.ndarray]], groups: np.ndarray
) -> Stability:
    """Compare (values f[n r], valid bool[n r]) of the images with those of their views.

    The rank correlations use the images whose value is valid in both. The scaling of the z-scores is fitted on the
    views of every second group, and the z-scores are those of the other groups. A z-score with |z| >= 3 is clipped.
    """
    values, valid = (np.stack(parts) for parts in zip(*views))
    fitted = np.isin(groups, np.unique(groups)[::2])
    scaling = clinical.fit_scaling(values[:, fitted], valid[:, fitted])
    rank = np.array(
        [
            [spearman(*(a[both[:, column], column] for a in (original[0], v))) for column in range(values.shape[-1])]
            for v, ok in views
            for both in [original[1] & ok]
        ]
    )
    z = (values[:, ~fitted] - scaling.centre[None, None, :]) / scaling.spread[None, None, :]
    judged = valid[:, ~fitted]
    average = lambda a: np.where(judged, a, 0).sum((0, 1)) / np.maximum(judged.sum((0, 1)), 1)
    return Stability(rank, average(np.clip(z, -3, 3)), average(np.abs(z) >= 3))


def stability_table(found: Stability) -> None:
    """Print for each value the mean and lowest rank correlation of the views, mean z-score and clipped share."""
    print("| value | rank correlation | lowest view | mean z | clipped |\n|---|---|---|---|---|")
    for name, rank, mean, clipped in zip(clinical.TARGET, found.rank.T, found.mean, found.clipped):
        print(f"| `{name}` | {rank.mean():.2f} | {rank.min():.2f} | {mean:+.2f} | {100 * clipped:.1f} % |")


def alone_table(
    image: np.ndarray,
    mask: np.ndarray,
    cut: float,
    groups: np.ndarray,
    views: int,
    kinds: Sequence[str] = tuple(name for name in vars(_DEFAULT_AUGMENTATION) if name != "flip"),
) -> None:
    """Print for each value its rank correlation under each augmentation alone, at the default strength."""
    off = replace(_DEFAULT_AUGMENTATION, **dict.fromkeys(vars(_DEFAULT_AUGMENTATION), 0.0))
    original = measure(image, mask, cut=cut)
    columns = []
    for kind in kinds:
        config = replace(off, **{kind: getattr(_DEFAULT_AUGMENTATION, kind)})
        seen = [measure_views(image, mask, config, cut=cut, seed=view) for view in range(views)]
        columns.append(stability(original, seen, groups).rank.mean(0))
    print("| value | " + " | ".join(kinds) + " |\n" + "|---" * (len(kinds) + 1) + "|")
    for name, row in zip(clinical.TARGET, np.transpose(columns)):
        print(f"| `{name}` | " + " | ".join(f"{rank:.2f}" for rank in row) + " |")


def labels(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Name -> f[n] of every ordinal label of the records, NaN where it is missing.

    A label that has the same value in all records is left out.
    """
    number = lambda value: np.nan if value is None else float(value)
    found = {
        "grade": [number(record.grade) for record in records],
        "malignant": [number(record.malignant) for record in records],
    }
    for finding, (order, _) in FINDINGS.items():
        found[finding] = [number(highest(record.descriptors.get(finding, ""), order)) for record in records]
    return {
        name: np.array(values)
        for name, values in found.items()
        if len(np.unique(np.array(values)[~np.isnan(values)])) > 1
    }


def highest(text: str, order: Mapping[str, int]) -> int | None:
    """Place in ``order`` of the highest term in a text such as ``not circumscribed - angular&indistinct``.

    None where the text has no known term.
    """
    return max((order[part] for part in re.split(" - |&", text) if part in order), default=None)


def spearman(values: np.ndarray, label: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where either is constant."""
    from scipy import stats

    varies = len(values) and np.ptp(values) and np.ptp(label)
    return float(stats.spearmanr(values, label).statistic) if varies else 0.0


def correlations(values: np.ndarray, found: Mapping[str, np.ndarray], groups: np.ndarray, samples: int) -> None:
    """Print for each value of the target its correlation with every label, in bold where the interval excludes 0."""
    print(
        "| value | "
        + " | ".join(f"{name} (n = {int((~np.isnan(label)).sum())})" for name, label in found.items())
        + " |"
    )
    print("|---" * (len(found) + 1) + "|")
    for column, name in enumerate(clinical.TARGET):
        cells = []
        for kind, label in found.items():
            if kind in FINDINGS and name not in FINDINGS[kind][1]:
                cells.append("")
                continue
            known = ~np.isnan(label)
            interval = cluster_bootstrap(spearman, groups[known], values[known, column], label[known], samples=samples)
            text = f"{interval.value:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})"
            cells.append(f"**{text}**" if interval.low > 0 or interval.high < 0 else text)
        print(f"| `{name}` | " + " | ".join(cells) + " |")


def regressions(values: np.ndarray, found: Mapping[str, np.ndarray], groups: np.ndarray, samples: int) -> None:
    """Print the AUROC on unseen groups of logistic regressions on all values, and on all values but one."""
    splits = {"malignant": 0.5, "grade": None}
    for kind in [name for name in splits if name in found]:
        known = ~np.isnan(found[kind])
        middle = np.median(found[kind][known]) if splits[kind] is None else splits[kind]
        label, x, g = (found[kind][known] > middle).astype(int), values[known], groups[known]
        print(f"\n{kind} above {middle:g}: {label.sum()} of {len(label)} images; AUROC on unseen groups")
        sets = {"all values": list(range(len(clinical.TARGET)))}
        sets |= {
            f"without {name}": [c for c in sets["all values"] if c != column]
            for column, name in enumerate(clinical.TARGET)
        }
        for name, columns in sets.items():
            score = unseen(x[:, columns], label, g)
            interval = cluster_bootstrap(auroc, g, label, score, samples=samples)
            print(f"- {name}: {interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})")


def unseen(x: np.ndarray, label: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Probabilities f[n] from five regressions, each applied to the groups that it was not fitted on."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    score = np.zeros(len(x))
    for fitted, held in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, label, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)).fit(
            x[fitted], label[fitted]
        )
        score[held] = model.predict_proba(x[held])[:, 1]
    return score


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    """AUROC; 1/2 where there is one class only."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(label, score)) if np.ptp(label) else 0.5


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("target_study"))
    prepare()
    card, everything = open_records(arguments.data.dir, arguments.data.name)
    records = [record for record in everything if record.mask is not None]
    size = arguments.data.height, arguments.data.width
    loaded = load(records, max(2, len(card.grades)), size, reader=arguments.data.reader)
    cut, image, mask = clinical.mask_cut(loaded.readers), loaded.batch.image[..., 0], loaded.batch.mask
    groups = np.array([record.group for record in records])
    values, valid = measure(image, mask, cut=cut)
    known = valid.all(1)
    print(
        f"{len(records)} outlines of {len(set(groups))} groups at {size[0]} x {size[1]}, cut at {cut:g}; "
        f"{int((~known).sum())} without a target\n"
    )
    seen = [measure_views(image, mask, _DEFAULT_AUGMENTATION, cut=cut, seed=view) for view in range(arguments.views)]
    stability_table(stability((values, valid), seen, groups))
    print()
    if arguments.alone:
        alone_table(image, mask, cut, groups, arguments.views)
        print()
    found = labels([record for record, ok in zip(records, known) if ok])
    if not found:
        raise InputError(
            f"{arguments.data.name}: no record has a grade, a malignancy or a finding that varies; "
            "there is nothing to relate."
        )
    scaled = np.asarray(clinical.fit_scaling(values, valid)(values))[known]
    correlations(scaled, found, groups[known], arguments.samples)
    regressions(scaled, found, groups[known], arguments.samples)


if __name__ == "__main__":
    main()
