"""Models compared on the same cases: paired differences with intervals, tests, and the tables of several methods.

Intervals and tests treat whole groups. Where a table names several seeds, the interval resamples the seeds too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import calibration_summary
from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.measures import CALIBRATION, interval_over, is_measure, measure_named
from thyroid_jax.evaluate.primary import PRIMARY
from thyroid_jax.evaluate.questions import Columns, Measure
from thyroid_jax.evaluate.statistics import (
    Interval,
    NonInferiority,
    Permutation,
    cluster_bootstrap,
    crossed_bootstrap,
    decide,
    holm,
    noninferiority,
    swap_test,
)
from thyroid_jax.evaluate.summary import Summary
from thyroid_jax.evaluate.summary import summary as summarise
from thyroid_jax.evaluate.summary.entry import entry
from thyroid_jax.evaluate.tabulate import Comparison, Gap, Method, markdown


def run_of(part: str) -> tuple[int, int] | None:
    """Fold and seed of a part that is called like ``fold0-seed1``; None for any other."""
    found = re.fullmatch(r"fold(\d+)-seed(\d+)", part)
    return (int(found[1]), int(found[2])) if found else None


def matched(first: Sequence[Case], second: Sequence[Case]) -> list[tuple[Case, Case]]:
    """Pairs of rows of two tables with the same case, in the first table's order.

    Rows of a case that occurs several times (several seeds) are paired by their part where both tables have the same
    parts, else in order. Raises :class:`InputError` for rows that one table has alone, and for tables whose groups or
    reference labels differ: they are not of the same data.
    """
    by_part = [[(case.case, case.part) for case in cases] for cases in (first, second)]
    same_parts = set(by_part[0]) == set(by_part[1]) and all(len(set(keys)) == len(keys) for keys in by_part)
    keys, others = by_part if same_parts else (_in_order(first), _in_order(second))
    there = dict(zip(others, second))
    lacking = sorted(set(keys) ^ set(there))
    if lacking:
        times = [sorted(set(Counter(case.case for case in cases).values())) for cases in (first, second)]
        if all(len(counts) == 1 for counts in times) and times[0] != times[1]:
            raise InputError(
                f"the two tables hold each case {times[0][0]} and {times[1][0]} times; compare runs of equally many "
                "folds and seeds."
            )
        raise InputError(
            f"the two tables are not of the same cases: {len(lacking)} rows are in one alone, the first is "
            f"{lacking[0][0]!r}; compare runs of the same folds and seeds."
        )
    pairs = [(case, there[key]) for key, case in zip(keys, first)]
    differing = [(a.case, fault) for a, b in pairs if (fault := other_reference(a, b))]
    if differing:
        raise InputError(
            f"the two tables are not of the same data: {len(differing)} cases differ in their reference, the first is "
            f"{differing[0][0]!r} ({differing[0][1]}); evaluate both on one build of the data set."
        )
    return pairs


def _in_order(cases: Sequence[Case]) -> list[tuple[str, str | int]]:
    """(case, how often it occurred before) of each row."""
    seen: Counter[str] = Counter()
    keys: list[tuple[str, str | int]] = []
    for case in cases:
        keys.append((case.case, seen[case.case]))
        seen[case.case] += 1
    return keys


def other_reference(first: Case, second: Case) -> str:
    """What the two rows say differently about the truth; "" where they agree or one of them does not know."""
    if first.group != second.group:
        return f"group {first.group!r} and {second.group!r}"
    for name in ("grade_truth", "malignant_truth", "reference_area_px"):
        values = getattr(first, name), getattr(second, name)
        if None not in values and "" not in values and values[0] != values[1]:
            return f"{name} {values[0]} and {values[1]}"
    return ""


class _Pairs(NamedTuple):
    """Usable pairs of a measure: their groups, the columns of both tables, and their seeds where they are crossed."""

    measure: Measure
    groups: list[str]
    ours: Columns
    theirs: Columns
    seeds: np.ndarray | None
    left_out: int

    def gap(self, *data: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The measure of the first half of the columns minus that of the second half."""
        half = len(data) // 2
        return self.measure.value(*data[:half], weight=weight) - self.measure.value(*data[half:], weight=weight)


def _pairs(first: Sequence[Case], second: Sequence[Case], name: str) -> _Pairs:
    rows = matched(first, second)
    names, others = grades(list(first)), grades(list(second))
    if names and others and names != others:
        raise InputError(f"the two tables have different grades, {', '.join(names)} and {', '.join(others)}.")
    chosen = measure_named(name, names or others)
    pairs = [(a, b) for a, b in rows if chosen.usable(a) and chosen.usable(b)]
    ours, theirs = (chosen.columns([pair[side] for pair in pairs], names or others) for side in (0, 1))
    return _Pairs(chosen, [a.group for a, _ in pairs], ours, theirs, _crossed_seeds(pairs), len(rows) - len(pairs))


