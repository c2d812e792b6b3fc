"""How far several readers of the same images agree: on outlines (Dice), on grades (kappa), on a number (ICC).

All are plain numpy functions. Agreement says how good any model can look against one of these readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from thyroid_jax.data.record import Record
from thyroid_jax.evaluate.metrics import NAN, dice, quadratic_kappa
from thyroid_jax.evaluate.statistics.resampling import spread_is_rounding


def pairwise_dice(masks: Sequence[np.ndarray]) -> float:
    """Mean Dice of all pairs of one image's outlines bool[h w], in [0, 1]; NaN for fewer than two.

    Two empty outlines agree: 1.
    """
    pairs = [dice(first, second) for first, second in combinations(masks, 2)]
    return float(np.mean(pairs)) if pairs else NAN


def weighted_kappa(first: Sequence[int], second: Sequence[int], grades: int) -> float:
    """Cohen's kappa with quadratic weights of two readers' grades int[n] in [0, ``grades``), in [-1, 1].

    NaN without an image, or if both give one and the same grade to all images: chance then explains everything.
    Raises ValueError when the lengths differ, or for a grade that is not a whole number in the range.
    """
    pairs = np.asarray(first), np.asarray(second)
    if pairs[0].shape != pairs[1].shape or not np.isin(pairs, np.arange(grades)).all():
        raise ValueError(f"the readers' grades must be two vectors of one length, of whole numbers in 0..{grades - 1}.")
    confusion = np.zeros((grades, grades))
    np.add.at(confusion, tuple(grade.astype(int) for grade in pairs), 1)
    return float(quadratic_kappa(confusion))


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa of categories, from how many readers chose each of k for each of n images: ``counts`` int[n k].

        kappa = (P - Pe) / (1 - Pe),  P = mean_i sum_j n_ij (n_ij - 1) / (m_i (m_i - 1)),  Pe = sum_j p_j^2

    with m_i readers of image i and p_j the share of category j in all ratings. Images with fewer than two readers do
    not count. In [-1, 1]; NaN without an image, or when all ratings are one category. It ignores the categories' order.
    Raises ValueError for counts that are negative or NaN, or not a table.
    Source: Fleiss, Psychological Bulletin 76 (1971) 378; with equal m_i it is his formula.
    """
    counts = np.asarray(counts, float)
    if counts.ndim != 2 or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"counts {counts.shape} must be a table [n k] of finite numbers that are 0 or more.")
    counts = counts[counts.sum(1) >= 2]
    if not len(counts):
        return NAN
    readers = counts.sum(1)
    agreed = ((counts * (counts - 1)).sum(1) / (readers * (readers - 1))).mean()
    by_chance = ((counts.sum(0) / counts.sum()) ** 2).sum()
    return float((agreed - by_chance) / (1 - by_chance)) if by_chance < 1 else NAN


def icc(values: np.ndarray) -> float:
    """Intraclass correlation ICC(2,1) of a number that m readers gave for each of n images, f[n m].

        ICC = (MSR - MSE) / (MSR + (m - 1) MSE + m (MSC - MSE) / n)

    with the mean squares of a two-way analysis of variance: of images MSR, of readers MSC, and residual MSE. It is the
    absolute agreement of single readers, who stand for others (two-way random effects): a reader who is always higher
    lowers it. At most 1; it can be negative. NaN for fewer than two images or readers, or if all values are equal but
    for rounding.
    Raises ValueError for missing (NaN) values. Source: Shrout and Fleiss, Psychological Bulletin 86 (1979) 420.
    """
    values = np.asarray(values, float)
    if np.isnan(values).any():
        raise ValueError("icc: a value is missing; give the rows that all readers measured.")
    if values.ndim != 2 or min(values.shape) < 2 or spread_is_rounding(values):
        return NAN
    n, m = values.shape
    rows, columns, mean = values.mean(1), values.mean(0), values.mean()
    of_images = m * ((rows - mean) ** 2).sum() / (n - 1)
    of_readers = n * ((columns - mean) ** 2).sum() / (m - 1)
    residual = ((values - rows[:, None] - columns + mean) ** 2).sum() / ((n - 1) * (m - 1))
    whole = of_images + (m - 1) * residual + m * (of_readers - residual) / n
    return float((of_images - residual) / whole) if whole > 0 else NAN


class Agreement(NamedTuple):
    """Agreement between the readers of a data set; NaN where no two readers did the same.

    outlines  images outlined by two readers at least, dice is the mean over them of :func:`pairwise_dice`
    area_icc  of the areas in pixels, over the images that the largest number of readers outlined
    grades    images graded by two readers at least; kappa is the mean over pairs of readers of :func:`weighted_kappa`
    """

    outlines: int = 0
    dice: float = NAN
    area_icc: float = NAN
    grades: int = 0
    kappa: float = NAN
    fleiss: float = NAN


class ReaderLabels(NamedTuple):
    """What :func:`agreement` reads of a record: its readers' Dice, their areas in pixels, and their grades."""

    dice: float
    areas: tuple[int, ...]
    grades: tuple[int, ...]


def reader_labels(record: Record) -> ReaderLabels:
    """The readers' labels of one record, without its pixels."""
    areas = tuple(int(mask.sum()) for mask in record.reader_masks)
    return ReaderLabels(pairwise_dice(record.reader_masks), areas, tuple(record.reader_grades))


def agreement(labels: Sequence[ReaderLabels], grades: int) -> Agreement:
    """Agreement between readers, whose order is the same in every record, on ``grades`` classes."""
    dices = [each.dice for each in labels if len(each.areas) >= 2]
    most = max((len(each.areas) for each in labels), default=0)
    areas = [each.areas for each in labels if len(each.areas) == most]
    given = [each.grades for each in labels if len(each.grades) >= 2]
    counts = np.array([np.bincount(each, minlength=grades) for each in given]).reshape(-1, max(grades, 1))
    return Agreement(
        outlines=len(dices),
        dice=float(np.mean(dices)) if dices else NAN,
        area_icc=icc(np.array(areas)) if most >= 2 else NAN,
        grades=len(given),
        kappa=_mean_kappa(given, grades),
        fleiss=fleiss_kappa(counts),
    )


def said(found: Agreement) -> list[str]:
    """The agreement in words, a line for outlines and one for grades; [] where no image has two readers."""
    lines = []
    if found.outlines:
        lines.append(
            f"readers' outlines: Dice {found.dice:.3f} (mean over pairs of readers, {found.outlines} images), "
            f"ICC of the area {found.area_icc:.3f}"
        )
    if found.grades:
        lines.append(
            f"readers' grades: quadratic kappa {found.kappa:.3f} (mean over pairs of readers, {found.grades} images), "
            f"Fleiss' kappa {found.fleiss:.3f}"
        )
    return lines


def _mean_kappa(given: Sequence[tuple[int, ...]], grades: int) -> float:
    kappas = []
    for first, second in combinations(range(max(map(len, given), default=0)), 2):
        both = [(row[first], row[second]) for row in given if len(row) > second]
        kappas.append(weighted_kappa([a for a, _ in both], [b for _, b in both], grades))
    defined = [kappa for kappa in kappas if not np.isnan(kappa)]
    return float(np.mean(defined)) if defined else NAN
