"""Multitask weighting at the losses: each method is a pure function from the tasks' losses and a small state to
weights and the new state.

Whoever trains minimises sum_i w_i L_i with the weights held constant. So the weights are the gradient of the method's
own objective with respect to the losses: its gradient, and not its value, is what training follows. Every state is a
pytree of arrays that keeps its structure, shapes and dtypes, fit for a jit carry and a checkpoint; ``None`` stands
for a fresh one (see :func:`init`). All arithmetic is in JAX's default float. Losses are positive and read within
[1e-8, 1e8], so that a zero or a huge one gives finite weights; NaN stays NaN.

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

_EPS = 1e-8  # far below any loss that means something; squares of its inverse, as Adam takes them, still fit float32


class Learned(NamedTuple):
    """Log-scales s f[t] that follow by Adam: uncertainty and imtl_l."""

    scale: Float[Array, "t"]
    adam: optax.OptState


class Dwa(NamedTuple):
    """Steps in an epoch and steps so far, both i32; running mean f[t] of this epoch's losses; means f[t] of the last and
    the one before.
    """

    steps_per_epoch: Int[Array, ""]
    step: Int[Array, ""]
    running: Float[Array, "t"]
    last: Float[Array, "t"]
    before: Float[Array, "t"]


class Rlw(NamedTuple):
    """The random key of the next step, typed or not."""

    key: Key


class GradNorm(NamedTuple):
    """Logits f[t]; first losses f[t] above the floor (0 before them); gradient norms f[t], to be set before each call
    with ``_replace``.
    """

    logits: Float[Array, "t"]
    adam: optax.OptState
    first: Float[Array, "t"]
    norms: Float[Array, "t"]


class Famo(NamedTuple):
    """Logits f[t], and the losses f[t] whose decrease is still to be observed (0 when there are none)."""

    logits: Float[Array, "t"]
    adam: optax.OptState
    before: Float[Array, "t"]


def init(name: str, tasks: int, *, key: Key | None = None, steps_per_epoch: int = 1) -> Any:
    """Fresh state of the method ``name``; ``()`` for equal and gls.

    ``key``: of rlw alone, key(0) by default. ``steps_per_epoch`` >= 1: of dwa alone. No two leaves share a buffer: a
    state may be donated.
    """
    if name not in SCALARIZERS:
        raise ValueError(f"scalarizer {name!r}: choose one of {', '.join(SCALARIZERS)}.")
    if steps_per_epoch < 1:
        raise ValueError(f"steps_per_epoch {steps_per_epoch}: it is at least 1.")
    full = lambda value: jnp.full(tasks, value, float)
    adam = lambda: optax.adam(0.0).init(full(0.0))  # its state does not depend on the rate
    fresh = {
        "uncertainty": lambda: Learned(full(-0.5), adam()),
        "dwa": lambda: Dwa(jnp.int32(steps_per_epoch), jnp.int32(0), full(0.0), full(1.0), full(1.0)),
        "rlw": lambda: Rlw(jax.random.key(0) if key is None else key),
        "imtl_l": lambda: Learned(full(0.0), adam()),
        "gradnorm": lambda: GradNorm(full(0.0), adam(), full(0.0), full(1.0)),
        "famo": lambda: Famo(full(0.0), adam(), full(0.0)),
    }
    return fresh[name]() if name in fresh else ()


def equal(losses: Float[Array, "t"], state: tuple | None = None) -> tuple[Float[Array, "t"], tuple]:
    """w_i = 1: the plain sum of the losses."""
    return jnp.ones_like(_read(losses)), ()


def uncertainty(
    losses: Float[Array, "t"], state: Learned | None = None, *, lr: float = 0.01
) -> tuple[Float[Array, "t"], Learned]:
    """Homoscedastic uncertainty: s_i, the learned log-variance of task i, balances its loss.

        minimise over network and s   sum_i L_i / (2 e^{s_i}) + s_i / 2        w_i = 1 / (2 e^{s_i})

    s starts at -0.5 and takes one step of Adam after the weights are read. At its optimum e^{s_i} = L_i. Paper: arXiv
    1705.07115, in the form with one half for every task, classification too.
    """
    losses, state = _read(losses), _fresh("uncertainty", losses, state)
    weights = 0.5 * jnp.exp(-state.scale)
    return weights, Learned(*_descend(0.5 - weights * losses, state.scale, state.adam, lr))


def dwa(
    losses: Float[Array, "t"], state: Dwa | None = None, *, temperature: float = 2.0
) -> tuple[Float[Array, "t"], Dwa]:
    """Dynamic weight average: a task whose loss fell less from one epoch to the next gets more weight.

        w = t softmax(r / T)        r_i = L_i[e-1] / L_i[e-2], means over whole epochs

    Ones during the first two epochs. The epochs are counted from the calls, ``state.steps_per_epoch`` each. Paper:
    arXiv 1803.10704.
    """
    losses, state = _read(losses), _fresh("dwa", losses, state)
    epoch, done = jnp.divmod(state.step, state.steps_per_epoch)
    weights = jnp.where(epoch < 2, 1.0, losses.size * jax.nn.softmax(state.last / state.before / temperature))
    mean = state.running + (losses - state.running) / (done + 1)
    ends = done + 1 == state.steps_per_epoch
    running, last, before = (
        jnp.where(ends, a, b) for a, b in ((0.0, mean), (mean, state.last), (state.last, state.before))
    )
    return weights, Dwa(state.steps_per_epoch, state.step + 1, running, last, before)


def rlw(losses: Float[Array, "t"], state: Rlw | None = None) -> tuple[Float[Array, "t"], Rlw]:
    """Random loss weighting: w = t softmax(x), x standard normal, drawn anew at every call. Mean 1. Paper: arXiv
    2111.10603.
    """
    losses, state = _read(losses), _fresh("rlw", losses, state)
    key, now = jax.random.split(state.key)
    return losses.size * jax.nn.softmax(jax.random.normal(now, losses.shape, losses.dtype)), Rlw(key)


def gls(losses: Float[Array, "t"], state: tuple | None = None) -> tuple[Float[Array, "t"], tuple]:
    """Geometric loss strategy: the geometric mean of the losses, indifferent to their scales.

        minimise   G = (prod_i L_i)^{1/t}        w_i = G / (t L_i)

    A loss at zero takes a large weight, which only matters if its gradient does not vanish, and silences the other
    tasks. Paper: arXiv 1904.08492.
    """
    logs = jnp.log(_read(losses))
    return jnp.exp(logs.mean() - logs) / logs.size, ()


def imtl_l(
    losses: Float[Array, "t"], state: Learned | None = None, *, lr: float = 0.01
) -> tuple[Float[Array, "t"], Learned]:
    """Impartial multitask learning, loss balance: every scaled loss is drawn towards 1.

        minimise over network and s   sum_i e^{s_i} L_i - s_i        w_i = e^{s_i}

    s starts at 0 and takes one step of Adam after the weights are read. At its optimum e^{s_i} = 1 / L_i. Paper:
    Towards Impartial Multi-task Learning, ICLR 2021.
    """
    losses, state = _read(losses), _fresh("imtl_l", losses, state)
    weights = jnp.exp(state.scale)
    return weights, Learned(*_descend(weights * losses - 1.0, state.scale, state.adam, lr))


def gradnorm(
    losses: Float[Array, "t"], state: GradNorm | None = None, *, alpha: float = 1.5, lr: float = 0.025
) -> tuple[Float[Array, "t"], GradNorm]:
    """GradNorm: the weighted gradients at the shared layer get alike in norm, larger for the tasks that train more
    slowly.

        minimise over w   sum_i |w_i n_i - c_i|        c_i = mean_j(w_j n_j) r_i^alpha, held constant

    n_i = ``state.norms``, norm of the *unweighted* gradient of L_i at the shared layer, which the caller sets before
    each call (ones until then, which balances the training rates alone); r_i = (L_i / L_i0) / mean_j(L_j / L_j0),
    L_i0 the first loss above 1e-8, as the first batch may lack a task. The weights are positive and sum to t: w = t
    softmax(v), and v takes one step of Adam after they are read. The paper (arXiv 1711.02257) steps w itself and
    rescales it; logits also reach weights smaller than a step, as norms of different orders ask.
    """
    losses, state = _read(losses), _fresh("gradnorm", losses, state)
    norms, first = _read(state.norms), jnp.where(state.first > _EPS, state.first, losses)
    weigh = lambda logits: losses.size * jax.nn.softmax(logits)
    weights, decrease = weigh(state.logits), losses / first
    target = (weights * norms).mean() * (decrease / decrease.mean()) ** alpha
    gradient = jax.grad(lambda logits: jnp.abs(weigh(logits) * norms - target).sum())(state.logits)
    return weights, GradNorm(*_descend(gradient, state.logits, state.adam, lr), first, state.norms)


def famo(
    losses: Float[Array, "t"], state: Famo | None = None, *, lr: float = 0.025, gamma: float = 0.01
) -> tuple[Float[Array, "t"], Famo]:
    """Fast adaptive multitask optimisation: the logarithms of all losses are to fall at the same rate.

        minimise   c sum_i z_i log L_i, c constant        z = softmax(v), c = 1 / sum_i z_i / L_i        w_i = c z_i / L_i

    The weights sum to 1. Then v follows the decrease of the log losses, see :func:`famo_observe`. The paper measures
    the losses again on the same batch after the parameters' update: hand these to ``famo_observe`` and it is exact.
    Otherwise this function takes its own ``losses`` for the ones after the last update: no second pass, but the
    difference between two batches comes in as noise. Paper: arXiv 2306.03792; ``lr`` and ``gamma`` as in its authors'
    code.
    """
    losses, state = _read(losses), famo_observe(_fresh("famo", losses, state), losses, lr=lr, gamma=gamma)
    return jax.nn.softmax(state.logits - jnp.log(losses)), state._replace(before=losses)


def famo_observe(state: Famo, losses_after: Float[Array, "t"], *, lr: float = 0.025, gamma: float = 0.01) -> Famo:
    """The logits' step, given the losses after the parameters' update: a task whose log loss fell less than the
    others' gains weight.

        d_i = log L_i(before) - log L_i(after)        v takes one step of Adam along  (d z / d v)' d + gamma v,  z = softmax(v)

    Every call of :func:`famo` is observed once: with nothing to observe the state comes back as it was. Give it the
    same knobs.
    """
    z, pending = jax.nn.softmax(state.logits), state.before > 0
    fall = jnp.where(pending, jnp.log(jnp.where(pending, state.before, 1.0)) - jnp.log(_read(losses_after)), 0.0)
    gradient = z * (fall - (z * fall).sum()) + gamma * state.logits
    new = Famo(*_descend(gradient, state.logits, state.adam, lr), jnp.zeros_like(state.before))
    return jax.tree.map(lambda a, b: jnp.where(pending.all(), a, b), new, state)


def _read(losses: Float[Array, "t"]) -> Float[Array, "t"]:
    return jax.lax.stop_gradient(jnp.clip(jnp.asarray(losses, float), _EPS, 1 / _EPS))


def _fresh(name: str, losses: Float[Array, "t"], state: Any) -> Any:
    return init(name, losses.shape[0]) if state is None else state


def _descend(
    gradient: Float[Array, "t"], at: Float[Array, "t"], adam: optax.OptState, lr: float
) -> tuple[Float[Array, "t"], optax.OptState]:
    """One step of Adam: the new point and the new state."""
    change, adam = optax.adam(lr).update(gradient, adam)
    return optax.apply_updates(at, change), adam


SCALARIZERS: dict[str, Callable[..., tuple[jax.Array, Any]]] = {
    "equal": equal,
    "uncertainty": uncertainty,
    "dwa": dwa,
    "rlw": rlw,
    "gls": gls,
    "imtl_l": imtl_l,
    "gradnorm": gradnorm,
    "famo": famo,
}
