"""Check a built data set before training: describe its contents, report its problems, draw a contact sheet."""

from __future__ import annotations

import io
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from thyroid_jax.data.formats import read_picture
from thyroid_jax.data.overlap import pictures_of, shared_images
from thyroid_jax.data.record import Card, Record, RecordSequence, problems_of
from thyroid_jax.data.storage import Metadata, open_records, read_metadata
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.evaluate.agreement import ReaderLabels, agreement, reader_labels, said
from thyroid_jax.files import write_bytes

TILE = (240, 180)  # width and height of one picture on the contact sheet, pixels
ACROSS = 6
MOST_NAMED = 20  # shared images that a message names


@dataclass
class Findings:
    """What is in a data set. ``problems`` is empty when it can be used."""

    records: int = 0
    masks: int = 0
    groups: set[str] = field(default_factory=set)
    grades: Counter[str] = field(default_factory=Counter)
    truths: Counter[str] = field(default_factory=Counter)
    readers: Counter[int] = field(default_factory=Counter)
    spaced: int = 0
    official_test: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    shares: list[float] = field(default_factory=list)
    labels: list[ReaderLabels] = field(default_factory=list)
    cleaned: int = 0
    problems: list[str] = field(default_factory=list)


def check(
    data_dir: Path | str,
    name: str,
    *,
    sheet: Path | str | None = None,
    source: Path | str | None = None,
    sheet_records: int = 24,
    seed: int = 0,
) -> str:
    """The report on the data set ``name`` in ``data_dir``.

    If ``sheet`` is given, a PNG of random records with their contours is written there, with ``source``, the folder of
    the original, each beside its original picture. Every record is read and
    compared with its stored digest. Raises :class:`InputError` when the data set is missing, or with every record that
    is damaged or breaks a rule of the schema.
    """
    metadata = read_metadata(data_dir, name)
    card, records = open_records(data_dir, name)
    findings = examine(card, records)
    count = len(findings.problems)
    raise_all(
        findings.problems,
        f"{name}: {count} problem{'s' if count != 1 else ''}; build it again with --overwrite, or mend its reader.",
    )
    report = describe(metadata, findings)
    if sheet is not None:
        chosen = sorted(random.Random(seed).sample(range(len(records)), min(sheet_records, len(records))))
        shown = [records[i] for i in chosen]
        originals = None if source is None else [_original(Path(source), record) for record in shown]
        write_bytes(sheet, contact_sheet(shown, card, originals))
        missing = sum(original is None for original in originals or ())
        report += f"\noriginals that were not found in {source}: {missing}" if missing else ""
        report += f"\ncontact sheet: {sheet}"
    return report


def against(data_dir: Path | str, name: str, other: str) -> str:
    """A line that says that the data sets ``name`` and ``other``, both built in ``data_dir``, share no image.

    Raises :class:`InputError` that names the images that both have, equal or nearly so: a model that was trained on one
    set must not be tested on these of the other.
    """
    if name == other:
        raise InputError(f"--against {other}: is the data set itself. Name another one.")
    sets = [open_records(data_dir, each)[1] for each in (name, other)]
    one, two = map(pictures_of, sets)
    found = shared_images(one, two)
    named = [
        f"{one.cases[pair.i]} of {name} is {pair.kind} to {two.cases[pair.j]} of {other}"
        + ("" if pair.kind == "equal" else f" (correlation {pair.correlation:.2f})")
        for pair in found[:MOST_NAMED]
    ]
    more = [f"and {len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    raise_all(
        [*named, *more],
        f"{name} and {other}: {len(found)} pairs of images show the same picture. Do not train on one and test on the "
        "other with them:",
    )
    return f"no image of {name} ({len(one.cases)}) is equal or nearly equal to one of {other} ({len(two.cases)})"


def examine(card: Card, records: RecordSequence) -> Findings:
    """Count what every record holds, and collect the problems.

    A record must be readable, agree with the index, and obey the rules of :func:`problems_of`. Cases must be unique.
    Equal images must be in one group, and no group may be both in the official test part and outside it.
    """
    found = Findings()
    groups_of: dict[str, set[str]] = defaultdict(set)
    sides_of: dict[str, set[bool]] = defaultdict(set)
    times: Counter[str] = Counter()
    for row in range(len(records)):
        try:
            record = records[row]
        except InputError as error:
            found.problems.append(str(error))
            continue
        found.problems += [f"{record.case}: {problem}" for problem in problems_of(record, card)]
        groups_of[record.content].add(record.group)
        sides_of[record.group].add(record.official_test)
        times[record.case] += 1
        _count(card, record, found)
    found.problems += [f"{case}: is there {n} times" for case, n in times.items() if n > 1]
    found.problems += [
        f"groups {' '.join(sorted(groups))} hold the same image" for groups in groups_of.values() if len(groups) > 1
    ]
    found.problems += [
        f"group {group} is in the official test part and outside it"
        for group, sides in sides_of.items()
        if len(sides) > 1
    ]
    if not len(records):
        found.problems.append("there is no record in it")
    return found


def _count(card: Card, record: Record, found: Findings) -> None:
    found.records += 1
    found.groups.add(record.group)
    found.sizes[record.image.shape] += 1
    found.readers[max(len(record.reader_masks), len(record.reader_grades))] += 1
    found.spaced += not np.isnan(record.spacing).any()
    found.official_test += record.official_test
    found.cleaned += bool(record.cleaning)
    found.labels.append(reader_labels(record))
    found.grades["unknown" if record.grade is None else card.grades[record.grade]] += 1
    found.truths["unknown" if record.malignant is None else "malignant" if record.malignant else "benign"] += 1
    if record.mask is not None:
        found.masks += 1
        found.shares.append(float(record.mask.mean()))


