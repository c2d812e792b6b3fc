"""Inline SVG in the colours of the page, drawn by matplotlib. No text of the data enters a drawing."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

# Drawn in these placeholder colours, which become the page's own, light or dark.
TEXT, LINE, FIRST, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
PLACEHOLDERS = {
    TEXT: "var(--text-soft)",
    LINE: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
STYLES = ((FIRST, "-"), (SECOND, "--"), (THIRD, ":"))


def inline_svg(draw: Callable[[Any], None], *, salt: str, inches: tuple[float, float] = (3.6, 2.1)) -> Markup:
    """SVG of what ``draw`` draws on a matplotlib axis, as safe markup without outside addresses.

    ``salt`` makes the ids of the drawing's parts; two drawings of a page need different ones. ``draw`` must not draw
    text that comes from the data.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.formatter.useoffset": False,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(style):  # type: ignore[arg-type]  # its type demands literal keys
        figure = Figure(figsize=inches, layout="constrained")
        axis = figure.subplots()
        figure.patch.set_alpha(0)
        axis.patch.set_alpha(0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(LINE)
        axis.tick_params(colors=TEXT, color=LINE, labelsize=10)
        draw(axis)
        axis.xaxis.label.set_color(TEXT)
        axis.yaxis.label.set_color(TEXT)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return _fit_for_the_page(file.getvalue())


def _fit_for_the_page(svg: str) -> Markup:
    """The SVG without a size, metadata, namespaces, fonts and unused ids, and in the page's colours."""
    from markupsafe import Markup

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)  # HTML needs no namespaces; they are external addresses
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)  # unique on the page
    svg = re.sub(r'(<svg\b[^>]*?)\sheight="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?)\swidth="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family:[^;\"]*|font: (\d+px)[^;\"]*", r"font-size: \1", svg)
    for placeholder, colour in PLACEHOLDERS.items():
        svg = svg.replace(placeholder, colour)
    return Markup(svg.replace("<svg ", '<svg aria-hidden="true" ', 1))
