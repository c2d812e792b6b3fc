"""The tables of a comparison as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from thyroid_jax.evaluate.tabulate.content import LABELS, Comparison, Gap, caption, gap_text, p_value, value_text

PARTS = ("values", "differences", "p", "margins", "caption")


def markdown(found: Comparison, *, parts: Sequence[str] = PARTS, rows: Sequence[str] = ()) -> str:
    """Tables of the values, of the differences, of their p (adjusted p) and of non-inferiority; then the caption.

    Args:
        found: what is written.
        parts: those of :data:`PARTS` that are written, in their order there.
        rows: the measures in the table of values; all with a name in :data:`LABELS`, and those compared, where empty.

    A cell is empty where a method does not have the measure. Raises ValueError for parts or rows that are not there.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"parts {', '.join(unknown)}: choose of {', '.join(PARTS)}.")
    blocks = [_value_table(found, rows)] if "values" in parts else []
    for against in found.families:
        gaps = [gap for gap in found.gaps if gap.against == against]
        blocks += [_gap_table(f"difference to {against}", gaps, gap_text)] if "differences" in parts else []
        blocks += [_gap_table("p (adjusted p)", gaps, _p_text)] if "p" in parts else []
        decided = [gap for gap in gaps if gap.decision] if "margins" in parts else []
        blocks += [_gap_table("non-inferiority (margin, p)", decided, _decision_text)] if decided else []
    blocks += [caption(found)] if "caption" in parts else []
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _value_table(found: Comparison, rows: Sequence[str]) -> list[str]:
    names = [method.name for method in found.methods]
    lines = _head("measure", "predictions", "groups", *names)
    there = _shown(found) if not rows else _asked(found, rows)
    for measure in there:
        entries = [found.summaries[name].get(measure) for name in names]
        known = [entry for entry in entries if entry is not None]
        counts = [_span(entry[key] for entry in known) for key in ("n", "groups")]
        lines.append(_row(measure, *counts, *map(value_text, entries)))
    return lines


def _asked(found: Comparison, rows: Sequence[str]) -> Sequence[str]:
    there = {name for summary in found.summaries.values() for name in summary}
    if unknown := [name for name in rows if name not in there]:
        raise ValueError(f"rows {', '.join(unknown)}: no method has them; choose of {', '.join(sorted(there))}.")
    return rows


def _shown(found: Comparison) -> list[str]:
    there = dict.fromkeys(name for summary in found.summaries.values() for name in summary)
    return [name for name in there if name in LABELS or name in found.measures]


def _gap_table(title: str, gaps: Sequence[Gap], text: Callable[[Gap], str]) -> list[str]:
    methods = list(dict.fromkeys(gap.method for gap in gaps))
    lines = _head(title, "pairs", "groups", *methods)
    for measure in dict.fromkeys(gap.measure for gap in gaps):
        own = {gap.method: gap for gap in gaps if gap.measure == measure}
        counts = [_span(gap.pairs for gap in own.values()), _span(gap.groups for gap in own.values())]
        lines.append(_row(measure, *counts, *(text(own[name]) if name in own else "" for name in methods)))
    return lines


def _p_text(gap: Gap) -> str:
    return "undefined" if math.isnan(gap.p) else f"{p_value(gap.p)} ({p_value(gap.adjusted)})"


def _decision_text(gap: Gap) -> str:
    worse = ", though worse" if gap.worse and gap.decision == "non-inferior" else ""
    p = "" if math.isnan(gap.margin_p) else f", {p_value(gap.margin_p)}"
    return f"{gap.decision}{worse} ({gap.margin:g}{p})"


def _span(counts: Iterable[float]) -> str:
    """The number, or lowest and highest where the methods differ: HD95 is undefined for an empty outline."""
    numbers = sorted({round(count) for count in counts})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _head(*names: str) -> list[str]:
    return [_row(*names), "|---" * len(names) + "|"]


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
