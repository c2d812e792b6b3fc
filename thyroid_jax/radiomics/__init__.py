"""Radiomics on the device: pyradiomics' two-dimensional features, differentiable shape, and the TI-RADS-aligned target
of the embedding.
"""

from thyroid_jax.radiomics.extract import FEATURES, extract

__all__ = ["FEATURES", "extract"]
