"""One update as a pure function, and the loop around it."""

from thyroid_jax.train.objective import objective
from thyroid_jax.train.optimizer import learning_rate
from thyroid_jax.train.step import TrainState, evaluate_step, init_state, train_step, update

__all__ = ["TrainState", "evaluate_step", "init_state", "learning_rate", "objective", "train_step", "update"]
