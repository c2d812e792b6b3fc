"""Apply one system of rules, or all of them, to the findings of a nodule, and say why.

What cannot be known is not guessed. Where findings are missing, all levels that they leave possible are given; where
the size is missing, there is no management by size.

Research use, not advice about a patient.
"""

from __future__ import annotations

from dataclasses import dataclass

from thyroid_jax.tirads.acr import ACR
from thyroid_jax.tirads.c import C
from thyroid_jax.tirads.eu import EU
from thyroid_jax.tirads.k import K2016, K2021
from thyroid_jax.tirads.kwak import KWAK
from thyroid_jax.tirads.nodule import Nodule, completions, doubts, missing_findings
from thyroid_jax.tirads.rules import Graded, LevelRule, System, size_rule_of, sizes_in_words

SYSTEMS: dict[str, System] = {"acr": ACR, "eu": EU, "k": K2021, "k2016": K2016, "c": C, "kwak": KWAK}
"""the systems by the name that :func:`assess` takes; "k" is K-TIRADS 2021"""

RESEARCH_USE = "Research use, not advice about a patient."


@dataclass(frozen=True)
class Assessment:
    """What a system of rules says about a nodule; ``str`` gives it as text.

    Args:
        system: name and year of the system.
        level: the level, such as "TR4" or "4A"; None where several are possible.
        possible: every possible level, from least to most suspicious; one where ``level`` is known.
        points: sum of points (ACR), score (C-TIRADS) or number of suspicious features (Kwak). None where the system
            counts nothing, and where missing findings leave several values possible.
        malignancy_risk: the level's risk as its source publishes it; None where the level is not known.
        management: one of :data:`ACTIONS`. None where the size is needed and not known, where the possible levels ask
            for different things, and where the system has no size rule.
        management_detail: when to follow up, or a condition of the management; None where there is none.
        missing: the fields of the nodule that the system asks for and that are open.
        reasons: sentences that explain the result.
        source: the papers.
    """

    system: str
    level: str | None
    possible: tuple[str, ...]
    points: int | None
    malignancy_risk: str | None
    management: str | None
    management_detail: str | None
    missing: tuple[str, ...]
    reasons: tuple[str, ...]
    source: str

    @property
    def lowest(self) -> str:
        """The least suspicious level that is possible."""
        return self.possible[0]

    @property
    def highest(self) -> str:
        """The most suspicious level that is possible."""
        return self.possible[-1]

    def __str__(self) -> str:
        level = f"level {self.level}" if self.level else f"level {' or '.join(self.possible)}, not determined"
        risk = f", risk of malignancy as published {self.malignancy_risk}" if self.malignancy_risk else ""
        detail = f" ({self.management_detail})" if self.management_detail else ""
        lines = [f"{self.system}: {level}{risk}."]
        lines += [f"Management by size: {self.management or 'not determined'}{detail}."]
        lines += [f"- {reason}" for reason in self.reasons]
        return "\n".join([*lines, f"Source: {self.source}.", RESEARCH_USE])


def assess(nodule: Nodule, system: str = "acr") -> Assessment:
    """Level, published risk and management by size of a nodule in one system.

    The rules are applied to every set of findings that agrees with what was reported. ``level`` is the result if it is
    the same for all; otherwise ``possible`` lists what came out. Contradictory findings are named in ``reasons``.

    Args:
        nodule: the findings, in the words of the ACR lexicon.
        system: "acr", "eu", "k" (2021), "k2016", "c" or "kwak".

    Raises ValueError for an unknown system; the text lists the known ones.
    """
    if system not in SYSTEMS:
        raise ValueError(f"system: unknown name {system!r}. Known systems: {', '.join(SYSTEMS)}.")
    rules = SYSTEMS[system]
    graded = tuple(map(rules.grade, completions(nodule, rules.asked)))
    possible = _possible_levels(rules, graded)
    missing = missing_findings(nodule, rules.asked)
    management, detail, management_reasons = _management(rules, possible, nodule.size_mm)
    only = possible[0] if len(possible) == 1 else None
    return Assessment(
        system=rules.name,
        level=only.name if only else None,
        possible=tuple(level.name for level in possible),
        points=_common_points(graded),
        malignancy_risk=only.risk if only else None,
        management=management,
        management_detail=detail,
        missing=missing,
        reasons=(
            *_common_reasons(graded),
            *_reasons_of_missing(missing, graded, possible),
            *doubts(nodule),
            *management_reasons,
        ),
        source=rules.source,
    )


def compare(nodule: Nodule) -> dict[str, Assessment]:
    """The assessment of a nodule in every system, by the system's name: where they differ, ``reasons`` say why.

    Levels of different systems are not interchangeable: 4 of EU-TIRADS and TR4 of ACR TI-RADS are other findings,
    other risks and other sizes.
    """
    return {name: assess(nodule, name) for name in SYSTEMS}


def _possible_levels(rules: System, graded: tuple[Graded, ...]) -> tuple[LevelRule, ...]:
    names = {name for result in graded for name in result.levels}
    return tuple(level for level in rules.levels if level.name in names)


def _common_points(graded: tuple[Graded, ...]) -> int | None:
    values = {result.points for result in graded}
    return values.pop() if len(values) == 1 else None


def _common_reasons(graded: tuple[Graded, ...]) -> tuple[str, ...]:
    """The reasons that hold whatever the missing findings are."""
    in_all = set(graded[0].reasons).intersection(*(result.reasons for result in graded))
    return tuple(reason for reason in graded[0].reasons if reason in in_all)


def _reasons_of_missing(
    missing: tuple[str, ...], graded: tuple[Graded, ...], possible: tuple[LevelRule, ...]
) -> tuple[str, ...]:
    if not missing:
        return ()
    not_known = f"Not known: {', '.join(missing)}."
    if len(possible) == 1:
        return (f"{not_known} The level is {possible[0].name} for every possible value.",)
    numbers = [result.points for result in graded if result.points is not None]
    counts = f" ({min(numbers)} to {max(numbers)} points)" if numbers else ""
    return (f"{not_known} The level can be {_either(possible)}{counts}.",)


def _management(
    rules: System, possible: tuple[LevelRule, ...], size_mm: float | int | None
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Action, detail and reasons, over all possible levels."""
    if not all(level.sizes for level in possible):
        return None, None, (f"{rules.name} has no size rule.",)
    in_words = tuple(f"Sizes of level {level.name}: {sizes_in_words(level)}." for level in possible)
    if size_mm is not None:
        decisions = {size_rule_of(level, size_mm)[2:] for level in possible}
    elif all(len(level.sizes) == 1 for level in possible):
        decisions = {level.sizes[0][2:] for level in possible}
    else:
        return None, None, (*in_words, "A size in millimetres is needed for management; none is known.")
    if len(decisions) > 1:
        return None, None, (*in_words, "The possible levels ask for different management.")
    ((action, detail),) = decisions
    return action, detail, in_words


def _either(levels: tuple[LevelRule, ...]) -> str:
    return " or ".join(level.name for level in levels)
