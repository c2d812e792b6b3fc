"""Apply finished runs to new images: one prediction of all runs together, and what each predicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax import command
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import Calibration, from_dict, to_dict
from thyroid_jax.files import read_json, write_json
from thyroid_jax.predict import Prediction, Trained, fingerprint, load, predict
from thyroid_jax.untrusted import is_there

Spacing = tuple[float, float]
CALIBRATION = "report/calibration.json"
"""where a run folder keeps the scaling of its probabilities, fitted on its validation part"""


SCALED = {"grade": "grades", "malignant": "malignancy"}
"""fields of a calibration -> the probabilities that each scales"""


def load_all(
    run_dirs: Sequence[Path | str],
    *,
    checkpoint: str = "best",
    calibrate: bool = False,
    echo: Callable[[str], Any] = print,
) -> list[Trained]:
    """The models of several runs; with ``calibrate``, each with the calibration in its folder, which all must have.

    Where only some of the runs could be calibrated for grades, or for malignancy, none of them is scaled for it, and
    ``echo`` is called with one line that says so.

    Raises :class:`InputError` for a folder that is named twice, or unless all have the same tasks, grades and target.
    """
    places = [Path(run_dir).resolve() for run_dir in run_dirs]
    if twice := [run_dir for place, run_dir in enumerate(run_dirs) if places[place] in places[:place]]:
        raise InputError(f"{twice[0]}: is named twice; an average would count it twice.")
    found = [calibration_in(Path(run_dir)) if calibrate else None for run_dir in run_dirs]
    if calibrate and None in found:
        raise InputError(f"{run_dirs[found.index(None)]}: has no {CALIBRATION}; predict without calibration.")
    runs = [load(run_dir, checkpoint=checkpoint, calibration=own) for run_dir, own in zip(run_dirs, found)]
    for run_dir, run in zip(run_dirs, runs if calibrate else []):
        check_calibrated(Path(run_dir), run)
    first = runs[0].facts
    for run_dir, run in zip(run_dirs, runs):
        for fact in ("tasks", "grade_system", "grades", "target"):
            if run.facts[fact] != first[fact]:
                raise InputError(
                    f"{run_dir}: its {fact} ({_said(run.facts[fact])}) are not those of {run_dirs[0]} "
                    f"({_said(first[fact])}); predict with each of them alone."
                )
    return scaled_alike(run_dirs, runs, echo) if calibrate else runs


def scaled_alike(
    run_dirs: Sequence[Path | str], runs: Sequence[Trained], echo: Callable[[str], Any] = print
) -> list[Trained]:
    """The calibrated runs, without the scalings that only some of them have.

    A mean of scaled and unscaled probabilities is neither. ``echo`` is called with a line for each scaling that is left
    out, which names the runs that lack it; the same line is a remark of every calibration.
    """
    calibrations = [run.calibration for run in runs if run.calibration is not None]
    for field, of in SCALED.items():
        lacking = [str(place) for place, own in zip(run_dirs, calibrations) if getattr(own, field) is None]
        if 0 < len(lacking) < len(runs):
            remark = f"{of}: uncalibrated in all runs, because {', '.join(lacking)} has no scaling of it"
            echo(remark)
            without: dict[str, Any] = {field: None}
            calibrations = [replace(own, **without, remarks=(*own.remarks, remark)) for own in calibrations]
    return [run._replace(calibration=own) for run, own in zip(runs, calibrations, strict=True)]


def calibration_in(run_dir: Path) -> Calibration | None:
    """The calibration in a run folder, None without one; :class:`InputError` for a damaged file."""
    path = run_dir / CALIBRATION
    if not is_there(path):
        return None
    values = read_json(path)
    return from_dict(
        {key: values[key] for key in values if key != "parameters"} if isinstance(values, dict) else values,
        where=str(path),
    )


def write_calibration(run_dir: Path, run: Trained, calibration: Calibration) -> None:
    """Keep the calibration of a run in its folder, with the digest of the parameters that it was fitted for."""
    write_json(run_dir / CALIBRATION, to_dict(calibration) | {"parameters": fingerprint(run)})


def check_calibrated(run_dir: Path, run: Trained) -> None:
    """Raise :class:`InputError` where the calibration in the folder was fitted for other parameters than the run's."""
    fitted_for = read_json(run_dir / CALIBRATION).get("parameters")
    if fitted_for != fingerprint(run):
        raise InputError(
            f"{run_dir / CALIBRATION}: was not fitted for these parameters, as before the run went on; "
            f"run `{command.spelled('evaluate')}` again."
        )


def digest(runs: Sequence[Trained]) -> str:
    """SHA-256 of the parameters of all runs, in hexadecimal (64 characters)."""
    return hashlib.sha256("".join(map(fingerprint, runs)).encode()).hexdigest()


def _said(fact: object) -> str:
    return " ".join(map(str, fact)) if isinstance(fact, list | tuple) else str(fact)


class Applied(NamedTuple):
    """What all runs together predict for one image, and what each of them predicts."""

    together: Prediction
    each: tuple[Prediction, ...]


def apply(
    runs: Sequence[Trained],
    images: Sequence[np.ndarray],
    spacings: Sequence[Spacing],
    *,
    batch_size: int = 8,
    flip: bool = False,
) -> Iterator[Applied]:
    """Predict uint8[h w] images with every run, and average the probabilities over the runs.

    ``spacings``, ``batch_size`` and ``flip`` as in :func:`thyroid_jax.predict.predict`.
    """
    found = [predict(run, images, spacings=spacings, batch_size=batch_size, flip=flip) for run in runs]
    for each in zip(*found, strict=True):
        each = tuple(unscaled(found, run) for found, run in zip(each, runs, strict=True))
        yield Applied(averaged(each), each)


def unscaled(found: Prediction, run: Trained) -> Prediction:
    """The prediction with guidance values in the units of the radiomics target instead of the run's own z-scores."""
    if "guidance" not in found.answers:
        return found
    scaling = run.recipe.fitted.scaling
    values = found.answers["guidance"] * np.asarray(scaling.spread) + np.asarray(scaling.centre)
    return found._replace(answers={**found.answers, "guidance": values})


def averaged(each: Sequence[Prediction]) -> Prediction:
    """The mean of several predictions of one image, from runs with the same tasks and grades.

    Guidance values, :func:`unscaled` before, are averaged too. Other answers are the first run's, because outlines of
    runs with different input sizes have different shapes.
    """
    answers = dict(each[0].answers)
    if "guidance" in answers:
        answers["guidance"] = np.mean([found.answers["guidance"] for found in each], axis=0)
    outlines = [found.probability for found in each if found.probability is not None]
    grades = [found.grades for found in each if found.grades is not None]
    malignant = [found.malignant for found in each if found.malignant is not None]
    return Prediction(
        probability=np.mean(outlines, axis=0) if outlines else None,
        grades=np.mean(grades, axis=0) if grades else None,
        malignant=float(np.mean(malignant)) if malignant else None,
        answers=answers,
    )
