"""What was understood of a folder, as text, and the two ways to use it: look only, or build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data_prep import builder
from data_prep.folder.layout import Layout, Pair, Remarks, natural
from data_prep.folder.options import Options
from data_prep.folder.planning import Item, Plan, plan_of
from data_prep.folder.read import records
from data_prep.folder.table import Table
from thyroid_jax.data.record import Notes, Record
from thyroid_jax.errors import InputError

MOST_DROPPED = 20
MOST_REMARKS = 40
EXAMPLES = 3


def run(options: Options, out: Path | None, *, overwrite: bool = False) -> None:
    """Print what was understood of a folder, and build the data set in ``out``; None only looks and writes nothing.

    Raises :class:`InputError` that lists all faults of the folder, after what was understood has been printed.
    """
    plan, remarks, counted = plan_of(options), Remarks(), Notes()

    def factory(notes: Notes) -> Iterator[Record]:
        nonlocal counted
        counted = notes
        return records(plan, notes, remarks)

    try:
        if out is None:
            survey = builder.examine(plan.card, factory)
        else:
            survey = builder.build(plan.card, factory, out, overwrite=overwrite)
    except InputError:
        print(summary(plan, counted, remarks))
        raise
    print(summary(plan, survey.notes, remarks))
    if reason := builder.why_not_split(plan.card, survey):
        print(f"too small to train on: {reason}")
    print("nothing was written: this was a dry run" if out is None else f"built: {out / options.name}")


def summary(plan: Plan, notes: Notes, remarks: Remarks) -> str:
    """What was understood, the counts, what was left out, and the remarks with their number and examples."""
    lines_of_plan = facts(plan)
    wide = max(len(label) for label, _ in lines_of_plan)
    lines = [f"{plan.card.name}: understood from {plan.options.source}"]
    lines += [f"  {label:{wide}}  {text}" for label, text in lines_of_plan]
    lines += [f"  labels are kept as: {plan.card.labels}"]
    lines += ["counted", *(f"  {count:>7}  {name}" for name, count in notes.counts.items())]
    dropped = notes.dropped or plan.layout.dropped
    if dropped:
        lines += [f"left out: {len(dropped)}", *(f"  {what}: {why}" for what, why in dropped[:MOST_DROPPED])]
        lines += [f"  and {len(dropped) - MOST_DROPPED} more"] * (len(dropped) > MOST_DROPPED)
    if notes.remarks:
        lines += [f"to know: {len(notes.remarks)}", *(f"  {what}: {why}" for what, why in notes.remarks)]
    told = {**plan.layout.remarks.found}
    for text, places in remarks.found.items():
        told[text] = [*told.get(text, ()), *places]
    return "\n".join([*lines, *_remark_lines(told)])


def facts(plan: Plan) -> list[tuple[str, str]]:
    """(label, text) lines that say what was understood before any picture was read."""
    options, layout, table, items, grades = plan.options, plan.layout, plan.table, plan.items, plan.card.grades
    drawn = [mask for item in items for mask in item.masks]
    return [
        *(("layout", line) for line in _layout_lines(layout.pairs)),
        ("images", f"{len(items)} files"),
        ("mask files", f"{len(drawn)}, of {sum(bool(item.masks) for item in items)} images"),
        *_counted("readers", (mask.reader for mask in drawn if mask.reader), "masks"),
        *_counted("drawings", (kind for item in items for kind in _drawings_of(item)), "images"),
        *_table_lines(table),
        ("grades", _grade_line(items, grades, options)),
        ("malignancy", _malignancy_line(items)),
        ("groups", f"{len({item.group for item in items})} ({_group_source(options, table)})"),
        ("test part", _split_line(layout, items)),
    ]


def _drawings_of(item: Item) -> Iterator[str]:
    yield from ["COCO"] if item.coco is not None else []
    yield from ["Labelme"] if item.drawing else []
    yield from ["Pascal VOC (boxes)"] if item.boxes else []


def _layout_lines(pairs: Iterable[Pair]) -> list[str]:
    """One line for each way in which images and masks lie in folders, the most frequent first."""
    folder = lambda path: f"{path.rpartition('/')[0]}/" if "/" in path else "./"
    ways = Counter(
        (folder(pair.image.path), tuple(sorted({folder(mask.path) for mask in pair.masks}))) for pair in pairs
    )
    lines = [
        f"{images} with masks in {' '.join(masks)}: {count}" if masks else f"{images} without mask file: {count}"
        for (images, masks), count in sorted(ways.items(), key=lambda way: (-way[1], way[0]))
    ]
    return lines[:8] + ([f"and {len(lines) - 8} more"] if len(lines) > 8 else [])


def _counted(label: str, names: Iterable[str], unit: str) -> list[tuple[str, str]]:
    counts = Counter(names)
    text = ", ".join(f"{name}: {counts[name]} {unit}" for name in sorted(counts, key=natural))
    return [(label, text)] if text else []


def _table_lines(table: Table) -> list[tuple[str, str]]:
    if not table.file:
        return [("table", "none")]
    lines = [("table", f"{table.file}, {table.rows} rows, {len(table.labels)} of them with an image")]
    lines += [
        (f"  {role}", f"{column.name}{' (guessed from its name)' if column.guessed else ''}")
        for role, column in table.columns.items()
    ]
    if table.splits:
        lines.append(("  split words", ", ".join(f"{word}: {table.splits[word]}" for word in sorted(table.splits)[:8])))
    more = {"reader grades": table.readers, "findings": table.findings, "unused": table.unused}
    return lines + [(f"  {label}", ", ".join(names)) for label, names in more.items() if names]


def _grade_line(items: Sequence[Item], grades: Sequence[str], options: Options) -> str:
    if not grades:
        return "none"
    counts = Counter(item.grade for item in items)
    listed = ", ".join(f"{grade}: {counts[number]}" for number, grade in enumerate(grades))
    how = "" if options.grades else " (order guessed: as numbers)"
    return f"{listed}, least suspicious first{how}; unknown: {counts[None]}"


def _malignancy_line(items: Sequence[Item]) -> str:
    counts = Counter(item.malignant for item in items)
    return f"benign: {counts[False]}, malignant: {counts[True]}, unknown: {counts[None]}"


def _group_source(options: Options, table: Table) -> str:
    if options.group_from_folder:
        return "folder of the image"
    if options.group_pattern:
        return f"--group-pattern {options.group_pattern}"
    return f"column {table.columns['group'].name}" if "group" in table.columns else "each image is its own"


def _split_line(layout: Layout, items: Sequence[Item]) -> str:
    splits = Counter(pair.image.split for pair in layout.pairs)
    text = f"{sum(item.official_test for item in items)} image files"
    return text + (
        f"; {splits['val']} of a validation folder go into the folds like the others" if splits["val"] else ""
    )


def _remark_lines(told: Mapping[str, Sequence[str]]) -> list[str]:
    lines = ["remarks"] if told else []
    for text, places in list(told.items())[:MOST_REMARKS]:
        more = ", ..." if len(places) > EXAMPLES else ""
        lines.append(f"  {text}" + (f" ({len(places)}: {', '.join(places[:EXAMPLES])}{more})" if places else ""))
    return lines + [f"  and {len(told) - MOST_REMARKS} more"] * (len(told) > MOST_REMARKS)
