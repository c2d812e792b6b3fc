"""The same update on one, two and eight devices, by jit and by pmap, with labels missing unevenly; in float64."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, double_precision
from loop_runs import DoubleRun, after, arrays_of, assert_rows_close, rows

from thyroid_jax.config import MTLConfig
from thyroid_jax.errors import InputError
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.train import init_state
from thyroid_jax.train.devices import AXIS, SPREADS, by_jit, by_pmap, check_divides
from thyroid_jax.train.gradient import gradient

SMALL = {"model": {"width": 2, "groups": 1, "hidden": 4}}
PENALISED = {"rlar": {"weight": 1.0, "kind": "square", "ramp": 0.0}}
METHODS = [name for name in [*SCALARIZERS, *WEIGHERS] if name != "equal"]


@pytest.fixture(scope="module")
def uneven(make_batch):
    """Eight examples whose labels are missing on some devices and not on others; the last one is padding."""
    flags = lambda *missing: np.array([place not in missing for place in range(8)])
    return make_batch(b=8)._replace(
        mask_valid=flags(0, 1, 5),
        grade_valid=flags(0, 2, 3, 6),
        malignant_valid=flags(1, 7),
        radiomics_valid=flags(0, 1, 4),
        example_valid=flags(7),
    )


def means(metrics):
    return {name: np.asarray(value.sum) / np.asarray(value.count) for name, value in metrics.items()}


def two_updates(spread, recipe, batch):
    """Whole parameters and the last metrics' sums and counts after two updates."""
    state = spread.put_state(double_precision(init_state(recipe, jax.random.key(0))))
    for _ in range(2):
        state, metrics = jax.block_until_ready(spread.step(state, spread.put_batch(batch), recipe))
    whole = spread.whole_state(state)
    for leaf in jax.tree.leaves(whole):
        assert len(leaf.sharding.device_set) == spread.mesh.size and leaf.is_fully_replicated
    return jax.device_get((whole.params, metrics))


WITH_CONSISTENCY = PENALISED | {
    "consistency": {"weight": 0.5, "warmup": 0.0, "ramp": 0.0, "min_pixels": 1.0},
    "guidance": {"weight": 0.0},
}
AT_THE_PARAMETERS = {
    "mtl": {"method": "upgrad", "at": "parameters"},
    "guidance": {"weight": 0.0},
    "malignancy": {"weight": 0.0},
}


@pytest.mark.parametrize("groups, others", [
    (WITH_CONSISTENCY, ((by_jit, 8), (by_pmap, 2), (by_pmap, 8))), (AT_THE_PARAMETERS, ((by_pmap, 2),)),
], ids=["RLAR and consistency", "at the parameters"])  # fmt: skip
def test_the_number_of_devices_and_the_way_to_spread_do_not_change_the_update(groups, others, tiny_recipe, uneven, x64):
    recipe, batch = double_precision(tiny_recipe(**SMALL, **groups)), double_precision(uneven)
    params, metrics = two_updates(by_jit(jax.devices()[:1]), recipe, batch)
    for make, number in others:
        other_params, other_metrics = two_updates(make(jax.devices()[:number]), recipe, batch)
        chex.assert_trees_all_close(other_params, params, rtol=1e-6, atol=1e-9)
        chex.assert_trees_all_close(other_metrics, metrics, rtol=1e-6, atol=1e-9)


HEADS_ALONE = {
    "model": {"width": 4, "depth": 1, "groups": 1, "hidden": 4},  # two channels have parallel directions: a cosine of 1
    "segmentation": {"weight": 0.0},
    "guidance": {"weight": 0.0},
    "train": {"monitor": "accuracy"},
    "rlar": PENALISED["rlar"] | {"tasks": ("grading", "malignancy")},
}
PENALISED_TOO = SMALL | PENALISED | {"guidance": {"weight": 0.0}, "malignancy": {"weight": 0.0}}
GRADIENTS = {method: (method, HEADS_ALONE) for method in METHODS}
GRADIENTS |= {f"{method}, outline too": (method, PENALISED_TOO) for method in ("uncertainty", "gradnorm", "pcgrad")}


