"""The penalties: RLAR's directions at any level and held ones, the shape consistency and whom it moves, CosReg."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, double_precision, flat, forward_over_reverse, params_of

from thyroid_jax import model
from thyroid_jax.errors import InputError
from thyroid_jax.losses import consistency, rlar
from thyroid_jax.mtl.gradients import alignment
from thyroid_jax.penalties import PENALTIES, ConsistencyConfig, CosRegConfig, RLARConfig, directions_at
from thyroid_jax.radiomics import soft
from thyroid_jax.recipe import example_losses
from thyroid_jax.train import objective
from thyroid_jax.train.diagnose import directions_of
from thyroid_jax.train.objective import view_of

CONSISTENT = {"weight": 2.0, "warmup": 0.0, "ramp": 0.0, "min_pixels": 5.0}
value_and_gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))
value_of = jax.jit(objective)


@pytest.fixture(scope="module")
def params(tiny_recipe):
    return params_of(tiny_recipe(consistency=CONSISTENT))


def losses_from(level, params, recipe, batch):
    """Each task's per-example loss as a function of (all parameters, features at a level)."""
    latent = model.encode(params, recipe.model, batch.image)

    def loss(task, params, features):
        behind = model.encode_from(params, recipe.model, latent, level, features)
        return example_losses(task, params, behind, batch, recipe)

    tasks = {task.name: lambda p, x, task=task: loss(task, p, x) for task in recipe.tasks}
    return tasks, model.features_at(recipe.model, latent, level)


@pytest.mark.parametrize("level", ["stride2", "latent"])
@pytest.mark.parametrize("space", ["channel", "full"])
def test_directions_at_a_level_are_derivatives_by_an_offset_added_there(level, space, params, tiny_recipe, make_batch):
    recipe, batch = tiny_recipe(), make_batch()

    @jax.jit
    def expected(params):
        tasks, features = losses_from(level, params, recipe, batch)
        chosen = {name: lambda x, task=tasks[name]: task(params, x) for name in ("segmentation", "grading")}
        return rlar.adversarial_directions(chosen, features, space=space)

    found = directions_of(params, batch, recipe, level=level, space=space)
    assert_close(found._asdict(), expected(params)._asdict(), 1e-4)


