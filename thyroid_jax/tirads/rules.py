"""What every system has in common: levels with a published risk, and what to do from which size on.

Sizes are largest diameters in millimetres.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from thyroid_jax.tirads.nodule import Asked, Findings

ACTIONS = ("none", "no FNA", "follow-up", "consider FNA", "FNA")
"""What a size rule asks for, from least to most; FNA is fine-needle aspiration.

"none": neither FNA nor follow-up. "no FNA": the rule says nothing about follow-up. "consider FNA": the source gives
a range of sizes, or a selective indication.
"""


class SizeRule(NamedTuple):
    """What to do from one size on, up to the next rule of the level.

    Args:
        from_mm: the bound in millimetres.
        inclusive: whether a nodule of exactly ``from_mm`` is meant (>=) or only larger ones (>).
        action: one of :data:`ACTIONS`.
        detail: when to follow up, or under which condition, in words; None where the source says no more.
    """

    from_mm: float
    inclusive: bool
    action: str
    detail: str | None = None


class LevelRule(NamedTuple):
    """One level of a system: a row of its table.

    Args:
        name: the level, "TR4" or "4A".
        meaning: what the source calls it.
        rule: the findings of this level, in words.
        risk: risk of malignancy as published.
        sizes: size rules by increasing bound; the first has the bound 0. Empty where the source gives none.
    """

    name: str
    meaning: str
    rule: str
    risk: str
    sizes: tuple[SizeRule, ...] = ()


class Graded(NamedTuple):
    """What the rules of a system say about complete findings.

    Args:
        levels: one level; several where two published rules fit and the source does not say which goes first.
        points: the sum of points, or the number of features; None where the system counts nothing.
        reasons: sentences, one for each finding that counted.
    """

    levels: tuple[str, ...]
    points: int | None
    reasons: tuple[str, ...]


class System(NamedTuple):
    """A system of rules: its levels from least to most suspicious, and the function that applies the rules."""

    name: str
    source: str
    levels: tuple[LevelRule, ...]
    grade: Callable[[Findings], Graded]
    asked: Asked


def size_rule_of(level: LevelRule, size_mm: float | int) -> SizeRule:
    """The rule of ``level`` for a nodule of ``size_mm`` > 0: the last one whose bound the size passes.

    The size is compared as it is, without rounding. A level without size rules raises ValueError.
    """
    if not level.sizes:
        raise ValueError(f"level {level.name}: its source gives no size rule.")
    passed = [rule for rule in level.sizes if size_mm > rule.from_mm or (rule.inclusive and size_mm == rule.from_mm)]
    return passed[-1]


def sizes_in_words(level: LevelRule) -> str:
    """The size rules of a level, the most active one first: "FNA ≥ 15 mm; follow-up ≥ 10 mm (...); else none"."""
    parts = []
    for rule in reversed(level.sizes):
        bound = "" if rule.from_mm == 0 else f" {'≥' if rule.inclusive else '>'} {rule.from_mm:g} mm"
        parts.append(rule.action + bound + (f" ({rule.detail})" if rule.detail else ""))
    if len(level.sizes) == 1:
        return f"{parts[0]} at any size"
    return "; ".join(parts[:-1]) + f"; else {parts[-1]}" if parts else "not published"


def any_size(action: str) -> tuple[SizeRule, ...]:
    """The same action for every size."""
    return (SizeRule(0, False, action),)


def cyst_or_mixed(grade: Callable[[Findings], Graded], findings: Findings) -> Graded | None:
    """Both readings of a cystic nodule that is not anechoic: it may be a cyst, or mixed with a small solid part.

    "cystic" is cystic or almost completely cystic in the ACR lexicon. None for every other nodule.
    """
    if findings.composition != "cystic" or findings.echogenicity == "anechoic":
        return None
    as_cyst = grade(findings._replace(echogenicity="anechoic"))
    as_mixed = grade(findings._replace(composition="mixed"))
    reasons = (
        "A cystic nodule that is not anechoic may have a solid part. It is read both ways.",
        *(f"As a cyst: {reason}" for reason in as_cyst.reasons),
        *(f"As mixed: {reason}" for reason in as_mixed.reasons),
    )
    return Graded((*as_cyst.levels, *as_mixed.levels), None, reasons)


def all_features(present: dict[str, bool]) -> tuple[str, ...]:
    """The names whose value is True, in order."""
    return tuple(name for name, value in present.items() if value)
