"""The report of a run: one HTML page that opens from disk and loads nothing from a network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.report import case_table, plots, tables
from thyroid_jax.evaluate.report.baselines import baselines
from thyroid_jax.evaluate.report.curves import training_curves
from thyroid_jax.evaluate.report.pictures import Thumbnail
from thyroid_jax.evaluate.report.remarks import remarks
from thyroid_jax.evaluate.subgroups import (
    FEWEST_GROUPS,
    BetweenReaders,
    Characteristic,
    WithReader,
    divided,
)
from thyroid_jax.evaluate.summary import Counts, DecisionCurve, Summary, table_confusion
from thyroid_jax.files import write_bytes, write_text

if TYPE_CHECKING:
    from jinja2 import Environment

BUDGET = 15_000_000
"""characters of pictures that a page holds; beyond it they lie in a folder beside the page"""
FOLDER = "pictures"


@dataclass(frozen=True)
class Report:
    """Everything that the page shows, as plain data. A section whose field is empty says so, or is left out.

    Args:
        title, subtitle: text.
        facts: what was trained and evaluated, by name: data set, method, checkpoint, parts.
        config: setting -> value, in the order to show.
        provenance: version, digests and the like, by name.
        summary: metric -> entry, as :func:`thyroid_jax.evaluate.summary.summary` returns it.
        per_grade, at_or_above: as :func:`~thyroid_jax.evaluate.summary.per_grade_summary` and
            :func:`~thyroid_jax.evaluate.summary.at_or_above_summary` return them.
        decision: as :func:`~thyroid_jax.evaluate.summary.decision_curve` returns it.
        training: label counts of the training part, for the answers without a model; None where it is not known.
        calibration, calibration_by_chance: as :func:`thyroid_jax.evaluate.calibration.calibration_summary` and
            :func:`~thyroid_jax.evaluate.calibration.calibration_by_chance` return them.
        counts: name of a part (training, validation, test) -> ``{"groups": ..., "images": ..., ...}``.
        cases: the per-case table.
        log: training log, e.g. ``{"step": 10, "epoch": 1, "split": "train", "loss": 0.5, "dice": 0.7}``; every other
            numeric entry becomes a curve, see :func:`~thyroid_jax.evaluate.report.curves.training_curves`.
        curves: which entries of the log to draw; empty means all.
        pictures: found by their case name, one of each case at most.
        subgroups, readers, between_readers: as :mod:`thyroid_jax.evaluate.subgroups` returns them.
        readers_dice: mean Dice between readers' outlines, and the number of images with two readers; or None.
        notes: what a reader has to know before using the numbers, one paragraph each.
        level: confidence level of the intervals in ``summary``.

    Raises ValueError for two pictures of one case.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)
    summary: Summary = field(default_factory=dict)
    per_grade: Mapping[str, Summary] = field(default_factory=dict)
    at_or_above: Mapping[str, Summary] = field(default_factory=dict)
    decision: DecisionCurve | None = None
    training: Counts | None = None
    calibration: Summary = field(default_factory=dict)
    calibration_by_chance: Summary = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    log: Sequence[Mapping[str, Any]] = ()
    curves: Sequence[str] = ()
    pictures: Sequence[Thumbnail] = ()
    subgroups: Sequence[Characteristic] = ()
    readers: Sequence[WithReader] = ()
    between_readers: Sequence[BetweenReaders] = ()
    readers_dice: tuple[float, int] | None = None
    notes: Sequence[str] = ()
    level: float = 0.95

    def __post_init__(self):
        if len({picture.case for picture in self.pictures}) < len(self.pictures):
            raise ValueError("two pictures are of one case; give one picture a case.")


