"""Compare the radiomics features on the device with pyradiomics: list, agreement, speed.

python -m experiments.radiomics features
python -m experiments.radiomics parity [--data.name ddti --data.dir data] [--random 240]
python -m experiments.radiomics speed --data.name ddti --data.dir data [--images 64]

`features` prints the table of docs/radiomics.md. `parity` compares every value on random masks, and on every outline
of a data set if one is named. `speed` times both engines in turns on the outlines of a data set, letterboxed to
256 x 256. pyradiomics runs on one core.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import jax
import numpy as np
import tyro
from tqdm import tqdm

from data_prep import radiomics_oracle
from thyroid_jax import command, extras
from thyroid_jax.data.pipeline import letterbox
from thyroid_jax.data.storage import open_records
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.radiomics import FEATURES, extract, sizes
from thyroid_jax.radiomics.extract import CLASSES

from .runtime import prepare

BINS = ({"bin_width": 25.0}, {"bin_count": 32})
RELATIVE, ABSOLUTE = 1e-4, 1e-6  # tolerances: values agree up to RELATIVE |value| + ABSOLUTE


@dataclass(frozen=True)
class Data:
    """A built data set."""

    name: str = ""
    """name of the data set; none by default"""
    dir: Path = Path("data")
    """folder that holds it"""


@dataclass(frozen=True)
class Arguments:
    """Compare the radiomics features on the device with pyradiomics."""

    show: tyro.conf.Positional[Literal["features", "parity", "speed"]]
    data: Data = Data()
    random: int = 240
    """number of random masks that parity compares"""
    images: int = 64
    """number of images that speed times"""
    rounds: int = 5
    """turns of each engine"""


class Case(NamedTuple):
    """An image of 8-bit grey values, its mask, and the (row, column) size of a pixel."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float]


def print_features() -> None:
    """The table of all features: name, definition, range and IBSI code, from the functions that compute them."""
    print(f"### Symbols of run lengths, zones and dependences\n\n{prose(sizes)}\n")
    for name, module in CLASSES.items():
        print(f"### {name}\n\n{prose(module)}\n\n| feature | definition |\n|---|---|")
        for feature, compute in module.FEATURES.items():
            definition = " ".join(compute.__doc__.split("\n\n")[0].split()).replace("|", "\\|")
            print(f"| `{feature}` | {definition} |")
        print()


def prose(module: ModuleType) -> str:
    """A module's docstring as text for a page, without remarks that concern the code only."""
    text = re.sub(r" One (image|raster) at a time; ``jax.vmap`` for a batch\.", "", module.__doc__.strip())
    text = re.sub(r"Formulas:\s+:mod:`thyroid_jax.radiomics.sizes`\.", "Formulas: those of a table of sizes.", text)
    return re.sub(r"(:\w+:)?`+([^`]+)`+", r"`\2`", text)


def random_cases(count: int) -> Iterator[Case]:
    """Random images and masks of all kinds, the same in every call.

    The masks are blobs, rings, masks of several parts, crumbs of 4 to 50 pixels, noise, and masks at the border. The
    images are speckle, two grey values or one. Some pixels are not square.
    """
    from scipy import ndimage

    for number in range(count):
        rng = np.random.default_rng(number)
        kind = ("blob", "ring", "parts", "crumb", "noise", "border")[number % 6]
        sides = tuple(rng.integers(14, 60, 2))
        y, x = np.ogrid[: sides[0], : sides[1]]
        distance = np.hypot((y - sides[0] / 2) / sides[0], (x - sides[1] / 2) / sides[1])
        smooth = ndimage.gaussian_filter(rng.standard_normal(sides), 2 if kind == "parts" else 4)
        mask = {
            "blob": (distance < 0.35) & (smooth > np.quantile(smooth, 0.2)),
            "ring": (distance < 0.4) & (distance > 0.2),
            "parts": smooth > np.quantile(smooth, 0.6),
            "crumb": (
                np.argsort(np.argsort((distance + 0.02 * rng.random(sides)).ravel())) < rng.integers(4, 51)
            ).reshape(sides),
            "noise": rng.random(sides) > 0.5,
            "border": smooth > np.quantile(smooth, 0.3),
        }[kind]
        amplitude = np.hypot(
            *(ndimage.gaussian_filter(rng.standard_normal(sides), rng.uniform(0.5, 2)) for _ in range(2))
        )
        image = np.clip(rng.uniform(40, 160) + 30 * np.log(amplitude / amplitude.mean() + 1e-3), 0, 255).round()
        grey = ("speckle",) * 8 + ("two greys", "one grey")
        if grey[number % 10] != "speckle":
            image = np.where(image > np.median(image), 190.0, 190.0 if number % 10 == 9 else 30.0)
        spacing = ((1.0, 1.0), (0.4, 0.7), (2.0, 0.5))[number % 3 if number % 4 == 0 else 0]
        yield Case(f"{kind} {number}, {grey[number % 10]}", image, mask, spacing)


