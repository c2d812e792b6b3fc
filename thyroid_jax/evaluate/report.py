"""The report of a run: one HTML page with everything embedded. It opens from disk and loads nothing from a network."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import Summary, table_confusion
from thyroid_jax.files import write_text

# Blue and orange of Okabe and Ito: distinguishable in every common form of colour blindness, and both visible on grey
# tissue.
REFERENCE_COLOUR = (86, 180, 233)
PREDICTED_COLOUR = (230, 159, 0)

METRICS = {  # key -> (name, unit, what it says)
    "dice": ("Dice", "", "Overlap of the two outlines; 1 is perfect."),
    "iou": ("IoU", "", "Intersection over union; stricter than Dice."),
    "hd95_px": ("HD95", "px", "95 % Hausdorff distance between the outlines; 0 is perfect."),
    "hd95_mm": ("HD95", "mm", "The same in millimetres, where the pixel spacing is known."),
    "accuracy": ("Accuracy", "", "Share of cases given their true grade."),
    "balanced_accuracy": ("Balanced accuracy", "", "Mean recall of the grades that have a true case."),
    "macro_f1": ("Macro-F1", "", "Mean F1 of the grades that have a true case."),
    "macro_auroc": ("Macro-AUROC", "", "Each of these grades against the rest, averaged; 0.5 is chance."),
    "quadratic_kappa": ("Quadratic-weighted kappa", "", "Agreement beyond chance; far misses weigh more."),
    "malignant_auroc": ("Malignancy: AUROC", "", "A malignant case scores higher than a benign one; 0.5 is chance."),
    "malignant_accuracy": ("Malignancy: accuracy", "", "Share of right calls; malignant from a probability of 0.5."),
    "malignant_balanced_accuracy": ("Malignancy: balanced accuracy", "", "Mean of sensitivity and specificity."),
    "malignant_sensitivity": ("Malignancy: sensitivity", "", "Share of the malignant cases called malignant."),
    "malignant_specificity": ("Malignancy: specificity", "", "Share of the benign cases called benign."),
}
BOOKKEEPING = ("step", "epoch", "split")


@dataclass(frozen=True)
class Picture:
    """The content of one overlay: ``image`` uint8[h w]; ``reference`` bool[h w] or None; ``predicted`` bool or
    probability [h w], or None.
    """

    case: str
    image: np.ndarray
    reference: np.ndarray | None = None
    predicted: np.ndarray | None = None


@dataclass(frozen=True)
class Report:
    """Everything that the page shows, as plain data. A section whose field is empty says so, or is left out.

    Args:
        title, subtitle: text.
        config: setting -> value, in the order to show.
        summary: metric -> entry, as :func:`thyroid_jax.evaluate.metrics.summary` returns it.
        counts: name of a part (training, validation, test) -> ``{"groups": ..., "images": ..., ...}``.
        cases: the per-case table.
        log: training log, e.g. ``{"step": 10, "epoch": 1, "split": "train", "loss": 0.5, "dice": 0.7}``; every other
            numeric entry becomes a curve, see :func:`training_curves`.
        curves: which entries of the log to draw; empty means all.
        pictures: images with masks, found by their case name; those of the worst, median and best cases are shown.
        notes: what a reader has to know before using the numbers, one paragraph each.
        level: confidence level of the intervals in ``summary``.
    """

    title: str
    subtitle: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    summary: Summary = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    log: Sequence[Mapping[str, Any]] = ()
    curves: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    level: float = 0.95


def write_report(folder: Path | str, report: Report) -> Path:
    """Write ``folder/index.html`` in one step and return its path. Needs the ``report`` extra (jinja2, matplotlib,
    scipy).
    """
    path = Path(folder) / "index.html"
    write_text(path, render(report))
    return path


def render(report: Report) -> str:
    """The page as text: a function of ``report`` alone. All text in it is escaped; its content security policy forbids
    every request and every foreign script.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("thyroid_jax.evaluate", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
    page.filters["number"] = _number
    names, confusion = table_confusion(report.cases)
    text = page.get_template("report.html.jinja").render(
        report=report,
        rows=[_summary_row(key, entry) for key, entry in report.summary.items()],
        counts=_table(report.counts),
        panels=training_curves(report.log, report.curves),
        grades=names,
        confusion=_confusion_rows(names, confusion),
        truths=_truth_counts(names, report.cases),
        group_sizes=_group_sizes(report.cases),
        galleries=_galleries(report.cases, report.pictures),
        colours={
            "reference": "#{:02x}{:02x}{:02x}".format(*REFERENCE_COLOUR),
            "predicted": "#{:02x}{:02x}{:02x}".format(*PREDICTED_COLOUR),
        },
        with_grades=bool(confusion.sum()),
        malignancy=_malignancy_counts(report.cases),
        case_table=_case_table(report.cases),
    )
    # A file name that is not valid text (a lone surrogate) must not stop the report.
    return text.encode(errors="replace").decode()


def best_median_worst(cases: Sequence[Case], each: int = 4) -> dict[str, list[Case]]:
    """``{"worst", "median", "best"}`` -> up to ``each`` cases by Dice, worst first. No case comes twice; cases
    without a Dice are left out.

    Median cases are the middle of the ranking. If there are few cases, the worst are chosen first, then the best, then
    the median.
    """
    ranked = sorted((case for case in cases if not np.isnan(case.dice)), key=lambda case: case.dice)
    worst, rest = ranked[:each], ranked[each:]
    cut = max(len(rest) - each, 0)
    best, rest = rest[cut:], rest[:cut]
    # The middle of the whole ranking, without the cases already chosen.
    start = min(max((len(ranked) - each) // 2 - len(worst), 0), max(len(rest) - each, 0))
    return {"worst": worst, "median": rest[start : start + each], "best": best}


# --- pictures ---------------------------------------------------------------------------------------------------------


def overlay(
    image: np.ndarray, reference: np.ndarray | None, predicted: np.ndarray | None, *, scale: int = 1
) -> np.ndarray:
    """Image with one-pixel outlines drawn in: uint8[h*scale w*scale 3]; reference blue, predicted orange and on top.

    Args:
        image: uint8[h w].
        reference, predicted: bool[h w], or probability f[h w] cut at 0.5, or None for no outline.
        scale: whole number of output pixels per side of an image pixel, so that outlines look thin on small images.

    An outline is the mask's own boundary pixels. Raises ValueError for shapes or types that do not fit.
    """
    from scipy.ndimage import binary_erosion

    _check(image, reference, predicted)
    grow = np.ones((scale, scale), np.uint8)
    drawn = np.repeat(np.kron(image, grow)[..., None], 3, axis=-1)
    for mask, colour in ((reference, REFERENCE_COLOUR), (predicted, PREDICTED_COLOUR)):
        if mask is not None:
            mask = np.kron(_binary(mask), grow).astype(bool)
            drawn[mask & ~binary_erosion(mask)] = colour
    return drawn


def overlay_grid(
    pictures: Sequence[Picture], captions: Sequence[str] | None = None, *, columns: int = 4, width_px: int = 1200
) -> np.ndarray:
    """Sheet of overlays with smooth outlines, captions and a legend, e.g. for a README: uint8[height width_px 3].

    ``captions`` (one per picture; by default the case names) stand above the pictures, each line cut to the picture's
    width. Raises ValueError without a picture, or for another number of captions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    if not pictures or (captions is not None and len(captions) != len(pictures)):
        raise ValueError(
            f"{len(pictures)} pictures and {'no' if captions is None else len(captions)} captions do not make a sheet."
        )
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    aspect = max(picture.image.shape[0] / picture.image.shape[1] for picture in pictures)
    width = width_px / 100  # inches, at 100 dots an inch
    cell = width / columns
    room = int(cell * 14)  # characters of 9 points
    texts = [picture.case for picture in pictures] if captions is None else list(captions)
    texts = [
        "\n".join(line if len(line) <= room else line[: room - 1] + "…" for line in text.splitlines()) for text in texts
    ]
    title = 0.16 + 0.16 * max(text.count("\n") + 1 for text in texts)
    figure = Figure(
        figsize=(width, lines * (cell * aspect + title) + 0.35),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0, hspace=0),
        facecolor="white",
    )
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    blue, orange = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (REFERENCE_COLOUR, PREDICTED_COLOUR))
    for axis in axes:
        axis.axis("off")
    for index, (axis, picture) in enumerate(zip(axes, pictures)):
        _check(picture.image, picture.reference, picture.predicted)
        axis.imshow(picture.image, cmap="gray", vmin=0, vmax=255)
        for mask, colour, style in ((picture.reference, blue, "-"), (picture.predicted, orange, "--")):
            for line in _outlines(mask):
                axis.plot(line[:, 0], line[:, 1], color=colour, linestyle=style, linewidth=1.6)
        # Case names are arbitrary text, so they are not parsed as TeX.
        axis.set_title(texts[index], fontsize=9, parse_math=False)
    keys = [
        Line2D([], [], color=blue, label="reference"),
        Line2D([], [], color=orange, linestyle="--", label="predicted"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # unknown characters are drawn as boxes
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(image: np.ndarray) -> bytes:
    """PNG file of an image uint8[h w] or uint8[h w 3]."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def _check(image: np.ndarray, *masks: np.ndarray | None) -> None:
    if (
        image.dtype != np.uint8
        or image.ndim != 2
        or any(mask is not None and mask.shape != image.shape for mask in masks)
    ):
        shapes = [None if mask is None else mask.shape for mask in masks]
        raise ValueError(
            f"an overlay needs a uint8[h w] image and masks of its shape, not {image.dtype}{image.shape} with {shapes}."
        )


def _binary(mask: np.ndarray) -> np.ndarray:
    return mask if mask.dtype == bool else mask >= 0.5


def _outlines(mask: np.ndarray | None) -> list[np.ndarray]:
    """Closed curves f[n 2] (x, y; pixel centres at whole numbers) where the mask or probability crosses 0.5."""
    from contourpy import contour_generator

    if mask is None:
        return []
    level = np.pad(mask.astype(float), 1)  # a mask that touches the border is closed along it
    return [np.asarray(line) - 1 for line in contour_generator(z=level).lines(0.5)]


def _path(mask: np.ndarray | None) -> str:
    """The outlines as SVG path data, in the pixel frame of the image (pixel centres at halves)."""
    curves = ("M" + " ".join(f"{x + 0.5:.1f},{y + 0.5:.1f}" for x, y in line[:-1]) + "Z" for line in _outlines(mask))
    return "".join(curves)


def _galleries(cases: Sequence[Case], pictures: Sequence[Picture]) -> list[tuple[str, list[dict]]]:
    """Heading -> the cards below it."""
    by_case = {picture.case: picture for picture in pictures}
    shown = [case for case in cases if case.case in by_case]
    chosen = best_median_worst(shown)
    chosen["no reference outline"] = [case for case in shown if np.isnan(case.dice)][
        : 4 if any(chosen.values()) else 12
    ]
    headings = {
        "worst": "Lowest Dice",
        "median": "Around the median",
        "best": "Highest Dice",
        "no reference outline": "Without a reference outline",
    }
    return [
        (headings[name], [_card(case, by_case[case.case]) for case in some]) for name, some in chosen.items() if some
    ]


def _card(case: Case, picture: Picture) -> dict:
    _check(picture.image, picture.reference, picture.predicted)
    height, width = picture.image.shape
    return {
        "case": case,
        "height": height,
        "width": width,
        "image": "data:image/png;base64," + base64.b64encode(png(picture.image)).decode(),
        "reference": _path(picture.reference),
        "predicted": _path(picture.predicted),
        "probability": _probability_of_predicted(case),
        "malignant_truth": _malignancy(case),
        "malignant_is_wrong": _malignancy_is_wrong(case),
    }


# --- curves -----------------------------------------------------------------------------------------------------------


def training_curves(log: Sequence[Mapping[str, Any]], names: Sequence[str] = (), *, points: int = 400) -> list[dict]:
    """One panel per logged quantity: ``{"name", "splits", "x", "svg"}``; the SVG is safe markup in the page's colours.

    ``names`` chooses and orders the quantities; by default all numeric ones are drawn. Values that are not finite are
    left out. A curve of more than ``points`` points is averaged over ``points`` consecutive stretches; the panel's
    ``thinned`` is then True. The abscissa is the epoch when every entry has one and no split has two entries of one
    epoch, else the step. No text of the log enters the drawing.
    """
    found = dict.fromkeys(
        key for entry in log for key, value in entry.items() if key not in BOOKKEEPING and _finite(value)
    )
    epochs = Counter(
        (str(entry.get("split", "train")), entry.get("epoch")) for entry in log if _finite(entry.get("epoch"))
    )
    x = "epoch" if sum(epochs.values()) == len(epochs) == len(log) else "step"
    panels: list[dict[str, Any]] = []
    for name in names or found:
        curves: dict[str, list[tuple[float, float]]] = {}
        for entry in log:
            if _finite(entry.get(name)) and _finite(entry.get(x)):
                curves.setdefault(str(entry.get("split", "train")), []).append((float(entry[x]), float(entry[name])))
        if curves:
            thinned = {split: _thin(np.array(curve), points) for split, curve in curves.items()}
            panels.append(
                {
                    "name": name,
                    "x": x,
                    "splits": list(curves),
                    "thinned": any(len(curve) > points for curve in curves.values()),
                    "svg": _panel(list(thinned.values()), f"{len(panels)}"),
                }
            )
    return panels


def _finite(value: object) -> bool:
    return (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )


def _thin(curve: np.ndarray, points: int) -> np.ndarray:
    if len(curve) <= points:
        return curve
    return np.stack([part.mean(axis=0) for part in np.array_split(curve, points)])


# Drawn in these placeholder colours, which become the page's own, light or dark.
PLACEHOLDERS = {
    "#010203": "var(--text-soft)",
    "#010204": "var(--line)",
    "#010205": "var(--first)",
    "#010206": "var(--second)",
    "#010207": "var(--third)",
}
LINES = (("#010205", "-"), ("#010206", "--"), ("#010207", ":"))


def _panel(curves: Sequence[np.ndarray], salt: str):
    """Inline SVG of a few curves f[n 2] over common axes."""
    import matplotlib
    from markupsafe import Markup
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    text, line = "#010203", "#010204"
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(style):  # type: ignore[arg-type]  # its type demands literal keys
        figure = Figure(figsize=(3.6, 2.1), layout="constrained")
        axis = figure.subplots()
        figure.patch.set_alpha(0)
        axis.patch.set_alpha(0)
        for (colour, dash), curve in zip(LINES * (1 + len(curves) // len(LINES)), curves):
            axis.plot(
                curve[:, 0],
                curve[:, 1],
                color=colour,
                linestyle=dash,
                linewidth=1.6,
                marker="o" if len(curve) < 3 else "",
            )
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(line)
        axis.tick_params(colors=text, color=line, labelsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="y", color=line, linewidth=0.6)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)  # HTML needs no namespaces; they are external addresses
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(
        r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg
    )  # ids are unique on the page
    svg = re.sub(
        r'(<svg\b[^>]*?)\swidth="[^"]*"', r"\1", re.sub(r'(<svg\b[^>]*?)\sheight="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r"font-family:[^;\"]*|font: (\d+px)[^;\"]*", r"font-size: \1", svg)
    for placeholder, colour in PLACEHOLDERS.items():
        svg = svg.replace(placeholder, colour)
    return Markup(svg)


# --- numbers ----------------------------------------------------------------------------------------------------------


def _number(value: float | None, digits: int = 3) -> str:
    """Fixed digits; an en dash for what is missing or NaN."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "−")


def _summary_row(key: str, entry: Mapping[str, float]) -> dict:
    name, unit, meaning = METRICS.get(key, (key, "", ""))
    bounds = [entry["value"], entry["low"], entry["high"]]
    share = all(np.isfinite(bounds)) and not unit and 0 <= entry["low"] and entry["high"] <= 1
    lost = entry["replicates_undefined"] / max(entry["replicates"], 1)
    remarks = [f"{100 * lost:.1f} % of the resamples left out"] if lost > 0.01 else []
    if entry["low"] == entry["high"]:
        remarks.append("every resample gives this value: no spread seen, which is not certainty")
    return {
        "name": name,
        "unit": unit,
        "meaning": meaning,
        "digits": {"px": 1, "mm": 2}.get(unit, 3),
        "bar": share,
        "remarks": remarks,
        **entry,
    }


def _grade_is_wrong(case: Case) -> bool:
    return bool(case.grade_truth and case.grade_predicted) and case.grade_truth != case.grade_predicted


def _malignancy_is_wrong(case: Case) -> bool:
    judged = case.malignant_truth is not None and not np.isnan(case.p_malignant)
    return judged and (case.p_malignant >= 0.5) != bool(case.malignant_truth)


def _malignancy(case: Case) -> str:
    return {None: "", 0: "benign", 1: "malignant"}[case.malignant_truth]


def _probability_of_predicted(case: Case) -> float | None:
    return case.probability.get(case.grade_predicted)


def _never(case: Case) -> bool:
    return False


@dataclass(frozen=True)
class _Column:
    """Column of the table of cases: numbers with ``digits``, or text (None); ``wrong`` cells are marked."""

    heading: str
    value: Callable[[Case], str | float | None]
    digits: int | None = None
    wrong: Callable[[Case], bool] = _never


CASE_COLUMNS = (
    _Column("Case", attrgetter("case")),
    _Column("Group", attrgetter("group")),
    _Column("Part", attrgetter("part")),
    _Column("Dice", attrgetter("dice"), 3),
    _Column("IoU", attrgetter("iou"), 3),
    _Column("HD95 px", attrgetter("hd95_px"), 1),
    _Column("HD95 mm", attrgetter("hd95_mm"), 2),
    _Column("Reference area", attrgetter("reference_area_px"), 0),
    _Column("Predicted area", attrgetter("predicted_area_px"), 0),
    _Column("True grade", attrgetter("grade_truth")),
    _Column("Predicted grade", attrgetter("grade_predicted"), wrong=_grade_is_wrong),
    _Column("P(grade)", _probability_of_predicted, 2),
    _Column("True malignancy", _malignancy),
    _Column("P(malignant)", attrgetter("p_malignant"), 2, wrong=_malignancy_is_wrong),
)


def _case_table(cases: Sequence[Case]) -> dict:
    """Columns and rows of cells ``(value to sort by, text)``; a column without a value is left out, and so is the
    part when all cases are of the same part.
    """

    def is_informative(column: _Column) -> bool:
        values = {column.value(case) for case in cases}
        if column.heading in ("Case", "Group"):
            return True
        return len(values) > 1 if column.heading == "Part" else any(map(_is_there, values))

    columns = [column for column in CASE_COLUMNS if is_informative(column)]
    return {"columns": columns, "rows": [[_case_cell(column, case) for column in columns] for case in cases]}


def _case_cell(column: _Column, case: Case) -> tuple[str | float, str]:
    value = column.value(case)
    if value is None or not _is_there(value):
        return "", "–"
    text = str(value) if column.digits is None or isinstance(value, str) else _number(value, column.digits)
    return value, text + (" ✗" if column.wrong(case) else "")


def _is_there(value: str | float | None) -> bool:
    return value != "" if isinstance(value, str) else value is not None and not np.isnan(value)


def _group_sizes(cases: Sequence[Case], *, most: int = 8) -> list[tuple[int | str, int]]:
    """(images in a group, number of such groups), ascending; sizes after the first ``most`` are one entry "more"."""
    sizes = sorted(Counter(Counter(case.group for case in cases).values()).items())
    rest = sum(number for _, number in sizes[most:])
    return sizes[:most] + ([("more", rest)] if rest else [])


def _truth_counts(names: Sequence[str], cases: Sequence[Case]) -> dict[str, int]:
    """Number of cases of each true grade, in the grades' order where it is known; {} when no case has one."""
    counts = Counter(case.grade_truth for case in cases if case.grade_truth)
    return {name: counts[name] for name in names or counts} if counts else {}


def _malignancy_counts(cases: Sequence[Case]) -> dict[str, int]:
    """Number of malignant, benign and unproven cases; {} when none is proven."""
    counts = Counter(_malignancy(case) or "unknown" for case in cases)
    return {name: counts[name] for name in ("malignant", "benign", "unknown")} if set(counts) - {"unknown"} else {}


def _table(counts: Mapping[str, Mapping[str, int]]) -> dict:
    """Columns in order of first appearance, and the rows below them."""
    columns = list(dict.fromkeys(column for row in counts.values() for column in row))
    return {
        "columns": columns,
        "rows": [(name, [row.get(column, "–") for column in columns]) for name, row in counts.items()],
    }


def _confusion_rows(names: Sequence[str], confusion: np.ndarray) -> list[dict]:
    """Each true grade with its counts, and their shares of the row for the shading."""
    rows = []
    for name, row in zip(names, confusion):
        total = int(row.sum())
        rows.append(
            {"name": name, "total": total, "cells": [(int(count), count / total if total else 0.0) for count in row]}
        )
    return rows
