"""The schedule is optax's with numbers that may be traced; weight decay leaves biases and scales alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from thyroid_jax.errors import InputError
from thyroid_jax.train.optimizer import OptimizerConfig, averaged, learning_rate, optimizer


@pytest.mark.parametrize("total, warmup, share", [(1000, 0.05, 0.01), (37, 0.1, 0.0), (8, 0.0, 0.5), (1, 1.0, 0.1)])
def test_the_schedule_is_optaxs(total, warmup, share):
    settings = OptimizerConfig(learning_rate=0.02, warmup=warmup, final_share=share)
    steps = max(1, round(warmup * total))
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.02, steps, max(total, steps + 1), end_value=0.02 * share)
    ours = jax.jit(lambda settings, step, total: learning_rate(settings, step, total))
    for step in range(total + 3):
        assert float(ours(settings, step, float(total))) == pytest.approx(float(theirs(step)), rel=1e-5, abs=1e-9)


def test_without_a_known_length_the_rate_is_constant():
    settings = OptimizerConfig()
    assert [float(learning_rate(settings, step, 0.0)) for step in (0, 1, 1000)] == 3 * [pytest.approx(3e-3)]


@pytest.fixture
def params():
    return {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0), "scale": jnp.ones(())}


def test_a_decay_of_the_heads_needs_one_to_multiply():
    with pytest.raises(InputError, match=r"head_decay is 300.*weight_decay, which is 0"):
        OptimizerConfig(head_decay=300.0, weight_decay=0.0)
    assert OptimizerConfig(weight_decay=0.0).head_decay == 1


def test_weight_decay_leaves_biases_and_scales_alone(params):
    transform = optimizer(OptimizerConfig(learning_rate=0.1, weight_decay=0.5), 0.0)
    nothing = jax.tree.map(jnp.zeros_like, params)
    change, _ = transform.update(nothing, transform.init(params), params)
    np.testing.assert_allclose(change["kernel"], -0.1 * 0.5 * params["kernel"], rtol=1e-6)
    assert float(jnp.abs(change["bias"]).max()) == float(change["scale"]) == 0


def test_the_heads_have_a_decay_of_their_own(params):
    tree = {"heads": {"classify": params}, "decoder": params}
    transform = optimizer(OptimizerConfig(learning_rate=0.1, weight_decay=0.5, head_decay=30.0), 0.0)
    change, _ = transform.update(jax.tree.map(jnp.zeros_like, tree), transform.init(tree), tree)
    heads, decoder = change["heads"]["classify"], change["decoder"]
    np.testing.assert_allclose(decoder["kernel"], -0.1 * 0.5 * params["kernel"], rtol=1e-6)
    np.testing.assert_allclose(heads["kernel"], -0.1 * 0.5 * 30 * params["kernel"], rtol=1e-6)
    assert float(jnp.abs(heads["bias"]).max()) == float(heads["scale"]) == 0


def test_the_update_is_that_of_optax_with_the_same_numbers(params):
    """Clipping on and off, by traced numbers, in one program."""
    gradient = jax.tree.map(lambda p: 3.0 * p, params)

    @jax.jit
    def ours(settings, state):
        return optimizer(settings, 0.0).update(gradient, state, params)[0]

    for clip in (1.0, 0.0):
        settings = OptimizerConfig(learning_rate=0.05, clip=clip, b1=0.8, b2=0.95)
        adamw = optax.adamw(0.05, b1=0.8, b2=0.95, weight_decay=1e-2, mask=jax.tree.map(lambda p: p.ndim > 1, params))
        theirs = optax.chain(optax.clip_by_global_norm(clip), adamw) if clip else adamw
        expected, _ = theirs.update(gradient, theirs.init(params), params)
        found = ours(settings, optimizer(settings, 0.0).init(params))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert ours._cache_size() == 1


def test_finer_levels_of_the_encoder_learn_slower_and_frozen_ones_stay():
    params = {"encoder": {"stem": jnp.ones((2, 2)), "middle": jnp.ones((2, 2)), "last": jnp.ones(2)},
              "decoder": {"last": jnp.ones((2, 2))}}  # fmt: skip
    levels = {"stem": 0, "middle": 1, "last": 2}
    gradient = jax.tree.map(jnp.ones_like, params)
    alike, slower, held = (
        optimizer(OptimizerConfig(learning_rate=0.1, encoder_rate=rate, level_decay=decay), 0.0, levels, frozen)
        for rate, decay, frozen in ((1.0, 1.0, 0), (0.5, 0.1, 0), (0.5, 0.1, 1))
    )
    plain, slow, still = (t.update(gradient, t.init(params), params)[0] for t in (alike, slower, held))
    shares = jax.tree.map(lambda one, two: float((one / two).mean()), slow, plain)
    assert shares["decoder"]["last"] == 1.0
    assert shares["encoder"] == {name: pytest.approx(0.5 * 0.1 ** (2 - level)) for name, level in levels.items()}
    assert float(jnp.abs(still["encoder"]["stem"]).max()) == 0.0  # and not decayed either
    np.testing.assert_array_equal(still["encoder"]["middle"], slow["encoder"]["middle"])


def test_the_average_forgets_the_start_and_then_follows_slowly():
    settings, value, expected = OptimizerConfig(average=4), jnp.float32(100.0), 100.0
    for step in range(40):
        decay = min(0.75, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step % 3)
        value = averaged(settings, value, jnp.float32(step % 3), step)
        assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(value) == pytest.approx(1.0, abs=0.3)


def test_the_average_of_a_parameter_that_does_not_move_is_that_parameter_bit_for_bit():
    still = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    follow = jax.jit(lambda average, step: averaged(OptimizerConfig(average=100), average, still, step))
    found = still
    for step in range(200):
        found = follow(found, step)
    np.testing.assert_array_equal(found, still)


@pytest.mark.parametrize("field, value", [("b1", 1.0), ("learning_rate", -1e-3), ("final_share", 1.1), ("clip", -1.0)])
def test_impossible_numbers_are_named(field, value):
    with pytest.raises(InputError, match=rf"optimizer\.{field} is"):
        OptimizerConfig(**{field: value})
