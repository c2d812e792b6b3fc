"""The two roads to a step's gradient agree with each other and with gradients written out by hand."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import model
from thyroid_jax.config import Config, ConsistencyConfig, ModelConfig, MTLConfig, RLARConfig
from thyroid_jax.losses import consistency, masked_mean, rlar
from thyroid_jax.mtl.scalarize import SCALARIZERS, init
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.train import objective
from thyroid_jax.train.gradient import by_scalar, by_task, gradient
from thyroid_jax.train.objective import ALL_ON, Ramps, task_losses

TINY = ModelConfig.preset("tiny", radiomics=11)
TASKS = {"segmentation": 1.0, "grading": 1.0, "guidance": 0.1}


def configure(rlar=None, **mtl):
    return Config(model=TINY, rlar=RLARConfig(**({"weight": 0.0} | (rlar or {}))), mtl=MTLConfig(**mtl))


def run(road, params, batch, config, state=(), ramps=ALL_ON):
    return jax.jit(lambda params, batch: road(params, batch, config, ramps, state, jax.random.key(3)))(params, batch)


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(0), TINY)


@pytest.fixture
def uneven(make_batch):
    """A batch in which labels are missing here and there, so that the tasks' means run over different examples."""
    batch = make_batch(b=4)
    return batch._replace(
        grade_valid=np.array([True, True, False, True]), mask_valid=np.array([True, False, True, True])
    )


def double_precision(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64 if a.dtype == np.float32 else a.dtype), tree)


