"""The page of a comparison: several methods on the same cases, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.evaluate import tabulate
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.paired import compare, matched
from thyroid_jax.evaluate.report import plots, tables
from thyroid_jax.evaluate.report.page import filled, shown_pictures
from thyroid_jax.evaluate.report.pictures import Thumbnail
from thyroid_jax.evaluate.summary import Summary

SHOWN = 5
"""cases of each direction with the largest change"""
FIRST_LOOK = (*("dice", "hd95_mm", "hd95_px", "quadratic_kappa", "macro_auroc"), "malignant_auroc")


class Change(NamedTuple):
    """A case under two methods: its Dice with each, and the pictures with the two outlines, None where not given."""

    key: str
    first: float
    other: float
    pictures: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]


class Against(NamedTuple):
    """The first method and another one: pairs with a Dice on both sides, a drawing of them, and the largest changes."""

    first: str
    other: str
    pairs: int
    better: int
    worse: int
    svg: str
    gains: Sequence[Change]
    losses: Sequence[Change]

    @property
    def pictured(self) -> bool:
        """Whether any of the changes has a picture."""
        return any(picture for change in (*self.gains, *self.losses) for picture in change.pictures)


def render_comparison(
    found: Mapping[str, Sequence[Case]],
    pictures: Mapping[str, Sequence[Thumbnail]] | None = None,
    *,
    compared: tabulate.Comparison | None = None,
    title: str = "Comparison",
    samples: int | None = None,
) -> str:
    """The page that compares two or more methods on the same cases, as text: a function of its arguments alone.

    Args:
        found: method -> its cases; the others are compared to the first.
        pictures: method -> pictures of its cases, of any number of them. They are found by case, so those of a method
            with several rows of a case (several seeds) are not shown: which row they are of is not known.
        compared: the comparison of these methods to the first one, and of others where there are any, as
            :func:`thyroid_jax.evaluate.paired.compare` made it; None computes it with the usual measures.
        title: of the page.
        samples: replicates of each interval, 2000 by default; not with ``compared``, which has its own.

    It shows every measure of each method with its interval, the paired differences of
    :func:`thyroid_jax.evaluate.paired.compare` with intervals and p, every case's Dice under both methods, and the
    cases whose Dice changed most, both ways.

    Raises :class:`~thyroid_jax.errors.InputError` for methods whose cases differ, ValueError for fewer than two, for
    methods that ``compared`` does not hold, and for both ``compared`` and ``samples``.
    """
    if len(found) < 2:
        raise ValueError(f"a comparison needs two methods, not {len(found)}.")
    if compared is not None and samples is not None:
        raise ValueError("samples are those of the comparison; leave one of both out.")
    whole = compare(found, samples=samples or 2000) if compared is None else compared
    compared = _part_of(whole, list(found))
    first, *others = found
    shown = {method: _pictures_of(found[method], (pictures or {}).get(method, ())) for method in found}
    rows = _measure_rows(compared.summaries)
    return filled(
        "comparison.html.jinja",
        beside=False,
        title=title,
        methods=list(found),
        headline=[row for row in rows if row["key"] in (*FIRST_LOOK, *compared.measures)],
        rows=[row for row in rows if row["key"] not in (*FIRST_LOOK, *compared.measures)],
        gaps=[_gap_row(gap) for gap in compared.gaps],
        decided=any(gap.decision for gap in compared.gaps),
        caption=tabulate.caption(compared, families=whole.families),
        against=[
            _against((first, other), (found[first], found[other]), (shown[first], shown[other]), f"against {place}")
            for place, other in enumerate(others)
        ],
    )


def _part_of(compared: tabulate.Comparison, methods: Sequence[str]) -> tabulate.Comparison:
    """What the comparison says of these methods, and of their differences to the first one."""
    missing = [name for name in methods if name not in compared.summaries]
    if missing:
        raise ValueError(f"the comparison does not hold the methods {', '.join(missing)}.")
    return replace(
        compared,
        methods=tuple(method for method in compared.methods if method.name in methods),
        summaries={name: compared.summaries[name] for name in methods},
        gaps=tuple(gap for gap in compared.gaps if gap.method in methods and gap.against == methods[0]),
    )


def _pictures_of(cases: Sequence[Case], pictures: Sequence[Thumbnail]) -> dict[str, dict[str, Any]]:
    is_unique = len({case.case for case in cases}) == len(cases)
    return shown_pictures(pictures) if is_unique else {}


def _measure_rows(summaries: Mapping[str, Summary]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for summary in summaries.values() for name in summary)
    return [
        {
            "key": name,
            "name": " ".join(filter(None, [tables.name_of(name), tables.unit_of(name)])),
            "cells": [_value(summary.get(name), tables.digits_of(name)) for summary in summaries.values()],
        }
        for name in names
    ]


def _value(entry: Mapping[str, float] | None, digits: int) -> dict[str, Any]:
    """The texts of a cell; only a dash where the method does not have the measure."""
    if entry is None or np.isnan(entry["value"]):
        return {"value": "–", "interval": "", "cases": ""}
    bounds = [tables.number(entry[side], digits) for side in ("low", "high")]
    interval = "no interval" if np.isnan(entry["low"]) else " to ".join(bounds)
    return {"value": tables.number(entry["value"], digits), "interval": interval, "cases": f"{entry['n']:.0f}"}


def _gap_row(gap: tabulate.Gap) -> dict[str, Any]:
    digits = tables.digits_of(gap.measure)
    sign = "+" if gap.value > 0 else ""
    return {
        "name": tables.name_of(gap.measure),
        "method": gap.method,
        "against": gap.against,
        "value": sign + tables.number(gap.value, digits),
        "interval": "none"
        if np.isnan(gap.low)
        else f"{tables.number(gap.low, digits)} to {tables.number(gap.high, digits)}",
        "excludes_zero": gap.low > 0 or gap.high < 0,
        "p": _p_text(gap.p),
        "adjusted": _p_text(gap.adjusted),
        "pairs": gap.pairs,
        "groups": gap.groups,
        "left_out": gap.left_out,
        "decision": f"{gap.decision}{', though worse' if gap.worse and gap.decision == 'non-inferior' else ''} "
        f"(margin {gap.margin:g})"
        if gap.decision
        else "–",
    }


def _p_text(p: float) -> str:
    """The p-value below a heading that says that it is one."""
    return tables.p_value(p).removeprefix("p ").removeprefix("= ")


def _against(
    names: tuple[str, str],
    found: tuple[Sequence[Case], Sequence[Case]],
    shown: tuple[Mapping[str, Any], Mapping[str, Any]],
    salt: str,
) -> Against:
    defined = [(a, b) for a, b in matched(*found) if not np.isnan(a.dice) and not np.isnan(b.dice)]
    ranked = sorted(defined, key=lambda pair: pair[1].dice - pair[0].dice)
    is_repeated = len({case.case for case in found[0]}) < len(found[0])
    label = lambda case: f"{case.case}, {case.part}" if is_repeated else case.case
    change = lambda a, b: Change(label(a), a.dice, b.dice, (shown[0].get(a.case), shown[1].get(b.case)))
    return Against(
        *names,
        pairs=len(defined),
        better=sum(b.dice > a.dice for a, b in defined),
        worse=sum(b.dice < a.dice for a, b in defined),
        svg=plots.scatter([a.dice for a, _ in defined], [b.dice for _, b in defined], salt=salt),
        gains=[change(a, b) for a, b in ranked[::-1][:SHOWN] if b.dice > a.dice],
        losses=[change(a, b) for a, b in ranked[:SHOWN] if b.dice < a.dice],
    )
