"""Scaling of a model's probabilities, fitted on the validation cases of its per-case table and applied to other cases.

>>> calibration = fit(validation_cases)                                                          # doctest: +SKIP
>>> write_json("calibration.json", to_dict(calibration))                                         # doctest: +SKIP
>>> test_cases = calibrated(test_cases, calibration)                                             # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration.binning import checked_grades
from thyroid_jax.evaluate.calibration.scaling import (
    GRADE_METHODS,
    LEAST_CASES,
    MALIGNANCY_METHODS,
    Scaling,
    fit_grades,
    fit_malignancy,
    scale_grades,
    scale_malignancy,
)
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.summary.grades import Graded, graded
from thyroid_jax.evaluate.summary.malignancy import judged
from thyroid_jax.settings import from_dict as read_fields


@dataclass(frozen=True)
class Calibration:
    """Scalings of the grades and of the probability of malignancy, fitted on the cases of ``part``.

    ``names`` of the grades in ascending order of risk, () without grades. ``grade`` or ``malignant`` is None where
    nothing was asked for or nothing could be fitted; ``remarks`` say why. A case keeps what has no scaling.

    Raises ValueError for a method that does not fit its place, or a scaling of grades without two names at least.
    """

    part: str
    names: tuple[str, ...]
    grade: Scaling | None
    malignant: Scaling | None
    remarks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.grade is not None and self.grade.method not in GRADE_METHODS:
            raise ValueError(f"grades are scaled by {' or '.join(GRADE_METHODS)}, not by {self.grade.method!r}.")
        if self.malignant is not None and self.malignant.method not in MALIGNANCY_METHODS:
            raise ValueError(
                f"malignancy is scaled by {' or '.join(MALIGNANCY_METHODS)}, not by {self.malignant.method!r}."
            )
        if self.grade is not None and (len(self.names) < 2 or len(set(self.names)) < len(self.names)):
            raise ValueError(f"grades {self.names} must be two different names at least.")


def fit(
    cases: Sequence[Case],
    *,
    part: str = "validation",
    grade: str | None = "temperature",
    malignant: str | None = "temperature",
    least: int = LEAST_CASES,
) -> Calibration:
    """Fit scalings on the cases of one part, which should be one that neither trained nor tests the model.

    Args:
        part: the part that all cases must be of; to fit on another than "validation" is then a written decision.
        grade: "temperature", "ordinal" or None, from the cases with a true and a predicted grade.
        malignant: "temperature", "platt" or None, from the cases with proven malignancy and a probability of it.
        least: fewest cases from which either is fitted.

    What cannot be fitted (too few cases, one kind of case only) is None, with a remark.

    Raises ValueError for an unknown method, and :class:`~thyroid_jax.errors.InputError` for a case of another part,
    cases of different scales, probabilities that do not sum to 1, and when nothing at all can be fitted.
    """
    if grade not in (None, *GRADE_METHODS) or malignant not in (None, *MALIGNANCY_METHODS):
        raise ValueError(
            f"grade must be one of {', '.join(GRADE_METHODS)} or None, malignant one of "
            f"{', '.join(MALIGNANCY_METHODS)} or None, not {grade!r} and {malignant!r}."
        )
    _check_part(cases, part)
    of_grades, of_malignancy = _graded(cases), judged(cases)
    grade_scaling, grade_remark = _fitted_or_remark(
        "grades", fit_grades, grade, of_grades.probability, of_grades.truth, of_grades.groups, least
    )
    malignant_scaling, malignant_remark = _fitted_or_remark(
        "malignancy", fit_malignancy, malignant, *of_malignancy, least
    )
    remarks = tuple(remark for remark in (grade_remark, malignant_remark) if remark)
    if grade_scaling is None and malignant_scaling is None:
        raise InputError(f"calibration: nothing can be fitted on part {part!r}. " + " ".join(remarks))
    return Calibration(part, of_grades.names, grade_scaling, malignant_scaling, remarks)


def apply(calibration: Calibration, case: Case) -> Case:
    """The case with scaled probabilities.

    With "temperature" the predicted grade stays. With "ordinal" it is recomputed: the most probable grade, the lower
    one on a tie. A case without such a probability stays as it is. Nothing marks a scaled case: do not scale it twice.

    Raises :class:`~thyroid_jax.errors.InputError` for a case of another scale or whose probabilities do not sum to 1,
    and, with "ordinal", for one whose predicted grade is not its most probable one: it was chosen by another rule.
    """
    changes: dict[str, Any] = {}
    if calibration.grade is not None and case.probability:
        changes |= _scaled_grades(calibration.grade, calibration.names, case)
    if calibration.malignant is not None and not np.isnan(case.p_malignant):
        changes["p_malignant"] = float(scale_malignancy(calibration.malignant, np.array(case.p_malignant)))
    return dataclasses.replace(case, **changes)


def calibrated(cases: Sequence[Case], calibration: Calibration) -> list[Case]:
    """All cases by :func:`apply`, in their order. The cases are usually of another part than it was fitted on."""
    return [apply(calibration, case) for case in cases]


def to_dict(calibration: Calibration) -> dict[str, Any]:
    """The calibration as JSON values."""
    return dataclasses.asdict(calibration)


def from_dict(values: Any, *, where: str = "calibration") -> Calibration:
    """Read :func:`to_dict`'s values. ``where`` is what a message names, such as the file.

    Raises :class:`~thyroid_jax.errors.InputError` for unknown, missing, mistyped or impossible values.
    """
    if not isinstance(values, dict) or set(values) != {field.name for field in dataclasses.fields(Calibration)}:
        expected = ", ".join(field.name for field in dataclasses.fields(Calibration))
        found = ", ".join(map(str, values)) if isinstance(values, dict) else repr(values)
        raise InputError(f"{where}: expected the fields {expected}; found {found}. Fit the calibration again.")
    try:
        return Calibration(
            part=_text(values["part"], f"{where}.part"),
            names=_texts(values["names"], f"{where}.names"),
            grade=_scaling(values["grade"], f"{where}.grade"),
            malignant=_scaling(values["malignant"], f"{where}.malignant"),
            remarks=_texts(values["remarks"], f"{where}.remarks"),
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{where}: {error} Fit the calibration again.") from error


def _check_part(cases: Sequence[Case], part: str) -> None:
    if not cases:
        raise InputError(f"calibration: there is no case of part {part!r} to fit on.")
    others = Counter(case.part for case in cases if case.part != part)
    if others:
        found = ", ".join(f"{count} of {name!r}" for name, count in others.items())
        raise InputError(
            f"calibration is fitted on the part {part!r}, but there are cases of other parts: {found}. Give the cases "
            "of that part alone, or name another part."
        )


def _fitted_or_remark(
    name: str,
    fit_arrays: Callable[..., Scaling],
    method: str | None,
    probability: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    least: int,
) -> tuple[Scaling | None, str]:
    """The scaling, or None and why there is none; the remark is "" where none was asked for."""
    if method is None:
        return None, ""
    if not len(truth):
        return None, f"{name}: no case has both a prediction and the truth."
    try:
        return fit_arrays(probability, truth, method=method, groups=groups, least=least), ""
    except ValueError as error:
        return None, f"{name}: {error}"


def _graded(cases: Sequence[Case]) -> Graded:
    try:
        found = graded(cases)
        if len(found.truth):
            checked_grades(found.probability, found.truth, None)
    except ValueError as error:
        raise InputError(f"calibration: {error}") from error
    return found


def _scaled_grades(scaling: Scaling, names: tuple[str, ...], case: Case) -> dict[str, Any]:
    """Fields of the case that the scaling of grades changes."""
    if tuple(case.probability) != names:
        raise InputError(
            f"case {case.case!r}: its grades are {', '.join(case.probability)}, but the calibration was fitted on "
            f"{', '.join(names)}."
        )
    try:
        scaled = scale_grades(scaling, np.array(list(case.probability.values()), float))
    except ValueError as error:
        raise InputError(f"case {case.case!r}: {error}") from error
    probability = {name: float(value) for name, value in zip(names, scaled)}
    if scaling.method == "temperature":
        return {"probability": probability}
    if case.grade_predicted not in ("", _most_probable(case.probability)):
        raise InputError(
            f"case {case.case!r}: grade {case.grade_predicted!r} is not the most probable one, so another rule chose "
            "it; ordinal scaling cannot repeat that rule. Use a temperature."
        )
    return {"probability": probability, "grade_predicted": _most_probable(probability) if case.grade_predicted else ""}


def _most_probable(probability) -> str:
    return max(probability, key=probability.__getitem__)


def _scaling(values: Any, where: str) -> Scaling | None:
    if values is None:
        return None
    try:
        return read_fields(Scaling, values, where=where)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{where}: {error} Fit the calibration again.") from error


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {value!r} is not a text.")
    return value


def _texts(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise InputError(f"{where}: {values!r} is not a list of texts.")
    return tuple(_text(value, where) for value in values)
