"""Gradient clipping, AdamW, a warm-up-cosine schedule by step, rates by layer, and an average of the parameters.

Every float of the settings may be traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from thyroid_jax.errors import InputError
from thyroid_jax.settings import check_within, settings
from thyroid_jax.shapes import Array, Float, Int, Number


@settings
class OptimizerConfig:
    """Gradient clipping, AdamW, a warm-up-cosine schedule by step, rates by level, an average of the parameters."""

    learning_rate: float = 3e-3
    """highest value of the schedule"""
    final_share: float = 0.01
    """the schedule's last value as a share of its highest"""
    warmup: float = 0.05
    """share of all steps over which the rate rises from 0"""
    weight_decay: float = 1e-2
    """decay of matrices and kernels; biases and normalisation scales are not decayed"""
    head_decay: float = 1.0
    """weight decay of the heads, as a multiple of `weight_decay`; on few images they overfit first"""
    clip: float = 1.0
    """highest global gradient norm; 0 switches clipping off"""
    b1: float = 0.9
    """decay of Adam's mean"""
    b2: float = 0.99
    """decay of Adam's mean square"""
    encoder_rate: float = 1.0
    """learning rate of a published encoder, as a share of that of the other parameters"""
    level_decay: float = 1.0
    """factor of the learning rate from one level of a published encoder to the finer one before it"""
    average: int = 0
    """steps over which parameters are averaged for validation and prediction, in a run of N steps N / 9 at most (see
    `averaged`); 0 for none"""

    def __post_init__(self):
        check_within(self, "optimizer", ("learning_rate", "weight_decay", "head_decay", "clip"), 0)
        check_within(self, "optimizer", ("final_share", "warmup", "encoder_rate", "level_decay"), 0, 1)
        check_within(self, "optimizer", ("average",), 0)
        check_within(self, "optimizer", ("b1", "b2"), 0, 0.999999)
        if self.head_decay != 1 and not self.weight_decay:
            raise InputError(
                f"optimizer.head_decay is {self.head_decay:g}, a multiple of optimizer.weight_decay, which is 0: "
                "nothing would decay. Set optimizer.weight_decay above 0, or leave optimizer.head_decay at 1."
            )


def learning_rate(settings: OptimizerConfig, step: Int[Array, ""] | int, total_steps: Number) -> Float[Array, ""]:
    """Linear warm-up over w = max(1, round(warmup * total)) steps, then a cosine down to ``final_share``.

        rate(s) = highest * s / w                                           s < w
        rate(s) = highest * (f + (1 - f) (1 + cos(pi (s - w) / (total - w))) / 2),  f = final_share

    The last value stays after the last step; ``total_steps`` 0 keeps the rate at its highest. Equal to
    ``optax.warmup_cosine_decay_schedule``, which cannot take traced numbers.
    """
    total, step = jnp.asarray(total_steps, jnp.float32), jnp.asarray(step, jnp.float32)
    warmup = jnp.maximum(1.0, jnp.round(settings.warmup * total))
    decay = jnp.maximum(total, warmup + 1) - warmup
    fallen = jnp.clip((step - warmup) / decay, 0.0, 1.0)
    cosine = settings.final_share + (1 - settings.final_share) * 0.5 * (1 + jnp.cos(jnp.pi * fallen))
    scheduled = jnp.where(step < warmup, step / warmup, cosine)
    return settings.learning_rate * jnp.where(total > 0, scheduled, 1.0)


def optimizer(
    settings: OptimizerConfig, total_steps: Number, levels: Mapping[str, int] | None = None, frozen: int = 0
) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW. The form of its state does not depend on any number.

    ``levels`` maps each entry of ``params["encoder"]`` to its level, 0 the finest: its learning rate and weight decay
    are then those of the other parameters times

        encoder_rate * level_decay ** (highest level - level)

    or 0 for levels below ``frozen``. Without ``levels`` all rates are alike. The decay of ``params["heads"]`` is
    ``head_decay`` times that of the others.

    Norm and moments are those of one vector of all parameters. Taken of one small array after the other, they would be
    a third of all operations of a training step, and of the time to trace and load it.
    """
    highest_norm = jnp.where(jnp.asarray(settings.clip) > 0, settings.clip, jnp.inf)
    adam = optax.chain(optax.clip_by_global_norm(highest_norm), optax.scale_by_adam(settings.b1, settings.b2))
    return optax.chain(
        optax.flatten(adam),
        _weight_decay(settings),
        optax.scale_by_learning_rate(lambda count: learning_rate(settings, count, total_steps)),
        optax.identity() if levels is None else _slower_encoder(settings, levels, frozen),
    )


def _weight_decay(settings: OptimizerConfig) -> optax.GradientTransformation:
    """Add decay * p to the change of every matrix and kernel p; in ``params["heads"]`` with the heads' own decay."""

    def decayed(path: Any, change: Array, p: Array) -> Array:
        if p.ndim < 2:
            return change
        of_heads = bool(path) and getattr(path[0], "key", None) == "heads"
        return change + settings.weight_decay * (settings.head_decay if of_heads else 1.0) * p

    return optax.stateless(lambda changes, params: jax.tree_util.tree_map_with_path(decayed, changes, params))


def _slower_encoder(settings: OptimizerConfig, levels: Mapping[str, int], frozen: int) -> optax.GradientTransformation:
    highest = max(levels.values())
    decay = jnp.asarray(settings.level_decay, jnp.float32)
    rate = lambda level: settings.encoder_rate * decay ** (highest - level) if level >= frozen else 0.0
    shares = {name: rate(level) for name, level in levels.items()}

    def scaled(change: dict[str, Any], _: Any) -> dict[str, Any]:
        encoder = {name: jax.tree.map(lambda u, s=shares[name]: s * u, c) for name, c in change["encoder"].items()}
        return change | {"encoder": encoder}

    return optax.stateless(scaled)


def averaged(settings: OptimizerConfig, average: Any, params: Any, step: Int[Array, ""] | int) -> Any:
    """The exponential moving average after update number ``step`` (from 0), which gave ``params``.

        a <- params + d (a - params),  d = min(1 - 1 / settings.average, (1 + step) / (10 + step))

    The smaller decay of the first steps forgets the random start. In this form the average of a parameter that does not
    move, such as one of a frozen level, is that parameter to the last bit.
    """
    step = jnp.asarray(step, jnp.float32)
    decay = jnp.minimum(1 - 1 / settings.average, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: p + decay * (a - p), average, params)
