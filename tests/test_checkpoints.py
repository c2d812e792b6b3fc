"""Checkpoints: exact restoring, strict refusal of another configuration, and no damage that goes unnoticed."""

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import shutil
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from thyroid_jax import checkpoints
from thyroid_jax.errors import InputError
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.train import init_state
from thyroid_jax.train.devices import data_mesh

FACTS = {"grades": ["a"], "position": {"next_index": 3}}


def small(value=0.0):
    """A tree with what states are made of: floats, whole numbers, a scalar, a random key, NumPy scalars, nesting."""
    return {
        "params": {"a": {"kernel": jnp.arange(6.0).reshape(2, 3) + value, "bias": jnp.zeros(3)}},
        "rest": (jnp.int32(7), jax.random.key(5), np.array(0.5, np.float32), ()),
    }


def numbers(tree):
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), tree)


def written(folder, *steps, kept=2):
    for step in steps:
        checkpoints.save(folder, step, small(step), FACTS | {"n": step}, kept=kept)
    return folder


def newest(folder, said=None):
    said = [] if said is None else said
    return checkpoints.newest(folder, lambda facts: small(), echo=said.append)


def test_arrays_and_facts_come_back_to_the_bit(tmp_path):
    folder = written(tmp_path / "last", 20)
    saved = checkpoints.restore(folder, 20, small())
    chex.assert_trees_all_equal(numbers(saved.arrays), numbers(small(20)))
    assert jax.tree.structure(saved.arrays) == jax.tree.structure(small())
    assert (saved.facts, saved.step) == (FACTS | {"n": 20}, 20)
    assert checkpoints.read_facts(folder, 20) == FACTS | {"n": 20}


def test_a_part_of_it_can_be_restored_alone(tmp_path):
    saved = checkpoints.restore(written(tmp_path, 5), 5, {"params": small()["params"]})
    assert set(saved.arrays) == {"params"}
    chex.assert_trees_all_equal(saved.arrays["params"], small(5)["params"])


def test_the_newest_are_kept_and_found(tmp_path):
    folder = written(tmp_path, 10, 20, 30, kept=2)
    assert checkpoints.steps(folder) == [30, 20]
    assert newest(folder).step == 30
    written(folder, 40, kept=1)
    assert checkpoints.steps(folder) == [40]
    assert checkpoints.steps(tmp_path / "nothing") == [] and newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("method", sorted(SCALARIZERS))