@pytest.mark.parametrize("method, groups", GRADIENTS.values(), ids=GRADIENTS)
def test_every_multitask_methods_gradient_is_that_of_the_whole_batch(method, groups, tiny_recipe, uneven, x64):
    """By pmap over two devices, RLAR on; one method of a kind with the outline; the method's next state too."""
    recipe, batch = double_precision(tiny_recipe(**groups, mtl={"method": method})), double_precision(uneven)
    state = double_precision(init_state(recipe, jax.random.key(1)))
    numbers = lambda tree: jax.tree.map(lambda a: jax.random.key_data(a) if a.dtype == state.key.dtype else a, tree)

    def whole(params, batch, mtl_state, recipe):
        found = gradient(params, batch, recipe, mtl_state=mtl_state, key=jax.random.key(2))
        return found._replace(mtl_state=numbers(found.mtl_state))

    expected = jax.device_get(jax.jit(whole)(state.params, batch, state.mtl_state, recipe))
    by_two = jax.pmap(whole, AXIS, in_axes=(None, 0, None, None), devices=jax.devices()[:2])
    halves = jax.tree.map(lambda a: a.reshape(2, -1, *a.shape[1:]), jax.device_get(batch))
    found = jax.device_get(by_two(state.params, halves, state.mtl_state, recipe.replace(axis=AXIS)))
    for device in range(2):
        one = jax.tree.map(lambda a, d=device: a[d], found)
        assert_close(one.params, expected.params, 1e-6)
        chex.assert_trees_all_close(one.mtl_state, expected.mtl_state, rtol=1e-6, atol=1e-9)
    summed = jax.tree.map(lambda a: a.sum(0), found.metrics)
    chex.assert_trees_all_close(means(summed), means(expected.metrics), rtol=1e-6, atol=1e-9)


def test_states_come_back_from_either_way_as_they_went(tiny_recipe):
    recipe = tiny_recipe(**SMALL, mtl={"method": "rlw"}, optimizer={"average": 5})
    numbers = lambda state: jax.tree.map(
        lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a, state
    )
    for make in SPREADS.values():
        state = init_state(recipe, jax.random.key(4))
        expected = jax.device_get(numbers(state))
        spread = make()
        chex.assert_trees_all_equal(numbers(spread.whole_state(spread.put_state(state))), expected)


def test_batches_come_back_from_either_way_as_they_went(uneven):
    for make in SPREADS.values():
        spread = make()
        chex.assert_trees_all_equal(spread.whole_batch(spread.put_batch(uneven)), uneven)


def test_a_run_goes_on_with_another_number_of_devices(tmp_path, x64):
    """8, 1 and 2 devices, changed within epochs of three steps, by jit and by pmap; against one device throughout."""
    run = DoubleRun(by_jit(jax.devices()[:1]))
    run.config = dataclasses.replace(run.config, diagnose_every=0)
    run.train(tmp_path / "whole")
    for make, number, steps in ((by_jit, 8, 2), (by_jit, 1, 5), (by_pmap, 2, 12)):
        run.spread = make(jax.devices()[:number])
        state = run.train(tmp_path / "moved", after(steps))
        assert len(state.step.sharding.device_set) == number
    assert int(state.step) == 12
    for which in ("last", "best"):
        found, expected = (arrays_of(run, tmp_path / name, which) for name in ("moved", "whole"))
        chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-9)
    assert_rows_close(rows(tmp_path / "moved"), rows(tmp_path / "whole"))


def test_a_batch_that_devices_cannot_share_evenly_is_refused():
    with pytest.raises(InputError, match=r"batch_size is 12.*multiple of the number of devices, 8"):
        check_divides(12, 8)


def test_every_method_is_tested():
    import typing

    assert set(METHODS) | {"equal"} == set(typing.get_args(typing.get_type_hints(MTLConfig)["method"]))
