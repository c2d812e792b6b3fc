"""What several test files need: double precision, comparison by length, directional derivatives, the tests' judge."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import checkpoints
from thyroid_jax.losses import rlar
from thyroid_jax.predict import ABOUT_RUN, digest_in_facts, read_config, settings_digest
from thyroid_jax.recipe import init_params


def double_precision(tree):
    """The tree with float32 leaves as float64."""
    values = lambda a: a if isinstance(a, jax.core.Tracer) else np.asarray(a, np.float64)  # compiles nothing
    wide = lambda a: jnp.asarray(values(a), jnp.float64) if jnp.result_type(a) == jnp.float32 else a
    return jax.tree.map(wide, tree)


def params_of(recipe, seed=0):
    """Fresh parameters with a decoder that outlines something: its last bias is near 0."""
    params = init_params(recipe, jax.random.key(seed))
    *_, last = sorted(name for name in params["decoder"] if name.startswith("Conv"))
    params["decoder"][last]["bias"] = params["decoder"][last]["bias"] + 2.0
    return params


def flat(tree):
    leaves = jax.tree.leaves(tree)
    numpy = jnp if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves) else np
    return numpy.concatenate([numpy.ravel(leaf) for leaf in leaves])


def assert_close(ours, theirs, tolerance, floor=1e-12):
    """Every leaf, relative to its own length; a leaf that is zero on both sides is equal."""
    others = dict(jax.tree_util.tree_leaves_with_path(jax.device_get(theirs)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(ours)):
        other = others.pop(path)
        assert np.shape(leaf) == np.shape(other), jax.tree_util.keystr(path)
        length = np.linalg.norm(np.ravel(other))
        distance = np.linalg.norm(np.ravel(leaf) - np.ravel(other))
        assert distance <= tolerance * max(length, floor), (jax.tree_util.keystr(path), distance, length)
    assert not others


def check_directional_derivative(value, gradient, params, *, seeds=2, step=1e-6, tolerance=1e-6):
    """``gradient`` along random directions in parameter space against central differences of ``value``, in float64.

    The prior's centre stays where it is: it has no gradient by design.
    """
    params, gradient = jax.device_get((params, gradient))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        direction = jax.tree_util.tree_map_with_path(
            lambda path, p, rng=rng: rng.normal(size=p.shape) * ("centre" not in str(path[-1])), params
        )
        moved = lambda t, d=direction: jax.tree.map(lambda p, q: p + t * q, params, d)
        numeric = (float(value(moved(step))) - float(value(moved(-step)))) / (2 * step)
        exact = float(sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction))))
        assert exact == pytest.approx(numeric, rel=tolerance)


def forward_over_reverse(task_losses, parameters, latent, penalty, *, space="channel", hold=()):
    """The exact gradient of a penalty on the tasks' directions, another way than the library's.

    With g_t the tasks' latent gradients and v_t = d penalty / d g_t, second derivatives commute:

        d penalty / d (theta, z) = sum_t  d/de  [ d (sum_i L_t,i)(theta, z + e v_t) / d (theta, z) ]  at e = 0

    ``task_losses``: name -> ((parameters, z) -> f[b]). Returns (value, gradient in the parameters, gradient in z).
    """
    first, along, losses = [], [], []
    for loss in task_losses.values():
        of_both = jax.grad(lambda p, z, loss=loss: loss(p, z).sum(), argnums=(0, 1))
        gradient, push = jax.linearize(partial(of_both, parameters), latent)
        first.append(gradient[1])
        along.append(push)
        losses.append(loss(parameters, latent))
    of_gradients = lambda g: penalty(rlar.normalise(g, jnp.stack(losses), space=space))
    value, v = jax.value_and_grad(of_gradients)(jnp.stack(first))
    turned = [push(v_t) for name, push, v_t in zip(task_losses, along, v) if name not in hold]
    of_parameters, of_latent = jax.tree.map(lambda *terms: sum(terms), *turned)
    return value, of_parameters, of_latent


def change_settings(run_dir, **groups):
    """Make a run's config and checkpoints those of other settings: ``change_settings(run, train={"seed": 5})``."""
    values = json.loads((run_dir / "config.json").read_text())
    about = values.pop(ABOUT_RUN)
    values |= {name: values[name] | fields for name, fields in groups.items()}
    about |= {"settings": settings_digest(values)}
    (run_dir / "config.json").write_text(json.dumps(values | {ABOUT_RUN: about}))
    change_facts(run_dir, settings=digest_in_facts(read_config(run_dir / "config.json")[0]))


def change_facts(run_dir, **facts):
    """Change facts of all checkpoints of a run, as if they had been written so; None takes a fact out."""
    for file in run_dir.glob("checkpoints/*/*/about.json"):
        content = json.loads(file.read_text())
        del content["checksum"]
        changed = content["facts"] | facts
        content["facts"] = {name: value for name, value in changed.items() if name not in facts or value is not None}
        file.write_text(json.dumps(content | {"checksum": checkpoints._checksum(content)}))
