"""How often a 95 % interval contains the truth, on simulated cases that come in groups.

python -m experiments.coverage [--sets 500] [--groups 10 20 40 80] [--samples 1000]

Every data set is drawn from a model whose true value is known. The script prints three Markdown tables:

- groups of one to six cases, which share an effect: intervals of the cluster bootstrap for the mean of a Dice that is
  skewed and sometimes 0, quadratic kappa, AUROC, and the paired differences of two models; for areas also DeLong's,
  with the groups given;
- the areas once more, with one case a group;
- seeds: intervals of a mean difference, where each case is predicted by a few seeds. The truth is the mean over all
  cases and seeds there could be.

A cell is the coverage in percent, and in brackets the share of sets whose interval lies wholly below and wholly above
the truth. The coverage of a perfect 95 % interval, found in 500 sets, lies between 93 and 97 nineteen times out of
twenty. The default takes about four minutes on one core.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tyro

from thyroid_jax import command, extras
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.statistics import (
    cluster_bootstrap,
    cluster_replicates,
    crossed_bootstrap,
    delong,
    interval_of,
    variance_components,
)

METHODS = ("percentile", "expanded", "bca")
SEED_INTERVALS = ("groups only, expanded", "groups and seeds, crossed", "variance components")


@dataclass(frozen=True)
class Arguments:
    """How often a 95 % interval contains the truth, on simulated cases that come in groups."""

    sets: int = 500
    """data sets for each row"""
    groups: tuple[int, ...] = (10, 20, 40, 80)
    """numbers of groups in a data set"""
    seeds: tuple[int, ...] = (2, 3, 5)
    """numbers of seeds in the last table"""
    samples: int = 1000
    """bootstrap replicates"""
    seed: int = 0
    """of the simulation"""


class Model(NamedTuple):
    """``draw(random, clusters)`` gives the columns [n ...] of a data set; ``statistic(*columns, weight)`` f[s] is what
    is estimated, and ``truth`` its true value.
    """

    draw: Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, ...]]
    statistic: Callable[..., np.ndarray]
    truth: float


class Bounds(NamedTuple):
    """An interval, NaN where there is none, and the share of the bootstrap's replicates that had no value."""

    low: float
    high: float
    undefined: float = 0.0


# --- the models -------------------------------------------------------------------------------------------------------

GROUP, CASE, MODEL = 0.9, 0.6, 0.5  # deviations: of a group, of a case for both models, of a case for one model
EMPTY = 0.04  # share of cases whose nodule is missed: Dice 0
MALIGNANT = 0.35  # share of groups
GRADES = np.array([0.1, 0.25, 0.3, 0.2, 0.15])


def _noise(random: np.random.Generator, clusters: np.ndarray, models: int) -> np.ndarray:
    """f[models n]: normal, with a part that a group shares and a part that the models share."""
    shared = GROUP * random.normal(size=clusters.max() + 1)[clusters] + CASE * random.normal(size=len(clusters))
    return shared + MODEL * random.normal(size=(models, len(clusters)))


SPREAD = float(np.sqrt(GROUP**2 + CASE**2 + MODEL**2))


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


_normal_cdf = np.vectorize(statistics.NormalDist().cdf)


def _dice(random: np.random.Generator, clusters: np.ndarray, centres: Sequence[float]) -> tuple[np.ndarray, ...]:
    found = _logistic(np.array(centres)[:, None] + _noise(random, clusters, len(centres)))
    return tuple(np.where(random.random(found.shape) < EMPTY, 0.0, found))


def _mean_dice(centre: float) -> float:
    """Expected Dice: the logistic function of a normal variable, by Gauss and Hermite's rule."""
    node, weight = np.polynomial.hermite_e.hermegauss(200)
    return float((1 - EMPTY) * (weight @ _logistic(centre + SPREAD * node)) / weight.sum())


