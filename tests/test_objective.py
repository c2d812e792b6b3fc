"""The objective: its parts, its gradient, and what must not change it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_directional_derivative, double_precision, params_of

from thyroid_jax import model
from thyroid_jax.losses import grading, guidance, malignancy, rlar, segmentation
from thyroid_jax.losses.reduce import Pair
from thyroid_jax.recipe import Fitted
from thyroid_jax.train import objective
from thyroid_jax.train.objective import mean_parts, scheduled_weight

value_and_gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))
value_of = jax.jit(objective)


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return tiny_recipe(rlar={"weight": 5.0, "ramp": 0.0})


@pytest.fixture(scope="module")
def params(recipe):
    return params_of(recipe)


def padded(batch, rows):
    """The batch with rows of zeros below it, every flag False."""
    return jax.tree.map(lambda a: np.concatenate([a, np.zeros((rows, *a.shape[1:]), a.dtype)]), batch)


def test_it_is_the_weighted_sum_of_the_papers_terms(params, tiny_recipe, make_batch):
    batch, shape = make_batch(), tiny_recipe().model
    weights = np.array([0.5, 1.0, 2.0, 1.0, 0.5], np.float32)
    fitted = Fitted.neutral(5, 13)._replace(
        class_weights=weights, malignant_weights=np.float32([0.75, 1.5]), total_steps=np.array(100, np.float32)
    )
    recipe = tiny_recipe(
        segmentation={"weight": 0.8, "bce": 0.3, "dice": 0.7},
        malignancy={"weight": 0.6},
        guidance={"beta": 0.5},
        rlar={"weight": 5.0, "ramp": 1.0},
    ).replace(fitted=fitted)

    @jax.jit
    def by_hand(params):
        latent = model.encode(params, shape, batch.image)
        embed = lambda z: model.embed(params, shape, latent._replace(z=z))
        logits = lambda z: model.decode(params, shape, latent._replace(z=z))
        outline = lambda z: (
            0.3 * segmentation.bce(logits(z), batch.mask) + 0.7 * segmentation.soft_dice(logits(z), batch.mask)
        )
        classified = lambda z: model.classify(params, shape, embed(z))
        grade = lambda z: grading.cross_entropy(classified(z), batch.grade, class_weights=weights)
        malignant = malignancy.malignancy(
            model.malignancy(params, shape, embed(latent.z)), batch.malignant, class_weights=(0.75, 1.5)
        )
        target = guidance.guidance(model.predict_radiomics(params, shape, embed(latent.z)), batch.radiomics, beta=0.5)
        angle = rlar.angular_penalty(rlar.adversarial_directions({"s": outline, "g": grade}, latent.z).unit)
        return outline(latent.z), grade(latent.z), malignant, target, angle

    outline, grade, malignant, target, angle = jax.device_get(by_hand(params))
    expected = 0.8 * outline.mean() + grade.mean() + 0.6 * malignant.mean()
    expected += 0.1 * target.mean() + 5.0 * 0.25 * angle.mean()
    value, metrics = value_of(params, batch, recipe, step=25)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics["loss"].sum) == float(value)
    assert float(metrics["loss_grading"].sum) == pytest.approx(float(grade.sum()), rel=1e-5)
    assert float(metrics["rlar"].sum) == pytest.approx(float(angle.sum()), rel=1e-4)


def test_padding_changes_nothing(params, recipe, make_batch):
    batch = make_batch()
    (value, metrics), gradient = value_and_gradient(params, batch, recipe)
    (same, same_metrics), same_gradient = value_and_gradient(params, padded(batch, 2), recipe)
    chex.assert_trees_all_close((value, metrics), (same, same_metrics), rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(gradient, same_gradient, rtol=1e-3, atol=1e-5)


def test_order_changes_nothing(params, recipe, make_batch):
    batch = make_batch()
    (value, _), gradient = value_and_gradient(params, batch, recipe)
    (same, _), same_gradient = value_and_gradient(params, jax.tree.map(lambda a: a[::-1], batch), recipe)
    chex.assert_trees_all_close(value, same, rtol=1e-5)
    chex.assert_trees_all_close(gradient, same_gradient, rtol=1e-3, atol=1e-5)


def test_a_missing_label_counts_in_no_mean_and_leaves_no_direction(params, recipe, make_batch):
    batch, hole = make_batch(), np.array([True, False, True])
    flags = ("mask_valid", "grade_valid", "malignant_valid", "radiomics_valid")
    labels = ("mask", "grade", "malignant", "radiomics")
    blank = lambda a: np.where(hole.reshape(-1, *[1] * (a.ndim - 1)), a, np.nan)
    without = batch._replace(**dict.fromkeys(flags, hole), **{name: blank(getattr(batch, name)) for name in labels})
    (value, metrics), gradient = value_and_gradient(params, without, recipe)
    (same, same_metrics), _ = value_and_gradient(params, jax.tree.map(lambda a: a[[0, 2]], batch), recipe)
    chex.assert_trees_all_close((value, metrics), (same, same_metrics), rtol=1e-4, atol=1e-6)
    chex.assert_tree_all_finite(gradient)
    assert float(metrics["rlar"].count) == 2


def test_no_label_at_all_is_a_zero_with_a_zero_gradient(params, recipe, make_batch):
    batch = make_batch()._replace(example_valid=np.zeros(3, bool))
    (value, _), gradient = value_and_gradient(params, batch, recipe)
    assert float(value) == 0
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) == 0


@pytest.mark.parametrize("groups", [
    {"rlar": {"weight": 5.0, "kind": "abs", "ramp": 0.0}},
    {"rlar": {"weight": 5.0, "kind": "square", "space": "full", "level": "stride2", "ramp": 0.0}},
    {"consistency": {"weight": 2.0, "warmup": 0.0, "ramp": 0.0, "min_pixels": 5.0}, "cosreg": {"weight": 2.0},
     "grading": {"weight": 0.0}, "guidance": {"weight": 0.0}},
], ids=["angles at the latent", "angles at stride2", "shape consistency and CosReg"])  # fmt: skip
def test_whole_gradient_against_finite_differences(groups, tiny_recipe, make_batch, x64):
    """Second order included, in float64, along random directions in parameter space."""
    recipe = double_precision(tiny_recipe(**groups))
    params, batch = double_precision(params_of(recipe)), double_precision(make_batch())
    (_, metrics), gradient = value_and_gradient(params, batch, recipe)
    for penalty in recipe.penalties:
        assert float(metrics[penalty.name].sum / metrics[penalty.name].count) > 1e-5
    check_directional_derivative(lambda p: value_of(p, batch, recipe)[0], gradient, params)


def test_no_second_pass_through_the_encoder(params, recipe, tiny_recipe, make_batch):
    """Directions are taken at the latent: the compiled gradient holds each encoder convolution as often as plain."""
    counts = []
    for each in (recipe, tiny_recipe()):
        compiled = value_and_gradient.lower(params, make_batch(), each).compile().as_text()
        counts.append(sum(" convolution(" in line and "Residual" in line for line in compiled.splitlines()))
    with_penalty, plain = counts
    assert (
        plain >= 7
    )  # one before the levels, two in each block, one in the second block's shortcut, at least once each
    assert with_penalty == plain


def test_a_third_task_and_corn_fit_in(params, tiny_recipe, make_batch):
    tasks = ("segmentation", "grading", "guidance")
    recipe = tiny_recipe(rlar={"weight": 1.0, "tasks": tasks}, grading={"kind": "corn"})
    value, metrics = value_of(params, make_batch(), recipe)
    assert np.isfinite(value)
    assert "latent_gradient_guidance" in metrics


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_saturated_images_and_half_precision_stay_finite(params, tiny_recipe, make_batch, dtype):
    recipe = tiny_recipe(rlar={"weight": 5.0, "ramp": 0.0}, model={"dtype": dtype})
    batch, large = make_batch(), jax.tree.map(lambda p: 30 * np.asarray(p), params)
    for image in (np.zeros_like(batch.image), np.ones_like(batch.image)):
        (value, _), gradient = value_and_gradient(large, batch._replace(image=image), recipe)
        assert np.isfinite(value)
        chex.assert_tree_all_finite(gradient)


def test_means_of_the_metrics_are_the_losses(params, tiny_recipe, make_batch):
    value, metrics = value_of(params, make_batch(), tiny_recipe())
    weights = {"segmentation": 1.0, "grading": 1.0, "malignancy": 1.0, "guidance": 0.1}
    assert {name for name in metrics if name.startswith("loss_")} == {f"loss_{name}" for name in weights}
    mean = lambda pair: float(pair.sum / pair.count)
    total = sum(weight * mean(metrics[f"loss_{name}"]) for name, weight in weights.items())
    assert float(value) == pytest.approx(total, rel=1e-6)


def test_a_task_or_penalty_of_weight_zero_is_not_computed(params, tiny_recipe, make_batch):
    recipe = tiny_recipe(grading={"weight": 0.0}, malignancy={"weight": 0.0}, guidance={"weight": 0.0})
    _, metrics = jax.eval_shape(objective, params, make_batch(), recipe)
    assert set(metrics) == {"loss", "loss_segmentation"}


def test_parts_are_sums_over_counts_and_nothing_counted_is_zero():
    pairs = {"a": Pair(jnp.float32(6.0), jnp.float32(4.0)), "b": Pair(jnp.float32(0.0), jnp.float32(0.0))}
    assert {name: float(value) for name, value in mean_parts(pairs, None).items()} == {"a": 1.5, "b": 0.0}


@pytest.mark.parametrize("warmup, ramp, expected", [
    (0.0, 0.1, [0, 0.5, 1, 1]), (0.1, 0.1, [0, 0, 0, 1]), (0.05, 0.0, [0, 1, 1, 1]), (0.0, 0.0, [1, 1, 1, 1])
])  # fmt: skip
def test_a_penaltys_weight_rises_by_step(tiny_recipe, warmup, ramp, expected):
    chosen = tiny_recipe(rlar={"weight": 2.0, "warmup": warmup, "ramp": ramp}).settings["rlar"]
    found = [float(scheduled_weight(chosen, step, 1000.0)) for step in (0, 50, 100, 900)]
    assert found == pytest.approx([2 * share for share in expected], abs=1e-6)
    assert float(scheduled_weight(chosen, 0, 0.0)) == 2  # steps called by hand: no schedule
