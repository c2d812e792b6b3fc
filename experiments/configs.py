"""Named starting points for ``--config NAME``; any field can still be changed on the command line."""

from __future__ import annotations

from thyroid_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig


def small() -> Config:
    """A million parameters at 128 x 192, for two CPU cores.

    python -m experiments.train --config small --data.name ddti --data.dir data --run-dir runs/ddti
    """
    return Config()


def base() -> Config:
    """21 million parameters at 256 x 384 in bfloat16, for one GPU or TPU core.

    python -m experiments.train --config base --data.name ddti --data.dir data --run-dir runs/ddti-base
    """
    return Config(
        model=ModelConfig.preset("base", dtype="bfloat16"),
        data=DataConfig(height=256, width=384),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        train=TrainConfig(epochs=150, batch_size=16),
    )


def tiny() -> Config:
    """A few thousand parameters at 32 x 32: seconds, for trying a pipeline out.

    python -m experiments.train --config tiny --data.name phantom --data.dir data --run-dir runs/tiny
    """
    return Config(
        model=ModelConfig.preset("tiny"),
        data=DataConfig(name="phantom", height=32, width=32),
        train=TrainConfig(epochs=2, evaluate_every=1),
    )


def demo() -> Config:
    """Half a million parameters at 96 x 96 on phantoms, trained on two simulated readers; what `make demo` runs."""
    return Config(
        model=ModelConfig.preset("small", depth=4),
        data=DataConfig(name="phantom", height=96, width=96),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        train=TrainConfig(epochs=20, batch_size=16, evaluate_every=4),
    )


CONFIGS = {"small": small, "demo": demo, "base": base, "tiny": tiny}
