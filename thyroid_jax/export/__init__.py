"""Export of a trained run: a folder that runs without this package, on a machine that has jax, numpy and flatbuffers.

    model.stablehlo          the prediction function, as jax.export serialises it, for several platforms
    parameters.safetensors   the run's parameters, by slash path
    run.py                   loads both and predicts images of any size (:mod:`thyroid_jax.export.run`)
    model_card.md            what the model is, what it was trained on, how good it is (:mod:`thyroid_jax.export.card`)
    export.json              the same facts, for programs

Parameters are an argument of the program and not constants in it. docs/export.md has the sizes and the reasons.
"""

from thyroid_jax.export.folder import export_run
from thyroid_jax.export.program import PLATFORMS, answers, flat_parameters, lower, safetensors

__all__ = ["PLATFORMS", "answers", "export_run", "flat_parameters", "lower", "safetensors"]
