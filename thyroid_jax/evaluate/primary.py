"""The primary measures, apart from what computes them: options name them before anything is computed."""

PRIMARY = ("dice", "quadratic_kappa", "macro_auroc", "malignant_auroc")
"""measures that are compared where none is named; every further one makes the adjustment of p stricter"""
