"""Radiomics on the device: pyradiomics' 2-D features, differentiable shape, and the TI-RADS-aligned target."""

from thyroid_jax.radiomics.extract import FEATURES, extract

__all__ = ["FEATURES", "extract"]