def _crossed_seeds(pairs: Sequence[tuple[Case, Case]]) -> np.ndarray | None:
    """The seed of each pair, if there are several, both tables name the same, and each has a row of every group."""
    runs = [run_of(a.part) for a, b in pairs if a.part == b.part]
    seeds = [run[1] for run in runs if run is not None]
    if len(seeds) < len(pairs) or len(set(seeds)) < 2:
        return None
    cells = {(a.group, seed) for (a, _), seed in zip(pairs, seeds)}
    return np.array(seeds) if len(cells) == len(set(seeds)) * len({a.group for a, _ in pairs}) else None


# --- differences ------------------------------------------------------------------------------------------------------


def difference(
    first: Sequence[Case], second: Sequence[Case], measure: str, *, samples: int = 2000, seed: int = 0
) -> Interval:
    """Measure of the first table minus that of the second, with a 95 % interval; both tables are resampled alike.

    Rows are paired as :func:`matched` says. ``measure`` is a name that
    :func:`~thyroid_jax.evaluate.measures.measure_named` knows. The interval is the expanded
    one of :func:`~thyroid_jax.evaluate.statistics.cluster_bootstrap`, over groups. Where the parts of both tables name
    the same seeds (:func:`run_of`), two at least, and every group has rows of each of them, it is that of
    :func:`~thyroid_jax.evaluate.statistics.crossed_bootstrap`, over groups and seeds; ``seeds`` of the interval then
    is their number, else 0. NaN where no pair has the measure.

    Raises :class:`InputError` as :func:`matched` does, and for tables of different grades.
    """
    return _interval(_pairs(first, second, measure), samples, seed)


def _interval(pairs: _Pairs, samples: int, seed: int) -> Interval:
    columns = (*pairs.ours, *pairs.theirs)
    if pairs.seeds is None:
        return cluster_bootstrap(
            pairs.gap, pairs.groups, *columns, samples=samples, seed=seed, weighted=True, expanded=True
        )
    return crossed_bootstrap(pairs.gap, pairs.groups, pairs.seeds, *columns, samples=samples, seed=seed, weighted=True)


def permutation_test(
    first: Sequence[Case], second: Sequence[Case], measure: str, *, samples: int = 10_000, seed: int = 0
) -> Permutation:
    """Two-sided permutation test of the :func:`difference`: two tables exchange their rows on whole groups.

    All rows of a group, also those of several seeds, change together: the test is about other groups, with these
    seeds. Scores whose AUROC is compared are replaced by their ranks in their own table.
    See :func:`~thyroid_jax.evaluate.statistics.swap_test`; p is NaN where no pair has the measure.
    """
    return _test(_pairs(first, second, measure), samples, seed)


def _test(pairs: _Pairs, samples: int, seed: int) -> Permutation:
    exchanged = [pairs.measure.exchanged(columns) for columns in (pairs.ours, pairs.theirs)]
    return swap_test(pairs.measure.value, pairs.groups, *exchanged, samples=samples, seed=seed, weighted=True)


# --- several methods --------------------------------------------------------------------------------------------------


def compare(
    found: Mapping[str, Sequence[Case]],
    *,
    against: Mapping[str, str] | None = None,
    measures: Sequence[str] = PRIMARY,
    margins: Mapping[str, float] | None = None,
    samples: int = 2000,
    notes: Sequence[str] = (),
) -> Comparison:
    """All measures of each method, and paired differences with intervals, p, adjusted p and non-inferiority.

    Args:
        found: method -> its cases. Methods that are compared must have the same cases.
        against: method -> the one that it is compared to; by default all others are compared to the first.
        measures: what to compare, by names as :mod:`thyroid_jax.evaluate.measures` has them. All tests against one
            method are a family, over which :func:`~thyroid_jax.evaluate.statistics.holm` adjusts p.
        margins: measure -> margin of non-inferiority, read from the interval of the difference
            (:func:`~thyroid_jax.evaluate.statistics.decide`); p is computed where it resamples groups alone.
        samples: replicates of each interval; tests have five times as many permutations.
        notes: sentences of the caption about the data.

    Raises :class:`InputError` for an empty ``found``, an unknown measure, a margin that is not positive or of a measure
    that is not compared, and as :func:`difference` does.
    """
    if not found:
        raise InputError("nothing to compare: name a method.")
    margins = margins or {}
    check_measures(measures, margins)
    summaries = {method: _summary_with(cases, measures, samples) for method, cases in found.items()}
    first, *others = found
    pairs_of = dict.fromkeys(others, first) if against is None else against
    gaps = [
        gap
        for method, other in pairs_of.items()
        for name in measures
        if (gap := _gap((method, other), found, name, margins.get(name), samples)) is not None
    ]
    return Comparison(
        methods=tuple(_method(name, cases) for name, cases in found.items()),
        summaries=summaries,
        gaps=tuple(_adjusted(gaps)),
        measures=tuple(measures),
        samples=samples,
        permutations=PERMUTATIONS * samples,
        notes=tuple(notes),
    )