def write_report(folder: Path | str, report: Report, *, budget: int = BUDGET) -> Path:
    """Write ``folder/index.html`` and return its path. Needs the ``report`` extra (jinja2, matplotlib, scipy).

    Pictures of more than ``budget`` characters together are written as files of ``folder/pictures``, which must stay
    beside the page. Files of an earlier report there are removed. The page is written last, in one step.
    """
    folder = Path(folder)
    beside = sum(len(picture.data_uri) + _path_length(picture) for picture in report.pictures) > budget
    text = render(report, beside=beside)
    names = {name: picture for name, picture in zip(_file_names(report.pictures), report.pictures)} if beside else {}
    for name, picture in names.items():
        write_bytes(folder / FOLDER / name, picture.webp)
    path = folder / "index.html"
    write_text(path, text)
    _remove_others(folder / FOLDER, names)
    return path


def _path_length(picture: Thumbnail) -> int:
    return len(picture.reference) + len(picture.predicted)


def _file_names(pictures: Sequence[Thumbnail]) -> list[str]:
    """A file name for each picture. It does not hold the case's name, which is any text."""
    return [
        f"{hashlib.sha256(picture.webp).hexdigest()[:8]}-{place:05d}.webp" for place, picture in enumerate(pictures)
    ]


def _remove_others(folder: Path, kept: Mapping[str, Any]) -> None:
    """Remove the pictures of an earlier report, and the folder when nothing is left in it."""
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if re.fullmatch(r"[0-9a-f]{8}-\d{5}\.webp", file.name) and file.name not in kept:
            file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def render(report: Report, *, beside: bool = False) -> str:
    """The page as text: a function of its arguments alone. All text in it is escaped; its content security policy
    forbids every request to a network and every foreign script.

    With ``beside`` the pictures are not in the page but, as files, in a folder beside it.
    """
    report = dataclasses.replace(report, cases=list(report.cases))
    names, confusion = table_confusion(report.cases)
    pictures = shown_pictures(report.pictures, beside=beside)
    areas = {picture.case: picture.width * picture.height for picture in report.pictures}
    without_model = baselines(report.cases, areas, report.training)
    rows = tables.measure_rows(report.summary, without_model)
    drawn = [
        *plots.malignancy_plots(report.cases),
        *plots.decision_plots(report.decision),
        *plots.grade_plots(report.cases),
    ]
    panels = training_curves(report.log, report.curves)
    strips = tables.dice_strips(_for_strips(report.cases))
    worst = _worst(report.cases, pictures)
    contents = {
        "results": True,
        "remarks": True,
        "worst": worst,
        "measures": rows,
        "classes": confusion.sum() or drawn or report.calibration or report.per_grade or report.at_or_above,
        "distributions": strips,
        "subgroups": report.subgroups,
        "readers": report.readers,
        "training": panels,
        "per-case": report.cases,
        "counted": True,
        "notes": report.notes,
        "settings": report.config or report.provenance,
    }
    return filled(
        "page.html.jinja",
        beside=beside,
        report=report,
        contents=[(anchor, SECTIONS[anchor]) for anchor, there in contents.items() if there],
        level=f"{100 * report.level:.4g}",
        headline=tables.headline(rows),
        rows=rows,
        remarks=remarks(report.cases, report.summary, report.log),
        worst=worst,
        plots=drawn,
        calibration=tables.calibration_rows(report.calibration, report.calibration_by_chance, without_model),
        counted_in_training=report.training is not None,
        by_grade=tables.grade_tables(report.per_grade, report.at_or_above),
        strips=strips,
        subgroup_measures=_subgroup_measures(report.subgroups),
        fewest_groups=FEWEST_GROUPS,
        counts=tables.counted(report.counts),
        panels=panels,
        grades=names,
        confusion=tables.confusion_rows(names, confusion),
        with_grades=bool(confusion.sum()),
        truths=tables.truth_counts(names, report.cases),
        group_sizes=tables.group_sizes(report.cases),
        malignancy=tables.malignancy_counts(report.cases),
        case_table=case_table.case_table(report.cases),
        pictured=bool(pictures),
        case_data=_case_data(report.cases, pictures),
    )