def _scores(random: np.random.Generator, clusters: np.ndarray, shifts: Sequence[float]) -> tuple[np.ndarray, ...]:
    malignant = (random.random(clusters.max() + 1) < MALIGNANT)[clusters]
    return (malignant, *(np.array(shifts)[:, None] * malignant + _noise(random, clusters, len(shifts))))


def _area(shift: float) -> float:
    """Expected AUROC. A malignant and a benign case are of different groups, so that their noises are independent."""
    return float(_normal_cdf(shift / (np.sqrt(2) * SPREAD)))


def _grades(random: np.random.Generator, clusters: np.ndarray) -> tuple[np.ndarray, ...]:
    truth = random.choice(len(GRADES), p=GRADES, size=clusters.max() + 1)[clusters]
    predicted = np.clip(np.rint(truth + 0.8 * _noise(random, clusters, 1)[0]), 0, len(GRADES) - 1)
    return truth, predicted.astype(int)


def _expected_kappa() -> float:
    """Kappa of the joint distribution of true and predicted grade."""
    edges = np.concatenate([[-np.inf], np.arange(len(GRADES) - 1) + 0.5, [np.inf]])
    below = _normal_cdf((edges - np.arange(len(GRADES))[:, None]) / (0.8 * SPREAD))
    return float(metrics.quadratic_kappa(GRADES[:, None] * np.diff(below, axis=1)))


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight @ values / weight.sum(axis=-1)


