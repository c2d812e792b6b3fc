"""A small run in this process, for tests of the loop: two epochs of five steps on random images, on one device."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import checkpoints
from thyroid_jax.batch import Batch
from thyroid_jax.data.pipeline import Examples
from thyroid_jax.train.devices import by_jit
from thyroid_jax.train.log import without_machine
from thyroid_jax.train.loop import fit
from thyroid_jax.train.options import ProcessOptions, TrainConfig
from thyroid_jax.train.saving import Progress, resumed
from thyroid_jax.train.step import init_state, unpacked

CONFIG = TrainConfig(epochs=2, batch_size=4, evaluate_every=2, diagnose_every=3)
STEPS, PER_EPOCH = 10, 5
# Settings of the smallest network, of an outline and a grade alone: the loop is the same for any.
LITTLE = {
    "model": {"width": 2, "depth": 1, "groups": 1, "hidden": 4},
    "malignancy": {"weight": 0.0},
    "guidance": {"weight": 0.0},
}


class Killed(BaseException):
    """The end of a process, at a moment that a test chooses."""


class ToyRun:
    """A recipe with its data; ``train`` starts a run in a folder, or resumes it as a new process would."""

    def __init__(self, recipe, make_batch, config=CONFIG):
        part = lambda count, seed: Examples(
            make_batch(b=count, seed=seed), tuple(f"{seed}-{place}" for place in range(count))
        )
        self.recipe, self.config = recipe, config
        self.training, self.validation = part(18, 0), part(5, 1)  # the fifth batch of an epoch is padded
        self.spread = by_jit(jax.devices()[:1])
        self.echoed = []

    def fresh(self):
        return init_state(self.recipe, jax.random.key(3))

    def saved(self, run_dir):
        layout = jax.eval_shape(self.fresh)
        like = lambda facts: layout.packed() | {"fitted": self.recipe.fitted}
        return checkpoints.newest(run_dir / "checkpoints" / "last", like, echo=self.echoed.append)

    def start(self, run_dir):
        saved = self.saved(run_dir)
        if saved is None:
            return Progress(self.fresh(), None)
        return resumed(unpacked(saved.arrays), saved.facts)

    def train(self, run_dir, stop=lambda: False, *, config=None, **options):
        run_dir.mkdir(exist_ok=True)
        return fit(
            run_dir,
            self.recipe,
            config or self.config,
            self.start(run_dir),
            self.training,
            self.validation,
            self.spread,
            facts={"grades": ["a"]},
            options=ProcessOptions(**options),
            stop=stop,
            echo=self.echoed.append,
        )


class DoubleRun(ToyRun):
    """A run of 21 examples in batches of 8, in double precision; labels are missing unevenly.

    The third batch of an epoch has five examples: of four processes, the last one has none of them.
    """

    def __init__(self, spread):
        from helpers import double_precision

        from thyroid_jax.config import Config, recipe_of, replace_groups
        from thyroid_jax.model import PRESETS
        from thyroid_jax.recipe import Fitted

        config = replace_groups(
            Config(),
            model=PRESETS["tiny"] | LITTLE["model"],
        )
        fitted = Fitted.neutral(5, 13, len(config.consistency.features), total_steps=12.0)
        self.recipe = double_precision(recipe_of(config, fitted=fitted))
        self.config = TrainConfig(epochs=4, batch_size=8, evaluate_every=2, diagnose_every=5)
        self.training, self.validation = double_examples(21, seed=0), double_examples(11, seed=1)
        self.spread, self.echoed = spread, []

    def fresh(self):
        return drawn_state(self.recipe)


def drawn_state(recipe):
    """A fresh state in double precision whose parameters NumPy draws: no process has to compile the library's draws."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_state(recipe, jax.random.key(0)))
    wide = lambda leaf: jnp.float64 if leaf.dtype == jnp.float32 else leaf.dtype
    drawn = lambda path, leaf: rng.normal(path[-1].key == "scale", 0.3, leaf.shape)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, wide(leaf)), shapes._replace(params={}, key=()))
    params = jax.tree_util.tree_map_with_path(drawn, shapes.params)
    return jax.tree.map(jnp.asarray, zeros._replace(params=params, key=jax.random.key(3)))


def double_examples(count, seed):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:16, :24]
    centres = rng.uniform(0.35, 0.65, (count, 2)) * [16, 24]
    mask = ((rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2 < 16).astype(float)
    batch = Batch(
        image=np.clip(0.5 - 0.2 * mask + 0.1 * rng.normal(size=mask.shape), 0, 1)[..., None],
        mask=mask,
        grade=np.eye(5)[rng.integers(5, size=count)],
        malignant=rng.integers(2, size=count).astype(float),
        radiomics=rng.normal(size=(count, 13)),
        mask_valid=np.arange(count) % 3 > 0,
        grade_valid=np.arange(count) % 4 != 2,
        malignant_valid=np.arange(count) % 5 != 1,
        radiomics_valid=np.arange(count) % 3 > 0,
        example_valid=np.ones(count, bool),
    )
    return Examples(batch, tuple(f"{seed}-{place}" for place in range(count)))


def after(steps):
    """A ``stop`` that is true from the given number of steps on; it is asked once before them."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps


def killed_after(steps):
    """A ``stop`` that ends the process at its ``steps``-th step."""
    asked = iter(range(10**6))

    def stop():
        if next(asked) == steps:
            raise Killed
        return False

    return stop


def rows(run_dir):
    return [without_machine(json.loads(line)) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def arrays_of(run, run_dir, which="last"):
    """The restored trees of the newest checkpoint, as NumPy arrays."""
    folder = run_dir / "checkpoints" / which
    state = jax.eval_shape(run.fresh)
    like = (state.packed() if which == "last" else {"params": state.evaluated}) | {"fitted": run.recipe.fitted}
    saved = checkpoints.restore(folder, checkpoints.steps(folder)[0], like)
    is_key = lambda leaf: jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda leaf: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf), saved.arrays)


def assert_rows_close(ours, theirs):
    """Every value of two logs to 1e-6; the same rows and columns."""
    assert [list(row) for row in ours] == [list(row) for row in theirs]
    for row, other in zip(ours, theirs):
        for name, value in other.items():
            close = value if isinstance(value, str | None) else pytest.approx(value, rel=1e-6, abs=1e-9)
            assert row[name] == close, (name, row[name], value)
