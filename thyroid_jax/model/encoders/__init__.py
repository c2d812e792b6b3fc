"""Encoders, one file each, all with the same named levels. A new encoder is a new file and an entry here."""

from thyroid_jax.model.encoders.residual import Residual

ENCODERS = {"residual": Residual}
