"""Images in, outlines and grades out, at each image's own resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from thyroid_jax import model
from thyroid_jax.config import Config, from_dict
from thyroid_jax.data.pipeline import letterbox, undo_letterbox
from thyroid_jax.files import read_json
from thyroid_jax.losses import grading
from thyroid_jax.shapes import Array, Float
from thyroid_jax.train.checkpoint import Checkpoints
from thyroid_jax.train.step import init_state


class Run(NamedTuple):
    """A trained model: its config, parameters, what its data were (grade names, target scaling), and the step it stopped
    at.
    """

    config: Config
    params: model.Params
    facts: dict[str, Any]
    step: int


class Prediction(NamedTuple):
    """What the model says about one image: ``probability f32[h w]`` of nodule at the image's own size, ``grades
    f32[k]``, sum 1.
    """

    probability: np.ndarray
    grades: np.ndarray


def load_run(run_dir: Path | str, *, checkpoint: str = "best") -> Run:
    """Read a run folder's config and its ``"best"`` or ``"last"`` checkpoint; a folder without either raises
    :class:`InputError`.
    """
    run_dir = Path(run_dir)
    config = from_dict(Config, read_json(run_dir / "config.json"), where=str(run_dir / "config.json"))
    one = SingleDeviceSharding(jax.devices()[0])
    layout = jax.tree.map(lambda leaf: leaf.update(sharding=one), jax.eval_shape(partial(init_state, config)))
    with Checkpoints(run_dir / "checkpoints", create=False) as checkpoints:
        state, _, facts = checkpoints.restore(layout, checkpoint)
    return Run(config, state.params, facts, int(state.step))


@partial(jax.jit, static_argnums=1)
def forward(
    params: model.Params, config: Config, image: Float[Array, "b h w 1"]
) -> tuple[Float[Array, "b h w"], Float[Array, "b k"]]:
    """Nodule probability of every pixel and grade probabilities, for a batch at network size."""
    outputs = model.apply(params, config.model, image)
    return jax.nn.sigmoid(outputs.mask_logits), grading.probabilities(outputs.grade_logits, kind=config.grading.kind)


def predict(run: Run, images: Sequence[np.ndarray], *, batch_size: int = 8) -> Iterator[Prediction]:
    """Predict uint8[h w] images of any sizes, one after the other, in batches of one compiled shape.

    Each image should be cropped to the scan, as the training data were.
    """
    size = (run.config.data.height, run.config.data.width)
    for start in range(0, len(images), batch_size):
        chunk = images[start : start + batch_size]
        batch = np.zeros((batch_size, *size, 1), np.float32)
        for row, image in enumerate(chunk):
            batch[row, ..., 0] = letterbox(image, size) / np.float32(255)
        probability, grades = jax.device_get(forward(run.params, run.config, batch))
        for row, image in enumerate(chunk):
            yield Prediction(undo_letterbox(probability[row], image.shape), grades[row])