def assert_close(ours, theirs, tolerance):
    """Every leaf, relative to its own length (a leaf that is zero on both sides is equal)."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(ours):
        other = theirs
        for key in path:
            other = other[key.key]
        length = float(jnp.linalg.norm(other.ravel()))
        assert float(jnp.linalg.norm((leaf - other).ravel())) <= tolerance * max(length, 1e-12), jax.tree_util.keystr(
            path
        )


VARIANTS = [
    {"kind": "hinge", "margin": -0.5},
    {"kind": "square", "space": "full"},
    {"kind": "abs", "tasks": ("segmentation", "grading", "guidance")},
    {"kind": "square", "reliability": 0.05},
    {"kind": "square", "hold": ("segmentation",)},
    {"kind": "square", "hold": ("grading",), "space": "full"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(value) for value in v.values()))
def test_forward_and_reverse_over_reverse_agree_in_float64(variant, params, uneven, x64):
    config = configure({"weight": 3.0} | variant)
    params, batch = double_precision(params), double_precision(uneven)
    reverse, seen, _ = run(by_scalar, params, batch, config, ramps=Ramps(0.7))
    forward, also, _ = run(by_task, params, batch, config, ramps=Ramps(0.7))
    assert float(seen["rlar"].sum) > 1e-6
    assert_close(forward, reverse, 1e-10)
    chex.assert_trees_all_close(also, seen, rtol=1e-10)


def test_and_in_float32(params, uneven):
    config = configure({"weight": 3.0, "kind": "square"})
    reverse, _, _ = run(by_scalar, params, uneven, config)
    forward, _, _ = run(by_task, params, uneven, config)
    whole = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    assert float(jnp.linalg.norm(whole(forward) - whole(reverse))) <= 1e-5 * float(jnp.linalg.norm(whole(reverse)))


def test_both_are_the_gradient_of_the_objective(params, uneven, x64):
    config = configure({"weight": 3.0, "kind": "square"})
    params, batch = double_precision(params), double_precision(uneven)
    expected = jax.jit(jax.grad(lambda p: objective(p, batch, config, ramps=Ramps(0.5))[0]))(params)
    for road in (by_scalar, by_task):
        assert_close(run(road, params, batch, config, ramps=Ramps(0.5))[0], expected, 1e-10)


@pytest.mark.parametrize("at", ["latent", "parameters"])
def test_the_shape_consistency_takes_either_road(at, params, uneven, x64):
    shape = ConsistencyConfig(weight=2.0, min_pixels=5)
    plain, weighed = (
        dataclasses.replace(configure(**method), consistency=shape) for method in ({}, {"method": "cagrad", "at": at})
    )
    prior = consistency.init_prior(4, centre=[0.4, 0.5, 0.2, 0.3])
    last = params["decoder"]["Conv_3"]
    params = params | {"heads": params["heads"] | {"prior": prior}}
    params |= {"decoder": params["decoder"] | {"Conv_3": last | {"bias": last["bias"] + 2.0}}}  # an outline to speak of
    params, batch = double_precision(params), double_precision(uneven)
    halfway = Ramps(consistency=0.5)
    reverse, seen, _ = run(by_scalar, params, batch, plain, ramps=halfway)
    by_tasks, also, _ = run(by_task, params, batch, plain, ramps=halfway)
    assert float(seen["consistency"].sum) > 1e-6
    assert_close(by_tasks, reverse, 1e-8)
    chex.assert_trees_all_close(also, seen, rtol=1e-8)
    change, _, _ = run(gradient_road, params, batch, weighed, ramps=halfway)
    without, _, _ = run(gradient_road, params, batch, dataclasses.replace(weighed, consistency=ConsistencyConfig()))
    bare, _, _ = run(by_scalar, params, batch, configure())
    assert_close(change, jax.tree.map(lambda w, r, b: w + r - b, without, reverse, bare), 1e-8)


def test_a_held_direction_does_not_turn_but_the_others_do(params, make_batch, x64):
    """Against the objective with the held direction computed apart and put in as a constant."""
    config = configure({"weight": 3.0, "kind": "square", "hold": ("grading",)})
    params, batch = double_precision(params), double_precision(make_batch())
    latent = model.encode(params, TINY, batch.image)
    constant = rlar.adversarial_directions(
        {"grading": task_losses(params, latent.skips, batch, config)["grading"]}, latent.z
    ).unit

    def by_hand(params):
        z, skips = model.encode(params, TINY, batch.image)
        tasks = task_losses(params, skips, batch, config)
        unit = rlar.adversarial_directions({"segmentation": tasks["segmentation"]}, z).unit
        penalty = rlar.angular_penalty(jnp.concatenate([unit, constant]), kind="square").mean()
        return sum(TASKS[name] * task(z).mean() for name, task in tasks.items()) + 3.0 * penalty

    assert_close(run(by_scalar, params, batch, config)[0], jax.grad(by_hand)(params), 1e-9)


def hand_made(params, batch, config, key):
    """Tasks' gradients one by one with jax.grad, flattened; weights of their Gramian; put together again."""

    def mean_loss(name, params, latent=None):
        z, skips = model.encode(params, TINY, batch.image) if latent is None else latent
        where = {"segmentation": batch.mask_valid, "grading": batch.grade_valid, "guidance": batch.radiomics_valid}[
            name
        ]
        return TASKS[name] * masked_mean(task_losses(params, skips, batch, config)[name](z), where)

    whole = [jax.grad(lambda p, n=name: mean_loss(n, p))(params) for name in TASKS]
    flat = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    if config.mtl.at == "parameters":
        jacobian = jnp.stack([flat(gradient["encoder"]) for gradient in whole])
    else:
        latent = model.encode(params, TINY, batch.image)
        jacobian = jnp.stack(
            [flat(jax.grad(lambda latent, n=name: mean_loss(n, params, latent))(latent)) for name in TASKS]
        )
    weights = WEIGHERS[config.mtl.method](jacobian @ jacobian.T, key=key)
    weights = 3 * weights / weights.sum()
    encoder = jax.tree.map(
        lambda *g: sum(w * leaf for w, leaf in zip(weights, g)), *[gradient["encoder"] for gradient in whole]
    )
    rest = jax.tree.map(lambda *g: sum(g), *[{name: g[name] for name in ("decoder", "heads")} for g in whole])
    return {"encoder": encoder, **rest}, weights


@pytest.mark.parametrize("at", ["latent", "parameters"])
@pytest.mark.parametrize("method", ["mgda", "pcgrad"])
def test_gradient_weighers_act_on_the_encoder_and_leave_decoder_and_heads_to_their_tasks(
    method, at, params, uneven, x64
):
    config = configure(method=method, at=at)
    params, batch = double_precision(params), double_precision(uneven)
    change, metrics, _ = run(gradient_road, params, batch, config)
    expected, weights = jax.jit(lambda params: hand_made(params, batch, config, jax.random.key(3)))(params)
    assert_close(change, expected, 1e-8)
    np.testing.assert_allclose([metrics[f"weight_{name}"].sum for name in TASKS], weights, rtol=1e-8)


