"""The gradient of a batch in parts, one after the other: the memory of one part, the gradient of the whole batch.

    d L = sum over parts j of d ( sum_t w_t S_tj / C_t + sum_p w_p ramp_p S_pj / C_p )

S_tj is a task's sum over part j, C_t its count over the whole batch. A mean of the parts' means would be another number
where labels are missing unevenly. So the counts come first. Those of tasks and of RLAR follow from the labels. The
shape consistency counts predicted outlines, which costs one more forward pass.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from thyroid_jax.batch import Batch
from thyroid_jax.losses.reduce import Metrics, share, summed, summed_at_once
from thyroid_jax.model import Params
from thyroid_jax.recipe import Recipe, encode
from thyroid_jax.shapes import Array, Float, Int
from thyroid_jax.train.objective import Terms, evaluate, total


def in_parts(params: Params, batch: Batch, recipe: Recipe, step: Int[Array, ""] | int) -> tuple[Params, Metrics]:
    """Gradient of the whole batch's objective in the parameters, and this device's sums to log.

    Both are those of the whole batch at once, up to rounding. The batch is one that the network sees: augmented whole.
    ValueError for a batch that ``recipe.accumulate`` does not divide, and for what needs the whole batch at once: a
    multitask method, or a penalty that does not add up over parts.
    """
    whole = [penalty.name for penalty in recipe.penalties if not penalty.adds_up]
    whole += [method for method in [recipe.settings["mtl"].method] if method != "equal"]
    if whole:
        raise ValueError(f"accumulate is {recipe.accumulate}, but {whole[0]} needs the whole batch at once.")
    parts = parts_of(batch, recipe.accumulate)
    counts = whole_counts(params, batch, parts, recipe)

    def value(params: Params, part: Batch) -> tuple[Array, Metrics]:
        terms = terms_of(params, part, recipe)
        return total(terms, recipe, step, counts=counts), terms.metrics

    def change_of(part: Batch) -> tuple[Params, Array, Metrics]:
        (loss, metrics), change = jax.value_and_grad(value, has_aux=True)(params, part)
        return change, loss, metrics

    change, loss, metrics = summed_over(change_of, parts)
    return summed_at_once(change, recipe.axis), {"loss": share(loss, recipe.axis)} | metrics


def parts_of(batch: Batch, number: int) -> Batch:
    """Arrays [b ...] as [n b/n ...]: part j has the examples j, j + n, j + 2 n, ...

    So every part has rows of each device, in equal number, where consecutive rows lie on one device.
    """
    b = batch.image.shape[0]
    if b % number:
        raise ValueError(f"a batch of {b} rows cannot be divided into {number} equal parts.")
    return jax.tree.map(lambda leaf: leaf.reshape(b // number, number, *leaf.shape[1:]).swapaxes(0, 1), batch)


def terms_of(params: Params, part: Batch, recipe: Recipe) -> Terms:
    """The objective's terms of one part."""
    return evaluate(params, encode(params, part, recipe), part, recipe)


def whole_counts(params: Params, batch: Batch, parts: Batch, recipe: Recipe) -> dict[str, Float[Array, ""]]:
    """Count of every task and penalty over the whole batch, over all devices."""
    kind = batch.image.dtype
    counts = {task.name: task.defined(batch).sum().astype(kind) for task in recipe.tasks}
    for penalty in recipe.penalties:
        if penalty.counted is not None:
            counts[penalty.name] = penalty.counted(batch, recipe).sum().astype(kind)
    others = recipe.replace(penalties=tuple(penalty for penalty in recipe.penalties if penalty.name not in counts))
    if others.penalties:
        of_part = lambda part: {n: count for n, (_, count) in terms_of(params, part, others).penalties.items()}
        counts |= summed_over(of_part, parts)
    return jax.lax.stop_gradient(summed(counts, recipe.axis))


def summed_over(function: Any, parts: Batch) -> Any:
    """Sum over the parts of a function's results, one after the other in one compiled loop."""
    first = jax.tree.map(lambda leaf: leaf[0], parts)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first))
    add = lambda so_far, part: (jax.tree.map(jnp.add, so_far, function(part)), None)
    return jax.lax.scan(add, zeros, parts)[0]
