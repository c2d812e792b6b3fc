"""One update: the plain multitask step bit for bit without RLAR, one program for a sweep, donated state, learning."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import flat

from thyroid_jax import model
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data.augment import augment
from thyroid_jax.losses import grading, guidance, malignancy, masked_mean, segmentation
from thyroid_jax.model.encoders import efficientnet
from thyroid_jax.mtl import scalarize
from thyroid_jax.predict import forward, forward_both_ways
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Fitted, measure_evidence
from thyroid_jax.train import evaluate_step, init_state, objective, train_step, update
from thyroid_jax.train.optimizer import optimizer
from thyroid_jax.train.step import in_unit_range, measured, seen_by_the_network, unpacked

KEY = jax.random.key(0)
STILL = dict.fromkeys(("flip", "rotate", "scale", "shift", "gamma", "gain", "speckle", "blur", "shadow"), 0.0)
NAMES = ("segmentation", "grading", "malignancy", "guidance")
value_of = jax.jit(objective)
apply = jax.jit(model.apply, static_argnums=1)
evidence_of = jax.jit(measure_evidence)
seen_by = jax.jit(seen_by_the_network)


def test_rlar_weight_zero_is_the_plain_multitask_step_bit_for_bit(tiny_recipe, make_batch):
    """Against a step written out here without any of RLAR's code."""
    small = {"width": 2, "depth": 1, "groups": 1, "hidden": 4}
    recipe, batch = tiny_recipe(total_steps=20.0, model=small), make_batch(b=2, h=4, w=6)
    shape = recipe.model
    ones = jnp.ones(5)

    def plain_step(state, batch):
        key = jax.random.fold_in(state.key, state.step)
        image, mask = augment(key, batch.image, batch.mask, recipe.settings["augment"])
        flags = (batch.mask_valid, batch.grade_valid, batch.malignant_valid, batch.radiomics_valid)
        seg, cls, mal, rad = (flag & batch.example_valid for flag in flags)

        def loss(params):
            latent = model.encode(params, shape, image)
            embed = lambda: model.embed(params, shape, latent)
            logits = model.decode(params, shape, latent)
            outline = 0.5 * segmentation.bce(logits, mask, where=seg)
            outline = outline + 0.5 * segmentation.soft_dice(logits, mask, where=seg)
            logits = model.classify(params, shape, embed())
            grade = grading.cross_entropy(logits, batch.grade, class_weights=ones, where=cls)
            logit = model.malignancy(params, shape, embed())
            malignant = malignancy.malignancy(logit, batch.malignant, class_weights=ones[:2], where=mal)
            predicted = model.predict_radiomics(params, shape, embed())
            radiomics = guidance.guidance(predicted, batch.radiomics, where=rad)
            total = masked_mean(outline, seg) + masked_mean(grade, cls) + masked_mean(malignant, mal)
            return total + 0.1 * masked_mean(radiomics, rad)

        transform = optimizer(recipe.settings["optimizer"], recipe.fitted.total_steps)
        change, opt_state = transform.update(jax.grad(loss)(state.params), state.opt_state, state.params)
        return state._replace(
            step=state.step + 1, params=optax.apply_updates(state.params, change), opt_state=opt_state
        )

    state = init_state(recipe, KEY)
    state = state._replace(step=state.step + 5)  # past the first steps, so that rates and moments are not zero
    with (
        jax.disable_jit()
    ):  # operation by operation: what a compiler fuses, and so rounds, depends on what else it sees
        ours, _ = update(state, batch, recipe)
        plain = plain_step(state, batch)
    chex.assert_trees_all_equal(ours.params, plain.params)


def test_with_weight_the_penalty_changes_the_update(tiny_recipe, make_batch):
    states = []
    for groups in ({}, {"rlar": {"weight": 5.0, "ramp": 0.0}}):
        recipe = tiny_recipe(**groups)
        state, _ = train_step(init_state(recipe, KEY), make_batch(), recipe)
        states.append(flat(state.params["encoder"]))
    assert float(np.abs(states[0] - states[1]).max()) > 1e-6


