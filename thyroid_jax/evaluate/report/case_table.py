"""The table of all cases, what the viewer shows of each, and the worst of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from thyroid_jax.evaluate.cases import Case, grades
from thyroid_jax.evaluate.report.tables import malignancy, number

CHOICES = 12
"""distinct texts up to which a column's filter is a list to choose from"""


# --- the worst --------------------------------------------------------------------------------------------------------


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


def worst_outlines(cases: Sequence[Case], count: int = 5) -> list[int]:
    """Places of the cases with the lowest Dice, lowest first; cases without a Dice are left out."""
    known = [place for place, case in enumerate(cases) if not np.isnan(case.dice)]
    return sorted(known, key=lambda place: cases[place].dice)[:count]


def worst_grades(cases: Sequence[Case], count: int = 5) -> list[int]:
    """Places of the cases graded worst: by the largest distance to the true grade, then by its lowest probability.

    Cases with a right grade are left out, and so are those without a true or a predicted grade.
    """
    names = grades(cases)  # once: it looks at all cases
    errors = {place: grade_error(case, names) for place, case in enumerate(cases)}
    wrong = [place for place, error in errors.items() if error]
    return sorted(wrong, key=lambda place: (-abs(errors[place] or 0), _probability_of_truth(cases[place]) or 0))[:count]


def worst_malignancy(cases: Sequence[Case], count: int = 5) -> list[int]:
    """Places of the cases whose call at a probability of 0.5 is wrong, the surest first."""
    wrong = [place for place, case in enumerate(cases) if malignancy_is_wrong(case)]
    return sorted(wrong, key=lambda place: -abs(cases[place].p_malignant - 0.5))[:count]


def grade_error(case: Case, names: Sequence[str]) -> int | None:
    """Predicted minus true grade in steps of the scale; None unless both are known."""
    if case.grade_truth not in names or case.grade_predicted not in names:
        return None
    return list(names).index(case.grade_predicted) - list(names).index(case.grade_truth)


def grade_is_wrong(case: Case) -> bool:
    """Whether both grades are known, and differ."""
    return bool(case.grade_truth and case.grade_predicted) and case.grade_truth != case.grade_predicted


def malignancy_is_wrong(case: Case) -> bool:
    """Whether truth and probability are known, and the probability is on the wrong side of 0.5."""
    judged = case.malignant_truth is not None and not np.isnan(case.p_malignant)
    return judged and (case.p_malignant >= 0.5) != bool(case.malignant_truth)


def _probability_of_truth(case: Case) -> float | None:
    return case.probability.get(case.grade_truth)


def _probability_of_predicted(case: Case) -> float | None:
    return case.probability.get(case.grade_predicted)


