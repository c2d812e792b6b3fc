"""Predict outline, grade and malignancy of your own images with one finished run, or with several together.

python -m experiments.predict --run-dir DIR [DIR ...] --out DIR INPUT [INPUT ...]
    [--spacing 0.1 0.1] [--clean scan colours callipers text] [--flip] [--ood] [--dicom-seg] [--no-overlays]

An input is a picture (PNG, JPEG, BMP, TIFF, DICOM, NIfTI, npy) or a folder, which is searched for them. Every frame of
a clip is predicted. Images should look like the training data: ``--clean scan colours callipers text`` cuts screenshots
to the scan and fills in what the machine drew over it. Several runs are averaged, and the table says how far they
agree. A file that cannot be read is named and left out; the others are predicted.

Written to DIR: ``predictions.csv``; ``predictions.json`` with the same, what each column means, the settings and the
files that failed; ``masks/NAME.png`` (0 and 255, of the image's own size, turned as it is shown);
``overlays/NAME.png``; and ``index.html``, a page of all images. Nothing of a DICOM file's patient is written, unless
``--dicom-seg`` asks for segmentation objects. After Ctrl-C the images that are done are in the table. For research: it
is no advice about a patient.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

import thyroid_jax
from thyroid_jax import command, extras, runs
from thyroid_jax.data import formats
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate.calibration import to_dict
from thyroid_jax.evaluate.cases import Cell, write_table
from thyroid_jax.files import write_bytes, write_json
from thyroid_jax.runs import gallery, inputs, outputs, segments

from .runtime import prepare

if TYPE_CHECKING:
    from data_prep.cleaning import Cleaned
    from thyroid_jax.predict import Trained

RESEARCH_USE = "Research use only: these predictions are no advice about a patient."


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Predict outline, grade and malignancy of your own images."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """pictures, or folders of them"""
    run_dir: tuple[Path, ...]
    """folders of finished runs; several are averaged"""
    out: Path
    """folder for the predictions"""
    checkpoint: Literal["best", "last"] = "best"
    """the best by the run's validation measure, or the last"""
    spacing: tuple[float, float] | None = None
    """mm per pixel (rows, columns) of all images, also of files that say another size; by default what a file says"""
    clean: tuple[Literal["scan", "colours", "callipers", "text"], ...] = ()
    """clean screenshots: cut to the scan, fill in coloured marks, callipers, text"""
    flip: bool = False
    """average the predictions over each image and its mirror image"""
    calibrate: bool = True
    """scale the probabilities by each run's calibration.json, where all runs have one; it is fitted for the best
    checkpoint without --flip, so it is not used with another"""
    ood: bool = False
    """say how unlike the training images each image is. What is needed of the training data is computed once and kept
    in the run folder; where it is there already, this option is not needed"""
    data_dir: Path | None = None
    """folder of the runs' data set, if it has moved since the training; for --ood"""
    dicom_seg: bool = False
    """also write a DICOM segmentation object for each DICOM image; it holds the patient's name and number"""
    overlays: bool = True
    """draw the outline on each image, and write the page"""
    batch_size: int = 8
    """images that are predicted at once"""
    overwrite: bool = False
    """replace predictions that are already in --out"""


class Models(NamedTuple):
    """The runs and the digest of their parameters, the reference of each to compare images with, or none at all, and
    the columns of the table.
    """

    runs: list[Trained]
    digest: str
    references: list[runs.ood.Reference]
    columns: dict[str, str]


class Seen(NamedTuple):
    """A picture to predict: its file and the file's name in the output, its frame from 1 of so many, its mask's name.

    ``frame`` is the whole picture and ``cleaned`` the part of it that is predicted.
    """

    path: Path
    file: str
    number: int
    frames: int
    name: str
    frame: np.ndarray
    cleaned: Cleaned
    spacing: tuple[float, float]
    remarks: str


