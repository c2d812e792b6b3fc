"""The diagnosis agrees with gradients taken by hand, adds up over batches, and ignores padding."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import flat, params_of

from thyroid_jax import model
from thyroid_jax.losses import rlar
from thyroid_jax.recipe import example_losses
from thyroid_jax.train import objective
from thyroid_jax.train.diagnose import BINS, diagnose, directions_of
from thyroid_jax.train.log import RunLog, read_log
from thyroid_jax.train.loop import add_up, averages
from thyroid_jax.train.step import in_unit_range, measured

WEIGHTS = {"segmentation": 1.0, "grading": 0.5, "malignancy": 1.0, "guidance": 0.1}
COMPARED = ("segmentation", "grading", "malignancy")
PLACES = [("stride2", "channel"), ("latent", "channel"), ("latent", "full")]
PLACES_OF_SHARES = ["penalty_share_latent_channel", "penalty_share_latent_full"]
value_and_gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return tiny_recipe(grading={"weight": 0.5}, rlar={"margin": 0.1, "tasks": COMPARED})


@pytest.fixture(scope="module")
def params(recipe):
    return params_of(recipe)


@pytest.fixture(scope="module")
def batch(make_batch):
    """Four examples, the malignancy of one is missing; and a fifth row that pads the batch, whatever it holds."""
    there = np.arange(5) < 4
    return make_batch(b=5)._replace(malignant_valid=np.array([True, True, False, True, True]), example_valid=there)


@pytest.fixture(scope="module")
def found(params, batch, recipe):
    return averages(add_up([jax.device_get(diagnose(params, batch, recipe))]))


def losses_behind(params, recipe, batch, level):
    """Each task's per-example loss as a function of the features at a level, and these features."""
    latent = model.encode(params, recipe.model, batch.image)

    def loss(task, features):
        behind = model.encode_from(params, recipe.model, latent, level, features)
        return example_losses(task, params, behind, batch, recipe)

    tasks = {task.name: lambda x, task=task: loss(task, x) for task in recipe.tasks}
    return tasks, model.features_at(recipe.model, latent, level)


@partial(jax.jit, static_argnames=("level", "space"))
def directions_behind(params, recipe, batch, level, space):
    """The compared tasks' directions by an offset that is added to the features of a level."""
    tasks, features = losses_behind(params, recipe, batch, level)
    return rlar.adversarial_directions({name: tasks[name] for name in COMPARED}, features, space=space)


@pytest.mark.parametrize("level, space", PLACES)
def test_angles_at_every_level_are_those_of_gradients_by_an_offset_there(level, space, found, params, batch, recipe):
    """Means over the examples on which all compared tasks are defined, and over the three pairs."""
    directions = directions_behind(params, recipe, batch, level, space)
    kept = np.array([0, 1, 3])
    s = np.asarray(rlar.cosines(directions.unit))[:, kept]
    place = f"{level}_{space}"
    assert found[f"cosine_{place}"] == pytest.approx(s.mean(), rel=1e-3, abs=1e-6)
    assert found[f"cosine_size_{place}"] == pytest.approx(np.abs(s).mean(), rel=1e-3)
    assert found[f"cosine_above_margin_{place}"] == pytest.approx((s > 0.1).mean())
    expected = np.histogram(s, bins=np.linspace(-1, 1, BINS + 1))[0] / s.size
    np.testing.assert_allclose(found[f"cosine_histogram_{place}"], expected, atol=1e-6)
    norm = np.asarray(directions.norm)[:, kept]
    for name, lengths in zip(COMPARED, norm):
        assert found[f"latent_gradient_{name}_{place}"] == pytest.approx(lengths.mean(), rel=1e-3)
    ratio = np.log10(norm[0] / norm[1]).mean()
    assert found[f"latent_gradient_ratio_{place}"] == pytest.approx(ratio, rel=1e-3, abs=1e-5)


def test_a_quantity_is_named_by_its_level_and_space(found):
    quantities = ["cosine", "cosine_size", "cosine_above_margin", "cosine_histogram", "latent_gradient_ratio"]
    quantities += [f"latent_gradient_{name}" for name in COMPARED]
    names = {f"{quantity}_{level}_{space}" for quantity in quantities for level, space in PLACES}
    names |= {"penalty_share_latent_channel", "penalty_share_latent_full"}
    names |= {f"parameter_gradient_{name}" for name in WEIGHTS}
    couples = ("segmentation_grading", "segmentation_malignancy", "segmentation_guidance", "grading_malignancy",
               "grading_guidance", "malignancy_guidance")  # fmt: skip
    names |= {f"parameter_cosine_{couple}" for couple in couples}
    assert set(found) == names | {f"gramian_eigenvalue_{number}" for number in (1, 2, 3, 4)}


