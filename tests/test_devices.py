"""The same update on one, two and eight devices."""

import dataclasses

import chex
import jax
import pytest

from thyroid_jax.config import Config, ModelConfig, MTLConfig, RLARConfig, TrainConfig
from thyroid_jax.errors import InputError
from thyroid_jax.train import init_state, update
from thyroid_jax.train.devices import check_divides, copy, data_mesh, spread

CONFIG = Config(
    model=ModelConfig.preset("tiny", radiomics=11),
    rlar=RLARConfig(weight=5.0, ramp=0.0),
    train=TrainConfig(total_steps=10),
)


BY_TASK = dataclasses.replace(
    CONFIG, rlar=RLARConfig(weight=0.3, ramp=0.0, scale="relative"), mtl=MTLConfig(method="mgda", at="parameters")
)


@pytest.mark.parametrize("config, counts", [(CONFIG, (1, 2, 8)), (BY_TASK, (1, 8))], ids=["reverse", "by task"])
def test_the_number_of_devices_does_not_change_the_update(config, counts, make_batch):
    batch = make_batch(b=8)
    found = []
    for count in counts:
        mesh = data_mesh(jax.devices()[:count])
        state = copy(init_state(config), mesh)
        chex.clear_trace_counter()
        step = jax.jit(chex.assert_max_traces(update, 1), static_argnums=2, donate_argnums=0)
        for _ in range(3):
            state, metrics = step(state, spread(batch, mesh), config)
        for leaf in jax.tree.leaves(state):
            assert len(leaf.sharding.device_set) == count and leaf.is_fully_replicated
        found.append(jax.device_get((state.params, metrics)))
    for other in found[1:]:
        chex.assert_trees_all_close(other, found[0], rtol=2e-3, atol=2e-5)


def test_a_batch_that_devices_cannot_share_evenly_is_refused():
    with pytest.raises(InputError, match=r"batch_size is 12.*multiple of the number of devices, 8"):
        check_divides(12, data_mesh())