@dataclass
class Done:
    """What is predicted so far: rows of the table, names of masks and segmentations, and files left out with reasons.

    ``unsegmented`` are files without a segmentation object, with reasons.
    """

    failed: dict[str, str]
    rows: list[dict[str, Cell]] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    shown: list[gallery.Shown] = field(default_factory=list)
    segmentations: list[str] = field(default_factory=list)
    unsegmented: dict[str, str] = field(default_factory=dict)


def check(arguments: Arguments) -> None:
    """Raise :class:`InputError` for arguments that cannot be used, packages that are missing, and a folder ``out`` that
    cannot be written into, before any work is done.
    """
    if arguments.batch_size < 1:
        raise InputError(f"--batch-size {arguments.batch_size}: it is at least 1.")
    if arguments.spacing:
        try:
            thyroid_jax.predict.check_spacing(arguments.spacing, "--spacing")
        except ValueError as error:
            raise InputError(str(error)) from error
        if math.isnan(arguments.spacing[0]):
            raise InputError("--spacing: give two sizes in mm above 0, of rows and columns.")
    if arguments.data_dir is not None and not arguments.ood:
        raise InputError("--data-dir is used by --ood only; add --ood, or leave it out.")
    extras.require("scipy", *(extras.RECORDS if arguments.ood else ()))
    if arguments.dicom_seg:
        segments.require_highdicom()
    outputs.check(arguments.out, arguments.inputs, overwrite=arguments.overwrite)


def load(arguments: Arguments) -> Models:
    """The runs, and where the images are to be compared with the training images, the runs' references."""
    calibrated = not why_uncalibrated(arguments)
    opened = runs.apply.load_all(arguments.run_dir, checkpoint=arguments.checkpoint, calibrate=calibrated)
    if arguments.dicom_seg and "segmentation" not in opened[0].facts["tasks"]:
        raise InputError(f"{arguments.run_dir[0]}: was not trained to outline; leave out --dicom-seg.")
    found = [runs.ood.of_run(run_dir, run) for run_dir, run in zip(arguments.run_dir, opened)]
    if arguments.ood:
        found = [
            reference or runs.ood.fit_and_keep(run_dir, run, arguments.checkpoint, arguments.data_dir, echo=print)
            for run_dir, run, reference in zip(arguments.run_dir, opened, found)
        ]
    references = [reference for reference in found if reference is not None]
    references = references if len(references) == len(opened) else []
    columns = runs.prediction_table.describe(opened[0], len(opened), ood=bool(references))
    return Models(opened, runs.apply.digest(opened), references, columns)


def why_uncalibrated(arguments: Arguments) -> str:
    """Why the probabilities are not calibrated; "" when they are."""
    if not arguments.calibrate:
        return "uncalibrated: --no-calibrate was given"
    if arguments.flip or arguments.checkpoint != "best":
        return "uncalibrated: a calibration is fitted for the best checkpoint without --flip"
    without = [inputs.printable(folder) for folder in arguments.run_dir if runs.apply.calibration_in(folder) is None]
    return f"uncalibrated: no {runs.apply.CALIBRATION} in {', '.join(without)}" if without else ""


def pictures(arguments: Arguments, files: dict[str, Path], failed: dict[str, str]) -> Iterator[Seen]:
    """The frames of all files, one file in memory at a time. A file that cannot be used is put into ``failed``."""
    from data_prep.cleaning import clean

    for name, path in tqdm(files.items(), unit=" files", disable=not sys.stderr.isatty(), leave=False):
        try:
            picture = formats.read_picture(path)
            names = inputs.frame_names(name, len(picture.frames), files)
            colours = [None] * len(picture.frames) if picture.colour is None else picture.colour
            cleaned = [clean(frame, arguments.clean, colour=colour) for frame, colour in zip(picture.frames, colours)]
        except InputError as error:
            failed[inputs.printable(path)] = str(error)
            print(f"left out: {inputs.printable(path)}: {error}", file=sys.stderr)
            continue
        spacing, replaced = spacing_of(arguments, picture)
        for number, (mask, frame, part) in enumerate(zip(names, picture.frames, cleaned), start=1):
            remarks = "; ".join((*picture.remarks, *replaced, *part.steps))
            yield Seen(path, name, number, len(names), mask, frame, part, spacing, remarks)


