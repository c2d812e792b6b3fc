"""Where a batch and a state live: spread over a ``data`` mesh axis, or copied to every device of it."""

from __future__ import annotations

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from thyroid_jax.batch import Batch
from thyroid_jax.errors import InputError


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, ``data``, over all devices (or the given ones)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def check_divides(batch_size: int, mesh: Mesh) -> None:
    """Raise :class:`InputError` unless every device gets the same number of examples."""
    if batch_size % mesh.size:
        raise InputError(
            f"train.batch_size is {batch_size}; it must be a multiple of the number of devices, {mesh.size}."
        )


def spread(batch: Batch, mesh: Mesh) -> Batch:
    """Put a batch on the mesh, its rows dealt over the devices. Means over the batch stay global: jit sees one array."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


def copy(tree, mesh: Mesh):
    """Put a tree on the mesh, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
