"""A step's gradient, task by task or of one number, against the objective and against gradients written out by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, double_precision, flat, params_of

from thyroid_jax import model
from thyroid_jax.losses import masked_mean
from thyroid_jax.mtl.scalarize import SCALARIZERS, init
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.recipe import example_losses
from thyroid_jax.train import objective
from thyroid_jax.train.gradient import by_task, gradient, of_objective

NAMES = ("segmentation", "grading", "malignancy", "guidance")
WEIGHTS = dict(zip(NAMES, (1.0, 1.0, 1.0, 0.1)))
PENALISED = {"rlar": {"weight": 3.0, "kind": "square", "ramp": 0.0}}
CONSISTENT = {"consistency": {"weight": 2.0, "warmup": 0.0, "ramp": 0.0, "min_pixels": 5.0}}


@jax.jit
def run(params, batch, recipe, mtl_state=()):
    return gradient(params, batch, recipe, mtl_state=mtl_state, key=jax.random.key(3))


@pytest.fixture(scope="module")
def params(tiny_recipe):
    return params_of(tiny_recipe(**CONSISTENT))


@pytest.fixture(scope="module")
def uneven(make_batch):
    """A batch in which labels are missing here and there: the tasks' means run over different examples."""
    flags = lambda *missing: np.array([place not in missing for place in range(4)])
    return make_batch(b=4)._replace(
        mask_valid=flags(1), grade_valid=flags(2), malignant_valid=flags(0, 1), radiomics_valid=flags(3)
    )


@pytest.mark.parametrize(
    "groups",
    [PENALISED | {"guidance": {"weight": 0.0}}, CONSISTENT | {"grading": {"weight": 0.0}}],
    ids=["angular", "consistency"],
)
def test_task_by_task_and_of_one_number_are_the_gradient_of_the_objective(groups, params, tiny_recipe, uneven, x64):
    recipe = double_precision(tiny_recipe(**groups))
    params, batch = double_precision(params), double_precision(uneven)

    @jax.jit
    def each_way(params):
        one = of_objective(params, batch, recipe, 0, ())
        other = by_task(params, batch, recipe, 0, (), jax.random.key(0))
        return one, other, jax.grad(lambda p: objective(p, batch, recipe)[0])(params)

    one, other, expected = each_way(params)
    assert float(one.metrics[recipe.penalties[0].name].sum) > 1e-6
    assert_close(one.params, expected, 1e-10)
    assert_close(other.params, expected, 1e-10)
    chex.assert_trees_all_close(other.metrics, one.metrics, rtol=1e-10, atol=1e-13)


def hand_made(params, batch, recipe):
    """Tasks' gradients one by one with jax.grad, flattened; weights of their Gramian; put together again."""
    shape, at = recipe.model, recipe.settings["mtl"].at

    def mean_loss(task, params, latent=None):
        latent = model.encode(params, shape, batch.image) if latent is None else latent
        losses = example_losses(task, params, latent, batch, recipe)
        return WEIGHTS[task.name] * masked_mean(losses, task.defined(batch))

    whole = [jax.grad(lambda p, t=task: mean_loss(t, p))(params) for task in recipe.tasks]
    latent = model.encode(params, shape, batch.image)
    if at == "parameters":
        jacobian = jnp.stack([flat(gradient["encoder"]) for gradient in whole])
    else:
        jacobian = jnp.stack([flat(jax.grad(lambda z, t=t: mean_loss(t, params, z))(latent)) for t in recipe.tasks])
    weights = WEIGHERS[recipe.settings["mtl"].method](jacobian @ jacobian.T, key=jax.random.key(3))
    weights = len(weights) * weights / weights.sum()
    encoder = jax.tree.map(lambda *g: sum(w * x for w, x in zip(weights, g)), *[g["encoder"] for g in whole])
    rest = jax.tree.map(lambda *g: sum(g), *[{name: g[name] for name in ("decoder", "heads")} for g in whole])
    return {"encoder": encoder, **rest}, weights


@pytest.mark.parametrize("method, at", [("mgda", "latent"), ("pcgrad", "parameters")])
def test_gradient_weighers_act_on_the_encoder_and_leave_decoder_and_heads_to_their_tasks(
    method, at, params, tiny_recipe, uneven, x64
):
    recipe = double_precision(tiny_recipe(mtl={"method": method, "at": at}))
    params, batch = double_precision(params), double_precision(uneven)
    change, metrics, _ = run(params, batch, recipe)
    expected, weights = jax.jit(hand_made)(params, batch, recipe)
    assert_close(change, expected, 1e-7)
    np.testing.assert_allclose([metrics[f"weight_{name}"].sum for name in NAMES], weights, rtol=1e-7)


@pytest.mark.parametrize("at", ["latent", "parameters"])
def test_the_penalty_is_added_unweighed(at, params, tiny_recipe, make_batch, x64):
    params, batch = double_precision(params), double_precision(make_batch())
    two = {"malignancy": {"weight": 0.0}, "guidance": {"weight": 0.0}}
    weighed = {"mtl": {"method": "mgda", "at": at}}
    found = [
        run(params, batch, double_precision(tiny_recipe(**two, **groups))).params
        for groups in (weighed | PENALISED, weighed, PENALISED, {})
    ]
    both, weighed_alone, penalised, plain = jax.device_get(found)
    assert_close(both, jax.tree.map(lambda w, r, p: w + r - p, weighed_alone, penalised, plain), 1e-8)


