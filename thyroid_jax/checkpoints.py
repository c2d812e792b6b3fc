"""Checkpoints by orbax, each verified before it is read: the newest ones to resume from, the best one for prediction.

    checkpoints/last/STEP    everything that a run needs to resume; the newest two are kept
    checkpoints/best/STEP    parameters and fitted values only, at the best validation score

The array store does not notice a flipped bit. So ``STEP/about.json`` holds a checksum of every file beside it, the
shapes of the arrays, and the run's facts; a checkpoint that is not what was written is never read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from thyroid_jax.errors import FULL_DISK, InputError, full_disk_in, names_a_full_disk
from thyroid_jax.files import read_json, write_json

KEPT = 2
"""number of checkpoints to resume from: where the newest is damaged, a run resumes from the one before"""
_ABOUT = "about.json"
_WRITING = ".writing"  # suffix of a checkpoint that is not whole yet
_OVERHEAD = 1 << 20  # bytes of metadata that a checkpoint needs beside its arrays, at most
_PATIENCE = 10.0  # seconds to wait for writers that go on after a failure; the next start removes what is left then
_LARGEST_FILE = 64 << 30  # bytes


class Damaged(Exception):
    """A checkpoint that is not what was written."""


class Saved(NamedTuple):
    """One checkpoint: ``arrays`` a tree by name, ``facts`` JSON values, and the step that it was written after."""

    arrays: dict[str, Any]
    facts: dict[str, Any]
    step: int


def save(folder: Path, step: int, arrays: Mapping[str, Any], facts: Mapping[str, Any], *, kept: int) -> None:
    """Write a checkpoint of ``arrays`` (name -> any tree) and ``facts`` (JSON values) as ``folder/STEP``.

    It is written under another name and renamed; then all but the ``kept`` newest are removed. An existing checkpoint
    of that step, for example a damaged one, is replaced. On any failure nothing new is left.
    """
    trees = {name: _by_path(tree) for name, tree in arrays.items()}
    trees = trees if jax.process_count() == 1 else jax.device_get(trees)  # orbax takes a local array for a part of one
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{step}{_WRITING}"
    with _whole_or_nothing(folder):
        _check_room(folder, sum(leaf.nbytes for tree in trees.values() for leaf in tree.values()))
        ocp = _orbax()
        with _checkpointer() as checkpointer:
            items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
            checkpointer.save(beside, ocp.args.Composite(**items), force=True)
        shapes = {name: {path: list(leaf.shape) for path, leaf in tree.items()} for name, tree in trees.items()}
        content = {"step": step, "facts": dict(facts), "arrays": shapes, "files": _file_checksums(beside)}
        write_json(beside / _ABOUT, content | {"checksum": _checksum(content)})
        shutil.rmtree(folder / str(step), ignore_errors=True)
        beside.rename(folder / str(step))
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
    """Read the trees named in ``like`` from the checkpoint ``folder/STEP``; ``like`` holds arrays, or their shapes.

    Arrays are put on the first device, or as the shapes' shardings say; where several processes train together, they
    are NumPy arrays. Raises :class:`Damaged` for a checkpoint that is not what was written, and :class:`InputError`,
    naming what differs, for one of another configuration.
    """
    about = _about(folder, step)
    first_device = SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: {path: _abstract(leaf, first_device) for path, leaf in _by_path(tree).items()}
        for name, tree in like.items()
    }
    for name, leaves in wanted.items():
        _check_layout(folder / str(step), about["arrays"].get(name, {}), leaves)
    ocp = _orbax()
    try:
        with _checkpointer() as checkpointer:
            items = {name: ocp.args.StandardRestore(leaves) for name, leaves in wanted.items()}
            found = checkpointer.restore(folder.absolute() / str(step), ocp.args.Composite(**items))
    except Exception as error:  # orbax and its array store raise errors of many types
        raise Damaged(f"its arrays cannot be read ({_first_line(error)})") from error
    trees = {}
    for name, tree in like.items():
        asked, layout = jax.tree.flatten(tree)
        stored = [found[name][path] for path in wanted[name]]
        restored = [jax.random.wrap_key_data(leaf) if _is_key(old) else leaf for leaf, old in zip(stored, asked)]
        trees[name] = jax.tree.unflatten(layout, restored)
    return Saved(trees, about["facts"], about["step"])


def newest(
    folder: Path, like: Callable[[dict[str, Any]], Mapping[str, Any]], *, echo: Callable[[str], None]
) -> Saved | None:
    """The newest checkpoint that is whole, or None where there is none at all.

    A damaged one is skipped with a message of one line. Where all are damaged, :class:`InputError` names the newest.
    ``like`` maps a checkpoint's facts to the layout that :func:`restore` takes.
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
            echo(f"{folder / str(step)}: the checkpoint is damaged: {error}; taking that of step {found[place + 1]}")
    return None


def set_aside(folder: Path, after: int) -> None:
    """Rename the checkpoints of steps later than ``after`` to ``STEP.damaged``, so that they are not read again."""
    for step in steps(folder):
        if step > after:
            aside = folder / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (folder / str(step)).rename(aside)