def test_an_offset_at_a_level_moves_each_loss_as_its_direction_says(params, tiny_recipe, make_batch, x64):
    """Finite differences in float64: a constant offset in R^c added at stride 2, through the rest of the network."""
    recipe, batch = double_precision(tiny_recipe()), double_precision(make_batch())
    params = double_precision(params)
    directions = jax.device_get(directions_of(params, batch, recipe, level="stride2"))
    offset = np.random.default_rng(0).normal(size=(3, directions.unit.shape[-1]))
    names = ("segmentation", "grading")

    @jax.jit
    def moved(by):
        tasks, features = losses_from("stride2", params, recipe, batch)
        return [tasks[name](params, features + by[:, None, None, :]) for name in names]

    after, before = jax.device_get((moved(1e-6 * offset), moved(-1e-6 * offset)))
    for place in range(len(names)):
        slope = (directions.unit[place] * directions.norm[place][:, None] * offset).sum(-1)
        np.testing.assert_allclose((after[place] - before[place]) / 2e-6, slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("fields", [
    {"kind": "hinge", "margin": -0.5}, {"kind": "square", "space": "full"},
    {"kind": "abs", "tasks": ("segmentation", "grading", "guidance")}, {"kind": "square", "hold": ("segmentation",)},
], ids=["hinge", "full space", "three tasks", "outline held"])  # fmt: skip
def test_the_penaltys_gradient_is_that_of_forward_over_reverse(fields, params, tiny_recipe, make_batch, x64):
    """The library differentiates the directions by reverse mode; the judge takes directional derivatives instead."""
    recipe = double_precision(tiny_recipe(rlar={"weight": 3.0, "ramp": 0.0} | fields))
    batch, params = double_precision(make_batch(b=2)), double_precision(params)
    chosen = recipe.settings["rlar"]
    tasks, z = losses_from("latent", params, recipe, batch)

    @jax.jit
    def by_the_judge(params, z):
        penalty = lambda found: rlar.angular_penalty(found.unit, kind=chosen.kind, margin=chosen.margin).mean()
        compared = {name: tasks[name] for name in chosen.tasks}
        return forward_over_reverse(compared, params, z, penalty, space=chosen.space, hold=chosen.hold)

    @jax.jit
    def by_the_library(params, z):
        penalty = next(penalty for penalty in PENALTIES if penalty.name == "rlar")

        def value(params, z):
            latent = model.encode(jax.lax.stop_gradient(params), recipe.model, batch.image)._replace(z=z)
            total, count = penalty.value(view_of(params, latent, batch, recipe), recipe)[0]
            return total / count

        return jax.value_and_grad(value, argnums=(0, 1))(params, z)

    expected, of_parameters, of_latent = by_the_judge(params, z)
    value, gradient = by_the_library(params, z)
    assert float(value) == pytest.approx(float(expected), rel=1e-10) and float(value) > 1e-7
    assert_close(gradient, (of_parameters, of_latent), 1e-9)


def test_a_held_direction_does_not_turn_but_the_others_do(params, tiny_recipe, make_batch, x64):
    """Against the penalty with the held direction computed apart and put in as a constant."""
    groups = {"malignancy": {"weight": 0.0}, "guidance": {"weight": 0.0}}
    held = tiny_recipe(rlar={"weight": 3.0, "kind": "square", "hold": ("grading",), "ramp": 0.0}, **groups)
    recipe, params, batch = double_precision(held), double_precision(params), double_precision(make_batch(b=2))
    constant = directions_of(params, batch, recipe).unit[1:]

    def by_hand(params):
        latent = model.encode(params, recipe.model, batch.image)
        view = view_of(params, latent, batch, recipe)
        unit = directions_at(view, recipe, "latent", ("segmentation", "grading"), space="channel").unit[:1]
        penalty = rlar.angular_penalty(jnp.concatenate([unit, constant]), kind="square").mean()
        return sum(view.losses[name].mean() for name in ("segmentation", "grading")) + 3.0 * penalty

    gradient = value_and_gradient(params, batch, recipe)[1]
    assert_close(gradient, jax.jit(jax.grad(by_hand))(params), 1e-9)


def test_the_consistency_is_added_as_the_paper_writes_it(params, tiny_recipe, make_batch):
    batch, plain = make_batch(), tiny_recipe()
    recipe = tiny_recipe(total_steps=100.0, consistency=CONSISTENT | {"ramp": 1.0})

    @jax.jit
    def by_hand(params):
        outputs = model.apply(params, recipe.model, batch.image)
        mask, malignant = jax.nn.sigmoid(outputs.mask_logits), jax.nn.sigmoid(outputs.malignant_logit)
        phi = consistency.malignancy_prior(params["heads"]["prior"], soft.morphology(mask))
        return (mask > 0.5).sum((1, 2)), ((malignant - phi) ** 2).mean(), consistency.products(phi, batch.malignant)

    areas, distance, products_by_hand = jax.device_get(by_hand(params))
    assert (areas > 5).all()
    expected = float(value_of(params, batch, plain)[0]) + 2.0 * 0.5 * float(distance)
    value, metrics = value_of(params, batch, recipe, step=50)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    unlabelled = batch._replace(malignant_valid=np.array([True, False, True]))
    products = value_of(params, unlabelled, recipe, step=50)[1]["prior_products"]
    assert float(products.count) == 2
    expected = products_by_hand[[0, 2]].sum(0)
    np.testing.assert_allclose(products.sum, expected, rtol=1e-5, atol=1e-7)
    assert float(metrics["prior_weight_non_compactness"].sum) == pytest.approx(1.0)


def test_small_masks_and_padding_have_no_consistency(params, tiny_recipe, make_batch):
    batch, recipe = make_batch(), tiny_recipe(consistency=CONSISTENT)
    padded = jax.tree.map(lambda a: np.concatenate([a, np.zeros((2, *a.shape[1:]), a.dtype)]), batch)
    (value, _), gradient = value_and_gradient(params, batch, recipe)
    (same, _), same_gradient = value_and_gradient(params, padded, recipe)
    assert float(same) == pytest.approx(float(value), rel=1e-4)
    chex.assert_trees_all_close(gradient, same_gradient, rtol=1e-3, atol=1e-5)
    none_is_large = tiny_recipe(consistency=CONSISTENT | {"min_pixels": 1e4})
    (value, metrics), gradient = value_and_gradient(params, batch, none_is_large)
    assert float(metrics["consistency"].count) == 0
    assert float(value) == pytest.approx(float(value_of(params, batch, tiny_recipe())[0]), rel=1e-5)
    assert float(np.abs(flat(gradient["heads"]["prior"])).max()) == 0


def test_who_moves_can_be_chosen(params, tiny_recipe, make_batch):
    batch = make_batch()
    plain, head, mask, both = jax.device_get(
        [
            value_and_gradient(params, batch, tiny_recipe(**groups))[1]
            for groups in (
                {},
                *({"consistency": CONSISTENT | {"gradient": gradient}} for gradient in ("head", "mask", "both")),
            )
        ]
    )
    moved = lambda one, part: float(np.abs(flat(one[part]) - flat(plain[part])).max())
    assert moved(head, "decoder") == 0 < moved(mask, "decoder")
    assert float(np.abs(flat(head["heads"]["prior"])).max()) == 0
    assert float(np.abs(mask["heads"]["prior"]["weight"]).max()) > 0
    chex.assert_trees_all_equal(mask["heads"]["malignant"], plain["heads"]["malignant"])
    assert float(np.abs(flat(head["heads"]["malignant"]) - flat(plain["heads"]["malignant"])).max()) > 1e-6
    chex.assert_trees_all_close(jax.tree.map(lambda h, m, p: h + m - p, head, mask, plain), both, rtol=1e-3, atol=1e-5)
    assert float(np.abs(both["heads"]["prior"]["centre"]).max()) == 0


def test_cosreg_is_the_alignment_of_the_tasks_gradients_in_the_encoder(params, tiny_recipe, make_batch):
    batch, recipe = make_batch(), tiny_recipe(cosreg={"weight": 1.0}, guidance={"weight": 0.0})
    _, metrics = value_of(params, batch, recipe)

    def mean_loss(encoder, task):
        latent = model.encode(params | {"encoder": encoder}, recipe.model, batch.image)
        return example_losses(task, params, latent, batch, recipe).mean()

    of_tasks = lambda encoder: [jax.grad(mean_loss)(encoder, task) for task in recipe.tasks]
    expected = jax.jit(lambda encoder: alignment(of_tasks(encoder)))(params["encoder"])
    assert float(metrics["cosreg"].sum) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("make, message", [
    (lambda: RLARConfig(tasks=("segmentation",)), r"rlar\.tasks is .*at least two tasks"),
    (lambda: RLARConfig(tasks=("grading", "grading")), r"rlar\.tasks is .*each once"),
    (lambda: RLARConfig(hold=("guidance",)), r"rlar\.hold is"),
    (lambda: RLARConfig(hold=("segmentation", "grading")), r"rlar\.hold is .*one at least must turn"),
    (lambda: RLARConfig(kind="square", margin=0.3), r"rlar\.kind square has no margin"),
    (lambda: RLARConfig(margin=1.5), r"rlar\.margin is 1\.5"),
    (lambda: RLARConfig(weight=-1.0), r"rlar\.weight is -1"),
    (lambda: ConsistencyConfig(features=("elongation", "roundness")), r"consistency\.features names 'roundness'"),
    (lambda: ConsistencyConfig(features=()), r"consistency\.features names nothing"),
    (lambda: ConsistencyConfig(warmup=1.5), r"consistency\.warmup is 1\.5"),
    (lambda: CosRegConfig(weight=float("nan")), r"cosreg\.weight is nan"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_level_that_the_encoder_lacks_is_refused(params, tiny_recipe, make_batch):
    with pytest.raises(
        InputError, match=r"rlar\.level: the encoder has no level 'stride16'; choose one of stride2, la"
    ):
        tiny_recipe(rlar={"weight": 1.0, "level": "stride16"})
    assert tiny_recipe(rlar={"level": "stride16"}).penalties == ()
    recipe = tiny_recipe(rlar={"weight": 1.0}).with_settings("rlar", level="stride16")
    with pytest.raises(InputError, match="no level 'stride16'; choose one of stride2, latent"):
        jax.eval_shape(objective, params, make_batch(), recipe)


def test_every_penaltys_settings_have_its_name():
    from thyroid_jax.penalties import PenaltySettings

    assert {penalty.name for penalty in PENALTIES} == {field.name for field in dataclasses.fields(PenaltySettings)}