def _summary_with(cases: Sequence[Case], measures: Sequence[str], samples: int) -> Summary:
    """The summary of a table, and those of the measures that it does not hold."""
    found = summarise(cases, samples=samples)
    scale = grades(cases)
    calibrated: Summary = {}
    for name in (name for name in measures if name not in found):
        measure = measure_named(name, scale)
        usable = [case for case in cases if measure.usable(case)]
        if usable and name in CALIBRATION:
            measure.columns(usable, scale)  # names a case whose probabilities cannot be scored
            calibrated = calibrated or calibration_summary(cases, samples=samples)
            found[name] = calibrated[name]
        elif usable:
            found[name] = entry(interval_over(usable, measure, scale, samples=samples), len(usable))
    return found


PERMUTATIONS = 5  # permutations of a test for each replicate of an interval: small p need more of them


def comparison(found: Mapping[str, Sequence[Case]], *, samples: int = 2000) -> str:
    """The Markdown tables of :func:`compare`."""
    return markdown(compare(found, samples=samples))


def _adjusted(gaps: Sequence[Gap]) -> list[Gap]:
    """With Holm's p over all tests against one method."""
    found = list(gaps)
    for against in {gap.against for gap in gaps}:
        rows = [row for row, gap in enumerate(gaps) if gap.against == against]
        for row, p in zip(rows, holm([gaps[row].p for row in rows])):
            found[row] = found[row]._replace(adjusted=float(p))
    return found


def check_measures(measures: Sequence[str], margins: Mapping[str, float]) -> None:
    """Raise :class:`InputError` for what :func:`compare` would refuse of them."""
    if not measures or len(set(measures)) < len(measures):
        raise InputError("measures: name one at least, and each once.")
    for name in measures:
        if not is_measure(name):
            measure_named(name, ())  # raises, and says what there is
    for name, margin in margins.items():
        if name not in measures:
            raise InputError(f"margin of {name!r}: it is not among the compared measures, {', '.join(measures)}.")
        if not (np.isfinite(margin) and margin > 0):
            raise InputError(f"margin of {name!r} is {margin:g}; it is the largest loss that is acceptable, above 0.")


def _gap(
    methods: tuple[str, str],
    found: Mapping[str, Sequence[Case]],
    name: str,
    margin: float | None,
    samples: int,
) -> Gap | None:
    """The difference of two methods in one measure; None where no pair has it."""
    method, against = methods
    pairs = _pairs(found[method], found[against], name)
    if not pairs.groups:
        return None
    interval = _interval(pairs, samples, 0)
    tested = _test(pairs, PERMUTATIONS * samples, 0)
    gap = Gap(
        method=method,
        against=against,
        measure=name,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        resampled="groups" if pairs.seeds is None else "groups and seeds",
        pairs=len(pairs.groups),
        left_out=pairs.left_out,
        groups=len(set(pairs.groups)),
        undefined=interval.undefined,
        p=tested.p,
        exact=tested.exact,
    )
    if margin is None:
        return gap
    if pairs.seeds is None:
        decided = _noninferiority(pairs, margin, samples)
        return gap._replace(
            margin=margin, decision=decided.decision, worse=decided.worse, margin_p=decided.p_noninferior
        )
    higher = pairs.measure.higher
    return gap._replace(
        margin=margin,
        decision=decide(interval.low, interval.high, margin=margin, higher_is_better=higher),
        worse=interval.high < 0 if higher else interval.low > 0,
    )


def _noninferiority(pairs: _Pairs, margin: float, samples: int) -> NonInferiority:
    """With its p; its interval is that of the difference, over groups."""
    return noninferiority(
        pairs.gap,
        pairs.groups,
        *pairs.ours,
        *pairs.theirs,
        margin=margin,
        higher_is_better=pairs.measure.higher,
        samples=samples,
        weighted=True,
    )


def _method(name: str, cases: Sequence[Case]) -> Method:
    runs = [run for case in cases if (run := run_of(case.part)) is not None]
    return Method(
        name=name,
        predictions=len(cases),
        images=len({case.case for case in cases}),
        groups=len({case.group for case in cases}),
        folds=tuple(sorted({fold for fold, _ in runs})),
        seeds=tuple(sorted({seed for _, seed in runs})),
    )