def gradient_road(params, batch, config, ramps, state, key):
    return gradient(params, batch, config, ramps=ramps, state=state, key=key)


@pytest.mark.parametrize("at", ["latent", "parameters"])
def test_the_penalty_is_added_unweighed(at, params, make_batch, x64):
    params, batch = double_precision(params), double_precision(make_batch())
    parts = {"weight": 3.0, "kind": "square"}
    both, _, _ = run(gradient_road, params, batch, configure(parts, method="mgda", at=at))
    weighed, _, _ = run(gradient_road, params, batch, configure(method="mgda", at=at))
    penalised, _, _ = run(gradient_road, params, batch, configure(parts))
    plain, _, _ = run(gradient_road, params, batch, configure())
    expected = jax.tree.map(lambda w, r, p: w + r - p, weighed, penalised, plain)
    assert_close(both, expected, 1e-8)


def test_relative_scale_gives_the_penalty_its_share_of_the_latent_gradient(params, make_batch, x64):
    params, batch = double_precision(params), double_precision(make_batch())
    relative = configure({"weight": 0.25, "scale": "relative", "kind": "square"})
    change, metrics, _ = run(gradient_road, params, batch, relative, ramps=Ramps(0.5))
    plain, _, _ = run(gradient_road, params, batch, configure())
    one, _, _ = run(gradient_road, params, batch, configure({"weight": 1.0, "kind": "square"}))
    factor = float(metrics["rlar_factor"].sum)
    assert_close(change, jax.tree.map(lambda p, o: p + factor * (o - p), plain, one), 1e-8)

    latent = model.encode(params, TINY, batch.image)
    tasks = task_losses(params, latent.skips, batch, relative)
    of_tasks = jax.grad(lambda z: sum(TASKS[name] * task(z).mean() for name, task in tasks.items()))(latent.z)
    probed = {name: tasks[name] for name in ("segmentation", "grading")}
    of_penalty = jax.grad(
        lambda z: rlar.angular_penalty(rlar.adversarial_directions(probed, z).unit, kind="square").mean()
    )(latent.z)
    assert factor * float(jnp.linalg.norm(of_penalty.ravel())) == pytest.approx(
        0.5 * 0.25 * float(jnp.linalg.norm(of_tasks.ravel()))
    )


def test_relative_scale_with_nothing_to_penalise_is_the_plain_gradient(params, make_batch):
    """A margin of 1 leaves no angle to remove: zero over zero must not become a weight."""
    change, metrics, _ = run(
        gradient_road, params, make_batch(), configure({"weight": 0.5, "scale": "relative", "margin": 1.0})
    )
    plain, _, _ = run(gradient_road, params, make_batch(), configure())
    assert float(metrics["rlar"].sum) == 0
    assert float(metrics["rlar_factor"].sum) == 0
    assert_close(change, plain, 1e-5)


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "gradnorm", "famo"])
def test_scalarizers_weigh_the_losses_and_carry_their_state(method, params, make_batch):
    batch, config = make_batch(), configure(method=method)
    state = init(method, 3, steps_per_epoch=1)
    plain = {name: run(gradient_road, params, batch, single(name))[0] for name in TASKS}
    for _ in range(4):  # past the epochs in which dwa waits
        change, metrics, state = run(gradient_road, params, batch, config, state)
    weights = {name: float(metrics[f"weight_{name}"].sum) for name in TASKS}
    expected = jax.tree.map(lambda *g: sum(w * leaf for w, leaf in zip(weights.values(), g)), *plain.values())
    whole = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    assert float(jnp.linalg.norm(whole(change) - whole(expected))) <= 1e-4 * float(jnp.linalg.norm(whole(expected)))
    if method != "dwa":  # the same losses four times: the rate of decrease is 1 for every task
        assert len({round(value, 5) for value in weights.values()}) == 3


def single(name):
    """The config that trains one task alone."""
    groups = {
        other: dataclasses.replace(getattr(Config(), other), weight=TASKS[other] * (other == name)) for other in TASKS
    }
    return dataclasses.replace(configure(), **groups)


