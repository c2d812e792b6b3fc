"""Radiomics on the device: shape and grey-value features, and the TI-RADS-aligned target that guides the grading embedding."""
