"""One update: the plain multitask step bit for bit without RLAR, one compilation, donated state, learning."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from thyroid_jax import model
from thyroid_jax.config import (
    AugmentConfig,
    Config,
    ConsistencyConfig,
    GuidanceConfig,
    ModelConfig,
    MTLConfig,
    RLARConfig,
    TrainConfig,
)
from thyroid_jax.data.augment import augment
from thyroid_jax.losses import grading, guidance, masked_mean, segmentation
from thyroid_jax.mtl import scalarize
from thyroid_jax.radiomics import clinical
from thyroid_jax.train import evaluate_step, init_state, learning_rate, objective, train_step, update
from thyroid_jax.train.objective import trained
from thyroid_jax.train.step import at_step, compiled_step, measured, optimizer, ramps_at

STILL = AugmentConfig(**{field.name: 0.0 for field in dataclasses.fields(AugmentConfig)})
CONFIG = Config(model=ModelConfig.preset("tiny", radiomics=11), train=TrainConfig(total_steps=20))


def test_rlar_weight_zero_is_the_plain_multitask_step_bit_for_bit(make_batch):
    """Against a step written out here without any of RLAR's code."""
    config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=0.0))
    batch = make_batch()

    def plain_step(state, batch):
        image, mask = augment(jax.random.fold_in(state.key, state.step), batch.image, batch.mask, config.augment)
        seg, cls, rad = (
            valid & batch.example_valid for valid in (batch.mask_valid, batch.grade_valid, batch.radiomics_valid)
        )

        def loss(params):
            latent = model.encode(params, config.model, image)
            logits = model.decode(params, config.model, latent)
            outline = 0.5 * segmentation.bce(logits, mask, where=seg) + 0.5 * segmentation.soft_dice(
                logits, mask, where=seg
            )
            embedding = model.embed(params, config.model, latent.z)
            grade = grading.cross_entropy(model.classify(params, config.model, embedding), batch.grade, where=cls)
            embedding = model.embed(params, config.model, latent.z)
            predicted = model.predict_radiomics(params, config.model, embedding)
            radiomics = guidance.guidance(predicted, batch.radiomics, where=rad)
            return masked_mean(outline, seg) + masked_mean(grade, cls) + 0.1 * masked_mean(radiomics, rad)

        change, opt_state = optimizer(config).update(jax.grad(loss)(state.params), state.opt_state, state.params)
        return state._replace(
            step=state.step + 1, params=optax.apply_updates(state.params, change), opt_state=opt_state
        )

    state = init_state(config)
    state = state._replace(step=state.step + 5)  # past the first steps, so that rates and moments are not zero
    with (
        jax.disable_jit()
    ):  # operation by operation: what a compiler fuses, and so rounds, depends on what else it sees
        ours, _ = update(state, batch, config)
        plain = plain_step(state, batch)
    chex.assert_trees_all_equal(ours.params, plain.params)


def test_with_weight_the_penalty_changes_the_update(make_batch):
    states = []
    for weight in (0.0, 5.0):
        config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=weight, ramp=0.0))
        state, _ = train_step(init_state(config), make_batch(), config)
        state, _ = train_step(state, make_batch(), config)
        states.append(state.params)
    difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *states)
    assert max(map(float, jax.tree.leaves(difference["encoder"]))) > 1e-6


def test_it_is_compiled_once_and_its_state_donated(make_batch):
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(update, 1), static_argnums=2, donate_argnums=0)
    state = init_state(CONFIG)
    kept = jax.tree.leaves(state.params)[0]
    for seed in range(3):
        state, _ = step(state, make_batch(seed=seed), CONFIG)
    assert int(state.step) == 3
    assert kept.is_deleted()
    before = compiled_step._cache_size()
    state, _ = train_step(state, make_batch(), CONFIG)
    state, _ = train_step(state, make_batch(seed=1), CONFIG)
    assert compiled_step._cache_size() - before <= 1


def test_a_step_is_a_function_of_state_and_batch(make_batch):
    one, _ = update(init_state(CONFIG), make_batch(), CONFIG)
    two, _ = update(init_state(CONFIG), make_batch(), CONFIG)
    chex.assert_trees_all_equal(one.params, two.params)


