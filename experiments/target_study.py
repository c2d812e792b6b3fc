"""What each value of the guidance target has to do with grades, malignancy and written findings: rank correlations,
and a plain regression.

python -m experiments.target_study --data.name ddti --data.dir data

Spearman's rank correlation with 95 % intervals, whole groups resampled, and the AUROC of a logistic regression on the
target alone, its predictions made for groups that it was not fitted on. Measured once on the unaugmented, letterboxed
images, as training does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.runtime import prepare
from thyroid_jax.data.pipeline import letterbox, measure
from thyroid_jax.data.record import Record
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate.statistics import cluster_bootstrap
from thyroid_jax.radiomics import clinical

# Written findings in order, least suspicious first; the values of the target that are meant to show them. Of
# several, the highest counts.
FINDINGS: dict[str, tuple[Mapping[str, int], tuple[str, ...]]] = {
    "echogenicity": (
        {"hyperechogenicity": 0, "isoechogenicity": 1, "hypoechogenicity": 2, "marked hypoechogenicity": 3}
        | {"hyperechoic": 0, "isoechoic": 1, "hypoechoic": 2, "anechoic": 3},
        ("echogenicity", "echogenicity_low"),
    ),
    "composition": (
        {"cystic": 0, "predominantly cystic": 1, "spongiform": 1, "predominantly solid": 2, "solid": 3, "dense": 3},
        ("anechoic_share", "firstorder_Entropy"),
    ),
    "shape": (
        {"oval": 0, "round": 0, "irregular": 1},
        ("ellipse_to_perimeter", "shape2D_Sphericity", "shape2D_Elongation"),
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
        ("ellipse_to_perimeter", "shape2D_Sphericity", "boundary_sharpness"),
    ),
    "calcifications": (
        {"none": 0, "macrocalcifications": 1, "microcalcifications": 2}
        | {"no": 0, "intraductal": 1, "in a mass": 1, "indefinable": 1},
        ("foci_share", "foci_density"),
    ),
}


@dataclass(frozen=True)
class Data:
    """A built data set."""

    name: str
    dir: Path = Path("data")
    height: int = 128
    width: int = 192


@dataclass(frozen=True)
class Arguments:
    """What each value of the guidance target has to do with grades, malignancy and written findings."""

    data: Data
    samples: int = 1000
    """bootstrap replicates"""


def labels(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Name -> f[n] of everything ordinal that the records say, NaN where it is missing; only what takes two values at
    least.
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
    """Place in the order of the worst finding in a text such as ``not circumscribed - angular&indistinct``; None where
    none is known.
    """
    return max((order[part] for part in re.split(" - |&", text) if part in order), default=None)


def spearman(values: np.ndarray, label: np.ndarray) -> float:
    """Rank correlation; 0 where either does not vary."""
    return float(stats.spearmanr(values, label).statistic) if np.ptp(values) and np.ptp(label) else 0.0


def correlations(values: np.ndarray, found: Mapping[str, np.ndarray], groups: np.ndarray, samples: int) -> None:
    """One row a value of the target: its correlation with every label, in bold where the interval leaves out 0."""
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
    """AUROC of a logistic regression on all values, and on each TI-RADS axis left out, predictions for unseen groups."""
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
    """Probabilities f[n] by five regressions, each for the groups that it was not fitted on."""
    score = np.zeros(len(x))
    for fitted, held in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, label, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)).fit(
            x[fitted], label[fitted]
        )
        score[held] = model.predict_proba(x[held])[:, 1]
    return score


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    """AUROC; 1/2 where there is one class only."""
    return float(roc_auc_score(label, score)) if np.ptp(label) else 0.5


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    arguments = tyro.cli(
        Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.target_study"
    )
    records = [record for record in open_records(arguments.data.dir, arguments.data.name)[1] if record.mask is not None]
    size = arguments.data.height, arguments.data.width
    image = np.stack([letterbox(record.image, size) for record in records])
    values, valid = measure(
        image, np.stack([letterbox(record.mask.astype(np.uint8) * 255, size) for record in records])
    )
    records = [record for record, known in zip(records, valid) if known]
    found, groups = labels(records), np.array([record.group for record in records])
    if not found:
        raise InputError(
            f"{arguments.data.name}: no record has a grade, a malignancy or a finding that varies; there is nothing to relate."
        )
    print(
        f"{len(records)} outlines of {len(set(groups))} groups at {size[0]} x {size[1]}; {int((~valid).sum())} without a target\n"
    )
    values = clinical.fit_scaling(values[valid], np.ones_like(values[valid], bool))(values[valid])
    correlations(np.asarray(values), found, groups, arguments.samples)
    regressions(np.asarray(values), found, groups, arguments.samples)


if __name__ == "__main__":
    main()
