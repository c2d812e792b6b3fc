"""What a reader of the numbers must not miss, found in the numbers themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.report import tables
from thyroid_jax.evaluate.report.curves import curve
from thyroid_jax.evaluate.summary import Summary

FEW_GROUPS = 20
FEW_CASES = 10
LOST = 0.01
RISE = 0.005
CHANCE = {
    "quadratic_kappa": ("the grades' kappa", 0.0),
    "macro_auroc": ("the grades' AUROC", 0.5),
    "malignant_auroc": ("the AUROC of malignancy", 0.5),
}


def remarks(cases: Sequence[Case], summary: Summary, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sentences on what the table, its measures and the training log have of the following, the gravest first:

    a measure at chance, or worse · an AUROC without an interval · one answer for all cases · validation Dice that still
    rose by more than 0.005 in the last quarter of its evaluations · undefined values · fewer than 20 groups · more than
    1 % of the bootstrap replicates left out · grades, or malignant or benign cases, with fewer than 10 true cases.
    """
    return [
        *_at_chance(summary),
        *_without_interval(cases, summary),
        *_one_answer(cases),
        *_still_rising(log),
        *_undefined(cases, summary),
        *_few_groups(cases, summary),
        *_left_out(summary),
        *_rare_grades(cases),
        *_rare_malignancy(cases),
    ]


def _at_chance(summary: Summary) -> list[str]:
    found = []
    for key, (name, chance) in CHANCE.items():
        entry = summary.get(key)
        if entry is None or np.isnan(entry["value"]):
            continue
        interval = f"{entry['value']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"
        if entry["low"] <= chance <= entry["high"]:
            found.append(f"{_capital(name)}, {interval}, cannot be told from chance ({chance:g}).")
        elif entry["high"] < chance:
            found.append(f"{_capital(name)}, {interval}, is worse than chance ({chance:g}).")
    return found


def _without_interval(cases: Sequence[Case], summary: Summary) -> list[str]:
    entry = summary.get("malignant_auroc")
    if entry is None or np.isnan(entry["value"]) or not np.isnan(entry["low"]) or len({c.group for c in cases}) < 2:
        return []
    return [
        f"The AUROC of malignancy, {entry['value']:.2f}, has no interval: it needs two groups (patients) with "
        "malignant and two with benign cases."
    ]


def _one_answer(cases: Sequence[Case]) -> list[str]:
    given = Counter(case.grade_predicted for case in cases if case.grade_predicted)
    calls = Counter(case.p_malignant >= 0.5 for case in cases if not np.isnan(case.p_malignant))
    found = []
    if len(given) == 1 and given.total() > 1:
        found.append(f"Every case was given the grade {_isolated(next(iter(given)))}: the grades say nothing.")
    if len(calls) == 1 and calls.total() > 1:
        found.append(f"Every case was called {'malignant' if True in calls else 'benign'} at a probability of 0.5.")
    drawn = [case.predicted_area_px for case in cases if case.predicted_area_px is not None]
    if drawn and not any(drawn):
        found.append("No case has a predicted outline.")
    return found


def _still_rising(log: Sequence[Mapping[str, Any]]) -> list[str]:
    dice = curve(log, "validation", "dice")
    cut = len(dice) - max(1, len(dice) // 4)
    if len(dice) < 3 or not dice[cut:].max() > dice[:cut].max() + RISE:
        return []
    return [
        f"Validation Dice still rose at the end of the training, from {dice[:cut].max():.3f} to {dice[cut:].max():.3f} "
        "in the last quarter of its evaluations: a longer training may give more."
    ]


def _undefined(cases: Sequence[Case], summary: Summary) -> list[str]:
    found = []
    entry = summary.get("hd95_px")
    if entry is not None and entry["undefined"]:
        total = entry["undefined"] + entry["n"]
        found.append(
            f"The boundary distances leave out {_cases(entry['undefined'])} of {total:.0f}, where one of the two "
            "outlines is empty: they look better than they are. Read them beside Dice, where such cases count 0."
        )
    unknown = sum(np.isnan(case.hd95_mm) and not np.isnan(case.hd95_px) for case in cases)
    if "hd95_mm" in summary and unknown:
        found.append(f"The size of a pixel is unknown in {_cases(unknown)}: values in mm leave them out.")
    return found


def _few_groups(cases: Sequence[Case], summary: Summary) -> list[str]:
    groups = len({case.group for case in cases})
    if not cases or groups >= FEW_GROUPS:
        return []
    if groups == 1:
        return ["All cases are of one group (patient), so nothing has an interval."]
    return [f"The cases are of {groups} groups (patients) only: the intervals are rough."]


def _left_out(summary: Summary) -> list[str]:
    shares = {
        key: entry["replicates_undefined"] / entry["replicates"]
        for key, entry in summary.items()
        if entry.get("replicates") and entry["replicates_undefined"] > LOST * entry["replicates"]
    }
    if not shares:
        return []
    worst = max(shares.values())
    return [
        f"Up to {100 * worst:.0f} % of the bootstrap replicates had no value, because a class was not drawn, and were "
        f"left out ({len(shares)} of the intervals): these classes are too rare for this test."
    ]


def _rare_grades(cases: Sequence[Case]) -> list[str]:
    names, found = grades(cases), []
    truths = Counter(case.grade_truth for case in cases if case.grade_truth)
    rare = [f"{_isolated(name)} ({truths[name]})" for name in names if 0 < truths[name] < FEW_CASES]
    missing = [_isolated(name) for name in names if truths and not truths[name]]
    if rare:
        found.append(f"Grades with fewer than {FEW_CASES} true cases: {', '.join(rare)}.")
    if missing:
        found.append(f"Grades without a true case: {', '.join(missing)}. Averages over grades do not hold them.")
    return found


def _rare_malignancy(cases: Sequence[Case]) -> list[str]:
    truths = Counter(tables.malignancy(case) for case in cases if case.malignant_truth is not None)
    rare = [name for name in ("malignant", "benign") if truths and truths[name] < FEW_CASES]
    return [f"Of the {truths.total()} cases with known malignancy, {truths[name]} are {name}." for name in rare]


def _cases(count: float) -> str:
    return f"{count:.0f} case" + ("" if count == 1 else "s")


def _isolated(name: str) -> str:
    """A name that may be written from right to left, so that it does not turn round the numbers beside it."""
    return name if name.isascii() else f"\u2068{name}\u2069"


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
