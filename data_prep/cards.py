"""What is known about every data set: one line for the list, one page for the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from thyroid_jax.data.record import Card
from thyroid_jax.data.storage import folder_of
from thyroid_jax.files import write_text

WRITTEN_BY = "Written by `python -m data_prep list --pages docs/datasets`; do not edit."
BAR = 40  # characters of the longest bar of a histogram


def listed(cards: Sequence[Card], data_dir: Path | None = None) -> list[str]:
    """One line for each card: name, title, labels, images of the whole original, grouping, grades, access, licence.

    With ``data_dir``, also whether the data set is built there.
    """
    widest = max(len(card.name) for card in cards)
    lines = []
    for card in cards:
        facts = {
            "holds": ", ".join(card.holds) or "not stated",
            "images": str(card.expected.get("images", "not stated")),
            "group": card.grouping,
            "grades": _grades(card),
            "access": card.access or "not stated",
            "licence": card.licence,
        }
        if data_dir is not None:
            facts["built"] = "yes" if folder_of(data_dir, card.name).is_dir() else "no"
        said = " | ".join(f"{name}: {fact}" for name, fact in facts.items())
        lines.append(f"{card.name:{widest}} | {card.title} | {said}")
    return lines


def _grades(card: Card) -> str:
    return " ".join([card.grade_system, *card.grades]).strip() or "none"


def page(card: Card) -> str:
    """The page of a data set in Markdown: source, licence, access, labels, grouping, counts with bars, known faults."""
    facts = {
        "source": card.source,
        "licence": card.licence,
        "access": card.access,
        "holds": ", ".join(card.holds),
        "grades": _grades(card),
        "labels": card.labels,
        "groups": card.grouping,
    }
    source = "" if card.name == "phantom" else " --source DIR"
    lines = [f"# {card.title}", "", f"<!-- {WRITTEN_BY} -->", ""]
    lines += ["```", f"python -m data_prep build {card.name}{source} --out data", "```", ""]
    lines += [f"- **{name.capitalize()}.** {text}" for name, text in facts.items() if text]
    if card.expected:
        lines += ["", "## Counts of the whole original", "", "```", *histogram(card.expected), "```"]
    if card.faults:
        lines += ["", "## Known faults", "", *(f"- {fault}" for fault in card.faults)]
    return "\n".join(lines) + "\n"


def histogram(counts: Mapping[str, int]) -> list[str]:
    """One line for each count, with a bar whose length is its share of the largest."""
    widest, most = max(map(len, counts)), max(1, *counts.values())
    bars = {name: "#" * round(BAR * count / most) for name, count in counts.items()}
    return [f"{name:{widest}}  {count:>6}  {bars[name]}".rstrip() for name, count in counts.items()]


def write_pages(cards: Sequence[Card], folder: Path) -> list[Path]:
    """Write ``folder/NAME.md`` for every card, and return the paths."""
    paths = []
    for card in cards:
        paths.append(folder / f"{card.name}.md")
        write_text(paths[-1], page(card))
    return paths