def test_every_nth_step_has_the_penalty_n_times_as_heavy_and_the_others_are_plain():
    config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=2.0, every=3))
    assert [at_step(config, step).rlar.weight for step in range(5)] == [6, 0, 0, 6, 0]
    assert {at_step(config, step).rlar.every for step in range(5)} == {1}
    assert at_step(CONFIG, 7) == CONFIG


def test_every_nth_step_in_a_row(make_batch):
    config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=2.0, every=2))
    seen, state, by_hand = [], init_state(config), init_state(config)
    for step in range(3):
        state, metrics = train_step(state, make_batch(seed=step), config)
        by_hand, _ = train_step(by_hand, make_batch(seed=step), at_step(config, step))
        seen.append("rlar" in metrics)
    assert seen == [True, False, True]
    chex.assert_trees_all_equal(state.params, by_hand.params)
    with pytest.raises(ValueError, match="at_step"):
        update(state, make_batch(), config)


def test_famo_is_told_the_losses_after_the_update_on_the_same_batch(make_batch):
    config = dataclasses.replace(
        CONFIG, rlar=RLARConfig(weight=0.0), mtl=MTLConfig(method="famo"), augment=STILL, train=TrainConfig()
    )
    state, batch = init_state(config), make_batch()
    before = objective_losses(state.params, batch, config)
    state, _ = train_step(state, batch, config)
    after = objective_losses(state.params, batch, config)
    _, expected = scalarize.famo(before, scalarize.init("famo", 3))
    expected = scalarize.famo_observe(expected, after)
    np.testing.assert_allclose(state.mtl_state.logits, expected.logits, rtol=1e-3, atol=1e-6)
    assert float(jnp.abs(state.mtl_state.logits).max()) > 1e-3


def objective_losses(params, batch, config):
    metrics = objective(params, batch, config)[1]
    return jnp.array(
        [
            weight * metrics[f"loss_{name}"].sum / metrics[f"loss_{name}"].count
            for name, weight in trained(config).items()
        ]
    )


def test_it_learns_one_batch(make_batch):
    config = dataclasses.replace(
        CONFIG,
        augment=STILL,
        train=TrainConfig(total_steps=150),
        optimizer=dataclasses.replace(CONFIG.optimizer, learning_rate=2e-2),
    )
    state, batch, losses = init_state(config), make_batch(b=4), []
    for _ in range(150):
        state, metrics = train_step(state, batch, config)
        losses.append({name: float(total / count) for name, (total, count) in metrics.items()})
    assert losses[-1]["loss_segmentation"] < 0.4 * losses[0]["loss_segmentation"]
    assert losses[-1]["loss_grading"] < 0.1 * losses[0]["loss_grading"]
    assert losses[-1]["loss_guidance"] < 0.5 * losses[0]["loss_guidance"]
    quality = evaluate_step(state.params, batch, config)
    assert float(quality["dice"].sum / quality["dice"].count) > 0.8


def test_schedule_warms_up_falls_as_a_cosine_and_is_a_function_of_the_step():
    config = dataclasses.replace(CONFIG, train=TrainConfig(total_steps=1000))
    rate = learning_rate(config)
    highest = config.optimizer.learning_rate
    assert float(rate(0)) == 0
    assert float(rate(25)) == pytest.approx(highest / 2)
    assert float(rate(50)) == pytest.approx(highest)
    assert float(rate(525)) == pytest.approx(highest * (1 + config.optimizer.final_share) / 2, rel=1e-3)
    assert float(rate(1000)) == pytest.approx(highest * config.optimizer.final_share, rel=1e-3)


def test_ramp_of_the_penalty():
    config = dataclasses.replace(CONFIG, train=TrainConfig(total_steps=1000))
    assert [float(ramps_at(jnp.int32(step), config).rlar) for step in (0, 50, 100, 900)] == [0, 0.5, 1, 1]
    flat = dataclasses.replace(config, rlar=RLARConfig(ramp=0.0))
    assert float(ramps_at(jnp.int32(0), flat).rlar) == 1


def test_the_consistency_waits_for_the_outline():
    config = dataclasses.replace(CONFIG, train=TrainConfig(total_steps=1000))
    assert [float(ramps_at(jnp.int32(step), config).consistency) for step in (0, 100, 150, 200, 900)] == [
        0,
        0,
        0.5,
        1,
        1,
    ]
    at_once = dataclasses.replace(config, consistency=ConsistencyConfig(ramp=0.0))
    assert [float(ramps_at(jnp.int32(step), at_once).consistency) for step in (99, 100)] == [0, 1]


