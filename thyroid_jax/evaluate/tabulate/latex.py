"""The table of a comparison as LaTeX, for booktabs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from thyroid_jax.evaluate.tabulate.content import Comparison, Gap, caption, gap_text, label_of, p_value, value_text

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"${sign}$" for sign in "<>|"},
    '"': "''",
    "[": "{[}",  # after the end of a line they would be read as its option or its star
    "*": "{*}",
}


def escape_latex(text: str) -> str:
    r"""Text in which no character has a meaning of LaTeX's.

    >>> escape_latex("plain+lite0_a & 5 %")
    'plain+lite0\\_a \\& 5 \\%'
    """
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def latex(found: Comparison) -> str:
    """A table environment for booktabs: a method in each row, a compared measure in each column, intervals below.

    Below the values stand the differences with intervals, p and adjusted p.
    """
    measures = [name for name in found.measures if any(name in summary for summary in found.summaries.values())]
    rows: list[str] = []
    for method in found.methods:
        texts = [value_text(found.summaries[method.name].get(measure)) for measure in measures]
        rows += _value_lines(method.name, texts)
    for against in found.families:
        title = rf"\multicolumn{{{len(measures) + 1}}}{{l}}{{Difference to {escape_latex(against)}}} \\"
        rows += [r"\midrule", title, *_gap_lines([gap for gap in found.gaps if gap.against == against], measures)]
    return "\n".join([
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join(escape_latex(sentence) for sentence in caption(found))}}}",
        r"\small",
        rf"\begin{{tabular}}{{l{'r' * len(measures)}}}",
        r"\toprule",
        _line("", [escape_latex(label_of(name)) for name in measures]),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ])  # fmt: skip


def _gap_lines(gaps: Sequence[Gap], measures: Sequence[str]) -> list[str]:
    lines = []
    for method in dict.fromkeys(gap.method for gap in gaps):
        own = {gap.measure: gap for gap in gaps if gap.method == method}
        lines += _value_lines(method, [gap_text(own.get(name)) for name in measures])
        lines.append(_line("", [_p_text(own.get(name)) for name in measures], small=True))
        if any(gap.decision for gap in own.values()):
            lines.append(_line("", [_decision_text(own.get(name)) for name in measures], small=True))
    return lines


def _value_lines(name: str, texts: Sequence[str]) -> list[str]:
    """A line of values, and a smaller one of their intervals."""
    values, _, intervals = zip(*(text.partition(" ") for text in texts)) if texts else ((), (), ())
    shown = [[_with_minus(text) for text in line] for line in (values, intervals)]
    return [_line(escape_latex(name), shown[0]), _line("", shown[1], small=True)]


def _p_text(gap: Gap | None) -> str:
    if gap is None or math.isnan(gap.p):
        return ""
    return f"p {escape_latex(p_value(gap.p))}, adj. {escape_latex(p_value(gap.adjusted))}"


def _decision_text(gap: Gap | None) -> str:
    if gap is None or not gap.decision:
        return ""
    worse = ", though worse" if gap.worse and gap.decision == "non-inferior" else ""
    return f"{gap.decision}{worse}"


def _line(name: str, cells: Sequence[str], *, small: bool = False) -> str:
    shown = [rf"{{\scriptsize {cell}}}" if small and cell else cell for cell in cells]
    return " & ".join([name, *shown]) + r" \\"


def _with_minus(text: str) -> str:
    """Signs before numbers in mathematics, where a hyphen is a minus."""
    return re.sub(r"(?<![\w.])[+-](?=\d)", r"$\g<0>$", text)
