"""What happens to a step whose loss, gradient or result is not finite: the run stops, or its update is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import checkpoints
from thyroid_jax.batch import Batch
from thyroid_jax.errors import InputError
from thyroid_jax.losses.reduce import Metrics, Pair
from thyroid_jax.recipe import Recipe
from thyroid_jax.shapes import Array, Bool
from thyroid_jax.train.devices import Spread, copy
from thyroid_jax.train.step import TrainState
from thyroid_jax.train.totals import ratio

MOST_LEFT_OUT = 10
"""updates that a run leaves out at most: more are no accident of a batch"""
LEFT_OUT = "left_out"  # metric: 1 for a step whose update was left out, else 0

Step = Callable[[TrainState, Batch, Recipe], tuple[TrainState, Metrics]]


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every floating-point number of a tree is finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all() if floats else jnp.array(True)


@jax.jit
def state_is_finite(state: TrainState) -> Bool[Array, ""]:
    """Whether the parameters, their average and the optimiser's state are finite."""
    return all_finite((state.params, state.average, state.opt_state))


def leaves_out_nonfinite(spread: Spread) -> Step:
    """The step of ``spread`` that gives back the state of before where loss, gradient or new state is not finite.

    The step counter, the optimiser's counters and the random keys go on all the same: schedules follow the step, and
    the next step draws other numbers. The metrics of such a step count nothing, but for ``left_out``, which is 1.
    Every decision is made on the device, by the state and batch alone: a resumed run decides the same.
    """

    def step(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[TrainState, Metrics]:
        before = _copied(state)  # the step donates its argument
        after, metrics = spread.step(state, batch, recipe)
        return _chosen(before, after, copy(metrics, spread.mesh))

    return step


@jax.jit
def _copied(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


@jax.jit
def _chosen(before: TrainState, after: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    good = state_is_finite(after) & all_finite([metrics[name].sum for name in ("loss", "gradient_norm")])

    def chosen(old: Array, new: Array) -> Array:
        return jnp.where(good, new, old) if jnp.issubdtype(new.dtype, jnp.floating) else new

    counted = jax.tree.map(lambda value: jnp.where(good, value, jnp.zeros_like(value)), metrics)
    one = jnp.ones(())
    return jax.tree.map(chosen, before, after), counted | {LEFT_OUT: Pair(one - good, one)}


def steps_left_out(seen: Sequence[Metrics], before: int) -> tuple[int, ...]:
    """The steps, from 1, whose update was left out; ``seen`` are the metrics of the steps after step ``before``."""
    return tuple(
        before + place for place, metrics in enumerate(seen, 1) if LEFT_OUT in metrics and metrics[LEFT_OUT].sum
    )


def without_left_out(metrics: Metrics) -> Metrics:
    """A step's metrics without the mark of an update that was left out."""
    return {name: value for name, value in metrics.items() if name != LEFT_OUT}


def check_finite(seen: Sequence[Metrics], state: TrainState, before: int, run_dir: Path) -> None:
    """Raise :class:`InputError` for a step after ``before`` that is not finite, naming it and the last checkpoint.

    Args:
        seen: each step's metrics; those whose update was left out count nothing and pass.
        state: after the last of these steps. A finite loss and gradient can still make parameters that are not.
        before: number of steps before the first of ``seen``.
        run_dir: folder of the run.
    """
    for step, metrics in enumerate(seen, start=before + 1):
        if LEFT_OUT in metrics and metrics[LEFT_OUT].sum:
            continue
        if not all(np.isfinite(metrics[name].sum) for name in ("loss", "gradient_norm")):
            shown = sorted(name for name in metrics if np.ndim(metrics[name].sum) == 0)
            parts = [f"{name} {ratio(*metrics[name]):.4g}" for name in shown if not name.startswith("cosine")]
            raise _not_finite(step, f"the objective is no longer finite ({', '.join(parts)})", run_dir)
    if not state_is_finite(state):
        raise _not_finite(before + len(seen), "the parameters are no longer finite", run_dir)


def check_left_out(steps: Sequence[int], run_dir: Path) -> None:
    """Raise :class:`InputError` when more than :data:`MOST_LEFT_OUT` updates of a run were left out."""
    if len(steps) > MOST_LEFT_OUT:
        fault = f"{len(steps)} updates were not finite, and a run leaves out {MOST_LEFT_OUT} at most"
        raise _not_finite(steps[-1], fault, run_dir, advice="")


_SKIP = " To leave out the updates of a few such steps, train on with --nonfinite skip."


def _not_finite(step: int, fault: str, run_dir: Path, advice: str = _SKIP) -> InputError:
    folder = run_dir / "checkpoints" / "last"
    saved = checkpoints.steps(folder)
    kept = f"the last good checkpoint is {folder / str(saved[0])}" if saved else "no checkpoint was written yet"
    return InputError(
        f"step {step}: {fault}; {kept}. Lower optimizer.learning_rate or the weight of the part that failed, in a new "
        f"run folder.{advice}"
    )
