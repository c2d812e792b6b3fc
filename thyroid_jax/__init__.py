"""Multitask ultrasound in functional JAX: outline a nodule and grade its risk, with one model and one jitted step.

Pure functions, to be called from scripts, tests and notebooks:

    thyroid_jax.model      encoder, decoder and heads of one parameter tree
    thyroid_jax.losses     per-example losses, and RLAR's adversarial directions and angular penalty
    thyroid_jax.radiomics  the TI-RADS-aligned target that guides the grading embedding
    thyroid_jax.train      the objective, one update, and the loop around it
    thyroid_jax.evaluate   per-case tables, measures with intervals, a page to look at

This import needs jax, flax, optax, orbax-checkpoint and numpy only.
"""

from thyroid_jax import losses, model, radiomics
from thyroid_jax.batch import Batch

__version__ = "0.1.0"
__all__ = ["Batch", "losses", "model", "radiomics"]