def remove_fragments(folder: Path) -> None:
    """Remove the checkpoints that a killed process did not finish writing."""
    for fragment in folder.glob(f"*{_WRITING}*"):
        shutil.rmtree(fragment, ignore_errors=True)


def _orbax() -> ModuleType:
    """Orbax, imported on first use: the import takes half a second, and only checkpoints need it."""
    import orbax.checkpoint

    return orbax.checkpoint


def _checkpointer() -> Any:
    """A reader and writer for this process alone: of several processes, the others do not take part."""
    ocp = _orbax()
    if jax.process_count() == 1:
        return ocp.Checkpointer(ocp.CompositeCheckpointHandler())
    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
    )
    handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=alone))
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _about(folder: Path, step: int) -> dict[str, Any]:
    """The content of ``about.json``, after every file that it names has been compared with its checksum."""
    place = folder / str(step)
    try:
        content = read_json(place / _ABOUT)
        checksum = content.pop("checksum")
        if checksum != _checksum(content) or content["step"] != step:
            raise Damaged(f"{_ABOUT} is not what was written")
        for name, written in content["files"].items():
            if _file_checksum(place / name) != written:
                raise Damaged(f"{name} is not what was written")
    except Damaged:
        raise
    except Exception as error:  # a missing file, wrong bytes, wrong syntax, wrong types
        raise Damaged(f"a file cannot be read ({_first_line(error)})") from error
    return content


def _file_checksums(place: Path) -> dict[str, str]:
    """Checksum of every file in a folder, by its path in it."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): _file_checksum(path) for path in files}


def _file_checksum(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
        raise Damaged(f"{path.name} is missing")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_layout(place: Path, found: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    shape = lambda path: tuple(found[path]) if path in found else "nothing"
    asked = {path: tuple(leaf.shape) for path, leaf in wanted.items()}
    differing = sorted(path for path in found.keys() | asked.keys() if shape(path) != asked.get(path, "nothing"))
    if differing:
        path = differing[0]
        raise InputError(
            f"{place}: the checkpoint is of another configuration: {len(differing)} arrays differ, the first is {path} "
            f"(stored {shape(path)}, wanted {asked.get(path, 'nothing')}). Use the run's own config.json, or a new run "
            "folder."
        )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:200]


def _check_room(folder: Path, size: int) -> None:
    """Raise OSError where the files would not fit: a full disk, a used-up quota, a limit of the size of files.

    On a disk that fills while they are written, each of orbax's writers prints a traceback.
    """
    if shutil.disk_usage(folder).free < size + _OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if hasattr(os, "posix_fallocate"):
        with tempfile.TemporaryFile(dir=folder) as reserved:
            os.posix_fallocate(reserved.fileno(), 0, size + _OVERHEAD)


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    """A write that fails leaves no fragment to fill the disk, and a full disk is named, once."""
    with _writers_held_back() as held:
        try:
            with names_a_full_disk(folder):
                yield
        except BaseException as error:
            _remove_fragments_of_writers(folder)
            if getattr(error, "errno", None) in FULL_DISK:
                held.clear()
                logging.getLogger("asyncio").addFilter(_is_of_no_full_disk)
            raise


@contextmanager
def _writers_held_back() -> Iterator[list[Callable[[], None]]]:
    """Hold back the errors that orbax's writers log, or raise in their threads, until the end of the ``with`` block.

    When a disk fills, each of them prints tracebacks of its own. What is taken from the yielded list is not printed.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    held: list[Callable[[], None]] = []

    def hold(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            held.append(partial(logger.callHandlers, record))
        return record.levelno < logging.ERROR

    logger.addFilter(hold)
    sys.unraisablehook = lambda unraisable: held.append(partial(hook, unraisable))
    try:
        yield held
    finally:
        logger.removeFilter(hold)
        sys.unraisablehook = hook
        for say in held:
            say()


def _is_of_no_full_disk(record: logging.LogRecord) -> bool:
    """False for what asyncio logs about a writer that met a full disk too, when it is thrown away: maybe much later."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or full_disk_in(error) is None


def _remove_fragments_of_writers(folder: Path) -> None:
    """Remove fragments until none comes back: orbax's other writers go on for a moment after one has failed."""
    clean, deadline = 0, time.monotonic() + _PATIENCE
    while clean < 3 and time.monotonic() < deadline:
        clean = 0 if any(folder.glob(f"*{_WRITING}*")) else clean + 1
        remove_fragments(folder)
        time.sleep(0.02)


def _abstract(leaf: Any, otherwise: Sharding) -> jax.ShapeDtypeStruct | np.ndarray:
    if jax.process_count() > 1:  # read on the host: see save
        return np.zeros(leaf.shape, leaf.dtype)
    sharding = getattr(leaf, "sharding", None)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=otherwise if sharding is None else sharding)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    """The integers of a random key: keys themselves cannot be stored."""
    read = jax.random.key_data
    return jax.eval_shape(read, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else read(leaf)


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their path: a flat, strictly checked layout that does not depend on optax's classes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): _key_data(leaf) if _is_key(leaf) else _as_array(leaf) for path, leaf in leaves}


def _as_array(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
