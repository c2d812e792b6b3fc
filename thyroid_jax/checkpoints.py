"""Checkpoints by orbax, each verified when it is read: the newest to go on from, the best one to use.

    checkpoints/last/STEP    everything that a run goes on from; the newest two are kept
    checkpoints/best/STEP    parameters alone, of the best validation score

The array store does not notice a flipped bit, so every checkpoint carries a checksum of each array and of its facts.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding

from thyroid_jax.errors import InputError, names_a_full_disk

KEPT = 2
"""checkpoints to go on from: where the newest is damaged, a run goes on from the one before"""
_ABOUT = "about"
_OVERHEAD = 1 << 20  # bytes of metadata that a checkpoint needs beside its arrays, at most
_LARGEST_FACTS = 64 << 20  # bytes; positions and checksums of any run have some 100 KiB


class Damaged(Exception):
    """A checkpoint that is not what was written."""


class Saved(NamedTuple):
    """One checkpoint: ``arrays`` a tree by name, ``facts`` JSON values, and the step that it was written after."""

    arrays: dict[str, Any]
    facts: dict[str, Any]
    step: int


def save(folder: Path, step: int, arrays: Mapping[str, Any], facts: Mapping[str, Any], *, kept: int) -> None:
    """Write a checkpoint of ``arrays`` (name -> any tree) and ``facts`` (JSON values) as ``folder/STEP``.

    It is written beside and renamed; then all but the ``kept`` newest are removed. One of that step that is there
    already, as a damaged one may be, is replaced. On any failure nothing new is left.
    """
    place = folder.absolute() / str(step)
    trees = {name: _by_path(tree) for name, tree in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, sum(leaf.nbytes for tree in trees.values() for leaf in tree.values()))
    described = {name: {path: _description(leaf) for path, leaf in tree.items()} for name, tree in trees.items()}
    content = {"step": step, "facts": dict(facts), "arrays": described}
    items: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    items[_ABOUT] = ocp.args.JsonSave(content | {"checksum": _checksum(content)})
    with _whole_or_nothing(folder), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(place, ocp.args.Composite(**items), force=True)
    for old in steps(folder)[kept:]:
        shutil.rmtree(folder / str(old), ignore_errors=True)


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, newest first. Whatever else lies there is left alone."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir() and path.name.isascii() and path.name.isdigit()]
    return sorted((int(name) for name in names if str(int(name)) == name), reverse=True)


def read_facts(folder: Path, step: int) -> dict[str, Any]:
    """The facts of one checkpoint, verified; raises :class:`Damaged`."""
    return _about(folder, step)["facts"]


def restore(folder: Path, step: int, like: Mapping[str, Any]) -> Saved:
    """The trees named in ``like`` of the checkpoint ``folder/STEP``, laid out as there: arrays, or shapes to be.

    Arrays come to the first device, or where the shapes' shardings say. Raises :class:`Damaged` for a checkpoint that
    is not what was written, and :class:`InputError`, naming what differs, for one of another configuration.
    """
    about = _about(folder, step)
    first_device = SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: {path: _to_be(leaf, first_device) for path, leaf in _by_path(tree).items()} for name, tree in like.items()
    }
    for name, leaves in wanted.items():
        _check_layout(folder / str(step), about["arrays"].get(name, {}), leaves)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            items = {name: ocp.args.StandardRestore(leaves) for name, leaves in wanted.items()}
            found = checkpointer.restore(folder.absolute() / str(step), ocp.args.Composite(**items))
    except Exception as error:  # orbax and its array store raise whatever their readers raise
        raise Damaged(f"its arrays cannot be read ({_first_line(error)})") from error
    trees = {}
    for name, tree in like.items():
        for path, leaf in found[name].items():
            if _description(leaf) != about["arrays"][name][path]:
                raise Damaged(f"the array {path} of {name} is not the one that was written")
        asked, layout = jax.tree.flatten(tree)
        stored = [found[name][path] for path in wanted[name]]
        leaves = [jax.random.wrap_key_data(leaf) if _is_key(old) else leaf for leaf, old in zip(stored, asked)]
        trees[name] = jax.tree.unflatten(layout, leaves)
    return Saved(trees, about["facts"], about["step"])


def newest(
    folder: Path, like: Callable[[dict[str, Any]], Mapping[str, Any]], *, say: Callable[[str], None]
) -> Saved | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    A damaged one is passed over, said in one line. Where all are damaged, :class:`InputError` names the newest.
    ``like`` gives the layout for a checkpoint's facts, as :func:`restore` takes it.
    """
    found = steps(folder)
    for place, step in enumerate(found):
        try:
            return restore(folder, step, like(read_facts(folder, step)))
        except Damaged as error:
            if place + 1 == len(found):
                raise InputError(
                    f"{folder / str(found[0])}: the checkpoint is damaged: {error}; there is no earlier one. "
                    "Restore it from a copy, or train in a new run folder."
                ) from error
            say(f"{folder / str(step)}: the checkpoint is damaged: {error}; taking that of step {found[place + 1]}")
    return None


