"""What the bootstrap and the permutation tests share: rows checked and grouped, groups drawn, replicates computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

NAN = float("nan")
LARGEST_BLOCK = 2_000_000  # weights of one call of a weighted statistic: memory stays bounded
ROUNDING = 1e-12  # differences of this size, relative to the values compared, are taken for rounding errors

Statistic = Callable[..., Any]


class Grouped(NamedTuple):
    """Columns with one row a case, ``member`` int[n] (the group of a case, counted from 0) and the number of groups."""

    rows: list[np.ndarray]
    member: np.ndarray
    groups: int

    @property
    def cases(self) -> int:
        """Number of rows n."""
        return len(self.member)


def grouped(clusters: Sequence | np.ndarray, data: Sequence[Sequence | np.ndarray]) -> Grouped:
    """Columns and group numbers, from n labels and columns of n rows.

    Raises ValueError when the lengths differ, a column is a single number, or a label is NaN.
    """
    rows = [np.atleast_1d(np.asarray(column)) for column in data]
    member = group_numbers(clusters)
    if not rows or any(len(column) != len(member) for column in rows):
        raise ValueError(
            f"clusters has {len(member)} cases, data has {[len(column) for column in rows]}; "
            "every column needs one row a case."
        )
    return Grouped(rows, member, int(member.max(initial=-1)) + 1)


def group_numbers(clusters: Sequence | np.ndarray) -> np.ndarray:
    """int[n]: the group of each case, counted from 0 in the order of the sorted labels.

    Raises ValueError for a label that is NaN or None: cases without a label are not one group.
    """
    labels = np.asarray(clusters)
    # A list of texts and NaN becomes an array of texts, of which one is "nan": look at what was given.
    given = labels.reshape(-1) if labels.dtype.kind in "biuf" else np.asarray(clusters, object).reshape(-1)
    missing = np.array([label is None for label in given], bool) | (given != given)
    if missing.any():
        raise ValueError(f"{int(missing.sum())} group labels are NaN or None; give each case the label of its group.")
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def check_level_and_samples(level: float, samples: int) -> None:
    """Raise ValueError for a level outside (0, 1) or no samples."""
    if not 0 < level < 1 or samples < 1:
        raise ValueError(f"level must lie in (0, 1) and samples be at least 1, not {level} and {samples}.")


def value_of(statistic: Statistic, table: Grouped, weighted: bool) -> float:
    """The statistic of the whole table, every case once."""
    if weighted:
        return float(weighted_values(statistic, table.rows, np.ones((1, table.cases)))[0])
    return float(statistic(*table.rows))


def weighted_values(statistic: Statistic, rows: Sequence[np.ndarray], weight: np.ndarray) -> np.ndarray:
    """f[s]: a weighted statistic under each row of ``weight`` f[s n]. Raises ValueError for another shape."""
    values = np.asarray(statistic(*rows, weight=weight), float)
    if values.shape != weight.shape[:1]:
        raise ValueError(f"the statistic must give one value a row of weights, {weight.shape[:1]}, not {values.shape}.")
    return values


def bootstrap_values(statistic: Statistic, table: Grouped, samples: int, seed: int, weighted: bool) -> np.ndarray:
    """f[samples]: the statistic of tables made of whole groups, drawn with replacement. The seed sets the draws."""
    generator = np.random.default_rng(seed)
    values = []
    for size in block_sizes(samples, max(table.cases, table.groups)):
        drawn = generator.integers(table.groups, size=(size, table.groups))
        if weighted:
            weight = counts_of(drawn, table.groups)[:, table.member].astype(float)
            values.append(weighted_values(statistic, table.rows, weight))
        else:
            values.append(np.array([_of_rows(statistic, table, index) for index in _row_indices(table, drawn)]))
    return np.concatenate(values)


def jackknife_values(statistic: Statistic, table: Grouped, weighted: bool) -> np.ndarray:
    """f[groups]: the statistic without one group."""
    values = []
    start = 0
    for size in block_sizes(table.groups, table.cases):
        kept = table.member != np.arange(start, start + size)[:, None]
        if weighted:
            values.append(weighted_values(statistic, table.rows, kept.astype(float)))
        else:
            values.append(np.array([_of_rows(statistic, table, np.flatnonzero(row)) for row in kept]))
        start += size
    return np.concatenate(values)


def block_sizes(samples: int, weights: int, largest: int = LARGEST_BLOCK) -> list[int]:
    """Sizes of the blocks in which ``samples`` replicates of ``weights`` weights each are computed."""
    block = max(1, largest // max(weights, 1))
    return [min(block, samples - start) for start in range(0, samples, block)]


def counts_of(drawn: np.ndarray, groups: int) -> np.ndarray:
    """How often each group was drawn, int[s groups], from the drawn groups int[s d]."""
    shifted = drawn + groups * np.arange(len(drawn))[:, None]
    return np.bincount(shifted.ravel(), minlength=groups * len(drawn)).reshape(len(drawn), groups)


def spread_is_rounding(values: np.ndarray) -> bool:
    """Whether the values differ by rounding errors only."""
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def _of_rows(statistic: Statistic, table: Grouped, index: np.ndarray) -> float:
    return float(statistic(*(column[index] for column in table.rows)))


def _row_indices(table: Grouped, draws: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each draw, group after group as drawn."""
    by_group = np.argsort(table.member, kind="stable")
    sizes = np.bincount(table.member, minlength=table.groups)
    starts = np.cumsum(sizes) - sizes
    for drawn in draws:
        size = sizes[drawn]
        # The positions start, start + 1, ... of every drawn group, one after the other, without a Python loop.
        yield by_group[np.arange(size.sum()) + np.repeat(starts[drawn] - (np.cumsum(size) - size), size)]