def test_the_average_is_kept_beside_the_parameters_and_changes_nothing_of_their_training(tiny_recipe, make_batch):
    batch, ends = make_batch(), []
    for length in (0, 50):
        recipe = tiny_recipe(optimizer={"average": length})
        state = init_state(recipe, KEY)
        chex.assert_trees_all_equal(state.average, state.params if length else ())
        for _ in range(3):
            state, _ = train_step(state, batch, recipe)
        parts = state.packed()
        chex.assert_trees_all_equal(unpacked(parts), state)
        chex.assert_trees_all_equal(parts["params"], state.evaluated)
        ends.append(state)
    chex.assert_trees_all_close(ends[0].params, ends[1].params, rtol=1e-4, atol=1e-6)
    assert ends[0].evaluated is ends[0].params
    apart = flat(ends[1].evaluated) - flat(ends[1].params)
    assert 1e-5 < float(np.abs(apart).max()) < 1.0


def test_frozen_levels_stay_to_the_bit_and_the_rest_of_a_published_encoder_learns_slower(make_batch, monkeypatch):
    narrow = partial(efficientnet.EfficientNetLite, width=0.3, depth=0.3)
    monkeypatch.setitem(model.ENCODERS, "efficientnet_lite0", narrow)
    monkeypatch.setattr("thyroid_jax.model.network.encoder_levels", model.encoder_levels.__wrapped__)
    monkeypatch.setattr("thyroid_jax.train.step.encoder_levels", model.encoder_levels.__wrapped__)
    moved, step = {}, jax.jit(update)
    for rate in (1.0, 0.1):
        config = replace_groups(
            Config(),
            model={"encoder": "efficientnet_lite0", "frozen_levels": 2, "embedding": 16, "hidden": 16},
            train={"encoder_weights": "package"},
            optimizer={"encoder_rate": rate},
            augment=STILL,
        )
        recipe = recipe_of(config)
        state = init_state(recipe, KEY)
        before = jax.device_get(state.params)
        after, _ = step(state, make_batch(b=2, h=32, w=32), recipe)
        moved[rate] = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, jax.device_get(after.params))
    for name, level in model.encoder_levels.__wrapped__(recipe.model).items():
        change = jax.tree.leaves(moved[1.0]["encoder"][name])
        slower = jax.tree.leaves(moved[0.1]["encoder"][name])
        assert max(change) == 0 if level < 2 else max(change) > 0, name
        np.testing.assert_allclose(slower, 0.1 * np.array(change), rtol=1e-2, atol=1e-6)
    assert max(jax.tree.leaves(moved[0.1]["decoder"])) == max(jax.tree.leaves(moved[1.0]["decoder"])) > 0


def sweep():
    """Five weights, two learning rates and three folds: recipes of different numbers and different training parts."""
    for weight in (0.03, 0.1, 0.3, 1.0, 3.0):
        for rate in (1e-3, 3e-3):
            for fold in range(3):
                config = replace_groups(
                    Config(),
                    model=model.PRESETS["tiny"],
                    data={"fold": fold},
                    guidance={"weight": 0.1, "view": "original"},
                    rlar={"weight": weight, "margin": 0.01 * fold},
                    optimizer={"learning_rate": rate},
                    train={"seed": fold, "epochs": 10 + fold},
                )
                learned = Fitted.neutral(5, 13, total_steps=70.0 + fold)
                weights = np.linspace(0.5, 1.5 + fold, 5, dtype=np.float32)
                yield recipe_of(config, fitted=learned._replace(class_weights=weights))


def test_one_program_serves_a_sweep_and_its_state_is_donated(make_batch):
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(update, 1), donate_argnums=0)
    batch = make_batch()
    for seed, recipe in enumerate(sweep()):
        state = init_state(recipe, jax.random.key(seed))
        kept = jax.tree.leaves(state.params)[0]
        state, metrics = step(state, batch, recipe)
        assert kept.is_deleted() and np.isfinite(metrics["loss"].sum)
    assert seed == 29