def spacing_of(arguments: Arguments, picture: formats.Picture) -> tuple[tuple[float, float], tuple[str, ...]]:
    """The pixel size to use, and a remark where it replaces another one that the file says."""
    own = picture.spacing
    if arguments.spacing is None or math.isnan(own[0]) or own == arguments.spacing:
        return arguments.spacing or own, ()
    return arguments.spacing, (f"pixel size of the file, {own[0]:g} x {own[1]:g} mm, replaced by --spacing",)


def predict_all(arguments: Arguments, models: Models, files: dict[str, Path], done: Done) -> None:
    """Predict all files batch by batch, write masks and pictures on the way, and note in ``done`` what is done."""
    seen = pictures(arguments, files, done.failed)
    outlines: list[np.ndarray] = []  # of the frames of one file, for its segmentation object
    while batch := list(islice(seen, arguments.batch_size)):
        images, spacings = [each.cleaned.image for each in batch], [each.spacing for each in batch]
        at_once = arguments.batch_size
        found = list(runs.apply.apply(models.runs, images, spacings, batch_size=at_once, flip=arguments.flip))
        distances = runs.ood.measure(models.runs, models.references, images, spacings, batch_size=at_once)
        if not done.rows:
            outputs.remove_older(arguments.out)
        for each, applied, distance in zip(batch, found, distances, strict=True):
            row = row_of(models, each, applied, distance)
            if applied.together.probability is not None:
                outline = whole_outline(each, applied.together.probability >= 0.5)
                done.masks.append(each.name)
                write_pictures(arguments, each, outline)
                if arguments.dicom_seg:
                    outlines = [*(outlines if each.number > 1 else []), outline]
                    write_segmentation(arguments, models, each, outlines, done)
                if arguments.overlays:
                    done.shown.append(gallery.Shown(f"{outputs.OVERLAYS}/{each.name}.png", *outline.shape, row))
            done.rows.append(row)


def row_of(models: Models, seen: Seen, applied: runs.apply.Applied, distance: tuple[float, ...]) -> dict[str, Cell]:
    """A picture's row of the table; ``distance`` is its distance and percentile, or ()."""
    inputs_of = dict.fromkeys((run.config.data.height, run.config.data.width) for run in models.runs)
    found = [runs.quality.of_image(seen.cleaned.image, size, seen.spacing) for size in inputs_of]
    checks = [check for check in runs.quality.CHECKS if any(check in own for own in found)]
    if distance and distance[1] >= 100 - runs.ood.UNLIKE:
        checks.append("unlike the training images")
    about = {"file": inputs.printable(seen.path), "frame": seen.number, "remarks": seen.remarks}
    row = runs.prediction_table.row_of(models.runs[0], applied, seen.spacing, checks=checks)
    return about | row | dict(zip(runs.prediction_table.OOD, distance))


def whole_outline(seen: Seen, outline: np.ndarray) -> np.ndarray:
    """The outline bool[h w] of a picture's cleaned part, in the whole picture."""
    whole = np.zeros(seen.frame.shape, bool)
    whole[seen.cleaned.box.slices] = outline
    return whole


def write_pictures(arguments: Arguments, seen: Seen, outline: np.ndarray) -> None:
    """Write the mask of the whole picture, and the picture with the outline drawn in."""
    from thyroid_jax.evaluate import report

    mask = np.where(outline, np.uint8(255), np.uint8(0))
    write_bytes(arguments.out / outputs.MASKS / f"{seen.name}.png", outputs.png(mask))
    if arguments.overlays:
        drawn = report.overlay(seen.frame, None, outline)
        write_bytes(arguments.out / outputs.OVERLAYS / f"{seen.name}.png", outputs.png(drawn))


