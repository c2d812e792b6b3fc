"""The folder of an exported run: written, checked and put in its place in one step."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

import thyroid_jax
from thyroid_jax.errors import InputError, names_a_full_disk
from thyroid_jax.export import card, run
from thyroid_jax.export import facts as run_facts
from thyroid_jax.export.program import PLATFORMS, Echo, Program, flat_parameters, lower, safetensors
from thyroid_jax.files import write_bytes, write_json, write_text
from thyroid_jax.predict import Trained, fingerprint, forward

FILES = ("export.json", "model.stablehlo", "model_card.md", "parameters.safetensors", "run.py")
FORMAT = 1
"""version of the layout of ``export.json``"""
EXACT, ROUGH = 1e-5, 1e-2
"""largest difference of the program's answers to those of :func:`thyroid_jax.predict.forward` that is accepted: in
float32 on a CPU; elsewhere, where two compilations of one function may round otherwise"""


def export_run(
    run_dir: Path | str,
    out: Path | str,
    *,
    platforms: Sequence[str] = PLATFORMS,
    checkpoint: str = "best",
    data_dir: Path | str | None = None,
    overwrite: bool = False,
    samples: int = 2000,
    echo: Echo = print,
) -> dict[str, Any]:
    """Export a run into the new folder ``out`` and return the content of its ``export.json``.

    The folder is written beside its place and renamed: there is a whole one or none. Before that the program is read
    back, run, and compared with :func:`thyroid_jax.predict.forward`.

    Args:
        run_dir: folder of a trained run.
        out: folder to make. With ``overwrite`` an earlier export is replaced, and nothing else ever is.
        platforms: of cpu, cuda, rocm and tpu; the program runs on these alone.
        checkpoint: "best" by the run's validation measure, or "last".
        data_dir: folder of the built data set, if it was moved since the run was trained. It is read for the model
            card. Without it, a data set that is missing or changed makes the card say so; with it, it is an error.
        samples: bootstrap replicates of the intervals in the model card.
        echo: called with one line where something is left out.

    Raises :class:`InputError` for a folder that is no trained run, an ``out`` that exists, and a missing package.
    """
    run_dir, out = Path(run_dir), Path(out)
    _check_can_write(out, overwrite)
    _check_flatbuffers()
    source = run_facts.open_source(run_dir, checkpoint, data_dir, echo)
    trained = source.trained
    _check_grades(trained, run_dir)
    parameters = flat_parameters(trained.params)
    program = lower(trained, platforms, echo)
    files = {
        "model.stablehlo": bytes(program.exported.serialize()),
        "parameters.safetensors": safetensors(parameters),
        "run.py": Path(run.__file__).read_bytes(),
    }
    facts = run_facts.facts_of(run_dir, source, checkpoint=checkpoint, samples=samples) | {
        "format": FORMAT,
        "versions": _versions(trained),
        "program": _about_program(program, files["model.stablehlo"]),
        "parameters": _about_parameters(trained, parameters, files["parameters.safetensors"]),
        "input": _about_input(trained),
        "answers": _about_answers(trained, program),
        "grades": list(trained.facts["grades"]),
        "guidance": list(trained.facts["target"]) if "guidance" in _tasks(trained) else [],
    }
    with _folder_in_one_step(out) as beside:
        for name, content in files.items():
            write_bytes(beside / name, content)
        write_json(beside / "export.json", facts)  # without the check, which reads it
        facts["program"]["check"] = check(beside, trained, echo)
        write_json(beside / "export.json", facts)
        write_text(beside / "model_card.md", card.page(facts))
    return facts


# --- the check --------------------------------------------------------------------------------------------------------


def check(folder: Path, trained: Trained, echo: Echo = print) -> dict[str, Any]:
    """Run an exported folder as a user would and compare its answers with :func:`thyroid_jax.predict.forward`.

    Returns the platform, the largest difference (of guidance in units of its spread), and the accepted one. Where no
    device of the program's platforms is at hand, the platform is None and ``echo`` is called with a line. Raises
    RuntimeError for a larger difference: a fault of the export.
    """
    model = run.load(folder)
    here = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if here not in model.facts["program"]["platforms"]:
        echo(f"the program was not run: it is not for {here}, and no other device is here")
        return {"platform": None, "largest_difference": None, "accepted": None}
    images = _check_images(trained.config.data.height, trained.config.data.width)
    images = images[np.arange(model.facts["program"]["batch"] or len(images)) % len(images)]
    found = jax.device_get(model.call(model.parameters, images))
    wanted = jax.device_get(forward(trained.params, trained.recipe, images))
    if "guidance" in found:
        scaling = trained.recipe.fitted.scaling
        found["guidance"] = (found["guidance"] - scaling.centre[None]) / scaling.spread[None]
    if set(found) != set(wanted):
        raise RuntimeError(f"the exported program answers {sorted(found)}, the run {sorted(wanted)}.")
    largest = float(np.max([np.abs(found[name] - wanted[name]).max() for name in wanted]))
    accepted = EXACT if here == "cpu" and trained.config.model.dtype == "float32" else ROUGH
    if not largest <= accepted:  # NaN is refused too
        raise RuntimeError(f"the exported program differs by {largest:.3g} from the run, more than {accepted:g}.")
    return {"platform": here, "largest_difference": largest, "accepted": accepted}


def _check_images(height: int, width: int) -> np.ndarray:
    """Three images uint8[3 h w 1]: speckle with a dark disc, a bright one, and none."""
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (min(height, width) / 4) ** 2
    noise = np.random.default_rng(0).normal(size=(3, height, width)) * 12
    contrast = np.array([-60, 40, 0])[:, None, None] * inside
    return np.clip(140 + contrast + noise, 0, 255).astype(np.uint8)[..., None]


# --- facts ------------------------------------------------------------------------------------------------------------


def _about_program(program: Program, content: bytes) -> dict[str, Any]:
    return {
        "file": "model.stablehlo",
        "sha256": hashlib.sha256(content).hexdigest(),
        "platforms": list(program.exported.platforms),
        "calling_convention_version": program.exported.calling_convention_version,
        "batch": program.batch,
        "traced_on": program.traced_on,
        "forms_of": list(program.forms_of),
        "chosen_by_platform": program.chosen_by_platform,
    }


def _about_parameters(trained: Trained, parameters: Mapping[str, np.ndarray], content: bytes) -> dict[str, Any]:
    return {
        "file": "parameters.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "fingerprint": fingerprint(trained),
        "count": sum(math.prod(array.shape) for array in parameters.values()),
        "arrays": {name: list(array.shape) for name, array in parameters.items()},
    }


def _about_input(trained: Trained) -> dict[str, Any]:
    height, width = trained.config.data.height, trained.config.data.width
    return {
        "height": height,
        "width": width,
        "shape": ["b", height, width, 1],
        "dtype": "uint8",
        "preparation": (
            "One grey channel of the scan alone, as the training data were prepared: cropped to the scan, burned-in "
            f"overlays blanked. Scaled into {height} x {width} pixels with the physical aspect ratio kept (square "
            "pixels; pixels of unknown size count as squares), bilinear and antialiased, columns then rows, each "
            "rounded to whole grey values; centred, with zeros around it. The program itself divides by 255."
        ),
    }


def _about_answers(trained: Trained, program: Program) -> dict[str, Any]:
    found = jax.tree.unflatten(program.exported.out_tree, program.exported.out_avals)
    return {
        name: {"shape": _shape(found[name]), "dtype": str(found[name].dtype), "meaning": MEANINGS.get(name, "")}
        for name in _tasks(trained)
    }


def _shape(leaf: Any) -> list[Any]:
    """The lengths of an array's axes; a symbolic one as text."""
    return [length if isinstance(length, int) else str(length) for length in leaf.shape]