def test_the_guidance_target_is_measured_on_the_augmented_view(make_batch):
    values, spread = (np.linspace(*ends, len(clinical.TARGET)).astype(np.float32) for ends in ((-1, 1), (1, 2)))
    known = GuidanceConfig(centre=tuple(values.tolist()), spread=tuple(spread.tolist()))
    batch = make_batch(b=4, h=48, w=48)
    batch = batch._replace(
        radiomics_valid=np.array([True, True, False, True]), mask=batch.mask * np.array([1, 1, 1, 0])[:, None, None]
    )
    found = measured(batch, dataclasses.replace(CONFIG, guidance=known))
    target, valid = clinical.target(batch.image[..., 0], batch.mask >= 0.5)
    assert np.asarray(valid).all(1).tolist() == [True, True, True, False]
    np.testing.assert_allclose(
        found.radiomics, np.clip((np.asarray(target) - values) / spread, -3, 3), rtol=1e-5, atol=1e-6
    )
    assert found.radiomics_valid.tolist() == [True, True, False, False]
    assert measured(batch, CONFIG) is batch  # the scaling is not known


def test_a_step_takes_the_target_of_its_own_view_unless_told_otherwise(make_batch):
    known = {"centre": (0.0,) * len(clinical.TARGET), "spread": (1.0,) * len(clinical.TARGET)}
    batch, losses = make_batch(b=4, h=48, w=48, r=len(clinical.TARGET)), {}
    for view in ("augmented", "original"):
        config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=0.0), guidance=GuidanceConfig(view=view, **known))
        config = dataclasses.replace(config, model=dataclasses.replace(CONFIG.model, radiomics=len(clinical.TARGET)))
        state = init_state(config)
        image, mask = augment(jax.random.fold_in(state.key, state.step), batch.image, batch.mask, config.augment)
        seen = batch._replace(image=image, mask=mask)
        expected = objective(state.params, measured(seen, config) if view == "augmented" else seen, config)[0]
        _, metrics = train_step(state, batch, config)
        losses[view] = float(metrics["loss"].sum)
        assert losses[view] == pytest.approx(float(expected), rel=1e-4)
    assert abs(losses["augmented"] - losses["original"]) > 1e-3


def test_without_a_known_length_rate_and_penalty_are_constant():
    config = dataclasses.replace(CONFIG, train=TrainConfig())
    assert [float(learning_rate(config)(step)) for step in (0, 1, 1000)] == 3 * [
        pytest.approx(config.optimizer.learning_rate)
    ]
    assert float(ramps_at(jnp.int32(0), config).rlar) == 1


def test_weight_decay_leaves_biases_and_scales_alone(make_batch):
    config = dataclasses.replace(CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, warmup=0.0))
    state = init_state(config)
    zero = jax.tree.map(jnp.zeros_like, state.params)
    tx = optimizer(config)
    change = zero
    opt_state = state.opt_state
    for _ in range(2):  # the schedule's first rate is 0
        change, opt_state = tx.update(zero, opt_state, state.params)
    for path, (parameter, moved) in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda p, c: (p, c), state.params, change), is_leaf=lambda x: isinstance(x, tuple)
    ):
        decayed = parameter.ndim > 1 and float(jnp.abs(parameter).max()) > 0
        assert (float(jnp.abs(moved).max()) > 0) == decayed, jax.tree_util.keystr(path)


def test_validation_sums_ignore_padding_and_count_what_is_there(make_batch):
    state = init_state(CONFIG)
    batch = make_batch(b=3)
    rows = jax.tree.map(lambda a: np.concatenate([a, np.zeros((2, *a.shape[1:]), a.dtype)]), batch)
    one, two = evaluate_step(state.params, batch, CONFIG), evaluate_step(state.params, rows, CONFIG)
    chex.assert_trees_all_close(one, two, rtol=1e-6)
    assert float(two["dice"].count) == 3
    assert float(two["confusion"].sum.sum()) == 3
    np.testing.assert_array_equal(two["confusion"].sum.sum(1), batch.grade.sum(0))
