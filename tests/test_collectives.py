"""What the devices of a training step add up: one number for each parameter, and a few for losses and metrics."""

import jax
import pytest

from experiments.collectives import Arguments, Collective, collectives, compiled_step, parameter_bytes, rows_of

SMALL = {"model": {"width": 2, "groups": 1, "hidden": 4}}


def test_operations_are_read_from_a_program():
    program = """
  %a = f32[3,4]{1,0} all-reduce(%x), channel_id=1
  %b = (f32[2]{0}, s32[], pred[5]{0}) all-reduce(%x, %y, %z), channel_id=2
  ROOT %c = bf16[8,2]{1,0} all-gather(%x), dimensions={0}
  %d = f64[2]{0} all-reduce-start(%x)
  %e = f64[2]{0} all-reduce-done(%d)
  %f = f32[7]{0} add(%all-reduce.1, %x)
"""
    assert collectives(program) == [
        Collective("all-reduce", 1, 48),
        Collective("all-reduce", 3, 8 + 4 + 5),
        Collective("all-gather", 1, 32),
        Collective("all-reduce", 1, 16),
    ]
    with pytest.raises(KeyError):
        collectives("%a = c64[3] all-reduce(%x)")


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_a_step_adds_up_each_parameter_once_and_all_in_one_operation(mode, tiny_recipe, make_batch):
    """With RLAR: its second-order part and the plain part of a gradient are added before they go over the wire."""
    recipe = tiny_recipe(**SMALL, rlar={"weight": 1.0})
    found = collectives(compiled_step(mode, recipe, make_batch(b=jax.device_count())))
    assert jax.device_count() == 8 and {operation.kind for operation in found} == {"all-reduce"}
    sums_and_counts = 64  # numbers, at most
    parameters = parameter_bytes(recipe)
    assert parameters <= sum(operation.size for operation in found) <= parameters + 4 * sums_and_counts
    assert len([operation for operation in found if operation.size > 4 * sums_and_counts]) == 1
    assert max(operation.size for operation in found) >= parameters


def test_a_row_says_what_the_devices_of_a_config_add_up():
    (row,) = rows_of(Arguments(config=("tiny", "only_segmentation"), modes=("jit",)))
    devices, mode, _, total, parameters, ratio = row.strip("| ").split(" | ")
    number = lambda text: int(text.replace(",", ""))
    assert (devices, mode) == ("8", "jit") and float(ratio) == round(number(total) / number(parameters), 3)
