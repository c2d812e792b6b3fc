"""Multitask ultrasound in functional JAX: outline a nodule and grade its risk, with one model and one jitted step.

Pure functions, to be called from scripts, tests and notebooks:

    thyroid_jax.model      encoder, decoder and heads of one parameter tree
    thyroid_jax.losses     per-example losses, and RLAR's adversarial directions and angular penalty
    thyroid_jax.mtl        multitask methods, from losses or gradients to weights
    thyroid_jax.radiomics  pyradiomics' features on the device, soft shape, and the target that guides the embedding
    thyroid_jax.tirads     rule-based risk systems: findings to level, published risk and FNA by size
    thyroid_jax.data       records, splits, batches and views
    thyroid_jax.train      the objective, its gradient, one update, and the loop around it
    thyroid_jax.evaluate   per-case tables, measures with intervals, the report page
    thyroid_jax.runs       a run folder: start, resume and evaluate a run
    thyroid_jax.predict    images in, outlines and grades out
    thyroid_jax.export     a run as files that run without this package

A part is imported when it is first used. A plain install is enough for that; functions that need a package of one of
the extras (``data``, ``report``) import it themselves.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thyroid_jax import data, evaluate, export, losses, model, mtl, predict, radiomics, runs, tirads, train
    from thyroid_jax.batch import Batch
    from thyroid_jax.config import Config

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "Config",
    "data",
    "evaluate",
    "export",
    "losses",
    "model",
    "mtl",
    "predict",
    "radiomics",
    "runs",
    "tirads",
    "train",
]

_NAMES = {"Batch": "batch", "Config": "config"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"thyroid_jax.{_NAMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"thyroid_jax.{name}")
    raise AttributeError(f"module 'thyroid_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
