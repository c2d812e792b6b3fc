"""How a training step is spread over devices: by ``jit`` over a mesh, or by ``pmap``. A new way is an entry here.

Both run the same :func:`thyroid_jax.train.step.update` on each device, with its rows of the batch; sums are added over
the mapped axis. So the parts of a gradient are added on the device first, and one sum of the parameters' size goes over
the wire. Under ``jit`` arrays are whole, and the devices may belong to several processes
(:mod:`thyroid_jax.train.hosts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from thyroid_jax.batch import Batch
from thyroid_jax.errors import InputError
from thyroid_jax.losses.reduce import Metrics
from thyroid_jax.recipe import Recipe
from thyroid_jax.settings import settings
from thyroid_jax.train.step import TrainState, train_step, update

AXIS = "data"
Step = Callable[[TrainState, Batch, Recipe], tuple[TrainState, Metrics]]


@settings
class DevicesConfig:
    """How the batch is spread over the devices."""

    mode: Literal["jit", "pmap"] = "jit"
    """jit over a mesh, or pmap; the same updates"""


@dataclass(frozen=True)
class Spread:
    """State and batches on some devices, and the step that runs there.

    Args:
        mesh: the devices, one axis.
        put_state: a whole state -> the state on the devices.
        put_batch: a batch -> the batch on the devices. Each of several processes gives its part, see ``feeds``.
        step: (state, batch, recipe) -> (state, metrics), for state and batch put there. The old state is donated.
        whole_state: the state on the devices -> the same, every array whole on every device.
        whole_batch: the batch on the devices -> the same, its first axis over all examples.
        feeds: (place, number): this process feeds the place-th of ``number`` equal parts of each batch, in their order.
    """

    mesh: Mesh
    put_state: Callable[[TrainState], TrainState]
    put_batch: Callable[[Batch], Batch]
    step: Step
    whole_state: Callable[[TrainState], TrainState]
    whole_batch: Callable[[Batch], Batch]
    feeds: tuple[int, int] = (0, 1)


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, ``data``, over all devices of all processes (or the given ones).

    The devices of one process follow each other, and so do its rows of a batch.
    """
    devices = jax.devices() if devices is None else devices
    if _processes(devices) > 1:
        ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(ordered), (AXIS,), axis_types=(AxisType.Auto,))
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def by_jit(devices: Sequence[jax.Device] | None = None) -> Spread:
    """``jit``: the rows of a batch are sharded over the mesh, the state is replicated on every device."""
    mesh = data_mesh(devices)
    processes = _processes(mesh.devices.flat)
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    put_part = lambda part: jax.tree.map(partial(jax.make_array_from_process_local_data, rows), part)
    return Spread(
        mesh=mesh,
        put_state=lambda state: copy(state, mesh),
        put_batch=put_part if processes > 1 else lambda batch: deal(batch, mesh),
        step=over_mesh(mesh) if mesh.size > 1 else train_step,
        whole_state=lambda state: state,
        whole_batch=lambda batch: batch,
        feeds=(jax.process_index(), processes) if processes > 1 else (0, 1),
    )


@lru_cache  # runs on the same devices share the step, and with it their compiled programs
def over_mesh(mesh: Mesh) -> Step:
    """:func:`~thyroid_jax.train.step.update` for whole arrays on a mesh, each device with its rows of the batch."""
    everywhere, rows = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        update, mesh=mesh, in_specs=(everywhere, rows, everywhere), out_specs=everywhere, check_vma=False
    )
    step = jax.jit(mapped, donate_argnums=0)
    return lambda state, batch, recipe: step(state, batch, recipe.replace(axis=AXIS))