def test_other_structures_are_other_programs(tiny_recipe):
    structure = lambda **groups: jax.tree.structure(tiny_recipe(**groups))
    plain = structure()
    assert structure(optimizer={"learning_rate": 1.0}) == plain == structure(segmentation={"weight": 0.3})
    for groups in ({"rlar": {"weight": 1.0}}, {"grading": {"kind": "corn"}}, {"grading": {"weight": 0.0}},
                   {"mtl": {"method": "gls"}}, {"model": {"width": 8}}):  # fmt: skip
        assert structure(**groups) != plain


def test_a_step_is_a_function_of_state_and_batch(tiny_recipe, make_batch):
    recipe = tiny_recipe()
    one, _ = train_step(init_state(recipe, KEY), make_batch(), recipe)
    two, _ = train_step(init_state(recipe, KEY), make_batch(), recipe)
    chex.assert_trees_all_equal(one.params, two.params)
    assert int(one.step) == 1


def test_images_and_masks_may_come_as_bytes(tiny_recipe, make_batch):
    recipe, batch = tiny_recipe(), make_batch()
    as_bytes = lambda a: np.round(255 * a).astype(np.uint8)
    packed = batch._replace(image=as_bytes(batch.image), mask=as_bytes(batch.mask))
    unpacked = batch._replace(image=as_bytes(batch.image) / np.float32(255), mask=batch.mask)
    chex.assert_trees_all_equal(in_unit_range(packed), in_unit_range(unpacked))
    ours, _ = train_step(init_state(recipe, KEY), packed, recipe)
    theirs, _ = train_step(init_state(recipe, KEY), unpacked, recipe)
    chex.assert_trees_all_close(ours.params, theirs.params, rtol=1e-4, atol=1e-7)


def test_truth_values_are_no_bytes_and_other_whole_numbers_are_refused(tiny_recipe, make_batch):
    recipe, batch = tiny_recipe(), make_batch()
    outline = batch.mask >= 0.5
    found = in_unit_range(batch._replace(mask=outline)).mask
    assert found.dtype == jnp.float32 and (found == outline).all()
    params = init_state(recipe, KEY).params
    for name, kind in [("image", np.uint16), ("image", np.int32), ("mask", np.int32)]:
        wide = batch._replace(**{name: np.round(255 * getattr(batch, name)).astype(kind)})
        with pytest.raises(ValueError, match=f"pixels are of {np.dtype(kind)}; give uint8"):
            evaluate_step(params, wide, recipe)


@pytest.mark.parametrize("flags", ["mask_valid", "grade_valid", "example_valid"])
def test_one_flag_is_not_that_of_every_example(tiny_recipe, make_batch, flags):
    recipe, batch = tiny_recipe(), make_batch()
    with pytest.raises(ValueError, match=r"both hold one flag for each example"):
        objective(init_state(recipe, KEY).params, batch._replace(**{flags: np.ones(1, bool)}), recipe)


def test_famo_is_told_the_losses_after_the_update_on_the_same_batch(tiny_recipe, make_batch):
    recipe, batch = tiny_recipe(mtl={"method": "famo"}, augment=STILL), make_batch()
    state = init_state(recipe, KEY)

    def weighted_means(params):
        metrics = jax.device_get(value_of(params, batch, recipe)[1])
        return np.array([recipe.settings[name].weight * np.divide(*metrics[f"loss_{name}"]) for name in NAMES])

    before = weighted_means(state.params)
    state, _ = train_step(state, batch, recipe)
    _, expected = scalarize.famo(before, scalarize.init("famo", 4))
    expected = scalarize.famo_observe(expected, weighted_means(state.params))
    np.testing.assert_allclose(state.mtl_state.logits, expected.logits, rtol=1e-3, atol=1e-6)
    assert float(jnp.abs(state.mtl_state.logits).max()) > 1e-3


