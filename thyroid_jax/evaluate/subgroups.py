"""The measures in subgroups of the cases, and the model beside each reader. All of it is exploratory.

Many subgroups are looked at, some are small, and none was planned: a difference here is a question for another data
set and no result. The p-values are adjusted for the number of characteristics, but not for those who look for one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.measures import MEASURES, interval_over
from thyroid_jax.evaluate.statistics import holm
from thyroid_jax.evaluate.statistics.resampling import block_sizes

NAN = float("nan")

SMALLEST = 10
"""cases below which a value of a characteristic is pooled with others, and thirds are not formed"""
FEWEST_GROUPS = 5
"""groups (patients) below which a subgroup does not enter a test"""
REPLICATES = 1999
"""of the test of equal means"""
SHOWN = ("dice", "quadratic_kappa", "malignant_auroc")

Parts = list[tuple[str, list[Case]]]
"""(name of a subgroup, its cases), in the order to show"""


class Estimate(NamedTuple):
    """A measure of ``cases`` cases of ``groups`` groups with its 95 % interval; NaN where it does not exist."""

    value: float
    low: float
    high: float
    cases: int
    groups: int


class Subgroup(NamedTuple):
    """The cases with one value of a characteristic; ``estimates`` has a measure of :data:`SHOWN` that any case has."""

    name: str
    cases: int
    groups: int
    estimates: dict[str, Estimate]


class Characteristic(NamedTuple):
    """What divides the cases, its subgroups, and the test of equal mean Dice (:func:`equal_means_p`).

    ``p_adjusted`` is Holm's, over all characteristics of the table that were tested; both p are NaN without a test.
    """

    name: str
    subgroups: tuple[Subgroup, ...]
    p: float
    p_adjusted: float


class WithReader(NamedTuple):
    """The model beside one reader, counted from 1: mean Dice with the reader's outlines, kappa with the grades."""

    reader: int
    dice: Estimate
    kappa: Estimate


class BetweenReaders(NamedTuple):
    """Quadratic kappa of two readers' grades, readers counted from 1."""

    first: int
    second: int
    kappa: Estimate


# --- subgroups --------------------------------------------------------------------------------------------------------


def subgroups(cases: Sequence[Case], *, samples: int = 1000, seed: int = 0) -> tuple[Characteristic, ...]:
    """Mean Dice, kappa of the grades and AUROC of malignancy by every characteristic (:func:`divided`) of the cases.

    Intervals are by group inside the subgroup: DeLong's of the AUROC, else the expanded percentile bootstrap's. Kappa
    needs two true grades at least: with one it says nothing, and it is NaN. A characteristic that does not divide the
    cases is left out.
    """
    shown = [name for name in SHOWN if any(MEASURES[name].usable(case) for case in cases)]

    def measured(name: str, some: Sequence[Case]) -> Subgroup:
        estimates = {measure: estimate(some, measure, samples=samples, seed=seed) for measure in shown}
        return Subgroup(name, len(some), _groups(some), estimates)

    found = divided(cases)
    raw = [_dice_p(parts) for parts in found.values()]
    return tuple(
        Characteristic(name, tuple(measured(*part) for part in parts), p, float(adjusted))
        for (name, parts), p, adjusted in zip(found.items(), raw, holm(raw))
    )


def divided(cases: Sequence[Case]) -> dict[str, Parts]:
    """Characteristic -> the cases by its values, for every characteristic with two subgroups at least.

    - thirds of the reference area: in mm^2 where it is known for all outlined cases, else in pixels, without empty
      references; and thirds of the contrast to noise, where it is known (at least three times :data:`SMALLEST` cases;
      equal values stay together),
    - the true grade, and true malignancy,
    - every entry of ``about``: values with fewer than :data:`SMALLEST` cases are pooled as "other (n values)", and
      cases without the entry are "not stated".

    Cases without the value are in no subgroup of the others.
    """
    in_mm = all(np.isfinite(case.reference_area_mm2) for case in cases if case.reference_area_px)
    unit, area = ("mm²", _area_mm2) if in_mm else ("pixels", _area_px)
    found = {
        f"size of the reference, {unit}": _thirds(cases, area, ("small", "middle", "large")),
        "true grade": _by_text(cases, lambda case: case.grade_truth, grades(cases)),
        "true malignancy": _by_text(cases, _malignancy, ("benign", "malignant")),
        "contrast to noise": _thirds(cases, lambda case: case.contrast_to_noise, ("low", "middle", "high")),
    }
    names = dict.fromkeys(name for case in cases for name in case.about)
    found |= {_unused(name, found): _by_about(cases, name) for name in names}
    return {name: parts for name, parts in found.items() if len(parts) > 1}


def estimate(cases: Sequence[Case], measure: str, *, samples: int = 1000, seed: int = 0) -> Estimate:
    """A measure of :data:`~thyroid_jax.evaluate.measures.MEASURES` over the cases that have it.

    Its interval is that of :func:`~thyroid_jax.evaluate.measures.interval_over`.
    """
    chosen = MEASURES[measure]
    usable = [case for case in cases if chosen.usable(case)]
    if measure == "quadratic_kappa":
        chosen = chosen._replace(value=_needs_two_grades(chosen.value))
    found = interval_over(usable, chosen, grades(usable), samples=samples, seed=seed)
    return Estimate(found.value, found.low, found.high, len(usable), _groups(usable))