def test_the_encoders_gramian_is_that_of_each_tasks_weighted_loss_alone(found, params, batch, recipe):
    def alone(name):
        only = recipe
        for other in WEIGHTS.keys() - {name}:
            only = only.with_settings(other, weight=0.0)
        return np.asarray(flat(value_and_gradient(params, batch, only)[1]["encoder"]))

    jacobian = np.stack([alone(name) for name in WEIGHTS])
    gram = jacobian @ jacobian.T
    lengths = np.sqrt(np.diag(gram))
    np.testing.assert_allclose([found[f"parameter_gradient_{name}"] for name in WEIGHTS], lengths, rtol=1e-3)
    for one, two in ((0, 1), (0, 2), (2, 3)):
        names = "_".join(list(WEIGHTS)[place] for place in (one, two))
        cosine = gram[one, two] / lengths[one] / lengths[two]
        assert found[f"parameter_cosine_{names}"] == pytest.approx(cosine, rel=1e-2, abs=1e-4)
    spectrum = np.linalg.eigvalsh(gram / np.trace(gram))
    np.testing.assert_allclose([found[f"gramian_eigenvalue_{i}"] for i in (1, 2, 3, 4)], spectrum, atol=1e-5)


@pytest.mark.parametrize("space", ["channel", "full"])
def test_the_penaltys_share_is_its_gradient_over_the_tasks_at_the_latent(space, found, params, batch, recipe):
    tasks, z = losses_behind(params, recipe, batch, "latent")
    where = batch.malignant_valid & batch.example_valid

    def penalty(z):
        unit = rlar.adversarial_directions({name: tasks[name] for name in COMPARED}, z, space=space).unit
        return rlar.angular_penalty(unit, margin=0.1, where=where).sum() / where.sum()

    def weighted(z):
        counts = {name: 4 for name in WEIGHTS} | {"malignancy": 3}
        return sum(WEIGHTS[name] * task(z).sum() / counts[name] for name, task in tasks.items())

    length = lambda function: float(jnp.linalg.norm(jax.jit(jax.grad(function))(z).ravel()))
    share = length(penalty) / length(weighted)
    assert share > 1e-5
    assert found[f"penalty_share_latent_{space}"] == pytest.approx(share, rel=1e-2)


def test_a_batch_without_a_tasks_labels_counts_nothing_of_that_task(params, batch, recipe):
    """Its gradient is 0 there, and as a measured value it would draw every mean over batches to 0."""
    without = batch._replace(malignant_valid=np.zeros(5, bool))
    one, other = (jax.device_get(diagnose(params, each, recipe)) for each in (batch, without))
    alone, both = averages(add_up([one])), averages(add_up([one, other]))
    of_malignancy = [name for name in alone if "parameter" in name and "malignancy" in name]
    assert len(of_malignancy) == 4
    for name in [*of_malignancy, *PLACES_OF_SHARES, "gramian_eigenvalue_1", "gramian_eigenvalue_4"]:
        assert both[name] == pytest.approx(alone[name], rel=1e-6), name
    name = "parameter_gradient_grading"
    assert both[name] == pytest.approx((alone[name] + averages(add_up([other]))[name]) / 2, rel=1e-5)


@pytest.mark.parametrize("level, space", PLACES)
def test_directions_of_a_batch_at_a_level(level, space, params, batch, recipe):
    expected = directions_behind(params, recipe, batch, level, space)
    as_bytes = batch._replace(mask=np.round(255 * batch.mask).astype(np.uint8))  # as it comes from the host
    directions = directions_of(params, as_bytes, recipe, level=level, space=space)
    chex.assert_trees_all_close(directions, expected, rtol=1e-3, atol=1e-5)
    assert float(jnp.abs(directions.unit[:, 4]).max()) == 0  # it pads the batch
    assert float(jnp.abs(directions.unit[2, 2]).max()) == 0  # no malignancy, no direction


