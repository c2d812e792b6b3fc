"""Predict outline, grade and malignancy of your own images with one finished run, or with several together.

python -m experiments.predict --run-dir DIR [DIR ...] --out DIR INPUT [INPUT ...]
    [--spacing 0.1 0.1] [--clean scan callipers text] [--flip] [--no-overlays]

An input is a picture (PNG, JPEG, BMP, TIFF, DICOM, NIfTI, npy) or a folder, which is searched for them. Every frame of
a clip is predicted. Images should look like the training data: ``--clean scan text callipers`` cuts screenshots to the
scan and fills in what the machine drew over it. Several runs are averaged, and the table says how far they agree. A
file that cannot be read is named and left out; the others are predicted.

Written to DIR: ``predictions.csv``, ``predictions.json`` with the settings and the files that failed,
``masks/NAME.png`` (0 and 255, of the image's own size, turned as it is shown), ``overlays/NAME.png``. For research: it
is no advice about a patient.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

import thyroid_jax
from data_prep.cleaning import Cleaned, clean
from experiments.runtime import prepare
from thyroid_jax.data import formats
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import report
from thyroid_jax.evaluate.cases import write_table
from thyroid_jax.files import read_json, write_bytes, write_json
from thyroid_jax.runs import apply

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
    """mm per pixel (rows, columns) of all images; by default what a file says of itself"""
    clean: tuple[Literal["scan", "callipers", "text"], ...] = ()
    """clean screenshots: cut to the scan, fill in callipers, fill in text"""
    flip: bool = False
    """average the predictions over each image and its mirror image"""
    overlays: bool = True
    """draw the outline on each image"""
    batch_size: int = 8
    """images that are predicted at once"""
    overwrite: bool = False
    """replace predictions that are already in --out"""


class Seen(NamedTuple):
    """A picture to predict: its file as the table names it, its frame from 1, the name of its mask.

    ``frame`` is the whole picture and ``cleaned`` the part of it that is predicted.
    """

    file: str
    number: int
    name: str
    frame: np.ndarray
    cleaned: Cleaned
    spacing: tuple[float, float]
    remarks: str


def files_of(inputs: Sequence[Path]) -> dict[str, Path]:
    """Name in the output -> file, of all pictures that the inputs name or hold, in the order of the inputs.

    A name is the path inside its input folder, or the file's name, without suffix; with it where two would be equal.
    Raises :class:`InputError` for an input that is not there, a name that is still there twice, or no picture at all.
    """
    found: list[tuple[Path, Path]] = []
    for given in inputs:
        if given.is_dir():
            inside = (path for path in sorted(given.rglob("*")) if not _hidden(path.relative_to(given)))
            found += [(path.relative_to(given), path) for path in inside if path.is_file() and formats.kind_of(path)]
        elif given.exists():
            found.append((Path(given.name), given))
        else:
            raise InputError(f"{given}: no such file or folder.")
    short = Counter(_stem(place) for place, _ in found)
    names = {(_stem(place) if short[_stem(place)] == 1 else place.as_posix()): path for place, path in found}
    if not found:
        raise InputError(f"{' '.join(map(str, inputs))}: no picture there; known are {' '.join(formats.SUFFIXES)}.")
    if len(names) < len(found):
        twice = Counter(place.as_posix() for place, _ in found).most_common(1)[0][0]
        raise InputError(f"{twice}: two inputs hold a picture of this name; predict them into two folders.")
    return names


def _hidden(place: Path) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in place.parts)


def _stem(place: Path) -> str:
    suffix = next((suffix for suffix in formats.SUFFIXES if place.name.lower().endswith(suffix)), "")
    return place.as_posix()[: -len(suffix) or None]


def pictures(arguments: Arguments, failed: dict[str, str]) -> Iterator[Seen]:
    """The frames of all files, one file in memory at a time. A file that cannot be used is put into ``failed``."""
    files = files_of(arguments.inputs)
    for name, path in tqdm(files.items(), unit=" files", disable=not sys.stderr.isatty(), leave=False):
        try:
            picture = formats.read_picture(path)
            cleaned = [clean(frame, arguments.clean) for frame in picture.frames]
        except InputError as error:
            failed[str(path)] = str(error)
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue
        spacing = arguments.spacing or picture.spacing
        for number, (frame, part) in enumerate(zip(picture.frames, cleaned), start=1):
            mask = name if len(cleaned) == 1 else f"{name}#{number:04d}"
            yield Seen(str(path), number, mask, frame, part, spacing, "; ".join((*picture.remarks, *part.steps)))


def predictions(
    arguments: Arguments, failed: dict[str, str]
) -> tuple[list[str], list[dict[str, apply.Cell]], list[str]]:
    """Columns and rows of the table, and the names of the masks, which are written on the way."""
    runs = apply.load_all(arguments.run_dir, checkpoint=arguments.checkpoint)
    seen = pictures(arguments, failed)
    rows, masks = [], []
    while batch := list(islice(seen, arguments.batch_size)):
        images, spacings = [each.cleaned.image for each in batch], [each.spacing for each in batch]
        found = apply.apply(runs, images, spacings, batch_size=arguments.batch_size, flip=arguments.flip)
        for each, applied in zip(batch, found, strict=True):
            about = {"file": each.file, "frame": each.number, "remarks": each.remarks}
            rows.append(about | apply.row_of(runs[0], applied, each.spacing))
            if applied.together.probability is not None:
                masks.append(each.name)
                write_pictures(arguments, each, applied.together.probability >= 0.5)
    return apply.columns(runs[0], len(runs)), rows, masks


def write_pictures(arguments: Arguments, seen: Seen, outline: np.ndarray) -> None:
    """Write the mask of the whole picture, and the picture with the outline bool[h w] of its cleaned part drawn in."""
    whole = np.zeros(seen.frame.shape, bool)
    whole[seen.cleaned.box.slices] = outline
    write_bytes(arguments.out / "masks" / f"{seen.name}.png", report.png(np.where(whole, np.uint8(255), np.uint8(0))))
    if arguments.overlays:
        drawn = report.overlay(seen.frame, None, whole)
        write_bytes(arguments.out / "overlays" / f"{seen.name}.png", report.png(drawn))


def check(arguments: Arguments) -> None:
    """Raise :class:`InputError` for arguments that cannot be used."""
    if arguments.batch_size < 1:
        raise InputError(f"--batch-size {arguments.batch_size}: it is at least 1.")
    if arguments.spacing and not all(math.isfinite(side) and side > 0 for side in arguments.spacing):
        raise InputError("--spacing: give two sizes in mm above 0, of rows and columns.")
    inside = [given for given in arguments.inputs if arguments.out.resolve().is_relative_to(given.resolve())]
    if inside:
        raise InputError(f"--out {arguments.out}: lies inside the input {inside[0]}, which is never written into.")
    if (arguments.out / "predictions.csv").exists() and not arguments.overwrite:
        raise InputError(f"{arguments.out}: predictions are already there. Add --overwrite, or give another --out.")


def remove_older(out: Path) -> None:
    """Remove the masks and overlays that the table of earlier predictions in ``out`` names."""
    if (out / "predictions.json").is_file():
        for name in read_json(out / "predictions.json").get("masks", []):
            for folder in ("masks", "overlays"):
                place = out / folder / f"{name}.png"
                if place.resolve().is_relative_to(out.resolve()):
                    place.unlink(missing_ok=True)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    prepare()
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.predict")
    check(arguments)
    failed: dict[str, str] = {}
    remove_older(arguments.out)
    header, rows, masks = predictions(arguments, failed)
    if not rows:
        raise InputError(f"none of {len(failed)} files could be read; nothing was written.")
    write_table(arguments.out / "predictions.csv", header, rows)
    about: dict[str, Any] = {
        "note": RESEARCH_USE,
        "version": thyroid_jax.__version__,
        "runs": [str(run_dir) for run_dir in arguments.run_dir],
        "checkpoint": arguments.checkpoint,
        "flip": arguments.flip,
        "clean": list(arguments.clean),
        "predictions": [{name: row.get(name) for name in header} for row in rows],
        "masks": masks,
        "failed": failed,
    }
    write_json(arguments.out / "predictions.json", about)
    print(f"{len(rows)} images predicted, {len(failed)} files left out: {arguments.out / 'predictions.csv'}")
    print(RESEARCH_USE)


if __name__ == "__main__":
    main()
