"""Multitask weighting at the losses: each method maps (losses f[t], state) to (weights f[t], new state).

The training minimises sum_i w_i L_i with the weights held constant. So the weights are the gradient of the method's
own objective with respect to the losses: training follows this gradient, not the objective's value.

A state is a pytree of arrays. It keeps its structure, shapes and dtypes, as a jit carry and a checkpoint need;
``None`` stands for a fresh state (see :func:`init`).

All arithmetic is in JAX's default float. Losses are positive and clipped to [1e-8, 1e8], so that a zero or a huge
loss gives finite weights. A NaN loss makes every weight NaN that depends on it, now or later. ValueError for losses
that are not f[t], or a state of another number of tasks.

>>> import jax.numpy as jnp
>>> state = init("gls", 2)
>>> weights, state = SCALARIZERS["gls"](jnp.array([1.0, 4.0]), state)
>>> weights.tolist()
[1.0, 0.25]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from thyroid_jax.shapes import Array, Float, Int, Key

_EPS = 1e-8  # far below any meaningful loss; the square of its inverse, which Adam takes, still fits float32


class Learned(NamedTuple):
    """State of uncertainty and imtl_l: log-scales s f[t], learned by Adam."""

    scale: Float[Array, "t"]
    adam: optax.OptState


class Dwa(NamedTuple):
    """State of dwa: steps in an epoch, steps so far, and mean losses f[t] of three epochs.

    ``running`` is the mean so far of this epoch, ``last`` that of the last epoch, ``before`` of the one before it.
    """

    steps_per_epoch: Int[Array, ""]
    step: Int[Array, ""]
    running: Float[Array, "t"]
    last: Float[Array, "t"]
    before: Float[Array, "t"]


class Rlw(NamedTuple):
    """State of rlw: the random key of the next step, typed or not."""

    key: Key


class GradNorm(NamedTuple):
    """State of gradnorm: logits f[t], first losses f[t] and gradient norms f[t].

    ``first`` is a task's first loss above 1e-8, and 0 until there is one. The caller sets ``norms`` before each call,
    with ``_replace``.
    """

    logits: Float[Array, "t"]
    adam: optax.OptState
    first: Float[Array, "t"]
    norms: Float[Array, "t"]


class Famo(NamedTuple):
    """State of famo: logits f[t], and the losses f[t] whose decrease is not observed yet (0 when there are none)."""

    logits: Float[Array, "t"]
    adam: optax.OptState
    before: Float[Array, "t"]


def init(name: str, tasks: int, *, key: Key | None = None, steps_per_epoch: int = 1) -> Any:
    """Fresh state of the method ``name``; ``()`` for equal and gls.

    Args:
        name: a key of :data:`SCALARIZERS`, else ValueError.
        tasks: number t of tasks.
        key: for rlw alone; key(0) by default.
        steps_per_epoch: for dwa alone; at least 1, else ValueError.

    No two leaves share a buffer, so the state may be donated.
    """
    if name not in SCALARIZERS:
        raise ValueError(f"scalarizer {name!r}: choose one of {', '.join(SCALARIZERS)}.")
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch {steps_per_epoch}: it is at least 1.")
    full = lambda value: jnp.full(tasks, value, float)
    adam = optax.adam(0.0).init(full(0.0))  # Adam's state does not depend on the rate
    match name:
        case "uncertainty":
            return Learned(full(-0.5), adam)
        case "dwa":
            return Dwa(jnp.int32(steps_per_epoch), jnp.int32(0), full(0.0), full(1.0), full(1.0))
        case "rlw":
            return Rlw(jax.random.key(0) if key is None else key)
        case "imtl_l":
            return Learned(full(0.0), adam)
        case "gradnorm":
            return GradNorm(full(0.0), adam, full(0.0), full(1.0))
        case "famo":
            return Famo(full(0.0), adam, full(0.0))
    return ()


def equal(losses: Float[Array, "t"], state: tuple | None = None) -> tuple[Float[Array, "t"], tuple]:
    """w_i = 1: the plain sum of the losses."""
    return jnp.ones_like(_clipped(losses)), ()


def uncertainty(
    losses: Float[Array, "t"], state: Learned | None = None, *, lr: float = 0.01
) -> tuple[Float[Array, "t"], Learned]:
    """Homoscedastic uncertainty: the learned log-variance s_i of task i balances its loss.

        minimise over network and s   sum_i L_i / (2 e^{s_i}) + s_i / 2        w_i = 1 / (2 e^{s_i})

    s starts at -0.5 and takes one step of Adam after the weights are read. At its optimum e^{s_i} = L_i.
    Paper: arXiv 1705.07115, in the form that has the factor one half for every task, classification too.
    """
    losses, state = _clipped(losses), _fresh_if_none("uncertainty", losses, state)
    weights = 0.5 * jnp.exp(-state.scale)
    return weights, Learned(*_descend(0.5 - weights * losses, state.scale, state.adam, lr))


def dwa(
    losses: Float[Array, "t"], state: Dwa | None = None, *, temperature: float = 2.0
) -> tuple[Float[Array, "t"], Dwa]:
    """Dynamic weight average: a task whose loss fell less from one epoch to the next gets more weight.

        w = t softmax(r / T)        r_i = L_i[e-1] / L_i[e-2], means over whole epochs

    The weights are 1 during the first two epochs. An epoch is ``state.steps_per_epoch`` calls.
    Paper: arXiv 1803.10704.
    """
    losses, state = _clipped(losses), _fresh_if_none("dwa", losses, state)
    epoch, done = jnp.divmod(state.step, state.steps_per_epoch)
    weights = jnp.where(epoch < 2, 1.0, losses.size * jax.nn.softmax(state.last / state.before / temperature))
    mean = state.running + (losses - state.running) / (done + 1)
    ends = done + 1 == state.steps_per_epoch
    running, last, before = (
        jnp.where(ends, a, b) for a, b in ((0.0, mean), (mean, state.last), (state.last, state.before))
    )
    return weights, Dwa(state.steps_per_epoch, state.step + 1, running, last, before)


def rlw(losses: Float[Array, "t"], state: Rlw | None = None) -> tuple[Float[Array, "t"], Rlw]:
    """Random loss weighting: new random weights at every call, of mean 1.

        w = t softmax(x)        x standard normal

    Paper: arXiv 2111.10603.
    """
    losses, state = _clipped(losses), _fresh_if_none("rlw", losses, state)
    key, now = jax.random.split(state.key)
    return losses.size * jax.nn.softmax(jax.random.normal(now, losses.shape, losses.dtype)), Rlw(key)


def gls(losses: Float[Array, "t"], state: tuple | None = None) -> tuple[Float[Array, "t"], tuple]:
    """Geometric loss strategy: the geometric mean of the losses, whose minimum does not depend on their scales.

        minimise   G = (prod_i L_i)^{1/t}        w_i = G / (t L_i)

    A loss near zero takes a large weight and makes the other weights small. The large weight matters only if that
    loss's gradient does not vanish too. Paper: arXiv 1904.08492.
    """
    logs = jnp.log(_clipped(losses))
    return jnp.exp(logs.mean() - logs) / logs.size, ()


def imtl_l(
    losses: Float[Array, "t"], state: Learned | None = None, *, lr: float = 0.01
) -> tuple[Float[Array, "t"], Learned]:
    """Impartial multitask learning, loss balance: every scaled loss is drawn towards 1.

        minimise over network and s   sum_i e^{s_i} L_i - s_i        w_i = e^{s_i}

    s starts at 0 and takes one step of Adam after the weights are read. At its optimum e^{s_i} = 1 / L_i.
    Paper: Liu et al., *Towards Impartial Multi-task Learning*, ICLR 2021.
    """
    losses, state = _clipped(losses), _fresh_if_none("imtl_l", losses, state)
    weights = jnp.exp(state.scale)
    return weights, Learned(*_descend(weights * losses - 1.0, state.scale, state.adam, lr))


def gradnorm(
    losses: Float[Array, "t"], state: GradNorm | None = None, *, alpha: float = 1.5, lr: float = 0.025
) -> tuple[Float[Array, "t"], GradNorm]:
    """GradNorm: brings the norms of the weighted gradients together, larger for tasks that train more slowly.

        minimise over w   sum_i |w_i n_i - c_i|        c_i = mean_j(w_j n_j) r_i^alpha, held constant

        n_i   norm of the *unweighted* gradient of L_i at the shared layer: ``state.norms``
        r_i   = (L_i / L_i0) / mean_j(L_j / L_j0), L_i0 the first loss above 1e-8 (the first batch may lack a task)

    The caller sets ``state.norms`` before each call. Norms of 1, as in a fresh state, balance the training rates
    alone. The weights are positive and sum to t: w = t softmax(v), and v takes one step of Adam after they are read.

    Paper: arXiv 1711.02257. It steps w itself and rescales it; logits v also reach weights smaller than one step,
    which norms of different orders need.
    """
    losses, state = _clipped(losses), _fresh_if_none("gradnorm", losses, state)
    norms, first = _clipped(state.norms), jnp.where(state.first > _EPS, state.first, losses)
    weights_of = lambda logits: losses.size * jax.nn.softmax(logits)
    weights, decrease = weights_of(state.logits), losses / first
    target = (weights * norms).mean() * (decrease / decrease.mean()) ** alpha
    distance = lambda logits: jnp.abs(weights_of(logits) * norms - target).sum()
    gradient = jnp.where(jnp.isnan(target), jnp.nan, jax.grad(distance)(state.logits))  # abs has a derivative at NaN
    return weights, GradNorm(*_descend(gradient, state.logits, state.adam, lr), first, state.norms)


def famo(
    losses: Float[Array, "t"], state: Famo | None = None, *, lr: float = 0.025, gamma: float = 0.01
) -> tuple[Float[Array, "t"], Famo]:
    """Fast adaptive multitask optimisation: makes the logarithms of all losses fall at the same rate.

        minimise   c sum_i z_i log L_i        z = softmax(v), c = 1 / sum_i z_i / L_i held constant
        w_i = c z_i / L_i

    The weights sum to 1. The logits v follow the decrease of the log losses (:func:`famo_observe`). The paper
    measures the losses again on the same batch after the update: give these to ``famo_observe`` for the exact method.
    Without them this function takes its own ``losses`` as those after the last update. That saves a second pass, and
    adds the difference between two batches as noise.

    Paper: arXiv 2306.03792; ``lr`` and ``gamma`` as in its authors' code.
    """
    losses, state = _clipped(losses), famo_observe(_fresh_if_none("famo", losses, state), losses, lr=lr, gamma=gamma)
    return jax.nn.softmax(state.logits - jnp.log(losses)), state._replace(before=losses)


def famo_observe(state: Famo, losses_after: Float[Array, "t"], *, lr: float = 0.025, gamma: float = 0.01) -> Famo:
    """FAMO's step of the logits, given the losses after the update: a task whose loss fell less gains weight.

        d_i = log L_i(before) - log L_i(after)
        v takes one step of Adam along  (d z / d v)' d + gamma v        z = softmax(v)

    Use the ``lr`` and ``gamma`` that :func:`famo` gets. Every call of ``famo`` is observed once: when there is
    nothing to observe, the state is returned unchanged.
    """
    _check_size("famo", losses_after, state)
    z, pending = jax.nn.softmax(state.logits), state.before > 0
    fall = jnp.where(pending, jnp.log(jnp.where(pending, state.before, 1.0)) - jnp.log(_clipped(losses_after)), 0.0)
    gradient = z * (fall - (z * fall).sum()) + gamma * state.logits
    new = Famo(*_descend(gradient, state.logits, state.adam, lr), jnp.zeros_like(state.before))
    return jax.tree.map(lambda a, b: jnp.where(pending.all(), a, b), new, state)


def _clipped(losses: Float[Array, "t"]) -> Float[Array, "t"]:
    """The losses as constants in the default float type, clipped to [1e-8, 1e8]."""
    losses = jnp.asarray(losses, float)
    if losses.ndim != 1:
        raise ValueError(f"losses of shape {losses.shape}: they are f[t].")
    return jax.lax.stop_gradient(jnp.clip(losses, _EPS, 1 / _EPS))


def _fresh_if_none(name: str, losses: Float[Array, "t"], state: Any) -> Any:
    losses = jnp.asarray(losses)
    if state is None:
        return init(name, losses.shape[0])
    _check_size(name, losses, state)
    return state


def _check_size(name: str, losses: Float[Array, "t"], state: Any) -> None:
    losses = jnp.asarray(losses)
    vectors = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if any(leaf.shape != losses.shape for leaf in vectors):
        raise ValueError(f"{losses.size} losses, but a state of {name} of {vectors[0].size} tasks.")


def _descend(
    gradient: Float[Array, "t"], at: Float[Array, "t"], adam: optax.OptState, lr: float
) -> tuple[Float[Array, "t"], optax.OptState]:
    """One step of Adam from the point ``at``: the new point and Adam's new state."""
    change, adam = optax.adam(lr).update(gradient, adam)
    return optax.apply_updates(at, change), adam


SCALARIZERS: dict[str, Callable[..., tuple[Array, Any]]] = {
    "equal": equal,
    "uncertainty": uncertainty,
    "dwa": dwa,
    "rlw": rlw,
    "gls": gls,
    "imtl_l": imtl_l,
    "gradnorm": gradnorm,
    "famo": famo,
}
