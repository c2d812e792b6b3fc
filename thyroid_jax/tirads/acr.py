"""ACR TI-RADS 2017: points, level, then FNA or follow-up by size.

Sources:
    Points, levels, sizes, follow-up: Tessler et al., J Am Coll Radiol 14 (2017) 587-595,
    doi 10.1016/j.jacr.2017.01.046.
    Risks: Middleton et al., AJR 208 (2017) 1331-1341, doi 10.2214/AJR.16.17613; 3422 nodules, 352 malignant.

Notes of the chart that are applied:
    - A spongiform nodule gets no further points.
    - "unclear": composition hidden by calcification 2 points, echogenicity 1 point, margin 0 points.
    - Every kind of echogenic focus adds.

Not coded: which of several nodules to sample, growth, lymph nodes. If the level rises at a follow-up, the next
examination is due after one year, whatever the first level was.

Research use, not advice about a patient.
"""

from __future__ import annotations

from bisect import bisect_right

from thyroid_jax.tirads.chart import COMPOSITION, ECHOGENICITY, FIRST_POINTS, FOCI, LEVELS, MARGIN, SHAPE, points
from thyroid_jax.tirads.nodule import ROUGH_MARGINS, SUSPICIOUS_FOCI, Asked, Findings
from thyroid_jax.tirads.rules import Graded, LevelRule, SizeRule, System, any_size

_TR5_FOLLOW_UP = "every year for up to 5 years; of 5 to 9 mm see the white paper on papillary microcarcinomas"


def _sizes(follow_from: float, fna_from: float, schedule: str) -> tuple[SizeRule, ...]:
    return (
        SizeRule(0, False, "none"),
        SizeRule(follow_from, True, "follow-up", schedule),
        SizeRule(fna_from, True, "FNA"),
    )


def _grade(findings: Findings) -> Graded:
    total = _sum(findings, findings.composition)
    name = _level_name(total)
    if findings.composition == "spongiform":
        return Graded((name,), total, _spongiform_reasons(findings))
    reasons = [
        f"Composition {findings.composition}: {_count(COMPOSITION[findings.composition])}.",
        f"Echogenicity {findings.echogenicity}: {_count(ECHOGENICITY[findings.echogenicity])}.",
        f"Shape {findings.shape}: {_count(SHAPE[findings.shape])}.",
        f"Margin {findings.margin}: {_count(MARGIN[findings.margin])}.",
        *(f"Echogenic foci {kind}: {_count(value)}." for kind, value in FOCI.items() if kind in findings.foci),
        *(() if findings.foci else ("Echogenic foci none: 0 points.",)),
        f"The sum is {_count(total)}: {name}.",
    ]
    if total == 1:
        reasons.append("The chart has no level for 1 point. It is treated as TR2.")
    if findings.margin == "extrathyroidal extension":
        reasons.append("The chart notes: definite extrathyroidal extension is malignant until proven otherwise.")
    return Graded((name,), total, tuple(reasons))


def _spongiform_reasons(findings: Findings) -> tuple[str, ...]:
    reasons = ["Composition spongiform: 0 points, and no other finding adds points."]
    if "punctate" in findings.foci:
        reasons.append("Small echogenic foci of a spongiform nodule probably are back walls of minute cysts.")
    suspicious = (
        any(kind in SUSPICIOUS_FOCI for kind in findings.foci)
        or findings.margin in ROUGH_MARGINS
        or findings.shape == "taller than wide"
    )
    if suspicious:
        total = _sum(findings, "mixed")
        reasons.append(f"Read as mixed cystic and solid it would have {_count(total)}: {_level_name(total)}.")
    return tuple(reasons)


def _sum(findings: Findings, composition: str) -> int:
    return points(composition, findings.echogenicity, findings.shape, findings.margin, tuple(findings.foci))


def _level_name(total: int) -> str:
    return LEVELS[bisect_right(FIRST_POINTS, total)]


def _count(number: int) -> str:
    return f"{number} point" if number == 1 else f"{number} points"


ACR = System(
    name="ACR TI-RADS 2017",
    source=(
        "Tessler et al., J Am Coll Radiol 14 (2017) 587-595, doi 10.1016/j.jacr.2017.01.046; "
        "risks: Middleton et al., AJR 208 (2017) 1331-1341, doi 10.2214/AJR.16.17613"
    ),
    levels=(
        LevelRule("TR1", "benign", "0 points", "0.3 %", any_size("none")),
        LevelRule("TR2", "not suspicious", "2 points (1 is treated as 2)", "1.5 %", any_size("none")),
        LevelRule("TR3", "mildly suspicious", "3 points", "4.8 %", _sizes(15, 25, "after 1, 3 and 5 years")),
        LevelRule(
            "TR4", "moderately suspicious", "4 to 6 points", "9.1 %", _sizes(10, 15, "after 1, 2, 3 and 5 years")
        ),
        LevelRule("TR5", "highly suspicious", "7 points or more", "35 %", _sizes(5, 10, _TR5_FOLLOW_UP)),
    ),
    grade=_grade,
    asked=Asked(unclear=True, extension=True),
)
