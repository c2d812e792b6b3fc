"""Multitask weighting: of the losses (scalarize) and of the gradients (weigh, with solvers and gradients below it)."""
