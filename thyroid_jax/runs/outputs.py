"""The folder of predictions: its files, and checks before anything is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.files import check_writable, read_json

TABLE, ABOUT, PAGE = "predictions.csv", "predictions.json", "index.html"
MASKS, OVERLAYS, SEGMENTATIONS = "masks", "overlays", "segmentations"


def check(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Raise :class:`InputError` unless predictions can be written to ``out``; nothing is written or made.

    It must lie outside the inputs, hold no predictions unless they are to be replaced, and be a folder that can be
    written into, or be made. Masks without a table, which a killed process left, are never mixed with new ones.
    """
    inside = [given for given in inputs if out.resolve().is_relative_to(given.resolve())]
    if inside:
        raise InputError(f"--out {out}: lies inside the input {inside[0]}, which is never written into.")
    if (out / TABLE).exists() and not overwrite:
        raise InputError(f"{out}: predictions are already there. Add --overwrite, or give another --out.")
    pictures = [path for folder in (MASKS, OVERLAYS) for path in list((out / folder).rglob("*.png"))[:1]]
    if pictures and not (out / ABOUT).is_file():
        raise InputError(
            f"{pictures[0]}: is of predictions that were stopped before their table was written. Remove "
            f"{out / MASKS} and {out / OVERLAYS}, or give another --out."
        )
    check_writable(out, f"--out {out}")


def remove_older(out: Path) -> None:
    """Remove earlier predictions from ``out``: the tables, the page, and the pictures that the table names."""
    if (out / ABOUT).is_file():
        about = read_json(out / ABOUT)
        if not isinstance(about, dict):
            raise InputError(f"{out / ABOUT}: is not of earlier predictions; move it away, or give another --out.")
        named = [(MASKS, "png", about.get("masks", [])), (OVERLAYS, "png", about.get("masks", []))]
        named.append((SEGMENTATIONS, "dcm", about.get("segmentations", [])))
        for folder, suffix, names in named:
            for name in names:
                place = out / folder / f"{name}.{suffix}"
                if place.resolve().is_relative_to(out.resolve()):
                    place.unlink(missing_ok=True)
    for file in (TABLE, PAGE, ABOUT):
        (out / file).unlink(missing_ok=True)


def png(image: np.ndarray) -> bytes:
    """PNG file of uint8[h w] or uint8[h w 3]."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=3)  # as small as by 6, in half the time
    return file.getvalue()
