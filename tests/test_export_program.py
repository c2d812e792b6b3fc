"""The exported program has the run's answers at any batch size; safetensors hold its parameters to the bit."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import params_of

from thyroid_jax import export, model, predict
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.export import program
from thyroid_jax.model import depthwise, weight_files
from thyroid_jax.model.weight_files import SAFETENSORS_TYPES
from thyroid_jax.tasks import TASKS

pytest.importorskip("flatbuffers", reason="jax writes a program with it: the extra export")


def network_images(trained, rows, seed=0):
    size = (trained.config.data.height, trained.config.data.width, 1)
    return np.random.default_rng(seed).integers(0, 256, (rows, *size), np.uint8)


def untrained(**groups):
    """A model of fresh parameters whose outline is not empty, as if it had been trained."""
    config = replace_groups(Config(), **{"model": model.PRESETS["tiny"], "data": {"height": 24, "width": 32}} | groups)
    recipe = recipe_of(config, grades=3)
    params = params_of(recipe)
    known = {"grades": ["a", "b", "c"], "tasks": [task.name for task in recipe.tasks]}
    return predict.Trained(config, recipe, params, known, 0)


def called(lowered, trained, images):
    """The answers of a program after it has been written and read back."""
    from jax import export as jax_export

    again = jax_export.deserialize(lowered.exported.serialize())
    return jax.device_get(again.call(export.flat_parameters(trained.params), images))


def test_measured_evidence_and_pooling_over_the_nodule_take_any_batch_size():
    trained = untrained(model=model.PRESETS["tiny"] | {"evidence": "measured", "pooling": "nodule", "pooled_levels": 2})
    lowered = program.lower(trained, ("cpu", "cuda", "tpu"), pytest.fail)
    assert lowered.batch is None and lowered.forms_of == ("measured evidence",) and lowered.traced_on == "cpu"
    images = network_images(trained, 3)
    images[:, 6:18, 8:24] //= 3
    wanted = jax.device_get(predict.forward(trained.params, trained.recipe, images))
    assert 16 < (wanted["segmentation"] >= 0.5).sum((1, 2)).min()  # so that there is something to measure
    for rows in (1, 3):
        found = called(lowered, trained, images[:rows])
        assert set(found) == set(wanted)
        for name, values in found.items():
            np.testing.assert_allclose(values, wanted[name][:rows], atol=1e-5)


def test_depthwise_convolutions_are_the_same_on_every_platform_of_a_program():
    """What is lowered for several platforms is called here on a CPU, and compared with both forms."""
    from jax import export as jax_export

    x = jax.random.normal(jax.random.key(0), (3, 9, 8, 4))
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 1, 4))
    rows = jax.ShapeDtypeStruct((*jax_export.symbolic_shape("b"), 9, 8, 4), jnp.float32)
    layer = jax.jit(partial(depthwise.depthwise, stride=2))
    found = jax_export.export(layer, platforms=("cpu", "cuda", "tpu"))(rows, kernel).call(x, kernel)
    for form in (depthwise.shifted, depthwise.grouped):
        np.testing.assert_allclose(found, form(x, kernel, 2), atol=1e-5)


def test_a_published_encoder_is_lowered_for_every_platform_and_says_which_forms_it_runs():
    fields = {"encoder": "efficientnet_lite0", "frozen_levels": 5}
    config = replace_groups(
        Config(), model=fields, train={"encoder_weights": "package"}, data={"height": 32, "width": 32}
    )
    recipe = recipe_of(config, grades=3)
    layout = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), predict.layout(recipe))
    trained = predict.Trained(config, recipe, layout, {"grades": ["a", "b", "c"], "tasks": []}, 0)
    lowered = program.lower(trained, ("cpu", "cuda", "tpu"), pytest.fail)
    assert lowered.batch is None and lowered.forms_of == ("depthwise convolutions",)
    assert program.lower(untrained(), ("cpu",), pytest.fail).forms_of == ()


def test_a_task_that_needs_to_know_the_batch_fixes_it_and_says_so():
    trained, told = untrained(), []
    counting = dataclasses.replace(
        TASKS[2], head=lambda params, config, latent: jnp.asarray(np.arange(int(latent.z.shape[0])), jnp.float32)
    )
    trained = trained._replace(recipe=trained.recipe.replace(tasks=(TASKS[1], counting)))
    lowered = program.lower(trained, ("cpu",), told.append)
    assert lowered.batch == program.FIXED_BATCH and "the batch size is fixed to 8" in told[0] and len(told) == 1
    images = network_images(trained, 8)
    wanted = predict.forward(trained.params, trained.recipe, images)
    np.testing.assert_allclose(called(lowered, trained, images)["grading"], wanted["grading"], atol=1e-5)
    with pytest.raises(ValueError):
        called(lowered, trained, images[:3])


def test_a_fault_that_has_nothing_to_do_with_the_batch_is_raised():
    def broken(params, config, latent):
        raise ZeroDivisionError("a fault")

    trained = untrained()
    trained = trained._replace(recipe=trained.recipe.replace(tasks=(dataclasses.replace(TASKS[1], head=broken),)))
    with pytest.raises(ZeroDivisionError):
        program.lower(trained, ("cpu",), pytest.fail)


@pytest.mark.parametrize("platforms", [(), ("gpu",), ("cpu", "cpu")])
def test_platforms_that_do_not_exist_are_refused(platforms):
    with pytest.raises(ValueError, match="name one or several of cpu, cuda, tpu, rocm"):
        program.lower(untrained(), platforms)


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_safetensors_are_read_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a/kernel": rng.normal(size=(3, 3, 2)).astype(np.float32),
        "a/odd": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "a/nan": np.array([0x7FC01234], np.uint32).view(np.float32),
        "b": np.float32(2.5).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "double": rng.normal(size=(2, 2)),
        "half": rng.normal(size=3).astype(np.float16),
        "short": rng.normal(size=5).astype(jnp.bfloat16),
        "whole": np.array([-(1 << 62), 7]),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "é": np.ones(1, np.float32),
    }
    assert {array.dtype for array in arrays.values()} == set(SAFETENSORS_TYPES.values())
    content = program.safetensors(arrays)
    (tmp_path / "x.safetensors").write_bytes(content)
    found, _ = weight_files.read(tmp_path / "x.safetensors")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert (8 + int.from_bytes(content[:8], "little")) % 8 == 0
    big = program.safetensors({"a": arrays["double"].astype(">f8")})
    assert big == program.safetensors({"a": arrays["double"]})


def test_the_layout_of_safetensors_by_hand():
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    padded = header + b" " * (-len(header) % 8)
    wanted = len(padded).to_bytes(8, "little") + padded + b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    assert program.safetensors({"a": np.array([1, -2], np.float32)}) == wanted


def test_what_safetensors_or_slash_paths_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="a is of type int32"):
        program.safetensors({"a": np.zeros(2, np.int32)})
    for params in ({"a": {}, "b": np.zeros(1)}, {"a/b": np.zeros(1)}):
        with pytest.raises(ValueError, match="slash paths cannot name them"):
            program.flat_parameters(params)