def set_aside(folder: Path, after: int) -> None:
    """Rename checkpoints of later steps than ``after`` to ``STEP.damaged``, so that they are not looked at again."""
    for step in steps(folder):
        if step > after:
            aside = folder / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (folder / str(step)).rename(aside)


def remove_fragments(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for fragment in folder.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(fragment, ignore_errors=True)


def _about(folder: Path, step: int) -> dict[str, Any]:
    path = folder / str(step) / _ABOUT / "metadata"
    try:
        if path.stat().st_size > _LARGEST_FACTS:
            raise Damaged(f"{path.name} has {path.stat().st_size} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        checksum = content.pop("checksum")
        if checksum != _checksum(content) or content["step"] != step:
            raise Damaged("its facts are not those that were written")
    except Damaged:
        raise
    except Exception as error:  # a missing file, wrong bytes, wrong syntax, wrong types
        raise Damaged(f"its facts cannot be read ({_first_line(error)})") from error
    return content


def _check_layout(place: Path, found: dict[str, Any], wanted: dict[str, jax.ShapeDtypeStruct]) -> None:
    shape = lambda path: tuple(found[path]["shape"]) if path in found else "nothing"
    asked = {path: tuple(leaf.shape) for path, leaf in wanted.items()}
    differing = sorted(path for path in found.keys() | asked.keys() if shape(path) != asked.get(path, "nothing"))
    if differing:
        path = differing[0]
        raise InputError(
            f"{place}: the checkpoint is of another configuration: {len(differing)} arrays differ, the first is {path} "
            f"(stored {shape(path)}, wanted {asked.get(path, 'nothing')}). Use the run's own config.json, or a new run "
            "folder."
        )


def _description(leaf: Any) -> dict[str, Any]:
    """Shape, type and checksum of an array."""
    host = np.asarray(leaf)
    digest = hashlib.sha256(np.ascontiguousarray(host).tobytes()).hexdigest()
    return {"shape": list(host.shape), "dtype": str(host.dtype), "sha256": digest}


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]


def _check_room(folder: Path, size: int) -> None:
    """Refuse to start on a disk that cannot hold the files: orbax's writers all report a full one with a traceback."""
    if shutil.disk_usage(folder).free < size + _OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    """A write that fails leaves no fragment to fill the disk, and a full disk is named."""
    try:
        with names_a_full_disk(folder):
            yield
    except BaseException:
        remove_fragments(folder)
        raise


def _to_be(leaf: Any, otherwise: Sharding) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=otherwise if sharding is None else sharding)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    """Random keys have no file format: their integers stand in for them."""
    read = jax.random.key_data
    return jax.eval_shape(read, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else read(leaf)


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their path: a flat, strictly checked layout that does not depend on optax's classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _key_data(leaf) if _is_key(leaf) else _as_array(leaf) for path, leaf in leaves}


def _as_array(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