def test_a_single_task_leaves_the_others_parameters_alone(params, make_batch):
    outline, metrics, _ = run(gradient_road, params, make_batch(), single("segmentation"))
    assert set(metrics) == {"loss", "loss_segmentation"}
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(outline["heads"])) == 0
    grade, metrics, _ = run(gradient_road, params, make_batch(), single("grading"))
    assert set(metrics) == {"loss", "loss_grading"}
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grade["decoder"])) == 0
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grade["encoder"])) > 0


@pytest.mark.parametrize("method", ["gls", "dwa", "mgda"])
def test_a_batch_without_any_label_of_a_task_is_plain_and_teaches_the_method_nothing(method, params, make_batch):
    batch = make_batch()._replace(grade_valid=np.zeros(3, bool))
    state = init(method, 3) if method in SCALARIZERS else ()
    change, metrics, new = run(gradient_road, params, batch, configure(method=method), state)
    assert [float(metrics[f"weight_{name}"].sum) for name in TASKS] == [1, 1, 1]
    assert_close(change, run(gradient_road, params, batch, configure())[0], 1e-4)
    chex.assert_trees_all_equal(new, state)


def test_cosreg_against_finite_differences(params, make_batch, x64):
    config = configure(cosreg=2.0)
    params, batch = double_precision(params), double_precision(make_batch())
    value = jax.jit(lambda p: objective(p, batch, config)[0])
    change, metrics, _ = run(gradient_road, params, batch, config)
    assert 1e-6 < float(metrics["cosreg"].sum) <= 1
    rng = np.random.default_rng(0)
    direction = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
    moved = lambda t: jax.tree.map(lambda p, q: p + t * q, params, direction)
    numeric = (value(moved(1e-6)) - value(moved(-1e-6))) / 2e-6
    exact = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), change, direction)))
    assert float(exact) == pytest.approx(float(numeric), rel=1e-6)


def encoder_convolutions(road, params, batch, config):
    compiled = (
        jax.jit(lambda p: road(p, batch, config, ALL_ON, (), jax.random.key(0))[0]).lower(params).compile().as_text()
    )
    return sum(" convolution(" in line and "Encoder" in line for line in compiled.splitlines())


def test_no_method_at_the_latent_passes_through_the_encoder_twice(params, make_batch):
    plain = encoder_convolutions(gradient_road, params, make_batch(), configure())
    assert plain >= 7
    for config in (configure({"weight": 1.0, "derivative": "forward"}), configure(method="mgda")):
        assert encoder_convolutions(gradient_road, params, make_batch(), config) == plain
    assert encoder_convolutions(gradient_road, params, make_batch(), configure(method="mgda", at="parameters")) > plain


@pytest.mark.parametrize("method", ["rlw", "imtl_l", "gradnorm", "nash_mtl", "aligned_mtl"])
def test_methods_are_finite_on_batches_without_labels_and_on_saturated_ones(method, params, make_batch):
    batch, config = make_batch(), configure({"weight": 1.0}, method=method)
    state = init(method, 3) if method in SCALARIZERS else ()
    empty = batch._replace(example_valid=np.zeros(3, bool))
    step = jax.jit(lambda params, batch, state: gradient_road(params, batch, config, ALL_ON, state, jax.random.key(0)))
    large = jax.tree.map(lambda p: 30 * p, params)
    for these, data in ((params, empty), (large, batch), (params, batch._replace(mask=np.zeros_like(batch.mask)))):
        change, metrics, state = step(these, data, state)
        chex.assert_tree_all_finite((change, metrics["loss"]))


def test_half_precision_networks_have_float32_gradients_by_either_road(params, make_batch):
    bf16 = dataclasses.replace(TINY, dtype="bfloat16")
    reverse, forward = (
        run(road, params, make_batch(), dataclasses.replace(configure({"weight": 1.0}), model=bf16))[0]
        for road in (by_scalar, by_task)
    )
    chex.assert_tree_all_finite(forward)
    assert {leaf.dtype for leaf in jax.tree.leaves(forward)} == {jnp.dtype("float32")}
    whole = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    assert float(jnp.linalg.norm(whole(forward) - whole(reverse))) < 0.05 * float(jnp.linalg.norm(whole(reverse)))
