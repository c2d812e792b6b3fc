"""One update as a pure function, and the loop around it."""

from thyroid_jax.train.objective import Metrics, Pair, objective
from thyroid_jax.train.step import TrainState, evaluate_step, init_state, learning_rate, train_step, update

__all__ = [
    "Metrics",
    "Pair",
    "TrainState",
    "evaluate_step",
    "init_state",
    "learning_rate",
    "objective",
    "train_step",
    "update",
]