def _readers_mean(case: Case) -> float | None:
    known = [value for value in case.reader_dice if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def keys(cases: Sequence[Case]) -> list[str]:
    """A name of each row, for links: the case, with a number where a case has several rows. No name comes twice."""
    times = Counter(case.case for case in cases)
    taken, found = set(times), []
    for case in cases:
        name, number_of_row = case.case, 1
        while times[case.case] > 1 and name in taken:
            name, number_of_row = f"{case.case} ({number_of_row})", number_of_row + 1
        taken.add(name)
        found.append(name)
    return found


# --- the table --------------------------------------------------------------------------------------------------------


def _never(case: Case) -> bool:
    return False


@dataclass(frozen=True)
class Column:
    """Column of the table of cases: numbers with ``digits``, or text (None); ``wrong`` cells are marked.

    A text with a ``rank`` is sorted by it and not by its letters.
    """

    heading: str
    value: Callable[[Case], str | float | None]
    digits: int | None = None
    wrong: Callable[[Case], bool] = _never
    rank: tuple[str, ...] = ()

    @property
    def is_numeric(self) -> bool:
        """Whether the column is sorted by number."""
        return self.digits is not None or bool(self.rank)


def columns(cases: Sequence[Case]) -> list[Column]:
    """The columns that tell something about these cases: one without a value is left out, and so is the part when all
    cases are of the same part.
    """
    names = grades(cases)
    found = [
        Column("Case", attrgetter("case")),
        Column("Group", attrgetter("group")),
        Column("Part", attrgetter("part")),
        Column("Dice", attrgetter("dice"), 3),
        Column("HD95 px", attrgetter("hd95_px"), 1),
        Column("HD95 mm", attrgetter("hd95_mm"), 2),
        Column("True grade", attrgetter("grade_truth"), rank=names),
        Column("Predicted grade", attrgetter("grade_predicted"), wrong=grade_is_wrong, rank=names),
        Column("Grade error", lambda case: grade_error(case, names), 0),
        Column("P(grade)", _probability_of_predicted, 2),
        Column("P(true grade)", _probability_of_truth, 2),
        Column("True malignancy", malignancy, rank=("benign", "malignant")),
        Column("P(malignant)", attrgetter("p_malignant"), 2, wrong=malignancy_is_wrong),
        Column("Readers’ Dice", _readers_mean, 3),
        Column("IoU", attrgetter("iou"), 3),
        Column("ASSD px", attrgetter("assd_px"), 1),
        Column("ASSD mm", attrgetter("assd_mm"), 2),
        Column("NSD 2 px", attrgetter("nsd_2px"), 2),
        Column("NSD 1 mm", attrgetter("nsd_1mm"), 2),
        Column("Reference area", attrgetter("reference_area_px"), 0),
        Column("Predicted area", attrgetter("predicted_area_px"), 0),
        Column("Reference mm²", attrgetter("reference_area_mm2"), 1),
        Column("Predicted mm²", attrgetter("predicted_area_mm2"), 1),
        Column("Contrast to noise", attrgetter("contrast_to_noise"), 2),
        *(_about_column(name) for name in dict.fromkeys(name for case in cases for name in case.about)),
    ]
    return [column for column in found if _is_informative(column, cases)]


def _about_column(name: str) -> Column:
    return Column(name, lambda case: case.about.get(name, ""))


def _is_informative(column: Column, cases: Sequence[Case]) -> bool:
    values = {column.value(case) for case in cases}
    if column.heading in ("Case", "Group"):
        return True
    return len(values) > 1 if column.heading == "Part" else any(map(_is_there, values))


def case_table(cases: Sequence[Case]) -> dict[str, Any]:
    """Columns, the texts to choose from for the filter of each (none where it is typed), and the rows of cells."""
    shown = columns(cases)
    return {
        "columns": shown,
        "choices": [_choices(column, cases) for column in shown],
        "rows": [[_cell(column, case) for column in shown] for case in cases],
    }


def _choices(column: Column, cases: Sequence[Case]) -> list[str]:
    if column.digits is not None or column.heading in ("Case", "Group"):
        return []
    found = {str(column.value(case)) for case in cases} - {""}
    order = [name for name in column.rank if name in found] + sorted(found - set(column.rank))
    return order if len(order) <= CHOICES else []


def _cell(column: Column, case: Case) -> tuple[str | float, str]:
    """(value to sort by, text)."""
    value = column.value(case)
    if value is None or not _is_there(value):
        return "", "–"
    text = str(value) if column.digits is None or isinstance(value, str) else number(value, column.digits)
    sorted_by = column.rank.index(text) if text in column.rank else value
    return sorted_by, text + (" ✗" if column.wrong(case) else "")


def _is_there(value: str | float | None) -> bool:
    return value != "" if isinstance(value, str) else value is not None and not np.isnan(value)


# --- one case ---------------------------------------------------------------------------------------------------------


def details(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """What the viewer shows of a case but its picture: texts, and shares in [0, 1] for the bars."""
    bars = [
        {"name": name, "share": _share(case.probability.get(name)), "text": number(case.probability.get(name), 2)}
        | {"true": name == case.grade_truth, "predicted": name == case.grade_predicted}
        for name in (names if case.probability else ())
    ]
    values = dict.fromkeys([*case.guidance, *case.target])
    readers = range(max(len(case.reader_dice), len(case.reader_grades)))
    return {
        "facts": [[heading, text] for heading, text in _facts(case) if text],
        "bars": bars,
        "trueGrade": case.grade_truth,
        "malignant": {"share": _share(case.p_malignant), "text": number(case.p_malignant, 2)}
        | {"truth": malignancy(case), "wrong": malignancy_is_wrong(case)},
        "guidance": [[name, number(case.guidance.get(name), 3), number(case.target.get(name), 3)] for name in values],
        "readers": [
            [
                f"Reader {place + 1}",
                number(case.reader_dice[place] if place < len(case.reader_dice) else None),
                (case.reader_grades[place] if place < len(case.reader_grades) else "") or "–",
            ]
            for place in readers
        ],
        "about": [[name, text] for name, text in case.about.items()],
    }


def _facts(case: Case) -> list[tuple[str, str]]:
    """Headings and texts; "" where there is nothing to say."""
    known = lambda value, text: "" if value is None or np.isnan(value) else text
    outlined = case.predicted_area_px is not None and case.reference_area_px is not None
    hd95 = number(case.hd95_px, 1) + " px" + known(case.hd95_mm, f" ({number(case.hd95_mm, 2)} mm)")
    return [
        ("Group", case.group),
        ("Part", case.part),
        ("Dice", known(case.dice, number(case.dice))),
        ("IoU", known(case.iou, number(case.iou))),
        ("HD95", hd95 if np.isfinite(case.hd95_px) else "undefined: one outline is empty" if outlined else ""),
        ("ASSD", known(case.assd_px, number(case.assd_px, 1) + " px")),
        ("Reference area", _area(case.reference_area_px, case.reference_area_mm2)),
        ("Predicted area", _area(case.predicted_area_px, case.predicted_area_mm2)),
        ("Contrast to noise", known(case.contrast_to_noise, number(case.contrast_to_noise, 2))),
    ]


def _area(pixels: int | None, mm2: float) -> str:
    if pixels is None:
        return ""
    return f"{pixels} px" + ("" if np.isnan(mm2) else f" ({number(mm2, 1)} mm²)")


def _share(value: float | None) -> float:
    return 0.0 if value is None or np.isnan(value) else round(float(value), 4)
