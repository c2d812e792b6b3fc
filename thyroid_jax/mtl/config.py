"""Which multitask method weighs the tasks, and what it compares."""

from __future__ import annotations

from typing import Literal

from thyroid_jax.errors import InputError
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.settings import settings

COMPARES_GRADIENTS = ("gradnorm",)
"""methods among the scalarizers that also look at the tasks' gradients"""


@settings
class MTLConfig:
    """How the tasks' losses or gradients are weighed against each other. docs/multitask.md compares the methods."""

    method: Literal[
        "equal",
        "uncertainty",
        "dwa",
        "rlw",
        "gls",
        "imtl_l",
        "gradnorm",
        "famo",
        "mgda",
        "pcgrad",
        "cagrad",
        "imtl_g",
        "aligned_mtl",
        "upgrad",
        "dualproj",
        "nash_mtl",
    ] = "equal"
    """equal: the settings' weights alone; uncertainty to famo: weights of losses; mgda to nash_mtl: of gradients"""
    at: Literal["latent", "parameters"] = "latent"
    """gradients that a method compares: those at the encoder's outputs, or those of the encoder's parameters"""

    def __post_init__(self):
        if self.at == "parameters" and not self.compares_gradients:
            raise InputError(
                f"mtl.at is parameters, but mtl.method {self.method} compares no gradients; leave mtl.at at latent."
            )

    @property
    def compares_gradients(self) -> bool:
        """Whether the method needs every task's own gradient."""
        return self.method not in SCALARIZERS or self.method in COMPARES_GRADIENTS