def test_it_does_not_matter_whether_the_training_has_a_penalty(params, batch, recipe, tiny_recipe):
    """Hold, level, schedule and weight belong to the training; what is diagnosed is the representation."""
    trained = tiny_recipe(
        grading={"weight": 0.5},
        rlar={"weight": 3.0, "margin": 0.1, "tasks": COMPARED, "hold": ("grading",), "level": "stride2", "warmup": 0.5},
    )
    one, two = diagnose(params, batch, recipe), diagnose(params, batch, trained)
    chex.assert_trees_all_close(one, two, rtol=1e-4, atol=1e-6)


def test_the_guidance_target_is_that_of_the_images_where_a_step_measures_it(params, batch, recipe):
    """The loop's batches hold no target then: it is 0 in them, and their images and masks have 8 bits."""
    as_bytes = lambda array: np.round(255 * np.asarray(array)).astype(np.uint8)
    loaded = batch._replace(
        image=as_bytes(batch.image), mask=as_bytes(batch.mask), radiomics=np.zeros_like(batch.radiomics)
    )
    augmented = recipe.with_settings("guidance", view="augmented")
    target = measured(in_unit_range(loaded), recipe)
    assert np.asarray(target.radiomics_valid).any() and np.abs(target.radiomics).max() > 0.1
    wanted, found = diagnose(params, target, recipe), diagnose(params, loaded, augmented)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-6)
    without = diagnose(params, loaded, recipe)
    assert not np.allclose(found["parameter_gradient_guidance"].sum, without["parameter_gradient_guidance"].sum)


def test_what_pads_a_batch_does_not_matter(params, batch, recipe):
    blank = jax.tree.map(lambda a: np.concatenate([a[:4], np.zeros_like(a[4:])]), batch)
    chex.assert_trees_all_close(diagnose(params, blank, recipe), diagnose(params, batch, recipe), rtol=1e-5, atol=1e-7)


def test_without_a_common_label_no_angle_counts(params, batch, recipe):
    found = diagnose(params, batch._replace(grade_valid=np.zeros(5, bool)), recipe)
    assert {float(found[f"cosine_{level}_{space}"].count) for level, space in PLACES} == {0}
    chex.assert_tree_all_finite(found)


def test_sums_over_batches_keep_the_histogram_a_distribution(params, recipe, make_batch):
    seen = [jax.device_get(diagnose(params, make_batch(b=5, seed=seed), recipe)) for seed in range(3)]
    total = averages(add_up(seen))
    assert sum(total["cosine_histogram_latent_channel"]) == pytest.approx(1)
    assert len(total["cosine_histogram_stride2_channel"]) == BINS
    singly = [float(one["cosine_latent_full"].sum) / 5 for one in seen]
    assert total["cosine_latent_full"] == pytest.approx(np.mean(singly), rel=1e-5)


def test_batches_without_a_common_label_can_be_logged(params, batch, recipe, tmp_path):
    unlabelled = batch._replace(grade_valid=np.zeros(5, bool))
    found = averages(add_up([jax.device_get(diagnose(params, unlabelled, recipe))]))
    assert not any(name.startswith("cosine_histogram") for name in found)
    RunLog(tmp_path, after=0).add({"split": "diagnosis", "step": 1, **found})
    (row,) = read_log(tmp_path / "log.jsonl")
    assert row["cosine_latent_channel"] is None and row["parameter_gradient_segmentation"] > 0


def test_a_single_task_has_no_angles(params, batch, tiny_recipe):
    off = {name: {"weight": 0.0} for name in ("grading", "malignancy", "guidance")}
    found = diagnose(params, batch, tiny_recipe(**off))
    assert set(found) == {"parameter_gradient_segmentation", "gramian_eigenvalue_1"}
    assert float(found["gramian_eigenvalue_1"].sum) == pytest.approx(1)


def test_a_compared_task_that_is_not_trained_is_left_out(params, batch, tiny_recipe):
    """A run on a data set without malignancy labels can be diagnosed with what it has."""
    recipe = tiny_recipe(malignancy={"weight": 0.0}, guidance={"weight": 0.0}, rlar={"tasks": COMPARED})
    found = diagnose(params, batch, recipe)
    assert (
        "latent_gradient_grading_latent_channel" in found and "latent_gradient_malignancy_latent_channel" not in found
    )
    assert float(found["cosine_latent_channel"].count) == 4
