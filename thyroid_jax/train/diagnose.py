"""What the tasks ask of the representation, measured beside the training: angles, lengths, and how their gradients lie
in the encoder.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp

from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config
from thyroid_jax.losses import rlar
from thyroid_jax.mtl.gradients import cosines, gramian
from thyroid_jax.shapes import Array, Bool, Float
from thyroid_jax.train.gradient import at_latent, weighted
from thyroid_jax.train.objective import (
    Metrics,
    Pair,
    direction_metrics,
    encoder_and_rest,
    one,
    pair,
    task_valid,
    trained,
)

BINS = 40
"""of the histogram of cosines, from -1 to 1"""


@partial(jax.jit, static_argnums=2)
def diagnose(params: model.Params, batch: Batch, config: Config) -> Metrics:
    """How the tasks' gradients lie on one batch, as it comes, without augmentation; with or without RLAR in the
    training.

    For each space, channel and full, over the examples on which every task of ``rlar.tasks`` is defined, mean over
    the pairs of tasks:

    - ``cosine_S``, ``cosine_size_S`` (its absolute value), ``cosine_above_margin_S``, ``cosine_histogram_S`` (shares
      of 40 bins)
    - ``latent_gradient_TASK_S``: length of each task's latent gradient; ``latent_gradient_ratio_S``: first task's
      over the second's,
      in powers of ten

    and for the whole batch:

    - ``parameter_gradient_TASK``, ``parameter_cosine_TASK_TASK``: the trained tasks' weighted mean losses in the
      encoder's parameters
    - ``gramian_eigenvalue_1..t``: spectrum of those gradients' Gramian, smallest first, trace 1
    - ``penalty_share_S``: length of the angular penalty's gradient at the latent, at weight 1, over that of the
      tasks' together

    A config with a single trained task has the parameters' part alone.
    """
    encoder, rest = encoder_and_rest(params)
    latent, pull = jax.vjp(lambda encoder: model.encode(rest | encoder, config.model, batch.image), encoder)
    where, names = task_valid(batch), list(trained(config))
    probed = tuple(name for name in config.rlar.tasks if name in names)
    metrics: Metrics = {}
    first = {}
    for space in ("channel", "full") if len(probed) > 1 else ():
        probe = dataclasses.replace(config.rlar, weight=1.0, tasks=probed, space=space, hold=(), reliability=0.0)
        first, penalty = at_latent(params, latent, batch, dataclasses.replace(config, rlar=probe))
        both = jnp.stack([where[name] for name in probed]).all(0)
        gradients, losses = (
            jnp.stack([getattr(first[name], field) for name in probed]) for field in ("latent", "loss")
        )
        seen = angles(rlar.normalise(gradients, losses, space=space), probed, both, config.rlar.margin)
        at_z = sum(output.z for output, _ in weighted(first, where, config).values())
        seen |= {"penalty_share": one(_norm(penalty.latent) / jnp.maximum(_norm(at_z), 1e-20))}
        metrics |= {f"{name}_{space}": value for name, value in seen.items()}

    first = (
        first
        or at_latent(
            params, latent, batch, dataclasses.replace(config, rlar=dataclasses.replace(config.rlar, weight=0.0))
        )[0]
    )
    gram = gramian([pull(output)[0] for output, _ in weighted(first, where, config).values()])
    metrics |= {f"parameter_gradient_{name}": one(jnp.sqrt(square)) for name, square in zip(names, jnp.diagonal(gram))}
    if len(names) > 1:
        pairs = ["parameter_cosine_" + "_".join(couple) for couple in combinations(names, 2)]
        metrics |= {name: one(value) for name, value in zip(pairs, cosines(gram))}
    spectrum = jnp.linalg.eigvalsh(gram / jnp.maximum(jnp.trace(gram), 1e-30))
    return metrics | {f"gramian_eigenvalue_{number}": one(value) for number, value in enumerate(spectrum, start=1)}


def angles(directions: rlar.Directions, names: tuple[str, ...], where: Bool[Array, "b"], margin: float) -> Metrics:
    """How the tasks' directions lie: mean cosine, |cosine|, share above the margin, histogram over the pairs; lengths
    and their ratio.
    """
    s = rlar.cosines(directions.unit)
    bins = jnp.clip(jnp.floor((s + 1) * BINS / 2), 0, BINS - 1).astype(int)
    histogram = (jax.nn.one_hot(bins, BINS) * where[None, :, None]).mean(0).sum(0)
    ratio = jnp.log10(directions.norm[0] / directions.norm[1])
    return direction_metrics(directions, names, where, margin) | {
        "cosine_histogram": Pair(histogram, where.sum().astype(jnp.float32)),
        "latent_gradient_ratio": pair(ratio, where & (directions.norm[:2].min(0) > 1e-9)),
    }


def _norm(x: Float[Array, "*n"]) -> Float[Array, ""]:
    return jnp.sqrt((x**2).sum())