def real_cases(data: Data) -> Iterator[Case]:
    """Every outlined record of a built data set, cropped to the box around its outline."""
    from scipy import ndimage

    if not data.name:
        return
    for record in open_records(data.dir, data.name)[1]:
        if record.mask is not None and record.mask.any():
            box = ndimage.find_objects(record.mask.astype(int))[0]
            spacing = record.spacing if np.isfinite(record.spacing).all() else (1.0, 1.0)
            yield Case(f"{data.name} {record.case}", record.image[box].astype(float), record.mask[box], spacing)


def parity(arguments: Arguments) -> None:
    """Compare every value with that of pyradiomics, and print which features differ."""
    cases = [*random_cases(arguments.random), *real_cases(arguments.data)]
    print(f"{arguments.random} random masks, {len(cases) - arguments.random} of {arguments.data.name or 'no data set'}")
    for bins in BINS:
        _, images, masks, spacings = zip(*cases)
        values, valid = (
            np.asarray(part) for part in extract(images, masks, features=FEATURES, spacing=spacings, **bins)
        )
        theirs = [
            radiomics_oracle.extract(case.image, case.mask, features=FEATURES, spacing=case.spacing, **bins)
            for case in tqdm(cases, disable=not sys.stderr.isatty())
        ]
        expected, defined = (np.array(column) for column in zip(*theirs))
        known = valid & defined
        off = known & (np.abs(values - expected) > RELATIVE * np.abs(expected) + ABSOLUTE)
        share = 100 * (1 - off.sum() / known.sum())
        heading = " ".join(f"{key} {value:g}" for key, value in bins.items())
        print(f"\n{heading}: {known.sum()} values, {share:.4f} % agree")
        for feature in np.flatnonzero(off.any(0)):
            rows = np.flatnonzero(off[:, feature])
            worst = max(
                rows, key=lambda row: abs(values[row, feature] - expected[row, feature]) / abs(expected[row, feature])
            )
            print(f"- {FEATURES[feature]}: {len(rows)}; worst {cases[worst].name}, "
                  f"{values[worst, feature]:.7g} for {expected[worst, feature]:.7g}")  # fmt: skip
        print(f"undefined for pyradiomics, defined here: {(valid & ~defined).sum()}; "
              f"defined for pyradiomics, undefined here: {(defined & ~valid).sum()}")  # fmt: skip
        for (name, only), count in Counter(
            (FEATURES[f], bool(valid[n, f])) for n, f in np.argwhere(valid != defined)
        ).items():
            print(f"- {name}: {count}, {'defined here only' if only else 'undefined here only'}")


def speed(arguments: Arguments) -> None:
    """Time both engines on a data set's outlines at 256 x 256, all features and class by class."""
    records = [record for record in open_records(arguments.data.dir, arguments.data.name)[1] if record.mask is not None]
    chosen = records[: arguments.images]
    image = np.stack([letterbox(record.image, (256, 256)) for record in chosen]).astype(np.float32)
    mask = np.stack([letterbox(record.mask.astype(np.uint8) * 255, (256, 256)) for record in chosen]) >= 128
    device = jax.devices()[0]
    print(f"{len(chosen)} images of 256 x 256, {mask.sum((1, 2)).mean():.0f} pixels inside the outline on average; "
          f"jax {jax.__version__} on {device.device_kind}, {os.cpu_count()} cores; pyradiomics on one")  # fmt: skip
    rows = {"all 102": FEATURES} | {name: tuple(module.FEATURES) for name, module in CLASSES.items()}
    print("\n| features | ms an image, here | ms an image, pyradiomics | times as fast | first call s |")
    print("|---|---|---|---|---|")
    few = slice(0, len(chosen), max(1, len(chosen) // 16))  # pyradiomics is slow: time it on some of the images
    for name, features in rows.items():
        started = time.perf_counter()
        jax.block_until_ready(extract(image, mask, features=features, bin_count=32))
        first, ours, theirs = time.perf_counter() - started, [], []
        for _ in range(arguments.rounds):
            started = time.perf_counter()
            jax.block_until_ready(extract(image, mask, features=features, bin_count=32))
            ours.append((time.perf_counter() - started) / len(image) * 1e3)
            started = time.perf_counter()
            for grey, inside in zip(image[few].astype(float), mask[few]):
                radiomics_oracle.extract(grey, inside, features=features, bin_count=32)
            theirs.append((time.perf_counter() - started) / len(image[few]) * 1e3)
        ratio = statistics.median(their / our for their, our in zip(theirs, ours))
        print(
            f"| {name} | {statistics.median(ours):.2f} | {statistics.median(theirs):.1f} | {ratio:.1f} | {first:.1f} |",
            flush=True,
        )


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("radiomics"))
    prepare()
    if arguments.show == "speed" and not arguments.data.name:
        raise InputError("speed needs a data set: --data.name NAME --data.dir DIR.")
    {"features": print_features, "parity": lambda: parity(arguments), "speed": lambda: speed(arguments)}[
        arguments.show
    ]()


if __name__ == "__main__":
    main()
