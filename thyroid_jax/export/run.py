"""Run an exported model, with Python, jax, numpy and flatbuffers and nothing else.

    pip install jax flatbuffers
    python run.py IMAGE.npy [IMAGE.npy ...] [--spacing ROW COLUMN] [--out DIR]

An image is a NumPy file, uint8[h w], cropped to the scan; callipers and text are blanked as in the training data. Any
size will do: it is scaled here to the network's input. Printed is one JSON object an image. ``--out`` also writes the
outline's probabilities, f32[h w] at the image's own size, as ``DIR/IMAGE.npy``. In Python, from this folder:

    import run
    model = run.load()
    (found,) = run.predict(model, [image], spacings=[(0.1, 0.1)])

For research: it is no advice about a patient.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

UNKNOWN = (math.nan, math.nan)


class Model(NamedTuple):
    """An exported model: ``call(parameters, uint8[b h w 1]) -> answers``, its parameters, and ``export.json``."""

    call: Callable[..., dict[str, Any]]
    parameters: dict[str, Any]
    facts: dict[str, Any]


def load(folder: Path | str = Path(__file__).parent) -> Model:
    """Read an exported model from its folder.

    Raises ValueError where the program or the parameters are not the files that ``export.json`` was written for.
    """
    facts = json.loads((Path(folder) / "export.json").read_text(encoding="utf-8"))
    program, numbers = (read_checked(Path(folder), facts[part]) for part in ("program", "parameters"))
    return Model(jax.jit(export.deserialize(bytearray(program)).call), jax.device_put(tensors(numbers)), facts)


def read_checked(folder: Path, part: dict[str, Any]) -> bytes:
    """The bytes of the file that ``part`` names. Raises ValueError where their SHA-256 is another."""
    content = (folder / part["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise ValueError(f"{folder / part['file']}: not the file that export.json describes; export the run again.")
    return content


def tensors(content: bytes) -> dict[str, np.ndarray]:
    """Name -> f32 array, from the bytes of a safetensors file: u64 length of the header, header in JSON, numbers."""
    start = 8 + int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in json.loads(content[8:start]).items():
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} is of type {entry['dtype']}; parameters are F32.")
        first, end = entry["data_offsets"]
        found[name] = np.frombuffer(content[start + first : start + end], "<f4").reshape(entry["shape"])
    return found


def predict(
    model: Model,
    images: Sequence[np.ndarray],
    *,
    spacings: Sequence[tuple[float, float]] | None = None,
    batch_size: int = 8,
) -> Iterator[dict[str, Any]]:
    """Answers for uint8[h w] images of any sizes, one after the other.

    ``segmentation f32[h w]`` is the probability of a nodule at the image's own size, ``grading f32[k]`` of each grade
    (names in ``export.json``), ``malignancy`` a probability, ``guidance f32[r]`` the predicted radiomics target in its
    own units. A task that was not trained has no answer. ``spacings`` are the (row, column) sizes of the images'
    pixels, (NaN, NaN) where unknown: pixels that are not squares are resampled to squares. Probabilities are not
    calibrated. Raises ValueError for an image that is not uint8[h w], for another number of spacings than of images,
    sizes that are not above 0 or of which only one is known, a ``batch_size`` below 1, and answers that are not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: it is at least 1.")
    for image in images:
        check_image(image, "an image")
    sides = [UNKNOWN] * len(images) if spacings is None else list(spacings)
    if len(sides) != len(images):
        raise ValueError(f"{len(sides)} spacings for {len(images)} images.")
    for spacing in sides:
        check_spacing(spacing)
    size = (model.facts["input"]["height"], model.facts["input"]["width"])
    rows = model.facts["program"]["batch"] or min(batch_size, max(1, len(images)))
    for start in range(0, len(images), rows):
        chunk = list(zip(images, sides))[start : start + rows]
        batch = np.zeros((rows, *size, 1), np.uint8)
        for row, (image, spacing) in enumerate(chunk):
            batch[row, ..., 0] = letterbox(image, size, spacing)
        answers = jax.device_get(model.call(model.parameters, batch))
        for row, (image, spacing) in enumerate(chunk):
            found = {name: values[row] for name, values in answers.items()}
            if not all(np.isfinite(values).all() for values in found.values()):
                raise ValueError("the model's answers are not finite: no grade and no outline can be told from them.")
            if "segmentation" in found:
                found["segmentation"] = undo_letterbox(found["segmentation"], image.shape, spacing)
            yield found


def check_image(image: np.ndarray, name: str) -> None:
    """Raise ValueError, which starts with ``name``, unless ``image`` is uint8[h w]."""
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"{name} is {image.dtype}{list(image.shape)}; give uint8[h w].")


def check_spacing(spacing: Sequence[float]) -> None:
    """Raise ValueError unless ``spacing`` is (row, column) in mm above 0, or (NaN, NaN)."""
    known, unknown = [0 < side < math.inf for side in spacing], [math.isnan(side) for side in spacing]
    if len(spacing) != 2 or not (all(known) or all(unknown)):
        raise ValueError(f"spacing {tuple(spacing)}: give (row, column) in mm above 0, or (NaN, NaN).")