def describe(metadata: Metadata, found: Findings) -> str:
    """The report as text: card, digest, contents of the records, and where counts differ from the whole original."""
    card, counts = metadata.card, metadata.counts
    widths, heights = zip(*((w, h) for h, w in found.sizes))
    lines = [
        card.title,
        *_paragraph("source", card.source),
        *_paragraph("licence", card.licence),
        *_paragraph("labels", card.labels),
        *_paragraph("grouping", card.grouping),
        *(line for fault in card.faults for line in _paragraph("known fault", fault)),
        "",
        f"digest         {metadata.digest}",
        f"records        {found.records}",
        f"groups         {len(found.groups)}",
        f"with outline   {found.masks}",
        f"outline share  {_range(found.shares)} of the image",
        f"size           {min(widths)}-{max(widths)} x {min(heights)}-{max(heights)} px, {len(found.sizes)} different",
        f"with spacing   {found.spaced}",
        *([f"official test  {found.official_test}"] if found.official_test else []),
        *([f"cleaned        {found.cleaned}"] if found.cleaned else []),
        f"readers        {_listed(found.readers, sorted(found.readers))}",
        *(f"{'agreement':14} {line}" for line in said(agreement(found.labels, len(card.grades)))),
        f"malignant      {_listed(found.truths, ('benign', 'malignant', 'unknown'))}",
    ]
    if card.grades:
        lines.append(f"{(card.grade_system + ' grade').strip():14} {_listed(found.grades, (*card.grades, 'unknown'))}")
    differing = [
        f"  {name}: {counts.get(name, 0)} here, {whole} in the original"
        for name, whole in card.expected.items()
        if counts.get(name, 0) != whole
    ]
    if differing:
        lines += ["", "differs from the whole original:", *differing]
    if metadata.dropped:
        lines += ["", "left out at the build:", *(f"  {what}: {why}" for what, why in metadata.dropped)]
    return "\n".join(lines)


def _paragraph(label: str, text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 120, initial_indent=f"{label:14} ", subsequent_indent=" " * 15) if text else []


def _listed(counts: Counter, names: Sequence) -> str:
    return "  ".join(f"{name}: {counts[name]}" for name in names if counts[name] or name != "unknown")


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f}-{max(values):.3f}, median {float(np.median(values)):.3f}" if values else "-"


def _original(source: Path, record: Record) -> np.ndarray | None:
    """The picture uint8[h w] that a record was made from, None where it is not found as a picture file of its own.

    It is looked for in ``source`` and in its folders. A frame of a clip is told by the case's end, ``#0002``.
    """
    places = [source, *sorted(path for path in source.glob("*") if path.is_dir())]
    place = next((folder / record.source for folder in places if (folder / record.source).is_file()), None)
    try:
        frames = [] if place is None else list(read_picture(place).frames)
    except InputError:
        return None
    end = re.search(r"#([0-9]{4,})$", record.case)
    number = int(end[1]) - 1 if end and len(frames) > 1 else 0
    return frames[number] if number < len(frames) else None


def contact_sheet(records: Sequence[Record], card: Card, originals: Sequence[np.ndarray | None] | None = None) -> bytes:
    """A PNG of the records side by side with case and grade, and what was done to the picture.

    The reference outline is yellow; the readers' outlines are cyan and magenta in turn. With ``originals`` each has its
    original picture on its left, black where that is None.
    """
    from PIL import Image, ImageDraw

    one = TILE[0]
    width, height = one if originals is None else 2 * one, TILE[1]
    caption = 14
    across = ACROSS * one // width
    rows = -(-len(records) // across)
    page = Image.new("RGB", (across * width, rows * (height + caption)))
    pen = ImageDraw.Draw(page)
    for place, record in enumerate(records):
        left, top = place % across * width, place // across * (height + caption)
        page.paste(_outlined(record), (left + width - one, top + caption))
        original = None if originals is None else originals[place]
        if original is not None:
            page.paste(_outlined(Record(record.case, record.group, record.source, original)), (left, top + caption))
        grade = "" if record.grade is None else f"  {card.grade_system} {card.grades[record.grade]}"
        said = "" if originals is None else f"  {'; '.join(record.cleaning)}"
        pen.text((left + 2, top + 1), f"{record.case}{grade}{said}"[: width // 6], fill="white")
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def _outlined(record: Record):
    """The image scaled to fit a tile with a one-pixel contour around each mask."""
    from PIL import Image
    from scipy.ndimage import binary_erosion

    scale = min((TILE[0] - 4) / record.image.shape[1], (TILE[1] - 4) / record.image.shape[0])
    size = max(1, round(record.image.shape[1] * scale)), max(1, round(record.image.shape[0] * scale))
    tile = np.asarray(Image.fromarray(record.image).resize(size).convert("RGB")).copy()
    colours = [(0, 255, 255), (255, 0, 255)]
    masks = [(mask, colours[i % 2]) for i, mask in enumerate(record.reader_masks)]
    for mask, colour in [*masks, *([(record.mask, (255, 220, 0))] if record.mask is not None else [])]:
        small = np.asarray(Image.fromarray(mask).resize(size))
        tile[small & ~binary_erosion(small)] = colour
    return Image.fromarray(tile)