@pytest.fixture(scope="module")
def reweighed_gradient(tiny_recipe, make_batch):
    """Gradient of the tasks' weighted mean losses times the given weights, written out."""
    batch, plain = make_batch(), tiny_recipe()
    settings = {name: plain.settings[name].__class__(weight=WEIGHTS[name]) for name in NAMES}
    fresh = plain.replace(settings=plain.settings | settings)

    @jax.jit
    @jax.grad
    def by_hand(params, weights):
        latent = model.encode(params, fresh.model, batch.image)
        losses = [
            weights[t.name] * WEIGHTS[t.name] * example_losses(t, params, latent, batch, fresh) for t in fresh.tasks
        ]
        return sum(loss.mean() for loss in losses)

    return by_hand


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "gradnorm", "famo"])
def test_scalarizers_weigh_the_losses_and_carry_their_state(
    method, params, tiny_recipe, make_batch, reweighed_gradient
):
    batch, recipe = make_batch(), tiny_recipe(mtl={"method": method})
    state = init(method, 4, steps_per_epoch=1)
    for _ in range(4):  # past the epochs in which dwa waits
        change, metrics, state = run(params, batch, recipe, state)
    weights = {name: float(metrics[f"weight_{name}"].sum) for name in NAMES}
    hand = reweighed_gradient(params, weights)
    distance = float(np.linalg.norm(flat(change) - flat(hand)))
    assert distance <= 1e-4 * float(np.linalg.norm(flat(hand)))
    if method != "dwa":  # the same losses four times: the rate of decrease is 1 for every task
        assert len({round(value, 5) for value in weights.values()}) == 4


def test_a_single_task_leaves_the_others_parameters_alone(params, tiny_recipe, make_batch):
    only = lambda name: {other: {"weight": 0.0} for other in NAMES if other != name}
    outline = run(params, make_batch(), tiny_recipe(**only("segmentation")))
    assert set(outline.metrics) == {"loss", "loss_segmentation"}
    assert float(np.abs(flat(outline.params["heads"])).max()) == 0
    grade = run(params, make_batch(), tiny_recipe(train={"monitor": "accuracy"}, **only("grading")))
    assert set(grade.metrics) == {"loss", "loss_grading"}
    assert float(np.abs(flat(grade.params["decoder"])).max()) == 0
    assert float(np.abs(flat(grade.params["heads"]["malignant"])).max()) == 0
    assert float(np.abs(flat(grade.params["encoder"])).max()) > 0


@pytest.mark.parametrize("method", ["gls", "dwa", "mgda"])
def test_a_batch_without_any_label_of_a_task_is_plain_and_teaches_the_method_nothing(
    method, params, tiny_recipe, make_batch
):
    batch = make_batch()._replace(grade_valid=np.zeros(3, bool))
    state = init(method, 4) if method in SCALARIZERS else ()
    change, metrics, new = run(params, batch, tiny_recipe(mtl={"method": method}), state)
    assert [float(metrics[f"weight_{name}"].sum) for name in NAMES] == [1, 1, 1, 1]
    assert_close(change, run(params, batch, tiny_recipe()).params, 1e-4, floor=1e-6)
    chex.assert_trees_all_equal(new, state)


def encoder_convolutions(params, batch, recipe):
    compiled = run.lower(params, batch, recipe).compile().as_text()
    return sum(" convolution(" in line and "Residual" in line for line in compiled.splitlines())


def test_no_method_at_the_latent_passes_through_the_encoder_twice(params, tiny_recipe, make_batch):
    plain = encoder_convolutions(params, make_batch(), tiny_recipe())
    assert plain >= 7
    assert encoder_convolutions(params, make_batch(), tiny_recipe(mtl={"method": "mgda"})) == plain


def test_methods_at_the_parameters_pass_back_once_for_every_task(params, tiny_recipe, make_batch):
    """t tasks need t - 1 backward passes more than plain training: three times as many for four as for two."""
    flops = lambda recipe: run.lower(params, make_batch(), recipe).compile().cost_analysis()["flops"]
    two = {"malignancy": {"weight": 0.0}, "guidance": {"weight": 0.0}}
    at_parameters = {"mtl": {"method": "mgda", "at": "parameters"}}
    of_two = flops(tiny_recipe(**two, **at_parameters)) - flops(tiny_recipe(**two))
    of_four = flops(tiny_recipe(**at_parameters)) - flops(tiny_recipe())
    assert of_four / of_two == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("method", ["rlw", "gradnorm", "nash_mtl"])
def test_methods_are_finite_on_batches_without_labels_and_on_saturated_ones(method, params, tiny_recipe, make_batch):
    batch, recipe = make_batch(), tiny_recipe(mtl={"method": method}, **PENALISED)
    state = init(method, 4) if method in SCALARIZERS else ()
    empty, blank = batch._replace(example_valid=np.zeros(3, bool)), batch._replace(mask=np.zeros_like(batch.mask))
    large = jax.tree.map(lambda p: 30 * np.asarray(p), params)
    for these, data in ((params, empty), (large, batch), (params, blank)):
        change, metrics, state = run(these, data, recipe, state)
        chex.assert_tree_all_finite((change, metrics["loss"]))


def test_half_precision_networks_have_float32_gradients_task_by_task(params, tiny_recipe, make_batch):
    half = {"model": {"dtype": "bfloat16"}}
    task_by_task = run(
        params, make_batch(), tiny_recipe(mtl={"method": "gradnorm"}, **half), init("gradnorm", 4)
    ).params
    of_one_number = run(params, make_batch(), tiny_recipe(**half)).params  # gradnorm's first weights are 1
    chex.assert_tree_all_finite(task_by_task)
    assert {leaf.dtype for leaf in jax.tree.leaves(task_by_task)} == {jnp.dtype("float32")}
    distance = float(np.linalg.norm(flat(task_by_task) - flat(of_one_number)))
    assert distance < 0.05 * float(np.linalg.norm(flat(of_one_number)))
