"""Checkpoints by orbax: the last one to go on from, the best one to use; state, data position and facts about the data
in each.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from thyroid_jax.errors import InputError, names_a_full_disk
from thyroid_jax.train.step import TrainState

_OVERHEAD = 1 << 20  # bytes of metadata that a checkpoint needs beside its arrays, at most


class Checkpoints:
    """Two folders of one checkpoint each: ``last`` to go on from, ``best`` (by the score given to ``save``) to use.

    Orbax writes beside and renames, and deletes the old one after that, so a killed run leaves whole checkpoints only.
    """

    def __init__(self, folder: Path | str, *, create: bool = True):
        self.folder = Path(folder).absolute()
        if not create and not (self.folder / "last").is_dir():
            raise InputError(f"{self.folder}: no checkpoints there; train first, or name the folder of a run.")
        options = {
            "max_to_keep": 1,
            "enable_async_checkpointing": False,
            "create": create,
            "cleanup_tmp_directories": create,
        }
        self._last = _manager(self.folder / "last", options)
        self._best = _manager(self.folder / "best", options | {"best_fn": lambda metrics: metrics["score"]})

    def save(self, state: TrainState, position: dict[str, Any], facts: dict[str, Any], score: float | None) -> None:
        """Write ``state`` with the data position after it. ``score`` (higher is better) or None where nothing was
        evaluated.
        """
        step = int(state.step)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_by_path(state)),
            position=ocp.args.JsonSave(position),
            facts=ocp.args.JsonSave(facts),
        )
        self._check_room(sum(leaf.nbytes for leaf in jax.tree.leaves(_by_path(state))), copies=2)
        with self._whole_or_nothing():
            # The best first: killed between the two, the run goes back to the last one and comes to
            # this very state again.
            if score is not None and step not in self._best.all_steps():
                self._best.save(step, args=items, metrics={"score": float(score)}, force=True)
            self._last.save(step, args=items, force=True)

    def last(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._last.latest_step()

    def best(self) -> int | None:
        """Step of the best checkpoint, or None where none was ever scored."""
        return self._best.best_step()

    def restore(self, like: TrainState, which: str = "last") -> tuple[TrainState, dict[str, Any], dict[str, Any]]:
        """(state, position, facts) of the ``"last"`` or the ``"best"``, laid out and placed as ``like``: arrays, or
        shapes with shardings.

        Without a scored checkpoint the best is the last. One of another configuration raises :class:`InputError` that
        names what differs.
        """
        manager, step = self._last, self.last()
        if which == "best" and self.best() is not None:
            manager, step = self._best, self.best()
        if step is None:
            raise InputError(
                f"{self.folder}: the run was stopped before its first checkpoint; run the training command again."
            )
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _by_path(like))
        self._check(manager, wanted, step)
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(wanted), position=ocp.args.JsonRestore(), facts=ocp.args.JsonRestore()
            ),
        )
        stored, (asked, layout) = [restored["state"][path] for path in _by_path(like)], jax.tree.flatten(like)
        leaves = [
            jax.random.wrap_key_data(leaf) if _is_key(old) else leaf for leaf, old in zip(stored, asked, strict=True)
        ]
        return jax.tree.unflatten(layout, leaves), restored["position"], restored["facts"]

    def close(self) -> None:
        """Wait for writes and let go of the folder."""
        self._last.close()
        self._best.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_room(self, size: int, *, copies: int) -> None:
        """Refuse to start on a disk that cannot hold the files: orbax's writers all report a full one, each with a
        traceback.
        """
        if shutil.disk_usage(self.folder).free < copies * (size + _OVERHEAD):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    @contextlib.contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """A write that fails leaves no fragment to fill the disk, and a full disk is named."""
        try:
            with names_a_full_disk(self.folder):
                yield
        except BaseException:
            for fragment in self.folder.glob("*/*.orbax-checkpoint-tmp*"):
                shutil.rmtree(fragment, ignore_errors=True)
            raise

    def _check(self, manager: ocp.CheckpointManager, wanted: dict[str, jax.ShapeDtypeStruct], step: int) -> None:
        place = manager.directory / str(step)
        try:
            found = {path: tuple(leaf.shape) for path, leaf in manager.item_metadata(step)["state"].items()}
        except (KeyError, AttributeError, ValueError, OSError) as error:
            raise InputError(
                f"{place}: the checkpoint is damaged ({error}); restore it, or train in a new run folder."
            ) from error
        asked = {path: tuple(leaf.shape) for path, leaf in wanted.items()}
        differing = sorted(path for path in found.keys() | asked.keys() if found.get(path) != asked.get(path))
        if differing:
            path = differing[0]
            raise InputError(
                f"{place}: the checkpoint is of another configuration: {len(differing)} arrays differ, the "
                f"first is {path} (stored {found.get(path, 'nothing')}, wanted {asked.get(path, 'nothing')}). "
                "Use the run's own config.json, or a new run folder."
            )


def _manager(folder: Path, options: dict[str, Any]) -> ocp.CheckpointManager:
    handlers = {
        "state": ocp.StandardCheckpointHandler(),
        "position": ocp.JsonCheckpointHandler(),
        "facts": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**options), item_handlers=handlers)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    """Random keys have no file format: their integers stand in for them."""
    read = jax.random.key_data
    return jax.eval_shape(read, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else read(leaf)


def _by_path(state: TrainState) -> dict[str, Any]:
    """The state's leaves by their path: a flat, strictly checked layout that does not depend on optax's classes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): _key_data(leaf) if _is_key(leaf) else leaf for path, leaf in leaves}