def test_it_learns_one_batch(tiny_recipe, make_batch):
    recipe = tiny_recipe(total_steps=150.0, augment=STILL, rlar={"weight": 0.1}, optimizer={"learning_rate": 2e-2})
    state, batch, losses = init_state(recipe, KEY), make_batch(b=4), []
    for _ in range(150):
        state, metrics = train_step(state, batch, recipe)
        losses.append({name: float(total / count) for name, (total, count) in metrics.items()})
    assert losses[-1]["loss_segmentation"] < 0.4 * losses[0]["loss_segmentation"]
    assert losses[-1]["loss_grading"] < 0.1 * losses[0]["loss_grading"]
    assert losses[-1]["loss_malignancy"] < 0.1 * losses[0]["loss_malignancy"]
    assert losses[-1]["loss_guidance"] < 0.5 * losses[0]["loss_guidance"]
    assert float(evaluate_step(state.params, batch, recipe)["segmentation"].mean()) > 0.8


def test_the_guidance_target_is_measured_on_the_augmented_view_with_the_fitted_cut_and_scaling(tiny_recipe, make_batch):
    r = len(clinical.TARGET)
    centre, spread = (np.linspace(*ends, r).astype(np.float32) for ends in ((-1, 1), (1, 2)))
    fitted = Fitted.neutral(5, r)._replace(
        scaling=clinical.Scaling(centre, spread), mask_cut=np.array(0.25, np.float32)
    )
    recipe = tiny_recipe(guidance={"view": "augmented"}).replace(fitted=fitted)
    batch = make_batch(b=4, h=48, w=48)
    soft = 0.4 * batch.mask * np.array([1, 1, 1, 0], np.float32)[:, None, None]  # above the cut, below one half
    batch = batch._replace(radiomics_valid=np.array([True, True, False, True]), mask=soft)
    found = jax.jit(measured)(batch, recipe)
    target, valid = jax.jit(clinical.target)(batch.image[..., 0], soft, cut=0.25)
    assert np.asarray(valid).all(1).tolist() == [True, True, True, False]
    expected = np.clip((np.asarray(target) - centre) / spread, -3, 3)
    np.testing.assert_allclose(found.radiomics[:3], expected[:3], rtol=1e-4, atol=1e-5)
    assert found.radiomics_valid.tolist() == [True, True, False, False]
    seen = seen_by(KEY, batch, recipe)
    image, mask = jax.jit(augment)(KEY, batch.image, batch.mask, recipe.settings["augment"])
    again = jax.jit(measured)(batch._replace(image=image, mask=mask), recipe)
    np.testing.assert_allclose(seen.radiomics[:2], again.radiomics[:2], rtol=1e-3, atol=1e-3)
    kept = seen_by(KEY, batch, tiny_recipe(guidance={"view": "original"}))
    np.testing.assert_array_equal(kept.radiomics, batch.radiomics)