# --- between an image's own size and the network's --------------------------------------------------------------------


def place_of(shape: tuple[int, ...], size: tuple[int, int], spacing: tuple[float, float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest centred rectangle of the image's physical aspect ratio in ``size``."""
    rows, columns = float(shape[0]), float(shape[1])
    if all(math.isfinite(side) and side > 0 for side in spacing):
        rows, columns = rows * spacing[0] / min(spacing), columns * spacing[1] / min(spacing)
    scale = min(size[0] / rows, size[1] / columns)
    height, width = (max(1, min(limit, round(side * scale))) for side, limit in zip((rows, columns), size))
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def letterbox(image: np.ndarray, size: tuple[int, int], spacing: tuple[float, float] = UNKNOWN) -> np.ndarray:
    """uint8[h w] scaled into ``size`` with square pixels and zeros around it.

    Pillow's bilinear ``resize`` of the columns and then of the rows, to the bit: weights are multiples of 2^-22, sums
    are exact in float64, and each of the two passes rounds to whole grey values. One ``resize`` for both may differ by
    one grey value, because newer versions of Pillow begin with the rows where that is faster.
    """
    top, left, height, width = place_of(image.shape, size, spacing)
    across, down = (np.floor(weights(*sides) * 2**22 + 0.5) for sides in zip(image.shape[::-1], (width, height)))
    grey = lambda sums: np.clip(np.floor(sums / 2**22 + 0.5), 0, 255)
    canvas = np.zeros(size, np.uint8)
    canvas[top : top + height, left : left + width] = grey(down @ grey(image.astype(float) @ across.T))
    return canvas


def undo_letterbox(values: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, float] = UNKNOWN) -> np.ndarray:
    """f32[H W] at the network's size back to the image's own ``shape``, bilinear."""
    top, left, height, width = place_of(shape, (values.shape[0], values.shape[1]), spacing)
    inside = values[top : top + height, left : left + width].astype(float)
    wide = (inside @ weights(width, shape[1]).T).astype(np.float32)
    return (weights(height, shape[0]) @ wide).astype(np.float32)


def weights(old: int, new: int) -> np.ndarray:
    """f64[new old], rows with sum 1, that scale a line of ``old`` pixels to ``new``.

    w[i, j] ~ max(0, 1 - |j + 1/2 - (i + 1/2) s| / max(s, 1)), s = old / new: linear interpolation when the line grows,
    a triangle as wide as two new pixels when it shrinks.
    """
    scale = old / new
    distance = np.arange(old)[None] + 0.5 - (np.arange(new)[:, None] + 0.5) * scale
    triangle = np.maximum(0.0, 1 - np.abs(distance) / max(scale, 1.0))
    return triangle / triangle.sum(1, keepdims=True)


# --- command line -----------------------------------------------------------------------------------------------------


def read(path: Path) -> np.ndarray:
    """The image uint8[h w] of a .npy file; OSError where it cannot be read, ValueError where it is of another kind."""
    try:
        image = np.lib.format.read_array(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except ValueError:
        raise ValueError(
            f"{path}: no array of numbers in NumPy's .npy format; write a picture with numpy.save"
        ) from None
    check_image(image, str(path))
    return image


def described(facts: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The answers for one image as JSON values, without the outline's probabilities."""
    text: dict[str, Any] = {}
    if "grading" in found:
        text["grade"] = facts["grades"][int(found["grading"].argmax())]
        text["grades"] = {name: float(share) for name, share in zip(facts["grades"], found["grading"])}
    if "malignancy" in found:
        text["malignancy"] = float(found["malignancy"])
    if "segmentation" in found:
        text["outline_area_px"] = int((found["segmentation"] >= 0.5).sum())
    if "guidance" in found:
        text["guidance"] = {name: float(value) for name, value in zip(facts["guidance"], found["guidance"])}
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Predict the images that the command line names."""
    parser = argparse.ArgumentParser(description="Run this exported model. For research: no advice about a patient.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE.npy", help="uint8[h w], cropped to the scan")
    parser.add_argument("--spacing", nargs=2, type=float, default=UNKNOWN, help="mm per pixel, of rows and of columns")
    parser.add_argument("--out", type=Path, help="folder for the outlines' probabilities")
    arguments = parser.parse_args(argv)
    if len({path.name for path in arguments.images}) < len(arguments.images):
        parser.error("two images have the same name")
    if arguments.out and arguments.out.resolve() in {path.resolve().parent for path in arguments.images}:
        parser.error(f"{arguments.out} is the folder of an image, which would be replaced; name another folder")
    try:
        check_spacing(arguments.spacing)
        images = [read(path) for path in arguments.images]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    model = load()
    found = predict(model, images, spacings=[tuple(arguments.spacing)] * len(images))
    for path, answers in zip(arguments.images, found):
        print(json.dumps({"file": str(path), **described(model.facts, answers)}))
        if arguments.out and "segmentation" in answers:
            arguments.out.mkdir(parents=True, exist_ok=True)
            np.save(arguments.out / path.name, answers["segmentation"])


if __name__ == "__main__":
    main()
