"""The benchmark's variants are settings that can be trained, and no two of a group are the same."""

import typing

import pytest

from experiments.benchmark import Arguments, configure, variants

GROUPS = typing.get_args(typing.get_type_hints(Arguments)["only"])


@pytest.mark.parametrize("group", GROUPS)
def test_every_variant_is_a_config_of_its_own(group):
    arguments = Arguments(only=group, pixels=(64, 96), flags=("xla_a=1",) if group == "flags" else ())
    found = variants(arguments)
    assert next(iter(found)) == ("float32, plain" if group == "memory" else "plain")
    configs = {name: configure(arguments, variant) for name, variant in found.items()}
    assert {(config.data.height, config.data.width) for config in configs.values()} == {(64, 96)}
    different = {(str(configs[name]), variant.flags, variant.keeps) for name, variant in found.items()}
    assert len(different) == len(found)


def test_memory_compares_precision_recomputing_and_parts():
    found = [configure(Arguments(only="memory"), variant) for variant in variants(Arguments(only="memory")).values()]
    values = {(c.model.dtype, bool(c.rlar.weight), c.model.remat, c.train.accumulate) for c in found}
    for dtype in ("float32", "bfloat16"):
        for rlar in (False, True):
            for remat, parts in (("none", 1), ("activations", 1), ("blocks", 1), ("none", 4)):
                assert (dtype, rlar, remat, parts) in values
