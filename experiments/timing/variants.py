"""The variants of the training step that the benchmark compares, by group, and the random batch that they train on."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.radiomics import clinical

from ..configs import named
from ..runtime import CPU_FLAGS

Group = Literal["rlar", "input", "shape", "evidence", "losses", "latent", "parameters", "flags", "memory"]


class Variant(NamedTuple):
    """One row: changed fields of settings, XLA flags, whether the process keeps freed memory, where batches are from.

    ``batches``: one that lies on the "device"; those of the input "pipeline"; the pipeline "alone", without a step.
    ``size`` is (height, width) of the images where it is not the benchmark's own.
    """

    changes: dict[str, dict[str, Any]]
    flags: tuple[str, ...] = CPU_FLAGS
    keeps: bool = True
    batches: Literal["device", "pipeline", "alone"] = "device"
    size: tuple[int, int] | None = None


def variants(group: Group, *, batch_size: int = 8, flags: tuple[str, ...] = ()) -> dict[str, Variant]:
    """Name -> variant of a group; the first is the plain multitask step, to which the others are compared.

    ``flags`` are further XLA flags to time RLAR with, for the group of that name.
    """
    if group == "memory":
        return memory(batch_size)
    return tried(flags) if group == "flags" else {"plain": Variant({})} | GROUPS[group]


def with_rlar(**fields: Any) -> Variant:
    """RLAR with weight 1."""
    return Variant({"rlar": {"weight": 1.0} | fields})


def with_method(method: str, at: str = "latent") -> Variant:
    """A multitask method."""
    return Variant({"mtl": {"method": method, "at": at}})


def with_lite0(frozen: int, **changes: Any) -> Variant:
    """EfficientNet-Lite0 as the encoder, with so many levels frozen."""
    encoder = {"encoder": "efficientnet_lite0", "frozen_levels": frozen}
    return Variant({"model": encoder, "train": {"encoder_weights": "package"}} | changes)


RLAR = {
    "RLAR": with_rlar(),
    "RLAR, full space": with_rlar(space="full"),
    "RLAR, outline held": with_rlar(hold=("segmentation",)),
    "RLAR, three tasks": with_rlar(tasks=("segmentation", "grading", "guidance")),
    "RLAR at stride8": with_rlar(level="stride8"),
    "RLAR at stride2": with_rlar(level="stride2"),
}
INPUT = {
    "plain, batches of the pipeline": Variant({}, batches="pipeline"),
    "pipeline alone": Variant({}, batches="alone"),
    "pipeline alone, 256 x 256": Variant({}, batches="alone", size=(256, 256)),
}
AUGMENTED, CONSISTENT = {"view": "augmented"}, {"weight": 0.3, "warmup": 0.0}
SHAPE = {
    "target of the augmented view": Variant({"guidance": AUGMENTED}),
    "shape consistency": Variant({"consistency": CONSISTENT}),
    "shape consistency, head alone": Variant({"consistency": CONSISTENT | {"gradient": "head"}}),
    "all, with RLAR": Variant({"rlar": {"weight": 1.0}, "guidance": AUGMENTED, "consistency": CONSISTENT}),
}
EVIDENCE = {
    "pooled over the nodule": Variant({"model": {"pooling": "nodule", "pooled_levels": 3}}),
    "measured evidence": Variant({"model": {"evidence": "measured"}}),
    "lite0": with_lite0(0),
    "lite0, two levels frozen": with_lite0(2),
    "lite0, three levels frozen": with_lite0(3),
    "lite0, frozen": with_lite0(5),
    "lite0, frozen, RLAR": with_lite0(5, rlar={"weight": 1.0}),
}
METHODS = [name for name in WEIGHERS if name != "equal"]
PARAMETERS = {f"{name}, parameters": with_method(name, "parameters") for name in METHODS}
GROUPS: dict[Group, dict[str, Variant]] = {
    "rlar": RLAR,
    "input": INPUT,
    "shape": SHAPE,
    "evidence": EVIDENCE,
    "losses": {name: with_method(name) for name in SCALARIZERS if name != "equal"},
    "latent": {f"{name}, latent": with_method(name) for name in METHODS},
    "parameters": PARAMETERS | {"CosReg": Variant({"cosreg": {"weight": 0.1}})},
}


def tried(flags: tuple[str, ...]) -> dict[str, Variant]:
    """Without our XLA flags, where there are any, and with memory given back; each of ``flags`` with RLAR."""
    found = {}
    for name, variant in (("plain", Variant({})), ("RLAR", with_rlar())):
        found[name] = variant
        if variant.flags:
            found[f"{name}, XLA's defaults"] = variant._replace(flags=())
        found[f"{name}, memory given back"] = variant._replace(keeps=False)
    return found | {
        f"RLAR, flag {number}": with_rlar()._replace(flags=(f"--{flag}",)) for number, flag in enumerate(flags, start=1)
    }


def memory(batch_size: int) -> dict[str, Variant]:
    """Precision, recomputing, and a batch in parts."""
    less: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "": ({}, {}),
        ", activations again": ({"remat": "activations"}, {}),
        ", blocks again": ({"remat": "blocks"}, {}),
        ", 4 parts": ({}, {"accumulate": 4}),
    }
    return {
        f"{dtype}, {method}{words}": Variant(
            {"model": {"dtype": dtype} | shape, "train": {"batch_size": batch_size} | parts} | penalties
        )
        for dtype in ("float32", "bfloat16", "bfloat16_encoder")
        for method, penalties in (("plain", {}), ("RLAR", {"rlar": {"weight": 1.0}}))
        for words, (shape, parts) in less.items()
        if not (dtype == "bfloat16_encoder" and words)
    }


def configure(name: str, variant: Variant, pixels: tuple[int, int] | None = None) -> Config:
    """The config of one variant of the size ``name``: plain training with guidance towards the batch's own target.

    ``pixels``, height and width of the images, take the place of the size's.
    """
    plain = replace_groups(named([name, "plain"]), guidance={"weight": 0.1, "view": "original"})
    if size := variant.size or pixels:
        plain = replace_groups(plain, data=dict(zip(("height", "width"), size)))
    return replace_groups(plain, **variant.changes)


def random_batch(size: tuple[int, int], batch_size: int, grades: int, seed: int = 0) -> Batch:
    """A batch of noise images with every label present.

    The outline is an ellipse, because the time of the guidance target depends on the outline.
    """
    rng = np.random.default_rng(seed)
    b, (h, w) = batch_size, size
    y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    ellipse = np.where((y / 0.5) ** 2 + (x / 0.6) ** 2 < 1, np.uint8(255), np.uint8(0))
    present = np.ones(b, bool)
    return Batch(
        image=rng.integers(0, 256, (b, h, w, 1), np.uint8),
        mask=np.broadcast_to(ellipse, (b, h, w)).copy(),
        grade=np.eye(grades, dtype=np.float32)[np.arange(b) % grades],
        malignant=(np.arange(b) % 2).astype(np.float32),
        radiomics=rng.normal(size=(b, len(clinical.TARGET))).astype(np.float32),
        mask_valid=present,
        grade_valid=present,
        malignant_valid=present,
        radiomics_valid=present,
        example_valid=present,
    )