def _needs_two_grades(kappa: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Kappa, NaN where one true grade alone is drawn: it would be 0, whatever is predicted."""

    def value(truth: np.ndarray, *rest: np.ndarray, weight: np.ndarray) -> np.ndarray:
        drawn = np.stack([weight[:, truth == grade].sum(-1) > 0 for grade in np.unique(truth)])
        return np.where(drawn.sum(0) > 1, kappa(truth, *rest, weight=weight), NAN)

    return value


def _thirds(cases: Sequence[Case], value: Callable[[Case], float], words: tuple[str, str, str]) -> Parts:
    """The cases by thirds of a number; a value at a boundary belongs below it. [] for too few cases."""
    known = [case for case in cases if np.isfinite(value(case))]
    if len(known) < 3 * SMALLEST:
        return []
    low, high = np.quantile([value(case) for case in known], [1 / 3, 2 / 3])
    a, b = (f"{bound:.3g}" if abs(bound) < 1000 else f"{bound:.0f}" for bound in (low, high))
    names = (f"{words[0]} (≤ {a})", f"{words[1]} ({a} to {b})", f"{words[2]} (> {b})")
    third = [int(value(case) > low) + int(value(case) > high) for case in known]
    return _filled([(name, [c for c, t in zip(known, third) if t == place]) for place, name in enumerate(names)])


def _by_text(cases: Sequence[Case], text: Callable[[Case], str], order: Sequence[str]) -> Parts:
    """The cases by a text, in the given order and then that of appearance; those with "" are in no subgroup."""
    names = dict.fromkeys([*order, *(text(case) for case in cases)])
    return _filled([(name, [case for case in cases if text(case) == name]) for name in names if name])


def _by_about(cases: Sequence[Case], entry: str) -> Parts:
    counts = Counter(case.about[entry] for case in cases if case.about.get(entry))
    large = sorted(name for name, count in counts.items() if count >= SMALLEST)
    rare = set(counts).difference(large)
    parts = [(name, [case for case in cases if case.about.get(entry) == name]) for name in large]
    others = "1 value" if len(rare) == 1 else f"{len(rare)} values"
    parts.append((f"other ({others})", [case for case in cases if case.about.get(entry) in rare]))
    parts.append(("not stated", [case for case in cases if not case.about.get(entry)]))
    return _filled(parts)


def _filled(parts: Parts) -> Parts:
    return [(name, some) for name, some in parts if some]


def _unused(name: str, used: dict[str, Parts]) -> str:
    """A data set's own name of a characteristic, marked where it is one of ours."""
    return f"{name} (stated)" if name in used else name


def _groups(cases: Sequence[Case]) -> int:
    return len({case.group for case in cases})


def _area_px(case: Case) -> float:
    return float(case.reference_area_px) if case.reference_area_px else NAN


def _area_mm2(case: Case) -> float:
    return case.reference_area_mm2 or NAN


def _malignancy(case: Case) -> str:
    return "" if case.malignant_truth is None else ("benign", "malignant")[int(case.malignant_truth)]


# --- test of a difference ---------------------------------------------------------------------------------------------


def equal_means_p(values: np.ndarray, subgroup: np.ndarray, clusters: Sequence[str]) -> float:
    """p of equal mean values in K subgroups, when cases come in groups (clusters) that may reach over subgroups.

    The statistic is :func:`wald`, of the regression of x on the subgroup with a cluster-robust variance. It is compared
    with itself in 1999 replicates: x_i - mean(x), all of a cluster with one random sign (restricted wild cluster
    bootstrap). p = (1 + replicates that reach it) / 2000.

    Args:
        values: f[n]; NaN are left out.
        subgroup: int[n].
        clusters: n labels.

    Subgroups with fewer than :data:`FEWEST_GROUPS` clusters are left out. NaN where fewer than two remain, or where the
    variance does not allow the test (no spread). Of G clusters in all, p is at least about 2^(1 - G): where the same
    five reach over all subgroups, no difference gives p < 0.05. Where all means are equal, 4 to 7 % of tables have
    p < 0.05, with 5 clusters in each subgroup or 24; F(K - 1, G - 1) of G clusters in place of the replicates would
    reject 18 % of those with 5 subgroups of 8 clusters. Source: Cameron, Gelbach and Miller, Review of Economics and
    Statistics 90 (2008) 414-427.
    """
    values, subgroup, names = np.asarray(values, float), np.asarray(subgroup), np.asarray(clusters)
    kept = [k for k in np.unique(subgroup) if len(set(names[(subgroup == k) & ~np.isnan(values)])) >= FEWEST_GROUPS]
    if len(kept) < 2:
        return NAN
    where = np.isin(subgroup, kept) & ~np.isnan(values)
    x, member = values[where], np.searchsorted(kept, subgroup[where])
    cluster = np.unique(names[where], return_inverse=True)[1].reshape(-1)
    sums, counts = np.zeros((2, int(cluster.max()) + 1, len(kept)))
    np.add.at(sums, (cluster, member), x - x.mean())
    np.add.at(counts, (cluster, member), 1)
    (found,) = wald(np.ones((1, len(sums))), sums, counts, least=1e-9 * np.abs(x).max())
    if np.isnan(found):
        return NAN
    rng, reached = np.random.default_rng(0), 0
    for size in block_sizes(REPLICATES, sums.size):
        signs = rng.choice([-1.0, 1.0], size=(size, len(sums)))
        replicates = wald(signs, sums, counts)
        reached += int(np.sum(~(replicates < found * (1 - 1e-9))))  # one that has no variance counts as reaching it
    return (1 + reached) / (1 + REPLICATES)


def wald(signs: np.ndarray, sums: np.ndarray, counts: np.ndarray, least: float = 0.0) -> np.ndarray:
    """The statistic of equal means of K subgroups, for values whose clusters have been given a sign, f[b].

        F = (C m)' (C V C')^-1 (C m) / (K - 1),    V = c sum_g u_g u_g',    u_gk = sum_(i in g, k) (x_i - m_k) / n_k

    with the means m, the contrasts C to the first of them, and c = G / (G - 1) (N - 1) / (N - K) for N cases of G
    clusters. NaN where C V C' is singular, or no standard error is above ``least``.

    Args:
        signs: f[b g], of each cluster in each replicate; all 1 for the values as they are.
        sums: f[g k] of the values of each cluster in each subgroup, with their overall mean taken off.
        counts: f[g k], the cases there.
    """
    n, (g, k) = counts.sum(0), counts.shape
    means = signs @ sums / n
    scores = (signs[:, :, None] * sums - counts * means[:, None]) / n
    variance = g / (g - 1) * (n.sum() - 1) / (n.sum() - k) * scores.swapaxes(1, 2) @ scores
    contrast = np.c_[-np.ones(k - 1), np.eye(k - 1)]
    gap, spread = means @ contrast.T, contrast @ variance @ contrast.T
    regular = (np.linalg.matrix_rank(spread) == k - 1) & (spread.max((1, 2)) > least**2)
    spread[~regular] = np.eye(k - 1)
    found = np.einsum("bi,bi->b", gap, np.linalg.solve(spread, gap[..., None])[..., 0]) / (k - 1)
    return np.where(regular, found, NAN)


def _dice_p(parts: Parts) -> float:
    rows = [(case.dice, place, case.group) for place, (_, some) in enumerate(parts) for case in some]
    dice, subgroup, clusters = zip(*rows)
    return equal_means_p(np.array(dice), np.array(subgroup), clusters)


# --- readers ----------------------------------------------------------------------------------------------------------


def with_readers(cases: Sequence[Case], *, samples: int = 1000, seed: int = 0) -> tuple[WithReader, ...]:
    """The model beside every reader of the cases; () where no case has a reader.

    Dice is the mean of ``reader_dice``; kappa is that of the model's grade and the reader's. Raises ValueError for a
    reader's grade that is not on the cases' scale.
    """
    _check_reader_grades(cases)
    found = []
    for reader in range(_readers(cases)):
        drawn = [dataclasses.replace(case, dice=_at(case.reader_dice, reader, NAN)) for case in cases]
        graded = [dataclasses.replace(case, grade_truth=_at(case.reader_grades, reader, "")) for case in cases]
        dice = estimate(drawn, "dice", samples=samples, seed=seed)
        kappa = estimate(graded, "quadratic_kappa", samples=samples, seed=seed)
        found.append(WithReader(reader + 1, dice, kappa))
    return tuple(found)


def between_readers(cases: Sequence[Case], *, samples: int = 1000, seed: int = 0) -> tuple[BetweenReaders, ...]:
    """Kappa of the grades of every pair of readers, over the graded cases that the model has graded, too.

    Raises ValueError for a reader's grade that is not on the cases' scale.
    """
    _check_reader_grades(cases)
    pairs = combinations(range(max((len(case.reader_grades) for case in cases), default=0)), 2)
    found = []
    for first, second in pairs:
        both = [
            dataclasses.replace(
                case,
                grade_truth=_at(case.reader_grades, first, ""),
                grade_predicted=_at(case.reader_grades, second, ""),
            )
            for case in cases
        ]
        kappa = estimate(both, "quadratic_kappa", samples=samples, seed=seed)
        found.append(BetweenReaders(first + 1, second + 1, kappa))
    return tuple(found)


def _check_reader_grades(cases: Sequence[Case]) -> None:
    names = grades(cases)
    for case in cases if names else ():
        unknown = [grade for grade in case.reader_grades if grade and grade not in names]
        if unknown:
            raise ValueError(f"case {case.case!r}: a reader's grade {unknown[0]!r} is not one of {', '.join(names)}.")


def _readers(cases: Sequence[Case]) -> int:
    return max((max(len(case.reader_dice), len(case.reader_grades)) for case in cases), default=0)


def _at(values: Sequence, place: int, missing):
    return values[place] if place < len(values) else missing