def test_measured_evidence_is_that_of_a_distorted_outline_in_training_and_of_the_models_own_elsewhere(
    tiny_recipe, make_batch
):
    recipe = tiny_recipe(model={"evidence": "measured"}, distort={"shift": 0.0, "stretch": 0.0, "bend": 0.0})
    batch = make_batch(b=3, h=48, w=48)._replace(mask_valid=np.array([True, True, False]))
    seen = seen_by(KEY, batch, recipe)
    expected = evidence_of(seen.image, seen.mask, recipe)
    r = len(clinical.TARGET)
    assert expected.shape == (3, 2 * r) and (expected[:2, r:] == 1).all()
    np.testing.assert_allclose(seen.measured[:2], expected[:2], rtol=1e-2, atol=1e-2)
    assert not seen.measured[2].any()  # without an outline no value is defined
    wrong = tiny_recipe(model={"evidence": "measured"})
    assert np.abs(seen_by(KEY, batch, wrong).measured - seen.measured)[:2].max() > 0.1

    # two readers' mean is one half where they disagree: not cut there, but at a quarter
    fitted = recipe.fitted._replace(mask_cut=np.array(0.25, np.float32))
    mean = np.maximum(batch.mask, 0.5 * np.roll(batch.mask, 6, axis=1))
    either, at_a_quarter = evidence_of(batch.image, mean > 0, recipe), recipe.replace(fitted=fitted)
    for rounding in (-1e-3, 1e-3):
        found = evidence_of(batch.image, np.clip(mean + rounding, 0, 1), at_a_quarter)
        np.testing.assert_allclose(found, either, rtol=1e-5, atol=1e-5)

    state, metrics = train_step(init_state(recipe, KEY), batch, recipe)
    assert np.isfinite(metrics["loss"].sum)

    @jax.jit
    def by_hand(params):
        outline = jax.nn.sigmoid(model.decode(params, recipe.model, model.encode(params, recipe.model, batch.image)))
        own = measure_evidence(batch.image, outline, recipe)
        return model.apply(params, recipe.model, batch.image, own)

    outputs = by_hand(state.params)
    scores, answers = evaluate_step(state.params, batch, recipe), forward(state.params, recipe, batch.image)
    np.testing.assert_allclose(scores["grading"], jax.nn.softmax(outputs.grade_logits), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(answers["grading"], scores["grading"], rtol=1e-3, atol=1e-5)


def test_validation_scores_are_those_of_each_task(tiny_recipe, make_batch):
    recipe, batch = tiny_recipe(), make_batch(b=3)
    params = init_state(recipe, KEY).params
    scores = evaluate_step(params, batch, recipe)
    outputs = apply(params, recipe.model, batch.image)
    predicted, reference = np.asarray(outputs.mask_logits) > 0, batch.mask >= 0.5
    dice = 2 * (predicted & reference).sum((1, 2)) / (predicted.sum((1, 2)) + reference.sum((1, 2)))
    np.testing.assert_allclose(scores["segmentation"], dice, rtol=1e-6)
    np.testing.assert_allclose(scores["grading"], jax.nn.softmax(outputs.grade_logits), rtol=1e-5)
    np.testing.assert_allclose(scores["malignancy"], jax.nn.sigmoid(outputs.malignant_logit), rtol=1e-5)
    np.testing.assert_allclose(scores["guidance"], outputs.radiomics, rtol=1e-5, atol=1e-6)
    _, metrics = value_of(params, batch, recipe)
    for task in recipe.tasks:  # the same losses as those of a step without augmentation
        total, count = metrics[f"loss_{task.name}"]
        losses = np.asarray(scores[f"loss_{task.name}"])[np.asarray(task.defined(batch))]
        np.testing.assert_allclose(losses.sum(), total, rtol=1e-5)
        assert len(losses) == int(count)


def test_a_prediction_both_ways_is_the_mean_over_the_image_and_its_mirror_image(tiny_recipe, make_batch):
    recipe, image = tiny_recipe(), make_batch(b=2, h=12, w=16).image
    params = init_state(recipe, KEY).params
    plain, mirrored = forward(params, recipe, image), forward(params, recipe, image[:, :, ::-1])
    both = forward_both_ways(params, recipe, image)
    assert set(both) == set(plain) == set(NAMES)
    outline = (plain["segmentation"] + mirrored["segmentation"][:, :, ::-1]) / 2
    np.testing.assert_allclose(both["segmentation"], outline, rtol=1e-5, atol=1e-6)
    for name in NAMES[1:]:
        np.testing.assert_allclose(both[name], (plain[name] + mirrored[name]) / 2, rtol=1e-5, atol=1e-6)
    again = forward_both_ways(params, recipe, image[:, :, ::-1])
    np.testing.assert_allclose(again["segmentation"][:, :, ::-1], both["segmentation"], rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(both["segmentation"] - plain["segmentation"]).max()) > 1e-3


@pytest.mark.parametrize("method", ["equal", "dwa", "rlw", "famo", "mgda"])
def test_a_multitask_method_begins_with_its_own_state(tiny_recipe, method):
    recipe = tiny_recipe(mtl={"method": method})
    recipe = recipe.replace(fitted=recipe.fitted._replace(epoch_steps=np.array(7, np.int32)))
    state = init_state(recipe, KEY).mtl_state
    if method == "dwa":
        assert int(state.steps_per_epoch) == 7
    if method == "famo":
        assert state.logits.shape == (4,)
    if method in ("equal", "mgda"):
        assert state == ()