def write_segmentation(
    arguments: Arguments, models: Models, seen: Seen, outlines: Sequence[np.ndarray], done: Done
) -> None:
    """Write the segmentation object of a DICOM file after its last frame, or note why there is none."""
    file = inputs.printable(seen.path)
    if formats.kind_of(seen.path) != "dicom":
        done.unsegmented[file] = "file: is no DICOM file"
    elif seen.number == seen.frames:
        try:
            content = segments.segmentation(seen.path, outlines, model=models.digest)
        except InputError as error:
            done.unsegmented[file] = str(error)
            print(f"no segmentation: {file}: {error}", file=sys.stderr)
            return
        done.segmentations.append(seen.file)
        write_bytes(arguments.out / outputs.SEGMENTATIONS / f"{seen.file}.dcm", content)


def calibration_of(arguments: Arguments, models: Models) -> Any:
    """What the probabilities were scaled by, for each run; or why they were not. A mean of runs is not scaled again."""
    scaled = [run.calibration for run in models.runs if run.calibration is not None]
    return [to_dict(calibration) for calibration in scaled] or why_uncalibrated(arguments)


def write_tables(arguments: Arguments, models: Models, done: Done, *, finished: bool) -> None:
    """Write the table as CSV and JSON, and the page."""
    header = list(models.columns)
    about: dict[str, Any] = {
        "note": RESEARCH_USE,
        "version": thyroid_jax.__version__,
        "finished": finished,
        "runs": [inputs.printable(run_dir) for run_dir in arguments.run_dir],
        "checkpoint": " and ".join(
            sorted({thyroid_jax.predict.checkpoint_read(place, arguments.checkpoint) for place in arguments.run_dir})
        ),
        "flip": arguments.flip,
        "clean": list(arguments.clean),
        "calibration": calibration_of(arguments, models),
        "out_of_distribution": runs.ood.describe(models.references),
        "columns": models.columns,
        "checks": runs.quality.CHECKS,
        "predictions": [{name: row.get(name) for name in header} for row in done.rows],
        "masks": done.masks,
        "segmentations": done.segmentations,
        "without_segmentation": done.unsegmented,
        "failed": done.failed,
    }
    if done.shown:
        shown = {name: models.columns[name] for name in runs.prediction_table.brief(models.columns)}
        write_bytes(arguments.out / outputs.PAGE, gallery.page(done.shown, shown, note=RESEARCH_USE))
    write_table(arguments.out / outputs.TABLE, header, done.rows)
    write_json(arguments.out / outputs.ABOUT, about)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("predict"))
    check(arguments)
    prepare()
    given = inputs.find(arguments.inputs)
    models = load(arguments)
    done = Done(given.failed)
    for path, reason in given.failed.items():
        print(f"left out: {path}: {reason}", file=sys.stderr)
    try:
        predict_all(arguments, models, given.files, done)
    except BaseException as error:
        if done.rows:
            write_tables(arguments, models, done, finished=False)
        if not isinstance(error, KeyboardInterrupt):
            raise
        written = f"written to {arguments.out / outputs.TABLE}" if done.rows else "nothing was written"
        print(f"stopped after {len(done.rows)} images: {written}.", file=sys.stderr)
        sys.exit(130)
    if not done.rows:
        raise InputError(f"none of {len(done.failed)} files could be read; nothing was written.")
    write_tables(arguments, models, done, finished=True)
    print(f"{len(done.rows)} images predicted, {len(done.failed)} files left out: {arguments.out / outputs.TABLE}")
    if models.runs[0].calibration is None:
        print(f"probabilities {why_uncalibrated(arguments)}")
    if done.shown:
        print(f"page: {arguments.out / outputs.PAGE}")
    if arguments.dicom_seg:
        print(f"{len(done.segmentations)} DICOM segmentations, {len(done.unsegmented)} files without one.")
        print(segments.STATEMENT)
    print(RESEARCH_USE)


if __name__ == "__main__":
    main()