def by_pmap(devices: Sequence[jax.Device] | None = None) -> Spread:
    """``pmap``: a leading axis of state and batch runs over the devices."""
    mesh = data_mesh(devices)
    if _processes(mesh.devices.flat) > 1:
        raise InputError(
            "devices.mode pmap trains with the devices of one process; set --devices.mode jit for several."
        )
    step, (stack, first) = _mapped(mesh), _stacking(mesh)

    def put_batch(batch: Batch) -> Batch:
        rows = jax.tree.map(lambda leaf: leaf.reshape(mesh.size, -1, *leaf.shape[1:]), batch)
        return deal(rows, mesh)

    def run(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[TrainState, Metrics]:
        state, metrics = step(state, batch, recipe.replace(axis=AXIS))
        return state, jax.tree.map(lambda leaf: leaf[0], metrics)

    def whole_batch(batch: Batch) -> Batch:
        return deal(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch), mesh)

    return Spread(mesh, lambda state: stack(copy(state, mesh)), put_batch, run, first, whole_batch)


@lru_cache
def _mapped(mesh: Mesh) -> Step:
    return jax.pmap(update, AXIS, in_axes=(0, 0, None), devices=list(mesh.devices.flat), donate_argnums=0)


@lru_cache
def _stacking(mesh: Mesh) -> tuple[Callable[[TrainState], TrainState], Callable[[TrainState], TrainState]]:
    """A whole state -> the same for every device; and back. One program each: not one for every array."""
    stack = lambda leaf: jnp.broadcast_to(leaf[None], (mesh.size, *leaf.shape))
    return (
        jax.jit(lambda state: jax.tree.map(stack, state), out_shardings=NamedSharding(mesh, PartitionSpec(AXIS))),
        jax.jit(
            lambda state: jax.tree.map(lambda leaf: leaf[0], state), out_shardings=_sharding(mesh, PartitionSpec())
        ),
    )


SPREADS: dict[str, Callable[..., Spread]] = {"jit": by_jit, "pmap": by_pmap}


def check_divides(batch_size: int, devices: int, accumulate: int = 1) -> None:
    """Raise :class:`InputError` unless every device gets the same number of examples in each part of a batch."""
    if batch_size % devices:
        raise InputError(
            f"train.batch_size is {batch_size}; it must be a multiple of the number of devices, {devices}."
        )
    if batch_size % (devices * accumulate):
        raise InputError(
            f"train.batch_size is {batch_size}; it must be a multiple of train.accumulate times the number of devices, "
            f"{accumulate} x {devices}."
        )


def deal(tree: Any, mesh: Mesh) -> Any:
    """Put a tree on the mesh, the first axis of every array sharded over the devices; every process has all of it."""
    sharding = _sharding(mesh, PartitionSpec(AXIS))
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__), tree)


def copy(tree: Any, mesh: Mesh) -> Any:
    """Put a tree on the mesh, replicated on every device; every process has the same."""
    sharding = _sharding(mesh, PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(partial(_replicated, sharding=sharding), tree)


def _replicated(leaf: Any, sharding: Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf  # it is on the mesh already
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.jit(jax.random.wrap_key_data)(_replicated(jax.random.key_data(leaf), sharding))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)


def fetch(tree: Any, mesh: Mesh) -> Any:
    """The whole arrays of a tree on the mesh as NumPy arrays, in every process."""
    if _processes(mesh.devices.flat) > 1:
        tree = jax.jit(lambda tree: tree, out_shardings=_sharding(mesh, PartitionSpec()))(tree)
    return jax.device_get(tree)


def on_this_host(tree: Any) -> Any:
    """A tree that is whole on every device, without the devices of other processes."""
    return jax.tree.map(lambda leaf: leaf if leaf.is_fully_addressable else leaf.addressable_data(0), tree)


def _processes(devices: Iterable[jax.Device]) -> int:
    return len({device.process_index for device in devices})


def _sharding(mesh: Mesh, spec: PartitionSpec) -> Sharding:
    """On one device there is nothing to share: functions traced on plain arrays are then not traced again."""
    return NamedSharding(mesh, spec) if mesh.size > 1 else SingleDeviceSharding(mesh.devices.item())