def _mean_gap(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return _mean(first - second, weight)


def _auroc(malignant: np.ndarray, score: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.auroc(score, malignant, weight=weight)


def _auroc_gap(malignant: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return _auroc(malignant, first, weight) - _auroc(malignant, second, weight)


def _kappa(truth: np.ndarray, predicted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return metrics.quadratic_kappa(metrics.confusion_matrix(predicted, truth, len(GRADES), weight=weight))


MODELS: dict[str, Model] = {
    "mean Dice": Model(lambda r, c: _dice(r, c, [1.7]), _mean, _mean_dice(1.7)),
    "AUROC": Model(lambda r, c: _scores(r, c, [1.8]), _auroc, _area(1.8)),
    "quadratic kappa": Model(_grades, _kappa, _expected_kappa()),
    "difference of Dice": Model(lambda r, c: _dice(r, c, [1.9, 1.7]), _mean_gap, _mean_dice(1.9) - _mean_dice(1.7)),
    "difference of AUROC": Model(lambda r, c: _scores(r, c, [1.8, 1.3]), _auroc_gap, _area(1.8) - _area(1.3)),
}

AREAS = ("AUROC", "difference of AUROC")


# --- coverage ---------------------------------------------------------------------------------------------------------


def bounds_of(
    model: Model, random: np.random.Generator, groups: int, samples: int, *, most: int = 6
) -> dict[str, Bounds]:
    """The bootstrap's and DeLong's intervals of one data set, of groups of one to ``most`` cases."""
    clusters = np.repeat(np.arange(groups), random.integers(1, most + 1, size=groups))
    columns = model.draw(random, clusters)
    seed = int(random.integers(2**31))
    replicates = cluster_replicates(
        model.statistic, clusters, *columns, samples=samples, seed=seed, weighted=True, jackknife=True
    )
    undefined, intervals = replicates.undefined / samples, {}
    for method in METHODS:
        interval = interval_of(replicates, method=method)
        intervals[method] = Bounds(interval.low, interval.high, undefined)
    if model.statistic in (_auroc, _auroc_gap):
        found = delong(*columns, clusters=clusters)
        alone = Bounds(found.low[0], found.high[0], undefined)
        two = Bounds(found.difference_low, found.difference_high, undefined)
        intervals["DeLong"] = two if model.statistic is _auroc_gap else alone
    return intervals


def seed_bounds(
    random: np.random.Generator, groups: int, seeds: int, spread: tuple[float, float, float], samples: int
) -> dict[str, Bounds]:
    """Intervals of the mean of group + seed + residual effects with deviations ``spread``, whose true mean is 0."""
    of_group, of_seed, rest = spread
    table = of_group * random.normal(size=(groups, 1)) + of_seed * random.normal(size=seeds)
    values = (table + rest * random.normal(size=(groups, seeds))).ravel()
    group, run = (index.ravel() for index in np.indices((groups, seeds)))
    seed = int(random.integers(2**31))
    pooled = cluster_bootstrap(_mean, group, values, samples=samples, seed=seed, weighted=True, expanded=True)
    crossed = crossed_bootstrap(_mean, group, run, values, samples=samples, seed=seed, weighted=True)
    components = variance_components(values, group, run)
    intervals = zip(SEED_INTERVALS, (pooled, crossed, components))
    return {name: Bounds(interval.low, interval.high) for name, interval in intervals}


def covered(found: Iterable[dict[str, Bounds]], truth: float) -> dict[str, str]:
    """Interval -> coverage in percent, with the shares below and above the truth; "undefined" -> percent of replicates.

    A set without an interval counts as not covered; the number of such sets is named.
    """
    found = list(found)
    cells = {}
    for name in found[0]:
        low, high, undefined = np.array([bounds[name] for bounds in found]).T
        inside = np.mean((low <= truth) & (truth <= high))
        none = int(np.isnan(low).sum())
        cells[name] = f"{100 * inside:.1f} ({100 * np.mean(high < truth):.1f}, {100 * np.mean(low > truth):.1f})" + (
            f", {none} without" if none else ""
        )
    return cells | {"undefined": f"{100 * undefined.mean():.1f}"}


def tables(settings: Arguments) -> Iterable[str]:
    """The three tables, line by line as they are computed."""
    undefined = "replicates without a value, %"

    def generators(*key: int) -> Iterable[np.random.Generator]:
        return (np.random.default_rng([settings.seed, *key, number]) for number in range(settings.sets))

    for title, most, names in (("one to six cases a group", 6, list(MODELS)), ("one case a group", 1, AREAS)):
        yield from _head(title, "groups", *METHODS, "DeLong", undefined)
        for name in names:
            for groups in settings.groups:
                draws = generators(most, list(MODELS).index(name), groups)
                found = (bounds_of(MODELS[name], random, groups, settings.samples, most=most) for random in draws)
                cells = covered(found, MODELS[name].truth)
                yield _row(name, str(groups), *(cells.get(key, "") for key in (*METHODS, "DeLong", "undefined")))
        yield ""

    groups = max(settings.groups)
    yield from _head(f"{groups} groups; deviations", "seeds", *SEED_INTERVALS)
    for place, spread in enumerate(((1.0, 0.0, 1.0), (0.2, 0.0, 1.0), (1.0, 0.1, 1.0), (1.0, 0.4, 1.0))):
        for seeds in settings.seeds:
            draws = generators(0, place, seeds)
            found = (seed_bounds(random, groups, seeds, spread, settings.samples) for random in draws)
            said = "group {}, seed {}, residual {}".format(*spread)
            cells = covered(found, 0.0)
            yield _row(said, str(seeds), *(cells[name] for name in SEED_INTERVALS))


def _head(*names: str) -> list[str]:
    return [_row(*names), "|---" * len(names) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    extras.require(*extras.STATISTICS, "sklearn")
    words = sys.argv[1:] if arguments is None else arguments
    settings = tyro.cli(Arguments, description=__doc__, args=words, prog=command.spelled("coverage"))
    smallest = min(settings.groups, default=0), min(settings.seeds, default=0)
    if min(settings.sets, settings.samples) < 1 or min(smallest) < 2 or settings.seed < 0:
        raise InputError("--sets and --samples must be at least 1, --groups and --seeds at least 2, --seed at least 0.")
    for line in tables(settings):
        print(line, flush=True)


if __name__ == "__main__":
    main()
