"""Checkpoints: what is kept, exact restoring, strict refusal of another configuration."""

import dataclasses
import errno
import shutil

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from thyroid_jax.config import Config, ModelConfig, MTLConfig, TrainConfig
from thyroid_jax.errors import InputError
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.train import init_state
from thyroid_jax.train.checkpoint import Checkpoints
from thyroid_jax.train.devices import data_mesh

CONFIG = Config(model=ModelConfig.preset("tiny"), train=TrainConfig(total_steps=10))


@pytest.fixture(scope="module")
def state():
    return init_state(CONFIG)


def at(state, step):
    return state._replace(step=jnp.int32(step))


def test_the_last_and_the_best_are_kept_and_come_back_to_the_bit(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.last() is None
        assert checkpoints.best() is None
        for step, score in ((10, 0.2), (20, 0.7), (30, 0.5), (40, None)):
            checkpoints.save(at(state, step), {"next_index": step}, {"grades": ["a"]}, score)
        assert (checkpoints.last(), checkpoints.best()) == (40, 20)
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["40"]
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["20"]
    with Checkpoints(tmp_path, create=False) as checkpoints:
        last, position, facts = checkpoints.restore(
            jax.tree.map(jnp.zeros_like, state._replace(key=0))._replace(key=state.key)
        )
        best, *_ = checkpoints.restore(state, "best")
    assert (int(last.step), int(best.step), position, facts) == (40, 20, {"next_index": 40}, {"grades": ["a"]})
    as_bits = lambda s: s._replace(key=jax.random.key_data(s.key))
    chex.assert_trees_all_equal(as_bits(last), as_bits(at(state, 40)))
    assert jax.tree.structure(last) == jax.tree.structure(state)


@pytest.mark.parametrize("method", sorted(SCALARIZERS))
def test_a_multitask_methods_state_comes_back_whatever_it_holds(method, tmp_path):
    """Random keys, optimiser moments, counters."""
    state = init_state(dataclasses.replace(CONFIG, mtl=MTLConfig(method=method)))
    _, used = SCALARIZERS[method](jnp.array([0.5, 1.0, 2.0]), state.mtl_state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state._replace(mtl_state=used), {}, {}, None)
        back, *_ = checkpoints.restore(state)
    numbers = lambda leaf: jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    chex.assert_trees_all_equal(jax.tree.map(numbers, back.mtl_state), jax.tree.map(numbers, used))
    assert jax.tree.structure(back) == jax.tree.structure(state)


def test_the_best_is_the_last_where_nothing_was_scored(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(state, 5), {}, {}, None)
        assert int(checkpoints.restore(state, "best")[0].step) == 5


def test_saving_the_same_step_again_after_a_kill_between_the_two_writes(tmp_path, state):
    """Best written, killed before last: the resumed run comes to the same step and saves it once more."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(state, 5), {"next_index": 1}, {}, 0.5)
        checkpoints._last.delete(5)
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.last(), checkpoints.best()) == (None, 5)
        checkpoints.save(at(state, 5), {"next_index": 1}, {}, 0.5)
        assert (checkpoints.last(), checkpoints.best()) == (5, 5)


def test_a_worse_checkpoint_that_a_kill_left_beside_the_best_is_not_taken_for_it(tmp_path, state):
    with Checkpoints(tmp_path / "one") as one, Checkpoints(tmp_path / "two") as two:
        one.save(at(state, 10), {}, {}, 0.9)
        two.save(at(state, 20), {}, {}, 0.1)
    shutil.copytree(tmp_path / "two" / "best" / "20", tmp_path / "one" / "best" / "20")
    with Checkpoints(tmp_path / "one") as checkpoints:
        assert checkpoints.best() == 10
        assert int(checkpoints.restore(state, "best")[0].step) == 10


def test_a_full_disk_is_named_and_leaves_no_fragment(tmp_path, state, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at(state, 10), {}, {}, None)

        def full(*args, **kwargs):
            (tmp_path / "last" / "20.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
            raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [os_error_code='28']")

        monkeypatch.setattr(checkpoints._last, "save", full)
        with pytest.raises(OSError, match="No space left on device") as error:
            checkpoints.save(at(state, 20), {}, {}, None)
        assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["10"]


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path, state, monkeypatch):
    """Orbax's writers would each print a traceback of their own."""
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**7, 9 * 10**6, 10**6))
        with pytest.raises(OSError, match="No space left on device") as error:
            checkpoints.save(state, {}, {}, 0.5)
        assert error.value.errno == errno.ENOSPC
        assert checkpoints.last() is None and checkpoints.best() is None
    assert not any((tmp_path / "best").iterdir()) and not any((tmp_path / "last").iterdir())


def test_another_configuration_is_refused_with_the_first_array_that_differs(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {}, None)
        other = init_state(dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, hidden=8)))
        with pytest.raises(InputError, match=r"another configuration.*arrays differ.*stored \(.*wanted \("):
            checkpoints.restore(other)


def test_it_restores_onto_other_devices(tmp_path, state):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {}, None)
        everywhere = NamedSharding(data_mesh(), PartitionSpec())
        restored, *_ = checkpoints.restore(jax.device_put(state, everywhere))
    assert len(jax.tree.leaves(restored.params)[0].sharding.device_set) == 8
    chex.assert_trees_all_equal(restored.params, state.params)


def test_a_folder_without_checkpoints_says_what_to_do(tmp_path, state):
    with pytest.raises(InputError, match="no checkpoints there; train first"):
        Checkpoints(tmp_path, create=False)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(InputError, match="before its first checkpoint"):
        checkpoints.restore(state)