MEANINGS = {
    "segmentation": "probability of a nodule, per pixel of the network's input",
    "grading": "probability of each grade, in the order of `grades`",
    "malignancy": "probability of malignancy",
    "guidance": "predicted radiomics target in its own units, in the order of `guidance`",
}


def _tasks(trained: Trained) -> list[str]:
    return [task.name for task in trained.recipe.tasks]


def _versions(trained: Trained) -> dict[str, Any]:
    """Versions that exported the run, and of this package the one that trained it."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    python = ".".join(map(str, sys.version_info[:3]))
    own = {"thyroid_jax": thyroid_jax.__version__, "trained_with": trained.facts.get("version")}
    return own | {"python": python} | packages


# --- the folder -------------------------------------------------------------------------------------------------------


def _check_can_write(out: Path, overwrite: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{out}: is already there. Name another folder, or add --overwrite to replace an export.")
    own = (*FILES, "__pycache__")  # which `import run` leaves behind
    others = sorted(path.name for path in out.iterdir() if path.name not in own) if out.is_dir() else [out.name]
    if out.is_symlink() or others:
        raise InputError(f"{out}: is not an export alone (there is {out.name if out.is_symlink() else others[0]}); "
                         "nothing was replaced. Name another folder.")  # fmt: skip


def _check_flatbuffers() -> None:
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("missing packages: flatbuffers, with which jax writes a program. pip install flatbuffers")


def _check_grades(trained: Trained, run_dir: Path) -> None:
    names, outputs = trained.facts["grades"], trained.recipe.model.grades
    if "grading" in _tasks(trained) and len(names) != outputs:
        raise InputError(f"{run_dir}: its data set has {len(names)} grade and the network {outputs} outputs for it; "
                         "train without grading (--grading.weight 0).")  # fmt: skip


@contextlib.contextmanager
def _folder_in_one_step(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into; at the end of the ``with`` block it takes the place of ``out``."""
    out = out.absolute()
    with names_a_full_disk(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.writing-"))
    try:
        yield beside
        os.chmod(beside, 0o755)
        _replace(out, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _replace(place: Path, new: Path) -> None:
    """Rename the folder ``new`` to ``place``; the folder that was there stays unless that succeeds."""
    if not place.exists():
        new.rename(place)
        return
    aside = new.with_name(f"{new.name}-old")
    place.rename(aside)
    try:
        new.rename(place)
    except OSError:
        aside.rename(place)
        raise
    shutil.rmtree(aside)
