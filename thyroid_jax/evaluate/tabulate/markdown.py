"""The tables of a comparison as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from thyroid_jax.evaluate.tabulate.content import LABELS, Comparison, Gap, caption, gap_text, p_value, value_text


def markdown(found: Comparison) -> str:
    """Tables of the values, of the differences, of their p (adjusted p) and of non-inferiority; then the caption.

    A cell is empty where a method does not have the measure.
    """
    names = [method.name for method in found.methods]
    lines = _head("measure", "predictions", "groups", *names)
    for measure in _shown(found):
        entries = [found.summaries[name].get(measure) for name in names]
        there = [entry for entry in entries if entry is not None]
        counts = [_span(entry[key] for entry in there) for key in ("n", "groups")]
        lines.append(_row(measure, *counts, *map(value_text, entries)))
    for against in found.families:
        gaps = [gap for gap in found.gaps if gap.against == against]
        lines += ["", *_gap_table(f"difference to {against}", gaps, gap_text)]
        lines += ["", *_gap_table("p (adjusted p)", gaps, _p_text)]
        decided = [gap for gap in gaps if gap.decision]
        lines += ["", *_gap_table("non-inferiority (margin, p)", decided, _decision_text)] if decided else []
    return "\n".join([*lines, "", *caption(found)])


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
