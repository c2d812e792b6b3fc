"""A batch in parts gives the update of the whole batch, labels missing unevenly; in float64."""

import chex
import jax
import numpy as np
import pytest
from helpers import assert_close, double_precision, params_of

from thyroid_jax import model
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError
from thyroid_jax.recipe import encode
from thyroid_jax.train import init_state
from thyroid_jax.train.accumulate import parts_of
from thyroid_jax.train.devices import by_jit, by_pmap, check_divides
from thyroid_jax.train.gradient import gradient
from thyroid_jax.train.objective import evaluate
from thyroid_jax.train.options import TrainConfig

SMALL = {"model": {"width": 2, "depth": 1, "groups": 1, "hidden": 4}}
RLAR = {"rlar": {"weight": 1.0, "kind": "square", "ramp": 0.0}}
CONSISTENCY = {"consistency": {"weight": 0.5, "warmup": 0.0, "ramp": 0.0, "min_pixels": 100.0}}
PARTS = (2, 4)


@pytest.fixture(scope="module")
def uneven(make_batch):
    """In four parts, part 1 has no outline, part 2 no grade, and part 3 nothing at all: it is padding."""
    flags = lambda *missing: np.array([place not in missing for place in range(8)])
    return make_batch(b=8)._replace(
        mask_valid=flags(0, 1, 5),
        grade_valid=flags(0, 2, 6),
        malignant_valid=flags(1, 7),
        radiomics_valid=flags(0, 1, 4),
        example_valid=flags(3, 7),
    )


def means(metrics):
    return {name: np.asarray(value.sum) / np.asarray(value.count) for name, value in metrics.items()}


def two_updates(spread, recipe, batch):
    state = spread.put_state(double_precision(init_state(recipe, jax.random.key(0))))
    for _ in range(2):
        state, metrics = jax.block_until_ready(spread.step(state, spread.put_batch(batch), recipe))
    return jax.device_get(spread.whole_state(state).params), means(jax.device_get(metrics))


def test_updates_of_rlar_and_guidance_are_those_of_the_whole_batch(tiny_recipe, uneven, x64):
    """Random views and the optimiser included; on one device, and spread over two by jit and by pmap."""
    recipe, batch = double_precision(tiny_recipe(**SMALL, **RLAR)), double_precision(uneven)
    devices = jax.devices()
    params, metrics = two_updates(by_jit(devices[:1]), recipe, batch)
    chosen = [(by_jit(devices[:1]), 4), (by_jit(devices[:2]), 4), (by_pmap(devices[:2]), 2)]
    for spread, number in chosen:
        found, seen = two_updates(spread, recipe.replace(accumulate=number), batch)
        chex.assert_trees_all_close(found, params, rtol=1e-6, atol=1e-9)
        chex.assert_trees_all_close(seen, metrics, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("groups", [{}, CONSISTENCY | {"guidance": {"weight": 0.0}}], ids=["plain", "consistency"])
def test_gradients_are_those_of_the_whole_batch(groups, tiny_recipe, uneven, x64):
    recipe, batch = double_precision(tiny_recipe(**SMALL, **groups)), double_precision(uneven)
    params = double_precision(params_of(recipe))
    if "consistency" in groups:  # half of the predicted outlines are too small to be counted
        outlines = jax.jit(lambda params: model.decode(params, recipe.model, encode(params, batch, recipe)) > 0)
        areas = np.sort(np.asarray(outlines(params)).sum((1, 2)))
        recipe = recipe.with_settings("consistency", min_pixels=float(areas[3] + 0.5))
        assert areas[3] < areas[4]
    run = jax.jit(lambda params, batch, recipe: gradient(params, batch, recipe, key=jax.random.key(0)))
    whole = run(params, batch, recipe)
    for number in PARTS:
        found = run(params, batch, recipe.replace(accumulate=number))
        assert_close(found.params, whole.params, 1e-6)
        chex.assert_trees_all_close(means(found.metrics), means(whole.metrics), rtol=1e-6, atol=1e-9)
    if "consistency" in groups:
        assert 0 < float(whole.metrics["consistency"].count) < 6


def test_the_mean_of_the_parts_means_is_another_number(tiny_recipe, uneven):
    """Else the tests above could not fail."""
    recipe = tiny_recipe(**SMALL)
    params = params_of(recipe)
    mean = lambda pair: float(pair.sum) / max(float(pair.count), 1)
    terms = jax.jit(lambda batch: evaluate(params, encode(params, batch, recipe), batch, recipe))
    whole = mean(terms(uneven).losses["grading"])
    parts = [terms(jax.tree.map(lambda leaf, j=j: leaf[j], parts_of(uneven, 4))) for j in range(4)]
    counts = [float(part.losses["grading"].count) for part in parts]
    assert 0.0 in counts and len(set(counts)) > 1
    assert abs(np.mean([mean(part.losses["grading"]) for part in parts]) / whole - 1) > 0.05


def test_parts_have_every_nth_example(make_batch):
    batch = make_batch(b=6)
    parts = parts_of(batch, 2)
    np.testing.assert_array_equal(parts.image[1], batch.image[1::2])
    np.testing.assert_array_equal(parts.grade_valid.shape, (2, 3))
    with pytest.raises(ValueError, match="6 rows cannot be divided into 4"):
        parts_of(batch, 4)


def test_counting_for_rlar_costs_no_pass_through_the_network(tiny_recipe, make_batch):
    """The program has the convolutions of one part's step; with the consistency those of a forward pass more."""
    batch, params = make_batch(b=4), params_of(tiny_recipe(**SMALL, **RLAR, **CONSISTENCY))

    def convolutions(recipe):
        run = jax.jit(lambda params: gradient(params, batch, recipe, key=jax.random.key(0)).params)
        return run.lower(params).as_text().count("stablehlo.convolution")

    rlar, consistent = tiny_recipe(**SMALL, **RLAR), tiny_recipe(**SMALL, **CONSISTENCY)
    assert convolutions(rlar.replace(accumulate=2)) == convolutions(rlar)
    assert convolutions(consistent.replace(accumulate=2)) > convolutions(consistent)


@pytest.mark.parametrize("groups, named", [
    ({"mtl": {"method": "pcgrad"}}, "mtl.method is pcgrad"),
    ({"mtl": {"method": "uncertainty"}}, "mtl.method is uncertainty"),
    ({"cosreg": {"weight": 1.0}}, "cosreg.weight is above 0"),
])  # fmt: skip
def test_what_needs_the_whole_batch_is_refused(groups, named, tiny_recipe, make_batch):
    with pytest.raises(InputError, match=rf"train\.accumulate is 4, but {named}.*Set train\.accumulate 1, or"):
        replace_groups(Config(), train={"batch_size": 8, "accumulate": 4}, **groups)
    recipe = tiny_recipe(**groups).replace(accumulate=3)
    with pytest.raises(ValueError, match=r"accumulate is 3, but .* needs the whole batch at once"):
        jax.eval_shape(lambda p: gradient(p, make_batch(), recipe, key=jax.random.key(0)), params_of(recipe))


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"train\.batch_size is 8.*multiple of train\.accumulate, 3"):
        TrainConfig(batch_size=8, accumulate=3)
    with pytest.raises(InputError, match=r"train\.accumulate is 0"):
        TrainConfig(accumulate=0)
    check_divides(16, 8, 2)
    with pytest.raises(InputError, match=r"batch_size is 8.*train\.accumulate times the number of devices, 2 x 8"):
        check_divides(8, 8, 2)