def test_a_multitask_methods_state_comes_back_whatever_it_holds(method, tmp_path, tiny_recipe):
    """Random keys, optimiser moments, counters."""
    state = init_state(tiny_recipe(mtl={"method": method}), jax.random.key(0))
    _, used = SCALARIZERS[method](jnp.array([0.5, 1.0, 2.0, 0.1]), state.mtl_state)
    state = {"state": state._replace(mtl_state=used, params={})}
    checkpoints.save(tmp_path, 1, state, {}, kept=1)
    back = checkpoints.restore(tmp_path, 1, state).arrays
    chex.assert_trees_all_equal(numbers(back), numbers(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)


def test_it_restores_onto_other_devices(tmp_path):
    folder, everywhere = written(tmp_path, 3), NamedSharding(data_mesh(), PartitionSpec())
    like = {"params": jax.device_put(small()["params"], everywhere)}
    restored = checkpoints.restore(folder, 3, like).arrays["params"]
    assert len(jax.tree.leaves(restored)[0].sharding.device_set) == 8
    chex.assert_trees_all_equal(restored, small(3)["params"])
    shapes = jax.eval_shape(lambda: small()["params"])
    assert len(jax.tree.leaves(checkpoints.restore(folder, 3, {"params": shapes}).arrays)[0].devices()) == 1


@pytest.mark.parametrize("like, message", [
    ({"params": {"a": {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(3)}}}, r"1 arrays differ.*\(2, 3\).*\(2, 4\)"),
    ({"params": {"a": {"kernel": jnp.zeros((2, 3))}}}, r"1 arrays differ.*bias.*stored \(3,\), wanted nothing"),
    ({"others": {"b": jnp.zeros(2)}}, r"1 arrays differ.*stored nothing"),
])  # fmt: skip
def test_another_configuration_is_refused_with_the_first_array_that_differs(tmp_path, like, message):
    folder = written(tmp_path, 3)
    with pytest.raises(InputError, match=r"3: the checkpoint is of another configuration: " + message):
        checkpoints.restore(folder, 3, like)


# --- damage -----------------------------------------------------------------------------------------------------------


def files_of(place):
    return sorted(path for path in place.rglob("*") if path.is_file())


def unchanged(folder, step):
    """Whether the checkpoint is either named as damaged, or comes back as it was written."""
    try:
        saved = checkpoints.restore(folder, step, small())
    except checkpoints.Damaged:
        return "named"
    chex.assert_trees_all_equal(numbers(saved.arrays), numbers(small(step)))
    assert saved.facts == FACTS | {"n": step}
    return "same"


def test_no_flipped_bit_changes_what_comes_back(tmp_path):
    """One bit in every file in turn, at several places: named as damaged, or of no consequence."""
    folder, rng = written(tmp_path / "a", 4), np.random.default_rng(0)
    found = {"named": 0, "same": 0}
    for path in files_of(folder / "4"):
        content = path.read_bytes()
        for place in rng.integers(0, max(1, len(content)), 8 if content else 0):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            found[unchanged(folder, 4)] += 1
        path.write_bytes(content)
    assert unchanged(folder, 4) == "same"
    assert found["named"] > 20


def break_arrays(place):
    """Zero the largest file, which holds the numbers."""
    largest = max(files_of(place), key=lambda path: path.stat().st_size)
    largest.write_bytes(bytes(largest.stat().st_size))


def about(place):
    return place / "about.json"


def edit_facts(place):
    content = json.loads(about(place).read_text())
    content["facts"]["n"] = 99
    about(place).write_text(json.dumps(content))


DAMAGES = {
    "emptied": lambda place: [path.unlink() for path in files_of(place)],
    "an empty folder": lambda place: (shutil.rmtree(place), place.mkdir()),
    "a file in its place": lambda place: (shutil.rmtree(place), place.write_text("x")),
    "no arrays": lambda place: shutil.rmtree(place / "params"),
    "no facts": lambda place: about(place).unlink(),
    "zeroed arrays": break_arrays,
    "cut files": lambda place: [path.write_bytes(path.read_bytes()[:-1]) for path in files_of(place)],
    "edited facts": edit_facts,
    "facts that are no JSON": lambda place: about(place).write_text("{"),
    "facts of another kind": lambda place: about(place).write_text("[1, 2]"),
    "facts that are a folder": lambda place: (about(place).unlink(), about(place).mkdir()),
    "facts of another step": lambda place: shutil.copy(about(place.parent / "10"), about(place)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_one_gives_way_to_the_one_before_in_one_line(tmp_path, damage):
    folder, said = written(tmp_path, 10, 20), []
    damage(folder / "20")
    saved = newest(folder, said)
    assert saved.step == 10
    chex.assert_trees_all_equal(numbers(saved.arrays), numbers(small(10)))
    if checkpoints.steps(folder)[0] == 20:  # a file is no checkpoint at all
        assert len(said) == 1 and "\n" not in said[0]
        assert (
            said[0].startswith(f"{folder / '20'}: the checkpoint is damaged: ") and "taking that of step 10" in said[0]
        )


def test_where_all_are_damaged_the_newest_is_named(tmp_path):
    folder = written(tmp_path, 10, 20)
    break_arrays(folder / "10")
    break_arrays(folder / "20")
    with pytest.raises(InputError, match=r"20: the checkpoint is damaged: .*; there is no earlier one\. Restore it"):
        newest(folder)


@pytest.mark.parametrize("name", ["best", "30.writing", "030", "-5", "3.5", "٣٠", "20 copy", "tmp_30"])
def test_stray_folders_and_files_are_no_checkpoints(tmp_path, name):
    folder = written(tmp_path, 20)
    shutil.copytree(folder / "20", folder / name)
    (folder / "40").write_text("a file")
    assert checkpoints.steps(folder) == [20]
    assert newest(folder).step == 20


def test_damaged_ones_are_set_aside_and_their_step_can_be_written_again(tmp_path):
    folder = written(tmp_path, 10, 20, 30, kept=3)
    checkpoints.set_aside(folder, after=10)
    assert checkpoints.steps(folder) == [10]
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20.damaged", "30.damaged"]
    written(folder, 20)
    assert newest(folder).step == 20


def test_a_step_that_is_there_already_is_replaced(tmp_path):
    folder = written(tmp_path, 10)
    break_arrays(folder / "10")
    checkpoints.save(folder, 10, small(11), FACTS, kept=2)
    chex.assert_trees_all_equal(checkpoints.restore(folder, 10, small()).arrays["params"], small(11)["params"])


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_named_and_leaves_no_fragment(tmp_path, monkeypatch):
    folder = written(tmp_path, 10)

    def full(self, place, *args, **kwargs):
        (place.parent / f"{place.name}.orbax-checkpoint-tmp" / "arrays").mkdir(parents=True)
        assert place.name == "20.writing"
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [os_error_code='28']")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        written(folder, 20)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(folder))
    assert os.listdir(folder) == ["10"]


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    """Orbax's writers would each print a traceback of their own."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**7, 9 * 10**6, 10**5))
    with pytest.raises(OSError, match="No space left on device") as error:
        written(tmp_path / "last", 10)
    assert error.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path / "last") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_quota_or_limit_is_noticed_before_anything_is_written(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        written(tmp_path / "last", 10)
    assert (error.value.errno, error.value.filename) == (number, str(tmp_path / "last"))
    assert os.listdir(tmp_path / "last") == []


def test_writers_that_go_on_after_a_failure_leave_nothing_either(tmp_path, monkeypatch):
    """Orbax writes in several threads: when one meets a full disk, the others have not ended yet."""
    more = [tmp_path / f"20.writing.orbax-checkpoint-tmp{number}" / "arrays" for number in range(5)]

    def full(self, place, *args, **kwargs):
        raise ValueError("No space left on device")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", full)
    monkeypatch.setattr(time, "sleep", lambda seconds: more and more.pop().mkdir(parents=True))
    with pytest.raises(OSError, match="No space left on device"):
        written(tmp_path, 20)
    assert more == [] and os.listdir(tmp_path) == []


@pytest.mark.parametrize("text, heard", [("No space left on device", False), ("another fault", True)])
def test_of_a_full_disk_only_one_message_is_heard(tmp_path, monkeypatch, caplog, text, heard):
    """Orbax's writers log tracebacks, and raise in threads where nobody catches it."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: unraisable.append(raised))

    def fail(self, place, *args, **kwargs):
        logging.getLogger("absl").error("a writer's traceback")
        logging.getLogger("absl").warning("a warning")
        sys.unraisablehook("a thread's traceback")
        raise ValueError(text)

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", fail)
    with pytest.raises((OSError, ValueError), match=text):
        written(tmp_path, 20)
    assert sorted(caplog.messages) == (["a warning", "a writer's traceback"] if heard else ["a warning"])
    assert unraisable == (["a thread's traceback"] if heard else [])
    logging.getLogger("absl").error("later")
    assert caplog.messages[-1] == "later"


@pytest.mark.parametrize("text, heard", [("File too large", False), ("another fault", True)])
def test_writers_that_are_thrown_away_after_a_full_disk_say_nothing(tmp_path, monkeypatch, caplog, text, heard):
    """Asyncio logs what nobody asked a task for when the task is thrown away, here after the failed checkpoint."""
    kept = []

    def fail(self, place, *args, **kwargs):
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            for words in ("File too large", text):
                kept.append(loop.create_future())
                kept[-1].set_exception(ValueError(words))
        raise ValueError("File too large")

    monkeypatch.setattr("orbax.checkpoint.Checkpointer.save", fail)
    with pytest.raises(OSError, match="File too large"):
        written(tmp_path, 20)
    kept.clear()
    gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records] == ([text] if heard else [])
