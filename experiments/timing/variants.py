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
    on = {"weight": 1.0}
    penalty = lambda **fields: Variant({"rlar": on | fields})
    rlar = {
        "RLAR": penalty(),
        "RLAR, full space": penalty(space="full"),
        "RLAR, outline held": penalty(hold=("segmentation",)),
        "RLAR, three tasks": penalty(tasks=("segmentation", "grading", "guidance")),
        "RLAR at stride8": penalty(level="stride8"),
        "RLAR at stride2": penalty(level="stride2"),
    }
    fed = {
        "plain, batches of the pipeline": Variant({}, batches="pipeline"),
        "pipeline alone": Variant({}, batches="alone"),
        "pipeline alone, 256 x 256": Variant({}, batches="alone", size=(256, 256)),
    }
    augmented = {"view": "augmented"}
    consistent = {"weight": 0.3, "warmup": 0.0}
    shape = {
        "target of the augmented view": Variant({"guidance": augmented}),
        "shape consistency": Variant({"consistency": consistent}),
        "shape consistency, head alone": Variant({"consistency": consistent | {"gradient": "head"}}),
        "all, with RLAR": Variant({"rlar": on, "guidance": augmented, "consistency": consistent}),
    }
    with_method = lambda method, at="latent": Variant({"mtl": {"method": method, "at": at}})
    methods = [name for name in WEIGHERS if name != "equal"]
    losses = {name: with_method(name) for name in SCALARIZERS if name != "equal"}
    latent = {f"{name}, latent": with_method(name) for name in methods}
    parameters = {f"{name}, parameters": with_method(name, "parameters") for name in methods}
    parameters |= {"CosReg": Variant({"cosreg": {"weight": 0.1}})}
    tried = {
        "plain, XLA's defaults": Variant({}, ()),
        "plain, memory given back": Variant({}, keeps=False),
        "RLAR": penalty(),
        "RLAR, XLA's defaults": Variant({"rlar": on}, ()),
        "RLAR, memory given back": Variant({"rlar": on}, keeps=False),
    }
    tried |= {
        f"RLAR, flag {number}": Variant({"rlar": on}, (f"--{flag}",)) for number, flag in enumerate(flags, start=1)
    }
    nodule = {"pooling": "nodule", "pooled_levels": 3}
    lite0 = lambda frozen, **fields: Variant(
        {"model": {"encoder": "efficientnet_lite0", "frozen_levels": frozen}, "train": {"encoder_weights": "package"}}
        | fields
    )
    evidence = {
        "pooled over the nodule": Variant({"model": nodule}),
        "measured evidence": Variant({"model": {"evidence": "measured"}}),
        "lite0": lite0(0),
        "lite0, two levels frozen": lite0(2),
        "lite0, three levels frozen": lite0(3),
        "lite0, frozen": lite0(5),
        "lite0, frozen, RLAR": lite0(5, rlar=on),
    }
    less = {
        "": ({}, {}),
        ", activations again": ({"remat": "activations"}, {}),
        ", blocks again": ({"remat": "blocks"}, {}),
        ", 4 parts": ({}, {"accumulate": 4}),
    }
    memory = {
        f"{dtype}, {method}{words}": Variant(
            {"model": {"dtype": dtype} | shape, "train": {"batch_size": batch_size} | parts} | penalties
        )
        for dtype in ("float32", "bfloat16", "bfloat16_encoder")
        for method, penalties in (("plain", {}), ("RLAR", {"rlar": on}))
        for words, (shape, parts) in less.items()
        if not (dtype == "bfloat16_encoder" and words)
    }
    if group == "memory":
        return memory
    groups = {
        "evidence": evidence,
        "rlar": rlar,
        "input": fed,
        "shape": shape,
        "losses": losses,
        "latent": latent,
        "parameters": parameters,
        "flags": tried,
    }
    return {"plain": Variant({})} | groups[group]


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
