"""A page of all predicted images with their outlines, to sort and look through; it needs no network.

The pictures stay files beside the page. The browser loads each when it comes into view, so a page of thousands opens
at once. The page's content security policy admits its own style and script and these pictures, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from thyroid_jax.evaluate.cases import Cell

TEXT_LENGTH = 300  # characters of a cell that the page shows


class Shown(NamedTuple):
    """A picture on the page: its path from the page's folder, its size in pixels, and its row of the table."""

    picture: str
    height: int
    width: int
    row: Mapping[str, Cell]


STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #777; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
p { margin: .2rem 0 1rem; max-width: 60rem; color: var(--soft); }
table { border-collapse: collapse; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { position: sticky; top: 0; background: Canvas; white-space: nowrap; }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25b4"; }
th[aria-sort=descending] button::after { content: " \\25be"; }
td { max-width: 22rem; overflow-wrap: anywhere; }
td.text { min-width: 9rem; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
img { width: 260px; height: 200px; object-fit: contain; background: #000; display: block; }
"""

SCRIPT = """
"use strict";
const body = document.querySelector("tbody");
const heads = [...document.querySelectorAll("th")];
const value = (row, place) => row.cells[place].dataset.value ?? "";
function compare(first, second, numeric) {
  return numeric ? Number(first) - Number(second) : first.localeCompare(second, undefined, {numeric: true});
}
heads.forEach((head, place) => head.querySelector("button")?.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending";
  const numeric = head.dataset.kind === "number";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map(row => [value(row, place), row]);
  const empty = rows.filter(pair => pair[0] === ""), filled = rows.filter(pair => pair[0] !== "");
  filled.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0], numeric));
  body.append(...[...filled, ...empty].map(pair => pair[1]));
}));
"""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Predictions</title>
<style>{style}</style>
<h1>Predictions of {count} images</h1>
<p>{note} A click on a heading sorts by it, a second one the other way round; unknown values stay last.</p>
<table>
<thead><tr><th>picture</th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<script>{script}</script>
</html>
"""


def page(shown: Sequence[Shown], columns: Mapping[str, str], *, note: str) -> bytes:
    """The page in UTF-8: a row for each picture, with the cells of ``columns`` (name -> meaning, shown as a tip).

    A column in which no picture has a value is left out. All texts are escaped. ``note`` stands above the table.
    """
    columns = {name: columns[name] for name in columns if any(one.row.get(name) not in (None, "") for one in shown)}
    numeric = {name: _is_numeric([one.row.get(name) for one in shown]) for name in columns}
    policy = f"default-src 'none'; img-src 'self' file:; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}"
    heads = "".join(
        f'<th data-kind="{"number" if numeric[name] else "text"}" title="{_text(meaning)}">'
        f'<button type="button">{_text(name)}</button></th>'
        for name, meaning in columns.items()
    )
    rows = "\n".join(_row(one, columns, numeric) for one in shown)
    text = PAGE.format(
        policy=html.escape(policy),
        style=STYLE,
        script=SCRIPT,
        count=len(shown),
        note=_text(note),
        heads=heads,
        rows=rows,
    )
    return text.encode("utf-8", "replace")


def _source(content: str) -> str:
    """The content of an element as a source of the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _is_numeric(values: Sequence[Cell]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def _row(one: Shown, columns: Mapping[str, str], numeric: Mapping[str, bool]) -> str:
    address = html.escape(quote(os.fsencode(one.picture)))
    picture = (
        f'<td><a href="{address}"><img loading="lazy" decoding="async" alt="" src="{address}" '
        f'width="{one.width}" height="{one.height}"></a></td>'
    )
    return f"<tr>{picture}{''.join(_cell(one.row.get(name), numeric[name]) for name in columns)}</tr>"


def _cell(value: Cell, numeric: bool) -> str:
    if value is None:
        return '<td data-value="">–</td>'
    if not numeric:
        text = str(value)
        shown = text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + "…"
        return f'<td class="text" data-value="{_text(text[:TEXT_LENGTH])}">{_text(shown)}</td>'
    shown = str(value) if isinstance(value, int | np.integer) else f"{value:.4g}"
    return f'<td class="number" data-value="{float(value)!r}">{shown}</td>'


def _text(text: str) -> str:
    return html.escape(text)