SECTIONS = {
    "results": "Results",
    "remarks": "Do not miss",
    "worst": "Worst cases",
    "measures": "All measures",
    "classes": "Grades, malignancy",
    "distributions": "Dice",
    "subgroups": "Subgroups",
    "readers": "Readers",
    "training": "Training",
    "per-case": "Every case",
    "counted": "Counts",
    "notes": "Notes",
    "settings": "Settings",
}


# --- what the templates need ------------------------------------------------------------------------------------------


def filled(template: str, *, beside: bool, **values: Any) -> str:
    """A template's page, with the common style, script and content security policy."""
    text = (
        _environment()
        .get_template(template)
        .render(
            style=_safe(_asset("page.css")),
            script=_safe(_asset("page.js")),
            image_sources="data: 'self'" if beside else "data:",
            **values,
        )
    )
    # A file name that is not valid text (a lone surrogate) must not stop the report.
    return text.encode(errors="replace").decode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("thyroid_jax.evaluate.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()
    page.filters |= {"number": tables.number, "p_value": tables.p_value, "estimated": tables.estimated}
    return page


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _safe(text: str):
    from markupsafe import Markup

    return Markup(text)


def shown_pictures(pictures: Sequence[Thumbnail], *, beside: bool = False) -> dict[str, dict[str, Any]]:
    """Case -> address, size and outlines of its picture."""
    files = [f"{FOLDER}/{name}" for name in _file_names(pictures)]
    return {
        picture.case: {
            "href": file if beside else picture.data_uri,
            "width": picture.width,
            "height": picture.height,
            "reference": picture.reference,
            "predicted": picture.predicted,
        }
        for picture, file in zip(pictures, files)
    }


def link_to(key: str) -> str:
    """Address on the page that opens a case in the viewer."""
    return "#case=" + quote(key.encode(errors="replace").decode(), safe="")


def as_json(value: Any):
    """JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _safe(text)


def _case_data(cases: Sequence[Case], pictures: Mapping[str, Mapping[str, Any]]):
    names = grades(cases)
    return as_json(
        [
            {"key": key, "picture": pictures.get(case.case)} | case_table.details(case, names)
            for key, case in zip(case_table.keys(cases), cases)
        ]
    )


def _worst(cases: Sequence[Case], pictures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[dict]]]:
    """Heading -> the cards below it: outlines, and grades, or malignancy where there are no grades."""
    chosen = {
        "Lowest Dice": case_table.worst_outlines(cases),
        "Grades furthest from the truth": case_table.worst_grades(cases),
    }
    if not any(case.grade_truth and case.grade_predicted for case in cases):
        chosen["Malignancy most surely wrong"] = case_table.worst_malignancy(cases)
    if pictures and not any(map(_has_reference, cases)):
        chosen["Without a reference"] = list(range(min(5, len(cases))))
    keys = case_table.keys(cases)
    return [
        (heading, [_card(cases[place], keys[place], pictures) for place in places])
        for heading, places in chosen.items()
        if places
    ]


def _has_reference(case: Case) -> bool:
    """Whether anything is known that a prediction of the case can be compared with."""
    return case.reference_area_px is not None or bool(case.grade_truth) or case.malignant_truth is not None


def _card(case: Case, key: str, pictures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "case": case,
        "key": key,
        "link": link_to(key),
        "picture": pictures.get(case.case),
        "probability": case.probability.get(case.grade_predicted),
        "of_truth": case.probability.get(case.grade_truth),
        "malignancy": tables.malignancy(case),
        "malignancy_is_wrong": case_table.malignancy_is_wrong(case),
    }


def _for_strips(cases: Sequence[Case]) -> dict[str, Any]:
    """Dice is drawn by grade, size and malignancy: what every data set may have."""
    return {name: parts for name, parts in divided(cases).items() if name.startswith(("size", "true "))}


def _subgroup_measures(found: Sequence[Characteristic]) -> list[str]:
    keys = dict.fromkeys(key for one in found for part in one.subgroups for key in part.estimates)
    return [tables.name_of(key) for key in keys]
